"""A lane is one feed of a merge: its follower, its bounds, and the block of records it read last.

Each record has a key, the running maximum of the lane's clock, so that no record overtakes an earlier one of
its feed; for a sorted clock the key is the clock. A record without a time (0 or 2^64-1) has the key of the one
before it. Positions are found by the same rule: the first whose key is at or after a time.

Memory is bounded by the block: `batch` records and their keys. It knows nothing of the other lanes.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, repeat
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from deepwater.errors import RecordError
from deepwater.follow import Follower, Position
from deepwater.reader import Reader
from deepwater.timestamps import MAX_US, resolve

Array = npt.NDArray[Any]
Keys = npt.NDArray[np.uint64]
Readers = Sequence[Reader] | Mapping[str, Reader]
Clocks = str | Mapping[str, str] | None
OnLap = Literal["raise", "skip"]

NO_KEYS: Keys = np.empty(0, np.uint64)


class Batch(NamedTuple):
    """Consecutive records of one feed.

    Attributes
    ----------
    feed : str
        Its name, or the name given to it.
    records : numpy.ndarray or pyarrow.RecordBatch
        Never empty. A read-only array, of a durable feed a view of its file that stays valid for ever.
    position : int
        Of the first record; the others follow it.
    time_us : int
        When the first record is due: the clock of the replay, µs since the epoch.
    """

    feed: str
    records: Any
    position: int
    time_us: int


class Event(NamedTuple):
    """One record.

    Attributes
    ----------
    time_us : int
        When it is due: the clock of the replay (never steps back within a feed), µs since the epoch.
    feed : str
    position : int
    record : named tuple
        Python values in field order; char fields are bytes.
    """

    time_us: int
    feed: str
    position: int
    record: Any


_new = tuple.__new__  # of a named tuple: what _make does, without its checks


def running_max(clock: Keys, last: int) -> Keys:
    """The keys of a block whose feed has reached `last`: they never step back; "no time" adds nothing.

    >>> running_max(np.array([5, 3, 2**64 - 1, 0, 9], np.uint64), 4).tolist()
    [5, 5, 5, 5, 9]
    """
    times = np.where(clock == np.uint64(MAX_US), np.uint64(0), clock)
    times[:1] = np.maximum(times[:1], np.uint64(last))
    return np.maximum.accumulate(times)


class Lane:
    """One feed of a merge.

    Attributes
    ----------
    records, keys : arrays
        The block: rows and their keys. Row k has position ``base + k``.
    at : int
        The first row not taken yet.
    begin, stop : int
        Positions between which it plays, half-open; `stop` None goes on with what is published.
    """

    def __init__(self, name: str, reader: Reader, clock: str, batch: int, on_lap: OnLap) -> None:
        self.name, self.reader, self.clock = name, reader, clock
        self.begin, self.stop = 0, None  # type: int, int | None
        self._options: dict[str, Any] = {"batch": batch, "timeout": 0}
        if on_lap != "raise":
            self._options["on_lap"] = on_lap
        self._follower: Follower | None = None
        self._lost = 0
        self._record = namedtuple("Record", reader.layout.names, rename=True)  # type: ignore[misc]  # names are data
        self._drop(0)

    def _drop(self, position: int) -> None:
        self.records: Array = np.empty(0, self.reader.layout.dtype)
        self.keys: Keys = NO_KEYS
        self.base, self.at = position, 0

    @property
    def position(self) -> Position:
        """The first position not taken yet."""
        return Position(self.base + self.at, self.reader.incarnation)

    @property
    def lost(self) -> int:
        """Records that were overwritten before they were read."""
        return self._lost + (0 if self._follower is None else self._follower.lost)

    @property
    def has_more(self) -> bool:
        """Whether records may follow the block."""
        assert self._follower is not None, "a lane is placed before it is read"
        return self.stop is None or self._follower.position < self.stop

    @property
    def is_done(self) -> bool:
        """Whether it has nothing left and never will have."""
        return self.at == len(self.keys) and not self.has_more

    def position_at(self, time: int) -> int:
        """The first position whose clock is at or after a time (µs); the feed's end if there is none.

        A record without a time does not count: it goes with the one before it.
        """
        if not time:
            return self.reader.first
        at = self.reader.position_of(time, self.clock)
        row = self.reader.rows(at, at + 1)
        if not len(row) or int(row[0][self.clock]) != MAX_US:
            return at
        found = self.reader.read(time, MAX_US - 1, clock=self.clock).position
        return self.reader.end if found is None else found

    def place(self, position: int) -> None:
        """Go to a position; the block is dropped."""
        follower = self.reader.follow(position=position, **self._options)
        self.close()
        self._follower, self._last = follower, 0
        self._drop(int(position))

    def seek(self, time: int) -> None:
        """Go to the first record at or after a time, within begin and stop."""
        position = max(self.begin, self.position_at(time))
        self.place(position if self.stop is None else min(position, self.stop))

    def fill(self) -> bool:
        """Whether the block has rows to take; reads the next one if it is used up. Never waits."""
        if self.at < len(self.keys):
            return True
        follower = self._follower
        assert follower is not None, "a lane is placed before it is read"
        if not self.has_more:
            return False
        records = follower.poll()
        if records is None:
            return False
        position = int(follower.position) - len(records)  # of a ring perhaps beyond what was lost
        if self.stop is not None:
            records = records[: max(0, self.stop - position)]
        if records.flags.writeable:  # the copy of a ring
            records.flags.writeable = False
        keys = running_max(records[self.clock], self._last)
        self.records, self.keys, self.base, self.at = records, keys, position, 0
        if len(keys):
            self._last = int(keys[-1])
        return len(keys) > 0

    def batch(self, n: int, time_us: int) -> Batch:
        """Take `n` rows as a batch; the first is due at `time_us`."""
        at = self.at
        self.at = stop = at + n
        return _new(Batch, (self.name, self.records[at:stop], self.base + at, time_us))

    def events(self, n: int) -> Iterator[Event]:
        """Take `n` rows as events."""
        rows = slice(self.at, self.at + n)
        position, self.at = self.base + self.at, rows.stop
        records = map(_new, repeat(self._record), self.records[rows].tolist())
        return map(_new, repeat(Event), zip(self.keys[rows].tolist(), repeat(self.name), count(position), records))

    def close(self) -> None:
        """Let go of the follower; arrays handed out stay valid."""
        if self._follower is not None:
            self._lost += self._follower.lost
            self._follower.close()
            self._follower = None


# --- the lanes of a replay -----------------------------------------------------------------------------


def lanes_of(readers: Readers, clock: Clocks, batch: int, on_lap: OnLap) -> list[Lane]:
    """Make the lanes of readers, in their order.

    Raises
    ------
    ValueError, TypeError, RecordError
    """
    named = _named(readers)
    clocks = dict(clock) if isinstance(clock, Mapping) else dict.fromkeys(named, clock)
    _refuse_unknown(clocks, named, "clock")
    return [Lane(name, reader, _clock(name, reader, clocks.get(name)), batch, on_lap) for name, reader in named.items()]


def _named(readers: Readers) -> dict[str, Reader]:
    if hasattr(readers, "follow"):
        raise TypeError("merge takes several readers: merge([reader, …])")
    pairs = list(readers.items()) if isinstance(readers, Mapping) else [(reader.feed, reader) for reader in readers]
    if not pairs:
        raise ValueError("there is no reader to play: give at least one")
    named = dict(pairs)
    if len(named) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two readers are of a feed {twice!r}: give a dict of names to readers")
    return named


def _clock(name: str, reader: Reader, clock: str | None) -> str:
    layout = reader.layout
    if clock is None:
        return layout.ts_col
    if clock not in layout.clocks:
        raise RecordError(
            f"feed {name!r}: {clock!r} is no clock; its clocks are {', '.join(layout.clocks)}", column=clock
        )
    return clock


def _refuse_unknown(given: Iterable[str], names: Iterable[str], what: str) -> None:
    for name in given:
        if name not in names:
            raise ValueError(f"{what}: {name!r} is not played; the feeds are {', '.join(names)}")


def bound(lanes: Sequence[Lane], start: Any, end: Any, live: bool) -> None:
    """Say between which positions each lane plays. What is published is looked at first, of all lanes.

    Raises
    ------
    TimeFormatError
    """
    bounds = resolve(start, end)
    ends = [lane.reader.end for lane in lanes]
    for lane, stop in zip(lanes, ends, strict=True):
        if bounds.empty:
            lane.begin = lane.stop = stop
            continue
        lane.begin = lane.reader.first if start is None else lane.position_at(bounds.lo)
        if not live:
            lane.stop = stop if bounds.hi == MAX_US else min(stop, lane.position_at(bounds.hi + 1))


def place(lanes: Sequence[Lane], positions: Mapping[str, int]) -> None:
    """Put each lane where it was, or where it begins.

    Raises
    ------
    ValueError, RecordError
    """
    _refuse_unknown(positions, [lane.name for lane in lanes], "positions")
    for lane in lanes:
        lane.place(positions.get(lane.name, lane.begin))
