"""Writes, and is interrupted by a timer again and again. Says counts as name=value.

Arguments: base path, feed, how many interrupts, seed, and "broken" for writers that count on what they did not finish.
The handler raises KeyboardInterrupt, as SIGINT's does.
"""

import random
import signal
import sys
import traceback

import numpy as np

import deepwater
import model
from deepwater import Platform
from deepwater.feed_writer import FeedWriter

HOME = deepwater.__file__.removesuffix("__init__.py")

base, name, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(int(sys.argv[4]))
chunks = name == "F"
if sys.argv[5:] == ["broken"]:

    def count_it_as_written(writer) -> None:
        writer._count, writer._unsure = writer._count + 1, False

    FeedWriter._settle = count_it_as_written

SPEC = {"ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "chunk_size_bytes": 40 * model.CHECKED.itemsize}
armed = [False]  # whether a write is under way


def interrupt(*_: object) -> None:
    if armed[0]:
        raise KeyboardInterrupt


def write(writer, end: int, number: int) -> None:
    rows = rng.choice((1, 1, 3, 9, 20) + ((95,) if chunks else ()))
    batch = model.checked_records(end, rows, number)
    signal.setitimer(signal.ITIMER_REAL, 1e-6 + rng.random() ** 2 * 1.5e-3)
    armed[0] = True
    if rows == 1:
        writer.write_values(*batch[0].item()[:-1], batch[0]["filler"])
    elif rows == 3:
        for row in batch:
            writer.stage_values(*row.item()[:-1], row["filler"])
        writer.commit_values()
    elif rows == 9 and chunks:
        writer.mark_gap(1)
        writer.write_batch(batch)
    else:
        writer.write_batch(batch)
    armed[0] = False


def check(end: int, base_from: int) -> None:
    with dw[name] as reader:
        held = model.joined(reader.rows(max(base_from, reader.first), reader.end), model.CHECKED)
        assert int(reader.end) == end
    if not chunks:
        starts = np.flatnonzero(held["first"] == held["position"])
        held = held[starts[0] if len(starts) else len(held) :]
    model.whole_writes(held, int(held["position"][0]) if len(held) else end)


signal.signal(signal.SIGALRM, interrupt)
counts = {"interrupts": 0, "inside": 0, "whole": 0, "absent": 0, "writes": 0}
with Platform(base) as dw:
    writer, end, number, checked = dw.create_writer(name), 0, 0, 0
    while counts["interrupts"] < wanted:
        number += 1
        counts["writes"] += 1
        try:
            write(writer, end, number)
        except KeyboardInterrupt as error:
            armed[0] = False
            counts["interrupts"] += 1
            frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
            counts["inside"] += any(HOME in name for name in frames)
        writer.discard_values()
        now = writer.end
        assert end <= now <= end + 95
        counts["whole" if now > end else "absent"] += counts["interrupts"] > 0
        end = now
        if number % (100 if chunks else 20) == 0:
            check(end, checked)
            checked = end
        if number % 100 == 0:
            writer.close()
            if number % 200 == 0:  # another feed: of hundreds of chunks, finding the place again takes its time
                dw.delete_feed(name)
                dw.create_feed({**SPEC, "feed_name": name, "persist": chunks, "index_playback": chunks})
                end = checked = 0
            writer = dw.create_writer(name)
            assert writer.end == end
    writer.close()
    check(end, 0)
print(*(f"{key}={count}" for key, count in counts.items()))
