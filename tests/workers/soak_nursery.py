"""Forks writers and readers that live until they are killed: an interpreter's start costs more than a life does.

Arguments: base path, the file of words. Reads ``role seed`` from stdin, prints the child's pid; "gone CODE PID" when it
has ended. Roles: ``D`` and ``R`` write the durable feed and the ring, ``read`` reads whatever there is.

Words of the file, eight for each feed: end acknowledged, end of the write under way, what a flush promised, marks of
gaps, how many were opened.
"""

import contextlib
import mmap
import os
import random
import select
import sys
import time
import traceback

import numpy as np

import model
from deepwater import ChunkGoneError, FeedLockedError, LappedError, Platform

base = sys.argv[1]
with open(sys.argv[2], "r+b") as file:
    words = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
NURSERY = os.getpid()
ACKNOWLEDGED, UNDER_WAY, DURABLE, GAPS, OPENED = range(5)
SIZE = model.CHECKED.itemsize


def write(name: str, rng: random.Random) -> None:
    """One write after the other; of the durable feed also gaps, flushes, resizes and prunes."""
    at = 8 * "DR".index(name)
    with Platform(base) as dw:
        writer = dw.create_writer(name)
        end = writer.end
        assert end in (words[at + ACKNOWLEDGED], words[at + UNDER_WAY]), "a write is not whole, or it is lost"
        words[at + ACKNOWLEDGED] = end  # the dead one may not have come to it
        words[at + OPENED] += 1
        while os.getppid() == NURSERY:
            step = rng.random()
            if name == "D" and step < 0.06:
                other_step(dw, writer, at, rng)
                continue
            rows = rng.choice((1, 1, 3, 40, 300, 700))
            snapshot = name == "D" and rows > 1 and step > 0.9
            words[at + UNDER_WAY] = end + rows
            batch = model.checked_records(end, rows, end, snapshot)
            if rows == 1:
                assert writer.write_values(*batch[0].item()[:-1], batch[0]["filler"]) == end
            else:
                assert writer.write_batch(batch, create_index=snapshot) == end
            end += rows
            words[at + ACKNOWLEDGED] = end
            time.sleep(0.002 * rng.random() ** 2)


def other_step(dw: Platform, writer, at: int, rng: random.Random) -> None:
    kind = rng.choice(("gap", "gap", "flush", "flush", "resize", "prune"))
    if kind == "gap":
        writer.mark_gap(1)
        words[at + GAPS] += 1
    elif kind == "flush":
        words[at + DURABLE] = writer.flush()
    elif kind == "resize":
        writer.resize_chunk_size(rng.choice((200, 500, 1_000)) * SIZE)
    else:
        with contextlib.suppress(FeedLockedError):  # one that was killed may not be reaped yet
            dw.prune("D", max_bytes=3 << 20)


def read(rng: random.Random) -> None:
    """Open, look, follow a little, close; what is seen is checked."""
    with Platform(base) as dw:
        while os.getppid() == NURSERY:
            with dw[rng.choice("DR")] as reader:
                first, end = reader.first, int(reader.end)
                at = rng.randrange(first, max(first + 1, end))
                try:
                    for window in (reader.latest(300), reader.rows(at, at + 500)):
                        check(window, window.position)
                    with reader.follow("earliest", timeout=0.05) as follower:
                        for batch in follower:
                            check([batch], int(follower.position) - len(batch))
                            if rng.random() < 0.1:
                                break
                except (ChunkGoneError, LappedError):
                    pass  # pruned or overwritten meanwhile


def check(batches, position: int) -> None:
    for batch in batches:
        assert (batch["position"] == np.arange(position, position + len(batch), dtype=np.uint64)).all(), "positions"
        assert (batch["check"] == model._checks(batch)).all(), "torn record"
        position += len(batch)


def live(role: str, seed: str) -> None:
    try:
        rng = random.Random(int(seed))
        read(rng) if role == "read" else write(role, rng)
    except BaseException:  # noqa: BLE001 (a child must not go on as its parent)
        traceback.print_exc()
        os._exit(1)


def reap() -> None:
    with contextlib.suppress(ChildProcessError):  # none is alive
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            print("gone", os.waitstatus_to_exitcode(ended[1]), ended[0], flush=True)


Platform(base)["D"].close()  # everything is loaded before the first child
while True:
    reap()
    if not select.select([sys.stdin], [], [], 0.005)[0]:
        continue
    line = sys.stdin.readline()
    if not line:
        break
    pid = os.fork()
    if not pid:
        live(*line.split())
    print(pid, flush=True)
