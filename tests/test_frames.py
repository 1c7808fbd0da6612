"""Records to pandas and back: every type, what is a view, what is missing."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwater import frames
from deepwater.errors import RecordError
from deepwater.layout import Layout
from deepwater.values import Packer
from test_arrow import (
    EVERY,
    EVERY_TYPE,
    T0,
    TRADES,
    cut,
    layout_of,
    layouts_and_records,
    plain,
    random_records,
    same,
    trades,
)

CLOCK = pd.DatetimeTZDtype("us", "UTC")


def assert_holds(layout: Layout, df: pd.DataFrame, records: np.ndarray[Any, Any]) -> None:
    """Compare with the slow, obvious way: value by value."""
    assert len(df) == len(records)
    for name, values in [(df.index.name, df.index), *df.items()]:
        if name in layout.clocks:
            assert values.dtype == CLOCK
            found = values.astype("int64").tolist()
        else:
            found = [x.tolist() if isinstance(x, np.ndarray) else x for x in values.tolist()]
        assert same(found, [plain(layout, name, record[name]) for record in records]), name


# --- to pandas --------------------------------------------------------------------------------------------


def test_each_type_has_its_dtype() -> None:
    df = frames.frame(EVERY, [random_records(EVERY, 50)], index="t_us")
    for i, text in enumerate(EVERY_TYPE):
        dtype = df[f"f{i}"].dtype
        if text == "char":
            assert isinstance(dtype, pd.CategoricalDtype)
            assert all(isinstance(letter, str) for letter in dtype.categories)
        elif "[" in text:
            assert dtype == np.dtype(object)
        else:
            assert dtype == np.dtype("u1" if text == "byte" else text)
    assert df["f1"].map(type).eq(str).all()
    assert df[f"f{EVERY_TYPE.index('float64[3]')}"].iloc[0].shape == (3,)
    assert df["other_us"].dtype == CLOCK


@pytest.mark.parametrize("rows", [0, 1, 2, 100])
def test_a_frame_holds_what_the_records_hold(rows: int) -> None:
    records = random_records(EVERY, rows)
    for copy in (True, False):
        for index in EVERY.clocks:
            df = frames.frame(EVERY, [records], index=index, copy=copy)
            assert df.index.name == index and index not in df.columns
            assert list(df.columns) == [name for name in EVERY.names if name != index]
            assert_holds(EVERY, df, records)


def test_the_index_is_there_whatever_columns_are_asked_for() -> None:
    records = trades(5)
    df = frames.frame(TRADES, [records], index="recv_us", columns=["size", "proc_us", "recv_us", "side"])
    assert list(df.columns) == ["size", "proc_us", "side"] and df.index.name == "recv_us"
    assert_holds(TRADES, df, records)
    only = frames.frame(TRADES, [records], index="recv_us", columns=["recv_us"])
    assert list(only.columns) == [] and len(only) == 5
    with pytest.raises(RecordError, match="did you mean 'price'"):
        frames.frame(TRADES, [records], index="recv_us", columns=["prize"])


def test_the_index_takes_times_as_pandas_does() -> None:
    df = frames.frame(TRADES, [trades(5000)], index="proc_us")
    assert df.index.dtype == CLOCK and df.index.is_monotonic_increasing
    assert len(df.loc["2026-08-09 05:13:41":"2026-08-09 05:13:42"]) == 2000
    assert df["price"].resample("1s").max().iloc[0] == 100 + 999 / 4


@pytest.mark.parametrize("present", [[b"S", b"B"], [b"B"], [b"", b"\xff", b"a"], [bytes([i]) for i in range(256)]])
def test_categories_are_the_characters_present_sorted(present: list[bytes]) -> None:
    layout = layout_of(["char"])
    records = np.zeros(600, layout.dtype)
    records["f0"] = np.resize(np.array(present, "S1"), 600)
    column = frames.frame(layout, [records], index="t_us")["f0"]
    assert column.cat.categories.tolist() == sorted({value.decode("latin-1").strip("\0") for value in present})
    assert column.tolist() == [value.decode("latin-1") for value in records["f0"]]
    again = pd.Categorical(column.tolist(), categories=column.cat.categories)
    assert column.cat.codes.dtype == again.codes.dtype  # what pandas itself would take
    assert column.value_counts().sum() == 600


def test_no_rows_make_the_same_dtypes_as_rows() -> None:
    empty = frames.frame(TRADES, [], index="proc_us")
    assert len(empty) == 0 and empty.index.dtype == CLOCK and empty.index.name == "proc_us"
    for name, dtype in frames.frame(TRADES, [trades(3)], index="proc_us").dtypes.items():
        if name not in ("type", "side"):
            assert empty[name].dtype == dtype
    assert empty["side"].dtype == pd.CategoricalDtype(pd.Index([], dtype=str))


def test_clocks_beyond_what_pandas_shows_are_refused_by_row() -> None:
    records = trades(5)
    records["recv_us"][3] = 2**63
    for index in TRADES.clocks:
        with pytest.raises(RecordError, match=r"column 'recv_us', row 3: 9223372036854775808 us .* pandas"):
            frames.frame(TRADES, [records], index=index)
    assert len(frames.frame(TRADES, [records], index="proc_us", columns=["price"])) == 5
    records["recv_us"][3] = 2**63 - 1
    assert frames.frame(TRADES, [records], index="proc_us")["recv_us"].astype("int64").iloc[3] == 2**63 - 1


# --- views and copies -------------------------------------------------------------------------------------

ALIGNED = layout_of(["int64", "float64", "float64[3]", "uint16", "float16", "bool", "byte", "char", "char[8]", "_1"])
VIEWED = ["f0", "f1", "f3", "f4", "f5", "f6"]


def memory(column: pd.Series[Any]) -> np.ndarray[Any, Any]:
    return np.asarray(column.to_numpy(copy=False) if column.dtype != CLOCK else column.array.asi8)


def test_without_copy_numbers_are_read_only_views() -> None:
    records = random_records(ALIGNED, 1000)
    records.flags.writeable = False
    df = frames.frame(ALIGNED, [records], index="t_us", copy=False)
    assert [name for name in df.columns if np.shares_memory(memory(df[name]), records)] == VIEWED
    assert np.shares_memory(df["f2"].iloc[5], records)  # the rows of type[N]
    assert not np.shares_memory(df.index.asi8, records)
    for name in VIEWED:
        assert not memory(df[name]).flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        df.iloc[0, 0] = 5
    assert_holds(ALIGNED, df, records)


def test_misaligned_numbers_are_copied_even_without_copy() -> None:
    layout = layout_of(["byte", "float64", "bool"])
    records = random_records(layout, 100)
    df = frames.frame(layout, [records], index="t_us", copy=False)
    assert [name for name in df.columns if np.shares_memory(memory(df[name]), records)] == ["f0", "f2"]
    assert memory(df["f1"]).flags.aligned
    assert_holds(layout, df, records)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_copy_shares_nothing_and_can_be_written(pieces: int) -> None:
    records = random_records(ALIGNED, 100)
    whole = records.tobytes()
    arrays = list(cut(records, 40)) if pieces == 2 else [records]
    for copy in (True, pieces == 1):  # several pieces are copied in any case
        df = frames.frame(ALIGNED, arrays, index="t_us", copy=copy)
        assert not any(np.shares_memory(memory(df[name]), records) for name in ALIGNED.names if name in df)
        df["f0"] = df["f0"] + 1
        df.iloc[0, df.columns.get_loc("f1")] = 5.0
        df["f2"].iloc[0][0] = 5.0
    assert records.tobytes() == whole


@pytest.mark.parametrize("copy", [True, False])
def test_a_frame_outlives_the_records(copy: bool) -> None:
    records = random_records(ALIGNED, 1000)
    df = frames.frame(ALIGNED, [records], index="t_us", copy=copy)
    whole = records.copy()
    del records
    gc.collect()
    assert_holds(ALIGNED, df, whole)


def test_an_iterator_of_pieces_says_how_many_rows_it_has() -> None:
    records = trades(100)
    df = frames.frame(TRADES, cut(records, 10, 50), index="proc_us", rows=100)
    assert_holds(TRADES, df, records)


# --- from pandas ------------------------------------------------------------------------------------------


@given(layouts_and_records(), st.data())
def test_pandas_gives_the_bytes_back_however_it_was_cut(
    case: tuple[Layout, np.ndarray[Any, Any]], data: st.DataObject
) -> None:
    layout, records = case
    bounds = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=3)))
    index = data.draw(st.sampled_from(layout.clocks))
    packer = Packer(layout)
    for arrays, copy in ((list(cut(records, *bounds)), True), ([records], False)):
        df = frames.frame(layout, arrays, index=index, copy=copy)
        assert_holds(layout, df, records)
        for form in (df, df.reset_index()):
            assert packer.pack_batch(frames.columns_from_frame(form)).tobytes() == records.tobytes()


AT = datetime(2026, 8, 9, 5, 23, 42, tzinfo=UTC)
AT_US = np.datetime64("2026-08-09T05:23:42", "us")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.Series([1, 2], dtype="int16"), np.array([1, 2], "i2")),
        (pd.Series([1, 2], dtype="Int64"), np.array([1, 2])),
        (pd.Series([True, False], dtype="boolean"), np.array([True, False])),
        (pd.Series([1.5, np.nan]), np.array([1.5, np.nan])),
        (pd.Series([1.5, 2], dtype="Float32"), np.array([1.5, 2], "f4")),
        (pd.Series([0, 0, 3], dtype=pd.SparseDtype("int64", 0)), np.array([0, 0, 3])),
        (pd.Series([AT]), np.array([AT_US])),
        (pd.Series([AT]).dt.tz_convert("Asia/Kolkata"), np.array([AT_US])),
        (pd.Series([AT]).dt.tz_localize(None).dt.as_unit("ns"), np.array([AT_US.astype("M8[ns]")])),
        (pd.Series(["B", "S"]), np.array([b"B", b"S"])),
        (pd.Series(["B", "été"], dtype=object), np.array([b"B", b"\xe9t\xe9"])),
        (pd.Series([b"B", "S"], dtype=object), np.array([b"B", b"S"])),
        (pd.Series(["B", "SS"], dtype="string[python]"), np.array([b"B", b"SS"])),
        (pd.Series(["B", "SS"], dtype="string[pyarrow]"), np.array([b"B", b"SS"])),
        (
            pd.Series(["B", "SS"], dtype=pd.ArrowDtype(pa.string())),
            np.array([b"B", b"SS"]),
        ),
        (pd.Series([1, 2], dtype="int32[pyarrow]"), np.array([1, 2], "i4")),
        (pd.Series(["B", "S", "B"], dtype="category"), np.array([b"B", b"S", b"B"])),
        (pd.Series([5, 7, 5], dtype="category"), np.array([5, 7, 5])),
        (pd.Series([np.zeros(2), np.ones(2)]), np.array([[0.0, 0.0], [1.0, 1.0]])),
        (pd.Series([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]])),
        (pd.Series([], dtype=object), np.array([], object)),
        (pd.Series([], dtype="category"), np.array([], object)),
        (pd.Series([], dtype="string"), np.array([], "S1")),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pd.Series) else "",
)
def test_pandas_types_become_arrays(values: pd.Series[Any], expected: np.ndarray[Any, Any]) -> None:
    backwards = pd.DataFrame({"x": values, "other": range(len(values))})[::-1]
    for df in (pd.DataFrame({"x": values}), backwards[::-1], backwards[::-1].set_index("x")):
        found = frames.columns_from_frame(df)["x"]
        assert found.dtype.kind == expected.dtype.kind and found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "row"),
    [
        (pd.Series([AT, pd.NaT]), 1),
        (pd.Series([1, None, 3], dtype="Int64"), 1),
        (pd.Series([True, None], dtype="boolean"), 1),
        (pd.Series([1.5, None], dtype="Float64"), 1),
        (pd.Series(["B", None]), 1),
        (pd.Series(["B", None], dtype=object), 1),
        (pd.Series([pd.NA, "B"], dtype=object), 0),
        (pd.Series(["B", None], dtype="category"), 1),
        (pd.Series([1, None], dtype="int32[pyarrow]"), 1),
        (pd.Series([np.zeros(2), None]), 1),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pd.Series) else "",
)
def test_a_missing_value_is_refused_by_column_and_row(values: pd.Series[Any], row: int) -> None:
    with pytest.raises(RecordError, match=rf"column 'x', row {row}: .*fill it first") as caught:
        frames.columns_from_frame(pd.DataFrame({"x": values}))
    assert (caught.value.column, caught.value.row) == ("x", row)


@pytest.mark.parametrize(
    "values",
    [
        [1.5, float("nan")],
        [1, 2**70],
        [np.zeros(2), np.zeros(3)],
        [np.zeros(2), np.zeros(2, int)],
        ["B", "ж"],
    ],
)
def test_objects_no_array_holds_exactly_are_left_to_the_packer(values: list[Any]) -> None:
    column = pd.Series(values, dtype=object)
    found = frames.columns_from_frame(pd.DataFrame({"x": column}))["x"]
    assert found.dtype == object and all(a is b for a, b in zip(found, column, strict=True))


def test_a_named_index_is_a_column_and_another_is_not() -> None:
    df = pd.DataFrame({"x": [1, 2, 3]}, index=pd.DatetimeIndex([T0, T0, T0], name="t_us"))
    assert list(frames.columns_from_frame(df)) == ["t_us", "x"]
    assert list(frames.columns_from_frame(df.rename_axis(None))) == ["x"]
    assert list(frames.columns_from_frame(df.reset_index(drop=True)[1:])) == ["x"]
    levels = pd.MultiIndex.from_arrays([[1, 2, 3], ["a", "b", "c"]], names=["t_us", None])
    found = frames.columns_from_frame(df.set_index(levels))
    assert list(found) == ["t_us", "x"] and found["t_us"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("df", "message"),
    [
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), "two columns are called 'x'"),
        (pd.DataFrame({"x": [1]}, index=pd.Index([1], name="x")), "two columns are called 'x'"),
        (pd.DataFrame({0: [1]}), "column 0: its name is not a str"),
    ],
)
def test_columns_that_cannot_be_matched_by_name_are_refused(df: pd.DataFrame, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        frames.columns_from_frame(df)


def test_columns_are_views_of_the_frame_where_they_can_be() -> None:
    df = frames.frame(TRADES, [trades(100)], index="proc_us")
    found = frames.columns_from_frame(df)
    assert np.shares_memory(found["price"], df["price"].to_numpy())
    assert np.shares_memory(found["proc_us"], df.index.asi8)
    assert found["proc_us"].dtype == "M8[us]"
    assert found["side"].dtype == "S1"
