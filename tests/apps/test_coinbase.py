"""The wire format, from small literal frames."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_frames import STAMP, STAMP_US, frame, heartbeat, l2, level, trade, trades

from deepwater.apps import coinbase, specs
from deepwater.apps.coinbase_time import time_us


def test_levels_become_records_in_the_order_of_the_frame() -> None:
    data = l2(5, "snapshot", "BTC-USD", level("bid", "64725.92", "0.16462932"), level("offer", "64726", "0"))
    found = coinbase.decode(data)
    assert isinstance(found, coinbase.L2Data)
    records = coinbase.l2_records(found, found.events[0], recv_us=77)
    assert records.dtype == specs.dtype(specs.L2)
    assert records.dtype.itemsize == 64
    first, second = (dict(zip(records.dtype.names, row, strict=True)) for row in records.tolist())
    assert first == {
        "type": b"S",
        "side": b"B",
        "packet_us": STAMP_US,
        "recv_us": 77,
        "proc_us": 0,
        "ev_us": 1786253021823025,
        "price": 64725.92,
        "qty": 0.16462932,
        "seq": 5,
    }
    assert (second["side"], second["price"], second["qty"]) == (b"A", 64726.0, 0.0)


def test_an_update_is_marked_as_one_and_levels_may_have_times_of_their_own() -> None:
    data = l2(
        1,
        "update",
        "ETH-USD",
        level("bid", "1", "1", "2026-08-09T05:23:41Z"),
        level("bid", "2", "1", "2026-08-09T05:23:41.5Z"),
    )
    found = coinbase.decode(data)
    records = coinbase.l2_records(found, found.events[0], 0)
    assert records["type"].tolist() == [b"U", b"U"]
    assert np.diff(records["ev_us"].astype(np.int64)).tolist() == [500_000]


def test_trades_are_turned_oldest_first_and_the_side_is_the_makers() -> None:
    data = trades(3, trade("A-USD", 12, side="SELL"), trade("A-USD", 11, side="BUY"), trade("A-USD", 10, side="?"))
    found = coinbase.decode(data)
    assert isinstance(found, coinbase.MarketTrades)
    ((product, group),) = coinbase.trades_by_product(found)
    records = coinbase.trade_records(found, group, 9)
    assert product == "A-USD"
    assert records.dtype == specs.dtype(specs.TRADES)
    assert records["trade_id"].tolist() == [10, 11, 12]
    assert records["side"].tolist() == [b"U", b"B", b"S"]
    assert set(records["type"].tolist()) == {b"T"}
    assert set(records["packet_us"].tolist()) == {STAMP_US}
    assert set(records["ev_us"].tolist()) == {1786253021877755}


@pytest.mark.parametrize("count", [0, 1, 2, 64, 65])
@pytest.mark.parametrize("kind", ["snapshot", "update"])
def test_few_levels_are_the_same_records_as_many(count: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few are packed one by one: the same bytes, in memory that may be written."""
    levels = [
        level("offer" if number % 3 else "bid", f"{number}.25", str(number / 7), f"2026-08-09T05:23:4{number % 2}.5Z")
        for number in range(count)
    ]
    found = coinbase.decode(l2(6, kind, "A", *levels))
    assert isinstance(found, coinbase.L2Data)
    few = coinbase.l2_records(found, found.events[0], 99)
    monkeypatch.setattr(coinbase, "_FEW", 0)
    many = coinbase.l2_records(found, found.events[0], 99)
    assert few.dtype == many.dtype and few.tobytes() == many.tobytes() and len(few) == (count or kind == "snapshot")
    few["proc_us"] = 5


def test_trades_of_several_products_in_one_frame_are_told_apart() -> None:
    data = trades(3, trade("A-USD", 12), trade("B-USD", 7), trade("A-USD", 11))
    groups = dict(coinbase.trades_by_product(coinbase.decode(data)))
    assert {name: [item.trade_id for item in group] for name, group in groups.items()} == {
        "A-USD": [11, 12],
        "B-USD": [7],
    }


@pytest.mark.parametrize("key", ["updates", "trades", "events"])
def test_an_empty_list_may_come_as_null(key: str) -> None:
    data = {
        "updates": frame("l2_data", 0, [{"type": "update", "product_id": "A", "updates": None}]),
        "trades": frame("market_trades", 0, [{"type": "update", "trades": None}]),
        "events": frame("market_trades", 0, []).replace(b"[]", b"null"),
    }[key]
    found = coinbase.decode(data)
    if isinstance(found, coinbase.L2Data):
        assert len(coinbase.l2_records(found, found.events[0], 0)) == 0
    else:
        assert list(coinbase.trades_by_product(found)) == []


def test_frames_that_are_not_recorded_keep_their_number() -> None:
    assert coinbase.decode(heartbeat(4)) == coinbase.Heartbeats(STAMP, 4)
    assert coinbase.decode(frame("ticker_batch", 8, [{"a": 1}])) == coinbase.Other("ticker_batch", STAMP, 8)
    found = coinbase.decode(frame("subscriptions", 2, [{"subscriptions": {"level2": ["A"], "x": None}}]))
    assert isinstance(found, coinbase.Subscriptions)
    assert found.sequence_num == 2


def test_an_error_frame_has_no_channel() -> None:
    data = b'{"type":"error","message":"authentication failure"}'
    assert coinbase.decode(data) == coinbase.ErrorFrame("authentication failure")
    data = b'{"type":"error","message":"too many","reason":"limit is 30"}'
    assert coinbase.decode(data) == coinbase.ErrorFrame("too many: limit is 30")
    assert coinbase.decode(b'{"type":"error"}') == coinbase.ErrorFrame("the exchange gave no reason")


GOOD = l2(6, "update", "A", level("bid", "1", "2"))
BAD = {
    "cut": (GOOD[:-9], None),
    "empty": (b"", None),
    "not json": (b"<html>", None),
    "not an object": (b"[1]", None),
    "neither": (b'{"a":1}', None),
    "not utf-8": (GOOD.replace(b'"A"', b'"\xff\xfe"'), 6),
    "deep": (b"[" * 100_000, None),
    "price is text": (GOOD.replace(b'"1"', b'"one"'), 6),
    "price is nan": (GOOD.replace(b'"1"', b'"nan"'), 6),
    "price is infinite": (GOOD.replace(b'"1"', b'"-Infinity"'), 6),
    "price is too large": (GOOD.replace(b'"1"', b'"1e999"'), 6),
    "quantity is null": (GOOD.replace(b'"2"', b"null"), 6),
    "quantity is negative": (GOOD.replace(b'"2"', b'"-2"'), 6),
    "size is negative": (trades(6, trade("A", 1)).replace(b'"size":"', b'"size":"-'), 6),
    "no quantity": (GOOD.replace(b"new_quantity", b"quantity"), 6),
    "unknown side": (GOOD.replace(b'"bid"', b'"both"'), 6),
    "unknown type": (GOOD.replace(b'"update"', b'"delta"'), 6),
    "negative number": (GOOD.replace(b":6,", b":-6,"), None),
    "number is text": (GOOD.replace(b":6,", b':"x",'), None),
    "no number": (GOOD.replace(b"sequence_num", b"sequence"), None),
    "trade id is text": (trades(6, trade("A", 1)).replace(b'"1"', b'"a1"'), 6),
    "trade id is negative": (trades(6, trade("A", 1)).replace(b'"1"', b'"-1"'), 6),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_frame_is_refused_and_says_its_number_if_it_has_one(name: str) -> None:
    data, number = BAD[name]
    with pytest.raises(coinbase.FrameError) as caught:
        coinbase.decode(data)
    assert caught.value.sequence_num == number
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("time", ["", "2026-08-09", "2026-13-01T00:00:00Z", "2026-08-09T05:23:42", "x" * 27])
def test_a_malformed_time_condemns_its_frame(time: str) -> None:
    found = coinbase.decode(l2(6, "update", "A", level("bid", "1", "2", time)))
    with pytest.raises(coinbase.FrameError) as caught:
        coinbase.l2_records(found, found.events[0], 0)
    assert caught.value.sequence_num == 6


@given(st.binary(max_size=200) | st.integers(0, len(GOOD)).map(lambda at: GOOD[:at]))
def test_any_bytes_are_a_frame_or_a_frame_error(data: bytes) -> None:
    with contextlib.suppress(coinbase.FrameError):
        coinbase.decode(data)


@given(st.integers(0, 4_102_444_800), st.integers(0, 10**9 - 1), st.integers(0, 9), st.booleans())
def test_times_are_exact_with_any_number_of_digits(seconds: int, ns: int, digits: int, go: bool) -> None:
    whole = np.datetime_as_string(np.datetime64(seconds, "s"))
    fraction = f"{ns:09d}"[:digits]
    if go:
        fraction = fraction.rstrip("0")
    text = f"{whole}.{fraction}Z" if fraction else f"{whole}Z"
    assert time_us(text) == seconds * 10**6 + math.floor(Fraction(Decimal("0." + (fraction or "0"))) * 10**6)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("2026-08-09T05:23:42.9999999Z", 1786253022999999),
        ("2026-08-09T07:23:42.5+02:00", 1786253022500000),
        ("2026-08-09T03:53:42-01:30", 1786253022000000),
    ],
)
def test_times_with_an_answer_to_look_up(text: str, us: int) -> None:
    assert time_us(text) == us


def decimals() -> st.SearchStrategy[str]:
    """Numbers as text: exchange-like ones, extreme ones, and ones halfway between two floats."""

    def halfway(bits: int) -> str:
        number = struct.unpack("<d", struct.pack("<Q", bits))[0]
        return format((Decimal(number) + Decimal(math.nextafter(number, math.inf))) / 2, "f")

    digits = st.integers(0, 10**18)
    return st.one_of(
        st.builds("{}.{:08d}".format, st.integers(0, 10**9), st.integers(0, 10**8 - 1)),
        st.builds("{}.{}".format, digits, digits),
        st.builds("{}e{}".format, digits, st.integers(-330, 280)),
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.integers(0x3FF0000000000000, 0x4340000000000000).map(halfway),
    )


@given(st.lists(decimals(), min_size=1, max_size=50))
def test_prices_are_float_of_the_text_exactly(texts: list[str]) -> None:
    data = l2(0, "update", "A", *(level("bid", text, text.lstrip("-")) for text in texts))
    found = coinbase.decode(data)
    records = coinbase.l2_records(found, found.events[0], 0)
    wanted = np.array([float(text) for text in texts])
    assert records["price"].tobytes() == wanted.tobytes()
    assert records["qty"].tobytes() == np.abs(wanted).tobytes()


def test_nothing_of_a_frame_is_kept_by_its_records() -> None:
    data = bytearray(l2(0, "update", "A", level("bid", "1.5", "2")))
    found = coinbase.decode(bytes(data))
    records = coinbase.l2_records(found, found.events[0], 0)
    assert records.flags.owndata
    assert json.loads(bytes(data))["sequence_num"] == 0
