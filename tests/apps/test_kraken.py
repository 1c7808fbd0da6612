"""Kraken behind the seam: a whole recorded session with its checksums, losses found by them, and what is malformed."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kraken_walk import Moment, Pair, checksum, digits_of, stored_checksum, walk
from loopback import Session, all_taken, record_session
from memory_sink import MemorySink

from deepwater import Platform
from deepwater.apps.counters import Counters
from deepwater.apps.exchange import Exchange
from deepwater.apps.ingest import Ingest
from deepwater.apps.kraken import KrakenError, decode
from deepwater.apps.kraken_venue import KRAKEN, Kraken
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.streams import Replay, Synthetic
from deepwater.apps.tape import TapeFrame, read_tape
from deepwater.apps.venue import FeedKey
from deepwater.book import Book, OrderBook
from deepwater.books import book_at
from deepwater.errors import DeepwaterError
from deepwater.reader import Reader

TAPE = "2026-08-09-btc-usd-live.jsonl.gz"
PRODUCTS = ["BTC-USD", "ETH-USD"]


@pytest.fixture(scope="module")
def tape(shared_data: Path) -> list[TapeFrame]:
    return list(read_tape(shared_data / "coinbase" / TAPE, "kraken"))


def levels(side: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
    return [(float(price), float(qty)) for price, qty in side]


def same(book: Book, moment: Moment) -> bool:
    return book.bids.tolist() == levels(moment.bids) and book.asks.tolist() == levels(moment.asks)


def ends_of_messages(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Positions behind the last record of each book message (of one connection)."""
    return np.append(np.flatnonzero(np.diff(rows["seq"])) + 1, len(rows))


def check_moments(reader: Reader, pair: Pair, count: int = 200) -> None:
    """Every book of the feed, message by message and at random times, is the tape's; so is every checksum."""
    rows, marks = reader.read().to_numpy(), reader.marks()
    ends = ends_of_messages(rows)
    stepped, digits, at, right = OrderBook(), {}, 0, 0
    for stop, moment in zip(ends.tolist(), pair.moments, strict=True):
        new = rows[at:stop]
        stepped.apply(new, marks)
        at = stop
        digits |= digits_of(new)
        book = stepped.book()
        assert book.valid and same(book, moment) and not book.crossed, stop
        assert int(rows["checksum"][stop - 1]) == moment.checksum
        right += stored_checksum(book, digits) == moment.checksum
    assert right == len(pair.moments)
    times = rows["proc_us"]
    chosen = times[np.random.default_rng(len(rows)).integers(0, len(rows), count)]
    for time, stop in zip(chosen.tolist(), times.searchsorted(chosen, "right").tolist(), strict=True):
        book = book_at(reader, time)
        assert book.valid and same(book, pair.moments[int(ends.searchsorted(stop))])


def test_a_whole_recorded_session_agrees_with_every_checksum(tape: list[TapeFrame], tmp_store: Path) -> None:
    """1,676 of 1,676: of another reading of the tape, of the recorder, and of the books that the feed alone gives."""
    with PlatformSink(tmp_store) as sink:
        session = record_session(lambda: Replay(tape), ["BTC-USD"], sink, venue=KRAKEN)
    assert session.frames_sent == len(tape) == 1856
    pair = walk(frame.data for frame in tape)["BTC-USD"]
    assert pair.right == len(pair.moments) == 1676
    counters = session.counters
    assert (counters.gaps, counters.bad_frames, counters.errors, counters.snapshots) == (0, 0, 0, 1)
    with Platform(tmp_store) as store, store["KR-L2-BTC-USD"] as reader:
        assert len(reader.gaps()) == 0
        kinds = reader.read()["type"]
        assert np.isin(kinds, [b"S", b"U"]).sum() == sum(moment.sent for moment in pair.moments)
        assert (kinds == b"D").sum() == 413
        check_moments(reader, pair)


def test_each_lost_message_of_the_tape_is_found_by_the_next_one(tape: list[TapeFrame]) -> None:
    """Each once. Not found is only what the next one wrote over: then the book is right all the same."""
    frames = [frame.data for frame in tape if b'"checksum"' in frame.data]
    stream, unseen = KRAKEN.connection(), 0
    pairs = walk([])
    for number, (lost, after) in enumerate(pairwise(frames)):
        if number:  # without the snapshot there is no book: another test
            without, known = copy.deepcopy(stream), copy.deepcopy(pairs)
            message = without.take(after, number)
            (moment,) = walk([after], known=known)["BTC-USD"].moments[-1:]
            right = checksum(moment.bids, moment.asks) == moment.checksum
            unseen += right
            missed = [(one.reason.partition(":")[0], one.feeds, one.from_us) for one in message.missed]
            assert missed == ([] if right else [("checksum", (FeedKey("book", "BTC-USD"),), number - 1 or None)])
        stream.take(lost, number)
        walk([lost], known=pairs)
        pairs["BTC-USD"].moments.clear()
    assert (number, unseen) == (1674, 335)


def synthetic(steps: int = 400, **options: Any) -> Synthetic:
    return Synthetic(PRODUCTS, seed=5, rate=None, depth=60, steps=steps, session=KRAKEN.exchange_session, **options)


def spans(session: Session) -> list[dict[str, Pair]]:
    return [walk(frames) for frames in session.received]


def test_a_synthetic_market_is_recorded_whole(tmp_store: Path) -> None:
    with PlatformSink(tmp_store) as sink:
        session = record_session(synthetic, PRODUCTS, sink, venue=KRAKEN)
    (pairs,) = spans(session)
    assert session.counters.gaps == session.counters.bad_frames == session.counters.errors == 0
    with Platform(tmp_store) as store:
        for name in PRODUCTS:
            pair = pairs[name]
            assert pair.right == len(pair.moments) > 200
            check_moments(store[f"KR-L2-{name}"], pair, 50)
            trades = store[f"KR-TRADES-{name}"].read()
            want = sorted(pair.trades)
            assert len(want) > 50 and trades["trade_id"].tolist() == want
            assert trades["price"].tolist() == [float(pair.trades[number]["price"]) for number in want]
            assert trades["side"].tolist() == [
                {"buy": b"B", "sell": b"S"}[pair.trades[number]["side"]] for number in want
            ]


def test_a_lost_message_is_a_gap_and_a_fresh_snapshot_makes_the_book_right_again(tmp_store: Path) -> None:
    """Through sockets: the checksum does not agree, the recorder unsubscribes and subscribes, and goes on."""

    def until(exchange: Exchange, session: Session) -> bool:
        return all_taken(exchange, session) and session.counters.snapshots == 2 + session.counters.gaps

    faults = [f"drop@{number}" for number in range(150, 154)]  # of books at least one a product
    with PlatformSink(tmp_store) as sink:
        session = record_session(
            lambda: synthetic(1200), PRODUCTS, sink, venue=KRAKEN, until=until, faults=faults, resync_pause_s=0.0
        )
    (pairs,) = spans(session)
    assert session.counters.gaps >= 1 and session.counters.resyncs >= 1 and session.counters.reconnects == 0
    with Platform(tmp_store) as store:
        hurt = [name for name in PRODUCTS if len(store[f"KR-L2-{name}"].gaps())]
        assert len(hurt) == session.counters.gaps
        for name in hurt:
            reader = store[f"KR-L2-{name}"]
            (reason,), (at,) = reader.gaps()["reason"].tolist(), reader.gaps()["position"].tolist()
            rows, begins = reader.read().to_numpy(), reader.snapshots()["position"].tolist()
            assert reason.startswith(b"checksum: ") and len(begins) == 2 and begins[0] < at < begins[1]
            inside = book_at(reader, int(rows["proc_us"][begins[1] - 1]))
            assert not inside.valid and "checksum" in inside.reason
            last = book_at(reader)
            assert last.valid and same(last, pairs[name].moments[-1])


# ------------------------------------------------------------------------------------------ what is wrong


def book(kind: str, bids: Sequence[tuple[str, str]], asks: Sequence[tuple[str, str]], checksum: int | None = None,
         symbol: str = "A/USD") -> bytes:  # fmt: skip
    def side(levels: Sequence[tuple[str, str]]) -> str:
        return ",".join(f'{{"price":{price},"qty":{qty}}}' for price, qty in levels)

    if checksum is None:
        parts = [part.replace(".", "").lstrip("0") for level in [*asks, *bids] for part in level]
        checksum = zlib.crc32("".join(parts).encode())
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}","bids":[{side(bids)}],"asks":[{side(asks)}],'
        f'"checksum":{checksum},"timestamp":"2026-08-09T05:23:43.049772Z"}}]}}'
    ).encode()


BIDS, ASKS = [("10.0", "1.50"), ("9.5", "0.00000007")], [("10.5", "2.00")]
HEARTBEAT = b'{"channel":"heartbeat"}'


class Bench:
    """An `Ingest` of Kraken's, and what it wrote."""

    def __init__(self, venue: Kraken = KRAKEN) -> None:
        self.sink, self.counters, self.now = MemorySink(), Counters(), 1000
        self.ingest = Ingest(self.sink, ["A-USD", "B-USD"], self.counters, now=lambda: self.now, venue=venue)
        self.ingest.connected()
        self.ingest.roll.granted(FeedKey("book", name) for name in ("A-USD", "B-USD"))

    def take(self, *messages: bytes) -> None:
        for data in messages:
            self.now += 10
            self.ingest.frame(data, self.now)

    def gaps(self, name: str) -> list[tuple[int, str]]:
        return [(gap["position"], gap["reason"].partition(":")[0]) for gap in self.sink.feeds[name].gaps]


def test_the_decimal_text_is_kept_exactly() -> None:
    bench = Bench()
    bench.take(book("snapshot", BIDS, ASKS))
    rows = bench.sink.feeds["KR-L2-A-USD"].records
    assert [(f"{row['price']:.{row['price_digits']}f}", f"{row['qty']:.{row['qty_digits']}f}") for row in rows] == [
        *BIDS, *ASKS,
    ]  # fmt: skip
    assert not bench.counters.gaps and rows["packet_us"].tolist() == [1786253023049772] * 3


def test_a_snapshot_with_a_wrong_checksum_is_kept_aside_and_asked_for_anew() -> None:
    bench = Bench()
    bench.take(book("snapshot", BIDS, ASKS, checksum=1))
    assert len(bench.sink.feeds["KR-L2-A-USD"].records) == 0 and bench.counters.bad_frames == 1
    assert bench.gaps("KR-L2-A-USD") == [(0, "checksum")] and bench.ingest.stale == {"A-USD"}
    assert bench.gaps("KR-L2-B-USD") == bench.gaps("KR-TRADES-A-USD") == []
    bench.take(book("update", [("10.1", "1.0")], [], checksum=5), book("snapshot", BIDS, ASKS))
    assert [index for _, index in bench.sink.feeds["KR-L2-A-USD"].batches] == [False, True]
    assert bench.ingest.stale == set() and len(bench.gaps("KR-L2-A-USD")) == 1


def test_an_update_without_a_snapshot_is_one_gap_however_many_there_are() -> None:
    bench = Bench()
    bench.take(*(book("update", [("10.1", "1.0")], [], checksum=number) for number in range(4)))
    assert bench.gaps("KR-L2-A-USD") == [(0, "book update without a snapshot")] and bench.counters.gaps == 1


TRADE = (
    b'{"channel":"trade","type":"update","data":[{"symbol":"B/USD","trade_id":%b,"price":1.0,"qty":2.0,'
    b'"timestamp":"2026-08-09T05:23:43.049772Z"}]}'
)


@pytest.mark.parametrize(
    ("data", "books", "trades"),
    [
        (b"\xff{", "AB", "AB"),
        (book("update", [("10.1", '"x"')], []), "A", ""),
        (book("update", [("10.1", "1.0")], [], symbol="B/USD").replace(b"update", b"?"), "B", ""),
        (b'{"channel":"book","type":"update","data":7}', "AB", ""),
        (TRADE % b'"x"', "", "B"),
        ((TRADE % b"7").replace(b"2026", b"x"), "", "B"),
        (b'{"channel":"trade","type":"update"}', "", ""),
        (b'{"channel":"trade","type":"update","data":[{"symbol":1}]}', "", ""),
    ],
)
def test_a_malformed_message_is_missing_where_it_was_for_and_everywhere_if_that_can_not_be_read(
    data: bytes, books: str, trades: str
) -> None:
    bench = Bench()
    bench.take(book("snapshot", BIDS, ASKS), book("snapshot", BIDS, ASKS, symbol="B/USD"), TRADE % b"7")
    bench.take(data)
    for name in "AB":
        assert [position for position, _ in bench.gaps(f"KR-L2-{name}-USD")] == [3] * (name in books)
        assert len(bench.gaps(f"KR-TRADES-{name}-USD")) == (name in trades)
    assert bench.ingest.stale == {f"{name}-USD" for name in books} and bench.counters.bad_frames == 1
    # The others go on, checked as before; those are not until their next snapshot.
    for name in "AB":
        bench.take(book("update", [("10.0", "0.0")], [], checksum=5, symbol=f"{name}/USD"))
        assert len(bench.gaps(f"KR-L2-{name}-USD")) == 1
    bench.take(TRADE % b"8")
    assert bench.sink.feeds["KR-TRADES-B-USD"].records["trade_id"].tolist() == [7, 8]


def test_levels_that_fall_out_of_the_depth_are_removed_by_records() -> None:
    bench = Bench()
    asks = [(f"{price}.0", "1.0") for price in range(20, 30)]
    bench.take(book("snapshot", [], asks))
    better = [("19.5", "3.0"), *asks[:9]]
    crc = zlib.crc32("".join(p.replace(".", "") for level in better for p in level).encode())
    bench.take(book("update", [], [("19.5", "3.0")], checksum=crc))
    rows = bench.sink.feeds["KR-L2-A-USD"].records
    assert [(row["type"], row["price"], row["qty"]) for row in rows[10:]] == [(b"U", 19.5, 3.0), (b"D", 29.0, 0.0)]
    assert not bench.counters.gaps


def test_what_kraken_refuses_is_said_and_is_no_gap() -> None:
    bench = Bench()
    bench.take(b'{"error":"Currency pair not supported A/USD","method":"subscribe","success":false,"symbol":"A/USD"}')
    bench.take(b'{"method":"subscribe","result":{"channel":"book"},"success":true}', HEARTBEAT, HEARTBEAT)
    said = "product A-USD is refused by the exchange: Currency pair not supported A/USD"
    assert bench.counters.last_error == said
    assert (bench.counters.errors, bench.counters.heartbeats, bench.counters.gaps) == (1, 2, 0)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"channel":"book"}', b'{"channel":"trade","type":"update"}',
                                  b'{"channel":"book","type":"update","data":[{"symbol":"A/USD","checksum":-1}]}'])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(KrakenError):
        decode(data)


@pytest.mark.parametrize("number", ["-1.0", "null", "[1]", '"1.0"', "1e999", "true", "1" * 30])
def test_what_is_no_number_condemns_its_message(number: str) -> None:
    bench = Bench()
    bench.take(book("snapshot", [("10.0", number)], []))
    assert bench.counters.bad_frames == 1 and not len(bench.sink.feeds["KR-L2-A-USD"].records)


def test_a_depth_or_product_that_kraken_has_not_is_refused() -> None:
    with pytest.raises(DeepwaterError, match="10, 25, 100"):
        Kraken(depth=11)
    for product, said in (("btc-usd", "did you mean BTC-USD"), ("BTC/USD", "did you mean BTC-USD"), ("", "e.g.")):
        with pytest.raises(DeepwaterError, match=said):
            KRAKEN.check_product(product)


def test_what_is_said_to_kraken() -> None:
    said = [json.loads(text) for text in [*KRAKEN.subscribe(["book", "trade"], ["BTC-USD"]), *KRAKEN.resync(["X-Y"])]]
    assert said == [
        {"method": "subscribe", "params": {"channel": "book", "symbol": ["BTC/USD"], "depth": 10, "snapshot": True}},
        {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": True}},
        {"method": "unsubscribe", "params": {"channel": "book", "symbol": ["X/Y"], "depth": 10}},
        {"method": "subscribe", "params": {"channel": "book", "symbol": ["X/Y"], "depth": 10, "snapshot": True}},
    ]
