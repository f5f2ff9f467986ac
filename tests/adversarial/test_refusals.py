"""What the trainer refuses, and what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import otgan as og
from otgan.adversarial import LOSSES, MLP, PRESETS, DCGANGenerator, Loss, Preset, train

METHODS = tuple(LOSSES)
QUICK = {"width": 16, "batch": 32, "latent": 3, "record_every": 5}


class Transposed(nn.Linear):
    """Makes (d, m) of m points: in the plane, of two points, that has the right shape."""

    def __init__(self):
        super().__init__(2, 2)

    def forward(self, z):
        return super().forward(z).T


class Tuples(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x), None


class Sums(nn.Linear):
    """A critic with one score for two points of the plane together."""

    def __init__(self):
        super().__init__(2, 1)

    def forward(self, x):
        return super().forward(x).sum(0).expand(2)


SHARED = MLP(2, 2, 4, 1)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"method": "dcgan"}, "'gan', 'wgan', 'wgan-gp', 'lsgan'"),
        ({"preset": "imagenet"}, "'toy', 'mnist'"),
        ({"clip": 0.1}, "no setting clip"),
        ({"preset": "mnist"}, "preset='toy'"),
        ({"data": np.zeros(5)}, r"\[:, None\]"),
        ({"data": np.zeros((5, 28, 28))}, r"\[:, None\]"),
        ({"data": np.zeros((5, 1, 20, 20))}, "28, 28"),
        ({"data": 255 * np.ones((5, 1, 28, 28))}, "grey levels"),
        ({"data": np.zeros((1, 2))}, "two points"),
        ({"data": np.array([[0.0, np.nan], [1.0, 2.0]])}, "NaN"),
        ({"data": np.array([[0.0, np.inf], [1.0, 2.0]])}, "infinite"),
        ({"generator": MLP(2, 3, 4, 1), "source": og.Gaussian(2)}, r"\(2,\) like the data; .* \(5, 3\)|\(3, 3\)"),
        ({"generator": DCGANGenerator(5, width=2), "source": og.Gaussian(5)}, r"\(3, 1, 28, 28\)"),
        ({"generator": Transposed(), "source": og.Gaussian(2)}, r"shape \(2,\) like the data"),
        ({"critic": Sums()}, "one score a point"),
        ({"critic": MLP(2, 1, 4, 1).double()}, "generator is in float32, critic is in float64"),
        ({"critic": MLP(2, 1, 4, 1).bfloat16()}, "critic is in bfloat16"),
        ({"generator": SHARED, "critic": SHARED, "source": og.Gaussian(2)}, "the same module"),
        ({"critic": nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), "batch": 1}, "batch is 1"),
        ({"data": 1e60 * np.eye(2)}, "float32 cannot hold"),
        ({"data": 1e-60 * np.eye(2)}, "float32 cannot hold"),
        ({"device": "gpu"}, "'cpu' or 'cuda'"),
        ({"device": 3.5}, "'cpu' or 'cuda'"),
        ({"device": "cuda:99"}, "torch sees"),
        ({"method": ["gan"]}, "method must be one of"),
        ({"preset": ["toy"]}, "preset must be"),
        ({"momentum": 0.9}, "momentum is for optimizer='sgd'"),
        ({"norm": "layer"}, "norm is for network='dcgan'"),
        ({"betas": 0.5}, "two numbers"),
        ({"method": "lsgan", "a": 1.0}, "must differ"),
        ({"critic": MLP(5, 1, 4, 1)}, "critic does not take"),
        ({"critic": MLP(2, 2, 4, 1)}, "one score a point"),
        ({"critic": nn.Flatten(0)}, "no parameter"),
        ({"ema": 1.0}, "ema"),
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"betas": (1.0, 0.9)}, "betas"),
        ({"optimizer": "lbfgs"}, "optimizer"),
        ({"lr": -1.0}, "lr"),
        ({"max_time": 0.0}, "max_time"),
        ({"method": "wgan", "clip": 0.0}, "clip"),
        ({"method": "wgan", "preset": PRESETS["gan"]["toy"]}, "loss of 'gan'"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(named, said, points):
    arguments = {"method": "gan", "data": points, "steps": 2, **named}
    with pytest.raises(ValueError, match=said):
        train(arguments.pop("method"), arguments.pop("data"), **arguments)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"generator": "mlp"}, "torch module"),
        ({"critic": 3}, "torch module"),
        ({"source": torch.randn}, "measure"),
        ({"generator": Tuples(MLP(2, 2, 4, 1)), "source": og.Gaussian(2)}, "one tensor, got tuple"),
        ({"critic": Tuples(MLP(2, 1, 4, 1))}, "one tensor, got tuple"),
        ({"lr": "1e-3"}, "lr must be a number"),
        ({"lr": True}, "lr must be a number"),
        ({"ema": "high"}, "ema must be a number"),
        ({"ema": None}, "ema must be a number"),
        ({"betas": ("a", "b")}, "betas must be a number"),
        ({"saturating": "no"}, "True or False"),
        ({"callback": 3}, "callback must be a function"),
        ({"observer": 3}, "observer must be a function"),
        ({"checkpoint": 3}, "path of a folder"),
        ({"seed": 0.5}, "seed must be an integer"),
        ({"method": "wgan", "clip": "0.1"}, "clip must be a number"),
        ({"method": "wgan-gp", "penalty_weight": "10"}, "penalty_weight must be a number"),
        ({"method": "lsgan", "a": math.nan}, "finite number"),
        ({"method": "lsgan", "b": "x"}, "finite number"),
    ],
)
def test_wrong_kinds_are_refused(named, said, points):
    arguments = {"method": "gan", "steps": 2, **named}
    with pytest.raises(TypeError, match=said):
        train(arguments.pop("method"), points, **arguments)


def test_large_seeds_are_fine(points):
    assert train("gan", points, steps=1, seed=2**70, **QUICK).status == "finished"


def test_what_a_model_refuses(points):
    class Bare(Loss):
        name = "bare"
        critic_loss = generator_loss = value = None

    for loss in ("gan", Bare()):
        with pytest.raises(TypeError, match="loss"):
            Preset(loss=loss, source="", optimizer="adam", lr=1e-3)
    model = train("wgan", points, steps=1, **QUICK)
    with pytest.raises(ValueError, match=r"\(m, 2\)"):
        model.critic(torch.zeros(4, 3))
    with pytest.raises(TypeError, match="probability"):
        model.discriminator(points)
    with pytest.raises(ValueError, match="history has"):
        train("wgan", points, steps=5, **QUICK).curve("fid")
