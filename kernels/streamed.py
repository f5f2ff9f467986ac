"""Targets in host memory, or in a memory-mapped file, for samples on a GPU: blocks of targets visit the device in turn.

While the device works on one block, the next one is read into page-locked memory and sent. Any backend answers for a
block; the answers are merged so that the result is the one for all targets at once, up to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch import Tensor

from .dispatch import call
from .memory import current_budget

COPIES = 4
"""Arrays of the size of a block that live on the device at once; they share the memory budget."""


def block_size(x: Tensor) -> int:
    """Targets per block that the memory budget allows."""
    return max(1, current_budget() // (COPIES * (x.shape[1] + 3) * x.element_size()))


def stream(
    operation: str,
    x: Tensor,
    y: Tensor,
    h: Tensor,
    *arguments: Any,
    block: int | None = None,
    centre: Tensor | None = None,
    kept: Tensor | None = None,
) -> Any:
    """What ``dispatch.call(operation, x, y[kept] - centre, h, *arguments)`` gives, with few targets on the device of x.

    Args:
        operation: ``"assign"``, ``"top_k"``, ``"soft_moments"``, ``"soft_counts"`` or ``"slack"``.
        x: samples, (m, d), m >= 1.
        y: targets, (n, d), on the CPU; read block by block, once to three times, and never copied as a whole.
        h: heights of the kept targets, on the device of x, finite.
        *arguments: k of ``top_k``; eps of the soft operations.
        block: targets per block; None for as many as the memory budget allows.
        centre: subtracted from every target on the device, (d,), or None.
        kept: positions of the targets that take part, ascending, on the device of x, or None for all.

    Returns:
        The tensors of the backend's operation, on the device of x; numbers of targets count the kept ones.

    Example:
        >>> import torch
        >>> stream("assign", torch.eye(2), torch.eye(2), torch.zeros(2), block=1)[0].tolist()
        [0, 1]
    """
    size = block_size(x) if block is None else block
    if size < 1:
        raise ValueError(f"a block holds at least one target; got block = {block}.")
    targets = _Targets(y, h, x.device, size, centre, kept)
    if len(y) <= size:
        ((_, whole, heights),) = targets
        return call(operation, x, whole, heights, *arguments)
    return _OPERATIONS[operation](x, targets, *arguments)


class _Targets:
    """Blocks ``(first, targets, heights)`` of the kept targets on a device, as often as they are iterated."""

    def __init__(
        self, y: Tensor, h: Tensor, device: torch.device, size: int, centre: Tensor | None, kept: Tensor | None
    ) -> None:
        self.y, self.h, self.device, self.size = y, h, device, size
        self.centre, self.kept = centre, kept

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        first = 0
        with contextlib.closing(_arriving(self.y, self.size, self.device)) as blocks:
            for number, part in enumerate(blocks):
                start = number * self.size
                if self.kept is not None:
                    low, high = torch.searchsorted(self.kept, self.kept.new_tensor([start, start + len(part)])).tolist()
                    part = part[self.kept[low:high] - start]
                if self.centre is not None:
                    part = part - self.centre
                if len(part):
                    yield first, part, self.h[first : first + len(part)]
                first += len(part)


def _arriving(y: Tensor, size: int, device: torch.device) -> Generator[Tensor, None, None]:
    """Blocks of ``size`` rows of y on the device; a block is overwritten after the next one was asked for.

    On a GPU two page-locked buffers and two buffers on the device take turns: block i + 1 is read and sent, on a stream
    of its own, while the current stream still works on block i.
    """
    if device.type == "cpu":
        yield from y.split(size)
        return
    shape, number = (min(size, len(y)), y.shape[1]), -(-len(y) // size)
    with torch.cuda.device(device):
        work, copies = torch.cuda.current_stream(), torch.cuda.Stream()
        host = [torch.empty(shape, dtype=y.dtype, pin_memory=True) for _ in range(2)]
        there = [torch.empty(shape, dtype=y.dtype, device=device) for _ in range(2)]
        arrived, free = ([torch.cuda.Event() for _ in range(2)] for _ in range(2))
        copies.wait_stream(work)  # the memory of the buffers may still be in use by what ran before

    def send(i: int) -> Tensor:
        slot, part = i % 2, y[i * size : (i + 1) * size]
        arrived[slot].synchronize()  # block i - 2 has left the page-locked buffer
        host[slot][: len(part)].copy_(part)
        copies.wait_event(free[slot])  # ... and is no longer worked on
        with torch.cuda.stream(copies):
            there[slot][: len(part)].copy_(host[slot][: len(part)], non_blocking=True)
            arrived[slot].record(copies)
        return there[slot][: len(part)]

    try:
        coming = send(0)
        for i in range(number):
            block = coming
            work.wait_event(arrived[i % 2])
            if i + 1 < number:
                coming = send(i + 1)
            yield block
            free[i % 2].record(work)
    finally:
        work.wait_stream(copies)


def _assign(x: Tensor, targets: _Targets) -> tuple[Tensor, Tensor]:
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    value = x.new_full((len(x),), -torch.inf)
    for first, y, h in targets:
        at, top = call("assign", x, y, h)
        better = ~(top <= value)  # earlier blocks win ties; true for NaN too, which is reported by the caller
        torch.where(better, at + first, index, out=index)
        torch.where(better, top, value, out=value)
    return index, value


def _top_k(x: Tensor, targets: _Targets, k: int) -> tuple[Tensor, Tensor]:
    index = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    value = x.new_empty(len(x), 0)
    for first, y, h in targets:
        at, top = call("top_k", x, y, h, min(k, len(y)))
        # Earlier targets stand first, so the stable sort gives ties to the lower index.
        value, order = torch.cat([value, top], 1).sort(dim=1, descending=True, stable=True)
        value = value[:, :k].contiguous()
        index = torch.cat([index, at + first], 1).gather(1, order[:, :k])
    return index, value


def _slack(x: Tensor, targets: _Targets) -> Tensor:
    """With the roles exchanged: ``min_i u_i - s_ij = -(max_i <y_j, x_i> - u_i) - h_j``, zero at the winners."""
    winner, value = _assign(x, targets)
    least = torch.empty_like(targets.h)
    for first, y, h in targets:
        least[first : first + len(y)] = -(call("assign", y, x, -value)[1] + h)
    least.clamp_(min=0.0)
    least[winner] = 0.0
    return least


class _Relative:
    """Sums of exponentials of ``s_ij - u_h(x_i)``, which tell small differences apart however large the scores.

    The difference is a score of samples ``(x_i, -u_i, r_i)`` with targets ``(y_j, 1, 0)``; a target (0, 0, 1) of
    height 0 has the score r_i and stands for the targets of all other blocks. A temperature too small to be told from
    zero is raised: no gap between scores is as small.
    """

    def __init__(self, x: Tensor, targets: _Targets, eps: float) -> None:
        self.best = _assign(x, targets)[1]
        self.x = torch.cat([x, -self.best[:, None], torch.zeros_like(self.best)[:, None]], 1)
        self.targets = targets
        high = float(self.best.abs().max()) + float(targets.h.abs().max())
        self.eps = max(eps, high * 1e-30, float(torch.finfo(x.dtype).tiny) * 1e3)

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        for first, y, h in self.targets:
            yield first, torch.cat([y, torch.ones_like(h)[:, None], torch.zeros_like(h)[:, None]], 1), h


def _soft_moments(x: Tensor, targets: _Targets, eps: float) -> tuple[Tensor, Tensor]:
    relative = _Relative(x, targets, eps)
    total = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)  # log of the sum so far
    mean = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    for _, y, h in relative:
        value, part = call("soft_moments", relative.x, y, h, relative.eps)
        value = value.double() / relative.eps
        total, before = torch.logaddexp(total, value), total
        mean.mul_((before - total).exp_()[:, None]).addcmul_((value - total).exp_()[:, None], part[:, :-2].double())
    return (relative.best.double() + eps * total).to(x.dtype), mean.to(x.dtype)


def _soft_counts(x: Tensor, targets: _Targets, eps: float) -> Tensor:
    """Each block counts beside one target with the mass of all others; one number per sample and block is kept."""
    relative = _Relative(x, targets, eps)
    logs = [call("soft_moments", relative.x, y, h, relative.eps)[0] for _, y, h in relative]
    total = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
    for log in logs:
        total = torch.logaddexp(total, log.double() / relative.eps)
    counts = torch.empty(len(targets.h), dtype=torch.float64, device=x.device)
    for log, (first, y, h) in zip(logs, relative, strict=True):
        rest = total + torch.log1p(-(log.double() / relative.eps - total).exp_().clamp_(max=1.0))
        relative.x[:, -1] = torch.maximum(rest, total - 200.0).mul_(relative.eps)
        other = torch.zeros_like(y[:1])
        other[:, -1] = 1.0
        lifted, heights = torch.cat([y, other]), torch.cat([h, h.new_zeros(1)])
        counts[first : first + len(y)] = call("soft_counts", relative.x, lifted, heights, relative.eps)[:-1]
    return counts


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "assign": _assign,
    "top_k": _top_k,
    "soft_moments": _soft_moments,
    "soft_counts": _soft_counts,
    "slack": _slack,
}
