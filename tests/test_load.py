"""Files into feeds: all records or none, equal to what was in the file, and each bad row named."""

from __future__ import annotations

import json
import math
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, ipc

from deepwater import Platform, csvfile
from deepwater.errors import FeedLockedError, RecordError, SchemaError, SchemaMismatchError, StorageFullError
from deepwater.load import load, open_source
from deepwater.writer import Writer

Array = npt.NDArray[Any]
US = 1_786_253_022_196_708
SPEC = {
    "feed_name": "T", "ts_col": "t_us", "fields": [
        {"name": "t_us", "type": "uint64"}, {"name": "side", "type": "char"}, {"name": "ok", "type": "bool"},
        {"name": "_", "type": "_6"}, {"name": "name", "type": "char[8]"}, {"name": "n", "type": "int32"},
        {"name": "small", "type": "float32"}, {"name": "px", "type": "float64"}, {"name": "lv", "type": "float64[2]"},
    ],
}  # fmt: skip
HEAD = "t_us,side,ok,name,n,small,px,lv\n"
LINE = '{us},B,true,abc,5,0.5,1.25,"[1.0, 2.0]"\n'


def csv(path: Path, text: str) -> str:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return str(path)


def lines(count: int) -> str:
    return HEAD + "".join(LINE.format(us=US + k) for k in range(count))


def records_of(dw: Platform, feed: str) -> Array:
    with dw[feed] as reader:
        return np.array(reader.rows(0, 1 << 40).to_numpy())


# --- equal to what was in the file -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["spec", "feed"])
def test_each_cell_of_csv_is_what_python_reads(how: str, tmp_path: Path, tmp_store: Path) -> None:
    rows = [
        ("2026-08-09T05:23:42.196708Z", "B", "true", "plain", "-2147483648", "0.1", "0.1", "[1.5, nan]"),
        ("2026-08-09 05:23:42", "S", "False", 'a,"b"', "2147483647", "3.4028235e38", "-inf", "[inf, -0.0]"),
        ("2026-08-09", "", "TRUE", "x\ny", "0", "1e-45", "NaN", "[ 1 ,2 ]"),
        ("2026-08-09T07:23:42+02:00", "é", "false", "", "-1", "16777217", "1e308", "[3,4]"),
        (str(2**64 - 1), ",", "true", " b ", "007", "-0.0", "5", "[1e-300,4]"),
    ]
    us = [US, US - 196_708, US // 86_400_000_000 * 86_400_000_000, US - 196_708, 2**64 - 1]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    path = csv(tmp_path / "a.csv", HEAD + "\n".join(quoted) + "\n")
    with Platform(tmp_store) as dw:
        if how == "feed":
            dw.create_feed(SPEC)
        found = load(dw, path, "T", spec=SPEC if how == "spec" else None)
        got = records_of(dw, "T")
    assert (found.created, found.records, found.first, found.cut) == (how == "spec", 5, 0, {})
    assert got["t_us"].tolist() == us
    assert got["side"].tolist() == [b"B", b"S", b"", b"\xe9", b","]
    assert got["ok"].tolist() == [row[2].lower() == "true" for row in rows]
    assert got["name"].tolist() == [row[3].encode() for row in rows]
    assert got["n"].tolist() == [int(row[4]) for row in rows]
    assert got["small"].tobytes() == np.array([np.float32(row[5]) for row in rows]).tobytes()
    assert got["px"].tobytes() == np.array([float(row[6]) for row in rows]).tobytes()
    assert got["lv"].tobytes() == np.array([[float(x) for x in row[7][1:-1].split(",")] for row in rows]).tobytes()


@pytest.mark.parametrize("form", ["parquet", "arrow", "stream", "feather", "npy"])
def test_tables_come_in_as_they_are(form: str, tmp_path: Path, tmp_store: Path) -> None:
    rng = np.random.default_rng(3)
    n = 150_000
    frame = {
        "time": (US + np.arange(n)).view("M8[us]"), "name": rng.choice(["a", "bcd", "twelve bytes"], n),
        "px": rng.normal(size=n), "n": rng.integers(-5, 5, n).astype("i2"), "ok": rng.random(n) < 0.5,
    }  # fmt: skip
    table, path = pa.table(frame), str(tmp_path / f"a.{form if form != 'stream' else 'arrow'}")
    if form == "parquet":
        pq.write_table(table, path, row_group_size=40_000)
    elif form == "feather":
        feather.write_feather(table, path)
    elif form == "npy":
        array = np.zeros(n, [("time", "M8[us]"), ("name", "S12"), ("px", ">f8"), ("n", "<i2"), ("ok", "?")])
        for name, values in frame.items():
            array[name] = values
        np.save(path, array)
    else:
        with (ipc.new_stream if form == "stream" else ipc.new_file)(path, table.schema) as out:
            out.write_table(table, max_chunksize=n)
    with Platform(tmp_store) as dw:
        found = load(dw, path, "T")
        got = records_of(dw, "T")
    assert found.created and found.spec.ts_col == "time_us" and found.names["time_us"] == "time"
    width = 12 if form == "npy" else 16
    types = [field.type for field in found.spec.fields if not field.is_padding]
    assert types == ["uint64", f"char[{width}]", "float64", "int16", "bool"]
    assert np.array_equal(got["time_us"], US + np.arange(n)) and np.array_equal(got["px"], frame["px"])
    assert got["name"].astype("U12").tolist() == frame["name"].tolist()
    assert np.array_equal(got["n"], frame["n"]) and np.array_equal(got["ok"], frame["ok"])


def test_what_types_csv_has_is_found_out_from_all_of_it(
    tmp_path: Path, tmp_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of many rows decides, blocks after the first."""
    monkeypatch.setattr(csvfile, "_BLOCK_BYTES", 1 << 16)
    text = "time,a,b,c,d,e,f\n" + "2026-08-09T00:00:00Z,1,1,1,true,x,nan\n" * 20_000
    text += f"2026-08-10,-1,{2**64 - 1},1.5,false,twelve bytes,2\n"
    with Platform(tmp_store) as dw:
        found = load(dw, csv(tmp_path / "a.csv", text), "T")
        got = records_of(dw, "T")
    types = {f.name: f.type for f in found.spec.fields}
    del types["_"]
    assert types == {"time_us": "uint64", "a": "int64", "b": "uint64", "c": "float64", "d": "bool", "e": "char[16]",
                     "f": "float64"}  # fmt: skip
    assert len(got) == 20_001 and got[-1].tolist()[1:6] == (-1, 2**64 - 1, 1.5, False, b"twelve bytes")
    assert math.isnan(got["f"][0]) and found.inferred == "the columns of the file"


def test_what_a_later_block_rules_out_is_ruled_out_for_the_first_one_too(
    tmp_path: Path, tmp_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvfile, "_BLOCK_BYTES", 1 << 16)
    text = "t_us,a,b,c\n" + f"{US},true,-1,1.5\n" * 10_000 + f"{US},1,{2**64 - 1},2026-08-09\n"
    with Platform(tmp_store) as dw:
        found = load(dw, csv(tmp_path / "a.csv", text), "T")
        got = records_of(dw, "T")
    types = {f.name: f.type for f in found.spec.fields}
    assert types["a"].startswith("char") and types["c"].startswith("char") and types["b"].startswith("char")
    assert (got["a"][0], got["a"][-1], got["b"][0], got["c"][-1]) == (b"true", b"1", b"-1", b"2026-08-09")


def test_integers_beyond_64_bits_lose_no_digit(tmp_path: Path, tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        load(dw, csv(tmp_path / "a.csv", f"t_us,id\n{US},{2**64 + 1}\n{US},5\n"), "T")
        assert records_of(dw, "T")["id"].tolist() == [b"18446744073709551617", b"5"]


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
def test_compressed_csv(ending: str, tmp_path: Path, tmp_store: Path) -> None:
    codec = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}[ending]
    path = tmp_path / f"a.csv.{ending}"
    with pa.output_stream(str(path), compression=codec) as out:
        out.write(lines(5000).encode())
    with Platform(tmp_store) as dw:
        assert load(dw, str(path), "T", spec=SPEC).records == 5000


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet", "npy"])
def test_a_name_need_not_be_utf_8(form: str, tmp_path: Path, tmp_store: Path) -> None:
    path = tmp_path / f"\udcff.{form}"
    if form == "npy":
        np.save(tmp_path / "a.npy", np.zeros(3, [("t_us", "u8")]))
    elif form == "parquet":
        pq.write_table(pa.table({"t_us": [1, 2, 3]}), tmp_path / "a.parquet")
    else:
        with pa.output_stream(str(tmp_path / f"a.{form}"), compression="detect") as out:
            out.write(b"t_us\n1\n2\n3\n")
    (tmp_path / f"a.{form}").rename(path)
    with Platform(tmp_store) as dw:
        assert load(dw, str(path), "T").records == 3


def test_columns_and_names(tmp_path: Path, tmp_store: Path) -> None:
    path = csv(tmp_path / "a.csv", "ev,extra,ts,px\n2026-01-01,7,2026-01-02,1.5\n")
    with Platform(tmp_store) as dw:
        with pytest.raises(SchemaError, match=r"which column is the clock\? Candidates: ev_us, ts_us"):
            load(dw, path, "T")
        found = load(dw, path, "T", ts_col="ts", columns=["px", "ts"])
        assert found.names == {"px": "px", "ts_us": "ts"} and found.spec.ts_col == "ts_us"
        with pytest.raises(RecordError, match="ev, extra: no such field in the feed"):
            load(dw, path, "T")
        with pytest.raises(RecordError, match="no column 'extr'; did you mean 'extra'"):
            load(dw, path, "T", columns=["extr"])
        with pytest.raises(RecordError, match="has no column for ts_us; its columns are ev, extra"):
            load(dw, path, "T", columns=["px"])
        load(dw, path, "T", columns=["ts", "px"])
        assert len(records_of(dw, "T")) == 2
        with pytest.raises(SchemaMismatchError, match="exists with another layout"):
            load(dw, path, "T", spec=SPEC)


# --- what is lost is said --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "csv", "npy"])
def test_nanoseconds_are_cut_and_counted(form: str, tmp_path: Path, tmp_store: Path) -> None:
    ns = np.array([US * 1000, US * 1000 + 1, US * 1000 + 999, US * 1000 + 1000], "i8").view("M8[ns]")
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        pd.DataFrame({"t": ns, "px": 1.0}).to_parquet(path)
    elif form == "csv":
        csv(path, "t,px\n" + "".join(f"{t!s}Z,1\n" for t in ns))
    else:
        np.save(path, np.rec.fromarrays([ns, np.ones(4)], names="t,px").view(np.ndarray))
    with Platform(tmp_store) as dw:
        found = load(dw, str(path), "T")
        assert records_of(dw, "T")["t_us"].tolist() == [US, US, US, US + 1]
    assert found.cut == {"t_us": 2}


def test_they_are_counted_where_forms_of_times_are_mixed_too(tmp_path: Path, tmp_store: Path) -> None:
    text = "t,px\n2026-08-09T05:23:42.1234567Z,1\n2026-08-09,1\n2026-08-09 05:23:42.123456789+00:00,1\n"
    with Platform(tmp_store) as dw:
        found = load(dw, csv(tmp_path / "a.csv", text), "T")
        day = US // 86_400_000_000 * 86_400_000_000
        assert records_of(dw, "T")["t_us"].tolist() == [US - 196_708 + 123_456, day, US - 196_708 + 123_456]
    assert found.cut == {"t_us": 2}


def test_a_dbn_file_becomes_a_feed(tmp_store: Path, shared_data: Path) -> None:
    path = shared_data / "dbn/nautilus/esh4-glbx-mdp3-20231224.mbo.dbn.zst"
    with Platform(tmp_store) as dw:
        found = load(dw, str(path), "ES")
        got = records_of(dw, "ES")
        config = dw.describe_feed("ES")["settings"]["config"]
    assert len(got) == found.records == 8725 and found.spec.ts_col == "ts_recv_us"
    assert any("8,725 records have times between two microseconds" in note for note in found.notes)
    assert (np.diff(got["ts_recv_us"].astype("i8")) >= 0).all() and config["dbn"]["schema"] == "mbo"
    assert set(got["action"].tolist()) >= {b"A"} and 4000 < np.nanmedian(got["price"]) < 5000


# --- a bad row: named, and nothing is written ------------------------------------------------------------

GOOD = lines(3)


def _with(old: str, new: str) -> str:
    """Three good rows, and one that has something else in a place."""
    return GOOD + LINE.replace(old, new).format(us=US)


BAD_ROWS = {
    "half": (GOOD + "7,B\n", "row 4: 8 cells expected, 2 found: '7,B'"),
    "too much": (GOOD + LINE.format(us=US).strip() + ",9\n", "row 4: 8 cells expected, 9 found"),
    "an empty number": (_with(",5,", ",,"), "row 4, column 'n': is empty"),
    "a word": (_with(",5,", ",five,"), "row 4, column 'n': 'five' is no int32"),
    "too large": (_with(",5,", ",2147483648,"), "row 4, column 'n': '2147483648' is no"),
    "a fraction": (_with(",5,", ",5.5,"), "row 4, column 'n'"),
    "hexadecimal": (_with(",5,", ",0x5,"), "row 4, column 'n': '0x5' is no int32"),
    "a blank": (_with("1.25", " 1.25"), "row 4, column 'px': ' 1.25' is no float64"),
    "beyond float64": (_with("1.25", "1e400"), "row 4, column 'px': '1e400' is beyond float64"),
    "beyond float32": (_with(",0.5,", ",1e39,"), "row 4, column 'small': '1e39' is beyond"),
    "no bool": (_with("true", "yes"), "row 4, column 'ok': 'yes' is no bool"),
    "long text": (_with("abc", "nine char"), "row 4, column 'name'"),
    "two letters": (_with(",B,", ",BB,"), "row 4, column 'side'"),
    "no latin-1": (_with("abc", "中"), "row 4, column 'name': '中' has letters beyond"),
    "no UTF-8": (_with("abc", "\udcff"), "UTF8"),
    "no time": (_with("{us}", "soon"), "row 4, column 't_us': 'soon' is no time"),
    "now": (_with("{us}", "now"), "row 4, column 't_us': 'now' is no time"),
    "30 February": (_with("{us}", "2026-02-30"), "row 4, column 't_us': '2026-02-30' is no time"),
    "1969": (_with("{us}", "1969-12-31T23:59:59Z"), "row 4, column 't_us'"),
    "negative": (_with("{us}", str(-5)), "row 4, column 't_us': '-5' is no time"),
    "2^64": (_with("{us}", str(2**64)), "row 4, column 't_us'"),
    "a short list": (_with("[1.0, 2.0]", "[1.0]"), "column 'lv': '[1.0]' is no list of 2"),
    "no list": (_with("[1.0, 2.0]", "1.0 2.0"), "row 4, column 'lv'"),
    "a word in a list": (_with("[1.0, 2.0]", "[1.0, x]"), "row 4, column 'lv': 'x' is no"),
    "one in the middle": (_with(",abc,", ',"abc,'), "text follows a closing quote"),
    "nothing": ("", "Empty CSV"), "a name twice": ("t_us,t_us\n1,2\n", "two columns are called 't_us'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_bad_row_of_csv_is_named_and_nothing_is_written(what: str, tmp_path: Path, tmp_store: Path) -> None:
    text, why = BAD_ROWS[what]
    path = csv(tmp_path / "bad.csv", text)
    with Platform(tmp_store) as dw:
        for _ in range(2):  # first there is no such feed, then there is
            with pytest.raises(RecordError) as caught:
                load(dw, path, "T", spec=SPEC)
            assert why in str(caught.value) and "bad.csv" in str(caught.value)
            assert dw.list_feeds() == ([] if _ == 0 else ["T"])
            dw.create_feed(SPEC)
        assert len(records_of(dw, "T")) == 0


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_quote_that_is_not_closed_swallows_no_row(ending: str, tmp_path: Path, tmp_store: Path) -> None:
    path = tmp_path / f"bad.{ending}"
    with pa.CompressedOutputStream(str(path), "gzip") if ending.endswith("gz") else pa.OSFile(str(path), "wb") as out:
        out.write(f't_us,name\n{US},a\n{US},"b\n{US},c\n{US},d\n'.encode())
    with Platform(tmp_store) as dw:
        with pytest.raises(RecordError, match=r"bad\.csv.*: the quote opened at line 3 is never closed"):
            load(dw, str(path), "T")
        assert dw.list_feeds() == []


def test_a_row_longer_than_a_block_says_which_quote_it_may_be(
    tmp_path: Path, tmp_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvfile, "_BLOCK_BYTES", 1 << 10)
    text = f't_us,name\n{US},"b\n' + f"{US},c\n" * 100_000
    with Platform(tmp_store) as dw, pytest.raises(RecordError, match=r"bad\.csv.*the quote opened at line 2 is"):
        load(dw, csv(tmp_path / "bad.csv", text), "T")


def test_a_bad_row_after_many_good_ones(tmp_path: Path, tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvfile, "_BLOCK_BYTES", 1 << 16)
    text = "t_us,px\n" + "".join(f"{US + k},1.5\n" for k in range(50_000)) + f"{US},x\n"
    spec = {**SPEC, "fields": [SPEC["fields"][0], {"name": "px", "type": "float64"}]}
    with Platform(tmp_store) as dw:
        dw.create_feed(spec)
        with pytest.raises(RecordError, match="row 50001, column 'px': 'x' is no float64") as caught:
            load(dw, csv(tmp_path / "bad.csv", text), "T")
        assert (caught.value.row, caught.value.column) == (50_001, "px")
        assert len(records_of(dw, "T")) == 0


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"t_us": [US, None], "px": [1.0, 2.0]}, "row 2, column 't_us': null"),
        ({"t_us": [US, -1], "px": [1.0, 2.0]}, "row 2, column 't_us': -1 does not fit"),
        ({"t_us": [1.5, 2.0], "px": [1.0, 2.0]}, "row 1, column 't_us': 1.5 is not whole"),
        ({"t_us": [US, US], "px": ["a", "b"]}, "column 'px'"),
        ({"t_us": [US, US], "px": [1.0, None]}, "row 2, column 'px': null"),
        ({"t_us": [US, US], "px": [[1.0], [2.0]]}, "column 'px'"),
        ({"t_us": [US, US], "px": [{"a": 1}, {"a": 2}]}, "column 'px'"),
    ],
)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_bad_row_of_a_table_is_named(
    form: str, table: dict[str, Any], why: str, tmp_path: Path, tmp_store: Path
) -> None:
    path = tmp_path / f"bad.{form}"
    data = pa.table(table)
    pq.write_table(data, path) if form == "parquet" else feather.write_feather(data, str(path))
    spec = {**SPEC, "fields": [SPEC["fields"][0], {"name": "px", "type": "float64"}]}
    with Platform(tmp_store) as dw:
        with pytest.raises(RecordError) as caught:
            load(dw, str(path), "T", spec=spec)
        assert why in str(caught.value) and f"bad.{form}" in str(caught.value) and dw.list_feeds() == []


def _npy(array: Any) -> Callable[[Path], object]:
    return lambda path: np.save(path, array, allow_pickle=True)


STAMPS = np.zeros(1000, [("t_us", "u8"), ("px", "f8")])
BAD_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "csv that is none": ("a.parquet", lambda p: p.write_text(GOOD), "not readable as parquet"),
    "an empty parquet": ("a.parquet", lambda p: p.write_bytes(b""), "not readable as parquet"),
    "a cut parquet": ("a.parquet", lambda p: (pq.write_table(pa.table({"t_us": [1]}), p),
                                              os.truncate(p, 100)), "not readable as parquet"),
    "an empty arrow": ("a.arrow", lambda p: p.write_bytes(b""), "not readable as arrow"),
    "a cut arrow": ("a.arrow", lambda p: (feather.write_feather(pa.table({"t_us": [1] * 999}), str(p)),
                                          os.truncate(p, 600)), "not readable as arrow"),
    "no npy": ("a.npy", lambda p: p.write_bytes(b"\x93NUMPY"), "not a .npy file"),
    "npy of nothing": ("a.npy", lambda p: p.write_bytes(b""), "not a .npy file"),
    "npy whose header does not end": ("a.npy", lambda p: (np.save(p, STAMPS), p.write_bytes(
        p.read_bytes().replace(b"}", b" ", 1))), "not a .npy file"),
    "npy of objects": ("a.npy", _npy(np.array([{}, 1])), "holds no records"),
    "npy of floats": ("a.npy", _npy(np.ones(5)), "holds no records"),
    "npy of two dimensions": ("a.npy", _npy(STAMPS.reshape(10, 100)), "one-dimensional"),
    "a cut npy": ("a.npy", lambda p: (np.save(p, STAMPS), os.truncate(p, 1128)), "promises 1000 records, there are"),
    "a cut csv.gz": ("a.csv.gz", lambda p: p.write_bytes(b"\x1f\x8b\x08\x00rest"), "not readable as csv"),
    "a directory": ("a.csv", lambda p: p.mkdir(), "is a directory"),
    "a pipe": ("a.csv", os.mkfifo, "not a regular file"),
    "no ending": ("a.txt", lambda p: p.write_text(GOOD), "its ending tells no format"),
    "nothing there": ("a.csv", lambda p: None, "No such file"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_that_is_none_says_what_is_wrong(what: str, tmp_path: Path, tmp_store: Path) -> None:
    name, make, why = BAD_FILES[what]
    make(tmp_path / name)
    with Platform(tmp_store) as dw:
        with pytest.raises((RecordError, OSError)) as caught:
            load(dw, str(tmp_path / name), "T", spec=SPEC)
        assert why in str(caught.value) and name in str(caught.value)
        assert dw.list_feeds() == []


def _forged(path: Path, index: bool, word: int) -> None:
    """Write an Arrow IPC file in which an offset of a text, or the index of one, is another."""
    text = pa.array(["abcdefg", "hijkl", "m"])
    plain = np.array([1, 2, 0] if index else [0, 7, 12, 13], "<i4")  # bytes that stand nowhere else in the file
    column = pa.DictionaryArray.from_arrays(pa.array(plain), text) if index else text
    table = pa.table({"t_us": pa.array([US, US, US], pa.uint64()), "name": column})
    feather.write_feather(table, path, compression="uncompressed")
    whole, forged = path.read_bytes(), plain.copy()
    forged[-1] = word
    assert whole.count(plain.tobytes()) == 1
    path.write_bytes(whole.replace(plain.tobytes(), forged.tobytes()))


@pytest.mark.parametrize("word", [200_000_000, 300, -50_000_000, -1])
@pytest.mark.parametrize("index", [False, True])
def test_a_forged_arrow_file_is_refused_before_it_reaches_into_memory(
    index: bool, word: int, tmp_path: Path, tmp_store: Path
) -> None:
    _forged(tmp_path / "a.arrow", index, word)
    with Platform(tmp_store) as dw:
        with pytest.raises(RecordError, match=r"a\.arrow.*not readable as arrow"):
            load(dw, str(tmp_path / "a.arrow"), "T")
        assert dw.list_feeds() == []


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path, tmp_store: Path) -> None:
    text = pa.Array.from_buffers(pa.utf8(), 1, [None, pa.py_buffer(np.array([0, 1], "<i4")), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"t_us": pa.array([US], pa.uint64()), "name": text}), tmp_path / "a.parquet")
    with Platform(tmp_store) as dw, pytest.raises(RecordError, match=r"a\.parquet.*UTF"):
        load(dw, str(tmp_path / "a.parquet"), "T")


def test_two_columns_of_one_name_are_refused(tmp_path: Path, tmp_store: Path) -> None:
    clock = pa.array([US], pa.uint64())
    pq.write_table(pa.table([clock, clock], names=["t_us", "t_us"]), tmp_path / "a.parquet")
    with Platform(tmp_store) as dw, pytest.raises(RecordError, match="two columns are called 't_us'"):
        load(dw, str(tmp_path / "a.parquet"), "T")


@pytest.mark.parametrize(
    ("kind", "why"), [("M8", "column 'x': datetime64 has no unit"), ("V4", "column 'x' holds 4 bytes of no type"),
                      ([("a", "f8")], "column 'x' holds fields of its own"), ("c16", "column 'x': no type"),
                      ("m8[s]", "column 'x': no type of Deepwater holds timedelta64")])  # fmt: skip
def test_a_field_of_npy_that_no_feed_holds_is_named_and_may_be_left_out(
    kind: Any, why: str, tmp_path: Path, tmp_store: Path
) -> None:
    array = np.zeros(3, [("t_us", "u8"), ("x", kind)])
    np.save(tmp_path / "a.npy", array)
    other = {**SPEC, "fields": [SPEC["fields"][0], {"name": "x", "type": "uint64"}]}
    with Platform(tmp_store) as dw:
        with pytest.raises((RecordError, SchemaError)) as caught:
            load(dw, str(tmp_path / "a.npy"), "T")
        assert why in str(caught.value) and "a.npy" in str(caught.value) and dw.list_feeds() == []
        if kind in ("M8", "V4"):
            with pytest.raises(RecordError, match=r"a\.npy': column 'x'"):
                load(dw, str(tmp_path / "a.npy"), "T", spec=other)
        assert load(dw, str(tmp_path / "a.npy"), "T", columns=["t_us"]).records == 3


def test_a_column_that_no_feed_holds_may_be_left_out(tmp_path: Path, tmp_store: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"t_us": [US], "x": [{"a": 1}]}), path)
    with Platform(tmp_store) as dw:
        with pytest.raises(SchemaError, match=r"a\.parquet': column 'x'"):
            load(dw, path, "T")
        assert load(dw, path, "T", columns=["t_us"]).records == 1


def test_an_error_names_the_file_and_is_a_line_however_many_columns(tmp_path: Path, tmp_store: Path) -> None:
    path, many = str(tmp_path / "wide.parquet"), 2000
    only = {"feed_name": "T", "ts_col": "t_us", "fields": [{"name": "t_us", "type": "uint64"}]}
    wide = {**only, "fields": only["fields"] + [{"name": f"f{k}", "type": "uint64"} for k in range(many)]}
    stamp, some = {"t_us": [US]}, {f"f{k}": [1.0] for k in range(many)}
    for columns, spec, why in (
        ({f"f{k}_us": [1] for k in range(many)}, None, "Candidates: f0_us, f1_us"),
        (some, None, "Candidates: none"), (some, only, "has no column for t_us"),
        (stamp | some, only, "and 1,992 more: no such field"), (stamp, wide, "has no column for f0, f1"),
        (stamp | {"a b": [1]}, None, "field name 'a b' is not allowed"),
        (stamp | {"n": ["x" * 100_000]}, None, "field 'n': type 'char"),
    ):  # fmt: skip
        pq.write_table(pa.table(columns), path)
        with Platform(tmp_store) as dw, pytest.raises((RecordError, SchemaError)) as caught:
            load(dw, path, "T", spec=spec)
        said = str(caught.value)
        assert why in said and "wide.parquet" in said and len(said) < 400, said
    names = ",".join(f"f{k}" for k in range(20_000))
    with Platform(tmp_store) as dw, pytest.raises(RecordError, match="row 1: 20000 cells expected, 1 found") as caught:
        load(dw, csv(tmp_path / "a.csv", f"{names}\n1\n"), "T")
    assert len(str(caught.value)) < 400


def test_types_cannot_be_told_of_no_rows(tmp_path: Path, tmp_store: Path) -> None:
    path = csv(tmp_path / "a.csv", HEAD)
    with Platform(tmp_store) as dw:
        with pytest.raises(RecordError, match="no row to tell the types by"):
            load(dw, path, "T")
        assert load(dw, path, "T", spec=SPEC).records == 0 and dw.list_feeds() == ["T"]


# --- what breaks off the writing -------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("kind", [StorageFullError, KeyboardInterrupt])
def test_what_ends_the_writing_says_how_much_of_it_is_there(
    exists: bool, kind: type[BaseException], tmp_path: Path, tmp_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 200_000
    path = str(tmp_path / "a.npy")
    array = np.zeros(n, [("t_us", "u8"), ("px", "f8")])
    np.save(path, array)
    write, calls = Writer.write_batch, []

    def full(self: Writer, data: Any, create_index: bool = False) -> int:
        calls.append(len(data))
        if len(calls) == 3:
            raise kind("full")
        return write(self, data, create_index)

    with Platform(tmp_store) as dw:
        if exists:
            dw.write("T", array[:5])
        monkeypatch.setattr(Writer, "write_batch", full)
        with pytest.raises(kind) as caught:
            load(dw, path, "T")
        monkeypatch.undo()
        notes = getattr(caught.value, "__notes__", [])
        del caught  # its traceback holds the writer
        if not exists:
            assert dw.list_feeds() == []
        else:
            assert len(records_of(dw, "T")) == 5 + sum(calls[:2])
    there = f"{sum(calls[:2]):,} records of it are in feed 'T', positions 5 to {4 + sum(calls[:2]):,}"
    assert notes == [there if exists else "nothing of it is in feed 'T'"]


@pytest.mark.parametrize("skip", [0, 1, 65_536, 70_000, 99_999, 100_000, 1 << 40])
def test_rows_that_are_there_are_skipped(skip: int, tmp_path: Path, tmp_store: Path) -> None:
    array = np.zeros(100_000, [("t_us", "u8"), ("n", "i8")])
    array["n"] = np.arange(len(array))
    np.save(tmp_path / "a.npy", array)
    with Platform(tmp_store) as dw:
        dw.write("T", array[:5])
        found = load(dw, str(tmp_path / "a.npy"), "T", skip=skip)
        got = records_of(dw, "T")
    assert found.records == max(0, len(array) - skip) and found.first == 5
    assert got[5:].tobytes() == array[skip:].tobytes()


def test_a_feed_with_a_writer_is_left_alone(tmp_path: Path, tmp_store: Path) -> None:
    path = csv(tmp_path / "a.csv", GOOD)
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("T"), pytest.raises(FeedLockedError):
            load(dw, path, "T")
        assert len(records_of(dw, "T")) == 0


def test_a_dry_run_checks_and_writes_nothing(tmp_path: Path, tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        found = load(dw, csv(tmp_path / "a.csv", GOOD), "T", spec=SPEC, dry_run=True)
        assert (found.records, found.first, found.created) == (3, None, True) and not tmp_store.exists()
        assert json.loads(json.dumps(found.to_json()))["spec"]["ts_col"] == "t_us"


def test_a_ring_takes_a_file_in_pieces(tmp_path: Path, tmp_store: Path) -> None:
    spec = {**SPEC, "persist": False, "chunk_size_bytes": 65_536}
    with Platform(tmp_store) as dw:
        dw.create_feed(spec)
        load(dw, csv(tmp_path / "a.csv", lines(5000)), "T")
        with dw["T"] as reader:
            assert reader.end == 5000 and int(reader.get_latest_record().t_us) == US + 4999
        dw.delete_feed("T")


@pytest.mark.parametrize("form", ["csv", "npy", "parquet"])
def test_memory_is_bounded_whatever_the_length(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass over a file takes no more for four times the rows."""
    monkeypatch.setattr(csvfile, "_BLOCK_BYTES", 1 << 17)
    peaks = []
    for rows in (200_000, 800_000):
        path = tmp_path / f"{rows}.{form}"
        array = np.zeros(rows, [("t_us", "u8"), ("px", "f8"), ("qty", "f8")])
        table = pa.table({name: array[name] for name in array.dtype.names or ()})
        if form == "csv":
            pa.csv.write_csv(table, path)
        elif form == "parquet":
            pq.write_table(table, path, row_group_size=100_000)
        else:
            np.save(path, array)
        del array, table
        source = open_source(str(path))
        pool = pa.default_memory_pool()
        before, most = pool.bytes_allocated(), 0
        tracemalloc.start()
        for _ in source.batches():
            most = max(most, pool.bytes_allocated() - before)
        peaks.append(most + tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0] + (4 << 20), peaks
