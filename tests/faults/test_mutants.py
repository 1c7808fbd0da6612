"""The tests have teeth: each of these mistakes in the library is noticed by the test that is there for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from fault_table import Trials
from faults.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
# A run of pytest for each mutant: no plugin, one process, nothing kept for the next run. It takes 0.9 s, not 1.8 s.
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--override-ini=addopts=",
          "--override-ini=faulthandler_timeout=60"]  # fmt: skip
ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "POWER_STORIES": "8"}
BY_HAND = pytest.mark.skipif("MUTANTS" not in os.environ, reason="takes long: by hand, with MUTANTS=1")


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """A copy of the repository to be spoilt; in memory where there is some: most of these tests sync."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="dw-mutants-", dir=parent) as directory:
        to = Path(directory) / "main"
        for name in ("deepwater", "tests", "schemas"):
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, to)
        yield to


def run(copy: Path, *killers: str) -> subprocess.CompletedProcess[str]:
    """Run some tests in the copy."""
    command = [*PYTEST, f"--basetemp={copy.parent / 'tests'}", *killers]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=250
    )  # fmt: skip


@contextmanager
def spoilt(path: Path, mutant: Mutant) -> Iterator[None]:
    """The file with the mistake in it. What Python has compiled is removed: it goes by size and second of a change."""
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, f"the code has changed: {mutant}"
    compiled = Path(cache_from_source(path))
    try:
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        compiled.unlink(missing_ok=True)
        yield
    finally:
        path.write_text(text, encoding="utf-8")
        compiled.unlink(missing_ok=True)


@BY_HAND
def test_without_a_mistake_none_of_them_says_anything(copy: Path) -> None:
    """Each killer is one test, and passes: one that fails anyway, or is skipped, notices nothing.

    By hand, because a run of all tests does the same: what is asked of a mutant's killer besides is that it says what
    it is there to say.
    """
    killers = sorted({mutant.killer for mutant in MUTANTS})
    done = run(copy, *killers)
    assert done.returncode == 0 and f"\n{len(killers)} passed in " in done.stdout, done.stdout[-3000:] + done.stderr


@pytest.mark.parametrize("mutant", [
    pytest.param(mutant, id=mutant.name, marks=BY_HAND if mutant.by_hand else ()) for mutant in MUTANTS
])  # fmt: skip
def test_a_mistake_is_noticed(copy: Path, fault: Callable[[str, str], Trials], mutant: Mutant) -> None:
    """By the test that is there for it, and for the right reason."""
    with fault("mutants", "of the library") as trials:
        trials.done()
        with spoilt(copy / "deepwater" / mutant.file, mutant):
            done = run(copy, mutant.killer)
        said = f"{mutant}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
        assert done.returncode == 1, f"it lives: {said}"
        assert re.search(mutant.says, done.stdout), f"noticed for another reason: {said}"
        trials.note(killed=1)
