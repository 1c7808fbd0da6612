"""Coinbase Advanced Trade market data as pure functions: bytes of a frame in, record arrays out.

A frame is one JSON object ``{"channel", "timestamp", "sequence_num", "events"}``. What bites:

- the channel subscribed to as ``level2`` arrives as ``l2_data``; book sides are ``bid`` / ``offer``;
- a BTC-USD snapshot is ONE frame of 46,000 levels and 5 MB; quantities are absolute, 0 deletes, and
  a delete may name a level that is not there;
- trades are newest first in a frame; `side` is the MAKER's side;
- an empty list may arrive as ``null`` (the exchange writes JSON from Go);
- error frames, ``{"type": "error", "message": …}``, have neither `channel` nor `sequence_num`;
- "new message types can be added at any time": what is unknown is not an error.

Clocks of the records: `packet_us` is the frame's `timestamp`, `ev_us` the trade's `time` or the level's
`event_time`, `recv_us` when the frame reached us. `proc_us` is left 0 here: whoever writes sets it.

Speed. Levels are decoded straight to typed values: msgspec turns the digits of a quoted number into
the nearest float64, which is what ``float(text)`` is, without a str for each. The 5 MB snapshot takes
8 ms to decode and 7 ms to become an array (2 cores, CPython 3.11, msgspec 0.22, best of 30). With str
prices and ``float()`` each of the two takes 15 ms; the json module needs 33 ms to decode. Rejected:
decoding the envelope first and the events by channel, which reads every byte twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np

from deepwater.apps import needs_apps, specs
from deepwater.apps.coinbase_time import time_us
from deepwater.errors import DeepwaterError

try:
    import msgspec
    from msgspec import Meta, Struct
except ImportError as _error:
    needs_apps(_error)

__all__ = [
    "ErrorFrame",
    "Frame",
    "FrameError",
    "Heartbeats",
    "L2Data",
    "L2Event",
    "Level",
    "MarketTrades",
    "Numbered",
    "Other",
    "Subscriptions",
    "Trade",
    "TradesEvent",
    "decode",
    "l2_records",
    "trade_records",
    "trades_by_product",
]

Records = np.ndarray[Any, np.dtype[np.void]]

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Number = Annotated[float, Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]  # not NaN, not inf
_Amount = Annotated[float, Meta(ge=0, le=1.7976931348623157e308)]  # what rests, or was traded; a price may be negative


class FrameError(DeepwaterError, ValueError):
    """A frame is not what the protocol says.

    Attributes
    ----------
    sequence_num : int or None
        The frame's number, if that much could be read: the stream is whole up to the content.
    """

    sequence_num: int | None = None


class Level(Struct, gc=False):
    """One level of a book; `new_quantity` is absolute, 0 = the level is gone."""

    side: Literal["bid", "offer"]
    event_time: str
    price_level: _Number
    new_quantity: _Amount


class L2Event(Struct):
    """Levels of one product: its whole book (`type` "snapshot"), or what changed ("update")."""

    type: Literal["snapshot", "update"]
    product_id: str
    updates: list[Level] | None = None


class Trade(Struct, gc=False):
    """One trade; `side` is the side of the maker (the resting order)."""

    product_id: str
    trade_id: _Count
    price: _Number
    size: _Amount
    time: str
    side: str = ""


class TradesEvent(Struct):
    """Trades, newest first: the last 100 of each product ("snapshot"), or new ones ("update")."""

    type: str
    trades: list[Trade] | None = None


class L2Data(Struct, tag_field="channel", tag="l2_data"):
    """A frame of the level2 channel."""

    timestamp: str
    sequence_num: _Count
    events: list[L2Event] | None = None


class MarketTrades(Struct, tag_field="channel", tag="market_trades"):
    """A frame of the market_trades channel."""

    timestamp: str
    sequence_num: _Count
    events: list[TradesEvent] | None = None


class Heartbeats(Struct, tag_field="channel", tag="heartbeats"):
    """One a second while the connection is subscribed to them."""

    timestamp: str
    sequence_num: _Count


class Subscribed(Struct):
    """Product ids by channel, as the exchange has them now."""

    subscriptions: dict[str, list[str] | None]


class Subscriptions(Struct, tag_field="channel", tag="subscriptions"):
    """The answer to a subscription message: all subscriptions of the connection."""

    timestamp: str
    sequence_num: _Count
    events: list[Subscribed] | None = None


@dataclass(frozen=True, slots=True)
class Other:
    """A frame of a channel that is not recorded; its number counts all the same."""

    channel: str
    timestamp: str
    sequence_num: int


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """The exchange refuses something we sent. It has no number."""

    message: str


_Typed = L2Data | MarketTrades | Heartbeats | Subscriptions
Numbered = _Typed | Other
Frame = Numbered | ErrorFrame


class _Envelope(Struct):
    channel: str | None = None
    type: str | None = None
    message: str | None = None
    reason: str | None = None
    timestamp: str = ""
    sequence_num: _Count | None = None


_KNOWN = frozenset({"l2_data", "market_trades", "heartbeats", "subscriptions"})
# Not strict: quoted numbers are decoded as numbers. All prices, sizes and trade ids are quoted.
_frames: msgspec.json.Decoder[_Typed] = msgspec.json.Decoder(_Typed, strict=False)
_envelopes = msgspec.json.Decoder(_Envelope)


def decode(data: bytes) -> Frame:
    """Decode one frame.

    Parameters
    ----------
    data : bytes
        A whole websocket message, UTF-8.

    Returns
    -------
    L2Data, MarketTrades, Heartbeats, Subscriptions, Other or ErrorFrame
        Nothing in it refers to `data`.

    Raises
    ------
    FrameError
        If it is not JSON, or a known channel's frame lacks something or holds a wrong value. One bad
        level condemns its frame: half a frame would be a wrong book without a trace.

    Examples
    --------
    >>> decode(b'{"type": "error", "message": "no such product"}')
    ErrorFrame(message='no such product')
    >>> decode(b'{"channel": "status", "timestamp": "2026-08-09T05:23:42Z", "sequence_num": 7, "events": []}')
    Other(channel='status', timestamp='2026-08-09T05:23:42Z', sequence_num=7)
    """
    try:
        return _frames.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _decode_other(data, error)


def _decode_other(data: bytes, error: Exception) -> Frame:
    """Decode what is none of the known channels; `error` is why it is not, if it claims to be one."""
    try:
        envelope = _envelopes.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FrameError(f"frame is malformed: {error}") from error
    if envelope.channel in _KNOWN:
        raise FrameError(
            f"{envelope.channel} frame is malformed: {error}", sequence_num=envelope.sequence_num
        ) from error
    if envelope.sequence_num is not None and envelope.channel is not None:
        return Other(envelope.channel, envelope.timestamp, envelope.sequence_num)
    if envelope.type == "error" or envelope.message is not None:
        text = ": ".join(part for part in (envelope.message, envelope.reason) if part)
        return ErrorFrame(text or "the exchange gave no reason")
    raise FrameError(
        f"frame is malformed: neither a channel with a sequence_num nor an error: {data[:80]!r}",
        sequence_num=envelope.sequence_num,
    ) from error


def l2_records(frame: L2Data, event: L2Event, recv_us: int) -> Records:
    """Return the levels of an event as records of ``CB-L2-<product>``, in the order of the frame.

    Parameters
    ----------
    frame, event : L2Data, L2Event
        The event and the frame it is part of.
    recv_us : int
        When the frame was received, µs.

    Returns
    -------
    ndarray of ``specs.dtype("cb-l2")``
        New memory; `proc_us` 0. Empty if an update has no levels; of a snapshot without any the one record that
        removes what is not there (a bid at 0), so that it is an empty book.

    Raises
    ------
    FrameError
        If a time is malformed.
    """
    levels = event.updates or ([Level("bid", frame.timestamp, 0.0, 0.0)] if event.type == "snapshot" else [])
    if 0 < len(levels) <= _FEW:
        return _few_levels(frame, event, levels, recv_us)
    out = np.zeros(len(levels), _l2_dtype())
    out["type"] = b"S" if event.type == "snapshot" else b"U"
    out["side"] = np.frombuffer(b"".join([_BOOK_SIDES[level.side] for level in levels]), "S1")
    out["packet_us"] = _frame_us(frame)
    out["recv_us"] = recv_us
    out["ev_us"] = _times([level.event_time for level in levels], frame)
    out["price"] = [level.price_level for level in levels]
    out["qty"] = [level.new_quantity for level in levels]
    out["seq"] = frame.sequence_num
    return out


def _few_levels(frame: L2Data, event: L2Event, levels: list[Level], recv_us: int) -> Records:
    """The same packed one by one: an array's fields cost 1 µs each to set, however few rows there are."""
    kind = b"S" if event.type == "snapshot" else b"U"
    packet_us, number, pack = _frame_us(frame), frame.sequence_num, specs.packer(specs.L2).pack
    times = dict.fromkeys([level.event_time for level in levels])
    known = dict(zip(times, _times(list(times), frame), strict=True))
    rows = [
        pack(kind, _BOOK_SIDES[level.side], packet_us, recv_us, 0, known[level.event_time], level.price_level,
             level.new_quantity, number)
        for level in levels
    ]  # fmt: skip
    out = np.zeros(len(rows), _l2_dtype())
    out.view(_BYTES)[:] = np.frombuffer(b"".join(rows), _BYTES)
    return out


def trades_by_product(frame: MarketTrades) -> Iterator[tuple[str, list[Trade]]]:
    """Yield, event by event, the trades of each product, oldest first.

    "Oldest first" is by `trade_id`, which counts up per product; a frame is newest first, so this
    reverses it, and a frame that was not would come out right too.
    """
    for event in frame.events or ():
        groups: dict[str, list[Trade]] = {}
        for trade in reversed(event.trades or ()):
            groups.setdefault(trade.product_id, []).append(trade)
        for product, trades in groups.items():
            yield product, sorted(trades, key=lambda trade: trade.trade_id)


def trade_records(frame: MarketTrades, trades: list[Trade], recv_us: int) -> Records:
    """Return trades as records of ``CB-TRADES-<product>``, in the order given.

    Parameters
    ----------
    frame : MarketTrades
        The frame they came in.
    trades : list of Trade
        Of one product, oldest first.
    recv_us : int
        When the frame was received, µs.

    Returns
    -------
    ndarray of ``specs.dtype("cb-trades")``
        New memory; `proc_us` 0. `side` is b"B" or b"S", the maker's, or b"U" for anything else.

    Raises
    ------
    FrameError
        If a time is malformed.
    """
    out = np.zeros(len(trades), _trades_dtype())
    if not trades:
        return out
    packet_us, pack = _frame_us(frame), specs.packer(specs.TRADES).pack
    rows = [
        pack(b"T", _MAKERS.get(trade.side, b"U"), trade.trade_id, packet_us, recv_us, 0, _times([trade.time], frame)[0],
             trade.price, trade.size)
        for trade in trades
    ]  # fmt: skip
    out.view(_BYTES)[:] = np.frombuffer(b"".join(rows), _BYTES)
    return out


_FEW = 64
_BYTES = np.dtype(f"V{specs.packer(specs.L2).size}")
_BOOK_SIDES = {"bid": b"B", "offer": b"A"}
_MAKERS = {"BUY": b"B", "SELL": b"S"}


@lru_cache(maxsize=1)
def _l2_dtype() -> np.dtype[Any]:
    return specs.dtype(specs.L2)


@lru_cache(maxsize=1)
def _trades_dtype() -> np.dtype[Any]:
    return specs.dtype(specs.TRADES)


def _frame_us(frame: L2Data | MarketTrades) -> int:
    return _times([frame.timestamp], frame)[0]


def _times(texts: list[str], frame: L2Data | MarketTrades) -> list[int]:
    """Parse times, each different text once: the levels of an event share one.

    One time for all comes back as a list of one, which NumPy spreads.
    """
    try:
        if len(texts) == 1:
            return [time_us(texts[0])]
        known = {text: time_us(text) for text in set(texts)}
    except ValueError as error:
        raise FrameError(f"frame is malformed: {error}", sequence_num=frame.sequence_num) from error
    return list(known.values()) if len(known) == 1 else [known[text] for text in texts]
