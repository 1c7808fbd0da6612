"""Follows a feed that is pruned under it, at an uneven pace; adds up what it accepted, lost and was told.

Arguments: base path, feed, on_lap, seed. The end of the feed comes on stdin; says at the end what it saw.
"""

import json
import random
import select
import sys
import time

import numpy as np

import model
from deepwater import LappedError, Platform

base, feed, on_lap, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
rng = random.Random(seed)
accepted = told = laps = 0
end = None
with Platform(base) as dw:
    follower = dw[feed].follow("earliest", timeout=0.2, batch=rng.choice((7, 50)), on_lap=on_lap)
    at = start = int(follower.position)  # on a busy machine some was let go before
    while end is None or follower.position < end:
        if end is None and select.select([sys.stdin], [], [], 0)[0]:
            end = int(sys.stdin.readline())
        lost = follower.lost
        try:
            batch = next(follower, None)
        except LappedError as error:
            told, laps = told + error.lost, laps + 1
            at += error.lost
            assert follower.position == at
            continue
        if batch is None:
            continue
        at += follower.lost - lost
        assert (batch["position"] == np.arange(at, at + len(batch), dtype=np.uint64)).all(), (at, batch["position"])
        assert (batch["check"] == model._checks(batch)).all(), "torn record"
        at, accepted = at + len(batch), accepted + len(batch)
        if rng.random() < 0.02:
            time.sleep(0.05 * rng.random())
    out = {"on_lap": on_lap, "start": start, "accepted": accepted, "lost": follower.lost, "told": told, "laps": laps}
    follower.close()
print(json.dumps(out))
