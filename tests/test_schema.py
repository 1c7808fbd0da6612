"""Specs: each bad input is refused with its error, each odd one works with its answer."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwater.errors import FeedNameError, SchemaError
from deepwater.fields import Field, parse_type
from deepwater.jsontext import load_json
from deepwater.schema import FeedSpec, check_feed_name
from deepwater.settings import Settings
from deepwater.wording import did_you_mean

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
T = {"name": "t_us", "type": "uint64"}
PX = {"name": "px", "type": "float64"}


def spec(*fields: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Return a spec with the clock t_us and more fields; the others replace or add keys, None removes one."""
    found = {"feed_name": "f", "fields": [T, *fields], "ts_col": "t_us"} | others
    return {key: value for key, value in found.items() if value is not None}


def refused(source: object, fragment: str, error: type[Exception] = SchemaError) -> Exception:
    with pytest.raises(error) as caught:
        FeedSpec.from_json(source)
    assert fragment in str(caught.value), str(caught.value)
    return caught.value


# --- types ---------------------------------------------------------------------------------------------

TYPES = {
    "char": ("char", "char", "S1", 1, None),
    "bool": ("bool", "bool", "?", 1, None),
    "byte": ("byte", "byte", "u1", 1, None),
    "int8": ("int8", "int", "i1", 1, None),
    "int16": ("int16", "int", "<i2", 2, None),
    "int32": ("int32", "int", "<i4", 4, None),
    "int64": ("int64", "int", "<i8", 8, None),
    "uint8": ("uint8", "uint", "u1", 1, None),
    "uint16": ("uint16", "uint", "<u2", 2, None),
    "uint32": ("uint32", "uint", "<u4", 4, None),
    "uint64": ("uint64", "uint", "<u8", 8, None),
    "float16": ("float16", "float", "<f2", 2, None),
    "float32": ("float32", "float", "<f4", 4, None),
    "float64": ("float64", "float", "<f8", 8, None),
    "i16": ("int16", "int", "<i2", 2, None),
    "i32": ("int32", "int", "<i4", 4, None),
    "i64": ("int64", "int", "<i8", 8, None),
    "u16": ("uint16", "uint", "<u2", 2, None),
    "u32": ("uint32", "uint", "<u4", 4, None),
    "u64": ("uint64", "uint", "<u8", 8, None),
    "f16": ("float16", "float", "<f2", 2, None),  # in bits, as every short form: not NumPy's long double
    "f32": ("float32", "float", "<f4", 4, None),
    "f64": ("float64", "float", "<f8", 8, None),
    "_1": ("_1", "padding", "", 1, None),
    "_65536": ("_65536", "padding", "", 65536, None),
    "char[1]": ("char[1]", "chars", "S1", 1, None),
    "char[12]": ("char[12]", "chars", "S12", 12, None),
    "char[65536]": ("char[65536]", "chars", "S65536", 65536, None),
    "float64[500]": ("float64[500]", "float", "<f8", 4000, 500),
    "f32[3]": ("float32[3]", "float", "<f4", 12, 3),
    "bool[4]": ("bool[4]", "bool", "?", 4, 4),
    "byte[16]": ("byte[16]", "byte", "u1", 16, 16),
}


@pytest.mark.parametrize("text", TYPES)
def test_types_that_exist(text: str) -> None:
    field = Field("x" if not text.startswith("_") else "_", text)
    assert (field.type, field.kind, field.item, field.size, field.count) == TYPES[text]
    assert field.is_padding == (field.kind == "padding")


BAD_TYPES = {
    "O": "objects have no fixed width",
    "object": "objects have no fixed width",
    "u8,O": "types are char bool",
    "U4": "write char[4]",
    "S0": "text is char[N]",
    "S8": "write char[8]",
    "S08": "write char[8]",
    "str": "text is char[N]",
    "string": "text is char[N]",
    "_0": "padding is _N with N from 1 to 65536",
    "_-1": "padding is _N",
    "_01": "no leading zero",
    "_65537": "padding is _N",
    "_99999999": "padding is _N",
    "_": "padding is _N",
    "M8[7D]": "write uint64",
    "datetime64[ns]": "end the field's name in _us",
    "timestamp": "write uint64",
    ">u8": "everything is little-endian",
    "<f8": "everything is little-endian",
    "|S4": "no byte order mark",
    "c16": "types are char bool",
    "complex128": "types are char bool",
    "b1": "write bool",
    "?": "write bool",
    "V0": "types are char bool",
    "V8": "types are char bool",
    "": "types are char bool",
    " uint64": "did you mean 'uint64'",
    "uint64 ": "did you mean 'uint64'",
    "UINT64": "types are char bool",
    "flaot64": "did you mean 'float64'",
    "int": "write int64",
    "float": "write float64",
    "double": "write float64",
    "float128": "types are char bool",
    "(65536,65536)f8": "types are char bool",
    "float64[0]": "an array is type[N]",
    "float64[-1]": "an array is type[N]",
    "float64[01]": "an array is type[N]",
    "float64[8193]": "at most 65536 bytes",
    "float64[2,3]": "an array is type[N]",
    "float64[2][3]": "an array is type[N]",
    "char[65537]": "at most 65536 bytes",
    "char[]": "an array is type[N]",
    "_4[2]": "padding is _N",
    "char[8][2]": "an array is type[N]",
    "float64[\u0663]": "an array is type[N]",  # a digit, but not one of ours
    "uint64\n": "did you mean 'uint64'",
}


@pytest.mark.parametrize("text", BAD_TYPES)
def test_types_that_do_not_exist(text: str) -> None:
    error = refused(spec({"name": "x", "type": text}), BAD_TYPES[text])
    assert "field 'x'" in str(error)
    assert (error.field, error.type) == ("x", text)


@pytest.mark.parametrize(
    ("text", "bits", "whole"),
    [
        ("i8", "int8", "int64"),
        ("u8", "uint8", "uint64"),
        ("f8", "of 8 bits there is none", "float64"),
        ("i4", "of 4 bits there is none", "int32"),
        ("u4", "of 4 bits there is none", "uint32"),
        ("f4", "of 4 bits there is none", "float32"),
        ("i2", "of 2 bits there is none", "int16"),
        ("u2", "of 2 bits there is none", "uint16"),
        ("f2", "of 2 bits there is none", "float16"),
        ("i1", "of 1 bits there is none", "int8"),
        ("u1", "of 1 bits there is none", "uint8"),
        ("u8[4]", "uint8[4]", "uint64[4]"),
    ],
)
def test_a_short_form_with_two_readings_is_refused_with_both(text: str, bits: str, whole: str) -> None:
    error = refused(spec({"name": "x", "type": text}), f"read as bits it is {bits},")
    assert f"read as bytes (NumPy) {whole};" in str(error)


@pytest.mark.parametrize("type_", [None, 8, 1.5, True, ["uint64"], {"type": "uint64"}, np.dtype("u8"), np.uint64])
def test_a_type_is_a_text(type_: Any) -> None:
    refused(spec({"name": "x", "type": type_}), "type must be a text such as 'float64'")


@given(st.text(max_size=12))
def test_any_text_is_a_known_type_or_a_schema_error(text: str) -> None:
    try:
        found = parse_type(text)
    except SchemaError:
        return
    assert parse_type(found.name) == found
    assert 1 <= found.size <= 65_536


# --- field names ---------------------------------------------------------------------------------------

BAD_FIELD_NAMES = {
    "empty": ("", "1 to 64 ASCII letters"),
    "dot": ("a.b", "1 to 64 ASCII letters"),
    "space": ("a b", "1 to 64 ASCII letters"),
    "newline": ("a\n", "1 to 64 ASCII letters"),
    "digit": ("1a", "does not start with a digit"),
    "keyword": ("class", "Python keyword"),
    "constant": ("None", "Python keyword"),
    "dunder": ("__class__", "belong to Python"),
    "private": ("__x", "belong to Python"),
    "long": ("a" * 300, "1 to 64 ASCII letters"),
    "65": ("a" * 65, "1 to 64 ASCII letters"),
    "emoji": ("\U0001f600", "1 to 64 ASCII letters"),
    "nfc": ("caf\u00e9", "1 to 64 ASCII letters"),
    "nfd": ("cafe\u0301", "1 to 64 ASCII letters"),
    "fullwidth": ("\uff41", "1 to 64 ASCII letters"),
    "surrogate": ("a\ud800", "1 to 64 ASCII letters"),
    "nul": ("a\0b", "1 to 64 ASCII letters"),
    "underscore": ("_", "'_' is the name of padding"),
    "none": (None, "1 to 64 ASCII letters"),
    "number": (7, "1 to 64 ASCII letters"),
    "bytes": (b"a", "1 to 64 ASCII letters"),
}


@pytest.mark.parametrize("case", BAD_FIELD_NAMES)
def test_field_names_that_are_refused(case: str) -> None:
    name, fragment = BAD_FIELD_NAMES[case]
    refused(spec({"name": name, "type": "float64"}), fragment)


def test_field_names_that_work() -> None:
    names = ["type", "match", "a", "A", "a" * 64, "_x", "price", "Price", "x1"]  # a case pair is two names
    found = FeedSpec.from_json(spec(*({"name": name, "type": "float64"} for name in names)))
    assert [field.name for field in found.fields[1:]] == names


def test_two_fields_of_one_name_are_refused_but_not_paddings() -> None:
    refused(spec(PX, PX), "two fields are named 'px'")
    refused(spec(T), "two fields are named 't_us'")
    refused(spec({"name": "pad", "type": "_4"}, {"name": "pad", "type": "_4"}), "two fields are named 'pad'")
    found = FeedSpec.from_json(
        spec({"name": "_", "type": "_4"}, {"name": "_", "type": "_4"}, {"name": "pad", "type": "_8"})
    )
    assert found.record_size == 24


# --- the whole spec ------------------------------------------------------------------------------------

BAD_SPECS: dict[str, tuple[object, str]] = {
    "unknown key": (spec(chunk_size=1), "unknown key 'chunk_size'; did you mean 'chunk_size_bytes'"),
    "unknown key, nothing near": (spec(zzz=1), "unknown key 'zzz'; keys are feed_name"),
    "unknown key of a field": (spec({"name": "x", "typ": "u64"}), "unknown key 'typ'; did you mean 'type'"),
    "offset of a field": (spec({"name": "x", "type": "u64", "offset": 8}), "unknown key 'offset'"),
    "field without type": (spec({"name": "x"}), "key 'type' is missing"),
    "field without name": (spec({"type": "u64"}), "field number 1: key 'name' is missing"),
    "field is a text": (spec("x"), "field number 1: expected a JSON object"),  # type: ignore[arg-type]
    "field is a pair": (spec(("x", "u64")), "field number 1: expected a JSON object"),  # type: ignore[arg-type]
    "desc of a field": (spec({**PX, "desc": 3}), "field 'px': desc must be a text"),
    "surrogate in desc": (spec({**PX, "desc": "\ud800"}), "half of a surrogate pair"),
    "no feed_name": (spec(feed_name=None), "key 'feed_name' is missing"),
    "no fields": (spec(fields=None), "key 'fields' is missing"),
    "no ts_col": (spec(ts_col=None), "key 'ts_col' is missing"),
    "0 fields": (spec(fields=[]), "0 fields; a record has 1 to 4096"),
    "10,000 fields": (spec(fields=[T] * 10_000), "10000 fields; a record has 1 to 4096"),
    "fields is a dict": (spec(fields={"t_us": "uint64"}), "fields must be a list"),
    "fields is a text": (spec(fields="t_us"), "fields must be a list"),
    "only padding": (spec(fields=[{"name": "_", "type": "_8"}]), "ts_col 't_us' is no field"),
    "record too long": (spec({"name": "_", "type": "_65529"}), "a record of 65537 bytes; at most 65536"),
    "ts_col unknown": (spec(ts_col="t_ms"), "ts_col 't_ms' is no field; did you mean 't_us'"),
    "ts_col not a text": (spec(ts_col=0), "ts_col 0 is no field"),
    "ts_col is padding": (
        spec({"name": "pad", "type": "_8"}, ts_col="pad"), "ts_col 'pad' is no field",
    ),
    "ts_col is int64": (spec({"name": "x", "type": "int64"}, ts_col="x"), "ts_col 'x' is int64; a clock is uint64"),
    "ts_col is float64": (spec(PX, ts_col="px"), "ts_col 'px' is float64; a clock is uint64"),
    "ts_col is uint32": (spec({"name": "x", "type": "u32"}, ts_col="x"), "ts_col 'x' is uint32"),
    "ts_col is an array": (spec({"name": "x", "type": "u64[1]"}, ts_col="x"), "ts_col 'x' is uint64[1]"),
    "mode": (spec(mode="VF"), "only 'UF' (fixed-width fields) exists"),
    "mode none": (spec() | {"mode": None}, "only 'UF'"),
    "record_size": (spec(record_size=8), "unknown key 'record_size'"),
    "chunk below a record": (spec(PX, chunk_size_bytes=15), "less than one record of 16 bytes; write at least 16"),
    "chunk 1": (spec(chunk_size_bytes=1), "less than one record of 8 bytes"),
    "a number": (7, "a spec is a dict, a FeedSpec or the path"),
    "none": (None, "a spec is a dict"),
    "a list": ([spec()], "a spec is a dict"),
    "JSON array": (b"[1]", "spec: expected a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SPECS)
def test_specs_that_are_refused(case: str) -> None:
    source, fragment = BAD_SPECS[case]
    refused(source, fragment)


def test_errors_name_the_feed_and_carry_their_parts() -> None:
    error = refused(spec({"name": "x", "type": "u8"}, feed_name="CB"), "feed 'CB': field 'x': type 'u8'")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.field, again.type) == (str(error), "x", "u8")
    assert refused(spec(rotate_s=-1), "feed 'f': settings: rotate_s").key == "rotate_s"


def test_odd_specs_that_work() -> None:
    assert FeedSpec.from_json(spec()).record_size == 8  # the clock alone, at offset 0
    assert FeedSpec.from_json(spec(chunk_size_bytes=8)).settings.chunk_size_bytes == 8
    assert FeedSpec.from_json(spec(chunk_size_bytes=4097)).settings.chunk_size_bytes == 4097  # no page multiple
    assert FeedSpec.from_json(spec(chunk_size_bytes=2**40)).settings.chunk_size_bytes == 2**40
    assert FeedSpec.from_json(spec({"name": "_", "type": "_65528"})).record_size == 65_536
    assert FeedSpec.from_json(spec({"name": "x", "type": "bool"})).record_size == 9
    many = [{"name": f"x{i}", "type": "u64"} for i in range(4_095)]
    assert len(FeedSpec.from_json(spec(*many)).fields) == 4_096


def test_a_spec_is_immutable_and_equal_by_value() -> None:
    source = spec(PX, config={"depth": [1, 2]})
    one, two = FeedSpec.from_json(source), FeedSpec.from_json(copy.deepcopy(source))
    source["config"]["depth"].append(3)
    source["fields"].clear()
    assert one == two
    assert one.settings.config == {"depth": [1, 2]}
    assert len({one, two}) == 1
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.ts_col = "px"  # type: ignore[misc]
    one.settings.to_json()["config"]["depth"].append(3)
    assert one == two


def test_a_spec_goes_to_json_and_back() -> None:
    one = FeedSpec.from_json(
        spec({**PX, "type": "f64", "desc": "Preis \u20ac"}, rotate_s=0.5, config={"a": [None, 1.5]})
    )
    text = json.dumps(one.to_json())
    for source in (one, one.to_json(), text, text.encode(), "\n " + text):
        assert FeedSpec.from_json(source) == one
    assert one.to_json()["fields"][1] == {"name": "px", "type": "float64", "desc": "Preis \u20ac"}


# --- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_a_spec_is_read_from_a_file(tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    path = tmp_path / "a spec.json"
    path.write_text(json.dumps(spec(PX)))
    assert FeedSpec.from_json(kind(path)) == FeedSpec.from_json(spec(PX))


BAD_FILES = {
    "empty": (b"", "not JSON at line 1 column 1"),
    "not JSON": (b"feed_name: f", "not JSON at line 1"),
    "BOM": (b"\xef\xbb\xbf{}", "byte order mark"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "latin-1": ('{"desc": "\u00e9"}'.encode("latin-1"), "not UTF-8 at byte 10"),
    "truncated": (b'{"feed_name": "f"', "not JSON"),
    "two documents": (b"{} {}", "not JSON"),
    "array": (b"[]", "expected a JSON object"),
    "null": (b"null", "expected a JSON object"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_no_specs(tmp_path: Path, case: str) -> None:
    data, fragment = BAD_FILES[case]
    path = tmp_path / "spec.json"
    path.write_bytes(data)
    error = refused(path, fragment)
    assert "spec.json" in str(error)


def test_paths_that_hold_no_file(tmp_path: Path) -> None:
    refused(str(tmp_path / "none.json"), "No such file")
    refused(tmp_path, "not a regular file")
    refused("a\0b", "cannot be read")
    refused("x" * 5_000, "cannot be read")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")  # and does not wait for a writer


def test_the_recorders_specs() -> None:
    found = {path.stem: FeedSpec.from_json(path) for path in sorted(SCHEMAS.glob("*.json"))}
    assert {stem: (s.feed_name, s.ts_col, s.record_size) for stem, s in found.items()} == {
        "cb-trades": ("CB-TRADES-BTC-USD", "proc_us", 64),
        "cb-l2": ("CB-L2-BTC-USD", "proc_us", 64),
        "cb-l2snap": ("CB-L2SNAP-BTC-USD", "snapshot_us", 40 + 4 * 500 * 8),
        "kr-l2": ("KR-L2-BTC-USD", "proc_us", 64),
        "kr-trades": ("KR-TRADES-BTC-USD", "proc_us", 64),
        "dw-metrics": ("DW-METRICS-1", "ts_us", 960),
    }
    assert [name for name, s in found.items() if s.settings.index_playback] == ["cb-l2", "kr-l2"]
    assert found["cb-l2snap"].settings.config == {"depth": 500}
    assert all(field.desc for s in found.values() for field in s.fields if not field.is_padding)
    assert "MAKER" in found["cb-trades"].fields[1].desc


# --- JSON ----------------------------------------------------------------------------------------------

BAD_JSON = {
    "deep": ("[" * 200_000, "nested deeper than 64"),
    "deep and closed": ("[" * 200_000 + "]" * 200_000, "nested deeper than 64"),
    "65 levels": ("[" * 66 + "]" * 66, "nested deeper than 64"),
    "5,000 digits": ("[" + "9" * 5_000 + "]", "an integer of 5000 digits"),
    "41 digits": ("1" + "0" * 40, "an integer of 41 digits"),
    "NaN": ('{"a": NaN}', "NaN is not JSON"),
    "Infinity": ('{"a": Infinity}', "Infinity is not JSON"),
    "-Infinity": ('{"a": -Infinity}', "-Infinity is not JSON"),
    "1e400": ('{"a": 1e400}', "1e400 is beyond a 64-bit float"),
    "duplicate": ('{"a": 1, "b": 2, "a": 3}', "key 'a' appears twice"),
    "nested duplicate": ('[{"a": {"b": 1, "b": 1}}]', "key 'b' appears twice"),
    "BOM": ("\ufeff{}", "byte order mark"),
    "surrogate": ('["\\ud800"]', "half of a surrogate pair"),
    "surrogate key": ('{"\\ud800": 1}', "half of a surrogate pair"),
    "control character": ('["a\nb"]', "not JSON at line 1"),
    "single quotes": ("{'a': 1}", "not JSON"),
    "comment": ("{} // end", "not JSON"),
    "trailing comma": ("[1,]", "not JSON"),
    "large": (" " * (16 * 2**20 + 1), "bytes of JSON; at most"),
}


@pytest.mark.parametrize("case", BAD_JSON)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_json_that_is_refused(case: str, as_bytes: bool) -> None:
    text, fragment = BAD_JSON[case]
    with pytest.raises(SchemaError) as caught:
        load_json(text.encode() if as_bytes else text, "the file")
    assert fragment in str(caught.value)
    assert str(caught.value).startswith("the file: ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**39), 10**39) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(json_values)
def test_json_that_is_sound_comes_back(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert repr(load_json(text, "x")) == repr(value)
    assert repr(load_json(memoryview(text.encode()), "x")) == repr(value)


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_any_bytes_are_json_or_a_schema_error(data: bytes | str) -> None:
    try:
        found = load_json(data, "x")
    except SchemaError:
        return
    assert found == json.loads(data)


# --- settings ------------------------------------------------------------------------------------------

BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "chunk 0": ({"chunk_size_bytes": 0}, "chunk_size_bytes is 0; it must be a positive integer"),
    "chunk negative": ({"chunk_size_bytes": -8}, "a positive integer, in bytes"),
    "chunk 2**63": ({"chunk_size_bytes": 2**63}, "at most 1099511627776"),
    "chunk 2**40+1": ({"chunk_size_bytes": 2**40 + 1}, "at most 1099511627776"),
    "chunk true": ({"chunk_size_bytes": True}, "a positive integer"),
    "chunk None": ({"chunk_size_bytes": None}, "a positive integer"),
    "chunk float": ({"chunk_size_bytes": 67108864.0}, "an integer: write 67108864"),
    "chunk 1.5": ({"chunk_size_bytes": 1.5}, "a positive integer"),
    "chunk nan": ({"chunk_size_bytes": float("nan")}, "a positive integer"),
    "64MB": ({"chunk_size_bytes": "64MB"}, "write 67108864 (64 MiB) or 64000000"),
    "64 MiB": ({"chunk_size_bytes": "64 MiB"}, "write 67108864"),
    "1G": ({"chunk_size_bytes": "1G"}, "write 1073741824 (1 GiB) or 1000000000"),
    "digits": ({"chunk_size_bytes": "65536"}, "write 65536"),
    "big": ({"chunk_size_bytes": "big"}, "a positive integer"),
    "rotate 0": ({"rotate_s": 0}, "rotate_s is 0; it must be a positive number"),
    "rotate negative": ({"rotate_s": -1}, "a positive number"),
    "rotate text": ({"rotate_s": "1h"}, "a positive number"),
    "rotate bool": ({"rotate_s": True}, "a positive number"),
    "rotate nan": ({"rotate_s": float("nan")}, "a positive number"),
    "rotate inf": ({"rotate_s": float("inf")}, "a positive number"),
    "persist 1": ({"persist": 1}, "persist is 1; it must be true or false"),
    "persist text": ({"persist": "yes"}, "true or false"),
    "persist None": ({"persist": None}, "true or false"),
    "index_playback 0": ({"index_playback": 0}, "true or false"),
    "index_playback of a ring": ({"index_playback": True, "persist": False}, "false when persist is false"),
    "durability": ({"durability": "allways"}, "one of 'os', 'interval', 'always'; did you mean 'always'"),
    "durability None": ({"durability": None}, "one of 'os'"),
    "durability list": ({"durability": []}, "one of 'os'"),
    "durability of a ring": ({"durability": "always", "persist": False}, "'os' when persist is false"),
    "interval alone": ({"durability": "interval"}, "durability_ms is None; it must be an integer"),
    "interval 0": ({"durability": "interval", "durability_ms": 0}, "an integer from 1"),
    "interval float": ({"durability": "interval", "durability_ms": 1.5}, "an integer from 1"),
    "interval bool": ({"durability": "interval", "durability_ms": True}, "an integer from 1"),
    "ms of os": ({"durability_ms": 100}, "left out with durability 'os'"),
    "ms of always": ({"durability": "always", "durability_ms": 100}, "left out with durability 'always'"),
    "retain text": ({"retain": "7d"}, 'an object such as {"age": "7d"'),
    "retain empty": ({"retain": {}}, "an object such as"),
    "retain key": ({"retain": {"ages": "7d"}}, "unknown key 'ages'; did you mean 'age'"),
    "retain age": ({"retain": {"age": "soon"}}, "a duration such as '7d'"),
    "retain age number": ({"retain": {"age": 7}}, "a duration such as"),
    "retain age zero": ({"retain": {"age": "0d"}}, "a duration such as"),
    "retain age negative": ({"retain": {"age": "-7d"}}, "a duration such as"),
    "retain bytes 0": ({"retain": {"bytes": 0}}, "a positive integer"),
    "retain bytes text": ({"retain": {"bytes": "1GB"}}, "write 1073741824 (1 GiB) or 1000000000"),
    "columns": ({"columns": "arrow"}, "reserved"),
    "keep_rows": ({"keep_rows": True}, "reserved"),
    "config list": ({"config": [1]}, 'a JSON object such as {"depth": 500}'),
    "config None": ({"config": None}, "a JSON object"),
    "config nan": ({"config": {"a": float("nan")}}, "settings: config: nan (float) cannot be stored as JSON"),
    "config object": ({"config": {"a": object()}}, "cannot be stored as JSON"),
    "config numpy": ({"config": {"a": np.float32(1)}}, "cannot be stored as JSON"),
    "config key": ({"config": {1: 2}}, "cannot be stored as JSON"),
    "config bytes": ({"config": {"a": b"x"}}, "cannot be stored as JSON"),
    "config surrogate": ({"config": {"a": "\udc00"}}, "half of a surrogate pair"),
    "config huge": ({"config": {"a": 10**40}}, "cannot be stored as JSON"),
    "desc": ({"desc": 1}, "desc is 1; it must be a text"),
    "desc None": ({"desc": None}, "a text"),
    "desc surrogate": ({"desc": "\ud800"}, "half of a surrogate pair"),
    "unknown": ({"presist": True}, "unknown key 'presist'; did you mean 'persist'"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_that_are_refused(case: str) -> None:
    data, fragment = BAD_SETTINGS[case]
    for make in (Settings.from_json, lambda changes: Settings().replace(**changes)):
        with pytest.raises(SchemaError) as caught:
            make(data)
        assert fragment in str(caught.value), str(caught.value)


def test_a_config_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(SchemaError, match="nested deeper"):
        Settings(config=loop)


GOOD_SETTINGS: list[dict[str, Any]] = [
    {},
    {"chunk_size_bytes": 1},
    {"rotate_s": 0.25},
    {"rotate_s": 3600},
    {"persist": False},
    {"index_playback": True},
    {"durability": "always"},
    {"durability": "interval", "durability_ms": 50},
    {"retain": {"age": "7d"}},
    {"retain": {"bytes": 10_000_000_000}},
    {"retain": {"age": "1h30m", "bytes": 1}},
    {"config": {"depth": 500, "nested": [{"a": None}, True, 1.5]}},
    {"desc": "caf\u00e9 \U0001f600"},
    {"columns": None, "keep_rows": None},
]


@pytest.mark.parametrize("data", GOOD_SETTINGS, ids=str)
def test_settings_go_to_json_and_back(data: dict[str, Any]) -> None:
    found = Settings.from_json(data)
    assert {key: getattr(found, key) for key in data} == data
    again = json.loads(json.dumps(found.to_json()))
    assert Settings.from_json(again) == found
    assert pickle.loads(pickle.dumps(found)) == found
    assert list(again) == [
        "chunk_size_bytes", "rotate_s", "persist", "index_playback", "durability", "durability_ms", "retain",
        "columns", "keep_rows", "config", "desc",
    ]  # fmt: skip


def test_numpy_integers_are_sizes() -> None:
    assert json.dumps(Settings(chunk_size_bytes=np.int64(4096)).to_json()["chunk_size_bytes"]) == "4096"


def test_settings_differ_in_lines() -> None:
    assert Settings().diff(Settings()) == []
    assert Settings().diff(Settings(rotate_s=60, config={"a": 1})) == [
        "rotate_s: None here, 60 there",
        "config: {} here, {'a': 1} there",
    ]


# --- feed names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "CB-TRADES-BTC-USD", "a", "9", "a" * 100, "a.b_c-d", "CON", "nul.txt", "a.", "a..b", "0", "None",
    ],
)  # fmt: skip
def test_feed_names_that_work(name: str) -> None:
    assert check_feed_name(name) == name
    assert FeedSpec.from_json(spec(feed_name=name)).feed_name == name


BAD_NAMES: list[object] = [
    "", "..", ".", "/", "a/b", "../x", "/etc/x", "a\0b", "a" * 256, "a" * 101, "a ", " a", "a\n", ".hidden",
    "-rf", "_a", "%s", "a\ud800", "a\\b", "a:b", "a*", "~", "$HOME", "caf\u00e9", "cafe\u0301", "\uff21", "a\u200b",
    "\U0001f600", "\u0661", None, 7, b"a", True, ["a"], "a" * 1_000_000,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
def test_feed_names_that_are_refused(name: object) -> None:
    with pytest.raises(FeedNameError, match="starts with a letter or a digit") as caught:
        check_feed_name(name)
    assert caught.value.name == name  # type: ignore[attr-defined]
    assert len(str(caught.value)) < 400
    str(caught.value).encode()  # can be printed, half a surrogate pair or not
    if name is not None:
        refused(spec(feed_name=name), "feed name", FeedNameError)


def test_names_that_differ_only_by_case_are_two() -> None:
    assert check_feed_name("a") != check_feed_name("A")


def test_did_you_mean() -> None:
    assert did_you_mean("pirce", ["price", "size"]) == "; did you mean 'price'?"
    assert did_you_mean("zzz", ["price"]) == did_you_mean(None, ["price"]) == ""


# --- specs from other libraries ------------------------------------------------------------------------


def types(found: FeedSpec) -> list[tuple[str, str]]:
    return [(field.name, field.type) for field in found.fields]


def test_a_spec_from_a_dtype_keeps_its_bytes() -> None:
    dtype = np.dtype(
        [("side", "S1"), ("sym", "S8"), ("ok", "?"), ("n", ">i4"), ("t_us", "<u8"), ("px", "f8", (3,)), ("b", "u1")],
        align=True,
    )  # fmt: skip
    found = FeedSpec.from_dtype("f", dtype, persist=False)
    assert types(found) == [
        ("side", "char"), ("sym", "char[8]"), ("ok", "bool"), ("_", "_2"), ("n", "int32"), ("t_us", "uint64"),
        ("px", "float64[3]"), ("b", "uint8"), ("_", "_7"),
    ]  # fmt: skip
    assert (found.ts_col, found.record_size, found.settings.persist) == ("t_us", dtype.itemsize, False)


def test_a_dtype_in_another_order_of_bytes() -> None:
    dtype = np.dtype({"names": ["px", "t_us"], "formats": ["f8", "u8"], "offsets": [16, 0], "itemsize": 32})
    found = FeedSpec.from_dtype("f", dtype)
    assert types(found) == [("t_us", "uint64"), ("_", "_8"), ("px", "float64"), ("_", "_8")]


def test_a_dtype_with_times_and_text() -> None:
    found = FeedSpec.from_dtype("f", [("when", "M8[ns]"), ("sym", "U4"), ("pad", "V4"), ("recv_us", "i8")])
    assert types(found) == [("when", "uint64"), ("sym", "char[4]"), ("_", "_4"), ("recv_us", "int64")]
    assert found.ts_col == "when"  # the only datetime; what is called _us comes after


@pytest.mark.parametrize(
    ("dtype", "ts_col", "fragment"),
    [
        ("f8", None, "pass a structured dtype"),
        ([("t_us", "u8"), ("x", "O")], None, "column 'x': no type of Deepwater holds object"),
        ([("t_us", "u8"), ("x", "c16")], None, "no type of Deepwater holds complex128"),
        ([("t_us", "u8"), ("x", "f8", (2, 2))], None, "no type of Deepwater holds"),
        ([("t_us", "u8"), ("x", "S2", (2,))], None, "no type of Deepwater holds"),
        ([("t_us", "u8"), ("x", "m8[us]")], None, "no type of Deepwater holds timedelta64[us]"),
        ([("t_us", "u8"), ("x", [("y", "f8")])], None, "no type of Deepwater holds"),
        ([("t_us", "u8"), ("x", "S0")], None, "no type of Deepwater holds"),
        ([("t_us", "u8"), ("x", "V0")], None, None),
        ([("t_us", "u8"), ("class", "f8")], None, "Python keyword"),
        ([("t_us", "u8"), ("a.b", "f8")], None, "1 to 64 ASCII letters"),
        ([("px", "f8")], None, "which column is the clock? Candidates: none"),
        ([("a_us", "u8"), ("b_us", "u8")], None, "Candidates: a_us, b_us; pass ts_col="),
        ([("a_us", "M8[us]"), ("b_us", "M8[us]")], None, "Candidates: a_us, b_us"),
        ([("a_us", "M8[us]"), ("when", "M8[us]")], "a_us", "rename it to 'when_us'"),
        ([("a_us", "u4")], "a_us", "ts_col 'a_us' is uint32"),
        ([("a_us", "u8")], "b_us", "ts_col 'b_us' is no field; did you mean 'a_us'"),
    ],
)
def test_dtypes_that_are_refused(dtype: Any, ts_col: str | None, fragment: str | None) -> None:
    if fragment is None:
        assert types(FeedSpec.from_dtype("f", dtype, ts_col)) == [("t_us", "uint64")]
        return
    with pytest.raises(SchemaError) as caught:
        FeedSpec.from_dtype("f", dtype, ts_col)
    assert fragment in str(caught.value)


def test_a_dtype_with_overlapping_fields_is_refused() -> None:
    dtype = np.dtype({"names": ["t_us", "x"], "formats": ["u8", "u4"], "offsets": [0, 4]})
    with pytest.raises(SchemaError, match="overlaps"):
        FeedSpec.from_dtype("f", dtype)


ARROW = pa.schema(
    [
        ("side", pa.dictionary(pa.int8(), pa.utf8())),
        ("t_us", pa.timestamp("us", "UTC")),
        ("n", pa.int32()),
        ("half", pa.float16()),
        ("single", pa.float32()),
        ("px", pa.list_(pa.float64(), 5)),
        ("ok", pa.bool_()),
        ("raw", pa.binary(6)),
        ("b", pa.uint8()),
    ]
)


def test_a_spec_from_an_arrow_schema_is_aligned() -> None:
    found = FeedSpec.from_arrow("f", ARROW, desc="d")
    assert types(found) == [
        ("side", "char"), ("_", "_7"), ("t_us", "uint64"), ("n", "int32"), ("half", "float16"), ("_", "_2"),
        ("single", "float32"), ("_", "_4"), ("px", "float64[5]"), ("ok", "bool"), ("raw", "char[6]"), ("b", "uint8"),
    ]  # fmt: skip
    assert (found.ts_col, found.record_size % 8, found.settings.desc) == ("t_us", 0, "d")


def test_text_of_an_arrow_table_is_measured() -> None:
    table = pa.table({
        "t_us": pa.array([1, 2], pa.timestamp("ns")), "sym": ["AAPL", "BRK.B"], "side": ["B", "S"],
        "venue": pa.array(["XNAS", "X"]).dictionary_encode(),
    })  # fmt: skip
    wanted = [("t_us", "uint64"), ("sym", "char[8]"), ("side", "char"), ("venue", "char[8]"), ("_", "_7")]
    assert types(FeedSpec.from_arrow("f", table)) == wanted
    assert types(FeedSpec.from_arrow("f", table.to_batches()[0])) == wanted
    assert types(FeedSpec.from_arrow("f", pl.from_arrow(table))) == wanted
    with pytest.raises(SchemaError, match="column 'sym': the width of text is not in an Arrow schema"):
        FeedSpec.from_arrow("f", table.schema)


@pytest.mark.parametrize(
    "type_",
    [
        pa.decimal128(10, 2),
        pa.date32(),
        pa.duration("us"),
        pa.struct([("x", pa.int8())]),
        pa.list_(pa.int8()),
    ],
)
def test_arrow_types_that_are_refused(type_: pa.DataType) -> None:
    with pytest.raises(SchemaError, match="column 'x': no type of Deepwater holds"):
        FeedSpec.from_arrow("f", pa.schema([("t_us", pa.uint64()), ("x", type_)]))


def frame() -> pd.DataFrame:
    times = pd.DatetimeIndex(["2026-01-01", "2026-01-02"], tz="UTC", name="proc_us")
    return pd.DataFrame(
        {
            "side": pd.Categorical(["B", "S"]),
            "recv_us": times,
            "sym": ["AAPL", "MSFT"],
            "px": [1.5, 2.5],
            "n": pd.array([1, 2], "Int32"),
            "ok": pd.array([True, False], "boolean"),
            "seen": np.array([1, 2], "i8"),
            "book": [np.zeros(3), np.ones(3)],
            "arrow": pd.array([1.0, 2.0], "double[pyarrow]"),
        },
        index=times,
    )


def test_a_spec_from_a_frame() -> None:
    found = FeedSpec.from_dataframe("f", frame(), rotate_s=60)
    assert types(found) == [
        ("proc_us", "uint64"), ("side", "char"), ("_", "_7"), ("recv_us", "uint64"), ("sym", "char[8]"),
        ("px", "float64"), ("n", "int32"), ("ok", "bool"), ("_", "_3"), ("seen", "int64"), ("book", "float64[3]"),
        ("arrow", "float64"),
    ]  # fmt: skip
    assert (found.ts_col, found.settings.rotate_s) == ("proc_us", 60)
    assert FeedSpec.from_dataframe("f", frame(), "recv_us").ts_col == "recv_us"
    assert FeedSpec.from_dataframe("f", frame().reset_index(), "seen").ts_col == "seen"  # int64 clocks become uint64


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda df: df.reset_index(), "Candidates: proc_us, recv_us"),
        (lambda df: df.assign(when=df.index), "rename it to 'when_us'"),
        (lambda df: df.assign(x=[1j, 2j]), "no type of Deepwater holds complex128"),
        (lambda df: df.assign(x=[{}, {}]), "no type of Deepwater holds dict objects"),
        (lambda df: df.assign(x=[1, {}]), "no type of Deepwater holds int objects"),
        (lambda df: df.assign(**{"a b": 1}), "1 to 64 ASCII letters"),
        (lambda df: df.rename(columns={"px": 0}), "1 to 64 ASCII letters"),
        (lambda df: df.rename(columns={"px": "n"}), "two fields are named 'n'"),
        (lambda df: df.reset_index().set_index(["proc_us", "recv_us"]), "Candidates: proc_us, recv_us"),
        (lambda df: df["px"], "expected a pandas DataFrame"),
    ],
)  # fmt: skip
def test_frames_that_are_refused(change: Callable[[pd.DataFrame], Any], fragment: str) -> None:
    with pytest.raises(SchemaError) as caught:
        FeedSpec.from_dataframe("f", change(frame()))
    assert fragment in str(caught.value), str(caught.value)


def test_named_levels_of_an_index_are_columns() -> None:
    found = FeedSpec.from_dataframe("f", frame()[["px"]].assign(n=[1, 2]).set_index("n", append=True))
    assert types(found) == [("proc_us", "uint64"), ("n", "int64"), ("px", "float64")]
    assert found.ts_col == "proc_us"
