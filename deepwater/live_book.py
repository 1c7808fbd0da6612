"""The book of a feed as it is now: an `OrderBook` that follows the feed, its marks included.

It begins with the vectorised book of what is published (`books.book_at`: some 0.1 µs a change) and takes what comes
after it. So the two forms of a book meet here, and must agree: the one is where the other goes on.

The base is the snapshot in the feed itself. A record of a book (`book_records`) is one only if it is whole: what lies
behind its last level nobody knows, and a book that misses levels is a wrong one as soon as they come to the top.

Order, on which it rests that no gap is passed over: a writer commits a mark before the records behind it are visible,
so marks are read after the records, and those up to the last record are then all there.

Nobody waits here: a gap that no record follows wakes no follower, so who keeps a book looks again and again, as often
as it wants to know. A look at a feed where nothing came costs tens of µs.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from deepwater import marks
from deepwater.bases import NO_SNAPSHOT
from deepwater.book import Book, OrderBook
from deepwater.book_records import record_of
from deepwater.books import book_at
from deepwater.chain import Chain
from deepwater.errors import RecordError
from deepwater.levels import BLOCK_ROWS
from deepwater.marks import NewMarks
from deepwater.reader import Reader

__all__ = ["LiveBook"]

Array = npt.NDArray[Any]


class LiveBook:
    """The book of a feed, from now on.

    Parameters
    ----------
    reader : Reader
        Of a durable feed with `side`, `price`, `qty`, whose snapshots are marked. It is used from now on by this book
        alone, and not closed.
    snapshots : Reader, optional
        Of records of this book, as for `books.book_at`.
    seldom : bool
        As for `OrderBook`.

    Attributes
    ----------
    book : OrderBook
        As of the last `take`. Look at it, change nothing.
    records, snapshots, gaps : int
        What was taken since the beginning: records, snapshots that were complete, and how often it became not valid.
    l2_us, l2_seq : int
        Time (the primary clock) and `seq` of the last record in the book; 0 if there is none, or no such column.

    Raises
    ------
    RecordError
        The feed is a ring, which keeps no marks, or a column is missing.
    ChunkGoneError, CorruptFileError

    Notes
    -----
    A context manager. One thread at a time.

    Examples
    --------
    ::

        with LiveBook(dw["CB-L2-BTC-USD"]) as live:
            while True:
                if live.take():
                    print(live.book.best_bid, live.book.best_ask, live.book.valid)
                else:
                    time.sleep(0.01)
    """

    def __init__(self, reader: Reader, *, snapshots: Reader | None = None, seldom: bool = False) -> None:
        chain = reader._chain
        if not isinstance(chain, Chain):
            raise RecordError(f"feed {reader.feed!r} is a ring and keeps no marks: of its records no book is known")
        self.reader = reader
        self.records = self.snapshots = self.gaps = 0
        self.l2_us = self.l2_seq = 0
        start = book_at(reader, snapshots=snapshots)
        self.book = OrderBook.of(self._with_coming(start, chain), seldom=seldom)
        self._marks, self._nothing = NewMarks(chain), np.zeros(0, reader.dtype)
        self._follower = reader.follow(position=self.book.position, batch=BLOCK_ROWS, on_lap="skip")
        self._note(reader.rows(max(0, start.position - 1), start.position).to_numpy(), start.position - 1)

    @staticmethod
    def _with_coming(book: Book, chain: Chain) -> Book:
        """Without a complete snapshot: back to the beginning of one that is coming in."""
        if book.reason != NO_SNAPSHOT:
            return book
        coming = marks.latest_snapshot(chain, book.position)
        position = book.position if coming is None else max(coming[0], chain.first)
        return Book(book.bids, book.asks, position, book.time_us)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the feed. Idempotent."""
        self._follower.close()

    def __repr__(self) -> str:
        return f"<LiveBook of {self.reader.feed!r}: {self.book!r}>"

    @property
    def lost(self) -> int:
        """Records that retention let go before they were taken; each time a gap."""
        return self._follower.lost

    def take(self) -> int:
        """Take what was published since, at most a block of it and the rest of a snapshot; does not wait.

        Returns
        -------
        int
            How many records: 0 if nothing came, or a gap only; `levels.BLOCK_ROWS` or more if there is perhaps more.

        Raises
        ------
        ClosedError, FeedNotFoundError, ChunkGoneError, CorruptFileError
        """
        count = self._take()
        while self.book.is_coming and (more := self._take()):  # one write, in several chunks
            count += more
        return count

    def _take(self) -> int:
        book = self.book
        records = self._follower.poll()
        stop, count = int(self._follower.position), 0 if records is None else len(records)
        if records is None:
            records = self._nothing
        was_valid, snapshots = book.valid, book.snapshots
        book.apply(records, self._marks.since(book.position), position=stop - count)
        self._note(records, stop - count)
        self.records += count
        self.snapshots += book.snapshots - snapshots
        self.gaps += was_valid and not book.valid
        return count

    def _note(self, records: Array, first: int) -> None:
        """Remember the last record in the book, if it is among these."""
        if self.book.reason == NO_SNAPSHOT:
            self.l2_us = self.l2_seq = 0
            return
        at = self.book.book_position - 1 - first
        if 0 <= at < len(records):
            row = records[at]
            self.l2_us = int(row[self.reader.layout.ts_col])
            self.l2_seq = int(row["seq"]) if "seq" in self.reader.layout.names else 0

    def record(self, depth: int, now_us: int) -> Array:
        """The book now, as a record for a feed made of ``schemas/cb-l2snap.json``.

        Parameters
        ----------
        depth : int
            Levels a side.
        now_us : int
            When; raised to the time of the last record in the book, so that none in it is of a later time.

        Returns
        -------
        numpy.ndarray of `book_records.books_dtype`, shape (1,)
        """
        book = self.book.book(depth, time_us=max(now_us, self.l2_us))
        return record_of(book, depth, self.l2_us, self.l2_seq)
