"""A ring at full speed, read by other processes: nothing wrong is accepted, and what was lost is known exactly.

Bounded here; by hand as large as wanted, with ``--fault-scale 10``, or
``RING_RECORDS=200000000 python -m pytest -s -o faulthandler_timeout=0 tests/test_ring_races.py``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ring_kit
from deepwater import Platform
from deepwater import format as fmt
from fault_table import Trials
from processes import Worker

WORKERS = Path(__file__).parent / "workers"
WANTED = int(os.environ.get("RING_RECORDS", "8000000"))
DEADLINE_S = 280 if WANTED <= 20_000_000 else 3_000
KILLS = int(os.environ.get("RING_KILLS", "200"))
Fault = Callable[[str, str], Trials]


def overtaken(counted: list[Any]) -> list[int]:
    """How often the writer was a lap ahead, came into a copy, and was told of: what puts readers to the test."""
    return [sum(own[name] for own in counted) for name in ("laps", "overlaps", "raised")]


def race(
    tmp_path: Path, capacity: int, readers: list[tuple[str, float]], wanted: int, *flags: str,
    overlaps: int = 0, told: int = 0,
) -> Any:
    """One writer and some readers until one of them has had enough; returns what they counted and where it ended.

    Not before they were overtaken `overlaps` times, and told of it `told` times: how often that happens in a number of
    records is up to the machine.
    """
    base, deadline_s = tmp_path / f"store-{capacity}", DEADLINE_S * max(1, wanted // WANTED)
    with Platform(base) as dw, ExitStack() as stack:
        dw.create_feed(ring_kit.spec(capacity))
        board = ring_kit.Board(tmp_path / "board")
        stack.callback(board.close)
        owns, workers = [], []
        for k, (mode, pace) in enumerate(readers):
            own = ring_kit.Board(tmp_path / f"own{k}")
            stack.callback(own.close)
            args = (base, "RING", tmp_path / "board", tmp_path / f"own{k}", wanted, pace, mode, k, *flags)
            worker = stack.enter_context(Worker(WORKERS / "ring_reads.py", *args, timeout=deadline_s))
            assert worker.readline().startswith("ready")
            owns.append(own)
            workers.append(worker)
        writer = stack.enter_context(
            Worker(WORKERS / "ring_writes.py", base, "RING", tmp_path / "board", 10**15, 7, timeout=deadline_s)
        )
        while not any(own["done"] for own in owns) or sum(overtaken(owns)) < overlaps or overtaken(owns)[2] < told:
            if flags and any(own["wrong"] for own in owns):
                break
            assert writer.process.poll() is None, writer.stderr()
            time.sleep(0.02)
        board["done"] = 1
        end = int(writer.finish())
        ends = [worker.finish().split() for worker in workers]
        counted = [own.all() for own in owns]
        dw.delete_feed("RING")
    return counted, ends, end


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("capacity", [1024, 16_384])
def test_fast_and_slow_readers_accept_nothing_wrong_and_know_what_they_lost(
    tmp_path: Path, fault: Fault, scale: int, capacity: int
) -> None:
    """Positions accepted and lost add up to what was published, for followers that skip and that raise."""
    readers = [("follow", 0.0), ("raise", 0.0005), ("look", 0.0)]
    with fault("F20", f"records read from a ring of {capacity:,} while it is overwritten") as trials:
        counted, ends, end = race(tmp_path, capacity, readers, WANTED // 2 * scale, overlaps=100, told=1)
        print(f"ring of {capacity}: {end} written;", *counted, sep="\n  ")
        trials.done(sum(own["accepted"] for own in counted))
        laps, overlaps, raised = overtaken(counted)
        trials.note(written=end, laps=laps, overtaken_while_copying=overlaps, raised=raised)
        assert sum(own["wrong"] for own in counted) == 0
        for own, (start, position, lost) in zip(counted[:2], ends[:2], strict=True):
            assert own["accepted"] + int(lost) == int(position) - int(start) == end
        assert counted[1]["raised"] > 0
        assert laps + overlaps + raised >= 100  # else nothing was put to the test


@pytest.mark.slow
@pytest.mark.faults
def test_the_race_sees_a_copy_that_is_not_checked_afterwards(tmp_path: Path) -> None:
    """The test above has teeth: without the check after the copy, wrong records are accepted."""
    counted, _, _ = race(tmp_path, 4096, [("follow", 0.0), ("follow", 0.0005)], 10**9, "nocheck")
    print("without the check:", [own["wrong"] for own in counted])
    assert sum(own["wrong"] for own in counted) > 0


@pytest.mark.slow
@pytest.mark.faults
def test_writers_killed_under_readers(tmp_path: Path, fault: Fault, scale: int) -> None:
    """Each successor goes on where the dead one had published, and readers go on with it; nothing wrong is accepted."""
    with fault("F21", "SIGKILL of a ring's writer under readers") as trials:
        kills = KILLS * scale
        inside, accepted = kill_writers(tmp_path, kills, DEADLINE_S * scale)
        trials.done(kills)
        trials.note(inside_a_write=inside, records_read=accepted)
        assert inside >= kills * 0.3


def kill_writers(tmp_path: Path, kills: int, deadline_s: float) -> tuple[int, int]:
    """How many of the kills came inside a write, and how many records the readers accepted."""
    base, rng, inside = tmp_path / "store", np.random.default_rng(5), 0
    with Platform(base) as dw, ExitStack() as stack:
        dw.create_feed(ring_kit.spec(16_384))
        board = ring_kit.Board(tmp_path / "board")
        stack.callback(board.close)
        owns, workers = [], []
        for k, (mode, pace) in enumerate([("follow", 0.0), ("look", 0.001)]):
            owns.append(ring_kit.Board(tmp_path / f"own{k}"))
            stack.callback(owns[-1].close)
            args = (base, "RING", tmp_path / "board", tmp_path / f"own{k}", 10**15, pace, mode, k)
            workers.append(stack.enter_context(Worker(WORKERS / "ring_reads.py", *args, timeout=deadline_s)))
            assert workers[-1].readline().startswith("ready")
        reader = dw["RING"]
        args = (base, "RING", tmp_path / "board", 10**15, "nursery")
        nursery = stack.enter_context(Worker(WORKERS / "ring_writes.py", *args, timeout=deadline_s))
        for k in range(kills):
            nursery.send(k)
            pid = int(nursery.readline())
            while board["started"] <= k:
                assert nursery.process.poll() is None, nursery.stderr()
                time.sleep(0.0005)
            seen = owns[0]["accepted"]
            while owns[0]["accepted"] == seen:  # the readers have gone on with this writer
                time.sleep(0.0005)
            time.sleep(float(rng.random() ** 3) * 0.02)
            os.kill(pid, signal.SIGKILL)
            assert nursery.readline() == "gone"
            chain = reader._ring_chain  # type: ignore[attr-defined]
            end = chain.refresh()
            words = chain.tail.segment.words
            assert end >= board["position"]  # what a write had returned for is there
            inside += words[fmt.CLAIM] > words[fmt.COMMIT]
        board["position"] = int(reader.end)
        board["done"] = 1
        ends = [worker.finish().split() for worker in workers]
        counted = [own.all() for own in owns]
        end = int(reader.end)
        dw.delete_feed("RING")
    print(f"{kills} kills, {inside} inside a write, {end} records;", *counted, sep="\n  ")
    assert sum(own["wrong"] for own in counted) == 0
    start, position, lost = map(int, ends[0])
    assert counted[0]["accepted"] + lost == position - start == end
    return inside, sum(own["accepted"] for own in counted)
