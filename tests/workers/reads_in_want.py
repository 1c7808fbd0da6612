"""Reads a feed of hundreds of chunks with few descriptors or little memory. Says counts as name=value.

Arguments: base path, "files" or "memory", rounds.
"""

import errno
import gc
import mmap
import os
import random
import resource
import sys
from pathlib import Path

import model
from deepwater import Platform

base, limit, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(33)
counts = {"rounds": 0, "refused": 0, "held": 0}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def look(reader) -> None:
    first = rng.randrange(int(reader.end) - 3000)
    found = model.joined(reader.rows(first, first + 2500), model.CHECKED)
    assert found["position"].tolist() == list(range(first, first + 2500))
    for _ in range(60):
        position = rng.randrange(int(reader.end))
        assert reader[position]["position"] == position
    stamp = model.EPOCH_2026 + rng.randrange(int(reader.end) // 3)
    found = reader.read(stamp, stamp)
    assert 1 <= len(found) <= 3


with Platform(base) as dw:
    with dw["F"] as reader:
        look(reader)
    gc.collect()
    before = descriptors()
    if limit == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    else:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (now, now))
    for round_ in range(rounds):
        counts["rounds"] += 1
        with dw["F"] as reader:
            look(reader)
            if round_ % 5 == 0:
                seen = 0
                for batch in reader.follow("earliest", timeout=0, batch=5000):
                    assert int(batch["position"][0]) == seen
                    seen += len(batch)
                assert seen == int(reader.end)
                del batch  # it keeps its mapping
            try:
                everything = list(reader.rows(0, reader.end))
                counts["held"] += 1
                del everything
            except (OSError, MemoryError) as error:
                assert isinstance(error, MemoryError) or error.errno in (errno.EMFILE, errno.ENOMEM), error  # noqa: PT017
                counts["refused"] += 1
                del error
            gc.collect()
            look(reader)
        gc.collect()
        assert descriptors() <= before, (descriptors(), before)
print(*(f"{key}={count}" for key, count in counts.items()))
