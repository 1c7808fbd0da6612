"""The dashboard and venues: it shows the feeds of each, and records the one it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dashboard_kit import ForeignRecorder, Market, levels, make_trades, open_feeds, until

from deepwater import Platform
from deepwater.apps import specs
from deepwater.apps.coinbase_venue import Coinbase
from deepwater.apps.dashboard import catalogue, feeds, model, panels, recorders, recording
from deepwater.apps.dashboard.catalogue import Catalogue, Place
from deepwater.apps.dashboard.commands import complete
from deepwater.apps.dashboard.model import Model
from deepwater.apps.dashboard.session import Session
from deepwater.apps.venue import FeedKey, FeedPlan
from deepwater.apps.venues import VenueError, find_venue
from deepwater.books import book_at


@pytest.fixture(autouse=True)
def always_look_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "_SLOW_S", 0.0)
    monkeypatch.setattr(recorders, "_SLOW_S", 0.0)
    monkeypatch.setattr(model, "_LIST_EVERY_S", 0.0)


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with Market(venue="kraken") as exchange:
        yield exchange


# --- which feed is what ----------------------------------------------------------------------------------


class Odd(Coinbase):
    """A venue of another distribution: the product stands in the middle of its names, and one name is of no product."""

    name = "odd"

    def feeds(self, product: str, channels: Any) -> list[FeedPlan]:
        def renamed(kind: str, name: str) -> Any:
            return specs.FeedSpec.from_json({**specs.spec(kind, "X").to_json(), "feed_name": name})

        found = [FeedPlan(FeedKey("book", product), renamed(specs.L2, f"ODD.{product}.BOOK"))]
        return found if product.startswith("SHUT") else [
            *found, FeedPlan(FeedKey("trades", product), renamed(specs.TRADES, f"ODD.{product}.PRINTS"))
        ]  # fmt: skip


class Broken(Odd):
    """A venue that can name no feeds."""

    name = "broken"

    def feeds(self, product: str, channels: Any) -> list[FeedPlan]:
        raise ZeroDivisionError("a mistake")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Venues of other distributions, one of which can not be loaded; what was loaded of them is in the list."""
    loaded: list[str] = []
    venues: dict[str, Callable[[], Any]] = {"odd": Odd, "broken": Broken}

    def find(name: str) -> Any:
        if name in ("coinbase", "kraken"):
            return find_venue(name)
        loaded.append(name)
        if name not in venues:
            raise VenueError(f"venue {name!r} can not be loaded", venue=name)
        return venues[name]()

    monkeypatch.setattr(catalogue, "find_venue", find)
    monkeypatch.setattr(catalogue, "venue_names", lambda: ["coinbase", "kraken", "lost", "broken", "odd"])
    return loaded


def test_feeds_have_places_by_what_venues_call_them(added: list[str]) -> None:
    found = Catalogue("coinbase")
    assert found.place("CB-L2-BTC-USD") == Place("BTC-USD", "book")
    assert found.place("CB-TRADES-BTC-USD") == Place("BTC-USD", "trades")
    assert found.place("KR-L2-XBT-EUR") == Place("XBT-EUR@kraken", "book")
    assert found.place("DW-METRICS-1") is None and found.place("CB-L2SNAP-BTC-USD") is None
    assert not added  # what nobody needs is not loaded
    assert found.place("ODD.BTC-USD.PRINTS") == Place("BTC-USD@odd", "trades")
    assert added == ["lost", "broken", "odd"]
    assert found.place("ODD.SHUT-USD.PRINTS") is None  # the venue has no such feed
    assert found.place("ODD..BOOK") is None and found.place("ODD.BOOK") is None and found.place("TICKS") is None
    assert found.problems == [
        "venue 'lost' can not be loaded",
        "venue 'broken' can not name the feeds of BTC-USD: ZeroDivisionError: a mistake",
    ]
    assert added == ["lost", "broken", "odd"]  # once
    assert Catalogue("kraken").place("KR-L2-BTC-USD") == Place("BTC-USD", "book")
    assert Catalogue("kraken").place("CB-L2-BTC-USD") == Place("BTC-USD@coinbase", "book")


def test_a_broken_venue_is_said_once_and_the_others_are_shown(added: list[str], tmp_store: Path) -> None:
    looking = Model(tmp_store)
    with Platform(tmp_store) as dw:
        writers = open_feeds(dw, "A-B")
        name = Odd().feeds("A-B", ())[0].spec
        dw.create_feed(name)
        odd = dw.create_writer("ODD.A-B.BOOK")
        odd.write_batch(levels((b"B", 9.0, 1.0), (b"A", 10.0, 1.0), kind=b"S"), create_index=True)
        view = looking.look()
        assert [row.name for row in view.products] == ["A-B", "A-B@odd"]
        assert sum("can not be loaded" in line for line in view.news) == 1
        assert not looking.look().news
        looking.choose("A-B@odd")
        assert looking.look().book.bids == ((9.0, 1.0),)
        for writer in (*writers, odd):
            writer.close()
    looking.close()


def test_the_same_product_of_two_venues(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        for kind, price in ((specs.TRADES, 100.0), (specs.KRAKEN_TRADES, 7.0)):
            writer = dw.create_writer(dw.create_feed(specs.spec(kind, "BTC-USD")))
            rows = np.zeros(1, writer.layout.dtype)
            trade = make_trades(1)
            for column in ("type", "side", "proc_us", "ev_us", "size"):
                rows[column] = trade[column]
            rows["price"] = price
            writer.write_batch(rows)
            writer.close()
    session = Session(tmp_store, "ws://127.0.0.1:1")
    rows_ = {row.name: row.price for row in session.tick().products}
    assert rows_ == {"BTC-USD": 100.0, "BTC-USD@kraken": 7.0}
    assert session.view.chosen == "BTC-USD" and session.view.side_of == "maker"
    assert complete("show btc/usd@", list(rows_)) == ("show BTC-USD@kraken ", [])
    assert session.execute("show btc/usd@Kraken") == []
    view = session.tick()
    assert (view.chosen, view.side_of, view.trades[0].price) == ("BTC-USD@kraken", "taker", 7.0)
    assert "taker" in panels.trades(view, 60, 5)[1].plain and "no feed" in view.book.reason
    assert session.execute("show BTC-USD@coinbase") == [] and session.tick().chosen == "BTC-USD"
    (said,) = session.execute("sub ETH-USD@kraken")
    assert said == (
        "sub: ETH-USD@kraken is of another venue, and this dashboard records coinbase; "
        "another one would: deepwater dashboard --venue kraken"
    )
    assert session.execute("sub eth/usd@coinbase") == ["subscribed: ETH-USD; start records"]
    session.close()
    other = Session(tmp_store, venue="kraken")
    assert {row.name for row in other.tick().products} == {"BTC-USD", "BTC-USD@coinbase"}
    assert other.engine.uri == find_venue("kraken").uri
    other.close()


# --- a market of Kraken ----------------------------------------------------------------------------------


def test_attached_to_a_recorder_of_kraken(tmp_store: Path, market: Market) -> None:
    with ForeignRecorder(market.uri, tmp_store, "BTC-USD", venue="kraken") as recorder, Platform(tmp_store) as dw:
        session = Session(tmp_store)
        view = until(lambda: next((v for v in [session.tick()] if v.book.bids and v.trades), None))
        assert session.mode == f"attached to process {recorder.pid}"
        assert [(row.name, row.state) for row in view.products] == [("BTC-USD@kraken", "live")]
        assert session.execute("sub BTC-USD") == [
            f"sub: process {recorder.pid} records BTC-USD@kraken into this store; this dashboard only looks on"
        ]
        assert session.execute("show btc/usd") == []  # there is one only
        recorder.end()
        until(lambda: not session.tick().writers)
        view = session.tick()
        expected = book_at(dw["KR-L2-BTC-USD"])
        assert list(view.book.bids) == expected.bids.tolist() and list(view.book.asks) == expected.asks.tolist()
        assert len(view.book.bids) == 10 and not view.book.reason and not view.book.crossed
        assert view.products[0].records == len(dw["KR-L2-BTC-USD"]) + len(dw["KR-TRADES-BTC-USD"])
        session.close()


def test_a_recording_of_kraken_from_the_prompt(tmp_store: Path, market: Market) -> None:
    session = Session(tmp_store, market.uri, venue="kraken")
    assert session.execute("sub btc/usd, eth/usd") == ["subscribed: BTC-USD, ETH-USD; start records"]
    assert complete("unsub eth/", session.subs) == ("unsub ETH-USD ", [])
    session.execute("start")
    until(lambda: {row.name: row.records > 300 for row in session.tick().products} == {"BTC-USD": 1, "ETH-USD": 1})
    until(lambda: session.tick().book.bids and session.view.recorders)
    assert session.mode == "recording 2 products" and not session.foreign
    assert session.execute("unsub ETH/USD") == ["subscribed: BTC-USD"]
    until(lambda: session.tick() and any("ETH-USD: no longer recorded" in line for line in session.log))
    assert session.execute("sub ETH/USD@kraken") == ["subscribed: BTC-USD, ETH-USD"]
    session.close()
    with Platform(tmp_store) as dw:
        assert [name for name in dw.list_feeds() if not name.startswith("DW-")] == [
            "KR-L2-BTC-USD", "KR-L2-ETH-USD", "KR-TRADES-BTC-USD", "KR-TRADES-ETH-USD",
        ]  # fmt: skip
        assert not len(dw["KR-L2-BTC-USD"].gaps())
        assert all(dw.describe_feed(name)["writer"] is None for name in dw.list_feeds())


def test_products_of_a_venue_are_checked_by_it(tmp_store: Path) -> None:
    session = Session(tmp_store, "ws://127.0.0.1:1", venue="kraken")
    assert session.execute("sub BTC")[0].startswith("product 'BTC' is not allowed: expected e.g. BTC-USD")
    session.close()
    with pytest.raises(VenueError, match="expected one of coinbase, kraken"):
        Session(tmp_store, venue="nowhere")


# --- from one address ------------------------------------------------------------------------------------


def test_recordings_of_one_child_share_the_pace_of_the_venue(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a connection of its own, but they speak from one address."""
    said: list[SimpleNamespace] = []
    both = asyncio.Event()

    async def record(*words: Any, **about: Any) -> None:
        said.append(SimpleNamespace(**about))
        if len(said) == 2:
            both.set()
        await about["stop"].wait()

    monkeypatch.setattr(recording, "record", record)
    monkeypatch.setattr(recording, "say", lambda *words, **about: None)

    async def main() -> None:
        work = recording.Recordings("ws://127.0.0.1:1", str(tmp_store), find_venue("kraken"))
        work.sub(["A-B", "C-D"])
        await both.wait()
        await work.close()

    asyncio.run(main())
    assert said[0].pacer is said[1].pacer is not None and {about.venue.name for about in said} == {"kraken"}
