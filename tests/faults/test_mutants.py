"""The tests have teeth: each of these mistakes is noticed by the test that is there for it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faults.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository to be spoilt."""
    to = tmp_path_factory.mktemp("mutants") / "main"
    skip = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("deepwater", "tests", "schemas"):
        shutil.copytree(ROOT / name, to / name, ignore=skip)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, to)
    return to


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.skipif("MUTANTS" not in os.environ, reason="by hand, with MUTANTS=1: each mutant is a run of its own")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mistake_is_noticed(copy: Path, mutant: Mutant) -> None:
    path = copy / "deepwater" / mutant.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, f"the code has changed: {mutant}"
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(mutant.killer)],
            cwd=copy, env={**os.environ, "POWER_STORIES": "8"}, capture_output=True, text=True, check=False,
            timeout=280,
        )  # fmt: skip
    finally:
        path.write_text(text, encoding="utf-8")
    assert done.returncode == 1, f"it lives: {mutant}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
