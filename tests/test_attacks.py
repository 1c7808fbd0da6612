"""Attacks on the promises that once succeeded: each test repeats one, and what it did must not happen again.

At the end, the quick ways through the code against the general ones they stand for: equal in all they store and say.

Interrupts come at every line in turn, from a trace function: what Ctrl-C or a signal handler does at one of them by
chance happens here at all of them in each run. Threads are held by events, power cuts are modelled from what was
synced; nothing waits for time to pass.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import CorruptFileError, DeepwaterError, Platform, RecordError, clockstats, files, search, spare
from deepwater import chain as chain_module
from deepwater import checksums as checksums_module
from deepwater import format as fmt
from deepwater import index as index_module
from deepwater import keeper as keeper_module
from deepwater import writer as writer_module
from deepwater.chain import Chain
from deepwater.chunk import Chunk, WritableChunk, create_chunk
from deepwater.clockstats import ClockStats
from deepwater.feed_files import read_feed
from deepwater.files import Directory
from deepwater.global_registry import GlobalRegistry
from deepwater.layout import Layout
from deepwater.schema import FeedSpec
from deepwater.segment import Segment
from deepwater.writer import Writer
from interrupts import interrupt, traced
from processes import run_python

FIELDS = [{"name": "ts_us", "type": "uint64"}, {"name": "x", "type": "float64"}]
SIZE = 16
BASE = model.EPOCH_2026


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        yield platform


def make(dw: Platform, rows: int, name: str = "F", **more: Any) -> Path:
    """A feed of chunks of so many records; its directory."""
    dw.create_feed({"feed_name": name, "ts_col": "ts_us", "fields": FIELDS, "chunk_size_bytes": SIZE * rows,
                    "index_playback": True, **more})  # fmt: skip
    return Path(dw.base_path) / "data" / name


def batch(rows: int, first: int = 0) -> dict[str, np.ndarray]:
    """Records that say where they stand."""
    return {"ts_us": np.arange(first, first + rows, dtype=np.uint64), "x": np.arange(first, first + rows, dtype=float)}


def values(dw: Platform, name: str = "F") -> list[float]:
    """What a reader that comes now finds in `x`."""
    with dw[name] as reader:
        return model.joined(reader.rows(0, 10**9), reader.dtype)["x"].tolist()


# ------------------------------------------------------------------------------------------ clocks as NumPy scalars

SMALL = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32]
WIDE = [np.uint64, np.int64, int]


def _header_bounds(path: Path, count: int) -> tuple[int, int]:
    """The bounds of the first clock as the file has them."""
    words = np.fromfile(path, "<u8")
    unsorted, low, high = (int(word) for word in words[fmt.CLOCKS : fmt.CLOCKS + 3])
    if unsorted:
        return low, high
    stamps = words[int(words[120 // 8]) // 8 :][:: SIZE // 8]
    return int(stamps[0]), int(stamps[count - 1])


def _stamps(kind: type) -> list[Any]:
    top = int(np.iinfo(kind).max) if kind is not int else 2**64 - 1
    near = [50, 60, kind(40), kind(70), kind(0), kind(top), kind(top - 1), kind(65), 66, kind(1)]
    return near if kind in SMALL else [BASE, BASE + 5, *near, kind(BASE + 3), kind(BASE + 7), BASE + 2_000_000]


@pytest.mark.parametrize("kind", [*SMALL, *WIDE], ids=lambda kind: kind.__name__)
def test_bounds_in_the_header_hold_the_data_whatever_integers_the_clocks_come_as(dw: Platform, kind: type) -> None:
    """Sums of NumPy scalars wrap at their width, so bounds made of them would hide published records from searches."""
    path = make(dw, 1000) / "chunk_00000001.bin"
    stamps: list[int] = []
    with dw.create_writer("F") as writer, dw["F"] as reader:
        for stamp in _stamps(kind):
            assert writer.write_values(stamp, 2.0) == len(stamps)
            stamps.append(int(stamp))
            low, high = _header_bounds(path, len(stamps))
            assert low <= min(stamps) and max(stamps) <= high <= model.MAX_US
            assert len(reader.read(0, model.MAX_US)) == len(stamps)
            assert len(reader.read(stamps[-1], stamps[-1])) == stamps.count(stamps[-1])
            asked = np.array(sorted(stamps), np.uint64)
            expected = model.asof(np.array(stamps, np.uint64), asked)
            assert reader.asof(asked).positions.tolist() == expected.tolist()


def test_rows_taken_out_of_an_array_can_be_written_one_by_one(dw: Platform) -> None:
    make(dw, 7)
    rng = np.random.default_rng(1)
    stamps = model.clock_values("extremes", 60, rng)
    rows = np.zeros(60, [("ts_us", "<u8"), ("x", "<f8")])
    rows["ts_us"], rows["x"] = stamps, np.arange(60)
    with dw.create_writer("F") as writer:
        for row in rows:
            writer.write_values(*row)
    with dw["F"] as reader:
        for low, high in [(0, 0), (0, 5), (6, 2**63 - 1), (2**63, model.MAX_US), (model.MAX_US, model.MAX_US)]:
            found = model.joined(reader.read(low, high), reader.dtype)["x"]
            assert found.tolist() == np.flatnonzero(model.mask(stamps, low, high)).tolist()


# ------------------------------------------------------------------------------------------ a reader that is disturbed


@pytest.mark.parametrize(
    "make_error",
    [lambda: OSError(errno.EMFILE, "none left"), lambda: OSError(errno.ENOMEM, "none left"),
     lambda: PermissionError(errno.EACCES, "not now"), lambda: CorruptFileError("cut", path="", reason="cut"),
     KeyboardInterrupt],
    ids=["EMFILE", "ENOMEM", "EACCES", "damage", "interrupt"],
)  # fmt: skip
def test_a_chunk_that_could_not_be_opened_once_is_not_read_twice_later(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, make_error: Callable[[], BaseException]
) -> None:
    """The chunk before is sealed and known by then; the next look must not enter it again."""
    make(dw, 4)
    with dw.create_writer("F") as writer, dw["F"] as reader:
        writer.write_batch(batch(3))
        follower = reader.follow("earliest", timeout=0)
        assert [piece["x"].tolist() for piece in follower] == [[0.0, 1.0, 2.0]]
        assert len(reader) == 3 and reader.asof([5]).positions.tolist() == [2]
        writer.write_batch(batch(9, 3))
        for look in (reader.__len__, follower.__next__):
            with monkeypatch.context() as patch:
                patch.setattr(Chunk, "open", _raising(make_error))
                with pytest.raises(type(make_error())):
                    look()
        assert model.joined(reader.rows(0, 99), reader.dtype)["x"].tolist() == list(range(12))
        assert model.joined(reader.read(0, 100), reader.dtype)["x"].tolist() == list(range(12))
        assert len(reader) == 12 and reader.asof([5, 11, 99]).positions.tolist() == [5, 11, 11]
        assert [x for piece in follower for x in piece["x"].tolist()] == list(range(3, 12))
        del follower, look


def _raising(make_error: Callable[[], BaseException]) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise make_error()

    return fail


@pytest.mark.parametrize("kind", ["ascending", "backfill", "shuffled"])
def test_a_reader_interrupted_at_any_line_of_a_refresh_has_every_chunk_once(dw: Platform, kind: str) -> None:
    """Its tables of chunks and clocks are changed in many steps; doing it again must mend whatever was half done."""
    make(dw, 2)
    stamps = {"ascending": list(range(100, 110)), "backfill": [100, 101, 200, 201, 300, 301, 400, 401, 7, 8, 6, 5],
              "shuffled": [100, 300, 200, 50, 400, 40, 500, 30, 45, 20]}[kind]  # fmt: skip
    clock = np.array(stamps, np.uint64)
    x = np.arange(len(stamps), dtype=float)
    cut, done = 5, 0
    with dw.create_writer("F") as writer:
        writer.write_batch({"ts_us": clock[:cut], "x": x[:cut]})
        readers = [dw["F"] for _ in range(150)]
        for reader in readers:
            assert len(reader.read(0, 10**6)) == cut  # so that it has a table of the clock
        writer.write_batch({"ts_us": clock[cut:], "x": x[cut:]})
    for step, reader in enumerate(readers, 1):
        try:
            traced(step, interrupt, reader.__len__, chain_module)
            done += 1
        except KeyboardInterrupt:
            pass
        assert model.joined(reader.rows(0, 99), reader.dtype)["ts_us"].tolist() == stamps, step
        for low, high in [(0, 10**6), (0, 9), (45, 100), (201, 300), (400, 10**6)]:
            found = model.joined(reader.read(low, high), reader.dtype)["x"]
            assert found.tolist() == np.flatnonzero(model.mask(clock, low, high)).tolist(), (step, low, high)
        asked = np.array([0, 5, 6, 44, 100, 250, 10**6], np.uint64)
        assert reader.asof(asked).positions.tolist() == model.asof(clock, asked).tolist(), step
    assert 0 < done < len(readers)  # the last steps lie behind the end: every line was tried
    for reader in readers:
        reader.close()


# ------------------------------------------------------------------------------------------ making files ahead


def test_a_wait_for_the_spare_that_is_interrupted_does_not_leave_a_thread_that_harms_the_feed(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has not made its file yet when Ctrl-C comes. What it does later must not touch a live chunk."""
    make(dw, 10)
    gate = threading.Event()
    join, create = threading.Thread.join, spare.create_chunk
    waits: list[threading.Thread] = []

    def held(*args: Any) -> None:
        gate.wait()
        create(*args)

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "deepwater-spare":
            waits.append(thread)
            if len(waits) == 1:
                raise KeyboardInterrupt
            gate.set()  # whoever waits again gets it
        join(thread, timeout)

    monkeypatch.setattr(spare, "create_chunk", held)
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(9))  # from here on the next chunk is being made
        with pytest.raises(KeyboardInterrupt):
            writer.write_batch(batch(3, 9))
        assert writer.write_batch(batch(4, 9)) == 9
        gate.set()
        for thread in waits[:1]:
            join(thread)
        assert values(dw) == list(range(13))
        assert writer.write_batch(batch(2, 13)) == 13
    assert values(dw) == list(range(15))
    with dw.create_writer("F") as writer:
        assert writer.end == 15


@pytest.mark.parametrize("refused", [None, errno.EPERM, errno.ENOTSUP], ids=["links", "EPERM", "ENOTSUP"])
def test_a_new_file_never_takes_the_place_of_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int | None
) -> None:
    """Also where the file system has no hard links; and there a file can be made at all."""
    if refused is not None:
        monkeypatch.setattr(os, "link", _raising(lambda: OSError(refused, os.strerror(refused))))
    layout = Layout.compile(FeedSpec.from_json({"feed_name": "F", "ts_col": "ts_us", "fields": FIELDS}))
    ids = fmt.Ids(bytes(16), bytes(16), bytes(16))
    with Directory(tmp_path) as directory:
        create_chunk(directory, 1, layout, ids, SIZE)
        first = (tmp_path / "chunk_00000001.bin").read_bytes()
        with pytest.raises(FileExistsError):
            create_chunk(directory, 1, layout, ids, 64 * SIZE)
        assert (tmp_path / "chunk_00000001.bin").read_bytes() == first
        assert directory.names() == ["chunk_00000001.bin"]


@pytest.mark.parametrize("by_one", [True, False])
def test_writes_go_on_where_no_thread_can_be_started(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, by_one: bool
) -> None:
    """A limit on processes, or an interpreter that is ending, costs the spare and nothing else."""
    make(dw, 10)
    with dw.create_writer("F") as writer:
        monkeypatch.setattr(threading.Thread, "start", _raising(lambda: RuntimeError("can't start new thread")))
        for k in range(0, 60, 1 if by_one else 3):
            assert (writer.write_values(k, float(k)) if by_one else writer.write_batch(batch(3, k))) == k
    assert values(dw) == list(range(60))


_AFTER_MAIN = """
    import atexit, sys, threading
    from deepwater import Platform

    dw = Platform(sys.argv[1])
    writer = dw.create_writer("F")

    def write(first):
        for k in range(first, first + 50):
            assert writer.write_values(k, float(k)) == k

    def finish():
        write(50)
        writer.close()
        dw.close()
        print("written")

    def run():
        threading.main_thread().join()
        write(0)

    atexit.register(finish)
    threading.Thread(target=run).start()
"""


def test_writes_go_on_after_the_main_thread_has_ended_and_in_exit_handlers(dw: Platform) -> None:
    """No thread can be started then (Python 3.12 and later), and a recorder still has records to write."""
    make(dw, 10)
    assert run_python(_AFTER_MAIN, dw.base_path).stdout == "written\n"
    assert values(dw) == list(range(100))


# ------------------------------------------------------------------------------------------ power cuts


class Device:
    """What a device holds that keeps of each file only what was synced, and no cache at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._held: dict[int, bytes] = {}
        self._sync = files.sync
        for module in (files, keeper_module, index_module, checksums_module):
            monkeypatch.setattr(module, "sync", self._keep)

    def _keep(self, fd: int) -> None:
        self._sync(fd)
        self._held[os.fstat(fd).st_ino] = os.pread(fd, os.fstat(fd).st_size, 0)

    def after_power_cut(self, store: Path, to: Path) -> Platform:
        """The store as it comes back, as a copy."""
        shutil.copytree(store, to)
        for source in [path for path in store.rglob("*") if path.suffix in (".bin", ".idx", ".crc", ".reg")]:
            copy = to / source.relative_to(store)
            data = self._held.get(source.stat().st_ino)
            if source.suffix == ".reg" or source.name == "registry.bin":
                copy.unlink()
            else:
                copy.write_bytes(bytes(source.stat().st_size) if data is None else data)
        return Platform(to)


def _full(writer: Any, _: pytest.MonkeyPatch) -> None:
    for first in range(0, 40, 5):
        writer.write_batch(batch(5, first))
        writer.flush()


def _marked(writer: Any, _: pytest.MonkeyPatch) -> None:
    writer.write_batch(batch(7), create_index=True)
    writer.mark_gap(3, reason="lost")
    writer.flush()
    writer.write_batch(batch(8, 7), create_index=True)


def _resized(writer: Any, _: pytest.MonkeyPatch) -> None:
    for k, first in enumerate(range(0, 20, 5)):
        writer.write_batch(batch(5, first))
        writer.flush()
        writer.resize_chunk_size(SIZE * (20 + k))


def _emptied(writer: Any, _: pytest.MonkeyPatch) -> None:
    writer.write_batch(batch(5))
    for rows in (20, 30, 40):
        writer.resize_chunk_size(SIZE * rows)
    writer.write_batch(batch(2, 5))
    for rows in (50, 60):
        writer.resize_chunk_size(SIZE * rows)


def _rotated(writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for first in range(0, 9, 3):
        writer.write_batch(batch(3, first))
        writer.flush()
        with monkeypatch.context() as patch:
            patch.setattr(writer, "_rotate_at", 0)
            writer.write_values(first + 99, 99.0)


@pytest.mark.parametrize("story", [_full, _marked, _resized, _emptied, _rotated], ids=lambda story: story.__name__[1:])
def test_what_flush_said_is_durable_survives_a_power_cut(
    dw: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: Callable[[Any, pytest.MonkeyPatch], None]
) -> None:
    """A seal stored after its chunk was flushed is synced too, and an empty chunk hides none of those before it."""
    device = Device(monkeypatch)
    monkeypatch.setattr("deepwater.spare.Spare.start", lambda spare: None)  # no file comes or goes while it is copied
    make(dw, 10)
    with dw.create_writer("F") as writer:
        story(writer, monkeypatch)
        assert writer.flush() == writer.end
        written, end = values(dw), writer.end
        with dw["F"] as reader:
            marks = reader.marks()
        with device.after_power_cut(Path(dw.base_path), tmp_path / "after") as after:
            assert values(after) == written
            with after["F"] as reader:
                assert reader.marks().tolist() == marks.tolist()
            with after.create_writer("F") as next_writer:
                assert next_writer.end == end
            assert values(after) == written


def test_marks_of_an_earlier_writer_are_brought_to_the_device_too(
    dw: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer that flushes has appended none itself, so it has not opened their file yet."""
    device = Device(monkeypatch)
    make(dw, 10)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(5))
        writer.mark_gap(1, reason="lost")
    with dw.create_writer("F") as writer:
        assert writer.flush() == 5
        with device.after_power_cut(Path(dw.base_path), tmp_path / "after") as after, after["F"] as reader:
            assert reader.marks()["reason"].tolist() == [b"lost"]


# ------------------------------------------------------------------------------------------ closing


def test_a_writer_interrupted_twice_lets_go_of_the_feed_when_closed(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once between two chunks, and again while it finds its place: it has no open chunk then."""
    make(dw, 4)
    writer = dw.create_writer("F")
    writer.write_batch(batch(4))
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "_enter", _raising(KeyboardInterrupt))
        patch.setattr(writer_module, "recover", _raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer.write_batch(batch(2, 4))
    writer.close()
    writer.close()
    with dw.create_writer("F") as following:
        assert following.end == 6  # it was published before the first interrupt
    assert values(dw) == list(range(6))


def test_a_close_interrupted_at_any_line_can_be_repeated_and_lets_go(dw: Platform) -> None:
    make(dw, 10)
    for step in range(1, 200):
        writer = dw.create_writer("F")
        writer.write_values(step, float(step))
        try:
            traced(step, interrupt, writer.close, writer_module)
            finished = True
        except KeyboardInterrupt:
            finished = False
            writer.close()
        with dw.create_writer("F") as following:
            assert following.end == step
        if finished:
            break
    assert finished and values(dw) == list(range(1, step + 1))


# ------------------------------------------------------------------------------------------ writes inside a write


def _one(writer: Any, k: int) -> tuple[int, list[float]]:
    return writer.write_values(k, 1.0), [1.0]


def _array(rows: int) -> Callable[[Any, int], tuple[int, list[float]]]:
    def write(writer: Any, k: int) -> tuple[int, list[float]]:
        data = np.zeros(rows, writer.layout.dtype)
        data["ts_us"], data["x"] = k, np.arange(2, 2 + rows)
        return writer.write_batch(data), data["x"].tolist()

    return write


def _gap(writer: Any, _: int) -> tuple[int, list[float]]:
    return writer.mark_gap(1), []


@pytest.mark.parametrize(
    ("outer", "capacity", "room"),
    [(_one, 8, 1), (_one, 8, 6), (_array(3), 8, 1), (_array(3), 8, 3), (_array(3), 8, 6), (_array(12), 8, 3),
     (_array(40), 64, 63), (_gap, 8, 1), (_gap, 8, 6)],
    ids=["one that fills a chunk", "one", "few over chunks", "few that fill a chunk", "few", "over three chunks",
         "many", "gap before the last", "gap"],
)  # fmt: skip
def test_a_signal_handler_that_writes_in_the_middle_of_a_write_loses_nothing(
    dw: Platform, outer: Callable[[Any, int], tuple[int, list[float]]], capacity: int, room: int
) -> None:
    """At every line of a write: the handler's is refused, or whole and at a place of its own, and so is the other."""
    make(dw, capacity)
    stored: dict[int, float] = {}
    refused = 0

    def handler(*_: object) -> None:
        nonlocal refused
        inner = 0
        try:
            inner = writer.write_values(2**62, -1.0)
        except DeepwaterError:
            refused += 1
            return
        assert inner not in stored
        stored[inner] = -1.0

    before = signal.signal(signal.SIGUSR1, handler)
    writer = dw.create_writer("F")
    try:
        step, calls = 1, -1
        while calls != len(stored) + refused:  # until a step lies behind the end of the write
            while writer.end % capacity != capacity - room:
                stored[writer.write_values(0, 0.5)] = 0.5
            calls = len(stored) + refused
            first, rows = traced(step, lambda: signal.raise_signal(signal.SIGUSR1), lambda: outer(writer, 7),
                                 writer_module)  # fmt: skip
            calls += len(rows)
            for position, x in enumerate(rows, first):
                assert position not in stored
                stored[position] = x
            step += 1
        assert refused and step > 8
        assert writer.end == len(stored)
    finally:
        writer.close()
        signal.signal(signal.SIGUSR1, before)
    assert values(dw) == [stored[position] for position in range(len(stored))]


# ------------------------------------------------------------------------------------------ caches


@pytest.mark.parametrize(
    "damage", [b"garbage" * 100, b"", b"\0" * 8192, b"cut"], ids=["garbage", "empty", "zero", "cut"]
)
def test_a_damaged_registry_is_made_anew_by_the_next_feed(dw: Platform, damage: bytes) -> None:
    make(dw, 4)
    path = Path(dw.base_path) / "registry.bin"
    path.write_bytes(path.read_bytes()[:-100] if damage == b"cut" else damage)
    make(dw, 4, "G")
    assert dw.list_feeds() == ["F", "G"]
    store_id = _store_id(Path(dw.base_path))
    with Directory(dw.base_path) as base:
        assert "G" in GlobalRegistry(base, store_id).rows()


def _store_id(base: Path) -> bytes:
    return uuid.UUID(json.loads((base / "store.json").read_text())["store_id"]).bytes


# ------------------------------------------------------------------------------------------ quick ways and general ones


def _feed_of(dw: Platform, rng: np.random.Generator, kind: str, rows: int) -> np.ndarray:
    """A feed of several chunks, some of them sealed without a record; its clock."""
    make(dw, 8)
    clock = model.clock_values(kind, rows, rng)
    with dw.create_writer("F") as writer:
        at, size = 0, 8
        while at < rows:
            step = int(rng.integers(1, 20))
            writer.write_batch({"ts_us": clock[at : at + step], "x": np.zeros(len(clock[at : at + step]))})
            at += step
            for _ in range(int(rng.choice([0, 0, 0, 1, 3]))):
                size = 8 + (size - 7) % 5
                writer.resize_chunk_size(SIZE * size)
    return clock


def _times_near(clock: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    near = rng.choice(clock, 12) if len(clock) else np.zeros(0, np.uint64)
    below, above = np.maximum(near, np.uint64(1)) - np.uint64(1), np.minimum(near, np.uint64(2**64 - 2)) + np.uint64(1)
    ends = np.array([0, 1, BASE - 1, BASE, 2**63, model.MAX_US], np.uint64)
    return np.concatenate([near, below, above, ends])


@pytest.mark.parametrize("kind", [*model.ORDERED, *model.UNORDERED])
def test_asof_of_sorted_times_in_a_sorted_feed_answers_as_in_any_other(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    quick = search._asof_in_order
    used = 0

    def counted(*args: Any) -> Any:
        nonlocal used
        used += 1
        return quick(*args)

    monkeypatch.setattr(search, "_asof_in_order", counted)
    for seed, rows in enumerate([0, 1, 9, 40, 77]):
        rng = np.random.default_rng(seed)
        clock = _feed_of(dw, rng, kind, rows)
        with Directory(Path(dw.base_path) / "data" / "F") as directory:
            feed = read_feed(directory, "F")
            chain = Chain(directory, dw._store.shared, "F", feed.layout, feed.ids)
            for _ in range(6):
                times = _times_near(clock, rng)
                times = times[rng.permutation(len(times))[: rng.integers(1, len(times) + 1)]]
                for asked in (np.sort(times), times, np.sort(times)[-1:], times[:0]):
                    answer = search.positions_asof(chain, 0, asked)
                    with monkeypatch.context() as patch:
                        patch.setattr(Chain, "is_in_order", lambda *_: False)
                        general = search.positions_asof(chain, 0, asked)
                    assert answer.dtype == general.dtype == np.int64
                    assert answer.tolist() == general.tolist() == model.asof(clock, asked).tolist()
            del chain
        dw.delete_feed("F")
    assert used >= 5 * 6 * 2 or kind in model.UNORDERED


CLOCK_FIELDS = {
    1: [{"name": "ts_us", "type": "uint64"}],
    2: [{"name": "side", "type": "char"}, {"name": "ts_us", "type": "uint64"}, {"name": "b_us", "type": "uint64"}],
    3: [{"name": "b_us", "type": "uint64"}, {"name": "_", "type": "_3"}, {"name": "ts_us", "type": "uint64"},
        {"name": "n", "type": "uint16"}, {"name": "a_us", "type": "uint64"}],
    4: [{"name": "d_us", "type": "uint64"}, {"name": "ok", "type": "bool"}, {"name": "ts_us", "type": "uint64"},
        {"name": "x", "type": "float32"}, {"name": "a_us", "type": "uint64"}, {"name": "c_us", "type": "uint64"},
        {"name": "_", "type": "_1"}],
}  # fmt: skip
"""Fields by their number of clocks; the time column is not always the first of them, and most are misaligned."""


def _clock_words(chunk: Chunk, clocks: int) -> list[int]:
    return chunk.segment.words[fmt.CLOCKS : fmt.CLOCKS + fmt.CLOCK_WORDS * clocks].tolist()


@pytest.mark.parametrize("clocks", list(CLOCK_FIELDS))
@pytest.mark.parametrize("kind", ["steps", "ties", "jitter", "shuffled", "reversed", "extremes", "mixed"])
def test_bounds_of_few_records_are_those_that_numpy_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clocks: int, kind: str
) -> None:
    """Two chunks are given the same batches, one by unpacking and one by columns: the same header, the same seal."""
    fields = CLOCK_FIELDS[clocks]
    layout = Layout.compile(FeedSpec.from_json({"feed_name": "F", "ts_col": "ts_us", "fields": fields}))
    ids = fmt.Ids(bytes(16), bytes(16), bytes(16))
    rng = np.random.default_rng(clocks)
    with Directory(tmp_path) as directory:
        pair = []
        for chunk_id in (1, 2):
            create_chunk(directory, chunk_id, layout, ids, 300 * layout.record_size)
            pair.append(WritableChunk.activate(directory, chunk_id, layout, ids, 0))
        few, columns = ((ClockStats(chunk, layout.clocks, layout.clock_offsets, 0), chunk) for chunk in pair)
        records = model.random_records(layout.dtype, 300, rng)
        for name in layout.clocks:
            records[name] = model.clock_values(str(rng.choice(model.UNORDERED + model.ORDERED)) if kind == "mixed"
                                               else kind, 300, rng)  # fmt: skip
        count = 0
        while count < 260:
            rows = int(rng.integers(1, 32))
            part = records[count : count + rows]
            raw = part.tobytes()
            for _, chunk in (few, columns):
                chunk.put(count, memoryview(raw))
            few[0].observe_few(raw, rows, count)
            with monkeypatch.context() as patch:
                patch.setattr(clockstats, "FEW_ROWS", 0)
                columns[0].observe(part, memoryview(raw), count)
            count += rows
            words = _clock_words(few[1], clocks)
            assert words == _clock_words(columns[1], clocks)
            assert few[0].exact(count) == columns[0].exact(count)
            assert few[0].states == columns[0].states
            for clock, name in enumerate(layout.clocks):
                stamps, bounds = records[name][:count], few[0].exact(count)[clock]
                assert (bounds.low, bounds.high) == (int(stamps.min()), int(stamps.max()))
                assert bounds.unsorted == bool((stamps[1:] < stamps[:-1]).any())
                unsorted, low, high = words[fmt.CLOCK_WORDS * clock :][:3]
                assert bool(unsorted) == bounds.unsorted
                assert not unsorted or low <= bounds.low <= bounds.high <= high
        for chunk in pair:
            chunk.close()


WIDE_FIELDS = [
    {"name": "ts_us", "type": "uint64"}, {"name": "ok", "type": "bool"}, {"name": "_", "type": "_3"},
    {"name": "qty", "type": "int32"}, {"name": "side", "type": "char"}, {"name": "book", "type": "float32[3]"},
    {"name": "name", "type": "char[5]"}, {"name": "b_us", "type": "uint64"}, {"name": "_", "type": "_2"},
]  # fmt: skip


def _noting(call: Callable[..., Any], seen: list[int]) -> Callable[..., Any]:
    def noted(*args: Any) -> Any:
        seen.append(len(args))
        return call(*args)

    return noted


def _said(feed: Path) -> list[tuple[int, list[int], Any]]:
    """What the chunks up to the active one say of their records: commit word, clock words, seal without its time."""
    out = []
    with Directory(feed) as directory:
        for path in model.chunk_files(feed):
            segment = Segment.open(directory, path.name, fmt.CHUNK)
            identity, words = segment.identity, segment.words
            live = words[fmt.CLOCKS : fmt.CLOCKS + fmt.CLOCK_WORDS * identity.clock_count].tolist()
            sealed: Any = None
            if words[fmt.COMMIT] >= fmt.SEALED:
                raw = segment.read(identity.seal_offset, identity.seal_size)
                seal = fmt.parse_seal(raw, identity.clock_count, "")
                sealed = (seal.records, seal.base_position, seal.clocks)
            out.append((words[fmt.COMMIT], live, sealed))
            segment.close()
            if sealed is None:
                break
    return out


@pytest.mark.filterwarnings("ignore:.*misaligned")
@pytest.mark.parametrize("kind", ["ties", "jitter", "extremes", "falling"])
def test_small_arrays_are_stored_as_dicts_of_their_columns_are(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Arrays of exactly the feed's dtype go a way of their own; padding in them is zeroed all the same."""
    dtype = model.dtype_of(WIDE_FIELDS)
    rng = np.random.default_rng(8)
    records = model.random_records(dtype, 400, rng)
    for name in ("ts_us", "b_us"):
        falling = kind == "falling"  # by days: each write moves the bounds in the header
        records[name] = model.clock_values("days" if falling else kind, 400, rng)[:: -1 if falling else 1]
    dirty = model.opaque(records).copy().view(dtype)
    raw = dirty.view(np.uint8).reshape(400, dtype.itemsize)
    gaps = np.ones(dtype.itemsize, bool)
    for field, offset in (dtype.fields[name][:2] for name in dtype.names):
        gaps[offset : offset + field.itemsize] = False
    assert gaps.sum() == 5
    raw[:, gaps] = rng.integers(0, 256, (400, 5)) * (rng.random((400, 1)) < 0.1)
    for name in ("CLEAN", "DIRTY", "DICT"):
        dw.create_feed({"feed_name": name, "ts_col": "ts_us", "fields": WIDE_FIELDS,
                        "chunk_size_bytes": 150 * dtype.itemsize})  # fmt: skip
    quick: list[int] = []
    monkeypatch.setattr(Writer, "_append_few", _noting(Writer._append_few, quick))
    feeds = [Path(dw.base_path) / "data" / name for name in ("CLEAN", "DIRTY", "DICT")]
    with dw.create_writer("CLEAN") as clean, dw.create_writer("DIRTY") as soiled, dw.create_writer("DICT") as general:
        at = 0
        while at < 400:
            rows = int(rng.choice([1, 2, 3, 5, 9, 31, 32]))
            part = records[at : at + rows]
            assert clean.write_batch(part) == at
            assert soiled.write_batch(dirty[at : at + rows]) == at
            assert general.write_batch({name: part[name] for name in dtype.names}) == at
            at += len(part)
            assert _said(feeds[0]) == _said(feeds[1]) == _said(feeds[2])
    assert len(quick) > 10
    assert [model.stored(feed) for feed in feeds] == [model.opaque(records).tobytes()] * 3


@pytest.mark.filterwarnings("ignore:.*misaligned")
@pytest.mark.parametrize("rows", [1, 5, 31, 40])
def test_a_bool_that_is_neither_0_nor_1_is_refused_in_small_arrays_too(dw: Platform, rows: int) -> None:
    dtype = model.dtype_of(WIDE_FIELDS)
    dw.create_feed({"feed_name": "F", "ts_col": "ts_us", "fields": WIDE_FIELDS})
    good = np.zeros(rows, dtype)
    bad = good.copy()
    bad.view(np.uint8).reshape(rows, dtype.itemsize)[-1, dtype.fields["ok"][1]] = 2
    with dw.create_writer("F") as writer:
        assert writer.write_batch(good) == 0
        with pytest.raises(RecordError, match="ok") as refused:
            writer.write_batch(bad)
        assert (refused.value.column, refused.value.row) == ("ok", rows - 1)
        with pytest.raises(RecordError, match="ok"):
            writer.write_batch_bytes(bad.tobytes())
        assert writer.write_batch(good) == rows
    assert model.stored(Path(dw.base_path) / "data" / "F") == bytes(2 * rows * dtype.itemsize)
