"""A cursor from history to live: every position once, in order, across rotations.

A follower is a position and a chain of its own (so it may run in another thread than its reader). It
hands out what is published beyond its position, of chunks as views, of a ring as checked copies, and waits for more
by looking at one word in shared memory (`deepwater.waiting`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from deepwater import arrow
from deepwater.chain import Chain
from deepwater.errors import ClosedError, LappedError
from deepwater.layout import Layout
from deepwater.locks import watch_fork
from deepwater.ring_chain import RingChain
from deepwater.waiting import WAITS, Wait, Waiter

__all__ = ["LAPS", "WAITS", "Follower", "OnLap", "Position", "Wait", "as_bytes", "as_records", "as_tuples"]

OnLap = Literal["raise", "skip"]
LAPS = ("raise", "skip")
_FOR_EVER = float("inf")
CHECK_S = 0.2
"""How often a follower that finds nothing makes sure that its feed is still there."""
_THREAD_STEP_S = 0.5
"""An asynchronous wait lasts at most so long at a time: what a thread left behind by a cancellation may take."""
_POLITE_LOOKS = 4


class Position(int):
    """A position that knows which life of its feed it belongs to.

    It is an `int` in every other respect, and survives pickling.

    >>> Position(7, "ab").incarnation
    'ab'
    """

    incarnation: str

    def __new__(cls, value: int, incarnation: str = "") -> Self:
        """Make a position of one life of a feed; "" fits any."""
        self = super().__new__(cls, value)
        self.incarnation = incarnation
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Position, (int(self), self.incarnation)


class Follower:
    """An iterator of batches, and an asynchronous one. Made by `Reader.follow`.

    Attributes
    ----------
    position : Position
        The next position to be handed out. Give it to ``follow(position=…)`` to go on there.
    layout : Layout
        Of the records.
    lost : int
        Records that a ring's writer overwrote, or that retention let go, before this follower came to them.

    Notes
    -----
    A batch is counted as handed out (`position`) in the last step before it is returned: an interrupt (Ctrl-C) before
    that leaves it for the next call; one that comes in the caller's own loop is the caller's.
    One thread (or one task) at a time; `close` may be called from any, and ends a wait. A context manager.
    ``async for`` waits in a thread of its own and never blocks the event loop; a cancelled wait loses nothing.
    """

    def __init__(self, chain: Chain | RingChain, position: int, *, as_: str = "numpy", batch: int | None = None,
                 timeout: float | None = None, wait: Wait = "auto", on_lap: OnLap = "raise") -> None:  # fmt: skip
        self._chain, self._next = chain, position
        self._as_arrow, self._batch, self._timeout, self._skips = as_ == "arrow", batch, timeout, on_lap == "skip"
        self._waiter = Waiter(chain, wait)
        self._spins = wait == "spin"
        self._in_wait = threading.Lock()
        self._executor: Any = None
        self._closed = False
        self._check_at = time.monotonic() + CHECK_S
        self._life = ""
        self.layout: Layout = chain.layout
        self.lost = 0
        watch_fork(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<Follower {self._chain.feed!r}{state} position={self._next} lost={self.lost}>"

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next batch, read-only: a view (of a ring, and with ``as_="arrow"``, a copy); never empty.

        Raises
        ------
        StopIteration
            After `timeout` seconds without a record, or after `close`.
        LappedError
            The writer of a ring has overwritten, or retention let go, `lost` records that were next. The iterator
            goes on behind them.
        FeedNotFoundError
            The feed was deleted.
        ChunkGoneError, CorruptFileError
        """
        found = self._wait()
        if found is None:
            raise StopIteration
        batch, following = self._handed_out(found[0]), found[1]
        self._next = following  # and nothing after it: an interrupt either takes the batch back or comes too late
        return batch

    def _handed_out(self, records: npt.NDArray[Any]) -> Any:
        return arrow.record_batch(self.layout, records) if self._as_arrow else records

    @property
    def position(self) -> Position:
        """The next position to be handed out."""
        return Position(self._next, self._life if self._closed else self._chain.incarnation)

    def close(self) -> None:
        """End the iteration, also one that waits in another thread. Arrays handed out stay valid. Idempotent."""
        if not self._closed:
            self._life = self._chain.tail_incarnation()
        self._closed = True
        self._waiter.poke()
        self._end_thread()
        if self._in_wait.acquire(blocking=False):  # else who waits lets go
            try:
                self._let_go()
            finally:
                self._in_wait.release()

    def _let_go(self) -> None:
        self._waiter.close()
        self._chain.close()

    def after_fork(self) -> None:
        """In a forked child: what threads of the parent held and ran is not there."""
        self._in_wait, self._executor = threading.Lock(), None

    def poll(self) -> npt.NDArray[Any] | None:
        """What is there now, at most `batch` records; None if nothing is. Never waits: for event loops.

        Returns
        -------
        numpy.ndarray or None
            As of ``next``, NumPy whatever `as_` says: of one chunk at most, or some 4 MB of a ring.

        Raises
        ------
        ClosedError, LappedError, FeedNotFoundError, ChunkGoneError, CorruptFileError
        """
        if self._closed:
            raise ClosedError(f"this follower of feed {self._chain.feed!r} is closed")
        found = self._take()
        if found is None:
            return None
        records, following = found
        self._next = following
        return records

    def _take(self) -> tuple[npt.NDArray[Any], int] | None:
        """What is there, and the position after it; the cursor stays."""
        try:
            records, following, lost = self._chain.take(self._next, self._batch)
            if records is None and (now := time.monotonic()) >= self._check_at:
                self._check_at = now + CHECK_S
                self._chain.check_there()
        except Exception:
            if self._is_closed():  # another thread let go of the files just now
                return None
            raise
        if lost:
            self._lap(lost)
        return None if records is None else (records, following)

    def _lap(self, lost: int) -> None:
        """Count what is lost and stand behind it; say so unless it is to be skipped."""
        self._next, self.lost = self._next + lost, self.lost + lost
        if not self._skips:
            feed = self._chain.feed
            raise LappedError(
                f"feed {feed!r}: {self._chain.why_lost(lost)}; go on at position {self._next}",
                feed=feed, lost=lost, position=self._next,
            )  # fmt: skip

    def _is_closed(self) -> bool:
        """Any thread may close."""
        return self._closed

    def _deadline(self) -> float:
        return _FOR_EVER if self._timeout is None else time.monotonic() + self._timeout

    def _wait(self) -> tuple[npt.NDArray[Any], int] | None:
        if self._is_closed():
            return None
        found = self._take()
        if found is not None or self._timeout == 0:
            return found
        until = self._deadline()
        self._waiter.begin()
        with self._in_wait:
            while not self._is_closed():
                self._waiter.step(until)
                found = self._take()
                if found is not None or time.monotonic() >= until:
                    return found
            self._let_go()
        return None

    # --- event loops ---------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        """As `__next__`, without blocking the event loop; lets other tasks run before each batch.

        Raises
        ------
        StopAsyncIteration
            After `timeout` seconds without a record, or after `close`.
        LappedError, FeedNotFoundError, ChunkGoneError, CorruptFileError
        """
        import asyncio

        await asyncio.sleep(0)
        until, looks = self._deadline(), 0
        self._waiter.begin()
        while not self._closed:
            found = self._take()
            if found is not None:
                batch, following = self._handed_out(found[0]), found[1]
                self._next = following
                return batch
            if time.monotonic() >= until:
                break
            looks += 1
            if self._spins or looks < _POLITE_LOOKS:
                await asyncio.sleep(0)
            else:
                until_now = min(until, time.monotonic() + _THREAD_STEP_S)
                try:
                    await asyncio.get_running_loop().run_in_executor(self._thread(), self._step, until_now)
                except RuntimeError:
                    if not self._closed:  # else another thread closed it, and the executor, just now
                        raise
        self._end_thread()
        raise StopAsyncIteration

    def _thread(self) -> Any:
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="deepwater-follow")
        return self._executor

    def _end_thread(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def _step(self, until: float) -> None:
        """Steps of waiting in a thread of its own, until one of them saw something, or for so long."""
        with self._in_wait:
            while not self._closed and time.monotonic() < until:
                self._waiter.step(until)
                if not self._waiter.nothing_new():
                    break
            if self._closed:
                self._let_go()


def as_tuples(batches: Iterable[npt.NDArray[Any]], rows: int = 1024) -> Iterator[tuple[Any, ...]]:
    """The records of batches as tuples of Python values, `rows` of them converted at a time."""
    for records in batches:
        for start in range(0, len(records), rows):
            yield from records[start : start + rows].tolist()


def as_records(batches: Iterable[npt.NDArray[Any]], size: int) -> Iterator[memoryview]:
    """The records of batches one by one, as read-only views of their packed bytes."""
    for records in batches:
        data = as_bytes(records)
        for at in range(0, len(data), size):
            yield data[at : at + size]


def as_bytes(records: npt.NDArray[Any]) -> memoryview:
    """The packed bytes of contiguous records; a read-only view that keeps their memory alive."""
    return records.view(np.uint8).data.toreadonly()
