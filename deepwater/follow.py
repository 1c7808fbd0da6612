"""A cursor from history to live: every position once, in order, across rotations.

A follower is a position and a chain of its own (so it may run in another thread than its reader). It
hands out what is published beyond its position, chunk by chunk as views, and waits for more by looking
at one word in shared memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from deepwater import arrow
from deepwater.chain import Chain
from deepwater.errors import ChunkGoneError, ClosedError, FeedNotFoundError
from deepwater.layout import Layout

SPIN_LOOKS = 20
"""Looks that only give way to others before a waiting follower sleeps."""
LOOKS_FOR_DELETION = 1000
SHORTEST_SLEEP_S, LONGEST_SLEEP_S = 50e-6, 2e-3


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
    """An iterator of batches. Made by `Reader.follow`.

    Attributes
    ----------
    position : Position
        The next position to be handed out. Give it to ``follow(position=…)`` to go on there.
    lost : int
        Records that were gone before this follower came to them.

    Notes
    -----
    One thread at a time; `close` may be called from any. A context manager.
    """

    def __init__(self, chain: Chain, position: int, incarnation: str, *, as_: str = "numpy", batch: int | None = None,
                 timeout: float | None = None, spin: bool = False) -> None:  # fmt: skip
        self._chain, self._next, self._incarnation = chain, position, incarnation
        self._as_arrow, self._batch, self._timeout, self._spin = as_ == "arrow", batch, timeout, spin
        self._closed = False
        self.lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next batch: a read-only view (a copy with ``as_="arrow"``), never empty.

        Raises
        ------
        StopIteration
            After `timeout` seconds without a record, or after `close`.
        ChunkGoneError, CorruptFileError
        """
        records = self._wait()
        if records is None:
            raise StopIteration
        return arrow.record_batch(self._chain.layout, records) if self._as_arrow else records

    @property
    def position(self) -> Position:
        """The next position to be handed out."""
        return Position(self._next, self._incarnation)

    @property
    def layout(self) -> Layout:
        """Of the records."""
        return self._chain.layout

    def close(self) -> None:
        """End the iteration. Arrays handed out stay valid."""
        self._closed = True

    def poll(self) -> npt.NDArray[Any] | None:
        """What is there now of the next chunk, at most `batch` records; None if nothing is. Never waits."""
        if self._closed:
            raise ClosedError(f"this follower of feed {self._chain.feed!r} is closed")
        chain = self._chain
        if self._next >= chain.end and chain.refresh() <= self._next:
            return None
        if self._next < chain.first:
            raise ChunkGoneError(
                f"feed {chain.feed!r}: position {self._next} is gone; the oldest record held is {chain.first}: "
                f"start there with position={chain.first}", feed=chain.feed, chunk_id=None,
            )  # fmt: skip
        index = chain.index_of(self._next)
        base = chain.base(index)
        stop = base + chain.count(index)
        if self._batch is not None:
            stop = min(stop, self._next + self._batch)
        records = chain.records(index)[self._next - base : stop - base]
        self._next = stop
        return records

    def _wait(self) -> npt.NDArray[Any] | None:
        looks, sleep = 0, SHORTEST_SLEEP_S
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._closed:
            records = self.poll()
            if records is not None:
                return records
            if deadline is not None and time.monotonic() >= deadline:
                return None
            looks += 1
            if looks % LOOKS_FOR_DELETION == 0 and self._chain.directory.is_gone:
                feed = self._chain.feed
                raise FeedNotFoundError(f"feed {feed!r} was deleted while it was followed", feed=feed)
            if self._spin or looks < SPIN_LOOKS:
                os.sched_yield()
            else:
                time.sleep(sleep if deadline is None else max(0.0, min(sleep, deadline - time.monotonic())))
                sleep = min(LONGEST_SLEEP_S, sleep * 1.2)
        return None


def as_tuples(batches: Iterator[npt.NDArray[Any]], rows: int = 1024) -> Iterator[tuple[Any, ...]]:
    """The records of batches as tuples of Python values, `rows` of them converted at a time."""
    for records in batches:
        for start in range(0, len(records), rows):
            yield from records[start : start + rows].tolist()


def as_bytes(records: npt.NDArray[Any]) -> memoryview:
    """The packed bytes of contiguous records; a read-only view that keeps their memory alive."""
    return records.view(np.uint8).data.toreadonly()
