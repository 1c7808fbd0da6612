"""Time 1 M of 10 M records by time range: to NumPy as a view, to pandas, to Arrow; beside a 64 MB memcpy.

    PYTHONPATH=. python tests/bench/ranges.py SCRATCH [--records 10000000] [--rounds 9]

Makes a store of 64-byte trades in SCRATCH (640 MB, removed at the end), then takes the works in turn, round by
round, and prints medians and best. Needs nothing but the package and its core dependencies.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from deepwater import Platform

FEED = "trades"
SPEC = {
    "feed_name": FEED,
    "ts_col": "proc_us",
    "fields": [
        {"name": "type", "type": "char"}, {"name": "side", "type": "char"}, {"name": "_", "type": "_6"},
        {"name": "trade_id", "type": "uint64"}, {"name": "packet_us", "type": "uint64"},
        {"name": "recv_us", "type": "uint64"}, {"name": "proc_us", "type": "uint64"},
        {"name": "ev_us", "type": "uint64"}, {"name": "price", "type": "float64"}, {"name": "size", "type": "float64"},
    ],
}  # fmt: skip
T0 = 1_736_121_600_000_000
STEP_US = 6_000
"""Mean time between two records: ten million are some 1000 minutes."""
BATCH = 100_000


def trades(rng: np.random.Generator, dtype: np.dtype[Any], first: int, rows: int, clock: int) -> np.ndarray:
    """Return records in order on `proc_us`, which goes on from `clock`; the other clocks jitter."""
    records = np.zeros(rows, dtype)
    records["type"] = b"T"
    records["side"] = np.where(rng.random(rows) < 0.5, b"B", b"S")
    records["trade_id"] = np.arange(first, first + rows)
    records["proc_us"] = clock + np.cumsum(rng.integers(0, 2 * STEP_US, rows))
    records["recv_us"] = records["proc_us"] - rng.integers(3, 40, rows, dtype=np.uint64)
    records["packet_us"] = records["recv_us"] - rng.integers(1, 15, rows, dtype=np.uint64)
    records["ev_us"] = records["packet_us"] - rng.integers(800, 40_000, rows, dtype=np.uint64)
    records["price"] = np.round(42_000 + np.cumsum(rng.integers(-3, 4, rows)) * 0.01, 2)
    records["size"] = np.round(rng.exponential(0.05, rows) + 1e-4, 4)
    return records


def fill(platform: Platform, records: int) -> None:
    """Write the feed, batch by batch, the same in each run."""
    platform.create_feed(SPEC)
    rng, clock = np.random.default_rng(7), T0
    with platform.create_writer(FEED) as writer:
        for first in range(0, records, BATCH):
            batch = trades(rng, writer.layout.dtype, first, min(BATCH, records - first), clock)
            clock = int(batch["proc_us"][-1])
            writer.write_batch(batch)


def bounds(reader: Any, first: int, rows: int) -> tuple[int, int]:
    """Return the times of records `first` and ``first + rows - 1``, for a range of `rows` of them or a few more."""
    times = reader.rows(first, first + rows)["proc_us"]
    return int(times[0]), int(times[-1])


def places(reader: Any, records: int, rows: int) -> tuple[int, int]:
    """Return where `rows` records begin that lie in one chunk, and where some that go over a chunk's end."""
    starts = [0]
    for piece in reader.rows(0, records):
        starts.append(starts[-1] + len(piece))
    inside = next((a for a, b in pairwise(starts) if b - a >= rows + 2), None)
    assert inside is not None, f"no chunk holds {rows} records: {starts}"
    across = next(b for b in starts[1:] if b - rows // 2 > 0 and b + rows // 2 < records)
    return inside + 1, across - rows // 2


def works(reader: Any, inside: tuple[int, int], across: tuple[int, int]) -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name; each does all of it, from the bounds on."""
    nbytes = reader.read(*inside).nbytes
    source, target = np.ones(nbytes, np.uint8), np.ones(nbytes, np.uint8)
    return {
        "memcpy, to memory in use": lambda: np.copyto(target, source),
        "memcpy, to fresh memory": source.copy,
        "to NumPy, a view": lambda: reader.read(*inside).to_numpy(),
        "to NumPy over two chunks: views": lambda: list(reader.read(*across)),
        "to NumPy over two chunks: one copy": lambda: reader.read(*across).to_numpy(),
        "to pandas": lambda: reader.read(*inside).to_pandas(),
        "to Arrow": lambda: reader.read(*inside).to_arrow(),
        "one minute, a view, open reader": lambda: reader.read(inside[0], inside[0] + 60_000_000).to_numpy(),
    }


def check(reader: Any, inside: tuple[int, int], across: tuple[int, int]) -> int:
    """See that the answers are right, and that what is called a view is one; return the rows of the range."""
    array = reader.read(*inside).to_numpy()
    first = reader.read(*inside).position
    # The same records reached by position are the same memory, or the range is no view of the file.
    held = reader.rows(first, first + len(array)).to_numpy()
    assert np.shares_memory(array, held)
    assert not array.flags.owndata and not array.flags.writeable
    for piece in reader.read(*across):
        place = reader.rows(int(piece["trade_id"][0]), int(piece["trade_id"][-1]) + 1).to_numpy()
        assert np.shares_memory(piece, place)
    everything = np.concatenate([piece["proc_us"] for piece in reader.rows(0, len(reader))])
    for low, high in (inside, across):
        wanted = np.flatnonzero((everything >= low) & (everything <= high))
        window = reader.read(low, high)
        assert np.array_equal(window["trade_id"], wanted)  # they are numbered from 0
        frame, table = window.to_pandas(), window.to_arrow()
        assert np.array_equal(frame["trade_id"], wanted) and np.array_equal(table["trade_id"], wanted)
        assert float(frame["price"].sum()) == float(window["price"].sum())
    return len(array)


def measure(todo: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each work, the works taken in turn; one round goes before and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(rounds + 1):
        for name, work in todo.items():
            gc.collect()
            begin = time.perf_counter()
            answer = work()
            end = time.perf_counter()
            del answer
            if turn:
                seconds[name].append(end - begin)
    return seconds


def report(seconds: dict[str, list[float]], rows: int, records: int, rounds: int) -> str:
    """Return the figures as Markdown; the ratio is to a memcpy into fresh memory, by medians."""
    anchor = statistics.median(seconds["memcpy, to fresh memory"])
    lines = [
        f"{rows:,} of {records:,} records of 64 bytes ({rows * 64 / 1e6:.0f} MB), {rounds} rounds in turn:",
        "",
        "| work | median | best | of memcpy |",
        "|---|---|---|---|",
    ]
    for name, found in seconds.items():
        median = statistics.median(found)
        lines.append(f"| {name} | {median * 1e3:.3f} ms | {min(found) * 1e3:.3f} ms | {median / anchor:.3f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="a directory for the store")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, help="of the range; default a tenth")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args(argv)
    store = args.scratch.resolve() / "ranges-store"
    shutil.rmtree(store, ignore_errors=True)
    try:
        with Platform(store) as platform:
            fill(platform, args.records)
            with platform.create_reader(FEED) as reader:
                wanted = args.rows or args.records // 10
                inside, across = (bounds(reader, first, wanted) for first in places(reader, args.records, wanted))
                rows = check(reader, inside, across)
                seconds = measure(works(reader, inside, across), args.rounds)
        print(report(seconds, rows, args.records, args.rounds))
    finally:
        shutil.rmtree(store, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
