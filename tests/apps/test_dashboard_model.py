"""What the dashboard knows of a store, whatever happens to the store. No terminal."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dashboard_kit import ForeignRecorder, Market, levels, make_trades, open_feeds, until

from deepwater import Platform, marks
from deepwater.apps import specs
from deepwater.apps.dashboard import feeds, livebook, model, panels, plain, recorders
from deepwater.apps.dashboard.model import Model, View
from deepwater.books import book_at

BIDS_ASKS = ((b"B", 100.0, 1.0), (b"B", 99.0, 2.0), (b"A", 101.0, 3.0))


@pytest.fixture(autouse=True)
def always_look_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for every few seconds only is asked for at every look."""
    monkeypatch.setattr(feeds, "_SLOW_S", 0.0)
    monkeypatch.setattr(recorders, "_SLOW_S", 0.0)
    monkeypatch.setattr(model, "_LIST_EVERY_S", 0.0)
    monkeypatch.setattr(livebook, "_MARKS_EVERY_S", 0.0)


def news_until(looking: Model, words: str) -> View:
    """Look until something is told."""
    return until(lambda: next((view for view in [looking.look()] if any(words in line for line in view.news)), None))


def test_a_store_that_is_not_there_yet(tmp_store: Path) -> None:
    looking = Model(tmp_store)
    view = looking.look()
    assert not view.exists and not view.products and view.chosen == "" and view.disk_free
    assert not tmp_store.exists()  # looking makes nothing
    with Platform(tmp_store) as dw:
        writers = open_feeds(dw, "A")
        view = looking.look()
        assert view.exists and view.news[0] == "the store is there"
        assert [(row.name, row.state, row.records) for row in view.products] == [("A", "waiting", 0)]
        assert (view.chosen, view.book.reason) == ("A", "no complete snapshot yet")
        for writer in writers:
            writer.close()
    shutil.rmtree(tmp_store)
    view = looking.look()
    assert not view.exists and any("is gone" in line for line in view.news) and not view.products
    looking.close()


def test_a_book_is_shown_and_not_trusted_without_a_snapshot_or_after_a_gap(tmp_store: Path) -> None:
    looking = Model(tmp_store)
    with Platform(tmp_store) as dw:
        book, _ = open_feeds(dw, "A")
        book.write_batch(levels((b"B", 98.0, 1.0)))
        found = looking.look().book
        assert found.reason == "no complete snapshot yet" and not found.bids
        book.write_batch(levels(*BIDS_ASKS, kind=b"S"), create_index=True)
        found = looking.look().book
        assert not found.reason and found.bids == ((100.0, 1.0), (99.0, 2.0)) and found.asks == ((101.0, 3.0),)
        book.write_batch(levels((b"B", 100.0, 0.0), (b"A", 100.5, 4.0)))
        assert looking.look().book.asks[0] == (100.5, 4.0) and looking.look().book.bids[0] == (99.0, 2.0)
        book.mark_gap(reason="sequence gap: frame 7 missing")  # no record behind it yet
        view = looking.look()
        assert "frame 7 missing" in view.book.reason
        assert view.news == ("gap in CB-L2-A: sequence gap: frame 7 missing",)
        assert view.products[0].gaps == 1
        book.write_batch(levels((b"B", 97.0, 1.0)))
        assert "frame 7 missing" in looking.look().book.reason
        book.write_batch(levels(*BIDS_ASKS, kind=b"S"), create_index=True)
        assert not looking.look().book.reason
    looking.close()


def test_a_book_that_is_behind_says_so_and_shows_no_level(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livebook, "_BATCH", 100)
    monkeypatch.setattr(livebook, "_BEHIND", 50)
    looking = Model(tmp_store)
    with Platform(tmp_store) as dw:
        book, _ = open_feeds(dw, "A")
        book.write_batch(levels(*BIDS_ASKS, kind=b"S"), create_index=True)
        book.write_batch(levels(*[(b"B", 50.0, 1.0 + at) for at in range(397)]))
        behind = []
        while (found := looking.look(book_budget_s=0.0).book).behind:
            assert not found.bids and not found.reason
            behind.append(found.behind)
        assert behind == [300, 200, 100]
        assert found.bids[-1] == (50.0, 397.0)
    looking.close()


def test_a_store_that_is_removed_and_made_anew_is_shown(tmp_store: Path) -> None:
    """Also when it is removed with all that is open in it, and another is moved to its place."""
    looking = Model(tmp_store)
    for price in (7.0, 8.0, 9.0):
        with Platform(tmp_store) as dw:
            book, trades = open_feeds(dw, "A")
            book.write_batch(levels((b"B", price, 1.0), (b"A", 10.0, 1.0), kind=b"S"), create_index=True)
            until(lambda price=price: looking.look().book.bids[:1] == ((price, 1.0),))
            assert [row.records for row in looking.look().products] == [2]
            book.close()
            trades.close()
        if price == 7.0:
            shutil.rmtree(tmp_store)
            assert any("is gone" in line for line in looking.look().news)
        else:
            tmp_store.rename(tmp_store.with_name(f"{price}"))  # and at once there is the next
    looking.close()


def test_who_begins_to_write_a_feed_is_seen_soon(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when it is the turn of a feed that nobody writes."""
    monkeypatch.setattr(feeds, "_SLOW_S", 1000.0)
    with Platform(tmp_store) as dw:
        _, trades = open_feeds(dw, "A")
        trades.close()
        watch = feeds.FeedWatch(dw, "CB-TRADES-A")
        watch.look(1000.0)
        assert not watch.is_written
        with dw.create_writer("CB-TRADES-A") as writer:
            writer.write_batch(make_trades(1))
            watch.look(1000.5)
            watch.look(1001.5)
            assert watch.is_written
        watch.close()


def test_looks_read_no_mark_again(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a look costs does not depend on how many gaps and snapshots there were."""
    read: list[int] = []
    whole = marks.read_marks

    def counted(*words: Any, **about: Any) -> Any:
        found = whole(*words, **about)
        read.append(len(found))
        return found

    monkeypatch.setattr(marks, "read_marks", counted)
    looking = Model(tmp_store)
    with Platform(tmp_store) as dw:
        book, trades = open_feeds(dw, "A")
        for number in range(50):
            book.mark_gap(reason=f"frame {number} missing")
            book.write_batch(levels(*BIDS_ASKS, kind=b"S"), create_index=True)
        assert looking.look().products[0].gaps == 50 and sum(read) >= 100
        read.clear()
        for _ in range(20):
            view = looking.look()
            assert view.book.bids[0] == (100.0, 1.0) and not view.news
        assert not read
        book.mark_gap(reason="frame 50 missing")
        view = looking.look()
        assert view.products[0].gaps == 51 and view.news == ("gap in CB-L2-A: frame 50 missing",)
        assert "frame 50" in view.book.reason and read
        book.write_batch(levels(*BIDS_ASKS, kind=b"S"), create_index=True)
        book.write_batch(levels((b"B", 1.0, 1.0)))
        assert not looking.look().book.reason
        for writer in (book, trades):
            writer.close()
    looking.close()


def test_gaps_that_retention_removed_are_not_counted(tmp_store: Path) -> None:
    looking = Model(tmp_store)
    with Platform(tmp_store) as dw:
        dw.create_feed({**_spec("CB-L2-A"), "chunk_size_bytes": 64 * 1024})
        book = dw.create_writer("CB-L2-A")
        for number in range(6):
            book.mark_gap(reason=f"frame {number} missing")
            book.write_batch(levels(*[(b"B", 50.0, 1.0)] * 1000))
        assert looking.look().products[0].gaps == 6
        dw.prune("CB-L2-A", max_bytes=2 * 64 * 1024)
        assert looking.look().products[0].gaps == len(dw["CB-L2-A"].gaps()) < 6
        book.mark_gap(reason="one more")
        view = looking.look()
        assert view.products[0].gaps == len(dw["CB-L2-A"].gaps()) and view.news == ("gap in CB-L2-A: one more",)
        book.close()
    looking.close()


def test_a_feed_that_is_deleted_under_it_and_made_anew(tmp_store: Path) -> None:
    looking = Model(tmp_store)
    with Platform(tmp_store) as dw:
        book, trades = open_feeds(dw, "A")
        book.write_batch(levels(*BIDS_ASKS, kind=b"S"), create_index=True)
        trades.write_batch(make_trades(5))
        view = looking.look()
        assert view.products[0].records == 8 and view.trades[0].price == 104.0 and view.products[0].price == 104.0
        book.close()
        trades.close()
        assert looking.look().products[0].state == "ended"
        for name in dw.list_feeds():
            dw.delete_feed(name)
        view = looking.look()
        assert view.products == () and "A: its feeds were deleted" in view.news
        assert not view.book.bids and not view.trades
        book, trades = open_feeds(dw, "A")
        book.write_batch(levels((b"B", 7.0, 1.0), (b"A", 8.0, 1.0), kind=b"S"), create_index=True)
        view = until(lambda: next((v for v in [looking.look()] if v.book.bids), None))
        assert view.book.bids == ((7.0, 1.0),) and view.products[0].records == 2
    looking.close()


def test_a_feed_that_is_deleted_and_made_anew_between_two_looks(tmp_store: Path) -> None:
    looking = Model(tmp_store)
    with Platform(tmp_store) as dw:
        book, _ = open_feeds(dw, "A")
        book.write_batch(levels(*BIDS_ASKS, kind=b"S"), create_index=True)
        assert looking.look().book.bids[0] == (100.0, 1.0)
        book.close()
        dw.delete_feed("CB-L2-A")
        dw.create_feed({**_spec("CB-L2-A")})
        book = dw.create_writer("CB-L2-A")
        book.write_batch(levels((b"B", 7.0, 1.0), (b"A", 8.0, 1.0), kind=b"S"), create_index=True)
        until(lambda: looking.look().book.bids == ((7.0, 1.0),))
        assert looking.look().products[0].records == 2
    looking.close()


def _spec(name: str) -> dict[str, object]:
    return {**specs.spec(specs.L2, "A").to_json(), "feed_name": name}


def test_a_damaged_feed_is_said_and_the_others_are_shown(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        for product in "AB":
            for writer in open_feeds(dw, product):
                writer.close()
    (tmp_store / "data" / "CB-L2-A" / "layout.json").write_text("{")
    looking = Model(tmp_store)
    view = looking.look()
    rows = {row.name: row for row in view.products}
    assert "layout.json" in rows["A"].problem and not rows["B"].problem
    assert "layout.json" in view.book.reason
    looking.close()


def test_rates_are_records_a_second(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        _, trades = open_feeds(dw, "A")
        watch = feeds.FeedWatch(dw, "CB-TRADES-A")
        for second in range(9):
            watch.look(1000.0 + second)
            trades.write_batch(make_trades(20, 1_786_309_548_000_000 + second * 100))
        watch.look(1009.0)
        assert watch.rate == 20.0 and list(watch.history) == [20.0] * 9
        watch.close()


def test_a_recorder_that_is_killed_is_said_to_be_gone_and_comes_back(tmp_store: Path) -> None:
    with Market() as market, Platform(tmp_store) as dw:
        looking = Model(tmp_store)
        with ForeignRecorder(market.uri, tmp_store, "BTC-USD") as recorder:
            view = until(lambda: next((v for v in [looking.look()] if v.recorders and v.recorders[0].connected), None))
            said = view.recorders[0]
            assert (said.state, said.pid) == ("recording", recorder.pid)
            assert view.writers == {recorder.pid: ("BTC-USD",)}
            until(lambda: looking.look().recorders[0].frame_rate > 0)
            recorder.kill()
            view = news_until(looking, f"recorder {recorder.pid} is gone")
            assert view.recorders[0].state == "gone" and view.recorders[0].connected == 0
            view = until(lambda: next((v for v in [looking.look()] if v.products[0].state == "gone"), None))
            assert view.writers == {}
            # What was published is there, and the book shown is the book of the feed.
            expected = book_at(dw["CB-L2-BTC-USD"])
            assert view.book.bids[0] == tuple(expected.bids[0].tolist()) and not view.book.reason
        with ForeignRecorder(market.uri, tmp_store, "BTC-USD") as recorder:
            news_until(looking, f"recorder {recorder.pid} is recording again")
            view = until(lambda: next((v for v in [looking.look()] if not v.book.reason and v.book.bids), None))
            assert view.products[0].state == "live"
            with ForeignRecorder(market.uri, tmp_store, "ETH-USD") as other:
                view = until(lambda: next((v for v in [looking.look()] if len(v.writers) == 2), None))
                assert {said.pid for said in view.recorders} == {recorder.pid, other.pid} == set(view.writers)
                other.end()
            recorder.end()
        until(lambda: looking.look().recorders[0].state == "ended")
        view = looking.look()
        expected = book_at(dw["CB-L2-BTC-USD"], depth=livebook.DEPTH)
        assert list(view.book.bids) == expected.bids.tolist() and list(view.book.asks) == expected.asks.tolist()
        counts = view.recorders[0].counts
        looking.reset()
        assert looking.look().recorders[0].counts["frames"] == 0 < counts["frames"]
        looking.close()


@pytest.mark.parametrize("step_us", [-3_600_000_000, 3_600_000_000])
def test_rates_do_not_mind_a_clock_that_is_set(tmp_store: Path, monkeypatch: pytest.MonkeyPatch, step_us: int) -> None:
    """The rows' time never steps back: it stands still until the clock has come so far again."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(recorders, "time", SimpleNamespace(monotonic=lambda: now.s))
    row = np.zeros(1, specs.dtype(specs.METRICS))
    row["started_us"] = row["ts_us"] = clock = 1_786_309_548_000_000
    with Platform(tmp_store) as dw, dw.create_writer(dw.create_feed(specs.spec(specs.METRICS, "1"))) as writer:
        watch = recorders.RecorderWatch(dw, "DW-METRICS-1")
        rates = []
        for second in range(120):
            now.s += 1.0
            clock += 1_000_000 + (step_us if second == 60 else 0)
            row["ts_us"], row["frames"] = max(int(row["ts_us"][0]), clock), 100 * (second + 1)
            writer.write_batch(row)
            said = watch.look(clock)
            rates.append(said.frame_rate)
        assert all(30 <= rate <= 250 for rate in rates[8:]), rates  # a few seconds until it is noticed
        assert rates[55] == rates[119] == 100.0
        row["started_us"], row["frames"] = row["ts_us"] + 1_000_000, 0
        for second in range(1, 9):  # the next recording, by its own clock
            now.s += 1.0
            row["ts_us"], row["frames"] = row["started_us"] + second * 1_000_000, 7 * second
            writer.write_batch(row)
            said = watch.look(clock)
        assert said.frame_rate == 7.0 and said.counts["frames"] == 56
        watch.close()


ODD_TRADES = [
    {"price": math.nan, "size": math.nan},
    {"price": math.inf, "size": -math.inf},
    {"price": 1.7e308, "size": 1.7e308},
    {"price": -5.0, "size": 0.0},
    {"ev_us": 2**64 - 1},
]


@pytest.mark.parametrize("values", ODD_TRADES)
def test_numbers_that_are_no_prices_are_shown_and_stop_nothing(tmp_store: Path, values: dict[str, float]) -> None:
    with Platform(tmp_store) as dw:
        book, trades = open_feeds(dw, "A")
        odd = make_trades(3)
        for name, value in values.items():
            odd[name] = value
        trades.write_batch(odd)
        price, qty = abs(values.get("price", 1.0)), abs(values.get("size", 1.0))
        book.write_batch(levels((b"B", price, qty), (b"A", 5.0, 1.0), (b"A", 6.0, qty), kind=b"S"), create_index=True)
        looking = Model(tmp_store)
        view = looking.look()
        assert len(view.trades) == 3
        json.loads(plain.json_line(view, "mode"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert "A " in plain.line(view, "mode")
        for width, height in ((1, 1), (20, 5), (80, 24), (400, 200)):
            for panel in (panels.products, panels.book, panels.trades):
                assert all(line.cell_len <= width for line in panel(view, width, height))
        looking.close()
        book.close()
        trades.close()


@pytest.mark.parametrize("kind", ["L2", "TRADES"])
@pytest.mark.parametrize("types", [("uint64",) * 4, ("char",) * 4, ("float64",) * 4])
def test_a_feed_of_that_name_with_other_columns_stops_nothing(
    tmp_store: Path, kind: str, types: tuple[str, ...]
) -> None:
    names = ("side", "price", "qty", "ev_us") if kind == "L2" else ("side", "price", "size", "ev_us")
    fields = [{"name": "t", "type": "uint64"}]
    fields += [{"name": name, "type": type_} for name, type_ in zip(names, types, strict=True)]
    fields += [{"name": "_", "type": "_4"}] if "char" in types else []
    with Platform(tmp_store) as dw:
        writers = open_feeds(dw, "B")
        writers[0].write_batch(levels(*BIDS_ASKS, kind=b"S"), create_index=True)
        dw.create_feed({"feed_name": f"CB-{kind}-A", "ts_col": "t", "index_playback": True, "fields": fields})
        with dw.create_writer(f"CB-{kind}-A") as writer:
            rows = np.zeros(3, writer.layout.dtype)
            rows["t"] = 1
            writer.write_batch(rows, create_index=True)
        looking = Model(tmp_store)
        for product in ("A", "B"):
            looking.choose(product)
            view = looking.look()
            assert view.chosen == product and not view.trades
            assert (view.book.reason == "") == (product == "B"), view.book
        looking.close()
        for each in writers:
            each.close()


def test_a_book_feed_with_another_clock_is_shown(tmp_store: Path) -> None:
    columns = {"ts": "uint64", "price": "float64", "qty": "float64", "side": "char", "_": "_7"}
    fields = [{"name": name, "type": type_} for name, type_ in columns.items()]
    with Platform(tmp_store) as dw:
        dw.create_feed({"feed_name": "CB-L2-A", "ts_col": "ts", "index_playback": True, "fields": fields})
        with dw.create_writer("CB-L2-A") as writer:
            rows = np.zeros(2, writer.layout.dtype)
            rows["side"], rows["price"], rows["qty"], rows["ts"] = [b"B", b"A"], [1.0, 2.0], 3.0, 1_786_309_548_000_000
            writer.write_batch(rows, create_index=True)
        looking = Model(tmp_store)
        found = looking.look().book
        assert (found.bids, found.asks, found.time_us) == (((1.0, 3.0),), ((2.0, 3.0),), 1_786_309_548_000_000)
        looking.close()
