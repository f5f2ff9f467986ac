"""How evenly the source's mass falls on the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from otgan._checks import as_count, make_generator
from otgan.plot._style import FRAME, INK, SMALL, SOURCE, TARGET, WIDE, frame, legend_above, name_axes, open_axes
from otgan.solvers.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from otgan.cost_potential import KantorovichPotential
    from otgan.measures import Source
    from otgan.potential import BrenierPotential

    Floats = NDArray[np.float64]

_CHUNK = 1 << 16
_GROUPS = 400
_MAX_BINS = 60


def mass_histogram(result: Result, n_samples: int | None = None, seed: int | None = 0, ax: Axes | None = None) -> Axes:
    """Histogram of ``w_i / b_i``, the cells' sampled masses over their weights, on M fresh samples.

    Even where every mass is right, counts are binomial, ``c_i ~ B(M, b_i)``: the line is the histogram expected then,
    the band two standard deviations of each bar. Bars outside it are errors of the potential. Cells that no sample
    reached are drawn apart, at 0.

    Args:
        result: what :func:`otgan.solve` returned.
        n_samples: M; by default 50 a target, at least 20,000 and at most 2,000,000.
        seed: of the fresh samples; they differ from the solver's for every value.
        ax: where to draw; a new figure when left out.

    Returns:
        The axes.

    Example:
        >>> from otgan import UniformBox, solve
        >>> ax = mass_histogram(solve(UniformBox(dim=2), [[0.2, 0.5], [0.8, 0.5]], tol=1e-2))
    """
    if not isinstance(result, Result):
        raise TypeError(f"mass_histogram takes what otgan.solve returned, got {type(result).__name__}.")
    n = result.potential.n
    m = as_count(n_samples, "n_samples", 1) if n_samples is not None else int(np.clip(50 * n, 20_000, 2_000_000))
    ax = open_axes(ax, WIDE)
    counts = cell_counts(result.potential, result.source, m, seed)
    b = result.potential.weights.double().cpu().numpy()
    ratio = counts / (m * b)
    edges = _edges(ratio, b, m)
    expected, low, high = expected_histogram(b, m, edges)
    middle, width = (edges[1:] + edges[:-1]) / 2, float(edges[1] - edges[0])
    bars = np.histogram(ratio[counts > 0], edges)[0]
    ax.bar(middle, bars, 0.92 * width, color=SOURCE, alpha=0.75, linewidth=0, label="cells", gid="cells")
    _band(ax, edges, expected, low, high)
    ax.axvline(1.0, color=FRAME, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    empty = int((counts == 0).sum())
    by_chance = float(np.exp(m * np.log1p(-np.minimum(b, 1.0 - 1e-16))).sum())
    note = f"{empty:,} of {n:,} cells empty" if empty else "no empty cells"
    if empty or by_chance >= 0.5:
        note += f" ({by_chance:.2g} expected)"
    if empty:
        size = max((edges[-1] - edges[0]) * 0.012, 0.5 * width)
        ax.bar([0.0], [empty], size, color=TARGET, linewidth=0, label="empty cells", gid="empty", zorder=3)
        ax.set_xlim(-2.0 * size, None)
    ax.set_ylim(0.0, 1.25 * max(float(high.max()), bars.max(), empty, 1))
    text = f"{m:,} samples, {m / n:,.0f} a cell\n{note}"
    ax.text(
        0.985,
        0.97,
        text,
        ha="right",
        va="top",
        transform=ax.transAxes,
        fontsize=SMALL,
        color=INK,
        gid="note",
        zorder=4,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
    )
    frame(ax, grid=True)
    name_axes(ax, "mass over weight  $w_i / b_i$", "number of cells")
    legend_above(ax)
    return ax


def cell_counts(
    potential: BrenierPotential | KantorovichPotential, source: Source, m: int, seed: int | None
) -> NDArray[np.int64]:
    """How many of m fresh samples fall into each cell, shape (n,)."""
    device, dtype = potential.points.device, potential.points.dtype
    stream = make_generator(seed, None, device)
    total = torch.zeros(potential.n, dtype=torch.int64)
    for first in range(0, m, _CHUNK):
        x = source.sample(min(_CHUNK, m - first), generator=stream, device=device, dtype=dtype)
        total += torch.bincount(potential.assign(x), minlength=potential.n).cpu()
    return total.numpy()


def expected_histogram(weights: Floats, m: int, edges: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, 2.5 % and 97.5 % quantile of each bar if all masses were right, cells that no sample reaches left out.

    ``sum_i P(e_k <= B(m, b_i) / (m b_i) < e_{k+1})``, the quantiles those of a Poisson number of
    that mean. Many different weights are put into groups of neighbours.
    """
    from scipy.stats import binom, poisson

    value, count = np.unique(weights, return_counts=True)
    if len(value) > _GROUPS:
        groups = np.array_split(np.sort(weights), _GROUPS)
        value, count = np.array([g.mean() for g in groups]), np.array([len(g) for g in groups])
    value, number = np.minimum(value, 1.0), count.astype(np.float64)
    # P(c < k) with k the first whole number at or above the edge; 0 counts are left out.
    least = np.maximum(np.ceil(edges[None, :] * (m * value)[:, None] - 1e-9), 1.0)
    below = binom.cdf(least - 1.0, m, value[:, None])
    share = np.diff(below, axis=1)
    mean = number @ share
    return mean, np.asarray(poisson.ppf(0.025, mean)), np.asarray(poisson.ppf(0.975, mean))


def _edges(ratio: Floats, weights: Floats, m: int) -> Floats:
    """Bin edges that cover the data and three standard deviations of the noise.

    With equal weights ratios are multiples of 1 / (m b): bins hold equally many of them.
    """
    unit = 1.0 / (m * float(np.median(weights)))
    noise = unit**0.5
    high = max(float(ratio.max()), 1.0 + 3.0 * noise)
    positive = ratio[ratio > 0.0]
    low = max(min(float(positive.min()), 1.0 - 3.0 * noise), 0.0)
    width = max(noise / 3.0, (high - low) / _MAX_BINS)
    width = unit * max(round(width / unit), 1)
    first = max(np.floor((low - 0.5 * unit) / width) * width, 0.0) + 0.5 * unit
    if first > low:
        first -= width
    return first + width * np.arange(int(np.ceil((high - first) / width + 1e-9)) + 1)


def _band(ax: Axes, edges: Floats, expected: Floats, low: Floats, high: Floats) -> None:
    ax.stairs(
        high, edges, baseline=low, fill=True, color=INK, alpha=0.16,
        linewidth=0, zorder=2, gid="band",
    )  # fmt: skip
    ax.stairs(
        expected,
        edges,
        color=INK,
        linewidth=1.2,
        label="sampling noise alone (95 %)",
        baseline=None,
        zorder=2.5,
        gid="expected",
    )
