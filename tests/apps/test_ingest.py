"""Frames into feeds, without sockets: marks, snapshots, trades once, and what is wrong with a frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from memory_sink import MemoryFeed, MemorySink
from wire_frames import STAMP_US, frame, heartbeat, l2, level, trade, trades

from deepwater import Platform
from deepwater.apps import specs
from deepwater.apps.counters import Counters
from deepwater.apps.ingest import Ingest, ProtocolBreach
from deepwater.apps.product_feeds import BookFeed
from deepwater.apps.venue import FeedKey
from deepwater.books import book_at

SNAPSHOT = [level("bid", "10", "1"), level("offer", "11", "2")]


class Bench:
    """An `Ingest` whose clock is a counter, and its feeds."""

    def __init__(self, products: Sequence[str] = ("A", "B"), sink: MemorySink | None = None) -> None:
        self.sink = sink or MemorySink()
        self.counters = Counters()
        self.now = 1000
        self.ingest = Ingest(self.sink, products, self.counters, now=lambda: self.now)
        self.ingest.connected()
        self.ingest.roll.granted(FeedKey("book", name) for name in products)

    def take(self, *frames: bytes) -> None:
        for data in frames:
            self.now += 10
            self.ingest.frame(data, self.now)

    def feed(self, name: str) -> MemoryFeed:
        return self.sink.feeds[name]

    @property
    def gaps(self) -> dict[str, list[tuple[int, str]]]:
        """Position and reason of each gap, by feed."""
        return {name: [(gap["position"], gap["reason"]) for gap in feed.gaps] for name, feed in self.sink.feeds.items()}


FEEDS = {"CB-L2-A", "CB-L2-B", "CB-TRADES-A", "CB-TRADES-B"}


def test_a_snapshot_is_one_indexed_write_and_an_updates_frame_one_write() -> None:
    bench = Bench()
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT), l2(1, "update", "A", level("bid", "9", "1"), level("bid", "8", "0")))
    assert [(len(batch), index) for batch, index in bench.feed("CB-L2-A").batches] == [(2, True), (2, False)]
    assert bench.feed("CB-L2-A").records["seq"].tolist() == [0, 0, 1, 1]
    assert (bench.counters.levels, bench.counters.snapshots, bench.counters.frames) == (4, 1, 2)
    assert not any(bench.gaps.values())


def test_events_of_one_frame_are_one_write_a_feed_but_a_snapshot_stands_alone() -> None:
    one, two, three = level("bid", "1", "1"), level("bid", "2", "1"), level("bid", "3", "1")
    events = [
        {"type": "update", "product_id": "A", "updates": [one]},
        {"type": "update", "product_id": "B", "updates": [one]},
        {"type": "update", "product_id": "A", "updates": [two]},
        {"type": "snapshot", "product_id": "A", "updates": [one, two, three]},
        {"type": "update", "product_id": "A", "updates": [three]},
    ]
    bench = Bench()
    bench.take(frame("l2_data", 0, events))
    found = [(batch["price"].tolist(), index) for batch, index in bench.feed("CB-L2-A").batches]
    assert found == [([1.0, 2.0], False), ([1.0, 2.0, 3.0], True), ([3.0], False)]
    assert [len(batch) for batch, _ in bench.feed("CB-L2-B").batches] == [1]


def test_a_sequence_gap_is_marked_in_every_feed_before_the_next_record() -> None:
    bench = Bench()
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT), l2(3, "update", "A", level("bid", "9", "1")))
    reason = "sequence gap: frames 1..2 missing"
    assert bench.gaps == {name: [(2 if name == "CB-L2-A" else 0, reason)] for name in FEEDS}
    gap = bench.feed("CB-TRADES-B").gaps[0]
    assert (gap["lost"], gap["from_us"], gap["to_us"]) == (None, 1010, 1020)
    assert (bench.counters.gaps, bench.counters.lost_frames) == (1, 2)
    assert bench.ingest.stale == {"A", "B"}


def test_a_book_that_was_not_answered_yet_is_stale_only_if_its_snapshot_may_be_what_was_lost() -> None:
    bench = Bench()
    bench.ingest.connected()
    bench.take(heartbeat(1), heartbeat(2))
    assert bench.ingest.stale == set()  # to name it in a message might spoil that: it may be refused
    bench.take(l2(3, "snapshot", "A", *SNAPSHOT), l2(4, "update", "B", level("bid", "9", "1")))
    assert bench.ingest.stale == {"B"}


def test_a_fresh_snapshot_heals_a_stale_book() -> None:
    bench = Bench()
    bench.take(heartbeat(1), l2(2, "snapshot", "A", *SNAPSHOT))
    assert bench.ingest.stale == {"B"}


@pytest.mark.parametrize("comes", ["snapshot", "update"])
def test_a_book_that_comes_back_and_goes_on_without_a_snapshot_is_asked_for(comes: str) -> None:
    """The exchange says that it is subscribed already: no snapshot will come, and behind the mark there is no book."""
    bench = Bench()
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT))
    bench.ingest.remove("A")
    bench.ingest.add("A")
    bench.take(l2(1, "update", "A", *SNAPSHOT))
    assert bench.ingest.stale == set()  # of the subscription before: the next one is yet to be asked for
    while bench.ingest.roll.next():
        pass
    bench.take(l2(2, comes, "A", *SNAPSHOT))
    assert bench.ingest.stale == ({"A"} if comes == "update" else set())
    bench.ingest.stale.clear()  # asked for
    bench.take(l2(3, "update", "A", *SNAPSHOT))
    assert bench.ingest.stale == set()


def test_a_reconnect_is_marked_in_every_feed_when_it_delivers() -> None:
    bench = Bench()
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT), trades(1, trade("A", 5)))
    bench.ingest.disconnected("closed with 1001")
    bench.ingest.connected()
    assert not any(bench.gaps.values())
    bench.now += 500
    bench.take(heartbeat(0), l2(1, "snapshot", "A", *SNAPSHOT))
    assert bench.gaps == {
        "CB-L2-A": [(2, "reconnect: closed with 1001")],
        "CB-TRADES-A": [(1, "reconnect: closed with 1001")],
        "CB-L2-B": [(0, "reconnect: closed with 1001")],
        "CB-TRADES-B": [(0, "reconnect: closed with 1001")],
    }
    gap = bench.feed("CB-L2-B").gaps[0]
    assert (gap["from_us"], gap["to_us"]) == (1020, 1530)


def test_an_outage_that_does_not_end_is_marked_at_the_end() -> None:
    bench = Bench()
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT))
    bench.ingest.disconnected("no frame for 10 s")
    bench.ingest.disconnected("refused")
    bench.ingest.close()
    assert {tuple(gaps) for gaps in bench.gaps.values()} == {
        ((2, "reconnect: no frame for 10 s"),),
        ((0, "reconnect: no frame for 10 s"),),
    }


def test_failed_attempts_before_the_first_frame_are_no_gap() -> None:
    bench = Bench()
    bench.ingest.disconnected("refused")
    bench.ingest.connected()
    bench.take(heartbeat(0))
    bench.ingest.close()
    assert not any(bench.gaps.values())


def test_numbers_that_step_back_end_the_connection() -> None:
    bench = Bench()
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT), heartbeat(1))
    with pytest.raises(ProtocolBreach, match="stepped back"):
        bench.take(l2(0, "update", "A", level("bid", "9", "1")))
    assert len(bench.feed("CB-L2-A").records) == 2


def test_each_trade_is_stored_once_oldest_first() -> None:
    bench = Bench()
    bench.take(
        trades(0, *(trade("A", number) for number in (3, 2, 1)), kind="snapshot"),
        trades(1, trade("A", 5), trade("B", 9), trade("A", 4), trade("A", 3)),
    )
    bench.ingest.disconnected("x")
    bench.ingest.connected()
    bench.take(trades(0, *(trade("A", number) for number in (6, 5, 4)), kind="snapshot"))
    assert bench.feed("CB-TRADES-A").records["trade_id"].tolist() == [1, 2, 3, 4, 5, 6]
    assert bench.feed("CB-TRADES-B").records["trade_id"].tolist() == [9]
    assert (bench.counters.trades, bench.counters.duplicates) == (7, 3)


def test_trades_that_never_came_are_marked_with_their_number() -> None:
    bench = Bench()
    bench.take(trades(0, trade("A", 3)), trades(1, trade("A", 9), trade("A", 8)))
    assert bench.gaps["CB-TRADES-A"] == [(1, "trade ids 4..7 missing")]
    assert bench.feed("CB-TRADES-A").gaps[0]["lost"] == 4
    assert not bench.gaps["CB-L2-A"]
    bench.take(trades(2, trade("A", 6)))
    assert bench.feed("CB-TRADES-A").records["trade_id"].tolist() == [3, 8, 9, 6]
    assert bench.counters.lost_trades == 4


def test_a_malformed_frame_is_counted_kept_and_marked_and_nothing_of_it_is_stored() -> None:
    bench = Bench()
    bad = l2(1, "update", "A", level("bid", "9", "1"), level("bid", "x", "1"))
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT), bad, heartbeat(2))
    assert len(bench.feed("CB-L2-A").records) == 2
    assert bench.counters.bad_frames == 1
    assert bench.counters.bad_log[0].data == bad[:256]
    assert all(len(gaps) == 1 and "malformed" in gaps[0][1] for gaps in bench.gaps.values())
    assert bench.ingest.stale == {"A", "B"}


def test_bytes_without_a_number_are_marked_by_the_number_after_them() -> None:
    bench = Bench()
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT), b"\x00garbage", heartbeat(2))
    assert bench.counters.bad_frames == 1
    assert {gaps[0][1] for gaps in bench.gaps.values()} == {"sequence gap: frame 1 missing"}


def test_a_bad_time_is_a_malformed_frame() -> None:
    bench = Bench()
    bench.take(l2(0, "update", "A", level("bid", "9", "1", time="yesterday")), heartbeat(1))
    assert bench.counters.bad_frames == 1
    assert len(bench.feed("CB-L2-A").records) == 0


def test_error_frames_are_surfaced_and_are_no_frames() -> None:
    bench = Bench()
    bench.take(b'{"type":"error","message":"no such product"}', heartbeat(0))
    assert bench.counters.errors == 1
    assert bench.counters.last_error == "exchange: no such product"
    assert not any(bench.gaps.values())


def test_what_is_not_recorded_is_counted() -> None:
    bench = Bench()
    bench.take(frame("ticker", 0, [{}]), l2(1, "update", "Z", level("bid", "1", "1")), trades(2, trade("Z", 1)))
    assert bench.counters.ignored == 3
    assert not any(bench.gaps.values())


def test_one_channel_alone_opens_one_feed_a_product() -> None:
    sink = MemorySink()
    ingest = Ingest(sink, ["A"], Counters(), channels=["market_trades"])
    ingest.connected()
    ingest.frame(l2(0, "snapshot", "A", *SNAPSHOT), 1)
    assert set(sink.feeds) == {"CB-TRADES-A"}


def test_a_restart_goes_on_behind_a_mark_and_stores_no_trade_twice() -> None:
    first = Bench()
    first.take(l2(0, "snapshot", "A", *SNAPSHOT), trades(1, trade("A", 4), trade("A", 2), trade("A", 1)))
    first.ingest.close()
    second = Bench(sink=first.sink)
    second.now = 500  # the wall clock was set back
    second.take(trades(0, *(trade("A", number) for number in (6, 5, 4, 3, 2)), kind="snapshot"))
    feed = second.feed("CB-TRADES-A")
    assert feed.records["trade_id"].tolist() == [1, 2, 4, 3, 5, 6]
    assert feed.records["proc_us"].tolist() == [1020] * 6
    assert second.gaps["CB-TRADES-A"] == [(2, "trade id 3 missing"), (3, "recorder restarted")]
    assert second.gaps["CB-L2-A"] == [(2, "recorder restarted")]
    assert second.gaps["CB-L2-B"] == []


def test_space_that_returns_is_marked_and_the_book_asked_for() -> None:
    bench = Bench()
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT), trades(1, trade("A", 1)))
    for feed in bench.sink.feeds.values():
        feed.full = True
    bench.take(l2(2, "update", "A", level("bid", "9", "1")), trades(3, trade("A", 3), trade("A", 2)))
    assert not bench.ingest.stale
    for feed in bench.sink.feeds.values():
        feed.full = False
    bench.take(l2(4, "update", "A", level("bid", "9", "2")), trades(5, trade("A", 4), trade("A", 3)))
    assert bench.ingest.stale == {"A"}
    assert bench.feed("CB-L2-A").records["seq"].tolist() == [0, 0, 4]
    assert [gap["lost"] for gap in bench.feed("CB-L2-A").gaps] == [1]
    assert bench.feed("CB-TRADES-A").records["trade_id"].tolist() == [1, 3, 4]
    assert [gap["lost"] for gap in bench.feed("CB-TRADES-A").gaps] == [2]
    assert bench.counters.unstored == 3


def test_counters_can_be_shown_and_kept() -> None:
    bench = Bench()
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT))
    kept = bench.counters.copy()
    shown = kept.to_json()
    bench.take(heartbeat(1))
    assert (kept.frames, bench.counters.frames) == (1, 2)
    assert shown["feeds"]["CB-L2-A"] == 2
    assert shown["handling"]["count"] == 1


def test_an_exchange_that_numbers_its_trades_anew_is_marked_and_recorded() -> None:
    bench = Bench(["A"])
    bench.now = STAMP_US
    bench.take(trades(0, trade("A", 900)), trades(1, trade("A", 901)))
    bench.ingest.disconnected("closed with 1001")
    bench.ingest.connected()
    later = [trade("A", number) | {"time": f"2026-08-09T05:24:0{number}Z"} for number in (3, 2, 1)]
    bench.take(trades(0, *later))
    assert bench.feed("CB-TRADES-A").records["trade_id"].tolist() == [900, 901, 1, 2, 3]
    assert bench.gaps["CB-TRADES-A"] == [(2, "reconnect: closed with 1001"), (2, "trade ids anew: 1 after 901")]
    assert (bench.counters.duplicates, bench.counters.lost_trades) == (0, 0)


@pytest.mark.parametrize("updates", [[], None])
def test_a_snapshot_without_levels_is_a_book_that_is_valid_and_empty(
    updates: list[object] | None, tmp_store: Path
) -> None:
    bench = Bench(["A"])
    emptied = frame("l2_data", 1, [{"type": "snapshot", "product_id": "A", "updates": updates}])
    bench.take(l2(0, "snapshot", "A", *SNAPSHOT), emptied, l2(2, "update", "A", level("bid", "9", "1")))
    assert bench.gaps["CB-L2-A"] == [] and bench.ingest.stale == set()
    assert (bench.counters.snapshots, bench.counters.levels) == (2, 4)
    feed = bench.feed("CB-L2-A")
    with Platform(tmp_store) as store:
        store.create_feed(feed.spec)
        with store.create_writer("CB-L2-A") as writer, store["CB-L2-A"] as reader:
            found = []
            for batch, index in feed.batches:
                writer.write_batch(batch, create_index=index)
                book = book_at(reader)
                found.append((book.valid, book.bids["price"].tolist(), book.asks["price"].tolist()))
    assert found == [(True, [10.0], [11.0]), (True, [], []), (True, [9.0], [])]
    assert feed.records["seq"].tolist() == [0, 0, 1, 2] and feed.records["ev_us"][2] == feed.records["packet_us"][2]


def test_an_empty_snapshot_of_a_venue_that_makes_no_record_of_it_is_one_all_the_same() -> None:
    bench = Bench(["A"])
    outlet = bench.ingest._feeds[FeedKey("book", "A")].outlet
    BookFeed("A", outlet, bench.counters, set()).write(np.zeros(0, specs.dtype(specs.L2)), True, 7)
    assert [(len(batch), index) for batch, index in bench.feed("CB-L2-A").batches] == [(1, True)]
    assert bench.feed("CB-L2-A").records["recv_us"].tolist() == [7]


def test_a_trade_of_a_time_that_can_not_be_hides_no_numbers_that_begin_anew() -> None:
    bench = Bench(["A"])
    bench.now = STAMP_US
    bench.take(trades(0, trade("A", 900)), trades(1, trade("A", 901) | {"time": "9999-12-31T23:59:59Z"}))
    bench.take(trades(2, trade("A", 5) | {"time": "9999-01-01T00:00:00Z"}))
    assert bench.feed("CB-TRADES-A").records["trade_id"].tolist() == [900, 901]  # nor does it make one begin
    for _ in range(2):
        bench = Bench(["A"], bench.sink)  # also after a restart
        bench.now = STAMP_US + 60_000_000
        bench.take(trades(0, trade("A", 1) | {"time": "2026-08-09T05:24:01Z"}))
    assert bench.feed("CB-TRADES-A").records["trade_id"].tolist() == [900, 901, 1]
    assert "trade ids anew: 1 after 901" in [reason for _, reason in bench.gaps["CB-TRADES-A"]]


def test_what_the_exchange_says_is_cut() -> None:
    bench = Bench(["A"])
    bench.take(b'{"type":"error","message":"' + b"x" * 10_000 + b'"}')
    assert len(bench.counters.last_error) < 400
