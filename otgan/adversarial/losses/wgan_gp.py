"""The loss of the Wasserstein GAN with gradient penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from otgan._checks import as_positive
from otgan.adversarial.losses.base import WassersteinLoss

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class WGANGP(WassersteinLoss):
    r"""``min_G max_f E f(x) - E f(G(z)) - lambda E (|grad f(xhat)|_2 - 1)^2``, xhat between data and generated points.

    ``xhat = e x + (1 - e) G(z)`` with e uniform on [0, 1], one number a pair: the optimal f has gradient norm 1 almost
    everywhere on the segments of an optimal coupling.

    Args:
        penalty_weight: lambda.

    Source:
        Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, "Improved training of Wasserstein GANs" (NeurIPS 2017),
        Algorithm 1.
    """

    name: ClassVar[str] = "wgan-gp"
    penalty_weight: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "penalty_weight", as_positive(self.penalty_weight, "penalty_weight"))

    def penalty(
        self, critic: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """``lambda mean (|grad f(xhat)|_2 - 1)^2``."""
        return self.penalty_weight * (gradient_norms(critic, real, fake, generator, graph=True) - 1.0).square().mean()


def gradient_norms(
    critic: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator | None = None, *, graph: bool = False
) -> Tensor:
    """``|grad f(xhat)|_2`` at one point of each segment between real (m, ...) and fake (m, ...), shape (m,).

    Args:
        critic: f.
        real: one end of each segment.
        fake: the other.
        generator: draws where on the segment.
        graph: keep what it takes to differentiate the norms.

    Raises:
        ValueError: for shapes that differ.
    """
    if real.shape != fake.shape:
        raise ValueError(f"real and fake must have one shape, got {tuple(real.shape)} and {tuple(fake.shape)}.")
    shape = (len(real),) + (1,) * (real.ndim - 1)
    share = torch.rand(shape, generator=generator, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake, real, share).detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=graph)
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)
