"""Networks against automatic differentiation and closed forms; coordinates against the Bures map; exact conjugates."""

import pytest
import torch

from otgan.generators.networks import ICNN, Coordinates, ResidualMLP, conjugate

DOUBLE = torch.float64


def points(m, d, seed=0):
    return torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@pytest.mark.parametrize("quadratic", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_explicit_gradient_is_the_gradient(depth, quadratic):
    net = ICNN(4, width=9, depth=depth, quadratic=quadratic, seed=1).double()
    z = (3 * points(40, 4)).requires_grad_()
    value, gradient = net.value_and_gradient(z)
    (wanted,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
    assert torch.allclose(gradient, wanted, rtol=1e-12, atol=1e-12)
    assert torch.allclose(net.value(z), value, rtol=1e-13)
    assert torch.equal(net(z), gradient)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_icnn_is_strongly_convex_whatever_its_weights(depth):
    net = ICNN(3, width=8, depth=depth, strong_convexity=0.05).double()
    stream = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(2 * torch.randn(parameter.shape, generator=stream, dtype=DOUBLE))
        a, b = 2 * points(500, 3, 1), 2 * points(500, 3, 2)
        inner = ((net(a) - net(b)) * (a - b)).sum(1)
        assert (inner >= 0.05 * ((a - b) ** 2).sum(1) * (1 - 1e-9)).all()


def test_loss_on_the_map_reaches_every_parameter():
    net = ICNN(3, width=6)
    net(points(20, 3).float()).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_residual_network_starts_at_the_identity():
    z = points(10, 5).float()
    assert torch.allclose(ResidualMLP(5)(z), z)


def test_same_seed_same_network():
    z = points(4, 3).float()
    for make in (ICNN, ResidualMLP):
        pairs = zip(make(3, seed=2).parameters(), make(3, seed=2).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(ICNN(3, seed=2)(z), ICNN(3, seed=3)(z))


def test_identity_in_coordinates_is_the_optimal_map_between_gaussians():
    a, b = points(3, 3, 1), points(3, 3, 2)
    cx, cy = a @ a.T + 0.1 * torch.eye(3), b @ b.T + 0.1 * torch.eye(3)
    s, c = points(1, 3, 3)[0], points(1, 3, 4)[0]
    change = Coordinates(s, cx, c, cy)
    x = points(7, 3, 5)
    image = change.target_back(change.source(x))
    matrix = (change.matrix @ change.matrix) * change.scale  # of x -> image
    assert torch.allclose(image, c + (x - s) @ matrix, atol=1e-10)
    assert torch.allclose(matrix @ cx @ matrix, cy, atol=1e-8)  # it carries one covariance to the other, and is SPD
    assert (torch.linalg.eigvalsh(matrix) > 0).all()
    assert torch.allclose(change.source_back(change.source(x)), x, atol=1e-8)
    assert torch.allclose(change.target_back(change.target(x)), x, atol=1e-8)
    assert torch.allclose(change.matrix @ cx @ change.matrix, change.inverse @ cy @ change.inverse / change.scale**2)


@pytest.mark.parametrize("flat", ["source", "target", "both"])
def test_coordinates_of_flat_data_are_finite(flat):
    x, y = points(50, 3, 1), points(50, 3, 2)
    if flat in ("source", "both"):
        x[:, 0] = 1.0
    if flat in ("target", "both"):
        y[:, 2] = -2.0
    change = Coordinates.of(x, y)
    image = change.target_back(change.source(x))
    assert torch.isfinite(image).all()
    if flat == "target":
        assert (image[:, 2] + 2.0).abs().max() < 0.05


def test_coordinates_keep_their_precision_in_casts():
    change = Coordinates.of(points(50, 3, 1), points(50, 3, 2)).float()
    assert change.matrix.dtype == DOUBLE and change.source(points(2, 3).float()).dtype == torch.float32


def test_conjugate_of_a_quadratic():
    a = points(5, 5, 1)
    a = a @ a.T / 5 + 0.2 * torch.eye(5, dtype=DOUBLE)
    t = points(30, 5, 2)
    answer = conjugate(lambda z: (0.5 * (z @ a * z).sum(1), z @ a), t, torch.zeros_like(t), tol=1e-10)
    assert torch.allclose(answer.argument, torch.linalg.solve(a, t.T).T, atol=1e-8)
    assert torch.allclose(answer.value, 0.5 * (t * torch.linalg.solve(a, t.T).T).sum(1), atol=1e-10)


def test_conjugate_inverts_a_network_from_far_away():
    net = ICNN(4, width=16, strong_convexity=0.05, seed=3).double()
    with torch.no_grad():
        z = 2 * points(200, 4, 6)
        value, t = net.value_and_gradient(z)
        answer = conjugate(net.value_and_gradient, t, torch.zeros_like(z) + 5.0, iterations=300, tol=1e-9)
    assert answer.residual.max() < 1e-8
    assert torch.allclose(answer.argument, z, atol=1e-6)
    assert torch.allclose(answer.value, (z * t).sum(1) - value, atol=1e-9)  # equality of Fenchel and Young
