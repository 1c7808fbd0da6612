"""Opens stores that come from a disk that lost its power, in another life of the machine, and judges them.

A line of JSON on stdin is a store: ``{"base": path, "feeds": {name: [at least, at most]}, "writes": whether the next
writers go on there}``. Says one line for each: ``{"error": traceback or None, counts}``.

The files keep their inodes and their owner; the machine's boot id is another one, as after a start.
"""

import json
import sys
import traceback
import warnings
from pathlib import Path
from unittest import mock

import numpy as np

import model
from deepwater import Platform, chunk, locks
from deepwater.check import verify

COMMIT, DURABLE, CAPACITY, DATA = 4096, 4160, 104, 120
SEALED = 1 << 63
CACHE = "/registry.bin"  # of the store: no writer of a feed mends it, `deepwater repair` makes it anew
chunk.this_boot = locks.boot_id = lambda: bytes(range(16))


def records_of(reader) -> np.ndarray:
    return model.joined(reader.rows(reader.first, reader.end), model.CHECKED)


def durable_in_files(feed: Path) -> int:
    """What the files themselves call durable must be there, read by the format page alone; its end."""
    end = 0
    for path in model.chunk_files(feed):
        data = path.read_bytes()
        word = int.from_bytes(data[DURABLE : DURABLE + 8], "little")
        start = int.from_bytes(data[DATA : DATA + 8], "little")
        count = word & (SEALED - 1)
        if not count:
            continue
        base = int.from_bytes(data[512:520], "little")
        records = np.frombuffer(data, model.CHECKED, count, start)
        assert (records["position"] == np.arange(base, base + count, dtype=np.uint64)).all(), f"durable, {path.name}"
        assert (records["check"] == model._checks(records)).all(), f"durable, {path.name}: torn"
        end = base + count
    return end


def check_marks(reader, writes: np.ndarray, flushed: int) -> None:
    """Marks of whole writes only; those of what was flushed are all there."""
    positions = reader.snapshots()["position"].tolist()
    wanted = writes[writes["snapshot"] == 1]
    assert set(positions) <= set(wanted["first"].tolist()), "a mark of no snapshot"
    sure = wanted["first"][wanted["first"] + wanted["rows"] <= flushed]
    assert set(sure.tolist()) <= set(positions), "a mark that was flushed is gone"
    assert (reader.marks()["position"] <= int(reader.end)).all()


def judge(dw: Platform, base: Path, name: str, least: int, most: int, goes_on: bool) -> tuple[int, int]:
    """The feed holds a true prefix; returns its end, and how many records beyond the last flush are in it."""
    durable = durable_in_files(base / "data" / name)
    with dw[name] as reader:
        end = int(reader.end)
        assert least <= end <= most, f"{name}: at least {least}, at most {most}, found {end}"
        assert durable <= end and int(dw.describe_feed(name)["durable"]) <= end, f"{name}: durable {durable} of {end}"
        held = records_of(reader)
        assert len(held) == end
        writes = model.whole_writes(held, cut=end)
        check_marks(reader, writes, least)
    if goes_on:
        go_on(dw, name, held)
    return end, end - least


def go_on(dw: Platform, name: str, held: np.ndarray) -> None:
    """The next writer begins where the reader saw the end; what it writes follows, with a reader from before too."""
    end = len(held)
    with dw[name] as before, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says what was dropped
        with dw.create_writer(name) as writer:
            assert writer.end == end, f"{name}: a writer begins at {writer.end}, a reader ends at {end}"
            more = model.checked_records(end, 500, 10**9)
            assert writer.write_batch(more[:1]) == end
            assert writer.write_batch(more[1:]) == end + 1
            assert writer.flush() == end + 500
        for reader in (before, dw[name]):
            after = records_of(reader)
            assert after.tobytes() == held.tobytes() + more.tobytes(), f"{name}: not what was there and what follows"


def is_deceived(base: Path, feeds: dict[str, list[int]]) -> bool:
    """Whether a reader that believes the commit words of this disk would be wrong."""
    with mock.patch.object(chunk.Chunk, "is_sure", True), Platform(base) as dw:
        for name in feeds:
            try:
                with dw[name] as reader:
                    end = int(reader.end)
                    model.whole_writes(records_of(reader), cut=end)
            except Exception:  # noqa: BLE001  # damage that it notices counts too
                return True
    return False


def answer(task: dict) -> dict:
    base, out = Path(task["base"]), {"error": None, "deceived": 0, "beyond": 0, "records": 0}
    try:
        out["deceived"] = int(is_deceived(base, task["feeds"]))
        with Platform(base) as dw:
            for name, (least, most) in task["feeds"].items():
                end, beyond = judge(dw, base, name, least, most, task["writes"])
                out["records"] += end
                out["beyond"] += beyond > 0
        if task["writes"]:
            damage = [str(finding) for finding in verify(base).findings if finding.severity == "error"]
            assert not [text for text in damage if CACHE not in text], damage
    except Exception:  # noqa: BLE001  # the test reports it
        out["error"] = traceback.format_exc()
    return out


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
