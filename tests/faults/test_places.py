"""Where a feed lies: directories moved and removed under a writer, copies made while it is written."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import model
from deepwater import CorruptFileError, FeedNotFoundError, Platform
from deepwater.files import Directory
from fault_table import Trials
from processes import Worker, run_python

WORKERS = Path(__file__).parent.parent / "workers"
Fault = Callable[[str, str], Trials]
SIZE = model.CHECKED.itemsize
SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
        "chunk_size_bytes": 10 * SIZE}  # fmt: skip


def held(dw: Platform, name: str = "F", cut: int | None = None) -> int:
    """How many records there are, all as written; the write that ends at `cut`, or (-1) the last, may be cut."""
    with dw[name] as reader:
        cut = int(reader.end) if cut == -1 else cut
        model.whole_writes(model.joined(reader.rows(0, reader.end), model.CHECKED), cut=cut)
        return int(reader.end)


def test_a_feed_moved_away_under_its_writer(quick_dir: Path, fault: Fault, scale: int) -> None:
    """F16. The directory is renamed, removed, or replaced by a new feed of the same name while a writer holds it.

    What must be seen: the writer says so at the next rotation at the latest, and what it was told is stored is; put
    back, the same writer goes on; whoever replaced it is not disturbed, and no second writer gets the same directory.
    """
    rng = random.Random(16)
    with fault("F16", "a feed's directory renamed, removed or replaced") as trials:
        for number in range(100 * scale):
            how = ("renamed", "removed", "replaced")[number % 3]
            base = quick_dir / f"store{number}"
            with Platform(base) as dw:
                dw.create_feed(SPEC)
                move_under_writer(dw, base / "data" / "F", base / "data" / "elsewhere", how, rng)
            shutil.rmtree(base)
            trials.done()


def move_under_writer(dw: Platform, path: Path, aside: Path, how: str, rng: random.Random) -> None:
    """One trial: the move, the writer that notices, and what is left."""
    writer = dw.create_writer("F")
    end = rng.randrange(1, 25)
    writer.write_batch(model.checked_records(0, end, 1))
    if how != "removed":
        path.rename(aside)
    while how == "removed" and path.exists():
        shutil.rmtree(path, ignore_errors=True)  # again: the next chunk may be in the making
    if how == "replaced":
        dw.create_feed(SPEC)
        dw.write("F", model.checked_records(0, 3, 1))
    with pytest.raises(FeedNotFoundError, match="under its writer"):  # noqa: PT012 (one of them is the rotation)
        for number in range(11):
            writer.write_batch(model.checked_records(end, 1, 2 + number))
            end += 1
    if how == "renamed":
        aside.rename(path)
        assert writer.write_batch(model.checked_records(end, 15, 99)) == end
        writer.close()
        assert held(dw) == end + 15
    else:
        writer.close()
    if how == "replaced":
        assert held(dw) == 3
        dw.delete_feed("F")
        aside.rename(path)
        assert held(dw) == end


def test_a_writer_that_does_not_look_is_found_out(quick_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power of the test above."""
    monkeypatch.setattr(Directory, "is_in_place", True)
    with Platform(quick_dir / "store") as dw:
        dw.create_feed(SPEC)
        feed = quick_dir / "store" / "data" / "F"
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            move_under_writer(dw, feed, feed.with_name("elsewhere"), "renamed", random.Random(1))


def test_copies_made_while_a_feed_is_written(quick_dir: Path, fault: Fault, scale: int) -> None:
    """F36. ``cp -r`` of a store beside a writer that rotates all the time; the copy is opened and written to.

    What must be seen: a prefix of what was written, or an error that says what is missing (cp may have copied a chunk
    before its predecessor was synced, and that one earlier still); never other records, never another error.
    """
    opened = refused = 0
    reasons: set[str] = set()
    base = quick_dir / "live"
    with Platform(base) as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 600 * SIZE})
    with (
        fault("F36", "cp -r of a store that is written") as trials,
        Worker(WORKERS / "writes_checked.py", base, timeout=200 * scale) as writer,
    ):
        writer.readline()
        for number in range(40 * scale):
            copy = quick_dir / f"copy{number}"
            subprocess.run(["cp", "-r", str(base), str(copy)], check=False, capture_output=True)
            trials.done()
            try:
                with Platform(copy) as dw, warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "feed 'F': .*this is a copy")  # and how much did not get into it
                    end = held(dw, cut=-1)
                    with dw.create_writer("F") as again:
                        assert again.write_batch(model.checked_records(end, 15, 10**6)) == end
                    held(dw, cut=end)
                opened += 1
            except CorruptFileError as error:
                refused += 1
                reasons.add(error.reason)
            shutil.rmtree(copy)
        writer.kill()
        trials.note(opened=opened, refused=refused)
        print(*reasons, sep="\n")
        assert opened


LIFE = """
import sys
import model
from deepwater import Platform

shrunk = []

def hook(event, args):
    if event == "os.truncate" or (event == "open" and isinstance(args[2], int) and args[2] & 0o1000):
        shrunk.append((event, args))

sys.addaudithook(hook)
base, size = sys.argv[1], model.CHECKED.itemsize
with Platform(base) as dw:
    for name, persist in (("F", True), ("R", False)):
        dw.create_feed({"feed_name": name, "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "persist": persist,
                        "index_playback": persist, "chunk_size_bytes": 10 * size})
        for life in range(3):
            with dw.create_writer(name) as writer:
                for k in range(40):
                    writer.write_batch(model.checked_records(writer.end, 4, k), create_index=persist)
                    if persist:
                        for _ in range(20):
                            writer.mark_gap(1)
                writer.flush()
                writer.resize_chunk_size((20 - life) * size)
        dw.resize_feed(name, 12 * size)
        with dw[name] as reader:
            len(reader.rows(reader.first, reader.end).to_numpy())
        dw.delete_feed(name)
shrunk = [s for s in shrunk if not (s[0] == "open" and str(s[1][0]).endswith(".lock"))]  # filelock: empty, never mapped
assert not shrunk, shrunk
print("fine")
"""


def test_the_library_never_shrinks_a_file(tmp_store: Path, fault: Fault) -> None:
    """F12. Audit hooks (and strace, where there is one) watch a life of all operations, for any cut of a file.

    A file that is cut kills who has it mapped; who else cuts one is out of our hands.
    """
    with fault("F12", "no file of ours is ever cut") as trials:
        assert run_python(LIFE, tmp_store).stdout == "fine\n"
        trials.done()
        if shutil.which("strace") is None:
            trials.note(strace="not there")
            return
        log = tmp_store.parent / "calls"
        command = ["strace", "-f", "-o", str(log), "-e", "trace=truncate,ftruncate,fallocate", sys.executable, "-c"]
        environment = {**os.environ, "PYTHONPATH": f"{WORKERS.parent}{os.pathsep}{WORKERS.parent.parent}"}
        subprocess.run([*command, LIFE, str(tmp_store) + "2"], check=True, capture_output=True, env=environment)
        text = log.read_text()
        assert "fallocate(" in text and "truncate(" not in text
        trials.done()
        trials.note(strace="watched")
