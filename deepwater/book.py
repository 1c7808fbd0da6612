"""Order books of snapshots and changes: an incremental one, and the same vectorised. No reader is known here.

More than 400 lines because the two belong side by side, and a third of it documents them.

A record says how much rests now on one side at one price: `side` (b"B" bid, b"A" ask), `price`, `qty` (0 removes the
level, which may be absent), as in ``schemas/cb-l2.json``; `type` and `seq` are looked at where no mark says where a
snapshot begins and ends. `bases` has the rules of snapshots and gaps, `levels` those of prices: keys are integers, the
bits of the float64.

`OrderBook` takes records as they come, in batches or one by one. `book_of` is the book of an array of records at once;
it never steps over them. The two agree for any records and marks, however they are cut into batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from deepwater.bases import NO_SNAPSHOT, Bases, bad_text, gap_text, inferred, of_run, used
from deepwater.index import DROPPED, GAP, SNAPSHOT
from deepwater.levels import (
    ASK,
    BID,
    LEVEL_DTYPE,
    Ladder,
    Ladders,
    checked,
    checked_depth,
    split,
)
from deepwater.side import Side

__all__ = ["LEVEL_DTYPE", "Book", "OrderBook", "book_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """The levels of a book at a moment. Copies, valid for ever.

    Attributes
    ----------
    bids, asks : numpy.ndarray of `LEVEL_DTYPE`
        `price` and `qty` (float64), best first: bids fall, asks rise. Empty without a complete snapshot.
    position : int
        Of the first record not in it: where the changes go on.
    time_us : int
        The moment it is of, µs; 0 where nobody knows.
    valid : bool
        Whether it is to be trusted: there was a complete snapshot, and nothing is known to be missed since it began.
    reason : str
        Why it is not valid; "" if it is.
    """

    bids: Array
    asks: Array
    position: int
    time_us: int = 0
    valid: bool = False
    reason: str = NO_SNAPSHOT

    @property
    def best_bid(self) -> float:
        """The highest bid; NaN if there is none."""
        return float(self.bids["price"][0]) if len(self.bids) else float("nan")

    @property
    def best_ask(self) -> float:
        """The lowest ask; NaN if there is none."""
        return float(self.asks["price"][0]) if len(self.asks) else float("nan")

    @property
    def crossed(self) -> bool:
        """Whether the best bid is at or above the best ask. Says nothing of `valid`."""
        return self.best_bid >= self.best_ask

    def __repr__(self) -> str:
        state = "valid" if self.valid else f"NOT valid ({self.reason})"
        return (
            f"<Book before position {self.position}: {len(self.bids):,} bids, {len(self.asks):,} asks, "
            f"{self.best_bid} / {self.best_ask}{' crossed' * self.crossed}, {state}>"
        )


# --- vectorised ---------------------------------------------------------------------------------------


def book_of(records: Array, marks: Array | None = None, *, position: int = 0, depth: int | None = None,
            time_us: int = 0) -> Book:  # fmt: skip
    """Give the book after an array of records: the vectorised `OrderBook`.

    Parameters
    ----------
    records : numpy.ndarray
        Structured, with `side`, `price`, `qty`; in the order of the feed, without a hole.
    marks : numpy.ndarray of `deepwater.index.MARK_DTYPE`, optional
        By position. Snapshots that begin among the records and gaps up to the end (inclusive) are used. Without them
        `type` and `seq` say where snapshots are, and no gap is known.
    position : int
        Of the first record.
    depth : int, optional
        At most so many levels a side; all by default.
    time_us : int
        Taken over into the answer.

    Returns
    -------
    Book

    Raises
    ------
    RecordError
        A column is missing.
    ValueError
        `depth` is no number of levels.

    Examples
    --------
    >>> records = np.array([(b"S", b"B", 10.0, 1.0), (b"S", b"A", 11.0, 2.0), (b"U", b"B", 10.5, 3.0)],
    ...                    [("type", "S1"), ("side", "S1"), ("price", "f8"), ("qty", "f8")])
    >>> book_of(records)
    <Book before position 3: 2 bids, 1 asks, 10.5 / 11.0, valid>
    """
    depth = checked_depth(depth)
    checked(records)
    stop = position + len(records)
    bases = Bases(used(records, marks, position), lambda start, limit: _run_end(records, position, start, limit))
    number = int(bases.at(np.array([stop]))[0])
    if number < 0:
        none = np.zeros(0, LEVEL_DTYPE)
        return Book(none, none.copy(), stop, time_us)
    base = bases.base(number)
    ladders = Ladders(base.start)
    ladders.take(records[base.start - position : min(stop, base.limit) - position])
    reason = bases.trusted(base.start, stop, first_bad=ladders.first_bad)
    return Book(ladders.bids.levels(depth), ladders.asks.levels(depth), ladders.position, time_us, not reason, reason)


def _run_end(records: Array, position: int, start: int, limit: int | None) -> int | None:
    stop = None if limit is None else limit - position
    run = records[start - position : stop]
    others = np.flatnonzero(~of_run(run, run[0]))
    return start + int(others[0]) if len(others) else limit


# --- incremental --------------------------------------------------------------------------------------


class _Sides:
    """A book, or a snapshot that is not complete yet, and the first thing that is wrong with it."""

    __slots__ = ("asks", "bids", "end", "first", "missed", "start")

    def __init__(self, kind: type[Side] | type[Ladder], start: int, end: int | None) -> None:
        self.bids: Side | Ladder = kind(BID)
        self.asks: Side | Ladder = kind(ASK)
        self.start, self.end = start, end  # the book before knows no record from `start` on; end None: unknown
        self.first: np.void | None = None  # its first record
        self.missed = ""

    def write(self, records: Array, position: int) -> None:
        if self.first is None and len(records):
            self.first = records[0].copy()
        found = split(records)
        if len(found.none):
            self.missed = self.missed or bad_text(position + int(found.none[0]))
        self.bids.write(*found.bids)
        self.asks.write(*found.asks)


class OrderBook:
    """A book that takes records as they come.

    Parameters
    ----------
    position : int
        Of the first record it will be given.
    seldom : bool
        Whether somebody looks at it seldom, as once a second. Changes are then gathered in arrays and put into their
        places when somebody does: less work a change, but a look costs hundreds of µs. What it says is the same.

    Attributes
    ----------
    position : int
        Of the next record.
    book_position : int
        Of the first record not in the book, which is the next one unless a snapshot is coming in.
    valid : bool
        As in `Book`.
    reason : str
        As in `Book`.
    snapshots : int
        How many it has taken that were complete.

    Notes
    -----
    One thread at a time. A change costs a look into a dict, and where a new price appears a move of part of a sorted
    list (with `seldom` its part of a sort). Nothing it was given is kept.

    Examples
    --------
    >>> book = OrderBook()
    >>> dtype = [("type", "S1"), ("side", "S1"), ("price", "f8"), ("qty", "f8")]
    >>> book.apply(np.array([(b"S", b"B", 10.0, 1.0), (b"S", b"A", 11.0, 2.0)], dtype))
    >>> book.valid                                  # perhaps more of the snapshot is to come
    False
    >>> book.apply(np.array([(b"U", b"A", 11.0, 0.0), (b"U", b"A", 12.0, 4.0)], dtype))
    >>> book.valid, book.best_bid, book.best_ask, book.book().asks.tolist()
    (True, (10.0, 1.0), (12.0, 4.0), [(12.0, 4.0)])
    >>> book.mark_gap("sequence 7 to 9")
    >>> book
    <OrderBook before position 4: 1 bids, 1 asks, NOT valid (gap before position 4: sequence 7 to 9)>
    """

    def __init__(self, position: int = 0, *, seldom: bool = False) -> None:
        self.position = position
        self.snapshots = 0
        self._kind: type[Side] | type[Ladder] = Ladder if seldom else Side
        self._book: _Sides | None = None
        self._coming: _Sides | None = None
        self._before: np.void | None = None  # the last record, and whether the next is not known to follow it:
        self._is_torn = False  # a snapshot that seems to begin with it may have begun before

    @classmethod
    def of(cls, book: Book, *, seldom: bool = False) -> Self:
        """Go on from a book of all levels, such as `books.book_at` gives, with the record at its position."""
        self = cls(book.position, seldom=seldom)
        self._is_torn = True
        if book.reason != NO_SNAPSHOT:
            self._book = sides = self._sides(book.position, None)
            for side, levels in ((sides.bids, book.bids), (sides.asks, book.asks)):
                side.write(*(np.ascontiguousarray(levels[name][::-1]) for name in ("price", "qty")))  # the best last
            sides.missed = book.reason
        return self

    def _sides(self, start: int, end: int | None) -> _Sides:
        return _Sides(self._kind, start, end)

    def __repr__(self) -> str:
        state = "valid" if self.valid else f"NOT valid ({self.reason})"
        bids, asks = self.levels
        return f"<OrderBook before position {self.position}: {bids:,} bids, {asks:,} asks, {state}>"

    # --- what it is told -----------------------------------------------------------------------------

    def apply(self, records: Array, marks: Array | None = None, *, position: int | None = None) -> None:
        """Take the next records.

        Parameters
        ----------
        records : numpy.ndarray
            Structured, with `side`, `price`, `qty`.
        marks : numpy.ndarray of `deepwater.index.MARK_DTYPE`, optional
            By position, such as all of `Reader.marks`: of snapshots those that begin among the records are used, of
            gaps those up to their end (inclusive). Without them `type` and `seq` say where snapshots begin.
        position : int, optional
            Of the first record; where the last call ended, by default. Beyond that is a gap.

        Raises
        ------
        ValueError
            `position` is before that: these records were taken already.
        RecordError
            A column is missing.
        """
        checked(records)
        self._arrive(position)
        start = self.position
        for mark in self._events(records, marks):
            at = int(mark["position"])
            self._take(records[self.position - start : at - start])
            if mark["kind"] == SNAPSHOT:
                self._begin(int(mark["count"]))
            else:
                self._miss(gap_text(at, mark["reason"]))
        self._take(records[self.position - start :])
        if len(records):
            self._before, self._is_torn = records[-1].copy(), False

    def mark_gap(self, reason: str = "") -> None:
        """Say that something was missed before the next record: not valid until the next complete snapshot."""
        self._miss(gap_text(self.position, reason.encode()))

    def begin_snapshot(self, count: int = 0) -> None:
        """Say that the next `count` records are a snapshot (0: that one begins, see `bases`).

        Raises
        ------
        ValueError
            `count` is negative.
        """
        if count < 0:
            raise ValueError(f"count={count}: a snapshot has 0 (unknown) or more records")
        self._begin(count)

    def _arrive(self, position: int | None) -> None:
        if position is None or position == self.position:
            return
        if position < self.position:
            raise ValueError(f"position {position}: this book knows all records before {self.position} already")
        self._miss(f"records {self.position} to {position - 1} were not seen")
        self.position = int(position)
        self._is_torn = True
        if self._coming is not None and self._coming.end is not None and self._coming.end <= self.position:
            self._complete()

    def _events(self, records: Array, marks: Array | None) -> Iterator[np.void]:
        """The marks among the records, gaps before snapshots at one position."""
        if marks is not None:
            found = used(records, marks, self.position) if len(marks) else marks
            if not len(found):
                return
            found = found[np.isin(found["kind"], (SNAPSHOT, GAP, DROPPED))]
            yield from found[np.lexsort((found["kind"] == SNAPSHOT, found["position"]))]
            return
        found = inferred(records, self.position, self._before)
        yield from found[found["position"] > self.position] if self._is_torn else found

    def _begin(self, count: int) -> None:
        if self._coming is not None and self._coming.end is None and self._coming.first is not None:
            self._complete()  # of unknown length: it ends where another begins
        start = self.position if self._coming is None else self._coming.start  # one cut short left the book as it was
        self._coming = self._sides(start, self.position + count if count else None)

    def _miss(self, why: str) -> None:
        for sides in (self._book, self._coming):
            if sides is not None:
                sides.missed = sides.missed or why

    def _complete(self) -> None:
        self._book, self._coming = self._coming, None
        self.snapshots += 1

    def _take(self, records: Array) -> None:
        while len(records):
            part = records[: self._own(records)]
            sides = self._coming or self._book
            if sides is not None:
                sides.write(part, self.position)
            self.position += len(part)
            if self._coming is not None and (len(part) < len(records) or self.position == self._coming.end):
                self._complete()
            records = records[len(part) :]

    def _own(self, records: Array) -> int:
        """How many of the records are of the snapshot that is coming; all of them without one."""
        coming = self._coming
        if coming is None:
            return len(records)
        if coming.end is not None:
            return min(len(records), coming.end - self.position)
        others = np.flatnonzero(~of_run(records, records[0] if coming.first is None else coming.first))
        return int(others[0]) if len(others) else len(records)

    # --- what it says --------------------------------------------------------------------------------

    @property
    def valid(self) -> bool:  # noqa: D102 - in the class
        return not self.reason

    @property
    def reason(self) -> str:  # noqa: D102
        return NO_SNAPSHOT if self._book is None else self._book.missed

    @property
    def book_position(self) -> int:  # noqa: D102
        return self.position if self._book is None or self._coming is None else self._coming.start

    @property
    def is_coming(self) -> bool:
        """Whether a snapshot has begun and is not complete."""
        return self._coming is not None

    @property
    def levels(self) -> tuple[int, int]:
        """How many bids and asks there are."""
        return (0, 0) if self._book is None else (len(self._book.bids), len(self._book.asks))

    @property
    def best_bid(self) -> tuple[float, float] | None:
        """Price and quantity of the highest bid; None if there is none."""
        return None if self._book is None else self._book.bids.best()

    @property
    def best_ask(self) -> tuple[float, float] | None:
        """Price and quantity of the lowest ask; None if there is none."""
        return None if self._book is None else self._book.asks.best()

    @property
    def crossed(self) -> bool:
        """Whether the best bid is at or above the best ask. Says nothing of `valid`."""
        bid, ask = self.best_bid, self.best_ask
        return bid is not None and ask is not None and bid[0] >= ask[0]

    def book(self, depth: int | None = None, *, time_us: int = 0) -> Book:
        """Give the levels as they are now: the best `depth` of each side, all by default; a copy.

        Raises
        ------
        ValueError
            `depth` is no number of levels.
        """
        depth = checked_depth(depth)
        sides = self._book or self._sides(0, None)
        return Book(sides.bids.levels(depth), sides.asks.levels(depth), self.book_position, time_us, self.valid,
                    self.reason)  # fmt: skip
