"""How fast a merged replay is: ``python tests/bench/replay.py [--records 2000000] [--rounds 5]``.

Two durable feeds of 64-byte records whose stamps interleave in runs: of 1,000 records of one feed, then 1,000 of the
other (batches that are sliced), and of 1 (each record is a batch of its own: the worst there is). Beside Deepwater's
`playback.merge` stand, round by round on the same records: `heapq.merge` over the records of both as tuples, the way
it is done without a library, and one stable sort of everything in memory (`numpy.lexsort`, then a gather), which is
what a researcher does when memory does not matter. Each contender counts the records and checks their order.
Medians of rounds, in million records a second.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from deepwater import Platform
from deepwater.playback import merge
from deepwater.reader import Reader

FIELDS = [{"name": name, "type": "uint64"} for name in ("ts_us", "a", "b", "c", "d", "e", "f", "g")]
Readers = list[Reader]


def fill(dw: Platform, name: str, stamps: np.ndarray) -> None:
    """Make a feed with these stamps."""
    dw.create_feed({"feed_name": name, "ts_col": "ts_us", "fields": FIELDS})
    records = np.zeros(len(stamps), [(field["name"], "<u8") for field in FIELDS])
    records["ts_us"] = stamps
    with dw.create_writer(name) as writer:
        writer.write_batch(records)


def merged(readers: Readers) -> int:
    """`playback.merge`: batches in order, one after the other."""
    count, last = 0, 0
    with merge(readers) as replay:
        for batch in replay:
            stamps = batch.records["ts_us"]
            assert last <= stamps[0]
            last, count = stamps[-1], count + len(stamps)
    return count


def heap(readers: Readers) -> int:
    """`heapq.merge` of tuples."""
    count, last = 0, 0
    for record in heapq.merge(*(reader.stream_time_range(0) for reader in readers), key=itemgetter(0)):
        assert last <= record[0]
        last, count = record[0], count + 1
    return count


def sorted_at_once(readers: Readers) -> int:
    """One sort of all records in memory."""
    records = np.concatenate([reader.read().to_numpy() for reader in readers])
    records = records[np.argsort(records["ts_us"], kind="stable")]
    assert (np.diff(records["ts_us"].astype(np.int64)) >= 0).all()
    return len(records)


CONTENDERS: dict[str, Callable[[Readers], int]] = {
    "playback.merge": merged,
    "heapq.merge of tuples": heap,
    "sort in memory": sorted_at_once,
}


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Run it and print a table; returns million records a second by run length and contender."""
    parser = argparse.ArgumentParser(description="throughput of a merged replay")
    parser.add_argument("--records", type=int, default=2_000_000, help="of both feeds together")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    found: dict[str, dict[str, float]] = {}
    for run in (1000, 1):
        half = max(run, args.records // 2 // run * run)
        runs, within = np.divmod(np.arange(half, dtype=np.uint64), np.uint64(run))
        with tempfile.TemporaryDirectory() as directory, Platform(directory) as dw:
            for k, name in enumerate("AB"):
                fill(dw, name, 1_000_000 + (2 * runs + np.uint64(k)) * np.uint64(run) + within)
            readers, speeds = [dw["A"], dw["B"]], {name: list[float]() for name in CONTENDERS}
            for _ in range(args.rounds):
                for name, contender in CONTENDERS.items():
                    began = time.perf_counter()
                    assert contender(readers) == 2 * half
                    speeds[name].append(2 * half / (time.perf_counter() - began) / 1e6)
        found[f"runs of {run}"] = {name: statistics.median(all_) for name, all_ in speeds.items()}
        for name, speed in found[f"runs of {run}"].items():
            print(f"runs of {run:5,}  {name:24}{speed:8.2f} M records/s")
    return found


if __name__ == "__main__":
    main()
