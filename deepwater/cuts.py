"""Where a feed is cut by its gaps, and what lies between. Functions of what is held, for `deepwater.gaps`.

Everything is worked out on arrays: an entry a gap, never a step a record. Times of whole chunks come from what is
known of them; only chunks that a gap cuts, and for pauses those long enough in time to hold one, are opened and looked
at in blocks, so memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater import marks, search
from deepwater.held import Held
from deepwater.index import MARK_DTYPE, UNKNOWN
from deepwater.timestamps import MAX_US, Bounds

REMOVED, SILENCE = b"removed", b"silence"
"""Kinds of gap that no mark has: the beginning that is not held any more, a pause of the clock."""
SPAN_DTYPE = np.dtype([(name, np.uint64) for name in
                       ("first", "stop", "records", "from_us", "to_us", "whole_from_us", "whole_to_us")])  # fmt: skip
"""Of a span: positions ``first <= p < stop``, and times, µs, inclusive, 0 where none is known."""
BLOCK_ROWS = 1 << 18

Array = npt.NDArray[Any]
Stamps = npt.NDArray[np.uint64]
_FAR = np.uint64(MAX_US)


def answer(held: Held, stop: int, clock: int, bounds: Bounds, noted: Array, pause: int | None) -> tuple[Array, Array]:
    """The spans and the gaps of what is held below position `stop`, within bounds of a clock.

    Parameters
    ----------
    held : Held
    stop : int
        Where the look at the marks ended.
    clock : int
        Its number; 0 is the primary one, of which the marks' times are.
    bounds : Bounds
    noted : numpy.ndarray of `MARK_DTYPE`
        The gap and dropped marks of the feed.
    pause : int, optional
        Microseconds without a record that are a gap.

    Returns
    -------
    spans, gaps : numpy.ndarray
        Of `SPAN_DTYPE` and `MARK_DTYPE`, both by position.
    """
    first, last = _positions(held, stop, clock, bounds)
    gaps = [_noted(noted, first, last, clock, bounds)]
    if held.first > 0 and first == held.first:
        gaps.append(_gap_rows([held.first], count=held.first, kind=REMOVED, reason=b"not held any more"))
    if pause is not None:
        before, after = max(held.first, first - 1), min(stop, last + 1)  # a pause across a bound is one inside
        gaps.append(_pauses(held, clock, before, after, pause))
    rows = np.concatenate(gaps)
    rows = rows[np.argsort(rows["position"], kind="stable")]
    return _spans(held, clock, (first, last), (first > held.first, last < stop), bounds, rows), rows


def _positions(held: Held, stop: int, clock: int, bounds: Bounds) -> tuple[int, int]:
    """From the first to one past the last record within the bounds; where they would be, if there is none."""
    if bounds.lo <= 0 and bounds.hi >= MAX_US:
        return held.first, max(held.first, stop)
    pieces = list(held.candidates(clock, bounds.lo, bounds.hi))
    first = next((row for index in pieces if (row := _row_within(held, index, clock, bounds, 0)) is not None), None)
    if first is None or first >= stop:
        at = min(stop, search.position_at_least(held, clock, bounds.lo))
        return at, at
    last = next(row for index in reversed(pieces) if (row := _row_within(held, index, clock, bounds, -1)) is not None)
    return first, min(stop, last + 1)


def _row_within(held: Held, index: int, clock: int, bounds: Bounds, which: int) -> int | None:
    """The position of the first (0) or the last (-1) record of a piece within the bounds."""
    column = held.column(index, clock)
    if held.bounds(index, clock).unsorted:
        rows = np.flatnonzero((column >= np.uint64(bounds.lo)) & (column <= np.uint64(bounds.hi)))
        return held.base(index) + int(rows[which]) if len(rows) else None
    first, stop = search.first_at_least(column, bounds.lo), search.first_above(column, bounds.hi)
    return held.base(index) + (first if which == 0 else stop - 1) if first < stop else None


def _noted(noted: Array, first: int, last: int, clock: int, bounds: Bounds) -> Array:
    """The marks from position `first` to `last`, both inclusive; at these two, if they may lie within the bounds."""
    position = noted["position"]
    inside = (position >= np.uint64(first)) & (position <= np.uint64(last))
    if clock == 0:
        ended, begins = noted["to_us"], noted["from_us"]
        inside &= ~((position == np.uint64(first)) & (ended > 0) & (ended < np.uint64(bounds.lo)))
        inside &= ~((position == np.uint64(last)) & (begins > np.uint64(bounds.hi)))
    found: Array = noted[inside]
    return found


def _gap_rows(positions: Any, **values: Any) -> Array:
    rows = np.zeros(len(positions), MARK_DTYPE)
    rows["position"], rows["count"] = positions, UNKNOWN
    for name, value in values.items():
        rows[name] = value
    return rows


# --- pauses ------------------------------------------------------------------------------------------


def _blocks(held: Held, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield ``(piece, first row, stop row)`` of positions ``first <= p < stop``."""
    while first < stop:
        index = held.index_of(first)
        base = held.base(index)
        end = min(stop, base + held.count(index))
        yield index, first - base, end - base
        first = end


def _exact(held: Held, index: int, clock: int, rows: tuple[int, int]) -> tuple[int, int] | None:
    """Bounds of a whole piece that are known to be exact, without opening it; None if they are not."""
    if rows != (0, held.count(index)):
        return None
    bounds = held.bounds(index, clock)
    # Of an unsorted clock the newest piece knows only a superset, and a ring nothing, which is everything.
    is_exact = not bounds.unsorted or index < len(held) - 1
    return (bounds.low, bounds.high) if is_exact and bounds.low > 0 and bounds.high < MAX_US else None


def _pauses(held: Held, clock: int, first: int, stop: int, pause: int) -> Array:
    """Where the running maximum of a clock, from `first` on, jumps by more than `pause`, as gaps."""
    found = [marks.none()]
    newest = np.uint64(0)
    for index, start, end in _blocks(held, first, stop):
        exact = _exact(held, index, clock, (start, end))
        if exact is not None and newest and exact[1] <= int(newest) + pause:
            newest = np.uint64(max(int(newest), exact[1]))
            continue
        column = held.column(index, clock)
        for at in range(start, end, BLOCK_ROWS):
            values = np.ascontiguousarray(column[at : min(end, at + BLOCK_ROWS)])
            reached = np.maximum.accumulate(np.concatenate(([newest], np.where(values == _FAR, np.uint64(0), values))))
            jumps = np.flatnonzero((reached[1:] - reached[:-1] > np.uint64(min(pause, MAX_US))) & (reached[:-1] > 0))
            newest = reached[-1]
            found.append(_gap_rows(held.base(index) + at + jumps, kind=SILENCE, from_us=reached[jumps],
                                   to_us=reached[jumps + 1], timestamp_us=reached[jumps + 1]))  # fmt: skip
    return np.concatenate(found)


# --- spans -------------------------------------------------------------------------------------------


def _spans(held: Held, clock: int, positions: tuple[int, int], goes_on: tuple[bool, bool], bounds: Bounds,
           gaps: Array) -> Array:  # fmt: skip
    """Cut positions ``first <= p < last`` at the gaps.

    `goes_on` says whether the feed has records before the first and after the last of them: up to there, where no gap
    is, nothing was missed up to the bounds.
    """
    first, last = positions
    cuts, ended, begins = _edges(gaps, primary=clock == 0)
    # One more at each end, without records if there is a cut.
    starts = np.concatenate((np.array([first], np.uint64), cuts))
    stops = np.concatenate((cuts, np.array([last], np.uint64)))
    spans = np.zeros(len(starts), SPAN_DTYPE)
    spans["first"], spans["stop"], spans["records"] = starts, stops, stops - starts
    low, high = _extents(held, clock, starts, stops)
    timed = low <= high
    spans["from_us"], spans["to_us"] = np.where(timed, low, 0), np.where(timed, high, 0)
    # As far as the gap's mark says, but into no records of another span.
    after = np.concatenate((np.array([0], np.uint64), np.maximum.accumulate(high)[:-1] + np.uint64(1)))
    below = np.concatenate((np.minimum.accumulate(low[::-1])[::-1][1:] - np.uint64(1), np.array([_FAR])))
    ended = np.concatenate((np.array([bounds.lo if goes_on[0] else MAX_US], np.uint64), ended))
    begins = np.concatenate((begins, np.array([bounds.hi if goes_on[1] else 0], np.uint64)))
    since, until = np.minimum(low, np.maximum(ended, after)), np.maximum(high, np.minimum(begins, below))
    since, until = np.maximum(since, np.uint64(bounds.lo)), np.minimum(until, np.uint64(bounds.hi))
    known = (since <= until) & (until > 0)
    spans["whole_from_us"], spans["whole_to_us"] = np.where(known, since, 0), np.where(known, until, 0)
    kept: Array = spans[(spans["records"] > 0) | known]
    return kept


def _edges(gaps: Array, *, primary: bool) -> tuple[Stamps, Stamps, Stamps]:
    """For each position with gaps: when the last of them ended (2^64-1 unknown) and the first began (0 unknown)."""
    cuts, at = np.unique(gaps["position"], return_index=True)
    ended, begins = np.full(len(cuts), _FAR), np.zeros(len(cuts), np.uint64)
    if primary and len(cuts):
        own = np.isin(gaps["kind"], (REMOVED, SILENCE), invert=True)
        begin, end = np.where(own, gaps["from_us"], 0), np.where(own, gaps["to_us"], 0)
        begins = np.minimum.reduceat(begin, at)
        ended = np.where(np.minimum.reduceat(end, at) > 0, np.maximum.reduceat(end, at), _FAR)
    return cuts.astype(np.uint64), ended.astype(np.uint64), begins.astype(np.uint64)


def _extents(held: Held, clock: int, starts: Stamps, stops: Stamps) -> tuple[Stamps, Stamps]:
    """The least and the greatest time within each of the spans; (2^64-1, 0) without any."""
    low, high = np.full(len(starts), _FAR), np.zeros(len(starts), np.uint64)
    for index, start, end in _blocks(held, int(starts[0]), int(stops[-1])):
        base = held.base(index)
        here = int(stops.searchsorted(np.uint64(base + start), "right"))  # the span that holds the first row
        exact = _exact(held, index, clock, (start, end)) if int(stops[here]) >= base + end else None
        if exact is not None:
            low[here], high[here] = min(int(low[here]), exact[0]), max(int(high[here]), exact[1])
            continue
        column = held.column(index, clock)
        for at in range(start, end, BLOCK_ROWS):
            _take(np.ascontiguousarray(column[at : min(end, at + BLOCK_ROWS)]), base + at, stops, low, high)
    return low, high


def _take(values: Stamps, position: int, stops: Stamps, low: Stamps, high: Stamps) -> None:
    """Let the spans take in a block of values from a position on."""
    here = int(stops.searchsorted(np.uint64(position), "right"))
    end = int(stops.searchsorted(np.uint64(position + len(values)), "left"))
    spans = slice(here, end + 1)
    cuts = np.concatenate(([0], (stops[here:end] - np.uint64(position)).astype(np.intp)))
    timed = (values > 0) & (values < _FAR)
    low[spans] = np.minimum(low[spans], np.minimum.reduceat(np.where(timed, values, _FAR), cuts))
    high[spans] = np.maximum(high[spans], np.maximum.reduceat(np.where(timed, values, np.uint64(0)), cuts))
