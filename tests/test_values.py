"""Values: stored exactly or refused by name, whatever they come in.

The oracle is Python: ints of any size, Fractions, and `struct` for the bytes.
"""

from __future__ import annotations

import math
import re
import struct
import threading
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepwater.errors import RecordError
from deepwater.fields import parse_type
from deepwater.layout import Layout
from deepwater.values import Packer
from tests.test_layout import TRADES, specs

INTS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "byte"]
FLOATS = ["float16", "float32", "float64"]
MANY = settings(max_examples=250)  # some for each source
SOURCES = [
    order + code
    for order in "<>"
    for code in ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "b1"]
] + ["g"]  # fmt: skip


@lru_cache(maxsize=256)
def packer(**types: str) -> Packer:
    """Return the packer of a layout with the clock t_us and one field a type."""
    fields = [{"name": "t_us", "type": "uint64"}, *({"name": k, "type": v} for k, v in types.items())]
    return Packer(Layout.compile({"feed_name": "f", "fields": fields, "ts_col": "t_us"}))


def stored(type_: str, values: Any, name: str = "x") -> Any:
    """Return what a batch of one column stores, or raise what it raises."""
    with_clock = {"t_us": np.zeros(len(values), "u8"), name: values}
    return packer(**{name: type_}).pack_batch(with_clock)[name]


def limits(type_: str) -> tuple[int, int]:
    info = np.iinfo(parse_type(type_).item)
    return int(info.min), int(info.max)


def exact(value: Any) -> int | None:
    """Return a number as a Python int if it is one, else None: the oracle of integer fields."""
    if isinstance(value, (float, np.floating)):
        if not np.isfinite(value):
            return None
        whole = Fraction(*value.as_integer_ratio())
        return int(whole) if whole.denominator == 1 else None
    return int(value)


# --- integers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", INTS)
@MANY
@given(data=st.data())
def test_an_integer_field_holds_exactly_the_integers_in_its_range(type_: str, data: st.DataObject) -> None:
    """Every numeric dtype into every integer type, judged by Python ints."""
    lo, hi = limits(type_)
    dtype = np.dtype(data.draw(st.sampled_from(SOURCES)))
    near = [value + step for value in (0, lo, hi, 2**53, 2**63, 2**64) for step in (-1, 0, 1)]
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        items = st.integers(int(info.min), int(info.max)) | st.sampled_from(
            [v for v in near if info.min <= v <= info.max]
        )
    elif dtype.kind == "f":
        width = {2: 16, 4: 32}.get(dtype.itemsize, 64)
        items = st.floats(width=width) | st.sampled_from(near).map(float)  # type: ignore[arg-type]
    else:
        items = st.booleans()
    with np.errstate(all="ignore"):
        array = np.array(data.draw(st.lists(items, min_size=1, max_size=6)), dtype)
    wanted = [exact(value) for value in array]
    bad = [row for row, value in enumerate(wanted) if value is None or not lo <= value <= hi]
    if not bad:
        assert stored(type_, array).tolist() == wanted
        assert stored(type_, list(array)).tolist() == wanted
        return
    with pytest.raises(RecordError) as caught:
        stored(type_, array)
    assert caught.value.column == "x"  # type: ignore[attr-defined]
    assert caught.value.row in bad  # type: ignore[attr-defined]
    assert f"column 'x', row {caught.value.row}: " in str(caught.value)  # type: ignore[attr-defined]
    with pytest.raises(RecordError, match=f"row {bad[0]}:"):
        stored(type_, list(array))


@pytest.mark.parametrize("type_", INTS)
@given(
    st.lists(st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.decimals() | st.fractions(), max_size=5)
)
def test_python_numbers_in_a_list_are_never_rounded_together(type_: str, values: list[Any]) -> None:
    lo, hi = limits(type_)

    def fits(value: Any) -> bool:
        try:
            return int(value) == value and lo <= value <= hi
        except (ValueError, OverflowError, ArithmeticError):
            return False

    if all(map(fits, values)):
        assert stored(type_, values).tolist() == [int(value) for value in values]
        assert stored(type_, np.array(values, object)).tolist() == [int(value) for value in values]
    else:
        with pytest.raises(RecordError, match="column 'x', row "):
            stored(type_, values)


def test_a_list_is_not_rounded_by_its_neighbours() -> None:
    assert stored("uint64", [2**53 + 1, 1.0]).tolist() == [2**53 + 1, 1]  # np.array would make 2**53 of it
    assert stored("uint64", [2**64 - 1, 0]).tolist() == [2**64 - 1, 0]
    assert stored("int64", [-(2**63), 2**63 - 1]).tolist() == [-(2**63), 2**63 - 1]


BAD_VALUES: list[tuple[str, Any, str]] = [
    ("uint64", -1, "-1 does not fit uint64 (0 to 18446744073709551615)"),
    ("uint64", 2**64, "18446744073709551616 does not fit uint64"),
    ("uint64", 2.0**64, "does not fit uint64"),
    ("uint64", 1.5, "1.5 is not whole"),
    ("uint64", -0.5, "-0.5 does not fit uint64"),
    ("uint64", math.nan, "nan does not fit uint64"),
    ("uint64", math.inf, "inf does not fit uint64"),
    ("uint64", None, "None is missing; records have no nulls"),
    ("uint64", pd.NA, "<NA> is missing"),
    ("uint64", pd.NaT, "NaT is missing"),
    ("uint64", "7", "'7' is text and uint64 is not; convert it"),
    ("uint64", b"7", "b'7' is text"),
    ("uint64", 1j, "1j is complex; it cannot be stored"),
    ("uint64", np.complex64(1), "cannot be stored in uint64"),
    ("uint64", [1], "[1] is list"),
    ("uint64", Decimal("1.5"), "does not fit uint64"),
    ("uint64", Decimal("1e1000000"), "does not fit uint64"),
    ("uint64", Decimal("NaN"), "does not fit uint64"),
    ("uint64", Fraction(1, 3), "does not fit uint64"),
    ("uint64", np.timedelta64(1, "us"), "cannot be stored in uint64"),
    ("uint64", timedelta(1), "is timedelta"),
    ("uint64", np.datetime64(1, "us"), "only clocks do (ts_col, uint64 fields ending in _us)"),
    ("uint64", datetime(2026, 1, 1, tzinfo=UTC), "is a time, and uint64 is no clock"),
    ("int64", 2**63, "9223372036854775808 does not fit int64"),
    ("int64", np.uint64(2**63), "does not fit int64"),
    ("int64", 2.0**63, "does not fit int64"),
    ("int8", 128, "128 does not fit int8 (-128 to 127)"),
    ("byte", 256, "256 does not fit byte (0 to 255)"),
    ("byte", b"a", "is text and byte is not"),
    ("float64", None, "None is missing"),
    ("float64", "1.5", "'1.5' is text and float64 is not"),
    ("float64", 10**400, "is beyond float64"),
    ("float64", Decimal("1e400"), "is beyond float64"),
    ("float64", Decimal("sNaN"), "is beyond float64"),
    ("float64", 1 + 0j, "is complex"),
    ("float64", np.longdouble("1e4000"), "is beyond float64 (at most 1.79769e+308)"),
    ("float32", 1e39, "1e+39 is beyond float32 (at most 3.40282e+38)"),
    ("float32", 2**128, "is beyond float32"),
    ("float16", 65520.0, "65520.0 is beyond float16 (at most 65504)"),
    ("float16", 65520, "65520 is beyond float16"),
    ("bool", 2, "2 is neither 0 nor 1"),
    ("bool", -1, "-1 is neither 0 nor 1"),
    ("bool", 2**70, "is neither 0 nor 1"),
    ("bool", 1.0, "cannot be stored in bool"),
    ("bool", "True", "'True' is text and bool is not"),
    ("bool", None, "None is missing"),
    ("char", 65, "65 (int64) cannot be stored in char"),
    ("char", "ab", "'ab' has 2 bytes; char holds 1"),
    ("char", b"ab", "b'ab' has 2 bytes"),
    ("char", "\u20ac", "has letters beyond latin-1"),
    ("char", "\ud800", "has letters beyond latin-1"),
    ("char", None, "None is missing"),
    ("char", True, "cannot be stored in char"),
    ("char", bytearray(b"a"), "is bytearray"),
    ("char[4]", "abcde", "'abcde' has 5 bytes; char[4] holds 4"),
    ("char[4]", b"abc\0", "ends with NUL"),
    ("char[4]", "abc\0", "ends with NUL"),
    ("char[4]", "\0", "ends with NUL"),
    ("char[4]", 1.5, "cannot be stored in char[4]"),
    ("char[4]", "\u0142", "has letters beyond latin-1"),
    ("float64[2]", [1.0], "1 items where float64[2] takes 2"),
    ("float64[2]", [1.0, 2.0, 3.0], "3 items where float64[2] takes 2"),
    ("float64[2]", 1.0, "one value a row expected, found float"),
    ("float64[2]", "ab", "one value a row expected, found str"),
    ("float64[2]", None, "one value a row expected, found NoneType"),
    ("float64[2]", [1.0, None], "item 1: None is missing"),
    ("float64[2]", np.zeros((2, 2)), "one value a row expected, found an array of shape (2, 2)"),
    ("uint8[2]", [1, 256], "item 1: 256 does not fit uint8"),
    ("uint8[2]", np.array([0.5, 1]), "item 0: 0.5 is not whole"),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "value", "fragment"), BAD_VALUES, ids=lambda x: ascii(x)[:24])
def test_values_that_are_refused(type_: str, value: Any, fragment: str) -> None:
    good = {"float64[2]": [0.0, 0.0], "uint8[2]": [0, 0], "char": "a", "char[4]": "a"}.get(type_, 0)
    cell = np.empty(2, object)
    cell[0], cell[1] = good, value
    for values in ([good, value], cell):
        with pytest.raises(RecordError) as caught:
            stored(type_, values)
        assert fragment in str(caught.value), str(caught.value)
        assert str(caught.value).startswith("column 'x', row 1")
        assert (caught.value.column, caught.value.row) == ("x", 1)  # type: ignore[attr-defined]
    with pytest.raises(RecordError) as caught:
        packer(x=type_).pack_values((0, value))
    assert fragment in str(caught.value), str(caught.value)
    assert str(caught.value).startswith("column 'x'")
    assert "row" not in str(caught.value).partition(":")[0]


GOOD_VALUES: list[tuple[str, Any, Any]] = [
    ("uint64", 2**64 - 1, 2**64 - 1),
    ("uint64", 1.0, 1),
    ("uint64", -0.0, 0),
    ("uint64", True, 1),
    ("uint64", np.bool_(True), 1),
    ("uint64", np.int8(7), 7),
    ("uint64", np.float32(2**31), 2**31),
    ("uint64", Decimal(18446744073709551615), 2**64 - 1),
    ("uint64", Decimal("1E+3"), 1000),
    ("uint64", Fraction(6, 2), 3),
    ("int64", -(2**63), -(2**63)),
    ("int64", -(2.0**63), -(2**63)),
    ("byte", 255, 255),
    ("bool", True, True),
    ("bool", 0, False),
    ("bool", np.uint8(1), True),
    ("float64", 7, 7.0),
    ("float64", True, 1.0),
    ("float64", 2**53 + 1, float(2**53 + 1)),
    ("float64", 10**300, 1e300),
    ("float64", Decimal("0.1"), 0.1),
    ("float64", Decimal("-Infinity"), -math.inf),
    ("float64", Fraction(1, 3), 1 / 3),
    ("float64", math.inf, math.inf),
    ("float64", np.longdouble("0.1"), 0.1),
    ("float32", 0.1, float(np.float32(0.1))),
    ("float32", 2**60 + 2**36 + 1, float(2**60 + 2**37)),  # by way of float64 it would be a tie, and 2**60
    ("float32", math.inf, math.inf),
    ("float16", 65519, 65504.0),
    ("float16", -math.inf, -math.inf),
    ("char", "B", b"B"),
    ("char", b"S", b"S"),
    ("char", "\u00e9", b"\xe9"),
    ("char", b"", b""),  # NUL, the empty char
    ("char", "", b""),
    ("char", b"\0", b""),
    ("char", np.bytes_(b"x"), b"x"),
    ("char", np.str_("x"), b"x"),
    ("char[4]", "AAPL", b"AAPL"),
    ("char[4]", b"", b""),
    ("char[4]", "\u00fc\u00df", b"\xfc\xdf"),
    ("char[4]", b"a\0b", b"a\0b"),
    ("float64[2]", [1, 2.5], [1.0, 2.5]),
    ("float64[2]", np.array([1, 2], "i4"), [1.0, 2.0]),
    ("uint8[2]", (True, 255.0), [1, 255]),
    ("uint8[2]", range(2), [0, 1]),
    ("bool[2]", [True, 0], [True, False]),
]


@pytest.mark.parametrize(("type_", "value", "wanted"), GOOD_VALUES, ids=lambda x: ascii(x)[:24])
def test_values_that_are_stored(type_: str, value: Any, wanted: Any) -> None:
    one = packer(x=type_)
    cell = np.empty(1, object)
    cell[0] = value
    for values in ([value], (value,), cell):
        assert stored(type_, values).tolist() == [wanted]
    assert np.frombuffer(one.pack_values((5, value)), one.layout.dtype)["x"].tolist() == [wanted]


# --- floats --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", FLOATS)
@MANY
@given(data=st.data())
def test_a_float_field_takes_the_nearest_float(type_: str, data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(SOURCES))
    array = (
        data.draw(hnp.arrays(source, 3))
        if source != "g"
        else np.array(data.draw(st.lists(st.floats(), min_size=1)), "g")
    )
    with np.errstate(all="ignore"):
        wanted = array.astype(parse_type(type_).item)
        finite = np.isfinite(array) if array.dtype.kind == "f" else np.ones(len(array), bool)
        grown = np.isinf(wanted) & finite
    if grown.any():
        with pytest.raises(RecordError, match=re.escape(f"row {int(np.argmax(grown))}: ")):
            stored(type_, array)
    else:
        np.testing.assert_array_equal(stored(type_, array), wanted)


# --- text ----------------------------------------------------------------------------------------------

texts = st.text(max_size=7) | st.text(st.characters(max_codepoint=255), max_size=4)


@pytest.mark.parametrize(("type_", "width"), [("char", 1), ("char[4]", 4)])
@given(values=st.lists(texts, min_size=1, max_size=4))
def test_text_is_stored_whole_or_refused(type_: str, width: int, values: list[str]) -> None:
    def fits(text: str, seen: bool) -> bool:
        # An array cannot say whether NULs at the end belonged to its text; objects can.
        text = text.rstrip("\0") if seen else text
        nul = not seen and type_ != "char" and text.endswith("\0")
        return len(text) <= width and all(ord(letter) < 256 for letter in text) and not nul

    for source, seen in ((values, False), (np.array(values, object), False), (np.array(values, "U"), True)):
        if all(fits(text, seen) for text in values):
            assert stored(type_, source).tolist() == [text.encode("latin-1").rstrip(b"\0") for text in values]
        else:
            with pytest.raises(RecordError, match="column 'x', row "):
                stored(type_, source)


@pytest.mark.parametrize("type_", ["char", "char[4]"])
@given(values=st.lists(st.binary(max_size=6), min_size=1, max_size=4))
def test_bytes_arrays_of_any_width(type_: str, values: list[bytes]) -> None:
    array = np.array(values, "S")
    if max(map(len, array.tolist())) <= parse_type(type_).size:
        assert stored(type_, array).tolist() == array.tolist()
    else:
        with pytest.raises(RecordError, match="is longer than char"):
            stored(type_, array)


def test_text_of_the_other_byte_order() -> None:
    assert stored("char[2]", np.array(["ab", "c"], ">U2")).tolist() == [b"ab", b"c"]
    assert stored("char[2]", np.array(["ab", "c"], "U2")[::-1]).tolist() == [b"c", b"ab"]


# --- clocks --------------------------------------------------------------------------------------------

PER_US = {"us": 1, "ns": 10**3, "ps": 10**6, "fs": 10**9, "as": 10**12}
US_PER = {"W": 7 * 86400 * 10**6, "D": 86400 * 10**6, "h": 3600 * 10**6, "m": 60 * 10**6, "s": 10**6, "ms": 1000}


@pytest.mark.parametrize("unit", [*PER_US, *US_PER])
@settings(max_examples=60)
@given(data=st.data())
def test_a_clock_takes_whole_microseconds_of_every_unit(unit: str, data: st.DataObject) -> None:
    step, order = data.draw(st.sampled_from(["", "7", "25"])), data.draw(st.sampled_from("<>"))
    many = int(step or 1)
    edge = (2**64 - 1) * PER_US.get(unit, 1) // (US_PER.get(unit, 1) * many)
    near = [v for v in (0, 1, -1, edge - 1, edge, edge + 1, 2**63 - 1, 10**6, 10**12) if -(2**63) < v < 2**63]
    ticks = data.draw(st.lists(st.integers(-(2**63) + 1, 2**63 - 1) | st.sampled_from(near), min_size=1, max_size=4))
    array = np.array(ticks, "i8").view(f"M8[{step}{unit}]")
    array = array.astype(array.dtype.newbyteorder(order))
    times = [Fraction(tick * many * US_PER.get(unit, 1), PER_US.get(unit, 1)) for tick in ticks]
    one = packer()
    if all(time.denominator == 1 and 0 <= time < 2**64 for time in times):
        assert one.pack_batch({"t_us": array})["t_us"].tolist() == [int(time) for time in times]
        assert one.pack_batch({"t_us": list(array)})["t_us"].tolist() == [int(time) for time in times]
    else:
        with pytest.raises(RecordError, match="column 't_us', row "):
            one.pack_batch({"t_us": array})


def test_years_and_months() -> None:
    one = packer()
    wanted = [int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 10**6, 0]
    assert one.pack_batch({"t_us": np.array(["2026-03", "1970-01"], "M8[M]")})["t_us"].tolist() == wanted
    year = np.array(["2026"], "M8[Y]")
    assert one.pack_batch({"t_us": year})["t_us"].tolist() == [1767225600 * 10**6]
    for beyond in (600_000, 2**62):
        with pytest.raises(RecordError, match="is beyond 2"):
            one.pack_batch({"t_us": np.array([beyond], "i8").view("M8[Y]")})


MOMENT = 1_785_000_000_123_456
CLOCKS: list[tuple[Any, int]] = [
    (0, 0),
    (2**64 - 1, 2**64 - 1),
    (MOMENT, MOMENT),
    (datetime(2026, 1, 1, tzinfo=UTC), 1767225600 * 10**6),
    (datetime(2026, 1, 1, 0, 0, 0, 1), 1767225600 * 10**6 + 1),  # noqa: DTZ001  naive means UTC
    (datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 1767225600 * 10**6),
    (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), 253402300799999999),
    (date(1970, 1, 2), 86400 * 10**6),
    (pd.Timestamp(MOMENT, unit="us"), MOMENT),
    (pd.Timestamp(MOMENT * 1000, unit="ns", tz="America/New_York"), MOMENT),
    (np.datetime64(MOMENT * 1000, "ns"), MOMENT),
    (np.datetime64("2026-01-01"), 1767225600 * 10**6),
]


@pytest.mark.parametrize(("value", "wanted"), CLOCKS, ids=str)
def test_times_that_a_clock_takes(value: Any, wanted: int) -> None:
    one = packer()
    assert one.pack_values((value,)) == struct.pack("<Q", wanted)
    assert one.pack_batch({"t_us": [value, 0]})["t_us"].tolist() == [wanted, 0]
    assert one.pack_batch({"t_us": [value, value]})["t_us"].tolist() == [wanted, wanted]


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        (-1, "-1 does not fit uint64"),
        (2**64, "does not fit uint64"),
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), "no whole microsecond from 1970"),
        (pd.Timestamp(1, unit="ns"), "no whole microsecond"),
        (np.datetime64(1, "ns"), "has a part below a microsecond; round it"),
        (np.datetime64(-1, "us"), "is before 1970"),
        (np.datetime64("NaT", "us"), "NaT is missing"),
        (pd.NaT, "NaT is missing"),
        ("2026-01-01", "is text and uint64 is not"),
        (math.nan, "nan does not fit"),
        (None, "None is missing"),
    ],
    ids=str,
)
def test_times_that_a_clock_refuses(value: Any, fragment: str) -> None:
    one = packer()
    for write in (lambda: one.pack_values((value,)), lambda: one.pack_batch({"t_us": [0, value]})):
        with pytest.raises(RecordError) as caught:
            write()
        assert fragment in str(caught.value), str(caught.value)


def test_decreasing_equal_and_extreme_times_are_the_writers_business() -> None:
    times = [2**64 - 1, 5, 5, 0]
    assert packer().pack_batch({"t_us": times})["t_us"].tolist() == times


# --- one record ----------------------------------------------------------------------------------------


def record(draw: st.DrawFn, layout: Layout) -> tuple[Any, ...]:
    """Draw values that fit."""

    def item(kind: str, code: str) -> Any:
        dtype = np.dtype(code)
        if kind in ("char", "chars"):
            return draw(st.binary(max_size=dtype.itemsize)).rstrip(b"\0")
        if kind == "bool":
            return draw(st.booleans())
        if kind == "float":
            return draw(st.floats(width=8 * dtype.itemsize, allow_nan=False))  # type: ignore[arg-type]
        info = np.iinfo(dtype)
        return draw(st.integers(int(info.min), int(info.max)))

    return tuple(
        item(c.kind, c.item) if c.count is None else [item(c.kind, c.item) for _ in range(c.count)]
        for c in layout.columns
    )


@given(specs(), st.data())
def test_one_record_is_what_numpy_and_struct_make_of_it(spec: dict[str, Any], data: st.DataObject) -> None:
    layout = Layout.compile(spec)
    one = Packer(layout)
    values = record(data.draw, layout)
    packed = one.pack_values(values)
    array = np.zeros(1, layout.dtype)
    for name, value in zip(layout.names, values, strict=True):
        array[name] = value
    assert packed == array.tobytes()
    flat = [x for v in values for x in (v if isinstance(v, list) else [v])]
    flat = [b"\0" if isinstance(x, bytes) and not x else x for x in flat]
    assert packed == struct.pack(layout.struct_format, *flat)
    assert one._pack_by_rule(values) == packed  # the fast path decides nothing
    assert one.check_bytes(packed).tobytes() == packed
    assert one.pack_batch({name: [value] for name, value in zip(layout.names, values, strict=True)}).tobytes() == packed


@given(
    st.lists(
        st.integers() | st.floats() | st.booleans() | st.text(max_size=2) | st.binary(max_size=2) | st.none(),
        min_size=9,
        max_size=9,
    )
)
def test_the_fast_path_never_differs_from_the_rules(values: list[Any]) -> None:
    one = packer(a="int8", b="u64", c="f64", d="f32", e="f16", f="bool", g="char", h="char[2]")
    values[0] = abs(values[0]) if isinstance(values[0], int) else 0
    try:
        wanted = one._pack_by_rule(values)
    except RecordError:
        with pytest.raises(RecordError):
            one.pack_values(values)
    else:
        assert one.pack_values(values) == wanted


@given(type_=st.sampled_from([*INTS, *FLOATS, "bool", "char", "char[2]"]), value=st.one_of(
    st.integers(-(2**65), 2**65), st.integers(-2, 2), st.floats(), st.booleans(), st.text(max_size=3),
    st.binary(max_size=3),
    st.floats(width=32).map(np.float32), st.integers(0, 2**64 - 1).map(np.uint64),
))  # fmt: skip
def test_the_fast_path_never_differs_from_the_rule_of_a_column(type_: str, value: Any) -> None:
    one = packer(x=type_)
    try:
        wanted = one._pack_by_rule((1, value))
    except RecordError as error:
        with pytest.raises(RecordError, match=re.escape(str(error))):
            one.pack_values((1, value))
    else:
        assert one.pack_values((1, value)) == wanted


@pytest.mark.parametrize("count", [0, 8, 10])
def test_another_number_of_values_is_refused(count: int) -> None:
    with pytest.raises(RecordError, match=f"{count} values for 9 columns; pass type, side, trade_id"):
        Packer(Layout.compile(TRADES)).pack_values((0,) * count)


def test_the_trade_record_with_text_of_either_kind() -> None:
    one = Packer(Layout.compile(TRADES))
    wanted = struct.pack("<cc6xQQQQQdd", b"T", b"B", 1, 2, 3, 4, 5, 6.5, 7.5)
    assert one.pack_values(("T", "B", 1, 2, 3, 4, 5, 6.5, 7.5)) == wanted
    assert one.pack_values([b"T", np.bytes_(b"B"), 1.0, np.uint64(2), 3, 4, 5, 6.5, np.float32(7.5)]) == wanted


# --- batches -------------------------------------------------------------------------------------------


def trades(count: int = 4) -> Any:
    array = np.zeros(count, Layout.compile(TRADES).dtype)
    for i, name in enumerate(array.dtype.names or ()):
        array[name] = b"T" if array.dtype[name].kind == "S" else np.arange(count) + i * 100
    return array


def test_records_of_the_layout_are_taken_as_they_are() -> None:
    array = trades()
    packed = Packer(Layout.compile(TRADES)).pack_batch(array)
    assert packed is array  # not a copy: the caller is told so


def test_every_way_in_gives_the_same_bytes() -> None:
    array = trades()
    one = Packer(Layout.compile(TRADES))
    names = list(array.dtype.names)
    columns = {name: array[name] for name in names}
    frame = pd.DataFrame(
        {name: array[name].astype("U") if array[name].dtype.kind == "S" else array[name] for name in names}
    )
    timed = frame.assign(proc_us=pd.to_datetime(frame.proc_us, unit="us", utc=True)).set_index("proc_us")
    other = np.dtype([(name, array.dtype[name].newbyteorder(">")) for name in reversed(names)])
    foreign = np.zeros(len(array), other)
    for name in names:
        foreign[name] = array[name]
    strided = np.zeros(2 * len(array), array.dtype)
    strided[::2] = array
    unaligned = np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1)
    frozen = np.frombuffer(array.tobytes(), array.dtype)
    table = pa.table({name: frame[name].to_numpy() for name in names})
    ways = {
        "dict of arrays": columns,
        "dict in another order": dict(reversed(columns.items())),
        "dict of lists": {name: values.tolist() for name, values in columns.items()},
        "dict of Series": {name: frame[name] for name in names},
        "dict of strided columns": {name: np.repeat(values, 2)[::2] for name, values in columns.items()},
        "frame": frame,
        "frame with an index": timed,
        "frame with categories": frame.assign(side=frame.side.astype("category")),
        "frame of Arrow": frame.convert_dtypes(dtype_backend="pyarrow"),
        "arrow table": table,
        "arrow batch": table.to_batches()[0],
        "chunked table": pa.concat_tables([table.slice(0, 1), table.slice(1)]),
        "polars": pl.from_arrow(table),
        "packed dtype": array.astype([(name, array.dtype[name]) for name in names]),
        "other order, big-endian": foreign,
        "strided": strided[::2],
        "reversed twice": array[::-1].copy()[::-1],
        "unaligned": unaligned,
        "read-only": frozen,
        "recarray": array.view(np.recarray),
        "object columns": {name: values.astype(object) for name, values in columns.items()},
        "masked without a mask": {name: np.ma.array(values) for name, values in columns.items()},
    }
    for way, data in ways.items():
        packed = one.pack_batch(data)
        assert packed.tobytes() == array.tobytes(), way
        assert (packed.dtype, packed.ndim, packed.flags.c_contiguous) == (array.dtype, 1, True), way


def test_narrower_and_wider_columns_are_matched_by_name() -> None:
    other = np.array(
        [(b"B", 7, 1.5, b"x"), (b"S", 8, 2.5, b"y")], [("side", "S3"), ("t_us", ">i2"), ("px", "f2"), ("s", "S1")]
    )
    packed = packer(side="char", px="f64", s="char[8]").pack_batch(other)
    assert packed.tolist() == [(7, b"B", 1.5, b"x"), (8, b"S", 2.5, b"y")]


def test_void_fields_of_an_array_are_padding() -> None:
    named = np.zeros(2, [("t_us", "u8"), ("pad", "V8"), ("px", "f8")])
    named["px"] = 1.5
    assert packer(px="f64").pack_batch(named)["px"].tolist() == [1.5, 1.5]


def test_dirty_padding_is_zeroed_in_a_copy() -> None:
    one = Packer(Layout.compile(TRADES))
    raw = np.full(64 * 3, 0xAA, np.uint8)
    array = raw.view(one.layout.dtype)
    for packed in (
        one.pack_batch(array),
        one.check_bytes(raw),
        one.pack_batch(array[::1]),
        one.pack_batch(array[[0, 1, 2]]),
    ):
        assert packed.tobytes() == (b"\xaa\xaa" + bytes(6) + b"\xaa" * 56) * 3
    assert (raw == 0xAA).all()


@pytest.mark.parametrize("pad", [1, 2, 3, 4, 7, 8, 15])
@pytest.mark.parametrize("count", [5, 32, 33, 200])  # either side of what counts as few
def test_padding_is_found_wherever_it_lies(pad: int, count: int) -> None:
    """Every byte of padding and of bools by itself, for record sizes that are multiples of 1, 2, 4 and 8."""
    one = packer(_=f"_{pad}", ok="bool", n="u32", tail="_3")
    size = one.layout.record_size
    for byte in range(size):
        raw = bytearray(size * count)
        raw[3 * size + byte] = 2
        if one.layout.padding_mask[byte] == 0xFE:
            with pytest.raises(RecordError, match="column 'ok', row 3: 2 is the byte of a bool") as caught:
                one.check_bytes(raw)
            assert caught.value.row == 3  # type: ignore[attr-defined]
            with pytest.raises(RecordError, match="column 'ok', row 3"):
                one.pack_batch(np.frombuffer(raw, one.layout.dtype))
        else:
            clean = one.check_bytes(raw)
            assert (clean.tobytes() == raw) == (one.layout.padding_mask[byte] == 0)
            assert np.shares_memory(clean, np.frombuffer(raw, "u1")) == (one.layout.padding_mask[byte] == 0)


def test_a_bool_that_is_no_bool_is_refused_in_a_column_too() -> None:
    odd = np.array([0, 1, 2], "u1").view("?")
    with pytest.raises(RecordError, match="column 'x', row 2: 2 is the byte of a bool"):
        stored("bool", odd)


@given(specs(), st.binary(min_size=1, max_size=64))
def test_any_bytes_become_clean_records_or_are_refused(spec: dict[str, Any], seed: bytes) -> None:
    one = Packer(Layout.compile(spec))
    size = one.layout.record_size
    raw = (seed * (2 * size // len(seed) + 1))[: 2 * size]
    mask = np.tile(one.layout.padding_mask, 2)
    bools = np.frombuffer(raw, "u1")[mask == 0xFE]
    if (bools > 1).any():
        with pytest.raises(RecordError, match="byte of a bool"):
            one.check_bytes(raw)
        return
    wanted = bytes(0 if m == 0xFF else b for b, m in zip(raw, mask.tolist(), strict=True))
    assert one.check_bytes(raw).tobytes() == wanted
    assert one.pack_batch(np.frombuffer(raw, one.layout.dtype)).tobytes() == wanted
    array = one.check_bytes(wanted)
    again = one.pack_batch({name: array[name] for name in one.layout.names})
    np.testing.assert_array_equal(again.view("u1"), np.frombuffer(wanted, "u1")) if not _has_nan(array) else None
    assert one.pack_batch(array[::-1]).tobytes() == np.frombuffer(wanted, "u1").reshape(2, -1)[::-1].tobytes()


def _has_nan(array: Any) -> bool:
    return any(array[name].dtype.kind == "f" and np.isnan(array[name]).any() for name in array.dtype.names)


def test_empty_batches() -> None:
    one = packer(side="char", ok="bool", s="char[4]", px="float64[3]")
    names = one.layout.names
    for data in (
        {name: [] for name in names},
        {name: np.array([]) for name in names},
        {name: np.array([], object) for name in names},
        np.empty(0, one.layout.dtype),
        np.empty(0, [(name, one.layout.dtype[name]) for name in names]),
        pd.DataFrame({name: [] for name in names}),
        pa.table({"t_us": pa.array([], "u8"), "side": pa.array([], "string"), "ok": pa.array([], "bool"),
                  "s": pa.array([], "string"), "px": pa.array([], pa.list_(pa.float64(), 3))}),
    ):  # fmt: skip
        packed = one.pack_batch(data)
        assert (packed.shape, packed.dtype) == ((0,), one.layout.dtype)
    for empty in (b"", bytearray(), memoryview(b""), np.empty(0, "u1")):
        assert one.check_bytes(empty).shape == (0,)


def test_arrays_of_a_field_in_every_form() -> None:
    rows = np.arange(6.0).reshape(2, 3)
    for values in (
        rows,
        rows.astype(">f4"),
        rows.astype("i2"),
        rows.tolist(),
        list(rows),
        [[0, 1, 2], rows[1]],
        rows.T.copy().T,
    ):
        assert stored("float64[3]", values).tolist() == rows.tolist()
    with pytest.raises(RecordError, match=r"column 'x', row 1, item 2: 256\.0 does not fit uint8"):
        stored("uint8[3]", np.array([[0, 1, 2], [3, 4, 256.0]]))
    with pytest.raises(RecordError, match=r"3 values a row expected, found an array of shape \(2, 2\)"):
        stored("float64[3]", np.zeros((2, 2)))
    with pytest.raises(RecordError, match=r"one value a row expected, found an array of shape \(2, 3\)"):
        stored("float64", rows)


BAD_BATCHES: dict[str, tuple[Any, str]] = {
    "missing": ({"t_us": [1]}, "missing: px"),
    "missing and extra": ({"t_us": [1], "pxx": [1.0]}, "missing: px; not in the feed: 'pxx'; did you mean 'px'?"),
    "extra": ({"t_us": [1], "px": [1.0], "qty": [1]}, "not in the feed: 'qty'"),
    "a name that is no text": ({"t_us": [1], "px": [1.0], 0: [1]}, "not in the feed: 0"),
    "lengths": ({"t_us": [1, 2], "px": [1.0]}, "columns differ in length: t_us 2, px 1"),
    "scalar": ({"t_us": 1, "px": [1.0]}, "column 't_us': one value a row expected, found int; pass an array or a list"),
    "0-d": ({"t_us": np.array(1), "px": [1.0]}, "column 't_us': one value a row expected, found a scalar"),
    "text": ({"t_us": "12", "px": [1.0, 2.0]}, "column 't_us': one value a row expected, found str"),
    "dict": ({"t_us": {"a": 1}, "px": [1.0]}, "one value a row expected, found dict"),
    "None": ({"t_us": None, "px": [1.0]}, "one value a row expected, found NoneType"),
    "empty dict": ({}, "missing: t_us, px"),
    "plain array": (np.zeros(3), "an array of float64 has no column names"),
    "2-d records": (np.zeros((2, 2), [("t_us", "u8"), ("px", "f8")]),
                    "records are one-dimensional, found shape (2, 2)"),
    "0-d record": (np.zeros((), [("t_us", "u8"), ("px", "f8")]), "records are one-dimensional, found shape ()"),
    "text array": (np.zeros(1, [("t_us", "u8"), ("px", "S3")]), "(|S3) cannot be stored in float64"),
    "complex array": (np.zeros(1, [("t_us", "u8"), ("px", "c16")]), "(complex128) cannot be stored in float64"),
    "nested": (np.zeros(1, [("t_us", "u8"), ("px", [("a", "f8")])]), "cannot be stored in float64"),
    "timedelta": ({"t_us": np.array([1], "m8[us]"), "px": [1.0]}, "(timedelta64[us]) cannot be stored in uint64"),
    "masked": ({"t_us": np.ma.array([1, 2], mask=[0, 1]), "px": [1.0, 2.0]}, "column 't_us', row 1: 2 is masked"),
    "list of tuples": ([(1, 1.0)], "pass a structured array, a dict of columns, a DataFrame or Arrow data, not list"),
    "None at all": (None, "not NoneType"),
    "bytes": (b"12345678", "not bytes; packed records go to write_batch_bytes"),
    "text at all": ("px", "not str"),
    "Series": (pd.Series([1.0], name="px"), "not a Series; to_frame() makes a DataFrame of it"),
    "frame": (pd.DataFrame({"t_us": [1], "price": [1.0]}), "missing: px; not in the feed: 'price'"),
    "frame with NA": (pd.DataFrame({"t_us": pd.array([1, None], "Int64"), "px": [1.0, 2.0]}), "column 't_us', row 1"),
    "frame with None": (pd.DataFrame({"t_us": [1, 2], "px": ["a", None]}), "column 'px', row 1"),
    "frame of floats": (pd.DataFrame({"t_us": [1, None], "px": [1.0, 2.0]}), "column 't_us', row 1: nan does not fit"),
    "arrow with null": (pa.table({"t_us": [1, None], "px": [1.0, 2.0]}), "column 't_us', row 1"),
    "arrow, text": (pa.table({"t_us": [1], "px": ["1.0"]}), "cannot be stored in float64"),
    "arrow, list": (pa.table({"t_us": [1], "px": [[1.0]]}), "one value a row expected"),
    "arrow, missing": (pa.table({"t_us": [1]}), "missing: px"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_batches_that_are_refused(case: str) -> None:
    data, fragment = BAD_BATCHES[case]
    with pytest.raises(RecordError) as caught:
        packer(px="float64").pack_batch(data)
    assert fragment in str(caught.value), str(caught.value)


def test_a_refused_batch_leaves_the_data_alone() -> None:
    data = {"t_us": np.array([1, 2]), "x": [1, None]}
    before = data["t_us"].copy()
    with pytest.raises(RecordError):
        packer(x="float64").pack_batch(data)
    np.testing.assert_array_equal(data["t_us"], before)


# --- bytes ---------------------------------------------------------------------------------------------


def test_packed_records_are_a_view_that_keeps_its_memory() -> None:
    one = packer(px="float64")
    buffer = bytearray(struct.pack("<QdQd", 1, 1.5, 2, 2.5))
    array = one.check_bytes(buffer)
    assert array.tolist() == [(1, 1.5), (2, 2.5)]
    buffer[0] = 9
    assert array["t_us"][0] == 9
    with pytest.raises(BufferError):
        buffer.clear()
    for same in (bytes(buffer), memoryview(buffer), memoryview(buffer).cast("Q"), np.frombuffer(buffer, "u4"), array):
        assert one.check_bytes(same).tobytes() == buffer


RELEASED = memoryview(b"12345678")
RELEASED.release()
BAD_BYTES: list[tuple[Any, str]] = [
    (bytes(13), "13 bytes are not a whole number of records of 16 bytes"),
    (bytes(15), "15 bytes are not a whole number"),
    (RELEASED, "packed records must be contiguous bytes: operation forbidden on released memoryview object"),
    (memoryview(bytes(64))[::2], "packed records must be contiguous bytes"),
    (np.zeros((4, 8), "u1")[:, ::2], "packed records must be contiguous bytes"),
    ("0123456789abcdef", "packed records must be contiguous bytes"),
    (None, "packed records must be contiguous bytes"),
    (16, "packed records must be contiguous bytes"),
    ([1, 2], "packed records must be contiguous bytes"),
]


@pytest.mark.parametrize(("buffer", "fragment"), BAD_BYTES)
def test_bytes_that_are_refused(buffer: Any, fragment: str) -> None:
    with pytest.raises(RecordError) as caught:
        packer(px="float64").check_bytes(buffer)
    assert fragment in str(caught.value), str(caught.value)


def test_threads_may_share_a_packer() -> None:
    one = Packer(Layout.compile(TRADES))
    found: list[bool] = []

    def work(number: int) -> None:
        wanted = struct.pack("<cc6xQQQQQdd", b"T", b"B", *[number] * 5, 1.0, 2.0)
        values = ("T", "B", *[number] * 5, 1.0, 2.0)
        found.append(all(one.pack_values(values) == wanted for _ in range(500)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
