"""What potentials of every cost have in common: one target a cell, and the map that sends the cell to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from otgan._checks import as_points

if TYPE_CHECKING:
    from typing_extensions import Self

    from otgan._checks import ArrayLike


class CellwisePotential(nn.Module):
    """Base of the potentials of finitely many targets; a subclass says which one is best at x.

    Attributes:
        points: targets ``y_i``, shape (n, d).
        weights: masses ``b_i`` that the cells are meant to have, shape (n,), float64.
        p: exponent of the cost ``|x - y|^p / p``.
        precise: names of the buffers that stay in float64 when the module is cast.
    """

    points: Tensor
    weights: Tensor
    p: float
    precise: ClassVar[tuple[str, ...]]

    @property
    def n(self) -> int:
        """Number of targets."""
        return int(self.points.shape[0])

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.points.shape[1])

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return f"n={self.n}, dim={self.dim}"

    def transport(self, x: ArrayLike) -> Tensor:
        """Optimal transport map ``T(x) = y_i``, i the target whose cell holds x, shape (m, d)."""
        x = self._inputs(x)
        return self.points.to(x.dtype)[self._index(x)]

    def assign(self, x: ArrayLike) -> Tensor:
        """Number of the cell that holds x, shape (m,), int64; the lowest number on a boundary."""
        return self._index(self._inputs(x))

    # -------------------------------------------------------------- inside

    def _index(self, x: Tensor) -> Tensor:
        """Number of the best target of each x, shape (m,)."""
        raise NotImplementedError

    def _inputs(self, x: ArrayLike) -> Tensor:
        """Checked x on the buffers' device, in the wider dtype; a tensor keeps its graph."""
        if isinstance(x, Tensor) and x.device != self.points.device:
            raise ValueError(f"x is on {x.device} but the potential is on {self.points.device}; move one with .to().")
        checked = as_points(x, "x", self.dim, allow_empty=True)
        if isinstance(x, Tensor) and x.is_floating_point():
            checked = x  # the caller's tensor, with its graph
        return checked.to(device=self.points.device, dtype=torch.promote_types(checked.dtype, self.points.dtype))

    def _middle(self) -> Tensor:
        """A point among the targets: coordinate-wise median, which no outlier moves; shape (d,), float64."""
        return self.points.median(dim=0).values.to(torch.float64)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves and casts reach the points alone in precision: dual variables and weights stay in float64."""
        kept = {name: getattr(self, name) for name in self.precise}
        super()._apply(fn, recurse)
        for name, value in kept.items():
            setattr(self, name, value.to(self.points.device))
        return self
