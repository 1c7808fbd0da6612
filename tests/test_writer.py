"""The writer: every write whole and visible by one store, or without a trace; one writer, any number of threads."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import (
    ClosedError,
    CorruptFileError,
    DeepwaterError,
    DurabilityError,
    FeedLockedError,
    Platform,
    RecordError,
    StorageFullError,
    keeper,
)
from deepwater import format as fmt
from deepwater.check import verify
from deepwater.segment import Segment
from deepwater.values import Packer
from processes import Worker

SIZE = model.CHECKED.itemsize
SPEC: dict[str, Any] = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
                        "chunk_size_bytes": 10 * SIZE}  # fmt: skip


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(SPEC)
        yield platform


def feed_path(dw: Platform) -> Path:
    return Path(dw.base_path) / "data" / "F"


def everything(dw: Platform) -> np.ndarray:
    with dw["F"] as reader:
        return model.joined(reader.rows(0, 10**9), model.CHECKED).copy()


# ------------------------------------------------------------------------------------------ one store


@pytest.mark.parametrize("before", [0, 3, 10, 17, 20])
@pytest.mark.parametrize("rows", [1, 7, 10, 33])
def test_a_write_becomes_visible_by_one_store_and_is_whole_before_it(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, before: int, rows: int
) -> None:
    """At each store of a commit word, a reader that was there and one that comes just then see all of it or none."""
    publish = Segment.publish
    seen: list[tuple[int, int]] = []

    def looked_at(segment: Segment, word: int) -> None:
        if segment.identity.kind != fmt.CHUNK or not looking:
            publish(segment, word)
            return
        old = len(watcher), len(dw["F"])
        publish(segment, word)
        new = len(watcher), len(dw["F"])
        assert old[0] == old[1] and new[0] == new[1]
        seen.append((old[0], new[0]))
        model.whole_writes(model.joined(watcher.rows(0, 10**9), model.CHECKED))

    looking = False
    monkeypatch.setattr(Segment, "publish", looked_at)  # before the writer is made: it keeps the bound method
    with dw.create_writer("F") as writer:
        watcher = dw["F"]
        if before:
            writer.write_batch(model.checked_records(0, before, 1))
        looking = True
        writer.write_batch(model.checked_records(before, rows, 2))
        writer.write_values(
            *model.checked_records(before + rows, 1, 3)[0].item()[:-1],
            model.checked_records(before + rows, 1, 3)[0]["filler"],
        )
    steps = [step for step in seen if step[0] != step[1]]
    assert steps == [(before, before + rows), (before + rows, before + rows + 1)]


@pytest.mark.parametrize("way", ["values", "few", "bytes", "across"])
def test_what_a_store_shows_is_found_by_time_at_once(dw: Platform, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Clocks that step back: the header knows of it before the records are visible."""
    dw.create_feed({"feed_name": "P", "ts_col": "ts_us", "chunk_size_bytes": 160,
                    "fields": [{"name": name, "type": "uint64"} for name in ("ts_us", "x_us")]})  # fmt: skip
    publish, shown = Segment.publish, []

    def looked_at(segment: Segment, word: int) -> None:
        publish(segment, word)
        if segment.identity.kind != fmt.CHUNK:
            return
        with dw["P"] as reader:
            held = model.joined(reader.rows(0, 10**9), reader.dtype)
            shown.append(len(held))
            for clock in reader.dtype.names:
                stamps = held[clock]
                for stamp in (stamps.min(), stamps.max()):
                    found = reader.read(int(stamp), int(stamp), clock=clock)
                    assert model.content(found) == held[stamps == stamp].tobytes()

    monkeypatch.setattr(Segment, "publish", looked_at)  # before the writer is made: it keeps the bound method
    with dw.create_writer("P") as writer:
        writer.write_values(100, 100)
        rows = {"values": 1, "few": 3, "bytes": 3, "across": 33}[way]
        batch = np.zeros(rows, writer.layout.dtype)
        batch["ts_us"], batch["x_us"] = 100 - np.arange(1, rows + 1), 100 + np.arange(1, rows + 1)[::-1]
        if way == "values":
            writer.write_values(*batch[0].item())
        elif way == "bytes":
            writer.write_batch_bytes(batch.tobytes())
        else:
            writer.write_batch(batch)
        assert shown[-1] == writer.end == 1 + rows


@pytest.mark.parametrize("rows", [1, 9, 10, 11, 35, 2_000])
def test_a_batch_over_chunks_stores_what_it_would_in_one(dw: Platform, rows: int) -> None:
    dw.create_feed({**SPEC, "feed_name": "BIG", "chunk_size_bytes": 1 << 20})
    batch = model.checked_records(0, rows, 1)
    for name in ("F", "BIG"):
        with dw.create_writer(name) as writer:
            writer.write_batch(batch[: rows // 3])
            writer.write_batch(batch[rows // 3 :])
    contents = [model.stored(feed_path(dw).parent / name) for name in ("F", "BIG")]
    assert contents == [batch.tobytes()] * 2


def test_writes_return_the_position_of_their_first_record(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        values = (*model.checked_records(0, 1, 1)[0].item()[:-1], [1, 2])
        assert [writer.write_values(*values) for _ in range(3)] == [0, 1, 2]
        assert writer.write_batch(model.checked_records(3, 40, 1)) == 3
        assert writer.write_batch_bytes(model.checked_records(43, 2, 1).tobytes()) == 43
        assert writer.write_batch(model.checked_records(45, 0, 1)) == 45 == writer.end
        assert writer.mark_gap(3) == 45
        assert writer.flush() == 45


@pytest.mark.parametrize("form", ["to_pandas", "to_arrow", "to_polars", "to_numpy"])
def test_what_is_read_can_be_written_again_and_gives_the_same_bytes(dw: Platform, form: str) -> None:
    fields = [{"name": "ts_us", "type": "uint64"}, {"name": "side", "type": "char"}, {"name": "_", "type": "_3"},
              {"name": "qty", "type": "int32"}, {"name": "price", "type": "float64"}, {"name": "book",
              "type": "float64[3]"},
              {"name": "name", "type": "char[6]"}, {"name": "ok", "type": "bool"}, {"name": "_",
              "type": "_1"}]  # fmt: skip
    truth = model.random_records(model.dtype_of(fields), 25, np.random.default_rng(3))
    truth["ts_us"] = model.clock_values("ties", 25, np.random.default_rng(3))
    for name in ("A", "B"):
        dw.create_feed(
            {"feed_name": name, "ts_col": "ts_us", "fields": fields, "chunk_size_bytes": 10 * truth.itemsize}
        )
    with dw.create_writer("A") as a, dw.create_writer("B") as b:
        a.write_batch(truth)
        b.write_batch(getattr(dw["A"].read(), form)())
    assert model.stored(feed_path(dw).parent / "B") == truth.tobytes()


def test_a_view_of_the_feed_itself_may_be_written_to_it(dw: Platform) -> None:
    """The source is the mapping that is appended to, full chunk and half-full one."""
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 16, 1))
        reader = dw["F"]
        for _ in range(3):
            writer.write_batch(next(iter(reader.latest(4))))
        records = everything(dw)
    assert model.opaque(records[16:20]).tobytes() == model.opaque(records[12:16]).tobytes()
    assert len(records) == 28 or len(records) > 16


# ------------------------------------------------------------------------------------------ values


class Index:
    """A number only by `__index__`."""

    def __index__(self) -> int:
        return 7


STRANGE: list[Any] = [
    0, 1, 7, -1, 255, 2**31, 2**53 + 1, 2**63, 2**64 - 1, 2**64, 10**400, 0.0, -0.0, 1.0, 1.5, 1e308, float("nan"),
    float("inf"),
    True, False, None, "", "x", "xy", "é", "€", b"", b"x", b"xy", b"\0", bytearray(b"x"), 1 + 2j,
    np.complex64(1 + 2j), Decimal("1.5"),
    Decimal(2), Fraction(1, 3), Fraction(4, 2), np.float16(1.5), np.float32(0.1), np.float64(7), np.longdouble(1) / 3,
    np.uint8(7),
    np.int8(-1), np.int64(7), np.uint64(2**64 - 1), np.bool_(True), np.str_("x"), np.bytes_(b"x"), np.array(1.5),
    np.array(3),
    np.array([3]), np.timedelta64(5, "s"), np.timedelta64("NaT", "us"), np.datetime64(5, "s"),
    np.datetime64("NaT", "us"),
    Index(), [1], (1,), {}, object(),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "padding"), [("uint64", 8), ("int32", 4), ("float64", 8), ("char", 7), ("byte", 7)])
def test_single_values_are_taken_by_the_rules_fast_path_or_not(tmp_store: Path, kind: str, padding: int) -> None:
    """The writer's own path for plain fields takes what `Packer` takes, stores the same, refuses the rest by name."""
    fields = [{"name": "ts_us", "type": "uint64"}, {"name": "v", "type": kind}, {"name": "_", "type": f"_{padding}"}]
    good: Any = b"g" if kind == "char" else 1
    wrong = []
    with Platform(tmp_store) as dw:
        dw.create_feed({"feed_name": "F", "ts_col": "ts_us", "fields": fields})
        with dw.create_writer("F") as writer:
            packer = Packer(writer.layout)
            writer.write_values(1, good)
            for values in [(1, value) for value in STRANGE] + [(value, good) for value in STRANGE]:
                by_rule = outcome(packer.pack_values, values)
                # What is an integer to Python (`__index__`) and to no rule may be refused, or stored as that integer.
                as_integers = outcome(lambda given: packer.pack_values(list(map(as_integer, given))), values)
                written = outcome(lambda vs: write_one(writer, dw, vs), values)
                if written not in (by_rule, as_integers):
                    wrong.append((values, by_rule, written))
                assert writer.write_values(3, good) == len(dw["F"]) - 1
    assert not wrong


def as_integer(value: Any) -> Any:
    return value if type(value) is bytes else index(value)


def outcome(action: Callable[[tuple[Any, ...]], bytes], values: tuple[Any, ...]) -> Any:
    """What an action returned, or the error and the column it names."""
    try:
        return action(values)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is compared)
        return type(error).__name__, getattr(error, "column", None)


def write_one(writer: Any, dw: Platform, values: tuple[Any, ...]) -> bytes:
    position = writer.write_values(*values)
    with dw["F"] as reader:
        return model.content(reader.rows(position, position + 1))


BAD: dict[str, tuple[str, Any]] = {
    "negative": ("rows", -1), "too large": ("rows", 2**32), "a fraction": ("rows", 1.5), "not a number": ("rows",
    float("nan")),
    "nothing": ("write", None), "text": ("write", "1"), "a clock too large": ("ts_us", 2**64), "no time": ("ts_us",
    np.datetime64("NaT", "us")),
    "below a microsecond": ("ts_us", np.datetime64(1_500, "ns")), "a float clock": ("ts_us", 1.5),
    "infinity": ("position", float("inf")),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_value_is_named_by_column_and_row_and_leaves_no_trace(dw: Platform, what: str) -> None:
    column, value = BAD[what]
    batch = model.checked_records(5, 30, 2)
    data: dict[str, Any] = {name: batch[name].tolist() for name in batch.dtype.names}
    data[column][23] = value
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 5, 1))
        before = model.stored(feed_path(dw))
        with pytest.raises(RecordError) as caught:
            writer.write_batch(data)
        assert (caught.value.column, caught.value.row) == (column, 23)
        assert model.stored(feed_path(dw)) == before
        assert writer.write_batch(batch) == 5
    model.whole_writes(everything(dw))


@pytest.mark.parametrize("size", [1, SIZE - 1, SIZE + 1, 13, 4 * SIZE + 8])
def test_bytes_that_are_no_whole_records_are_refused(dw: Platform, size: int) -> None:
    with dw.create_writer("F") as writer:
        with pytest.raises(RecordError, match="whole number of records"):
            writer.write_batch_bytes(bytes(size))
        assert writer.end == 0


def test_released_strided_and_foreign_buffers_are_refused(dw: Platform) -> None:
    released = memoryview(bytes(SIZE))
    released.release()
    with dw.create_writer("F") as writer:
        for wrong in (released, np.zeros(4 * SIZE, np.uint8)[::2], "text", None, 5):
            with pytest.raises(RecordError):
                writer.write_batch_bytes(wrong)
        with pytest.raises(RecordError, match=r"7|columns"):
            writer.write_values(1, 2, 3)
        for wrong in ([1, 2], object(), {"ts_us": [1]}, np.zeros(3), {}):
            with pytest.raises(RecordError):
                writer.write_batch(wrong)
        assert writer.end == 0


# ------------------------------------------------------------------------------------------ failures in the middle


class Trip:
    """Makes the n-th call of some functions fail; counts them otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]) -> None:
        self.error, self.calls, self.fatal = error, 0, -1
        for where, names in (
            (os, ("pwrite", "fsync", "posix_fallocate", "rename", "open")),
            (Segment, ("publish", "write")),
        ):
            for name in names:
                monkeypatch.setattr(where, name, self.tripped(getattr(where, name)))
        # In this thread only: what the thread that prepares chunks meets is met again by the writer.
        self.thread = threading.get_ident()

    def tripped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.fatal >= 0 and threading.get_ident() == self.thread:
                self.calls += 1
                if self.calls == self.fatal:
                    raise self.error()
            return function(*args, **kwargs)

        return call


FAILURES: dict[str, Callable[[], BaseException]] = {
    "no space": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "input/output error": lambda: OSError(errno.EIO, "Input/output error"),
    "too many files": lambda: OSError(errno.EMFILE, "Too many open files"),
    "Ctrl-C": KeyboardInterrupt,
}


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("operation", ["long write", "resize", "gap"])
def test_a_failure_at_any_step_leaves_a_writer_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, failure: str
) -> None:
    """The write is whole or absent, the error is the cause or a typed one, and the same writer goes on."""
    trip = Trip(monkeypatch, FAILURES[failure])
    reached_the_end = False
    for step in range(1, 400):
        trip.fatal = -1
        with Platform(tmp_path / f"store{step}") as dw:
            dw.create_feed(SPEC)
            writer = dw.create_writer("F")
            writer.write_batch(model.checked_records(0, 16, 1))
            reader = dw["F"]
            trip.calls, trip.fatal = 0, step
            try:
                if operation == "long write":
                    writer.write_batch(model.checked_records(16, 33, 2, snapshot=True), create_index=True)
                elif operation == "resize":
                    writer.resize_chunk_size(20 * SIZE)
                else:
                    writer.mark_gap(3)
            except (OSError, DeepwaterError, KeyboardInterrupt) as error:
                if failure == "no space" and isinstance(error, OSError):
                    assert error.errno == errno.ENOSPC  # noqa: PT017 (it may also succeed)
            failed = trip.calls >= step
            trip.fatal = -1
            end = len(reader)
            assert end in (16, 49) if operation == "long write" else end == 16
            assert writer.end == end
            model.whole_writes(everything(dw))
            assert len(reader.snapshots()) == (end == 49)
            assert writer.write_batch(model.checked_records(end, 25, 3)) == end
            model.whole_writes(everything(dw))
            writer.close()
            with dw.create_writer("F") as again:
                assert again.end == end + 25
            assert not [name for name in os.listdir(feed_path(dw)) if name.startswith(".tmp")]
        if not failed:
            reached_the_end = True
            break
    assert reached_the_end and step > 3, step


def test_a_registry_that_is_completed_after_a_kill_has_whole_rows(dw: Platform) -> None:
    """The row of the last sealed chunk is missing, as after a kill between seal and row: then all rows are valid."""
    from deepwater.check import verify
    from deepwater.feed_registry import row_layout

    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 55, 1))
    path, size = feed_path(dw) / "F.reg", row_layout(1).record_size
    rows = path.read_bytes()[16384 : 16384 + 5 * size]
    model.poke(path, 16384 + 4 * size, bytes(size))
    model.poke(path, 4096, (4).to_bytes(8, "little"))
    with dw.create_writer("F") as writer:
        dirty = [np.full(5 * size, 255, np.uint8) for _ in range(16)]  # what memory of that size holds next
        del dirty
        writer.write_batch(model.checked_records(55, 1, 2))
    assert path.read_bytes()[16384 : 16384 + 5 * size] == rows
    assert verify(dw.base_path).code == 0


@pytest.mark.parametrize("rows", [5, 50])
def test_what_a_write_that_failed_said_of_the_clocks_is_taken_back(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """The first of a chunk: its bounds were believed for all that came after it, and a read by time found nothing."""
    dw.resize_feed("F", 100 * SIZE)
    writer = dw.create_writer("F")
    with monkeypatch.context() as patch:
        patch.setattr("deepwater.index.MarkIndex.append", fails := Fails(StorageFullError("full", errno=errno.ENOSPC)))
        with pytest.raises(StorageFullError):
            writer.write_batch(model.checked_records(0, rows, 1)[::-1].copy(), create_index=True)
    assert fails.calls == 1
    later = model.checked_records(0, rows, 1)
    later["ts_us"] += 10**9
    writer.write_batch(later)
    with dw["F"] as reader:
        assert len(reader.read(int(later["ts_us"][0]), int(later["ts_us"][-1]))) == rows
    assert verify(dw.base_path).code == 0
    writer.resize_chunk_size(50 * SIZE)
    assert verify(dw.base_path).code == 0
    writer.close()


class Fails:
    """Stands in for a function that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.calls = error, 0

    def __call__(self, *args: Any) -> None:
        self.calls += 1
        raise self.error


def test_a_write_interrupted_after_its_store_is_there_and_its_chunk_is_registered_later(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepwater.feed_registry import FeedRegistry

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with dw.create_writer("F") as writer:
        with monkeypatch.context() as patch:
            patch.setattr(FeedRegistry, "add", interrupted)
            with pytest.raises(KeyboardInterrupt):
                writer.write_batch(model.checked_records(0, 35, 1))
        assert writer.end == 35 == len(dw["F"])
        assert writer.write_batch(model.checked_records(35, 10, 2)) == 35
        assert writer.flush() == 45
        assert dw.describe_feed("F")["durable"] == 45
    model.whole_writes(everything(dw))


# ------------------------------------------------------------------------------------------ durability


SEALED_10 = 10 | fmt.SEALED  # the durable word has the bit once the seal is on the device too


def durable_words(dw: Platform) -> list[tuple[int, int]]:
    """``(durable word, records published)`` of each chunk, from the files."""
    words = []
    for path in model.chunk_files(feed_path(dw)):
        data = path.read_bytes()
        durable, published = (int.from_bytes(data[at : at + 8], "little") for at in (4160, 4096))
        words.append((durable, published & fmt.COUNT_MASK))
    return words


def test_flush_raises_the_durable_count_of_every_chunk_and_nothing_else_does(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 35, 1))
        assert [durable for durable, _ in durable_words(dw)] == [0, 0, 0, 0]
        assert writer.flush() == 35
        assert durable_words(dw) == [(SEALED_10, 10), (SEALED_10, 10), (SEALED_10, 10), (5, 5)]


def test_flush_brings_what_an_earlier_writer_left_to_the_device_too(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 35, 1))
    with dw.create_writer("F") as writer:
        assert writer.flush() == 35
        assert durable_words(dw) == [(SEALED_10, 10), (SEALED_10, 10), (SEALED_10, 10), (5, 5)]


def test_records_are_on_the_device_before_the_count_says_so(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of syncs and stores, the oldest chunk first: the file with its durable word still old; the directory;
    the file again, with the new word."""
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def looked_at(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        synced.append((path.name, int.from_bytes(path.read_bytes()[4160:4168], "little") if path.is_file() else 0))
        fsync(fd)

    monkeypatch.setattr(keeper._clerk, "add", lambda _: None)  # what its thread syncs would be among them
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 15, 1))
        monkeypatch.setattr(os, "fsync", looked_at)
        writer.flush()
    chunks = [(name, word) for name, word in synced if name.endswith(".bin")]
    old, active = "chunk_00000001.bin", "chunk_00000002.bin"
    assert chunks == [(old, 0), (old, SEALED_10), (active, 0), (active, 5)]
    for name, word in chunks[1::2]:
        assert ("F", 0) in synced[synced.index((name, 0)) : synced.index((name, word))]


def test_a_sync_that_fails_is_final(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what the device holds after it: each later write and flush says so; a new writer goes on."""

    def refused(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = dw.create_writer("F")
    writer.write_batch(model.checked_records(0, 5, 1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refused)
        with pytest.raises(DurabilityError) as caught:
            writer.flush()
    assert caught.value.errno == errno.EIO
    values = (*model.checked_records(5, 1, 2)[0].item()[:-1], [0, 0])
    for use in (writer.flush, lambda: writer.write_values(*values),
        lambda: writer.write_batch(model.checked_records(5, 1, 2)),
                lambda: writer.mark_gap(1), lambda: writer.resize_chunk_size(4096)):  # fmt: skip
        with pytest.raises(DurabilityError):
            use()
    assert len(dw["F"]) == 5
    writer.close()
    with dw.create_writer("F") as writer:
        assert writer.write_batch(model.checked_records(5, 1, 2)) == 5


# ------------------------------------------------------------------------------------------ rotation and settings


def test_rotation_by_time_begins_a_chunk_soon_after_it(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time_ns()]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 1000 * SIZE, "rotate_s": 60})
        with dw.create_writer("F") as writer:
            end = 0
            for minute in range(4):
                for rows in (1, 5):
                    batch = model.checked_records(end, rows, minute)
                    if rows == 1:
                        writer.write_values(*batch[0].item()[:-1], batch[0]["filler"])
                    else:
                        writer.write_batch(batch)
                    end += rows
                now[0] += 61 * 10**9
        counts = [count for _, count in durable_words(dw)]
        assert len(counts) == 4
        assert max(counts) <= 7, "at most the record that noticed the time is in the old chunk"
        model.whole_writes(everything(dw))


def test_a_resize_takes_effect_at_once_and_is_stored(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 4, 1))
        writer.resize_chunk_size(3 * SIZE)
        writer.write_batch(model.checked_records(4, 8, 2))
    assert [count for _, count in durable_words(dw)] == [4, 3, 3, 2]
    assert dw.describe_feed("F")["settings"]["chunk_size_bytes"] == 3 * SIZE
    dw.resize_feed("F", 5 * SIZE)
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(12, 7, 3))
    assert [count for _, count in durable_words(dw)] == [4, 3, 3, 2, 5, 2]
    assert dw.describe_feed("F")["settings"]["chunk_size_bytes"] == 5 * SIZE
    model.whole_writes(everything(dw))


@pytest.mark.parametrize("size", [0, -1, SIZE - 1, True, 1.5, "64MB", None, 2**63])
def test_a_size_that_cannot_be_is_refused_and_nothing_changes(dw: Platform, size: Any) -> None:
    with dw.create_writer("F") as writer:
        with pytest.raises((DeepwaterError, TypeError)) as caught:
            writer.resize_chunk_size(size)
        assert isinstance(caught.value, DeepwaterError), repr(caught.value)
        assert writer.write_batch(model.checked_records(0, 15, 1)) == 0
    assert dw.describe_feed("F")["settings"]["chunk_size_bytes"] == 10 * SIZE


def test_a_feeds_first_chunk_is_small_and_the_next_ones_are_not(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 4 << 20})
        with dw.create_writer("F") as writer:
            writer.write_batch(model.checked_records(0, 1, 1))
            assert sum(path.stat().st_size for path in model.chunk_files(feed_path(dw))) < 2 << 20
            writer.write_batch(model.checked_records(1, (1 << 20) // SIZE, 2))
        sizes = [path.stat().st_size for path in model.chunk_files(feed_path(dw))]
        assert sizes[1] > 4 << 20


# ------------------------------------------------------------------------------------------ marks


def test_create_index_without_index_playback_is_an_error(dw: Platform) -> None:
    dw.create_feed({**SPEC, "feed_name": "PLAIN", "index_playback": False})
    with dw.create_writer("PLAIN") as writer:
        with pytest.raises(RecordError, match="index_playback"):
            writer.write_batch(model.checked_records(0, 3, 1), create_index=True)
        assert writer.end == 0
    with dw.create_writer("F") as writer, pytest.raises(RecordError, match="empty"):
        writer.write_batch(model.checked_records(0, 0, 1), create_index=True)


@pytest.mark.parametrize("wrong", [{"lost": -1}, {"lost": 1.5}, {"lost": True}, {"lost": 2**64},
    {"lost": np.timedelta64(1, "s")},
                                   {"reason": "x" * 73}, {"from_us": 1.5}, {"to_us": "soon"}])  # fmt: skip
def test_a_gap_that_says_nothing_possible_is_refused(dw: Platform, wrong: dict[str, Any]) -> None:
    with dw.create_writer("F") as writer:
        with pytest.raises((DeepwaterError, TypeError)):
            writer.mark_gap(**wrong)
        assert len(dw["F"].marks()) == 0


# ------------------------------------------------------------------------------------------ one writer, many threads


def test_eight_threads_write_whole_batches_through_one_writer(dw: Platform) -> None:
    """Each batch is contiguous, each thread's batches are in its order, none is lost."""
    dw.resize_feed("F", 50 * SIZE)
    barrier = threading.Barrier(8)
    returned: list[list[tuple[int, int, int]]] = [[] for _ in range(8)]

    def run(thread: int) -> None:
        rng = np.random.default_rng(thread)
        barrier.wait()
        for number in range(60):
            rows = int(rng.choice([1, 1, 2, 9, 60, 130]))
            batch = np.zeros(rows, model.CHECKED)
            batch["write"], batch["rows"], batch["position"] = thread * 1000 + number, rows, np.arange(rows)
            values = (*batch[0].item()[:-1], [0, 0])
            at = writer.write_values(*values) if rows == 1 else writer.write_batch(batch)
            returned[thread].append((at, rows, thread * 1000 + number))

    with dw.create_writer("F") as writer:
        threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = everything(dw)
    writes = sorted(write for own in returned for write in own)
    assert len(writes) == 480
    at = 0
    for first, rows, number in writes:
        assert first == at
        assert (records["write"][at : at + rows] == number).all()
        assert records["position"][at : at + rows].tolist() == list(range(rows))
        at += rows
    assert at == len(records)
    assert all(own == sorted(own) for own in returned)


HOLDS = """
import os, sys
from deepwater import Platform
with Platform(sys.argv[1]).create_writer("F") as writer:
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_is_told_who_holds_the_feed_and_gets_it_when_that_dies(dw: Platform) -> None:
    with Worker(HOLDS, dw.base_path) as holder:
        pid = int(holder.readline())
        for attempt in (lambda: dw.create_writer("F"), lambda: dw.resize_feed("F", 4096), lambda: dw.delete_feed("F")):
            with pytest.raises(FeedLockedError) as caught:
                attempt()
            assert caught.value.pid == pid
            assert str(pid) in str(caught.value)
        assert dw.describe_feed("F")["writer"]["pid"] == pid
        holder.kill()
        with dw.create_writer("F") as writer:
            assert writer.write_batch(model.checked_records(0, 3, 1)) == 0
            assert dw.describe_feed("F")["writer"]["pid"] == os.getpid()
    assert dw.describe_feed("F")["writer"] is None


def test_a_second_writer_in_the_same_process_is_refused_too(dw: Platform) -> None:
    with dw.create_writer("F"):
        for _ in range(3):
            with pytest.raises(FeedLockedError, match=str(os.getpid())):
                dw.create_writer("F")
    dw.create_writer("F").close()


RACES = """
import sys
from deepwater import FeedLockedError, Platform
dw = Platform(sys.argv[1])
for line in sys.stdin:
    try:
        writer = dw.create_writer("F")
        print("won", flush=True)
    except FeedLockedError:
        writer = None
        print("lost", flush=True)
    sys.stdin.readline()
    if writer:
        writer.close()
    print("done", flush=True)
"""


@pytest.mark.faults
def test_of_racing_processes_exactly_one_becomes_the_writer(dw: Platform) -> None:
    """All are let loose at once, and the winner holds until all have tried."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        racers = [stack.enter_context(Worker(RACES, dw.base_path)) for _ in range(4)]
        for _ in range(40):
            for racer in racers:
                racer.send("go")
            assert sorted(racer.readline() for racer in racers) == ["lost", "lost", "lost", "won"]
            for racer in racers:
                racer.send("stop")
            assert [racer.readline() for racer in racers] == ["done"] * 4


def test_an_active_chunk_with_another_hard_link_is_refused(dw: Platform) -> None:
    """A backup made with `cp -al` shares the file: appending would write into the backup. Reading is fine."""
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 5, 1))
    chunk = model.chunk_files(feed_path(dw))[0]
    backup = Path(dw.base_path) / "backup"
    os.link(chunk, backup)
    with pytest.raises(CorruptFileError, match="link"):
        dw.create_writer("F")
    assert len(dw["F"]) == 5
    backup.unlink()
    dw.create_writer("F").close()


# ------------------------------------------------------------------------------------------ the handle


def test_a_writer_left_open_is_warned_about_and_closed(dw: Platform) -> None:
    writer = dw.create_writer("F")
    writer.write_batch(model.checked_records(0, 5, 1))
    held = [writer]
    del writer
    with pytest.warns(ResourceWarning, match="was not closed"):
        held.clear()
    dw.create_writer("F").close()


def test_leaving_a_platform_closes_its_writers(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        writer = dw.create_writer("F")
        writer.write_batch(model.checked_records(0, 5, 1))
    with pytest.raises(ClosedError):
        writer.write_batch(model.checked_records(5, 5, 1))
    with Platform(tmp_store) as dw, dw.create_writer("F") as writer:
        assert writer.end == 5


def test_the_repr_says_where_it_stands(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 5, 1))
        assert "end=5" in repr(writer)
    assert "closed" in repr(writer)
