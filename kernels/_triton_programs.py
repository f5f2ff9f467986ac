"""Programs of backend ``triton``; Triton compiles them for a GPU on first use, or interprets them on a CPU.

They compare rows with columns: samples with targets, or for :func:`slack` targets with samples. The score of a pair is

    f(r, c) = (head_c + sum_k r_k c_k)               or, SWAP,   f(r, c) = (head_r + sum_k r_k c_k) - head_c

by fused multiply-adds in the order of k: one number per pair, whichever program computes it and in whichever block, so
that equal points have equal scores and a target that attains u_h(x_i) has slack zero.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def _exact(
    rows: tl.tensor, cols: tl.tensor, row_step: tl.tensor, col_step: tl.tensor, acc: tl.tensor, dim: tl.tensor
) -> tl.tensor:
    """``acc + sum_k rows_k cols_k``; ``rows`` and ``cols`` are pointers to coordinate 0 that broadcast to ``acc``."""
    for _ in range(dim):
        acc = tl.fma(tl.load(rows), tl.load(cols), acc)
        rows += row_step
        cols += col_step
    return acc


@triton.jit
def find_groups(
    rows: tl.tensor,
    cols: tl.tensor,
    rows_low: tl.tensor,
    cols_low: tl.tensor,
    row_head: tl.tensor,
    col_head: tl.tensor,
    kept: tl.tensor,
    kept_group: tl.tensor,
    lost: tl.tensor,
    m: tl.tensor,
    row_step: tl.tensor,
    col_step: tl.tensor,
    dim: tl.tensor,
    span: tl.tensor,
    LOW: tl.constexpr,
    SWAP: tl.constexpr,
    GROUP: tl.constexpr,
    KEEP: tl.constexpr,
    DIM: tl.constexpr,
    BK: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
) -> None:
    """Per row, the KEEP groups of GROUP consecutive columns with the largest maxima (of equal ones the first).

    Grid: (blocks of BM rows, splits of ``span`` columns).

    Args:
        rows: coordinates of the rows, (dim, row_step); the number of rows is padded to whole blocks.
        cols: coordinates of the columns, (dim, col_step); padded to whole splits, with heads that never win.
        rows_low: the rows rounded to TF32, (row_step, DIM), zeros from ``dim`` to DIM; used if LOW.
        cols_low: the columns, shifted and rounded to TF32, (col_step, DIM); used if LOW.
        row_head: (row_step,), used if SWAP.
        col_head: (col_step,).
        kept: receives the maxima, (m, splits, KEEP), unordered; -inf where there are fewer groups.
        kept_group: receives the numbers of the groups, negative where there are fewer.
        lost: receives the largest maximum of a group that is not kept, (m, splits).
        m: number of rows.
        row_step: padded number of rows.
        col_step: padded number of columns.
        dim: number of coordinates.
        span: columns per split, a multiple of BN.
        LOW: score by a product of TF32 matrices instead of f (without ``row_head``, which changes no comparison).
        SWAP: which f.
        GROUP: columns per group.
        KEEP: groups kept, a power of two.
        DIM: padded dimension, a multiple of BK.
        BK: coordinates per matrix product.
        BM: rows per block.
        BN: columns per step, at least two groups.
    """
    NEG: tl.constexpr = float("-inf")
    split = tl.program_id(1)
    r = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    slots = tl.arange(0, KEEP)
    within = tl.arange(0, BN // GROUP)
    dtype = tl.float32 if LOW else rows.dtype.element_ty
    best = tl.full((BM, KEEP), NEG, dtype)
    group = tl.zeros((BM, KEEP), tl.int32) - 1 - slots[None, :]  # distinct, so that one slot at a time is given up
    beaten = tl.full((BM,), NEG, dtype)
    if LOW and DIM == BK:  # the rows stay on the chip
        whole = tl.load(rows_low + r[:, None] * DIM + tl.arange(0, BK)[None, :])
    for step in range(0, span, BN):
        first = split * span.to(tl.int64) + step
        c = first + tl.arange(0, BN)
        head = tl.load(col_head + c)[None, :]
        if LOW:
            acc = tl.zeros((BM, BN), tl.float32)
            if DIM == BK:
                part = tl.load(cols_low + c[:, None] * DIM + tl.arange(0, BK)[None, :])
                acc = tl.dot(whole, tl.trans(part), acc, input_precision="tf32")
            else:
                for k in range(0, DIM, BK):
                    at_k = k + tl.arange(0, BK)[None, :]
                    some = tl.load(rows_low + r[:, None] * DIM + at_k)
                    part = tl.load(cols_low + c[:, None] * DIM + at_k)
                    acc = tl.dot(some, tl.trans(part), acc, input_precision="tf32")
            score = acc - head if SWAP else acc + head
        elif SWAP:
            start = tl.load(row_head + r)[:, None] + tl.zeros((BM, BN), dtype)
            score = _exact((rows + r)[:, None], (cols + c)[None, :], row_step, col_step, start, dim) - head
        else:
            start = head + tl.zeros((BM, BN), dtype)
            score = _exact((rows + r)[:, None], (cols + c)[None, :], row_step, col_step, start, dim)
        maxima = tl.max(tl.reshape(score, (BM, BN // GROUP, GROUP)), 2)
        top, at = tl.max(maxima, 1, return_indices=True)
        worst = tl.min(best, 1)
        while tl.max((top > worst).to(tl.int32), 0) > 0:
            enters = top > worst
            beaten = tl.maximum(beaten, tl.where(enters, worst, NEG))
            # Of equal ones the last group leaves.
            leaves = best == worst[:, None]
            last = tl.max(tl.where(leaves, group, -(2**31)), 1)
            place = leaves & (group == last[:, None]) & enters[:, None]
            best = tl.where(place, top[:, None], best)
            group = tl.where(place, ((first // GROUP).to(tl.int32) + at.to(tl.int32))[:, None], group)
            maxima = tl.where((within[None, :] == at[:, None]) & enters[:, None], NEG, maxima)
            top, at = tl.max(maxima, 1, return_indices=True)
            worst = tl.min(best, 1)
        beaten = tl.maximum(beaten, top)
    inside = r < m
    out = r * tl.num_programs(1) + split
    tl.store(kept + out[:, None] * KEEP + slots[None, :], best, mask=inside[:, None])
    tl.store(kept_group + out[:, None] * KEEP + slots[None, :], group, mask=inside[:, None])
    tl.store(lost + out, beaten, mask=inside)


@triton.jit
def score_groups(
    rows: tl.tensor,
    cols: tl.tensor,
    row_head: tl.tensor,
    col_head: tl.tensor,
    groups: tl.tensor,
    value: tl.tensor,
    index: tl.tensor,
    m: tl.tensor,
    row_step: tl.tensor,
    col_step: tl.tensor,
    dim: tl.tensor,
    SWAP: tl.constexpr,
    GROUP: tl.constexpr,
    BEST: tl.constexpr,
    BR: tl.constexpr,
) -> None:
    """The scores f of the columns of chosen groups, or the best of each group.

    Grid: (blocks of BR rows, number of groups per row).

    Args:
        rows: as in :func:`find_groups`, like ``cols``, ``row_head``, ``col_head`` and the steps.
        cols: coordinates of the columns.
        row_head: heads of the rows.
        col_head: heads of the columns.
        groups: chosen groups, (m, width); negative for none, whose results are left alone.
        value: receives the scores, (m, width, GROUP), or their maxima, (m, width), if BEST.
        index: receives the column of each maximum, the first of equal ones, (m, width) int64, if BEST.
        m: number of rows.
        row_step: padded number of rows.
        col_step: padded number of columns.
        dim: number of coordinates.
        SWAP: which f.
        GROUP: columns per group.
        BEST: reduce each group to its maximum.
        BR: rows per block.
    """
    slot = tl.program_id(1)
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    out = r * tl.num_programs(1) + slot
    chosen = tl.load(groups + out, mask=r < m, other=-1)
    if tl.max(chosen, 0) >= 0:
        given = chosen >= 0
        lane = tl.arange(0, GROUP)[None, :]
        c = tl.maximum(chosen, 0).to(tl.int64)[:, None] * GROUP + lane
        dtype = rows.dtype.element_ty
        head = tl.load(col_head + c)
        if SWAP:
            start = tl.load(row_head + r)[:, None] + tl.zeros((BR, GROUP), dtype)
            score = _exact((rows + r)[:, None], cols + c, row_step, col_step, start, dim) - head
        else:
            score = _exact((rows + r)[:, None], cols + c, row_step, col_step, head, dim)
        if BEST:
            top, at = tl.max(score, 1, return_indices=True)
            tl.store(value + out, top, mask=given)
            tl.store(index + out, chosen.to(tl.int64) * GROUP + at, mask=given)
        else:
            tl.store(value + out[:, None] * GROUP + lane, score, mask=given[:, None])


CONFIGS = [
    triton.Config({"BM": rows, "BN": columns}, num_warps=warps, num_stages=3)
    for rows, columns, warps in (
        (128, 128, 8),
        (128, 64, 4),
        (64, 128, 4),
        (64, 64, 8),
        (32, 128, 8),
        (16, 128, 8),
    )
]


def suited(configs: list[Any], named: dict[str, Any], **options: Any) -> list[Any]:
    """The configurations worth a trial: what spills no registers, or few, on compute capability 8.0 and 9.0."""
    keep, wide, low = options["KEEP"], options["BK"] > 64, options["LOW"]
    if keep <= 16:
        tiles = [(64, 128), (64, 64)] if wide else [(128, 128), (128, 64), (64, 128), (64, 64)]
        tiles = tiles if low else [(128, 64), (64, 64)]
    else:
        tiles = [[(64, 64)] * low + [(32, 128)], [(32, 128), (16, 128)], [(16, 128)]][(keep > 32) + (keep > 64)]
    return [config for config in configs if (config.kwargs["BM"], config.kwargs["BN"]) in tiles]


INTERPRETED = not isinstance(find_groups, triton.JITFunction)
_find_tuned = (
    None
    if INTERPRETED
    else triton.autotune(CONFIGS, key=["DIM", "KEEP", "LOW", "SWAP"], prune_configs_by={"early_config_prune": suited})(
        find_groups
    )
)


def launch_find(rows: int, splits: int, *arguments: Any, **options: Any) -> None:
    """Run :func:`find_groups` on ``rows`` rows; the interpreter times nothing and takes the smallest fit."""
    if _find_tuned is not None:
        _find_tuned[lambda meta: (triton.cdiv(rows, meta["BM"]), splits)](*arguments, **options)
        return
    tile = suited(CONFIGS, {}, **options)[-1].kwargs
    find_groups[(triton.cdiv(rows, tile["BM"]), splits)](*arguments, **options, **tile)
