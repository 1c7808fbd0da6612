"""Kraken's websocket v2 as pure functions: bytes of a message in, typed values and record arrays out.

A message is ``{"channel", "type", "data": […]}``, or the answer to a request, ``{"method", "success", …}``. What bites:

- prices and quantities are JSON NUMBERS, and the checksum is made of their decimal text, trailing zeros included: they
  are kept as they were sent (`msgspec.Raw`: bytes, 0.3 µs a level; `Decimal` takes four times as long). Records hold
  the nearest float64 and the number of digits after the point, so the text can be made again;
- nothing is numbered: `kraken_book` has the checksum that finds what is missing;
- pairs are written ``BTC/USD``; here, as everywhere on this side of the seam, ``BTC-USD``;
- a trade's `side` is the TAKER's;
- heartbeats come by themselves, about once a second, while there is a subscription.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np

from deepwater.apps import needs_apps, specs
from deepwater.apps.coinbase_time import time_us
from deepwater.apps.sink import Records
from deepwater.errors import DeepwaterError

try:
    import msgspec
    from msgspec import Meta, Struct
except ImportError as _error:
    needs_apps(_error)

__all__ = [
    "Answer",
    "BookData",
    "BookMessage",
    "Heartbeat",
    "KrakenError",
    "Level",
    "Other",
    "TradeData",
    "TradeMessage",
    "book_records",
    "concerned",
    "decode",
    "level_of",
    "moment",
    "product_of",
    "symbol_of",
    "trade_records",
]

_NUMBER = re.compile(rb"(\d{1,18})(?:\.(\d{1,18}))?")
_EXPONENT = re.compile(rb"\d{1,18}(?:\.\d{1,18})?[eE][+-]?\d{1,2}")


class KrakenError(DeepwaterError, ValueError):
    """A message is not what the protocol says."""


class _RawLevel(Struct, gc=False):
    price: msgspec.Raw
    qty: msgspec.Raw


class BookData(Struct):
    """A pair's whole book, or what changed; quantities are absolute, 0 = the level is gone."""

    symbol: str
    checksum: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    bids: list[_RawLevel] = []
    asks: list[_RawLevel] = []
    timestamp: str = ""


class TradeData(Struct, gc=False):
    """One trade; `side` is the taker's."""

    symbol: str
    trade_id: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    price: Annotated[float, Meta(ge=0, le=1.7976931348623157e308)]
    qty: Annotated[float, Meta(ge=0, le=1.7976931348623157e308)]
    timestamp: str
    side: str = ""
    ord_type: str = ""


class BookMessage(Struct, tag_field="channel", tag="book"):
    """Of the channel book."""

    type: Literal["snapshot", "update"]
    data: list[BookData]


class TradeMessage(Struct, tag_field="channel", tag="trade"):
    """Of the channel trade."""

    type: Literal["snapshot", "update"]
    data: list[TradeData]


class Heartbeat(Struct, tag_field="channel", tag="heartbeat"):
    """A sign of life."""


@dataclass(frozen=True, slots=True)
class Answer:
    """To a request: `error` is empty if it was granted. `channel` and `symbol` as far as it names them."""

    method: str
    error: str = ""
    channel: str = ""
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class Other:
    """Of a channel that is not recorded."""

    channel: str


class _Envelope(Struct):
    channel: str | None = None
    method: str | None = None
    success: bool | None = None
    error: str | None = None
    symbol: Any = None
    result: Any = None


class _Named(Struct):
    symbol: str


class _Heading(Struct):
    channel: str
    data: list[_Named]


@dataclass(frozen=True, slots=True)
class Level:
    """A level as the checksum needs it.

    Attributes
    ----------
    price, qty : float
        The nearest to the decimal text.
    price_digits, qty_digits : int
        After the point.
    text : bytes
        All digits of price and quantity, without points and leading zeros: its part of the checksum.
    """

    price: float
    qty: float
    price_digits: int
    qty_digits: int
    text: bytes


_messages: msgspec.json.Decoder[BookMessage | TradeMessage | Heartbeat] = msgspec.json.Decoder(
    BookMessage | TradeMessage | Heartbeat
)
_envelopes = msgspec.json.Decoder(_Envelope)
_headings = msgspec.json.Decoder(_Heading)
_KNOWN = frozenset({"book", "trade", "heartbeat"})


def decode(data: bytes) -> BookMessage | TradeMessage | Heartbeat | Answer | Other:
    """Decode one message.

    Raises
    ------
    KrakenError
        If it is not JSON, or one of a known channel lacks something or holds a wrong value.

    Examples
    --------
    >>> decode(b'{"channel":"heartbeat"}'), decode(b'{"channel":"status","type":"update","data":[]}')
    (Heartbeat(), Other(channel='status'))
    >>> decode(b'{"error":"Currency pair not supported X/Y","method":"subscribe","success":false}')
    Answer(method='subscribe', error='Currency pair not supported X/Y', channel='', symbol='')
    """
    try:
        return _messages.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _decode_other(data, error)


def _decode_other(data: bytes, error: Exception) -> Answer | Other:
    try:
        envelope = _envelopes.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KrakenError(f"message is malformed: {error}") from error
    if envelope.channel in _KNOWN:
        raise KrakenError(f"{envelope.channel} message is malformed: {error}") from error
    if envelope.channel is not None:
        return Other(envelope.channel)
    if envelope.method is not None or envelope.error is not None:
        refused = envelope.success is False or envelope.error is not None
        result = envelope.result if isinstance(envelope.result, dict) else {}
        named = (result.get("channel"), envelope.symbol or result.get("symbol"))
        return Answer(
            envelope.method or "", (envelope.error or "no reason was given") if refused else "",
            *(name if isinstance(name, str) else "" for name in named),
        )  # fmt: skip
    raise KrakenError(f"message is malformed: neither a channel nor an answer: {data[:80]!r}") from error


def concerned(data: bytes) -> tuple[str, list[str]]:
    """Return what a malformed message was for, as far as it can be read: its channel, and the pairs; "" and [] if not.

    Examples
    --------
    >>> concerned(b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","price":"?"}]}')
    ('trade', ['BTC/USD'])
    >>> concerned(b'{"channel":"book","data":7}'), concerned(b'{"channel":"book","da')
    (('book', []), ('', []))
    """
    try:
        found = _headings.decode(data)
        return found.channel, [one.symbol for one in found.data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return _envelopes.decode(data).channel or "", []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", []


def product_of(symbol: str) -> str:
    """``BTC/USD`` as it is named here: ``BTC-USD``."""
    return symbol.replace("/", "-")


def symbol_of(product: str) -> str:
    """``BTC-USD`` as Kraken names it: ``BTC/USD``."""
    return product.replace("-", "/")


def level_of(raw: _RawLevel) -> Level:
    """Read a level exactly.

    Raises
    ------
    KrakenError
        If price or quantity is no number from 0 on.

    Examples
    --------
    >>> level_of(_RawLevel(msgspec.Raw(b"0.05005"), msgspec.Raw(b"0.00000500")))
    Level(price=0.05005, qty=5e-06, price_digits=5, qty_digits=8, text=b'5005500')
    """
    price, price_digits, price_text = _number(bytes(raw.price))
    qty, qty_digits, qty_text = _number(bytes(raw.qty))
    return Level(price, qty, price_digits, qty_digits, price_text + qty_text)


@lru_cache(maxsize=65_536)
def _number(text: bytes) -> tuple[float, int, bytes]:
    """Value, digits after the point, and the digits of the checksum. A book repeats its prices all the time."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        if _EXPONENT.fullmatch(text) is None:
            raise KrakenError(f"{text[:40]!r} is no price and no quantity")
        return _number(f"{Decimal(text.decode()):f}".encode())
    value = float(text)
    if not math.isfinite(value):
        raise KrakenError(f"{text[:40]!r} is beyond all prices")
    after = found[2] or b""
    return value, len(after), (found[1] + after).lstrip(b"0")


def book_records(
    levels: Sequence[tuple[bytes, bytes, Level]], checksum: int, packet_us: int, recv_us: int, number: int
) -> Records:
    """Return levels as records of ``KR-L2-<product>``, in their order.

    Parameters
    ----------
    levels : sequence of (type, side, Level)
        `type` b"S", b"U" or b"D", `side` b"B" or b"A".
    checksum : int
        Of the message.
    packet_us, recv_us : int
        When it was sent and received, µs.
    number : int
        Of the message, see `seq`.

    Returns
    -------
    ndarray of ``specs.dtype("kr-l2")``
        New memory; `proc_us` 0.
    """
    out = np.zeros(len(levels), specs.dtype(specs.KRAKEN_L2))
    if not levels:
        return out
    kinds, sides, values = zip(*levels, strict=True)
    out["type"] = np.frombuffer(b"".join(kinds), "S1")
    out["side"] = np.frombuffer(b"".join(sides), "S1")
    out["price_digits"] = [level.price_digits for level in values]
    out["qty_digits"] = [level.qty_digits for level in values]
    out["checksum"] = checksum
    out["packet_us"] = out["ev_us"] = packet_us
    out["recv_us"] = recv_us
    out["price"] = [level.price for level in values]
    out["qty"] = [level.qty for level in values]
    out["seq"] = number
    return out


def trade_records(trades: Sequence[TradeData], recv_us: int) -> Records:
    """Return trades as records of ``KR-TRADES-<product>``, in the order given.

    Returns
    -------
    ndarray of ``specs.dtype("kr-trades")``
        New memory; `proc_us` 0.

    Raises
    ------
    KrakenError
        If a time is malformed.
    """
    out: np.ndarray[Any, np.dtype[np.void]] = np.zeros(len(trades), specs.dtype(specs.KRAKEN_TRADES))
    out["type"] = b"T"
    out["side"] = [_TAKERS.get(trade.side, b"U") for trade in trades]
    out["order_type"] = [_ORDERS.get(trade.ord_type, b"U") for trade in trades]
    out["trade_id"] = [trade.trade_id for trade in trades]
    out["packet_us"] = out["ev_us"] = [moment(trade.timestamp) for trade in trades]
    out["recv_us"] = recv_us
    out["price"] = [trade.price for trade in trades]
    out["size"] = [trade.qty for trade in trades]
    return out


_TAKERS = {"buy": b"B", "sell": b"S"}
_ORDERS = {"market": b"M", "limit": b"L"}


def moment(text: str) -> int:
    """Microseconds of a timestamp; 0, "no time", if there is none.

    Raises
    ------
    KrakenError
        If it is malformed.
    """
    try:
        return time_us(text) if text else 0
    except ValueError as error:
        raise KrakenError(f"message is malformed: {error}") from error
