"""What processes do to each other: forks, signals, stops, reused PIDs, limits, threads."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import model
from check_kit import said
from deepwater import FeedLockedError, Platform
from deepwater import format as fmt
from deepwater.check import verify
from deepwater.locks import boot_id, start_ticks
from fault_table import Trials
from processes import Worker, run_python

WORKERS = Path(__file__).parent.parent / "workers"
Fault = Callable[[str, str], Trials]
SIZE = model.CHECKED.itemsize
SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
        "chunk_size_bytes": 10 * SIZE}  # fmt: skip
RING = {**SPEC, "feed_name": "R", "persist": False, "index_playback": False, "chunk_size_bytes": 40 * SIZE}


def verdict(text: str) -> dict[str, int]:
    return {name: int(count) for name, _, count in (word.partition("=") for word in text.split())}


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_a_process_that_writes(quick_dir: Path, fault: Fault, scale: int, method: str) -> None:
    """F17. Children of each start method while writers and readers of a feed and a ring are open in the parent.

    A forked child uses the inherited writer (ClosedError), reads through the inherited reader, opens a reader and asks
    for a writer of its own (FeedLockedError), closes what it inherited, and ends in one of four ways. What must be
    seen: the parent writes on as if nothing had been, and once it has closed the feed is free.
    """
    trials_wanted = {"fork": 100, "forkserver": 100, "spawn": 5}[method] * scale
    with Platform(quick_dir / "store") as dw:
        dw.create_feed(SPEC)
        dw.create_feed(RING)
    with fault("F17", f"children by {method} while writers are open") as trials:
        done = run_python(WORKERS / "has_children.py", quick_dir / "store", method, trials_wanted, timeout=280 * scale)
        trials.done(verdict(done.stdout)["children"])
        assert trials.trials == trials_wanted


@pytest.mark.parametrize("name", ["F", "R"])
def test_interrupts_at_random_moments_of_a_write(quick_dir: Path, fault: Fault, scale: int, name: str) -> None:
    """F24. A timer interrupts writes (KeyboardInterrupt) at random moments, thousands of times.

    Writes of all sizes, over chunks, staged ones, gaps, resizes. What must be seen: the interrupted write is there
    whole or not at all, the same writer goes on at once, and in the end every write is whole and in order.
    """
    with Platform(quick_dir / "store") as dw:
        dw.create_feed(SPEC)
        dw.create_feed(RING)
    with fault("F24", f"SIGINT inside a write, {'chunks' if name == 'F' else 'ring'}") as trials:
        wanted = 2000 * scale
        done = run_python(WORKERS / "is_interrupted.py", quick_dir / "store", name, wanted, 24, timeout=280 * scale)
        counts = verdict(done.stdout)
        trials.done(counts.pop("interrupts"))
        trials.note(**counts)
        assert counts["inside"] >= 0.3 * trials.trials
    assert said(verify(quick_dir / "store")) == []  # nor is a checksum of half a block left


def test_a_writer_that_counts_on_what_was_interrupted_is_found_out(quick_dir: Path) -> None:
    """The power of the test above: a writer that does not look where its feed ends after an interrupt."""
    with Platform(quick_dir / "store") as dw:
        dw.create_feed(SPEC)
        dw.create_feed(RING)
    args = (quick_dir / "store", "F", 1000, 24, "broken")
    done = run_python(WORKERS / "is_interrupted.py", *args, timeout=120, check=False)
    assert done.returncode != 0 and "is_interrupted.py" in done.stderr


def test_a_writer_that_is_stopped(quick_dir: Path, fault: Fault, scale: int) -> None:
    """F25. SIGSTOP, a look, SIGCONT. The lock is not taken from it, its heartbeat stands still, then it goes on."""
    with Platform(quick_dir / "store") as dw:
        dw.create_feed(SPEC)
        worker = Worker(WORKERS / "writes_checked.py", quick_dir / "store", timeout=120 * scale)
        with fault("F25", "SIGSTOP of a writer") as trials, worker:
            worker.readline()
            for _ in range(20 * scale):
                stop_and_go(dw, worker.pid)
                trials.done()
            worker.kill()


def stop_and_go(dw: Platform, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    with dw["F"] as reader:
        end = int(reader.end)
        about = dw.describe_feed("F")["writer"]
        assert about["pid"] == pid
        with pytest.raises(FeedLockedError, match=str(pid)):
            dw.create_writer("F")
        assert int(reader.end) == end
        assert dw.describe_feed("F")["writer"]["heartbeat_us"] == about["heartbeat_us"]
        os.kill(pid, signal.SIGCONT)
        for batch in reader.follow(timeout=60):
            assert len(batch)
            break
        assert int(reader.end) > end


@pytest.mark.parametrize("how", ["another start", "another boot", "let go", "no such process"])
def test_a_pid_that_came_again_is_no_writer(tmp_store: Path, fault: Fault, how: str) -> None:
    """F26. The owner's lines name a live process (this one) that is not the one that wrote them."""
    me = os.getpid()
    with Platform(tmp_store) as dw, fault("F26", f"PID reuse: {how}") as trials:
        dw.create_feed(SPEC)
        dw.write("F", model.checked_records(0, 3, 1))
        path = tmp_store / "data" / "F" / "chunk_00000001.bin"
        for number in range(3):
            info = path.stat()
            start = start_ticks(me) + (1 if how == "another start" else 0)
            boot = bytes(16) if how == "another boot" else boot_id()
            pid = 2**22 + 1 if how == "no such process" else me
            owner = fmt.Owner(pid, start, boot, info.st_ino, info.st_dev, 1, os.uname().nodename, how != "let go")
            model.poke(path, *fmt.pack_owner(owner))
            assert dw.describe_feed("F")["writer"] is None
            with dw.create_writer("F") as writer:
                assert dw.describe_feed("F")["writer"]["pid"] == me
                assert writer.write_batch(model.checked_records(3 + number, 1, 9)) == 3 + number
            trials.done()


@pytest.mark.parametrize("limit", ["files", "memory"])
def test_a_feed_of_hundreds_of_chunks_within_limits(quick_dir: Path, fault: Fault, scale: int, limit: str) -> None:
    """F33. 64 descriptors, or 64 MiB of address space to spare, for a feed of 400 chunks of 256 KiB.

    Reading it record by record, by time, in batches and following it must work; holding all of it at once may fail, by
    an error that says so, after which everything works again and no more descriptors are open than before.
    """
    rows = 400 * 1000
    with Platform(quick_dir / "store") as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 1000 * SIZE})
        with dw.create_writer("F") as writer:
            for at in range(0, rows, 8000):
                writer.write_batch(model.checked_records(at, 8000, at))
    with fault("F33", f"a feed of 400 chunks, few {limit}") as trials:
        done = run_python(WORKERS / "reads_in_want.py", quick_dir / "store", limit, 20 * scale, timeout=200 * scale)
        said = verdict(done.stdout)
        trials.done(said.pop("rounds"))
        trials.note(**said)


def test_many_threads_write_through_one_writer(quick_dir: Path, fault: Fault, scale: int) -> None:
    """F34. Eight threads append single records and small batches, across hundreds of rotations.

    What must be seen: each write whole at the position it returned, each thread's in its order, none lost.
    """
    each = 1500 * scale
    with Platform(quick_dir / "store") as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 500 * SIZE})
        at: list[list[int]] = [[] for _ in range(8)]

        def run(thread: int) -> None:
            batch = np.zeros(3, model.CHECKED)
            batch["position"] = np.arange(3)
            for number in range(each):
                batch["write"] = thread * 10**9 + number
                if number % 4:
                    at[thread].append(writer.write_values(*batch[0].item()[:-1], [0, 0]))
                else:
                    at[thread].append(writer.write_batch(batch))

        with fault("F34", "eight threads on one writer") as trials:
            with dw.create_writer("F") as writer:
                threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            with dw["F"] as reader:
                records = model.joined(reader.rows(0, reader.end), model.CHECKED)
            trials.done(sum(map(len, at)))
            check_threads(records, at, each)
            trials.note(chunks=len(model.chunk_files(quick_dir / "store" / "data" / "F")))


def check_threads(records: np.ndarray, at: list[list[int]], each: int) -> None:
    assert len(records) == 8 * sum(1 if number % 4 else 3 for number in range(each))
    for thread, own in enumerate(at):
        assert own == sorted(own)
        for number, position in enumerate(own):
            rows = records[position : position + (1 if number % 4 else 3)]
            assert (rows["write"] == thread * 10**9 + number).all()
            assert rows["position"].tolist() == list(range(len(rows)))


def test_the_machines_clock_steps_back_stands_and_jumps(
    quick_dir: Path, fault: Fault, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F30. Between writes the clock of the machine is set back or forward by up to hours, or stands still.

    Records are stamped with it, chunks rotate by it. What must be seen: every record is there once, in the order of the
    writes, a read by time is the mask over all of them, a follower sees each position once.
    """
    now, real = [model.EPOCH_2026 * 1000], random.Random(30)
    monkeypatch.setattr("time.time_ns", lambda: now[0])
    spec = {**SPEC, "chunk_size_bytes": 60 * SIZE, "rotate_s": 600}
    with fault("F30", "the machine's clock steps back, stands, jumps") as trials, Platform(quick_dir / "store") as dw:
        dw.create_feed(spec)
        wrote: list[int] = []
        with dw.create_writer("F") as writer, dw["F"] as reader:
            follower = reader.follow("earliest", timeout=0)
            seen = 0
            for number in range(1000 * scale):
                hours = real.choice((0, 0, 0, 1e-6, 1e-3, 0.2, -0.2, 2, -2)) * real.random()
                now[0] = max(10**18, now[0] + int(hours * 3600e9))
                batch = model.checked_records(writer.end, real.choice((1, 2, 7)), number)
                batch["ts_us"] = now[0] // 1000
                writer.write_batch(batch)
                wrote += batch["ts_us"].tolist()
                seen += sum(map(len, follower))
                trials.done()
            assert seen == len(wrote) == reader.end
            stamps = np.array(wrote)
            for _ in range(50):
                low, high = sorted(real.choices(wrote, k=2))
                found = reader.read(low, high).to_numpy()["position"]
                assert found.tolist() == np.flatnonzero((stamps >= low) & (stamps <= high)).tolist()
            trials.note(steps_back=int((np.diff(stamps) < 0).sum()), chunks=len(reader._chain))
