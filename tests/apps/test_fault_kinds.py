"""Each fault of the exchange through the real recorder: no wrong book, and gaps exactly where something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kraken_walk import digits_of, stored_checksum
from loopback import Session, hurt_and_going_on, record_session
from truth import Truth

from deepwater import Platform
from deepwater.apps.kraken_venue import KRAKEN
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.streams import Synthetic
from deepwater.book import OrderBook

PRODUCTS = ["BTC-USD", "ETH-USD"]


def record_hurt(store: Path, truth: Truth, faults: list[str], idle_s: float = 10.0) -> Session:
    def market() -> Synthetic:
        return Synthetic(PRODUCTS, seed=3, rate=500, depth=40, session=truth.session)

    with PlatformSink(store) as sink:
        return record_session(market, PRODUCTS, sink, until=hurt_and_going_on, faults=faults, idle_s=idle_s,
                              resync_pause_s=0.0, close_timeout_s=0.1, on_send=truth.on_send)  # fmt: skip


def wrong(store: Path, truth: Truth, **options: bool) -> list[str]:
    with Platform(store) as dw:
        return [
            f"{kind} {name}: {line}"
            for name in PRODUCTS
            for kind in ("L2", "TRADES")
            for line in truth.wrong(dw[f"CB-{kind}-{name}"], name, kind, **options)
        ]


@pytest.mark.parametrize(
    ("faults", "reconnects", "reason"),
    [
        (["drop@100", "drop@101", "drop@300"], 0, "sequence gap: frames 100..101 missing"),
        (["swap@200"], 1, "reconnect: sequence stepped back"),
        (["error@50", "error@51"], 0, None),
        (["close@200"], 1, "reconnect: closed with 1001 going away"),
        (["reset@200", "reset@400"], 2, "reconnect: closed without a closing frame"),
        (["silent@200"], 1, "reconnect: no frame for 0.4 s"),
        (["drop@90", "error@120", "swap@150", "reset@170", "close@300", "drop@410", "swap@411"], 4, None),
    ],
)
def test_a_fault_makes_no_wrong_book_and_gaps_exactly_where_it_was(
    faults: list[str], reconnects: int, reason: str | None, tmp_store: Path
) -> None:
    truth = Truth()
    session = record_hurt(tmp_store, truth, faults, 0.4 if "silent@200" in faults else 10.0)
    assert wrong(tmp_store, truth)[:5] == []
    counters = session.counters
    assert counters.reconnects == reconnects == counters.connections - 1
    assert counters.errors == sum(fault.startswith("error") for fault in faults)
    with Platform(tmp_store) as store:
        for name in store.list_feeds():
            reasons = [mark["reason"].decode() for mark in store[name].gaps()]
            assert bool(reasons) == (not all(fault.startswith("error") for fault in faults))
            assert reason is None or any(text.startswith(reason) for text in reasons), reasons


def test_without_the_marks_the_books_would_be_wrong(tmp_store: Path) -> None:
    """The power of the test above: what the marks say is what makes the books right."""
    truth = Truth()
    record_hurt(tmp_store, truth, ["drop@100", "drop@101", "drop@102"])
    assert wrong(tmp_store, truth) == []
    assert any("is wrong" in line for line in wrong(tmp_store, truth, without_gaps=True))


def test_a_mark_too_few_or_too_many_would_be_found(tmp_store: Path) -> None:
    truth = Truth()
    record_hurt(tmp_store, truth, ["drop@100"])
    with Platform(tmp_store) as store, store["CB-L2-BTC-USD"] as reader:
        rows = reader.read().to_numpy()
        (at,) = reader.gaps()["position"].tolist()
    assert [line[:9] for line in truth.wrong_gaps(rows, set(), "L2")] == ["no gap at"]
    assert truth.wrong_gaps(rows, {at}, "L2") == []
    (line,) = truth.wrong_gaps(rows, {at, at + 1}, "L2")
    assert line.startswith(f"a gap at {at + 1} where nothing is missing")


SWAPS = [f"swap@{number}" for number in range(200, 260, 5)]  # some of two messages of one book


@pytest.mark.parametrize("faults", [SWAPS, ["reset@200"], ["error@60", "drop@90", "drop@91"]])
def test_kraken_has_no_numbers_and_no_wrong_book_either(faults: list[str], tmp_store: Path) -> None:
    """Every book that is to be trusted has the checksum that the exchange made of what it had."""

    def market() -> Synthetic:
        return Synthetic(PRODUCTS, seed=3, rate=500, depth=40, session=KRAKEN.exchange_session)

    products = PRODUCTS[:1] if faults is SWAPS else PRODUCTS  # messages of two take turns
    with PlatformSink(tmp_store) as sink:
        session = record_session(market, products, sink, venue=KRAKEN, until=hurt_and_going_on, faults=faults,
                                 resync_pause_s=0.0)  # fmt: skip
    assert session.counters.gaps + session.counters.reconnects >= 1
    with Platform(tmp_store) as store:
        for name in products:
            reader = store[f"KR-L2-{name}"]
            rows, marks = reader.read().to_numpy(), reader.marks()
            book, trusted, digits = OrderBook(), 0, {}
            cuts = (np.flatnonzero(rows["seq"][1:] != rows["seq"][:-1]) + 1).tolist()
            for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
                book.apply(rows[start:stop], marks)
                digits |= digits_of(rows[start:stop])
                if book.valid:
                    trusted += 1
                    assert stored_checksum(book.book(), digits) == int(rows["checksum"][stop - 1])
            assert trusted > 100 and (book.valid or faults is SWAPS)  # of those the last one may not be healed yet
