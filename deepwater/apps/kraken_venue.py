"""Kraken (websocket v2) behind the seam of `venue`: books that are checked by checksum, and trades.

The state of a connection is a book a pair. Its rules
    - a snapshot whose checksum is wrong is a bad message: it is kept aside, not stored, and a gap in the pair's book;
    - an update whose checksum is wrong is stored behind a gap mark: something before it, or it, is not what Kraken has;
    - an update without a snapshot before it is a gap too, and so is a malformed message of the books that it names, or
      of all if that can not be read;
    - after each of these a fresh snapshot is asked for, as Kraken's manual says: unsubscribe and subscribe. Until it
      comes updates are stored as they are sent and not checked: the book behind the mark is not to be trusted anyway;
    - trades need no such rule: their ids count up by one, and `trade_ids` finds what is missing.

Levels that fall out of the depth are records of type b"D" with quantity 0, behind those of their message: the feed
alone rebuilds exactly the book that the checksum is of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepwater.apps import kraken, needs_apps, specs
from deepwater.apps.kraken import BookData, Level
from deepwater.apps.kraken_book import CHECKED_LEVELS, KrakenBook
from deepwater.apps.venue import Batch, FeedKey, FeedPlan, Kind, Message, Missed
from deepwater.errors import DeepwaterError

if TYPE_CHECKING:
    from deepwater.apps.kraken_session import KrakenSession
    from deepwater.apps.market import Market

try:
    import msgspec
except ImportError as _error:
    needs_apps(_error)

__all__ = ["KRAKEN", "Kraken"]

_DEPTHS = (10, 25, 100, 500, 1000)
_PRODUCT = re.compile(r"[A-Z0-9.]{1,20}-[A-Z0-9.]{1,20}")


class Kraken:
    """See `venue.Venue`.

    Parameters
    ----------
    depth : {10, 25, 100, 500, 1000}
        Levels a side. At 10 the checksum covers all of them.
    """

    name = "kraken"
    title = "Kraken v2: books checked by checksum, and trades"
    uri = "wss://ws.kraken.com/v2"
    channels: tuple[str, ...] = ("book", "trade")
    products_max = 50
    messages_per_second = 5
    idle_s = 10.0  # a heartbeat comes every second

    def __init__(self, depth: int = CHECKED_LEVELS) -> None:
        if depth not in _DEPTHS:
            raise DeepwaterError(f"depth {depth}: Kraken has {', '.join(map(str, _DEPTHS))}", depth=depth)
        self._depth = depth

    def check_product(self, product: str) -> None:
        """See that it is a pair, written with a minus."""
        if not _PRODUCT.fullmatch(product):
            meant = product.upper().replace("/", "-")
            hint = f"did you mean {meant}?" if _PRODUCT.fullmatch(meant) else "expected e.g. BTC-USD"
            raise DeepwaterError(f"product {product!r} is not allowed: {hint}", product=product)

    def feeds(self, product: str, channels: Sequence[str]) -> list[FeedPlan]:
        """Return ``KR-L2-<product>`` and ``KR-TRADES-<product>``, as far as their channels are wanted."""
        plans = []
        if "book" in channels:
            plans.append(FeedPlan(FeedKey("book", product), specs.spec(specs.KRAKEN_L2, product)))
        if "trade" in channels:
            plans.append(FeedPlan(FeedKey("trades", product), specs.spec(specs.KRAKEN_TRADES, product)))
        return plans

    def subscribe(self, channels: Sequence[str], products: Sequence[str]) -> list[str]:
        """Return a message a channel."""
        return [self._request("subscribe", channel, products) for channel in channels]

    def unsubscribe(self, channels: Sequence[str], products: Sequence[str]) -> list[str]:
        """Return a message a channel."""
        return [self._request("unsubscribe", channel, products) for channel in channels]

    def liveness(self) -> list[str]:
        """Return nothing: heartbeats come by themselves."""
        return []

    def resync(self, products: Sequence[str]) -> list[str]:
        """Return the messages that leave the books and subscribe to them again."""
        return [self._request(method, "book", products) for method in ("unsubscribe", "subscribe")]

    def connection(self) -> _Stream:
        """Return a new connection's state: no book yet."""
        return _Stream(self._depth)

    def exchange_session(self, market: Market) -> KrakenSession:
        """Return the local exchange's side."""
        from deepwater.apps.kraken_session import KrakenSession

        return KrakenSession(market)

    def _request(self, method: str, channel: str, products: Sequence[str]) -> str:
        params: dict[str, Any] = {"channel": channel, "symbol": [kraken.symbol_of(name) for name in products]}
        if channel == "book":
            params["depth"] = self._depth
        if method == "subscribe":
            params["snapshot"] = True
        return msgspec.json.encode({"method": method, "params": params}).decode()


KRAKEN = Kraken()


class _Pair:
    """What is known of a pair on this connection."""

    def __init__(self) -> None:
        self.book: KrakenBook | None = None  # None: not to be trusted, or not yet there
        self.said = False  # that there is none
        self.number = 0  # of the next book message
        self.whole_us = 0  # when it was last known to be right


class _Stream:
    """The books of one connection."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._pairs: dict[str, _Pair] = {}

    def take(self, data: bytes, recv_us: int) -> Message:
        """Decode a message whole; then hold it against its checksum."""
        message = Message()
        try:
            found = kraken.decode(data)
            if isinstance(found, kraken.BookMessage):
                self._books(message, found, recv_us)
            elif isinstance(found, kraken.TradeMessage):
                _trades(message, found, recv_us)
        except kraken.KrakenError as error:
            return self._bad(str(error), data)
        if isinstance(found, kraken.Answer):
            _answer(message, found)
        elif isinstance(found, kraken.Other):
            message.ignored = 1
        else:
            message.delivers = True
            message.heartbeat = isinstance(found, kraken.Heartbeat)
        return message

    def _bad(self, reason: str, data: bytes) -> Message:
        """A message that can not be used is missing in the feeds it was for; who can not be read might be of any."""
        message = Message(bad=reason, delivers=True)
        channel, symbols = kraken.concerned(data)
        kind = _KINDS.get(channel)
        if kind is None and channel:
            return message  # a heartbeat
        products = [kraken.product_of(symbol) for symbol in symbols]
        if kind == "trades":  # without a name: the ids of the trades will tell
            feeds: tuple[FeedKey, ...] | None = tuple(FeedKey(kind, product) for product in dict.fromkeys(products))
        else:
            torn = dict.fromkeys(products or self._pairs)
            for product in torn:
                pair = self._pairs.setdefault(product, _Pair())
                pair.book, pair.said = None, True
            feeds = tuple(FeedKey(kind, product) for product in torn) if kind else None
        message.missed.append(Missed(reason, feeds=feeds))
        return message

    def _books(self, message: Message, found: kraken.BookMessage, recv_us: int) -> None:
        read = [_read(data) for data in found.data]  # all of it before anything is done
        for data, bids, asks, packet_us in read:
            product = kraken.product_of(data.symbol)
            pair = self._pairs.setdefault(product, _Pair())
            key = FeedKey("book", product)
            if found.type == "snapshot":
                pair.book = KrakenBook(self._depth)
            cut = self._checked(message, key, pair, data, bids, asks)
            if found.type == "snapshot" and pair.book is None:
                message.bad = message.missed[-1].reason
                continue  # nothing of it is stored
            kind = b"S" if found.type == "snapshot" else b"U"
            levels = [(kind, b"B", level) for level in bids] + [(kind, b"A", level) for level in asks] + cut
            if found.type == "snapshot" and not levels:  # a record that removes what is not there: an empty book
                levels = [(kind, b"B", Level(0.0, 0.0, 0, 0, b""))]
            records = kraken.book_records(levels, data.checksum, packet_us, recv_us, pair.number)
            message.batches.append(Batch(key, records, found.type == "snapshot"))
            pair.number += 1
            if pair.book is not None:
                pair.said, pair.whole_us = False, recv_us

    def _checked(
        self, message: Message, key: FeedKey, pair: _Pair, data: BookData, bids: list[Level], asks: list[Level]
    ) -> list[tuple[bytes, bytes, Level]]:
        """Take the levels into the book, say what is wrong, and return the levels that fell out of it."""
        if pair.book is None:
            if not pair.said:
                pair.said = True
                message.missed.append(Missed("book update without a snapshot", feeds=(key,)))
            return []
        gone_bids, gone_asks = pair.book.apply(bids, asks)
        computed = pair.book.checksum()
        if computed == data.checksum:
            gone = [(b"B", level) for level in gone_bids] + [(b"A", level) for level in gone_asks]
            return [(b"D", side, _removed(level)) for side, level in gone]
        reason = f"checksum: {computed} of the book, {data.checksum} sent"
        message.missed.append(Missed(reason, feeds=(key,), from_us=pair.whole_us or None))
        pair.book, pair.said = None, True
        return []


_KINDS: dict[str, Kind] = {"book": "book", "trade": "trades"}


def _answer(message: Message, found: kraken.Answer) -> None:
    """There is one for each pair of a request."""
    message.error = found.error
    if found.method == "subscribe" and found.symbol:
        product = kraken.product_of(found.symbol)
        if found.error:
            message.refused = product
        elif found.channel in _KINDS:
            message.granted.append(FeedKey(_KINDS[found.channel], product))


def _read(data: BookData) -> tuple[BookData, list[Level], list[Level], int]:
    bids, asks = [kraken.level_of(raw) for raw in data.bids], [kraken.level_of(raw) for raw in data.asks]
    return data, bids, asks, kraken.moment(data.timestamp)


def _removed(level: Level) -> Level:
    return Level(level.price, 0.0, level.price_digits, level.qty_digits, b"")


def _trades(message: Message, found: kraken.TradeMessage, recv_us: int) -> None:
    """Trades of each pair, oldest first."""
    groups: dict[str, list[kraken.TradeData]] = {}
    for trade in found.data:
        groups.setdefault(trade.symbol, []).append(trade)
    for symbol, trades in groups.items():
        trades.sort(key=lambda trade: trade.trade_id)
        key = FeedKey("trades", kraken.product_of(symbol))
        message.batches.append(Batch(key, kraken.trade_records(trades, recv_us)))
