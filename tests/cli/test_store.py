"""create, feeds, info, snapshots."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_kit import START_US, TICKS_SPEC, Kept, deepwater, make_ticks, one_line

from deepwater import Platform, cli

MISALIGNED = {
    "feed_name": "M", "ts_col": "t_us",
    "fields": [{"name": "a", "type": "char"}, {"name": "t_us", "type": "uint64"}],
}  # fmt: skip


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(TICKS_SPEC))
    return path


# --- create ----------------------------------------------------------------------------------------------


def test_create_makes_the_feed_and_says_what_it_made(
    spec: Path, tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["create", str(spec), "--base-path", str(tmp_store)]
    assert cli.main(words) == 0
    out, said = capfd.readouterr()
    path = tmp_store / "data" / "TICKS"
    assert out == f"created TICKS: 48 bytes a record, 7 fields, clock proc_us, chunks of 33.6 kB, in {path}\n"
    assert said == "" and path.is_dir()
    assert cli.main(words) == 0
    assert capfd.readouterr().out.startswith("there already: TICKS: 48 bytes a record")


@pytest.mark.parametrize("how", ["name", "stdin"])
def test_create_under_another_name(how: str, spec: Path, tmp_store: Path) -> None:
    nameless = {key: value for key, value in TICKS_SPEC.items() if key != "feed_name"}
    spec.write_text(json.dumps(nameless))
    words = ["create", "--name", "OTHER", "--base-path", tmp_store, "--json"]
    if how == "name":
        done = deepwater(*words, "--spec", spec)
    else:
        done = deepwater(*words, "-", input=spec.read_bytes(), stdin=None)
    about = json.loads(done.stdout)
    assert (about["feed"], about["created"], about["record_bytes"]) == ("OTHER", True, 48)
    with Platform(tmp_store) as dw:
        assert dw.list_feeds() == ["OTHER"]


def test_other_settings_stay_unless_updated(spec: Path, tmp_store: Path) -> None:
    deepwater("create", spec, "--base-path", tmp_store)
    spec.write_text(json.dumps({**TICKS_SPEC, "chunk_size_bytes": 96_000}))
    done = deepwater("create", spec, "--base-path", tmp_store)
    assert one_line(done.stderr).startswith("deepwater: warning: feed 'TICKS' exists with other settings, which stay")
    assert "chunks of 33.6 kB" in done.stdout
    done = deepwater("create", spec, "--base-path", tmp_store, "--update")
    assert done.stderr == "" and "chunks of 96.0 kB" in done.stdout


def test_a_costly_layout_is_warned_of_in_one_line(spec: Path, tmp_store: Path) -> None:
    spec.write_text(json.dumps(MISALIGNED))
    said = deepwater("create", spec, "--base-path", tmp_store).stderr
    assert all(line.startswith("deepwater: warning: feed 'M': ") for line in said.splitlines()) and said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "spec file"),
        ("{", "spec file"),
        ("[]", "spec file"),
        ('{"feed_name": "X"}', "key 'fields' is missing"),
        (json.dumps({**TICKS_SPEC, "feed_name": "../x"}), "feed name '../x' is not allowed"),
        (json.dumps({**TICKS_SPEC, "ts_col": "price"}), "ts_col"),
        ("[" * 100_000, "spec file"),
        (None, "cannot be read"),
    ],
    ids=["empty", "cut", "list", "keys", "name", "clock", "deep", "absent"],
)
def test_a_bad_spec_is_one_line_and_makes_nothing(
    text: str | None, said: str, spec: Path, tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec.unlink() if text is None else spec.write_text(text)
    assert cli.main(["create", str(spec), "--base-path", str(tmp_store)]) == 1
    out, text = capfd.readouterr()
    assert out == "" and said in one_line(text)
    assert not tmp_store.exists()


def test_a_spec_named_like_json_is_still_a_file(tmp_path: Path, tmp_store: Path) -> None:
    (tmp_path / "{spec}.json").write_text(json.dumps(TICKS_SPEC))
    deepwater("create", "{spec}.json", "--base-path", tmp_store, cwd=tmp_path)


def test_another_layout_is_refused(spec: Path, tmp_store: Path) -> None:
    deepwater("create", spec, "--base-path", tmp_store)
    done = deepwater("create", "--spec", spec, "--name", "TICKS", "--base-path", tmp_store)
    assert done.stdout.startswith("there already")
    spec.write_text(json.dumps({**MISALIGNED, "feed_name": "TICKS"}))
    done = deepwater("create", spec, "--base-path", tmp_store, code=1)
    assert "exists with another layout" in one_line(done.stderr)


# --- feeds -----------------------------------------------------------------------------------------------


def test_feeds_is_a_row_a_feed(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["feeds", "--base-path", str(kept.path)]) == 0
    header, *rows = capfd.readouterr().out.splitlines()
    assert header.split() == ["feed", "records", "first", "(UTC)", "last", "size", "gaps", "writer"]
    assert [row.split()[:2] for row in rows] == [["EMPTY", "0"], ["ODD", "6"], ["TICKS", "5,000"]]
    assert "2026-08-09 05:23:42  05:23:47" in rows[2]
    assert rows[2].split()[-2:] == ["1", "-"]


def test_feeds_as_json_is_an_array(kept: Kept) -> None:
    rows = {row["feed"]: row for row in json.loads(deepwater("feeds", "--json", "--base-path", kept.path).stdout)}
    ticks = rows["TICKS"]
    assert (ticks["records"], ticks["gaps"], ticks["record_bytes"]) == (5000, 1, 48)
    assert (ticks["first_us"], ticks["last_us"]) == (int(kept.ticks["proc_us"][0]), int(kept.ticks["proc_us"][-1]))
    assert rows["EMPTY"]["records"] == 0 and rows["EMPTY"]["first_us"] is None


def test_without_a_store_there_is_no_feed(tmp_store: Path) -> None:
    assert json.loads(deepwater("feeds", "--json", "--base-path", tmp_store).stdout) == []
    assert not tmp_store.exists()


def test_a_feed_that_is_written_names_its_writer(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(TICKS_SPEC)
        with dw.create_writer("TICKS"):
            out = deepwater("feeds", "--base-path", tmp_store).stdout
            assert f"pid {os.getpid()}" in out
            assert f"pid {os.getpid()} on " in deepwater("info", "TICKS", "--base-path", tmp_store).stdout


def test_a_damaged_feed_does_not_hide_the_others(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(TICKS_SPEC)
        dw.create_feed({**TICKS_SPEC, "feed_name": "BAD"})
    (tmp_store / "data" / "BAD" / "layout.json").write_text("{")
    done = deepwater("feeds", "--base-path", tmp_store, code=1)
    assert [row.split()[:2] for row in done.stdout.splitlines()[1:]] == [["BAD", "?"], ["TICKS", "0"]]
    assert one_line(done.stderr).startswith("deepwater: error: feed BAD: ")
    rows = json.loads(deepwater("feeds", "--json", "--base-path", tmp_store, code=1).stdout)
    assert rows[0]["problem"] and rows[1]["problem"] is None


# --- info ------------------------------------------------------------------------------------------------


def test_info_says_what_a_feed_is_and_holds(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "TICKS", "--base-path", str(kept.path)]) == 0
    out = capfd.readouterr().out
    assert out.startswith("TICKS\n  Trades of nothing.\n")
    for fact in (
        "records   5,000, positions 0 to 4,999",
        "proc_us   2026-08-09T05:23:42.196708Z to 2026-08-09T05:23:47.195708Z",
        "1 gap, 0 snapshots", "writer    none",
        "chunk_size_bytes 33600 (33.6 kB)", f"path      {kept.path}/data/TICKS",
        "side      char          0  B or S", "proc_us   uint64       16",
    ):  # fmt: skip
        assert fact in out


def test_info_as_json_holds_the_layout(kept: Kept) -> None:
    about = json.loads(deepwater("info", "TICKS", "--json", "--base-path", kept.path).stdout)
    assert [field["name"] for field in about["fields"]] == list(kept.ticks.dtype.names)
    assert about["end"] == 5000 and about["settings"]["chunk_size_bytes"] == 33600


@pytest.mark.parametrize("feed", ["EMPTY", "ODD"])
def test_info_of_odd_feeds(feed: str, kept: Kept) -> None:
    assert deepwater("info", feed, "--base-path", kept.path).stdout.startswith(f"{feed}\n")
    json.loads(deepwater("info", feed, "--json", "--base-path", kept.path).stdout)


@pytest.mark.parametrize("name", ["", "..", ".", "/", "a/b", "/etc/x", "a b", "x" * 300, "-rf", "%s", "CON\n", "ticks"])
def test_a_name_that_is_none_is_refused(name: str, kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--base-path", str(kept.path), "--", name]) == 1
    assert one_line(capfd.readouterr().err)


# --- snapshots -------------------------------------------------------------------------------------------


def test_snapshots_says_where_they_begin_and_how_long_they_are(
    tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["snapshots", "BOOK", "--base-path", str(tmp_store)]
    with Platform(tmp_store) as dw:
        dw.create_feed({**TICKS_SPEC, "feed_name": "BOOK", "index_playback": True})
        assert cli.main(words) == 0
        out, said = capfd.readouterr()
        assert out == "position  time  rows\n" and one_line(said) == "feed BOOK has no complete snapshot yet"
        with dw.create_writer("BOOK") as writer:
            ticks = make_ticks(writer.layout.dtype, 2010)
            writer.write_batch(ticks[:2000], create_index=True)
            writer.write_batch(ticks[2000:2005])
            writer.write_values(*ticks[2005].item(), create_index=True)
    assert cli.main(words) == 0
    out, said = capfd.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["position", "time", "rows"],
        ["0", "2026-08-09T05:23:42.196708Z", "2,000"],
        ["2,005", "2026-08-09T05:23:44.201708Z", "unknown"],
    ]
    assert said == ""
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == [
        {"position": 0, "timestamp_us": START_US, "rows": 2000},
        {"position": 2005, "timestamp_us": START_US + 2_005_000, "rows": None},
    ]


def test_a_feed_without_index_playback_keeps_no_snapshots(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["snapshots", "TICKS", "--base-path", str(kept.path)]
    assert cli.main(words) == 0
    assert one_line(capfd.readouterr().err) == "feed TICKS keeps no snapshots: it has no index_playback"
    assert cli.main([*words, "--json"]) == 0
    out, said = capfd.readouterr()
    assert json.loads(out) == [] and said == ""
