"""Waiting for records: what ends a wait, what it costs the writer, and that no wake-up is lost.

Where a test says that a reader sleeps, the kernel has said so (`live_kit.until_asleep`). Where it says that a wake-up
came, the bound of sleeps is raised so far that a lost one hangs the test until its deadline.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import live_kit
import model
import processes
from deepwater import ClosedError, FeedNotFoundError, LappedError, Platform, futex, waiting, wake
from deepwater.files import Directory
from deepwater.futex import Futex
from deepwater.ring_files import SharedPlace
from deepwater.waiting import Waiter
from deepwater.wake import Bell, Sleeper
from live_kit import SIZE, Tail, batch, values_of
from processes import Worker

ROUNDS = int(os.environ.get("WAKE_ROUNDS", "20000"))
KIND = pytest.mark.parametrize("kind", ["feed", "ring"])
WAIT = pytest.mark.parametrize("wait", waiting.WAITS)
needs_futex = pytest.mark.skipif(not futex.available(), reason="needs futexes")
needs_barrier = pytest.mark.skipif(
    not (futex.available() and futex.barrier()), reason="needs futexes and membarrier: sleeps are bounded without them"
)


@pytest.fixture
def kind() -> str:
    return "feed"


@pytest.fixture
def dw(tmp_store: Path, kind: str) -> Iterator[Platform]:
    with Platform(tmp_store) as made:
        made.create_feed(live_kit.spec(kind))
        yield made
        live_kit.delete_feeds(made)


@pytest.fixture
def sleeps_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a wake-up ends a sleep."""
    monkeypatch.setattr(wake, "BOUND_S", live_kit.FOR_EVER_S)
    monkeypatch.setattr(wake, "FENCED_BOUND_S", live_kit.FOR_EVER_S)


def place_of(dw: Platform) -> Path:
    return Path(dw._store.shared.path)


def wake_file(dw: Platform, name: str = "F") -> Path:
    return place_of(dw) / f"{name}.wake"


# -------------------------------------------------------------------------------- what ends a wait: a record


@needs_barrier
@KIND
@WAIT
@pytest.mark.usefixtures("sleeps_for_ever")
def test_records_end_the_waits_of_a_thread_through_a_feeds_whole_life(dw: Platform, wait: Any) -> None:
    """No file yet, every way of writing, rotations, resizes, the writer closed and another one opened."""
    tail = Tail(dw["F"].follow("earliest", wait=wait))
    tail.until_waiting(words=False)
    end = 0
    for _ in range(2):
        with dw.create_writer("F") as writer:
            for way in ("values", "values", "few", "rotating", "bytes", "staged", "resized", "values", "few"):
                tail.until_waiting()
                records = batch(end, {"values": 1, "rotating": 35}.get(way, 3))
                if way == "values":
                    writer.write_values(*values_of(records[0]))
                elif way == "bytes":
                    writer.write_batch_bytes(records.tobytes())
                elif way == "staged":
                    for record in records:
                        writer.stage_values(*values_of(record))
                    writer.commit_values()
                else:
                    if way == "resized":
                        writer.resize_chunk_size(writer.settings.chunk_size_bytes + 4 * SIZE)
                    writer.write_batch(records)
                end += len(records)
                tail.expect(end)
            tail.until_waiting()
    tail.until_waiting(words=False)
    tail.follower.close()
    tail.join()
    assert tail.error is None
    model.whole_writes(model.joined(tail.kept, model.CHECKED))


READS = """
import sys
from deepwater import Platform, wake
base, mode, bound = sys.argv[1], sys.argv[2], float(sys.argv[3])
wake.BOUND_S = wake.FENCED_BOUND_S = bound
follower = Platform(base)["F"].follow("earliest", wait=mode)
print("ready", flush=True)
for records in follower:
    print(*records["position"].tolist(), flush=True)
"""

WRITES = """
import sys
import live_kit
from deepwater import Platform
dw, writer = Platform(sys.argv[1]), None
for line in map(str.strip, sys.stdin):
    if not line.isdigit():
        if line == "again":
            writer.close()
        writer = dw.create_writer("F")
    else:
        records = live_kit.batch(writer.end, int(line))
        if len(records) == 1:
            writer.write_values(*live_kit.values_of(records[0]))
        else:
            writer.write_batch(records)
    print(writer.end, flush=True)
"""


@needs_barrier
@pytest.mark.faults
@KIND
def test_records_end_the_waits_of_processes_across_successors_and_kills(dw: Platform) -> None:
    """Readers of each way come first; the writer is closed and opened again, then killed, and another goes on."""
    end = 0
    with ExitStack() as stack:
        readers = {
            wait: stack.enter_context(Worker(READS, dw.base_path, wait, live_kit.FOR_EVER_S)) for wait in waiting.WAITS
        }
        writers = [stack.enter_context(Worker(WRITES, dw.base_path)) for _ in range(2)]
        assert {reader.readline() for reader in readers.values()} == {"ready"}
        for writer in writers:
            writer.send("open")
            assert writer.readline() == str(end)
            for order in (1, 2, 35, "again", 1, 7):
                for wait, reader in readers.items():
                    if wait != "spin":
                        live_kit.until_asleep(reader.pid)
                writer.send(order)
                stop = int(writer.readline())
                for reader in readers.values():
                    at = end
                    while at < stop:
                        got = [int(word) for word in reader.readline().split()]
                        assert got == list(range(at, at + len(got)))
                        at += len(got)
                end = stop
            for wait, reader in readers.items():
                if wait != "spin":
                    live_kit.until_asleep(reader.pid)
            writer.kill()
    assert end == 2 * 46


@needs_futex
@KIND
@pytest.mark.parametrize("wait", ["auto", "wake"])
def test_a_wake_up_that_never_comes_costs_no_more_than_the_bound(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, wait: Any
) -> None:
    """A writer may be killed between its store and the waking."""
    monkeypatch.setattr(Bell, "ring", lambda self: None)
    monkeypatch.setattr(wake, "FENCED_BOUND_S", 0.05)
    tail = Tail(dw["F"].follow("earliest", wait=wait))
    with dw.create_writer("F") as writer:
        for end in range(0, 9, 3):
            tail.until_waiting()
            writer.write_batch(batch(end, 3))
            tail.expect(end + 3)
    tail.follower.close()
    tail.join()


# -------------------------------------------------------------------------------- what ends a wait: all else


@needs_futex
@KIND
@WAIT
@pytest.mark.usefixtures("sleeps_for_ever")
def test_close_from_another_thread_ends_a_wait(dw: Platform, wait: Any) -> None:
    """Before there is a writer, with one, and after it."""
    for state in ("before", "with", "after"):
        if state == "with":
            writer = dw.create_writer("F")
            writer.write_batch(batch(0, 3))
        elif state == "after":
            writer.close()
        tail = Tail(dw["F"].follow("latest", wait=wait))
        tail.until_waiting(words=state == "with")
        tail.follower.close()
        tail.join()
        assert tail.error is None and not tail.kept
        assert list(tail.follower) == []


@needs_futex
@pytest.mark.usefixtures("sleeps_for_ever")
def test_close_just_before_the_sleep_is_not_missed(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its waking comes when nobody sleeps yet: who is about to has to look once more for that too."""
    follower = dw["F"].follow("latest", wait="wake")
    slept: list[bool] = []
    sleep = Sleeper.sleep

    def closed_meanwhile(self: Sleeper, *args: Any) -> None:
        follower.close()
        sleep(self, *args)

    monkeypatch.setattr(Sleeper, "sleep", closed_meanwhile)
    monkeypatch.setattr(Futex, "wait", lambda self, value, seconds: slept.append(self.value == value))
    with dw.create_writer("F"):
        assert list(follower) == []
    assert True not in slept


WAITS_FOR_CTRL_C = """
import sys
from deepwater import Platform, wake, waiting
base, mode = sys.argv[1:]
wake.BOUND_S = wake.FENCED_BOUND_S = 10_000.0
step, steps = waiting.Waiter.step, 0
def counted(self, until):
    global steps
    steps += 1
    if steps == 100:
        print("waiting", flush=True)
    step(self, until)
if mode == "spin":
    waiting.Waiter.step = counted
else:
    print("asleep", flush=True)
with Platform(base)["F"].follow("earliest", wait=mode) as follower:
    for records in follower:
        pass
"""


@needs_futex
@KIND
@WAIT
def test_ctrl_c_ends_a_wait_as_it_ends_any_program(dw: Platform, wait: Any) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 25))
        with Worker(WAITS_FOR_CTRL_C, dw.base_path, wait) as reader:
            reader.readline()
            if wait != "spin":
                live_kit.until_asleep(reader.pid)
            assert reader.kill(signal.SIGINT) == -signal.SIGINT
            assert reader.stderr().rstrip().endswith("KeyboardInterrupt")


@KIND
@WAIT
def test_a_timeout_ends_a_wait(dw: Platform, wait: Any) -> None:
    follower = dw["F"].follow("earliest", wait=wait, timeout=0.05)
    assert list(follower) == []
    with dw.create_writer("F") as writer:
        assert list(follower) == []
        writer.write_batch(batch(0, 3))
        assert [len(records) for records in follower] == [3]
    assert list(follower) == []


@KIND
@WAIT
def test_the_deletion_of_the_feed_ends_a_wait(dw: Platform, wait: Any) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 3))
        tail = Tail(dw["F"].follow("earliest", wait=wait))
        tail.expect(3)
        tail.until_waiting()
    dw.delete_feed("F")
    tail.join()
    assert isinstance(tail.error, FeedNotFoundError)


@KIND
@WAIT
def test_poll_never_waits_and_a_closed_follower_says_so(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, wait: Any
) -> None:
    def refused(*args: Any) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(Waiter, "step", refused)
    monkeypatch.setattr(Futex, "wait", refused)
    follower = dw["F"].follow("earliest", wait=wait, batch=2)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", refused)
        assert follower.poll() is None
        with dw.create_writer("F") as writer:
            assert follower.poll() is None
            writer.write_batch(batch(0, 3))
            got = [follower.poll(), follower.poll()]
            assert [records["position"].tolist() for records in got if records is not None] == [[0, 1], [2]]
            assert follower.poll() is None
    follower.close()
    with pytest.raises(ClosedError, match="closed"):
        follower.poll()
    follower.close()


# -------------------------------------------------------------------------------- what a wait costs the writer


@pytest.fixture
def wakes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that called `Futex.wake`, one entry a call."""
    calls: list[int] = []
    call = Futex.wake

    def counted(self: Futex) -> None:
        calls.append(threading.get_ident())
        call(self)

    monkeypatch.setattr(Futex, "wake", counted)
    return calls


@needs_futex
@KIND
def test_the_writer_wakes_once_when_somebody_waits_and_never_when_nobody_does(dw: Platform, wakes: list[int]) -> None:
    follower = dw["F"].follow("earliest", wait="wake")
    with dw.create_writer("F") as writer:
        ways: list[Callable[[np.ndarray], int]] = [
            lambda rows: writer.write_values(*values_of(rows[0])),
            writer.write_batch,
            lambda rows: writer.write_batch_bytes(rows.tobytes()),
            lambda rows: writer.write_batch({name: rows[name] for name in rows.dtype.names or ()}),
            lambda rows: (writer.stage_values(*values_of(rows[0])), writer.commit_values())[1],
        ]
        for way in ways:  # nobody waits: a follower that is there is not one that waits
            way(batch(writer.end, 1))
        assert not wakes
        for way in ways:
            while (records := follower.poll()) is not None:
                assert len(records)
            thread = threading.Thread(target=lambda: next(follower))
            thread.start()
            live_kit.until_asleep(os.getpid(), thread.native_id)
            for _ in range(3):  # the first wakes; then nobody waits any more
                way(batch(writer.end, 1))
                thread.join()
            assert wakes == [threading.get_ident()]
            wakes.clear()


TRACED = """
import os, sys
import live_kit
from deepwater import Platform
from deepwater.wake import WAITING
writer = Platform(sys.argv[1]).create_writer("F")
records = live_kit.batch(0, 10_000)
values = [live_kit.values_of(record) for record in records[:5_000]]
few = [records[at : at + 5].copy() for at in range(5_000, 7_500, 5)]
many = [records[at : at + 250].copy() for at in range(7_500, 10_000, 250)]
writer.write_batch(records[:300])
for row in values[:5]:
    writer.write_values(*row)
os.access("/begin", 0)
for row in values:
    writer.write_values(*row)
for rows in few:
    writer.write_batch(rows)
for rows in many:
    writer.write_batch(rows)
os.access("/nobody-waited", 0)
writer._bell.waiting[WAITING] = 1
writer.write_values(*values[0])
writer.write_values(*values[1])
os.access("/end", 0)
writer.close()
"""


@needs_futex
@KIND
def test_ten_thousand_records_take_no_futex_call_when_nobody_waits(tmp_path: Path, kind: str) -> None:
    """As the kernel sees it; and of two writes with somebody waiting, one wakes."""
    strace, out = shutil.which("strace"), tmp_path / "trace"
    if strace is None:
        pytest.skip("needs strace")
    with Platform(tmp_path / "store") as dw:
        dw.create_feed(live_kit.spec(kind, chunk_size_bytes=64 << 20 if kind == "feed" else 1000 * SIZE))
        command = processes._command(TRACED, (dw.base_path,), 60)
        done = subprocess.run(
            [strace, "-o", str(out), *command],
            check=False, capture_output=True, text=True, env=processes.environment(),
        )  # fmt: skip
        if "ptrace" in done.stderr.lower():
            pytest.skip(f"strace may not trace here: {done.stderr}")
        assert done.returncode == 0, done.stderr
        live_kit.delete_feeds(dw)
    calls: dict[str, list[str]] = {"": []}
    for line in out.read_text().splitlines():
        marker = next((m for m in ("/begin", "/nobody-waited", "/end") if f'"{m}"' in line), None)
        calls.setdefault(marker, []) if marker else calls[list(calls)[-1]].append(line)
    print(f"{kind}: {len(calls['/begin'])} system calls in 10,000 records:", *calls["/begin"][:20], sep="\n  ")
    # PRIVATE are the interpreter's own, between its threads.
    ours = {at: [line for line in lines if re.match(r"futex\((?!.*PRIVATE)", line)] for at, lines in calls.items()}
    assert not ours["/begin"] and len(ours["/nobody-waited"]) == 1
    if kind == "ring":
        looks = [line for line in calls["/begin"] if line.startswith("newfstatat(")]  # is the feed there: each second
        assert len(calls["/begin"]) - len(looks) <= 5 and len(looks) < 100  # the allocator's; nothing for each write


# -------------------------------------------------------------------------------- the lost wake-up

PING_PONG = """
import sys, time
import live_kit
from deepwater import Platform, wake
from deepwater.futex import Futex
base, mine, theirs, rounds, begins = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "begins"
wake.BOUND_S = wake.FENCED_BOUND_S = 30.0
sleeps = stalls = 0
wait = Futex.wait
def counted(self, value, seconds):
    global sleeps
    sleeps += 1
    wait(self, value, seconds)
Futex.wait = counted
dw = Platform(base)
writer, follower = dw.create_writer(mine), dw[theirs].follow("earliest", wait="wake")
values = list(live_kit.values_of(live_kit.batch(0, 1)[0]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    values[1] = number
    if begins:
        writer.write_values(*values)
    began = time.monotonic()
    records = next(follower)
    stalls += time.monotonic() - began > 5
    assert records["position"].tolist() == [number]
    if not begins:
        writer.write_values(*values)
print(sleeps, stalls, flush=True)
sys.stdin.readline()
writer.close()
"""


@pytest.mark.slow
@needs_barrier
@KIND
def test_no_wake_up_is_lost_in_a_ping_pong_of_two_processes(dw: Platform, kind: str) -> None:
    """Sleeps are bounded by 30 s in both: one lost wake-up would stall the run. More: ``WAKE_ROUNDS=1000000``."""
    rounds = ROUNDS // 2
    for name in ("PING", "PONG"):
        dw.create_feed(live_kit.spec(kind, name, chunk_size_bytes=1000 * SIZE))
    deadline = 200 + rounds / 1000
    with (
        Worker(PING_PONG, dw.base_path, "PING", "PONG", rounds, "begins", timeout=deadline) as one,
        Worker(PING_PONG, dw.base_path, "PONG", "PING", rounds, "answers", timeout=deadline) as other,
    ):
        for worker in (one, other):
            assert worker.readline() == "ready"
        began = time.monotonic()
        for worker in (one, other):
            worker.send("go")
        said = [tuple(map(int, worker.readline().split())) for worker in (one, other)]
        took = time.monotonic() - began
        for worker in (one, other):
            worker.send("end")
            worker.finish()
    print(f"{kind}: {rounds} rounds in {took:.1f} s; (sleeps, stalls): {said}")
    assert [stalls for _, stalls in said] == [0, 0]
    assert sum(sleeps for sleeps, _ in said) >= rounds // 20  # else nothing was put to the test


@needs_futex
@pytest.mark.parametrize("looks_again", [True, False])
def test_without_the_second_look_a_record_written_just_before_the_sleep_is_slept_on(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, looks_again: bool
) -> None:
    """One order, forced: the reader has looked; the record is published, and nobody waits yet; the reader sleeps."""
    sleep, slept_on = Sleeper.sleep, []

    def written_meanwhile(self: Sleeper, nothing_new: Callable[[], bool], seconds: float) -> None:
        if follower.position == writer.end:
            writer.write_batch(batch(writer.end, 1))
        sleep(self, nothing_new if looks_again else lambda: True, seconds)

    def in_the_kernel(self: Futex, value: int, seconds: float) -> None:
        slept_on.append((writer.end - follower.position, self.value == value))

    monkeypatch.setattr(Sleeper, "sleep", written_meanwhile)
    monkeypatch.setattr(Futex, "wait", in_the_kernel)
    with dw.create_writer("F") as writer:
        follower = dw["F"].follow("latest", wait="wake")
        assert next(follower)["position"].tolist() == [0]
    # A record there, and the word unchanged: the kernel would let it sleep until the bound.
    assert slept_on == ([] if looks_again else [(1, True)])


@needs_futex
@pytest.mark.parametrize("moment", ["before the second look", "after it"])
def test_a_record_written_when_the_reader_has_said_that_it_waits_wakes_it(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, wakes: list[int], moment: str
) -> None:
    """Published after "somebody waits" is stored: the writer rings, and the sleep does not begin."""
    slept_on: list[bool] = []
    wait, barrier = Futex.wait, futex.barrier

    def write() -> None:
        if not wakes:
            writer.write_batch(batch(writer.end, 1))

    def fenced() -> bool:
        if moment == "before the second look":
            write()
        return barrier()

    def in_the_kernel(self: Futex, value: int, seconds: float) -> None:
        if moment == "after it":
            write()
        slept_on.append(self.value == value)
        wait(self, value, seconds)

    monkeypatch.setattr(futex, "barrier", fenced)
    monkeypatch.setattr(Futex, "wait", in_the_kernel)
    with dw.create_writer("F") as writer:
        follower = dw["F"].follow("latest", wait="wake")
        assert next(follower)["position"].tolist() == [0]
        assert len(wakes) == 1
    assert slept_on == ([] if moment == "before the second look" else [False])


@needs_futex
def test_who_says_that_it_waits_in_the_middle_of_a_waking_is_woken_by_it(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its 1 is overwritten by the waking's 0, and the word changes after it has loaded it."""
    slept_on: list[bool] = []

    def fenced() -> bool:
        if not slept_on:
            writer._bell.ring()  # of an earlier record, which this reader has
        return True

    def in_the_kernel(self: Futex, value: int, seconds: float) -> None:
        slept_on.append(self.value == value)
        writer.write_batch(batch(writer.end, 1))

    monkeypatch.setattr(futex, "barrier", fenced)
    monkeypatch.setattr(Futex, "wait", in_the_kernel)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 1))
        follower = dw["F"].follow("earliest", wait="wake")
        assert next(follower)["position"].tolist() == [0]
        assert next(follower)["position"].tolist() == [1]
    assert slept_on == [False]


# -------------------------------------------------------------------------------- nothing to be woken by


def all_ways_get_everything(dw: Platform, writer: Any) -> None:
    """Followers of each way of waiting that knows the words get every record that `writer` writes now."""
    end = writer.end
    tails = [Tail(dw["F"].follow("latest", wait=wait)) for wait in ("auto", "wake")]
    for rows in (1, 3, 35, 2):
        for tail in tails:
            tail.until_waiting(words=False)
        writer.write_batch(batch(end, rows))
        end += rows
        for tail in tails:
            tail.expect(end)
    for tail in tails:
        tail.follower.close()
        tail.join()
        assert tail.error is None


@KIND
@pytest.mark.parametrize("where", ["nowhere", "not with the writer", "not with the readers"])
def test_readers_get_everything_without_futexes(dw: Platform, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    available = futex.available

    def only_there() -> bool:
        if where == "nowhere":
            return False
        is_writer = threading.current_thread() is threading.main_thread()
        return available() and is_writer == (where == "not with the readers")

    monkeypatch.setattr(futex, "available", only_there)
    with dw.create_writer("F") as writer:
        assert wake_file(dw).exists() == (where == "not with the readers" and available())
        all_ways_get_everything(dw, writer)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "absent": lambda path: None,
    "garbage": lambda path: path.write_bytes(np.random.default_rng(1).bytes(16384)),
    "empty": lambda path: path.touch(),
    "half a page": lambda path: path.write_bytes(wake.MAGIC + bytes(100)),
    "another's": lambda path: path.write_bytes(wake.MAGIC + bytes(16376)),
    "directory": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("/dev/null"),
    "fifo": os.mkfifo,
}


@needs_futex
@pytest.mark.faults
@KIND
@pytest.mark.parametrize("damage", DAMAGES)
def test_readers_get_everything_whatever_stands_in_the_wake_files_place(
    dw: Platform, kind: str, damage: str
) -> None:
    """Put there while the writer has it open, then found there by the next writer."""
    with dw.create_writer("F") as writer:
        path = wake_file(dw)
        path.unlink()
        DAMAGES[damage](path)
        all_ways_get_everything(dw, writer)
    place_of(dw).mkdir(parents=True, exist_ok=True, mode=0o700)
    place_of(dw).parent.chmod(0o700)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    DAMAGES[damage](path)
    with dw.create_writer("F") as writer:
        all_ways_get_everything(dw, writer)
        if damage != "directory":
            assert path.read_bytes()[:8] == wake.MAGIC
    if damage == "directory":
        path.rmdir()
    assert not path.exists()


@needs_futex
@pytest.mark.faults
@KIND
def test_words_that_become_garbage_under_everybody_lose_no_record(dw: Platform, kind: str) -> None:
    """Whoever may write them may store anything: it costs wake-ups, never records."""
    with dw.create_writer("F") as writer, wake_file(dw).open("r+b") as file:
        for seed in range(3):
            file.seek(0)
            file.write(np.random.default_rng(seed).bytes(16384))
            file.flush()
            all_ways_get_everything(dw, writer)


AS_SOMEBODY_ELSE = """
import os, sys
from deepwater import Platform, futex
base, kind, access = sys.argv[1:]
if os.geteuid() == 0:
    next(Platform(base)["F"].follow("earliest", wait="wake"))  # what loads late is loaded as root
    next(Platform(base)["F"].follow("earliest", wait="auto"))
    futex.barrier()
    os.setgid(65534)
    os.setuid(65534)
if (kind, access) == ("ring", "closed"):
    try:
        Platform(base)["F"]
    except PermissionError as error:
        print(error, flush=True)
    sys.exit()
for mode in ("auto", "wake", "spin"):
    follower = Platform(base)["F"].follow("latest", wait=mode)
    print("ready", flush=True)
    for _ in range(3):
        print(*next(follower)["position"].tolist(), flush=True)
    assert not follower._waiter._sleeper.is_ready()
    follower.close()
"""


@needs_futex
@KIND
@pytest.mark.parametrize("access", ["open", "closed"])
def test_who_may_only_read_polls(monkeypatch: pytest.MonkeyPatch, kind: str, access: str) -> None:
    """Another user's reader: of a durable feed always, of a ring where its directory is opened to it."""
    base = Path(tempfile.mkdtemp(prefix="deepwater-test-"))  # tmp_path is closed to others
    (base / "shm").mkdir()
    monkeypatch.setenv("DEEPWATER_SHM", str(base / "shm"))  # the user's directory is opened and closed here
    try:
        with Platform(base) as dw:
            # No rotation: new files are 0600, so others can follow only until the next chunk.
            dw.create_feed(live_kit.spec(kind, chunk_size_bytes=1000 * SIZE))
            with dw.create_writer("F") as writer:
                writer.write_batch(batch(0, 3))
                if access == "open":
                    wake_file(dw).chmod(0o644 if os.geteuid() == 0 else 0o444)
                    for path in place_of(dw).glob("F-*"):
                        path.chmod(0o644)
                    place_of(dw).chmod(0o755)
                    place_of(dw).parent.chmod(0o755)
                elif os.geteuid() != 0:
                    pytest.skip("needs root to become somebody else")
                base.chmod(0o755)
                (base / "shm").chmod(0o755)
                subprocess.run(["chmod", "-R", "a+rX", base / "data", base / "store.json"], check=True)
                with Worker(AS_SOMEBODY_ELSE, base, kind, access) as reader:
                    if (kind, access) == ("ring", "closed"):
                        assert str(place_of(dw).parent) in reader.finish()
                        return
                    for _ in waiting.WAITS:
                        assert reader.readline() == "ready"
                        for _ in range(3):
                            end = writer.write_batch(batch(writer.end, 1))
                            assert reader.readline() == str(end)
                    reader.finish()
            live_kit.delete_feeds(dw)
    finally:
        shutil.rmtree(base)


# -------------------------------------------------------------------------------- the wake file


@needs_futex
def test_the_wake_file_and_its_directories_live_as_long_as_a_writer(dw: Platform) -> None:
    place = place_of(dw)
    dw.create_feed(live_kit.spec("feed", "G"))
    reader = dw["F"].follow("earliest", wait="wake", timeout=0.03)
    assert list(reader) == [] and not place.exists()  # readers make nothing
    with dw.create_writer("F"):
        names = {path.name for path in place.iterdir()}
        assert names == {"store.json", "F.wake"}
        assert stat.S_IMODE(wake_file(dw).stat().st_mode) == 0o600
        assert stat.S_IMODE(place.stat().st_mode) == stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        with dw.create_writer("G"):
            assert {path.name for path in place.iterdir()} == {"store.json", "F.wake", "G.wake"}
        assert {path.name for path in place.iterdir()} == {"store.json", "F.wake"}
        assert list(reader) == []
    assert not place.exists()


@needs_futex
def test_a_private_shared_memory_is_left_as_empty_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's directory goes with the last store in it."""
    root = tmp_path / "shm"
    root.mkdir()
    monkeypatch.setenv("DEEPWATER_SHM", str(root))
    with Platform(tmp_path / "one") as one, Platform(tmp_path / "two") as two:
        for dw, kind in ((one, "feed"), (two, "ring")):
            dw.create_feed(live_kit.spec(kind))
        with one.create_writer("F"), two.create_writer("F"):
            (user,) = root.iterdir()
            assert len(list(user.iterdir())) == 2
        assert len(list(user.iterdir())) == 1  # a ring stays
        two.delete_feed("F")
    assert list(root.iterdir()) == []


OPENS_AND_CLOSES = """
import os, sys, random
import live_kit
from deepwater import Platform
base, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
dw, rng, alone = Platform(base), random.Random(name), 0
path = os.path.join(dw._store.shared.path, name + ".wake")
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    alone += not os.path.exists(dw._store.shared.path)
    with dw.create_writer(name) as writer:
        page = writer._bell._page
        for _ in range(rng.randrange(3)):
            assert page is not None and not page.is_gone, number
            assert os.stat(path).st_ino == os.fstat(page._fd).st_ino, number
            assert writer.write_batch(live_kit.batch(writer.end, 1)) == writer.end - 1
        assert not page.is_gone, number
    assert not os.path.exists(path), number
print(alone, flush=True)
"""


@needs_futex
def test_writers_that_open_and_close_at_once_do_not_lose_each_others_files(dw: Platform) -> None:
    """Two processes, 200 rounds each; how often one of them had to make the directory again is printed."""
    dw.create_feed(live_kit.spec("feed", "G"))
    args = (OPENS_AND_CLOSES, dw.base_path)
    with Worker(*args, "F", 200) as one, Worker(*args, "G", 200) as two:
        for worker in (one, two):
            assert worker.readline() == "ready"
        for worker in (one, two):
            worker.send("go")
        print("made again:", [int(worker.finish()) for worker in (one, two)])
    assert not place_of(dw).exists()


STEPS: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "before the note is removed": (Directory, "remove", lambda _, name: name == "store.json"),
    "before the directory is removed": (os, "rmdir", lambda path: "deepwater" not in os.path.basename(path)),
    "before the user's directory is": (os, "rmdir", lambda path: "deepwater" in os.path.basename(path)),
}


@needs_futex
@pytest.mark.parametrize("step", STEPS)
def test_a_writer_that_opens_while_another_tidies_up_keeps_its_files(
    dw: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("DEEPWATER_SHM", str(tmp_path / "shm"))
    where, name, is_it = STEPS[step]
    original, came = getattr(where, name), []
    with Platform(dw.base_path) as own:
        own.create_feed(live_kit.spec("feed", "G"))
        first = own.create_writer("F")

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            if is_it(*args) and not came:
                came.append(None)
                came[0] = own.create_writer("G")
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(where, name, interrupted)
            first.close()
        assert came
        assert {path.name for path in place_of(own).iterdir()} == {"store.json", "G.wake"}
        assert not came[0]._bell._page.is_gone
        came[0].close()
        assert not place_of(own).exists()
        own.delete_feed("G")


@needs_futex
@pytest.mark.parametrize("kind", ["feed", "ring"])
@pytest.mark.parametrize("step", ["_make", "open"])
def test_a_writer_whose_directory_is_tidied_away_while_it_opens_makes_it_again(
    dw: Platform, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("DEEPWATER_SHM", str(tmp_path / "shm"))
    original = getattr(SharedPlace, step)
    with Platform(dw.base_path) as own:
        own.create_feed(live_kit.spec("feed", "G"))
        leaving = [own.create_writer("G")]

        def interrupted(self: SharedPlace) -> Any:
            result = original(self)
            if leaving:
                leaving.pop().close()
            return result

        with monkeypatch.context() as patch:
            patch.setattr(SharedPlace, step, interrupted)
            writer = own.create_writer("F")
        assert not leaving
        names = {path.name for path in place_of(own).iterdir()}
        assert names == {"store.json", "F.wake"} | ({"F-1"} if kind == "ring" else set())
        assert not writer._bell._page.is_gone
        writer.close()
        live_kit.delete_feeds(own)
        assert not place_of(own).exists()
        own.create_feed(live_kit.spec(kind))


# -------------------------------------------------------------------------------- event loops


async def collected(follower: Any, stop: int) -> list[int]:
    """The positions of what a follower hands out, until `stop` is reached."""
    got: list[int] = []
    async for records in follower:
        column = records["position"] if isinstance(records, np.ndarray) else records.column("position")
        got += map(int, column.tolist() if isinstance(records, np.ndarray) else column.to_pylist())
        if got[-1] + 1 >= stop:
            break
    return got


async def until_in_wait(follower: Any) -> None:
    """Let the loop run until the follower waits in its thread (a spinner: some rounds of the loop)."""
    for _ in range(20):
        await asyncio.sleep(0)
    while not follower._spins and not follower._in_wait.locked():  # noqa: ASYNC110 (it is a thread that takes it)
        await asyncio.sleep(0.001)


def threads_of_followers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("deepwater-follow")]


@KIND
def test_followers_in_one_loop_get_history_and_then_what_is_written(dw: Platform) -> None:
    async def main() -> list[list[int]]:
        with dw.create_writer("F") as writer:
            writer.write_batch(batch(0, 25))
            followers = [
                dw["F"].follow("earliest", wait=wait, as_=as_, batch=most)
                for wait, as_, most in [
                    ("auto", "numpy", None), ("wake", "numpy", 3), ("spin", "numpy", None), ("wake", "arrow", None),
                    ("spin", "arrow", 7), ("auto", "arrow", 1),
                ]
            ]  # fmt: skip
            tasks = [asyncio.create_task(collected(follower, 95)) for follower in followers]
            end = 25
            for rows in (1, 1, 20, 1, 1, 15, 30, 1):
                for follower in followers:
                    await until_in_wait(follower)
                writer.write_batch(batch(end, rows))
                end += rows
            got = await asyncio.gather(*tasks)
            for follower in followers:
                assert follower.position == 95 and follower.lost == 0
                follower.close()
            return got

    assert asyncio.run(main()) == [list(range(95))] * 6


@KIND
@WAIT
def test_the_loop_runs_while_a_follower_waits(dw: Platform, wait: Any) -> None:
    """Another task makes its steps meanwhile, and it is that task which writes the record at last."""

    async def main() -> None:
        with dw.create_writer("F") as writer, dw["F"].follow("latest", wait=wait) as follower:
            steps = 0

            async def work() -> None:
                nonlocal steps
                for _ in range(200):
                    await asyncio.sleep(0)
                    steps += 1
                for _ in range(20):
                    await asyncio.sleep(0.001)
                    steps += 1
                await until_in_wait(follower)
                writer.write_batch(batch(0, 2))

            other = asyncio.create_task(work())
            assert (await anext(follower))["position"].tolist() == [0, 1]
            assert steps == 220
            await other

    asyncio.run(main())


@KIND
@WAIT
def test_a_timeout_ends_async_for_and_leaves_no_thread(dw: Platform, wait: Any) -> None:
    async def main(follower: Any) -> list[int]:
        return [int(position) async for records in follower for position in records["position"]]

    follower = dw["F"].follow("earliest", wait=wait, timeout=0.05)
    assert asyncio.run(main(follower)) == []
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 12))
        assert asyncio.run(main(follower)) == list(range(12))
        none_left()
        writer.write_batch(batch(12, 3))
        assert asyncio.run(main(follower)) == [12, 13, 14]
    none_left()
    assert follower.position == 15


def none_left() -> None:
    """No thread of a follower lives on: one that was told to go is waited for."""
    for thread in threads_of_followers():
        thread.join(live_kit.PATIENCE_S)
    assert not threads_of_followers()


@KIND
@WAIT
def test_close_from_another_task_ends_async_for(dw: Platform, wait: Any) -> None:
    async def main() -> None:
        with dw.create_writer("F") as writer:
            writer.write_batch(batch(0, 3))
            follower = dw["F"].follow("earliest", wait=wait)
            task = asyncio.create_task(collected(follower, 10**9))
            await until_in_wait(follower)
            follower.close()
            assert await task == [0, 1, 2]
            with pytest.raises(StopAsyncIteration):
                await anext(follower)

    asyncio.run(main())
    none_left()


def test_close_from_another_thread_as_the_wait_begins_ends_async_for(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look at whether it is closed and the hand-over to the thread."""
    follower = dw["F"].follow("earliest", wait="wake")
    thread_of = type(follower)._thread

    def closed_meanwhile(self: Any) -> Any:
        executor = thread_of(self)
        closer = threading.Thread(target=self.close)
        closer.start()
        closer.join()
        return executor

    monkeypatch.setattr(type(follower), "_thread", closed_meanwhile)
    assert asyncio.run(collected(follower, 1)) == []
    none_left()


@KIND
@WAIT
def test_a_cancelled_wait_loses_nothing_and_repeats_nothing(dw: Platform, wait: Any) -> None:
    """Cancelled while it surely waits, then a record, then again; and at any moment by short timeouts."""

    async def main() -> list[int]:
        got: list[int] = []
        with dw.create_writer("F") as writer, dw["F"].follow("earliest", wait=wait) as follower:
            for end in range(20):
                task = asyncio.create_task(anext(follower))
                await until_in_wait(follower)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                if end % 2:
                    writer.write_batch(batch(end - 1, 2))
                    got += (await anext(follower))["position"].tolist()

            async def write() -> None:
                for end in range(20, 90, 2):
                    await asyncio.sleep(0.0003)
                    writer.write_batch(batch(end, 2))

            task, cancelled = asyncio.create_task(write()), 0
            while len(got) < 90:
                try:
                    got += (await asyncio.wait_for(anext(follower), 0.0002))["position"].tolist()
                except TimeoutError:
                    cancelled += 1
            await task
            print(f"{wait}: cancelled {cancelled} times")
            assert cancelled
        return got

    assert asyncio.run(main()) == list(range(90))
    none_left()


@KIND
@WAIT
def test_the_deletion_of_the_feed_reaches_the_task(dw: Platform, wait: Any) -> None:
    async def main() -> None:
        with dw.create_writer("F") as writer:
            writer.write_batch(batch(0, 3))
        follower = dw["F"].follow("earliest", wait=wait)
        task = asyncio.create_task(collected(follower, 10**9))
        await until_in_wait(follower)
        dw.delete_feed("F")
        with pytest.raises(FeedNotFoundError, match="deleted"):
            await task

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["ring"])
@WAIT
def test_a_lap_reaches_the_task_which_then_goes_on(dw: Platform, wait: Any) -> None:
    async def main() -> None:
        with dw.create_writer("F") as writer, dw["F"].follow("earliest", wait=wait) as follower:
            task = asyncio.create_task(anext(follower))
            await until_in_wait(follower)
            for end in range(0, 250, 50):  # the loop does not run meanwhile
                writer.write_batch(batch(end, 50))
            with pytest.raises(LappedError) as caught:
                await task
            assert caught.value.lost == follower.lost == follower.position == 150
            assert await collected(follower, 250) == list(range(150, 250))

    asyncio.run(main())


def test_a_follower_that_nobody_holds_any_more_takes_its_thread_with_it(dw: Platform) -> None:
    async def main() -> None:
        follower = dw["F"].follow("earliest")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(follower), 0.05)
        assert threads_of_followers()

    asyncio.run(main())
    gc.collect()
    none_left()
