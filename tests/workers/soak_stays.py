"""One of those that live through a whole soak. Arguments: role, base path, feed, seed. Ends when stdin says so.

``follow``: follows the feed and checks every record; the end comes on stdin. ``write``, ``read``: a writer of a durable
feed that rotates and is pruned, and a reader that looks at it in all ways, for their memory to be measured. ``churn``:
makes and deletes feeds. ``verify``: checks the store again and again. Each says at the end what it did, as JSON.
"""

import gc
import itertools
import json
import random
import select
import sys
import time

import numpy as np

import model
from deepwater import ChunkGoneError, LappedError, Platform
from deepwater.check import verify

role, base, feed, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
rng = random.Random(seed)
SIZE = model.CHECKED.itemsize
did = {"rounds": 0, "records": 0}


def told_to_end() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def check(batch, position: int) -> None:
    assert (batch["position"] == np.arange(position, position + len(batch), dtype=np.uint64)).all(), "positions"
    assert (batch["check"] == model._checks(batch)).all(), "torn record"
    did["records"] += len(batch)


def follow(dw: Platform) -> None:
    """Every position is seen once, in order, or counted as lost to retention or to a lap."""
    end = None
    with dw[feed].follow("earliest", timeout=0.2, on_lap="skip") as follower:
        start = int(follower.position)
        print("ready", flush=True)
        while end is None or follower.position < end:
            if end is None and told_to_end():
                end = int(sys.stdin.readline())
            batch = next(follower, None)
            if batch is not None:
                check(batch, int(follower.position) - len(batch))
                did["rounds"] += 1
        did["lost"] = follower.lost
        assert did["records"] + follower.lost == follower.position - start == end - start


def write(dw: Platform) -> None:
    print("ready", flush=True)
    with dw.create_writer(feed) as writer:
        while not told_to_end():
            rows = rng.choice((1, 40, 300))
            batch = model.checked_records(writer.end, rows, did["rounds"])
            did["records"] = writer.write_batch(batch, create_index=rows == 40) + rows
            did["rounds"] += 1
            if did["rounds"] % 50 == 0:
                dw.prune(feed, max_bytes=1 << 20)
                writer.flush()
            time.sleep(0.002)


def read(dw: Platform) -> None:
    print("ready", flush=True)
    kept = dw[feed]
    while not told_to_end():
        with dw[feed] as reader:
            for one in (kept, reader):
                try:
                    window = one.latest(200)
                    for batch in window:
                        check(batch, int(batch["position"][0]))
                    one.read(last=500).to_numpy()
                    one.marks()
                    with one.follow(position=one.end, timeout=0.01) as follower:
                        for batch in itertools.islice(follower, 3):
                            check(batch, int(follower.position) - len(batch))
                except (ChunkGoneError, LappedError):
                    did["gone"] = did.get("gone", 0) + 1
        dw.describe_feed(feed)
        did["rounds"] += 1
        if did["rounds"] % 10 == 0:
            gc.collect()  # what is counted is what is kept, not what waits for a collection
        time.sleep(0.005)


def churn(dw: Platform) -> None:
    """A feed, or a ring, that is made, written, read and deleted."""
    print("ready", flush=True)
    fields = model.CHECKED_FIELDS
    while not told_to_end():
        ring = {"persist": False} if rng.random() < 0.4 else {"index_playback": True}
        dw.create_feed({"feed_name": feed, "ts_col": "ts_us", "fields": fields, "chunk_size_bytes": 400 * SIZE, **ring})
        with dw.create_writer(feed) as writer:
            for k in range(rng.randrange(3)):
                writer.write_batch(model.checked_records(150 * k, 150, k))
        with dw[feed] as reader:
            held = model.joined(reader.rows(0, reader.end), model.CHECKED)
            model.whole_writes(held)
            did["records"] += len(held)
        dw.delete_feed(feed)
        did["rounds"] += 1
        time.sleep(0.02 * rng.random())


def check_files(dw: Platform) -> None:
    print("ready", flush=True)
    while not told_to_end():
        report = verify(base)
        damage = [str(finding) for finding in report.findings if finding.severity == "error"]
        assert not damage, damage
        did["rounds"] += 1
        did["records"] += report.records
        time.sleep(0.1)


ROLES = {"follow": follow, "write": write, "read": read, "churn": churn, "verify": check_files}
with Platform(base) as dw:
    ROLES[role](dw)
print(json.dumps(did))
