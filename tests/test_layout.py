"""Layouts: every byte of a record has its place, and the place survives JSON, bytes and pickle."""

from __future__ import annotations

import json
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwater.errors import RecordError, SchemaError
from deepwater.layout import Column, Layout
from deepwater.schema import FeedSpec

# The spec of DESIGN, word for word.
TRADES: dict[str, Any] = {
    "feed_name": "CB-TRADES-BTC-USD",
    "mode": "UF",
    "fields": [
        {"name": "type", "type": "char"},
        {"name": "side", "type": "char"},
        {"name": "_", "type": "_6"},
        {"name": "trade_id", "type": "uint64"},
        {"name": "packet_us", "type": "uint64"},
        {"name": "recv_us", "type": "uint64"},
        {"name": "proc_us", "type": "uint64"},
        {"name": "ev_us", "type": "uint64"},
        {"name": "price", "type": "float64", "desc": "in USD"},
        {"name": "size", "type": "float64"},
    ],
    "ts_col": "proc_us",
    "chunk_size_bytes": 67108864,
    "persist": True,
    "index_playback": False,
}
SIZES = {
    "char": 1, "bool": 1, "byte": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4,
    "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip


def compiled(*fields: tuple[str, str], ts_col: str = "t_us") -> Layout:
    rows = [{"name": name, "type": type_} for name, type_ in fields]
    return Layout.compile({"feed_name": "f", "fields": rows, "ts_col": ts_col})


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a spec of 1 to 12 fields of every kind, the clock anywhere."""
    scalar = st.sampled_from(sorted(SIZES))
    count = st.integers(1, 9)
    type_ = st.one_of(
        scalar,
        st.builds("{}[{}]".format, scalar, count),
        st.builds("_{}".format, count),
        st.sampled_from(["u64", "f32", "i16"]),
    )
    types = draw(st.lists(type_, max_size=11))
    suffix = st.sampled_from(["", "_us"])
    fields = [
        {"name": "_" if text.startswith("_") and draw(st.booleans()) else f"f{i}{draw(suffix)}", "type": text}
        for i, text in enumerate(types)
    ]
    fields.insert(draw(st.integers(0, len(fields))), {"name": "when", "type": "uint64"})
    for field in fields:
        if draw(st.booleans()):
            field["desc"] = draw(st.text(st.characters(codec="utf-8"), max_size=5))
    return {"feed_name": "f", "fields": fields, "ts_col": "when"}


# --- what DESIGN promises ------------------------------------------------------------------------------


def test_the_trade_spec_of_design() -> None:
    layout = Layout.compile(TRADES)
    assert layout.record_size == layout.dtype.itemsize == struct.calcsize(layout.struct_format) == 64
    assert layout.column("price").offset == 48
    assert layout.struct_format == "<cc6xQQQQQdd"
    assert layout.clocks == ("proc_us", "packet_us", "recv_us", "ev_us")
    assert layout.clock_offsets == (32, 16, 24, 40)
    assert layout.names == layout.dtype.names == (
        "type", "side", "trade_id", "packet_us", "recv_us", "proc_us", "ev_us", "price", "size",
    )  # fmt: skip
    assert layout.columns[7] == Column("price", "float64", "float", 48, 8, "<f8", None, "in USD")
    assert layout.padding_mask.tolist() == [0, 0] + [255] * 6 + [0] * 56
    assert layout.warnings == ()


def test_the_clock_may_be_the_first_field_and_the_only_one() -> None:
    layout = compiled(("t_us", "u64"))
    assert (layout.record_size, layout.clock_offsets, layout.struct_format) == (8, (0,), "<Q")
    assert layout.dtype == np.dtype([("t_us", "<u8")])
    assert layout.column("t_us").offset == 0


def test_the_primary_clock_comes_first_whatever_its_name() -> None:
    layout = compiled(
        ("a_us", "u64"), ("b_us", "i64"), ("c_us", "u64[2]"), ("when", "u64"), ("_", "_8"),
        ("d_us", "u64"), ("e", "u64"),
        ts_col="when",
    )  # fmt: skip
    assert layout.clocks == ("when", "a_us", "d_us")
    assert layout.clock_offsets == (32, 0, 48)


def test_every_kind_of_field() -> None:
    layout = compiled(
        ("c", "char"), ("s", "char[5]"), ("ok", "bool"), ("b", "byte"), ("t_us", "u64"), ("half", "f16"),
        ("flags", "bool[2]"),
        ("_", "_1"), ("raw", "byte[3]"), ("px", "float64[3]"), ("pad", "_4"), ("n", "i32"),
    )  # fmt: skip
    assert layout.struct_format == "<c5s?BQe2?x3B3d4xi"
    assert layout.dtype["s"] == np.dtype("S5")
    assert layout.dtype["px"] == np.dtype(("<f8", (3,)))
    assert layout.dtype["flags"].shape == (2,)
    mask = [0] * 6 + [0xFE] + [0] * 11 + [0xFE] * 2 + [0xFF] + [0] * 27 + [0xFF] * 4 + [0] * 4
    assert layout.padding_mask.tolist() == mask
    assert not layout.padding_mask.flags.writeable


@given(specs())
def test_a_layout_is_what_the_spec_says(spec: dict[str, Any]) -> None:
    layout = Layout.compile(spec)
    end = 0
    mask = bytearray()
    for field in FeedSpec.from_json(spec).fields:
        base, _, count = field.type.rstrip("]").partition("[")
        size = int(base[1:]) if field.is_padding else SIZES[base] * int(count or 1)
        if not field.is_padding:
            column = layout.column(field.name)
            assert (column.offset, column.size, column.type) == (end, size, field.type)
            assert layout.dtype.fields is not None
            assert layout.dtype.fields[field.name][1] == end
            assert layout.dtype[field.name].itemsize == size
        mask += {"padding": b"\xff", "bool": b"\xfe"}.get(field.kind, b"\0") * size
        end += size
    assert layout.record_size == layout.dtype.itemsize == struct.calcsize(layout.struct_format) == end
    assert layout.padding_mask.tobytes() == mask
    assert layout.clocks[0] == "when"


@given(specs())
def test_a_layout_survives_json_bytes_and_pickle(spec: dict[str, Any]) -> None:
    layout = Layout.compile(spec)
    for again in (
        Layout.from_bytes(layout.to_bytes()),
        Layout.from_bytes(memoryview(layout.to_bytes())),
        Layout.from_json(json.loads(json.dumps(layout.to_json(), indent=2))),
        pickle.loads(pickle.dumps(layout)),
    ):
        assert again == layout
        assert hash(again) == hash(layout)
        assert again.dtype == layout.dtype
        assert again.columns == layout.columns  # descriptions too
        assert again.fields == layout.fields
        assert again.to_bytes() == layout.to_bytes()
        assert again.diff(layout) is None


# --- identity ------------------------------------------------------------------------------------------


def test_equality_is_names_types_offsets_and_clock_but_not_descriptions() -> None:
    one = compiled(("t_us", "u64"), ("px", "f64"), ("_", "_8"))
    described = {"name": "px", "type": "float64", "desc": "price"}
    other = Layout.compile(
        {"feed_name": "g", "fields": [{"name": "t_us", "type": "uint64"}, described, {"name": "_", "type": "_8"}],
         "ts_col": "t_us", "persist": False}
    )  # fmt: skip
    assert one == other
    assert one.hash == other.hash
    assert len(one.hash) == 16
    assert one.to_bytes() != other.to_bytes()
    assert one != compiled(("t_us", "u64"), ("_", "_8"), ("px", "f64"))
    assert one != "layout"


def test_the_hash_is_written_into_files_and_never_changes() -> None:
    assert Layout.compile(TRADES).hash.hex() == "dc90817ae01967ca7c6d0853cb90693b"
    assert Layout.compile(TRADES).to_bytes().startswith(b'{"byte_order":"little","fields":[{"name":"type","offset":0,')


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ([("t_us", "u64"), ("px", "f64"), ("n", "i32"), ("_", "_4")], None),
        ([("t_us", "u64"), ("px", "f32"), ("n", "i32")],
         "field 'px': float64 at offset 8 here, float32 at offset 8 there"),
        ([("px", "f64"), ("t_us", "u64"), ("n", "i32")],
         "field 't_us': uint64 at offset 0 here, uint64 at offset 8 there"),
        ([("t_us", "u64"), ("pxx", "f64"), ("n", "i32")],
         "field 'px': float64 at offset 8 here, missing there; did you mean 'pxx'?"),
        ([("t_us", "u64"), ("px", "f64"), ("n", "i32"), ("m", "i32")],
         "field 'm': missing here, int32 at offset 20 there"),
        ([("t_us", "u64"), ("px", "f64"), ("n", "i32")], "record size: 24 bytes here, 20 there"),
        ([("t_us", "u64"), ("px", "f64"), ("n", "i32"), ("pad", "_4")],
         "padding: other names or widths here than there"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(other: list[tuple[str, str]], difference: str | None) -> None:
    assert compiled(("t_us", "u64"), ("px", "f64"), ("n", "i32"), ("_", "_4")).diff(compiled(*other)) == difference


def test_another_clock_is_a_difference() -> None:
    fields = [("a_us", "u64"), ("b_us", "u64")]
    one, other = compiled(*fields, ts_col="a_us"), compiled(*fields, ts_col="b_us")
    assert one != other
    assert one.diff(other) == "ts_col: 'a_us' here, 'b_us' there"


def test_a_layout_cannot_be_changed() -> None:
    layout = Layout.compile(TRADES)
    for name in ("ts_col", "fields", "new"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(layout, name, ())
    layout.to_json()["fields"].clear()
    assert len(layout.to_json()["fields"]) == 10


def test_reading_the_same_bytes_again_costs_no_compile() -> None:
    data = Layout.compile(TRADES).to_bytes()
    assert Layout.from_bytes(data) is Layout.from_bytes(bytearray(data))


# --- asking --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fragment"),
    [("pirce", "did you mean 'price'"), ("_", "columns are type, side"), (0, "columns are"), (None, "columns are")],
)
def test_columns_that_are_not_there(name: object, fragment: str) -> None:
    with pytest.raises(RecordError, match=f"no column {name!r}; {fragment}") as caught:
        Layout.compile(TRADES).column(name)
    assert caught.value.column == name  # type: ignore[attr-defined]


def test_it_shows_itself() -> None:
    layout = Layout.compile(TRADES)
    assert repr(layout).startswith("<Layout 64 bytes, ts_col proc_us: type char @0, side char @1, trade_id uint64 @8")
    assert "<td>48</td><td>price</td><td>float64</td>" in layout._repr_html_()
    many = compiled(("t_us", "u64"), *((f"x{i}", "u64") for i in range(100)))
    assert repr(many).endswith("... 89 more>")
    sly = {**TRADES, "fields": [{"name": "proc_us", "type": "u64", "desc": "<script>"}]}
    assert "<script>" not in Layout.compile(sly)._repr_html_()


# --- warnings ------------------------------------------------------------------------------------------


def test_a_misaligned_field_is_named_with_its_cost_and_cure() -> None:
    (said,) = compiled(("side", "char"), ("t_us", "u64"), ("px", "f64"), ("_", "_7")).warnings
    assert said.startswith("misaligned: 't_us' (uint64 at offset 1), 'px' (float64 at offset 9); each lookup")
    assert '{"name": "_", "type": "_7"} before \'t_us\'' in said
    assert "before 'px'" not in said  # it is aligned once t_us is


def test_a_record_size_that_is_no_multiple_of_8() -> None:
    (said,) = compiled(("t_us", "u64"), ("n", "i32")).warnings
    assert said.startswith("record size 12 is not a multiple of 8")
    assert said.endswith('put {"name": "_", "type": "_4"} at the end')
    assert compiled(("t_us", "u64"), ("s", "char[3]"), ("_", "_5")).warnings == ()


@given(specs())
def test_following_the_warnings_ends_them(spec: dict[str, Any]) -> None:
    layout = Layout.compile(spec)
    aligned = layout.record_size % 8 == 0 and all(
        column.offset % (1 if column.type.startswith("char") else SIZES[column.type.partition("[")[0]]) == 0
        for column in layout.columns
    )
    assert bool(layout.warnings) != aligned
    if aligned:
        return
    cure = layout.warnings[-1].rpartition("; put ")[2]
    if " more" in cure:
        return
    fields = list(spec["fields"])
    for one in cure.split(", {"):
        padding, _, place = ("{" + one.lstrip("{")).partition("}")
        row = json.loads(padding + "}")
        names = [field["name"] for field in fields]
        at = len(fields) if place == " at the end" else names.index(place.split("'")[1])
        fields.insert(at, row)
    assert Layout.compile({**spec, "fields": fields}).warnings == ()


# --- damaged and foreign bytes -------------------------------------------------------------------------

BAD: list[tuple[str, Any, str]] = [
    ("record_size", 0, "record_size is 0; this version expects 64"),
    ("record_size", 7, "record_size is 7"),
    ("record_size", 2**31, "record_size is 2147483648"),
    ("record_size", 64.0, "record_size is 64.0"),
    ("record_size", None, "record_size is None"),
    ("version", 2, "version is 2; this version expects 1"),
    ("version", True, "version is True"),
    ("mode", "VF", "mode is 'VF'"),
    ("byte_order", "big", "byte_order is 'big'; this version expects 'little'"),
    ("ts_col", "price", "ts_col 'price' is float64"),
    ("ts_col", None, "ts_col None is no field"),
    ("ts_col", [], "ts_col [] is no field"),
    ("fields", [], "0 fields"),
    ("fields", {}, "fields must be a list of objects"),
    ("fields", [1], "fields must be a list of objects"),
    ("fields", None, "fields must be a list of objects"),
]


@pytest.mark.parametrize(("key", "value", "fragment"), BAD)
def test_a_layout_that_contradicts_itself(key: str, value: Any, fragment: str) -> None:
    data = Layout.compile(TRADES).to_json()
    data[key] = value
    with pytest.raises(SchemaError) as caught:
        Layout.from_json(data)
    assert fragment in str(caught.value)


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"offset": 49}, "field 8 is"),
    ({"offset": -1}, "field 8 is"),
    ({"offset": 48.0}, "field 8 is"),
    ({"offset": None}, "field 8 is"),
    ({"size": 4}, "field 8 is"),
    ({"size": True}, "field 8 is"),
    ({"type": "f64"}, "field 8 is"),  # short forms are for people
    ({"type": "O"}, "objects have no fixed width"),
    ({"type": "u8,O"}, "is not known"),
    ({"type": "float64[99999]"}, "an array is type[N]"),
    ({"type": None}, "type must be a text"),
    ({"name": "size"}, "two fields are named 'size'"),
    ({"name": "__class__"}, "belong to Python"),
    ({"name": ""}, "1 to 64 ASCII letters"),
    ({"desc": 1}, "desc must be a text"),
    ({"desc": ""}, "field 8 is"),
    ({"extra": 1}, "unknown key 'extra'"),
]


@pytest.mark.parametrize(("change", "fragment"), BAD_ROWS)
def test_a_field_that_contradicts_itself(change: dict[str, Any], fragment: str) -> None:
    data = Layout.compile(TRADES).to_json()
    data["fields"][8].update(change)
    with pytest.raises(SchemaError) as caught:
        Layout.from_json(data)
    assert fragment in str(caught.value), str(caught.value)


@pytest.mark.parametrize("key", ["version", "mode", "byte_order", "record_size", "ts_col", "fields"])
def test_every_key_is_needed_and_no_other(key: str) -> None:
    data = Layout.compile(TRADES).to_json()
    with pytest.raises(SchemaError, match="expected the keys"):
        Layout.from_json({**data, "more": 1})
    del data[key]
    with pytest.raises(SchemaError, match="expected the keys"):
        Layout.from_json(data)
    for foreign in ([], None, 7, "text"):
        with pytest.raises(SchemaError, match="expected the keys"):
            Layout.from_json(foreign)


@given(st.data())
def test_damaged_bytes_are_a_schema_error_or_still_a_layout(data: st.DataObject) -> None:
    good = bytearray(Layout.compile(TRADES).to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for damaged in (good, good[:cut]):
        try:
            layout = Layout.from_bytes(damaged)
        except SchemaError:
            continue
        assert layout.record_size == layout.dtype.itemsize
        assert not layout.dtype.hasobject
