"""Backend ``triton``: fused GPU programs for ``assign``, ``top_k`` and ``slack``, which never write the scores.

Tensor cores propose, float32 decides. A pass in TF32 keeps the few groups of consecutive targets whose best scores are
highest; every group within twice an error bound of the best is then scored again in float32, so that the answer is
the one that a full pass in float32 gives, ties included. Samples for which more groups are that close than the list
holds get that full pass. It also serves low dimensions, where a matrix product gains nothing, and float64.

The bound. Let ``x~`` be x rounded to TF32, ``y~`` the rounding of ``y - c`` with c the mean of the targets (a common
shift moves all scores of a sample alike), ``s~`` the computed product plus h and f the score in float32. Then
``|s~ - (f - <x, c>)| <= B`` for every target, with

    B = |x - x~| max_j |y_j - c| + |x~| max_j |y_j - c - y~_j| + g (|x| (max_j |y_j| + max_j |y_j - c|) + max_j |h_j|)

by Cauchy and Schwarz; the first two terms are computed, not estimated, and g = (d + 8) 2^-21 covers the additions:
d + 2 rounded to nearest in f, and d in the tensor cores, which truncate what they add after aligning it (Fasi, Higham,
Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science 7, 2021). A target that is among
the k best of f has ``s~ >= t - 2 B``, where t is any number that k values of s~ reach: the k-th largest group maximum.

``triton`` is imported by the first call, not with this module. With ``TRITON_INTERPRET=1`` set before it is imported
the programs run on a CPU, slowly, for tests.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import keops, torch_
from .memory import current_budget

NAME = "triton"
LOW_FROM = 16
"""Least dimension for TF32: matrix units multiply 8 or 16 coordinates at a time, so that few are no gain."""
MAX_K = 64
"""Past this :func:`top_k` is left to torch: the list of groups would not fit in registers."""
ROWS, COLUMNS = 128, 128
"""Rows and columns are padded to multiples of these, the largest blocks."""
WAVES = 4
"""Programs per multiprocessor below which the columns are split among several programs."""
KEOPS_DIM = 64
"""Up to this dimension the sums, which have no program here, are left to KeOps, else to torch."""
_NONE = 2**31 - 1
_lock = threading.RLock()  # autotuning keeps state between two lines


@functools.cache
def _programs() -> Any:
    from . import _triton_programs

    return _triton_programs


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET", "").strip().lower() in ("1", "true", "yes", "on", "y", "t")


def probe(device: str) -> str | None:
    """Why Triton cannot run on ``"cpu"`` or ``"cuda"``; None if a tiny problem got the right answer."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; it comes with torch for CUDA, else: pip install triton"
    none = "this build of torch finds no CUDA device"
    if device == "cuda" and not torch.cuda.is_available():
        return none
    if device == "cpu" and not _interpreting():
        found = "" if torch.cuda.is_available() else f", and {none}"
        return f"its programs run on a CUDA device only{found} (TRITON_INTERPRET=1 interprets them on a CPU, for tests)"
    try:
        if _programs().INTERPRETED != (device == "cpu"):
            return (
                "TRITON_INTERPRET is set, so that triton interprets on the CPU; unset it and start again"
                if device == "cuda"
                else "triton was imported before TRITON_INTERPRET was set; set it before Python starts"
            )
        for dim in (2, LOW_FROM):
            y = torch.eye(dim, device=device)
            index, _ = assign(y, y, torch.zeros(dim, device=device))
            if index.tolist() != list(range(dim)):
                return f"a tiny problem gave {index.tolist()} instead of {list(range(dim))}; empty ~/.triton/cache"
    except Exception as error:
        return (
            f"{type(error).__name__}: {str(error).strip() or 'no message'}. Triton compiles on first use: check the C "
            "compiler, the driver, and that ~/.triton can be written to (TRITON_CACHE_DIR chooses another folder)."
        )
    return None


@contextlib.contextmanager
def _current_device(x: Tensor) -> Iterator[None]:
    with _lock, torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
        yield


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _largest(values: Tensor) -> float:
    low, high = torch.aminmax(values)
    return max(-float(low), float(high))


def _may_overflow(x: Tensor, y: Tensor, h: Tensor) -> bool:
    """Whether a partial sum may overflow: it shows in the results of torch, while these programs lose NaN."""
    high, sizes = torch.finfo(x.dtype).max / 16, (_largest(x), _largest(y))
    return max(sizes) > high or x.shape[1] * sizes[0] * sizes[1] + _largest(h) > high


def _tf32(values: Tensor) -> Tensor:
    """Float32 numbers rounded to the nearest with 10 stored bits of fraction: tensor cores read them as they are."""
    return ((values.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def _padded(values: Tensor, rows: int, columns: int, fill: float = 0.0) -> Tensor:
    out = values.new_full((rows, columns), fill)
    out[: values.shape[0], : values.shape[1]] = values
    return out


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


class _Low(NamedTuple):
    """Points rounded to TF32; norms, in float64, of them as given, as shifted, and of what the rounding took away."""

    points: Tensor
    norm: Tensor
    shifted: Tensor
    error: Tensor

    @classmethod
    def of(cls, points: Tensor, centre: Tensor | None, rows: int, width: int) -> _Low:
        exact = points.double()
        norm = torch.linalg.vector_norm(exact, dim=1)
        shifted = norm
        if centre is not None:
            exact -= centre
            shifted = torch.linalg.vector_norm(exact, dim=1)
        rounded = _tf32(exact.float())
        exact -= rounded
        error = torch.linalg.vector_norm(exact, dim=1)
        more = 1.0 + 2.0**-40
        return cls(_padded(rounded, rows, width), norm * more, shifted * more, error * more)


class _Columns:
    """What every row is compared with: coordinates, heads and norms, padded for the programs.

    Args:
        points: (n, d).
        head: (n,).
        keep: groups that a list holds.
        group: columns per group.
        low: prepare the pass in TF32.
        swap: the heads are subtracted.
        rows: number of rows that come at once.
    """

    def __init__(self, points: Tensor, head: Tensor, keep: int, group: int, low: bool, swap: bool, rows: int) -> None:
        n, dim = points.shape
        blocks = _up(rows, ROWS) // ROWS
        splits = min(-(-WAVES * _processors(points.device) // blocks), -(-n // (4 * keep * group)), 64)
        self.span = _up(-(-n // splits), COLUMNS)
        self.splits = -(-n // self.span)
        size = self.span * self.splits
        self.dim, self.keep, self.group, self.low, self.swap = dim, keep, group, low, swap
        self.points = _padded(points.T, dim, size)
        self.head = _padded(head[None], 1, size, torch.inf if swap else -torch.inf)[0]
        self.width = max(16, 1 << (dim - 1).bit_length()) if dim <= 128 else _up(dim, 64)
        self.chunk = self.width if self.width <= 128 else 64
        self.rounded = _Low.of(points, points.double().mean(0), size, self.width) if low else None
        self.highest = _largest(head)

    def bound(self, rows: _Low, row_head: Tensor | None) -> Tensor:
        """``B`` of the module's text, per row, (m,) float64; ``row_head`` is one more term of f."""
        assert self.rounded is not None
        norm, shifted, error = (float(values.max()) for values in self.rounded[1:])
        size = rows.norm * (norm + shifted) + self.highest
        if row_head is not None:
            size += row_head.double().abs()
        additions = (self.dim + 8) * 2.0**-21
        vanished = (1.0 + rows.norm + shifted) * (self.dim * 2.0**-120)  # numbers below the normal ones count as zero
        return rows.error * shifted + (rows.norm + rows.error) * error + additions * size + vanished


def _find(columns: _Columns, rows: Tensor, row_head: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """Groups with the k best columns of each row, ascending, (m, width) int32, -1 for none; and which rows failed."""
    m, device = len(rows), rows.device
    size, keep = _up(m, ROWS), columns.keep
    coordinates = _padded(rows.T, columns.dim, size)
    head = coordinates if row_head is None else _padded(row_head[None], 1, size)
    low = _Low.of(rows, None, size, columns.width) if columns.low else None
    kept = torch.empty(m, columns.splits * keep, dtype=rows.dtype, device=device)
    group = torch.empty(kept.shape, dtype=torch.int32, device=device)
    lost = torch.empty(m, columns.splits, dtype=rows.dtype, device=device)
    with _current_device(rows):
        _programs().launch_find(
            m,
            columns.splits,
            coordinates,
            columns.points,
            coordinates if low is None else low.points,
            columns.points if columns.rounded is None else columns.rounded.points,
            head,
            columns.head,
            kept,
            group,
            lost,
            m,
            size,
            columns.points.shape[1],
            columns.dim,
            columns.span,
            LOW=columns.low,
            SWAP=columns.swap,
            GROUP=columns.group,
            KEEP=keep,
            DIM=columns.width,
            BK=columns.chunk,
        )
    if low is None:
        # The k best columns lie in the k best groups, the first of equal ones taken before the later ones.
        order = group.argsort(dim=1)
        value, best = kept.gather(1, order).sort(dim=1, descending=True, stable=True)
        group = group.gather(1, order).gather(1, best)[:, :k].masked_fill_(value[:, :k] == -torch.inf, -1)
        failed = torch.zeros(m, dtype=torch.bool, device=device)
        width = group.shape[1]
    else:
        reached = torch.topk(kept, k, dim=1).values[:, -1].double()
        least = reached - 2 * columns.bound(low, row_head)
        active = (kept.double() >= least[:, None]) & (group >= 0)
        failed = ((lost.double() >= least[:, None]) & (lost > -torch.inf)).any(1)
        count = active.sum(1).masked_fill_(failed, 0)
        group = group.masked_fill_(~active | failed[:, None], -1)
        width = int(count.max())
    group = torch.where(group < 0, _NONE, group).sort(dim=1).values[:, :width].contiguous()
    return group.masked_fill_(group == _NONE, -1), failed


def _rescore(columns: _Columns, rows: Tensor, row_head: Tensor | None, groups: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Index and value of the k best columns of each row among its groups, (m, k); anything where there is no group."""
    (m, width), device = groups.shape, rows.device
    size, best = _up(m, ROWS), k == 1
    coordinates = _padded(rows.T, columns.dim, size)
    shape = (m, width) if best else (m, width, columns.group)
    value = torch.full(shape, -torch.inf, dtype=rows.dtype, device=device)
    index = torch.zeros(shape if best else (1,), dtype=torch.int64, device=device)
    block = 32 if best else 8
    with _current_device(rows):
        _programs().score_groups[(-(-m // block), width)](
            coordinates,
            columns.points,
            coordinates if row_head is None else _padded(row_head[None], 1, size),
            columns.head,
            groups,
            value,
            index,
            m,
            size,
            columns.points.shape[1],
            columns.dim,
            SWAP=columns.swap,
            GROUP=columns.group,
            BEST=best,
            BR=block,
        )
    if best:
        top, at = value.max(dim=1, keepdim=True)  # the first of equal ones, and groups ascend
        return index.gather(1, at), top
    top, at = torch_._top_k_block(value.view(m, -1), k)
    return groups.gather(1, at // columns.group).long() * columns.group + at % columns.group, top


def _search(
    rows: Tensor, points: Tensor, row_head: Tensor | None, head: Tensor, k: int, low: bool
) -> tuple[Tensor, Tensor]:
    """Index and value of the k best columns of each row: two tensors (m, k); ``row_head`` selects the score SWAP."""
    group = 32 if k <= 8 else 16
    keep = 1 << max(1, ((2 * k + 6 if low else k) - 1).bit_length())
    keep = min(keep, 2 * MAX_K)
    limit = current_budget() // (rows.element_size() * (6 * keep + 2 * k * group))
    chunk = min(len(rows), max(ROWS, limit))
    columns = _Columns(points, head, keep, group, low, row_head is not None, chunk)
    if columns.splits > 1:
        chunk = min(chunk, max(ROWS, limit // columns.splits))
    index = torch.empty(len(rows), k, dtype=torch.int64, device=rows.device)
    value = rows.new_empty(len(rows), k)
    undecided = []
    for start in range(0, len(rows), chunk):
        part = slice(start, min(start + chunk, len(rows)))
        some, heads = rows[part], None if row_head is None else row_head[part]
        groups, failed = _find(columns, some, heads, k)
        if groups.shape[1]:
            per_row = groups.shape[1] * (1 if k == 1 else 2 * group) * rows.element_size() * 2
            step = max(ROWS, current_budget() // per_row)
            for at in range(0, len(some), step):
                piece = slice(at, min(at + step, len(some)))
                whole = slice(start + at, start + piece.stop)
                index[whole], value[whole] = _rescore(
                    columns, some[piece], None if heads is None else heads[piece], groups[piece], k
                )
        undecided.append(torch.nonzero(failed).flatten() + start)
    left = torch.cat(undecided)
    if len(left):
        index[left], value[left] = _search(
            rows[left], points, None if row_head is None else row_head[left], head, k, False
        )
    return index, value


def _low(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.shape[1] >= LOW_FROM


def assign(x: Tensor, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Index and value of the best target of each sample: two tensors (m,)."""
    if _may_overflow(x, y, h):
        return torch_.assign(x, y, h)
    index, value = _search(x, y, None, h, 1, _low(x))
    return index[:, 0], value[:, 0]


def top_k(x: Tensor, y: Tensor, h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Indices and values of the k best targets of each sample, values descending: two tensors (m, k)."""
    if k > MAX_K or _may_overflow(x, y, h):
        return torch_.top_k(x, y, h, k)
    return _search(x, y, None, h, k, _low(x))


def slack(x: Tensor, y: Tensor, h: Tensor) -> Tensor:
    """``min_i u_h(x_i) - s_ij`` for each target, (n,): the search with the roles of samples and targets exchanged."""
    if _may_overflow(x, y, h):
        return torch_.slack(x, y, h)
    _, value = assign(x, y, h)
    return _search(y, x, h, value, 1, _low(x))[1][:, 0].neg_().add_(0.0)  # no -0.0


def _summing(x: Tensor) -> ModuleType:
    """The backend for sums of exponentials: KeOps on a GPU in low dimension if it works there, else torch."""
    from .dispatch import probe as known

    return keops if x.is_cuda and x.shape[1] <= KEOPS_DIM and known(keops.NAME, "cuda") is None else torch_


def soft_moments(x: Tensor, y: Tensor, h: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``eps log sum_j exp(s_ij/eps)``, (m,), and the softmax-weighted mean of the targets, (m, d): KeOps or torch."""
    result: tuple[Tensor, Tensor] = _summing(x).soft_moments(x, y, h, eps)
    return result


def soft_counts(x: Tensor, y: Tensor, h: Tensor, eps: float) -> Tensor:
    """Sum over the samples of the softmax probabilities, (n,) float64, by KeOps or torch."""
    result: Tensor = _summing(x).soft_counts(x, y, h, eps)
    return result
