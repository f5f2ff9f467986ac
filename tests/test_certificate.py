"""The certificate: an unbiased chi2, honest errors, and an interval that contains the exact distance."""

import numpy as np
import ot
import pytest
import torch

import otgan as og
from otgan.certificate import Repair, chi2_estimate, repair


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_chi2_estimate_is_unbiased_and_its_error_is_right(tilt):
    n, m, repeats = 50, 400, 4000
    rng = np.random.default_rng(0)
    b = rng.dirichlet(np.full(n, 3.0))
    w = b * np.exp(tilt * rng.normal(size=n))
    w /= w.sum()
    exact = ((w - b) ** 2 / b).sum()
    draws = [chi2_estimate(torch.from_numpy(c), torch.from_numpy(b)) for c in rng.multinomial(m, w, size=repeats)]
    values, errors = np.array(draws).T
    assert values.mean() == pytest.approx(exact, abs=4 * values.std() / repeats**0.5)
    assert (errors**2).mean() ** 0.5 == pytest.approx(values.std(), rel=0.15)


def test_chi2_of_a_known_potential():
    u = og.BrenierPotential([[0.25], [0.75]], [0.0, 0.0 - 0.1], weights=[0.5, 0.5])
    # <x, .25> = <x, .75> - .1 at x = .2: masses .2 and .8
    cert = og.certify(u, og.UniformBox(dim=1), 100_000, seed=0)
    exact = 2 * 0.3**2 / 0.5
    assert abs(cert.chi2 - exact) < 4 * cert.chi2_stderr < 0.02
    assert cert.l1 == pytest.approx(0.6, abs=0.01)
    assert cert.max_ratio == pytest.approx(0.6, abs=0.02)
    assert (cert.empty_cells, cert.n_samples, cert.exact) == (0, 100_000, False)


def test_empty_cells_are_counted_and_switched_off_targets_void_the_dual():
    u = og.BrenierPotential([[0.0], [1.0], [2.0]], [0.0, -np.inf, -50.0])
    cert = og.certify(u, og.UniformBox(dim=1), 1000, seed=0)
    assert cert.empty_cells == 2
    assert cert.dual == -np.inf
    assert np.isfinite(cert.w2_lower) and cert.w2_lower <= cert.w2_upper


def test_the_table_says_how_many_cells_chance_leaves_empty():
    y = (torch.arange(100.0)[:, None] + 0.5) / 100
    u = og.BrenierPotential(y, -0.5 * (y**2).sum(1))  # cells of equal measure
    few, many = (og.certify(u, og.UniformBox(dim=1), m, seed=0) for m in (100, 2000))
    assert f"{few.empty_cells} of 100 (of which chance at least 37)" in few.table()  # 100 / e
    assert abs(few.empty_cells - 37) < 15 and "chance" not in many.table()


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("perturb", [0.0, 0.05])
@pytest.mark.parametrize("seed", range(5))
def test_interval_contains_the_slab_distance(seed, perturb, shift):
    n, d = 20, 3
    y = np.full((n, d), 0.5)
    y[:, 0] = (np.arange(n) + 0.5) / n
    # Slabs: W2^2 = 1/(12 n^2) along the first axis + 2 coordinates of variance 1/12.
    exact = 1 / (12 * n**2) + (d - 1) / 12 + d * shift**2
    rng = np.random.default_rng(seed)
    h = -0.5 * (y**2).sum(1) + perturb / n * rng.normal(size=n)
    u = og.BrenierPotential(y + shift, h)
    cert = og.certify(u, og.UniformBox(dim=d), 50_000, seed=seed)
    assert cert.w2_lower <= exact**0.5 <= cert.w2_upper
    if perturb == 0.0:
        assert cert.w2_upper - cert.w2_lower < 0.02
    assert cert.transport_cost == pytest.approx(exact, rel=0.2)


def test_interval_contains_bures_distance_in_the_limit():
    a, b = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 0.5]])
    source = og.Gaussian([0.0, 0.0], a)
    y = og.Gaussian([1.0, 1.0], b).sobol(1 << 10, seed=0, dtype=torch.float64)
    result = og.solve(source, y, method="adam", tol=0.02)
    bures = ot.gaussian.bures_wasserstein_distance(np.zeros(2), np.ones(2), a, b)
    cert = result.certificate
    assert cert.w2_lower - 0.03 <= float(bures) <= cert.w2_upper + 0.03
    assert cert.w2_upper - cert.w2_lower < 0.05


def test_empirical_source_is_summed_not_sampled():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)), rng.normal(size=(40, 2))
    source = og.Empirical(x, rng.uniform(1, 2, 300))
    u = og.BrenierPotential(y, -0.5 * (y**2).sum(1))
    cert = og.certify(u, source, seed=0)
    masses = np.bincount(u.assign(x), weights=source.weights, minlength=40)
    assert cert.exact and cert.n_samples == 0 and cert.chi2_stderr == 0
    assert cert.chi2 == pytest.approx(((masses - 1 / 40) ** 2 * 40).sum(), rel=1e-12)
    exact = ot.emd2(source.weights.numpy(), np.full(40, 1 / 40), ot.dist(x, y)) ** 0.5
    assert cert.w2_lower <= exact <= cert.w2_upper


@pytest.mark.parametrize("n", [300, 4000])
def test_repair_costs_are_those_of_couplings(n):
    rng = np.random.default_rng(0)
    y, b = rng.normal(size=(n, 2)), np.full(n, 1 / n)
    w = b * rng.uniform(0.5, 1.5, n)
    w[3] = 0.0
    w /= w.sum()
    c = y + 0.1 * rng.normal(size=(n, 2))
    c[3] = np.nan
    found = repair(y, w, b, c)
    gap, excess = found.gap2**0.5, found.excess
    assert (found.gap2_stderr, found.excess_stderr) == (0.0, 0.0)
    moved = 0.5 * np.abs(w - b).sum()
    assert 0 < gap <= (moved * ((y.max(0) - y.min(0)) ** 2).sum()) ** 0.5
    live = w > 0
    # Kantorovich: carrying the centroids' measure to the target costs at least W2 of the two.
    here = float(w[live] @ ((c - y)[live] ** 2).sum(1))
    if n == 300:
        assert gap == pytest.approx(ot.emd2(w[live], b, ot.dist(y[live], y)) ** 0.5, rel=1e-9)
        assert here + excess == pytest.approx(ot.emd2(w[live], b, ot.dist(c[live], y)), rel=1e-9)
    else:  # the k-d plan is local: far below moving the excess at random
        assert gap < 0.5 * (moved * 4.0) ** 0.5  # 4 = E|y - y'|^2
        assert here + excess >= ot.emd2(w[live], b, ot.dist(c[live], y)) - 1e-12
    assert repair(y, b, b, c) == Repair(0.0, 0.0)


def test_seeds_and_refusals():
    u = og.BrenierPotential([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.0])
    source = og.UniformBox(dim=2)
    assert og.certify(u, source, 1000, seed=1) == og.certify(u, source, 1000, seed=1)
    with pytest.raises(ValueError, match="dimension 3"):
        og.certify(u, og.UniformBox(dim=3))
    with pytest.raises(ValueError, match="at least 100, got 99"):
        og.certify(u, source, 99)


def test_table_reads_well():
    u = og.BrenierPotential([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.0])
    text = og.certify(u, og.UniformBox(dim=2), 1000, seed=1).table()
    assert "1,000 fresh samples" in text and "W2(source, target)" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("n", "solved", "samples"), [(100, True, 20_000), (400, False, 20_000), (1200, True, 50_000)])
def test_the_interval_knows_the_noise_of_its_repair(n, solved, samples):
    """On the line the repair of noisy masses costs more than the transport itself: its own noise must be counted."""
    y = np.random.default_rng(n).random((n, 1))
    source, target = og.UniformBox(dim=1), og.DiscreteMeasure(y)
    exact = og.solve(source, target)
    u = exact.potential if solved else og.BrenierPotential(y, -0.5 * (y**2).sum(1))
    misses = 0
    for seed in range(12):
        cert = og.certify(u, source, samples, seed=seed)
        misses += not cert.w2_lower <= exact.value**0.5 <= cert.w2_upper
    assert misses <= 1


def test_heavy_tails_are_summed_or_controlled():
    x = np.random.default_rng(0).normal(size=(30_000, 5))
    x[0] = 1e6
    source, y = og.Empirical(x), np.random.default_rng(1).normal(size=(50, 5))
    u = og.BrenierPotential(y, -0.5 * (y**2).sum(1))
    summed, sampled = og.certify(u, source), og.certify(u, source, 20_000, seed=1)
    assert summed.exact and not sampled.exact
    assert sampled.w2_lower == pytest.approx(summed.w2_lower, rel=1e-3)
    assert sampled.w2_lower <= summed.w2_upper and summed.w2_lower <= sampled.w2_upper


@pytest.mark.parametrize("units", [1e-60, 1e60])
def test_extreme_units(units):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(20, 2))
    plain = og.certify(og.BrenierPotential(y, -0.5 * (y**2).sum(1)), og.UniformBox(dim=2), 5000, seed=0)
    u = og.BrenierPotential(units * y, -0.5 * (units * y**2 * units).sum(1))
    scaled = og.certify(u, og.UniformBox(0.0, units, dim=2), 5000, seed=0)
    assert scaled.w2_lower == pytest.approx(units * plain.w2_lower, rel=1e-4)
    assert scaled.w2_upper == pytest.approx(units * plain.w2_upper, rel=1e-4)
