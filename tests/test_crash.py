"""A writer killed before any step loses nothing published, tears nothing, and the next one goes on by itself.

At random moments and at every opcode: `tests/faults/test_kills.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import model
from deepwater import Platform
from processes import Worker

WORKERS = Path(__file__).parent / "workers"


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
