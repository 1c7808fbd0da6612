"""A nursery of writers that are killed: forks them warm, kills them at a random moment, judges what they left.

Arguments: base path, kills, seed, and "broken" for writers that publish before they write, which must be found out.
Says one line of JSON for each kill.

A writer tells what it is doing through words in shared memory, so that a kill can be placed:
``[end acknowledged, phase, rows of the write under way, marks acknowledged, its number]``.
"""

import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

import model
from deepwater import Platform
from deepwater.chunk import WritableChunk

OPENING, OUTSIDE, IN_WRITE, IN_LONG_WRITE, FAILED = range(5)
SIZE = model.CHECKED.itemsize

base, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
words = memoryview(mmap.mmap(-1, 4096)).cast("Q")
if sys.argv[4:] == ["broken"]:
    put = WritableChunk.put

    def publish_then_put(self, row, data):
        self.publish(row + len(data) // self.record_size)
        put(self, row, data)

    WritableChunk.put = publish_then_put


def write_until_killed(feed: str, chunk_rows: int, number: int, seed: int) -> None:
    """The child: one write after the other, each announced and acknowledged."""
    rng = random.Random(seed)
    writer = Platform(base).create_writer(feed)
    end = writer.end
    while True:
        number += 1
        rows = rng.choice((1, 1, 3, chunk_rows // 4 + 1, chunk_rows, 3 * chunk_rows + 5, 8 * chunk_rows))
        snapshot = rng.random() < 0.2
        batch = model.checked_records(end, rows, number, snapshot)
        words[2] = rows
        words[4] = number
        words[1] = IN_LONG_WRITE if rows > chunk_rows else IN_WRITE
        if rows == 1 and not snapshot:
            values = batch[0].item()
            assert writer.write_values(*values[:-1], batch[0]["filler"]) == end
        else:
            assert writer.write_batch(batch, create_index=snapshot) == end
        end += rows
        words[0] = end
        words[3] += snapshot
        words[1] = OUTSIDE


def kill_one(feed: str, chunk_rows: int, number: int) -> int:
    """Fork a writer, kill it, return the phase it died in."""
    words[1] = OPENING
    pid = os.fork()
    if pid == 0:
        try:
            write_until_killed(feed, chunk_rows, number, rng.randrange(2**32))
        except BaseException:  # noqa: BLE001 (a child must not go on as its parent)
            traceback.print_exc()
            words[1] = FAILED
            os._exit(1)
    if rng.random() < 0.85:  # else while it opens, most likely
        while words[1] == OPENING:
            time.sleep(0.0001)
    time.sleep(rng.random() ** 3 * 0.02)  # half of the moments lie in the first 2.5 ms
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return words[1]


def judge(feed: str, before: int, marks_before: int) -> tuple[int, int]:
    """What must hold after a kill; returns how many records and snapshots there are."""
    with Platform(base)[feed] as reader:
        end = int(reader.end)
        acknowledged, under_way = words[0], words[2]
        assert end in (acknowledged, acknowledged + under_way), f"{end}: acknowledged {acknowledged}, then {under_way}"
        tail = model.joined(reader.rows(before, end), model.CHECKED)
        writes = model.whole_writes(tail, before)
        snapshots = reader.snapshots()
        assert len(snapshots) >= words[3]
        wanted = writes[writes["snapshot"] == 1]
        assert snapshots["position"][marks_before:].tolist() == wanted["first"].tolist()
        assert snapshots["count"][marks_before:].tolist() == wanted["rows"].tolist()
        stamps = tail["ts_us"]
        assert len(reader.read(int(stamps[0]))) >= len(tail) if len(tail) else True
    return end, len(snapshots)


end = marks = lives = 0
feed, chunk_rows = "", 0
for round_ in range(kills):
    if round_ % 10 == 0:  # another feed, another size of chunks
        lives += 1
        feed, chunk_rows = f"F{lives}", (8, 40, 200, 2_000)[lives % 4]
        Platform(base).create_feed({"feed_name": feed, "ts_col": "ts_us", "fields": model.CHECKED_FIELDS,
                                    "index_playback": True, "chunk_size_bytes": chunk_rows * SIZE})  # fmt: skip
        end = marks = 0
        words[0] = words[2] = words[3] = words[4] = 0
    phase = kill_one(feed, chunk_rows, words[4])
    before, (end, marks) = end, judge(feed, end, marks)
    words[0], words[2], words[3] = end, 0, marks
    chunks = len(model.chunk_files(Path(base) / "data" / feed))
    print(json.dumps({"phase": phase, "written": end - before, "chunks": chunks}), flush=True)
    if round_ % 10 == 9:  # the next writer goes on by itself, and the files say the same as the readers
        with Platform(base) as dw:
            with dw.create_writer(feed) as writer:
                assert writer.write_batch(model.checked_records(end, 3, words[4] + 1)) == end
            with dw[feed] as reader:
                everything = model.joined(reader.rows(0, end + 3), model.CHECKED)
                model.whole_writes(everything)
            directory = Path(base) / "data" / feed
            assert np.array_equal(
                np.frombuffer(model.stored(directory), np.uint8), model.opaque(everything).view(np.uint8)
            )
            assert not list(directory.glob(".tmp-*"))
            dw.delete_feed(feed)
