"""Levels of one side of a book in a dict and a sorted list: the incremental side of `deepwater.book`.

The vectorised one is `levels.Ladder`; both know a level by the integer key of its price.
"""

from __future__ import annotations

from bisect import insort
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater.levels import ASK, LEVEL_DTYPE, keys_of, prices_of

Array = npt.NDArray[Any]
_DEAD_LEVELS = 64


class Side:
    """Levels of one side by key, ascending to the best in `order`.

    One that was removed keeps its place, with a quantity of 0, until such are half of all or it is the best: most come
    back, and to take a key out of a long list costs more than all else.
    """

    __slots__ = ("dead", "flip", "order", "qty")

    def __init__(self, side: bytes) -> None:
        self.flip = -1 if side == ASK else 0
        self.qty: dict[int, float] = {}
        self.order: list[int] = []
        self.dead = 0

    def __len__(self) -> int:
        return len(self.order) - self.dead

    def write(self, price: Array, qty: Array) -> None:
        """Set levels in the order given; a quantity of 0 removes, and may name an absent level."""
        levels, order, dead = self.qty, self.order, self.dead
        get = levels.get
        for key, amount in zip((keys_of(price) ^ np.int64(self.flip)).tolist(), qty.tolist(), strict=True):
            old = get(key)
            if amount:
                if old is None:
                    insort(order, key)
                elif not old:
                    dead -= 1
                levels[key] = amount
            elif old:
                levels[key] = 0.0
                dead += 1
        self.dead = dead
        self._bury()

    def _bury(self) -> None:
        levels, order = self.qty, self.order
        while order and not levels[order[-1]]:
            del levels[order.pop()]
            self.dead -= 1
        if self.dead > max(_DEAD_LEVELS, len(order) // 2):
            self.qty = {key: amount for key, amount in levels.items() if amount}
            self.order = [key for key in order if levels[key]]
            self.dead = 0

    def best(self) -> tuple[float, float] | None:
        """Price and quantity of the best level; None if there is none."""
        if not self.order:
            return None
        key = self.order[-1]
        return float(prices_of(np.array([key ^ self.flip], np.int64))[0]), self.qty[key]

    def levels(self, depth: int | None) -> Array:
        """The best `depth` levels (None: all), best first, of `LEVEL_DTYPE`; a copy."""
        count = len(self) if depth is None else min(depth, len(self))
        width = count + _DEAD_LEVELS
        while True:
            keys = self.order[-width:]
            amounts = np.array([*map(self.qty.__getitem__, keys)], np.float64)
            live = np.flatnonzero(amounts)[::-1][:count]
            if len(live) == count:
                break
            width *= 4
        out = np.empty(count, LEVEL_DTYPE)
        out["price"], out["qty"] = prices_of(np.array(keys, np.int64)[live] ^ np.int64(self.flip)), amounts[live]
        return out
