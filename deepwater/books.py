"""The book of a feed at a time, and at many. Functions of readers: `book_at`, `books`.

The records are those of ``schemas/cb-l2.json`` (`side`, `price`, `qty`; more columns do not matter), the marks say
where snapshots begin and what was missed; the rules are those of `bases`. A book stands on the latest snapshot that
was complete then, as `Reader.playback`; what is read is that snapshot and the changes after it, in blocks, and nothing
steps over them in Python. A ring keeps no marks: of its records no book is known.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepwater.bases import Base, Bases, of_run
from deepwater.book import Book
from deepwater.book_records import Base as Record
from deepwater.book_records import base_of, books_dtype
from deepwater.chain import Chain
from deepwater.durations import duration_us, time_error
from deepwater.errors import ChunkGoneError
from deepwater.index import SNAPSHOT
from deepwater.levels import BLOCK_ROWS, LEVEL_DTYPE, Ladders, checked, checked_depth
from deepwater.marks import marks_back, none
from deepwater.reader import Reader
from deepwater.timestamps import MAX_US, instant, last_instant
from deepwater.window import Window

__all__ = ["book_at", "books", "books_dtype"]

Array = npt.NDArray[Any]
Stamps = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]


def book_at(reader: Reader, t: Any = None, depth: int | None = None, *, snapshots: Reader | None = None) -> Book:
    """Give the book at a time: the latest complete snapshot at or before it, and every change up to it.

    Parameters
    ----------
    reader : Reader
        Of a feed with `side`, `price`, `qty`, whose snapshots are marked.
    t : optional
        Any time form of `deepwater.timestamps`, inclusive; a str or a date: the end of its period. Of the primary
        clock. Default: everything published.
    depth : int, optional
        At most so many levels a side; all by default.
    snapshots : Reader, optional
        Of a feed of records of this book (``schemas/cb-l2snap.json``), such as ``deepwater book`` writes. Where the
        latest valid one at or before `t` is newer than the snapshot in the feed itself and reaches deep enough for
        `depth` levels, only the changes after it are read. The answer is the same, but for this: it may still be
        known when the feed's own snapshot is no longer held.

    Returns
    -------
    Book
        Copies. Not `valid`, and saying why, without a complete snapshot by then (then it is empty), or if something
        was missed since that snapshot began. `time_us` is `t` (default: the clock of the last record).

    Raises
    ------
    RecordError
        A column is missing.
    ValueError
        `depth` is no number of levels.
    TimeFormatError, CorruptFileError, ChunkGoneError

    Notes
    -----
    One look at what is published. Memory: a block of records and the levels.

    Examples
    --------
    ::

        book = book_at(dw["CB-L2-BTC-USD"], "2026-08-09 21:06", depth=10)
        if book.valid:
            spread = book.best_ask - book.best_bid
    """
    depth = checked_depth(depth)
    moment = None if t is None else last_instant(t)
    record = None if snapshots is None else base_of(snapshots, reader, moment)  # before the end is looked at
    stop = int(reader.end) if moment is None else int(_stops(reader, np.array([moment], np.uint64))[0])
    bases = _bases(reader, stop, stop)
    base = bases.base(number) if (number := int(bases.at(np.array([stop]))[0])) >= 0 else None
    time_us = _time_of(reader, stop - 1) if moment is None else moment
    looked = _Look(reader, bases, stop, time_us, MAX_US if moment is None else moment)
    try:
        if record is not None and (book := _from_record(looked, record, base, depth)) is not None:
            return book
        if base is None:
            nothing = np.zeros(0, LEVEL_DTYPE)
            return Book(nothing, nothing.copy(), stop, time_us)
        return _played(looked, Ladders(base.start), base.start, base.limit, depth)
    except ChunkGoneError:
        if base is not None and reader.first <= base.start:
            raise
        return book_at(reader, t, depth)  # retention came in between: this snapshot is no longer there


class _Look(NamedTuple):
    """What was found out of a feed for a book, in one look: what is published before `stop`."""

    reader: Reader
    bases: Bases
    stop: int
    time_us: int
    moment: int


def _from_record(look: _Look, record: Record, base: Base | None, depth: int | None) -> Book | None:
    """The book, from a record instead of the feed's own snapshot; None where that is newer, or reaches further."""
    position = record.ladders.position
    following = look.bases.starts[look.bases.starts >= position]
    limit = int(following[0]) if len(following) else look.stop
    if position > look.stop or (base is not None and not base.start < position <= base.limit):
        return None
    book = _played(look, record.ladders, position - 1 if base is None else base.start, limit, depth)
    return book if record.reach.holds(book.bids, book.asks, depth) else None


def _played(look: _Look, ladders: Ladders, start: int, limit: int, depth: int | None) -> Book:
    """The book of ladders and the changes from their position on; gaps behind `start` count."""
    for block in _held(look.reader, ladders.position, min(look.stop, limit)).arrays(BLOCK_ROWS):
        ladders.take(block)
    reason = look.bases.trusted(start, look.stop, look.moment, ladders.first_bad)
    return Book(ladders.bids.levels(depth), ladders.asks.levels(depth), ladders.position, look.time_us, not reason,
                reason)  # fmt: skip


def books(reader: Reader, start: Any = None, end: Any = None, every: Any = "1s", depth: int = 10) -> Array:
    """Give the books at regular times, as arrays of a fixed depth.

    Parameters
    ----------
    reader : Reader
        As in `book_at`.
    start, end : optional
        Any time form of `deepwater.timestamps`: the first time, and the last that there may be, both inclusive; a str
        or a date names a period, from its first to its last µs. Of the primary clock; default what is held.
    every : str, timedelta
        The distance of the times (``"1s"``), more than 0.
    depth : int
        How many levels a side.

    Returns
    -------
    numpy.ndarray of `books_dtype`
        One row a time, new memory; ``found["bid_px"]`` has shape ``(times, depth)``, best first, NaN beyond the book.
        `snapshot_us` is the time; `valid` is that of `book_at` at this time, whose levels these are; `l2_position` is
        the first record not in the book, `l2_us` and `l2_seq` are of the last one in it (0: none, or no such column).
        It can be written into a feed made of ``schemas/cb-l2snap.json`` with that depth.

    Raises
    ------
    RecordError
        A column is missing.
    ValueError
        `depth` is no number of levels.
    TimeFormatError
        A bound is no time, `every` no duration, or 0.
    CorruptFileError, ChunkGoneError

    Notes
    -----
    One look at what is published. Each record is taken once, in blocks; a step in Python is one time asked for, at
    which the levels that changed since the one before are merged into sorted arrays. Memory: a block, the levels,
    and the answer.

    Examples
    --------
    ::

        top = books(dw["CB-L2-BTC-USD"], "2026-08-09 21:05", "2026-08-09 21:10", every="1s", depth=5)
        mid = (top["bid_px"][:, 0] + top["ask_px"][:, 0]) / 2
        mid[~top["valid"]] = np.nan
    """
    dtype = books_dtype(checked_depth(depth) or 0)
    times = _times(reader, start, end, every)
    stops = _stops(reader, times)
    bases = _bases(reader, *_extent(stops))
    out = np.zeros(len(times), dtype)
    out["type"], out["snapshot_us"], out["l2_position"] = b"S", times, stops
    for name in ("bid_px", "bid_qty", "ask_px", "ask_qty"):
        out[name] = np.nan
    numbers = bases.at(stops)
    order = np.argsort(stops, kind="stable")  # a clock that steps back: a later time may know fewer records
    for number, group in groupby(order.tolist(), key=lambda row: int(numbers[row])):
        if number < 0:
            continue
        base, rows = bases.base(number), list(group)
        try:
            _sample(reader, bases, base, stops, rows, out)
        except ChunkGoneError:
            if reader.first <= base.start:
                raise
            return books(reader, int(times[0]), int(times[-1]), every, depth)
    return out


def _sample(reader: Reader, bases: Bases, base: Base, stops: Positions, rows: list[int], out: Array) -> None:
    """Fill the rows of the times, by stop, whose books stand on one snapshot."""
    ladders, filled = Ladders(base.start), -1
    cuts = [min(int(stops[row]), base.limit) for row in rows]
    at = 0
    for block in _held(reader, base.start, cuts[-1]).arrays(BLOCK_ROWS):
        first, end = ladders.position, ladders.position + len(block)
        while at < len(rows) and cuts[at] <= end:
            row, cut = rows[at], cuts[at]
            ladders.take(block[ladders.position - first : cut - first])
            if filled >= 0 and int(out["l2_position"][filled]) == cut:
                _repeat(out, filled, row)
            else:
                _fill(reader, ladders, block[cut - first - 1], out[row : row + 1])
            filled, at = row, at + 1
            moment = int(out["snapshot_us"][row])
            out["valid"][row] = not bases.trusted(base.start, int(stops[row]), moment, ladders.first_bad)
        ladders.take(block[ladders.position - first :])


_LEVELS = ("l2_us", "l2_seq", "l2_position", "bid_px", "bid_qty", "ask_px", "ask_qty")


def _repeat(out: Array, source: int, row: int) -> None:
    for name in _LEVELS:
        out[name][row] = out[name][source]


def _fill(reader: Reader, ladders: Ladders, last: np.void, row: Array) -> None:
    row["l2_us"] = last[reader.layout.ts_col]
    if "seq" in reader.layout.names:
        row["l2_seq"] = last["seq"]
    row["l2_position"] = ladders.position
    ladders.bids.fill(row["bid_px"][0], row["bid_qty"][0])
    ladders.asks.fill(row["ask_px"][0], row["ask_qty"][0])


# --- what is asked of the reader ---------------------------------------------------------------------


def _times(reader: Reader, start: Any, end: Any, every: Any) -> Stamps:
    step = duration_us(every)
    if step <= 0:
        raise time_error("every", every, "times are more than 0 apart", "'1s', '100ms', a timedelta")
    held = reader.coverage() if len(reader) and (start is None or end is None) else None
    if held is None and (start is None or end is None):
        return np.zeros(0, np.uint64)
    low = held[0] if start is None and held else instant(start)
    high = held[1] if end is None and held else last_instant(end)
    count = (high - low) // step + 1 if high >= low else 0
    return np.uint64(low) + np.uint64(step) * np.arange(count, dtype=np.uint64)


def _stops(reader: Reader, times: Stamps) -> Positions:
    """For each time the position after the record in force."""
    return reader.asof(times).positions + 1


def _extent(stops: Positions) -> tuple[int, int]:
    return (int(stops.min()), int(stops.max())) if len(stops) else (0, 0)


def _bases(reader: Reader, low: int, high: int) -> Bases:
    """What the books at stops from `low` to `high` stand on: marks are read back to the snapshot of the first.

    So what is read is bounded by the distance to that snapshot, not by the length of the feed.
    """
    checked(np.zeros(0, reader.dtype))
    chain = reader._chain

    def run_end(start: int, limit: int | None) -> int | None:
        return _run_end(reader, start, limit)

    found, bases = [none()], Bases(none(), run_end)
    for _, rows in marks_back(chain, high) if isinstance(chain, Chain) else ():
        found.append(rows)
        if (rows["kind"] == SNAPSHOT).any():
            bases = Bases(np.concatenate(found[::-1]), run_end)
            if int(bases.at(np.array([low]))[0]) >= 0:
                return bases
    return Bases(np.concatenate(found[::-1]), run_end)


def _run_end(reader: Reader, start: int, limit: int | None) -> int | None:
    """Where a snapshot of unknown length ends (see `Bases`)."""
    first, at = None, start
    for block in reader.rows(start, int(reader.end) if limit is None else limit).arrays(BLOCK_ROWS):
        first = block[0] if first is None else first
        others = np.flatnonzero(~of_run(block, first))
        if len(others):
            return at + int(others[0])
        at += len(block)
    return limit


def _time_of(reader: Reader, position: int) -> int:
    row = reader.rows(max(0, position), position + 1)
    return int(row[0][reader.layout.ts_col]) if len(row) else 0


def _held(reader: Reader, start: int, stop: int) -> Window:
    window = reader.rows(start, stop)
    if len(window) < stop - start:
        raise ChunkGoneError(
            f"feed {reader.feed!r}: position {start}, where the snapshot begins, is no longer held; the oldest record "
            f"is {reader.first}: ask for a later moment, or keep the feed longer", feed=reader.feed, chunk_id=None,
        )  # fmt: skip
    return window
