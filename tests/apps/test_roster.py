"""Products that come and go while it records; a file of them; messages kept aside; the disk."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from loopback import Session, record_session, settled
from memory_sink import MemorySink
from stored import faults
from tape_walk import walk
from wire_frames import heartbeat, l2, level

from deepwater import Platform
from deepwater.apps import specs
from deepwater.apps.bad_frames import BadFrames
from deepwater.apps.coinbase_venue import COINBASE
from deepwater.apps.connection import Link
from deepwater.apps.counters import Counters
from deepwater.apps.disk_watch import DiskWatch, Forecast
from deepwater.apps.exchange import Exchange
from deepwater.apps.kraken_venue import KRAKEN
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.products_file import read_products
from deepwater.apps.recorder import Stop, record
from deepwater.apps.sink import Sink
from deepwater.apps.streams import Replay, Synthetic
from deepwater.apps.tape import TapeFrame
from deepwater.apps.venue import Venue
from deepwater.errors import DeepwaterError, FeedLockedError
from processes import Worker

Change = Callable[..., Coroutine[Any, Any, None]]
Script = Callable[[Change, Session], Coroutine[Any, Any, None]]
ALL = [f"P{number}-USD" for number in range(40)]


def record_changing(
    products: Sequence[str], sink: Sink, script: Script, market: Sequence[str] = ALL, venue: Venue = COINBASE,
    faults: Sequence[str] = (),
) -> Session:  # fmt: skip
    """Record a market while `script(change, session)` says what is recorded from then on."""

    async def main() -> Session:
        session, stop, changes = Session(), Stop(), asyncio.Queue()
        stream = Synthetic(market, seed=2, rate=100, depth=10, session=venue.exchange_session)

        async def change(*names: str) -> None:
            changes.put_nowait(lambda: list(names))
            await settled(changes.empty)

        async with Exchange(stream, on_send=session.on_send, faults=faults) as exchange:
            task = asyncio.create_task(
                record(Link(exchange.uri, backoff_s=0.01, resync_pause_s=0.1), products, sink,
                       counters=session.counters, stop=stop, changes=changes, venue=venue)
            )
            work = asyncio.create_task(script(change, session))
            done, _ = await asyncio.wait([task, work], timeout=100, return_when=asyncio.FIRST_COMPLETED)
            assert done == {work}
            work.result()
            stop()
            await task
        return session

    return asyncio.run(main())


def test_products_come_go_and_come_back_with_a_mark(tmp_store: Path) -> None:
    one, two, three = ALL[:3]

    async def script(change: Change, session: Session) -> None:
        feeds = session.counters.feeds
        await settled(lambda: feeds.get(f"CB-L2-{one}", 0) > 50)
        await change(two, one, three)
        await settled(lambda: min(feeds.get(f"CB-L2-{name}", 0) for name in (two, three)) > 50)
        await change(two)
        held = feeds[f"CB-L2-{one}"]
        await settled(lambda: feeds[f"CB-L2-{two}"] > 300)
        assert feeds[f"CB-L2-{one}"] == held
        with Platform(tmp_store) as other:  # its feeds are free
            other.create_writer(f"CB-L2-{one}").close()
            with pytest.raises(FeedLockedError):
                other.create_writer(f"CB-L2-{two}")
        await change(two, one)
        await settled(lambda: feeds[f"CB-L2-{one}"] > held + 50)

    with PlatformSink(tmp_store) as sink:
        session = record_changing([one], sink, script)
    counters = session.counters
    assert (counters.connections, counters.gaps, counters.errors, counters.reconnects) == (1, 0, 0, 0)
    with Platform(tmp_store) as store:
        assert [mark["reason"] for mark in store[f"CB-L2-{one}"].gaps()] == [b"not subscribed"]
        assert [mark["reason"] for mark in store[f"CB-TRADES-{one}"].gaps()][:1] == [b"not subscribed"]
        assert len(store[f"CB-L2-{one}"].snapshots()) == 2
        for name in (two, three):
            assert len(store[f"CB-L2-{name}"].gaps()) == 0
        assert faults(store, two, walk(session.received, [two])[two])[:3] == []


def test_more_products_than_a_connection_takes_open_another_and_the_last_ends_it() -> None:
    sink = MemorySink()

    async def script(change: Change, session: Session) -> None:
        feeds = session.counters.feeds
        await settled(lambda: len(feeds) == 58 and min(feeds.values()) > 0)
        await change(*ALL[:31])
        await settled(lambda: len(feeds) == 62 and min(feeds.values()) > 0)
        assert session.counters.connections == 2
        await change(ALL[30])
        seen = feeds[f"CB-L2-{ALL[30]}"]
        await settled(lambda: feeds[f"CB-L2-{ALL[30]}"] > seen + 20)

    record_changing(ALL[:29], sink, script)
    assert len(sink.released) == 60 and f"CB-L2-{ALL[30]}" not in sink.released


def test_a_wrong_list_changes_nothing_and_a_locked_feed_only_itself(tmp_store: Path) -> None:
    one, two, three = ALL[:3]

    async def script(change: Change, session: Session) -> None:
        feeds = session.counters.feeds
        await settled(lambda: feeds.get(f"CB-L2-{one}", 0) > 20)
        for wrong, said in (([], "no product"), ([one, one], "twice"), ([one, "b/c"], "not allowed")):
            await change(*wrong)
            await settled(lambda said=said: said in session.counters.last_error)
        await change(one, two, three)
        await settled(lambda: feeds.get(f"CB-L2-{three}", 0) > 20)
        assert "product P1-USD is not recorded: " in session.counters.last_error
        assert f"CB-TRADES-{two}" not in feeds and f"CB-L2-{one}" in feeds

    with PlatformSink(tmp_store) as sink, Platform(tmp_store) as other:
        other.create_feed(specs.spec(specs.L2, two))
        with other.create_writer(f"CB-L2-{two}"):
            session = record_changing([one], sink, script)
    assert session.counters.gaps == 0


# ------------------------------------------------------------------------------------------ refused ones


def books(session: Session, venue: Venue) -> dict[str, int]:
    """The records of each book, by product."""
    head = {"coinbase": "CB-L2-", "kraken": "KR-L2-"}[venue.name]
    found = session.counters.feeds.items()
    return {name.removeprefix(head): count for name, count in found if name.startswith(head)}


@pytest.mark.parametrize("venue", [COINBASE, KRAKEN], ids=lambda venue: venue.name)
def test_a_product_that_the_exchange_has_not_costs_the_others_nothing(
    venue: Venue, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start, when products come, after a gap and after a lost connection."""
    one, two, three = ALL[:3]

    async def script(change: Change, session: Session) -> None:
        async def flow(*names: str) -> None:
            before = books(session, venue)
            await settled(lambda: all(books(session, venue).get(n, 0) > before.get(n, 0) + 50 for n in names))

        await flow(one)
        await settled(lambda: session.counters.errors == 1)
        await change(one, "NOPE-USD", two, three, "NO-USD")
        await flow(one, two, three)
        await settled(lambda: session.counters.errors == 2)
        await settled(lambda: session.counters.resyncs >= 1)
        await settled(lambda: session.counters.reconnects == 1)
        await flow(one, two, three)
        await change(one, two)
        await flow(one, two)

    session = record_changing([one, "NOPE-USD"], MemorySink(), script, [one, two, three], venue,
                              ["drop@1s*", "close@3s"])  # fmt: skip
    counters = session.counters
    assert (counters.errors, counters.reconnects, counters.bad_frames) == (2, 1, 0)
    assert [count for name, count in counters.feeds.items() if "-NO" in name] == [0] * 4
    said = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert [text.partition(" is refused ")[0] for text in said] == ["product NOPE-USD", "product NO-USD"]


RECORDER = """
    import sys
    from deepwater.apps.products_file import read_products
    from deepwater.apps.recorder import run_recorder
    def status(counters):
        print(len(counters.feeds), counters.last_error, flush=True)
    def products():
        return read_products(sys.argv[3])
    run_recorder(sys.argv[1], products(), sys.argv[2], on_status=status, reload=products)
"""


def test_sighup_reads_the_file_anew_and_a_bad_file_is_said_and_ignored(tmp_path: Path) -> None:
    listed = tmp_path / "products.txt"
    listed.write_text(f"# mine\n{ALL[0]}   # the first\n\n")

    async def main() -> None:
        async with Exchange(Synthetic(ALL[:3], rate=100, depth=10)) as exchange:
            with Worker(RECORDER, exchange.uri, tmp_path / "store", listed) as worker:

                async def until(words: str) -> None:
                    while words not in (line := await asyncio.to_thread(worker.readline)):
                        assert line

                await until("2 ")
                listed.write_text(f"{ALL[0]}\n{ALL[2]}\n")
                worker.process.send_signal(signal.SIGHUP)
                await until("4 ")
                listed.write_text(f"{ALL[0]} {ALL[1]}\n")
                worker.process.send_signal(signal.SIGHUP)
                await until("the products stay as they are: products file")
                worker.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(worker.finish)

    asyncio.run(main())
    with Platform(tmp_path / "store") as store:
        assert [name for name in store.list_feeds() if "L2" in name] == [f"CB-L2-{ALL[0]}", f"CB-L2-{ALL[2]}"]
        assert all(len(store[name].gaps()) == 0 for name in store.list_feeds())


@pytest.mark.parametrize(
    ("data", "said"),
    [(None, "No such file"), (b"A-B C-D\n", "line 1 holds 2 words"), (b"A-B\n\xff\n", "byte 4 is no UTF-8"),
     (b"#" * (1 << 20) + b"\n", "larger than 1 MiB")],
)  # fmt: skip
def test_a_file_that_is_no_list_of_products_is_refused(tmp_path: Path, data: bytes | None, said: str) -> None:
    if data is not None:
        (tmp_path / "list").write_bytes(data)
    with pytest.raises(DeepwaterError, match=said):
        read_products(tmp_path / "list")


# ------------------------------------------------------------------------------------------ bad frames


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_list_in_a_fifo_is_refused_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list")
    with pytest.raises(DeepwaterError, match="no regular file"):
        read_products(tmp_path / "list")


def test_messages_that_can_not_be_used_are_kept_whole(tmp_path: Path) -> None:
    wrong = l2(1, "update", "A", level("bid", "x" * 1000, "2"))
    frames = [l2(0, "snapshot", "A", level("bid", "1", "2")), wrong, b"no frame", heartbeat(2)]
    keep = BadFrames(tmp_path, "coinbase")
    assert not keep.path.exists()
    session = record_session(
        lambda: Replay([TapeFrame(0, data) for data in frames]), ["A"], MemorySink(), keep_bad=keep
    )
    first, second = entries(keep.path)
    assert session.counters.bad_frames == 2 and first["text"] == wrong.decode() and first["bytes"] == len(wrong)
    assert "malformed" in str(first["reason"]) and second["text"] == "no frame" and first["venue"] == "coinbase"
    assert str(first["time"]).endswith("Z") and keep.path.stat().st_mode & 0o777 == 0o600


def test_what_is_kept_is_bounded_and_bytes_that_are_no_text_are_kept_too(tmp_path: Path) -> None:
    keep = BadFrames(tmp_path, "v", file_bytes=4000)
    for number in range(100):
        keep(number, "why", b"\xff" * 300)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["bad_frames.1.jsonl", "bad_frames.jsonl"]
    assert all(path.stat().st_size <= 4000 for path in files)
    last = entries(keep.path)[-1]
    assert base64.b64decode(str(last["base64"])) == b"\xff" * 300 and "00:00:00.000099" in str(last["time"])
    keep(1, "large", b"x" * (3 << 20))
    assert entries(keep.path)[-1]["bytes"] == 3 << 20 and keep.path.stat().st_size < 2 << 20


@pytest.mark.parametrize("kind", ["link", "fifo", "read fifo", "directory"])
def test_a_place_that_takes_no_file_harms_nothing(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "bad_frames.jsonl"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    reads = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if kind == "read fifo" else None
    keep = BadFrames(tmp_path, "v")
    keep(1, "why", b"x")
    keep(2, "why", b"x")
    if reads is not None:
        assert os.read(reads, 10) == b""
        os.close(reads)
    assert len(caplog.records) == 1 and not (tmp_path / "elsewhere").exists()


# ------------------------------------------------------------------------------------------ the disk


def test_the_forecast_is_of_the_last_hour_and_knows_what_retention_frees() -> None:
    forecast = Forecast()
    assert forecast.add(0, 10**9, 0, 0) is None and forecast.add(59, 10**9, 10**6, 0) is None
    assert forecast.add(100, 10**9, 10**6, 0) == 10**9 * 100 / 10**6
    assert forecast.add(10_000, 10**9, 10**6, 0) is None  # nothing in the last hour
    assert forecast.add(11_000, 5 * 10**8, 10**9, 0) is not None
    assert forecast.add(11_100, 10**9, 2 * 10**9, 7) is None  # chunks went as fast as others came


def test_the_warning_is_said_once_an_hour(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch, counters = DiskWatch(tmp_path), Counters()
    system = os.statvfs(tmp_path)
    a_day = system.f_bavail * system.f_frsize
    for minute in range(0, 190, 5):
        counters.written_bytes = int(a_day * minute / 600)  # full in ten hours
        watch.look(counters, minute * 60.0)
    assert len(caplog.records) == 4 and counters.disk_full_s is not None
    assert "will be full in 1" in counters.last_error or "will be full in 9" in counters.last_error
    assert counters.to_json()["disk_full_s"] == counters.disk_full_s
