"""Writers that are killed: at random moments, and at every opcode."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepwater.check import verify
from fault_table import Trials
from processes import Worker

WORKERS = Path(__file__).parent.parent / "workers"
OPENING, OUTSIDE, IN_WRITE, IN_LONG_WRITE, FAILED = range(5)
Fault = Callable[[str, str], Trials]


@pytest.mark.slow
def test_writers_killed_at_random_moments(quick_dir: Path, fault: Fault, scale: int) -> None:
    """F1. A parent that has everything loaded forks a writer, sleeps random()^3 x 20 ms and kills it.

    The writer acknowledges each write in anonymous shared memory. What must be seen: nothing acknowledged is lost,
    every write is whole or absent (over chunks too), marks count with their records, the next writer goes on in the
    same feed. At least 30 % of the kills must land inside a write, 10 % inside one that goes over a chunk's end.
    """
    kills = 1000 * scale
    with fault("F1", "SIGKILL of a writer at a random moment") as trials:
        with Worker(WORKERS / "dies_writing.py", quick_dir / "store", kills, 7, timeout=290 * scale) as nursery:
            found = []
            while len(found) < kills:
                found.append(json.loads(nursery.readline()))
                trials.done()
            nursery.finish()
        phases = Counter(kill["phase"] for kill in found)
        inside = phases[IN_WRITE] + phases[IN_LONG_WRITE]
        trials.note(inside_a_write=inside, of_them_over_a_chunk=phases[IN_LONG_WRITE], opening=phases[OPENING],
                    records=sum(kill["written"] for kill in found))  # fmt: skip
        assert phases[FAILED] == 0
        trials.note(verify=", ".join(sorted(errors_of(quick_dir / "store"))) or "nothing wrong")
        assert not errors_of(quick_dir / "store")
        assert inside >= 0.3 * kills
        assert phases[IN_LONG_WRITE] >= 0.1 * kills
        assert phases[OPENING] >= 0.02 * kills


def errors_of(store: Path) -> set[str]:
    """What `verify` calls damage there."""
    return {str(finding) for finding in verify(store).findings if finding.severity == "error"}


def test_kills_find_a_writer_that_publishes_before_it_writes(quick_dir: Path) -> None:
    """The power of the test above: broken on purpose it is caught within some of its kills."""
    nursery = Worker(WORKERS / "dies_writing.py", quick_dir / "store", 200, 7, "broken", timeout=100)
    with nursery, pytest.raises(AssertionError, match=r"in judge\n"):
        nursery.finish()


OPCODES_IN_CI = {"chunks": 300, "ring": 200}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chunks", "ring"])
def test_writers_killed_at_every_opcode(quick_dir: Path, fault: Fault, scale: int, kind: str) -> None:
    """F2. `sys.settrace` with `f_trace_opcodes` counts every opcode of the library in a forked writer's life.

    Open, single values, small batches, one across chunks with a snapshot, staging, a gap, a resize (a rotation), flush,
    close; SIGKILL before the opcode that child was born for. What must be seen: as F1, and the files hold exactly what
    readers see, and no file is left half-made. All opcodes with ``--fault-scale 100``, else an even sample.
    """
    most, seed = (0 if scale >= 100 else OPCODES_IN_CI[kind] * scale), 11
    with fault("F2", f"SIGKILL of a writer at each opcode, {kind}") as trials:
        phases = opcode_kills(quick_dir, kind, most, seed, 290 * scale)
        for phase in phases:
            trials.done(phase["kills"])
            for text in phase["failures"]:
                trials.fail(text)
        opcodes = sum(phase["opcodes"] for phase in phases)
        survived = sum(phase["points"] - phase["kills"] for phase in phases)
        trials.note(opcodes=opcodes, seed=seed, not_reached=survived)
        assert survived <= 0.02 * trials.trials, "a trace is not as long as the one that was counted"
        assert all(phase["kills"] for phase in phases if phase["opcodes"] > 2 * opcodes / max(1, trials.trials))


def opcode_kills(base: Path, kind: str, most: int, seed: int, timeout: float, *flags: str) -> list[dict[str, Any]]:
    with Worker(WORKERS / "dies_at_each_opcode.py", base, kind, most, seed, *flags, timeout=timeout) as nursery:
        return [json.loads(line) for line in nursery.finish().splitlines()]


@pytest.mark.parametrize("kind", ["chunks", "ring"])
def test_opcode_kills_find_a_writer_that_publishes_before_it_writes(quick_dir: Path, kind: str) -> None:
    """The power of the test above, with a library broken on purpose."""
    phases = opcode_kills(quick_dir, kind, 240, 3, 100, "broken")
    assert any(phase["failures"] for phase in phases)
