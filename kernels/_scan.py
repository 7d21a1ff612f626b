"""Compiled loops that go through the screens' products, measure what passes and keep the nearest.

Shape suffixes: N queries, R rows in a block, M bank rows, G groups of LANES rows, W numbers of a
code, D coordinates, K neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels._numba import intrinsic, njit, prange

MARKS = 8  # marks, of one byte each, that are looked at together
QUAD = 4  # queries whose int16 codes are multiplied together
LANES = 16  # bank rows whose int16 codes are multiplied together
PANEL = 8  # groups that all of a thread's queries meet in turn; they stay in the cache
FAR = np.float32(1e38)  # stands for infinity, which fast arithmetic may not see


@njit(parallel=True, fastmath=True)
def scan(
    products_NR: Any, first: Any, queries: Any, bank_MD: Any, best_NK: Any, index_NK: Any,
    limits: Any,
) -> None:  # fmt: skip
    """Measure the pairs whose product reaches its query's threshold; keep the nearest, in order.

    ``products_NR`` are of a block of the bank that begins at row ``first``, ``queries`` (points
    (N, D), squared norms (N,)), ``limits`` (slack, fine, threads). The squared distances
    ``best_NK`` and the bank rows ``index_NK`` are changed in place.
    """
    points_ND, squares_N = queries
    last = best_NK.shape[1] - 1
    # Many small parts in turn: images differ in how much has to be measured.
    parts = min(len(products_NR), 16 * limits[2])
    for part in prange(parts):
        marks_R = np.zeros(products_NR.shape[1], dtype=np.int8)
        for x in range(len(products_NR) * part // parts, len(products_NR) * (part + 1) // parts):
            bound = _threshold(squares_N[x], best_NK[x, last], limits)
            for j in range(len(marks_R)):  # without a branch it compiles to vectors
                marks_R[j] = np.int8(products_NR[x, j] >= bound)
            for group in np.flatnonzero(marks_R.view(np.int64)):
                for j in range(MARKS * group, MARKS * group + MARKS):
                    if marks_R[j] != 0 and products_NR[x, j] >= bound:
                        distance = squared(points_ND, x, bank_MD, first + j)
                        if distance < best_NK[x, last]:
                            _insert(best_NK, index_NK, x, distance, first + j)
                            bound = _threshold(squares_N[x], best_NK[x, last], limits)


@njit(fastmath=True)
def _threshold(square: Any, worst: Any, limits: Any) -> Any:
    """The least product whose pair is measured."""
    slack, fine = limits[0], limits[1]
    return np.float32(0.5) * (square * (1 - slack) - worst * (1 + fine))


@njit(parallel=True, fastmath=True)
def scan_int16(
    coded: Any, bank: Any, queries: Any, bank_MD: Any, best_NK: Any, index_NK: Any, limits: Any
) -> None:
    """Multiply int16 codes and measure, keep and change in place as ``scan`` does.

    ``coded`` are the queries' (codes (N, W), scales (N,)), filled up to whole quads, ``bank`` the
    rows' (codes (G, W / 2, LANES, 2), scales (G, LANES), minus halved squares (G, LANES)). Products
    are compared where they were made, in registers.
    """
    points_ND, squares_N = queries
    groups, quads = len(bank[0]), len(coded[0]) // QUAD
    panels = (groups + PANEL - 1) // PANEL
    stride = _golden(panels)
    bounds_N = np.full(len(coded[0]), FAR, dtype=np.float32)
    for x in range(len(squares_N)):
        bounds_N[x] = _threshold(squares_N[x], best_NK[x, -1], limits)
    threads = limits[2]
    for thread in prange(threads):
        for turn in range(panels):
            # In strides through the bank: neighbours often lie together, and rows from all over
            # it tell sooner how far the nearest are.
            first = turn * stride % panels * PANEL
            for quad in range(thread, quads, threads):  # images differ in their work
                for group in range(first, min(first + PANEL, groups)):
                    hits = _reaching(coded, bounds_N, QUAD * quad, bank, group)
                    while hits != 0:
                        place = _lowest(hits)
                        hits &= hits - 1
                        x, row = QUAD * quad + place // LANES, LANES * group + place % LANES
                        distance = squared(points_ND, x, bank_MD, row)
                        worst = best_NK[x, -1]
                        if distance < worst or (distance == worst and row < index_NK[x, -1]):
                            _insert(best_NK, index_NK, x, distance, row)
                            bounds_N[x] = _threshold(squares_N[x], best_NK[x, -1], limits)


@njit(fastmath=True)
def _insert(best_NK: Any, index_NK: Any, x: Any, distance: Any, row: Any) -> None:
    """Put a bank row among the nearest of query x; of equal distances the lower row is first."""
    slot = best_NK.shape[1] - 1
    while slot > 0 and (
        best_NK[x, slot - 1] > distance
        or (best_NK[x, slot - 1] == distance and index_NK[x, slot - 1] > row)
    ):
        best_NK[x, slot] = best_NK[x, slot - 1]
        index_NK[x, slot] = index_NK[x, slot - 1]
        slot -= 1
    best_NK[x, slot] = distance
    index_NK[x, slot] = row


@njit(fastmath=True)
def squared(a_ND: Any, x: Any, b_MD: Any, y: Any) -> Any:
    """||a[x] - b[y]||² in float32, by differences."""
    # No early stop: one plain loop is compiled to full vectors, a loop cut in pieces is not.
    total = np.float32(0)
    for d in range(a_ND.shape[1]):
        step = a_ND[x, d] - b_MD[y, d]
        total += step * step
    return total


@njit()
def _golden(count: Any) -> Any:
    """A step near the golden section of ``count`` that shares no divisor with it."""
    step = max(1, int(count * 0.618))
    while np.gcd(step, count) != 1:
        step += 1
    return step


@intrinsic
def _lowest(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set."""
    from llvmlite import ir

    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return bits(bits), build


@intrinsic
def _reaching(typing: Any, coded: Any, bounds_N: Any, x: Any, bank: Any, group: Any) -> Any:
    """Bits LANES * query + row of QUAD queries' pairs with LANES rows that are to be measured.

    A pair is where product * row's scale * query's scale - half the row's square >= the query's
    bound. AVX2's vpmaddwd multiplies 16 pairs of int16 and adds neighbours; nothing that can be
    written as a loop here is compiled to it, so this builds LLVM's own code.
    """
    from llvmlite import ir
    from numba.core import cgutils, types

    i32, i64, f32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
    ints, floats = ir.VectorType(i32, LANES), ir.VectorType(f32, LANES)
    half, shorts = ir.VectorType(i32, LANES // 2), ir.VectorType(ir.IntType(16), LANES)

    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        def load(kind: Any, data: Any, index: Any) -> Any:
            return b.load(b.gep(b.bitcast(data, kind.as_pointer()), [index]), align=4)

        def splat(kind: Any, value: Any) -> Any:
            one = b.insert_element(ir.Constant(kind, ir.Undefined), value, i32(0))
            return b.shuffle_vector(one, one, ir.Constant(ir.VectorType(i32, kind.count), None))

        (codes, scales), (rows, lengths, halves) = (
            [
                context.make_array(kind)(context, b, b.extract_value(arguments[argument], i))
                for i, kind in enumerate(signature.args[argument])
            ]
            for argument in (0, 3)
        )
        bounds = context.make_array(bounds_N)(context, b, arguments[1])
        steps = cgutils.unpack_tuple(b, rows.shape)[1]
        queries = [b.add(arguments[2], i64(q)) for q in range(QUAD)]
        madd = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(half, [shorts, shorts]), "llvm.x86.avx2.pmadd.wd"
        )
        # LLVM keeps them in registers.
        nothing = ir.Constant(half, None)
        sums = [[cgutils.alloca_once_value(b, nothing) for _ in range(2)] for _ in queries]
        with cgutils.for_range(b, steps) as loop:
            place = b.mul(b.add(b.mul(arguments[4], steps), loop.index), i64(2))
            pair = [load(shorts, rows.data, b.add(place, i64(p))) for p in range(2)]
            for query, totals in zip(queries, sums, strict=True):
                code = load(i32, codes.data, b.add(b.mul(query, steps), loop.index))
                code = b.bitcast(splat(half, code), shorts)
                for total, row in zip(totals, pair, strict=True):
                    b.store(b.add(b.load(total), b.call(madd, [code, row])), total)
        hits = i64(0)
        length, square = (load(floats, part.data, arguments[4]) for part in (lengths, halves))
        for q, (query, totals) in enumerate(zip(queries, sums, strict=True)):
            ends = (b.load(total) for total in totals)
            product = b.shuffle_vector(*ends, ir.Constant(ints, list(range(LANES))))
            value = b.fmul(b.sitofp(product, floats), length)
            value = b.fmul(value, splat(floats, load(f32, scales.data, query)))
            bound = splat(floats, load(f32, bounds.data, query))
            reach = b.fcmp_ordered(">=", b.fadd(value, square), bound)
            bits = b.zext(b.bitcast(reach, ir.IntType(LANES)), i64)
            hits = b.or_(hits, b.shl(bits, i64(LANES * q)))
        return hits

    return types.int64(coded, bounds_N, x, bank, group), build
