"""Stochastic Newton: at the statistical limit, on every kind of target, with every way to end."""

import numpy as np
import pytest
import torch

import otgan as og
from otgan import kernels
from otgan.solvers._candidates import Candidates
from otgan.solvers._coarse import hierarchy
from otgan.solvers._scores import Scores
from otgan.solvers._semidual import Descent, Hessian
from otgan.solvers.stochastic import StochasticNewton


def solve(source, target, tol=1e-9, **options):
    """The solver with a budget of N / n samples, or with a tolerance."""
    run = {name: options.pop(name) for name in ("seed", "max_time", "callback", "certify_samples") if name in options}
    return og.solve(source, target, method=StochasticNewton(**options), tol=tol, **run)


def clusters(n, dim, spread, seed=0):
    rng = np.random.default_rng(seed)
    return (3 * rng.normal(size=(10, dim)))[rng.integers(0, 10, n)] + spread * rng.normal(size=(n, dim))


def slabs(n, dim):
    """Targets ((j - 1/2) / n, 1/2, ..): cells are slabs of equal width, and mass travels through all in between."""
    y = np.full((n, dim), 0.5)
    y[:, 0] = (np.arange(n) + 0.5) / n
    return y


def inefficiency(result, seed=99):
    """Chi2 on fresh samples over (n - 1) / N with N all samples drawn, its standard error, empty cells."""
    n = result.target.n
    cert = og.certify(result.potential, result.source, 200 * n, seed=seed)
    unit = (n - 1) / result.n_samples
    return cert.chi2 / unit, cert.chi2_stderr / unit, cert.empty_cells


PROBLEMS = {
    "clusters": lambda: (og.Gaussian(10), clusters(800, 10, 0.5)),
    "tight clusters": lambda: (og.UniformBox(dim=10), clusters(800, 10, 0.02)),
    "cube": lambda: (og.Gaussian(10), np.random.default_rng(0).random((800, 10))),
    "32 dimensions": lambda: (og.Gaussian(32), clusters(800, 32, 1.0)),
    "outside": lambda: (og.UniformBox(dim=8), 100 + np.random.default_rng(0).normal(size=(600, 8))),
    "slabs": lambda: (og.UniformBox(dim=10), slabs(500, 10)),
    "plane": lambda: (og.Gaussian(2), np.random.default_rng(0).normal(size=(600, 2))),
    "space": lambda: (og.Gaussian(3), np.random.default_rng(0).normal(size=(600, 3))),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_statistical_limit(name):
    source, y = PROBLEMS[name]()
    result = solve(source, y, samples_per_target=50, certify_samples=2000)
    assert result.n_samples == 50 * len(y)
    ratio, stderr, empty = inefficiency(result)
    assert ratio < 1.3 + 2 * stderr and empty == 0


def test_batches_estimate_chi2_without_bias():
    source, y = og.Gaussian(8), np.random.default_rng(3).normal(size=(500, 8))
    result = solve(source, y, samples_per_target=60, certify_samples=400_000)
    last = result.history[-1]
    error = (last["chi2_stderr"] ** 2 + result.certificate.chi2_stderr**2) ** 0.5
    assert abs(last["chi2"] - result.certificate.chi2) < 4 * error


@pytest.mark.parametrize("samples", [12.0, 12.9, 25.0])
def test_no_estimate_is_believed_that_few_samples_gave(samples):
    source, y = og.Gaussian(8), np.random.default_rng(0).normal(size=(400, 8))
    result = solve(source, y, samples_per_target=samples, certify_samples=2000)
    batches = [entry for entry in result.history if "batch" in entry]
    assert batches and result.n_samples == int(samples * 400)
    for entry in batches:
        assert entry["chi2_stderr"] > 0.0 and abs(entry["chi2"]) < 0.2 + 4 * entry["chi2_stderr"]
    assert abs(result.history[-1]["chi2"] - result.certificate.chi2) < 0.2 + 4 * result.history[-1]["chi2_stderr"]


@pytest.mark.parametrize("tol", [0.1, 0.02])
def test_tolerance_is_reached_with_few_samples(tol):
    source, y = og.Gaussian(6), clusters(400, 6, 0.5)
    result = solve(source, y, tol=tol, certify_samples=400_000)
    assert result.converged, result.message
    assert result.certificate.chi2 < 1.3 * tol
    assert result.n_samples < max(3 * 400 / tol, 10_000)


def test_planted_heights_are_found():
    source, stream = og.Gaussian(5), torch.Generator().manual_seed(0)
    y = torch.randn(150, 5, generator=stream, dtype=torch.float64)
    h = -0.1 * (y**2).sum(1) + 0.1 * torch.randn(150, generator=stream, dtype=torch.float64)
    h += kernels.slack(source.sample(20_000, seed=1, dtype=torch.float64), y, h)
    for least in (2000, 0):  # small cells go, and masses are counted again without them
        x = source.sample(1_000_000, seed=2)
        counts = torch.bincount(og.BrenierPotential(y, h).assign(x), minlength=len(y)).double()
        y, h, b = y[counts >= least], h[counts >= least], counts[counts >= least] / counts.sum()
    result = solve(source, og.DiscreteMeasure(y, b), samples_per_target=2000)
    found, wanted = result.potential.heights, h - b @ h
    assert float((found - found @ b - wanted).abs() @ b) < 0.1 * float(wanted.abs() @ b)


def test_weights_of_ratio_a_thousand():
    rng = np.random.default_rng(0)
    b = np.exp(rng.uniform(0, np.log(1e3), 400))
    nu = og.DiscreteMeasure(rng.normal(size=(400, 6)), b)
    result = solve(og.Gaussian(6), nu, samples_per_target=100)
    ratio, stderr, _ = inefficiency(result)
    assert ratio < 1.5 + 2 * stderr


@pytest.mark.parametrize(("n", "dim"), [(2, 2), (3, 1024), (7, 4), (40, 2), (150, 300)])
def test_any_size(n, dim):
    y = np.random.default_rng(n).normal(size=(n, dim))
    result = solve(og.Gaussian(dim), y, tol=0.05, certify_samples=100_000)
    assert result.converged, result.message
    assert result.certificate.chi2 < 0.08 and result.certificate.empty_cells == 0


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_targets_on_a_line_are_cut_at_quantiles(dim):
    rng = np.random.default_rng(dim)
    place, b = np.sort(rng.normal(size=40)), rng.dirichlet(np.ones(40))
    direction = np.ones(dim) / dim**0.5
    nu = og.DiscreteMeasure(0.3 + place[:, None] * direction, b)
    result = solve(og.Gaussian(dim), nu, samples_per_target=50_000, certify_samples=100_000)
    cuts = torch.distributions.Normal(0.0, 1.0).icdf(torch.from_numpy(np.cumsum(b)[:-1]))
    h = result.potential.heights
    assert np.abs(-np.diff(h.numpy()) / np.diff(place) - cuts.numpy()).max() < 0.02
    assert result.certificate.empty_cells == 0


def test_the_line_knows_the_quadratic_cost_only():
    with pytest.raises(ValueError, match="p = 2 on the line"):
        og.solve(og.Gaussian(1), np.arange(3.0)[:, None], "stochastic-newton", p=3.0)


@pytest.mark.parametrize("units", [1e-3, 1e3])
def test_units_and_origin_do_not_matter(units):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(300, 6))
    plain = solve(og.UniformBox(dim=6), y, samples_per_target=40, certify_samples=100_000)
    box = og.UniformBox(np.full(6, 1e4 * units), np.full(6, (1e4 + 1) * units))
    moved = solve(box, y * units - 1e4 * units, samples_per_target=40, certify_samples=100_000)
    assert plain.n_samples == moved.n_samples
    assert abs(plain.certificate.chi2 - moved.certificate.chi2) < 0.01


def test_same_seed_same_answer_and_global_state_is_untouched():
    y = np.random.default_rng(0).normal(size=(200, 5))
    before = torch.random.get_rng_state()
    a, b, c = (solve(og.Gaussian(5), y, tol=0.1, seed=s, certify_samples=2000) for s in (7, 7, 8))
    assert torch.equal(a.potential.heights, b.potential.heights)
    assert not torch.equal(a.potential.heights, c.potential.heights)
    assert torch.equal(before, torch.random.get_rng_state())


def test_ways_to_end():
    source, y = og.Gaussian(6), np.random.default_rng(0).normal(size=(300, 6))
    budget = solve(source, y, samples_per_target=30, certify_samples=2000)
    assert budget.status == "max_iter" and "samples_per_target" in budget.message

    steps = solve(source, y, max_iter=3, certify_samples=2000)
    assert steps.status == "max_iter" and steps.n_iter == 3

    timed = solve(source, y, tol=1e-5, max_time=0.7, certify_samples=2000)
    assert timed.status == "max_time" and timed.seconds < 20

    states = []
    stopped = solve(source, y, callback=lambda s: states.append(s) or s.n_iter >= 12, certify_samples=2000)
    assert stopped.status == "stopped" and stopped.n_iter == 12
    assert states[-1].method == "stochastic-newton" and states[-1].heights.shape == (300,)
    assert {s.detail["phase"] for s in states} == {"coarse", "stored", "streaming"}
    assert states[-1].detail["seconds_left"] >= 0.0

    def interrupt(state):
        if state.detail["phase"] == "streaming":
            raise KeyboardInterrupt

    interrupted = solve(source, y, callback=interrupt, certify_samples=100_000)
    assert interrupted.status == "interrupted" and interrupted.certificate.chi2 < 0.4

    one = solve(og.Gaussian(3), [[1.0, 2.0, 3.0]])
    assert one.converged and one.n_iter == 0 and one.n_samples == 0


ARC = np.stack([np.cos(np.arange(300) / 50), np.sin(np.arange(300) / 50), *np.full((2, 300), 0.5)], axis=1)
RUNS = {
    "clusters": (og.Gaussian(6), clusters(300, 6, 0.5), {"samples_per_target": 60}),
    "arc": (og.Gaussian(4), ARC, {"samples_per_target": 60}),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8, 1.0])
def test_a_resumed_run_equals_one_that_was_never_interrupted(name, share, tmp_path):
    source, y, options = RUNS[name]
    whole = solve(source, y, certify_samples=2000, **options)
    last = max(int(share * whole.n_iter), 1)

    def kill(state):
        if state.n_iter == last:
            raise RuntimeError("killed")

    method, where = StochasticNewton(**options), {"checkpoint": tmp_path / "progress", "checkpoint_every": 1e-9}
    with pytest.raises(RuntimeError, match="killed"):
        og.solve(source, y, method=method, tol=1e-9, callback=kill, **where)
    seen = []
    resumed = og.solve(
        source, y, method=method, tol=1e-9, callback=lambda s: seen.append(s.n_iter), certify_samples=2000, **where
    )
    assert min(seen, default=last + 1) > last
    assert torch.equal(resumed.potential.heights, whole.potential.heights)
    assert (resumed.n_iter, resumed.n_samples, resumed.n_scores) == (whole.n_iter, whole.n_samples, whole.n_scores)

    def timeless(result):
        return [{key: value for key, value in entry.items() if key != "seconds"} for entry in result.history]

    assert timeless(resumed) == timeless(whole)


def test_a_run_in_parts_ends_like_one_in_a_piece(tmp_path):
    source, y, options = RUNS["clusters"]
    whole = solve(source, y, certify_samples=2000, **options)
    for steps in range(7, whole.n_iter + 7, 7):  # each part saves where it ends
        method = StochasticNewton(**options, max_iter=steps)
        result = og.solve(source, y, method=method, tol=1e-9, checkpoint=tmp_path, certify_samples=2000)
    assert result.n_iter == whole.n_iter and result.n_samples == whole.n_samples
    assert torch.equal(result.potential.heights, whole.potential.heights)


def test_a_run_that_used_up_its_steps_does_none_when_it_is_repeated(tmp_path):
    source, y, options = RUNS["clusters"]
    method = StochasticNewton(**options, max_iter=5)
    for tol in (1e-9, 10.0):  # and where chi2 is within the tolerance, but samples are left to draw
        more = {"method": method, "tol": tol, "checkpoint": tmp_path / str(tol), "certify_samples": 2000}
        runs = [og.solve(source, y, **more) for _ in range(3)]
        assert [run.n_iter for run in runs] == [5, 5, 5] and {run.status for run in runs} == {"max_iter"}
        assert torch.equal(runs[0].potential.heights, runs[2].potential.heights)


def test_many_targets_start_from_an_eighth_of_them(monkeypatch, tmp_path):
    monkeypatch.setattr("otgan.solvers._stochastic_run._NESTED", 500)
    rng = np.random.default_rng(0)
    y, b = clusters(1600, 8, 0.5), rng.uniform(0.5, 2.0, 1600)
    source, nu = og.Gaussian(8), og.DiscreteMeasure(y, b)
    result = solve(source, nu, samples_per_target=50, certify_samples=2000)
    assert result.n_samples == 50 * 1600
    ratio, stderr, empty = inefficiency(result)
    assert ratio < 1.3 + 2 * stderr and empty == 0
    few = solve(source, nu, samples_per_target=6, max_stored=1600, certify_samples=100_000)
    assert few.certificate.chi2 < 2.0 / 6.0 + 0.1  # one stored sample a target: the limit is nearly 1 / 6
    for steps in (5, 9, 10_000):
        method = StochasticNewton(samples_per_target=50, max_iter=steps)
        resumed = og.solve(source, nu, method=method, tol=1e-9, checkpoint=tmp_path, certify_samples=2000)
    assert torch.equal(resumed.potential.heights, result.potential.heights)
    assert resumed.n_scores == result.n_scores


def test_checkpoints_of_other_problems_and_methods_are_refused(tmp_path):
    source, y, options = RUNS["clusters"]
    where = {"checkpoint": tmp_path, "certify_samples": 2000, "samples_per_target": 30}
    og.solve(source, y, "stochastic-newton", tol=1e-9, **where)
    for change in ({"seed": 1}, {"tol": 1e-8}, {"k": 16}):
        with pytest.raises(ValueError, match="progress of another run"):
            og.solve(source, y, "stochastic-newton", **{"tol": 1e-9, **where, **change})
    with pytest.raises(ValueError, match="progress of another run"):
        og.solve(source, y + 1.0, "stochastic-newton", tol=1e-9, **where)
    with pytest.raises(ValueError, match="saves no progress"):
        og.solve(source, y, "adam", checkpoint=tmp_path)
    og.BrenierPotential(y, np.zeros(len(y))).save(tmp_path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        og.solve(source, y, "stochastic-newton", tol=1e-9, **where)


@pytest.mark.parametrize("wrong", [{"stored": 0}, {"k": 1}, {"growth": -1.0}, {"samples_per_target": "many"}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        og.solve(og.Gaussian(4), np.eye(4), "stochastic-newton", **wrong)


def test_lists_called_proven_hold_every_target_near_the_best():
    stream = torch.Generator().manual_seed(0)
    x, y = torch.randn(700, 6, generator=stream), torch.randn(300, 6, generator=stream)
    h = -0.5 * (y.double() ** 2).sum(1).numpy()
    lists = Candidates(x, Scores(y), 20, lambda: None)
    assert lists.refresh(h, 0.5) == 1.0
    rng = np.random.default_rng(0)
    for size in (0.01, 0.1, 0.3):
        moved = h + size * rng.normal(size=300)
        moved[:3] += 2.0
        ok = lists.proven(moved, 0.1)
        scores = (x @ y.T).double().numpy() + moved
        near = scores >= scores.max(axis=1, keepdims=True) - 0.1
        listed = np.zeros_like(near)
        np.put_along_axis(listed, lists.index.astype(np.int64), True, axis=1)
        assert not (near & ~listed)[ok].any()
        assert ok.any() or size > 0.1
    share = lists.refresh(moved, 0.1)
    assert 0.0 < share <= 1.0 and lists.proven(moved, 0.0).all()


def test_semi_dual_gradient_and_hessian_by_finite_differences():
    stream = torch.Generator().manual_seed(1)
    x, y = torch.randn(500, 4, generator=stream), torch.randn(30, 4, generator=stream)
    lists, b, eps = Candidates(x, Scores(y), 30, lambda: None), np.full(30, 1 / 30), 0.7
    h = -0.5 * (y.double() ** 2).sum(1).numpy()
    lists.refresh(h, 0.0)
    v, t = np.random.default_rng(0).normal(size=30), 1e-3
    up, down = (Hessian.of(lists, h + s * t * v, eps).w for s in (1, -1))
    hessian, descent = Hessian.of(lists, h, eps), Descent(lists, h, b, 0.5)
    slope = (descent.energy(h + t * v, eps) - descent.energy(h - t * v, eps)) / (2 * t)
    assert slope == pytest.approx(float((hessian.w - b) @ v), rel=1e-4, abs=1e-7)
    np.testing.assert_allclose(hessian @ v, (up - down) / (2 * t), atol=1e-4)
    np.testing.assert_allclose(hessian.w, kernels.soft_counts(x, y, torch.from_numpy(h).float(), eps), atol=1e-5)
    dense = np.stack([hessian @ e for e in np.eye(30)])
    np.testing.assert_allclose(hessian.diagonal, np.diag(dense), atol=1e-7)
    found = hessian.solve(v, b / eps, rtol=1e-8)
    np.testing.assert_allclose(found, np.linalg.solve(dense + np.diag(b / eps), v), rtol=1e-4, atol=1e-5)


def test_newton_reaches_the_minimum_and_dead_targets_are_revived():
    stream = torch.Generator().manual_seed(1)
    x, y = torch.randn(2000, 4, generator=stream), torch.randn(40, 4, generator=stream)
    lists, b = Candidates(x, Scores(y), 10, lambda: None), np.full(40, 1 / 40)
    h = -0.5 * (y.double() ** 2).sum(1).numpy()
    h[:5] -= 50.0
    lists.refresh(h, 0.0)
    dead = lists.orphans()
    assert set(dead) == set(range(5))
    h = lists.revived(h, dead)
    lists.refresh(h, 0.0)
    assert len(lists.orphans()) == 0
    assert float(kernels.slack(x, y, torch.from_numpy(h).float()).max()) < 1e-4
    descent = Descent(lists, h, b, 0.5)
    steps = [descent.step() for _ in range(30)]
    assert min(step.chi2 for step in steps) < 1e-6


def test_starved_targets_are_filled_up_to_their_weight():
    stream = torch.Generator().manual_seed(2)
    x, y = torch.randn(4000, 5, generator=stream), torch.randn(50, 5, generator=stream)
    y[1] = y[0] + 1e-3 * y[2]  # a near copy, which soft masses hardly tell from the original
    lists, b = Candidates(x, Scores(y), 50, lambda: None), np.full(50, 1 / 50)
    descent = Descent(lists, -0.5 * (y.double() ** 2).sum(1).numpy(), b, 0.5)
    for _ in range(10):
        descent.step()
    h = descent.h.copy()
    h[1] -= 0.05
    h[7] -= 100.0
    assert list(np.flatnonzero(lists.masses(h) < 0.25 / 50)) == [1, 7]
    filled = lists.filled(h, b, 0.25)
    np.testing.assert_array_equal(np.delete(filled, [1, 7]), np.delete(h, [1, 7]))
    np.testing.assert_allclose(lists.masses(filled)[[1, 7]], 1 / 50, atol=2 / 4000)


@pytest.mark.parametrize("apart", [1e-2, 1e-3])
def test_near_copies_keep_cells_of_their_own(apart):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(600, 8))
    y[:60] = y[60:120] + apart * rng.normal(size=(60, 8))
    result = solve(og.Gaussian(8), y, samples_per_target=60, certify_samples=2000)
    ratio, stderr, empty = inefficiency(result)
    assert empty == 0
    assert ratio < 2.0 + 2 * stderr


def test_stiffness_of_cells_on_the_line(monkeypatch):
    monkeypatch.setattr("otgan.solvers._candidates.NEAREST", 400)
    x = torch.linspace(0, 1, 100_001)[:, None].float()
    y = torch.tensor([[0.0], [0.1], [1.0]])
    edges = np.array([0.3, 0.6])
    h = np.array([0.0, -0.1 * edges[0], -0.1 * edges[0] - 0.9 * edges[1]])
    lists = Candidates(x, Scores(y), 3, lambda: None)
    lists.refresh(h, 0.0)
    # An edge moves by 1 / |y_i - y_j| for a unit of height, and the cell in the middle has two.
    np.testing.assert_allclose(lists.stiffness(h), [1 / 0.1, 1 / 0.1 + 1 / 0.9, 1 / 0.9], rtol=0.02)


@pytest.mark.parametrize("n", [1, 2, 3, 100, 1001])
def test_hierarchy_halves_groups(n):
    points = np.random.default_rng(0).normal(size=(n, 3))
    points[: n // 2] = points[0]
    before = 0
    for groups in hierarchy(points, 64):
        sizes = np.bincount(groups.label, minlength=groups.count)
        assert sizes.min() >= 1 and np.ptp(sizes) <= 1 and sizes.sum() == n
        assert set(groups.padded().ravel()) == set(range(n))
        assert before < groups.count <= 64
        before = groups.count
