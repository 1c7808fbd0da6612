"""Faults on purpose: kills, damage, starvation. Each test counts its trials for the table at the end of the session.

``python -m pytest tests/faults -q`` prints it; ``--fault-scale 100`` does more of what has no end. A test that runs
out of what it needs (root, strace) is skipped and says so.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker("faults")


@pytest.fixture
def quick_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory in memory where there is one: a kill does not care for syncs, which take most of a trial.

    Its own place for shared memory is in it, so that whatever killed processes leave goes with it.
    """
    parent = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    path = Path(tempfile.mkdtemp(prefix="dw-faults-", dir=parent))
    (path / "shm").mkdir(mode=0o700)
    monkeypatch.setenv("DEEPWATER_SHM", str(path / "shm"))
    yield path
    shutil.rmtree(path)
