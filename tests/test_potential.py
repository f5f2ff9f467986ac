"""The Brenier potential: values, map, duality, the smoothed family, and its conventions against POT."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import otgan as og
from otgan.potential import fix_gauge, heights_from_dual, voronoi_heights
from otgan.standardization import Standardization


def random_potential(n=40, d=3, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, d)).astype(dtype)
    return og.BrenierPotential(y, 0.3 * rng.normal(size=n), rng.uniform(0.5, 2, n)), rng.normal(size=(200, d)).astype(
        dtype
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_cell_and_map_by_brute_force(dtype):
    u, x = random_potential(dtype=dtype)
    scores = x.astype(float) @ u.points.double().numpy().T + u.heights.numpy()
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    assert np.allclose(u(x), scores.max(1), atol=tolerance)
    assert np.array_equal(u.assign(x), scores.argmax(1))
    assert np.array_equal(u.transport(x), u.points.numpy()[scores.argmax(1)])
    best = u.top_k(x, 5)
    assert np.allclose(best.value, -np.sort(-scores, axis=1)[:, :5], atol=tolerance)
    assert u(x).dtype == torch.from_numpy(x).dtype


def test_the_gradient_of_the_potential_is_the_map():
    u, x = random_potential()
    at = torch.from_numpy(x).requires_grad_()
    (gradient,) = torch.autograd.grad(u(at).sum(), at)
    assert torch.equal(gradient, u.transport(x))
    (critic,) = torch.autograd.grad(u.kantorovich(at).sum(), at)
    assert torch.allclose(critic, at.detach() - u.transport(x)), "T(x) = x - grad phi(x)"


@pytest.mark.parametrize("reg", [0.05, 1.0])
def test_the_smoothed_family(reg):
    u, x = random_potential()
    scores = (x @ u.points.numpy().T + u.heights.numpy()) / reg + np.log(u.weights.numpy())
    top = scores.max(1, keepdims=True)
    p = np.exp(scores - top)
    value = reg * (top[:, 0] + np.log(p.sum(1)))
    mean = (p / p.sum(1, keepdims=True)) @ u.points.numpy()
    at = torch.from_numpy(x).requires_grad_()
    assert np.allclose(u.smooth(at, reg).detach(), value, atol=1e-12)
    assert np.allclose(u.smooth_transport(x, reg), mean, atol=1e-12)
    (gradient,) = torch.autograd.grad(u.smooth(at, reg).sum(), at)
    assert np.allclose(gradient, mean, atol=1e-12)
    assert torch.allclose(u.smooth_transport(x, 1e-9), u.transport(x))


def test_kantorovich_inequality_and_equality_on_the_cell():
    u, x = random_potential()
    for cost, factor in (("half-sqeuclidean", 0.5), ("sqeuclidean", 1.0)):
        c = factor * ot.dist(x, u.points.numpy())
        gap = c - u.kantorovich(x, cost=cost).numpy()[:, None] - u.dual(cost=cost).numpy()
        assert gap.min() > -1e-12
        assert np.abs(gap[np.arange(len(x)), u.assign(x)]).max() < 1e-12


def test_dual_is_in_the_convention_of_pot():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(50, 2)) + 1
    a, b = np.full(60, 1 / 60), rng.dirichlet(np.ones(50) * 5)
    _, log = ot.emd(a, b, ot.dist(x, y), log=True)
    u = og.BrenierPotential.from_dual(y, log["v"], b)
    assert np.allclose(u.dual().numpy(), log["v"], atol=1e-12)
    value = a @ u.kantorovich(x, cost="sqeuclidean").numpy() + b @ u.dual().numpy()
    assert value == pytest.approx(log["cost"], rel=1e-10)


def test_conjugate_is_the_convex_envelope():
    u, x = random_potential(n=30, d=2)
    live = torch.bincount(u.assign(og.Gaussian(2).sample(200_000, seed=0, dtype=torch.float64) * 4), minlength=30) > 0
    at = u.conjugate(u.points)
    assert torch.allclose(at[live], -u.heights[live], atol=1e-9)
    assert (at <= -u.heights + 1e-9).all()
    assert torch.isinf(u.conjugate([[100.0, 0.0]])).all()
    inside = (u.points[:10] + u.points[10:20]) / 2
    legendre = (torch.from_numpy(x) @ inside.T - u(x)[:, None]).max(0).values  # a supremum over some x only
    assert (u.conjugate(inside) >= legendre - 1e-9).all()
    line = og.BrenierPotential([[0.0], [1.0], [2.0]], [0.0, -5.0, 0.0])
    assert torch.allclose(line.conjugate([[0.5], [1.0], [2.0]]), torch.zeros(3, dtype=torch.float64), atol=1e-12)


def test_switched_off_targets_and_ties():
    u = og.BrenierPotential([[0.0], [1.0], [-1.0]], [0.0, -np.inf, 0.0])
    assert u.assign([[5.0], [-5.0], [0.0]]).tolist() == [0, 2, 0]
    assert torch.isfinite(u.smooth_transport([[3.0]], reg=0.1)).all()
    with pytest.raises(ValueError, match="all -inf"):
        og.BrenierPotential([[0.0]], [-np.inf])


@given(st.integers(0, 10_000), st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_a_shift_of_the_data_changes_nothing_but_rounding(seed, dx, dy):
    rng = np.random.default_rng(seed)
    y, h, x = rng.normal(size=(20, 2)), rng.normal(size=20), rng.normal(size=(50, 2))
    plain = og.BrenierPotential(y, h)
    # <x + s, y + t> + h' = <x, y> + h + terms without i when h' = h - <s, y>
    moved = og.BrenierPotential(y + dy, h - dx * y.sum(1), center=[dx, dx])
    top = plain.top_k(x, 2).value
    clear = (top[:, 0] - top[:, 1]) > 1e-6
    assert torch.equal(moved.assign(x + dx)[clear], plain.assign(x)[clear])


def test_float32_far_from_the_origin_keeps_its_digits():
    rng = np.random.default_rng(0)
    y64, x64 = ((rng.normal(size=(m, 4)) + 64).astype(np.float32) for m in (500, 2000))
    y, x = y64.astype(float) - 64, x64.astype(float) - 64  # exact
    h = voronoi_heights(torch.from_numpy(y))
    exact = og.BrenierPotential(y, h).assign(x)
    far = og.BrenierPotential(y64, h - 64.0 * torch.from_numpy(y).sum(1), center=[64.0] * 4)
    assert (far.assign(x64) == exact).double().mean() > 0.9995
    naive = (x64 @ y64.T + far.heights.float().numpy()).argmax(1)
    assert (naive == exact.numpy()).mean() < 0.995, "a plain float32 evaluation does lose digits"


def test_standardization_keeps_the_cells():
    source = og.Gaussian([3.0, -2.0], [[4.0, 1.0], [1.0, 2.0]])
    target = og.DiscreteMeasure(1e3 * np.random.default_rng(0).normal(size=(50, 2)) + 7)
    change = Standardization.of(source, target)
    scaled = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3
    x = source.sample(1000, seed=0, dtype=torch.float64)
    plain = og.BrenierPotential(target.points, change.heights(scaled, target.points), center=source.mean)
    unit = og.BrenierPotential(change.target(target.points), scaled)
    assert torch.equal(plain.assign(x), unit.assign(change.source(x)))
    assert torch.allclose(
        change.scaled_heights(change.heights(scaled, target.points), target.points), scaled, atol=1e-9
    )


def test_gauge_and_dual_round_trip():
    u, _ = random_potential()
    h = fix_gauge(u.heights, u.weights)
    assert abs(float(u.weights @ h)) < 1e-14
    assert torch.allclose(heights_from_dual(u.points, u.dual()), u.heights, atol=1e-12)


def test_module_habits():
    u, x = random_potential(dtype=np.float32)
    assert set(u.state_dict()) == {"points", "heights", "weights", "center"}
    assert "n=40, dim=3" in repr(u)
    assert u.double()(x).dtype == torch.float64
    compiled = torch.compile(lambda z: u.transport(z) + 1, backend="eager")
    assert torch.equal(compiled(torch.from_numpy(x)), u.transport(x) + 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda u: u(np.zeros(3)), r"\(n, d\)"),
        (lambda u: u(np.zeros((2, 4))), "dimension 4, expected 3"),
        (lambda u: u(np.full((1, 3), np.nan)), "NaN"),
        (lambda u: u(torch.zeros(2, 3, dtype=torch.float16)), "float32 or float64"),
        (lambda u: u(torch.zeros(2, 3, device="meta")), "on meta"),
        (lambda u: u.smooth_transport(np.zeros((1, 3)), reg=0.0), "reg"),
        (lambda u: u.kantorovich(np.zeros((1, 3)), cost="l1"), "Unknown cost"),
        (lambda u: og.BrenierPotential(u.points, u.heights[:-1]), "heights"),
        (lambda u: og.BrenierPotential(u.points, u.heights * np.nan), "heights"),
        (lambda u: og.BrenierPotential(u.points, u.heights, center=[0.0]), "center"),
    ],
)
def test_refusals_are_sentences(call, words):
    u, _ = random_potential()
    with pytest.raises((ValueError, TypeError), match=words):
        call(u)


def test_empty_batches():
    u, _ = random_potential()
    nothing = np.zeros((0, 3))
    assert u(nothing).shape == (0,)
    assert u.transport(nothing).shape == (0, 3)
    assert u.smooth_transport(nothing, reg=1.0).shape == (0, 3)
    assert u.conjugate(nothing).shape == (0,)


@pytest.mark.parametrize("outlier", [1e3, 1e8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_outlier_among_the_targets_costs_no_digits(outlier, dtype):
    y = np.concatenate([np.random.default_rng(0).random((99, 2)), [[outlier, 0.0]]]).astype(dtype)
    u = og.BrenierPotential(y, -0.5 * (y.astype(float) ** 2).sum(1))
    x = np.random.default_rng(1).random((1000, 2)).astype(dtype)
    nearest = ((x[:, None] - y[None]) ** 2).sum(-1).argmin(1)
    assert (u.assign(x).numpy() == nearest).mean() > 0.998


def test_heights_stay_in_double_precision_through_casts():
    u, _ = random_potential()
    v = u.float()
    assert v.points.dtype == torch.float32 and v.heights.dtype == v.weights.dtype == torch.float64


def test_second_derivatives_are_refused_rather_than_wrong():
    u, x = random_potential()
    at = torch.from_numpy(x).requires_grad_()
    (gradient,) = torch.autograd.grad(u.smooth(at, 0.1).sum(), at, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()
