"""The embedding table on a CPU: looked up, its gradient added up and its rows moved, each in one pass over memory.

torch's operations for it are limited by memory: each reads and writes as much as a look-up itself, and waits for every row of a
table that no cache holds. Here a row is asked for some time before it is needed, and nothing is written that is not kept.

Shapes: n look-ups, F fields, R rows of the table, D numbers a row.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from training.kernels.numbers import array, kernel, kernel_of_sums, read, write

_AHEAD = 16  # how many look-ups before it is needed a row is asked for
_EPSILON = np.float32(1e-10)
_HASH = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth, The Art of Computer Programming 3, section 6.4)
_FREE = np.int32(-1)


def rows_of_ids(ids: torch.Tensor, limits: torch.Tensor, starts: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return rows[starts[field] + id] of ids [..., F], int64; an id of 0 … limits[field] - 1 is known, any other is 0."""
    found = torch.empty(ids.shape, dtype=torch.int64)
    flat = (part.reshape(-1, ids.shape[-1]) for part in (ids, found))
    _find_rows(*map(array, (*flat, limits, starts, rows)))
    return found


def look_up(table: torch.Tensor, rows: torch.Tensor, beside: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Return the vectors at `rows` [..., F] of a table [R, D] side by side, and other columns [..., C]: [..., F x D + C].

    The table's gradient is sparse, and has each row once; `beside` gets none.

    Args:
        table: float32, on the CPU.
        rows: int64.
        beside: what stands behind the vectors; None for nothing.
        dtype: float32 or bfloat16, of what is returned.
    """
    if torch.is_grad_enabled() and table.requires_grad:
        found: torch.Tensor = _LookUp.apply(table, rows, beside, dtype)
        return found
    return _vectors(table, rows, beside, dtype)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, table: torch.Tensor, rows: torch.Tensor, beside: torch.Tensor | None, dtype: torch.dtype
    ) -> torch.Tensor:
        """Return the vectors [..., F x D + C] that `look_up` tells of, and keep the rows for the gradient."""
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return _vectors(table, rows, beside, dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # type: ignore[override]
        """Return the table's gradient, sparse [R, D] with each distinct row once; `rows` and `beside` have none."""
        (rows,) = ctx.saved_tensors
        distinct, sums = sum_rows(rows, gradient, ctx.shape[1])
        return torch.sparse_coo_tensor(distinct[None], sums, ctx.shape, check_invariants=False), None, None, None


def _vectors(table: torch.Tensor, rows: torch.Tensor, beside: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    read = rows.shape[-1] * table.shape[1]
    vectors = torch.empty(*rows.shape[:-1], read + (0 if beside is None else beside.shape[-1]), dtype=dtype)
    _copy(array(table), array(_matrix(rows)), array(_matrix(vectors)))
    if beside is not None:
        vectors[..., read:] = beside
    return vectors


def _matrix(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1, tensor.shape[-1])


def sum_rows(rows: torch.Tensor, values: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distinct rows, in the order in which they come first [n], and the sums of their values [n, D], float32.

    Args:
        rows: int64 [..., F].
        values: float32 or bfloat16, those of F rows side by side; what stands behind them has no part in the sums.
        width: D.
    """
    buckets = np.full(1 << max(1, 2 * rows.numel() - 1).bit_length(), _FREE)
    number, distinct = np.empty(rows.numel(), np.int32), torch.empty(rows.numel(), dtype=torch.int64)
    count = _give_numbers(array(rows.reshape(-1)), buckets, number, array(distinct))
    if count == rows.numel() and values.dtype == torch.float32 and values.shape[-1] == width:
        return rows.reshape(-1), values.reshape(-1, width)
    sums = torch.empty(count, width)
    _add(array(_matrix(values)), number.reshape(-1, rows.shape[-1]), array(sums))
    return distinct[:count], sums


def move_rows(
    table: torch.Tensor, sums: torch.Tensor, rows: torch.Tensor, gradient: torch.Tensor, rate: float, l2: float
) -> None:
    """Move distinct rows of a table [R, D] by row-wise Adagrad, in place, with their sums of squares [R]."""
    _adagrad(*map(array, (table, sums, rows, gradient)), np.float32(rate), np.float32(l2))


def catch_up(mean: torch.Tensor, table: torch.Tensor, since: torch.Tensor, rows: torch.Tensor, log_kept: float) -> None:
    """Let rows of a table's average [R, D] go on towards the table's, in place: e^(log_kept - since) of the way back is left.

    `since` [R] is `log_kept` for them afterwards, so that a row that comes again stays.
    """
    _catch_up(*map(array, (mean, table, since, rows)), log_kept)


def take_in(
    mean: torch.Tensor, table: torch.Tensor, since: torch.Tensor, rows: torch.Tensor, share: float, log_kept: float
) -> None:
    """Let rows of a table's average [R, D] go a share of the way to the table's, in place, each once; `since` as above."""
    _take_in(*map(array, (mean, table, since, rows)), np.float32(share), log_kept)


@intrinsic
def _prefetch(context, array, row):
    def generate(context, builder, signature, given):
        """Emit LLVM's prefetch of the place where array[row] begins; it gives no value."""
        made = context.make_array(signature.args[0])(context, builder, given[0])
        offset = builder.mul(given[1], builder.extract_value(made.strides, 0))
        place = builder.gep(builder.bitcast(made.data, ir.IntType(8).as_pointer()), [offset])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, number(0), number(3), number(1)])  # to be read, and again; it is data
        return context.get_dummy_value()

    return types.void(array, row), generate


_ask_for: Any = _prefetch  # which brings array[row] into the cache, and does not wait for it


@kernel
def _find_rows(ids, found, limits, starts, rows):
    for place in range(ids.shape[0]):
        for field in range(ids.shape[1]):
            known = np.uint64(ids[place, field])
            if known >= np.uint64(limits[field]):
                known = np.uint64(0)
            found[place, field] = rows[np.uint64(starts[field]) + known]


@kernel
def _copy(table, rows, out):
    width, fields = table.shape[1], rows.shape[1]
    for place in range(len(rows)):
        for field in range(fields):
            if place + 1 < len(rows):
                _ask_for(table, np.uint64(rows[place + 1, field]))
            row, first = np.uint64(rows[place, field]), field * width
            for j in range(width):
                out[place, first + j] = write(out, table[row, j])


@kernel
def _give_numbers(rows, buckets, number, distinct):
    """Give distinct rows the numbers 0, 1, … in the order in which they come, by hashing with open places; return how many."""
    mask, shift = np.uint64(len(buckets) - 1), np.uint64(64)
    size, count = len(buckets), 0
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    for place in range(len(rows)):
        row = rows[place]
        bucket = (np.uint64(row) * _HASH) >> shift
        while buckets[bucket] >= 0 and distinct[buckets[bucket]] != row:
            bucket = (bucket + np.uint64(1)) & mask
        if buckets[bucket] < 0:
            buckets[bucket] = count
            distinct[count] = row
            count += 1
        number[place] = buckets[bucket]
    return count


@kernel
def _add(values, numbers, sums):
    width, seen = sums.shape[1], 0
    for place in range(len(numbers)):
        for field in range(numbers.shape[1]):
            number, first = np.uint64(numbers[place, field]), field * width
            if number == seen:  # a new row, for they come in order
                seen += 1
                for j in range(width):
                    sums[number, j] = read(values[place, first + j])
            else:
                for j in range(width):
                    sums[number, j] += read(values[place, first + j])


@kernel_of_sums
def _adagrad(table, sums, rows, gradient, rate, l2):
    n, width = gradient.shape
    for place in range(n):
        if place + _AHEAD < n:
            later = np.uint64(rows[place + _AHEAD])
            _ask_for(table, later)
            _ask_for(sums, later)
        row = np.uint64(rows[place])
        square = np.float32(0)
        for j in range(width):
            pull = gradient[place, j] + l2 * table[row, j]
            square += pull * pull
        sums[row] += square / np.float32(width)
        stride = rate / (np.sqrt(sums[row]) + _EPSILON)
        for j in range(width):
            table[row, j] -= stride * (gradient[place, j] + l2 * table[row, j])


@kernel_of_sums
def _catch_up(mean, table, since, rows, log_kept):
    for place in range(len(rows)):
        if place + _AHEAD < len(rows):
            later = np.uint64(rows[place + _AHEAD])
            _ask_for(mean, later)
            _ask_for(table, later)
            _ask_for(since, later)
        row = np.uint64(rows[place])
        if since[row] != log_kept:
            left = np.float32(np.exp(log_kept - since[row]))
            for j in range(mean.shape[1]):
                mean[row, j] = table[row, j] + left * (mean[row, j] - table[row, j])
            since[row] = log_kept


@kernel_of_sums
def _take_in(mean, table, since, rows, share, log_kept):
    for place in range(len(rows)):
        if place + _AHEAD < len(rows):
            later = np.uint64(rows[place + _AHEAD])
            _ask_for(mean, later)
            _ask_for(table, later)
            _ask_for(since, later)
        row = np.uint64(rows[place])
        if since[row] != log_kept:
            for j in range(mean.shape[1]):
                mean[row, j] += share * (table[row, j] - mean[row, j])
            since[row] = log_kept
