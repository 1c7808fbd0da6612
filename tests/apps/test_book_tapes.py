"""Recorded sessions as books at random times, against a walk over the tape that shares no code with them."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from tape_walk import Product, walk
from test_tapes import LIVE, PAIR, PRODUCTS, opened, record_tape

from deepwater import Platform
from deepwater.apps.tape import read_tape
from deepwater.book import Book, OrderBook
from deepwater.books import book_at, books
from deepwater.reader import Reader

Levels = dict[Decimal, tuple[float, float]]
FAULTS = ["drop@140", "drop@260", "close@400"]
CASES = [(LIVE, []), (PAIR, []), (LIVE, FAULTS), (PAIR, FAULTS)]


def states(product: Product, stops: list[int]) -> Iterator[tuple[int, Levels, Levels, bool]]:
    """Yield bids, asks and whether they are to be trusted at ascending stops, no snapshot being cut by one."""
    book: dict[bytes, Levels] = {b"B": {}, b"A": {}}
    snapshots = {start for start, _ in product.snapshots}
    gaps = {at for at, *_ in product.level_gaps}
    valid, at = False, 0
    for stop in stops:
        for number, row in enumerate(product.levels[at:stop], at):
            valid = valid and number not in gaps
            if number in snapshots:
                book, valid = {b"B": {}, b"A": {}}, True
            price, qty = Decimal(row["price"]), float(row["qty"])
            if Decimal(row["qty"]):
                book[row["side"]][price] = float(row["price"]), qty
            else:
                book[row["side"]].pop(price, None)
        at = stop
        yield stop, book[b"B"], book[b"A"], valid


def check(book: Book, bids: Levels, asks: Levels, valid: bool) -> None:
    assert book.valid == valid, book.reason
    assert dict(book.bids.tolist()) == dict(bids.values())
    assert dict(book.asks.tolist()) == dict(asks.values())
    assert (np.diff(book.bids["price"]) < 0).all() and (np.diff(book.asks["price"]) > 0).all()
    assert not book.crossed
    assert (book.best_bid, book.best_ask) == (float(max(bids)), float(min(asks)))


def check_feed(reader: Reader, product: Product, count: int) -> None:
    """Random times: the book of each, the incremental one on the way, and a row every 5 ms."""
    times = reader.read()["proc_us"]
    random = np.random.default_rng(len(times))
    chosen = np.sort(times[random.integers(0, len(times), count)])
    stops = times.searchsorted(chosen, "right")
    gaps = {at for at, *_ in product.level_gaps}
    kept = ~np.isin(stops, list(gaps))  # there it depends on when the gap began
    marks, step = reader.marks(), OrderBook()
    for time, found in zip(chosen[kept].tolist(), states(product, stops[kept].tolist()), strict=True):
        stop, bids, asks, valid = found
        check(book_at(reader, time), bids, asks, valid)
        step.apply(reader.rows(step.position, stop).to_numpy(), marks)
        assert (step.valid, step.position, step.crossed) == (valid, stop, False)
        assert step.best_bid == bids[max(bids)] and step.best_ask == asks[min(asks)]
    check(step.book(), bids, asks, valid)
    row = None
    for row in books(reader, every="5ms", depth=7):
        book = book_at(reader, int(row["snapshot_us"]), 7)
        assert (bool(row["valid"]), int(row["l2_position"])) == (book.valid, book.position)
        np.testing.assert_array_equal(row["bid_px"][: len(book.bids)], book.bids["price"])
        np.testing.assert_array_equal(row["ask_qty"][: len(book.asks)], book.asks["qty"])
    assert row is not None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "faults"), CASES)
def test_the_book_of_a_tape_at_random_times(
    shared_data: Path, tmp_store: Path, name: str, faults: list[str]
) -> None:
    with opened(shared_data / "coinbase" / name) as source:
        frames = list(read_tape(source))
    session = record_tape(frames, PRODUCTS[name], tmp_store, faults=faults)
    expected = walk(session.sent, PRODUCTS[name])
    with Platform(tmp_store) as store:
        for product in PRODUCTS[name]:
            check_feed(store[f"CB-L2-{product}"], expected[product], 60 if faults else 200)
