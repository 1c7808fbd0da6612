"""Staging: rows are checked when they are staged, and appear together, by one store, when they are committed."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import live_kit
import model
from deepwater import ClosedError, Platform, RecordError, StorageFullError
from deepwater.feed_writer import FeedWriter
from deepwater.segment import Segment
from deepwater.wake import WAITING, Bell
from live_kit import SIZE, batch, everything, values_of
from processes import Worker, run_python

KILLS = int(os.environ.get("STAGE_KILLS", "100"))
KIND = pytest.mark.parametrize("kind", ["feed", "ring"])


@pytest.fixture
def kind() -> str:
    return "feed"


@pytest.fixture
def dw(tmp_store: Path, kind: str) -> Iterator[Platform]:
    with Platform(tmp_store) as made:
        made.create_feed(live_kit.spec(kind))
        yield made
        live_kit.delete_feeds(made)


def stage(writer: FeedWriter, first: int, rows: int, **more: Any) -> None:
    """Stage the records of one write."""
    for record in model.checked_records(first, rows, write=first, **more):
        writer.stage_values(*values_of(record))


# -------------------------------------------------------------------------------- one commit


@KIND
@pytest.mark.parametrize("before", [0, 3, 10])
@pytest.mark.parametrize("rows", [1, 7, 10, 47])
def test_staged_rows_are_seen_by_nobody_and_then_all_at_once(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, before: int, rows: int
) -> None:
    """Readers that are there and readers that have just come look before and after each store of a commit word."""
    publish, seen = Segment.publish, []

    def looked_at(segment: Segment, word: int) -> None:
        old = len(watcher), len(everything(dw))
        publish(segment, word)
        new = len(watcher), len(everything(dw))
        assert old[0] == old[1] and new[0] == new[1]
        seen.append((old[0], new[0]))
        model.whole_writes(everything(dw))

    watcher = dw["F"]
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, before))
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "publish", looked_at)  # before the writer is made: it keeps the bound method
        with dw.create_writer("F") as writer:
            for number, record in enumerate(batch(before, rows), 1):
                assert writer.stage_values(*values_of(record)) == number == writer.staged
                assert writer.end == len(watcher) == before
            assert not seen
            assert writer.commit_values() == before
            assert writer.staged == 0 and writer.end == before + rows
    assert [step for step in seen if step[0] != step[1]] == [(before, before + rows)]
    model.whole_writes(everything(dw))


@KIND
def test_another_process_sees_nothing_before_the_commit_and_everything_after_it(dw: Platform) -> None:
    looks = """
        import sys
        import live_kit, model
        from deepwater import Platform
        dw = Platform(sys.argv[1])
        there = dw["F"]
        for _ in sys.stdin:
            records = live_kit.everything(dw)
            assert len(there) == len(records)
            print(len(model.whole_writes(records)), len(records), flush=True)
    """
    with dw.create_writer("F") as writer, Worker(looks, dw.base_path) as reader:
        for write in range(5):
            stage(writer, write * 17, 17)
            for wanted in (write, write + 1):
                reader.send("look")
                assert reader.readline() == f"{wanted} {wanted * 17}"
                if wanted == write:
                    writer.commit_values()


FIELDS: list[dict[str, str]] = [
    {"name": "ts_us", "type": "uint64"}, {"name": "side", "type": "char"}, {"name": "ok", "type": "bool"},
    {"name": "_", "type": "_2"}, {"name": "qty", "type": "int32"}, {"name": "price", "type": "float64"},
    {"name": "book", "type": "float64[3]"}, {"name": "name", "type": "char[6]"}, {"name": "half", "type": "float16"},
    {"name": "flags", "type": "bool[8]"},
]  # fmt: skip
ODD_VALUES: list[tuple[Any, ...]] = [
    (1, "B", True, -5, 1.5, [1, 2, 3], "abc", 0.5, [True] * 8),
    (np.datetime64(7, "s"), b"S", np.bool_(False), np.int64(7), np.float32(0.1), np.arange(3), b"xy", 1, [0, 1] * 4),
    (np.uint64(2**64 - 1), "", 1, 0, 3, (0.0, float("nan"), -0.0), "", np.float16(2), np.zeros(8, bool)),
]


@KIND
@pytest.mark.parametrize("padded", [False, True])
def test_staged_rows_are_stored_as_write_values_would_store_them(dw: Platform, kind: str, padded: bool) -> None:
    """Chars, arrays, bools and conversions; and the plain columns that `struct` packs."""
    fields = FIELDS if padded else [f for f in FIELDS if f["name"] in ("ts_us", "side", "qty", "price")]
    if not padded:
        fields = [*fields[:2], {"name": "_", "type": "_3"}, *fields[2:]]
    keep = [k for k, f in enumerate(f for f in FIELDS if f["name"] != "_") if f in fields]
    rows = [tuple(values[k] for k in keep) for values in ODD_VALUES]
    contents = []
    for name in ("VALUES", "STAGED"):
        dw.create_feed(live_kit.spec(kind, name, fields=fields, chunk_size_bytes=1 << 16))
        with dw.create_writer(name) as writer:
            for values in rows:
                if name == "VALUES":
                    writer.write_values(*values)
                else:
                    writer.stage_values(*values)
            writer.commit_values()
            wrong: list[tuple[Any, ...]] = [rows[0][:-1], (*rows[0], 1), ("x", *rows[0][1:]), (1.5, *rows[0][1:])]
            for values in wrong:
                refusals = []
                for use in (writer.write_values, writer.stage_values):
                    with pytest.raises(RecordError) as caught:
                        use(*values)
                    refusals.append(str(caught.value))
                assert refusals[0] == refusals[1]
            assert writer.staged == 0 and writer.end == 3
        with dw[name] as reader:
            contents.append(model.content(reader.rows(0, 9)))
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3 * model.dtype_of(fields).itemsize


@KIND
def test_a_bad_value_leaves_the_rows_staged_before_it(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        stage(writer, 0, 3)
        for wrong in ((-1,), (0, "x"), (2**64,)):
            values = values_of(batch(3, 1)[0])
            with pytest.raises(RecordError) as caught:
                writer.stage_values(*wrong, *values[len(wrong) :])
            assert caught.value.column in ("ts_us", "position")
        assert writer.staged == 3
        writer.stage_values(*values_of(model.checked_records(3, 1, write=0)[0]))
        assert writer.commit_values() == 0
    assert everything(dw)["position"].tolist() == [0, 1, 2, 3]


@KIND
def test_commits_follow_one_another_and_an_empty_one_changes_nothing(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        assert writer.commit_values() == 0 == writer.discard_values()
        end = 0
        for rows in (1, 3, 25, 10, 9, 1):
            stage(writer, end, rows)
            assert writer.commit_values() == end
            end += rows
            assert writer.commit_values() == end == writer.end
    model.whole_writes(everything(dw))


@pytest.mark.parametrize("rows", [1, 25, 300])
def test_a_commit_across_chunks_is_one_snapshot_of_as_many_records(dw: Platform, rows: int) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 7))
        with pytest.raises(RecordError, match="empty"):
            writer.commit_values(create_index=True)
        stage(writer, 7, rows, snapshot=True)
        assert writer.commit_values(create_index=True) == 7
    marks = dw["F"].snapshots()
    assert (marks["position"].tolist(), marks["count"].tolist()) == ([7], [rows])
    assert len(model.chunk_files(Path(dw.base_path) / "data" / "F")) == -(-(7 + rows) // 10)
    model.whole_writes(everything(dw))


@KIND
def test_create_index_where_there_is_no_playback_keeps_the_rows_staged(dw: Platform, kind: str) -> None:
    changes = {"index_playback": False} if kind == "feed" else {}
    dw.create_feed(live_kit.spec(kind, "PLAIN", **changes))
    with dw.create_writer("PLAIN") as writer:
        stage(writer, 0, 4)
        with pytest.raises(RecordError, match="index_playback"):
            writer.commit_values(create_index=True)
        assert writer.staged == 4
        assert writer.commit_values() == 0
    assert len(everything(dw, "PLAIN")) == 4


# -------------------------------------------------------------------------------- what stays staged


@pytest.mark.parametrize("kind", ["ring"])
def test_a_commit_that_is_too_large_for_the_ring_stays_staged(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 5))
        stage(writer, 5, 51)
        for _ in range(2):
            with pytest.raises(RecordError, match="at most half"):
                writer.commit_values()
            assert writer.staged == 51 and writer.end == len(dw["F"]) == 5
        assert writer.discard_values() == 51
        stage(writer, 5, 50)
        assert writer.commit_values() == 5
        stage(writer, 55, 120)
        writer.resize_chunk_size(300 * SIZE)  # the way out that the message names
        assert writer.commit_values() == 55
    model.whole_writes(everything(dw))


def test_a_full_disk_keeps_the_rows_staged(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 5))
        stage(writer, 5, 35)
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", refused)
            for _ in range(3):
                with pytest.raises(StorageFullError):
                    writer.commit_values()
                assert writer.staged == 35 and len(dw["F"]) == 5
        assert writer.commit_values() == 5
        assert writer.staged == 0
    model.whole_writes(everything(dw))
    assert len(everything(dw)) == 40


# -------------------------------------------------------------------------------- other writes while rows are staged


@KIND
def test_every_other_write_is_refused_while_rows_are_staged(dw: Platform, kind: str) -> None:
    values = values_of(batch(2, 1)[0])
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 2))
        stage(writer, 2, 3)
        uses: dict[str, Callable[[], Any]] = {
            "values": lambda: writer.write_values(*values),
            "marked values": lambda: writer.write_values(*values, create_index=True),
            "few": lambda: writer.write_batch(batch(2, 1)),
            "some": lambda: writer.write_batch(batch(2, 9)),
            "many": lambda: writer.write_batch(batch(2, 45)),
            "columns": lambda: writer.write_batch({n: batch(2, 3)[n] for n in model.CHECKED.names or ()}),
            "bytes": lambda: writer.write_batch_bytes(batch(2, 1).tobytes()),
        }
        for what, use in uses.items():
            with pytest.raises(RecordError, match=r"staged|index_playback") as caught:
                use()
            if what != "marked values":
                assert "records are staged (3)" in str(caught.value), what
            assert writer.staged == 3 and writer.end == len(dw["F"]) == 2, what
        if kind == "feed":
            assert writer.mark_gap(5) == 2
        writer.flush()
        writer.resize_chunk_size(writer.settings.chunk_size_bytes + 5 * SIZE)
        assert writer.staged == 3
        assert writer.commit_values() == 2
        assert writer.write_values(*values_of(batch(5, 1)[0])) == 5
        assert writer.write_batch(batch(6, 30)) == 6
    model.whole_writes(everything(dw))


# -------------------------------------------------------------------------------- the end of a writer


@KIND
def test_closing_with_rows_staged_says_so_and_drops_them(dw: Platform) -> None:
    writer = dw.create_writer("F")
    writer.write_batch(batch(0, 2))
    stage(writer, 2, 3)
    with pytest.warns(UserWarning, match="3 staged records dropped"):
        writer.close()
    writer.close()
    assert len(everything(dw)) == 2
    dw.create_writer("F").close()  # nothing was left locked


@KIND
def test_an_exception_in_the_block_drops_what_is_staged_and_is_the_only_word(dw: Platform) -> None:
    class Mine(Exception):  # noqa: N818
        pass

    def fails() -> None:
        with dw.create_writer("F") as writer:
            writer.write_batch(batch(0, 2))
            stage(writer, 2, 3)
            raise Mine

    with pytest.raises(Mine):
        fails()
    with pytest.warns(UserWarning, match="1 staged record dropped"), dw.create_writer("F") as writer:
        stage(writer, 2, 1)
    assert len(everything(dw)) == 2


@KIND
def test_use_after_close_raises(dw: Platform) -> None:
    writer = dw.create_writer("F")
    stage(writer, 0, 1)
    writer.commit_values()
    writer.close()
    for use in (lambda: stage(writer, 1, 1), writer.commit_values, lambda: writer.commit_values(create_index=True)):
        with pytest.raises(ClosedError, match="closed"):
            use()
    assert writer.staged == writer.discard_values() == 0
    assert len(everything(dw)) == 1


@pytest.mark.faults
@KIND
def test_a_forked_child_cannot_commit_what_its_parent_staged(dw: Platform) -> None:
    done = run_python(
        """
        import os, sys
        import live_kit
        from deepwater import ClosedError, Platform
        writer = Platform(sys.argv[1]).create_writer("F")
        values = [live_kit.values_of(record) for record in live_kit.batch(0, 3)]
        for row in values:
            writer.stage_values(*row)
        child = os.fork()
        if child == 0:
            for use in (writer.commit_values, lambda: writer.stage_values(*values[0])):
                try:
                    use()
                except ClosedError as error:
                    assert str(os.getppid()) in str(error)
                else:
                    os._exit(1)
            writer.close()
            del writer
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert writer.staged == 3 and writer.commit_values() == 0
        writer.close()
        print("fine")
        """,
        dw.base_path,
    )
    assert done.stdout == "fine\n" and not done.stderr
    assert everything(dw).tobytes() == batch(0, 3).tobytes()


COMMITS_UNTIL_KILLED = """
import mmap, os, random, signal, sys, time
import live_kit, model
from deepwater import Platform
base, kills, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rng, words, dw = random.Random(kind), memoryview(mmap.mmap(-1, 4096)).cast("Q"), Platform(base)
ACKNOWLEDGED, PHASE, COMMITS = 0, 1, 2

def commit_until_killed(seed):
    rng = random.Random(seed)
    writer = Platform(base).create_writer("F")
    end = writer.end
    while True:
        rows = rng.choice((1, 3, 10, 35, 48))
        for record in live_kit.batch(end, rows):
            writer.stage_values(*live_kit.values_of(record))
        words[PHASE] = rows
        assert writer.commit_values() == end
        end += rows
        words[ACKNOWLEDGED] = end
        words[PHASE] = 0
        words[COMMITS] += 1

inside = cut = 0
for kill in range(kills):
    seed, commits = rng.random(), words[COMMITS]
    pid = os.fork()
    if pid == 0:
        try:
            commit_until_killed(seed)
        finally:
            os._exit(1)
    while words[COMMITS] < commits + 3:
        os.sched_yield()
    if rng.random() < 0.7:
        while not words[PHASE]:
            pass
        until = time.perf_counter() + rng.random() ** 2 * (5e-3 if kind == "feed" else 100e-6)
        while time.perf_counter() < until:
            pass
    else:
        time.sleep(rng.random() * 0.002)
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL, "the child failed"
    with dw["F"] as reader:
        end = int(reader.end)
        assert end in (words[ACKNOWLEDGED], words[ACKNOWLEDGED] + words[PHASE]), (end, *words[:3])
        first = int(reader.first)
        records = model.joined(reader.rows(max(first, end - 50), end), model.CHECKED)
        starts = [p for p in range(len(records)) if records["first"][p] == records["position"][p]]
        model.whole_writes(records[starts[0] :], int(records["position"][starts[0]]))
    inside += words[PHASE] > 0
    cut += end == words[ACKNOWLEDGED] and words[PHASE] > 0
    words[ACKNOWLEDGED], words[PHASE] = end, 0
print(inside, cut, words[COMMITS])
"""


@pytest.mark.faults
@KIND
def test_a_commit_that_is_killed_is_whole_or_absent(dw: Platform, kind: str) -> None:
    """Killed at any moment; the next writer goes on where the dead one had published."""
    done = run_python(COMMITS_UNTIL_KILLED, dw.base_path, KILLS, kind, timeout=200)
    inside, cut, commits = map(int, done.stdout.split())
    print(f"{kind}: {KILLS} kills, {inside} inside a commit, {cut} of them before its store; {commits} commits")
    assert inside >= KILLS // 10
    if kind == "feed":
        model.whole_writes(everything(dw))


# -------------------------------------------------------------------------------- interrupts

MOMENTS = ("before the store", "after the store", "while waking")


@KIND
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("rows", [3, 33])
def test_an_interrupt_neither_loses_nor_doubles_a_commit(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, moment: str, rows: int
) -> None:
    """Whoever goes on simply commits again: what was published already is not staged any more."""
    publish, armed = Segment.publish, []

    def interrupted(segment: Segment, word: int) -> None:
        if armed and moment == "before the store":
            armed.clear()
            raise KeyboardInterrupt
        publish(segment, word)
        if armed and moment == "after the store" and len(dw["F"]) == 5 + rows:
            armed.clear()
            raise KeyboardInterrupt

    def ring(self: Bell) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Segment, "publish", interrupted)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 5))
        stage(writer, 5, rows)
        with monkeypatch.context() as patch:
            if moment == "while waking":
                patch.setattr(Bell, "ring", ring)
                writer._bell.waiting[WAITING] = 1
            else:
                armed.append(True)
            with pytest.raises(KeyboardInterrupt):
                writer.commit_values()
        published = moment != "before the store"
        assert len(dw["F"]) == writer.end == 5 + rows * published
        assert writer.staged == rows * (not published)
        assert writer.commit_values() == 5 + rows * published
        assert writer.end == 5 + rows
        stage(writer, 5 + rows, 2)
        assert writer.commit_values() == 5 + rows
    model.whole_writes(everything(dw))


@KIND
@pytest.mark.parametrize("moment", MOMENTS[:2])
def test_a_second_interrupt_while_the_first_is_cleared_up_does_neither(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Ctrl-C twice: the writer could not even look where the feed ends before it was interrupted again."""
    publish, take_place, armed = Segment.publish, type_of_writer(dw)._take_place, []

    def interrupted(segment: Segment, word: int) -> None:
        if armed and moment == "before the store":
            armed.clear()
            raise KeyboardInterrupt
        publish(segment, word)
        if armed and moment == "after the store":
            armed.clear()
            raise KeyboardInterrupt

    def again(self: FeedWriter) -> None:
        if "once" in twice:
            twice.clear()
            raise KeyboardInterrupt
        take_place(self)

    twice: list[str] = []
    monkeypatch.setattr(Segment, "publish", interrupted)
    monkeypatch.setattr(type_of_writer(dw), "_take_place", again)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 2))
        stage(writer, 2, 3)
        armed.append(True)
        twice.append("once")
        with pytest.raises(KeyboardInterrupt):
            writer.commit_values()
        writer.commit_values()
        assert writer.staged == 0
    records = everything(dw)
    assert records["position"].tolist() == list(range(5))


def type_of_writer(dw: Platform) -> Any:
    with dw.create_writer("F") as writer:
        return type(writer)


def test_a_write_from_a_signal_handler_in_a_commit_is_refused_and_the_commit_is_whole(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for every write: it would come in the middle of this one."""
    publish, refused = Segment.publish, []

    def signalled(segment: Segment, word: int) -> None:
        if writer.staged == 0 and not refused:
            refused.append(None)
            signal.raise_signal(signal.SIGUSR1)
        publish(segment, word)

    def handler(*_: Any) -> None:
        for use in (writer.commit_values, lambda: writer.write_batch(batch(0, 1))):
            with pytest.raises(Exception, match="signal handler"):
                use()
            refused.append(use)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        monkeypatch.setattr(Segment, "publish", signalled)
        with dw.create_writer("F") as writer:
            refused.append(None)
            stage(writer, 0, 3)
            refused.clear()
            assert writer.commit_values() == 0
        assert len(refused) == 3
    finally:
        signal.signal(signal.SIGUSR1, before)
    model.whole_writes(everything(dw))


# -------------------------------------------------------------------------------- threads


@KIND
def test_a_row_staged_while_another_thread_commits_is_in_the_next_commit(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit comes, and takes all that is staged, while the row is checked and packed."""
    with dw.create_writer("F") as writer:
        stage(writer, 0, 2)
        packed = writer._packed

        def committed_meanwhile(values: tuple[Any, ...]) -> bytes:
            other = threading.Thread(target=writer.commit_values)
            other.start()
            other.join()
            return packed(values)

        with monkeypatch.context() as patch:
            patch.setattr(writer, "_packed", committed_meanwhile)
            assert writer.stage_values(*values_of(batch(2, 1)[0])) == 1
        assert writer.commit_values() == 2
    model.whole_writes(everything(dw))
    assert len(everything(dw)) == 3


@KIND
def test_threads_that_stage_and_commit_lose_and_double_nothing(dw: Platform, kind: str) -> None:
    """Staged records are the writer's: a commit takes what all threads have staged, each thread's in its order."""
    dw.create_feed(live_kit.spec(kind, "T", chunk_size_bytes=(50 if kind == "feed" else 10_000) * SIZE))
    barrier, commits = threading.Barrier(4), []

    def run(thread: int) -> None:
        barrier.wait()
        for number in range(200):
            record = np.zeros(1, model.CHECKED)
            record["write"], record["position"] = thread, number
            writer.stage_values(*values_of(record[0]))
            if number % 7 == thread:
                commits.append(writer.commit_values())

    with dw.create_writer("T") as writer:
        threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.commit_values()
        assert writer.end == 800
    records = everything(dw, "T")
    for k in range(4):
        assert records["position"][records["write"] == k].tolist() == list(range(200))
    assert all(0 <= position <= 800 for position in commits)
