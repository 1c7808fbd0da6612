"""Several feeds in one order, block by block: the k-way merge beneath a replay.

Records are in the order of (key, lane, position); `lanes` says what the key of a record is.

A step takes from every lane what sorts at or before the horizon: the least (last key, lane) of the blocks
that may have more behind them. What a lane has not read yet sorts after its last key, so nothing is taken
too early, the lane of the horizon is emptied, and every step gets on. One stable sort of the prefixes and
the ends of its runs are all that is computed; no Python runs for a record, but for what is handed out.

Memory is bounded by the blocks of the lanes: beside them a key and a place for each record. It knows neither
pace nor threads: `playback` does.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from deepwater.lanes import NO_KEYS, Batch, Event, Keys, Lane
from deepwater.timestamps import MAX_US

PORTION = 256
"""Batches or events made at a time: more of them no longer fit a cache."""


class Merger:
    """The lanes merged, a block at a time.

    Attributes
    ----------
    left : int
        Records of the merged block not taken yet.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
        self.clear()

    def clear(self) -> None:
        """Forget the merged block (the lanes were placed elsewhere)."""
        self._hold(NO_KEYS, np.empty(0, np.intp))
        self._before: int | None = None

    def _hold(self, keys: Keys, order: npt.NDArray[np.intp]) -> None:
        self._keys, self._order = keys, order
        last = np.flatnonzero(order[1:] != order[:-1])  # of each run but the last one
        self._ends: list[int] = [*(last + 1).tolist(), len(order)]
        self._owners: list[int] = [*order[last].tolist(), *order[-1:].tolist()]
        self._at = self._run = 0

    @property
    def left(self) -> int:
        """Records of the merged block not taken yet."""
        return len(self._keys) - self._at

    @property
    def next_key(self) -> int:
        """The key of the next record; `left` is not 0."""
        return int(self._keys[self._at])

    def key_before(self, back: int) -> int | None:
        """The key of the last record taken but for `back` of them; None if there is none."""
        at = self._at - back
        return int(self._keys[at - 1]) if at else self._before

    def due(self, until: int) -> int:
        """How many records of the block have a key of at most `until`."""
        return int(self._keys[self._at :].searchsorted(np.uint64(min(until, MAX_US)), "right"))

    def load(self) -> bool:
        """Merge the next block when the last one is used up; False if nothing is there (now)."""
        assert not self.left
        self._before = self.key_before(0)
        filled = [(number, lane) for number, lane in enumerate(self.lanes) if lane.fill()]
        limits = [(int(lane.keys[-1]), number) for number, lane in filled if lane.has_more]
        horizon, last = min(limits, default=(MAX_US, len(self.lanes)))
        parts = [_prefix(lane, horizon, "right" if number <= last else "left") for number, lane in filled]
        if len(parts) == 1:
            self._hold(parts[0], np.full(len(parts[0]), filled[0][0], np.intp))
        elif parts:
            keys = np.concatenate(parts)
            order = np.repeat([number for number, _ in filled], [len(part) for part in parts])
            by_key = keys.argsort(kind="stable")
            self._hold(keys[by_key], order[by_key])
        else:
            self._hold(NO_KEYS, np.empty(0, np.intp))
        return self.left > 0

    def batches(self, most: int) -> list[Batch]:
        """Take at most `most` records as batches, one for each run of a lane."""
        at, run, stop = self._at, self._run, self._at + most
        last = min(bisect_left(self._ends, stop), run + PORTION - 1)
        ends = [*self._ends[run:last], min(self._ends[last], stop)]
        starts = [at, *ends[:-1]]
        times = self._keys[starts].tolist()
        runs = zip(self._owners[run : last + 1], starts, ends, times, strict=True)
        lanes = self.lanes
        out = [lanes[owner].batch(end - start, time_us) for owner, start, end, time_us in runs]
        self._move(ends[-1] - at)
        return out

    def events(self, most: int) -> list[Event]:
        """Take at most `most` records as events."""
        order = self._order[self._at : self._at + min(most, PORTION)]
        counts = np.bincount(order, minlength=len(self.lanes)).tolist()
        streams = [lane.events(n) if n else iter(()) for lane, n in zip(self.lanes, counts, strict=True)]
        self._move(len(order))
        return [next(streams[number]) for number in order.tolist()]

    def give_back(self, n: int) -> None:
        """Have the last `n` records taken again: they are the next."""
        self._move(-n)
        back = np.bincount(self._order[self._at : self._at + n], minlength=len(self.lanes)).tolist()
        for lane, rows in zip(self.lanes, back, strict=True):
            lane.at -= rows

    def _move(self, n: int) -> None:
        self._at += n
        self._run = bisect_right(self._ends, self._at)


def _prefix(lane: Lane, horizon: int, side: Literal["left", "right"]) -> Keys:
    keys = lane.keys[lane.at :]
    return keys[: keys.searchsorted(np.uint64(horizon), side)]


def size(items: Iterable[Batch | Event]) -> dict[str, int]:
    """How many records of each feed are in batches or events."""
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.feed] = sizes.get(item.feed, 0) + (len(item.records) if isinstance(item, Batch) else 1)
    return sizes
