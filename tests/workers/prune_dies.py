"""Kills a prune before each of its steps: each call to the system that opens, writes, syncs, renames or removes.

Arguments: base path, bytes to keep. The store there holds the feed F; each kill gets a copy of it. Says one line of
JSON a step: what it was, where the feed begins, and how many files of chunks that are gone were left over.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import model
from deepwater import Platform
from dying import kill_before

base, keep = Path(sys.argv[1]), int(sys.argv[2])
TRUTH = model.joined([model.checked_records(10 * n, 10, n, True) for n in range(9)]
                     + [model.checked_records(90, 5, 9)], model.CHECKED)  # fmt: skip


def prune(begin) -> None:
    dw = Platform(copy)
    dw.list_feeds()
    begin()
    dw.prune("F", max_bytes=keep)


def held(reader, end: int) -> int:
    """Check that a reader answers the truth from its first position on, and say which that is."""
    first = reader.first
    assert first in (0, 60), first
    assert len(reader) == end - first
    records = model.joined(reader.rows(0, end), model.CHECKED)
    assert records[: 95 - first].tobytes() == TRUTH[first:].tobytes()
    assert reader.snapshots()["position"].tolist() == list(range(first, 90, 10))
    assert sum(map(len, reader.follow("earliest", timeout=0))) == end - first
    return first


def judge(store: Path) -> dict:
    """Readers and the next writer find a whole feed; the next prune finishes the work."""
    directory = store / "data" / "F"
    with Platform(store) as dw:
        before = dw["F"]
        first = held(before, 95)
        left = [path for path in directory.glob("chunk_*") if int(path.stem[6:]) <= first // 10]
        with dw.create_writer("F") as writer:
            assert writer.write_batch(model.checked_records(95, 3, 10)) == 95
            held(before, 98)
            held(dw["F"], 98)
        done = dw.prune("F", max_bytes=keep)
        assert done.stop == 60 and (done.chunks == 0) == (first == 60)
        assert (done.bytes > 0) == bool(left or first == 0)
        assert held(before, 98) == held(dw["F"], 98) == 60
        names = sorted(os.listdir(directory))
        chunks = [f"chunk_{n:08d}.{kind}" for n in (7, 8, 9, 10) for kind in ("bin", "crc", "idx")]
        wanted = sorted(["F.reg", "layout.json", "oldest.json", "settings.json", *chunks[:-1]])
        assert names == wanted, names
        assert dw.prune("F", max_bytes=keep).bytes == 0
    return {"first": first, "left": len(left)}


step = 0
while True:
    copy = base.parent / "copy"
    shutil.copytree(base, copy)
    name = kill_before(prune, step)
    print(json.dumps({"step": step, "before": name, **judge(copy)}), flush=True)
    shutil.rmtree(copy)
    if not name:
        break
    step += 1
