"""What an earlier implementation of this idea got wrong: a test for each row that this code owes so far.

The number of a row is in the name of its tests. Most of these traps are also sprung elsewhere, by the oracle, the
crash tests and the damaged files; here each has a test that is about nothing else.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import model
from deepwater import ClosedError, CorruptFileError, FeedLockedError, FeedNameError, LappedError, Platform, shm
from deepwater import format as fmt
from deepwater.ring import Ring, WritableRing
from deepwater.segment import Segment
from processes import Worker, run_python

WORKERS = Path(__file__).parent / "workers"
SIZE = model.CHECKED.itemsize
SPEC: dict[str, Any] = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
                        "chunk_size_bytes": 10 * SIZE}  # fmt: skip
RING: dict[str, Any] = {"feed_name": "R", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "persist": False,
                        "chunk_size_bytes": 100 * SIZE}  # fmt: skip
T0 = model.EPOCH_2026


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(SPEC)
        yield platform


@pytest.fixture
def ring(dw: Platform) -> Iterator[str]:
    """The name of an ephemeral feed of 100 records."""
    dw.create_feed(RING)
    yield "R"
    if "R" in dw:
        dw.delete_feed("R")


def feed_path(dw: Platform, name: str = "F") -> Path:
    return Path(dw.base_path) / "data" / name


def ring_path(dw: Platform) -> Path:
    (entry,) = (entry for entry in shm.listing(dw.base_path) if entry["kind"] == "ring")
    return Path(entry["path"])


def true_records(records: np.ndarray, first: int) -> bool:
    """Whether records are those of the positions from `first` on, and none is torn or was never written."""
    positions = np.arange(first, first + len(records), dtype=np.uint64)
    return bool((records["position"] == positions).all() and (records["check"] == model._checks(records)).all())


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


# -------------------------------------------------------------------------------- 2: durable data through a ring


@pytest.mark.parametrize("place", ["", "/dev/null/nowhere"])
def test_row_2_durable_records_depend_on_no_ring_and_on_no_other_process(dw: Platform, place: str) -> None:
    """Written and closed by a process that starts none, with shared memory or without: all is in the files."""
    done = run_python(
        """
        import os, sys
        started = []
        sys.addaudithook(lambda event, args: started.append(event) if event in (
            "subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system", "pty.spawn") else None)
        import model
        from deepwater import Platform
        with Platform(sys.argv[1]) as dw, dw.create_writer("F") as writer:
            for record in model.checked_records(0, 500, 0):
                writer.write_values(*record.item()[:-1], record["filler"])
            writer.write_batch(model.checked_records(500, 500, 0))
            print(*started, *os.listdir(dw._store.shared.path) if os.path.isdir(dw._store.shared.path) else ())
        """,
        dw.base_path, env={"DEEPWATER_SHM": place} if place else None,
    )  # fmt: skip
    assert set(done.stdout.split()) <= {"store.json", "F.wake"}  # no ring
    truth = [model.checked_records(first, 500, 0).tobytes() for first in (0, 500)]
    assert model.stored(feed_path(dw)) == b"".join(truth)
    assert shm.listing(dw.base_path) == []


FOLLOWS = """
import sys
import numpy as np, model
from deepwater import LappedError, Platform
follower = Platform(sys.argv[1])[sys.argv[2]].follow("earliest", wait="auto")
print("ready", flush=True)
wanted = 0
while wanted < int(sys.argv[3]):
    try:
        records = next(follower)
    except LappedError as error:
        print("lost", error.lost, flush=True)
        wanted += error.lost
        continue
    assert (records["position"] == np.arange(wanted, wanted + len(records))).all()
    assert (records["check"] == model._checks(records)).all()
    wanted += len(records)
    if wanted == 10:
        print("ten", flush=True)
print("end", follower.lost, flush=True)
"""


@pytest.mark.faults
@pytest.mark.parametrize("name", ["F", "R"])
def test_row_2_a_reader_that_stands_still_blocks_no_writer(dw: Platform, ring: str, name: str) -> None:
    """The reader's process is stopped while the ring is filled many times over; then it is told what it lost."""
    with Worker(FOLLOWS, dw.base_path, name, 5_010) as reader:
        assert reader.readline() == "ready"
        with dw.create_writer(name) as writer:
            writer.write_batch(model.checked_records(0, 10, 0))
            assert reader.readline() == "ten"
            reader.process.send_signal(signal.SIGSTOP)
            assert os.waitpid(reader.pid, os.WUNTRACED)[1] & 0xFF == 0x7F
            for first in range(10, 5_010, 50):
                assert writer.write_batch(model.checked_records(first, 50, 0)) == first
            reader.process.send_signal(signal.SIGCONT)
            if name == "R":
                assert reader.readline() == "lost 4900"
            assert reader.readline() == f"end {4_900 if name == 'R' else 0}"
        reader.finish()


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


# -------------------------------------------------------------------------------- 4: readers that start in a commit


@pytest.mark.parametrize("held", [0, 30, 260])
def test_row_4_a_reader_that_starts_at_any_step_of_a_write_reads_what_was_written(
    dw: Platform, ring: str, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """Before and after the claim, between the two halves of the records, before and after the commit."""
    starts: list[tuple[str, int]] = []
    followers: list[Any] = []
    looking = False

    def start(step: str) -> None:
        if looking:
            with dw[ring] as reader:
                end = int(reader.end)
                starts.append((step, end))
                for window in (reader.latest(1_000), reader.rows(0, 10**9), reader.read(last=1_000)):
                    assert true_records(window.to_numpy(), end - len(window))
                    claim = held if step == "before claim" else held + 20
                    assert len(window) == end - max(0, claim - 100)
                for begin, at in (("latest", end), ("earliest", reader.first)):
                    followers.append(reader.follow(begin, timeout=0, on_lap="skip"))
                    assert followers[-1].position == at

    put, claim, publish = WritableRing.put, Segment.claim, Segment.publish

    def put_in_halves(self: WritableRing, count: int, data: Any) -> None:
        half = len(data) // SIZE // 2
        put(self, count, data[: half * SIZE])
        start("half")
        put(self, count + half, data[half * SIZE :])
        start("put")

    def stepped(call: Any, step: str) -> Any:
        def run(*args: Any) -> None:
            start(f"before {step}")
            call(*args)
            start(f"after {step}")

        return run

    monkeypatch.setattr(WritableRing, "put", put_in_halves)
    monkeypatch.setattr(Segment, "claim", stepped(claim, "claim"))
    monkeypatch.setattr(Segment, "publish", stepped(publish, "commit"))
    with dw.create_writer(ring) as writer:
        for first in range(0, held, 10):
            writer.write_batch(model.checked_records(first, 10, 0))
        looking = True
        writer.write_batch(model.checked_records(held, 20, 0))
        looking = False
        expected = ["before claim", "after claim", "half", "put", "before commit"]
        assert starts == [(step, held) for step in expected] + [("after commit", held + 20)]
        for follower in followers:  # each goes on where it stood when it was made
            first = int(follower.position)
            records = model.joined(list(follower), model.CHECKED)
            assert true_records(records, first + follower.lost)
            assert first + follower.lost + len(records) == held + 20
            assert follower.lost == max(0, held + 20 - 100 - first)
            follower.close()


def test_row_4_readers_that_start_beside_a_writer_read_what_was_written(dw: Platform, ring: str) -> None:
    """400 starts in another process, on a ring most of whose slots were never written."""
    dw.resize_feed(ring, 1_000_000 * SIZE)
    starts = """
        import sys
        import numpy as np, model
        from deepwater import Platform
        dw, moved = Platform(sys.argv[1]), 0
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(400):
            reader = dw["R"]
            follower = reader.follow(("latest", "earliest")[number % 2], batch=50, timeout=60)
            cursor = int(follower.position)
            for _ in range(3):
                records = next(follower)
                assert (records["position"] == np.arange(cursor, cursor + len(records))).all()
                assert (records["check"] == model._checks(records)).all()
                cursor += len(records)
            newest = reader.latest(70).to_numpy()
            assert (newest["check"] == model._checks(newest)).all() and int(newest["position"][-1]) + 1 >= cursor
            moved += int(reader.end) > cursor
            follower.close()
            reader.close()
        print(moved, flush=True)
    """
    truth = model.checked_records(0, 1_000_000, 0)
    with Worker(starts, dw.base_path, timeout=120) as reader, dw.create_writer(ring) as writer:
        assert reader.readline() == "ready"
        writer.write_batch(truth[:1_000])
        reader.send("go")
        said = threading.Event()
        answer: list[str] = []
        listener = threading.Thread(target=lambda: (answer.append(reader.readline()), said.set()))
        listener.start()
        rows = 0
        while not said.is_set():
            rows = rows % 7 + 1
            first = writer.end
            if first + rows > len(truth):
                first = writer.end
                writer.write_batch(model.checked_records(first, rows, 0))
            else:
                writer.write_batch(truth[first : first + rows])
        listener.join()
        print(f"row 4: 400 starts, {answer[0]} of them beside writes, {writer.end} records written")
        assert int(answer[0]) > 0


# -------------------------------------------------------------------------------- 5: nobody checked for overwriting


@pytest.mark.parametrize("on_lap", ["raise", "skip"])
@pytest.mark.parametrize("ahead", [1, 30, 60, 100, 150, 730])
def test_row_5_what_is_overwritten_during_a_copy_is_not_handed_out_and_is_counted(
    dw: Platform, ring: str, monkeypatch: pytest.MonkeyPatch, ahead: int, on_lap: Any
) -> None:
    """The writer gets ahead by so many between the choice of the records and their copy."""
    copy, overtaken = Ring.copy, []

    def late(self: Ring, *args: Any) -> Any:
        if not overtaken:
            overtaken.append(True)
            for first in range(80, 80 + ahead, 10):
                writer.write_batch(model.checked_records(first, min(10, 80 + ahead - first), 0))
        return copy(self, *args)

    monkeypatch.setattr(Ring, "copy", late)
    with dw.create_writer(ring) as writer:
        for first in range(0, 80, 40):
            writer.write_batch(model.checked_records(first, 40, 0))
        follower = dw[ring].follow("earliest", timeout=0, on_lap=on_lap)
        lost, seen, raised = max(0, 80 + ahead - 100), [], 0
        while True:
            try:
                for records in follower:
                    assert true_records(records, int(follower.position) - len(records))
                    seen.append(records)
                break
            except LappedError as error:
                raised += error.lost
        assert follower.lost == lost and raised == (lost if on_lap == "raise" else 0)
        assert true_records(model.joined(seen, model.CHECKED), lost)
        assert sum(map(len, seen)) + lost == writer.end == 80 + ahead
        follower.close()


def test_row_5_a_slow_reader_beside_a_fast_writer_is_told_what_it_lost(dw: Platform, ring: str) -> None:
    """Another process overwrites the ring all the time; what is accepted and what is lost add up."""
    dw.resize_feed(ring, 2_000 * SIZE)
    writes = """
        import sys
        import model
        from deepwater import Platform
        truth = model.checked_records(0, 300_000, 0)
        with Platform(sys.argv[1]).create_writer("R") as writer:
            print("ready", flush=True)
            sys.stdin.readline()
            rows = 0
            while (end := writer.end) < len(truth):
                rows = rows % 211 + 1
                writer.write_batch(truth[end : end + rows])
    """
    follower = dw[ring].follow("earliest", timeout=None)
    position = accepted = laps = 0
    with Worker(writes, dw.base_path) as writer:
        assert writer.readline() == "ready"
        writer.send("go")
        while position < 300_000:
            try:
                records = next(follower)
            except LappedError as error:
                laps += 1
                position += error.lost
                continue
            assert true_records(records, position)
            sum(hash(record) for record in records[:300].tolist() if record[0] < 0)  # it is slow
            position, accepted = position + len(records), accepted + len(records)
        writer.finish()
    print(f"row 5: {accepted} accepted, {follower.lost} lost in {laps} laps")
    assert accepted + follower.lost == position == 300_000
    assert laps > 0
    follower.close()


# -------------------------------------------------------------------------------- 6: live and writable batches


@pytest.mark.faults
def test_row_6_what_a_ring_hands_out_is_read_only_and_stays_what_it_was(dw: Platform, ring: str) -> None:
    """In a process of its own, because falling in was SIGSEGV: overwritten, closed, deleted, and used again."""
    done = run_python(
        """
        import sys
        import numpy as np, model
        from deepwater import LappedError, Platform
        dw = Platform(sys.argv[1])
        writer, reader = dw.create_writer("R"), dw["R"]
        streams = [reader.follow("earliest", timeout=0), reader.follow("earliest", as_="arrow", timeout=0),
                   reader.read_batch_raw(7, timeout=0), reader.stream_latest_records_raw(timeout=0),
                   reader.read_batch(9, timeout=0)]
        writer.write_batch(model.checked_records(0, 50, 0))
        writer.write_batch(model.checked_records(50, 20, 0))
        kept = [list(stream) for stream in streams]
        window = reader.rows(0, 70)
        kept += [list(window), [window.to_numpy()], [window["check"]], list(window.arrays(9)), list(reader.latest(5)),
                 [reader.follow("earliest").poll()], [reader[3:40].to_numpy()]]
        try:
            with reader.borrow(60) as borrowed:
                lent = list(borrowed) + [borrowed["check"]]
                raise RuntimeError
        except RuntimeError:
            pass
        arrays = [item for items in kept for item in items if isinstance(item, np.ndarray)] + lent
        for array in arrays:
            for attempt in (lambda: array.__setitem__(0, array[-1]), lambda: array.setflags(write=True),
                            lambda: setattr(array.flags, "writeable", True)):
                try:
                    attempt()
                except ValueError:
                    continue
                if array.base is None and array.flags.owndata:
                    continue  # its own memory: nobody else's
                sys.exit(f"a ring's memory could be written: {array!r}")
        views = [item for items in kept for item in items if isinstance(item, memoryview)]
        assert len(views) == 10 + 70 and all(view.readonly for view in views)
        def content():
            return [bytes(i) if isinstance(i, memoryview) else i.tobytes() if isinstance(i, np.ndarray)
                    else repr(i.to_pydict()) for items in kept for i in items]
        before = content()
        for first in range(70, 470, 50):
            writer.write_batch(model.checked_records(first, 50, 0))
        assert content() == before
        for stream in streams[:2]:
            stream.close()
        reader.close()
        assert content() == before
        writer.close()
        dw.delete_feed("R")
        dw.close()
        del reader, writer, window, borrowed
        assert content() == before
        assert sum(int(array["check"].sum() if array.dtype.names else array.sum()) for array in lent) > 0  # readable
        print("fine")
        """,
        dw.base_path,
    )
    assert done.stdout == "fine\n" and not done.stderr


def test_row_6_a_readers_process_maps_the_ring_read_only(dw: Platform, ring: str) -> None:
    with dw.create_writer(ring) as writer:
        writer.write_batch(model.checked_records(0, 50, 0))
        done = run_python(
            """
            import sys
            from deepwater import Platform
            reader = Platform(sys.argv[1])["R"]
            with reader.follow("earliest", timeout=0.05, wait="wake") as follower, reader.borrow(10) as lent:
                list(follower)
                for line in open("/proc/self/maps"):
                    if "deepwater-" in line and not line.rstrip().endswith(".wake"):
                        print(line.split()[1], line.split()[-1])
            """,
            dw.base_path,
        )
        said = done.stdout.split()
        assert set(said[::2]) == {"r--s"} and set(said[1::2]) == {str(ring_path(dw))}


# -------------------------------------------------------------------------------- 7: retention of what is new


def test_row_7_retention_ages_by_the_records_and_leaves_the_newest_chunk(dw: Platform) -> None:
    """Seconds-old records stay, whatever their files look like; old ones go in new files; the live chunk never does."""
    now = time.time_ns() // 1000
    truth = model.checked_records(0, 65, 1)
    truth["ts_us"] = now - 1_000_000 + truth["position"]
    truth["ts_us"][:30] -= np.uint64(30 * model.DAY_US)
    with dw.create_writer("F") as writer, dw["F"] as reader:
        writer.write_batch(truth)
        for path in model.chunk_files(feed_path(dw)):
            os.utime(path, (0, 0))
        assert dw.prune("F", keep="7d").stop == 30
        assert dw.prune("F", keep="1h").chunks == 0
        assert (reader.first, int(reader.end)) == (30, 65)
        time.sleep(0.01)
        assert dw.prune("F", keep="1us").stop == 60
        assert dw.prune("F", max_bytes=1).chunks == 0
        assert writer.write_batch(truth[:3]) == 65
    (feed_path(dw) / "F.reg").unlink()
    for _ in range(2):  # without the registry, and with the one made anew
        with dw["F"] as reader:
            assert reader.first == 60
            assert model.content(reader.read()) == truth[60:].tobytes() + truth[:3].tobytes()
        dw.create_writer("F").close()


# -------------------------------------------------------------------------------- 9: sizes, clamping, lost registry


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["cut in half", "a flipped bit"])
def test_row_8_verify_sees_damage_and_repair_mends_it(dw: Platform, damage: str) -> None:
    """There `repair` said all was well, changed nothing and exited with 0; damaged chunks were "OK"."""
    dw.write("F", model.checked_records(0, 35, 1))
    path = feed_path(dw) / "chunk_00000002.bin"
    if damage == "cut in half":
        os.truncate(path, path.stat().st_size // 2)
    else:
        data = bytearray(path.read_bytes())
        data[data.index(model.checked_records(12, 1, 1).tobytes()[:16])] ^= 1
        path.write_bytes(data)

    def deepwater(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deepwater.cli", *args, "--base-path", str(dw.base_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    seen = deepwater("verify")
    assert seen.returncode == 2 and "chunk_00000002.bin" in seen.stdout and "run deepwater repair" in seen.stdout
    planned = deepwater("repair")
    assert planned.returncode == 1 and "LOST 10 records, positions 10 to 19" in planned.stdout
    assert "nothing was changed" in planned.stdout and deepwater("verify").stdout == seen.stdout
    mended = deepwater("repair", "--apply")
    assert mended.returncode == 0 and "10 records lost" in mended.stdout
    assert deepwater("verify").returncode == 0
    assert deepwater("repair").stdout == "nothing to mend\n"
    with dw["F"] as reader:  # all others are where they were
        held = model.joined(reader.rows(0, 35), model.CHECKED)
        wrote = model.checked_records(0, 35, 1)
        assert held[:10].tobytes() == wrote[:10].tobytes() and held[20:].tobytes() == wrote[20:].tobytes()
        assert reader.gaps()["position"].tolist() == [10, 20]


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


# tests/faults/test_disk.py: with and without privileges, and under a recording.


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
        writer.flush()  # nothing is left to do for the thread that computes checksums
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


# -------------------------------------------------------------------------------- 16: who unlinks shared memory

ATTACHES = """
import os, sys
from deepwater import Platform
reader = Platform(sys.argv[1])["R"]
kept = [reader.latest(5), next(reader.follow("earliest"))]
print(len(kept[1]), flush=True)
sys.stdin.readline()
if sys.argv[2] == "leak":
    os._exit(0)
if sys.argv[2] == "close":
    reader.close()
"""


@pytest.mark.faults
def test_row_16_no_end_of_a_reader_removes_the_ring(dw: Platform, ring: str) -> None:
    """It closes, it just ends, it ends without cleaning up, it is killed: file and inode stay, all goes on."""
    with dw.create_writer(ring) as writer:
        writer.write_batch(model.checked_records(0, 50, 0))
        path = ring_path(dw)
        inode = path.stat().st_ino
        for number, how in enumerate(("close", "end", "leak", "kill")):
            with Worker(ATTACHES, dw.base_path, how) as reader:
                assert reader.readline() == str(min(50 + number, 100))
                if how == "kill":
                    reader.kill()
                else:
                    reader.send("go")
                    reader.finish()
            assert path.stat().st_ino == inode
            assert writer.write_batch(model.checked_records(50 + number, 1, 0)) == 50 + number
            assert true_records(dw[ring].rows(0, 99).to_numpy(), 0) and len(dw[ring]) == 51 + number
    assert path.stat().st_ino == inode  # the writer's end removes no records either
    dw.delete_feed(ring)
    assert not path.exists() and not path.parent.exists()  # who created it unlinks it


def test_row_16_two_stores_with_a_feed_of_the_same_name_share_nothing(
    dw: Platform, ring: str, tmp_path: Path
) -> None:
    with Platform(tmp_path / "other") as other:
        other.create_feed(RING)
        with dw.create_writer(ring) as one, other.create_writer(ring) as two:  # neither is locked out
            assert ring_path(dw) != ring_path(other)
            one.write_batch(model.checked_records(0, 30, 1))
            two.write_batch(model.checked_records(0, 20, 2))
            assert (len(dw[ring]), len(other[ring])) == (30, 20)
            assert set(dw[ring].latest(99)["write"].tolist()) == {1}
            assert set(other[ring].latest(99)["write"].tolist()) == {2}
        other.delete_feed(ring)
        assert len(dw[ring]) == 30


@pytest.mark.parametrize("moment", ["before its first writer", "with a writer", "after one"])
def test_row_16_a_copied_store_does_not_share_the_originals_ring(
    dw: Platform, ring: str, tmp_path: Path, moment: str
) -> None:
    """The copy has the same store id, feed id and incarnation."""
    if moment == "before its first writer":
        shutil.copytree(dw.base_path, tmp_path / "copy")
    with dw.create_writer(ring) as writer:
        writer.write_batch(model.checked_records(0, 30, 1))
        if moment == "with a writer":
            shutil.copytree(dw.base_path, tmp_path / "copy")
    if moment == "after one":
        shutil.copytree(dw.base_path, tmp_path / "copy")
    with dw.create_writer(ring) as writer, Platform(tmp_path / "copy") as copy:
        assert len(copy[ring]) == 0 and copy[ring].incarnation != dw[ring].incarnation
        with copy.create_writer(ring) as second:
            assert second.write_batch(model.checked_records(0, 7, 2)) == 0
            assert writer.write_batch(model.checked_records(30, 7, 1)) == 30
            assert (len(dw[ring]), len(copy[ring])) == (37, 7)
            assert ring_path(dw) != ring_path(copy)
        copy.delete_feed(ring)
        assert true_records(dw[ring].rows(0, 99).to_numpy(), 0) and len(dw[ring]) == 37


KILLED = """
import os, signal, sys
import model
from deepwater import Platform
writer = Platform(sys.argv[1]).create_writer("R")
writer.write_batch(model.checked_records(0, 30, 0))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.faults
@pytest.mark.parametrize("gone", ["store", "feed", "incarnation"])
def test_row_16_orphans_are_listed_and_cleaned_and_nothing_else_is(
    dw: Platform, ring: str, tmp_path: Path, gone: str
) -> None:
    """What a killed writer leaves is no orphan while its feed is there: the next writer goes on with it."""
    with Platform(tmp_path / "bystander") as other:
        other.create_feed(RING)
        with other.create_writer(ring) as bystander:
            bystander.write_batch(model.checked_records(0, 9, 0))
            run_python(KILLED, dw.base_path, check=False)
            left = shm.listing(dw.base_path)
            assert {(e["kind"], e["feed"], e["orphan"], e["writer_pid"]) for e in left} == {
                ("ring", "R", False, None), ("wake", "R", False, None)
            }  # fmt: skip
            assert shm.clean(left) == 0
            assert len(dw[ring]) == 30
            if gone == "store":
                shutil.rmtree(dw.base_path)
            elif gone == "feed":
                shutil.rmtree(feed_path(dw, "R"))
            else:
                shutil.rmtree(feed_path(dw, "R"))
                dw.create_feed(RING)
            left = shm.listing(dw.base_path)
            orphans = {e["kind"] for e in left if e["orphan"]}
            assert orphans == ({"ring"} if gone == "incarnation" else {"ring", "wake"})
            assert all(e["why"] for e in left if e["orphan"])
            own = shm.listing(other.base_path)
            assert not any(e["orphan"] for e in own)
            assert shm.clean(left + own) == len(orphans)
            kept = {e["kind"] for e in shm.listing(dw.base_path)}
            assert kept == ({"wake"} if gone == "incarnation" else set())
            assert shm.listing(other.base_path) == own
            assert len(other[ring]) == 9 and bystander.write_batch(model.checked_records(9, 1, 0)) == 9
        other.delete_feed(ring)
        if gone == "store":
            Platform(dw.base_path).create_feed(SPEC)  # what the fixtures close is there again


# -------------------------------------------------------------------------------- 17: a killed writer of a ring

DIES = """
import os, signal, sys
import model
from deepwater import Platform
from deepwater.ring import WritableRing
from deepwater.segment import Segment
base, step = sys.argv[1:]
put, claim, publish, activate = WritableRing.put, Segment.claim, Segment.publish, WritableRing.activate
armed = False

def die():
    if armed:
        os.kill(os.getpid(), signal.SIGKILL)

def putting(self, count, data):
    if step == "half-put" and armed:
        put(self, count, data[: len(data) // 2 + 8])
        die()
    put(self, count, data)
    if step == "put":
        die()

def claiming(self, *args):
    claim(self, *args)
    if step == "claimed":
        die()

def publishing(self, word):
    if step == "unsealed" and word >> 63:
        die()
    publish(self, word)
    if step == "published" or (step == "sealed" and word >> 63):
        die()

def activating(self):
    if step == "unactivated":
        die()
    activate(self)
    if step == "activated":
        die()

WritableRing.put, Segment.claim, Segment.publish, WritableRing.activate = putting, claiming, publishing, activating
writer = Platform(base).create_writer("R")
for first in range(0, 240, 40):
    writer.write_batch(model.checked_records(first, 40, 0))
print(writer.end, flush=True)
armed = True
if step in ("unactivated", "activated", "unsealed", "sealed"):
    writer.resize_chunk_size(150 * model.CHECKED.itemsize)
else:
    writer.write_batch(model.checked_records(240, 30, 0))
"""


@pytest.mark.faults
@pytest.mark.parametrize("step", ["claimed", "half-put", "put", "published", "unactivated", "activated", "unsealed",
                                  "sealed"])  # fmt: skip
def test_row_17_a_writer_killed_inside_a_write_leaves_a_ring_that_goes_on(dw: Platform, ring: str, step: str) -> None:
    """Nothing torn is read, nothing published is lost, and the successor keeps the claim: slots may be torn."""
    follower = dw[ring].follow("earliest", timeout=0, on_lap="skip")
    with Worker(DIES, dw.base_path, step) as dying:
        assert dying.readline() == "240"
        assert dying.process.wait() == -signal.SIGKILL, dying.stderr()
    resized, inside = step == "sealed", step in ("claimed", "half-put", "put")
    end = 270 if step == "published" else 240
    oldest = 170 if inside or step == "published" else 140

    def look() -> None:
        with dw[ring] as reader:
            assert (reader.first, reader.end) == (oldest, end)
            assert true_records(reader.rows(0, 10**9).to_numpy(), oldest)
            assert true_records(reader.latest(10).to_numpy(), end - 10)
            assert reader.latest(10)._parts[0].position == end - 10
            assert dw.describe_feed(ring)["writer"] is None

    look()  # with nobody to repair it
    with dw.create_writer(ring) as writer:
        assert writer.end == end
        words, capacity = writer._ring.segment.words, writer._ring.capacity
        assert capacity == (150 if resized or step in ("unactivated", "activated", "unsealed") else 100)
        assert words[fmt.CLAIM] >= words[fmt.COMMIT]
        if inside:
            assert words[fmt.CLAIM] == 270  # not taken back
        with dw[ring] as reader:
            assert true_records(reader.rows(0, 10**9).to_numpy(), oldest)
        for first in range(end, end + 400, 40):
            assert writer.write_batch(model.checked_records(first, 40, 1)) == first
            with dw[ring] as reader:
                assert true_records(reader.rows(0, 10**9).to_numpy(), int(reader.first))
                assert reader.end == first + 40
        end += 400
        seen = list(follower)
        assert true_records(model.joined(seen, model.CHECKED), end - sum(map(len, seen)))
        assert sum(map(len, seen)) + follower.lost == end
    assert len([entry for entry in shm.listing(dw.base_path) if entry["kind"] == "ring"]) == 1
    follower.close()


# -------------------------------------------------------------------------------- 19: four small ones


@pytest.mark.parametrize("durability", ["os", "interval"])
def test_row_18_a_rotation_syncs_nothing_on_the_writers_thread(
    tmp_store: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """There it synced a whole chunk, 57 ms each million records. Other threads make the next chunk, and sync."""
    callers: list[str] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, real=real: (callers.append(threading.current_thread().name), real(fd)))
    with Platform(tmp_store) as dw:
        more = {"durability_ms": 20} if durability == "interval" else {}
        dw.create_feed({**SPEC, "durability": durability, **more})
        with dw.create_writer("F") as writer:
            writer.write_batch(model.checked_records(0, 5, 1))
            callers.clear()
            for number in range(200):
                writer.write_values(*model.checked_records(writer.end, 1, number)[0].item()[:-1], (1, 2))
                time.sleep(0.001)
            made = list(callers)
        assert len(list(feed_path(dw).glob("chunk_*.bin"))) > 20
    assert threading.current_thread().name not in made
    assert made  # by others


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


# -------------------------------------------------------------------------------- 20: four more


@pytest.mark.parametrize("rows", [6, 16, 1_000])
def test_row_20_staged_rows_survive_rotations(dw: Platform, rows: int) -> None:
    """Staged over the end of a chunk, over many, and over a rotation that comes while they are staged."""
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 7, 0))
        for record in model.checked_records(7, rows, 1):
            writer.stage_values(*record.item()[:-1], record["filler"])
            if writer.staged in (2, 5):
                writer.resize_chunk_size((10 + writer.staged) * SIZE)  # seals the chunk
        assert len(dw["F"]) == 7
        assert writer.commit_values() == 7
    records = model.joined(dw["F"].rows(0, 10**9), model.CHECKED)
    assert len(records) == 7 + rows and true_records(records, 0)
    assert len(model.chunk_files(feed_path(dw))) >= 3


@pytest.mark.parametrize("way", ["values", "batch", "staged"])
def test_row_20_an_index_is_never_full(dw: Platform, way: str) -> None:
    """5,000 marks in one chunk, each written before its record is: no mark and no record too many or too few."""
    dw.resize_feed("F", 1 << 20)
    with dw.create_writer("F") as writer:
        for record in model.checked_records(0, 5_000, 0):
            values = (*record.item()[:-1], record["filler"])
            if way == "values":
                writer.write_values(*values, create_index=True)
            elif way == "batch":
                writer.write_batch(record.reshape(1), create_index=True)
            else:
                writer.stage_values(*values)
                writer.commit_values(create_index=True)
    assert len(model.chunk_files(feed_path(dw))) <= 2
    with dw["F"] as reader:
        assert reader.snapshots()["position"].tolist() == list(range(5_000))
        assert true_records(reader.rows(0, 10**9).to_numpy(), 0) and len(reader) == 5_000


@pytest.mark.parametrize("persist", [True, False])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_row_20_a_clock_at_offset_0_is_a_clock(dw: Platform, at: int, persist: bool) -> None:
    fields = [{"name": "price", "type": "float64"}, {"name": "size", "type": "float64"}]
    fields.insert(at, {"name": "ts_us", "type": "uint64"})
    spec = {"feed_name": "AT", "ts_col": "ts_us", "fields": fields, "persist": persist, "chunk_size_bytes": 100 * 24}
    dw.create_feed(spec)
    rows = np.zeros(30, model.dtype_of(fields))
    rows["ts_us"] = T0 + np.arange(30) * 10
    rows["price"] = np.arange(30)
    with dw.create_writer("AT") as writer:
        writer.write_batch(rows)
        reader = dw["AT"]
        assert reader.read(T0 + 50, T0 + 99)["price"].tolist() == [5, 6, 7, 8, 9]
        assert reader.asof(T0 + 55).positions.tolist() == [5] and reader.position_of(T0 + 41) == 5
        assert [record[at] for record in reader.stream_time_range(T0 + 280)] == [T0 + 280, T0 + 290]
    assert dw.describe_feed("AT")["ts_col"] == "ts_us"
    dw.delete_feed("AT")


def test_row_20_a_backfill_of_old_stamps_is_found(dw: Platform) -> None:
    """Chunks are found by their records' stamps, whenever they were written; after another start as well."""
    old = int(np.datetime64("1999-12-31T23:00", "us").astype(np.int64))
    full = model.checked_records(0, 95, 0)
    full["ts_us"][:40] = T0 + np.arange(40)
    full["ts_us"][40:] = old + np.arange(55) * 60_000_000  # a record a minute
    full = full.copy()
    with dw.create_writer("F") as writer:
        for first in range(0, 95, 19):
            writer.write_batch(full[first : first + 19])
        readers = [dw["F"]]
    with Platform(dw.base_path) as again:
        readers.append(again["F"])
        (feed_path(dw) / "F.reg").unlink()
        readers.append(again["F"])
        for reader in readers:
            assert len(reader.read("1999", "1999")) == 55 == len(reader["1999-12-31"])
            assert model.content(reader.read("1999-12-31T23:10", "1999-12-31T23:19")) == model.picked(
                full, slice(50, 60)
            )
            assert len(reader.read("2026")) == 40 and len(reader.read("2000", "2025")) == 0
            assert reader.asof(old + 90_000_000).positions.tolist() == [41]
            follower = reader.follow(old, timeout=0)
            assert follower.position == 0  # the first position whose clock is at or after it, then every position
            follower.close()
