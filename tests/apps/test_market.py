"""The synthetic market: the same by seed, and a market at all."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepwater.apps.market import Auction, Change, Market, Step, decimal_text
from deepwater.errors import DeepwaterError


def run(seed: int, steps: int, product: str = "BTC-USD", depth: int = 50) -> tuple[Auction, list[Step]]:
    auction = Market([product], seed, depth)[product]
    auction.warm(10**15)
    return auction, [auction.step(10**15 + 1000 * number) for number in range(steps)]


def test_the_same_seed_is_the_same_market_and_another_is_not() -> None:
    (one, steps), (two, again), (_, other) = run(7, 200), run(7, 200), run(8, 200)
    assert steps == again
    assert one.snapshot() == two.snapshot()
    assert steps != other


def test_products_have_order_flows_of_their_own() -> None:
    market = Market(["BTC-USD", "ETH-USD"], seed=3)
    alone = Market(["ETH-USD"], seed=3)
    market["BTC-USD"].step(1)
    assert market["ETH-USD"].step(2) == alone["ETH-USD"].step(2)


def apply(book: dict[str, dict[Decimal, Decimal]], changes: list[Change]) -> int:
    absent = 0
    for change in changes:
        if change.quantity == "0":
            absent += book[change.side].pop(Decimal(change.price), None) is None
        else:
            book[change.side][Decimal(change.price)] = Decimal(change.quantity)
    return absent


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["BTC-USD", "DOGE-USD", "XYZ-USD"]))
def test_the_book_is_the_snapshot_plus_the_changes_and_never_crosses(seed: int, product: str) -> None:
    auction = Auction(product, seed, depth=30)
    auction.warm(10**15)
    book: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "offer": {}}
    apply(book, auction.snapshot())
    for number in range(60):
        apply(book, auction.step(10**15 + number).changes)
        assert max(book["bid"]) < min(book["offer"])
    rebuilt: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "offer": {}}
    apply(rebuilt, auction.snapshot())
    assert book == rebuilt


def test_trades_hit_the_best_level_of_the_book_and_their_ids_count_up() -> None:
    auction = Auction("ETH-USD", 5, depth=100)
    seen = 0
    last = None
    for number in range(300):
        before = {change.side: Decimal(change.price) for change in reversed(auction.snapshot())}
        step = auction.step(10**15 + number)
        for trade in step.trades:
            assert last in (None, trade.trade_id - 1)
            last = trade.trade_id
            seen += 1
        if step.trades and len(step.changes) == len(step.trades):  # nothing but this market order
            side = {"BUY": "bid", "SELL": "offer"}[step.trades[0].side]
            assert Decimal(step.trades[0].price) == before[side]
    assert seen > 50


def test_a_market_deletes_levels_that_are_not_there_as_the_real_one_does() -> None:
    auction = Auction("BTC-USD", 1, depth=100)
    book: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "offer": {}}
    apply(book, auction.snapshot())
    assert sum(apply(book, auction.step(10**15).changes) for _ in range(500)) > 0


def test_it_starts_with_a_hundred_trades_to_show() -> None:
    auction, _ = run(1, 0)
    times = [trade.time_us for trade in auction.last_trades]
    assert len(times) == 100
    assert times == sorted(times)
    assert max(times) < 10**15


@given(st.integers(0, 10**15), st.integers(0, 9))
def test_numbers_are_plain_decimals_without_trailing_zeros(units: int, digits: int) -> None:
    text = decimal_text(units, digits)
    assert Decimal(text) == Decimal(units).scaleb(-digits)
    assert "e" not in text.lower()
    assert not ("." in text and text[-1] in "0.")


def test_a_market_without_products_or_depth_is_refused() -> None:
    with pytest.raises(DeepwaterError):
        Market([])
    with pytest.raises(DeepwaterError):
        Auction("A-USD", 0, depth=3)
