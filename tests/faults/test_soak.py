"""Everything at once (F40): writers killed and started again, readers killed, feeds made and deleted, beside the rest.

Twenty seconds in CI; by hand as long as wanted: ``python -m pytest -n0 tests/faults/test_soak.py --fault-scale 180 -o
faulthandler_timeout=0`` is an hour.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import re
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import model
from deepwater import Platform
from deepwater.check import verify
from fault_table import Trials
from processes import Worker

WORKERS = Path(__file__).parent.parent / "workers"
Fault = Callable[[str, str], Trials]
SIZE = model.CHECKED.itemsize
SECONDS = 20
MORE_FDS, MORE_MAPS, MORE_KB = 6, 6, 2048
"""By how much what is held may differ: the chunks held vary by a few, and parsed headers are kept, up to 1,024 of them
(some 1.2 MB), as ever new chunks are opened. A round that lost one descriptor would make it hundreds."""
SPEC: dict[str, Any] = {"ts_col": "ts_us", "fields": model.CHECKED_FIELDS}
FEEDS: dict[str, dict[str, Any]] = {
    "D": {"index_playback": True, "chunk_size_bytes": 500 * SIZE, "durability": "interval", "durability_ms": 100},
    "R": {"persist": False, "chunk_size_bytes": 8_192 * SIZE},
    "L": {"index_playback": True, "chunk_size_bytes": 1_000 * SIZE},
}
STAYING = [("follow", "D"), ("follow", "R"), ("write", "L"), ("read", "L"), ("churn", "T"), ("verify", "-")]
FILES = re.compile(r"layout\.json|settings\.json|oldest\.json|[DL]\.reg|chunk_\d{8}\.(bin|idx|crc)")


@dataclass
class Vitals:
    """Samples of what a process holds: descriptors, mappings, kilobytes of memory of its own."""

    pid: int
    samples: list[tuple[int, int, int]] = field(default_factory=list)

    def look(self) -> None:
        status = Path(f"/proc/{self.pid}/status").read_text()
        anon = int(re.search(r"RssAnon:\s+(\d+)", status)[1])  # type: ignore[index]
        maps = Path(f"/proc/{self.pid}/maps").read_text().count("\n")
        self.samples.append((len(os.listdir(f"/proc/{self.pid}/fd")), maps, anon))

    def growth(self) -> tuple[int, int, int]:
        """By how much the medians of the last third exceed those of the first third after a quarter of warm-up."""
        warm = self.samples[len(self.samples) // 4 :]
        third = len(warm) // 3
        early, late = ([statistics.median(column) for column in zip(*part, strict=True)]
                       for part in (warm[:third], warm[-third:]))  # fmt: skip
        return int(late[0] - early[0]), int(late[1] - early[1]), int(late[2] - early[2])


class Nursery:
    """Writers and readers that are killed, and put back; who ends by itself has failed."""

    def __init__(self, stack: ExitStack, base: Path, words: Path, timeout: float) -> None:
        self._worker = stack.enter_context(Worker(WORKERS / "soak_nursery.py", base, words, timeout=timeout))
        stack.callback(self.let_none_live)
        self.pids: dict[str, int] = {}
        self.kills: Counter[str] = Counter()

    def start(self, role: str, seed: int) -> None:
        self._worker.send(f"{role[:1] if role in 'DR' else 'read'} {seed}")
        self.pids[role] = int(self._worker.readline())

    def kill(self, role: str) -> None:
        pid = self.pids.pop(role)
        with suppress(ProcessLookupError):  # it ended by itself, and the nursery says so
            os.kill(pid, signal.SIGKILL)
        said = self._worker.readline()
        assert said == f"gone {-signal.SIGKILL} {pid}", f"{role}: {said}\n{self._worker.stderr()}"
        self.kills[role[:1] if role in "DR" else "read"] += 1

    def let_none_live(self) -> None:
        """After a failure."""
        for pid in self.pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def finish(self) -> None:
        for role in list(self.pids):
            self.kill(role)
        self._worker.finish()


@contextmanager
def shared_words(path: Path) -> Iterator[memoryview]:
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapping, memoryview(mapping).cast("Q") as words:
        yield words


@pytest.mark.slow
def test_a_soak_of_everything_at_once(quick_dir: Path, fault: Fault, scale: int) -> None:
    """F40. A writer of a durable feed (rotating, snapshots, gaps, flushes, resizes, prunes) and one of a ring, killed
    at random; readers killed at random; two followers, one that makes and deletes feeds, and `verify`, that stay.

    What must be seen: no acknowledged write is lost, every record read is as written, followers account for every
    position, `verify` finds no damage; a writer and a reader that stay hold as many descriptors, mappings and memory at
    the end as at the beginning; afterwards there is no file that no one promised.
    """
    base, seconds = quick_dir / "store", SECONDS * scale
    with Platform(base) as dw:
        for name, about in FEEDS.items():
            dw.create_feed({**SPEC, **about, "feed_name": name})
    with fault("F40", "kills and restarts amid everything else") as trials:
        with shared_words(quick_dir / "words") as words:
            kills, vitals, did = soak(base, quick_dir / "words", seconds)
            trials.done(sum(kills.values()))
            trials.note(writers_killed=kills["D"] + kills["R"], readers_killed=kills["read"], **totals(did))
            for role, held in vitals.items():
                fds, maps, anon = held.growth()
                trials.note(**{f"{role} grew": f"{fds:+} fds {maps:+} maps {anon:+} kB of {held.samples[-1][2]}"})
                if fds > MORE_FDS or maps > MORE_MAPS or anon > MORE_KB:
                    trials.fail(f"the {role} that stays grew: {fds} descriptors, {maps} mappings, {anon} kB")
            check_end(base, words)
        assert kills["D"] >= seconds / 2 and kills["R"] >= seconds / 4 and kills["read"] >= seconds / 2
        assert all(entry["rounds"] >= 10 for entry in did.values()), did


def totals(did: dict[str, dict[str, int]]) -> dict[str, int]:
    readers = ("follow D", "follow R", "read L", "churn T")
    return {
        "records read": sum(did[role]["records"] for role in readers),
        "feeds made and deleted": did["churn T"]["rounds"],
        "verified": did["verify -"]["rounds"],
        "lost to retention": did["follow D"]["lost"],
    }


def soak(base: Path, words: Path, seconds: float) -> tuple[Counter[str], dict[str, Vitals], dict[str, Any]]:
    """Let it all run; kills by role, samples of those that stay, and what each of those that stay did."""
    rng, until = random.Random(40), time.monotonic() + seconds
    with ExitStack() as stack:
        staying = {}
        for role, feed in STAYING:
            args = (role, base, feed, rng.randrange(10**6))
            staying[f"{role} {feed}"] = stack.enter_context(
                Worker(WORKERS / "soak_stays.py", *args, timeout=seconds * 3 + 120)
            )
        for worker in staying.values():
            assert worker.readline() == "ready"
        nursery = Nursery(stack, base, words, seconds * 3 + 120)
        roles = ["D", "R", "reader 1", "reader 2"]
        for role in roles:
            nursery.start(role, rng.randrange(10**6))
        vitals = {role: Vitals(staying[f"{role} L"].pid) for role in ("write", "read")}
        while time.monotonic() < until:
            time.sleep(0.02 + 0.2 * rng.random() ** 2)
            role = rng.choice(["D", *roles])
            nursery.kill(role)
            nursery.start(role, rng.randrange(10**6))
            for name, worker in staying.items():
                assert worker.process.poll() is None, f"{name}:\n{worker.stderr()}"
            for held in vitals.values():
                held.look()
        nursery.finish()
        with Platform(base) as dw:
            ends = {name: dw[name] for name in ("D", "R")}
            for name, reader in ends.items():
                staying[f"follow {name}"].send(int(reader.end))
                reader.close()
        for name, worker in staying.items():
            if not name.startswith("follow"):
                worker.send("end")
        did = {name: json.loads(worker.finish()) for name, worker in staying.items()}
    return nursery.kills, vitals, did


def check_end(base: Path, words: memoryview) -> None:
    """All that was acknowledged is there; the next writers go on; nothing is left over."""
    with Platform(base) as dw:
        for k, name in enumerate(("D", "R")):
            acknowledged, under_way = words[8 * k], words[8 * k + 1]
            with dw.create_writer(name) as writer:
                end = writer.end
                assert acknowledged <= end <= under_way
                writer.write_batch(model.checked_records(end, 3, end))
            with dw[name] as reader:
                held = model.joined(reader.rows(reader.first, reader.end), model.CHECKED)
                assert (held["check"] == model._checks(held)).all() and int(held["position"][-1]) == end + 2
        with dw["D"] as reader:
            assert len(reader.gaps()) <= words[3] + 1
        report = verify(base)
        assert report.code < 2, [str(finding) for finding in report.findings]
        assert dw.list_feeds() == sorted(FEEDS)
        files = [path.name for name in "DL" for path in (base / "data" / name).iterdir()]
        assert not (left := [name for name in files if not FILES.fullmatch(name)]), left
        assert sorted(path.name for path in (base / "data").iterdir()) == sorted(FEEDS)
        for name in FEEDS:
            dw.delete_feed(name)
