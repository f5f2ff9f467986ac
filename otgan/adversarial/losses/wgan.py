"""The loss of the Wasserstein GAN with clipped weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from otgan._checks import as_positive
from otgan.adversarial.losses.base import WassersteinLoss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class WGAN(WassersteinLoss):
    r"""``min_G max_f E_data f(x) - E_z f(G(z))``, the weights of f in [-c, c]; no logarithm, no sigmoid.

    Over all 1-Lipschitz f the maximum is ``W1(p_data, p_g)`` (Kantorovich, Rubinstein). Clipped weights make f
    K-Lipschitz for some K of the architecture, which is not known: the value is an estimate of at most ``K W1``.

    Args:
        clip: c.

    Source:
        Arjovsky, Chintala, Bottou, "Wasserstein generative adversarial networks" (ICML 2017), Algorithm 1.
    """

    name: ClassVar[str] = "wgan"
    clip: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "clip", as_positive(self.clip, "clip"))

    @torch.no_grad()
    def constrain(self, parameters: Sequence[Tensor]) -> None:
        """Clip every weight and bias to [-c, c]."""
        for parameter in parameters:
            parameter.clamp_(-self.clip, self.clip)
