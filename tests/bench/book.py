"""What a book at a time costs: ``python tests/bench/book.py [--deltas 1000000] [--rounds 5]``.

One durable feed of 64-byte records as in ``schemas/cb-l2.json``: a snapshot of 46,000 levels (what BTC-USD has) and
the changes after it, near the middle of the book more often than far from it, a third of them deletes, in one go. Round
by round on the same records stand `books.book_at`, `book.OrderBook` fed with batches, and the loop that is written
without a library: two dicts and a step for each record, over columns turned into Python values (`dict`), or over the
tuples of the reader's stream (`tuples`). Then a row a second of 1,000 changes: `books.books` beside the dicts and
`heapq.nlargest` at each. All give the same book, which is checked. Medians of rounds, in milliseconds, and the ratio to
the loop over columns.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from deepwater import Platform
from deepwater.book import OrderBook
from deepwater.books import book_at, books
from deepwater.reader import Reader

ROOT = Path(__file__).resolve().parent.parent.parent
FEED, LEVELS, TICK, START, DEPTH = "CB-L2-BTC-USD", 46_000, 0.01, 1_786_309_548_000_000, 10
Sides = tuple[list[tuple[float, float]], list[tuple[float, float]]]


def rows(side: np.ndarray, ticks: np.ndarray, qty: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Records of levels so many ticks away from the middle."""
    out = np.zeros(len(side), dtype)
    out["side"] = np.where(side, b"B", b"A")
    out["price"] = np.round(65_000 + np.where(side, -ticks, ticks) * TICK, 2)
    out["qty"] = qty
    return out


def fill(dw: Platform, deltas: int) -> Reader:
    """Make the feed; a change is a millisecond after the one before."""
    dw.create_feed(json.loads((ROOT / "schemas" / "cb-l2.json").read_text()))
    reader, random = dw[FEED], np.random.default_rng(5)
    half = np.arange(LEVELS // 2) + 1
    snapshot = rows(np.repeat([True, False], LEVELS // 2), np.tile(half, 2), 1.0, reader.dtype)
    snapshot["type"], snapshot["proc_us"] = b"S", START
    away = np.minimum(random.geometric(1 / 2000, deltas), 40_000)
    qty = np.round(random.random(deltas) + 0.01, 8) * (random.random(deltas) > 1 / 3)
    changes = rows(random.random(deltas) < 0.5, away, qty, reader.dtype)
    changes["type"], changes["seq"] = b"U", np.arange(deltas) + 1
    changes["proc_us"] = START + 1000 * (np.arange(deltas) + 1)
    with dw.create_writer(FEED) as writer:
        writer.write_batch(snapshot, create_index=True)
        for first in range(0, deltas, 100_000):
            writer.write_batch(changes[first : first + 100_000])
    return reader


def of_dicts(bids: dict[float, float], asks: dict[float, float]) -> Sides:
    """All levels, best first."""
    return sorted(bids.items(), reverse=True), sorted(asks.items())


def vectorised(reader: Reader) -> Sides:
    """`books.book_at`."""
    book = book_at(reader)
    assert book.valid
    return book.bids.tolist(), book.asks.tolist()


def incremental(reader: Reader) -> Sides:
    """`book.OrderBook`, fed with batches."""
    book, marks = OrderBook(), reader.marks()
    for block in reader.playback().arrays():
        book.apply(block, marks)
    found = book.book()
    return found.bids.tolist(), found.asks.tolist()


def loop(reader: Reader) -> Sides:
    """Two dicts, over columns as Python lists."""
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    for block in reader.playback().arrays():
        columns = (block[name].tolist() for name in ("side", "price", "qty"))
        for side, price, qty in zip(*columns, strict=True):
            levels = bids if side == b"B" else asks
            if qty:
                levels[price] = qty
            else:
                levels.pop(price, None)
    return of_dicts(bids, asks)


def tuples(reader: Reader) -> Sides:
    """Two dicts, over the tuples of the stream."""
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    for _, side, _, _, _, _, price, qty, _ in reader.stream_time_range(START):
        levels = bids if side == b"B" else asks
        if qty:
            levels[price] = qty
        else:
            levels.pop(price, None)
    return of_dicts(bids, asks)


def tops(reader: Reader) -> list[float]:
    """`books.books`: a second apart; the sum of the prices of each row."""
    found = books(reader, START, None, "1s", DEPTH)
    return [float(value) for value in found["bid_px"].sum(axis=1) + found["ask_px"].sum(axis=1)]


def loop_of_tops(reader: Reader) -> list[float]:
    """Two dicts, and `heapq` a second apart."""
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    out, due = [], START
    for block in reader.playback().arrays():
        columns = (block[name].tolist() for name in ("proc_us", "side", "price", "qty"))
        for now, side, price, qty in zip(*columns, strict=True):
            while now > due:
                out.append(top(bids, asks))
                due += 1_000_000
            levels = bids if side == b"B" else asks
            if qty:
                levels[price] = qty
            else:
                levels.pop(price, None)
    return [*out, top(bids, asks)] if now == due else out


def top(bids: dict[float, float], asks: dict[float, float]) -> float:
    """The sum of the prices of the best levels."""
    return float(np.array(heapq.nlargest(DEPTH, bids)).sum() + np.array(heapq.nsmallest(DEPTH, asks)).sum())


WORKS: dict[str, dict[str, Callable[[Reader], Any]]] = {
    "the book": {"dict": loop, "book_at": vectorised, "OrderBook": incremental, "tuples": tuples},
    "books": {"dict and heapq": loop_of_tops, "books": tops},
}


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Run it and print a table; returns seconds by work and contender."""
    parser = argparse.ArgumentParser(description="the cost of a book")
    parser.add_argument("--deltas", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    medians: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory, Platform(directory) as dw:
        reader = fill(dw, args.deltas)
        for work, contenders in WORKS.items():
            seconds = {name: list[float]() for name in contenders}
            for _ in range(args.rounds):
                answers = []
                for name, contender in contenders.items():
                    began = time.perf_counter()
                    answers.append(contender(reader))
                    seconds[name].append(time.perf_counter() - began)
                assert all(np.allclose(answer, answers[0], 1e-12) if work == "books" else answer == answers[0]
                           for answer in answers)  # fmt: skip
            found = medians[work] = {name: statistics.median(all_) for name, all_ in seconds.items()}
            base = next(iter(found.values()))
            for name, taken in found.items():
                print(f"{work:10}{name:16}{taken * 1e3:10.1f} ms{base / taken:8.1f} x")
    return medians


if __name__ == "__main__":
    main()
