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

from typing import Any

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
_UNSETTLED_ROWS = 1 << 18


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
        A column is missing.
    """
    for name in ("side", "price", "qty"):
        if name not in (records.dtype.names or ()):
            raise RecordError(f"no column {name!r} in the records: a book is made of side, price and qty", column=name)
    return records


def keys_of(price: Array) -> Keys:
    """Integers that are equal where prices are and sort as they do: int64 of float64, of its shape; a copy."""
    bits = np.add(price, 0.0, dtype=np.float64).view(np.int64)  # a copy, and -0.0 is 0.0
    return np.where(bits < 0, bits ^ _MAGNITUDE, bits) if bits.size and int(bits.min()) < 0 else bits


def prices_of(keys: Keys) -> Floats:
    """The prices of keys: the reverse of `keys_of`, exact; a copy."""
    prices: Floats = np.where(keys < 0, keys ^ _MAGNITUDE, keys).view(np.float64)
    return prices


def no_levels(records: Array) -> Rows:
    """The rows that are no level: another side than b"B" and b"A", a price or quantity not finite, one below 0.

    Placeholders of a repair are such.
    """
    side, price, qty = _sides(records), records["price"], records["qty"]
    good = (side == BID[0]) | (side == ASK[0])
    good &= np.abs(price) < np.inf  # false of NaN
    good &= (qty >= 0) & (qty < np.inf)
    return np.zeros(0, np.intp) if good.all() else np.flatnonzero(~good)


def _sides(records: Array) -> npt.NDArray[np.uint8]:
    return records["side"].view(np.uint8)


def rows_of(records: Array, side: bytes, none: Rows) -> Rows:
    """The rows that are levels of one side, but for those that are no level (`none`, of `no_levels`)."""
    rows = np.flatnonzero(_sides(records) == side[0])
    return np.setdiff1d(rows, none, assume_unique=True) if len(none) else rows


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
    merged when somebody looks, or when they are many: memory is bounded by the distinct levels.
    """

    __slots__ = ("_flip", "_qty", "_ranks", "_unsettled", "_waiting")

    def __init__(self, side: bytes) -> None:
        self._flip = np.int64(-1 if side == BID else 0)  # x ^ -1 is ~x
        self._ranks, self._qty = np.zeros(0, np.int64), np.zeros(0, np.float64)
        self._waiting: list[tuple[Keys, Floats]] = []
        self._unsettled = 0

    def write(self, price: Array, qty: Array) -> None:
        """Set levels in the order given: the last write of a price wins, a quantity of 0 removes; copies."""
        if not len(price):
            return
        ranks = keys_of(price) ^ self._flip
        last = last_writes(ranks)
        self._waiting.append((ranks[last], qty[last]))
        self._unsettled += len(last)
        if self._unsettled > max(_UNSETTLED_ROWS, 2 * len(self._ranks)):
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        if len(self._waiting) == 1:
            ranks, qty = self._waiting[0]
        else:
            ranks, qty = (np.concatenate(arrays) for arrays in zip(*self._waiting, strict=True))
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
        self._qty[at[known]] = qty[known]
        new = ~known & (qty > 0)
        if new.any():
            self._ranks = np.insert(self._ranks, at[new], ranks[new])
            self._qty = np.insert(self._qty, at[new], qty[new])
        if (known & (qty == 0)).any():
            kept = self._qty > 0
            self._ranks, self._qty = self._ranks[kept], self._qty[kept]

    def __len__(self) -> int:
        self._settle()
        return len(self._ranks)

    def levels(self, depth: int | None = None) -> Array:
        """The best `depth` levels (None: all), best first, of `LEVEL_DTYPE`; a copy."""
        self._settle()
        ranks = self._ranks[:depth]
        out = np.empty(len(ranks), LEVEL_DTYPE)
        out["price"], out["qty"] = prices_of(ranks ^ self._flip), self._qty[:depth]
        return out

    def fill(self, price: Array, qty: Array) -> None:
        """Write the best levels into two arrays of one length, NaN beyond the book."""
        self._settle()
        count = min(len(price), len(self._ranks))
        price[:count], qty[:count] = prices_of(self._ranks[:count] ^ self._flip), self._qty[:count]
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
        none = no_levels(block)
        if len(none) and self.first_bad is None:
            self.first_bad = self.position + int(none[0])
        for ladder, side in ((self.bids, BID), (self.asks, ASK)):
            rows = rows_of(block, side, none)
            ladder.write(block["price"][rows], block["qty"][rows])
        self.position += len(block)
