"""A writer killed at any moment loses nothing published, tears nothing, and the next one goes on by itself."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import model
from deepwater import Platform
from processes import Worker

WORKERS = Path(__file__).parent / "workers"
OPENING, OUTSIDE, IN_WRITE, IN_LONG_WRITE, FAILED = range(5)
KILLS = 200


@pytest.mark.slow
@pytest.mark.faults
def test_200_writers_killed_at_random_moments(tmp_store: Path) -> None:
    """Nothing acknowledged is lost, every write is whole or absent (over chunks too), the next writer goes on."""
    Platform(tmp_store).close()
    tmp_store.mkdir()
    with Worker(WORKERS / "dies_writing.py", tmp_store, KILLS, 7, timeout=280) as nursery:
        kills = [json.loads(line) for line in nursery.finish().splitlines()]
    phases = Counter(kill["phase"] for kill in kills)
    inside = phases[IN_WRITE] + phases[IN_LONG_WRITE]
    print(f"crash: {len(kills)} kills: {inside} inside a write ({phases[IN_LONG_WRITE]} of them over a chunk's end), "
          f"{phases[OPENING]} while opening, {phases[OUTSIDE]} between writes; "
          f"{sum(kill['written'] for kill in kills):,} records, "
          f"{max(kill['chunks'] for kill in kills)} chunks at most")  # fmt: skip
    assert len(kills) == KILLS
    assert phases[FAILED] == 0
    assert inside >= 0.3 * KILLS
    assert phases[IN_LONG_WRITE] >= 0.1 * KILLS
    assert phases[OPENING] >= 5


@pytest.mark.faults
@pytest.mark.parametrize("room", [0, 4, 10], ids=["full chunk", "room for some", "empty feed"])
@pytest.mark.parametrize("operation", ["open", "short", "long", "resize", "gaps", "close"])
def test_a_writer_killed_before_each_step_of_an_operation(tmp_store: Path, operation: str, room: int) -> None:
    """Each call to the system and each store into a mapping; one step makes a write visible, and it is whole."""
    with Platform(tmp_store) as dw:
        dw.create_feed({"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
                        "chunk_size_bytes": 10 * model.CHECKED.itemsize})  # fmt: skip
        with dw.create_writer("F") as writer:
            if room < 10:
                writer.write_batch(model.checked_records(0, 20 - room, 1))
    with Worker(WORKERS / "dies_at_each_step.py", tmp_store, operation, timeout=120) as nursery:
        steps = [json.loads(line) for line in nursery.finish().splitlines()]
    whole = [step["whole"] for step in steps]
    assert whole == sorted(whole), "a write was there, and a step later it was not"
    assert whole[-1] == (operation in ("short", "long"))
    if operation == "long":
        assert len(steps) >= 60
        assert steps[whole.index(True) - 1]["before"] == "publish"
