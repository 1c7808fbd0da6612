"""The exchange's side of one Kraken v2 connection: requests in, messages out. No sockets.

Each client has a view of each book, to the depth it asked for: a step is sent as what changed in the view, and a level
that was pushed out of it is not sent. Texts have a fixed number of digits, so the digits of the checksum are those of
the market's integers; nothing here is shared with the recorder's checksum.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from deepwater.apps import needs_apps
from deepwater.apps.exchange_session import Outgoing, rfc3339
from deepwater.apps.market import Auction, Market, Print, Step

try:
    import msgspec
except ImportError as _error:
    needs_apps(_error)

__all__ = ["KrakenSession"]

_LOT_DIGITS = 8
_SHOWN_TRADES = 50
_View = tuple[dict[int, int], dict[int, int]]  # bids, asks: lots by price in ticks, best first


class _Params(msgspec.Struct):
    channel: str = ""
    symbol: list[str] = []
    depth: int = 10


class _Request(msgspec.Struct):
    method: str = ""
    params: _Params = msgspec.field(default_factory=_Params)


class KrakenSession:
    """What one client is subscribed to, and what it has been shown.

    Parameters
    ----------
    market : Market
    now_ns : callable
        Wall time.
    """

    def __init__(self, market: Market, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._market = market
        self._now_ns = now_ns
        self._number = 0
        self._views: dict[str, tuple[int, _View]] = {}  # by product: depth, and what was shown last
        self._trades: set[str] = set()

    def receive(self, text: str | bytes) -> list[Outgoing]:
        """Answer a request: for each pair an answer, and what it brings."""
        try:
            request = msgspec.json.decode(text, type=_Request)
        except msgspec.DecodeError as error:
            return [self._refused("", "", f"malformed message: {error}")]
        out: list[Outgoing] = []
        for symbol in request.params.symbol:
            out += self._one(request, symbol)
        return out

    def _one(self, request: _Request, symbol: str) -> list[Outgoing]:
        product, channel, depth = symbol.replace("/", "-"), request.params.channel, request.params.depth
        if channel not in ("book", "trade"):
            return [self._refused(request.method, symbol, f"Channel {channel} is not supported")]
        if product not in self._market:
            return [self._refused(request.method, symbol, f"Currency pair not supported {symbol}")]
        answer = self._send({"method": request.method, "result": {"channel": channel, "symbol": symbol},
                             "success": True})  # fmt: skip
        if request.method == "unsubscribe":
            self._views.pop(product, None) if channel == "book" else self._trades.discard(product)
            return [answer]
        if request.method != "subscribe":
            return [self._refused(request.method, symbol, f"Method {request.method} is not supported")]
        if channel == "trade":
            self._trades.add(product)
            return [answer, self._trade("snapshot", product, list(self._market[product].last_trades)[-_SHOWN_TRADES:])]
        view = _view(self._market[product], depth)
        self._views[product] = depth, view
        return [answer, self._book("snapshot", product, view, view, self._now_ns() // 1000)]

    def step(self, product: str, step: Step) -> list[Outgoing]:
        """Return the messages of one step of a product, as far as the client is subscribed."""
        out: list[Outgoing] = []
        if product in self._views:
            depth, shown = self._views[product]
            view = _view(self._market[product], depth)
            auction = self._market[product]
            bids = _changed(shown[0], view[0], auction.bids.lots)
            asks = _changed(shown[1], view[1], auction.offers.lots)
            self._views[product] = depth, view
            if bids or asks:
                out.append(self._book("update", product, (bids, asks), view, step.time_us))
        if step.trades and product in self._trades:
            out.append(self._trade("update", product, step.trades))
        return out

    def heartbeat(self) -> list[Outgoing]:
        """Return a heartbeat, if there is a subscription."""
        return [self._send({"channel": "heartbeat"})] if self._views or self._trades else []

    def error(self, text: str) -> Outgoing:
        """Return an error."""
        return self._refused("", "", text)

    def _book(self, kind: str, product: str, sent: _View, view: _View, time_us: int) -> Outgoing:
        digits = self._market[product].digits
        bids, asks = (
            [{"price": _decimal(price, digits), "qty": _decimal(lots, _LOT_DIGITS)} for price, lots in side.items()]
            for side in sent
        )
        best = [*list(view[1].items())[:10], *list(view[0].items())[:10]]
        checksum = zlib.crc32("".join(f"{price}{lots}" for price, lots in best).encode())
        data = {"symbol": product.replace("-", "/"), "bids": bids, "asks": asks, "checksum": checksum,
                "timestamp": rfc3339(time_us * 1000)}  # fmt: skip
        return self._send({"channel": "book", "type": kind, "data": [data]})

    def _trade(self, kind: str, product: str, trades: Iterable[Print]) -> Outgoing:
        data = [
            {
                "symbol": product.replace("-", "/"),
                "side": "sell" if trade.side == "BUY" else "buy",  # the taker's
                "price": msgspec.Raw(trade.price.encode()),
                "qty": msgspec.Raw(trade.size.encode()),
                "ord_type": "market",
                "trade_id": trade.trade_id,
                "timestamp": rfc3339(trade.time_us * 1000),
            }
            for trade in trades
        ]
        return self._send({"channel": "trade", "type": kind, "data": data})

    def _refused(self, method: str, symbol: str, why: str) -> Outgoing:
        return -1, msgspec.json.encode({"error": why, "method": method, "success": False, "symbol": symbol})

    def _send(self, body: dict[str, Any]) -> Outgoing:
        number = self._number
        self._number += 1
        return number, msgspec.json.encode(body)


def _view(auction: Auction, depth: int) -> _View:
    """The best levels of both sides, best first."""
    bids, offers = auction.bids, auction.offers
    return (
        {price: bids.lots[price] for price in bids.prices[: -depth - 1 : -1]},
        {price: offers.lots[price] for price in offers.prices[:depth]},
    )


def _changed(shown: dict[int, int], view: dict[int, int], all_lots: dict[int, int]) -> dict[int, int]:
    """What to send of a side: what is new or changed, and 0 for what is gone; nothing of what was pushed out."""
    gone = {price: 0 for price in shown if price not in view and price not in all_lots}
    return gone | {price: lots for price, lots in view.items() if shown.get(price) != lots}


def _decimal(units: int, digits: int) -> msgspec.Raw:
    """``units / 10**digits`` as Kraken writes numbers: all digits, trailing zeros too."""
    text = f"{units:0{digits + 1}d}"
    return msgspec.Raw(f"{text[:-digits]}.{text[-digits:]}".encode() if digits else text.encode())
