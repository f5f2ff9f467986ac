"""Adam on planted potentials, in any units, with every way to end."""

import numpy as np
import pytest
import torch

import otgan as og
from otgan import kernels
from otgan.solvers import Adam


def planted(source, n, seed=0, samples=1_000_000):
    """Targets, heights and the masses they have: the heights are then the answer (theory: planted potentials)."""
    stream = torch.Generator().manual_seed(seed)
    y = torch.randn(n, source.dim, generator=stream, dtype=torch.float64)
    h = -0.1 * (y**2).sum(1) + 0.1 * torch.randn(n, generator=stream, dtype=torch.float64)
    x = source.sample(20_000, seed=seed + 1, dtype=torch.float64)
    h += kernels.slack(x, y, h)  # every cell touches a sample
    u = og.BrenierPotential(y, h)
    counts = torch.bincount(u.assign(source.sample(samples, seed=seed + 2)), minlength=n).double()
    keep = counts >= 50
    return y[keep], h[keep], counts[keep] / counts[keep].sum()


@pytest.mark.parametrize("dim", [2, 5, 16, 64])
@pytest.mark.parametrize("make", [lambda d: og.UniformBox(dim=d), og.Gaussian], ids=["box", "gaussian"])
def test_planted_masses_are_recovered(make, dim):
    source = make(dim)
    y, _, b = planted(source, 200, samples=400_000)
    result = og.solve(source, og.DiscreteMeasure(y, b), method="adam", tol=3e-3, seed=1)
    assert result.converged, result.message
    fresh = source.sample(400_000, seed=77, dtype=torch.float32)
    w = torch.bincount(result.potential.assign(fresh), minlength=len(b)).double() / len(fresh)
    assert float((w - b).abs().sum()) < 0.06
    assert abs(result.certificate.chi2) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 5, 16, 64])
@pytest.mark.parametrize("make", [lambda d: og.UniformBox(dim=d), og.Gaussian], ids=["box", "gaussian"])
def test_planted_masses_to_three_percent_on_a_million_samples(make, dim):
    source = make(dim)
    y, _, b = planted(source, 200, samples=8_000_000)
    result = og.solve(source, og.DiscreteMeasure(y, b), method="adam", tol=5e-4, seed=1)
    assert result.converged, result.message
    fresh = source.sample(1_000_000, seed=77, dtype=torch.float32)
    w = torch.bincount(result.potential.assign(fresh), minlength=len(b)).double() / len(fresh)
    assert float((w - b).abs().sum()) < 0.03


@pytest.mark.parametrize("units", [1e-3, 1.0, 1e3])
def test_units_and_origin_do_not_matter(units):
    source = og.UniformBox([0.0, 0.0], [1.0, 1.0])
    y = np.random.default_rng(0).normal(size=(60, 2))
    plain = og.solve(source, y, method="adam", tol=0.02, seed=3, max_iter=400)
    moved = og.solve(
        og.UniformBox([5.0, 5.0], [5.0 + units, 5.0 + units]),
        y * units + 100 * units,
        method="adam",
        tol=0.02,
        seed=3,
        max_iter=400,
    )
    assert plain.converged and moved.converged
    assert abs(plain.n_iter - moved.n_iter) <= 50
    assert moved.certificate.chi2 < 0.04


def test_slab_cost_within_one_percent():
    n, d = 20, 5
    y = np.full((n, d), 0.5)
    y[:, 0] = (np.arange(n) + 0.5) / n
    result = og.solve(og.UniformBox(dim=d), y, method="adam", tol=2e-3)
    exact = 1 / (12 * n**2) + (d - 1) / 12
    cert = og.certify(result.potential, result.source, 400_000, seed=5)
    assert cert.w2_lower**2 == pytest.approx(exact, rel=0.01)
    assert cert.w2_upper**2 == pytest.approx(exact, rel=0.01)
    assert cert.transport_cost == pytest.approx(exact, rel=0.01)
    assert cert.w2_lower <= exact**0.5 <= cert.w2_upper


def test_cells_on_the_line_end_at_the_quantiles():
    y = np.sort(np.random.default_rng(0).normal(size=(12, 1)), axis=0)
    b = np.random.default_rng(1).uniform(0.5, 2, 12)
    result = og.solve(og.Gaussian(1), og.DiscreteMeasure(y, b), method="adam", tol=1e-4, seed=0)
    quantiles = torch.special.ndtri(result.target.weights.cumsum(0)[:-1])
    h, y1 = result.potential.heights, result.target.points[:, 0]
    cuts = -(h[1:] - h[:-1]) / (y1[1:] - y1[:-1])
    assert torch.allclose(cuts, quantiles, atol=0.02)


def test_badly_placed_clusters_have_no_empty_cell():
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(size=(30, 8)) * 0.01 + 5 * rng.normal(size=8) for _ in range(6)])
    b = np.repeat(rng.uniform(0.1, 10, 6), 30)
    result = og.solve(og.UniformBox(dim=8), og.DiscreteMeasure(y, b), method="adam", tol=0.02, seed=0)
    assert result.converged and result.certificate.empty_cells == 0


def test_same_seed_same_answer_and_global_state_is_untouched():
    y = np.random.default_rng(0).normal(size=(50, 3))
    before = torch.random.get_rng_state()
    a, b, c = (og.solve(og.Gaussian(3), y, method="adam", tol=0.05, seed=s) for s in (7, 7, 8))
    assert torch.equal(a.potential.heights, b.potential.heights) and a.certificate == b.certificate
    assert not torch.equal(a.potential.heights, c.potential.heights)
    assert torch.equal(before, torch.random.get_rng_state())


def test_ways_to_end():
    y = np.random.default_rng(0).normal(size=(300, 6))
    source = og.Gaussian(6)

    short = og.solve(source, y, method="adam", tol=1e-9, max_iter=60)
    assert short.status == "max_iter" and not short.converged and "raise max_iter" in short.message
    assert short.certificate.chi2 < 1.0

    timed = og.solve(source, y, method="adam", tol=1e-9, max_time=0.5)
    assert timed.status == "max_time" and timed.seconds < 20

    calls = []
    stopped = og.solve(
        source, y, method="adam", tol=1e-9, callback=lambda state: calls.append(state) or state.n_iter >= 20
    )
    assert stopped.status == "stopped" and stopped.n_iter == 20 and len(calls) == 20
    assert calls[-1].method == "adam" and calls[-1].heights.shape == (300,)

    def interrupt(state):
        if state.n_iter == 120:
            raise KeyboardInterrupt

    interrupted = og.solve(source, y, method="adam", tol=1e-9, callback=interrupt)
    assert interrupted.status == "interrupted" and interrupted.certificate.chi2 < 0.3

    with pytest.raises(og.ConvergenceError, match="raise max_iter") as caught:
        og.solve(source, y, method="adam", tol=1e-9, max_iter=30, on_failure="raise")
    assert caught.value.result.n_iter == 30


def test_progress_goes_to_standard_error(capsys):
    og.solve(og.UniformBox(dim=2), np.random.default_rng(0).random((20, 2)), method="adam", tol=0.05, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "adam" in err


def test_one_target_and_settings():
    one = og.solve(og.Gaussian(3), [[1.0, 2.0, 3.0]], method="adam")
    assert one.converged and one.certificate.chi2 == 0 and one.n_iter == 0
    same = og.solve(og.Gaussian(2), np.ones((5, 2)), method="adam")
    assert same.converged and same.target.n == 1 and same.target.n_given == 5
    small = og.solve(og.Gaussian(2), np.eye(2), method=Adam(lr=0.1, batch=2048), tol=0.05)
    assert small.converged


@pytest.mark.parametrize(
    "settings",
    [{"lr": -1}, {"lr": float("nan")}, {"decay": 1.0}, {"betas": (1.0, 0.9)}, {"batch": 0}, {"check_every": 0}],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises((ValueError, TypeError), match=next(iter(settings))):
        Adam(**settings)
