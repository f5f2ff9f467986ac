"""Networks, losses and settings: published ones, one's own, and those that come back from disk."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import otgan as og
from otgan.adversarial import LOSSES, MLP, PRESETS, WGAN, Preset, train

METHODS = tuple(LOSSES)
QUICK = {"width": 16, "batch": 32, "latent": 3, "record_every": 5}


def test_own_networks_and_source(points):
    generator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    with pytest.raises(ValueError, match="source="):
        train("wgan-gp", points, generator=generator, critic=critic, steps=2, **QUICK)
    model = train("wgan-gp", points, generator=generator, critic=critic, source=og.UniformBall(4), steps=2, **QUICK)
    assert model.generator is generator and model.critic(points).shape == (400,)
    with pytest.raises(TypeError, match="state_dict"):
        model.save("nowhere")


def test_a_generator_that_cannot_learn_stays(points):
    model = train("gan", points, generator=nn.Identity(), source=og.Gaussian(2), steps=6, **QUICK)
    assert torch.equal(model.sample(5, seed=3), og.Gaussian(2).sample(5, seed=3))
    assert math.isnan(model.history[0]["generator_loss"]) and math.isfinite(model.history[0]["value"])


def test_float64_networks_train_in_float64(points, tmp_path):
    model = train(
        "gan",
        points.double(),
        generator=MLP(3, 2, 8, 1).double(),
        critic=MLP(2, 1, 8, 1, scores=True).double(),
        steps=2,
        **QUICK,
    )
    assert model.sample(3).dtype == torch.float64
    again = og.load(model.save(tmp_path / "m"))
    assert torch.equal(again.sample(9, seed=1), model.sample(9, seed=1)) and again.dtype == torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_presets_and_models_come_back_from_disk(method, points, tmp_path):
    model = train(method, points, steps=6, source=og.UniformBall(3), ema=0.5, **QUICK)
    model.save(tmp_path / "m")
    again = og.load(tmp_path / "m")
    assert torch.equal(again.sample(20, seed=1), model.sample(20, seed=1))
    assert torch.equal(again.critic(points), model.critic(points))
    assert again.preset == model.preset and again.history == model.history and again.summary() == model.summary()
    assert (again.status, again.method) == ("finished", method)


def test_a_loss_of_ones_own_trains_and_is_not_saved(points, tmp_path):
    class Hinge(WGAN):
        name = "hinge"

    with pytest.raises(ValueError, match="preset=Preset"):
        train(Hinge(), points, steps=2)
    mine = Preset(loss=Hinge(), source="mine", optimizer="adam", lr=1e-3, width=8)
    model = train(Hinge(), points, preset=mine, steps=2)
    assert model.method == "hinge" and model.status == "finished"
    with pytest.raises(TypeError, match="Hinge"):
        model.save(tmp_path / "m")


def test_summary_tells_what_is_not_as_published(points):
    assert "changed" not in train("wgan", points, steps=1).summary()
    said = train("wgan", points, steps=1, lr=1e-3, clip=0.1).summary()
    assert "lr 0.001 (published 5e-05)" in said and "clip 0.1 (published 0.01)" in said


class Mean(nn.Module):
    """A critic that looks at its whole batch: the score of a point is its distance to the batch's mean."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * (x - x.mean(0)).square().sum(1)


@pytest.mark.parametrize("critic", [Mean(), nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))])
def test_a_critic_that_looks_at_its_batch_never_sees_real_and_fake_together(critic, points):
    sizes = []
    critic.register_forward_hook(lambda module, x, out: sizes.append(len(x[0])))
    train("gan", points, critic=critic, steps=2, **QUICK)
    assert set(sizes[1:]) == {QUICK["batch"]}


def test_a_penalty_and_a_critic_that_normalises_over_its_batch_do_not_go_together(points):
    critic = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.warns(UserWarning, match="layer normalisation"):
        train("wgan-gp", points, critic=critic, steps=1, **QUICK)


PUBLISHED = {
    # lr, critic_lr, betas, k, m, steps, latent, hidden layers of both networks
    ("gan", "toy"): ("adam", 1e-3, 1e-4, (0.5, 0.999), 1, 512, 25_000, 256, 2, 2),
    ("lsgan", "toy"): ("adam", 1e-3, 1e-4, (0.5, 0.999), 1, 512, 25_000, 256, 2, 2),
    ("wgan", "toy"): ("rmsprop", 5e-5, None, (0.9, 0.999), 5, 64, 100_000, 2, 3, 3),
    ("wgan-gp", "toy"): ("adam", 1e-4, None, (0.5, 0.9), 5, 256, 100_000, 2, 3, 3),
    ("gan", "mnist"): ("adam", 2e-4, None, (0.5, 0.999), 1, 128, 46_900, 100, 3, 3),
    ("lsgan", "mnist"): ("rmsprop", 1e-4, None, (0.5, 0.999), 1, 128, 46_900, 100, 3, 3),
    ("wgan", "mnist"): ("rmsprop", 5e-5, None, (0.9, 0.999), 5, 64, 200_000, 128, 3, 3),
    ("wgan-gp", "mnist"): ("adam", 1e-4, None, (0.0, 0.9), 5, 64, 200_000, 128, 3, 3),
}


@pytest.mark.parametrize(("method", "kind"), PUBLISHED)
def test_published_settings(method, kind):
    p = PRESETS[method][kind]
    rates = (p.optimizer, p.lr, p.critic_lr, p.betas)
    assert (*rates, p.critic_steps, p.batch, p.steps, p.latent, p.depth, p.critic_depth) == PUBLISHED[method, kind]
    assert p.source and p.loss.name == method and p.network == ("mlp" if kind == "toy" else "dcgan")


def test_published_constants_and_networks():
    wgan, gp = PRESETS["wgan"], PRESETS["wgan-gp"]
    assert wgan["toy"].loss.clip == wgan["mnist"].loss.clip == 0.01
    assert (gp["toy"].loss.penalty_weight, gp["mnist"].loss.penalty_weight) == (0.1, 10.0)
    assert gp["mnist"].critic_norm == "none" and gp["toy"].width == wgan["toy"].width == 512
    toy = PRESETS["gan"]["toy"]
    assert (toy.loss.saturating, toy.activation, toy.gain, toy.width) == (True, "tanh", 1.4, 128)
    assert not PRESETS["gan"]["mnist"].loss.saturating and PRESETS["gan"]["mnist"].noise == "uniform"
    lsgan = PRESETS["lsgan"]["toy"]
    assert (lsgan.loss.a, lsgan.loss.b, lsgan.loss.c, lsgan.activation, lsgan.gain) == (0.0, 1.0, 1.0, "relu", None)
