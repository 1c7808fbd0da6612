"""What a chunk's header must say of its clocks before each commit.

While a clock is sorted its bounds are its first and last record, so nothing is stored. The first
step back stores ``min``, ``max`` and then ``unsorted``; afterwards a value outside widens them. All
of it happens before the commit, so a reader never sees a record outside the bounds it read after
the count. A clock that jitters sets a new maximum with nearly every record, so the stored bounds run
ahead by `SLACK_US`: a superset is true, and the seal gets the exact values, which are kept here.

A failed write may leave bounds wider than the records; the writer then starts these anew from the data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater.chunk import WritableChunk
from deepwater.format import ClockBounds

MAX_US = 2**64 - 1
SLACK_US = 1_000_000
"""How far the bounds in the header run ahead of an unsorted clock."""
SORTED, LOW, HIGH, GUARD = 0, 1, 2, 3
FEW_ROWS = 32
"""Below this, Python's `sorted` on a list is quicker than calls into NumPy."""


class ClockStats:
    """The clocks of the active chunk.

    Attributes
    ----------
    states : list of [sorted, low, high, guard]
        One per clock: whether the records are in order; the least value (0 while sorted, where the first
        record says it); the greatest; and the greatest value that the header already allows for.
    """

    __slots__ = ("_by_offset", "_chunk", "_names", "_peeks", "states")

    def __init__(self, chunk: WritableChunk, names: tuple[str, ...], offsets: tuple[int, ...], count: int) -> None:
        self._chunk, self._names = chunk, names
        self._by_offset = sorted(range(len(offsets)), key=offsets.__getitem__)
        self._peeks = peeks(tuple(sorted(offsets)), chunk.record_size)
        self.states = [_state(chunk, clock, count) for clock in range(len(names))]

    def observe(self, records: npt.NDArray[Any], data: memoryview, count: int) -> None:
        """Take in records about to be published after `count` others of the chunk; `data` is their bytes."""
        if len(records) < FEW_ROWS:
            self.observe_few(data, len(records), count)
            return
        for clock, name in enumerate(self._names):
            column = np.ascontiguousarray(records[name])
            state, first = self.states[clock], int(column[0])
            if state[SORTED] and first >= state[HIGH] and not (column[1:] < column[:-1]).any():
                state[HIGH] = int(column[-1])
            else:
                self._take(clock, first, int(column.min()), int(column.max()), False, count)

    def observe_few(self, data: bytes | memoryview, rows: int, count: int) -> None:
        """As `observe`, for few rows of packed bytes: one unpacking takes the clocks of all of them out."""
        stamps = self._peeks[rows](data)
        clocks = len(self.states)
        for column, clock in enumerate(self._by_offset):
            values = stamps[column::clocks]
            state = self.states[clock]
            if state[SORTED]:
                order = tuple(sorted(values))
                if values[0] >= state[HIGH] and order == values:
                    state[HIGH] = values[-1]
                else:
                    self._take(clock, values[0], order[0], order[-1], False, count)
            else:
                self._take(clock, values[0], min(values), max(values), False, count)

    def _take(self, clock: int, first: int, low: int, high: int, in_order: bool, count: int) -> None:
        state = self.states[clock]
        if state[SORTED]:
            if in_order and first >= state[HIGH]:
                state[HIGH] = high
                return
            start = int(self._chunk.columns[clock][0]) if count else low
            state[LOW], state[HIGH] = min(low, start), max(high, state[HIGH])
            state[SORTED] = 0
            self._guard(clock)
        elif low < state[LOW] or high > state[HIGH]:
            lower = low < state[LOW]
            state[LOW], state[HIGH] = min(low, state[LOW]), max(high, state[HIGH])
            if lower or high > state[GUARD]:
                self._guard(clock)

    def take_one(self, clock: int, value: int, count: int) -> None:
        """Take in one value that is out of order, below all others, or above the guard."""
        value = int(value)
        state = self.states[clock]
        if not state[SORTED] and value >= state[HIGH]:
            state[HIGH] = value
            self._guard(clock)
        else:
            self._take(clock, value, value, value, True, count)

    def _guard(self, clock: int) -> None:
        """Store bounds around what was seen, with slack above and below."""
        state = self.states[clock]
        state[GUARD] = min(MAX_US, state[HIGH] + SLACK_US)
        self._chunk.widen(clock, max(0, state[LOW] - SLACK_US), state[GUARD])

    def exact(self, count: int) -> tuple[ClockBounds, ...]:
        """The exact bounds of the `count` records taken in, for the seal."""
        if not count:
            return (ClockBounds(False, 0, 0),) * len(self.states)
        firsts = [int(column[0]) for column in self._chunk.columns]
        return tuple(
            ClockBounds(not state[SORTED], first if state[SORTED] else state[LOW], state[HIGH])
            for state, first in zip(self.states, firsts, strict=True)
        )


@lru_cache(maxsize=256)
def peeks(offsets: tuple[int, ...], size: int) -> list[Callable[[bytes | memoryview], tuple[int, ...]]]:
    """For each number of rows below `FEW_ROWS`: packed records to their clocks, row by row, by offset."""
    one, at = "", 0
    for offset in offsets:
        one += f"{offset - at}xQ"
        at = offset + 8
    one += f"{size - at}x"
    return [struct.Struct("<" + one * rows).unpack for rows in range(FEW_ROWS)]


def _state(chunk: WritableChunk, clock: int, count: int) -> list[int]:
    """The state of a clock after `count` published records, from the header and the data."""
    if not count:
        chunk.narrow(clock)
        return [1, 0, 0, MAX_US]
    bounds = chunk.bounds(clock, count)
    if not bounds.unsorted:
        chunk.narrow(clock)
        return [1, 0, bounds.high, MAX_US]
    column = chunk.columns[clock][:count]
    return [0, int(column.min()), int(column.max()), bounds.high]


def stamps_of(record: bytes, offsets: tuple[int, ...]) -> list[int]:
    """The clocks of one packed record."""
    return [struct.unpack_from("<Q", record, offset)[0] for offset in offsets]
