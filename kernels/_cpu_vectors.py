"""Vector code of backend ``numba``: kernels of (sample, target) tiles that keep scores in registers.

A *tile* holds ``width`` points side by side in vector registers, coordinate by coordinate: (d, width) in memory. A
*panel* holds PANEL points whose coordinates are broadcast: rows of PANEL numbers, row 0 a head (a height, or the
potential at a sample), rows 1 to d the coordinates, and row d + 1 a weight where one is needed. The kernel of a tile
and a panel keeps ROWS x TOGETHER vectors of scores in registers over the loop on coordinates (the register blocking of
Goto, van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 2008) and reduces them before they leave:
``max`` for the best score, ``exp`` and sums for the smoothed quantities. Vectors are written as LLVM vector types, so
nothing is left to a vectoriser.

Every score is the same chain ``h_j + x_i1 y_j1 + ... + x_id y_jd`` of multiply-adds wherever it is computed, whichever
of samples and targets lie in the tile; so the maximum is found again bit by bit in the second pass, and ties are exact.

Numba's cache of ``_cpu_loops`` looks at the date of that file only: after a change here, touch it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

PANEL = 16
"""Points per panel."""
TOGETHER = 4
"""Points of a panel whose scores are in registers at the same time, and with them ..."""


def _features() -> str:
    """The instruction sets that Numba compiles for: those of this machine unless its configuration says otherwise."""
    settings: Any = config
    if settings.CPU_FEATURES is not None:
        return settings.CPU_FEATURES
    host = settings.CPU_NAME in (None, "", "host")
    return binding.get_host_cpu_features().flatten() if host else ""


VECTOR_BYTES = 64 if "+avx512f" in _features() else 32 if "+avx2" in _features() else 16
ROWS = 2 if VECTOR_BYTES == 32 else 4
"""... vectors of a tile: 16 vectors of scores of the 32 registers of AVX-512 and NEON, 8 of the 16 of AVX2."""
LOG2_E = 1.4426950408889634


def tile_width(itemsize: int) -> int:
    """Points per tile for numbers of ``itemsize`` bytes."""
    return ROWS * VECTOR_BYTES // itemsize


def _i64(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)


class _Code:
    """Vector instructions for the element type of an array.

    Args:
        builder: where instructions are appended.
        array: Numba type of an array of float32 or float64.
    """

    def __init__(self, builder: Any, array: types.Array) -> None:
        single = array.dtype == types.float32
        self.builder = builder
        self.size = 4 if single else 8
        self.lanes = VECTOR_BYTES // self.size
        self.type = ir.VectorType(ir.FloatType() if single else ir.DoubleType(), self.lanes)
        self.bits = ir.VectorType(ir.IntType(8 * self.size), self.lanes)
        self.degree, self.mantissa, self.least = (6, 23, -80.0) if single else (11, 52, -600.0)

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.type, [value] * self.lanes)

    def at(self, base: Any, *offsets: Any) -> Any:
        """Pointer to element ``sum(offsets)``; offsets are ints or 64-bit values."""
        total = _i64(sum(o for o in offsets if isinstance(o, int)))
        for offset in offsets:
            if not isinstance(offset, int):
                total = self.builder.add(offset, total)
        return self.builder.gep(base, [total])

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.type.as_pointer()), align=self.size)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, self.type.as_pointer()), align=self.size)

    def broadcast(self, pointer: Any) -> Any:
        return self.splat(self.builder.load(pointer))

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def _call(self, name: str, *arguments: Any) -> Any:
        kind = ir.FunctionType(self.type, [self.type] * len(arguments))
        name = f"llvm.{name}.v{self.lanes}f{8 * self.size}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return self._call("fmuladd", a, b, c)

    def abs(self, a: Any) -> Any:
        return self._call("fabs", a)

    def max(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def min(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def max_of(self, values: list[Any]) -> Any:
        while len(values) > 1:
            values = [self.max(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    def any(self, flags: Any) -> Any:
        mask = self.builder.bitcast(flags, ir.IntType(self.lanes))
        return self.builder.icmp_unsigned("!=", mask, ir.Constant(ir.IntType(self.lanes), 0))

    def any_above(self, value: Any, level: Any) -> Any:
        return self.any(self.builder.fcmp_ordered(">", value, level))

    def exp2(self, t: Any) -> Any:
        """``2^t`` for ``LOG2_E least <= t <= 0``: 2^round(t) by its exponent bits, the rest by a polynomial."""
        whole = self._call("rint", t)
        rest = self.builder.fsub(t, whole)
        nodes = np.polynomial.Chebyshev.interpolate(np.exp2, self.degree, domain=[-0.5, 0.5])
        value = None
        for c in nodes.convert(kind=np.polynomial.Polynomial, domain=[-1, 1]).coef[::-1]:
            value = self.constant(c) if value is None else self.multiply_add(value, rest, self.constant(c))
        exponent = self.builder.shl(
            self.builder.fptosi(whole, self.bits), ir.Constant(self.bits, [self.mantissa] * self.lanes)
        )
        return self.builder.bitcast(self.builder.add(self.builder.bitcast(value, self.bits), exponent), self.type)

    def variables(self, values: list[Any]) -> list[Any]:
        """Variables with these initial values (registers, once optimised)."""
        slots = [cgutils.alloca_once(self.builder, value.type) for value in values]
        for value, slot in zip(values, slots, strict=True):
            self.builder.store(value, slot)
        return slots


def _tile_kernel(swapped: bool, soft: bool, mean: bool = False) -> Callable[..., Any]:
    """The kernel of one tile and several panels.

    ====================  =======================  ==========================================
    .                     not ``swapped``          ``swapped``
    tile, panels          samples, targets         targets, samples
    score s starts from   heights, panel head      heights, ``lane``
    best b is             ``lane``                 panel head
    not ``soft``: out =   max over panels of s     max over panels of s - b
    ``soft``: out +=      sum of exp((s - b)/eps)  sum of weight times exp((s - b)/eps)
    ====================  =======================  ==========================================

    With ``mean``, rows 1 to d of ``out`` receive the sums of ``exp((s - b)/eps)`` times the coordinates.
    Exponentials of less than exp(-80) (exp(-600) in float64) count as nothing, or as that.

    Args:
        swapped: whether targets lie in the tile.
        soft: exponentials and sums instead of a maximum.
        mean: sum coordinates too.

    Returns:
        A function ``(xt, x_at, lane, lane_at, yp, y_at, panels, d, scale, out, out_at)`` for compiled code; ``*_at``
        are positions of the first element, ``scale`` is ``log2(e)/eps``.
    """

    def kernel(
        typing: Any, xt: Any, x_at: Any, lane: Any, lane_at: Any, yp: Any, y_at: Any, panels: Any, d: Any, scale: Any,
        out: Any, out_at: Any,
    ) -> Any:  # fmt: skip
        i64 = types.int64
        signature = types.void(xt, i64, lane, i64, yp, i64, i64, i64, xt.dtype, out, i64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def data(kind: Any, array: Any, start: Any) -> Any:
                return builder.gep(context.make_array(kind)(context, builder, array).data, [start])

            c = _Code(builder, xt)
            x, lanes = data(xt, *arguments[0:2]), data(lane, *arguments[2:4])
            y, target = data(yp, *arguments[4:6]), data(out, *arguments[9:11])
            n_panels, dim = arguments[6:8]
            width, rows, points = ROWS * c.lanes, range(ROWS), range(TOGETHER)
            weighted = swapped and soft
            stride = builder.mul(builder.add(dim, _i64(2 if weighted else 1)), _i64(PANEL))
            own = [c.load(c.at(lanes, r * c.lanes)) for r in rows] if swapped or soft else []
            result = c.variables([c.constant(0.0 if soft else -np.inf)] * ROWS)
            factor = c.splat(arguments[8])
            cells = [(r, t) for r in rows for t in points]

            def scores(panel: Any) -> tuple[list[Any], list[Any]]:
                heads = [c.broadcast(c.at(panel, t)) for t in points]
                slots = c.variables([own[r] if swapped else heads[t] for r, t in cells])
                with cgutils.for_range(builder, dim) as loop:
                    row = builder.mul(builder.add(loop.index, _i64(1)), _i64(PANEL))
                    xs = [c.load(c.at(x, builder.mul(loop.index, _i64(width)), r * c.lanes)) for r in rows]
                    ys = [c.broadcast(c.at(panel, row, t)) for t in points]
                    for (r, t), slot in zip(cells, slots, strict=True):
                        builder.store(c.multiply_add(xs[r], ys[t], builder.load(slot)), slot)
                found = [builder.load(slot) for slot in slots]
                return found, heads

            def add_exponentials(panel: Any, exponents: list[Any]) -> None:
                least = c.constant(c.least * LOG2_E)
                e = dict(zip(cells, (c.exp2(c.max(t, least)) for t in exponents), strict=True))
                last = builder.mul(builder.add(dim, _i64(1)), _i64(PANEL))
                for t in points:
                    weight = c.broadcast(c.at(panel, last, t)) if weighted else c.constant(1.0)
                    for r in rows:
                        builder.store(c.multiply_add(e[r, t], weight, builder.load(result[r])), result[r])
                if mean:
                    with cgutils.for_range(builder, dim) as loop:
                        following = builder.add(loop.index, _i64(1))
                        row, out_row = builder.mul(following, _i64(PANEL)), builder.mul(following, _i64(width))
                        ys = [c.broadcast(c.at(panel, row, t)) for t in points]
                        for r in rows:
                            place = c.at(target, out_row, r * c.lanes)
                            total = c.load(place)
                            for t in points:
                                total = c.multiply_add(e[r, t], ys[t], total)
                            c.store(total, place)

            with cgutils.for_range(builder, n_panels) as outer:
                first = c.at(y, builder.mul(outer.index, stride))
                with cgutils.for_range(builder, _i64(PANEL // TOGETHER)) as inner:
                    panel = c.at(first, builder.mul(inner.index, _i64(TOGETHER)))
                    found, heads = scores(panel)
                    if swapped or soft:
                        found = [
                            builder.fsub(s, heads[t] if swapped else own[r])
                            for (r, t), s in zip(cells, found, strict=True)
                        ]
                    if soft:
                        found = [builder.fmul(s, factor) for s in found]
                        with builder.if_then(c.any_above(c.max_of(found), c.constant(c.least * LOG2_E))):
                            add_exponentials(panel, found)
                    else:
                        for r in rows:
                            best = c.max_of(found[r * TOGETHER : (r + 1) * TOGETHER])
                            builder.store(c.max(best, builder.load(result[r])), result[r])
            for r in rows:
                place = c.at(target, r * c.lanes)
                value = builder.load(result[r])
                c.store(builder.fadd(value, c.load(place)) if soft else value, place)
            return context.get_dummy_value()

        return signature, generate

    return intrinsic(kernel)


best_of_panels = _tile_kernel(swapped=False, soft=False)
least_gap = _tile_kernel(swapped=True, soft=False)
sum_exponentials = _tile_kernel(swapped=False, soft=True)
sum_moments = _tile_kernel(swapped=False, soft=True, mean=True)
sum_columns = _tile_kernel(swapped=True, soft=True)


def _panel_scores(typing: Any, xt: Any, x_at: Any, step: Any, yp: Any, y_at: Any, d: Any, out: Any) -> Any:
    """``out[:PANEL] =`` scores of the targets of one panel at the sample ``xt[x_at + step k]``, k = 0 .. d - 1."""
    signature = types.void(xt, types.int64, types.int64, yp, types.int64, types.int64, out)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(kind: Any, array: Any) -> Any:
            return context.make_array(kind)(context, builder, array).data

        c = _Code(builder, xt)
        x, y = c.at(data(xt, arguments[0]), arguments[1]), c.at(data(yp, arguments[3]), arguments[4])
        starts = range(0, PANEL, c.lanes)
        slots = c.variables([c.load(c.at(y, start)) for start in starts])
        with cgutils.for_range(builder, arguments[5]) as loop:
            coordinate = c.broadcast(c.at(x, builder.mul(loop.index, arguments[2])))
            row = builder.mul(builder.add(loop.index, _i64(1)), _i64(PANEL))
            for slot, start in zip(slots, starts, strict=True):
                builder.store(c.multiply_add(coordinate, c.load(c.at(y, row, start)), builder.load(slot)), slot)
        for slot, start in zip(slots, starts, strict=True):
            c.store(builder.load(slot), c.at(data(out, arguments[6]), start))
        return context.get_dummy_value()

    return signature, generate


panel_scores: Any = intrinsic(_panel_scores)
