"""What theory says of adversarial training, in numbers: the best discriminator, JS, vanishing gradients, penalties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import otgan as og
from otgan.adversarial import GAN, LSGAN, MLP, WGANGP, gradient_norms, train

STABLE = {"batch": 512, "critic_lr": 2e-3, "betas": (0.9, 0.999)}


def critic(dim: int, seed: int = 1, width: int = 32) -> MLP:
    return MLP(dim, 1, width, 2, scores=True, seed=seed)


def log_density(x: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> np.ndarray:
    return stats.multivariate_normal(mean, cov).logpdf(x).reshape(len(x))


# --- the best discriminator of a fixed generator ---


@pytest.mark.parametrize(
    ("mean", "cov"),
    [
        ([1.0], [[0.5]]),
        ([0.0], [[1.0]]),
        ([0.8, -0.5], [[0.6, 0.2], [0.2, 1.0]]),
        ([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
    ],
)
def test_the_discriminator_tends_to_the_ratio_of_densities_and_its_value_to_js(mean, cov):
    """Goodfellow et al. (2014), Proposition 1 and Theorem 1: D = p / (p + q), V = -log 4 + 2 JS(p, q)."""
    dim, rng = len(mean), np.random.default_rng(0)
    data = rng.normal(size=(40_000, dim)).astype(np.float32)
    q = og.Gaussian(mean, cov)
    model = train("gan", data, generator=nn.Identity(), source=q, critic=critic(dim), steps=1200, **STABLE)
    fresh, made = torch.randn(100_000, dim, generator=torch.Generator().manual_seed(1)), model.sample(100_000, seed=2)
    both = torch.cat([fresh, made])
    x = both.double().numpy()
    ratio = log_density(x, mean, cov) - log_density(x, np.zeros(dim), np.eye(dim))
    best = 1.0 / (1.0 + np.exp(ratio))
    with torch.no_grad():
        error = np.abs(model.discriminator(both).numpy() - best)
        value = model.preset.loss.value(float(model.preset.loss.critic_loss(model.critic(fresh), model.critic(made))))
    assert error.mean() < 0.025
    # JS by the same samples: E_p log D + E_q log (1 - D) at the best D is -log 4 + 2 JS.
    exact = np.log(best[:100_000]).mean() + np.log1p(-best[100_000:]).mean()
    assert value == pytest.approx(exact, abs=0.01)
    if dim == 1:
        line = np.linspace(-12, 12, 20_001)
        densities = (stats.norm(m, s).pdf(line) for m, s in ((0.0, 1.0), (mean[0], cov[0][0] ** 0.5)))
        assert value == pytest.approx(-math.log(4) + 2 * og.metrics.js_divergence(*densities), abs=0.015)
    if not any(mean):
        assert value == pytest.approx(-math.log(4), rel=0.01)


def test_the_least_squares_discriminator_too():
    """Mao et al. (2017), equation 5: D = p / (p + q) for the labels 0 and 1."""
    data = np.random.default_rng(0).normal(size=(40_000, 1)).astype(np.float32)
    q = og.Gaussian([1.0], [[0.5]])
    model = train("lsgan", data, generator=nn.Identity(), source=q, critic=critic(1), steps=1200, **STABLE)
    x = np.linspace(-2.5, 2.5, 101)
    best = 1 / (1 + stats.norm(1.0, 0.5**0.5).pdf(x) / stats.norm().pdf(x))
    with torch.no_grad():
        assert np.abs(model.critic(x[:, None].astype(np.float32)).numpy() - best).mean() < 0.04


# --- parallel segments: what is flat, and what is not ---


class Segment(nn.Module):
    """Carries z in [0, 1] to (t, z)."""

    def __init__(self, t: float, learns: bool = False) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.tensor(t), requires_grad=learns)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.t.expand(len(z), 1), z], dim=1)


def segment(n: int = 4000) -> torch.Tensor:
    return Segment(0.0)(torch.rand(n, 1, generator=torch.Generator().manual_seed(0)))


PENALISED = {"penalty_weight": 10.0, "critic_steps": 1, "batch": 256, "critic_lr": 2e-3, "betas": (0.0, 0.9)}


def pull(model, loss, t: float) -> float:
    """``|d loss / d t|`` of the generator, at the critic as it is."""
    g = Segment(t, learns=True)
    scores = model.network(g(torch.rand(4096, 1, generator=torch.Generator().manual_seed(5))))
    return abs(float(torch.autograd.grad(loss.generator_loss(scores), g.t)[0]))


def settled(method: str, t: float, **settings):
    """A critic that was trained for long against a generator that stays."""
    law = og.UniformBox([0.0], [1.0])
    return train(method, segment(), generator=Segment(t), source=law, critic=critic(2), steps=800, **settings)


def test_the_gradient_of_the_minimax_gan_vanishes_and_that_of_the_wasserstein_gan_does_not():
    distances = (0.25, 1.0, 2.0)
    gan = {t: settled("gan", t, batch=256, critic_lr=2e-3) for t in distances}
    wgan = {t: settled("wgan-gp", t, **PENALISED) for t in distances}
    for t in distances:
        # W1 = t: its derivative is 1 wherever the generator is, and the critic's value is the distance.
        assert pull(wgan[t], wgan[t].preset.loss, t) == pytest.approx(1.0, abs=0.15)
        assert wgan[t].history[-1]["value"] == pytest.approx(t, rel=0.1)
        # JS = log 2: the value is 0 = -log 4 + 2 log 2, and its derivative all but 0 too.
        assert abs(gan[t].history[-1]["value"]) < 0.01
    vanishing = [pull(gan[t], GAN(saturating=True), t) for t in distances]
    assert vanishing[0] < 0.1 and vanishing[-1] < 2e-3
    # -log D instead: no vanishing, but a gradient that has nothing to do with the distance.
    assert all(pull(gan[t], GAN(), t) > 3.0 for t in distances)


def test_a_segment_is_found_by_the_one_and_not_by_the_other():
    """Plain gradient steps against critics kept near their best: 120 of 0.01 lead from t = 1 to 0, or nowhere."""
    found = {}
    for loss in (GAN(saturating=True), WGANGP(1.0)):
        settings = {"optimizer": "sgd", "lr": 1e-2, "critic_lr": 0.1, "critic_steps": 20, "batch": 64, "steps": 120}
        generator, law = Segment(1.0, learns=True), og.UniformBox([0.0], [1.0])
        train(loss, segment(), generator=generator, source=law, critic=critic(2), **settings)
        found[loss.name] = generator.t.item()
    assert found["gan"] > 0.8 and abs(found["wgan-gp"]) < 0.2


# --- two ways to keep a critic Lipschitz ---


def test_clipped_weights_pile_up_at_the_ends_and_penalised_ones_do_not():
    """Gulrajani et al. (2017), figure 1b: most weights of a clipped critic are at +-c."""
    angle = 2 * np.pi * np.random.default_rng(0).integers(8, size=4000) / 8
    ring = torch.from_numpy(1.4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)).float()
    law = og.Gaussian([0.0, 0.0], 0.3)
    fixed = {"generator": nn.Identity(), "source": law, "steps": 600, "batch": 256, "critic_steps": 1}
    at_the_ends = {}
    norms = {}
    for method, settings in (("wgan", {"lr": 1e-3}), ("wgan-gp", {"lr": 1e-3, "penalty_weight": 10.0})):
        model = train(method, ring, critic=critic(2, width=64), **fixed, **settings)
        weights = torch.cat([p.detach().flatten() for p in model.network.parameters() if p.ndim == 2])
        largest = float(weights.abs().max())
        at_the_ends[method] = float((weights.abs() > 0.95 * largest).float().mean())
        if method == "wgan":
            assert largest == pytest.approx(0.01)
        stream = torch.Generator().manual_seed(3)
        norms[method] = gradient_norms(model.network, ring, law.sample(4000, seed=4), stream).detach()
    assert at_the_ends["wgan"] > 0.5 and at_the_ends["wgan-gp"] < 0.02
    assert float((norms["wgan-gp"] - 1.0).abs().mean()) < 0.2
    assert float(norms["wgan"].max()) < 0.1  # K-Lipschitz for a K far below 1


def test_one_point_of_each_segment_is_drawn():
    """The critic sees x + e (y - x) with one e a pair, not one a coordinate: all of them lie on their segments."""
    seen = []

    class Seen(torch.nn.Module):
        def forward(self, x):
            seen.append(x.detach())
            return x.square().sum(1)

    stream = torch.Generator().manual_seed(0)
    real, fake = torch.randn(200, 3, generator=stream), torch.randn(200, 3, generator=stream)
    gradient_norms(Seen(), real, fake, stream)
    share = (seen[0] - fake) / (real - fake)
    assert torch.allclose(share, share.mean(1, keepdim=True).expand(-1, 3), atol=1e-3)
    first = share[:, 0].double()
    assert 0 <= first.min() < 0.05 and 0.95 < first.max() <= 1 and abs(float(first.mean()) - 0.5) < 0.07


def test_least_squares_labels():
    loss = LSGAN(a=-1.0, b=2.0, c=0.5)
    real, fake = torch.tensor([2.0, 3.0]), torch.tensor([-1.0, 1.0])
    assert float(loss.critic_loss(real, fake)) == pytest.approx(0.5 * (0.5 + 2.0))
    assert float(loss.generator_loss(fake)) == pytest.approx(0.5 * (1.5**2 + 0.5**2) / 2)
    best = torch.tensor([0.5, 0.5])  # the best constant, (a + b) / 2, is worth nothing
    assert loss.value(float(loss.critic_loss(best, best))) == pytest.approx(0.0)


def test_gradient_norms_by_hand():
    linear = nn.Linear(3, 1)
    x, y = torch.randn(10, 3), torch.randn(10, 3)
    found = gradient_norms(linear, x, y, torch.Generator().manual_seed(0))
    assert torch.allclose(found, linear.weight.norm().expand(10))
    loss, scores = WGANGP(2.5), linear(torch.cat([x, y])).flatten()
    expected = 2.5 * (linear.weight.norm() - 1) ** 2
    assert torch.allclose(loss.penalty(linear, x, y), expected)
    assert torch.allclose(loss.critic_loss(scores[:10], scores[10:]), scores[10:].mean() - scores[:10].mean())

    with pytest.raises(ValueError, match="one shape"):
        gradient_norms(linear, x, y[:5])

    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square().sum(dim=1)

    far = gradient_norms(Square(), torch.full((5000, 1), 2.0), torch.zeros(5000, 1), torch.Generator().manual_seed(1))
    assert float(far.min()) >= 0 and float(far.max()) <= 4 and float(far.mean()) == pytest.approx(2.0, abs=0.1)


# --- the reading by optimal transport ---


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
def test_critic_determines_generator(p):
    """With a strictly convex cost the Kantorovich potential gives the map: x - (grad c)^{-1}(grad phi(x)) = T(x)."""
    y = np.random.default_rng(0).normal(size=(60, 2)) + 2.0
    result = og.solve(og.Gaussian(2), y, "stochastic-newton", p=p, tol=0.05, seed=0)
    u = result.potential
    phi = u if p != 2.0 else og.KantorovichPotential(u.points, u.dual("half-sqeuclidean"), u.weights)
    x = og.Gaussian(2).sample(2000, seed=1, dtype=torch.float64)
    assert torch.allclose(phi.map_from_gradient(x), u.transport(x), atol=1e-9)
    # It is the best critic: no coupling costs less than what the potential and its transform promise.
    cost = float((phi.transport(x) - x).norm(dim=1).pow(p).mean()) / p
    psi = phi.psi[phi.assign(x)]
    assert cost == pytest.approx(float((phi(x) + psi).mean()), rel=1e-9)
