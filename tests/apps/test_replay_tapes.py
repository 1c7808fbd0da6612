"""Recorded sessions played back through the merged replay, at their own pace, into books that must end as the tapes do.

The clock is `packet_us`, when the exchange sent the frame: the tape carries it, it is one clock for all four feeds,
and it is sorted. `recv_us` and `proc_us` are of the moment of recording, and a tape is recorded in a fraction of a
second. `ev_us` begins before the tape: the hundred trades of a subscription's snapshot are up to 73 s old.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from tape_walk import Product, walk
from test_tapes import LIVE, PAIR, PRODUCTS, opened, record_tape

from deepwater import Platform
from deepwater.apps.tape import TapeFrame, read_tape
from deepwater.playback import Replay, merge

Book = dict[bytes, dict[float, float]]
BEST = {
    PAIR: {"BTC-USD": (65083.66, 65083.67), "ETH-USD": (1919.28, 1919.38)},
    LIVE: {"BTC-USD": (64734.06, 64734.08)},
}


def recorded(data: Path, name: str, store: Path) -> dict[str, Product]:
    """Record a tape through the exchange and the recorder; return what an independent walk over it finds."""
    with opened(data / "coinbase" / name) as source:
        frames: list[TapeFrame] = list(read_tape(source))
    record_tape(frames, PRODUCTS[name], store)
    return walk([[frame.data for frame in frames]], PRODUCTS[name])


def take_levels(book: Book, levels: np.ndarray) -> None:
    for side, price, quantity in levels[["side", "price", "qty"]].tolist():
        if quantity:
            book[side][price] = quantity
        else:
            book[side].pop(price, None)


def play(replay: Replay) -> tuple[dict[str, Book], dict[str, int], list[float]]:
    """Keep the books and count the trades; return both, and how early each batch came, in seconds."""
    books: dict[str, Book] = {}
    trades: dict[str, int] = {}
    early: list[float] = []
    began, first_us = time.monotonic(), None  # the first record is due a little after that: nothing may come early
    for batch in replay:
        kind, product = batch.feed.removeprefix("CB-").split("-", 1)
        if kind == "L2":
            take_levels(books.setdefault(product, {b"B": {}, b"A": {}}), batch.records)
        else:
            trades[product] = trades.get(product, 0) + len(batch.records)
        first_us = batch.time_us if first_us is None else first_us
        assert replay.speed is not None
        due_s = (int(batch.records["packet_us"][-1]) - first_us) / 1e6 / replay.speed
        early.append(due_s - (time.monotonic() - began))
    return books, trades, early


def check(books: dict[str, Book], expected: dict[str, Product], name: str) -> None:
    assert books.keys() == BEST[name].keys()
    for product, book in books.items():
        assert (max(book[b"B"]), min(book[b"A"])) == BEST[name][product]
        assert tuple(map(float, expected[product].best())) == BEST[name][product]
        for code, side in ((b"B", "bid"), (b"A", "offer")):
            assert book[code] == {float(p): float(q) for p, q in expected[product].book[side].items()}


def test_a_tape_of_two_products_plays_back_at_ten_times_real_time(shared_data: Path, tmp_store: Path) -> None:
    """24.7 s of four feeds: no record before it is due, both whole books as on the tape, every trade once."""
    expected = recorded(shared_data, PAIR, tmp_store)
    with Platform(tmp_store) as store:
        readers = [store[name] for name in store.list_feeds()]
        assert len(readers) == 4
        clocks = {reader.feed: reader.read()["packet_us"] for reader in readers}
        assert all(np.all(clock[1:] >= clock[:-1]) for clock in clocks.values())
        with merge(readers, clock="packet_us", speed=10) as replay:
            books, trades, early = play(replay)
            assert replay.time_us == max(int(clock[-1]) for clock in clocks.values())
    check(books, expected, PAIR)
    assert (
        trades == {product: len(expected[product].trades) for product in expected} == {"BTC-USD": 147, "ETH-USD": 132}
    )
    assert max(early) < 0.001
    assert len(early) > 200  # as many runs of one feed there are at least


def test_a_tape_of_three_minutes_plays_back_from_its_levels_alone(shared_data: Path, tmp_store: Path) -> None:
    """179.4 s at two hundred times real time."""
    expected = recorded(shared_data, LIVE, tmp_store)
    with Platform(tmp_store) as store, merge([store["CB-L2-BTC-USD"]], clock="packet_us", speed=200) as replay:
        books, trades, early = play(replay)
    check(books, expected, LIVE)
    assert trades == {}
    assert max(early) < 0.001
