"""The time rule: every form, every bad input, and pandas and integer masks as oracles."""

from __future__ import annotations

import calendar
import pickle
import subprocess
import sys
import time
import zoneinfo
from collections import deque
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deepwater import timestamps
from deepwater.errors import DeepwaterError, TimeFormatError
from deepwater.timestamps import (
    MAX_US,
    Bounds,
    duration_us,
    format_us,
    guess_unit,
    instant,
    instants,
    is_time,
    last_instant,
    now_us,
    resolve,
)

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
EMPTY = Bounds(1, 0)


def us(year: int, month: int = 1, day: int = 1, *clock: int) -> int:
    """Microseconds of a UTC time (hour, minute, second, µs) by the standard library: a second opinion."""
    hour, minute, second, part = (*clock, 0, 0, 0, 0)[:4]
    return calendar.timegm((year, month, day, hour, minute, second)) * SECOND + part


def naive(*parts: int, **more: Any) -> datetime:
    """Make a datetime without a zone, which the linter would rather not see."""
    return datetime(*parts, **more)  # type: ignore[arg-type]  # noqa: DTZ001


NOW = us(2026, 8, 9, 5, 23, 42, 196_708)
TODAY = us(2026, 8, 9)
TEN = us(2026, 1, 1, 10)


# ------------------------------------------------------------------------------------- forms, as spans

PERIODS = {
    "2026": (us(2026), us(2027) - 1),
    "2024": (us(2024), us(2024) + 366 * DAY - 1),
    "1970": (0, 365 * DAY - 1),
    "9999": (us(9999), us(9999) + 365 * DAY - 1),
    "2026-01": (us(2026), us(2026, 2) - 1),
    "2026-12": (us(2026, 12), us(2027) - 1),
    "2024-02": (us(2024, 2), us(2024, 3) - 1),
    "2100-02": (us(2100, 2), us(2100, 2) + 28 * DAY - 1),
    "9999-12": (us(9999, 12), us(9999, 12) + 31 * DAY - 1),
    "2026-01-01": (us(2026), us(2026) + DAY - 1),
    "2024-02-29": (us(2024, 2, 29), us(2024, 3) - 1),
    "9999-12-31": (us(9999, 12, 31), us(9999, 12, 31) + DAY - 1),
    "2026-01-01T10": (TEN, TEN + HOUR - 1),
    "2026-01-01 10": (TEN, TEN + HOUR - 1),
    "2026-01-01t10:00z": (TEN, TEN + MINUTE - 1),
    "2026-01-01T10:00": (TEN, TEN + MINUTE - 1),
    "2026-01-01 10:00:00": (TEN, TEN + SECOND - 1),
    "2026-01-01T23:59:59": (us(2026, 1, 2) - SECOND, us(2026, 1, 2) - 1),
    "  2026-01-01T10:00:00\n": (TEN, TEN + SECOND - 1),
    # one to three digits: the millisecond, as pandas has it; four to six: the microsecond
    "2026-01-01T10:00:00.5": (TEN + 500_000, TEN + 500_999),
    "2026-01-01T10:00:00.05": (TEN + 50_000, TEN + 50_999),
    "2026-01-01T10:00:00.000": (TEN, TEN + 999),
    "2026-01-01T10:00:00.5000": (TEN + 500_000,) * 2,
    "2026-01-01T10:00:00.12345": (TEN + 123_450,) * 2,
    "2026-01-01T10:00:00.123456": (TEN + 123_456,) * 2,
    # seven to nine: nanoseconds. On a µs: that µs. Between two: the next as start, the one before as end
    "2026-01-01T10:00:00.1234560": (TEN + 123_456,) * 2,
    "2026-01-01T10:00:00.123456000": (TEN + 123_456,) * 2,
    "2026-01-01T10:00:00.1234567": (TEN + 123_457, TEN + 123_456),
    "2026-01-01T10:00:00.123456001": (TEN + 123_457, TEN + 123_456),
    "2026-01-01T10:00:00.999999999": (TEN + SECOND, TEN + SECOND - 1),
    # offsets
    "2026-01-01T10Z": (TEN, TEN + HOUR - 1),
    "2026-01-01T10:00:00Z": (TEN, TEN + SECOND - 1),
    "2026-01-01T10:00:00.5Z": (TEN + 500_000, TEN + 500_999),
    "2026-01-01T11+01:00": (TEN, TEN + HOUR - 1),
    "2026-01-01T11+0100": (TEN, TEN + HOUR - 1),
    "2026-01-01T11:00+01:00": (TEN, TEN + MINUTE - 1),
    "2026-01-01 11:00:00+0100": (TEN, TEN + SECOND - 1),
    "2026-01-01 11:00:00+01": (TEN, TEN + SECOND - 1),
    "2026-01-01T04:30:00.25-05:30": (TEN + 250_000, TEN + 250_999),
    "2026-01-01T00:00+14:00": (us(2026) - 14 * HOUR, us(2026) - 14 * HOUR + MINUTE - 1),
    "2025-12-31T10:01-23:59": (TEN, TEN + MINUTE - 1),
    # around now
    "05:23": (TODAY + 5 * HOUR + 23 * MINUTE, TODAY + 5 * HOUR + 24 * MINUTE - 1),
    "23:59": (TODAY + DAY - MINUTE, TODAY + DAY - 1),
    "05:23:42": (NOW - 196_708, NOW - 196_708 + SECOND - 1),
    "05:23:42Z": (NOW - 196_708, NOW - 196_708 + SECOND - 1),
    "05:23:42.196": (NOW - 708, NOW + 291),
    "05:23:42.196708": (NOW, NOW),
    "today": (TODAY, TODAY + DAY - 1),
    "Today": (TODAY, TODAY + DAY - 1),
    "yesterday": (TODAY - DAY, TODAY - 1),
    "now": (NOW, NOW),
    "NOW": (NOW, NOW),
    "-15min": (NOW - 15 * MINUTE,) * 2,
    "-1h30m": (NOW - 90 * MINUTE,) * 2,
    "-2d": (NOW - 2 * DAY,) * 2,
    "-250ms": (NOW - 250_000,) * 2,
    "-0s": (NOW, NOW),
    "+5min": (NOW + 5 * MINUTE,) * 2,
}


@pytest.mark.parametrize(("text", "span"), PERIODS.items(), ids=PERIODS)
def test_text_names_its_period(text: str, span: tuple[int, int]) -> None:
    first, last = span
    assert resolve(text, None, now=NOW) == Bounds(first, MAX_US)
    assert resolve(None, text, now=NOW) == Bounds(0, last)
    assert instant(text, now=NOW) == first
    assert instant(text, rounding="down", now=NOW) == min(span)
    assert last_instant(text, now=NOW) == last
    assert instants([text], now=NOW).tolist() == [min(span)]
    assert instants(np.array([text]), rounding="up", now=NOW).tolist() == [first]
    whole = resolve(text, text, now=NOW)
    assert whole == (Bounds(first, last) if first <= last else EMPTY)


BERLIN = timezone(timedelta(hours=1))
INSTANTS = [
    (0, 0),
    (TEN, TEN),
    (MAX_US, MAX_US),
    (np.int64(TEN), TEN),
    (np.uint64(MAX_US), MAX_US),
    (np.int8(7), 7),
    (naive(2026, 1, 1, 10), TEN),
    (naive(2026, 1, 1, 10, 0, 0, 7), TEN + 7),
    (datetime(2026, 1, 1, 10, tzinfo=UTC), TEN),
    (datetime(2026, 1, 1, 11, tzinfo=BERLIN), TEN),
    (datetime(2026, 1, 1, 10, 0, 1, 5, tzinfo=timezone(timedelta(microseconds=SECOND))), TEN + 5),
    (naive(9999, 12, 31, 23, 59, 59, 999_999), us(9999, 12, 31) + DAY - 1),
    (datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=23))), us(9999, 12, 31) + 46 * HOUR),
    (pd.Timestamp("2026-01-01 10:00"), TEN),
    (pd.Timestamp("2026-01-01 11:00", tz="Europe/Berlin"), TEN),
    (pd.Timestamp("2026-01-01 10:00").as_unit("s"), TEN),
    (pd.Timestamp(TEN * 1000), TEN),
    (pd.Timestamp(np.datetime64("20000-01-01", "s")), 568_971_820_800 * SECOND),
    (np.datetime64("2026-01-01"), us(2026)),
    (np.datetime64("2026"), us(2026)),
    (np.datetime64("2026-03"), us(2026, 3)),
    (np.datetime64("1971-12", "M"), us(1971, 12)),
    (np.datetime64("2026-01-01", "W"), us(2026)),
    (np.datetime64("2026-01-01T10", "h"), TEN),
    (np.datetime64("2026-01-01T10", "m"), TEN),
    (np.datetime64("2026-01-01T10", "s"), TEN),
    (np.datetime64("2026-01-01T10", "ms"), TEN),
    (np.datetime64("2026-01-01T10", "us"), TEN),
    (np.datetime64("2026-01-01T10", "ns"), TEN),
    (np.datetime64("1970-01-01T00:00:05", "as"), 5 * SECOND),
    (np.datetime64(3, "10us"), 30),
    (np.datetime64(3, "7D"), 21 * DAY),
    (np.datetime64(3, "4Y"), us(1982)),
    (np.datetime64("10000-02", "M"), us(9999, 12, 31) + 32 * DAY),
    (np.datetime64(586_523 - 1970, "Y"), int(np.datetime64("586523-01-01", "s").astype(np.int64)) * SECOND),
]


@pytest.mark.parametrize(("value", "expected"), INSTANTS, ids=str)
def test_all_else_is_an_instant(value: Any, expected: int) -> None:
    assert resolve(value, value) == Bounds(expected, expected)
    assert resolve(value, None, inclusive="right").lo in (expected + 1, 1)  # 1: empty after 2^64-1
    assert instant(value) == last_instant(value) == expected
    assert instants(value).tolist() == instants([value]).tolist() == [expected]
    for found in (instant(value), resolve(value, value).lo):
        assert type(found) is int


SUB_US = [
    np.datetime64(TEN * 1000 + 1, "ns"),
    np.datetime64(TEN * 1000 + 999, "ns"),
    np.datetime64(TEN * 100 + 1, "10ns"),
    pd.Timestamp(TEN * 1000 + 500),
    pd.Timestamp(TEN * 1000 + 1, tz="Asia/Tokyo"),
]


@pytest.mark.parametrize("value", SUB_US, ids=repr)
def test_an_instant_between_two_microseconds_is_rounded_inwards(value: Any) -> None:
    assert resolve(value, None).lo == instant(value) == TEN + 1
    assert resolve(None, value).hi == last_instant(value) == instant(value, rounding="down") == TEN
    assert resolve(value, value) == EMPTY
    # Left out or not, it lies between the two.
    assert resolve(value, None, inclusive="neither").lo == TEN + 1
    assert resolve(None, value, inclusive="neither").hi == TEN
    assert instants(value).tolist() == [TEN]
    assert instants([value], rounding="up").tolist() == [TEN + 1]


@pytest.mark.parametrize("unit", ["ps", "fs", "as"])
def test_units_finer_than_a_nanosecond(unit: str) -> None:
    per_us = {"ps": 10**6, "fs": 10**9, "as": 10**12}[unit]
    value = np.datetime64(5 * per_us + 1, unit)
    assert (instant(value), last_instant(value)) == (6, 5)
    assert instants(np.array([value])).tolist() == [5]
    assert instants(np.array([value]), rounding="up").tolist() == [6]


def test_a_date_is_a_period_and_a_datetime_is_not() -> None:
    assert resolve(date(2026, 1, 1), date(2026, 1, 1)) == resolve("2026-01-01", "2026-01-01")
    assert resolve(naive(2026, 1, 1), naive(2026, 1, 1)) == Bounds(us(2026), us(2026))
    assert instant(date(2026, 1, 1)) == us(2026)
    assert last_instant(date(2026, 1, 1)) == us(2026, 1, 2) - 1
    assert resolve(date.max, date.max) == Bounds(us(9999, 12, 31), us(9999, 12, 31) + DAY - 1)


# ------------------------------------------------------------------------------------- bounds


def test_none_is_open() -> None:
    assert resolve(None, None) == Bounds(0, MAX_US)
    assert resolve(None, None, inclusive="neither") == Bounds(0, MAX_US)
    assert resolve(5, None) == Bounds(5, MAX_US)
    assert resolve(None, 5) == Bounds(0, 5)


def test_inclusive_drops_whole_periods() -> None:
    first, last = "2026-01-01", "2026-01-02"
    one, two, three = us(2026, 1, 1), us(2026, 1, 2), us(2026, 1, 3)
    assert resolve(first, last) == Bounds(one, three - 1)
    assert resolve(first, last, inclusive="left") == Bounds(one, two - 1)
    assert resolve(first, last, inclusive="right") == Bounds(two, three - 1)
    assert resolve(first, last, inclusive="neither") == EMPTY
    assert resolve(first, "2026-01-03", inclusive="neither") == Bounds(two, three - 1)
    assert resolve(first, first, inclusive="left") == EMPTY
    assert resolve(date(2026, 1, 1), date(2026, 1, 2), inclusive="left") == Bounds(one, two - 1)


@pytest.mark.parametrize(
    ("inclusive", "expected"),
    [("both", (10, 20)), ("left", (10, 19)), ("right", (11, 20)), ("neither", (11, 19))],
)
def test_inclusive_of_instants(inclusive: Any, expected: tuple[int, int]) -> None:
    assert resolve(10, 20, inclusive=inclusive) == Bounds(*expected)
    assert resolve(np.datetime64(10, "us"), 20, inclusive=inclusive) == Bounds(*expected)


def test_leaving_out_the_ends_of_the_clock() -> None:
    assert resolve(None, 0, inclusive="left") == EMPTY
    assert resolve(MAX_US, None, inclusive="right") == EMPTY
    assert resolve(0, MAX_US, inclusive="neither") == Bounds(1, MAX_US - 1)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (20, 10, EMPTY),
        (10, 10, Bounds(10, 10)),
        (-5, 5, Bounds(0, 5)),
        (-5, -1, EMPTY),
        (None, -1, EMPTY),
        (5, 2**64, Bounds(5, MAX_US)),
        (5, 10**30, Bounds(5, MAX_US)),
        (2**64, None, EMPTY),
        (2**64, 2**64 + 5, EMPTY),
        ("1969", "1969", EMPTY),
        (None, "1969", EMPTY),
        ("1969-12-31", "1970-01-01", Bounds(0, DAY - 1)),
        ("0001", "9999", Bounds(0, us(9999, 12, 31) + DAY - 1)),
        ("0001-01-01T00:00+23:59", 1, Bounds(0, 1)),
        ("1970-01-01T00:30+01:00", 1, Bounds(0, 1)),
        (None, "1970-01-01T00:30+01:00", EMPTY),
        (naive(1, 1, 1), naive(9999, 12, 31, 23, 59, 59, 999_999), Bounds(0, us(9999, 12, 31) + DAY - 1)),
        (date.min, 5, Bounds(0, 5)),
        (np.datetime64(-(2**62), "s"), np.datetime64(2**62, "s"), Bounds(0, MAX_US)),
        (np.datetime64(-(2**63) + 1, "Y"), np.datetime64(2**63 - 1, "Y"), Bounds(0, MAX_US)),
        (np.datetime64(2**63 - 1, "W"), None, EMPTY),
        (np.datetime64(2**63 - 1, "us"), np.datetime64(2**63 - 1, "us"), Bounds(2**63 - 1, 2**63 - 1)),
        (np.datetime64("600000", "Y"), None, EMPTY),
        ("-999999999999999w", "now", Bounds(0, NOW)),
        ("+999999999999999w", None, EMPTY),
        ("2026-02", "2026-01", EMPTY),
    ],
)
def test_bounds_are_clamped_and_reversed_ones_are_empty(start: Any, end: Any, expected: Bounds) -> None:
    assert resolve(start, end, now=NOW) == expected
    assert expected.empty == (expected == EMPTY)


def test_single_instants_are_clamped() -> None:
    assert (instant("1969"), instant(-1), instant(2**70), last_instant("1969"), last_instant(2**70)) == (
        0,
        0,
        MAX_US,
        0,
        MAX_US,
    )
    assert instants([-1, "1969", 2**64, MAX_US]).tolist() == [0, 0, MAX_US, MAX_US]


def test_bounds_are_a_value() -> None:
    bounds = Bounds(1, 2)
    assert bounds == Bounds(1, 2)
    assert hash(bounds) == hash(Bounds(1, 2))
    assert pickle.loads(pickle.dumps(bounds)) == bounds
    assert not hasattr(bounds, "__dict__")
    with pytest.raises(AttributeError):
        bounds.lo = 5  # type: ignore[misc]


def test_the_fast_path_of_ints_agrees_with_the_general_one() -> None:
    edges = [-(2**70), -1, 0, 1, TEN, MAX_US - 1, MAX_US, MAX_US + 1, 2**70]
    for start in edges:
        for end in edges:
            fast = resolve(start, end)
            lo, hi = max(start, 0), min(end, MAX_US)
            assert fast == (Bounds(lo, hi) if lo <= hi else EMPTY)
            assert fast == resolve(Int(start), Int(end))


class Int(int):
    """An int that the fast path does not know."""


# ------------------------------------------------------------------------------------- now


def test_now_is_read_once_for_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([NOW])
    monkeypatch.setattr(timestamps, "now_us", lambda: next(readings))
    assert resolve("-15min", "now") == Bounds(NOW - 15 * MINUTE, NOW)


@pytest.mark.parametrize(
    "call", [lambda: instant("now"), lambda: last_instant("now"), lambda: int(instants(["now", "now"])[1])]
)
def test_now_defaults_to_the_clock(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW * 1000 + 999)
    assert now_us() == NOW
    assert call() == NOW


def test_around_midnight() -> None:
    midnight = us(2026, 1, 1)
    assert resolve("today", "today", now=midnight) == resolve("2026-01-01", "2026-01-01")
    assert resolve("today", "today", now=midnight - 1) == resolve("2025-12-31", "2025-12-31")
    assert resolve("yesterday", "00:00", now=midnight) == Bounds(us(2025, 12, 31), midnight + MINUTE - 1)
    assert resolve("yesterday", "yesterday", now=5) == EMPTY  # 31 December 1969


# ------------------------------------------------------------------------------------- time zones


@pytest.fixture(params=["America/New_York", "Asia/Kolkata"])
def machine_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("machine_zone")
def test_the_zone_of_the_machine_does_not_matter() -> None:
    # 02:30 on 8 March 2026 does not exist in New York, 01:30 on 1 November 2026 is there twice.
    assert instant("2026-03-08T02:30") == instant(naive(2026, 3, 8, 2, 30)) == us(2026, 3, 8, 2, 30)
    assert instant("2026-11-01T01:30") == us(2026, 11, 1, 1, 30)
    assert instant(naive(2026, 11, 1, 1, 30, fold=1)) == us(2026, 11, 1, 1, 30)
    assert resolve("2026-03-08", "2026-03-08") == Bounds(us(2026, 3, 8), us(2026, 3, 9) - 1)
    assert resolve("today", "01:00", now=NOW) == Bounds(TODAY, TODAY + HOUR + MINUTE - 1)
    assert format_us(us(2026, 3, 8, 2, 30)) == "2026-03-08T02:30:00.000000Z"


def test_a_zone_with_summer_time() -> None:
    try:
        zone: tzinfo = zoneinfo.ZoneInfo("America/New_York")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("no time zone database")
    twice = datetime(2026, 11, 1, 1, 30, tzinfo=zone)
    assert instant(twice) == us(2026, 11, 1, 5, 30)
    assert instant(twice.replace(fold=1)) == us(2026, 11, 1, 6, 30)
    assert instant(pd.Timestamp(twice.replace(fold=1))) == us(2026, 11, 1, 6, 30)


# ------------------------------------------------------------------------------------- refused

BAD_TEXT = {
    "": "none of the forms",
    " ": "none of the forms",
    "banana": "none of the forms",
    "tomorrow": "none of the forms",
    "2026-1-1": "none of the forms",
    "2026/01/01": "none of the forms",
    "01.01.2026": "none of the forms",
    "2026-01-01T": "none of the forms",
    "2026-01-01T1": "none of the forms",
    "2026-01-01  10:00": "none of the forms",
    "2026-01-01T10:0": "none of the forms",
    "2026-01-01T10:00:": "none of the forms",
    "2026-01-01T10:00:00.": "none of the forms",
    "2026-01-01T10:00:00,5": "none of the forms",
    "2026-01-01T10:00 UTC": "none of the forms",
    "2026-01-01T10.5": "none of the forms",
    "2026-W01": "none of the forms",
    "2026-001": "none of the forms",
    "20260101T10": "none of the forms",
    "２０２６": "none of the forms",
    "2026\x00": "none of the forms",
    "\ud800": "none of the forms",
    "--15min": "not numbers with units",
    "-": "not numbers with units",
    "-15": "not numbers with units",
    "-1": "not numbers with units",
    "-2026": "not numbers with units",
    "+02026-01-01": "not numbers with units",
    "-15parsec": "no unit 'parsec'",
    "-1M": "no unit 'M'",
    "15min": "minus sign",
    "20260101": "bare number",
    "1786253022196708": "bare number",
    "26": "bare number",
    "2026Z": "an offset needs a time of day",
    "2026-01-01Z": "an offset needs a time of day",
    "2026-01-01+01:00": "an offset needs a time of day",
    "2026-01-01T+01:00": "an offset needs a time of day",
    "10:00+01:00": "write the date too",
    "0000": "first year is 0001",
    "0000-01-01": "first year is 0001",
    "2026-00": "no month 00",
    "2026-13": "no month 13",
    "2026-13-01T10:00": "no month 13",
    "2026-02-30": "2026-02 has 28 days",
    "2024-02-30": "2024-02 has 29 days",
    "2026-04-31T10": "2026-04 has 30 days",
    "2026-01-00": "2026-01 has 31 days",
    "2026-01-01T24": "hours are 00 to 23",
    "2026-01-01T24:00:00": "00:00 of the next day",
    "2026-01-01T25:00": "hours are 00 to 23",
    "24:00": "hours are 00 to 23",
    "2026-01-01T10:60": "minutes are 00 to 59",
    "2016-12-31T23:59:60": "no leap seconds",
    "2016-12-31T23:59:61Z": "seconds are 00 to 59",
    "10:00:60": "no leap seconds",
    "2026-01-01T10:00:00.0123456789": "at most 9 digits",
    "10:00:00.0123456789Z": "at most 9 digits",
    "2026-01-01T10-05": "bare hour",
    "2026-01-01T10:00+24:00": "at most ±23:59",
    "2026-01-01T10:00+01:60": "at most ±23:59",
}

BAD_VALUES = [
    1.0,
    float("nan"),
    float("inf"),
    np.float64(1.0),
    np.float32(1.0),
    True,
    False,
    np.True_,
    pd.NaT,
    pd.NA,
    np.datetime64("NaT", "s"),
    np.datetime64("NaT", "ns"),
    np.timedelta64(5, "s"),
    timedelta(seconds=5),
    pd.Timedelta("5s"),
    pd.Period("2026-01"),
    naive(2026, 1, 1).time(),
    b"2026",
    bytearray(b"2026"),
    1j,
    object(),
    [1],
    (1, 2),
    {},
    {1},
    slice(1, 2),
    np.array([5]),
    np.array(["2026"], dtype="M8[us]"),
    pa.scalar(5),
]


@pytest.mark.parametrize(("text", "why"), BAD_TEXT.items(), ids=[ascii(text) for text in BAD_TEXT])
def test_text_in_no_form_is_refused(text: str, why: str) -> None:
    for call in (
        lambda: resolve(text, None, now=NOW),
        lambda: resolve(5, text, now=NOW),
        lambda: instant(text, now=NOW),
        lambda: last_instant(text, now=NOW),
        lambda: instants([1, text], now=NOW),
        lambda: instants(np.array(["2026", text], dtype=object), now=NOW),
    ):
        with pytest.raises(TimeFormatError) as caught:
            call()
        message = str(caught.value)
        assert why in message
        assert repr(text)[:20] in message
        assert "accepted are" in message
        assert caught.value.value in (text, text.strip())


@pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]}")
def test_other_types_are_refused(value: Any) -> None:
    calls = [
        lambda: resolve(value, None),
        lambda: resolve(None, value),
        lambda: resolve(5, value, inclusive="left"),
        lambda: instant(value),
        lambda: last_instant(value),
    ]
    if not isinstance(value, (list, tuple, np.ndarray)):
        calls += [lambda: instants(value), lambda: instants([value]), lambda: instants([5, value])]
    for call in calls:
        with pytest.raises(TimeFormatError, match="'-15min'"):
            call()


def test_the_message_says_which_bound_and_the_error_survives_pickling() -> None:
    for call, where in (
        (lambda: resolve("banana", 5), "start 'banana': "),
        (lambda: resolve(5, 1.5), "end 1.5: float is not accepted: a float does not hold"),
        (lambda: instant(object()), "time <object"),
        (lambda: instants([1, 2, None]), "time 2 None: NoneType is not accepted"),
    ):
        with pytest.raises(TimeFormatError) as caught:
            call()
        error = caught.value
        assert str(error).startswith(where)
        assert isinstance(error, ValueError)
        assert isinstance(error, DeepwaterError)
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.value) == (TimeFormatError, str(error), error.value)


def test_what_is_refused_is_shown_in_short() -> None:
    for value in ("x" * 10**6, "1s" * 10**5 + "x", "9" * 10**5, list(range(10**5)), np.arange(10**5) * 1.0):
        with pytest.raises(TimeFormatError) as caught:
            resolve(value, None)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("inclusive", ["", "BOTH", None, True, 1, "start"])
@pytest.mark.parametrize("end", [5, "2026"])
def test_inclusive_is_one_of_four(inclusive: Any, end: Any) -> None:
    with pytest.raises(TimeFormatError, match="expected 'both', 'left', 'right' or 'neither'"):
        resolve(1, end, inclusive=inclusive)


# ------------------------------------------------------------------------------------- arrays

STAMPS = pd.DatetimeIndex(["2026-01-01 10:00", "1970-01-01", "2026-07-01 00:00:00.000007"]).as_unit("us")
STAMPS_US = [TEN, 0, us(2026, 7, 1) + 7]
ARRAYS = {
    "list of text": ["2026-01-01T10", "1970", "2026-07-01T00:00:00.000007"],
    "list of int": STAMPS_US,
    "tuple mixed": (TEN, np.datetime64(0, "s"), "2026-07-01T00:00:00.000007Z"),
    "deque": deque(STAMPS_US),
    "object array": np.array([TEN, date(1970, 1, 1), STAMPS[2]], dtype=object),
    "text array": np.array(["2026-01-01T10", "1970", "2026-07-01T00:00:00.000007"]),
    "StringDType": np.array(
        ["2026-01-01T10", "1970", "2026-07-01T00:00:00.000007"], dtype=np.dtypes.StringDType()
    ),
    "uint64": np.array(STAMPS_US, dtype=np.uint64),
    "int64": np.array(STAMPS_US),
    "big-endian int": np.array(STAMPS_US, dtype=">i8"),
    "strided": np.array([STAMPS_US, STAMPS_US]).T[:, 1],
    "M8[us]": np.array(STAMPS_US, dtype="M8[us]"),
    "M8[ns]": np.array(STAMPS_US, dtype="M8[us]").astype("M8[ns]"),
    "M8[10ns]": (np.array(STAMPS_US) * 100).view("M8[10ns]"),
    "big-endian M8": np.array(STAMPS_US, dtype="M8[us]").astype(">M8[us]"),
    "strided M8": np.array([STAMPS_US, STAMPS_US], dtype="M8[us]").T[:, 1],
    "masked, none missing": np.ma.array(STAMPS_US, mask=[0, 0, 0]),
    "DatetimeIndex": STAMPS,
    "DatetimeIndex UTC": STAMPS.tz_localize("UTC"),
    "DatetimeIndex zoned": STAMPS.tz_localize("UTC").tz_convert("Asia/Kolkata"),
    "DatetimeIndex zoned ns": STAMPS.tz_localize("UTC").tz_convert("Asia/Kolkata").as_unit("ns"),
    "Series": pd.Series(STAMPS, index=[7, 7, 7]),
    "Series zoned": pd.Series(STAMPS.tz_localize("UTC").tz_convert("Europe/Berlin")),
    "Series of objects": pd.Series(list(STAMPS.tz_localize("UTC")), dtype=object),
    "Series of arrow": pd.Series(STAMPS.tz_localize("UTC")).astype(pd.ArrowDtype(pa.timestamp("us", "UTC"))),
    "Series Int64": pd.Series(STAMPS_US, dtype="Int64"),
    # Made here, not in a test: the first Series opens descriptors that polars keeps for the process.
    "polars": pl.Series([datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at) for at in STAMPS_US]),
    "polars zoned": pl.Series(STAMPS_US, dtype=pl.Int64).cast(pl.Datetime("us", "Asia/Kolkata")),
    "pyarrow array": pa.array(STAMPS_US, type=pa.timestamp("us", "UTC")),
}


@pytest.mark.parametrize("values", ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_every_kind(values: Any) -> None:
    found = instants(values)
    assert found.dtype == np.uint64
    assert found.shape == (3,)
    assert found.tolist() == STAMPS_US


@pytest.mark.parametrize("name", [name for name in ARRAYS if "M8[ns]" in name or "Index" in name])
def test_datetime_arrays_are_not_converted_item_by_item(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(timestamps, "_each")
    assert instants(ARRAYS[name]).tolist() == STAMPS_US
    if isinstance(ARRAYS[name], pd.DatetimeIndex):
        assert instants(pd.Series(ARRAYS[name])).tolist() == STAMPS_US


def test_the_result_is_new_and_writable() -> None:
    for values in (np.array([1, 2], dtype=np.uint64), np.array([1, 2]), np.array([1, 2], dtype="M8[us]")):
        found = instants(values)
        assert not np.shares_memory(found, values)
        found[:] = 0
        assert values.view(np.int64).tolist() == [1, 2]


def test_shapes() -> None:
    for empty in ([], (), np.array([], dtype="M8[us]"), np.array([], dtype=np.int64), pd.DatetimeIndex([])):
        assert instants(empty).shape == (0,)
        assert instants(empty).dtype == np.uint64
    assert instants(np.array(5)).shape == instants(np.array("2026")).shape == instants(5).shape == (1,)
    assert instants(range(3)).tolist() == [0, 1, 2]
    for values in (np.zeros((2, 2), dtype=np.int64), pd.DataFrame({"a": [1]})):
        with pytest.raises(TimeFormatError, match="shape"):
            instants(values)


NUMPY_UNITS = ["W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "Y", "M", "7ns"]


@pytest.mark.parametrize("unit", NUMPY_UNITS)
@pytest.mark.parametrize("rounding", ["up", "down"])
def test_whole_arrays_agree_with_single_values(unit: str, rounding: Any) -> None:
    ticks = [-(2**63) + 1, -(10**9), -1001, -1, 0, 1, 59, 999, 1000, 1001, 10**6 + 1, 10**12, 2**63 - 1]
    array = np.array(ticks, dtype=np.int64).view(f"M8[{unit}]")
    assert instants(array, rounding=rounding).tolist() == [instant(v, rounding=rounding) for v in array]
    assert instants(array.astype(array.dtype.newbyteorder(">")), rounding=rounding).tolist() == [
        instant(v, rounding=rounding) for v in array
    ]


MISSING = {
    "None": [5, None],
    "nan in a list": [5, float("nan")],
    "object nan": np.array([5, np.nan], dtype=object),
    "NaT": np.array(["2026", "NaT"], dtype="M8[us]"),
    "NaT days": np.array(["2026", "NaT"], dtype="M8[D]"),
    "NaT years": np.array(["2026", "NaT"], dtype="M8[Y]"),
    "list with NaT": ["2026", pd.NaT],
    "index with NaT": pd.DatetimeIndex(["2026", None]),
    "zoned index with NaT": pd.DatetimeIndex(["2026", None], tz="Asia/Kolkata"),
    "masked": np.ma.array([5, 6], mask=[0, 1]),
    "Series with NA": pd.Series([5, None], dtype="object"),
    "arrow null": pa.array([5, None], type=pa.timestamp("us")),
}


@pytest.mark.parametrize("values", MISSING.values(), ids=MISSING)
def test_a_missing_time_is_refused_by_its_row(values: Any) -> None:
    with pytest.raises(TimeFormatError, match=r"^time 1 "):
        instants(values)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.0]),
        np.array([True]),
        np.array([5], dtype="m8[s]"),
        np.array([b"2026"]),
        np.array([1j]),
        np.zeros(2, dtype=[("a", "u8")]),
        pd.Series([1.5]),
        pd.Series([5, None], dtype="Int64"),
        pd.TimedeltaIndex(["5s"]),
        iter([1]),
        {5: 6},
    ],
    ids=lambda values: f"{type(values).__name__} {getattr(values, 'dtype', '')}",
)
def test_arrays_of_something_else_are_refused(values: Any) -> None:
    with pytest.raises(TimeFormatError, match="'-15min'"):
        instants(values)


# ------------------------------------------------------------------------------------- durations

DURATIONS = [
    ("5min", 5 * MINUTE),
    ("5m", 5 * MINUTE),
    ("-15min", 15 * MINUTE),
    ("+15min", 15 * MINUTE),
    ("1h30m", 90 * MINUTE),
    ("1h 30m", 90 * MINUTE),
    (" 1 hour 30 minutes ", 90 * MINUTE),
    ("2d", 2 * DAY),
    ("1day", DAY),
    ("250ms", 250_000),
    ("10us", 10),
    ("10µs", 10),
    ("10μs", 10),
    ("1w", 7 * DAY),
    ("1w2d3h4m5s6ms7us", ((((7 + 2) * 24 + 3) * 60 + 4) * 60 + 5) * SECOND + 6007),
    ("0s", 0),
    ("1.5h", 90 * MINUTE),
    ("0.000001s", 1),
    ("0.1s", 100_000),
    ("1500ns", 1),
    ("999ns", 0),
    ("999999999999999w", MAX_US),
    (timedelta(minutes=5), 5 * MINUTE),
    (timedelta(minutes=-5), 5 * MINUTE),
    (timedelta(days=10**8), 10**8 * DAY),
    (timedelta.max, MAX_US),
    (timedelta.min, MAX_US),
    (np.timedelta64(5, "m"), 5 * MINUTE),
    (np.timedelta64(-5, "W"), 35 * DAY),
    (np.timedelta64(1999, "ns"), 1),
    (np.timedelta64(-1999, "ns"), 1),
    (np.timedelta64(3, "25s"), 75 * SECOND),
    (np.timedelta64(2**63 - 1, "W"), MAX_US),
    (pd.Timedelta("5min"), 5 * MINUTE),
    (pd.Timedelta("-1h30m"), 90 * MINUTE),
    (pd.Timedelta(1999), 1),
]


@pytest.mark.parametrize(("value", "expected"), DURATIONS, ids=[str(value) for value, _ in DURATIONS])
def test_durations(value: Any, expected: int) -> None:
    found = duration_us(value)
    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "not numbers with units"),
        ("5", "not numbers with units"),
        ("min", "not numbers with units"),
        ("5 5min", "not numbers with units"),
        ("1h-30m", "not numbers with units"),
        ("--5m", "not numbers with units"),
        ("5min,", "not numbers with units"),
        (".5s", "not numbers with units"),
        ("1e3s", "not numbers with units|no unit 'e'"),
        ("1" * 16 + "s", "not numbers with units"),
        ("٥s", "not numbers with units"),
        ("PT15M", "not numbers with units"),
        ("5M", "no unit 'M'"),
        ("1y", "no unit 'y'"),
        ("5Min", "no unit 'Min'"),
        ("30m1h", "largest first"),
        ("1h1h", "largest first"),
        ("1m1min", "largest first"),
        (5, "write '5s'"),
        (5.0, "write '5s'"),
        (np.int64(5), "write '5s'"),
        (10**5000, "write '5s'"),
        (True, "bool is not accepted"),
        (None, "NoneType is not accepted"),
        (pd.NaT, "NaTType is not accepted"),
        (np.timedelta64("NaT", "s"), "is not accepted"),
        (np.timedelta64(5, "M"), "no fixed length"),
        (np.timedelta64(5, "Y"), "no fixed length"),
        (np.datetime64("2026"), "datetime64 is not accepted"),
        (naive(2026, 1, 1), "datetime is not accepted"),
        (b"5m", "bytes is not accepted"),
        ([5], "list is not accepted"),
    ],
    ids=lambda value: ascii(value)[:20] if not isinstance(value, int) else "int",
)
def test_bad_durations_are_refused(value: Any, why: str) -> None:
    with pytest.raises(TimeFormatError, match=why) as caught:
        duration_us(value)
    assert str(caught.value).startswith("duration ")
    assert "'1h30m'" in str(caught.value)
    assert type(pickle.loads(pickle.dumps(caught.value))) is TimeFormatError


@pytest.mark.filterwarnings("ignore:The 'generic' unit:DeprecationWarning")  # NumPy 2.5; later an error
def test_numpy_times_without_a_unit_are_refused() -> None:
    bare = np.array([5]).view("m8")[0]
    with pytest.raises(TimeFormatError, match="it has no unit"):
        duration_us(bare)
    for value in (np.array([5]).view("M8")[0], np.array([5]).view("M8")):
        with pytest.raises(TimeFormatError, match="unit 'generic' has no meaning"):
            instants(value)


@given(st.integers(0, 10**12), st.sampled_from(["us", "ms", "s", "m", "h", "d", "w", "min"]))
def test_durations_agree_with_pandas(count: int, unit: str) -> None:
    units = {"us": 1, "ms": 1000, "s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
    per = units[unit]
    assert duration_us(f"{count}{unit}") == min(count * per, MAX_US)
    if count * per < 10**15:
        name = unit.upper() if unit in ("d", "w") else unit
        assert duration_us(f"{count}{unit}") == pd.Timedelta(f"{count}{name}") // pd.Timedelta(1, "us")


# ------------------------------------------------------------------------------------- the small ones


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (NOW, "2026-08-09T05:23:42.196708Z"),
        (np.uint64(TEN), "2026-01-01T10:00:00.000000Z"),
        (us(9999, 12, 31) + DAY - 1, "9999-12-31T23:59:59.999999Z"),
        (us(9999, 12, 31) + DAY, "253402300800000000"),
        (2**63, "9223372036854775808"),
        (MAX_US, "18446744073709551615"),
        (np.uint64(MAX_US), "18446744073709551615"),
        (-1, "-1"),
    ],
)
def test_format_us(value: int, text: str) -> None:
    assert format_us(value) == text


@given(st.integers(0, us(9999, 12, 31) + DAY - 1))
def test_what_is_formatted_is_read_back(value: int) -> None:
    text = format_us(value)
    assert resolve(text, text) == Bounds(value, value)
    assert datetime.fromisoformat(text) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)


def test_is_time_tells_times_from_positions() -> None:
    for value in (
        "2026",
        "banana",
        date(2026, 1, 1),
        naive(2026, 1, 1),
        pd.Timestamp(5),
        pd.NaT,
        np.datetime64(5, "us"),
    ):
        assert is_time(value)
    for value in (5, np.int64(5), 1.0, True, None, timedelta(1), np.timedelta64(5, "s"), b"2026", slice(5)):
        assert not is_time(value)


def test_guess_unit() -> None:
    assert guess_unit(NOW // 1_000_000) == "seconds"
    assert guess_unit(NOW // 1000) == "milliseconds"
    assert guess_unit(NOW * 1000) == "nanoseconds"
    for plain in (0, 5, DAY, us(1970, 3), NOW, us(9999), 2**63, MAX_US):
        assert guess_unit(plain) is None
    for year in range(2000, 2100):
        found = [guess_unit(us(year) * n // 10**6) for n in (1, 10**3, 10**6, 10**9)]
        assert found == ["seconds", "milliseconds", None, "nanoseconds"]


def test_all_lists_the_contract() -> None:
    assert set(timestamps.__all__) == {
        *("MAX_US", "Bounds", "resolve", "instant", "last_instant", "instants", "duration_us"),
        *("format_us", "is_time", "guess_unit", "now_us"),
    }


def test_no_pandas_and_no_pyarrow_are_loaded() -> None:
    program = """
import sys, datetime, numpy as np
from deepwater.timestamps import *
resolve("2026-01", np.datetime64("2026-02-01", "ns"))
resolve(datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 2))
instants(np.array(["2026"], dtype="M8[D]")), instants(["-15min", 5]), duration_us("5min"), format_us(5)
try:
    resolve(1.5, None)
except ValueError:
    pass
print(sorted({"pandas", "pyarrow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------- oracles

FORMATS = [
    *("%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"),
    *(f"%Y-%m-%d %H:%M:%S.{digits}" for digits in range(1, 7)),
]
ZONES = ["", "Z", "+00:00", "+01:00", "-0530", "+14:00"]
# Close together, so that ends fall between, on and beside the records of one millisecond, and apart.
MOMENTS = st.one_of(
    st.integers(us(2026, 1, 1) - 2000, us(2026, 1, 1) + 2000),
    st.builds(
        lambda base, step: base + step,
        st.sampled_from([us(2024, 2, 28), us(2025, 12, 31), us(2026, 3, 8)]),
        st.integers(-2, 4 * 24 * 60).map(lambda minutes: minutes * MINUTE - 1),
    ),
    st.integers(us(1971), us(2200)),
)


@st.composite
def iso_texts(draw: st.DrawFn) -> str:
    """ISO 8601 of every resolution that pandas reads as a period."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=draw(MOMENTS))
    form = draw(st.sampled_from(FORMATS))
    text = moment.strftime(form[:-2] if form[-1].isdigit() else form)
    if form[-1].isdigit():
        text += f".{moment.microsecond:06}"[: int(form[-1]) + 1]
    return text + draw(st.sampled_from(ZONES)) if "%M" in form else text


def same_offset(start: str | None, end: str | None) -> bool:
    """Whether pandas takes both in one slice: it refuses two that are not written with one offset."""
    zones = {text[16:].lstrip("0123456789:.") for text in (start, end) if text}
    return len(zones) < 2


@given(
    st.lists(MOMENTS, max_size=60),
    st.one_of(st.none(), iso_texts()),
    st.one_of(st.none(), iso_texts()),
    st.sampled_from(["us", "ns"]),
)
@example([us(2026), us(2026) + 999, us(2026) + 1000], "2026-01-01T00:00:00.0", "2026-01-01T00:00:00.0", "us")
def test_text_bounds_agree_with_pandas(
    moments: list[int], start: str | None, end: str | None, unit: Any
) -> None:
    clock = np.array(sorted(moments), dtype=np.uint64)
    index = pd.DatetimeIndex(clock.astype(np.int64).view("M8[us]")).as_unit(unit).tz_localize("UTC")
    series = pd.Series(np.arange(len(clock)), index=index)
    bounds = resolve(start, end)
    mask = (clock >= bounds.lo) & (clock <= bounds.hi)
    rows = np.flatnonzero(mask).tolist()
    assert rows == sorted(set(series.loc[start:]) & set(series.loc[:end]))
    if same_offset(start, end):
        assert rows == series.loc[start:end].tolist()


@given(st.lists(st.integers(0, 12), max_size=20), st.integers(0, 12_000), st.integers(0, 12_000))
def test_nanosecond_bounds_agree_with_comparing_nanoseconds(
    moments: list[int], first: int, second: int
) -> None:
    """Text of nine digits, datetime64[ns] and Timestamp alike: a mask over ns is the mask over µs."""
    clock = np.array(moments, dtype=np.uint64)
    exact = clock.astype(object) * 1000
    forms: list[tuple[Any, Any]] = [
        tuple(np.datetime64(ns, "ns") for ns in (first, second)),
        tuple(pd.Timestamp(ns) for ns in (first, second)),
        tuple(f"1970-01-01T00:00:00.{ns:09}" for ns in (first, second)),
    ]
    for start, end in forms:
        for inclusive, above, below in (
            ("both", exact >= first, exact <= second),
            ("left", exact >= first, exact < second),
            ("right", exact > first, exact <= second),
            ("neither", exact > first, exact < second),
        ):
            bounds = resolve(start, end, inclusive=inclusive)  # type: ignore[arg-type]
            mask = (clock >= bounds.lo) & (clock <= bounds.hi)
            assert mask.tolist() == (above & below).astype(bool).tolist()


OFFSETS = st.builds(timezone, st.timedeltas(-timedelta(hours=23), timedelta(hours=23)))


@given(st.datetimes(timezones=st.one_of(st.none(), OFFSETS)))
def test_datetimes_agree_with_datetime_arithmetic(value: datetime) -> None:
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    exact = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert instant(value) == last_instant(value) == max(exact, 0)


@given(st.integers(-(10**6), 10**6), st.sampled_from("YM"))
def test_years_and_months_agree_with_numpy(ticks: int, unit: Any) -> None:
    value = np.datetime64(ticks, unit)
    days = int(value.astype("M8[D]").astype(np.int64))
    assert instant(value) == min(max(days * DAY, 0), MAX_US)


@given(st.text(max_size=30))
@example("1970-01-01T00:00:00.0000000001")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        bounds = resolve(text, text, now=NOW)
    except TimeFormatError:
        return
    assert 0 <= bounds.lo <= bounds.hi <= MAX_US or bounds == EMPTY


# Numbers on both sides of what exists: days 28 to 31, hours 23 and 24, seconds 59 and 60.
PARTS = [(0, 9999), (0, 14), (0, 33), (0, 26), (0, 61), (0, 61)]


@given(st.tuples(*(st.integers(*limits) for limits in PARTS)))
@example((2026, 2, 29, 0, 0, 0))
@example((2024, 2, 29, 23, 59, 59))
@example((9999, 12, 31, 24, 0, 0))
def test_text_is_accepted_exactly_when_it_exists(parts: tuple[int, ...]) -> None:
    """The standard library decides which days, hours and seconds there are."""
    year, month, day, hour, minute, second = parts
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    try:
        expected = naive(*parts)
    except ValueError:
        with pytest.raises(TimeFormatError, match=f"start '{text}': "):
            resolve(text, None)
    else:
        assert resolve(text, None) == resolve(expected, None)
