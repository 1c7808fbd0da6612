"""Venues by name: those of the package, those that a distribution adds, and those that are broken."""

from __future__ import annotations

import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
from loopback import record_session
from memory_sink import MemorySink

from deepwater import Platform
from deepwater.apps.streams import Synthetic
from deepwater.apps.venue import Venue
from deepwater.apps.venue_guard import GuardedVenue, VenueFaultError
from deepwater.apps.venues import BUILTIN, GROUP, VenueError, find_venue, venue_names
from processes import ROOT, Worker, run_python

ADDED = """
from deepwater.apps.coinbase_venue import Coinbase

class Other(Coinbase):
    name = "other"
    uri = "ws://127.0.0.1:1"

VENUE = Other()
NO_VENUE = object()
"""
LEAVES = "import sys\nsys.exit(0)\n"


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory on the path with an installed distribution that adds venues, most of them broken."""
    (tmp_path / "added_venues.py").write_text(ADDED)
    (tmp_path / "added_exit.py").write_text(LEAVES)
    about = tmp_path / "added_venues-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: added-venues\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(
        "[deepwater.venues]\nother = added_venues:VENUE\nmisnamed = added_venues:VENUE\nempty = added_venues:NO_VENUE\n"
        "lost = added_venues:GONE\nabsent = no_such_module:VENUE\nleaves = added_exit:VENUE\n"
        "coinbase = added_venues:VENUE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_packages_own_are_venues_and_entry_points_too() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert declared == BUILTIN
    for name in BUILTIN:
        venue = find_venue(name)
        assert isinstance(venue, Venue) and venue.name == name


def test_a_distribution_adds_a_venue_and_can_not_take_a_name_over(added: Path) -> None:
    assert venue_names() == ["coinbase", "kraken", "absent", "empty", "leaves", "lost", "misnamed", "other"]
    assert find_venue("other").uri == "ws://127.0.0.1:1"
    assert find_venue("coinbase").uri.startswith("wss://")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent", "can not be loaded: ModuleNotFoundError: No module named 'no_such_module'; mend or uninstall it"),
        ("lost", "can not be loaded: AttributeError"),
        ("leaves", "can not be loaded: SystemExit: 0"),
        ("empty", "is no venue: it lacks channels, check_product"),
        ("misnamed", "calls itself 'other'"),
    ],
)
def test_a_broken_one_is_one_line_that_names_its_distribution(added: Path, name: str, said: str) -> None:
    with pytest.raises(VenueError) as caught:
        find_venue(name)
    assert said in str(caught.value) and "distribution added-venues 1.2" in str(caught.value)
    done = run_python(
        "import sys; from deepwater.cli import main; sys.exit(main(sys.argv[1:]))",
        "record", "--venue", name, "--product", "A-B", check=False, env={"PYTHONPATH": f"{added}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and said in done.stderr


FAULTS = {
    "check_product": ("def check_product(self, product): raise ValueError('x')", "check_product raised ValueError: x"),
    "feeds": ("def feeds(self, product, channels): return 7", "feeds returned 7, expected a list of FeedPlan"),
    "subscribe": ("def subscribe(self, channels, products): return [b'x']", "subscribe returned [b'x'], expected"),
    "liveness": ("def liveness(self): return 1 / 0", "liveness raised ZeroDivisionError"),
    "connection": ("def connection(self): raise SystemExit(0)", "connection raised SystemExit: 0"),
    "stream": ("def connection(self): return None", "connection returned None, expected something"),
    "products_max": ("products_max = 0", "products_max is 0, expected a number above 0"),
    "messages": ("messages_per_second = None", "messages_per_second is None, expected a number above 0"),
    "channels": ("channels = ()", "channels is (), expected names"),
    "nothing": ("def connection(self): return Takes(lambda: None)", "take returned None, expected a Message"),
    "raises": ("def connection(self): return Takes(lambda: {}['x'])", "take raised KeyError: 'x'"),
    "dtype": ("def connection(self): return Takes(lambda: records(np.zeros(3)))", "array (3,) of float64 for the book"),
    "list": ("def connection(self): return Takes(lambda: records([1, 2]))", "<class 'list'> for the book of BTC-USD"),
    "shape": ("def connection(self): return Takes(lambda: records(np.zeros((2, 2), specs.dtype('cb-l2'))))", "(2, 2)"),
    "batches": ("def connection(self): return Takes(lambda: Message(batches=[7]))", "expected batches, missed and"),
    "error": ("def connection(self): return Takes(lambda: Message(error=7))", "expected texts"),
    "key": ("def connection(self): return Takes(lambda: Message(batches=[Batch(('book', 'X'), 7)]))", "as in `venue`"),
    "missed": ("def connection(self): return Takes(lambda: Message(missed=[Missed('x', from_us=-1)], delivers=True))",
               "expected batches, missed and"),
    "numbers": ("def connection(self): return Takes(lambda: Message(ignored='x'))", "expected numbers"),
    "read-only": ("def connection(self): return Takes(lambda: records(np.frombuffer(bytes(64), specs.dtype('cb-l2'))))",
                  "for book of BTC-USD are read-only"),
}
TAKES = """
import numpy as np
from deepwater.apps import specs
from deepwater.apps.venue import Batch, FeedKey, Message, Missed
class Takes:
    def __init__(self, make):
        self.take = lambda data, recv_us: make()
def records(found):
    return Message(batches=[Batch(FeedKey("book", "BTC-USD"), found)], delivers=True)
"""


def with_lines(lines: str) -> str:
    """Return the source of the venue with lines more."""
    return ADDED.replace("    uri =", f"    {lines}\n    uri =").replace("\nclass Other", f"{TAKES}\nclass Other")


def record_guarded(venue: Venue, sink: MemorySink) -> None:
    guarded = GuardedVenue(venue, "distribution added-venues 1.2")
    record_session(lambda: Synthetic(["BTC-USD"], depth=10), ["BTC-USD"], sink, venue=guarded)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_does_nonsense_ends_a_recording_with_an_error_that_names_it(fault: str) -> None:
    lines, said = FAULTS[fault]
    names: dict[str, Any] = {}
    exec(with_lines(lines), names)
    sink = MemorySink()
    with pytest.raises(VenueFaultError) as caught:
        record_guarded(names["VENUE"], sink)
    assert str(caught.value).startswith("venue 'other' of distribution added-venues 1.2 is broken: ")
    assert said in str(caught.value) and not any(feed.end for feed in sink.feeds.values())


def test_of_one_that_does_nonsense_the_command_says_one_line(added: Path, tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        sys.path.insert(0, sys.argv[1])
        from deepwater.apps.exchange import Exchange
        from deepwater.apps.streams import Synthetic
        from deepwater.cli import main

        async def serve():
            async with Exchange(Synthetic(["BTC-USD"], depth=10)) as exchange:
                words = ["record", "other", "--uri", exchange.uri, "--product", "BTC-USD", "--duration", "60"]
                return await asyncio.to_thread(main, [*words, "--json", "--base-path", sys.argv[2]])

        sys.exit(asyncio.run(serve()))
    """
    (added / "added_venues.py").write_text(with_lines("liveness = 7"))
    done = run_python(script, added, tmp_path / "store", check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "venue 'other' of distribution added-venues 1.2 is broken: liveness raised TypeError" in done.stderr
    (added / "added_venues.py").write_text(with_lines("liveness = None"))
    done = run_python(script, added, tmp_path / "store", check=False)
    assert done.returncode == 1 and "is no venue: it lacks liveness" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_one_that_does_not_return_is_ended_by_a_second_signal(
    number: signal.Signals, code: int, added: Path, tmp_path: Path
) -> None:
    script = """
        import asyncio, signal, sys, threading, time
        sys.path.insert(0, sys.argv[1])
        from deepwater.apps.exchange import Exchange
        from deepwater.apps.streams import Synthetic
        from deepwater.cli import main
        ready, uris = threading.Event(), []

        async def serve():
            async with Exchange(Synthetic(["BTC-USD"], depth=10)) as exchange:
                uris.append(exchange.uri)
                ready.set()
                await asyncio.Event().wait()

        def look():
            def ours():
                return getattr(signal.getsignal(number), "__module__", "") == "deepwater.apps.stopping"
            while not ours():
                time.sleep(0.01)
            while ours():
                time.sleep(0.01)
            print("came", flush=True)

        number = int(sys.argv[3])
        threading.Thread(target=asyncio.run, args=(serve(),), daemon=True).start()
        ready.wait()
        threading.Thread(target=look, daemon=True).start()
        words = ["record", "other", "--uri", uris[0], "--product", "BTC-USD", "--base-path", sys.argv[2], "--json"]
        sys.exit(main(words))
    """
    stuck = "def connection(self): return Takes(lambda: print('stuck', flush=True) or __import__('time').sleep(600))"
    (added / "added_venues.py").write_text(with_lines(stuck))
    with Worker(script, added, tmp_path / "store", int(number)) as worker:
        assert worker.readline() == "stuck"
        worker.process.send_signal(number)
        assert worker.readline() == "came"
        worker.process.send_signal(number)
        assert worker.process.wait(60) == code and "Traceback" not in worker.stderr()
    with Platform(tmp_path / "store") as store:
        for name in store.list_feeds():  # the ring of the metrics
            store.delete_feed(name)


def test_one_that_two_distributions_add_is_refused_with_both_named(added: Path) -> None:
    about = added / "more_venues-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: more-venues\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[deepwater.venues]\nother = added_venues:VENUE\n")
    with pytest.raises(VenueError, match=r"added-venues 1\.2 and distribution more-venues 0\.1|more-venues 0\.1 and"):
        find_venue("other")


def test_one_that_is_not_there_is_refused_with_a_list() -> None:
    with pytest.raises(VenueError, match="expected one of coinbase, kraken"):
        find_venue("nowhere")
