"""Where the transport map sends samples of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection, PathCollection

from otgan._checks import as_count
from otgan.plot._style import FRAME, SOURCE, SQUARE, TARGET, WIDE, axes_width, frame, legend_above, name_axes, open_axes
from otgan.solvers.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from otgan.measures import DiscreteMeasure

    Floats = NDArray[np.float64]


def transport_map(result: Result, n_samples: int = 400, seed: int = 0, ax: Axes | None = None) -> Axes:
    """Samples x of the source and their targets ``T_h(x)``.

    In the plane each x is joined to T_h(x) by a segment. In more dimensions the same is drawn on the first two
    principal axes of the target, relative to its mean. On a line the graph ``x -> T_h(x)`` is drawn, a
    monotone staircase.

    Args:
        result: what :func:`otgan.solve` returned.
        n_samples: how many samples of the source.
        seed: of the samples.
        ax: where to draw; a new figure when left out.

    Returns:
        The axes.

    Example:
        >>> from otgan import UniformBox, solve
        >>> ax = transport_map(solve(UniformBox(dim=2), [[0.2, 0.5], [0.8, 0.5]], tol=1e-2))
    """
    if not isinstance(result, Result):
        raise TypeError(f"transport_map takes what otgan.solve returned, got {type(result).__name__}.")
    potential = result.potential
    m = as_count(n_samples, "n_samples", 1)
    if ax is not None:
        open_axes(ax, SQUARE)  # a wrong ax fails before the work
    x = result.source.sample(m, seed=seed, device=potential.points.device, dtype=potential.points.dtype)
    y = potential.transport(x)
    start, end = x.double().cpu().numpy(), y.double().cpu().numpy()
    if potential.dim == 1:
        return _staircase(open_axes(ax, WIDE), start[:, 0], end[:, 0])
    names = ["$x_1$", "$x_2$"]
    if potential.dim > 2:
        centre, axes, shares = principal_axes(result.target)
        start, end = (start - centre) @ axes.T, (end - centre) @ axes.T
        named = zip(("first", "second"), shares, strict=True)
        names = [f"{which} principal axis of the target ({100 * share:.0f} % of variance)" for which, share in named]
    return _segments(open_axes(ax, _size(np.concatenate([start, end]))), start, end, names)


def principal_axes(target: DiscreteMeasure) -> tuple[Floats, Floats, Floats]:
    """Mean (d,), first two principal axes (2, d) and their shares of the variance (2,) of a target in d >= 2.

    Each axis points to where its largest coordinate is positive.
    """
    centre = target.mean.numpy()
    centred = (target.points.double().cpu().numpy() - centre) * np.sqrt(target.weights.numpy())[:, None]
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2].T
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.where(axes[[0, 1], largest] < 0, -1.0, 1.0)[:, None]
    total = float(values.clip(0).sum())
    return centre, axes, values[::-1][:2].clip(0) / (total if total > 0 else 1.0)


def _size(points: Floats) -> tuple[float, float]:
    """Inches of a figure in the proportions of the points, within reason, with room for names and legend."""
    width, height = np.ptp(points, axis=0)
    return SQUARE[0], float(np.clip(5.8 * height / max(width, 1e-300), 2.0, 6.0)) + 0.7


def _segments(ax: Axes, start: Floats, end: Floats, names: list[str]) -> Axes:
    m = len(start)
    reached = np.unique(end, axis=0)
    alpha = float(np.clip(12.0 / m**0.5, 0.12, 0.7))
    lines = LineCollection(
        list(np.stack([start, end], axis=1)), colors=FRAME, linewidths=0.7, alpha=alpha, zorder=1, gid="map"
    )
    ax.add_collection(lines)
    unit = axes_width(ax) / 400.0
    dot = float(np.clip(130.0 / m**0.5, 1.6, 5.0)) * unit
    big = float(np.clip(90.0 / len(reached) ** 0.5, 2.4, 7.0)) * unit
    ax.scatter(
        start[:, 0], start[:, 1], s=dot**2, color=SOURCE, linewidths=0, alpha=0.85, zorder=2, label="source samples $x$"
    )
    ax.scatter(
        reached[:, 0], reached[:, 1], s=big**2, color=TARGET, edgecolors="white", linewidths=0.4 * unit, zorder=3,
        label="their targets $T(x)$",
    )  # fmt: skip
    ax.autoscale_view()
    ax.set_aspect("equal", adjustable="datalim")
    ax.locator_params(nbins=int(np.clip(axes_width(ax) / 45.0, 2, 6)))
    frame(ax)
    name_axes(ax, *names)
    legend = legend_above(ax)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set(sizes=[28.0], alpha=1.0)
    return ax


def _staircase(ax: Axes, start: Floats, end: Floats) -> Axes:
    order = np.argsort(start, kind="stable")
    x, y = start[order], end[order]
    ax.step(x, y, where="mid", color=FRAME, linewidth=1.0, zorder=1, gid="map")
    size = float(np.clip(80.0 / len(x) ** 0.5, 1.6, 5.0)) * axes_width(ax) / 400.0
    ax.scatter(x, y, s=size**2, color=SOURCE, linewidths=0, zorder=2, label="source samples, at $(x, T(x))$")
    reached = np.unique(y)
    ax.scatter(
        np.ones(len(reached)), reached, s=30.0, marker="_", color=TARGET, linewidths=1.0, clip_on=False, zorder=3,
        transform=ax.get_yaxis_transform(), label="targets reached",
    )  # fmt: skip
    frame(ax, grid=True)
    name_axes(ax, "source $x$", "target $T(x)$")
    legend_above(ax)
    return ax
