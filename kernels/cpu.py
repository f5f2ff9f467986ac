"""Backend ``numba``: fused vector loops on a CPU, which never write a score to memory.

The loops are compiled by Numba on first use (about two seconds per operation and dtype) and cached on disk; ``numba``
is imported by the first call, not with this module. They release the GIL and run on as many Python threads as
``torch.get_num_threads()`` says, which stay between calls (``_team``). Where it pays,
:func:`assign` skips the targets that cannot win (``_cpu_pruned``), with the same result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _cpu_pruned, torch_
from ._team import share
from .memory import current_budget

NAME = "numba"
MAX_SAMPLES = 2048
"""Points per chunk, at most (one call of a compiled loop), and with it ..."""
TILE_BYTES = 2**18
"""... bytes of the tiles of a chunk and of the panels that they visit in turn: half a second-level cache of 1 MB."""
MAXIMA_BYTES = 2**21
"""Bytes of panel maxima that :func:`top_k` keeps per thread (one tile of samples at least)."""
MAX_K = 256
"""Past this :func:`top_k` is left to torch: the sorted list of the k best is kept by insertion."""
WIDE = 768
"""In more dimensions than this torch is faster, except for :func:`assign` and :func:`slack`."""
FEW = 16
"""Fewer samples than this are left to torch, and in more dimensions than this, fewer than four times as many points."""
PROBED = 64
"""Targets among which a coordinate that is not always zero is looked for first."""
WORK_PER_THREAD = 2**24
"""Multiply-adds below which a second thread costs more than it saves."""
_LOG2_E = 1.0 / math.log(2.0)


@functools.cache
def _loops() -> Any:
    from . import _cpu_loops

    return _cpu_loops


def probe(device: str) -> str | None:
    """Why this backend cannot run on ``"cpu"`` or ``"cuda"``; None if a tiny reduction gave the right answer."""
    if device != "cpu":
        return "its loops run on a CPU only"
    try:
        y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]])
        index, _ = assign(y.repeat(FEW, 1), y, torch.zeros(3))
        if index.tolist() != [0, 1, 2] * FEW:
            return f"a tiny reduction gave {index[:3].tolist()}... instead of [0, 1, 2]...; empty Numba's cache"
    except ModuleNotFoundError as error:
        return f"{error}. Install it: pip install numba."
    except Exception as error:
        return (
            f"{type(error).__name__}: {str(error).strip() or 'no message'}. Numba compiles on first use and caches "
            "beside the sources or in the user's cache folder; NUMBA_CACHE_DIR chooses another."
        )
    return None


def _for_torch(x: Tensor, y: Tensor, h: Tensor) -> bool:
    """Whether torch answers better: for few points, and where a partial sum of a score may overflow.

    With few points, rearranging them takes longer than their scores. Overflow shows in the results of torch, while a
    maximum of vectors loses NaN.
    """
    m, d = x.shape
    if m < FEW or (min(m, len(y)) < 4 * FEW and d > FEW):
        return True

    def largest(values: Tensor) -> float:
        array = values.numpy()  # on one thread: next to busy cores, waiting for torch's threads takes longer
        return max(-float(array.min()), float(array.max()))

    return d * largest(x) * largest(y) + largest(h) > torch.finfo(x.dtype).max / 8


def _varying(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Samples and targets without the coordinates in which every target is zero, and the positions of the others.

    They add nothing to a score, not even rounding. Re-centring has put zeros where all targets agree.
    """
    if bool((y[:PROBED] != 0).any(0).all()):
        return x, y, None
    kept = (y != 0).any(0)
    if bool(kept.all()):
        return x, y, None
    kept[0] |= ~kept.any()
    where = torch.nonzero(kept).flatten()
    return x[:, where], y[:, where], where


class _Panels:
    """Points as panels (see ``_cpu_vectors``) that tiles of other points visit.

    Args:
        points: (n, d).
        head: first row of the panels, (n,).
        pad: head of the points that fill the last panel.
        weight: last row of the panels, (n,), or None.
    """

    def __init__(self, points: Tensor, head: Tensor, pad: float, weight: Tensor | None = None) -> None:
        loops, (n, d) = _loops(), points.shape
        row_bytes = (d + (1 if weight is None else 2)) * points.element_size()
        self.number = -(-n // loops.PANEL)
        self.block = max(1, TILE_BYTES // (row_bytes * loops.PANEL))
        self.data = points.new_empty(self.number * loops.PANEL * row_bytes // points.element_size()).numpy()
        tail = points.new_empty(0) if weight is None else weight
        loops.pack_panels(points.numpy(), head.numpy(), tail.numpy(), self.data.dtype.type(pad), self.data)


def _over_chunks(points: Tensor, others: int, work: Callable[[slice, Any, int], None], most: int = MAX_SAMPLES) -> None:
    """Call ``work(slice, scratch, width)`` on chunks of ``points`` that together cover them, on several threads.

    Args:
        points: what lies in tiles, (n, d).
        others: number of points that each of them meets.
        work: compiled loop on one chunk; ``scratch`` is an array for its tiles, ``width`` the points per tile.
        most: points per chunk, at most (rounded up to whole tiles).
    """
    n, d = points.shape
    kind = points.numpy().dtype
    width = _loops().tile_width(points.element_size())
    threads = max(1, min(torch.get_num_threads(), n * others * (d + 1) // WORK_PER_THREAD))
    size = min(most, TILE_BYTES // (d * points.element_size()), -(-n // threads))
    size = max(1, -(-size // width)) * width

    def run(start: int) -> None:
        part = slice(start, min(start + size, n))
        tiles = -(-(part.stop - start) // width)
        work(part, np.empty(tiles * width * d, kind), width)

    share(run, range(0, n, size), threads)


def assign(x: Tensor, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Index and value of the best target of each sample: two tensors (m,)."""
    x, y, _ = _varying(x, y)
    if _for_torch(x, y, h):
        return torch_.assign(x, y, h)
    x, y, h = x.contiguous(), y.contiguous(), h.contiguous()

    def plain(some: Tensor) -> tuple[Tensor, Tensor]:
        return _assign(some, _Panels(y, h, -math.inf), _loops())

    def over(work: Callable[[int], None], items: range) -> None:
        share(work, items, torch.get_num_threads())

    found = _cpu_pruned.assign(x, y, h, plain, over)
    return plain(x) if found is None else found


def _assign(x: Tensor, panels: _Panels, loops: Any) -> tuple[Tensor, Tensor]:
    index, value = torch.empty(len(x), dtype=torch.int64), x.new_empty(len(x))
    arrays = x.numpy(), index.numpy(), value.numpy()

    def work(part: slice, scratch: Any, width: int) -> None:
        xs, indices, values = (array[part] for array in arrays)
        loops.assign_chunk(xs, panels.data, panels.number, panels.block, width, scratch, indices, values)

    _over_chunks(x, panels.number * loops.PANEL, work)
    return index, value


def top_k(x: Tensor, y: Tensor, h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Indices and values of the k best targets of each sample, values descending: two tensors (m, k)."""
    x, y, _ = _varying(x, y)
    if k > MAX_K or x.shape[1] > WIDE or _for_torch(x, y, h):
        return torch_.top_k(x, y, h, k)
    x, loops = x.contiguous(), _loops()
    panels = _Panels(y.contiguous(), h.contiguous(), -math.inf)
    index, value = torch.empty(len(x), k, dtype=torch.int64), x.new_empty(len(x), k)
    arrays, n = (x.numpy(), index.numpy(), value.numpy()), len(y)

    def work(part: slice, scratch: Any, width: int) -> None:
        xs, indices, values = (array[part] for array in arrays)
        loops.top_k_chunk(xs, n, panels.data, panels.number, panels.block, width, scratch, indices, values)

    held = min(MAXIMA_BYTES, current_budget() // torch.get_num_threads())
    _over_chunks(x, n, work, min(MAX_SAMPLES, held // (panels.number * x.element_size())))
    return index, value


def _scale(eps: float, x: Tensor) -> Any:
    return x.numpy().dtype.type(torch_._inverse(eps, x.dtype) * _LOG2_E)


def _soft(x: Tensor, panels: _Panels, eps: float, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Best score of each sample and ``sum_j exp((s_ij - best_i)/eps)``; fills ``mean``, (m, d), unless it is empty."""
    loops, scale = _loops(), _scale(eps, x)
    best, total = _assign(x, panels, loops)[1], x.new_empty(len(x))
    arrays, means = (x.numpy(), best.numpy(), total.numpy()), mean.numpy()

    def work(part: slice, scratch: Any, width: int) -> None:
        xs, bests, totals = (array[part] for array in arrays)
        loops.soft_chunk(
            xs, bests, panels.data, panels.number, panels.block, width, scale, scratch, totals, means[part]
        )

    _over_chunks(x, panels.number * loops.PANEL, work)
    return best, total


def soft_moments(x: Tensor, y: Tensor, h: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``eps log sum_j exp(s_ij/eps)``, (m,), and the softmax-weighted mean of the targets, (m, d), in two passes."""
    d = x.shape[1]
    x, y, where = _varying(x, y)
    if x.shape[1] > WIDE or _for_torch(x, y, h):
        value, mean = torch_.soft_moments(x, y, h, eps)
    else:
        x = x.contiguous()
        mean = torch.empty_like(x)
        best, total = _soft(x, _Panels(y.contiguous(), h.contiguous(), -math.inf), eps, mean)
        value = best + eps * total.log()
    return value, mean if where is None else mean.new_zeros(len(mean), d).index_copy_(1, where, mean)


def soft_counts(x: Tensor, y: Tensor, h: Tensor, eps: float) -> Tensor:
    """Sum over the samples of the softmax probabilities, (n,) float64.

    Sums run in the working dtype over 1,024 samples and in float64 beyond. Probabilities that average to less than
    ``2 exp(-80)`` (``2 exp(-600)`` in float64) are returned as zero.
    """
    x, y, _ = _varying(x, y)
    if x.shape[1] > WIDE or _for_torch(x, y, h):
        return torch_.soft_counts(x, y, h, eps)
    x, y, h, loops = x.contiguous(), y.contiguous(), h.contiguous(), _loops()
    best, total = _soft(x, _Panels(y, h, -math.inf), eps, x.new_empty(0, x.shape[1]))
    panels, scale = _Panels(x, best, math.inf, total.reciprocal_()), _scale(eps, x)
    counts = torch.zeros(len(y), dtype=torch.float64)
    arrays = y.numpy(), h.numpy(), counts.numpy()

    def work(part: slice, scratch: Any, width: int) -> None:
        ys, hs, sums = (array[part] for array in arrays)
        loops.counts_chunk(ys, hs, panels.data, panels.number, panels.block, width, scale, scratch, sums)

    _over_chunks(y, len(x), work)
    least = torch_._least_exponent(x.dtype)
    return counts.masked_fill_(counts <= 2 * len(x) * math.exp(least), 0.0)


def slack(x: Tensor, y: Tensor, h: Tensor) -> Tensor:
    """``min_i u_h(x_i) - s_ij`` for each target, (n,)."""
    x, y, _ = _varying(x, y)
    if _for_torch(x, y, h):
        return torch_.slack(x, y, h)
    x, y, h, loops = x.contiguous(), y.contiguous(), h.contiguous(), _loops()
    value = _assign(x, _Panels(y, h, -math.inf), loops)[1]
    panels = _Panels(x, value, math.inf)
    gaps = y.new_empty(len(y))
    arrays = y.numpy(), h.numpy(), gaps.numpy()

    def work(part: slice, scratch: Any, width: int) -> None:
        ys, hs, out = (array[part] for array in arrays)
        loops.slack_chunk(ys, hs, panels.data, panels.number, panels.block, width, scratch, out)

    _over_chunks(y, len(x), work)
    return gaps
