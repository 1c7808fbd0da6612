"""Levels of a book as sorted arrays: the vectorised side of `deepwater.book`. Functions of record arrays.

A record says how much rests now on one side at one price (`side` b"B" or b"A", `price`, `qty`; 0: nothing), so of all
records the last one of each (side, price) is the book. Nothing here steps over records in Python.

*Keys.* A price is the 64 bits of its float64 as an int64, those of negative prices turned round: exact for every
finite price, and in the order of the prices. Rejected: ticks of a given size, since the size would have to be known
for each product and changes over the years; two prices are one level exactly if they are the same float64, which is
what the nearest float of one decimal text is.

*Last writes.* A stable sort of all keys costs more than all else together. Instead each record writes its row number
into a table at the hash of its key: the last one stays (NumPy assigns repeated indices in order). A key whose slot was
taken by another key is one of a few, and those few are sorted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepwater.errors import RecordError

BID, ASK = b"B", b"A"
LEVEL_DTYPE = np.dtype([("price", np.float64), ("qty", np.float64)])
"""A level of one side."""
BLOCK_ROWS = 1 << 15
"""How many records to take at once: so many of 64 bytes stay in a processor's cache while their columns are read."""

Array = npt.NDArray[Any]
Keys = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

_MAGNITUDE = np.int64(2**63 - 1)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SORTED_ROWS = 2048  # fewer are sorted sooner than hashed
_FEW_ROWS = 256
_UNSETTLED_ROWS = 1 << 18
_DEAD_ROWS = 1024
_TINY = 5e-324  # the least float64 above 0
_COLUMNS = {
    "side": ("S", "expected one character"),
    "price": ("fiu", "expected a number"),
    "qty": ("fiu", "expected a number"),
}


def checked_depth(depth: Any) -> int | None:
    """Return a number of levels.

    Raises
    ------
    ValueError
        It is neither None nor a whole number of 0 or more.
    """
    if depth is None:
        return None
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or int(depth) < 0:
        raise ValueError(f"depth={depth!r}: a whole number of levels, 0 or more, or None for all")
    return int(depth)


def checked(records: Array) -> Array:
    """Return records that have what a book is made of.

    Raises
    ------
    RecordError
        A column is missing, or is not of its kind.
    """
    for name, (kinds, what) in _COLUMNS.items():
        if name not in (records.dtype.names or ()):
            raise RecordError(f"no column {name!r} in the records: a book is made of side, price and qty", column=name)
        found = records.dtype[name]
        if found.kind not in kinds or found.shape or (found.kind == "S" and found.itemsize != 1):
            raise RecordError(f"column {name!r} is {found}: no book is made of it, {what}", column=name)
    return records


def keys_of(price: Array) -> Keys:
    """Integers that are equal where prices are and sort as they do: int64 of float64, of its shape; a copy."""
    bits = np.add(price, 0.0, dtype=np.float64).view(np.int64)  # a copy, and -0.0 is 0.0
    return np.where(bits < 0, bits ^ _MAGNITUDE, bits) if bits.size and int(bits.min()) < 0 else bits


def prices_of(keys: Keys) -> Floats:
    """The prices of keys: the reverse of `keys_of`, exact; a copy."""
    prices: Floats = np.where(keys < 0, keys ^ _MAGNITUDE, keys).view(np.float64)
    return prices


class Split(NamedTuple):
    """Records by side. Copies."""

    bids: tuple[Floats, Floats]
    """Price and quantity, in the order of the records."""
    asks: tuple[Floats, Floats]
    none: Rows
    """The rows that are no level."""


def split(records: Array) -> Split:
    """Part records into bids, asks, and those that are no level.

    No level is what has another side than b"B" and b"A", a price or quantity that is not finite, or a quantity below
    0. Placeholders of a repair are such.
    """
    side = records["side"].view(np.uint8)
    price, qty = np.ascontiguousarray(records["price"]), np.ascontiguousarray(records["qty"])
    bids, asks = np.flatnonzero(side == BID[0]), np.flatnonzero(side == ASK[0])
    none = np.zeros(0, np.intp)
    if len(bids) + len(asks) < len(side) or not _are_between(price, -np.inf) or not _are_between(qty, -_TINY):
        good = ((side == BID[0]) | (side == ASK[0])) & np.isfinite(price) & np.isfinite(qty) & (qty >= 0)
        none = np.flatnonzero(~good)
        bids, asks = (np.setdiff1d(rows, none, assume_unique=True) for rows in (bids, asks))
    return Split((price[bids], qty[bids]), (price[asks], qty[asks]), none)


def _are_between(values: Floats, low: float) -> bool:
    """Whether all are above `low` and finite; of no value True. A NaN makes both bounds NaN."""
    return not len(values) or bool(values.min() > low and values.max() < np.inf)


def last_writes(keys: Keys) -> Rows:
    """Where each of the keys stands last: one row a distinct key, in no order."""
    if len(keys) <= _SORTED_ROWS:
        return _last_by_sort(keys)
    bits = keys.view(np.uint64)
    width = min(18, len(keys).bit_length())
    slots = (((bits ^ (bits >> np.uint64(29))) * _GOLDEN) >> np.uint64(64 - width)).astype(np.intp)
    numbers = np.arange(len(keys), dtype=np.intp)
    table = np.empty(1 << width, np.intp)  # read only where it was written
    table[slots] = numbers
    newest = table[slots]
    last = np.flatnonzero(newest == numbers)
    others = np.flatnonzero(keys[newest] != keys)
    if not len(others):
        return last
    return np.concatenate((last, others[_last_by_sort(keys[others])]))


def _last_by_sort(keys: Keys) -> Rows:
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    is_last = np.ones(len(keys), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=is_last[:-1])
    return order[is_last]


class Ladder:
    """One side of a book: its levels, best first.

    `ranks` ascend from the best: the key of an ask, the complement of the key of a bid. Writes are gathered and
    merged when somebody looks, or when they are many. A level that was removed keeps its place, with a quantity of 0,
    until such are half of all: most come back. So memory is bounded by the levels.
    """

    __slots__ = ("_dead", "_flip", "_qty", "_ranks", "_unsettled", "_waiting")

    def __init__(self, side: bytes) -> None:
        self._flip = np.int64(-1 if side == BID else 0)  # x ^ -1 is ~x
        self._ranks, self._qty = np.zeros(0, np.int64), np.zeros(0, np.float64)
        self._waiting: list[tuple[Keys, Floats]] = []
        self._unsettled = self._dead = 0

    def write(self, price: Array, qty: Array) -> None:
        """Set levels in the order given: the last write of a price wins, a quantity of 0 removes; `qty` is kept."""
        if not len(price):
            return
        ranks = keys_of(price) ^ self._flip
        if len(ranks) > _FEW_ROWS:  # of few the last ones are found once, together
            last = last_writes(ranks)
            ranks, qty = ranks[last], qty[last]
        self._waiting.append((ranks, qty))
        self._unsettled += len(ranks)
        if self._unsettled > max(_UNSETTLED_ROWS, 2 * len(self._ranks)):
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        ranks, qty = self._waiting[0]
        if len(self._waiting) > 1:
            ranks, qty = (np.concatenate(arrays) for arrays in zip(*self._waiting, strict=True))
        if len(self._waiting) > 1 or len(ranks) <= _FEW_ROWS:
            last = last_writes(ranks)
            ranks, qty = ranks[last], qty[last]
        self._waiting, self._unsettled = [], 0
        order = np.argsort(ranks)
        self._merge(ranks[order], qty[order])

    def _merge(self, ranks: Keys, qty: Floats) -> None:
        """Take writes of distinct ranks, ascending."""
        at = np.searchsorted(self._ranks, ranks)
        known = np.zeros(len(ranks), np.bool_)
        inside = at < len(self._ranks)
        known[inside] = self._ranks[at[inside]] == ranks[inside]
        old, here = at[known], qty[known]
        self._dead += int(np.count_nonzero(self._qty[old])) - int(np.count_nonzero(here))
        self._qty[old] = here
        new = ~known & (qty > 0)
        if new.any():
            self._ranks = np.insert(self._ranks, at[new], ranks[new])
            self._qty = np.insert(self._qty, at[new], qty[new])
        if self._dead > max(_DEAD_ROWS, len(self._ranks) // 2):
            live = self._qty > 0
            self._ranks, self._qty, self._dead = self._ranks[live], self._qty[live], 0

    def _best(self, depth: int) -> Rows:
        """Where the best `depth` levels are."""
        self._settle()
        width = depth + 64
        while True:
            live = np.flatnonzero(self._qty[:width])[:depth]
            if len(live) == depth or width >= len(self._qty):
                return live
            width *= 4

    def __len__(self) -> int:
        self._settle()
        return len(self._ranks) - self._dead

    def levels(self, depth: int | None = None) -> Array:
        """The best `depth` levels (None: all), best first, of `LEVEL_DTYPE`; a copy."""
        live = self._best(len(self) if depth is None else depth)
        out = np.empty(len(live), LEVEL_DTYPE)
        out["price"], out["qty"] = prices_of(self._ranks[live] ^ self._flip), self._qty[live]
        return out

    def best(self) -> tuple[float, float] | None:
        """Price and quantity of the best level; None if there is none."""
        live = self._best(1)
        if not len(live):
            return None
        return float(prices_of(self._ranks[live] ^ self._flip)[0]), float(self._qty[live[0]])

    def fill(self, price: Array, qty: Array) -> None:
        """Write the best levels into two arrays of one length, NaN beyond the book."""
        live = self._best(len(price))
        count = len(live)
        price[:count], qty[:count] = prices_of(self._ranks[live] ^ self._flip), self._qty[live]
        price[count:], qty[count:] = np.nan, np.nan


class Ladders:
    """Both sides of a book."""

    __slots__ = ("asks", "bids", "first_bad", "position")

    def __init__(self, position: int) -> None:
        self.bids, self.asks = Ladder(BID), Ladder(ASK)
        self.position = position
        self.first_bad: int | None = None

    def take(self, records: Array) -> None:
        """Take records, from `position` on, which goes on behind them.

        Those that are no level are left out; `first_bad` is the position of the first.
        """
        for start in range(0, len(records), BLOCK_ROWS):
            self._take(records[start : start + BLOCK_ROWS])

    def _take(self, block: Array) -> None:
        found = split(block)
        if len(found.none) and self.first_bad is None:
            self.first_bad = self.position + int(found.none[0])
        self.bids.write(*found.bids)
        self.asks.write(*found.asks)
        self.position += len(block)
