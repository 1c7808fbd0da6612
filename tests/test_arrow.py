"""Records to Arrow and back: every type, every split, every byte."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwater import arrow
from deepwater.errors import RecordError
from deepwater.layout import Layout
from deepwater.values import Packer

# --- layouts and records, for the tests of frames and windows too -----------------------------------------

TRADES = Layout.compile(
    {
        "feed_name": "T",
        "ts_col": "proc_us",
        "fields": [
            {"name": "type", "type": "char"},
            {"name": "side", "type": "char", "desc": "the maker's side"},
            {"name": "_", "type": "_6"},
            {"name": "trade_id", "type": "uint64"},
            {"name": "recv_us", "type": "uint64"},
            {"name": "proc_us", "type": "uint64"},
            {"name": "price", "type": "float64"},
            {"name": "size", "type": "float64"},
        ],
    }
)
SCALARS = ["char", "char[5]", "bool", "byte", "float16", "float32", "float64"]
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
EVERY_TYPE = [*SCALARS, *INTEGERS, "float64[3]", "bool[2]", "byte[3]", "int16[2]"]
T0 = 1_786_252_420_000_000


def layout_of(types: list[str], clock_at: int = 0) -> Layout:
    """Return a layout with a column per type, and clocks `t_us` (primary, at `clock_at`) and `other_us`."""
    fields = [{"name": "_" if t.startswith("_") else f"f{i}", "type": t} for i, t in enumerate(types)]
    fields.insert(clock_at, {"name": "t_us", "type": "uint64"})
    fields.append({"name": "other_us", "type": "uint64"})
    return Layout.compile({"feed_name": "F", "ts_col": "t_us", "fields": fields})


EVERY = layout_of([*EVERY_TYPE, "_3"])  # misaligned, too


def clean(layout: Layout, raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Make records of random bytes: zero padding, bools of 0 and 1, clocks that a timestamp can hold."""
    rows = raw.reshape(-1, layout.record_size).copy()
    rows[:, layout.padding_mask == 0xFF] = 0
    rows[:, layout.padding_mask == 0xFE] &= 1
    for offset in layout.clock_offsets:
        rows[:, offset + 7] &= 0x7F
    return rows.reshape(-1).view(layout.dtype)


def random_records(layout: Layout, rows: int, seed: int = 7) -> np.ndarray[Any, Any]:
    return clean(layout, np.random.default_rng(seed).integers(0, 256, rows * layout.record_size, np.uint8))


def trades(rows: int) -> np.ndarray[Any, Any]:
    records = np.zeros(rows, TRADES.dtype)
    number = np.arange(rows)
    records["type"], records["side"] = b"T", np.where(number % 3, b"B", b"S")
    records["trade_id"], records["price"], records["size"] = number + 800, 100 + number / 4, number / 8
    records["recv_us"], records["proc_us"] = T0 + number * 1000 - 5, T0 + number * 1000
    return records


@st.composite
def layouts_and_records(draw: st.DrawFn) -> tuple[Layout, np.ndarray[Any, Any]]:
    types = draw(st.lists(st.sampled_from([*EVERY_TYPE, "_1", "_4"]), max_size=8))
    layout = layout_of(types, draw(st.integers(0, len(types))))
    rows = draw(st.integers(0, 12))
    return layout, random_records(layout, rows, draw(st.integers(0, 2**32)))


def cut(records: np.ndarray[Any, Any], *bounds: int) -> Iterator[np.ndarray[Any, Any]]:
    return (records[a:b] for a, b in zip((0, *bounds), (*bounds, len(records)), strict=True))


def plain(layout: Layout, name: str, value: Any) -> Any:
    """Return what Arrow's to_pylist should give for one value: the slow, obvious way."""
    column = layout.column(name)
    if name in layout.clocks:
        return int(value)
    if column.kind in ("char", "chars"):
        return value.decode("latin-1")
    return value.tolist()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float | np.floating):  # older pyarrow gives np.float16
        return float(a) == b or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def assert_holds(layout: Layout, data: pa.RecordBatch | pa.Table, records: np.ndarray[Any, Any]) -> None:
    assert data.num_rows == len(records)
    for name in data.schema.names:
        column = data.column(name)
        found = (column.cast(pa.int64()) if name in layout.clocks else column).to_pylist()
        assert same(found, [plain(layout, name, record[name]) for record in records]), name


# --- gather -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [TRADES, EVERY], ids=["trades", "every"])
@pytest.mark.parametrize("rows", [0, 1, 4095, 4096, 9001])
def test_gather_copies_each_column_whatever_the_blocks(layout: Layout, rows: int) -> None:
    records = random_records(layout, rows)
    pieces = cut(records, rows // 3, rows // 3, rows // 2)
    found = arrow.gather(layout.columns, pieces, rows)
    assert list(found) and set(found) == set(layout.names)
    for column in layout.columns:
        values = found[column.name]
        assert values.flags.c_contiguous and values.flags.aligned and values.flags.writeable
        assert not np.shares_memory(values, records)
        assert values.tobytes() == np.ascontiguousarray(records[column.name]).tobytes(), column
        assert values.dtype == (np.uint8 if column.kind == "char" else column.dtype.base)


def test_gather_lets_each_piece_go_before_it_asks_for_the_next() -> None:
    import weakref

    alive: list[weakref.ref[Any]] = []

    def pieces() -> Iterator[Any]:
        for _ in range(5):
            assert all(ref() is None for ref in alive)
            piece = trades(3)
            alive.append(weakref.ref(piece))
            yield piece
            del piece

    arrow.gather(TRADES.columns, pieces(), 15)
    assert len(alive) == 5


@given(st.lists(st.integers(0, 255), max_size=300), st.integers(1, 256))
def test_distinct_and_rank_are_what_unique_says(values: list[int], modulus: int) -> None:
    codes = (np.array(values, np.uint8) % np.uint16(modulus)).astype(np.uint8)
    unique, inverse = np.unique(codes, return_inverse=True)
    assert arrow.distinct(codes) == unique.tolist()
    ranks = arrow.rank(codes, unique.tolist())
    assert ranks.dtype == np.uint8 and ranks.tolist() == inverse.tolist()
    # Values in another order, and more of them than occur.
    known = [*unique.tolist()[::-1], *sorted(set(range(256)) - set(unique.tolist()))]
    assert [known[i] for i in arrow.rank(codes, known)] == codes.tolist()


# --- to Arrow ---------------------------------------------------------------------------------------------


def test_each_type_has_its_arrow_type() -> None:
    clock, text = pa.timestamp("us", "UTC"), pa.dictionary(pa.uint8(), pa.utf8())
    known = {name: getattr(pa, name)() for name in [*INTEGERS, "float16", "float32", "float64"]} | {
        "char": text,
        "char[5]": pa.utf8(),
        "bool": pa.bool_(),
        "byte": pa.uint8(),
        "float64[3]": pa.list_(pa.float64(), 3),
        "bool[2]": pa.list_(pa.bool_(), 2),
        "byte[3]": pa.list_(pa.uint8(), 3),
        "int16[2]": pa.list_(pa.int16(), 2),
    }
    expected = [
        ("t_us", clock),
        *((f"f{i}", known[t]) for i, t in enumerate(EVERY_TYPE)),
        ("other_us", clock),
    ]
    assert arrow.schema(EVERY) == pa.schema(expected)


def test_the_schema_has_descriptions_and_the_columns_asked_for_in_that_order() -> None:
    found = arrow.schema(TRADES)
    assert found.field("side").metadata == {b"desc": b"the maker's side"}
    assert found.field("price").metadata is None
    assert found.names == list(TRADES.names)
    assert arrow.schema(TRADES, ["size", "side"]).names == ["size", "side"]
    assert arrow.schema(TRADES, "size").names == ["size"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["prize"], "did you mean 'price'"),
        (["size", "size"], "more than once"),
        ([], "no column is asked for"),
    ],
)
def test_a_bad_choice_of_columns_is_named(columns: list[str], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        arrow.select(TRADES, columns)


@pytest.mark.parametrize("rows", [0, 1, 2, 100])
def test_a_batch_holds_what_the_records_hold(rows: int) -> None:
    records = random_records(EVERY, rows)
    batch = arrow.record_batch(EVERY, records)
    batch.validate(full=True)
    assert batch.schema == arrow.schema(EVERY)
    assert_holds(EVERY, batch, records)
    assert_holds(EVERY, arrow.record_batch(EVERY, records, ["f15", "f0"]), records)


def test_a_batch_is_a_copy_that_outlives_the_records() -> None:
    records = trades(1000)
    batch = arrow.record_batch(TRADES, records)
    records[:] = 0
    del records
    gc.collect()
    assert_holds(TRADES, batch, trades(1000))


def test_clocks_beyond_what_a_timestamp_holds_are_refused_by_row() -> None:
    records = trades(5)
    records["recv_us"][2:] = 2**63 - 1
    assert arrow.record_batch(TRADES, records).column("recv_us").cast(pa.int64())[2].as_py() == 2**63 - 1
    records["recv_us"][3] = 2**63
    with pytest.raises(RecordError, match=r"column 'recv_us', row 3: 9223372036854775808 us .* to_numpy") as caught:
        arrow.record_batch(TRADES, records)
    assert (caught.value.column, caught.value.row, caught.value.value) == ("recv_us", 3, 2**63)
    assert arrow.record_batch(TRADES, records, ["price", "proc_us"]).num_rows == 5


def test_all_256_characters_survive_and_nul_is_the_empty_text() -> None:
    layout = layout_of(["char"])
    records = np.zeros(256, layout.dtype)
    records["f0"] = np.arange(256, dtype=np.uint8).view("S1")
    batch = arrow.record_batch(layout, records)
    text = batch.column("f0").to_pylist()
    assert text == [""] + [chr(i) for i in range(1, 256)]
    assert (arrow.columns_from_arrow(batch)["f0"] == records["f0"]).all()


@pytest.mark.parametrize(
    "values", [[b"a", b"", b"abcde"], [b"\xe9t\xe9", b"a", b"\xff" * 5], [b"a\0b", b"\0x", b""], []]
)
def test_text_is_latin_1_with_inner_nuls_kept(values: list[bytes]) -> None:
    layout = layout_of(["char[5]"])
    records = np.zeros(len(values), layout.dtype)
    records["f0"] = values
    batch = arrow.record_batch(layout, records)
    batch.validate(full=True)
    assert batch.column("f0").to_pylist() == [value.decode("latin-1") for value in values]
    assert arrow.columns_from_arrow(batch)["f0"].tolist() == values


def runs(records: np.ndarray[Any, Any], *bounds: int) -> Iterator[tuple[int, list[Any]]]:
    return ((len(piece), [piece]) for piece in cut(records, *bounds))


def test_dictionaries_only_grow_at_their_end_and_a_table_has_one() -> None:
    records = trades(9)
    records["side"] = list(b"BBSSBXABX".decode())
    found = list(arrow.batches(TRADES, runs(records, 2, 4, 7)))
    growth = [batch.column("side").dictionary.to_pylist() for batch in found]
    assert growth == [["B"], ["B", "S"], ["B", "S", "A", "X"], ["B", "S", "A", "X"]]
    table = arrow.table(TRADES, runs(records, 2, 4, 7))
    table.validate(full=True)
    assert table.schema == arrow.schema(TRADES) and table.schema.field("side").metadata
    assert [chunk.dictionary.to_pylist() for chunk in table.column("side").chunks] == [growth[-1]] * 4
    assert_holds(TRADES, table, records)
    # A file may not replace a dictionary, so this is where it shows.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert pa.ipc.open_file(sink.getvalue()).read_all().equals(table)


def test_a_reader_makes_a_batch_when_it_is_asked_for() -> None:
    made = []

    def one_by_one() -> Iterator[tuple[int, list[Any]]]:
        for i in range(3):
            made.append(i)
            yield 2, [trades(2)]

    reader = arrow.reader(TRADES, one_by_one())
    assert made == []
    reader.read_next_batch()
    assert made == [0]
    assert sum(batch.num_rows for batch in reader) == 4


def test_float16_can_be_widened_for_those_who_do_not_know_it() -> None:
    layout = layout_of(["float16", "float16[2]", "float32"])
    table = arrow.table(layout, runs(random_records(layout, 5), 2))
    wide = arrow.without_halves(table)
    assert wide.schema.types[1:4] == [pa.float32(), pa.list_(pa.float32(), 2), pa.float32()]
    for name in table.schema.names[1:4]:
        assert same(table[name].to_pylist(), wide[name].to_pylist())


# --- from Arrow -------------------------------------------------------------------------------------------


def back(layout: Layout, data: Any) -> bytes:
    return Packer(layout).pack_batch(arrow.columns_from_arrow(data)).tobytes()


@given(layouts_and_records(), st.data())
def test_arrow_gives_the_bytes_back_however_it_was_cut(
    case: tuple[Layout, np.ndarray[Any, Any]], data: st.DataObject
) -> None:
    layout, records = case
    bounds = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=3)))
    batch = arrow.record_batch(layout, cut(records, *bounds), rows=len(records))
    table = arrow.table(layout, runs(records, *bounds))
    for found in (batch, table, table.slice(1), table.combine_chunks()):
        found.validate(full=True)
        assert back(layout, found) == records[len(records) - found.num_rows :].tobytes()
    assert_holds(layout, batch, records)
    assert_holds(layout, table, records)


@given(layouts_and_records())
def test_polars_gives_the_bytes_back(case: tuple[Layout, np.ndarray[Any, Any]]) -> None:
    layout, records = case
    table = arrow.table(layout, runs(records, len(records) // 2))
    frame = pl.from_arrow(table if hasattr(pl, "Float16") else arrow.without_halves(table))
    assert back(layout, frame) == records.tobytes()


AT = datetime(2026, 8, 9, 5, 23, 42, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, 2], pa.int16()), np.array([1, 2], "i2")),
        (pa.array([1.5, float("nan")], pa.float32()), np.array([1.5, np.nan], "f4")),
        (pa.array(np.array([1.5], "f2")), np.array([1.5], "f2")),
        (pa.array([True, False]), np.array([True, False])),
        (pa.array([AT], pa.timestamp("ns", "Europe/Berlin")), np.array(["2026-08-09T05:23:42"], "M8[ns]")),
        (pa.array([AT.replace(tzinfo=None)], pa.timestamp("s")), np.array(["2026-08-09T05:23:42"], "M8[s]")),
        (pa.array([AT.date()], pa.date32()), np.array(["2026-08-09"], "M8[D]")),
        (pa.array(["a", "bcd"]), np.array([b"a", b"bcd"])),
        (pa.array(["a", ""], pa.large_utf8()), np.array([b"a", b""])),
        (pa.array(["", ""]), np.array([b"", b""], "S1")),
        (pa.array(["a", "é"], pa.string_view()), np.array([b"a", b"\xe9"])),
        (pa.array([b"\xff\x01", b"a"], pa.binary()), np.array([b"\xff\x01", b"a"])),
        (pa.array([b"a\0", b"bc"], pa.binary(2)), np.array([b"a", b"bc"])),
        (pa.array(["B", "S", "B"]).dictionary_encode(), np.array([b"B", b"S", b"B"])),
        (pa.array(["BUY", "S"]).dictionary_encode(), np.array([b"BUY", b"S"])),
        (pa.array([5, 7, 5]).dictionary_encode(), np.array([5, 7, 5])),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)), np.array([[1, 2], [3, 4]], "i1")),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int8())), np.array([[1, 2], [3, 4]], "i1")),
        (pa.array([[True], [False]], pa.large_list(pa.bool_())), np.array([[True], [False]])),
        (pa.array([], pa.list_(pa.int8(), 2)), np.zeros((0, 2), "i1")),
        (pa.array([], pa.utf8()), np.array([], "S1")),
        (pa.array([b"0123456789abcdef"], pa.uuid()), np.array([b"0123456789abcdef"])),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)  # fmt: skip
def test_arrow_types_become_arrays(values: pa.Array, expected: np.ndarray[Any, Any]) -> None:
    padded = pa.concat_arrays([values[:1], values])  # one chunk with an offset, and two chunks
    for column in (values, padded[min(1, len(padded)) :], pa.chunked_array([values[:1], values[1:]])):
        found = arrow.columns_from_arrow(pa.table({"x": column}))["x"]
        assert found.dtype == expected.dtype or found.dtype.kind == "S"
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)


def test_a_null_that_a_dictionary_has_and_no_row_uses_is_none() -> None:
    column = pa.DictionaryArray.from_arrays([0, 0], pa.array(["a", None]))
    assert arrow.columns_from_arrow(pa.table({"x": column}))["x"].tolist() == [b"a", b"a"]


def test_whatever_speaks_arrow_is_read() -> None:
    table = pa.table({"x": [1, 2], "y": ["a", "b"]})
    for data in (
        table,
        table.to_batches()[0],
        table.to_reader(),
        pl.DataFrame({"x": [1, 2], "y": ["a", "b"]}),
    ):
        found = arrow.columns_from_arrow(data)
        assert found["x"].tolist() == [1, 2] and found["y"].tolist() == [b"a", b"b"]


@pytest.mark.parametrize(
    ("column", "row"),
    [
        (pa.chunked_array([[1, 2], [3, None]]), 3),
        (pa.chunked_array([["a"], ["b", None]]), 2),
        (pa.chunked_array([pa.array(["a", None]).dictionary_encode()]), 1),
        (pa.chunked_array([pa.DictionaryArray.from_arrays([0, 0, 1], pa.array(["a", None]))]), 2),
        (pa.chunked_array([pa.array([AT, AT, None])[1:]]), 1),
        (pa.chunked_array([pa.array([[1, 2], None], pa.list_(pa.int8(), 2))]), 1),
        (pa.chunked_array([pa.array([[1, 2], [], [None, 3]], pa.list_(pa.int8()))]), 2),
        (pa.chunked_array([pa.array([[1, 2], [3, None]], pa.list_(pa.int8(), 2))]), 1),
        (pa.chunked_array([pa.nulls(2)]), 0),
    ],
)
def test_a_null_is_refused_by_column_and_row(column: pa.ChunkedArray, row: int) -> None:
    with pytest.raises(RecordError, match=rf"column 'x', row {row}: null") as caught:
        arrow.columns_from_arrow(pa.table({"x": column}))
    assert (caught.value.column, caught.value.row) == ("x", row)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pa.array([1]), "expected a table of columns, found Int64Array"),
        (3, "expected a table of columns, found int"),
        (pa.table({"x": pa.array([{"a": 1}])}), "column 'x': no field holds Arrow's struct"),
        (pa.table([pa.array([1]), pa.array([2])], names=["x", "x"]), "two columns are called 'x'"),
    ],
)
def test_what_is_no_table_of_fields_is_refused(data: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        arrow.columns_from_arrow(data)


@pytest.mark.parametrize(
    "values",
    [["a\0"], ["\0"], ["ж"], ["\ud800"], [3], [None], ["a", b"b", 1.5], [np.zeros(2)], ["a" * 70_000]],
    ids=ascii,
)
def test_text_that_bytes_cannot_hold_exactly_is_left_to_the_packer(values: list[Any]) -> None:
    found = arrow.encode_text(values)
    assert found.dtype == object and len(found) == len(values)
    assert all(a is b for a, b in zip(found, values, strict=True))


@pytest.mark.parametrize("values", [["a\0", "b"], ["жук", "b"], ["x" * 70_000, "b"]])
def test_such_text_in_arrow_is_left_to_the_packer_too(values: list[str]) -> None:
    for column in (pa.array(values), pa.array(values).dictionary_encode(), pa.chunked_array([["c"], values])):
        found = arrow.columns_from_arrow(pa.table({"x": column}))["x"]
        assert found.dtype == object
        assert [x if isinstance(x, str) else x.decode() for x in found][-2:] == values


def test_one_long_text_does_not_make_every_text_as_long() -> None:
    values = ["x" * 60_000] + ["b"] * 9_999  # 600 MB at a fixed width
    for found in (arrow.encode_text(values), arrow.columns_from_arrow(pa.table({"x": values}))["x"]):
        assert found.dtype == object and found.tolist() == values


def test_lists_of_unequal_length_are_left_to_the_packer() -> None:
    column = pa.chunked_array([pa.array([[1], [2, 3]]), pa.array([[4]])])
    found = arrow.columns_from_arrow(pa.table({"x": column}))["x"]
    assert found.dtype == object and [x.tolist() for x in found] == [[1], [2, 3], [4]]


def test_columns_are_views_that_keep_arrow_memory_alive() -> None:
    table = pa.table({"x": np.arange(100_000), "t": pa.array(np.arange(100_000), pa.timestamp("us", "UTC"))})
    address = table.column("x").chunk(0).buffers()[1].address
    found = arrow.columns_from_arrow(table)
    assert found["x"].__array_interface__["data"] == (address, True)
    del table
    gc.collect()
    assert (found["x"] == np.arange(100_000)).all()
    assert (found["t"].view("i8") == np.arange(100_000)).all()
