"""The bench's scripts and the peer at a small size: that they run and answer right. No time is asserted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HARNESS = ROOT.parent / "shared" / "bench"


def run(script: str, *args: object, **variables: str) -> str:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | variables
    command = [sys.executable, str(HERE / script), *map(str, args)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ranges_are_right_and_views(tmp_path: Path) -> None:
    shown = run("ranges.py", tmp_path, "--records", 40_000, "--rows", 4_000, "--rounds", 1)
    assert "to NumPy, a view" in shown and "to Arrow" in shown
    assert list(tmp_path.iterdir()) == []


def test_tails_hand_over_every_record() -> None:
    shown = run("tails.py", "--rounds", 1, "--seconds", 0.1, "--rate", 500, "--idle", 0.2)
    for name in ("bare spin", "ring, spin", "durable, auto", "ring, wake", "mp.Pipe", "mp.Queue"):
        assert f"\n{name} " in shown
    assert "idle follower, wake" in shown


def test_replays_come_in_order() -> None:
    shown = run("replay.py", "--rounds", 1, "--records", 4000)
    for name in ("runs of 1,000  playback.merge", "runs of     1  playback.merge", "heapq.merge", "sort in memory"):
        assert name in shown


def test_books_are_those_of_the_loops() -> None:
    shown = run("book.py", "--rounds", 1, "--deltas", 20_000)
    for name in ("the book  dict", "the book  book_at", "the book  OrderBook", "books     dict and", "books     books"):
        assert f"{name} " in shown


def test_what_is_recorded_is_what_was_played() -> None:
    shown = run("record.py", "--frames", 400, "--rounds", 1)
    for name in ("raw", "recorder", "decode", "ingest"):
        assert f"\n{name} " in shown
    assert shown.startswith("400 frames, ")


def test_a_maintained_book_makes_the_records_of_the_loop() -> None:
    shown = run("maintainer.py", "--rounds", 1, "--changes", 3000)
    for name in ("looks of     7  dicts", "looks of    50  maintainer", "looks of   400  live book"):
        assert f"{name} " in shown


@pytest.mark.slow
def test_peer_passes_the_checks_of_the_harness(tmp_path: Path) -> None:
    if not HARNESS.is_dir():
        pytest.skip("needs the bench harness in ../shared/bench")
    # 200,000 records are what the harness's small ingests take; each of its answers is checked by itself.
    shown = run(
        "run_peers.py", tmp_path, "--records", 200_000, "--rounds", 1, "--peers", "deepwater,rawfile", DW_BENCH_REPS="1"
    )
    assert "PROBLEM" not in shown
    for work in ("1 ingest", "2 ingest", "3 single", "4a open", "4b open", "6 latest", "6 1000"):
        assert f"| {work}" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]
