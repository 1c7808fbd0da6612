"""Writes a feed of levels until it is killed or told to stop: ``<store> <product> <seed>``.

A snapshot now and then, sometimes after a gap; changes near the best prices, a third of them deletes. A write is a
frame: some records with one `seq` and one time. Says ``ready`` when the first snapshot is there.
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np

from deepwater import Platform
from deepwater.apps import specs
from deepwater.timestamps import now_us

SIDES = np.array([b"B", b"A"])


def frame(random: np.random.Generator, rows: int, seq: int, last_us: int) -> np.ndarray:
    """Bids below 100.0, asks above it, in ticks of 0.1; never crossed."""
    out = np.zeros(rows, specs.dtype(specs.L2))
    is_bid = random.random(rows) < 0.5
    ticks = random.geometric(1 / 12, rows)
    out["type"], out["side"], out["seq"] = b"U", np.where(is_bid, *SIDES), seq
    out["price"] = np.round(100 + np.where(is_bid, -ticks, ticks) / 10, 1)
    out["qty"] = np.round(random.random(rows) + 0.1, 3) * (random.random(rows) > 1 / 3)
    out["proc_us"] = max(last_us, now_us())
    return out


def main(store: str, product: str, seed: int) -> None:
    """Write until stdin ends."""
    random, told = np.random.default_rng(seed), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()
    seq = last_us = 0
    with Platform(store) as dw:
        spec = specs.spec(specs.L2, product)
        dw.create_feed({**spec.to_json(), "chunk_size_bytes": 64 * 2000})
        with dw.create_writer(spec.feed_name) as writer:
            while not told.is_set():
                fresh = seq % 300 == 0
                if fresh and seq and random.random() < 0.7:
                    writer.mark_gap(reason=f"before {seq}")
                rows = frame(random, 60 if fresh else int(random.integers(1, 8)), seq, last_us)
                if fresh:
                    rows["type"], rows["qty"] = b"S", np.maximum(rows["qty"], 0.05)
                elif random.random() < 0.002:
                    writer.mark_gap(reason=f"sequence {seq}")
                writer.write_batch(rows, create_index=fresh)
                if not seq:
                    print("ready", flush=True)
                seq, last_us = seq + 1, int(rows["proc_us"][0])
                time.sleep(0.001)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
