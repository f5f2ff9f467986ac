"""The critic between two samples against the exact cost, and where it is high."""

import numpy as np
import pytest
import torch

import otgan as og
from otgan.generators import critic_between


def test_it_separates_where_the_laws_differ():
    """The generator lost one of two modes: the critic is high on the mode that it visits too often."""
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(size=(150, 2)) * 0.3 + 3, rng.normal(size=(150, 2)) * 0.3 - 3])
    generated = rng.normal(size=(200, 2)) * 0.3 + 3
    critic = critic_between(generated, real)
    exact = og.metrics.w2(generated, real)
    assert critic.result.method == "discrete"
    assert critic.distance.value == pytest.approx(exact, rel=1e-6)
    assert critic.distance.lower <= exact * (1 + 1e-9) and exact <= critic.distance.upper * (1 + 1e-9)
    assert critic.separation >= 0.5 * exact**2 - 1e-9
    fresh = rng.normal(size=(500, 2)) * 0.3
    assert critic(fresh + 3).min() > critic(fresh - 3).max()


def test_its_gradient_points_away_from_the_data():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(80, 3))
    generated = torch.from_numpy(rng.permutation(real) + np.array([1.0, 0.0, 0.0]))
    critic = critic_between(generated, real)
    x = generated.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x)
    assert torch.allclose(gradient, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(80, 3), atol=1e-9)
    assert critic.distance.value == pytest.approx(1.0, abs=1e-9)


def test_equal_samples_cannot_be_told_apart():
    points = np.random.default_rng(2).normal(size=(60, 4))
    critic = critic_between(points, points[::-1].copy())
    assert critic.distance.upper < 1e-6 and critic.separation == pytest.approx(0.0, abs=1e-9)


def test_weights_and_another_method():
    rng = np.random.default_rng(3)
    generated, real = rng.normal(size=(400, 2)) + 1.0, rng.normal(size=(50, 2))
    b = rng.random(50) + 0.5
    exact = critic_between(generated, real, weights=b)
    sampled = critic_between(generated, real, weights=b, method="stochastic-newton", tol=0.02, seed=1)
    assert sampled.result.method == "stochastic-newton"
    assert sampled.distance.lower <= exact.distance.value <= sampled.distance.upper
    points = torch.from_numpy(rng.normal(size=(300, 2)))
    assert torch.corrcoef(torch.stack([exact(points), sampled(points)]))[0, 1] > 0.99
    heavy = critic_between(generated, real, generated_weights=np.linspace(1, 2, 400), weights=b)
    assert heavy.separation >= 0.5 * heavy.distance.value**2 - 1e-9


def test_refusals():
    with pytest.raises(ValueError, match="dimension"):
        critic_between(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="generated"):
        critic_between([[float("nan")]], [[0.0]])
    with pytest.raises(ValueError, match="quadratic"):
        critic_between([[1.0]], [[0.0]], p=3.0)
