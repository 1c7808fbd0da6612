"""What a maintained book costs a change: ``python tests/bench/maintainer.py [--changes 200000] [--rounds 3]``.

A feed as `book.py` makes it (a snapshot of 46,000 levels, then changes near the middle, a third of them deletes) is
written in looks: so many changes, then each contender takes them and is timed, in turn, in one process. *dicts* is the
raw loop: what a follower hands out as columns of Python values, a step for each into one of two dicts, and no question
whether something was missed. *maintainer* is what the maintainer does (`live_book.LiveBook` with ``seldom=True``),
*live book* the same with a book that knows its best levels at every moment. Each 400 changes, or each look if that is
more (a second of a busy market), each makes its record of the best 500 levels a side and writes it to a ring of its
own; the loop with `heapq`. All records are compared. Process time, medians of rounds, and the ratio to the raw loop.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from book import FEED, fill

from deepwater import Platform
from deepwater.apps import specs
from deepwater.book_records import books_dtype
from deepwater.levels import BLOCK_ROWS
from deepwater.live_book import LiveBook
from deepwater.reader import Reader

DEPTH, RECORD_EVERY = 500, 400
LOOKS = (7, 50, 400, 5000)



class Dicts:
    """The raw loop."""

    def __init__(self, reader: Reader) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.follower = reader.follow("earliest")
        self.take()

    def take(self) -> int:
        count = 0
        while (block := self.follower.poll()) is not None:
            columns = (block[name].tolist() for name in ("side", "price", "qty"))
            for side, price, qty in zip(*columns, strict=True):
                levels = self.bids if side == b"B" else self.asks
                if qty:
                    levels[price] = qty
                else:
                    levels.pop(price, None)
            count += len(block)
        return count

    def record(self, depth: int, _: int) -> np.ndarray:
        out = np.zeros(1, books_dtype(depth))
        for side, levels, best in (("bid", self.bids, heapq.nlargest), ("ask", self.asks, heapq.nsmallest)):
            prices = best(depth, levels)
            out[f"{side}_px"], out[f"{side}_qty"] = prices, [levels[price] for price in prices]
        return out


def compare(records: list[np.ndarray]) -> None:
    for name in ("bid_px", "bid_qty", "ask_px", "ask_qty"):
        for record in records[1:]:
            np.testing.assert_array_equal(record[name], records[0][name])


def run(changes: int, look: int) -> dict[str, tuple[float, float]]:
    """Seconds of process time by contender: for all changes, and for all records."""
    with tempfile.TemporaryDirectory() as directory, Platform(directory) as dw:
        fill(dw, 1)
        with tempfile.TemporaryDirectory() as other, Platform(other) as source:
            rows = fill(source, changes).rows(46_001, 46_000 + changes).to_numpy().copy()
        contenders: dict[str, Any] = {
            "dicts": Dicts(dw[FEED]), "maintainer": LiveBook(dw[FEED], seldom=True), "live book": LiveBook(dw[FEED]),
        }  # fmt: skip
        taken, made = dict.fromkeys(contenders, 0.0), dict.fromkeys(contenders, 0.0)
        rings = {}
        for name in contenders:
            spec = specs.snapshots_spec(name.replace(" ", "-"), DEPTH, persist=False)
            rings[name] = dw.create_writer(dw.create_feed(spec))
        with dw.create_writer(FEED) as writer:
            every = max(look, RECORD_EVERY // look * look)
            for first in range(0, len(rows) - look + 1, look):
                writer.write_batch(rows[first : first + look])
                records = []
                for name, contender in contenders.items():
                    began = time.process_time()
                    while contender.take() >= BLOCK_ROWS:
                        pass
                    taken[name] += time.process_time() - began
                    if (first + look) % every:
                        continue
                    began = time.process_time()
                    record = contender.record(DEPTH, 0)
                    rings[name].write_batch(record)
                    made[name] += time.process_time() - began
                    records.append(record)
                if records:
                    compare(records)
        for name, ring in rings.items():
            ring.close()
            dw.delete_feed(ring.feed)
            if isinstance(contenders[name], LiveBook):
                contenders[name].close()
        return {name: (taken[name], made[name]) for name in contenders}


def main(argv: list[str] | None = None) -> None:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(description="the cost of a maintained book")
    parser.add_argument("--changes", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    for look in (look for look in LOOKS if look <= args.changes):
        changes = min(args.changes, 4000 * look) // look * look
        rounds = [run(changes, look) for _ in range(args.rounds)]
        records = changes // max(look, RECORD_EVERY // look * look)
        base = statistics.median(each["dicts"][0] for each in rounds)
        for name in rounds[0]:
            took, made = (statistics.median(each[name][k] for each in rounds) for k in (0, 1))
            print(
                f"looks of {look:5,}  {name:12}{took / changes * 1e6:8.2f} us a change{took / base:8.2f} x the raw loop"
                f"{made / max(records, 1) * 1e6:10.0f} us a record"
            )


if __name__ == "__main__":
    main()
