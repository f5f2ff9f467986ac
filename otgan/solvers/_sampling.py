"""Samples of the source and targets in standardised coordinates: what a sampling solver draws, keeps and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan._checks import as_device
from otgan.solvers._collinear import Line
from otgan.solvers._scores import Scores
from otgan.standardization import Standardization

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otgan.solvers.base import Problem

    Floats = NDArray[np.float64]

_CHUNK = 1 << 16
_LOOKED_AT = 2048
_LINE_LIMIT = 1 << 27  # coordinates of targets that are looked at for a line
#: Rounding errors that the gap between a sample's two best scores must be wide for float32 to tell them apart.
_RESOLVED = 64.0


class Stream:
    """The source as a stream of samples, and the targets, both centred and of unit size.

    Args:
        problem: source, target and random numbers.
        device: where samples are made and scored; None for that of the targets.
        pause: called between chunks; it may raise to end the work.

    Attributes:
        scores: of the targets.
        stored: samples that are kept, (m, d), until counting begins.
        drawn: samples drawn so far.
    """

    def __init__(self, problem: Problem, device: str | None, pause: Callable[[], None]) -> None:
        self.problem, self.pause = problem, pause
        points = problem.target.points
        self.targets_device = points.device
        self.device = as_device(device, points.device)
        self.generator = problem.generator
        if self.generator.device.type != self.device.type:
            self.generator = torch.Generator(self.device).manual_seed(problem.generator.initial_seed())
        self.change = Standardization.of(problem.source, problem.target, problem.p)
        self.scores = Scores(self._targets(torch.float32), problem.p)
        zero = torch.zeros(_CHUNK, dtype=torch.float64, device=points.device)
        self.offset = torch.cat([self.change.heights(zero[: len(part)], part) for part in points.split(_CHUNK)])
        self.drawn = 0
        self.kept: list[Tensor] = []
        self.before = self.generator.get_state()
        self.latest: Tensor | None = None

    def _targets(self, dtype: torch.dtype) -> Tensor:
        points = self.problem.target.points
        out = torch.empty(points.shape, dtype=dtype, device=points.device)
        for first in range(0, len(points), _CHUNK):
            out[first : first + _CHUNK] = self.change.target(points[first : first + _CHUNK])
        return out

    def first_heights(self) -> Floats:
        """Heights of the Voronoi cells, shape (n,)."""
        return torch.cat([self.change.voronoi(part) for part in self.scores.y.split(_CHUNK)]).double().cpu().numpy()

    def heights(self, h: Floats) -> Tensor:
        """Heights of this problem's own units, shape (n,), float64."""
        return self.change.height_scale * torch.from_numpy(h).to(self.targets_device) + self.offset

    # --------------------------------------------------------------- samples

    @property
    def stored(self) -> Tensor:
        """Everything drawn by :meth:`draw`."""
        if len(self.kept) > 1:
            self.kept = [torch.cat(self.kept)]
        return self.kept[0]

    def _fresh(self, m: int) -> tuple[Tensor, Tensor]:
        """Samples in their own units, float64, and in the solver's."""
        x = self.problem.source.sample(m, generator=self.generator, device=self.device, dtype=torch.float64)
        self.drawn += m
        return x, self.change.source(x).to(self.scores.y.dtype)

    def _chunks(self, m: int) -> list[int]:
        return [min(_CHUNK, m - at) for at in range(0, m, _CHUNK)]

    def fresh(self, m: int) -> Tensor:
        """``m`` samples that are not kept, shape (m, d)."""
        return torch.cat([self._fresh(size)[1] for size in self._chunks(m)])

    def draw(self, m: int) -> Tensor:
        """Draw ``m`` samples and keep them; returns these, shape (m, d)."""
        if not self.kept:
            self.before = self.generator.get_state()
        x = self.fresh(m)
        self.kept.append(x)
        return x

    def line(self) -> Line | None:
        """The line that the targets are on, if they are on one and the cost is quadratic."""
        points = self.problem.target.points
        if self.scores.p != 2.0 or self.scores.n < 2 or len(points) * points.shape[1] > _LINE_LIMIT:
            return None
        return Line.through(self.change.target(points), torch.finfo(points.dtype).eps)

    def along(self, line: Line, m: int) -> Floats:
        """Coordinates along the line of ``m`` fresh samples, shape (m,)."""
        direction, parts = line.direction.to(self.device), []
        for size in self._chunks(m):
            x, _ = self._fresh(size)
            parts.append((self.change.source(x) @ direction).cpu().numpy())
            self.pause()
        return np.concatenate(parts)

    def counts(self, m: int, h: Floats, watched: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Cell counts of ``m`` fresh samples at heights ``h``, (n,), and where the ``watched`` touch one of these."""
        self.kept.clear()
        total = torch.zeros(self.scores.n, dtype=torch.float64, device=self.device)
        touch = np.full(len(watched), np.inf)
        for size in self._chunks(m):
            x, self.latest = self._fresh(size)
            index, value = self.scores.assign(self.latest, h)
            total += torch.bincount(index, minlength=self.scores.n)
            if len(watched):
                touch = np.minimum(touch, self.scores.touching(self.latest, value, watched))
            if self.problem.observer is not None:
                self.problem.observer(x, index)
            self.pause()
        return total.cpu().numpy(), touch

    def revived(self, h: Floats, dead: NDArray[np.int64]) -> Floats:
        """Heights with those of the ``dead`` raised until each touches one of the latest samples."""
        if self.latest is None:
            return h
        value = self.scores.assign(self.latest, h).value
        h = h.copy()
        h[dead] = np.maximum(h[dead], self.scores.touching(self.latest, value, dead))
        return h

    def settle_precision(self, h: Floats) -> None:
        """Go on in float64 where float32 cannot tell a sample's best targets apart: crowds of targets on a line."""
        if self.scores.n < 2 or self.scores.y.dtype == torch.float64:
            return
        best = self.scores.top_k(self.stored[:_LOOKED_AT], h, 2).value.double()
        size = float(best.abs().mean()) + float(np.abs(h).mean())
        if float((best[:, 0] - best[:, 1]).mean()) < _RESOLVED * 2.0**-24 * size:
            self._widen()

    def _widen(self) -> None:
        count = self.scores.count
        self.scores = Scores(self._targets(torch.float64), self.problem.p)
        self.scores.count = count
        self.kept = [x.double() for x in self.kept]

    # ----------------------------------------------------------- checkpoints

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Plain settings and arrays for :meth:`restore`."""
        settings = {
            "drawn": self.drawn,
            "n_scores": self.scores.count,
            "double": self.scores.y.dtype == torch.float64,
        }
        return settings, {"generator": self.generator.get_state().numpy()}

    def restore(self, settings: dict[str, Any], arrays: dict[str, np.ndarray], kept: list[int]) -> None:
        """Back to a saved state; the samples that were kept, in draws of these sizes, are drawn again."""
        self.generator.set_state(self.before)
        for size in kept[:1]:
            self.draw(size)
        if settings["double"]:
            self._widen()
        for size in kept[1:]:
            self.draw(size)
        self.drawn, self.scores.count = settings["drawn"], settings["n_scores"]
        self.generator.set_state(torch.from_numpy(arrays["generator"]))
