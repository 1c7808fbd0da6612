"""Kills a writer at every opcode of the library's code, phase by phase of its life.

Arguments: base directory, "chunks" or "ring", how many kills at most (0: all), seed, and "broken" for a library that
publishes before it writes. Says one line of JSON for each phase, with its opcodes, kills and failures.

The child goes through the phases before the one under test at full speed, then traces: `sys.settrace` with
`f_trace_opcodes` counts each opcode in a frame of the library, and SIGKILL comes before the one it was born for.
"""

import json
import mmap
import os
import random
import shutil
import signal
import sys
import traceback
from pathlib import Path

import numpy as np

import deepwater
import model
from deepwater import Platform
from deepwater import format as fmt
from deepwater.chunk import WritableChunk
from deepwater.ring import WritableRing
from deepwater.segment import Segment

SIZE = model.CHECKED.itemsize
ROWS = 10
BEFORE = 14
HOME = os.path.dirname(deepwater.__file__)
os.fsync = lambda fd: None  # a kill does not care, and most of a trial's time goes there

base, kind, most, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
words = memoryview(mmap.mmap(-1, 4096)).cast("Q")  # end acknowledged, rows under way, opcodes counted
SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "chunk_size_bytes": ROWS * SIZE,
        "persist": kind == "chunks", "index_playback": kind == "chunks"}  # fmt: skip
if sys.argv[5:] == ["broken"]:

    def before(cls: type, publish) -> None:
        put = cls.put

        def publish_then_put(self, row, data):
            publish(self, row + len(data) // SIZE)
            for _ in range(60):  # opcodes of the library, so that a sample of them hits the gap
                fmt.round_up(7, 4)
            put(self, row, data)

        cls.put = publish_then_put

    before(WritableChunk, WritableChunk.publish)
    before(WritableRing, lambda ring, count: Segment.publish(ring.segment, count))


class Life:
    """One writer's life, a phase at a time; each write says what it is about to do, and what it did."""

    def __init__(self, store: Path) -> None:
        self.dw = Platform(store)
        self.writer = None
        self.number = 1

    def write(self, rows: int, snapshot: bool = False, single: bool = False) -> None:
        self.number += 1
        end = words[0]
        batch = model.checked_records(end, rows, self.number, snapshot)
        words[1] = rows
        if single:
            assert self.writer.write_values(*batch[0].item()[:-1], batch[0]["filler"]) == end
        else:
            assert self.writer.write_batch(batch, create_index=snapshot) == end
        words[0], words[1] = end + rows, 0

    def open(self) -> None:
        self.writer = self.dw.create_writer("F")

    def one(self) -> None:
        self.write(1, single=True)

    def few(self) -> None:
        self.write(3)

    def across(self) -> None:
        self.write(3 * ROWS + 2 if kind == "chunks" else ROWS // 2, snapshot=kind == "chunks")

    def stage(self) -> None:
        self.number += 1
        end = words[0]
        for row in model.checked_records(end, 4, self.number):
            self.writer.stage_values(*row.item()[:-1], row["filler"])
        words[1] = 4
        assert self.writer.commit_values() == end
        words[0], words[1] = end + 4, 0

    def gap(self) -> None:
        if kind == "chunks":
            self.writer.mark_gap(1)

    def resize(self) -> None:
        self.writer.resize_chunk_size(2 * ROWS * SIZE)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


PHASES = ("open", "one", "few", "across", "one", "stage", "gap", "resize", "few", "flush", "close")


def trace(fatal: int) -> None:
    """Count opcodes in the library from now on; die before number `fatal`."""
    at = 0

    def local(frame, event, _):
        nonlocal at
        if event == "opcode":
            if at == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            at += 1
            words[2] = at
        return local

    def called(frame, event, _):
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return local

    sys.settrace(called)


def child(store: Path, phase: int, fatal: int) -> None:
    life = Life(store)
    for name in PHASES[:phase]:
        getattr(life, name)()
    trace(fatal)
    getattr(life, PHASES[phase])()
    sys.settrace(None)


def kill_at(store: Path, phase: int, fatal: int) -> bool:
    """Fork a writer that dies at an opcode of a phase; whether it died."""
    words[0], words[1], words[2] = BEFORE, 0, 0
    pid = os.fork()
    if pid == 0:
        try:
            child(store, phase, fatal)
            os._exit(0)
        except BaseException:  # noqa: BLE001 (a child must not go on as its parent)
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL), f"the child ended with {status}"
    return status != 0


def judge(store: Path) -> None:
    """Nothing acknowledged is lost, writes are whole or absent, the next writer goes on."""
    acknowledged, under_way = words[0], words[1]
    with Platform(store) as dw:
        with dw["F"] as reader:
            end = int(reader.end)
            assert end in (acknowledged, acknowledged + under_way), f"{end}: {acknowledged} and {under_way} under way"
            held = model.joined(reader.rows(reader.first, end), model.CHECKED)
        if kind == "ring":  # less than a whole write may be left of the oldest
            starts = np.flatnonzero(held["first"] == held["position"])
            held = held[starts[0] if len(starts) else len(held) :]
        model.whole_writes(held, int(held["position"][0]) if len(held) else end)
        with dw.create_writer("F") as writer:
            assert writer.write_batch(model.checked_records(end, 3, 99)) == end
        with dw["F"] as reader:
            assert int(reader.end) == end + 3
            held = model.joined(reader.rows(reader.end - 3, reader.end), model.CHECKED)
            model.whole_writes(held, end)
            if kind == "chunks":
                everything = model.joined(reader.rows(0, end + 3), model.CHECKED)
                model.whole_writes(everything)
                directory = store / "data" / "F"
                assert model.stored(directory) == model.opaque(everything).tobytes()
                assert not list(directory.glob(".tmp-chunk*"))


def one_trial(template: Path, phase: int, fatal: int) -> tuple[bool, str]:
    """Restore the store, kill, judge. Whether it was killed, and what was wrong."""
    store = base / "store"
    if kind == "chunks":
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(template, store)
    else:
        with Platform(store) as dw:
            if "F" in dw:
                dw.delete_feed("F")
            prepare(dw)
    killed = kill_at(store, phase, fatal)
    try:
        judge(store)
    except Exception:  # noqa: BLE001 (whatever it is, it is a failure of this point)
        return killed, traceback.format_exc(limit=-2)
    return killed, ""


def prepare(dw: Platform) -> None:
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        for at in range(0, BEFORE, 2):
            writer.write_batch(model.checked_records(at, 2, 1))


template = base / "template"
with Platform(template) as dw:
    prepare(dw)
counts = []
for phase, name in enumerate(PHASES):
    for _ in range(2):  # once to warm what the parent keeps, once to count
        killed, wrong = one_trial(template, phase, 2**62)
        assert not killed and not wrong, f"{name}: {wrong}"
    counts.append(words[2])
rng = random.Random(seed)
step = max(1.0, sum(counts) / most) if most else 1.0
for phase, (name, count) in enumerate(zip(PHASES, counts, strict=True)):
    points = sorted({int(at) for at in np.arange(rng.random() * step, count, step)})
    failures, kills = [], 0
    for point in points:
        killed, wrong = one_trial(template, phase, point)
        kills += killed
        if wrong:
            failures.append(f"{kind}, phase {phase} ({name}), opcode {point} of {count}: {wrong}")
    counted = {"phase": name, "opcodes": count, "points": len(points), "kills": kills, "failures": failures}
    print(json.dumps(counted), flush=True)
