"""Starts in the past of a feed that is being written, many times, and arrives in the present each time.

Arguments: base path, feed, how many starts, seed. Every position from the start on is seen once, in order, and every
record carries its own check; a start ends a few batches after it had once seen everything that was published.
"""

import json
import random
import sys

import numpy as np

import model
from deepwater import Platform

base, feed, starts, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)
counts = {"starts": 0, "history": 0, "live": 0}
with Platform(base) as dw, dw[feed] as reader:
    for _ in range(starts):
        end = int(reader.end)
        back = max(reader.first, end - rng.randrange(1, 3000))
        wait = rng.choice(("auto", "wake", "spin"))
        how = rng.choice(("position", "time", "snapshot", "latest"))
        if how == "snapshot" and not reader.settings.persist:
            how = "latest"  # a ring has no marks
        if how == "position":
            follower = reader.follow(position=back, wait=wait, timeout=60)
            assert follower.position == back
        elif how == "time":
            stamp = int(reader[back]["ts_us"])
            follower = reader.follow(np.datetime64(stamp, "us"), wait=wait, timeout=60)
            assert back - 3 < follower.position <= back
        else:
            follower = reader.follow(how, wait=wait, timeout=60)
            assert follower.position >= end or how == "snapshot"
        first, got, live = int(follower.position), [], 0
        while live < 3:
            batch = follower.poll()
            if batch is None:
                live += 1
                batch = next(follower)
            got.append(batch)
        records = model.joined(got, model.CHECKED)
        assert (records["position"] == np.arange(first, first + len(records), dtype=np.uint64)).all(), (how, wait)
        assert (records["check"] == model._checks(records)).all()
        assert how != "snapshot" or (records["snapshot"][0] == 1 and records["first"][0] == first)
        assert follower.lost == 0 and follower.position == first + len(records)
        counts["starts"] += 1
        counts["live"] += max(0, first + len(records) - max(end, first))
        counts["history"] += max(0, end - first)
        follower.close()
print(json.dumps(counts))
