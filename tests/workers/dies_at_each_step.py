"""Kills a writer before each step of an operation: each call to the system, each store into a mapping.

Arguments: base path, operation. The store there holds the feed F with self-checking records; each kill gets a copy
of it. Says one line of JSON for each step: what it was, and whether the write was there afterwards.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

import numpy as np

import model
from deepwater import Platform, keeper
from deepwater import format as fmt
from deepwater.segment import Segment

keeper._clerk.add = lambda _: None  # the steps of one thread are counted; each child must take the same

SIZE = model.CHECKED.itemsize
base, operation = Path(sys.argv[1]), sys.argv[2]
AUDITED = {"open", "os.rename", "os.remove", "mmap.__new__", "os.posix_fallocate", "os.listdir", "os.link"}


class Steps:
    """Counts steps once armed, and kills this process before step `fatal`."""

    def __init__(self, fatal: int, out: int) -> None:
        self.fatal, self.out, self.at, self.armed = fatal, out, 0, False

    def step(self, name: str) -> None:
        if not self.armed:
            return
        if self.at == self.fatal:
            self.armed = False
            os.write(self.out, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self.at += 1

    def before(self, where: object, name: str) -> None:
        """Count each call of a function as a step."""
        function = getattr(where, name)

        def counted(*args, **kwargs):
            self.step(name)
            return function(*args, **kwargs)

        setattr(where, name, counted)

    def install(self) -> None:
        sys.addaudithook(lambda event, _: self.step(event) if event in AUDITED else None)
        for name in ("pwrite", "fsync", "write", "close", "posix_fallocate"):
            self.before(os, name)
        for name in ("publish", "write", "populate"):
            self.before(Segment, name)


def operate(writer, steps: Steps) -> None:
    """The operation under test; what it writes begins at the end of the feed."""
    end = writer.end
    batch = model.checked_records(end, 33, 9, snapshot=True)
    if operation == "gaps":  # the index has room for 128
        for _ in range(127):
            writer.mark_gap(1)
    steps.armed = True
    if operation == "long":
        writer.write_batch(batch, create_index=True)
    elif operation == "short":
        writer.write_batch(model.checked_records(end, 1, 9))
    elif operation == "resize":
        writer.resize_chunk_size(20 * SIZE)
    elif operation == "gaps":
        for _ in range(3):
            writer.mark_gap(1)
    elif operation == "close":
        writer.close()
    steps.armed = False


def child(store: Path, fatal: int, out: int) -> None:
    steps = Steps(fatal, out)
    steps.install()
    steps.armed = operation == "open"
    operate(Platform(store).create_writer("F"), steps)


def kill_before(store: Path, step: int) -> str:
    """The name of the step the child died before; empty when it came to its end."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(store, step, writing)
            os._exit(0)
        except BaseException:  # noqa: BLE001 (a child must not go on as its parent)
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    name = os.read(reading, 100).decode()
    os.close(reading)
    assert status == (signal.SIGKILL if name else 0), status
    return name


def judge(store: Path, before: int, gaps: int) -> dict:
    """Whole or absent; the next writer goes on; nothing is left over."""
    added = {"long": 33, "short": 1}.get(operation, 0)
    with Platform(store) as dw:
        reader = dw["F"]
        end = int(reader.end)
        assert end in (before, before + added), end
        model.whole_writes(model.joined(reader.rows(0, end), model.CHECKED))
        assert len(reader.snapshots()) == (1 if operation == "long" and end > before else 0)
        found = len(reader.gaps())
        assert gaps <= found <= gaps + 130
        with dw.create_writer("F") as writer:
            assert writer.write_batch(model.checked_records(end, 40, 10)) == end
            assert writer.mark_gap(1) == end + 40
        everything = model.joined(reader.rows(0, end + 40), model.CHECKED)
        model.whole_writes(everything)
        assert len(reader.gaps()) == found + 1
        assert len(reader.snapshots()) == (operation == "long" and end > before), "the mark of a write that never was"
        directory = store / "data" / "F"
        assert np.array_equal(np.frombuffer(model.stored(directory), np.uint8), model.opaque(everything).view(np.uint8))
        # Settings are replaced without the lock, so the half-written file stays: nobody can know whose it is.
        left = [name for name in os.listdir(directory) if name.startswith(".") and "settings.json" not in name]
        assert not left, left
        chunks = model.chunk_files(directory)
        sealed = [int.from_bytes(path.read_bytes()[4096:4104], "little") >= fmt.SEALED for path in chunks]
        assert sealed == [True] * (len(chunks) - 1) + [False]
        reader.close()
    return {"whole": end > before}


with Platform(base) as dw, dw["F"] as reader:
    before, gaps = len(reader), len(reader.gaps())
step = 0
while True:
    copy = base.parent / "copy"
    shutil.copytree(base, copy)
    name = kill_before(copy, step)
    print(json.dumps({"step": step, "before": name, **judge(copy, before, gaps)}), flush=True)
    shutil.rmtree(copy)
    if not name:
        break
    step += 1
