"""The command book: keep order books as feeds of snapshots, or show one at a time. Needs no extra."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from deepwater.apps import specs
from deepwater.apps.maintainer import DEPTH, INTERVAL_S, Maintainer, State, maintain
from deepwater.book import Book
from deepwater.books import book_at
from deepwater.cli import output, times
from deepwater.cli.failures import INTERRUPTED, OK, UsageError, one_line
from deepwater.cli.status import StatusLine
from deepwater.cli.text import count, terminal_width
from deepwater.errors import FeedNotFoundError
from deepwater.ladder import ladder
from deepwater.platform import Platform
from deepwater.reader import Reader
from deepwater.timestamps import format_us

__all__ = ["book"]

_PROG = "deepwater book"
_EVERY_S = 30.0
_LEVELS = 10


def book(args: argparse.Namespace) -> int:
    """Keep books until the end is asked for; with --at show them.

    SIGTERM ends it with 0. One that comes before it has begun kills it (a shell shows 143): nothing is half-made then.
    """
    products = list(args.product or ["BTC-USD"])
    if len(set(products)) < len(products):
        raise UsageError("a product is named twice: name each once", _PROG)
    if args.at is not None:
        for option in ("depth", "interval", "duration", "persist"):
            if getattr(args, option):
                raise UsageError(f"--{option} is about keeping a book: leave it out with --at", _PROG)
        return _show(args, products)
    if args.levels is not None:
        raise UsageError("--levels is about showing a book: it goes with --at", _PROG)
    return _keep(args, products)


# --- keeping ---------------------------------------------------------------------------------------------


def _keep(args: argparse.Namespace, products: Sequence[str]) -> int:
    began, shown = time.monotonic(), _Shown(args.json)
    with _signals() as end, Platform(args.base_path) as dw:
        keepers = [
            Maintainer(dw, product, args.depth or DEPTH, args.interval or INTERVAL_S, args.persist)
            for product in products
        ]
        if not args.json:
            feeds = ", ".join(specs.feed_name(specs.SNAPSHOTS, product) for product in products)
            output.say(f"keeping {feeds} in {dw.base_path}; Ctrl-C ends it")
        with shown.line.with_log(), _listening(end.stop, args.json):
            maintain(keepers, end.stop, args.duration, lambda states: shown.show(states, time.monotonic() - began))
        shown.show([keeper.state for keeper in keepers], time.monotonic() - began, ended=end.reason or "duration")
    return INTERRUPTED if end.reason == "SIGINT" else OK


def _listening(stop: threading.Event, as_json: bool) -> contextlib.AbstractContextManager[None]:
    """End when nobody reads the lines any more."""
    return output.listened(stop.set) if as_json else contextlib.nullcontext()


class _End:
    """Whether the end was asked for, and by what."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reason = ""


@contextlib.contextmanager
def _signals() -> Iterator[_End]:
    """Let SIGINT and SIGTERM end the work cleanly; the second one has its usual effect."""
    end = _End()
    before: dict[signal.Signals, Any] = {}

    def take(number: int, _: Any) -> None:
        end.reason = end.reason or signal.Signals(number).name
        threading.Thread(target=end.stop.set).start()  # this one, interrupted, may hold the event's lock
        for each, handler in before.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():
        before = {each: signal.signal(each, take) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield end
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class _Shown:
    """How it goes: a line that is rewritten on a terminal; elsewhere a line a product now and then, or JSON lines."""

    def __init__(self, as_json: bool) -> None:
        self.line = StatusLine(every_s=0.0)
        self._as_json = as_json
        self._is_tty = sys.stderr is not None and sys.stderr.isatty()
        self._due_s = 0.0
        self._said: list[tuple[str, bool, str]] = []

    def show(self, states: Sequence[State], elapsed_s: float, ended: str = "") -> None:
        """Show the states: elsewhere than on a terminal each half minute, when one changes, and at the end."""
        said = [(each.state, each.valid, each.reason) for each in states]
        if self._is_tty and not self._as_json and not ended:
            self.line.show("; ".join(_text(each, elapsed_s) for each in states))
            return
        if not ended and said == self._said and time.monotonic() < self._due_s:
            return
        self._due_s, self._said = time.monotonic() + _EVERY_S, said
        for each in states:
            if self._as_json:
                output.write(json.dumps(_as_json(each, elapsed_s, ended)) + "\n")
            else:
                output.say(f"{f'ended by {ended}: ' * bool(ended)}{_text(each, elapsed_s)}")
        if self._as_json:
            output.flush()


def _text(state: State, elapsed_s: float) -> str:
    if state.state == "waiting":
        return f"{state.product}: waiting for records in feed {specs.feed_name(specs.L2, state.product)}"
    best = " / ".join("none" if level is None else f"{level[0]!r}" for level in (state.best_bid, state.best_ask))
    parts = [
        f"{state.product} {best}", f"{state.bids:,} + {state.asks:,} levels", count(state.written, "record"),
        f"{count(state.changes, 'change')}", f"{_share(state, elapsed_s):.1%} of a core",
    ]  # fmt: skip
    if state.unwritten:
        parts.append(f"{state.unwritten:,} without space")
    if not state.valid and state.reason:
        parts.insert(1, f"NOT valid: {state.reason}")
    return one_line(", ".join(parts))


def _share(state: State, elapsed_s: float) -> float:
    return state.cpu_s / elapsed_s if elapsed_s > 0 else 0.0


def _as_json(state: State, elapsed_s: float, ended: str) -> dict[str, Any]:
    about = {name: getattr(state, name) for name in State.__slots__}
    per_change = state.cpu_s * 1e6 / state.changes if state.changes else None
    return about | {"elapsed_s": round(elapsed_s, 3), "cpu_us_per_change": per_change, "stopped": ended or None}


# --- showing ---------------------------------------------------------------------------------------------


def _show(args: argparse.Namespace, products: Sequence[str]) -> int:
    with Platform(args.base_path) as dw:
        for number, product in enumerate(products):
            with contextlib.ExitStack() as stack:
                reader = stack.enter_context(dw.create_reader(specs.feed_name(specs.L2, product)))
                found = _at(args.at, reader, _snapshots(dw, product, stack), args.levels or _LEVELS)
            if args.json:
                output.write(json.dumps(_book_json(reader.feed, found)) + "\n")
                continue
            ascii_only = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"
            width = min(terminal_width() or 80, 120)
            lines = ladder(found, args.levels or _LEVELS, width=width, title=reader.feed, ascii_only=ascii_only)
            output.write("\n" * bool(number) + "".join(f"{line}\n" for line in map(_printable, lines)))
    return OK


def _at(at: str, reader: Reader, snapshots: Reader | None, levels: int) -> Book:
    """The book at a time; "now" is everything published."""
    with times.explained(times.TIMES):
        moment = None if at == "now" else times.as_time(at)
        return book_at(reader, moment, levels, snapshots=snapshots)


def _snapshots(dw: Platform, product: str, stack: contextlib.ExitStack) -> Reader | None:
    try:
        return stack.enter_context(dw.create_reader(specs.feed_name(specs.SNAPSHOTS, product)))
    except (FeedNotFoundError, PermissionError):  # nobody keeps it, or a ring of somebody else's
        return None


def _book_json(feed: str, found: Book) -> dict[str, Any]:
    has_both = not math.isnan(found.best_bid) and not math.isnan(found.best_ask)
    return {
        "feed": feed, "time_us": found.time_us, "time": format_us(found.time_us), "position": found.position,
        "valid": found.valid, "reason": found.reason or None, "crossed": found.crossed,
        "spread": found.best_ask - found.best_bid if has_both else None,
        "bids": _pairs(found.bids), "asks": _pairs(found.asks),
    }  # fmt: skip


def _pairs(levels: npt.NDArray[Any]) -> list[list[float]]:
    return [list(level) for level in levels.tolist()]


def _printable(line: str) -> str:
    # A reason may hold any text; a terminal must not act on it.
    return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")
