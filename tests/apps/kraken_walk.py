"""An independent walk over Kraken v2 messages: what the feeds must hold, said by other code.

json, zlib and Decimal only; nothing of deepwater, no NumPy, no floats. Numbers are read as the texts that were sent.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Side = dict[Decimal, tuple[str, str]]  # texts of price and quantity, by price


@dataclass
class Moment:
    """A book after a message: both sides, best first, as texts; and the checksum that was sent."""

    kind: str
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]
    checksum: int
    sent: int  # levels in the message


@dataclass
class Pair:
    """One pair's messages, and its trades by id."""

    moments: list[Moment] = field(default_factory=list)
    trades: dict[int, dict[str, Any]] = field(default_factory=dict)
    right: int = 0  # checksums that are right
    book: tuple[Side, Side] = field(default_factory=lambda: ({}, {}))


def digits(text: str) -> str:
    return text.replace(".", "").lstrip("0")


def checksum(bids: list[tuple[str, str]], asks: list[tuple[str, str]]) -> int:
    """As Kraken's manual has it: ten asks, ten bids, the digits of price and quantity."""
    return zlib.crc32("".join(digits(p) + digits(q) for p, q in [*asks[:10], *bids[:10]]).encode())


def digits_of(rows: Any) -> dict[tuple[bytes, float], tuple[int, int]]:
    """Digits after the point of price and quantity, by side and price, of rows of ``KR-L2-…``."""
    return {(row[1], row[9]): (row[2], row[3]) for row in rows.tolist()}


def stored_checksum(book: Any, of: dict[tuple[bytes, float], tuple[int, int]]) -> int:
    """From a feed alone: prices and quantities of its book, and the digits that its rows have."""
    best = [(b"A", *level) for level in book.asks[:10].tolist()] + [(b"B", *level) for level in book.bids[:10].tolist()]
    return zlib.crc32(
        "".join(
            digits(f"{price:.{of[side, price][0]}f}") + digits(f"{qty:.{of[side, price][1]}f}")
            for side, price, qty in best
        ).encode()
    )


def walk(messages: Iterable[bytes], depth: int = 10, known: dict[str, Pair] | None = None) -> dict[str, Pair]:
    """Return what was sent, by pair; `known` is gone on with."""
    pairs = {} if known is None else known
    for data in messages:
        message = json.loads(data, parse_float=str, parse_int=str)
        for part in message.get("data", ()) if message.get("channel") in ("book", "trade") else ():
            pair = pairs.setdefault(part["symbol"].replace("/", "-"), Pair())
            if message["channel"] == "trade":
                pair.trades.setdefault(int(part["trade_id"]), part)
            else:
                _book(pair, message["type"], part, depth)
    return pairs


def _book(pair: Pair, kind: str, part: dict[str, Any], depth: int) -> None:
    if kind == "snapshot":
        pair.book = ({}, {})
    for side, name in zip(pair.book, ("bids", "asks"), strict=True):
        for level in part[name]:
            price = Decimal(level["price"])
            if Decimal(level["qty"]):
                side[price] = level["price"], level["qty"]
            else:
                side.pop(price, None)
    for side, best_first in zip(pair.book, (True, False), strict=True):
        for price in sorted(side, reverse=best_first)[depth:]:
            del side[price]
    bids = [pair.book[0][price] for price in sorted(pair.book[0], reverse=True)]
    asks = [pair.book[1][price] for price in sorted(pair.book[1])]
    pair.right += checksum(bids, asks) == int(part["checksum"])
    sent = len(part["bids"]) + len(part["asks"])
    pair.moments.append(Moment(kind, bids, asks, int(part["checksum"]), sent))
