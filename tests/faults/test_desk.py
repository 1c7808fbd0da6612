"""The desk under fire: its processes are killed at random while the exchange loses, swaps and cuts off.

`Victim` is one process of the desk: what starts it. Whoever adds a process to the desk adds it to `victims`. The
exchange lives in this process, so that its `Truth` is at hand; all others are what a user starts.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from check_kit import said
from deepwater import Platform
from deepwater.check import verify
from deepwater.errors import DeepwaterError
from fault_table import Trials
from processes import ROOT, environment

sys.path.append(str(ROOT / "tests" / "apps"))
from book_walk import check_records, walk_of
from truth import Truth

from deepwater.apps.exchange import Exchange
from deepwater.apps.streams import Synthetic

Fault = Callable[[str, str], Trials]
PRODUCTS = ["BTC-USD", "ETH-USD"]
FEEDS = [(f"CB-{kind}-{product}", product, kind) for product in PRODUCTS for kind in ("L2", "TRADES")]
FAULTS = ["drop@97*", "swap@411*", "error@50*", "close@3.1s*", "reset@4.7s*"]
WATCH = Path(__file__).parent.parent / "workers" / "watches_a_book.py"
PATIENCE_S = 150.0  # a recorder that lives for long is hung up on again and again, and comes back after 30 s in the end


@dataclass(frozen=True)
class Victim:
    """A process of the desk: its command, for ever the same."""

    name: str
    command: list[str]


def victims(store: Path, uri: str) -> list[Victim]:
    """The processes that are killed, the recorder most often: a name that is there twice is twice as likely."""
    cli = [sys.executable, "-W", "error", "-m", "deepwater.cli"]
    recorder = Victim("recorder", [*cli, "record", "--uri", uri, "--product", ",".join(PRODUCTS),
                                   "--base-path", str(store)])  # fmt: skip
    reader = Victim("reader", [sys.executable, "-W", "error", str(WATCH), str(store), FEEDS[0][0]])
    keeper = Victim("maintainer", [*cli, "book", "--product", ",".join(PRODUCTS), "--depth", "15", "--interval", "0.1",
                                   "--persist", "--base-path", str(store)])  # fmt: skip
    dashboard = Victim("dashboard", [*cli, "dashboard", "--json", "--interval", "0.5", "--base-path", str(store)])
    return [*6 * [recorder], *2 * [keeper], reader, dashboard]


@contextmanager
def exchange(truth: Truth) -> Iterator[str]:
    """An exchange with faults on a thread of its own; yields its address."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[str] = []

    async def main() -> None:
        stream = Synthetic(PRODUCTS, seed=9, rate=150, depth=30, session=truth.session)
        async with Exchange(stream, faults=FAULTS, on_send=truth.on_send) as served:
            found.append(served.uri)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), name="exchange")
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class Desk:
    """The running processes. What one says on stderr is kept in a file of its name."""

    def __init__(self, victims: list[Victim], logs: Path) -> None:
        self.victims = victims
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start_all(self) -> None:
        for victim in self.victims:
            if victim.name not in self._running:
                self._start(victim)

    def _start(self, victim: Victim) -> None:
        with open(self._logs / f"{victim.name}.log", "ab") as log:
            self._running[victim.name] = subprocess.Popen(
                victim.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )

    def kill(self, victim: Victim) -> None:
        """Kill a process and start it again. It must have been alive: none may end by itself."""
        process = self._running.pop(victim.name)
        assert process.poll() is None, f"{victim.name} ended by itself:\n{self.log(victim.name)}"
        process.kill()
        process.wait()
        self._start(victim)

    def end(self, name: str, number: int = signal.SIGTERM) -> int:
        process = self._running.pop(name)
        process.send_signal(number)
        return process.wait(PATIENCE_S)

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        return (self._logs / f"{name}.log").read_text(errors="replace")


class Witness:
    """Has seen records: all that were published at some moment, byte for byte."""

    def __init__(self, store: Platform, log: Callable[[], str]) -> None:
        self._store, self._log = store, log
        self.seen: dict[str, list[bytes]] = {name: [] for name, *_ in FEEDS}
        self.ends = dict.fromkeys(self.seen, 0)

    def look(self) -> None:
        """See what came since."""
        for name, parts in self.seen.items():
            try:
                with self._store[name] as reader:
                    new = reader.rows(self.ends[name], int(reader.end)).to_numpy()
            except DeepwaterError:
                continue  # not made yet
            parts.append(new.tobytes())
            self.ends[name] += len(new)

    def until_more(self) -> None:
        """Wait until each feed of a book has grown: the recorder has come back and goes on."""
        before, due = dict(self.ends), time.monotonic() + PATIENCE_S
        while any(self.ends[name] <= before[name] for name, _, kind in FEEDS if kind == "L2"):
            assert time.monotonic() < due, f"nothing more is recorded: {before} and {self.ends}\n{self._log()[-4000:]}"
            time.sleep(0.02)
            self.look()

    def lost(self) -> list[str]:
        """What was seen and is not there any more, or otherwise."""
        found = []
        for name, parts in self.seen.items():
            with self._store[name] as reader:
                stored = reader.rows(0, self.ends[name]).to_numpy().tobytes()
            if stored != b"".join(parts):
                found.append(f"{name}: records that were published are not there")
        return found


def kept_books(store: Platform, desk: Desk) -> tuple[int, list[str]]:
    """How many records the maintainers wrote, and those that are not the book at their position."""
    assert desk.end("maintainer") == 0, desk.log("maintainer")
    count, wrong = 0, []
    for product in PRODUCTS:
        with store[f"CB-L2SNAP-{product}"] as reader, store[f"CB-L2-{product}"] as changes:
            records = reader.read().to_numpy()
            try:
                count += sum(1 for _ in check_records(records, walk_of(changes)))
            except AssertionError as error:
                wrong.append(f"{product}: a kept book is wrong: {error}")
    return count, wrong


def test_the_desk_is_killed_at_random_while_the_exchange_has_faults(
    quick_dir: Path, fault: Fault, scale: int
) -> None:
    """F41. SIGKILL of the recorder and who reads beside it, with frames lost, swapped and connections cut.

    What must be seen: no book that says it is to be trusted is wrong, no kept book is, no record that was once
    published is lost or changed, and gaps are marked exactly where something is missing. ``--fault-scale 20`` takes
    two minutes.
    """
    kills, rng, truth = 8 * scale, random.Random(40), Truth()
    with fault("F41", "SIGKILL of the desk's processes beside a faulty exchange") as trials, ExitStack() as stack:
        uri = stack.enter_context(exchange(truth))
        store = stack.enter_context(Platform(quick_dir / "store"))
        desk = Desk(victims(quick_dir / "store", uri), quick_dir)
        stack.callback(desk.close)
        desk.start_all()
        witness = Witness(store, lambda: desk.log("recorder"))
        for _ in range(kills):
            witness.until_more()
            time.sleep(0.7 * rng.random())
            witness.look()
            desk.kill(rng.choice(desk.victims))
            trials.done()
        witness.until_more()
        assert desk.end("recorder") == 0, desk.log("recorder")
        witness.look()
        wrong = witness.lost()
        wrong += [
            f"{name}: {line}" for name, product, kind in FEEDS for line in truth.wrong(store[name], product, kind)
        ]
        kept, wrong_books = kept_books(store, desk)
        for line in wrong + wrong_books:
            trials.fail(line)
        assert not [victim.name for victim in desk.victims if "Traceback" in desk.log(victim.name)]
        gaps = sum(len(store[name].gaps()) for name, *_ in FEEDS)
        trials.note(connections=len(truth.connections), gaps=gaps, records=sum(witness.ends.values()), kept_books=kept)
        assert len(truth.connections) > kills // 2 and gaps > kills
    report = verify(quick_dir / "store")
    assert [line for line in said(report) if not line.startswith("note: ")] == []  # a kill may leave a feed half made
