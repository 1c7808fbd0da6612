"""The order-book maintainer: follows ``CB-L2-<product>`` and writes its book, now and then, to ``CB-L2SNAP-<product>``.

What is written is a record of the best levels (``schemas/cb-l2snap.json``) with the position to go on from, so a reader
who wants the book at a time need not read the changes since the exchange's last snapshot, which may be hours
(`books.book_at` with ``snapshots=``, `playback.resume`).

*When.* At each multiple of the interval of wall time; and at once when it begins, when a snapshot is complete (a
reconnect), and when the book ceases to be valid (a gap). What comes in one look (at most a block of records, at most
`PACE_S` apart) is one record, of the book after it.

*What a record says.* The book of all records before `l2_position`, which are those that had been taken when it was
written. `snapshot_us` is when that was, by the wall clock, and never before `l2_us` (the last record in the book) nor
before the record before it: so at any time t the latest record of `snapshot_us` <= t holds no change later than t, and
the changes from `l2_position` on complete it. A maintainer that is behind (it has just begun, or was stopped) writes
where it is, with the time at which it writes; for times that went by nothing is written afterwards, since nobody saw
that book then: `books.books` makes them from the changes, exactly, whenever they are wanted.

*Going on after a kill.* A record is one write, whole or absent; the lock dies with the process. The next maintainer
continues the feed after its last record, and takes its book from that record only if it is valid, whole (both sides
have fewer levels than there is room for) and of the same life of the changes. Else it begins from the exchange's last
snapshot in the feed itself, which costs some 0.1 s a million changes. Rejected: to begin from the best levels alone.
Those behind the last one are missing in such a book, unnoticed until they come to the top; a record would then show a
level as the 400th which is the 450th. A book that is right after a second is better. So keep the changes as long as a
connection may last: once retention has let the exchange's snapshot go, a maintainer that begins has no book, and says
so in every record, until the next one (one that runs is not concerned).

It needs no package of the extra ``deepwater[apps]``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deepwater.apps import specs
from deepwater.errors import DeepwaterError, EmptyFeedError, FeedLockedError, FeedNotFoundError, StorageFullError
from deepwater.feed_writer import FeedWriter
from deepwater.levels import BLOCK_ROWS
from deepwater.live_book import LiveBook
from deepwater.platform import Platform
from deepwater.reader import Reader
from deepwater.timestamps import now_us
from deepwater.writer import Writer

__all__ = ["DEPTH", "INTERVAL_S", "PACE_S", "Maintainer", "State", "maintain"]

DEPTH, INTERVAL_S = 500, 1.0
PACE_S = 0.02
"""The time between two looks at the changes. What came meanwhile is taken together, which costs less than to be woken
by each write, and costs the recorder nothing. So late a gap or a snapshot is noticed, at most."""
_LOOK_FOR_FEED_S = 0.2
_log = logging.getLogger("deepwater.maintainer")


@dataclass(frozen=True, slots=True)
class State:
    """How a maintainer is doing.

    Attributes
    ----------
    product : str
    state : {"waiting", "running", "ended"}
        Waiting: for the feed of changes to be made.
    valid : bool
    reason : str
        Why the book is not valid; "" if it is.
    best_bid, best_ask : (float, float) or None
        Price and quantity.
    bids, asks : int
        Levels in the book.
    changes : int
        Records taken since the beginning.
    written : int
        Records written.
    unwritten : int
        Records for which there was no space.
    l2_us, l2_position : int
        How far the book is.
    cpu_s : float
        Processor time of its thread.
    """

    product: str
    state: str = "waiting"
    valid: bool = False
    reason: str = ""
    best_bid: tuple[float, float] | None = None
    best_ask: tuple[float, float] | None = None
    bids: int = 0
    asks: int = 0
    changes: int = 0
    written: int = 0
    unwritten: int = 0
    l2_us: int = 0
    l2_position: int = 0
    cpu_s: float = 0.0


class Maintainer:
    """Keeps the book of one product. `run` in a thread; `state` may be looked at from any.

    Parameters
    ----------
    platform : Platform
    product : str
        As ``BTC-USD``.
    depth : int
        Levels a side of a record.
    interval_s : float
        Seconds between two records.
    persist : bool
        Write a durable feed; else a ring in shared memory. A durable feed that is there is gone on with in any case.
    """

    def __init__(self, platform: Platform, product: str, depth: int = DEPTH, interval_s: float = INTERVAL_S,
                 persist: bool = False) -> None:  # fmt: skip
        if not 0 < interval_s < 1e9:
            raise DeepwaterError(f"interval {interval_s}: seconds above 0", interval_s=interval_s)
        self._platform, self.product, self.depth = platform, product, depth
        self._spec = specs.snapshots_spec(product, depth, persist)
        self._changes = specs.feed_name(specs.L2, product)
        self._step_us = max(1, round(interval_s * 1e6))
        self._newest_us = self._chunk = 0
        self.state = State(product)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; blocks.

        Raises
        ------
        FeedLockedError
            The product has a maintainer.
        DeepwaterError
            The feed of books is there with another depth, or is a ring and was to be durable.
        FeedNotFoundError
            A feed was deleted meanwhile.
        RecordError, CorruptFileError, StorageFullError
        """
        try:
            if self._is_there(stop):
                self._open_feed()
                with (
                    self._platform.create_writer(self._spec.feed_name) as writer,
                    self._platform.create_reader(self._changes) as changes,
                    self._begun(changes) as live,
                ):
                    self._work(live, writer, stop)
        finally:
            self.state = replace(self.state, state="ended")

    # --- the beginning -------------------------------------------------------------------------------

    def _is_there(self, stop: threading.Event) -> bool:
        """Wait for the feed of changes; False if the end comes first."""
        while not stop.is_set():
            with contextlib.suppress(FeedNotFoundError), self._platform.create_reader(self._changes):
                return True
            stop.wait(_LOOK_FOR_FEED_S)
        return False

    def _open_feed(self) -> None:
        """Make the feed of books, or see that the one there will do; its settings are its owner's."""
        name = self._spec.feed_name
        try:
            reader = self._platform.create_reader(name)
        except FeedNotFoundError:
            self._platform.create_feed(self._spec)
            return
        with reader:
            found = reader.dtype["bid_px"].shape if "bid_px" in reader.layout.names else None
            if found != (self.depth,):
                has = f"a depth of {found[0]}" if found else "other records"
                raise DeepwaterError(
                    f"feed {name!r} is there with {has}, not {self.depth}: take that depth, or delete the feed",
                    feed=name, depth=self.depth,
                )  # fmt: skip
            if self._spec.settings.persist and not reader.settings.persist:
                raise DeepwaterError(
                    f"feed {name!r} is a ring and cannot become durable: delete it, or go on without persist", feed=name
                )
            with contextlib.suppress(EmptyFeedError):
                self._newest_us = int(reader.get_latest_record().snapshot_us)

    def _begun(self, changes: Reader) -> LiveBook:
        with self._platform.create_reader(self._spec.feed_name) as own:
            return LiveBook(changes, snapshots=own, seldom=True)

    # --- the work ------------------------------------------------------------------------------------

    def _work(self, live: LiveBook, writer: FeedWriter, stop: threading.Event) -> None:
        due_us, seen = 0, (-1, -1)
        while not stop.is_set():
            taken, now, events = live.take(), now_us(), (live.snapshots, live.gaps)
            is_due = not now < due_us <= now + self._step_us  # also if the clock was set back
            if live.book.position and (events != seen or is_due):  # at 0 nothing has been recorded: nothing to say
                seen, due_us = events, (now // self._step_us + 1) * self._step_us
                self._write(live, writer, now)
            if taken < BLOCK_ROWS:
                stop.wait(min(PACE_S, max(0.0, (due_us - now_us()) / 1e6)) if due_us else PACE_S)

    def _write(self, live: LiveBook, writer: FeedWriter, now: int) -> None:
        record = live.record(self.depth, max(now, self._newest_us))
        unwritten = 0
        try:
            writer.write_batch(record)
            self._newest_us = int(record["snapshot_us"][0])
        except StorageFullError as error:
            unwritten = 1
            if not self.state.unwritten:
                _log.warning("feed %r: %s; books are let go until there is space", writer.feed, str(error))
        self._note(live, 1 - unwritten, unwritten)
        self._retain(writer)

    def _note(self, live: LiveBook, written: int, unwritten: int) -> None:
        book = live.book
        self.state = State(
            self.product, "running", book.valid, book.reason, book.best_bid, book.best_ask, *book.levels, live.records,
            self.state.written + written, self.state.unwritten + unwritten, live.l2_us, book.book_position,
            time.thread_time(),
        )  # fmt: skip

    def _retain(self, writer: FeedWriter) -> None:
        """Let go what the feed need not keep, when it has begun a chunk."""
        if not isinstance(writer, Writer) or writer.chunk_id == self._chunk:
            return
        self._chunk = writer.chunk_id
        try:
            with contextlib.suppress(FeedLockedError):  # somebody else prunes it just now
                self._platform.prune(writer.feed)
        except (DeepwaterError, OSError) as error:
            _log.warning("retention: feed %s: %s", writer.feed, str(error))


# --- several of them -----------------------------------------------------------------------------------


def maintain(maintainers: Sequence[Maintainer], stop: threading.Event, duration: float | None = None,
             on_status: Callable[[Sequence[State]], Any] | None = None, every_s: float = 0.5) -> None:  # fmt: skip
    """Run maintainers, a thread each, until `stop` is set or `duration` is over; blocks.

    Parameters
    ----------
    maintainers : sequence of Maintainer
    stop : threading.Event
        Set it from another thread: a signal handler interrupts this one, which may hold the event's lock. It is set
        when this returns.
    duration : float, optional
        Seconds; None: for ever.
    on_status : callable, optional
        Called in this thread with the state of each, every `every_s` seconds.

    Raises
    ------
    Exception
        What ended the first one that failed; the others are ended too.
    """
    failures: list[BaseException] = []

    def run(maintainer: Maintainer) -> None:
        try:
            maintainer.run(stop)
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(each,), name=f"book-{each.product}") for each in maintainers]
    until = None if duration is None else time.monotonic() + duration
    begun: list[threading.Thread] = []
    try:
        for thread in threads:
            thread.start()
            begun.append(thread)
        while not stop.wait(every_s if until is None else min(every_s, max(0.0, until - time.monotonic()))):
            if on_status is not None:
                on_status([each.state for each in maintainers])
            if until is not None and time.monotonic() >= until:
                break
    finally:
        stop.set()
        for thread in begun:
            thread.join()
    if failures:
        raise failures[0]
