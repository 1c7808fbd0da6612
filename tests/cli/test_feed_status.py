"""status: a feed is fresh while its writer writes, and stale when that is stopped, killed or silent."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from cli_kit import one_line

import model
from deepwater import Platform, cli
from deepwater.feed_status import DAY_US, status_of
from deepwater.timestamps import now_us
from processes import Worker

SPEC: dict[str, Any] = {"ts_col": "t_us", "fields": [{"name": "t_us", "type": "u64"}, {"name": "n", "type": "u64"}]}
WRITE = """
    import sys, time
    from deepwater import Platform
    with Platform(sys.argv[1]) as dw, dw.create_writer("F") as writer:
        for n in range(10**6):
            writer.write_values(time.time_ns() // 1000, n)
            if n == 3:
                print("writing", flush=True)
            time.sleep(0.005)
"""


def run(capfd: pytest.CaptureFixture[str], store: Path, *words: str, code: int) -> Any:
    """Ask for JSON, until the exit code is the one that must come."""
    until = time.monotonic() + 60
    while (
        got := cli.main(["status", *words, "--json", "--base-path", str(store)])
    ) != code and time.monotonic() < until:
        capfd.readouterr()
        time.sleep(0.1)
    out, said = capfd.readouterr()
    assert got == code, (out, said)
    return json.loads(out) if out else said


def made(store: Path, *names: str, **settings: Any) -> None:
    with Platform(store) as dw:
        for name in names:
            dw.create_feed({**SPEC, "feed_name": name, **settings})


@pytest.mark.faults
def test_a_writer_that_is_alive_stopped_and_killed(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made(tmp_store, "F")
    with Worker(WRITE, tmp_store) as worker:
        assert worker.readline() == "writing"
        found = run(capfd, tmp_store, "F", "--max-age", "30s", code=0)
        (row,) = found["feeds"]
        assert (row["state"], row["writer"]["state"], row["writer"]["pid"]) == ("fresh", "alive", worker.pid)
        assert row["rate"] > 0 and row["bytes_per_day"] == round(row["rate"] * 86400 * 16)
        assert row["age_us"] < 30e6 and row["newest_us"] <= row["heartbeat_us"] + 1_000_000
        assert row["durable_lag"] == row["end"] == row["records"] and found["disk"]["full_in_days"] > 0
        os.kill(worker.pid, signal.SIGSTOP)
        (row,) = run(capfd, tmp_store, "F", "--max-age", "0.5s", code=1)["feeds"]
        assert (row["state"], row["writer"]["state"]) == ("stale", "stopped") and row["age_us"] > 500_000
        os.kill(worker.pid, signal.SIGCONT)
        (row,) = run(capfd, tmp_store, "F", "--max-age", "30s", code=0)["feeds"]
        assert row["writer"]["state"] == "alive"
        worker.kill()
        found = run(capfd, tmp_store, "F", "--max-age", "0.2s", code=1)
        assert found["feeds"][0]["writer"]["state"] == "dead"
        assert found["disk"]["full_in_days"] is None  # nobody fills it


def test_a_feed_that_was_never_written_is_stale_and_a_damaged_one_an_error(
    tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made(tmp_store, "EMPTY", "F")
    with Platform(tmp_store) as dw, dw.create_writer("F") as writer:
        writer.write_values(5, 5)
        writer.flush()
    before = model.tree(tmp_store)
    rows = run(capfd, tmp_store, code=0)["feeds"]
    assert [(row["feed"], row["state"], row["age_us"] is None) for row in rows] == [
        ("EMPTY", "fresh", True),
        ("F", "fresh", False),
    ]
    assert rows[1]["writer"]["state"] == "closed" and rows[1]["durable_lag"] == 0
    assert rows[1]["newest_age_us"] > rows[1]["age_us"]  # records of 1970, written just now
    rows = run(capfd, tmp_store, "--max-age", "1h", code=1)["feeds"]
    assert [row["state"] for row in rows] == ["stale", "fresh"]
    assert "no feed 'NOPE'" in run(capfd, tmp_store, "F", "NOPE", code=2)["feeds"][1]["problem"]
    assert model.tree(tmp_store) == before
    model.poke(tmp_store / "data" / "F" / "chunk_00000001.bin", 100, b"\xff" * 8)
    (row,) = run(capfd, tmp_store, "F", "--max-age", "1h", code=2)["feeds"]
    assert row["state"] == "error" and "chunk_00000001.bin" in row["problem"]
    assert cli.main(["status", "--base-path", str(tmp_store)]) == 2
    out, said = capfd.readouterr()
    assert out.splitlines()[0].split()[:3] == ["feed", "state", "age"] and "never" in out
    assert one_line(said).startswith("deepwater: error: feed F: ")


def test_columns_there_is_no_room_for_are_named(
    tmp_store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_store, "F")
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.main(["status", "--base-path", str(tmp_store)]) == 0
    said = capfd.readouterr().err
    assert one_line(said).startswith("no room for: ") and "writer" in said


def test_at_80_columns_it_says_what_a_trader_asks(
    tmp_store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is fresh, how old, how fast, what is missing; when the newest record came is the age once more."""
    monkeypatch.setenv("COLUMNS", "80")
    made(tmp_store, "CB-TRADES-BTC-USD")
    cli.main(["status", "--base-path", str(tmp_store)])
    out, said = capfd.readouterr()
    titles = out.splitlines()[0]
    assert all(title in titles for title in ("feed", "state", "age", "rate/s", "gaps today")), titles
    assert "newest" not in titles and "no room for: newest (UTC)" in said
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_store_without_feeds_is_no_fresh_one(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--max-age", "30s", "--base-path", str(tmp_store)]) == 2
    assert one_line(capfd.readouterr().err).startswith("no feeds in ")
    assert cli.main(["status", "--max-age", "soon", "--base-path", str(tmp_store)]) == 2
    assert not tmp_store.exists()


def test_rate_gaps_of_today_and_a_ring(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    now = now_us()
    made(tmp_store, "F", chunk_size_bytes=16 * 50)
    made(tmp_store, "R", persist=False, chunk_size_bytes=16 * 1000)
    with Platform(tmp_store) as dw:
        with dw.create_writer("F") as writer:
            writer.mark_gap(1, to_us=now - 2 * DAY_US)
            writer.write_batch({"t_us": [now - 120_000_000 + 500_000 * k for k in range(241)], "n": list(range(241))})
            writer.mark_gap(1, to_us=now - now % DAY_US)
            found = status_of(dw["F"])
            assert found["rate"] == pytest.approx(2, rel=0.02) and found["gaps_today"] == 1
            assert found["bytes_per_day"] == round(found["rate"] * 86400 * 16)
            assert status_of(dw["F"], now + 5_000_000)["newest_age_us"] == 5_000_000
        with dw.create_writer("R") as writer:
            writer.write_batch({"t_us": [now + 1_000_000 * k for k in range(11)], "n": list(range(11))})
            row = status_of(dw["R"])
            assert (row["rate"], row["bytes_per_day"], row["durable_lag"], row["disk_free"]) == (1.0, None, None, None)
            assert row["writer"]["state"] == "alive" and row["age_us"] is not None
        assert run(capfd, tmp_store, "R", code=0)["disk"] is None
        dw.delete_feed("R")


def test_a_disk_that_will_be_full_within_a_day_is_a_warning(
    tmp_store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_store, "F")
    for days, said in ((0.3, "deepwater: warning: the disk will be full in 7.2 h at the present rate\n"), (1.5, "")):
        disk = {"free": 10**9, "bytes_per_day": 1, "full_in_days": days}
        monkeypatch.setattr("deepwater.cli.feed_status._disk", lambda rows, disk=disk: disk)
        assert cli.main(["status", "--base-path", str(tmp_store)]) == 0
        assert capfd.readouterr().err == said
