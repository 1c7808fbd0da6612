"""A store to be damaged, for the tests of verify and repair."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import Platform
from deepwater.findings import Report

ROWS = 2000
SIZE = model.CHECKED.itemsize
SPEC: dict[str, Any] = {
    "feed_name": "F", "ts_col": "ts_us", "index_playback": True, "chunk_size_bytes": 2500 * SIZE,
    "fields": [*model.CHECKED_FIELDS, {"name": "late_us", "type": "uint64"}, {"name": "good", "type": "bool"},
               {"name": "_", "type": "_7"}],
}  # fmt: skip
DTYPE = model.dtype_of(SPEC["fields"])
T0 = model.EPOCH_2026


def records(first: int, rows: int) -> np.ndarray:
    """Records whose second clock steps back."""
    out = np.zeros(rows, DTYPE)
    plain = model.checked_records(first, rows, 1)
    for name in model.CHECKED.names or ():
        out[name] = plain[name]
    out["late_us"] = T0 + np.arange(first, first + rows) * 7 % 1000
    out["good"] = True
    return out


def build(path: Path, chunks: int = 4) -> None:
    """A store with feed F: sealed chunks with snapshots and a gap, an active one; closed."""
    with Platform(path) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("F") as writer:
            for k in range(chunks):
                at = writer.end
                writer.write_batch(records(at, 40), create_index=True)
                writer.mark_gap(lost=k + 1, reason="a test")
                writer.write_batch(records(at + 40, ROWS - 40))
                if k + 1 < chunks:
                    writer._guarded(writer._rotate)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "store"
    build(path)
    return path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A copy with its times: a rotten bit changes no mtime."""
    shutil.copytree(sound, tmp_path / "store")
    return tmp_path / "store"


def feed(store: Path) -> Path:
    return store / "data" / "F"


def spoil(path: Path, offset: int, data: bytes) -> None:
    """Change bytes of a file in place, and not its time."""
    info = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def flip(path: Path, bit: int) -> None:
    with path.open("rb", buffering=0) as file:  # some files are long
        byte = os.pread(file.fileno(), 1, bit // 8)[0]
    spoil(path, bit // 8, bytes([byte ^ 1 << bit % 8]))


def said(report: Report) -> list[str]:
    return [str(finding) for finding in report.findings]


@pytest.fixture
def pruned(store: Path) -> Path:
    """A store whose first two chunks retention let go; the word of it stands in the active chunk."""
    with Platform(store) as dw:
        assert dw.prune("F", max_bytes=500_000).chunks == 2
    assert not (feed(store) / "chunk_00000002.bin").exists()
    return store
