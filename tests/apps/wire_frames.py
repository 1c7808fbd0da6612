"""Small literal frames, written as the exchange writes them."""

from __future__ import annotations

import json
from typing import Any

STAMP = "2026-08-09T05:23:42.196708651Z"
STAMP_US = 1786253022196708


def frame(channel: str, number: int, events: list[Any], stamp: str = STAMP) -> bytes:
    return json.dumps(
        {"channel": channel, "timestamp": stamp, "sequence_num": number, "events": events},
        separators=(",", ":"),
    ).encode()


def level(side: str, price: str, quantity: str, time: str = "2026-08-09T05:23:41.823025Z") -> dict[str, str]:
    return {"side": side, "event_time": time, "price_level": price, "new_quantity": quantity}


def l2(number: int, kind: str, product: str, *levels: dict[str, str]) -> bytes:
    return frame("l2_data", number, [{"type": kind, "product_id": product, "updates": list(levels)}])


def trade(product: str, number: int, price: str = "65083.67", side: str = "BUY", size: str = "0.5") -> dict[str, str]:
    return {
        "product_id": product,
        "trade_id": str(number),
        "price": price,
        "size": size,
        "time": "2026-08-09T05:23:41.877755Z",
        "side": side,
    }


def trades(number: int, *newest_first: dict[str, str], kind: str = "update") -> bytes:
    return frame("market_trades", number, [{"type": kind, "trades": list(newest_first)}])


def heartbeat(number: int) -> bytes:
    return frame("heartbeats", number, [{"current_time": "x", "heartbeat_counter": number}])
