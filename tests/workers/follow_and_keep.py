"""Follows a feed and keeps every batch; goes on with a new follower at 100 random points.

Arguments: base path, feed, number of records, seed, and a file of 8 bytes for its position. Says "ready", and at
the end what it saw as JSON.
"""

import json
import mmap
import random
import sys

import model
from deepwater import Platform

base, feed, total, seed, progress = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
rng = random.Random(seed)
with open(progress, "r+b") as file:
    reached = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
points = sorted(rng.sample(range(total), 160))
follower = Platform(base)[feed].follow("earliest", timeout=60)
print("ready", flush=True)
kept, resumed, waits, lost = [], 0, 0, 0
while follower.position < total:
    batch = follower.poll()
    if batch is None:
        waits += 1
        batch = next(follower)
    kept.append(batch)
    reached[0] = follower.position
    if points and follower.position > points[0]:
        points = [point for point in points if point > follower.position]
        resumed += 1
        lost += follower.lost
        follower = Platform(base)[feed].follow(
            position=follower.position, timeout=60, batch=rng.choice((30, 100, 1000))
        )
records = model.joined(kept, model.CHECKED)
assert len(records) == total
writes = model.whole_writes(records)
assert all(not batch.flags.writeable for batch in kept)
print(json.dumps({"batches": len(kept), "resumed": resumed, "waits": waits, "lost": lost, "writes": len(writes)}))
