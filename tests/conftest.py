"""What every test is held to: it leaves nothing behind, can be repeated, and says when data was missing."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

from check_kit import pruned, sound, store  # noqa: F401  # fixtures for everyone
from fault_table import FaultTable, Trials

ROOT = Path(__file__).resolve().parent.parent

# "ci", the default everywhere: the same examples in each run, so a run that passed passes again. No deadline:
# no test asserts a time, and a loaded machine is no fault. "explore" draws new ones and keeps the failures:
# HYPOTHESIS_PROFILE=explore python -m pytest -q
_NO_FAULT = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=_NO_FAULT
)
hypothesis.settings.register_profile("explore", deadline=None, suppress_health_check=_NO_FAULT)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave helpers alone: `--doctest-modules` would import every file here to look for examples."""
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_helper else None


# ------------------------------------------------------------------------------------------ the order of the suite

_LONG = {"test_oracle", "test_power_cuts", "test_crash", "test_kills", "test_model"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a minute comes first, so that no process is at it alone in the end."""
    items.sort(key=lambda item: item.path.stem not in _LONG)


# ------------------------------------------------------------------------------------------ real data


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the directory of recorded market data beside the repository; skip where there is none."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("needs the recorded market data in ../shared/data")
    return path


class DataTests:
    """Marks the tests that ask for `shared_data`, and counts how many of them ran, in whichever process."""

    def __init__(self) -> None:
        self.ran: set[str] = set()
        self.skipped: set[str] = set()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "data" in report.keywords and report.when != "teardown":
            if report.skipped:
                self.skipped.add(report.nodeid)
            elif report.when == "call":
                self.ran.add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"data tests: {len(self.ran)} ran, {len(self.skipped)} skipped")


def pytest_addoption(parser: pytest.Parser) -> None:
    # Here and not in tests/faults: pytest reads options from the conftest files it knows at the start only.
    parser.addoption(
        "--fault-scale", type=int, default=1, metavar="N",
        help="do N times as many of the faults that have no end (10 for an hour, 100 for a night)",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(DataTests(), "deepwater-data-tests")
    config.pluginmanager.register(FaultTable(), "deepwater-fault-table")


# ------------------------------------------------------------------------------------------ stores


@pytest.fixture
def tmp_store(tmp_path: Path) -> Path:
    """Return a path for a store; nothing is there yet."""
    return tmp_path / "store"


# ------------------------------------------------------------------------------------------ faults


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> int:
    """How many times the bounded number of trials."""
    return request.config.getoption("--fault-scale")


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Callable[[str, str], Trials]:
    """``with fault("F1", "a writer is killed") as trials: ...`` counts for the table."""
    return lambda number, what: Trials(request.node, number, what)


# ------------------------------------------------------------------------------------------ leaks

_FAILED = pytest.StashKey[bool]()
_PATIENCE_S = 3.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


def _tracker() -> tuple[object, object]:
    """Return pid and fd of multiprocessing's resource tracker: one a process, it stays by design."""
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    return getattr(tracker, "_pid", None), getattr(tracker, "_fd", None)


_SHM = Path(os.environ.get("DEEPWATER_SHM") or "/dev/shm")


def _shared_memory(below: str) -> Iterator[Path]:
    """Yield what stores in the directory `below` have in shared memory: other runs of the tests may be at it too."""
    for about in _SHM.glob("deepwater-*/*/store.json"):
        with suppress(OSError, ValueError):
            if json.loads(about.read_text())["base_path"].startswith(below):
                yield from about.parent.iterdir()


def _held(below: str) -> set[tuple[object, ...]]:
    """Return what this process holds: descriptors, mappings, threads, children, names in shared memory."""
    pid, tracker_fd = _tracker()
    held: set[tuple[object, ...]] = {("thread", thread.name, id(thread)) for thread in threading.enumerate()}
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of this very listing
            held.add(("descriptor", int(fd), os.readlink(f"/proc/self/fd/{fd}")))
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        where, access, *_, name = line.split(maxsplit=5)
        if access.endswith(b"s"):  # shared: libraries and the heap are private
            held.add(("mapping", where.split(b"-")[0].decode(), os.fsdecode(name)))
    for task in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that just ended
            children = Path(f"/proc/self/task/{task}/children").read_text().split()
            held.update(("child process", int(child)) for child in children)
    held.update(("shared memory", str(path)) for path in _shared_memory(below))
    return {entry for entry in held if entry[:2] not in {("child process", pid), ("descriptor", tracker_fd)}}


def _sweep_metrics(below: str) -> None:
    """Remove what recorders leave in shared memory by design: the metrics of recordings that have ended."""
    for directory in {path.parent for path in _shared_memory(below)}:
        names = {path.name for path in directory.iterdir()} - {"store.json"}
        if names and all(name.startswith("DW-METRICS-") and not name.endswith(".wake") for name in names):
            shutil.rmtree(directory)
            with suppress(OSError):
                directory.parent.rmdir()


def _sweep_after_kills(node: pytest.Item) -> None:
    """Remove what killed writers left in shared memory: of stores in the directory of this test only."""
    if node.get_closest_marker("faults") is None or "tmp_path" not in node.funcargs:  # type: ignore[attr-defined]
        return
    mine = str(node.funcargs["tmp_path"])  # type: ignore[attr-defined]
    for directory in {path.parent for path in _shared_memory(mine)}:
        shutil.rmtree(directory)
        with suppress(OSError):
            directory.parent.rmdir()


@pytest.fixture(autouse=True, scope="module")
def what_is_old_is_not_searched_for_garbage() -> None:
    """Keep `gc.collect` to what the tests of one module made: all of a long session's objects take 0.3 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leaves_nothing_behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fail a test after which this process holds more than before it.

    A failed test is let off: the traceback that is shown keeps its locals alive. A test that kills (marker `faults`)
    may leave what killed writers leave in shared memory.
    """
    below = str(tmp_path_factory.getbasetemp())
    before = _held(below)
    yield
    _sweep_after_kills(request.node)
    _sweep_metrics(below)
    until = time.monotonic() + _PATIENCE_S
    while (left := _held(below) - before) and not request.node.stash.get(_FAILED, False):
        if time.monotonic() > until:
            pytest.fail("left behind: " + "; ".join(sorted(" ".join(map(str, entry)) for entry in left)))
        gc.collect()  # only now: it costs more than most tests
        time.sleep(0.01)
