"""One loss a file; :data:`LOSSES` knows them by name."""

from otgan.adversarial.losses.base import Loss
from otgan.adversarial.losses.gan import GAN
from otgan.adversarial.losses.lsgan import LSGAN
from otgan.adversarial.losses.wgan import WGAN
from otgan.adversarial.losses.wgan_gp import WGANGP, gradient_norms

LOSSES: dict[str, type[GAN] | type[WGAN] | type[WGANGP] | type[LSGAN]] = {
    loss.name: loss for loss in (GAN, WGAN, WGANGP, LSGAN)
}
"""Every loss by the name that ``method=`` has for it."""

__all__ = ["GAN", "LOSSES", "LSGAN", "WGAN", "WGANGP", "Loss", "gradient_norms"]
