"""Vector code of ``_cpu_tree``: panels tested against boxes, scores of the panels of a list.

Tiles, panels and the chain of multiply-adds of a score are those of ``_cpu_vectors``. Numba's cache of ``_cpu_tree``
looks at the date of that file only: after a change here, touch it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._cpu_vectors import PANEL, ROWS, TOGETHER, _Code, _i64

GROUP = 4
"""Panels that are tested at the same time."""
NO_INDEX = 2**31 - 1
"""Greater than any index."""
_I32 = ir.IntType(32)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _panel_chains(c: _Code, panels: list[Any], dim: Any, term: Callable[..., Any], *places: Any) -> list[list[Any]]:
    """For each panel, vectors over its targets: the head, then ``total = term(row, total, *broadcasts)`` for each row.

    ``places`` are pointers to one number per coordinate, with the step from one to the next; they are broadcast.
    """
    cells = [(panel, start) for panel in panels for start in range(0, PANEL, c.lanes)]
    slots = c.variables([c.load(c.at(panel, start)) for panel, start in cells])
    with cgutils.for_range(c.builder, dim) as loop:
        numbers = [c.broadcast(c.at(place, c.builder.mul(loop.index, step))) for place, step in places]
        row = c.builder.mul(c.builder.add(loop.index, _i64(1)), _i64(PANEL))
        for slot, (panel, start) in zip(slots, cells, strict=True):
            c.builder.store(term(c.load(c.at(panel, row, start)), c.builder.load(slot), *numbers), slot)
    found = [c.builder.load(slot) for slot in slots]
    each = len(found) // len(panels)
    return [found[i : i + each] for i in range(0, len(found), each)]


def _test(box: bool) -> Callable[..., Any]:
    """The test of GROUP panels at a point, or on a box.

    Target j passes if ``h_j + sum_k c_k y_jk`` exceeds ``level``; with ``box``, if that sum plus ``sum_k a_k |y_jk -
    r_k|`` does: less ``<c - x, r>``, this is the largest value of ``s_j(x) - <x, r>`` on the box of centre c and
    half-widths a.

    Args:
        box: as said.

    Returns:
        A function ``(lists, at, yp, d, place, level)`` for compiled code. ``place`` holds c, a and r, one after the
        other; bit g of the result is set if a target of panel ``lists[at + g]`` passes.
    """

    def test(typing: Any, lists: Any, at: Any, yp: Any, d: Any, place: Any, level: Any) -> Any:
        signature = types.int64(lists, types.int64, yp, types.int64, place, yp.dtype)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            c, dim = _Code(builder, yp), arguments[3]
            visits, y, centre = (
                _data(context, builder, kind, arguments[i]) for i, kind in ((0, lists), (2, yp), (4, place))
            )
            stride = builder.mul(builder.add(dim, _i64(1)), _i64(PANEL))
            panels = []
            for g in range(GROUP):
                number = builder.load(builder.gep(visits, [builder.add(arguments[1], _i64(g))]))
                panels.append(c.at(y, builder.mul(builder.zext(number, ir.IntType(64)), stride)))
            half, other = c.at(centre, dim), c.at(centre, dim, dim)
            one = _i64(1)

            def score(row: Any, total: Any, c_k: Any) -> Any:
                return c.multiply_add(c_k, row, total)

            def bound(row: Any, total: Any, c_k: Any, a_k: Any, r_k: Any) -> Any:
                return c.multiply_add(a_k, c.abs(builder.fsub(row, r_k)), c.multiply_add(c_k, row, total))

            places = [(centre, one), (half, one), (other, one)] if box else [(centre, one)]
            chains = _panel_chains(c, panels, dim, bound if box else score, *places)
            mask, least = _i64(0), c.splat(arguments[5])
            for g, found in enumerate(chains):
                bit = builder.zext(c.any_above(c.max_of(found), least), ir.IntType(64))
                mask = builder.or_(mask, builder.shl(bit, _i64(g)))
            return mask

        return signature, generate

    return intrinsic(test)


def _lowest(typing: Any, xt: Any, x_at: Any, yp: Any, y_at: Any, d: Any, perm: Any, p_at: Any, level: Any) -> Any:
    """Least ``perm[p_at + j]`` among the targets j of one panel whose score at a point of a tile is ``level``.

    NO_INDEX if there is none.
    """
    signature = types.int32(xt, types.int64, yp, types.int64, types.int64, perm, types.int64, xt.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c = _Code(builder, xt)
        x = c.at(_data(context, builder, xt, arguments[0]), arguments[1])
        y = c.at(_data(context, builder, yp, arguments[2]), arguments[3])
        own = builder.gep(_data(context, builder, perm, arguments[5]), [arguments[6]])

        def term(row: Any, total: Any, x_k: Any) -> Any:
            return c.multiply_add(x_k, row, total)

        scores = _panel_chains(c, [y], arguments[4], term, (x, _i64(ROWS * c.lanes)))[0]
        level, kind = c.splat(arguments[7]), ir.VectorType(_I32, c.lanes)
        name = f"llvm.vector.reduce.smin.v{c.lanes}i32"
        reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I32, [kind]), name)
        best = ir.Constant(_I32, NO_INDEX)
        for start, own_scores in zip(range(0, PANEL, c.lanes), scores, strict=True):
            pointer = builder.bitcast(builder.gep(own, [_i64(start)]), kind.as_pointer())
            indices = builder.load(pointer, align=4)
            none = ir.Constant(kind, [NO_INDEX] * c.lanes)
            least = builder.call(reduce, [builder.select(builder.fcmp_ordered("==", own_scores, level), indices, none)])
            best = builder.select(builder.icmp_signed("<", least, best), least, best)
        return best

    return signature, generate


def _best_of_listed(
    typing: Any, xt: Any, yp: Any, lists: Any, begin: Any, end: Any, d: Any, high: Any, where: Any
) -> Any:
    """``high, where =`` best score of each point of a tile over the panels ``lists[begin:end]``, and its panel.

    Of several panels with the best score the first stays. Returns whether two panels tied somewhere, for a score that
    was the best at the time.
    """
    i64 = types.int64
    signature = types.boolean(xt, yp, lists, i64, i64, i64, high, where)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c, dim = _Code(builder, xt), arguments[5]
        x, y, visits, best, place = (
            _data(context, builder, kind, arguments[i])
            for i, kind in ((0, xt), (1, yp), (2, lists), (6, high), (7, where))
        )
        rows, points = range(ROWS), range(TOGETHER)
        stride = builder.mul(builder.add(dim, _i64(1)), _i64(PANEL))
        flags = ir.VectorType(ir.IntType(1), c.lanes)
        result = c.variables([c.constant(-np.inf)] * ROWS)
        panels = c.variables([ir.Constant(c.bits, [0] * c.lanes)] * ROWS)
        ties = c.variables([ir.Constant(flags, [0] * c.lanes)])[0]
        with cgutils.for_range(builder, builder.sub(arguments[4], arguments[3])) as outer:
            number = builder.load(builder.gep(visits, [builder.add(outer.index, arguments[3])]))
            first = c.at(y, builder.mul(builder.zext(number, ir.IntType(64)), stride))
            tops = c.variables([c.constant(-np.inf)] * ROWS)
            with cgutils.for_range(builder, _i64(PANEL // TOGETHER)) as inner:
                panel = c.at(first, builder.mul(inner.index, _i64(TOGETHER)))
                cells = [(r, t) for r in rows for t in points]
                heads = [c.broadcast(c.at(panel, t)) for t in points]
                slots = c.variables([heads[t] for _, t in cells])
                with cgutils.for_range(builder, dim) as loop:
                    row = builder.mul(builder.add(loop.index, _i64(1)), _i64(PANEL))
                    xs = [c.load(c.at(x, builder.mul(loop.index, _i64(ROWS * c.lanes)), r * c.lanes)) for r in rows]
                    ys = [c.broadcast(c.at(panel, row, t)) for t in points]
                    for (r, t), slot in zip(cells, slots, strict=True):
                        builder.store(c.multiply_add(xs[r], ys[t], builder.load(slot)), slot)
                found = [builder.load(slot) for slot in slots]
                for r in rows:
                    top = c.max_of(found[r * TOGETHER : (r + 1) * TOGETHER])
                    builder.store(c.max(top, builder.load(tops[r])), tops[r])
            wide = number if c.size == 4 else builder.zext(number, ir.IntType(64))
            undefined = ir.Constant(c.bits, ir.Undefined)
            lanes = ir.Constant(ir.VectorType(_I32, c.lanes), [0] * c.lanes)
            numbers = builder.shuffle_vector(
                builder.insert_element(undefined, wide, ir.Constant(_I32, 0)), undefined, lanes
            )
            for r in rows:
                top, old = builder.load(tops[r]), builder.load(result[r])
                better = builder.fcmp_ordered(">", top, old)
                builder.store(builder.or_(builder.load(ties), builder.fcmp_ordered("==", top, old)), ties)
                builder.store(builder.select(better, top, old), result[r])
                builder.store(builder.select(better, numbers, builder.load(panels[r])), panels[r])
        narrow = ir.VectorType(_I32, c.lanes)
        for r in rows:
            c.store(builder.load(result[r]), c.at(best, r * c.lanes))
            value = builder.load(panels[r])
            value = value if c.size == 4 else builder.trunc(value, narrow)
            pointer = builder.bitcast(builder.gep(place, [_i64(r * c.lanes)]), narrow.as_pointer())
            builder.store(value, pointer, align=4)
        return c.any(builder.load(ties))

    return signature, generate


def _extent(typing: Any, values: Any, first: Any, count: Any, out: Any) -> Any:
    """``out[0], out[1] =`` least and greatest of ``values[first : first + count]``, count >= 1."""
    signature = types.void(values, types.int64, types.int64, out)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c, count = _Code(builder, values), arguments[2]
        base = c.at(_data(context, builder, values, arguments[0]), arguments[1])
        start = c.broadcast(base)
        low, high = c.variables([start, start])
        whole = builder.udiv(count, _i64(c.lanes))

        def take(value: Any) -> None:
            builder.store(c.min(value, builder.load(low)), low)
            builder.store(c.max(value, builder.load(high)), high)

        with cgutils.for_range(builder, whole) as loop:
            take(c.load(c.at(base, builder.mul(loop.index, _i64(c.lanes)))))
        with cgutils.for_range(builder, builder.urem(count, _i64(c.lanes))) as loop:
            take(c.broadcast(c.at(base, loop.index, builder.mul(whole, _i64(c.lanes)))))
        target = _data(context, builder, out, arguments[3])
        for place, value, pick in ((0, builder.load(low), c.min), (1, builder.load(high), c.max)):
            found, half = value, c.lanes // 2
            while half:
                lanes = [*range(half, 2 * half), *range(half), *range(2 * half, c.lanes)]
                mask = ir.Constant(ir.VectorType(_I32, c.lanes), lanes)
                found, half = pick(found, builder.shuffle_vector(found, found, mask)), half // 2
            builder.store(builder.extract_element(found, ir.Constant(_I32, 0)), c.at(target, place))
        return context.get_dummy_value()

    return signature, generate


beats: Any = _test(box=False)
reaches: Any = _test(box=True)
lowest: Any = intrinsic(_lowest)
best_of_listed: Any = intrinsic(_best_of_listed)
extent: Any = intrinsic(_extent)
