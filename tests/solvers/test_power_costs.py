"""Costs |x - y|^p / p: POT's network simplex, quantiles on the line, planted potentials, units, refusals, saving."""

from __future__ import annotations

import json

import numpy as np
import ot
import pytest
import torch

import otgan as og
from otgan import kernels
from otgan.solvers import Adam
from otgan.standardization import CommonStandardization, Standardization

EXPONENTS = (1.25, 1.5, 3.0, 4.0)


def discrete(d, m=300, n=250, shift=0.0, units=1.0):
    rng = np.random.default_rng(d)
    x, y = units * (rng.normal(size=(m, d)) + shift), units * (3 * rng.random((n, d)) + shift)
    return og.Empirical(x, rng.uniform(0.5, 2, m)), og.DiscreteMeasure(y, rng.uniform(0.5, 2, n))


def exact_cost(source, target, p):
    matrix = ot.dist(source.points.numpy(), target.points.numpy(), "euclidean") ** p / p
    return float(ot.emd2(source.weights.numpy(), target.weights.numpy(), matrix)), matrix


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("d", [1, 2, 5])
def test_discrete_equals_pot(d, p):
    source, target = discrete(d)
    result = og.solve(source, target, p=p)
    assert result.method == "discrete" and result.potential.p == p
    exact, matrix = exact_cost(source, target, p)
    assert result.value == pytest.approx(exact, rel=1e-10)
    u = result.potential
    dual = float(source.weights @ u.kantorovich(source.points) + target.weights @ u.dual())
    assert dual == pytest.approx(exact, rel=1e-8)
    plan = result.plan.matrix.toarray()
    assert np.allclose(plan.sum(1), source.weights, atol=1e-14) and np.allclose(plan.sum(0), target.weights, atol=1e-14)
    assert (plan * matrix).sum() == pytest.approx(exact, rel=1e-10)
    whole = (plan > 0).sum(1) == 1
    assert np.array_equal(u.assign(source.points).numpy()[whole], plan.argmax(1)[whole])
    gap = matrix - result.plan.source_dual.numpy()[:, None] - result.plan.target_dual.numpy()
    assert gap.min() > -1e-10 * matrix.max() and np.abs(gap[plan > 0]).max() < 1e-10 * matrix.max()
    cert = result.certificate
    assert cert.exact and cert.chi2 < 1e-20 and cert.p == p
    assert cert.cost_lower == pytest.approx(exact, rel=1e-8) and cert.cost_upper == pytest.approx(exact, rel=1e-8)
    assert cert.transport_cost == pytest.approx(p * exact, rel=1e-8)


@pytest.mark.parametrize(
    ("d", "p"),
    [(1, 3.0), (2, 1.5), (2, 4.0), (5, 1.25), (5, 3.0)]
    + [pytest.param(d, p, marks=pytest.mark.slow) for d in (1, 2, 5) for p in EXPONENTS],
)
def test_sampled_interval_contains_the_value_of_pot(d, p):
    source, target = discrete(d, m=2000, n=30)
    result = og.solve(source, target, "adam", p=p, tol=0.03, seed=1)
    assert result.converged, result.message
    exact, _ = exact_cost(source, target, p)
    cert = result.certificate
    assert cert.exact and cert.cost_lower <= exact * (1 + 1e-12) and exact <= cert.cost_upper * (1 + 1e-12)
    assert cert.cost_upper < 1.06 * cert.cost_lower
    drawn = og.certify(result.potential, source, 1500, seed=0)  # fewer than the atoms: sampled
    assert not drawn.exact and drawn.cost_lower <= exact <= drawn.cost_upper


@pytest.mark.parametrize("p", EXPONENTS)
def test_cells_on_the_line_end_at_the_quantiles_whatever_p(p):
    """On the line the monotone map is optimal for every convex cost."""
    y = np.sort(np.random.default_rng(0).normal(size=(8, 1)), axis=0)
    b = np.random.default_rng(1).uniform(0.5, 2, 8)
    result = og.solve(og.Gaussian(1), og.DiscreteMeasure(y, b), p=p, tol=2e-3, seed=0)
    assert result.method == "adam" and result.converged, result.message
    x = torch.linspace(-4, 4, 100_001, dtype=torch.float64)[:, None]
    cell = result.potential.assign(x)
    assert bool((cell.diff() >= 0).all()) and int(cell.max()) == 7
    cuts = x[1:, 0][cell.diff() > 0]
    assert torch.allclose(torch.special.ndtr(cuts), result.target.weights.cumsum(0)[:-1], atol=0.02)


@pytest.mark.parametrize(
    ("d", "p"),
    [(3, 1.5), (3, 4.0), (8, 1.5), (8, 3.0)]
    + [pytest.param(d, p, marks=pytest.mark.slow) for d in (3, 8) for p in EXPONENTS],
)
def test_planted_masses_are_recovered(d, p):
    source, stream = og.Gaussian(d), torch.Generator().manual_seed(d)
    y = torch.randn(60, d, generator=stream, dtype=torch.float64)
    psi = 0.1 * torch.randn(60, generator=stream, dtype=torch.float64)
    psi += kernels.slack(source.sample(5000, seed=1, dtype=torch.float64), y, psi, p=p)
    u = og.KantorovichPotential(y, psi, p=p)
    counts = torch.bincount(u.assign(source.sample(200_000, seed=2)), minlength=60).double()
    keep = counts >= 100
    target = og.DiscreteMeasure(y[keep], counts[keep])
    result = og.solve(source, target, p=p, tol=1e-2, seed=1)
    assert result.converged, result.message
    x = source.sample(200_000, seed=77)
    w = torch.bincount(result.potential.assign(x), minlength=target.n).double() / len(x)
    assert float((w - target.weights).abs().sum()) < 0.1
    # The planted map is optimal for the masses that it has: its cost is the answer, up to sampling.
    planted = og.KantorovichPotential(y[keep], psi[keep], target.weights, p=p)
    kept = planted.transport(x)
    cost = ((x - kept).double().norm(dim=1) ** p / p).numpy()
    error = 3 * cost.std() / len(cost) ** 0.5
    cert = result.certificate
    assert cert.cost_lower - error <= cost.mean() <= cert.cost_upper + error
    assert cert.chi2 < 0.02


@pytest.mark.parametrize("p", [1.5, 4.0])
@pytest.mark.parametrize(("units", "shift"), [(1e-3, 0.0), (1e3, 0.0), (1.0, 1e4)])
def test_units_and_common_origin_change_nothing(p, units, shift):
    source, target = discrete(2, 80, 80)
    moved_source, moved_target = discrete(2, 80, 80, shift, units)
    plain, moved = og.solve(source, target, p=p), og.solve(moved_source, moved_target, p=p)
    assert moved.value == pytest.approx(units**p * plain.value, rel=1e-9)
    assert np.array_equal(plain.plan.matrix.toarray() > 0, moved.plan.matrix.toarray() > 0)
    assert torch.allclose(moved.potential.psi, units**p * plain.potential.psi, rtol=1e-6, atol=1e-7 * units**p)

    def sampled(shift, units):
        y = np.random.default_rng(0).normal(size=(60, 3))
        source = og.UniformBox([units * shift] * 3, [units * (shift + 1)] * 3)
        return og.solve(source, units * (y + shift), p=p, tol=0.02, seed=3, max_iter=600)

    plain, moved = sampled(0.0, 1.0), sampled(shift, units)
    assert plain.converged and moved.converged and abs(plain.n_iter - moved.n_iter) <= 100
    ends = np.array([[r.certificate.cost_lower, r.certificate.cost_upper] for r in (plain, moved)])
    assert np.allclose(ends[1], units**p * ends[0], rtol=0.01)


def test_source_far_from_the_targets():
    """Costs are then nearly linear in x; cells still get their mass."""
    y = np.random.default_rng(0).normal(size=(40, 2))
    result = og.solve(og.Gaussian([30.0, 0.0]), y, p=3.0, tol=0.02)
    assert result.converged, result.message
    assert result.certificate.empty_cells == 0


@pytest.mark.parametrize("n", [300, 1200])
def test_the_interval_from_crude_potentials(n):
    """Voronoi cells: far from the masses, and the interval still contains what the simplex finds."""
    rng = np.random.default_rng(n)
    source, y = og.Empirical(rng.normal(size=(400, 2))), rng.normal(size=(n, 2))
    for p in (1.5, 3.0):
        exact, _ = exact_cost(source, og.DiscreteMeasure(y), p)
        cert = og.certify(og.KantorovichPotential(y, np.zeros(n), p=p), source)
        assert cert.exact and cert.cost_lower <= exact <= cert.cost_upper
        assert cert.empty_cells > 0 and (n > 1000 or cert.cost_upper < 3 * exact)


def test_certificate_of_p_2_agrees_with_the_quadratic_one():
    rng = np.random.default_rng(0)
    y, psi = rng.normal(size=(30, 2)), 0.1 * rng.normal(size=30)
    quadratic = og.certify(og.BrenierPotential(y, psi - 0.5 * (y**2).sum(1)), og.Gaussian(2), 20_000, seed=0)
    power = og.certify(og.KantorovichPotential(y, psi, p=2.0), og.Gaussian(2), 20_000, seed=0)
    assert quadratic.p == power.p == 2.0
    assert quadratic.cost_lower == quadratic.w2_lower**2 / 2 and quadratic.cost_upper == quadratic.w2_upper**2 / 2
    for name in ("chi2", "l1", "max_ratio", "empty_cells"):
        assert getattr(power, name) == pytest.approx(getattr(quadratic, name), abs=1e-9), name
    for name in ("dual", "transport_cost"):
        assert getattr(power, name) == pytest.approx(getattr(quadratic, name), rel=0.02), name
    assert power.cost_lower <= quadratic.cost_upper and quadratic.cost_lower <= power.cost_upper


def test_table_and_switched_off_targets():
    u = og.KantorovichPotential([[0.0], [1.0], [2.0]], [0.0, -np.inf, -50.0], p=3.0)
    cert = og.certify(u, og.UniformBox(dim=1), 1000, seed=0)
    assert cert.empty_cells == 2 and cert.dual == -np.inf and cert.cost_lower == 0.0 < cert.cost_upper
    text = cert.table()
    assert "|x-y|^p / p" in text and "p = 3" in text and "nan" not in text and "W2" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("p", [1.5, 3])
def test_saving(tmp_path, p):
    source, target = discrete(2, 30, 20)
    for name, result in (("a", og.solve(source, target, p=p)), ("b", og.solve(og.Gaussian(2), target, p=p, tol=0.5))):
        again = og.load(result.save(tmp_path / name))
        assert isinstance(again.potential, og.KantorovichPotential) and again.potential.p == p
        assert torch.equal(again.potential.psi, result.potential.psi) and again.value == result.value
        assert again.certificate.table() == result.certificate.table()
    u = og.load(again.potential.save(tmp_path / "u"))
    assert isinstance(u, og.KantorovichPotential) and torch.equal(u.psi, again.potential.psi) and u.p == p


def test_certificates_of_older_files_are_read(tmp_path):
    result = og.solve(og.UniformBox(dim=2), np.random.default_rng(0).random((10, 2)), "adam", tol=0.5)
    folder = result.save(tmp_path / "run")
    document = json.loads((folder / "config.json").read_text())
    for name in ("p", "cost_lower", "cost_upper"):
        del document["config"]["certificate"][name]
    (folder / "config.json").write_text(json.dumps(document))
    assert og.load(folder).certificate == result.certificate


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda y: og.solve(og.Gaussian(2), y, p=1), ValueError, "not strictly convex"),
        (lambda y: og.solve(og.Gaussian(2), y, p=0.5), ValueError, "p must be"),
        (lambda y: og.solve(og.Gaussian(2), y, p=float("nan")), ValueError, "p must be"),
        (lambda y: og.solve(og.Gaussian(2), y, p=float("inf")), ValueError, "p must be"),
        (lambda y: og.solve(og.Gaussian(2), y, p="3"), TypeError, "p must be a number"),
        (lambda y: og.solve(og.Gaussian(2), y, p=True), TypeError, "p must be a number"),
        (lambda y: og.solve(og.Gaussian(2), y, "newton", p=3), ValueError, "'newton' knows the quadratic cost only"),
        (lambda y: og.plot.power_diagram(og.solve(og.Empirical(y), y, p=3)), ValueError, "p = 3"),
    ],
)
def test_refusals_are_sentences(call, error, words):
    with pytest.raises(error, match=words):
        call(np.random.default_rng(0).random((10, 2)))


def test_p_2_changes_nothing():
    y = np.random.default_rng(0).random((20, 2))
    a, b = (og.solve(og.Gaussian(2), y, "adam", tol=0.1, **more) for more in ({}, {"p": 2}))
    assert isinstance(b.potential, og.BrenierPotential)
    assert torch.equal(a.potential.heights, b.potential.heights) and a.certificate == b.certificate


def test_same_seed_and_ways_to_end():
    y = np.random.default_rng(0).normal(size=(50, 3))
    a, b = (og.solve(og.Gaussian(3), y, Adam(), p=1.5, tol=0.05, seed=7) for _ in range(2))
    assert torch.equal(a.potential.psi, b.potential.psi) and a.certificate.to_dict()["chi2"] == b.certificate.chi2
    seen = []
    og.solve(og.Gaussian(3), y, "adam", p=3, tol=1e-9, max_iter=60, callback=lambda state: seen.append(state.heights))
    assert len(seen) == 60 and seen[-1].shape == (50,)
    one = og.solve(og.Gaussian(3), y[:1], p=3)
    assert one.converged and one.certificate.chi2 == 0

    class Interrupted:
        name, any_cost = "interrupted", True

        def default_tol(self, target):
            return 1.0

        def __call__(self, problem, tol, clock, callback):
            raise KeyboardInterrupt

    first = og.solve(og.Gaussian(3), y, Interrupted(), p=3, certify_samples=1000)
    assert torch.equal(first.potential.psi, torch.zeros(50, dtype=torch.float64)), "Voronoi cells"


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_common_standardization_keeps_the_cells(p):
    source = og.Gaussian([3.0, -2.0], [[4.0, 1.0], [1.0, 2.0]])
    target = og.DiscreteMeasure(1e3 * np.random.default_rng(0).normal(size=(50, 2)) + 7)
    change = Standardization.of(source, target, p)
    assert isinstance(change, CommonStandardization)
    scaled = 1e-3 * torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = 500 * source.sample(1000, seed=0, dtype=torch.float64)
    own = change.heights(scaled, target.points)
    unit = og.KantorovichPotential(change.target(target.points), scaled, p=p)
    assert torch.equal(og.KantorovichPotential(target.points, own, p=p).assign(x), unit.assign(change.source(x)))
    assert torch.allclose(change.scaled_heights(own, target.points), scaled, atol=1e-15)
    apart = source.mean - target.mean
    assert change.target_scale**2 == pytest.approx(source.variance + target.variance + float(apart @ apart))
