"""Writes self-checking records, in batches of any size and with snapshots, until its stdin is closed.

Arguments: base path, feed, seed. Says "ready" once there is history, and at the end how many records it wrote.
"""

import random
import select
import sys
import time

import model
from deepwater import Platform

base, feed, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(seed)
with Platform(base) as dw, dw.create_writer(feed) as writer:
    end = number = 0
    while not (end > 20_000 and select.select([sys.stdin], [], [], 0)[0]):
        number += 1
        rows = rng.choice((1, 1, 2, 7, 40, 150))
        marked = writer.settings.index_playback and rng.random() < 0.1
        batch = model.checked_records(end, rows, number, marked)
        if rows == 1 and not marked:
            end = writer.write_values(*batch[0].item()[:-1], batch[0]["filler"]) + 1
        else:
            end = writer.write_batch(batch, create_index=marked) + rows
        if number == 300:
            print("ready", flush=True)
        if number > 300:
            time.sleep(0.0002 * rng.random())
    print(end)
