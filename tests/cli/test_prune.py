"""prune: what is said of what went, from which feeds, and how a feed that cannot be pruned is reported."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import deepwater, one_line

from deepwater import Platform, cli, retain

DAY = 86_400_000_000
CHUNK = 2 * 32768  # with its checksums
SPEC: dict[str, Any] = {"ts_col": "ts_us", "chunk_size_bytes": 4 * 16,
                        "fields": [{"name": "ts_us", "type": "uint64"}, {"name": "x", "type": "float64"}]}  # fmt: skip


@pytest.fixture
def store(tmp_store: Path) -> Path:
    """Return a store: A and B with a day in each of ten chunks of four records, the newest now; a ring; an empty one.

    A keeps seven days by its setting, B has none.
    """
    now = time.time_ns() // 1000
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "feed_name": "A", "retain": {"age": "7d"}})
        dw.create_feed({**SPEC, "feed_name": "B"})
        dw.create_feed({**SPEC, "feed_name": "EMPTY"})
        dw.create_feed({**SPEC, "feed_name": "RING", "persist": False})
        records = np.zeros(40, dw["A"].dtype)
        records["ts_us"] = now - (9 - np.arange(40, dtype=np.uint64) // 4) * DAY
        for name in ("A", "B"):
            dw.write(name, records)
    return tmp_store


def firsts(store: Path) -> tuple[int, int]:
    with Platform(store) as dw:
        return dw["A"].first, dw["B"].first


def test_each_feed_by_its_setting_and_what_went_is_said(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["prune", "--base-path", str(store)]
    assert cli.main([*words, "--dry-run"]) == 0
    dry, said = capfd.readouterr()
    assert dry.startswith("A: would remove 3 chunks, 196.6 kB: 12 records, positions 0 to 11, ")
    assert dry.splitlines()[1:] == ["B: would remove nothing", "EMPTY: would remove nothing"]
    assert "feed B has no setting retain: say --keep or --max-bytes" in said and "RING" not in said
    assert firsts(store) == (0, 0)
    assert cli.main(words) == 0
    assert capfd.readouterr().out == dry.replace("would remove", "removed")
    assert firsts(store) == (12, 0)
    assert cli.main([*words, "A"]) == 0
    assert capfd.readouterr() == ("A: removed nothing\n", "")


def test_options_take_the_place_of_the_setting(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["prune", "A", "B", "A", "--json", "--base-path", str(store)]
    assert cli.main([*words, "--keep", "2d12h"]) == 0
    rows = json.loads(capfd.readouterr().out)
    with Platform(store) as dw:
        newest = dw["A"].coverage()[1]
    wanted = {"dry_run": False, "chunks": 7, "records": 28, "first": 0, "stop": 28, "first_us": newest - 9 * DAY,
              "last_us": newest - 3 * DAY, "bytes": 7 * CHUNK, "problem": None}  # fmt: skip
    assert rows == [{"feed": name, **wanted} for name in ("A", "B")]
    assert cli.main([*words, "--max-bytes", "64KiB"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert [(row["chunks"], row["first"], row["stop"]) for row in rows] == [(1, 28, 32)] * 2
    assert cli.main([*words, "--max-bytes", "1"]) == 0
    capfd.readouterr()
    assert firsts(store) == (36, 36)
    assert cli.main(["info", "A", "--base-path", str(store)]) == 0
    shown = capfd.readouterr().out
    assert "4, positions 36 to 39" in shown and 'retain {"age": "7d"}' in shown


def test_what_the_setting_says_is_shown_and_durable_counts_what_is_held(
    store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Platform(store) as dw, dw.create_writer("A") as writer:
        dw.prune("A")
        writer.flush()
        assert cli.main(["info", "A", "--base-path", str(store)]) == 0
    assert "28 records (all)" in capfd.readouterr().out


@pytest.mark.parametrize(("words", "said"), [
    (["--keep", "soon"], "--keep: duration 'soon'"), (["--keep", "0d"], "--keep: keep '0d'"),
    (["--max-bytes", "1GB"], "two readings"), (["--max-bytes", "0"], "above 0"),
])  # fmt: skip
def test_a_limit_that_is_none_is_a_wrong_command_line(
    words: list[str], said: str, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prune", *words, "--base-path", str(store)]) == 2
    assert said in one_line(capfd.readouterr().err)
    assert firsts(store) == (0, 0)


def test_one_that_cannot_be_pruned_is_said_and_the_others_are(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A ring by name, a feed that is not there, one under maintenance, a damaged one: exit code 1, no traceback."""
    words = ["--max-bytes", "64KiB", "--base-path", str(store)]
    with Platform(store) as dw:
        lock = retain.maintenance(dw._store, "A", dw._store.open("A"))
        assert cli.main(["prune", *words]) == 1
        out, said = capfd.readouterr()
        assert out.startswith("B: removed 8 chunks") and "feed 'A' is under maintenance" in one_line(said)
        lock.release()
    assert cli.main(["prune", "RING", *words]) == 1
    assert "'RING' is a ring" in one_line(capfd.readouterr().err)
    assert cli.main(["prune", "C", *words]) == 1
    assert "no feed 'C'" in one_line(capfd.readouterr().err)
    (store / "data" / "B" / "oldest.json").write_text("{}")
    assert cli.main(["prune", "--json", *words]) == 1
    out, said = capfd.readouterr()
    rows = json.loads(out)
    assert [(row["feed"], row["problem"] is None) for row in rows] == [("A", True), ("B", False), ("EMPTY", True)]
    assert rows[0]["chunks"] == 8
    assert "oldest.json" in json.loads(one_line(said))["error"]["message"]


def test_a_store_that_is_not_there_or_has_nothing_to_prune(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prune", "--json", "--base-path", str(tmp_path / "none")]) == 0
    out, said = capfd.readouterr()
    assert json.loads(out) == [] and "nothing to prune" in said
    assert not (tmp_path / "none").exists()


def test_it_runs_beside_a_writer_and_frees_the_disk(store: Path) -> None:
    """As a process, beside a writer. The file that says where the feed begins takes a block."""
    with Platform(store) as dw, dw.create_writer("B") as writer:
        before = dw.describe_feed("B")["bytes"]
        done = deepwater("prune", "B", "--max-bytes", "64KiB", "--base-path", str(store))
        assert (done.returncode, done.stderr) == (0, "")
        assert dw.describe_feed("B")["bytes"] <= before - 8 * CHUNK + 4096
        assert writer.end == 40
