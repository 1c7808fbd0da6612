"""The recorder applies the setting `retain` while it records, and nothing of that ends a recording."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Session, all_taken, record_session
from memory_sink import MemorySink

from deepwater import Platform
from deepwater.apps import recorder, specs
from deepwater.apps.connection import Link
from deepwater.apps.counters import Counters
from deepwater.apps.exchange import Exchange
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.recorder import Stop, record
from deepwater.apps.streams import Synthetic

PRODUCT = "BTC-USD"
L2, TRADES = f"CB-L2-{PRODUCT}", f"CB-TRADES-{PRODUCT}"
CHUNK = 32768
pytestmark = pytest.mark.filterwarnings("ignore:feed .* exists with other settings")


def market() -> Synthetic:
    return Synthetic([PRODUCT], seed=11, rate=None, depth=200, steps=1000)


@pytest.fixture
def store(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a store whose L2 feed has chunks of 100 records and keeps five of them; retention looks often."""
    monkeypatch.setattr(recorder, "_WATCH_EVERY_S", 0.01)
    with Platform(tmp_store) as dw:
        spec = specs.spec(specs.L2, PRODUCT).to_json()
        dw.create_feed({**spec, "chunk_size_bytes": 100 * 64, "retain": {"bytes": 5 * CHUNK}})
    return tmp_store


def test_chunks_go_while_it_records_and_what_is_held_is_the_newest(store: Path) -> None:
    """Against the same market recorded without retention; positions are the same."""

    def until(exchange: Exchange, session: Session) -> bool:
        return all_taken(exchange, session) and session.counters.pruned > 20

    with PlatformSink(store) as sink:
        counters = record_session(market, [PRODUCT], sink, until=until).counters
    assert counters.retain_errors == 0 and counters.last_error == "" and counters.gaps == 0
    whole = store.with_name("whole")
    with PlatformSink(whole) as sink:
        record_session(market, [PRODUCT], sink)
    with Platform(store) as kept, Platform(whole) as full:
        reader, truth = kept[L2], full[L2]
        assert int(reader.end) == int(truth.end) == counters.feeds[L2]
        assert 0 < reader.first < int(reader.end)
        for name in ("side", "price", "qty"):
            assert np.array_equal(reader.read().to_numpy()[name], truth.rows(reader.first, truth.end).to_numpy()[name])
        assert kept[TRADES].first == 0 and len(kept[TRADES]) == len(full[TRADES])
        assert counters.pruned == reader._chain.chunk_id(0) - 1 == reader.first // 100


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_a_failure_is_counted_and_said_and_ends_nothing(
    store: Path, error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Platform, name: str) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        if name == L2:
            raise error("the disk is on fire")
        return real(self, name)

    real = Platform.prune
    monkeypatch.setattr(Platform, "prune", fail)

    def until(exchange: Exchange, session: Session) -> bool:
        return all_taken(exchange, session) and session.counters.retain_errors > 3

    with PlatformSink(store) as sink:
        counters = record_session(market, [PRODUCT], sink, until=until).counters
    assert counters.stopped == "stop" and counters.pruned == 0 and counters.gaps == 0
    assert counters.last_error == f"retention: feed {L2}: the disk is on fire"
    assert counters.to_json()["retain_errors"] > 3
    assert counters.last_error in caplog.text
    with Platform(store) as dw:
        assert dw[L2].first == 0 and len(dw[L2]) == counters.feeds[L2]


def test_a_feed_is_looked_at_when_it_has_begun_a_chunk_and_all_are_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a clock of its own: 130 looks, a second apart."""
    monkeypatch.setattr(recorder, "_WATCH_EVERY_S", 0)
    asked: list[tuple[int, Any]] = []

    class Clock:
        now = 1000

    class Sink(MemorySink):
        def rotated(self) -> list[str]:
            Clock.now += 1
            if Clock.now == 1131:
                stop()
            return ["F"] if Clock.now in (1010, 1075) else []

        def retain(self, feeds: Any = None) -> tuple[int, list[str]]:
            asked.append((Clock.now, feeds))
            return 2, []

    async def main() -> Counters:
        async with Exchange(market()) as exchange:
            return await record(Link(exchange.uri), [PRODUCT], Sink(), stop=stop)

    class Time:
        monotonic = staticmethod(lambda: float(Clock.now))

    monkeypatch.setattr(recorder, "time", Time)

    async def run() -> Counters:
        nonlocal stop
        stop = Stop()
        return await main()

    stop: Any = None
    counters = asyncio.run(run())
    assert asked == [(1001, None), (1010, ["F"]), (1061, None), (1075, ["F"]), (1121, None)]
    assert counters.pruned == 10


def test_the_end_waits_for_a_prune_that_runs(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It uses the store, which is closed next."""
    began, done = threading.Event(), []

    def slow(self: PlatformSink, feeds: Any = None) -> tuple[int, list[str]]:
        began.set()
        time.sleep(0.3)
        done.append(self._platform.list_feeds())
        return 0, []

    monkeypatch.setattr(PlatformSink, "retain", slow)
    with PlatformSink(store) as sink:
        record_session(market, [PRODUCT], sink, until=lambda *_: began.is_set())
        assert done == [[L2, TRADES]]


def test_what_somebody_else_prunes_is_left_to_them(store: Path) -> None:
    from deepwater.retain import maintenance

    with PlatformSink(store) as sink:
        sink.open(specs.spec(specs.L2, PRODUCT))
        platform = sink._platform
        lock = maintenance(platform._store, L2, platform._store.open(L2))
        assert sink.retain() == (0, [])
        lock.release()
        assert sink.rotated() == []
        sink._writers[L2].resize_chunk_size(200 * 64)
        assert (sink.rotated(), sink.rotated()) == ([L2], [])


def test_what_is_let_go_is_counted_whenever_the_end_comes() -> None:
    class Retaining:
        calls = 0

        def rotated(self) -> list[str]:
            return ["A"]

        def retain(self, feeds: object = None) -> tuple[int, list[str]]:
            self.calls += 1
            return 1, []

    async def ended_after(turns: int) -> tuple[int, int]:
        sink, counters = Retaining(), Counters()
        task = asyncio.create_task(recorder._retain(sink, counters))  # type: ignore[arg-type]
        while not sink.calls:  # noqa: ASYNC110 - a call in a thread is no event
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return counters.pruned, sink.calls

    for turns in range(40):
        pruned, calls = asyncio.run(ended_after(turns % 20))
        assert pruned == calls, turns
