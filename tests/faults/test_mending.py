"""Damage of every kind to the files of a store, and what `deepwater repair` makes of it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from check_kit import ROWS, flip, said, spoil
from deepwater import Platform
from deepwater.check import verify
from deepwater.repair import repair
from fault_table import Trials
from processes import Worker
from test_repair import CHUNKS, everything, gaps, original

Fault = Callable[[str, str], Trials]
WORKERS = Path(__file__).parent.parent / "workers"


def test_any_damage_by_chance(store: Path, quick_dir: Path, fault: Fault, scale: int) -> None:
    """P8 and its mending. Bytes of one or two files of a store are flipped, zeroed, filled with junk, cut or lost.

    What must be seen: afterwards nothing is wrong, a second repair does nothing, and every record that no mark and no
    retention speaks of is where it was.
    """
    rng, lossy = random.Random(9), 0
    files = sorted(p for p in store.rglob("*") if p.is_file() and p.name not in ("registry.lock", "LOCK"))
    with fault("F28", "damage by chance, then repair") as trials:
        for number in range(150 * scale):
            copy = quick_dir / f"copy{number}"
            shutil.copytree(store, copy)
            for path in rng.sample(files, rng.choice((1, 1, 2))):
                damage(copy / path.relative_to(store), rng)
            trials.done()
            lossy += bool(repair(copy, apply=True).lost)
            report = verify(copy)
            assert report.code == 0, (number, said(report))
            assert not repair(copy).changes, number
            compare_with_losses(copy)
            shutil.rmtree(copy)
        trials.note(with_losses=lossy)


def damage(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    at = rng.randrange(max(1, size))
    how = rng.choice(("bit", "zeros", "cut", "lost", "junk"))
    if how == "bit" and size:
        flip(path, 8 * at + rng.randrange(8))
    elif how == "zeros":
        spoil(path, at, bytes(min(size - at, rng.choice((8, 512, 20_000)))))
    elif how == "junk":
        spoil(path, at, rng.randbytes(min(size - at, rng.choice((1, 64, 5000)))))
    elif how == "cut":
        os.truncate(path, at)
    else:
        path.unlink()


def compare_with_losses(store: Path) -> None:
    """Each record is as written, or a mark says it is not."""
    wanted = original()
    with Platform(store) as dw, dw["F"] as reader:
        first, end = int(reader.first), int(reader.end)
    have, good = everything(store), np.ones(CHUNKS * ROWS, bool)
    for position, _, count in gaps(store):
        good[position : min(position + count, CHUNKS * ROWS)] = False
    good = good[first:end]
    assert (have[good] == wanted[first:end][good]).all()


def test_a_repair_that_is_killed(store: Path, quick_dir: Path, fault: Fault, scale: int) -> None:
    """F3. SIGKILL before each step of a repair (in CI a sample of them) of a feed with damage of every kind.

    What must be seen: the next repair finishes the work, nothing more is lost than one that was not killed loses, and
    nothing is wrong afterwards.
    """
    feed = store / "data" / "F"
    flip(feed / "chunk_00000002.bin", 8 * (1 << 14) + 800)
    (feed / "chunk_00000003.bin").unlink()
    spoil(feed / "chunk_00000001.idx", 0, bytes(512))
    spoil(feed / "chunk_00000004.crc", 4096, b"\xff" * 8)
    (feed / "F.reg").unlink()
    (feed / "settings.json").write_text("?")
    shutil.copytree(store, quick_dir / "store")
    with fault("F3", "a repair killed before its steps") as trials:
        with Worker(WORKERS / "repair_dies.py", quick_dir / "store", 3, 40 * scale, timeout=250 * scale) as nursery:
            lines = nursery.finish().split("\n")[:-1]
        trials.done(len(lines) - 1)
        trials.note(steps=int(lines[-1]))
        assert len(set(lines[:-1])) > 3
