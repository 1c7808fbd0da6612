"""An independent walk over recorded frames: what the feeds must hold, said by other code.

json, Decimal and datetime only; nothing of deepwater, no NumPy, no floats but in the comparison. It
takes what the exchange really sent, connection by connection, and derives for each product every level
and trade in order, the marks, and the book at the end. `differences` holds a feed's rows against that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

Row = dict[str, Any]
Gap = tuple[int, str, int | None]  # position, first word of the reason, records lost


@dataclass
class Product:
    """What the two feeds of a product must hold."""

    levels: list[Row] = field(default_factory=list)
    trades: list[Row] = field(default_factory=list)
    snapshots: list[tuple[int, int]] = field(default_factory=list)
    level_gaps: list[Gap] = field(default_factory=list)
    trade_gaps: list[Gap] = field(default_factory=list)
    book: dict[str, dict[Decimal, Decimal]] = field(default_factory=lambda: {"bid": {}, "offer": {}})
    seen: set[int] = field(default_factory=set)
    absent_deletes: int = 0

    def best(self) -> tuple[Decimal, Decimal]:
        """Return the best bid and offer."""
        return max(self.book["bid"]), min(self.book["offer"])

    def gap(self, word: str) -> None:
        """Expect a mark of unknown loss at the present end of both feeds."""
        self.level_gaps.append((len(self.levels), word, None))
        self.trade_gaps.append((len(self.trades), word, None))

_SECONDS: dict[str, int] = {}  # of each second's text: most of the time is spent there otherwise


def micros(text: str) -> int:
    """Return whole µs since the epoch of ``YYYY-MM-DDTHH:MM:SS[.f]Z``; further digits fall away."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    if whole not in _SECONDS:
        moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        _SECONDS[whole] = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return _SECONDS[whole] * 10**6 + int(Decimal("0." + (fraction or "0")) * 10**6)


def walk(connections: Iterable[Sequence[bytes]], products: Sequence[str]) -> dict[str, Product]:
    """Return what must be stored of `products` after these connections, each a list of frames."""
    out = {name: Product() for name in products}
    for ordinal, frames in enumerate(connections):
        due = 0
        for place, data in enumerate(frames):
            frame = json.loads(data)
            if "sequence_num" not in frame:
                continue
            if ordinal and not place:
                for product in out.values():
                    product.gap("reconnect:")
            if frame["sequence_num"] != due:
                for product in out.values():
                    product.gap("sequence")
            due = frame["sequence_num"] + 1
            if frame["channel"] == "l2_data":
                _levels(out, frame)
            elif frame["channel"] == "market_trades":
                _trades(out, frame)
    return out


def _levels(out: dict[str, Product], frame: Row) -> None:
    for event in frame["events"]:
        product = out.get(event["product_id"])
        if product is None:
            continue
        snapshot = event["type"] == "snapshot"
        if snapshot:
            product.snapshots.append((len(product.levels), len(event["updates"])))
            product.book = {"bid": {}, "offer": {}}
        for update in event["updates"]:
            product.levels.append(
                {
                    "type": b"S" if snapshot else b"U",
                    "side": {"bid": b"B", "offer": b"A"}[update["side"]],
                    "packet_us": micros(frame["timestamp"]),
                    "ev_us": micros(update["event_time"]),
                    "price": update["price_level"],
                    "qty": update["new_quantity"],
                    "seq": frame["sequence_num"],
                }
            )
            side, price = product.book[update["side"]], Decimal(update["price_level"])
            if Decimal(update["new_quantity"]):
                side[price] = Decimal(update["new_quantity"])
            elif side.pop(price, None) is None:
                product.absent_deletes += 1


def _trades(out: dict[str, Product], frame: Row) -> None:
    for event in frame["events"]:
        for trade in reversed(event["trades"]):
            product, number = out.get(trade["product_id"]), int(trade["trade_id"])
            if product is None or number in product.seen:
                continue
            missing = number - max(product.seen, default=number - 1) - 1
            if missing > 0:
                product.trade_gaps.append((len(product.trades), "trade", missing))
            product.seen.add(number)
            product.trades.append(
                {
                    "type": b"T",
                    "side": {"BUY": b"B", "SELL": b"S"}.get(trade["side"], b"U"),
                    "trade_id": number,
                    "packet_us": micros(frame["timestamp"]),
                    "ev_us": micros(trade["time"]),
                    "price": trade["price"],
                    "size": trade["size"],
                }
            )


def differences(rows: Sequence[Row], expected: Sequence[Row]) -> list[str]:
    """Say how a feed's rows differ from what was expected; nothing if they do not.

    Texts are prices and quantities as they were sent: the stored number must be ``float(text)``.
    """
    found = [] if len(rows) == len(expected) else [f"{len(rows)} rows stored, {len(expected)} sent"]
    for position, (row, want) in enumerate(zip(rows, expected, strict=False)):
        for name, value in want.items():
            if row[name] != (float(value) if isinstance(value, str) else value):
                found.append(f"row {position}: {name} is {row[name]!r}, sent was {value!r}")
    return found + clock_faults(rows)


def clock_faults(rows: Sequence[Row]) -> list[str]:
    """Say where `proc_us` steps back, or a record was written before it was received."""
    found = []
    last = 0
    for position, row in enumerate(rows):
        if row["proc_us"] < last:
            found.append(f"row {position}: proc_us steps back from {last} to {row['proc_us']}")
        if row["recv_us"] <= 0:
            found.append(f"row {position}: recv_us is {row['recv_us']}")
        last = row["proc_us"]
    return found


def book_differences(rows: Iterable[Row], product: Product) -> list[str]:
    """Rebuild the book from the rows of a playback and say how it differs from the tape's."""
    book: dict[bytes, dict[float, float]] = {b"B": {}, b"A": {}}
    for row in rows:
        if row["qty"]:
            book[row["side"]][row["price"]] = row["qty"]
        else:
            book[row["side"]].pop(row["price"], None)
    wanted = {
        code: {float(price): float(quantity) for price, quantity in product.book[side].items()}
        for code, side in ((b"B", "bid"), (b"A", "offer"))
    }
    return [
        f"book side {code!r} at {price}: {book[code].get(price)} rebuilt, {wanted[code].get(price)} on the tape"
        for code in book
        for price in sorted(book[code].keys() | wanted[code].keys())
        if book[code].get(price) != wanted[code].get(price)
    ]
