"""resize, delete: what changes a store, and what is asked before."""

from __future__ import annotations

import json
import os
import pty
import signal
from pathlib import Path

import numpy as np
import pytest
from cli_kit import START_US, TICKS_SPEC, deepwater, make_ticks, one_line, started

from deepwater import Platform, cli


@pytest.fixture
def store(tmp_store: Path) -> Path:
    """Return a store with feeds A (5 records), B (300), EMPTY."""
    with Platform(tmp_store) as dw:
        for name, rows in (("A", 5), ("B", 300), ("EMPTY", 0)):
            dw.create_feed({**TICKS_SPEC, "feed_name": name})
            if rows:
                dw.write(name, make_ticks(dw[name].dtype, rows))
    return tmp_store


def feeds(store: Path) -> list[str]:
    with Platform(store) as dw:
        return dw.list_feeds()


# --- resize ----------------------------------------------------------------------------------------------


def test_resize_says_what_is_and_what_was(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["resize", "B", "--base-path", str(store)]
    assert cli.main([*words, "1MiB"]) == 0
    out, said = capfd.readouterr()
    assert out == "B: chunk_size_bytes 1048576 (1.0 MB), was 33600 (33.6 kB)\n" and said == ""
    assert cli.main([*words, "1048576"]) == 0
    assert capfd.readouterr().out == "B: chunk_size_bytes 1048576 (1.0 MB), as before\n"
    assert cli.main([*words, "64kib", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"feed": "B", "chunk_size_bytes": 65536, "before": 1048576}
    with Platform(store) as dw:
        assert dw["B"].settings.chunk_size_bytes == 65536
        assert dw.write("B", make_ticks(dw["B"].dtype, 3)) == 300
        assert len(dw["B"]) == 303


@pytest.mark.parametrize(("size", "readings"), [("64M", "64MiB (67108864 bytes) or 64000000"),
                                                ("1 kB", "1KiB (1024 bytes) or 1000"),
                                                ("2g", "2GiB (2147483648 bytes) or 2000000000")])  # fmt: skip
def test_a_size_of_two_readings_is_refused_with_both(
    size: str, readings: str, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["resize", "B", size, "--base-path", str(store)]) == 2
    assert f"{size!r} has two readings: write {readings} (" in one_line(capfd.readouterr().err)


@pytest.mark.parametrize(("size", "said"), [("47", "less than one record"), ("2TiB", "at most 1099511627776")])
def test_a_size_that_cannot_be(size: str, said: str, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resize", "B", size, "--base-path", str(store)]) == 1
    assert said in one_line(capfd.readouterr().err)
    with Platform(store) as dw:
        assert dw["B"].settings.chunk_size_bytes == 33600


def test_while_it_has_a_writer_that_writer_is_named(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Platform(store) as dw, dw.create_writer("B"):
        assert cli.main(["resize", "B", "1MiB", "--base-path", str(store)]) == 1
        said = one_line(capfd.readouterr().err)
        assert f"has a writer already: process {os.getpid()} on " in said
        assert said.endswith("; use that writer's resize_chunk_size(1048576), or end it")
        assert cli.main(["resize", "B", "1MiB", "--json", "--base-path", str(store)]) == 1
        error = json.loads(one_line(capfd.readouterr().err))["error"]
        assert (error["type"], error["pid"], error["feed"]) == ("FeedLockedError", os.getpid(), "B")


# --- delete ----------------------------------------------------------------------------------------------


def test_delete_with_yes_says_what_went(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["delete", "A", "EMPTY", "A", "--yes", "--base-path", str(store)]) == 0
    out, said = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("deleted A: 5 records, ") and lines[1].startswith("deleted EMPTY: 0 records, ")
    assert len(lines) == 2 and said == "" and feeds(store) == ["B"]


def test_delete_as_json(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["delete", "B", "A", "--yes", "--json", "--base-path", str(store)]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert [(row["feed"], row["records"]) for row in rows] == [("B", 300), ("A", 5)] and rows[0]["bytes"] > 0
    assert feeds(store) == ["EMPTY"]


def test_without_a_terminal_it_wants_a_yes(store: Path) -> None:
    done = deepwater("delete", "A", "--base-path", store, code=2)
    assert done.stdout == "" and "add --yes" in one_line(done.stderr)
    deepwater("delete", "A", "--base-path", store, code=2, input=b"y\n", stdin=None)
    assert feeds(store) == ["A", "B", "EMPTY"]


@pytest.mark.parametrize(
    ("answer", "code"), [("y", 0), (" YES ", 0), ("n", 1), ("", 1), ("yesterday", 1), ("\x04", 1), ("^C", 130)]
)
def test_on_a_terminal_it_shows_what_will_go_and_asks(answer: str, code: int, store: Path) -> None:
    master, slave = pty.openpty()
    try:
        with started("delete", "B", "A", "--base-path", store, stdin=slave, stderr=slave) as process:
            shown = ""
            while "[y/N] " not in shown:
                shown += os.read(master, 4096).decode()
            lines = shown.splitlines()
            assert [line.split()[:2] for line in lines[:3]] == [["feed", "records"], ["B", "300"], ["A", "5"]]
            assert lines[3].startswith("delete 2 feeds: 305 records, ") and lines[3].endswith(", for good? [y/N] ")
            assert feeds(store) == ["A", "B", "EMPTY"]
            if answer == "^C":
                process.send_signal(signal.SIGINT)
            else:
                os.write(master, answer.encode() + (b"" if answer == "\x04" else b"\n"))
            out, _ = process.communicate(timeout=60)
            assert process.returncode == code
    finally:
        os.close(slave)
        os.close(master)
    assert feeds(store) == (["EMPTY"] if code == 0 else ["A", "B", "EMPTY"])
    assert out.count("deleted ") == (2 if code == 0 else 0)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_first_that_cannot_be_deleted_ends_it(
    as_json: bool, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["delete", "A", "B", "EMPTY", "--yes", "--base-path", str(store), *(["--json"] if as_json else [])]
    with Platform(store) as dw, dw.create_writer("B"):
        assert cli.main(words) == 1
        out, said = capfd.readouterr()
    assert "feed 'B' has a writer already" in one_line(said)
    assert [row["feed"] for row in json.loads(out)] == ["A"] if as_json else out.startswith("deleted A: 5 records, ")
    assert feeds(store) == ["B", "EMPTY"]


def test_a_feed_that_is_not_there_is_said_before_any_is_deleted(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["delete", "A", "BB", "--yes", "--base-path", str(store)]) == 1
    out, said = capfd.readouterr()
    assert out == "" and "no feed 'BB'" in one_line(said) and feeds(store) == ["A", "B", "EMPTY"]


def test_a_damaged_feed_can_be_deleted(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (store / "data" / "A" / "layout.json").write_text("{")
    assert cli.main(["delete", "A", "--yes", "--base-path", str(store)]) == 0
    assert capfd.readouterr().out == "deleted A, which could not be read\n"
    assert feeds(store) == ["B", "EMPTY"]


def test_arrays_that_readers_hold_stay(store: Path) -> None:
    with Platform(store) as dw:
        records = dw["B"].read().to_numpy()
        assert cli.main(["delete", "B", "--yes", "--base-path", str(store)]) == 0
        assert int(records["proc_us"][0]) == START_US and np.all(np.diff(records["trade_id"]) == 1)
