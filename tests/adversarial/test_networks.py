"""Networks of the baselines: shapes, starting weights, which of them mix the points of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from otgan.adversarial import MLP, PRESETS, DCGANCritic, DCGANGenerator, train
from otgan.adversarial.networks import mixes_points


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 28)])
def test_dcgan_shapes(channels, side, norm):
    generator = DCGANGenerator(7, channels, side, width=4, norm=norm, output="tanh")
    critic = DCGANCritic(channels, side, width=4, norm=norm)
    images = generator(torch.randn(5, 7))
    assert images.shape == (5, channels, side, side) and images.abs().max() <= 1
    assert critic(images).shape == (5,)
    assert mixes_points(generator) == mixes_points(critic) == (norm == "batch")


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_a_critic_for_gradient_penalties_judges_each_point_alone(norm):
    critic, x = DCGANCritic(1, 28, width=4, norm=norm), torch.rand(6, 1, 28, 28)
    assert torch.allclose(critic(x)[:2], critic(x[:2]), atol=1e-6)
    mixing = DCGANCritic(1, 28, width=4, norm="batch")
    assert not torch.allclose(mixing(x)[:2], mixing(x[:2]), atol=1e-6)


def test_published_sizes():
    toy = PRESETS["wgan-gp"]["toy"]
    critic = MLP(2, 1, toy.width, toy.critic_depth, scores=True)
    assert sum(p.numel() for p in critic.parameters()) == 2 * 512 + 512 + 2 * (512 * 512 + 512) + 512 + 1
    assert [type(m) for m in critic.layers] == [nn.Linear, nn.ReLU] * 3 + [nn.Linear]


def test_starting_weights():
    network = MLP(300, 400, width=500, depth=2, seed=1)
    first, middle, last = (m for m in network.layers if isinstance(m, nn.Linear))
    assert float(first.weight.detach().var()) == pytest.approx(2 / 300, rel=0.05)
    assert float(middle.weight.detach().var()) == pytest.approx(2 / 500, rel=0.05)
    assert float(last.weight.detach().var()) == pytest.approx(1 / 500, rel=0.05)
    assert not any(m.bias.any() for m in (first, middle, last))
    dcgan = DCGANGenerator(100, width=16)
    assert float(dcgan.inlet.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    deep = DCGANCritic(1, 28, width=32, norm="none")(torch.randn(64, 1, 28, 28))
    assert 0.1 < float(deep.detach().std()) < 10  # He's weights keep the scale of the signal
    assert torch.equal(MLP(2, 2, 8, 1, seed=3).layers[0].weight, MLP(2, 2, 8, 1, seed=3).layers[0].weight)


def test_images_pick_their_preset_and_last_layer():
    dark = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = train("wgan-gp", dark, steps=2, batch=4, width=4, critic_steps=1)
    assert model.generator.output == "sigmoid" and model.network.norm == "none"
    assert model.sample(3, seed=0).shape == (3, 3, 32, 32) and model.critic(dark).shape == (20,)
    assert train("lsgan", 2 * dark - 1, steps=1, batch=4, width=4).generator.output == "tanh"


@pytest.mark.parametrize(
    "make",
    [
        lambda: DCGANGenerator(5, side=64),
        lambda: DCGANCritic(norm="instance"),
        lambda: DCGANGenerator(output="relu"),
        lambda: MLP(2, 2, 4, 1, scores=True),
        lambda: MLP(0, 2),
    ],
)
def test_bad_sizes_are_refused(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    points = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    settings = dict(width=16, batch=32, device="cuda", ema=0.9)
    whole = train("wgan-gp", points, steps=9, **settings)
    assert whole.device.type == "cuda" and whole.sample(5, seed=0).device.type == "cuda"
    train("wgan-gp", points, steps=4, checkpoint=tmp_path, **settings)
    again = train("wgan-gp", points, steps=9, checkpoint=tmp_path, **settings)
    assert torch.allclose(whole.sample(50, seed=0), again.sample(50, seed=0), atol=1e-5)
