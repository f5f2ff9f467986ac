"""How a solve went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.ticker import MaxNLocator

from otgan.plot._style import FRAME, INK, LINES, TARGET, TEXT, WIDE, frame, legend_above, name_axes, open_axes
from otgan.solvers.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Horizontal = Literal["n_iter", "seconds", "n_samples"]
_NAMES = {"n_iter": "iterations", "seconds": "seconds", "n_samples": "source samples"}
_CHI2 = r"$\chi^2$ of the cell masses"
_CURVE = "convergence"


def convergence(result: Result, ax: Axes | None = None, *, x: Horizontal = "n_iter", label: str | None = None) -> Axes:
    """Error of a solve against its work, from ``result.history``, with the bar ``tol`` as a dashed line.

    Sampling solvers record ``chi2 = sum_i (w_i - b_i)^2 / b_i`` with a standard error, drawn as a band; exact ones
    record "error". An unbiased estimate of chi2 can fall to 0 or below: such points are drawn as triangles at the floor
    of the figure. Calls with one ``ax`` compare solves; the colours follow.

    Args:
        result: what :func:`otgan.solve` returned.
        ax: where to draw; a new figure when left out.
        x: the work: "n_iter", "seconds" or "n_samples".
        label: name of the curve in the legend; the method when left out.

    Returns:
        The axes.

    Raises:
        ValueError: if the history does not hold ``x``.

    Example:
        >>> from otgan import UniformBox, solve
        >>> ax = convergence(solve(UniformBox(dim=2), [[0.2, 0.5], [0.8, 0.5]], tol=1e-2), x="seconds")
    """
    if not isinstance(result, Result):
        raise TypeError(f"convergence takes what otgan.solve returned, got {type(result).__name__}.")
    if x not in _NAMES:
        raise ValueError(f"x must be one of {sorted(_NAMES)}, got {x!r}.")
    history = result.history
    horizontal = _column(history, x) if history else np.empty(0)
    ax = open_axes(ax, WIDE)
    frame(ax, grid=True)
    sampled = any("chi2" in record for record in history)
    error = np.array([record.get("chi2" if sampled else "error", np.nan) for record in history], dtype=float)
    stderr = np.array([record.get("chi2_stderr", 0.0) if sampled else 0.0 for record in history], dtype=float)
    known = np.isfinite(error) & np.isfinite(horizontal)
    if not known.any():
        return _nothing(ax, result, x)
    error, stderr, horizontal = error[known], np.nan_to_num(stderr[known]), horizontal[known]
    positive = error > 0.0
    floor = 0.5 * min([result.tol, *error[positive]])
    shown = np.where(positive, error, floor)
    earlier = [line for line in ax.lines if line.get_gid() == _CURVE]
    colour = LINES[len(earlier) % len(LINES)]
    ax.set_yscale("log")
    if (stderr > 0.0).any():
        low = np.maximum(error - stderr, floor)
        ax.fill_between(horizontal, low, np.maximum(error + stderr, low), color=colour, alpha=0.22, linewidth=0)
    dots = list(np.flatnonzero(positive))
    style: dict[str, Any] = {"linewidth": 1.6, "marker": "o", "markersize": 3.2, "markevery": dots}
    ax.plot(horizontal, shown, color=colour, label=label or result.method, gid=_CURVE, **style)
    if not positive.all():
        what = r"estimate $\leq 0$" if sampled else "exactly 0"
        ax.plot(
            horizontal[~positive], shown[~positive], linestyle="none", marker="v", markersize=6.0, color=colour,
            markeredgecolor="white", markeredgewidth=0.6, label=f"{what}, drawn at the floor", gid="floor",
        )  # fmt: skip
    if all(line.get_gid() != "tol" or np.asarray(line.get_ydata())[0] != result.tol for line in ax.lines):
        ax.axhline(
            result.tol, color=TARGET, linewidth=1.1, linestyle=(0, (5, 3)), label=f"tol = {result.tol:g}", gid="tol"
        )
    _horizontal_scale(ax, x)
    name_axes(ax, _NAMES[x], _error_name(result, sampled))
    legend_above(ax)
    return ax


def _column(history: list[dict[str, Any]], x: str) -> Floats:
    """One number a record; a "step" counts as an iteration."""
    key = "step" if x == "n_iter" and all("n_iter" not in record and "step" in record for record in history) else x
    if not all(key in record for record in history):
        there = sorted(set.intersection(*(set(record) for record in history)) & set(_NAMES))
        raise ValueError(f"The history of this solve does not record {x!r}; it has {', '.join(there) or 'none'} for x.")
    return np.array([record[key] for record in history], dtype=float)


def _horizontal_scale(ax: Axes, x: str) -> None:
    """Logarithmic from a factor of 20, else linear; counts of iterations keep whole ticks."""
    values = np.concatenate(
        [np.asarray(line.get_xdata(), dtype=float) for line in ax.lines if line.get_gid() == _CURVE]
    )
    if values.min() > 0.0 and values.max() >= 20.0 * values.min():
        ax.set_xscale("log")
    elif x != "seconds":
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def _error_name(result: Result, sampled: bool) -> str:
    if sampled:
        return _CHI2
    return r"$\mathrm{max}_i\;|w_i / b_i - 1|$" if result.method == "newton" else "error"


def _nothing(ax: Axes, result: Result, x: str) -> Axes:
    """Say why there is no curve."""
    why = (
        f"{result.method} recorded no errors\n{result.status} after {result.n_iter} iterations, {result.seconds:.2g} s"
    )
    ax.text(0.5, 0.5, why, ha="center", va="center", transform=ax.transAxes, fontsize=TEXT, color=INK, gid="empty")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=FRAME)
    name_axes(ax, _NAMES[x], "error")
    return ax
