"""Books as records: so many levels a side, and where the changes go on. The columns of ``schemas/cb-l2snap.json``.

A record holds the best levels only. So it is a place to begin from as far as it reaches: what lies behind its last
level is not known, and comes to light as levels before it are taken away. `Reach` says how far it does, and `Base`
answers nothing beyond. A side with fewer levels than there is room for is whole, and reaches everywhere.

A position says nothing of another life of a feed (one that was deleted and made again). So a record is a base only if
the change before its `l2_position` has the time and the sequence that it says.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepwater.book import Book
from deepwater.errors import ChunkGoneError, NoSnapshotError, RecordError
from deepwater.levels import Ladders
from deepwater.reader import Reader
from deepwater.resume import resume

__all__ = ["Base", "Reach", "base_of", "books_dtype", "record_of"]

Array = npt.NDArray[Any]
_SIDES = ("bid_px", "bid_qty", "ask_px", "ask_qty")
_NEEDED = ("snapshot_us", "l2_us", "l2_seq", "l2_position", *_SIDES)


def books_dtype(depth: int) -> np.dtype[Any]:
    """The dtype of records of books: the columns of ``schemas/cb-l2snap.json``, with `depth` levels a side."""
    numbers = [(name, np.uint64) for name in ("snapshot_us", "l2_us", "l2_seq", "l2_position")]
    sides = [(name, np.float64, (depth,)) for name in _SIDES]
    return np.dtype([("type", "S1"), ("valid", np.bool_), *numbers, *sides], align=True)


def record_of(book: Book, depth: int, l2_us: int = 0, l2_seq: int = 0) -> Array:
    """Give a book as a record.

    Parameters
    ----------
    book : Book
        Its `time_us` is the record's time.
    depth : int
        How many levels a side.
    l2_us, l2_seq : int
        Time and sequence of the last change in it; 0 if there is none.

    Returns
    -------
    numpy.ndarray of `books_dtype`, shape (1,)
        New memory; NaN beyond the book.
    """
    out = np.zeros(1, books_dtype(depth))
    out["type"], out["valid"], out["snapshot_us"], out["l2_position"] = b"S", book.valid, book.time_us, book.position
    out["l2_us"], out["l2_seq"] = l2_us, l2_seq
    for px, qty, levels in (("bid_px", "bid_qty", book.bids), ("ask_px", "ask_qty", book.asks)):
        best = levels[:depth]
        out[px], out[qty] = np.nan, np.nan
        out[px][0, : len(best)], out[qty][0, : len(best)] = best["price"], best["qty"]
    return out


class Reach(NamedTuple):
    """How far down the levels are known: the prices of the last ones, inclusive; None: all."""

    bid: float | None
    ask: float | None

    def holds(self, bids: Array, asks: Array, depth: int | None) -> bool:
        """Whether the best `depth` levels, which these are, are known to be the best; None: all levels."""
        known = self.bid is None or (depth is not None and _reaches(bids["price"], -self.bid, depth, -1))
        return known and (self.ask is None or (depth is not None and _reaches(asks["price"], self.ask, depth, 1)))


def _reaches(prices: Array, last: float, depth: int, sign: int) -> bool:
    return depth == 0 or (len(prices) >= depth and bool(sign * prices[depth - 1] <= last))


class Base(NamedTuple):
    """A book to begin from: its levels, at `ladders.position`, and how far they reach."""

    ladders: Ladders
    reach: Reach


def base_of(snapshots: Reader, deltas: Reader, moment_us: int | None) -> Base | None:
    """Give the latest valid record at or before a moment as a book to begin from.

    Parameters
    ----------
    snapshots : Reader
        A feed of records of books.
    deltas : Reader
        The feed of the changes.
    moment_us : int, optional
        By the primary clock of `snapshots`, inclusive; None: the latest.

    Returns
    -------
    Base or None
        None if there is none, or it is of another life of `deltas`, or what follows it is no longer held.

    Raises
    ------
    RecordError
        `snapshots` has not the columns of such records.
    CorruptFileError
    """
    for name in _NEEDED:
        if name not in snapshots.layout.names:
            raise RecordError(
                f"feed {snapshots.feed!r}: no column {name!r}, so its records are no books: see schemas/cb-l2snap.json",
                column=name,
            )
    try:
        record = resume(snapshots, deltas, moment_us, by="position", column="l2_position").snapshot
    except (NoSnapshotError, ChunkGoneError, RecordError):  # RecordError: beyond the end, of another life of the feed
        return None
    position = int(record["l2_position"])
    before = deltas.rows(max(0, position - 1), position)
    if len(before) != 1 or not _follows(before[0], record, deltas):
        return None
    return _begun(record, position)


def _follows(change: np.void, record: np.void, deltas: Reader) -> bool:
    """Whether a change is the last one that a record says is in it."""
    has_seq = "seq" in deltas.layout.names
    return bool(change[deltas.layout.ts_col] == record["l2_us"] and (not has_seq or change["seq"] == record["l2_seq"]))


def _begun(record: np.void, position: int) -> Base:
    ladders, ends = Ladders(position), []
    for ladder, px, qty in ((ladders.bids, "bid_px", "bid_qty"), (ladders.asks, "ask_px", "ask_qty")):
        known = np.isfinite(record[px])
        ladder.write(np.ascontiguousarray(record[px][known]), np.ascontiguousarray(record[qty][known]))
        ends.append(float(record[px][-1]) if known.all() else None)
    return Base(ladders, Reach(*ends))
