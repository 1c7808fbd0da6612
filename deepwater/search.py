"""Finding records: by position, by time on any clock, as of a time. Functions of what is held.

A sorted column is searched with ``searchsorted`` and a ``uint64`` needle on the aligned strided
field, which copies nothing (a Python int, or a misaligned field, would copy the column). A column
with a stamp out of order is masked. Chunks that lie wholly inside the bounds are not opened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater.errors import ChunkGoneError
from deepwater.held import Held
from deepwater.window import Part

Column = npt.NDArray[np.uint64]


def first_at_least(column: Column, time: int) -> int:
    """Row of the first value >= `time` in an ascending column."""
    return _search(column, time, "left")


def first_above(column: Column, time: int) -> int:
    """Row of the first value > `time` in an ascending column."""
    return _search(column, time, "right")


def _search(column: Column, time: int, side: str) -> int:
    if column.flags.aligned:
        return int(column.searchsorted(np.uint64(time), side))  # type: ignore[call-overload]  # side is a str here
    low, high = 0, len(column)  # a misaligned field: numpy would copy the whole column
    while low < high:
        middle = (low + high) // 2
        value = int(column[middle])
        if value < time or (side == "right" and value == time):
            low = middle + 1
        else:
            high = middle
    return low


def rows_between(chain: Held, first: int, stop: int) -> list[Part]:
    """The parts of positions ``first <= position < stop``, clamped to what the feed holds."""
    first, stop = max(first, chain.first), min(stop, chain.end)
    parts = []
    while first < stop:
        index = chain.index_of(first)
        base = chain.base(index)
        end = min(stop, base + chain.count(index))
        parts.append(_part(chain, index, base, first - base, end - base))
        first = end
    return parts


def _part(chain: Held, index: int, base: int, start: int, stop: int) -> Part:
    return Part(base + start, stop - start, load=partial(_rows, chain.opener(index), start, stop))


def _rows(records: Callable[[], npt.NDArray[Any]], start: int, stop: int) -> npt.NDArray[Any]:
    return records()[start:stop]


def times_between(chain: Held, clock: int, low: int, high: int) -> list[Part]:
    """The parts with ``low <= clock <= high`` (both inclusive), in position order."""
    parts = []
    for index in chain.candidates(clock, low, high):
        bounds, base, count = chain.bounds(index, clock), chain.base(index), chain.count(index)
        if low <= bounds.low and bounds.high <= high:
            parts.append(_part(chain, index, base, 0, count))
            continue
        column = chain.column(index, clock)
        if not bounds.unsorted:
            start = 0 if bounds.low >= low else first_at_least(column, low)
            stop = count if bounds.high <= high else first_above(column, high)
            if start < stop:
                parts.append(Part(base + start, stop - start, chain.records(index)[start:stop]))
            continue
        rows = np.flatnonzero((column >= np.uint64(low)) & (column <= np.uint64(high)))
        if len(rows):
            parts.append(_picked(chain, index, base, rows))
    return parts


def _picked(chain: Held, index: int, base: int, rows: npt.NDArray[np.intp]) -> Part:
    """Rows of one chunk: a view when they are consecutive, else a copy of them."""
    first, last = int(rows[0]), int(rows[-1])
    records = chain.records(index)
    if last - first + 1 == len(rows):
        return Part(base + first, len(rows), records[first : last + 1])
    copy = np.ascontiguousarray(records).view(f"V{records.dtype.itemsize}")[rows].view(records.dtype)
    copy.flags.writeable = False
    return Part(base + first, len(rows), copy, is_view=False, positions=(base + rows).astype(np.uint64))


def position_at_least(chain: Held, clock: int, time: int) -> int:
    """The first position whose clock is >= `time`; the end if there is none."""
    for index in chain.candidates(clock, time, 2**64 - 1):
        column = chain.column(index, clock)
        if not chain.bounds(index, clock).unsorted:
            return chain.base(index) + first_at_least(column, time)
        late = column >= np.uint64(time)
        if late.any():
            return chain.base(index) + int(np.argmax(late))
    return chain.end


def positions_asof(chain: Held, clock: int, times: Column) -> npt.NDArray[np.int64]:
    """For each time the position of the record with the greatest clock <= it; of equal ones the last; else -1.

    Chunks are visited from the newest; a chunk whose greatest value is below what every time has
    found already is passed over, so a sorted feed touches only the chunks that hold an answer.
    """
    if len(times) and bool((times[1:] >= times[:-1]).all()) and chain.is_in_order(clock):
        return _asof_in_order(chain, clock, times)
    found = np.full(len(times), -1, np.int64)
    best = np.zeros(len(times), np.uint64)
    if not len(times):
        return found
    indexes = list(chain.candidates(clock, 0, int(times.max())))
    for index in reversed(indexes):
        bounds = chain.bounds(index, clock)
        open_ = (times >= np.uint64(bounds.low)) & ((found < 0) | (best < np.uint64(bounds.high)))
        if not open_.any():
            if not bounds.unsorted and not (found < 0).any() and _all_below(chain, clock, index, best):
                break
            continue
        column, order = chain.column(index, clock), None
        if bounds.unsorted:
            order = np.argsort(column, kind="stable")
            column = column[order]
        rows = column.searchsorted(times[open_], "right") - 1
        hit = rows >= 0
        where = np.flatnonzero(open_)[hit]
        rows = rows[hit]
        values = column[rows]
        better = (found[where] < 0) | (values > best[where])
        where, rows, values = where[better], rows[better], values[better]
        found[where] = chain.base(index) + (rows if order is None else order[rows])
        best[where] = values
    return found


def _asof_in_order(chain: Held, clock: int, times: Column) -> npt.NDArray[np.int64]:
    """The same where neither the clock nor the times ever step back: each chunk answers one run of times."""
    found = np.full(len(times), -1, np.int64)
    at = 0
    for index in chain.candidates(clock, 0, int(times[-1])):
        start = at + int(times[at:].searchsorted(np.uint64(chain.bounds(index, clock).low)))
        later = next((k for k in range(index + 1, len(chain)) if chain.count(k)), None)
        stop = len(times)
        if later is not None:
            stop = int(times.searchsorted(np.uint64(chain.bounds(later, clock).low)))
        if start < stop:
            rows = chain.column(index, clock).searchsorted(times[start:stop], "right")
            found[start:stop] = chain.base(index) + rows - 1
        at = max(at, stop)
    return found


def _all_below(chain: Held, clock: int, index: int, best: Column) -> bool:
    """Whether no chunk up to `index` can hold a value above the least of `best`."""
    return index < len(chain) and chain.reach(clock, index) <= int(best.min())


def gather(held: Held, positions: npt.NDArray[np.int64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Copy the records at `positions` (in any order, repeats allowed).

    Raises
    ------
    ChunkGoneError
        One of them is no longer held.
    """
    oldest = int(positions.min()) if len(positions) else held.first
    if oldest < held.first:
        raise ChunkGoneError(
            f"position {oldest} was found, and let go by retention before its record was read; the oldest record held "
            f"is {held.first}: ask again", chunk_id=None, first=held.first,
        )  # fmt: skip
    raw = f"V{dtype.itemsize}"
    out = np.empty(len(positions), raw)
    ascending = bool((positions[1:] >= positions[:-1]).all())
    order = None if ascending else np.argsort(positions, kind="stable")
    wanted = positions if order is None else positions[order]
    at = 0
    while at < len(wanted):
        index = held.index_of(int(wanted[at]))
        base, records = held.base(index), held.records(index)
        stop = int(wanted.searchsorted(base + len(records)))
        out[slice(at, stop) if order is None else order[at:stop]] = records.view(raw)[wanted[at:stop] - base]
        at = stop
    return out.view(dtype)
