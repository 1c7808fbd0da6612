"""The real recorder on the real loopback websocket, into a real store."""

from __future__ import annotations

import asyncio
import json
import queue
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from loopback import Session, all_taken, record_session, settled
from memory_sink import MemorySink
from stored import faults
from tape_walk import walk
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as listen
from wire_frames import heartbeat, l2, level, trade, trades

from deepwater import Platform
from deepwater.apps import specs
from deepwater.apps.connection import Link
from deepwater.apps.counters import Counters
from deepwater.apps.exchange import Exchange
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.recorder import Stop, record, run_recorder
from deepwater.apps.streams import Replay, Synthetic
from deepwater.apps.tape import TapeFrame
from deepwater.errors import CorruptFileError, DeepwaterError, FeedLockedError
from processes import Worker

PRODUCTS = ["BTC-USD", "ETH-USD"]


def synthetic(steps: int = 300, products: list[str] = PRODUCTS) -> Synthetic:
    return Synthetic(products, seed=11, rate=None, depth=200, steps=steps)


def check(store_path: Path, session: Session, products: list[str] = PRODUCTS) -> None:
    """Hold every feed against a walk over what was sent."""
    expected = walk(session.received, products)
    with Platform(store_path) as store:
        for name in products:
            assert faults(store, name, expected[name])[:5] == []


def test_a_synthetic_market_is_recorded_whole(tmp_store: Path) -> None:
    with PlatformSink(tmp_store) as sink:
        session = record_session(synthetic, PRODUCTS, sink)
    check(tmp_store, session)
    counters = session.counters
    assert counters.gaps == counters.reconnects == counters.bad_frames == counters.duplicates == 0
    assert (counters.connections, counters.snapshots) == (1, 2)
    assert counters.levels > 1000
    assert counters.trades > 250
    assert sum(counters.feeds.values()) == counters.levels + counters.trades
    assert counters.stopped == "stop"


def test_a_clock_that_steps_to_and_fro_by_days_costs_nothing(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of recorder and exchange alike: all is stored, the primary clock never steps back, marks do not end early."""
    real, chance = time.time_ns, random.Random(3)
    off_ns = [0]

    def time_ns() -> int:
        if chance.random() < 0.01:
            off_ns[0] = chance.choice([0, 1, -1, 2, -20_000]) * 86_400_000_000_000
        return max(real() + off_ns[0], 1000)

    monkeypatch.setattr(time, "time_ns", time_ns)
    with PlatformSink(tmp_store) as sink:
        session = record_session(lambda: synthetic(1000), PRODUCTS, sink, faults=["drop@60", "close@500"])
    monkeypatch.setattr(time, "time_ns", real)
    counters = session.counters
    assert (counters.reconnects, counters.bad_frames, counters.unstored) == (1, 0, 0)
    check(tmp_store, session)
    with Platform(tmp_store) as store:
        for name in store.list_feeds():
            stamps = store[name].read()["proc_us"]
            assert (stamps[1:] >= stamps[:-1]).all()
            assert all(mark["from_us"] <= mark["to_us"] for mark in store[name].gaps())


def test_a_dropped_frame_a_lost_connection_and_a_fresh_book_are_all_there(tmp_store: Path) -> None:
    """The recorder asks for fresh books after the drop; the walk sees them as any snapshot."""

    def until(exchange: Exchange, session: Session) -> bool:
        return all_taken(exchange, session) and session.counters.resyncs == 1

    with PlatformSink(tmp_store) as sink:
        session = record_session(lambda: synthetic(2000), PRODUCTS, sink, until=until, faults=["drop@60", "close@900"])
    check(tmp_store, session)
    counters = session.counters
    assert (counters.gaps, counters.lost_frames, counters.reconnects) == (1, 1, 1)
    assert counters.snapshots >= 6
    assert counters.connections == len(session.sent) == 2
    with Platform(tmp_store) as store:
        for name in store.list_feeds():
            reasons = [mark["reason"].decode() for mark in store[name].gaps()]
            assert reasons[0] == "sequence gap: frame 60 missing"
            assert "reconnect: closed with 1001 going away" in reasons


def test_silence_is_a_lost_connection(tmp_store: Path) -> None:
    with PlatformSink(tmp_store) as sink:
        session = record_session(
            synthetic,
            PRODUCTS,
            sink,
            until=lambda _, session: session.counters.snapshots == 4,
            faults=["silent@100"],
            idle_s=0.3,
            close_timeout_s=0.1,
        )
    check(tmp_store, session)
    assert session.counters.reconnects == 1
    with Platform(tmp_store) as store:
        assert store["CB-L2-BTC-USD"].gaps()["reason"].tolist() == [b"reconnect: no frame for 0.3 s"]


def test_who_stood_still_takes_what_came_meanwhile_and_goes_on() -> None:
    """A process that was stopped, or a machine that slept: the frames are there, it is no silence of the exchange."""
    stood: list[float] = []

    async def feed(socket: ServerConnection) -> None:
        for number in range(10**6):
            await socket.send(heartbeat(number))
            await asyncio.sleep(0.01)

    def served(told: queue.Queue[int], ended: threading.Event) -> None:
        async def run() -> None:
            async with listen(feed, "127.0.0.1", 0) as server:
                told.put(server.sockets[0].getsockname()[1])
                await asyncio.to_thread(ended.wait)

        asyncio.run(run())

    async def main(port: int) -> Counters:
        counters, stop = Counters(), Stop()
        task = asyncio.create_task(
            record(Link(f"ws://127.0.0.1:{port}", idle_s=1.5), ["P0-USD"], MemorySink(), counters=counters, stop=stop)
        )
        await settled(lambda: counters.heartbeats > 5)
        time.sleep(2.5)  # noqa: ASYNC251 - the loop itself stands still
        stood.append(counters.heartbeats)
        await settled(lambda: counters.heartbeats > stood[0] + 150 or counters.connections > 1)
        stop()
        return await task

    told, ended = queue.Queue[int](), threading.Event()
    thread = threading.Thread(target=served, args=(told, ended))
    thread.start()
    try:
        counters = asyncio.run(main(told.get(timeout=60)))
    finally:
        ended.set()
        thread.join()
    assert (counters.connections, counters.reconnects, counters.gaps) == (1, 0, 0)


def test_a_fresh_book_that_does_not_come_ends_the_connection(tmp_store: Path) -> None:
    """A tape answers no request: the recorder gives the connection up, and the next one begins with a snapshot."""
    whole = [l2(0, "snapshot", "A", level("bid", "1", "2"), level("offer", "2", "3"))]
    whole += [l2(number, "update", "A", level("bid", "1", str(number))) for number in range(1, 400)]
    tape = [TapeFrame(number / 100, data) for number, data in enumerate(whole)]

    def until(_: Exchange, session: Session) -> bool:
        return session.counters.snapshots == 2 and session.counters.levels > 100

    with PlatformSink(tmp_store) as sink:
        session = record_session(
            lambda: Replay(tape, speed=1), ["A"], sink, until=until, faults=["drop@3"], resync_timeout_s=0.3
        )
    assert (session.counters.resyncs, session.counters.reconnects) == (1, 1)
    with Platform(tmp_store) as store:
        reasons = store["CB-L2-A"].gaps()["reason"].tolist()
    assert reasons == [b"sequence gap: frame 3 missing", b"reconnect: no fresh book of A in 0.3 s"]


def test_a_second_recording_goes_on_where_the_first_ended(tmp_store: Path) -> None:
    """The same tape twice: no trade twice, the book again, behind a mark."""
    frames = [
        l2(0, "snapshot", "A", level("bid", "1", "2"), level("offer", "2", "3")),
        trades(1, trade("A", 7), trade("A", 6), kind="snapshot"),
        trades(2, trade("A", 8)),
    ]
    tape = [TapeFrame(0, data) for data in frames]
    for _ in range(2):
        with PlatformSink(tmp_store) as sink:
            record_session(lambda: Replay(tape), ["A"], sink)
    with Platform(tmp_store) as store:
        assert store["CB-TRADES-A"].latest(9)["trade_id"].tolist() == [6, 7, 8]
        book = store["CB-L2-A"]
        assert len(book) == 4
        assert [(mark["position"], mark["reason"]) for mark in book.gaps()] == [(2, b"recorder restarted")]
        assert len(book.playback()) == 2


def test_bad_frames_and_error_frames_do_not_end_a_recording() -> None:
    frames = [
        l2(0, "snapshot", "A", level("bid", "1", "2")),
        b'{"type":"error","message":"slow down"}',
        l2(1, "update", "A", level("bid", "x", "2")),
        b"\xff\x00",
        heartbeat(2),
        l2(3, "update", "A", level("bid", "1", "3")),
    ]
    sink = MemorySink()
    session = record_session(lambda: Replay([TapeFrame(0, data) for data in frames[:3] + frames[4:]]), ["A"], sink)
    assert sink.feeds["CB-L2-A"].records["qty"].tolist() == [2.0, 3.0]
    assert (session.counters.bad_frames, session.counters.errors, session.counters.connections) == (1, 1, 1)


def test_products_are_spread_over_connections_of_thirty() -> None:
    products = [f"P{number}-USD" for number in range(33)]
    sink = MemorySink()
    session = record_session(lambda: Synthetic(products, rate=None, depth=10, steps=3), products, sink)
    assert session.counters.connections == 2
    subscribed = [
        json.loads(data)["events"][0]["subscriptions"].get("level2", [])
        for frames in session.sent
        for data in frames
        if b'"subscriptions"' in data[:40]
    ]
    assert max(map(len, subscribed)) == 17
    assert all(len(sink.feeds[f"CB-L2-{name}"].records) for name in products)


def test_a_snapshot_larger_than_the_librarys_limit_is_taken() -> None:
    sink = MemorySink()
    session = record_session(lambda: Synthetic(["BTC-USD"], rate=None, depth=12_000, steps=1), ["BTC-USD"], sink)
    assert max(map(len, session.sent[0])) > 2**20
    assert session.counters.reconnects == 0
    (levels,) = [len(batch) for batch, index in sink.feeds["CB-L2-BTC-USD"].batches if index]
    assert levels > 20_000


def test_an_endpoint_that_is_not_there_is_tried_again_with_growing_jittered_delays() -> None:
    link = Link("ws://127.0.0.1:1", backoff_s=0.5, backoff_max_s=30)
    for failures in range(12):
        longest = min(0.5 * 2**failures, 30)
        delays = [link.delay_s(failures) for _ in range(50)]
        assert longest / 2 <= min(delays) < max(delays) <= longest
    counters = asyncio.run(record(Link("ws://127.0.0.1:1", backoff_s=0.01), ["A"], MemorySink(), duration=0.2))
    assert counters.stopped == "duration"
    assert counters.connections == 0
    assert "connection lost" in counters.last_error


@pytest.mark.parametrize("place", ["ws://127.0.0.1:99999999/", "ws://[::1", "ws://a..b/"])
def test_an_endpoint_that_redirects_to_no_address_is_a_lost_connection(place: str) -> None:
    answer = f"HTTP/1.1 301 Moved\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
    counters, stop = Counters(), Stop()

    async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(move, "127.0.0.1", 0) as server:
            link = Link(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", backoff_s=0.01)
            task = asyncio.create_task(record(link, ["P0-USD"], MemorySink(), counters=counters, stop=stop))
            await settled(lambda: "no address" in counters.last_error or task.done())
            stop()
            await task

    asyncio.run(main())


@pytest.mark.parametrize("uri", ["http://x", "127.0.0.1:80", "", "ws://"])
def test_a_uri_that_is_none_is_refused_at_once(uri: str, tmp_store: Path) -> None:
    with pytest.raises(DeepwaterError, match="not a websocket address"):
        run_recorder(uri, ["A"], tmp_store)


def test_wrong_channels_and_products_are_refused_at_once(tmp_store: Path) -> None:
    for products, channels in (([], ["level2"]), (["A"], []), (["A"], ["ticker"]), (["A/B"], ["level2"])):
        with pytest.raises(DeepwaterError):
            run_recorder("ws://127.0.0.1:1", products, tmp_store, 0.1, channels)


def test_a_feed_that_another_recorder_writes_is_refused(tmp_store: Path) -> None:
    with PlatformSink(tmp_store) as sink:
        sink.open(specs.spec(specs.L2, "A"))
        with pytest.raises(FeedLockedError):
            run_recorder("ws://127.0.0.1:1", ["A"], tmp_store, 0.1)


def test_a_damaged_feed_ends_the_recording_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> int:
        raise CorruptFileError("chunk is damaged", path="x", reason="test")

    monkeypatch.setattr("memory_sink.MemoryFeed.write_batch", broken)
    with pytest.raises(CorruptFileError):
        record_session(synthetic, PRODUCTS, MemorySink(), until=lambda *_: False)


def test_what_the_status_callback_raises_ends_the_recording() -> None:
    def on_status(_: Counters) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        asyncio.run(record(Link("ws://127.0.0.1:1"), ["A"], MemorySink(), on_status=on_status))


def test_status_is_called_at_the_end_with_the_totals() -> None:
    seen: list[tuple[str, int]] = []
    asyncio.run(
        record(
            Link("ws://127.0.0.1:1"),
            ["A"],
            MemorySink(),
            duration=0.01,
            on_status=lambda counters: seen.append((counters.stopped, counters.frames)),
        )
    )
    assert seen[-1] == ("duration", 0)


def test_cancelling_leaves_the_feeds_whole() -> None:
    async def main() -> tuple[Session, MemorySink]:
        session, sink = Session(), MemorySink()
        async with Exchange(synthetic(10**9), on_send=session.on_send) as exchange:
            task = asyncio.create_task(
                record(Link(exchange.uri), PRODUCTS, sink, counters=session.counters, stop=Stop())
            )
            await settled(lambda: session.counters.frames > 100)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return session, sink

    session, sink = asyncio.run(main())
    expected = walk(session.received, PRODUCTS)
    for name in PRODUCTS:
        stored = sink.feeds[f"CB-L2-{name}"].records
        assert stored["price"].tolist() == [float(row["price"]) for row in expected[name].levels]


RECORDER = """
    import sys
    from deepwater.apps.recorder import run_recorder
    def status(counters):
        print(counters.levels, flush=True)
    counters = run_recorder(sys.argv[1], ["BTC-USD"], sys.argv[2], on_status=status)
    print("stopped by", counters.stopped, counters.levels, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_recording_cleanly(number: signal.Signals, tmp_store: Path) -> None:
    async def main() -> str:
        async with Exchange(Synthetic(["BTC-USD"], rate=200, depth=50)) as exchange:
            with Worker(RECORDER, exchange.uri, tmp_store) as worker:
                while int(await asyncio.to_thread(worker.readline)) <= 200:
                    pass
                worker.process.send_signal(number)
                return (await asyncio.to_thread(worker.finish)).splitlines()[-1]

    last = asyncio.run(main())
    with Platform(tmp_store) as store:
        assert last.split() == ["stopped", "by", number.name, str(len(store["CB-L2-BTC-USD"]))]
        assert [mark["reason"] for mark in store["CB-L2-BTC-USD"].gaps()] == []


@pytest.mark.parametrize("again", [False, True])
def test_a_store_that_is_removed_ends_the_recording_and_says_so(again: bool, tmp_store: Path) -> None:
    def until(exchange: Exchange, session: Session) -> bool:
        if session.counters.trades and (tmp_store / "data").exists() and not gone:
            gone.append((tmp_store / "data").rename(tmp_store.with_name("gone")))
            if again:
                (tmp_store / "data" / f"CB-L2-{PRODUCTS[0]}").mkdir(parents=True)
        return False

    gone: list[Path] = []
    with PlatformSink(tmp_store) as sink, pytest.raises(DeepwaterError, match="was removed while it was written"):
        record_session(synthetic, PRODUCTS, sink, until=until)


def test_a_store_that_fails_is_no_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", "chunk_00000002.bin")

    monkeypatch.setattr("memory_sink.MemoryFeed.write_batch", broken)
    with pytest.raises(DeepwaterError, match=r"can not be stored.*Permission denied"):
        record_session(synthetic, PRODUCTS, MemorySink(), until=lambda *_: False)
