"""Coinbase Advanced Trade behind the seam of `venue`: one numbered stream a connection.

`coinbase` has the frames, `subscriptions` the messages, `sequence` the rule of the numbers. The numbers run over
all channels and products, so what is missing might have been for any feed of the connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deepwater.apps import coinbase, specs, subscriptions
from deepwater.apps.sequence import Sequence as Numbers
from deepwater.apps.venue import Batch, FeedKey, FeedPlan, Kind, Message, Missed

if TYPE_CHECKING:
    from deepwater.apps.exchange_session import ClientSession
    from deepwater.apps.market import Market

__all__ = ["COINBASE", "Coinbase"]


class Coinbase:
    """See `venue.Venue`."""

    name = "coinbase"
    title = "Coinbase Advanced Trade: books and trades"
    uri = "wss://advanced-trade-ws.coinbase.com"
    channels: tuple[str, ...] = subscriptions.CHANNELS
    products_max = subscriptions.LEVEL2_PRODUCTS_MAX
    messages_per_second = subscriptions.MESSAGES_PER_SECOND
    idle_s = 10.0  # a heartbeat comes every second

    def check_product(self, product: str) -> None:
        """See `subscriptions.check_product`."""
        subscriptions.check_product(product)

    def feeds(self, product: str, channels: Sequence[str]) -> list[FeedPlan]:
        """Return ``CB-L2-<product>`` and ``CB-TRADES-<product>``, as far as their channels are wanted."""
        plans = []
        if "level2" in channels:
            plans.append(FeedPlan(FeedKey("book", product), specs.spec(specs.L2, product)))
        if "market_trades" in channels:
            plans.append(FeedPlan(FeedKey("trades", product), specs.spec(specs.TRADES, product)))
        return plans

    def subscribe(self, channels: Sequence[str], products: Sequence[str]) -> list[str]:
        """Return a message a channel."""
        return [subscriptions.message("subscribe", channel, products) for channel in channels]

    def unsubscribe(self, channels: Sequence[str], products: Sequence[str]) -> list[str]:
        """Return a message a channel."""
        return [subscriptions.message("unsubscribe", channel, products) for channel in channels]

    def liveness(self) -> list[str]:
        """Return the subscription to heartbeats. They come last, so that nothing delays the data."""
        return [subscriptions.message("subscribe", "heartbeats")]

    def resync(self, products: Sequence[str]) -> list[str]:
        """Return the messages that leave level2 and subscribe to it again."""
        return [subscriptions.message(kind, "level2", products) for kind in ("unsubscribe", "subscribe")]

    def connection(self) -> _Stream:
        """Return a new connection's state: its numbers start at 0."""
        return _Stream()

    def exchange_session(self, market: Market) -> ClientSession:
        """Return the local exchange's side."""
        from deepwater.apps.exchange_session import ClientSession

        return ClientSession(market)


COINBASE = Coinbase()


class _Stream:
    """The numbers of one connection."""

    def __init__(self) -> None:
        self._numbers = Numbers()

    def take(self, data: bytes, recv_us: int) -> Message:
        """Decode a frame whole; then look at its number."""
        message = Message()
        try:
            frame = coinbase.decode(data)
            if isinstance(frame, coinbase.ErrorFrame):
                message.error = frame.message
                return message
            _fill(message, frame, recv_us)
        except coinbase.FrameError as error:
            return self._bad(error)
        self._number(message, frame.sequence_num)
        return message

    def _bad(self, error: coinbase.FrameError) -> Message:
        """Say what of a frame that can not be used is missing: with a number it, else the next number tells."""
        message = Message(bad=str(error))
        if error.sequence_num is not None:
            self._number(message, error.sequence_num)
            message.missed.append(Missed(str(error)))
        return message

    def _number(self, message: Message, number: int) -> None:
        message.delivers = True
        jump = self._numbers.check(number)
        if jump is None:
            return
        if jump.lost is None:
            message.breach = jump.reason
        else:
            message.missed.append(Missed(jump.reason, jump.lost))


_KINDS: dict[str, Kind] = {"level2": "book", "market_trades": "trades"}


def _granted(subscribed: dict[str, list[str] | None]) -> list[FeedKey]:
    """The feeds of a list of subscriptions."""
    kinds = [(kind, subscribed.get(channel) or ()) for channel, kind in _KINDS.items()]
    return [FeedKey(kind, product) for kind, products in kinds for product in products]


def _fill(message: Message, frame: coinbase.Numbered, recv_us: int) -> None:
    """Everything a frame holds."""
    if isinstance(frame, coinbase.L2Data):
        for event in frame.events or ():
            records = coinbase.l2_records(frame, event, recv_us)
            message.batches.append(Batch(FeedKey("book", event.product_id), records, event.type == "snapshot"))
    elif isinstance(frame, coinbase.MarketTrades):
        for product, trades in coinbase.trades_by_product(frame):
            records = coinbase.trade_records(frame, trades, recv_us)
            message.batches.append(Batch(FeedKey("trades", product), records))
    elif isinstance(frame, coinbase.Subscriptions):
        for listed in frame.events or ():
            message.granted += _granted(listed.subscriptions)
    elif isinstance(frame, coinbase.Heartbeats):
        message.heartbeat = True
    elif isinstance(frame, coinbase.Other):
        message.ignored = 1
