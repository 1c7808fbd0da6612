"""What an earlier implementation of this idea got wrong: a test for each row that this code owes so far.

The number of a row is in the name of its tests. Most of these traps are also sprung elsewhere, by the oracle, the
crash tests and the damaged files; here each has a test that is about nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import model
from deepwater import ClosedError, CorruptFileError, FeedLockedError, FeedNameError, Platform
from processes import Worker, run_python

WORKERS = Path(__file__).parent / "workers"
SIZE = model.CHECKED.itemsize
SPEC: dict[str, Any] = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
                        "chunk_size_bytes": 10 * SIZE}  # fmt: skip
T0 = model.EPOCH_2026


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(SPEC)
        yield platform


def feed_path(dw: Platform, name: str = "F") -> Path:
    return Path(dw.base_path) / "data" / name


# -------------------------------------------------------------------------------- 1: streams die at a rotation

STREAMS: dict[str, Any] = {
    "numpy": lambda r: r.follow("earliest", timeout=0),
    "small batches": lambda r: r.follow("earliest", timeout=0, batch=3),
    "arrow": lambda r: r.follow("earliest", timeout=0, as_="arrow"),
    "tuples": lambda r: r.stream_latest_records(timeout=0),
    "memoryviews": lambda r: r.stream_latest_records_raw(timeout=0),
    "batches": lambda r: r.read_batch(7, timeout=0),
    "raw batches": lambda r: r.read_batch_raw(7, timeout=0),
}


def position_of_last(item: Any) -> int:
    """The position of the last record in an item of any stream."""
    if isinstance(item, tuple):
        return int(item[1])
    if isinstance(item, memoryview):
        return int(np.frombuffer(item, model.CHECKED)["position"][-1])
    if isinstance(item, np.ndarray):
        return int(item["position"][-1])
    return int(item.column("position")[-1].as_py())


def bytes_of(item: Any) -> bytes:
    if isinstance(item, tuple):
        row = np.zeros(1, model.CHECKED)
        row[0] = item
        return row.tobytes()
    if isinstance(item, memoryview):
        return item.tobytes()
    if isinstance(item, np.ndarray):
        return model.content([item])
    out = np.zeros(len(item), model.CHECKED)
    for name in model.CHECKED.names or ():
        column = item.column(name)
        values = column.cast("int64") if name == "ts_us" else column.flatten() if name == "filler" else column
        out[name] = values.to_numpy(zero_copy_only=False).reshape(out[name].shape)
    return out.tobytes()


@pytest.mark.parametrize("form", STREAMS)
def test_row_1_a_stream_goes_on_over_rotations_while_everything_is_kept(dw: Platform, form: str) -> None:
    """In every format the consumer holds every item; rotation, close and deletion take nothing back."""
    reader = dw["F"]
    stream, kept = STREAMS[form](reader), []
    truth = [model.checked_records(first, 7, first) for first in range(0, 1_050, 7)]
    with dw.create_writer("F") as writer:
        for batch in truth:
            writer.write_batch(batch)
            kept += (
                stream if form in ("numpy", "small batches", "arrow", "batches") else []
            )  # a generator ends but once
        kept += stream
        assert len(model.chunk_files(feed_path(dw))) >= 100
    assert position_of_last(kept[-1]) == 1_049
    reader.close()
    del stream
    dw.delete_feed("F")
    assert b"".join(map(bytes_of, kept)) == b"".join(batch.tobytes() for batch in truth)


def test_row_1_windows_and_their_parts_are_kept_over_rotations_too(dw: Platform) -> None:
    reader, kept = dw["F"], []
    with dw.create_writer("F") as writer:
        for first in range(0, 400, 4):
            writer.write_batch(model.checked_records(first, 4, first))
            window = reader.latest(15)
            kept.append(
                (
                    first,
                    list(window),
                    window["check"],
                    window.to_numpy(),
                    list(window.arrays(6)),
                    list(reader.read(last="3us").arrays(4)),
                )
            )
    reader.close()
    dw.delete_feed("F")
    everything = model.joined([model.checked_records(first, 4, first) for first in range(0, 400, 4)], model.CHECKED)
    for first, parts, check, whole, arrays, _ in kept:
        latest = slice(max(0, first + 4 - 15), first + 4)
        truth = model.picked(everything, latest)
        assert model.content(parts) == model.content([whole]) == model.content(arrays) == truth
        assert check.tolist() == everything["check"][latest].tolist()


# -------------------------------------------------------------------------------- 3: a header of several words


def test_row_3_a_spinning_reader_sees_counts_that_only_grow_and_records_that_are_right(dw: Platform) -> None:
    """In another process, beside 20,000 writes: no count that falls, no record torn, none lost, none twice."""
    dw.resize_feed("F", 500 * SIZE)
    watcher = """
        import sys
        import numpy as np, model
        from deepwater import Platform
        reader = Platform(sys.argv[1])["F"]
        follower = reader.follow("earliest", timeout=60, wait="spin")
        print("ready", flush=True)
        total, end, looks, changes = int(sys.argv[2]), 0, 0, 0
        while end < total:
            now = int(reader.end)
            looks += 1
            assert now >= end
            if now > end:
                changes += 1
                newest = reader.latest(3).to_numpy()
                assert newest["position"][-1] >= now - 1
                assert (newest["check"] == model._checks(newest)).all()
            end = now
        assert follower.lost == 0
        seen = 0
        for batch in follower:
            assert (batch["position"] == np.arange(seen, seen + len(batch))).all()
            seen += len(batch)
            if seen == total:
                break
        print(looks, changes)
    """
    with Worker(watcher, dw.base_path, 40_000, timeout=120) as reader:
        assert reader.readline() == "ready"
        end = number = 0
        with dw.create_writer("F") as writer:
            while end < 40_000:
                number += 1
                batch = model.checked_records(end, 1 + number % 3, number)
                if len(batch) == 1:
                    writer.write_values(*batch[0].item()[:-1], batch[0]["filler"])
                else:
                    writer.write_batch(batch)
                end += len(batch)
            writer.write_batch(model.checked_records(end, 3, number + 1))
        looks, changes = map(int, reader.finish().split())
    print(f"row 3: {looks:,} looks, {changes:,} changes seen")
    assert changes >= 100


# -------------------------------------------------------------------------------- 9: sizes, clamping, lost registry


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["half", "header only", "empty", "a page more"])
def test_row_9_a_chunk_of_another_size_is_an_error_and_no_sigbus(dw: Platform, damage: str) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 35, 1))
    path = model.chunk_files(feed_path(dw))[1]
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(
        {"half": data[: len(data) // 2], "header only": data[:16384], "empty": b"", "a page more": data + bytes(16384)}[
            damage
        ]
    )
    done = run_python(
        """
        import sys
        from deepwater import CorruptFileError, Platform
        reader = Platform(sys.argv[1])["F"]
        assert len(reader.rows(0, 10).to_numpy()) == 10 and len(reader.rows(20, 35).to_numpy()) == 15
        try:
            reader.read().to_numpy()
        except CorruptFileError as error:
            print(error)
        """,
        dw.base_path,
    )
    assert path.name in done.stdout


@pytest.mark.faults
def test_row_9_numbers_from_disk_are_clamped(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 5, 1))
    path = model.chunk_files(feed_path(dw))[0]
    for word in (2**63 - 1, 11, 2**40):
        model.poke(path, 4096, word.to_bytes(8, "little"))
        assert len(dw["F"]) == len(dw["F"].rows(0, 2**62).to_numpy()) == 10


@pytest.mark.faults
def test_row_9_a_missing_chunk_is_said_and_not_passed_over(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 35, 1))
    model.chunk_files(feed_path(dw))[1].unlink()
    for registry in ("kept", "lost"):
        if registry == "lost":
            (feed_path(dw) / "F.reg").unlink()
        with pytest.raises(CorruptFileError, match="chunk 2 is missing"):
            dw["F"].read().to_numpy()
    with pytest.raises(CorruptFileError, match="chunk 2 is missing"):
        dw.create_writer("F")


@pytest.mark.faults
@pytest.mark.parametrize("how", ["removed", "garbage", "rows of garbage"])
def test_row_9_a_lost_registry_is_made_anew_and_the_next_writer_truncates_nothing(dw: Platform, how: str) -> None:
    truth = model.checked_records(0, 35, 1)
    with dw.create_writer("F") as writer:
        writer.write_batch(truth)
    path = feed_path(dw) / "F.reg"
    data = path.read_bytes()
    path.unlink()
    noise = np.random.default_rng(1).bytes(len(data))
    if how != "removed":
        path.write_bytes(noise if how == "garbage" else data[:16384] + noise[16384:])
    assert model.content(dw["F"].rows(0, 99)) == truth.tobytes()
    inodes = [path.stat().st_ino for path in model.chunk_files(feed_path(dw))]
    with dw.create_writer("F") as writer:
        assert writer.end == 35
        assert [path.stat().st_ino for path in model.chunk_files(feed_path(dw))] == inodes
        writer.write_batch(model.checked_records(35, 20, 2))
    assert model.stored(feed_path(dw)) == truth.tobytes() + model.checked_records(35, 20, 2).tobytes()
    shutil.copy(path, path.with_suffix(".saved"))
    assert len(dw["F"]) == 55  # with the registry made anew


@pytest.mark.faults
def test_row_9_a_registry_that_could_not_be_made_hides_nothing_later(dw: Platform) -> None:
    """It is lost, there is no space for another while the writer opens, then there is."""
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 25, 1))
    run_python(
        """
        import os, resource, sys
        import model
        from deepwater import Platform
        os.remove(sys.argv[1] + "/data/F/F.reg")
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
        writer = Platform(sys.argv[1]).create_writer("F")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        writer.write_batch(model.checked_records(25, 25, 2))
        writer.close()
        """,
        dw.base_path,
    )
    with dw["F"] as reader:
        assert (reader.first, len(reader)) == (0, 50)
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(50, 25, 3))
    with dw["F"] as reader:
        model.whole_writes(model.joined(reader.rows(0, 75), model.CHECKED))


@pytest.mark.faults
@pytest.mark.parametrize("what", ["directory", "fifo", "symlink"])
def test_row_9_what_stands_in_the_registrys_place_fails_no_write(dw: Platform, what: str) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 25, 1))
    path = feed_path(dw) / "F.reg"
    path.unlink()
    {"directory": path.mkdir, "fifo": lambda: os.mkfifo(path), "symlink": lambda: path.symlink_to("/dev/null")}[what]()
    with dw.create_writer("F") as writer:
        assert writer.write_batch(model.checked_records(25, 25, 2)) == 25
        assert writer.write_batch(model.checked_records(50, 25, 3)) == 50
    assert len(dw["F"]) == 75


# -------------------------------------------------------------------------------- 10: full disk


def verdict(done: str) -> dict[str, int]:
    pairs = (line.split("=") for line in done.split())
    return {name: int(value) for name, value in pairs}


@pytest.mark.faults
def test_row_10_a_full_disk_without_privileges(dw: Platform) -> None:
    """A limit on the size of files stands for the full disk: StorageFullError, nothing lost, and it goes on."""
    done = run_python(WORKERS / "fills_the_disk.py", "limit", dw.base_path, timeout=120)
    said = verdict(done.stdout)
    print("row 10:", said)
    assert said["refused"] >= 20


@pytest.mark.faults
def test_row_10_a_file_system_that_is_full(tmp_path: Path) -> None:
    """A small tmpfs filled to random levels: no SIGBUS, nothing acknowledged is lost, no file left over."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "dw-test", str(mount)], capture_output=True, check=False
    ).returncode:
        pytest.skip("may not mount a file system here")
    try:
        done = run_python(WORKERS / "fills_the_disk.py", "disk", mount / "store", timeout=200)
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    said = verdict(done.stdout)
    print("row 10:", said)
    assert said["rounds"] == 60
    assert said["refused"] >= 50


# -------------------------------------------------------------------------------- 11: stamps out of order


def test_row_11_no_chunk_and_no_row_vanishes_when_stamps_step_back(dw: Platform) -> None:
    """pandas is the oracle: bounds of chunks that were "first and last" lost whole chunks here."""
    rng = np.random.default_rng(4)
    steps = T0 + np.concatenate(
        [np.arange(100, 200), np.arange(50), rng.integers(0, 300, 100), [10**9], np.arange(300, 250, -1)]
    )
    full = model.checked_records(0, len(steps), 1)
    full["ts_us"] = steps
    full = full.copy()
    with dw.create_writer("F") as writer:
        for at in range(0, len(full), 7):
            writer.write_batch(full[at : at + 7])
    frame = pd.DataFrame({"ts_us": full["ts_us"].astype(np.int64)})
    reader = dw["F"]
    for lo, hi in [
        (T0, T0 + 49),
        (T0 + 120, T0 + 120),
        (T0 + 10**9, T0 + 10**9),
        (T0 + 260, T0 + 10**10),
        *rng.integers(T0, T0 + 310, (300, 2)).tolist(),
    ]:
        rows = frame.index[frame["ts_us"].between(lo, hi)]
        assert model.content(reader.read(lo, hi)) == model.picked(full, rows.to_numpy()), (lo, hi)


# -------------------------------------------------------------------------------- 12: locks

FORKS = """
import os, sys
import model
from deepwater import ClosedError, Platform
dw = Platform(sys.argv[1])
writer = dw.create_writer("F")
writer.write_batch(model.checked_records(0, 5, 1))
values = (*model.checked_records(5, 1, 2)[0].item()[:-1], [0, 0])
writer.write_values(*values)
child = os.fork()
if child == 0:
    for use in (lambda: writer.write_values(*values), lambda: writer.write_batch(model.checked_records(6, 1, 2)),
                writer.flush,
                lambda: writer.write_batch(model.checked_records(6, 50, 2)), lambda: writer.mark_gap(1),
                lambda: writer.resize_chunk_size(4096), lambda: writer.end, lambda: writer.write_batch_bytes(b"")):
        try:
            use()
        except ClosedError as error:
            assert str(os.getppid()) in str(error)
        else:
            os._exit(1)
    writer.close()
    if sys.argv[2] == "stay":
        print(os.getpid(), flush=True)
        sys.stdin.readline()
    os._exit(0)
if sys.argv[2] == "stay":
    sys.stdin.readline()
assert os.waitpid(child, 0)[1] == 0
assert writer.write_values(*values) == 6
print("fine")
writer.close()
"""


@pytest.mark.faults
def test_row_12_a_forked_child_cannot_append_and_its_end_changes_nothing(dw: Platform) -> None:
    done = run_python(FORKS, dw.base_path, "end")
    assert done.stdout == "fine\n" and not done.stderr
    assert len(dw["F"]) == 7


@pytest.mark.faults
def test_row_12_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(dw: Platform) -> None:
    with Worker(FORKS, dw.base_path, "stay") as parent:
        child = int(parent.readline())
        with pytest.raises(FeedLockedError, match=str(parent.pid)):
            dw.create_writer("F")
        parent.kill()
        os.kill(child, 0)  # it lives
        with dw.create_writer("F") as writer:
            assert writer.write_batch(model.checked_records(6, 3, 2)) == 6
        dw.delete_feed("F")
        os.kill(child, 9)


@pytest.mark.faults
def test_row_12_a_program_started_by_the_writer_does_not_keep_the_lock(dw: Platform) -> None:
    writer = dw.create_writer("F")
    with subprocess.Popen(["sleep", "60"], close_fds=False) as sleeper:
        writer.close()
        dw.create_writer("F").close()
        sleeper.kill()


def test_row_12_a_feed_with_a_writer_is_not_deleted(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 5, 1))
        before = model.tree(Path(dw.base_path))
        with pytest.raises(FeedLockedError), Platform(dw.base_path) as other:
            other.delete_feed("F")
        assert model.tree(Path(dw.base_path)) == before
        assert writer.write_batch(model.checked_records(5, 5, 1)) == 5
    dw.delete_feed("F")
    assert dw.list_feeds() == []


def test_row_12_use_after_close_raises(dw: Platform) -> None:
    values = (*model.checked_records(0, 1, 1)[0].item()[:-1], [0, 0])
    writer = dw.create_writer("F")
    writer.write_values(*values)
    writer.write_values(*values)
    writer.close()
    writer.close()
    for use in (lambda: writer.write_values(*values), lambda: writer.write_values(*values, create_index=True),
                lambda: writer.write_batch(model.checked_records(2, 1, 1)),
                lambda: writer.write_batch(model.checked_records(2, 0, 1)),
                lambda: writer.write_batch_bytes(bytes(SIZE)), lambda: writer.mark_gap(1), writer.flush,
                lambda: writer.resize_chunk_size(4096), lambda: writer.end):  # fmt: skip
        with pytest.raises(ClosedError, match="closed"):
            use()
    assert len(dw["F"]) == 2


# -------------------------------------------------------------------------------- 13: names


@pytest.mark.parametrize("name", ["../victim", "..", "a/../../victim", "/etc", "./F", "F/", "F/../F"])
def test_row_13_no_name_leads_out_of_the_store(dw: Platform, tmp_path: Path, name: str) -> None:
    victim = Path(dw.base_path) / "victim"
    victim.mkdir()
    (victim / "layout.json").write_text("precious")
    before = model.tree(tmp_path)
    for use in (dw.delete_feed, dw.create_reader, dw.create_writer):
        with pytest.raises(FeedNameError):
            use(name)
    with pytest.raises(ValueError, match="name"):
        dw.create_feed({**SPEC, "feed_name": name})
    assert model.tree(tmp_path) == before


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 100])
def test_row_13_what_is_created_can_be_opened(dw: Platform, length: int) -> None:
    name = "N" * length
    dw.create_feed({**SPEC, "feed_name": name})
    with dw.create_writer(name) as writer:
        writer.write_batch(model.checked_records(0, 25, 1))
    with Platform(dw.base_path) as again:
        assert len(again[name]) == 25
        again.delete_feed(name)


# -------------------------------------------------------------------------------- 15: health


def test_row_15_a_writers_life_is_in_a_word_that_moves_with_every_write(dw: Platform) -> None:
    """The time of change of a mapped file does not move; the heartbeat does, for readers in other processes."""
    values = (*model.checked_records(0, 1, 1)[0].item()[:-1], [0, 0])
    ways = {
        "values": lambda: writer.write_values(*values), "batch": lambda: writer.write_batch(model.checked_records(0,
        2, 1)),
        "over chunks": lambda: writer.write_batch(model.checked_records(0, 25, 1)),
    }  # fmt: skip
    look = """
        import sys
        from deepwater import Platform
        about = Platform(sys.argv[1]).describe_feed("F")
        print(about["heartbeat_us"], (about["writer"] or {}).get("pid"))
    """
    with dw.create_writer("F") as writer:
        last = dw.describe_feed("F")["heartbeat_us"]
        for way, write in ways.items():
            for _ in range(3):
                write()
                now = dw.describe_feed("F")["heartbeat_us"]
                assert now > last, way
                last = now
        assert run_python(look, dw.base_path).stdout.split() == [str(last), str(os.getpid())]
    assert run_python(look, dw.base_path).stdout.split() == [str(last), "None"]


# -------------------------------------------------------------------------------- 19: four small ones


@pytest.mark.parametrize(
    "stream", ["follow", "stream_latest_records", "stream_latest_records_raw", "read_batch", "read_batch_raw"]
)
def test_row_19_a_tail_of_an_empty_feed_waits(dw: Platform, stream: str) -> None:
    reader = dw["F"]
    iterator = iter(getattr(reader, stream)(*([5] if stream.startswith("read_batch") else [])))
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(next(iterator)))
    thread.start()
    with dw.create_writer("F") as writer:
        assert thread.is_alive() and not got
        writer.write_batch(model.checked_records(0, 1, 1))
        thread.join()
    assert position_of_last(got[0]) == 0


def test_row_19_a_batch_larger_than_a_chunk_is_written_whole(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        for rows in (11, 1_000, 10, 9, 1, 10):
            end = writer.end
            assert writer.write_batch(model.checked_records(end, rows, end)) == end
    records = model.joined(dw["F"].rows(0, 2_000), model.CHECKED)
    model.whole_writes(records)
    assert len(records) == 1_041


def test_row_19_readers_need_no_write_permission_and_listing_makes_no_file(dw: Platform) -> None:
    """As root there are no permissions: what counts is that nothing is opened for writing, made or changed."""
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 35, 1))
    before = model.tree(Path(dw.base_path))
    done = run_python(
        """
        import os, sys
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        changes = {f"os.{name}" for name in "mkdir rename remove truncate chmod chown link symlink utime".split()}
        base = sys.argv[1]
        bad = []
        def look(event, args):
            if event == "open" and isinstance(args[2], int) and args[2] & writing and "/dev/" not in str(args[0]):
                bad.append(args)
            if event in changes:
                bad.append((event, args))
        from deepwater import Platform
        sys.addaudithook(look)
        dw = Platform(base)
        assert dw.list_feeds() == ["F"] and dw.describe_feed("F")["records"] == 35
        reader = dw["F"]
        assert len(reader.read().to_numpy()) == 35 == sum(map(len, reader.follow("earliest", timeout=0)))
        reader.marks(), reader.asof(0)
        print(bad)
        """,
        dw.base_path,
    )
    assert done.stdout == "[]\n"
    assert model.tree(Path(dw.base_path)) == before
