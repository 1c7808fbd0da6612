"""Power cuts of a real file system (F6): ext4 on a loop device, copied at random moments while writers write.

Needs root. For a night:
``python -m pytest -n0 tests/faults/test_real_power_cuts.py --fault-scale 100 -o faulthandler_timeout=0``.
"""

from __future__ import annotations

import json
import mmap
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fault_table import Trials
from faults.real_disk import (  # noqa: F401 (fixtures)
    RealDisk,
    mounted,
    real_disk,
    real_disks,
    written_back_often,
)
from processes import Worker

WORKERS = Path(__file__).parent.parent / "workers"
Fault = Callable[[str, str], Trials]
CUTS_A_LIFE = 5
OPTIONS = ("commit=1", "commit=1,data=writeback", "commit=5")
"""Of the mount, in turn: with ``data=writeback`` ext4 puts even less in order."""
FEEDS = ("F0", "F1", "F2")
BEGUN, DURABLE = 0, 2


@dataclass
class Cut:
    """The image of a disk that lost its power, and what had been promised by then: at least and at most, by feed."""

    image: Path
    feeds: dict[str, list[int]]
    how: str


@contextmanager
def shared_words(path: Path) -> Iterator[memoryview]:
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapping, memoryview(mapping).cast("Q") as words:
        yield words
    path.unlink()


def live(directory: Path, life: int, cuts: int, flags: tuple[str, ...]) -> list[Cut]:
    """A fresh disk, writers on it until they are killed, and what it was like at random moments before."""
    rng, options, taken = random.Random(life), OPTIONS[life % len(OPTIONS)], []
    script, board = WORKERS / "writes_until_power_cut.py", directory / "board"
    with (
        shared_words(board) as words,
        real_disk(directory, options) as disk,
        Worker(script, disk.path / "store", board, life, *flags, timeout=120) as writer,
    ):
        writer.readline()
        for k in range(cuts):
            wait_and_write_back(disk, rng, 0.02 + 0.25 * rng.random())
            durable = [words[8 * f + DURABLE] for f in range(len(FEEDS))]  # before: the copy may have more
            image = disk.cut(directory / f"cut-{k}")
            begun = [words[8 * f + BEGUN] for f in range(len(FEEDS))]  # after: the freeze took its time
            feeds = {name: [durable[f], begun[f]] for f, name in enumerate(FEEDS)}
            taken.append(Cut(image, feeds, f"life {life} ({options}), cut {k}"))
        assert writer.process.poll() is None, writer.stderr()
    return taken


def wait_and_write_back(disk: RealDisk, rng: random.Random, seconds: float) -> None:
    """Let some time pass in which the kernel now and then writes pages in an order of its own."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if rng.random() < 0.5:
            disk.write_back_some(rng)
        time.sleep(0.002)


def look(judge: Worker, cut: Cut, directory: Path, goes_on: bool = True) -> dict[str, Any]:
    """Mount what the power cut left (ext4 replays its journal) and have it judged by a process of another boot."""
    with mounted(cut.image, directory / "after") as disk:
        judge.send(json.dumps({"base": str(disk / "store"), "feeds": cut.feeds, "writes": goes_on}))
        found = json.loads(judge.readline())
    cut.image.unlink()
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("real_disks", "written_back_often")
def test_a_disk_that_loses_its_power_holds_all_that_was_flushed(tmp_path: Path, fault: Fault, scale: int) -> None:
    """F6. Three feeds, durability os, interval and always; a new disk every five cuts.

    What must be seen: ext4 mounts; each feed opens to a prefix of what was written, whole writes but for the last one,
    with all that the last `flush` before the cut said (of "always": every write that had returned), marks included;
    what the files call durable is intact; the next writer goes on where the readers saw the end; then `verify` finds
    no damage but that of the store's cache. That the cuts have power: on some of these disks the count has run ahead
    of the records, and a reader that believes it would be wrong.
    """
    wanted, counts = 20 * scale, Counter[str]()
    with (
        fault("F6", "power cut of ext4 on a loop device") as trials,
        Worker(WORKERS / "opens_after_power_cut.py", timeout=280 * scale) as judge,
    ):
        for life in range(wanted // CUTS_A_LIFE):
            for cut in live(tmp_path, life, CUTS_A_LIFE, ()):
                found = look(judge, cut, tmp_path)
                error = found.pop("error")
                counts.update(found)
                trials.done()
                if error:
                    trials.fail(f"{cut.how}, {cut.feeds}:\n{error}")
        judge.finish()
        deceived = counts["deceived"]
        trials.note(count_runs_ahead=deceived, feeds_with_more_than_flushed=counts["beyond"], records=counts["records"])
        if wanted >= 100 and deceived < wanted // 20:  # one in six; of twenty it may be none
            trials.fail("the cuts have no power: hardly a disk was in disorder")


@pytest.mark.usefixtures("real_disks", "written_back_often")
def test_power_cuts_find_a_keeper_that_says_durable_too_early(tmp_path: Path) -> None:
    """The power of the test above: a flush that does not wait for its syncs is caught within a few cuts."""
    with Worker(WORKERS / "opens_after_power_cut.py", timeout=100) as judge:
        for life in range(6):
            cuts = live(tmp_path, life, CUTS_A_LIFE, ("broken",))
            noticed = [look(judge, cut, tmp_path, goes_on=False)["error"] for cut in cuts]
            if any(noticed):
                return
    pytest.fail("30 power cuts, and nobody noticed")
