"""Writes self-checking records in every way there is; waits for its reader now and then.

Arguments: base path, feed, number of records, seed, and a file of 8 bytes where the reader keeps its position.
"""

import mmap
import os
import random
import sys
import time

import model
from deepwater import Platform

base, feed, total, seed, progress = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
rng = random.Random(seed)
with open(progress, "r+b") as file:
    reached = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
dw = Platform(base)
writer, end, number = dw.create_writer(feed), 0, 0
while end < total:
    number += 1
    step = rng.random()
    if step < 0.02:
        writer.close()
        writer = dw.create_writer(feed)
    elif step < 0.04:
        writer.resize_chunk_size(rng.choice((300, 500, 700)) * model.CHECKED.itemsize)
    rows = min(total - end, rng.choice((1, 1, 1, 7, 50, 300, 1_000)))
    batch = model.checked_records(end, rows, number)
    if rows == 1:
        values = batch[0].item()
        end = writer.write_values(*values[:-1], batch[0]["filler"]) + 1
    else:
        end = writer.write_batch(batch) + rows
    if rng.random() < 0.8:  # else the two race
        while reached[0] < end:
            time.sleep(0)
            os.sched_yield()
writer.close()
dw.close()
print(number)
