"""Local maps: the matrices are Bures maps, mean and covariance are the data's, modes stay apart, nothing is copied."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

import otgan as og
from otgan.generators import Judge, LocalGenerator, _affinities
from otgan.generators._affinities import Nearest, _rows, affinities, nearest_others
from otgan.generators._cells import cell_moments
from otgan.generators.selection import climb


def solved(points, weights=None, **settings):
    source = og.Gaussian(points.shape[1])
    return og.solve(source, og.DiscreteMeasure(points, weights), seed=0, **settings).potential, source


def dense(plan, n):
    out = np.zeros((n, n))
    row = np.repeat(np.arange(n), np.diff(plan.offsets.numpy()))
    out[row, plan.index.numpy()] = plan.share.numpy()
    return out


def ring(n, seed, std=0.02):
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * rng.integers(8, size=n) / 8
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + std * rng.normal(size=(n, 2))


@pytest.fixture(scope="module")
def skewed():
    """600 points of a correlated, skew law in five dimensions with unequal weights, and their local maps."""
    rng = np.random.default_rng(4)
    y = np.exp(0.5 * rng.normal(size=(600, 5))) @ (np.eye(5) + 0.4 * rng.normal(size=(5, 5))) + 3.0
    b = rng.uniform(0.5, 1.5, size=600)
    u, source = solved(y, b, tol=0.01)
    return y, b / b.sum(), LocalGenerator(u, source, 12)


# --------------------------------------------------------------- affinities


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_nearest_others_are_those_of_brute_force(shift):
    y = np.random.default_rng(0).normal(size=(300, 7)) + shift
    index, square = nearest_others(torch.from_numpy(y), 9)
    d = cdist(y, y)
    np.fill_diagonal(d, np.inf)
    assert np.array_equal(index.numpy(), np.argsort(d, axis=1)[:, :9])
    np.testing.assert_allclose(square.sqrt().numpy(), np.sort(d, axis=1)[:, :9], rtol=1e-9)


def test_nearest_for_several_numbers_are_those_for_each():
    y = torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nearest = Nearest(y)
    for k in (10, 7, 20, 45, 299):
        for found, expected in zip(nearest(k), nearest_others(y, k), strict=True):
            assert torch.equal(found, expected)


def test_rows_have_the_perplexity_and_are_a_gaussian_kernel():
    rng = np.random.default_rng(1)
    square = torch.from_numpy(np.sort(rng.gamma(2.0, size=(50, 40)) * rng.uniform(1e-6, 1e6, size=(50, 1)), axis=1))
    weights = torch.from_numpy(rng.uniform(0.5, 2.0, size=(50, 40)))
    share = _rows(square, weights, 11.0)
    entropy = -(share * share.log()).sum(dim=1)
    torch.testing.assert_close(entropy, torch.full_like(entropy, np.log(11.0)), rtol=1e-6, atol=0)
    slope = (share / weights).log().diff(dim=1) / square.diff(dim=1)  # -1 / e_i all along a row
    torch.testing.assert_close(slope, slope[:, :1].expand_as(slope), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dim", [2, 20])
def test_affinities_are_a_symmetric_plan_with_the_weights_as_marginals(dim):
    rng = np.random.default_rng(2)
    y, b = rng.normal(size=(400, dim)), rng.uniform(0.2, 1.0, size=400)
    share = dense(affinities(og.BrenierPotential(y, np.zeros(400), b), 10.0), 400)
    plan = (b / b.sum())[:, None] * share
    np.testing.assert_allclose(plan, plan.T, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=0), b / b.sum(), rtol=1e-3)
    np.testing.assert_allclose(share.sum(axis=1), 1.0, rtol=1e-5)
    assert not share.diagonal().any()


def test_means_of_neighbours_are_taken_in_pieces(monkeypatch):
    y = np.random.default_rng(0).normal(size=(90, 3))
    plan = affinities(og.BrenierPotential(y, np.zeros(90)), 5.0)
    monkeypatch.setattr(_affinities, "_BLOCK", 50)
    share = dense(plan, 90)
    share /= share.sum(axis=1, keepdims=True)  # a row sums to 1 as float32 does
    np.testing.assert_allclose(plan.mean(torch.from_numpy(y)), share @ y, atol=2e-8)


def test_moments_of_cells_are_those_of_intervals():
    """Uniform on [0, 1], cells [0, 1/4], [1/4, 1]: variances l^2/12."""
    y = np.array([[0.0], [1.0]])
    u = og.BrenierPotential(y, [0.0, -0.25], [0.25, 0.75])
    found = cell_moments(u, og.UniformBox(dim=1), 200_000, 0)
    np.testing.assert_allclose(found.centers[:, 0].numpy(), [0.125, 0.625], atol=2e-3)
    np.testing.assert_allclose(found.width.numpy(), [1 / 16 / 12, 9 / 16 / 12], rtol=0.01)
    within = (0.25 / 16 + 0.75 * 9 / 16) / 12
    assert float(found.covariance) == pytest.approx(within, rel=0.01)


# --------------------------------------------------------------------- maps


@pytest.mark.parametrize(("dim", "neighbours"), [(3, 8.0), (40, 4.0)])
def test_matrices_are_bures_maps(dim, neighbours):
    """Rows longer than d take one formula, shorter ones the other."""
    y = np.random.default_rng(3).normal(size=(150, dim)) * np.linspace(0.3, 2.0, dim)
    u, source = solved(y, tol=0.1)
    local = LocalGenerator(u, source, neighbours)
    cells = torch.arange(0, 150, 7)
    share = dense(local.plan, 150)
    sigma = local.covariance.numpy()
    for i, a in zip(cells.tolist(), local.matrices(cells).numpy(), strict=True):
        mean = share[i] @ y
        spread = (y - mean).T @ ((y - mean) * share[i][:, None])
        a = a / float(local.factor[i])
        np.testing.assert_allclose(a @ sigma @ a, spread, atol=1e-5 * np.trace(spread))
        np.testing.assert_allclose(a, a.T, atol=1e-9)
        assert np.linalg.eigvalsh(a).min() > -1e-8
        if dim == 3:
            root = np.real(sqrtm(sigma))
            inverse = np.linalg.inv(root)
            np.testing.assert_allclose(
                a, inverse @ np.real(sqrtm(root @ spread @ root)) @ inverse, rtol=1e-5, atol=1e-7
            )


def test_mean_and_covariance_are_those_of_the_data(skewed):
    y, b, local = skewed
    new = local.sample(200_000, seed=1).double().numpy()
    centred = y - b @ y
    covariance = centred.T @ (centred * b[:, None])
    scale = np.sqrt(np.trace(covariance))
    np.testing.assert_allclose(new.mean(axis=0), b @ y, atol=0.03 * scale)
    assert np.trace(np.cov(new.T)) == pytest.approx(np.trace(covariance), rel=0.03)
    off = np.linalg.norm(np.cov(new.T) - covariance) / np.linalg.norm(covariance)
    assert off < 0.06
    entropic = og.generators.EntropicGenerator(local.potential, local.source).sample(200_000, seed=1).numpy()
    assert np.trace(np.cov(entropic.T)) < 0.9 * np.trace(covariance)


def test_gradient_is_the_matrix_and_maps_are_monotone_in_a_cell(skewed):
    _, _, local = skewed
    x = local.source.sample(300, seed=2, dtype=torch.float64).requires_grad_()
    cells = local.potential.assign(x.detach())
    (gradient,) = torch.autograd.grad(local(x).sum(), x)
    torch.testing.assert_close(gradient, local.matrices(cells).sum(dim=1))
    step = 1e-6 * torch.randn(300, 5, dtype=torch.float64)
    with torch.no_grad():
        same = local.potential.assign(x + step) == cells
        change = (local(x + step) - local(x))[same]
    assert same.sum() > 290 and ((change * step[same]).sum(dim=1) >= 0).all()


def test_shift_scale_and_rotation_of_the_targets_go_through(skewed):
    y, b, local = skewed
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(5, 5)))[0]
    u, x = local.potential, local.source.sample(200, seed=3, dtype=torch.float64)
    there = og.BrenierPotential(100.0 * y + 7.0, 100.0 * u.heights, b)
    moved = LocalGenerator(there, local.source, 12, moments=local.moments)
    torch.testing.assert_close(moved(x), 100.0 * local(x) + 7.0, rtol=1e-4, atol=1e-2)
    r, m = torch.from_numpy(turn), local.moments
    turned = replace(m, centers=m.centers @ r.T, covariance=r @ m.covariance @ r.T, probe=m.probe @ r.T)
    there = og.BrenierPotential(y @ turn.T, u.heights, b)
    torch.testing.assert_close(LocalGenerator(there, local.source, 12, moments=turned)(x @ r.T), local(x) @ r.T)


def test_the_order_and_number_of_inputs_do_not_matter(skewed):
    _, _, local = skewed
    x = local.source.sample(500, seed=4, dtype=torch.float64)
    whole = local(x)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(local(x[order]), whole[order])
    torch.testing.assert_close(torch.cat([local(row[None]) for row in x[:20]]), whole[:20])
    assert local(x[:0]).shape == (0, 5)
    assert local(x.float()).dtype == torch.float64


def test_modes_stay_apart_and_nothing_is_copied():
    y = ring(1500, 0)
    u, source = solved(y)
    new = LocalGenerator(u, source).sample(4000, seed=1)
    centres = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
    modes = og.metrics.count_modes(new, centres, 0.02)
    assert modes.captured == 8 and modes.high_quality > 0.98 and modes.reverse_kl < 0.01
    assert abs(og.metrics.authenticity(new, y) - 0.379) < 0.05  # of fresh points in the plane
    assert abs(og.metrics.data_copying(new, ring(4000, 9), y).value) < 3.0
    own = new.double().numpy() - centres[cdist(new.numpy(), centres).argmin(axis=1)]
    assert own.std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_few_targets(n):
    y = np.random.default_rng(n).normal(size=(n, 2))
    u, source = solved(y)
    new = LocalGenerator(u, source).sample(2000, seed=0)
    assert torch.isfinite(new).all()
    np.testing.assert_allclose(new.double().mean(dim=0).numpy(), y.mean(axis=0), atol=0.15)
    if n == 1:
        np.testing.assert_allclose(new.numpy(), np.repeat(y, 2000, axis=0), rtol=1e-6)


def test_a_source_in_a_subspace_and_cells_without_a_sample():
    rng = np.random.default_rng(6)
    flat = np.zeros((3, 3))
    flat[:2, :2] = [[1.0, 0.3], [0.3, 0.5]]
    source = og.Gaussian(np.zeros(3), flat)
    y = rng.normal(size=(60, 3))
    u = og.solve(source, y, "adam", tol=0.2, seed=0).potential
    assert torch.isfinite(LocalGenerator(u, source).sample(500, seed=0)).all()
    few = LocalGenerator(u, source, samples=20)
    assert torch.isfinite(few.sample(500, seed=0)).all() and not few.factor.all()


def test_save_and_load(skewed, tmp_path):
    _, _, local = skewed
    again = og.load(local.save(tmp_path / "local"))
    assert isinstance(again, LocalGenerator) and again.neighbours == local.neighbours
    assert torch.equal(again.sample(100, seed=5), local.sample(100, seed=5))


def test_refusals(skewed):
    _, _, local = skewed
    u, source = local.potential, local.source
    with pytest.raises(ValueError, match="at least 2"):
        LocalGenerator(u, source, 1.5)
    with pytest.raises(ValueError, match="dimension"):
        LocalGenerator(u, og.Gaussian(4))
    with pytest.raises(ValueError, match="leave one out"):
        LocalGenerator(u, source, samples=10, moments=local.moments)
    with pytest.raises(TypeError, match="Brenier"):
        LocalGenerator(og.KantorovichPotential(np.eye(2), np.zeros(2), p=3.0), og.Gaussian(2))
    with pytest.raises(ValueError, match="held_out"):
        LocalGenerator.select(u, source, np.zeros((1, 5)))


# ---------------------------------------------------------------- selection


def test_select_takes_the_least_score():
    y = np.random.default_rng(7).normal(size=(500, 3))
    held = np.random.default_rng(8).normal(size=(200, 3))
    u, source = solved(y)
    local = LocalGenerator.select(u, source, held, samples=3000, seed=1)
    assert len(local.scores) >= 4
    assert local.scores[local.neighbours].total == min(s.total for s in local.scores.values())
    judge = Judge(torch.from_numpy(held), torch.from_numpy(y))
    assert judge(local.sample(3000, seed=1)).total == pytest.approx(local.scores[local.neighbours].total)


@pytest.mark.parametrize("optimum", [0.5, 3.0, 40.0])
def test_climb_finds_the_least(optimum):
    def score(value):
        return og.generators.Score(abs(np.log(value / optimum)), 0.0, 0.0)

    scores = climb(score, 4.0, 2.0, 0.1, 100.0)
    best = min(scores, key=lambda v: scores[v].total)
    assert abs(np.log2(best / optimum)) <= 0.26 and len(scores) < 10
    assert set(climb(score, 4.0, 2.0, 4.0, 4.0)) == {4.0}


def test_judge_measures_distance_in_units_of_the_place():
    """Copies of the dense cluster and blurs of the sparse one have the right distances together, in neither place."""
    rng = np.random.default_rng(9)

    def two(n):
        sparse = np.arange(n) % 2
        return rng.normal(size=(n, 2)) * np.where(sparse, 10.0, 1.0)[:, None] + 100.0 * sparse[:, None]

    train, held, fresh = two(2000), two(1000), two(4000)
    judge = Judge(torch.from_numpy(held), torch.from_numpy(train))
    good = judge(torch.from_numpy(fresh))
    assert good.total < 0.1
    copied = np.concatenate([train[::2], fresh[1::2]])
    bad = judge(torch.from_numpy(copied))
    assert bad.reach > 0.25 and bad.law < 0.1
    assert judge(torch.from_numpy(train)).reach > 0.9
    unit = Judge(torch.from_numpy(5.0 * held + 3.0), torch.from_numpy(5.0 * train + 3.0))(
        torch.from_numpy(5.0 * fresh + 3.0)
    )
    assert unit.total == pytest.approx(good.total, abs=1e-6)
