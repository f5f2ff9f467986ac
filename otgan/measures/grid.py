"""A density given as an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_tensor, require_finite
from otgan.measures.base import Source

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


class GridDensity(Source):
    """Density in the plane, constant on each pixel of an image: ``rho(x) ~ values[r, c]`` on pixel (r, c).

    The picture is seen as it is drawn: row 0 is at the top, so that y falls with r and x grows with c.

    Args:
        values: masses of the pixels up to a factor, shape (rows, columns), >= 0 and not all 0.
        low: lower left corner of the picture, shape (2,).
        high: upper right corner, shape (2,). By default the longer side has length 1.

    Example:
        >>> GridDensity([[0.0, 1.0], [0.0, 0.0]]).mean.tolist()  # all mass in the upper right quarter
        [0.75, 0.75]
    """

    def __init__(self, values: ArrayLike, low: ArrayLike = (0.0, 0.0), high: ArrayLike | None = None) -> None:
        v = as_tensor(values, "values").to(device="cpu", dtype=torch.float64).clone()
        if v.ndim != 2 or v.numel() == 0:
            raise ValueError(f"values must be a grey image of shape (rows, columns), got shape {tuple(v.shape)}.")
        require_finite(v, "values")
        if float(v.min()) < 0.0 or float(v.max()) == 0.0:
            raise ValueError(
                f"values must be >= 0 and not all 0, got from {float(v.min()):.3g} to {float(v.max()):.3g}."
            )
        rows, columns = v.shape
        self.low = as_tensor(low, "low").to(device="cpu", dtype=torch.float64).clone()
        if self.low.shape != (2,):
            raise ValueError(f"low must have shape (2,), got {tuple(self.low.shape)}.")
        if high is None:
            high = self.low + torch.tensor([columns, rows], dtype=torch.float64) / max(rows, columns)
        self.high = as_tensor(high, "high").to(device="cpu", dtype=torch.float64).clone()
        if self.high.shape != (2,) or not bool((self.low < self.high).all()):
            raise ValueError(f"high must have shape (2,) and exceed low, got {self.high} and {self.low}.")
        require_finite(self.low, "low")
        require_finite(self.high, "high")
        self.values = v
        shares = v / v.sum()
        self._pixel = (self.high - self.low) / torch.tensor([columns, rows], dtype=torch.float64)
        across = self.low[0] + self._pixel[0] * (torch.arange(columns, dtype=torch.float64) + 0.5)
        along = self.high[1] - self._pixel[1] * (torch.arange(rows, dtype=torch.float64) + 0.5)
        in_x, in_y = shares.sum(dim=0), shares.sum(dim=1)
        self._mean = torch.stack([in_x @ across, in_y @ along])
        spread = in_x @ (across - self._mean[0]) ** 2 + in_y @ (along - self._mean[1]) ** 2
        self._variance = float(spread + (self._pixel**2).sum() / 12)
        self._cumulative = shares.flatten().cumsum(0)

    @property
    def mean(self) -> Tensor:
        """Centre of mass, shape (2,)."""
        return self._mean

    @property
    def variance(self) -> float:
        """``E |x - E x|^2``, the extent of the pixels included."""
        return self._variance

    @property
    def _sobol_dim(self) -> int:
        return 3  # which pixel, and where in it

    def _sample(self, m: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
        u = torch.rand(m, 3, generator=generator, device=device, dtype=torch.float64)
        return self._from_uniform(u).to(dtype)

    def _from_uniform(self, u: Tensor) -> Tensor:
        cumulative = self._cumulative.to(u.device)
        index = torch.searchsorted(cumulative, u[:, 0].contiguous() * cumulative[-1], right=True)
        index = index.clamp_max(int((self.values.flatten() > 0).nonzero()[-1]))
        columns = self.values.shape[1]
        row, column = index.div(columns, rounding_mode="floor"), index % columns
        pixel = self._pixel.to(u.device)
        x = self.low[0].to(u.device) + pixel[0] * (column + u[:, 1])
        y = self.high[1].to(u.device) - pixel[1] * (row + u[:, 2])
        return torch.stack([x, y], dim=1)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The image and its corners."""
        return {}, {"values": self.values, "low": self.low, "high": self.high}

    @classmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> GridDensity:
        """Inverse of :meth:`state`."""
        return cls(tensors["values"], tensors["low"], tensors["high"])

    def __repr__(self) -> str:
        rows, columns = self.values.shape
        return f"GridDensity({rows} x {columns} pixels)"
