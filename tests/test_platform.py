"""The front door: stores, names, paths, permissions, and descriptions that are damaged."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import (
    ClosedError,
    CorruptFileError,
    DeepwaterError,
    FeedNameError,
    FeedNotFoundError,
    FeedSpec,
    Platform,
    SchemaError,
    SchemaMismatchError,
)
from processes import run_python

SIZE = model.CHECKED.itemsize
SPEC: dict[str, Any] = {
    "feed_name": "F",
    "ts_col": "ts_us",
    "fields": model.CHECKED_FIELDS,
    "chunk_size_bytes": 10 * SIZE,
}


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(SPEC)
        yield platform


def fill(dw: Platform, name: str = "F", rows: int = 15) -> None:
    with dw.create_writer(name) as writer:
        writer.write_batch(model.checked_records(writer.end, rows, 1))


# ------------------------------------------------------------------------------------------ names

NAMES_REFUSED = [
    "", ".", "..", "/", "a/b", "../x", "..\\x", "/etc/x", "a\0b", "a" * 101, "a" * 256, "a ", " a", "a\n", "\na",
    "a.\n", "-rf", ".hidden", "_x",
    "%s", "a:b", "a*b", "é", "e\u0301", "Ａ", "\udc80", "CON ", "a\u202eb", "٣", "~", "$HOME", "x;y",
]  # fmt: skip
NAMES_TAKEN = [
    "a",
    "A",
    "0",
    "CON",
    "a..b",
    "a.",
    "a-b_c.d",
    "x" * 33,
    "x" * 100,
    "chunk_00000001.bin",
    "layout.json",
    "registry.bin",
    "9lives",
]


@pytest.mark.parametrize("name", NAMES_REFUSED, ids=ascii)
def test_a_name_that_could_lead_elsewhere_is_refused_at_every_door(dw: Platform, name: str) -> None:
    before = model.tree(Path(dw.base_path).parent)
    for use in (dw.create_writer, dw.create_reader, dw.delete_feed, dw.describe_feed, lambda n: dw[n],
                lambda n: dw.resize_feed(n, 4096), lambda n: dw.write(n, model.checked_records(0, 1, 1))):  # fmt: skip
        with pytest.raises(FeedNameError):
            use(name)
    with pytest.raises((FeedNameError, SchemaError)):
        dw.create_feed({**SPEC, "feed_name": name})
    assert name not in dw
    assert model.tree(Path(dw.base_path).parent) == before


@pytest.mark.parametrize("name", [None, 5, b"F", ["F"], Path("F")])
def test_a_name_is_text(dw: Platform, name: Any) -> None:
    for use in (dw.create_reader, dw.delete_feed):
        with pytest.raises((FeedNameError, TypeError)):
            use(name)


@pytest.mark.parametrize("name", NAMES_TAKEN)
def test_any_name_that_is_taken_works_throughout(tmp_store: Path, name: str) -> None:
    with Platform(tmp_store) as dw:
        assert dw.create_feed({**SPEC, "feed_name": name}) == name
        fill(dw, name, 25)
        assert dw.list_feeds() == [name] and name in dw and list(dw) == [name]
        assert len(dw[name]) == 25 == dw.describe_feed(name)["records"]
        (tmp_store / "data" / name / f"{name}.reg").unlink()
        assert len(dw[name]) == 25
        dw.delete_feed(name)
        assert dw.list_feeds() == [] and os.listdir(tmp_store / "data") == []


def test_names_that_differ_in_case_are_two_feeds(dw: Platform) -> None:
    dw.create_feed({**SPEC, "feed_name": "f"})
    fill(dw, "f", 3)
    assert dw.list_feeds() == ["F", "f"]
    assert (len(dw["F"]), len(dw["f"])) == (0, 3)


def test_an_unknown_feed_is_named_with_what_it_may_have_been(dw: Platform) -> None:
    dw.create_feed({**SPEC, "feed_name": "CB-TRADES-BTC-USD"})
    for use in (
        dw.create_reader,
        dw.create_writer,
        dw.delete_feed,
        dw.describe_feed,
        lambda n: dw.resize_feed(n, 4096),
    ):
        with pytest.raises(FeedNotFoundError, match="CB-TRADES-BTC-USD") as caught:
            use("CB-TRADES-BTC-USB")
        assert isinstance(caught.value, LookupError)
    assert sorted(dw._ipython_key_completions_()) == ["CB-TRADES-BTC-USD", "F"]


# ------------------------------------------------------------------------------------------ paths


def works(base: Any) -> None:
    """A store at a path does everything."""
    with Platform(base) as dw:
        dw.create_feed(SPEC)
        fill(dw)
        assert dw.list_feeds() == ["F"] and len(dw["F"]) == 15
    with Platform(base) as dw:
        assert len(dw["F"].read().to_numpy()) == 15
        dw.delete_feed("F")


@pytest.mark.parametrize(
    "name", ["plain", "with spaces", "ünï→", "-rf", "%s", "a/deep/er/path", "quote'\"", "tab\tnew\nline", "..dots"]
)
def test_base_paths_of_all_kinds(tmp_path: Path, name: str) -> None:
    works(tmp_path / name)
    works(str(tmp_path / f"{name}2"))


def test_a_relative_base_path_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dw = Platform("store")
    works("./other/../store2")
    monkeypatch.chdir("/")
    dw.create_feed(SPEC)
    assert (tmp_path / "store" / "store.json").exists()
    dw.close()


def test_a_base_path_may_be_a_symlink_and_nothing_below_it_may(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    works(link)
    with Platform(link) as dw:
        dw.create_feed(SPEC)
        fill(dw)
    elsewhere = tmp_path / "elsewhere"
    (real / "data" / "F").rename(elsewhere)
    (real / "data" / "F").symlink_to(elsewhere)
    before = model.tree(elsewhere)
    with Platform(link) as dw:
        for use in (dw.create_reader, dw.create_writer, dw.delete_feed, dw.describe_feed):
            with pytest.raises(CorruptFileError, match="link"):
                use("F")
    assert model.tree(elsewhere) == before
    shutil.rmtree(real / "data", ignore_errors=True)
    (real / "data").unlink(missing_ok=True) if (real / "data").is_symlink() else None


def test_a_data_directory_that_is_a_link_is_refused(tmp_path: Path, dw: Platform) -> None:
    base = Path(dw.base_path)
    (base / "data").rename(tmp_path / "moved")
    (base / "data").symlink_to(tmp_path / "moved")
    with Platform(base) as again, pytest.raises((CorruptFileError, OSError)):
        again.create_reader("F")


def test_a_missing_store_is_no_feeds_and_looking_does_not_make_it(tmp_path: Path) -> None:
    with Platform(tmp_path / "missing") as dw:
        assert dw.list_feeds() == [] and "F" not in dw and list(dw) == []
        for use in (dw.create_reader, dw.create_writer, dw.delete_feed, dw.describe_feed):
            with pytest.raises(FeedNotFoundError, match="no store"):
                use("F")
    assert os.listdir(tmp_path) == []


def test_an_empty_directory_is_no_store_until_a_feed_is_made(tmp_path: Path) -> None:
    with Platform(tmp_path) as dw:
        assert dw.list_feeds() == []
        assert os.listdir(tmp_path) == []
    works(tmp_path)


@pytest.mark.parametrize("kind", ["file", "below a file", "name too long", "path too long", "nul"])
def test_a_base_path_that_cannot_be_a_directory_is_said_with_its_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("x")
    base = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "store",
        "name too long": tmp_path / ("x" * 300),
            "path too long": f"{tmp_path}{'/deep' * 1000}", "nul": f"{tmp_path}/a\0b"}[kind]  # fmt: skip
    for use in (lambda p: p.create_feed(SPEC), lambda p: p.create_reader("F"), lambda p: p.list_feeds()):
        with pytest.raises((OSError, ValueError)) as caught:
            use(Platform(base))
        error = caught.value
        assert kind == "nul" or isinstance(error, DeepwaterError) or error.filename, repr(error)
    assert os.listdir(tmp_path) == ["file"]


def test_the_environment_names_the_store_where_no_path_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPWATER_HOME", raising=False)
    assert Platform().base_path == str(tmp_path / "platform_data")
    monkeypatch.setenv("DEEPWATER_HOME", str(tmp_path / "home"))
    assert Platform().base_path == str(tmp_path / "home")
    assert Platform(tmp_path / "x").base_path == str(tmp_path / "x")


def test_new_files_are_for_their_owner_alone(dw: Platform) -> None:
    fill(dw, rows=35)
    base = Path(dw.base_path)
    for path in [base, *base.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, (path, oct(mode))


# ------------------------------------------------------------------------------------------ permissions


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that any user can reach; to be asked for as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    path = Path(tempfile.mkdtemp(prefix="dw-test-"))
    path.chmod(0o755)
    yield path
    for top, _, files in os.walk(path):
        os.chmod(top, 0o700)
        for name in files:
            os.chmod(os.path.join(top, name), 0o600)
    shutil.rmtree(path)


AS_NOBODY = """
import os, sys
import filelock, numpy as np, model
from deepwater import Platform, DeepwaterError
base = sys.argv[1]
with Platform(base) as warm:  # this user may not even read the standard library: what is loaded late is loaded now
    for name in warm.list_feeds():
        try:
            warm.describe_feed(name), warm.feeds(), warm[name].read("2026").to_numpy(), repr(warm[name])
        except (DeepwaterError, OSError):
            pass
del warm
os.setgid(65534); os.setuid(65534)
"""


def open_up(path: Path) -> None:
    """As `chmod -R a+rX`."""
    for top, _, files in os.walk(path):
        os.chmod(top, 0o755)
        for name in files:
            os.chmod(os.path.join(top, name), 0o644)


@pytest.mark.faults
def test_read_permission_is_enough_to_read_and_not_to_write(public: Path) -> None:
    base = public / "store"
    with Platform(base) as dw:
        dw.create_feed({**SPEC, "index_playback": True})
        with dw.create_writer("F") as writer:
            writer.write_batch(model.checked_records(0, 35, 1, snapshot=True), create_index=True)
            writer.flush()  # nothing is left to do for the thread that computes checksums
            open_up(public)
            before = model.tree(base)
            run_python(
                AS_NOBODY
                + """
dw = Platform(base)
assert dw.list_feeds() == ["F"]
reader = dw["F"]
model.whole_writes(model.joined(reader.rows(0, 35), model.CHECKED))
assert sum(map(len, reader.follow("earliest", timeout=0))) == 35
assert len(reader.marks()) == 1 and len(reader.playback()) == 35 and len(reader.read("2026")) == 35
assert dw.describe_feed("F")["writer"]["pid"] == int(sys.argv[2])
assert len(dw.feeds()) == 1
for use in (lambda: dw.create_writer("F"), lambda: dw.delete_feed("F"), lambda: dw.resize_feed("F", 4096),
            lambda: dw.create_feed({"feed_name": "G", "ts_col": "t", "fields": [{"name": "t", "type": "uint64"}]})):
    try:
        use()
    except (PermissionError, DeepwaterError) as error:
        assert str(error)
    else:
        raise AssertionError("allowed")
""",
                base, os.getpid(),
            )  # fmt: skip
            assert model.tree(base) == before
            assert writer.write_batch(model.checked_records(35, 5, 2)) == 35
        before = model.tree(base)
        run_python(  # nobody holds the lock now, and still it is not theirs to write
            AS_NOBODY
            + """
for use in (Platform(base).create_writer, Platform(base).delete_feed):
    try:
        use("F")
    except PermissionError as error:
        assert error.filename
    else:
        raise AssertionError("allowed")
""",
            base,
        )
        assert model.tree(base) == before
        assert len(dw["F"]) == 40


@pytest.mark.faults
@pytest.mark.parametrize("closed", ["store.json", "data", "data/F", "data/F/layout.json", "data/F/settings.json",
    "data/F/chunk_00000001.bin",
                                    "data/F/chunk_00000002.bin", "data/F/F.reg", "registry.bin", ""])  # fmt: skip
def test_what_may_not_be_read_is_named(public: Path, closed: str) -> None:
    base = public / "store"
    with Platform(base) as dw:
        dw.create_feed(SPEC)
        fill(dw)
    open_up(public)
    (base / closed).chmod(0)
    done = run_python(
        AS_NOBODY
        + """
try:
    reader = Platform(base)["F"]
    print(len(reader.read().to_numpy()))
except PermissionError as error:
    assert error.filename, repr(error)
    print(error.filename)
""",
        base,
    )
    answer = done.stdout.strip()
    caches = ("data/F/F.reg", "registry.bin")
    assert answer.endswith(os.path.basename(closed or "store")) or (closed in caches and answer == "15"), answer


@pytest.mark.faults
def test_a_directory_that_may_not_be_written_is_named_and_left_alone(public: Path) -> None:
    base = public / "store"
    base.mkdir(mode=0o755)
    done = run_python(
        AS_NOBODY
        + """
try:
    Platform(base).create_feed({"feed_name": "G", "ts_col": "t_us", "fields": [{"name": "t_us", "type": "uint64"}]})
except PermissionError as error:
    print(error.filename)
assert Platform(base).list_feeds() == []
""",
        base,
    )
    assert str(base) in done.stdout
    assert os.listdir(base) == []


@pytest.mark.faults
def test_a_file_of_another_user_is_refused(public: Path) -> None:
    base = public / "store"
    with Platform(base) as dw:
        dw.create_feed(SPEC)
        fill(dw)
        os.chown(base / "data" / "F" / "chunk_00000001.bin", 65534, 65534)
        with pytest.raises(CorruptFileError, match="uid 65534"):
            dw["F"].read().to_numpy()


# ------------------------------------------------------------------------------------------ feeds


def test_creating_a_feed_again_changes_nothing_and_warns_of_other_settings(dw: Platform) -> None:
    before = model.tree(Path(dw.base_path) / "data")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dw.create_feed(SPEC) == "F"
    with pytest.warns(UserWarning, match="chunk_size_bytes"):
        dw.create_feed({**SPEC, "chunk_size_bytes": 4096})
    assert model.tree(Path(dw.base_path) / "data") == before
    dw.create_feed({**SPEC, "chunk_size_bytes": 4096}, update=True)
    assert dw.describe_feed("F")["settings"]["chunk_size_bytes"] == 4096
    with pytest.warns(UserWarning, match="4096"):
        dw.create_feed(SPEC)
    with warnings.catch_warnings():  # descriptions are no part of the layout
        warnings.simplefilter("error")
        dw.create_feed({**SPEC, "chunk_size_bytes": 4096, "fields": [{**f, "desc": "other"} for f in SPEC["fields"]]})


@pytest.mark.parametrize("change", ["type", "name", "order", "fewer", "more", "clock"])
def test_another_layout_is_refused_and_the_field_named(dw: Platform, change: str) -> None:
    fields = [dict(field) for field in SPEC["fields"]]
    other = {**SPEC, "fields": fields}
    if change == "type":
        fields[4]["type"] = "int32"
    elif change == "name":
        fields[4]["name"] = "lines"
    elif change == "order":
        fields[1], fields[2] = fields[2], fields[1]
    elif change == "fewer":
        del fields[7]
    elif change == "more":
        fields.append({"name": "extra", "type": "uint64"})
    else:
        other["ts_col"] = "first"
    with pytest.raises(SchemaMismatchError, match="F") as caught:
        dw.create_feed(other)
    assert isinstance(caught.value, ValueError)
    fill(dw)
    assert len(dw["F"]) == 15


def test_a_spec_may_be_a_dict_a_file_or_a_spec(tmp_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({**SPEC, "feed_name": "B"}))
    with Platform(tmp_store) as dw:
        assert dw.create_feed({**SPEC, "feed_name": "A"}) == "A"
        assert dw.create_feed(path) == dw.create_feed(str(path)) == "B"
        assert dw.create_feed(FeedSpec.from_json({**SPEC, "feed_name": "C"})) == "C"
        assert dw.list_feeds() == ["A", "B", "C"]
        assert len({dw.describe_feed(name)["incarnation"] for name in dw}) == 3


@pytest.mark.parametrize("spec", [{}, {"feed_name": "X"}, [], None, 5, "missing.json", {**SPEC,
    "chunk_size_bytes": "64MB"}, {**SPEC, "colour": 1},
                                  {**SPEC, "ts_col": "rows"}, {**SPEC, "ts_col": "none"}, {**SPEC, "fields": []},
                                  {**SPEC, "persist": False, "index_playback": True},
                                  {**SPEC, "durability": "sometimes"}, {**SPEC, "mode": "VF"}],
                                  ids=lambda s: repr(s)[-40:])  # fmt: skip
def test_a_spec_that_cannot_be_makes_nothing(tmp_store: Path, spec: Any) -> None:
    with Platform(tmp_store) as dw, pytest.raises((DeepwaterError, TypeError, FileNotFoundError)):
        dw.create_feed(spec)
    assert not tmp_store.exists() or os.listdir(tmp_store / "data") == []


@pytest.mark.parametrize("form", ["structured", "pandas", "arrow", "polars"])
def test_write_makes_the_feed_from_the_data_and_appends_to_it(tmp_store: Path, form: str) -> None:
    records = np.zeros(7, [("ts_us", "<u8"), ("price", "<f8"), ("size", "<i4"), ("more", "<i4")])
    records["ts_us"], records["price"] = model.EPOCH_2026 + np.arange(7), np.arange(7) / 4
    import pandas as pd
    import pyarrow as pa

    frame = pd.DataFrame({name: records[name] for name in records.dtype.names or ()})
    frame["ts_us"] = pd.to_datetime(frame["ts_us"], unit="us", utc=True)
    data: Any = {"structured": lambda: records, "pandas": lambda: frame.set_index("ts_us"),
        "arrow": lambda: pa.Table.from_pandas(frame),
                 "polars": lambda: pytest.importorskip("polars").from_pandas(frame)}[form]()  # fmt: skip
    with Platform(tmp_store) as dw:
        assert dw.write("NEW", data) == 0
        assert dw.write("NEW", data) == 7
        window = dw["NEW"].read()
        assert window["price"].tolist() == [*records["price"]] * 2
        assert window["ts_us"].tolist() == [*records["ts_us"]] * 2


def test_descriptions_hold_what_a_feed_is_and_has(dw: Platform) -> None:
    about = dw.describe_feed("F")
    assert (about["records"], about["first_us"], about["chunks"], about["writer"]) == (0, None, 0, None)
    fill(dw, rows=25)
    about = dw.describe_feed("F")
    json.dumps(about)
    assert (about["feed"], about["records"], about["first"], about["end"], about["chunks"], about["gaps"]) == (
        "F",
        25,
        0,
        25,
        3,
        0,
    )
    assert (about["first_us"], about["last_us"]) == (model.EPOCH_2026, model.EPOCH_2026 + 8)
    assert about["clocks"] == {"ts_us": (model.EPOCH_2026, model.EPOCH_2026 + 8)}
    assert about["bytes"] >= 25 * SIZE and about["record_bytes"] == SIZE
    assert [field["name"] for field in about["fields"]] == list(model.CHECKED.names or ())
    assert about["path"] == str(Path(dw.base_path) / "data" / "F")
    frame = dw.feeds()
    assert frame.loc["F", "records"] == 25


def test_one_damaged_feed_does_not_hide_the_others(dw: Platform) -> None:
    dw.create_feed({**SPEC, "feed_name": "G"})
    fill(dw, "G", 5)
    (Path(dw.base_path) / "data" / "F" / "layout.json").write_text("{}")
    frame = dw.feeds()
    assert frame.loc["G", "records"] == 5
    assert frame.loc["F", "problem"]


def test_what_is_no_feed_in_the_data_directory_is_none(dw: Platform) -> None:
    data = Path(dw.base_path) / "data"
    (data / "stray.txt").write_text("x")
    (data / ".new-1234").mkdir()
    (data / "not a name").mkdir()
    assert dw.list_feeds() == ["F"]


def test_a_feed_deleted_and_made_again_is_another_life(dw: Platform) -> None:
    fill(dw)
    before = dw["F"].incarnation
    dw.delete_feed("F")
    assert dw.list_feeds() == []
    with pytest.raises(FeedNotFoundError):
        dw.create_reader("F")
    dw.create_feed(SPEC)
    assert dw["F"].incarnation != before and len(dw["F"]) == 0
    assert os.listdir(Path(dw.base_path) / "data") == ["F"]


def test_a_chunk_of_an_earlier_life_is_not_taken_for_one_of_this(dw: Platform, tmp_path: Path) -> None:
    fill(dw)
    path = Path(dw.base_path) / "data" / "F" / "chunk_00000001.bin"
    shutil.copy(path, tmp_path / "old")
    dw.delete_feed("F")
    dw.create_feed(SPEC)
    fill(dw)
    shutil.copy(tmp_path / "old", path)
    with pytest.raises(CorruptFileError, match="another life"):
        dw["F"].read().to_numpy()


def test_a_closed_platform_says_so(tmp_store: Path) -> None:
    dw = Platform(tmp_store)
    dw.create_feed(SPEC)
    dw.close()
    dw.close()
    for use in (
        lambda: dw.create_feed(SPEC),
        lambda: dw.create_reader("F"),
        lambda: dw.create_writer("F"),
        lambda: dw["F"],
    ):
        with pytest.raises(ClosedError, match="closed"):
            use()


@pytest.mark.parametrize("kept", ["registry.bin", "store.lock"])
def test_a_lost_global_registry_costs_nothing(dw: Platform, kept: str) -> None:
    fill(dw)
    for how in ("removed", "garbage", "empty", "directory", "odd size"):
        path = Path(dw.base_path) / "registry.bin"
        data = path.read_bytes() if path.is_file() else b""
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        if how == "directory":
            path.mkdir()
        elif how != "removed":
            path.write_bytes(
                {"garbage": np.random.default_rng(1).bytes(40_000), "empty": b"", "odd size": data + b"x"}[how]
            )
        with Platform(dw.base_path) as again:
            assert again.list_feeds() == ["F"]
            assert len(again["F"]) == 15
            again.create_feed({**SPEC, "feed_name": f"G-{how.replace(' ', '-')}"})
            again.resize_feed("F", 12 * SIZE)
            again.delete_feed(f"G-{how.replace(' ', '-')}")


# ------------------------------------------------------------------------------------------ damaged descriptions

STRANGE_TEXT: dict[str, bytes] = {
    "empty": b"", "one byte": b"{", "not JSON": b"layout", "a list": b"[]", "null": b"null", "a number": b"17",
    "a text": b'"x"',
    "an empty object": b"{}", "a BOM": b"\xef\xbb\xbf{}", "latin-1": b'{"a": "\xe9"}', "deep": b"[" * 200_000,
    "5,000 digits": b'{"format": ' + b"9" * 5000 + b"}",
    "NaN": b'{"format": NaN}', "1e400": b'{"format": 1e400}', "twice": b'{"format": "1.0", "format": "1.0"}',
    "binary": bytes(range(256)) * 8,
    "NUL": b"\0" * 100, "huge": b" " * (1 << 25),
}  # fmt: skip
DESCRIPTIONS = {
    "store.json": "store.json",
    "layout.json": "data/F/layout.json",
    "settings.json": "data/F/settings.json",
}


def open_every_way(base: Path) -> list[BaseException]:
    """What was raised by opening a store in every way, DeepwaterError and PermissionError aside."""
    errors: list[BaseException] = []
    with Platform(base) as dw:
        for use in (dw.list_feeds, lambda: dw["F"].read().to_numpy(), lambda: dw.describe_feed("F"),
            lambda: fill(dw, "F", 2),
                    lambda: dw.resize_feed("F", 13 * SIZE), lambda: dw.create_feed(SPEC, update=True)):  # fmt: skip
            try:
                use()
            except DeepwaterError as error:
                errors.append(error)
    return errors


@pytest.mark.faults
@pytest.mark.parametrize("which", DESCRIPTIONS)
def test_a_description_that_is_not_what_was_written_is_damage(dw: Platform, which: str) -> None:
    fill(dw)
    path = Path(dw.base_path) / DESCRIPTIONS[which]
    whole = path.read_bytes().rstrip()
    before = model.stored(Path(dw.base_path) / "data" / "F")
    for what, text in STRANGE_TEXT.items():
        path.write_bytes(text)
        errors = open_every_way(Path(dw.base_path))
        assert errors or (which == "settings.json" and what == "an empty object"), what
    for cut in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:cut])
        assert open_every_way(Path(dw.base_path)), f"cut to {cut} of {len(whole)}"
    path.write_bytes(whole)
    assert model.stored(Path(dw.base_path) / "data" / "F").startswith(before)
    assert not open_every_way(Path(dw.base_path))


WRONG_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**63,
    2**64,
    10**30,
    "",
    "x",
    "0" * 32,
    "f" * 31,
    "é",
    [],
    {},
    [1],
    {"a": 1},
    "9" * 400,
    "\ud800",
]


@pytest.mark.faults
@pytest.mark.parametrize("which", DESCRIPTIONS)
def test_a_description_with_any_one_value_wrong_is_an_error_or_an_answer(dw: Platform, which: str) -> None:
    """Each value in turn, at every depth, by each of many others; nothing but typed errors."""
    fill(dw)
    text = (Path(dw.base_path) / DESCRIPTIONS[which]).read_text()
    settings = Path(dw.base_path) / DESCRIPTIONS["settings.json"]
    whole_settings = settings.read_text()

    def places(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        for key in node if isinstance(node, dict) else range(min(2, len(node))) if isinstance(node, list) else ():
            yield (*at, key)
            yield from places(node[key], (*at, key))

    everywhere, wrong = list(places(json.loads(text))), []
    rng = np.random.default_rng(3)
    for place in everywhere:
        for value in [WRONG_VALUES[k] for k in rng.permutation(len(WRONG_VALUES))[: max(4, 160 // len(everywhere))]]:
            about = json.loads(text)
            node = about
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = value
            (Path(dw.base_path) / DESCRIPTIONS[which]).write_text(json.dumps(about))
            settings.write_text(whole_settings if which != "settings.json" else json.dumps(about))
            try:
                open_every_way(Path(dw.base_path))
            except Exception as error:  # noqa: BLE001 (all of them are shown)
                wrong.append((place, value, error))
    assert not wrong


@pytest.mark.faults
@pytest.mark.parametrize("which", DESCRIPTIONS)
@pytest.mark.parametrize("what", ["missing", "directory", "fifo", "symlink", "socket"])
def test_something_else_in_the_place_of_a_description(dw: Platform, which: str, what: str) -> None:
    fill(dw)
    path = Path(dw.base_path) / DESCRIPTIONS[which]
    data = path.read_bytes()
    path.unlink()
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "symlink":
        (path.parent / "real").write_bytes(data)
        path.symlink_to("real")
    elif what == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as server:
            here = os.getcwd()
            os.chdir(path.parent)  # a socket's path has 108 bytes
            server.bind(path.name)
            os.chdir(here)
    with Platform(dw.base_path) as again:
        with pytest.raises((CorruptFileError, FeedNotFoundError)):
            again.create_reader("F")
        with pytest.raises((CorruptFileError, FeedNotFoundError)):
            again.create_writer("F")
    assert len(model.stored(Path(dw.base_path) / "data" / "F")) == 15 * SIZE


def test_a_feed_of_another_store_is_refused(dw: Platform, tmp_path: Path) -> None:
    fill(dw)
    with Platform(tmp_path / "other") as other:
        other.create_feed({**SPEC, "feed_name": "G"})
        shutil.copytree(Path(dw.base_path) / "data" / "F", Path(other.base_path) / "data" / "F")
        for use in (other.create_reader, other.create_writer):
            with pytest.raises(CorruptFileError, match="another store"):
                use("F")


def test_a_renamed_feed_directory_is_said_to_be_renamed(dw: Platform) -> None:
    fill(dw)
    data = Path(dw.base_path) / "data"
    (data / "F").rename(data / "G")
    with pytest.raises(CorruptFileError, match="describes feed 'F'"):
        dw.create_reader("G")


def test_a_newer_format_is_refused_by_name(dw: Platform) -> None:
    fill(dw)
    path = Path(dw.base_path) / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": "2.0"}))
    with Platform(dw.base_path) as again, pytest.raises(CorruptFileError, match=r"format 2\.0"):
        again.create_reader("F")
