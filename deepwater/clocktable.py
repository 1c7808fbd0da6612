"""One clock of a feed's sealed chunks: a table to search, as lists by chunk.

Prefix maxima and suffix minima of a clock are monotone even where the clock is not, so two binary searches bound the
chunks that can hold an answer (`deepwater.chain`).
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from deepwater import format as fmt
from deepwater.feed_registry import Rows

_MAX_US = 2**64 - 1


class ClockTable:
    """One clock of the sealed chunks, as lists by chunk; a chunk without records can hold nothing."""

    __slots__ = ("floor", "highs", "in_order", "lows", "reach", "unsorted")

    def __init__(self, rows: Rows, clock: int) -> None:
        held = rows["count"] > 0
        lows = np.where(held, rows["min"][:, clock], np.uint64(_MAX_US))
        highs = np.where(held, rows["max"][:, clock], np.uint64(0))
        self.lows: list[int] = lows.tolist()
        self.highs: list[int] = highs.tolist()
        self.unsorted: list[bool] = (rows["unsorted"][:, clock] != 0).tolist()
        self.reach: list[int] = np.maximum.accumulate(highs).tolist()
        self.floor: list[int] = np.minimum.accumulate(lows[::-1])[::-1].tolist()
        steps_back = bool((lows[held][1:] < highs[held][:-1]).any())
        self.in_order = not steps_back and not any(self.unsorted)

    def enter(self, index: int, bounds: fmt.ClockBounds, held: bool) -> None:
        """Make `bounds` those of the last chunk, number `index`."""
        for column in (self.lows, self.highs, self.unsorted, self.reach, self.floor):
            del column[index:]
        low, high = (bounds.low, bounds.high) if held else (_MAX_US, 0)
        if held and (bounds.unsorted or (self.reach and low < self.reach[-1])):
            self.in_order = False
        self.lows.append(low)
        self.highs.append(high)
        self.unsorted.append(bounds.unsorted)
        self.reach.append(max(high, self.reach[-1]) if self.reach else high)
        at = bisect_right(self.floor, low)
        self.floor[at:] = [low] * (index - at)  # one step: an interrupt leaves it done or not
        self.floor.append(low)
