"""What every source measure can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_count, as_device, make_generator

if TYPE_CHECKING:
    from typing_extensions import Self

_MAX_SOBOL_DIM = torch.quasirandom.SobolEngine.MAXDIM


class Source(ABC):
    """A probability measure ``mu`` on R^d that can be sampled.

    Subclasses state their moments in closed form (float64, on the CPU) and how to draw from them; everything else is
    here. A measure is immutable: no method changes it.
    """

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """``E x``, shape (d,), float64."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """Total variance ``E |x - E x|^2`` (the trace of the covariance)."""

    @property
    def dim(self) -> int:
        """Dimension d of the space."""
        return int(self.mean.shape[0])

    @property
    def second_moment(self) -> float:
        """``E |x|^2``."""
        return self.variance + float(self.mean @ self.mean)

    def sample(
        self,
        m: int,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw ``m`` independent points.

        Args:
            m: how many.
            seed: makes the draw reproducible on one kind of device. ``None``: a fresh seed from the system.
            generator: an own random stream instead of a seed; it is advanced. Must live on ``device``.
            device: where the points are made.
            dtype: ``torch.float32`` or ``torch.float64``.

        Returns:
            Points, shape (m, d).
        """
        m = as_count(m, "m")
        place = as_device(device, generator.device if generator is not None else "cpu")
        return self._sample(m, make_generator(seed, generator, place), place, _checked_dtype(dtype))

    def sobol(
        self,
        m: int,
        *,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """First ``m`` points of a scrambled Sobol sequence, carried to this measure; best when m is a power of two.

        Each point is distributed as a draw from the measure, and together they cover it more evenly than independent
        draws, so that means of smooth functions converge faster (Owen, "Scrambling Sobol' and Niederreiter-Xing
        points", J. Complexity 14, 1998). They are not independent: do not derive standard errors from them.

        Returns:
            Points, shape (m, d).
        """
        m = as_count(m, "m")
        if self._sobol_dim > _MAX_SOBOL_DIM:
            raise ValueError(f"Sobol sequences reach dimension {_MAX_SOBOL_DIM}, got {self._sobol_dim}: use sample().")
        engine = torch.quasirandom.SobolEngine(self._sobol_dim, scramble=True, seed=as_count(seed, "seed"))
        u = engine.draw(m, dtype=torch.float64) if m else torch.empty(0, self._sobol_dim, dtype=torch.float64)
        tiny = 2.0**-33  # half a step of the sequence: keeps 0 and 1 out of inverse distribution functions
        return self._from_uniform(u.clamp(tiny, 1.0 - tiny)).to(
            device=as_device(device, "cpu"), dtype=_checked_dtype(dtype)
        )

    @property
    def _sobol_dim(self) -> int:
        """How many uniform numbers make one point."""
        return self.dim

    @abstractmethod
    def _sample(self, m: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Draw (m, d) points."""

    @abstractmethod
    def _from_uniform(self, u: Tensor) -> Tensor:
        """Carry uniform numbers in (0, 1), shape (m, _sobol_dim), to the measure: shape (m, d), float64."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain settings and tensors from which :meth:`from_state` makes an equal measure."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Inverse of :meth:`state`."""


def _checked_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}.")
    return dtype
