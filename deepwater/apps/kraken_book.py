"""A pair's book to a fixed depth, as Kraken has its clients keep it, and its checksum.

After each message the book is cut to the depth: Kraken sends no delete for a level that better ones push out, and
sends it anew if it comes back. The checksum is the CRC32 of the ten best asks, then the ten best bids, of each the
digits of price and quantity (`kraken.Level.text`). At depth 10 it covers the whole book, so a lost message that
changed anything is found with the next one; at a greater depth what was lost below the tenth level is found when it
comes up, or never, if it was written over.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from zlib import crc32

from deepwater.apps.kraken import Level

__all__ = ["CHECKED_LEVELS", "KrakenBook", "Side"]

CHECKED_LEVELS = 10


class Side:
    """The levels of one side, by price, ascending."""

    def __init__(self, best_last: bool) -> None:
        self._best_last = best_last
        self._prices: list[float] = []
        self._levels: dict[float, Level] = {}

    def put(self, level: Level) -> None:
        """Set a level, or remove it (quantity 0); one that is absent may be removed."""
        if level.qty:
            if level.price not in self._levels:
                insort(self._prices, level.price)
            self._levels[level.price] = level
        elif self._levels.pop(level.price, None) is not None:
            del self._prices[bisect_left(self._prices, level.price)]

    def cut(self, depth: int) -> list[Level]:
        """Forget what is beyond the depth and return it."""
        beyond = len(self._prices) - depth
        if beyond <= 0:
            return []
        part = slice(0, beyond) if self._best_last else slice(depth, None)
        gone = [self._levels.pop(price) for price in self._prices[part]]
        del self._prices[part]
        return gone

    def best(self, count: int) -> list[Level]:
        """Return the best levels, best first."""
        prices = self._prices[: -count - 1 : -1] if self._best_last else self._prices[:count]
        return [self._levels[price] for price in prices]


class KrakenBook:
    """Both sides. One owner.

    Parameters
    ----------
    depth : int
        Levels a side, as subscribed to.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self.bids = Side(best_last=True)
        self.asks = Side(best_last=False)

    def apply(self, bids: Iterable[Level], asks: Iterable[Level]) -> tuple[list[Level], list[Level]]:
        """Take the levels of a message and return what fell out of the depth: bids, asks."""
        for level in bids:
            self.bids.put(level)
        for level in asks:
            self.asks.put(level)
        return self.bids.cut(self._depth), self.asks.cut(self._depth)

    def checksum(self) -> int:
        """Return the CRC32 of the ten best levels of both sides."""
        best = [*self.asks.best(CHECKED_LEVELS), *self.bids.best(CHECKED_LEVELS)]
        return crc32(b"".join([level.text for level in best]))
