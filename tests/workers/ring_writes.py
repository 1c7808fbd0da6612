"""Writes a ring at full speed until told to stop: ``base feed board limit seed [forget]``.

Batches of 1 to an eighth of the ring, now and then up to half; a few single writes. With ``forget`` it does what a
successor must not: it takes back the claim of the writer before it.
"""

from __future__ import annotations

import sys

import numpy as np

import ring_kit
from deepwater import Platform
from deepwater import format as fmt
from deepwater.ring_writer import RingWriter

base, feed, board_path, limit, seed = sys.argv[1:6]
board = ring_kit.Board(board_path)
rng = np.random.default_rng(int(seed))
truth = ring_kit.table()

if "forget" in sys.argv:
    enter = RingWriter._enter

    def forgetful(self: RingWriter, ring: object) -> None:
        enter(self, ring)  # type: ignore[arg-type]
        self._claimed = self._count
        self._words[fmt.CLAIM] = self._count

    RingWriter._enter = forgetful  # type: ignore[method-assign]

with Platform(base).create_writer(feed) as writer:
    capacity = writer._ring.capacity
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
        if single[k]:
            writer.write_values(*truth[at].tolist())
            position += 1
        else:
            rows = int(sizes[k])
            writer.write_batch(records[at : at + rows])
            position += rows
        board["position"] = position
    print(position)
