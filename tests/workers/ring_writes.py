"""Writes a ring, or a feed with chunks, at full speed until told to stop.

``base feed board limit seed [own board of a reader ...]``. Batches of 1 to an eighth of the ring, now and then half of
it; a few single writes. It runs no further ahead than two rings of the readers whose boards are named: else they would
read history. With the seed "nursery" it reads seeds from stdin and forks a writer for each (an interpreter's start
costs more than a life does): prints the child's pid, and "gone" when it has ended.
"""

from __future__ import annotations

import os
import sys

import numpy as np

import ring_kit
from deepwater import Platform

base, feed, board_path, limit, seed = sys.argv[1:6]
readers = [ring_kit.Board(path) for path in sys.argv[6:]]
board = ring_kit.Board(board_path)
truth = ring_kit.table()
CHUNK_ROWS = 4_096  # of a feed with chunks this is what a ring's capacity is to the sizes of writes


def write(rng: np.random.Generator) -> None:
    with Platform(base) as platform, platform.create_writer(feed) as writer:
        capacity = writer._ring.capacity if hasattr(writer, "_ring") else CHUNK_ROWS
        records = truth.view(writer.layout.dtype).reshape(-1)
        position, stop = writer.end, int(limit)
        board["started"] += 1
        sizes = rng.integers(1, capacity // 8, 4096)
        sizes[rng.random(4096) < 0.02] = capacity // 2
        single = rng.random(4096) < 0.1
        k = 0
        while position < stop and not board["done"]:
            k = (k + 1) & 4095
            at = position % ring_kit.PERIOD
            rows = 1 if single[k] else int(sizes[k])
            if rows == 1:
                writer.write_values(*truth[at].tolist())
            else:
                writer.write_batch(records[at : at + rows])
            position += rows
            board["position"] = position
            while readers and position - min(own["position"] for own in readers) > 2 * capacity and not board["done"]:
                os.sched_yield()
        print(position, flush=True)


if seed == "nursery":
    Platform(base).create_reader(feed).close()  # everything is loaded before the first child
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            write(np.random.default_rng(int(line)))
            os._exit(0)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("gone", flush=True)
else:
    write(np.random.default_rng(int(seed)))
