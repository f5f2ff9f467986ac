"""The Kantorovich potential of |x - y|^p / p: cells, duality, the map from its gradient, the smoothed family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otgan as og
from otgan.cost_potential import inverse_cost_gradient
from otgan.generators import entropic_reg

EXPONENTS = (1.25, 1.5, 2.0, 3.0, 4.0)


def random_potential(p, n=40, d=3, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, d)).astype(dtype)
    u = og.KantorovichPotential(y, 0.1 * rng.normal(size=n), rng.uniform(0.5, 2, n), p)
    return u, rng.normal(size=(200, d)).astype(dtype)


def scores(u, x):
    y = u.points.double().numpy()
    return u.psi.numpy() - np.linalg.norm(x[:, None].astype(float) - y, axis=2) ** u.p / u.p


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", EXPONENTS)
def test_cells_value_and_map_by_brute_force(p, dtype):
    u, x = random_potential(p, dtype=dtype)
    s, tolerance = scores(u, x), 1e-5 if dtype == np.float32 else 1e-12
    assert np.array_equal(u.assign(x), s.argmax(1))
    assert np.allclose(u(x), -s.max(1), atol=tolerance) and u(x).dtype == torch.from_numpy(x).dtype
    assert np.array_equal(u.transport(x), u.points.numpy()[s.argmax(1)])
    best = u.top_k(x, 5)
    assert np.allclose(best.value, -np.sort(-s, axis=1)[:, :5], atol=tolerance)
    gap = -s + u.psi.numpy() - u.kantorovich(x).double().numpy()[:, None] - u.dual().numpy()
    assert gap.min() > -tolerance and np.abs(gap[np.arange(len(x)), u.assign(x)]).max() < tolerance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", EXPONENTS)
def test_map_from_the_gradient_is_the_transport_map(p, dtype):
    u, x = random_potential(p, dtype=dtype)
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    assert torch.allclose(u.map_from_gradient(x), u.transport(x), atol=tolerance)
    assert torch.allclose(u.map_from_gradient(x, reg=0.1), u.smooth_transport(x, reg=0.1), atol=tolerance)
    with torch.no_grad():
        assert torch.allclose(u.map_from_gradient(u.points), u.transport(u.points), atol=tolerance)


@pytest.mark.parametrize("p", EXPONENTS)
def test_a_solved_problem_has_both_maps(p):
    rng = np.random.default_rng(0)
    source, y = og.Empirical(rng.normal(size=(100, 2))), rng.normal(size=(100, 2)) + 3
    result = og.solve(source, y, p=p)
    u = result.potential
    if p == 2.0:
        u = og.KantorovichPotential(u.points, u.dual("half-sqeuclidean"), u.weights)
    mapped = u.map_from_gradient(source.points)
    plan = result.plan.matrix.toarray()
    assert torch.allclose(mapped, u.points[torch.from_numpy(plan.argmax(1))], atol=1e-9)


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("reg", [0.05, 1.0])
def test_the_smoothed_family(p, reg):
    u, x = random_potential(p)
    logits = torch.from_numpy(scores(u, x)) / reg + u.weights.log()
    prob = torch.softmax(logits, 1)
    at = torch.from_numpy(x).requires_grad_()
    value = u.smooth(at, reg)
    assert torch.allclose(value.detach(), -reg * torch.logsumexp(logits, 1), atol=1e-11)
    (gradient,) = torch.autograd.grad(value.sum(), at)
    away = at.detach()[:, None] - u.points
    pulls = prob[:, :, None] * away.norm(dim=2, keepdim=True) ** (p - 2) * away
    assert torch.allclose(gradient, pulls.sum(1), atol=1e-10)
    assert torch.allclose(u.smooth_transport(x, reg), at.detach() - inverse_cost_gradient(pulls.sum(1), p), atol=1e-9)
    assert torch.allclose(u.barycentre(x, reg), prob @ u.points, atol=1e-11)
    assert torch.allclose(u.smooth_transport(x, 1e-6), u.transport(x), atol=1e-9)
    assert torch.allclose(u.barycentre(x, 1e-6), u.transport(x), atol=1e-9)
    assert (p == 2.0) == torch.allclose(u.smooth_transport(x, reg), u.barycentre(x, reg), atol=1e-3)


def test_p_2_is_the_brenier_potential():
    u, x = random_potential(2.0)
    b = og.BrenierPotential(u.points, u.psi - 0.5 * (u.points**2).sum(1), u.weights)
    at = torch.from_numpy(x)
    assert torch.equal(u.assign(x), b.assign(x)) and torch.equal(u.transport(x), b.transport(x))
    assert torch.allclose(u(x), b.kantorovich(x), atol=1e-12)
    assert torch.allclose(u.dual(), b.dual("half-sqeuclidean"), atol=1e-12)
    assert torch.allclose(u.smooth_transport(x, 0.2), b.smooth_transport(x, 0.2), atol=1e-12)
    assert torch.allclose(u.smooth(x, 0.2), 0.5 * (at**2).sum(1) - b.smooth(x, 0.2), atol=1e-12)
    assert entropic_reg(u, og.Gaussian(3)) == entropic_reg(b, og.Gaussian(3))


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
def test_shift_and_units(p):
    u, x = random_potential(p, dtype=np.float32)
    far = og.KantorovichPotential(u.points + 1e4, u.psi + 1e6, u.weights, p)
    moved = torch.from_numpy(x) + 1e4
    there = og.KantorovichPotential(far.points - 1e4, u.psi, u.weights, p)  # what the rounding at 1e4 left
    assert torch.equal(far.assign(moved), there.assign(moved - 1e4))
    for units in (1e-3, 1e3):
        scaled = og.KantorovichPotential(units * u.points.double(), units**p * u.psi, u.weights, p)
        assert torch.equal(scaled.assign(units * x.astype(float)), u.double().assign(x))
        reg = entropic_reg(u, og.Gaussian(3))
        assert entropic_reg(scaled, og.Gaussian(np.zeros(3), units**2 * np.eye(3))) == pytest.approx(units**p * reg)


def test_saving_casts_and_habits(tmp_path):
    u, x = random_potential(3.0, dtype=np.float32)
    v = og.load(u.save(tmp_path / "u"))
    assert v.p == 3.0 and all(torch.equal(a, b) for a, b in zip(u.buffers(), v.buffers(), strict=True))
    assert "n=40, dim=3, p=3" in repr(u) and set(u.state_dict()) == {"points", "psi", "weights"}
    w = u.double().float()
    assert w.psi.dtype == w.weights.dtype == torch.float64 and w.points.dtype == torch.float32
    nothing = np.zeros((0, 3))
    assert u(nothing).shape == (0,) and u.smooth_transport(nothing, 0.1).shape == (0, 3)
    assert u.map_from_gradient(nothing).shape == (0, 3)


def test_switched_off_targets():
    u = og.KantorovichPotential([[0.0], [1.0], [-1.0]], [0.0, -np.inf, 0.0], p=1.5)
    assert u.assign([[5.0], [-5.0]]).tolist() == [0, 2]
    assert torch.isfinite(u.smooth_transport([[3.0]], reg=0.1)).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda u: u(np.zeros(3)), r"\(n, d\)"),
        (lambda u: u(np.zeros((2, 4))), "dimension 4, expected 3"),
        (lambda u: u.smooth(np.zeros((1, 3)), reg=0.0), "reg"),
        (lambda u: u.smooth_transport(np.zeros((1, 3)), reg=-1.0), "reg"),
        (lambda u: og.KantorovichPotential(u.points, u.psi[:-1]), "dual must have shape"),
        (lambda u: og.KantorovichPotential(u.points, u.psi * np.nan), "dual must be finite"),
        (lambda u: og.KantorovichPotential(u.points, u.psi - np.inf), "all -inf"),
        (lambda u: og.KantorovichPotential(u.points, u.psi, p=1.0), "not strictly convex"),
    ],
)
def test_refusals_are_sentences(call, words):
    u, _ = random_potential(3.0)
    with pytest.raises((ValueError, TypeError), match=words):
        call(u)


def test_second_derivatives_are_refused_rather_than_wrong():
    u, x = random_potential(3.0)
    at = torch.from_numpy(x).requires_grad_()
    (gradient,) = torch.autograd.grad(u.smooth(at, 0.1).sum(), at, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()
