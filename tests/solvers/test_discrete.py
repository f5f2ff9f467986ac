"""Discrete source: equal to POT's exact cost, with heights that reproduce the plan."""

import numpy as np
import ot
import pytest
import torch

import otgan as og


def problem(d, weighted, m=500, n=500, shift=0.0, units=1.0):
    rng = np.random.default_rng(d)
    x, y = units * rng.normal(size=(m, d)) + shift, units * 3 * rng.random((n, d))
    a = rng.uniform(0.5, 2, m) if weighted else None
    b = rng.uniform(0.5, 2, n) if weighted else None
    return og.Empirical(x, a), og.DiscreteMeasure(y, b)


@pytest.mark.parametrize("d", [1, 2, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_dual_and_map(d, weighted):
    source, target = problem(d, weighted)
    result = og.solve(source, target)
    assert result.method == "discrete" and "network simplex" in result.reason
    a, b = source.weights.numpy(), target.weights.numpy()
    cost = ot.dist(source.points.numpy(), target.points.numpy())
    exact = ot.emd2(a, b, cost)
    assert result.value == pytest.approx(exact, rel=1e-8)
    u = result.potential
    dual = a @ u.kantorovich(source.points, cost="sqeuclidean").numpy() + b @ u.dual().numpy()
    assert dual == pytest.approx(exact, rel=1e-8)
    plan = result.plan.matrix.toarray()
    assert np.allclose(plan.sum(1), a, atol=1e-14) and np.allclose(plan.sum(0), b, atol=1e-14)
    assert (plan * cost).sum() == pytest.approx(exact, rel=1e-8)
    whole = (plan > 0).sum(1) == 1
    assert whole.all() or weighted
    assert np.array_equal(u.assign(source.points).numpy()[whole], plan.argmax(1)[whole])
    gap = cost - result.plan.source_dual.numpy()[:, None] - result.plan.target_dual.numpy()
    assert gap.min() > -1e-10 and np.abs(gap[plan > 0]).max() < 1e-10
    cert = result.certificate
    assert cert.exact and cert.chi2 < 1e-20 and cert.w2_lower <= cert.w2_upper
    assert cert.w2_lower == pytest.approx(exact**0.5, rel=1e-8)


@pytest.mark.parametrize(("units", "shift"), [(1e-3, 0.0), (1e3, 0.0), (1.0, 1e4)])
def test_units_and_origin(units, shift):
    source, target = problem(2, False, 80, 80, shift, units)
    result = og.solve(source, target)
    exact = ot.emd2([], [], ot.dist(source.points.numpy(), target.points.numpy()))
    assert result.value == pytest.approx(exact, rel=1e-9)
    assert np.array_equal(result.potential.assign(source.points).numpy(), result.plan.matrix.toarray().argmax(1))


@pytest.mark.parametrize("n", [1, 3, 1300])
def test_more_sources_than_targets_and_many_roots(n):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2600, 2)), rng.normal(size=(n, 2))
    keep = 2600 - 2600 % n
    result = og.solve(og.Empirical(x[:keep]), y, method="discrete")
    plan = result.plan.matrix.toarray()
    whole = (plan > 1e-12).sum(1) == 1
    same = result.potential.assign(x[:keep]).numpy()[whole] == plan.argmax(1)[whole]
    assert whole.all()
    assert same.all()


def test_extends_to_new_points_and_survives_permutation():
    source, target = problem(2, False, 100, 100)
    result = og.solve(source, target)
    new = og.Gaussian(2).sample(50, seed=0, dtype=torch.float64)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    again = og.solve(source, og.DiscreteMeasure(target.points[order]))
    assert torch.allclose(result.potential.transport(new), again.potential.transport(new))


def test_refusals():
    with pytest.raises(ValueError, match="Empirical source"):
        og.solve(og.Gaussian(2), np.eye(2), method="discrete")
    with pytest.raises(ValueError, match="cost matrix"):
        og.solve(og.Empirical(np.zeros((10, 2))), np.eye(2), method="discrete", max_size=5)


@pytest.mark.parametrize("scale", [1e-17, 1e-8, 1e12])
def test_plan_does_not_depend_on_the_units_of_either_side(scale):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    plain, scaled = og.solve(og.Empirical(x), y), og.solve(og.Empirical(x), scale * y)
    assert np.array_equal(plain.plan.matrix.toarray() > 0, scaled.plan.matrix.toarray() > 0)
    assert scaled.value == pytest.approx(ot.emd2([], [], ot.dist(x, scale * y)), rel=1e-8)


def test_weights_below_the_rounding_of_the_simplex():
    rng = np.random.default_rng(0)
    target = og.DiscreteMeasure(rng.normal(size=(300, 2)), [1.0] * 299 + [1e-13])
    result = og.solve(og.Empirical(rng.normal(size=(300, 2))), target)
    assert result.converged and torch.isfinite(result.potential.heights).all()


def test_an_early_end_is_a_status():
    rng = np.random.default_rng(0)
    result = og.solve(og.Empirical(rng.normal(size=(60, 2))), rng.normal(size=(60, 2)), max_iter=3)
    assert result.status == "max_iter" and "raise max_iter" in result.message
    assert result.plan is None and result.value is None


def test_ties_that_no_potential_resolves_are_told():
    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), -1).reshape(-1, 2)
    result = og.solve(og.Empirical(grid), np.array([[-1.0, 2.5], [6.0, 2.5], [2.5, 2.5]]))
    plan = result.plan.matrix.toarray()
    off = (result.potential.assign(grid).numpy() != plan.argmax(1)).sum()
    assert (off > 0) == ("served as well" in result.message)


def test_few_sources_and_many_targets():
    rng = np.random.default_rng(0)
    result = og.solve(og.Empirical(rng.normal(size=(10, 2))), rng.normal(size=(6000, 2)))
    assert result.converged and result.plan.matrix.shape == (10, 6000)
