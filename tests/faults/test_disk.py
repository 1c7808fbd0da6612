"""A disk that is full: at random levels, and under a recording."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fault_table import Trials
from processes import Worker, run_python

WORKERS = Path(__file__).parent.parent / "workers"
Fault = Callable[[str, str], Trials]


def verdict(text: str) -> dict[str, int]:
    return {name: int(count) for name, _, count in (word.partition("=") for word in text.split())}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the mount point of a file system of 16 MiB, gone afterwards."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "dw-test", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_row_10_a_full_disk_without_privileges(tmp_store: Path, fault: Fault, scale: int) -> None:
    """F10. A limit on the size of files stands for the full disk: StorageFullError, nothing lost, and it goes on."""
    with fault("F10", "no file may grow (RLIMIT_FSIZE)") as trials:
        done = run_python(WORKERS / "fills_the_disk.py", "limit", tmp_store, 60 * scale, timeout=120 * scale)
        said = verdict(done.stdout)
        trials.done(said.pop("rounds"))
        trials.note(**said)
        assert said["refused"] >= 20 * scale


def test_row_10_a_file_system_that_is_full(small_disk: Path, fault: Fault, scale: int) -> None:
    """F9. A tmpfs of 16 MiB filled to random levels, 0 to 8 chunks left: no SIGBUS, nothing acknowledged is lost.

    Writers, marks, resizes, new writers and new feeds meet the full disk. What must be seen: StorageFullError, no file
    left over, and as soon as there is space the same writer goes on.
    """
    with fault("F9", "a full file system, at random levels") as trials:
        script = WORKERS / "fills_the_disk.py"
        done = run_python(script, "disk", small_disk / "store", 100 * scale, timeout=280 * scale)
        said = verdict(done.stdout)
        trials.done(said.pop("rounds"))
        trials.note(**said)
        assert trials.trials == 100 * scale
        assert said["refused"] >= 80 * scale


def test_a_disk_that_fills_under_a_recording(small_disk: Path, fault: Fault, scale: int) -> None:
    """F9. The real recorder against the local exchange; the disk is filled and freed under it, again and again.

    What must be seen: the refusals are counted and reported, the recording goes on when there is space, every record
    that the recorder counted as stored is there, what was not stored is marked as a gap, and the rest is a true part
    of what was sent, in order.
    """
    pytest.importorskip("websockets")
    with fault("F9", "a full disk under a recording") as trials:
        with Worker(WORKERS / "records_on_a_full_disk.py", small_disk, 4 * scale, timeout=200 * scale) as worker:
            said = verdict(worker.finish())
        trials.done(said.pop("fills"))
        trials.note(**said)
        assert said["refused"] >= 4
        assert said["gaps"] >= 1
        assert said["resumed"] >= 4 * scale
