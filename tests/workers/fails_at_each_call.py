"""Makes each call to the system fail once: every (operation, call, error), in one process, which must leak nothing.

Arguments: base directory, "chunks" or "ring", how many trials at most (0: all), seed. Says one line of JSON at the end.

The calls are replaced where the library finds them (in `os`, `fcntl` and `mmap`); filelock finds them there too.
"""

import contextlib
import errno
import fcntl
import gc
import json
import mmap
import os
import random
import shutil
import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import model
from deepwater import DeepwaterError, DurabilityError, Platform, StorageFullError
from deepwater.ring_files import ROOT_VARIABLE

SIZE, ROWS = model.CHECKED.itemsize, 10
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ERRORS = {
    (os, "open"): ("EMFILE", "ENFILE", "EACCES", "ENOSPC", "EIO"),
    (os, "posix_fallocate"): ("ENOSPC", "EIO"),
    (os, "fsync"): ("EIO", "ENOSPC"),
    (os, "rename"): ("EACCES", "ENOSPC"),
    (os, "link"): ("EACCES", "EPERM", "ENOSPC"),
    (os, "unlink"): ("EACCES", "EROFS"),
    (os, "rmdir"): ("EACCES", "ENOTEMPTY"),
    (os, "mkdir"): ("ENOSPC", "EACCES"),
    (os, "pwrite"): ("ENOSPC", "EIO"),
    (os, "write"): ("ENOSPC", "EIO"),
    (os, "pread"): ("EIO",),
    (os, "read"): ("EIO",),
    (os, "stat"): ("EACCES", "EIO"),
    (os, "fstat"): ("EIO",),
    (os, "listdir"): ("EMFILE", "EIO"),
    (os, "scandir"): ("EMFILE", "EIO"),
    (os, "dup"): ("EMFILE",),
    (mmap, "mmap"): ("ENOMEM", "EAGAIN"),
    (fcntl, "flock"): ("ENOLCK", "EIO"),
}
base, kind, most, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
chunks = kind == "chunks"
SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "chunk_size_bytes": ROWS * SIZE,
        "persist": chunks, "index_playback": chunks}  # fmt: skip
BEFORE = 14
os.fsync = lambda fd: None  # nothing is lost in here but time


class Calls:
    """Counts the calls to the system once armed, and makes the one that was asked for fail."""

    def __init__(self) -> None:
        self.armed, self.counts, self.fatal, self.error, self.fired = False, Counter(), None, 0, False
        for where, name in ERRORS:
            self._replace(where, name)

    def _replace(self, where: Any, name: str) -> None:
        function, key = getattr(where, name), f"{where.__name__}.{name}"

        def called(*args: Any, **kwargs: Any) -> Any:
            if self.armed:
                at, self.counts[key] = self.counts[key], self.counts[key] + 1
                if (key, at) == self.fatal and not self._impossible(name, args):
                    self.fired = True
                    path = args[0] if args and isinstance(args[0], str) else None
                    raise OSError(self.error, os.strerror(self.error), path)
            return function(*args, **kwargs)

        setattr(where, name, called)

    def _impossible(self, name: str, args: tuple[Any, ...]) -> bool:
        """A file that is there is opened on a full disk too."""
        return name == "open" and self.error == errno.ENOSPC and not (len(args) > 1 and args[1] & os.O_CREAT)

    @contextlib.contextmanager
    def failing(self, fatal: tuple[str, int] | None, error: int = 0) -> Any:
        self.counts, self.fatal, self.error, self.fired, self.armed = Counter(), fatal, error, False, True
        try:
            yield
        finally:
            self.armed = False


class Trial:
    """A store, a writer where the operation needs one, and what is known to be in the feed."""

    def __init__(self, store: Path) -> None:
        self.dw, self.end, self.number, self.writer = Platform(store), BEFORE, 1, None
        self.store = store

    def write(self, rows: int) -> None:
        self.number += 1
        batch = model.checked_records(self.end, rows, self.number)
        assert self.writer.write_batch(batch, create_index=chunks) == self.end
        self.end += rows

    def create(self) -> None:
        self.dw.create_feed({**SPEC, "feed_name": "G"})

    def open(self) -> None:
        self.writer = self.dw.create_writer("F")

    def one(self) -> None:
        self.write(1)

    def across(self) -> None:
        self.write(3 * ROWS + 2 if chunks else ROWS // 2)

    def gap(self) -> None:
        if chunks:
            self.writer.mark_gap(1)

    def resize(self) -> None:
        self.writer.resize_chunk_size(2 * ROWS * SIZE)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    def settings(self) -> None:
        self.dw.create_feed({**SPEC, "chunk_size_bytes": 3 * ROWS * SIZE}, update=True)

    def resize_feed(self) -> None:
        self.dw.resize_feed("F", 2 * ROWS * SIZE)

    def delete(self) -> None:
        self.dw.delete_feed("F")

    def read(self) -> None:
        with self.dw["F"] as reader:
            held = model.joined(reader.rows(reader.first, reader.end), model.CHECKED)
            assert int(reader.end) == self.end, "a call failed, and the reader says nothing"
            check(held, self.end)
            if chunks:
                reader.snapshots()

    def store_made(self) -> None:
        with Platform(self.store.parent / "other") as dw:
            dw.create_feed({**SPEC, "feed_name": "G"})


WITH_WRITER = ("one", "across", "gap", "resize", "flush", "close")
OPERATIONS = (*WITH_WRITER, "create", "open", "settings", "resize_feed", "delete", "read", "store_made")


def check(held: Any, end: int) -> None:
    import numpy as np

    starts = np.flatnonzero(held["first"] == held["position"])
    held = held[starts[0] if len(starts) else len(held) :]
    model.whole_writes(held, int(held["position"][0]) if len(held) else end)


def typed(error: BaseException, injected: int, operation: str) -> str:
    """What is wrong with an error as the answer to a failed call; empty if nothing."""
    if injected in FULL and not isinstance(error, StorageFullError | DurabilityError):
        return f"full disk, and {type(error).__name__}: {error}"
    if isinstance(error, StorageFullError | DurabilityError):
        return ""
    if isinstance(error, OSError):
        return "" if error.errno == injected else f"errno {error.errno}, {injected} was injected"
    return f"{type(error).__name__}: {error}"


def held_by_process() -> Counter:
    fds = Counter()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            fds[os.readlink(f"/proc/self/fd/{fd}")] += 1
    fds = Counter({k: v for k, v in fds.items() if not k.startswith("/proc")})
    maps = Counter(line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()
                   if line.split()[1].endswith("s"))  # fmt: skip
    return fds + maps


def one_trial(operation: str, fatal: tuple[str, int] | None, error: int) -> str:
    """Do an operation with one failing call; what was wrong."""
    store = base / "store"
    restore(store)
    before = held_by_process()
    trial = Trial(store)
    wrong = ""
    if operation in WITH_WRITER:
        trial.open()
        if operation == "flush":
            trial.across()
    with calls.failing(fatal, error):
        try:
            getattr(trial, operation)()
        except (OSError, DeepwaterError) as raised:
            wrong = typed(raised, error, operation)
            raised.__traceback__ = None
            problem = raised
        else:
            problem = None
        fired = calls.fired
    if fatal and not fired:
        return "the call was not reached"
    wrong = wrong or aftermath(trial, operation, problem)
    if trial.writer is not None:
        trial.writer.close()
    trial.dw.close()
    del trial, problem
    left = held_by_process() - before
    if left:
        gc.collect()
        left = held_by_process() - before
    if left and not wrong:
        wrong = f"left open: {dict(left)}"
    return wrong


def aftermath(trial: Trial, operation: str, problem: BaseException | None) -> str:
    """The same writer goes on, unless it says that it is final; else the next one does."""
    if operation == "delete":
        if problem is None or "F" not in trial.dw:
            return "" if "F" not in trial.dw else "it is still there"
        trial.dw.delete_feed("F")
        return "" if "F" not in trial.dw else "it is still there"
    if operation in ("create", "store_made"):
        with Platform(trial.store.parent / "other" if operation == "store_made" else trial.store) as dw:
            dw.create_feed({**SPEC, "feed_name": "G"})
            with dw.create_writer("G") as writer:
                writer.write_batch(model.checked_records(0, 3, 1))
            dw.delete_feed("G")
        return ""
    if trial.writer is not None and operation != "close":
        if operation == "flush" and isinstance(problem, DurabilityError):
            try:
                trial.one()
                return "a writer after a failed sync writes on"
            except DurabilityError:
                trial.writer.close()
                trial.writer = None
        else:
            trial.across()
    elif trial.writer is not None:
        trial.writer.close()
        trial.writer = None
    if trial.writer is None:
        trial.open()
        trial.across()
    trial.one()
    trial.read()
    if chunks:
        trial.writer.close()
        left = [n for n in os.listdir(trial.store / "data" / "F") if n.startswith(".tmp-chunk")]
        if left:
            return f"left behind: {left}"
    return ""


def restore(store: Path) -> None:
    shutil.rmtree(base / "other", ignore_errors=True)
    if chunks:
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(base / "template", store)
        return
    with Platform(store) as dw:
        if "F" in dw:
            dw.delete_feed("F")
        prepare(dw)


def prepare(dw: Platform) -> None:
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, ROWS // 2, 1))
        writer.write_batch(model.checked_records(ROWS // 2, ROWS // 2, 1))
        writer.write_batch(model.checked_records(ROWS, 4, 1))


warnings.simplefilter("ignore", ResourceWarning)
warnings.simplefilter("ignore", UserWarning)
assert os.environ[ROOT_VARIABLE]
calls = Calls()
with Platform(base / "template") as dw:
    prepare(dw)
plan = []
for operation in OPERATIONS:
    for _ in range(2):
        problem = one_trial(operation, None, 0)
        assert not problem, (operation, problem)
    counted = Counter()
    store = base / "store"
    restore(store)
    trial = Trial(store)
    if operation in WITH_WRITER:
        trial.open()
        if operation == "flush":
            trial.across()
    with calls.failing(None):
        getattr(trial, operation)()
        counted = calls.counts
    if trial.writer is not None:
        trial.writer.close()
    trial.dw.close()
    for (where, name), codes in ERRORS.items():
        key = f"{where.__name__}.{name}"
        plan += [(operation, (key, at), code) for at in range(counted[key]) for code in codes]
rng = random.Random(seed)
chosen = plan if not most or most >= len(plan) else sorted(rng.sample(plan, most))
failures, missed = [], 0
for operation, fatal, code in chosen:
    try:
        problem = one_trial(operation, fatal, getattr(errno, code))
    except Exception:  # noqa: BLE001 (whatever it is, it is a failure of this trial)
        problem = traceback.format_exc(limit=-3)
        gc.collect()
    if problem == "the call was not reached":
        missed += 1
    elif problem:
        failures.append(f"{kind}, {operation}: {fatal[0]} number {fatal[1]} fails with {code}: {problem}")
print(json.dumps({"plan": len(plan), "done": len(chosen) - missed, "missed": missed, "failures": failures}))
