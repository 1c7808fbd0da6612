"""Writes three feeds, one of each durability, in all ways; says in a mapped file what has begun, returned, is durable.

Arguments: base path, the mapped file, seed, and "broken" for a keeper that says durable before it has synced.

The file's words, eight for each feed: end of the write that has begun; end of what returned; what a `flush` (or a write
with durability "always") that has returned promised.
"""

import mmap
import random
import sys
import time
import warnings

import model
from deepwater import Platform, keeper
from deepwater import format as fmt

base, board, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(seed)
with open(board, "r+b") as file:
    words = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
SIZE = model.CHECKED.itemsize
MOST_BYTES = 6 << 20  # of a feed: the disk is small
BEGUN, RETURNED, DURABLE = range(3)
LEVELS = ({"durability": "os"}, {"durability": "interval", "durability_ms": 30}, {"durability": "always"})


def said_before_it_is_so(self, chunk_id, **_):
    """As `Keeper._sync_chunk`, in the wrong order, and without the syncs being waited for."""
    segment = keeper.Segment.open(
        self._directory, keeper.chunk_name(chunk_id), fmt.CHUNK, self._feed.ids, writable=True
    )
    word = segment.words[fmt.COMMIT]
    segment.words[fmt.DURABLE] = word
    segment.close()
    return word >= fmt.SEALED


if "broken" in sys.argv:
    keeper.Keeper._sync_chunk = said_before_it_is_so


def one_step(k: int, writer, number: int) -> None:
    at, end = 8 * k, writer.end
    kind = rng.choices(("one", "few", "many", "gap", "flush", "resize"), (4, 10, 3, 1, 1.5, 0.3))[0]
    if kind in ("one", "few", "many"):
        rows = {"one": 1, "few": rng.randint(2, 60), "many": rng.randint(100, 900)}[kind]
        snapshot = kind != "one" and rng.random() < 0.2
        words[at + BEGUN] = end + rows
        batch = model.checked_records(end, rows, number, snapshot)
        if kind == "one":
            writer.write_values(*batch[0].item()[:-1], batch[0]["filler"])
        else:
            writer.write_batch(batch, create_index=snapshot)
        words[at + RETURNED] = end + rows
        if writer.settings.durability == "always":
            words[at + DURABLE] = end + rows
    elif kind == "gap":
        writer.mark_gap(number)
    elif kind == "flush":
        words[at + DURABLE] = writer.flush()
    else:
        writer.resize_chunk_size(rng.choice((200, 1_000, 8_000)) * SIZE)


warnings.simplefilter("ignore")  # that a feed has small chunks
with Platform(base) as dw:
    writers = []
    for k, level in enumerate(LEVELS):
        dw.create_feed({"feed_name": f"F{k}", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
                        "chunk_size_bytes": rng.choice((200, 1_000, 8_000)) * SIZE, **level})  # fmt: skip
        writers.append(dw.create_writer(f"F{k}"))
    print("begun", flush=True)
    number = 0
    while True:  # until it is killed
        number += 1
        k = rng.choices((0, 1, 2), (5, 5, 1))[0]
        if words[8 * k + RETURNED] * SIZE < MOST_BYTES:
            one_step(k, writers[k], number)
        time.sleep(rng.random() ** 2 * 0.002)
