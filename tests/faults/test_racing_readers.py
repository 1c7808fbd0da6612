"""A feed with chunks at the speed of its readers, which race its writer: each record once, in order, as written.

Ten million records in CI; a night's hundred million by ``--fault-scale 10``. Rings: `test_ring_races`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import ring_kit
from deepwater import Platform
from fault_table import Trials
from processes import Worker

WORKERS = Path(__file__).parent.parent / "workers"
Fault = Callable[[str, str], Trials]
RECORDS = 3_400_000
"""Written in a round: two followers check each of them, and whoever opens anew what it happens to read."""
WANTED = 10_000_000
CHUNK_ROWS = 4_096
MODES = ("follow", "follow", "anew")


def race(base: Path, number: int) -> list[dict[str, int]]:
    """One round; what each reader counted."""
    with Platform(base) as dw, ExitStack() as stack:
        dw.create_feed({**ring_kit.spec(CHUNK_ROWS, "F"), "persist": True, "durability": "os"})
        board = ring_kit.Board(base / "board")
        stack.callback(board.close)
        owns, readers = [], []
        for k, mode in enumerate(MODES):
            owns.append(ring_kit.Board(base / f"own{k}"))
            stack.callback(owns[k].close)
            args = (base, "F", base / "board", base / f"own{k}", 10**15, 0, mode, number * 10 + k)
            readers.append(stack.enter_context(Worker(WORKERS / "ring_reads.py", *args, timeout=200)))
        for reader in readers:
            assert reader.readline().startswith("ready")
        args = (base, "F", base / "board", RECORDS, number, base / "own0", base / "own1")
        writer = stack.enter_context(Worker(WORKERS / "ring_writes.py", *args, timeout=200))
        pin(writer, readers)
        end = int(writer.finish())
        assert end >= RECORDS
        while sum(own["accepted"] for own in owns) < WANTED or min(own["position"] for own in owns[:2]) < end:
            assert all(reader.process.poll() is None for reader in readers), [reader.stderr() for reader in readers]
            time.sleep(0.01)
        board["done"] = 1
        for reader, own in zip(readers[:2], owns[:2], strict=True):
            start, position, lost = map(int, reader.finish().split())
            assert (position, lost, own["accepted"]) == (end, 0, end - start), "not each record once"
        readers[2].finish()
        counted = [own.all() for own in owns]
        dw.delete_feed("F")
    for path in [base / "board", *base.glob("own*")]:
        path.unlink()
    return counted


def pin(writer: Worker, readers: list[Worker]) -> None:
    """The writer on a core of its own: what it stores has to come to another one's cache."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(writer.pid, cores[:1])
        for reader in readers:
            os.sched_setaffinity(reader.pid, cores[1:])


@pytest.mark.slow
def test_readers_that_race_the_writer_of_a_feed_with_chunks(quick_dir: Path, fault: Fault, scale: int) -> None:
    """F14, F18. Two processes follow from the beginning, one opens the feed anew again and again.

    What must be seen: no record that is not the one of its position; each follower gets each position once and in
    order, over hundreds of rotations; and that it was a race: followers stood at the very end thousands of times.
    """
    rotations = edges = opened = 0
    with fault("F18", "records read while a feed with chunks is written") as trials:
        for number in range(scale):
            counted = race(quick_dir / "store", number)
            trials.done(sum(own["accepted"] for own in counted))
            for own in counted:
                if own["wrong"]:
                    trials.fail(f"round {number}: {own['wrong']} wrong records, {own}")
            rotations += RECORDS // CHUNK_ROWS
            edges += sum(own["edges"] for own in counted[:2])
            opened += counted[2]["started"]
        trials.note(rotations=rotations, at_the_very_end=edges, opened_anew=opened)
        assert edges >= 1_000 * scale
        assert opened >= 20 * scale
