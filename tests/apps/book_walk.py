"""A book in two dicts of decimals, stepped over record by record; and a number that stands for all levels of a book.

The dicts are the oracle: no code of the package. The number lets another process say which book it was given without
sending 46,000 levels: the sum over all levels of a hash of side, price and quantity, modulo 2**64. The walk keeps it up
to date level by level in plain integers, `digest_of` works it out of arrays.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np

_ONE, _TWO, _THREE = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93
_MASK = 2**64 - 1
Level = tuple[float, float]


def _hash(side: bytes, price: float, qty: float) -> int:
    p, q = struct.unpack("<QQ", struct.pack("<dd", price, qty))
    mixed = ((p * _ONE) ^ (q * _TWO + side[0])) & _MASK
    return ((mixed ^ (mixed >> 31)) * _THREE) & _MASK


def digest_of(bids: np.ndarray, asks: np.ndarray) -> int:
    """The number of a book, of arrays of levels."""
    total = 0
    for side, levels in ((b"B", bids), (b"A", asks)):
        p, q = (np.ascontiguousarray(levels[name]).view(np.uint64) for name in ("price", "qty"))
        mixed = (p * np.uint64(_ONE)) ^ (q * np.uint64(_TWO) + np.uint64(side[0]))
        hashed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(_THREE)
        total += int(hashed.sum(dtype=np.uint64))
    return total & _MASK


class DecimalBook:
    """The book after the records before `at`.

    Parameters
    ----------
    rows : iterable of (side, price, qty)
        All records of the feed, prices and quantities as text.
    snapshots, gaps : iterable of int
        Positions at which snapshots begin (whole writes), and before which something was missed.
    """

    def __init__(self, rows: Iterable[tuple[bytes, str, str]], snapshots: Iterable[int], gaps: Iterable[int]) -> None:
        self._rows: Iterator[tuple[bytes, str, str]] = iter(rows)
        self._snapshots, self._gaps = set(snapshots), set(gaps)
        self.sides: dict[bytes, dict[Decimal, Level]] = {b"B": {}, b"A": {}}
        self.at = self.digest = 0
        self.valid = False

    def advance(self, stop: int) -> None:
        """Take the records up to `stop`."""
        while self.at < stop:
            side, price, qty = next(self._rows)
            self.valid = self.valid and self.at not in self._gaps
            if self.at in self._snapshots:
                self.sides, self.digest, self.valid = {b"B": {}, b"A": {}}, 0, True
            self._put(side, Decimal(price), (float(price), float(qty)))
            self.at += 1

    def _put(self, side: bytes, price: Decimal, level: Level) -> None:
        before = self.sides[side].pop(price, None)
        if before is not None:
            self.digest -= _hash(side, *before)
        if level[1]:
            self.sides[side][price] = level
            self.digest += _hash(side, *level)
        self.digest &= _MASK

    def may_be(self, valid: bool) -> bool:
        """Whether who looked here may have found it so: a gap at the end may have come later."""
        return valid == self.valid or (not valid and self.at in self._gaps)

    def top(self, depth: int) -> tuple[list[Level], list[Level]]:
        """The best levels: bids, asks."""
        bids, asks = self.sides[b"B"], self.sides[b"A"]
        return [bids[p] for p in heapq.nlargest(depth, bids)], [asks[p] for p in heapq.nsmallest(depth, asks)]


def walk_of(reader: Any) -> DecimalBook:
    """The walk over all records of a feed as they are."""
    rows = reader.rows(0, reader.end).to_numpy()
    price, qty = (map(repr, rows[name].tolist()) for name in ("price", "qty"))
    columns = zip(rows["side"].tolist(), price, qty, strict=True)
    return DecimalBook(columns, reader.snapshots()["position"].tolist(), reader.gaps()["position"].tolist())


def check_records(records: np.ndarray, book: DecimalBook) -> Iterator[int]:
    """Hold records of a book, by position, against the walk; yields the position of each when the walk is there."""
    for record in records:
        book.advance(int(record["l2_position"]))
        assert book.at == record["l2_position"] and book.may_be(bool(record["valid"])), record["l2_position"]
        depth = len(record["bid_px"])
        for (px, qty), levels in zip((("bid_px", "bid_qty"), ("ask_px", "ask_qty")), book.top(depth), strict=True):
            empty = [np.nan] * (depth - len(levels))
            np.testing.assert_array_equal(record[px], [price for price, _ in levels] + empty)
            np.testing.assert_array_equal(record[qty], [amount for _, amount in levels] + empty)
        yield book.at
