"""The exchange's side of one connection: subscription messages in, frames out. No sockets.

Frames are written as the real endpoint writes them: key order, trimmed fractions, newest trade first,
one sequence counter over everything the connection gets (errors have none).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

from deepwater.apps import needs_apps
from deepwater.apps.market import Change, Market, Print, Step
from deepwater.apps.subscriptions import LEVEL2_PRODUCTS_MAX

try:
    import msgspec
except ImportError as _error:
    needs_apps(_error)

__all__ = ["ClientSession", "ExchangeSession", "Outgoing", "rfc3339"]

_CHANNELS = frozenset({"level2", "market_trades", "heartbeats"})

Outgoing = tuple[int, bytes]  # the frame's number, or -1 for an error frame; the frame


class ExchangeSession(Protocol):
    """What one client of a synthetic market is sent, in a venue's protocol."""

    def receive(self, text: str | bytes) -> list[Outgoing]:
        """Answer what the client says."""
        ...

    def step(self, product: str, step: Step) -> list[Outgoing]:
        """Return the frames of one step of a product, as far as the client is subscribed."""
        ...

    def heartbeat(self) -> list[Outgoing]:
        """Return one heartbeat, if the client is to have it. Called once a second."""
        ...


def rfc3339(ns: int) -> str:
    """Return nanoseconds since the epoch as Go prints them: trailing zeros of the fraction are cut.

    Examples
    --------
    >>> rfc3339(1786253022196708651), rfc3339(1786253022500000000), rfc3339(0)
    ('2026-08-09T05:23:42.196708651Z', '2026-08-09T05:23:42.5Z', '1970-01-01T00:00:00Z')
    """
    seconds, fraction = divmod(ns, 10**9)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{digits}Z"


class _Request(msgspec.Struct):
    type: str = ""
    channel: str = ""
    product_ids: list[str] = []


class ClientSession:
    """What one client is subscribed to, and its numbered frames.

    Parameters
    ----------
    market : Market
        Where snapshots come from.
    now_ns : callable
        Wall time for the frames' `timestamp`.
    """

    def __init__(self, market: Market, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._market = market
        self._now_ns = now_ns
        self._number = 0
        self._beats = 0
        self._subscribed: dict[str, list[str]] = {}

    # -- what the client says ------------------------------------------------------------------------

    def receive(self, text: str | bytes) -> list[Outgoing]:
        """Answer a subscription message: an error, or snapshots and the list of subscriptions."""
        try:
            request = msgspec.json.decode(text, type=_Request)
        except msgspec.DecodeError as error:
            return [self.error(f"malformed message: {error}")]
        if request.channel not in _CHANNELS:
            return [self.error(f"channel {request.channel!r} does not exist")]
        unknown = [name for name in request.product_ids if name not in self._market]
        if unknown and request.channel != "heartbeats":
            return [self.error(f"product {unknown[0]!r} does not exist")]
        if request.type == "subscribe":
            return self._subscribe(request.channel, request.product_ids)
        if request.type == "unsubscribe":
            return self._unsubscribe(request.channel, request.product_ids)
        return [self.error(f"type {request.type!r} is neither subscribe nor unsubscribe")]

    def _subscribe(self, channel: str, products: list[str]) -> list[Outgoing]:
        if channel == "heartbeats":
            self._subscribed[channel] = ["heartbeats"]
            return [self._subscriptions()]
        held = self._subscribed.setdefault(channel, [])
        new = [name for name in products or self._market.products if name not in held]
        if channel == "level2" and len(held) + len(new) > LEVEL2_PRODUCTS_MAX:
            return [self.error(f"too many level2 products: {len(held) + len(new)} of {LEVEL2_PRODUCTS_MAX}")]
        held.extend(new)
        return [*(self._snapshot(channel, name) for name in new), self._subscriptions()]

    def _unsubscribe(self, channel: str, products: list[str]) -> list[Outgoing]:
        held = self._subscribed.get(channel, [])
        kept = [name for name in held if products and name not in products]
        if kept:
            self._subscribed[channel] = kept
        else:
            self._subscribed.pop(channel, None)
        return [self._subscriptions()]

    # -- what it is sent -----------------------------------------------------------------------------

    def step(self, product: str, step: Step) -> list[Outgoing]:
        """Return the frames of one step of a product, as far as the client is subscribed."""
        out: list[Outgoing] = []
        if step.changes and product in self._subscribed.get("level2", ()):
            out.append(self._l2("update", product, step.changes, step.time_us))
        if step.trades and product in self._subscribed.get("market_trades", ()):
            out.append(self._trades("update", product, step.trades))
        return out

    def heartbeat(self) -> list[Outgoing]:
        """Return one heartbeat, if the client is subscribed to them."""
        if "heartbeats" not in self._subscribed:
            return []
        self._beats += 1
        now = rfc3339(self._now_ns()).replace("T", " ").replace("Z", " +0000 UTC")
        return [self._frame("heartbeats", [{"current_time": now, "heartbeat_counter": self._beats}])]

    def error(self, text: str) -> Outgoing:
        """Return an error frame; it has neither a channel nor a number."""
        return -1, msgspec.json.encode({"type": "error", "message": text})

    def _snapshot(self, channel: str, product: str) -> Outgoing:
        auction = self._market[product]
        if channel == "level2":
            return self._l2("snapshot", product, auction.snapshot(), self._now_ns() // 1000)
        return self._trades("snapshot", product, auction.last_trades)

    def _l2(self, kind: str, product: str, changes: Iterable[Change], time_us: int) -> Outgoing:
        event_time = rfc3339(time_us * 1000)
        updates = [
            {
                "side": change.side,
                "event_time": event_time,
                "price_level": change.price,
                "new_quantity": change.quantity,
            }
            for change in changes
        ]
        return self._frame("l2_data", [{"type": kind, "product_id": product, "updates": updates}])

    def _trades(self, kind: str, product: str, trades: Iterable[Print]) -> Outgoing:
        newest_first = [
            {
                "product_id": product,
                "trade_id": str(trade.trade_id),
                "price": trade.price,
                "size": trade.size,
                "time": rfc3339(trade.time_us * 1000),
                "side": trade.side,
            }
            for trade in reversed(list(trades))
        ]
        return self._frame("market_trades", [{"type": kind, "trades": newest_first}])

    def _subscriptions(self) -> Outgoing:
        return self._frame("subscriptions", [{"subscriptions": self._subscribed}])

    def _frame(self, channel: str, events: list[Any]) -> Outgoing:
        number = self._number
        self._number += 1
        frame = {
            "channel": channel,
            "timestamp": rfc3339(self._now_ns()),
            "sequence_num": number,
            "events": events,
        }
        return number, msgspec.json.encode(frame)
