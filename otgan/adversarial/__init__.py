"""The adversarial baselines that the transport computation replaces: GAN, WGAN, WGAN-GP and LSGAN.

    model = og.adversarial.train("wgan-gp", points)
    model.sample(1000, seed=1), model.critic(points), model.history

One trainer, one small loss a file, the published settings as presets.
"""

from otgan.adversarial._training import TrainingState
from otgan.adversarial.losses import GAN, LOSSES, LSGAN, WGAN, WGANGP, Loss, gradient_norms
from otgan.adversarial.model import AdversarialModel
from otgan.adversarial.networks import MLP, DCGANCritic, DCGANGenerator
from otgan.adversarial.presets import PRESETS, Preset
from otgan.adversarial.train import train

__all__ = [
    "GAN",
    "LOSSES",
    "LSGAN",
    "MLP",
    "PRESETS",
    "WGAN",
    "WGANGP",
    "AdversarialModel",
    "DCGANCritic",
    "DCGANGenerator",
    "Loss",
    "Preset",
    "TrainingState",
    "gradient_norms",
    "train",
]
