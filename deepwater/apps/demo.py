"""The demonstration: a market on this machine, recorded by one process and read back by another.

Three processes and a directory: a local exchange (which loses a frame and hangs up once), the real
recorder on its websocket, and the caller, who sees the records arrive in the mapped files and then
asks questions about them. The two children are the commands `exchange` and `record` themselves,
so what is shown is what a user gets. Nothing here prints.

Children are reaped whatever happens. Should the caller be killed, they end by themselves: each has a duration.
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from deepwater.apps import specs
from deepwater.describe import overview
from deepwater.errors import DeepwaterError
from deepwater.index import UNKNOWN
from deepwater.platform import Platform
from deepwater.reader import Reader
from deepwater.timestamps import format_us
from deepwater.window import Window

__all__ = ["BAR", "DemoError", "Gap", "Progress", "Report", "run_demo", "second_bars"]

PRODUCTS = ("BTC-USD", "ETH-USD")
STEPS_PER_SECOND = 200
DROP_AT, CLOSE_AT = 0.3, 0.6
"""When the exchange loses a frame and when it hangs up, as parts of the recording."""
_START_S, _GRACE_S, _STOP_S = 20.0, 20.0, 5.0
_LOOK_EVERY_S = 0.1

Array = npt.NDArray[Any]
_PRICES = ("open", "high", "low", "close", "volume")
BAR = np.dtype([("second_us", "u8"), *((name, "f8") for name in _PRICES), ("trades", "u8")])


class DemoError(DeepwaterError):
    """The demonstration did not come off; the message says which part and why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been recorded so far, as seen from this process: `records` by feed, `gaps` of one feed."""

    elapsed_s: float
    records: dict[str, int]
    gaps: int


@dataclass(frozen=True, slots=True)
class Gap:
    """One interruption, as marked in `feeds`: between two times (µs), `lost` records if anybody knows."""

    from_us: int
    to_us: int
    lost: int | None
    reason: str
    feeds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What the caller read back.

    Attributes
    ----------
    base_path : str
        Where the data lies and stays.
    feed : str
        The feed that the table and the bars are of.
    start, end : str
        The range of the table, as it was asked for: two whole seconds of the primary clock.
    trades : Window
        Its rows.
    bars : array of `BAR`
        One a second of the recording, by the exchange's clock.
    gaps : list of Gap
        From the stored marks, of all feeds, the same one once.
    feeds : list of dict
        `deepwater.describe.overview` of each feed.
    counters : dict
        The recorder's totals.
    delay_us : tuple of float
        From the socket to the record: median and 99th percentile over all records.
    read_rows, read_s : int, float
        All records of all feeds read and one column of each added up; the shortest of three times.
    python, shell : tuple of str
        Lines to paste.
    """

    base_path: str
    feed: str
    start: str
    end: str
    trades: Window
    bars: Array
    gaps: list[Gap]
    feeds: list[dict[str, Any]]
    counters: dict[str, Any]
    delay_us: tuple[float, float]
    read_rows: int
    read_s: float
    python: tuple[str, ...]
    shell: tuple[str, ...]


def run_demo(
    base_path: str | None = None, seconds: float = 8.0, on_progress: Callable[[Progress], None] | None = None
) -> Report:
    """Record a synthetic market for some seconds and read it back; blocks.

    Parameters
    ----------
    base_path : str, optional
        An empty or absent directory. Default a new one under the temporary directory. It stays.
    seconds : float
        How long to record.
    on_progress : callable, optional
        Called about ten times a second.

    Raises
    ------
    DemoError
        The directory is in use, or a child failed; with the child's own words.
    """
    path = _own_directory(base_path)
    try:
        counters = _record(path, seconds, on_progress)
        with Platform(path) as dw:
            return _report(dw, counters)
    except BaseException:
        if base_path is None:  # nobody was told of it
            shutil.rmtree(path, ignore_errors=True)
        raise


def _record(path: str, seconds: float, on_progress: Callable[[Progress], None] | None) -> dict[str, Any]:
    """Run both children to the recorder's end; return its totals."""
    faults = [f"--fault=drop@{seconds * DROP_AT:.2f}s", f"--fault=close@{seconds * CLOSE_AT:.2f}s"]
    with ExitStack() as stack:
        longest = seconds + _START_S + _GRACE_S
        market = [f"--rate={STEPS_PER_SECOND}", f"--duration={longest:.1f}", "--port=0"]
        products = [f"--product={product}" for product in PRODUCTS]
        exchange = stack.enter_context(Child("exchange", [*market, *products, *faults]))
        uri = exchange.first_line(_START_S)
        words = ["coinbase", f"--uri={uri}", f"--base-path={path}", f"--duration={seconds:.2f}", "--json"]
        recorder = stack.enter_context(Child("record", [*words, *products]))
        _watch(path, [exchange, recorder], longest, on_progress)
        counters: dict[str, Any] = json.loads(recorder.output())
        return counters


def _own_directory(base_path: str | None) -> str:
    if base_path is None:
        return tempfile.mkdtemp(prefix="deepwater-demo-")
    path = Path(base_path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DemoError(
            f"{path} is not an empty directory: the demo's market is not real and wants a store of its own; "
            "name another --base-path, or none",
            base_path=str(path),
        )
    return str(path)


def _watch(
    path: str, children: Iterable[Child], longest_s: float, on_progress: Callable[[Progress], None] | None
) -> None:
    """Follow the recording from outside until the recorder has ended well."""
    exchange, recorder = children
    began = time.monotonic()
    with ExitStack() as stack:
        dw = stack.enter_context(Platform(path))
        readers: dict[str, Reader] = {}
        while not recorder.wait(_LOOK_EVERY_S):
            exchange.check()
            for name in dw.list_feeds():
                if name not in readers:
                    readers[name] = stack.enter_context(dw.create_reader(name))
            if on_progress is not None:
                records = {name: len(reader) for name, reader in readers.items()}
                gaps = max((len(reader.gaps()) for reader in readers.values()), default=0)
                on_progress(Progress(time.monotonic() - began, records, gaps))
            if time.monotonic() - began > longest_s:
                raise DemoError(f"demo: the recorder did not end within {longest_s:.0f} s; try again")
    recorder.check(ended=True)


# --- children --------------------------------------------------------------------------------------------


class Child:
    """A command of `deepwater` in a process of its own; a context manager that always reaps it."""

    def __init__(self, command: str, words: list[str]) -> None:
        self.command = command
        self._said: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        # This very package, wherever the caller stands.
        home = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        # A session of its own: Ctrl-C reaches the caller only, who then ends the children in order.
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "deepwater.cli", command, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said, text=True,
            env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def first_line(self, timeout_s: float) -> str:
        """Return the first line it writes to stdout; `DemoError` if it does not."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            ready = selector.select(timeout_s)
        line = self._process.stdout.readline().strip() if ready else ""
        if not line:
            self.wait(_STOP_S if ready else 0.0)
            raise self._failed(f"it was not ready within {timeout_s:.0f} s" if not ready else "it ended at once")
        return line

    def wait(self, timeout_s: float) -> bool:
        """Wait a moment; whether it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.returncode is not None

    def check(self, *, ended: bool = False) -> None:
        """Raise `DemoError` if it failed, or ended although it should not have."""
        code = self._process.poll()
        if code is not None and (code or not ended):
            raise self._failed(f"it ended with {code}")

    def output(self) -> str:
        """Return what is left on its stdout."""
        assert self._process.stdout is not None
        return self._process.stdout.read()

    def _failed(self, what: str) -> DemoError:
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        last = lines[-1] if lines else ""
        _, is_error, reason = last.partition("error: ")
        with suppress(ValueError, TypeError, KeyError):
            is_error, reason = "json", json.loads(last)["error"]["message"]
        said = reason if is_error else what
        return DemoError(f"demo: 'deepwater {self.command}' failed: {said}", command=self.command)

    def close(self) -> None:
        """End it: politely, then not; reap it. Idempotent."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
                self.wait(_STOP_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._said.close()


# --- reading back ----------------------------------------------------------------------------------------


def _report(dw: Platform, counters: dict[str, Any]) -> Report:
    feed = specs.feed_name(specs.TRADES, PRODUCTS[0])
    with ExitStack() as stack:
        readers = [stack.enter_context(dw[name]) for name in dw.list_feeds() if name in counters["feeds"]]
        trades = next((reader for reader in readers if reader.feed == feed and len(reader)), None)
        if trades is None:
            raise DemoError(f"demo: nothing was recorded in {dw.base_path}; try a longer --seconds")
        second = int(trades[len(trades) // 2]["proc_us"]) // 1_000_000
        # Text names a period: these are two whole seconds.
        start, end = (format_us(at * 1_000_000)[:19] for at in (second, second + 1))
        # By the exchange's clock, from when the recording began: the trades sent for a start are older.
        live = trades.read(int(trades[0]["recv_us"]), clock="ev_us").to_numpy()
        delay_us, read_rows, read_s = _read_all(readers)
        asked = dw.base_path, feed, start, end
        return Report(
            *asked, trades[start:end], second_bars(live), merged_gaps(readers),
            [overview(reader) for reader in readers], counters, delay_us, read_rows, read_s,
            python_lines(*asked), shell_lines(*asked),
        )  # fmt: skip


def _read_all(readers: list[Reader]) -> tuple[tuple[float, float], int, float]:
    """Read everything some times against the clock (the first opens the files), then once for the delays."""
    lasted = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        windows = [reader.read() for reader in readers]
        for window in windows:
            for records in window:
                records["price"].sum()
        lasted = min(lasted, time.perf_counter() - began)
    delays = np.concatenate([window["proc_us"] - window["recv_us"] for window in windows])
    middle, high = np.percentile(delays, (50, 99))
    return (float(middle), float(high)), len(delays), lasted


def second_bars(trades: Array) -> Array:
    """Make one-second bars of trades, without a loop.

    Parameters
    ----------
    trades : structured array
        `ev_us`, `price`, `size`; in any order, of equal times the earlier row came first.

    Returns
    -------
    array of `BAR`
        A row for each second that has a trade, by time: `second_us` is its first µs.

    Examples
    --------
    >>> kind = [("ev_us", "u8"), ("price", "f8"), ("size", "f8")]
    >>> second_bars(np.array([(1_000_000, 10.0, 1.0), (1_500_000, 12.0, 2.0), (3_000_000, 9.0, 1.0)], kind)).tolist()
    [(1000000, 10.0, 12.0, 10.0, 12.0, 3.0, 2), (3000000, 9.0, 9.0, 9.0, 9.0, 1.0, 1)]
    """
    order = np.argsort(trades["ev_us"], kind="stable")
    price, size = trades["price"][order], trades["size"][order]
    second = trades["ev_us"][order] // np.uint64(1_000_000)
    starts = np.flatnonzero(np.r_[True, second[1:] != second[:-1]][: len(second)])
    bars = np.empty(len(starts), BAR)
    if len(starts):
        stops = np.r_[starts[1:], len(second)]
        bars["second_us"] = second[starts] * np.uint64(1_000_000)
        bars["open"], bars["close"] = price[starts], price[stops - 1]
        bars["high"], bars["low"] = np.maximum.reduceat(price, starts), np.minimum.reduceat(price, starts)
        bars["volume"], bars["trades"] = np.add.reduceat(size, starts), stops - starts
    return bars


def merged_gaps(readers: Iterable[Reader]) -> list[Gap]:
    """Return the gaps of several feeds by time; what interrupted a connection is in each of its feeds, here once."""
    found: dict[tuple[int, int, int, bytes], list[str]] = {}
    for reader in readers:
        for mark in reader.gaps():
            key = (int(mark["from_us"]), int(mark["to_us"]), int(mark["count"]), bytes(mark["reason"]))
            found.setdefault(key, []).append(reader.feed)
    return [
        Gap(begin, end, None if lost == UNKNOWN else lost, reason.decode("utf-8", "replace"), tuple(feeds))
        for (begin, end, lost, reason), feeds in sorted(found.items())
    ]


# --- to paste --------------------------------------------------------------------------------------------


def python_lines(base_path: str, feed: str, start: str, end: str) -> tuple[str, ...]:
    """Return three lines of Python that show the range."""
    return (
        "from deepwater import Platform",
        f"trades = Platform({base_path!r})[{feed!r}]",
        f"print(trades[{start!r}:{end!r}].to_pandas())",
    )


def shell_lines(base_path: str, feed: str, start: str, end: str) -> tuple[str, ...]:
    """Return one command, over three lines, that shows the range."""
    return (
        f"{_program()} query {feed} \\",
        f"  --base-path {shlex.quote(base_path)} \\",
        f"  --start {start} --end {end}",
    )


def _program() -> str:
    """Return how this program is called: by its name only where that leads to this one, not to another installation."""
    found = shutil.which("deepwater")
    own = (sys.argv[0], os.path.join(os.path.dirname(sys.executable), "deepwater"))
    if found and any(os.path.exists(path) and os.path.samefile(found, path) for path in own):
        return "deepwater"
    return f"{shlex.quote(sys.executable)} -m deepwater.cli"
