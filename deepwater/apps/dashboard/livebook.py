"""The book of one product as its feed tells it, kept up look by look; it says when it is not to be trusted.

Follows a book's feed from its latest complete snapshot. Marks are read AFTER the records they may stand among, so no
snapshot and no gap is missed, and only when there are more of them. One look does a bounded piece of work: a book that
is behind says by how much and shows no level until it has caught up.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import numpy as np

from deepwater.book import OrderBook
from deepwater.chain import Chain
from deepwater.errors import DeepwaterError, FeedNotFoundError, RecordError
from deepwater.follow import Follower
from deepwater.marks import NewMarks
from deepwater.platform import Platform
from deepwater.reader import Reader

__all__ = ["BookState", "LiveBook"]

DEPTH = 60
_BATCH = 20_000
_MARKS_EVERY_S = 1.0
_BEHIND = 5_000
"""Fewer records than this are no reason to hide a book: it is as of a moment ago."""

Level = tuple[float, float]


@dataclass(frozen=True, slots=True)
class BookState:
    """Levels of a book, best first, as (price, quantity).

    `reason` says why it is not to be trusted ("" if it is), `behind` how many records are still to be read (then there
    are no levels), `time_us` is the clock of the last record in it.
    """

    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()
    reason: str = ""
    behind: int = 0
    time_us: int = 0
    crossed: bool = False


class LiveBook:
    """Keeps the book of one feed. One thread.

    Parameters
    ----------
    platform : Platform
    feed : str
        It need not exist.
    """

    def __init__(self, platform: Platform, feed: str) -> None:
        self.feed = feed
        self._platform = platform
        self._reader: Reader | None = None
        self._follower: Follower | None = None
        self._marks: NewMarks | None = None
        self._book = OrderBook()
        self._time_us = 0
        self._marks_due = 0.0

    def look(self, budget_s: float = 0.05) -> BookState:
        """Take what came, for about `budget_s` seconds at most, and return the book. Raises nothing."""
        try:
            if self._follower is None:
                self._open()
            behind = self._take(budget_s)
        except FeedNotFoundError:
            self.close()
            return BookState(reason=f"there is no feed {self.feed}")
        except (DeepwaterError, OSError) as error:
            self.close()
            return BookState(reason=" ".join(str(error).split()))
        if behind >= _BEHIND:
            return BookState(behind=behind, time_us=self._time_us)
        book = self._book.book(DEPTH)
        bids, asks = (
            tuple(zip(side["price"].tolist(), side["qty"].tolist(), strict=True)) for side in (book.bids, book.asks)
        )
        return BookState(bids, asks, book.reason, 0, self._time_us, book.crossed)

    def _open(self) -> None:
        self._reader = self._platform.create_reader(self.feed)
        chain = self._reader._chain
        if not isinstance(chain, Chain):
            raise RecordError(f"feed {self.feed!r} is a ring and keeps no marks: of its records no book is known")
        self._marks = NewMarks(chain)
        self._follower = self._reader.follow("snapshot", batch=_BATCH, timeout=0, on_lap="skip")
        self._book = OrderBook(int(self._follower.position))
        self._time_us = 0

    def _take(self, budget_s: float) -> int:
        """Apply records until none is left or the time is over; return how many are left."""
        assert self._reader is not None and self._follower is not None and self._marks is not None
        book, marks = self._book, self._marks
        until = time.monotonic() + budget_s
        while (records := self._follower.poll()) is not None:
            book.apply(records, marks.since(book.position), position=int(self._follower.position) - len(records))
            self._time_us = int(records[self._reader.layout.ts_col][-1])
            if time.monotonic() >= until:
                break
        else:
            if time.monotonic() >= self._marks_due:  # a gap may be marked with no record behind it yet
                self._marks_due = time.monotonic() + _MARKS_EVERY_S
                book.apply(np.zeros(0, self._reader.dtype), marks.since(book.position))
        return max(0, int(self._reader.end) - int(self._follower.position)) if records is not None else 0

    def close(self) -> None:
        """Let go of the feed; a later look begins anew."""
        for held in (self._follower, self._reader):
            if held is not None:
                with contextlib.suppress(DeepwaterError, OSError):
                    held.close()
        self._follower = self._reader = self._marks = None
