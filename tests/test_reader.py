"""The reader: ranges, lookups and reprs; files that are damaged; files that must not be touched by looking."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import (
    ClosedError,
    CorruptFileError,
    DeepwaterError,
    EmptyFeedError,
    Platform,
    RecordError,
    TimeFormatError,
)
from deepwater import format as fmt
from deepwater.chain import MAPPED
from processes import run_python

SIZE = model.CHECKED.itemsize
SPEC: dict[str, Any] = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
                        "chunk_size_bytes": 10 * SIZE}  # fmt: skip
FIELDS = [{"name": "side", "type": "char"}, {"name": "_", "type": "_7"}, {"name": "ts_us", "type": "uint64"},
          {"name": "ev_us", "type": "uint64"}, {"name": "price", "type": "float64"}]  # fmt: skip
T0 = model.EPOCH_2026


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(SPEC)
        yield platform


def fill(dw: Platform, rows: int = 35) -> np.ndarray:
    batch = model.checked_records(0, rows, 1)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch)
    return batch


def feed_path(dw: Platform) -> Path:
    return Path(dw.base_path) / "data" / "F"


# ------------------------------------------------------------------------------------------ ranges


def test_records_stamped_in_the_past_are_found(tmp_store: Path) -> None:
    """A backfill, a step back inside a chunk, one record alone far out: on either clock the mask is the answer."""
    full = np.zeros(60, model.dtype_of(FIELDS))
    full["ts_us"] = T0 + np.concatenate([np.arange(30), np.arange(30) - 10_000])
    full["ev_us"] = T0 - np.arange(60)
    full["ev_us"][37] = T0 + 10**12
    full["price"] = np.arange(60)
    with Platform(tmp_store) as dw:
        dw.create_feed({"feed_name": "F", "ts_col": "ts_us", "fields": FIELDS, "chunk_size_bytes": 7 * full.itemsize})
        with dw.create_writer("F") as writer:
            reader = dw["F"]
            for at in range(0, 60, 4):
                writer.write_batch(full[at : at + 4])
                seen = full[: at + 4]
                for clock in ("ts_us", "ev_us"):
                    for lo, hi in (
                        (T0 - 10**6, T0 - 9_990),
                        (T0 - 50, T0 + 5),
                        (T0 + 10, T0 + 10**13),
                        (0, 5),
                        (T0 + 29, T0 + 29),
                    ):
                        wanted = model.picked(seen, model.mask(seen[clock], lo, hi))
                        assert model.content(reader.read(lo, hi, clock=clock)) == wanted
        assert model.content(reader.read(last=5, clock="ev_us")) == model.picked(full, slice(55, None))
        assert reader.coverage("ev_us") == (T0 - 59, T0 + 10**12)


@pytest.mark.parametrize("last", ["10us", timedelta(microseconds=10), np.timedelta64(10, "us"), "0.01ms", "-10us"])
def test_last_as_a_duration_counts_back_from_the_newest_record(dw: Platform, last: Any) -> None:
    full = fill(dw)
    newest = int(full["ts_us"][-1])
    assert model.content(dw["F"].read(last=last)) == model.picked(full, model.mask(full["ts_us"], newest - 10, newest))


def test_last_of_an_empty_feed_and_of_more_than_there_is(dw: Platform) -> None:
    reader = dw["F"]
    assert len(reader.read(last="5min")) == len(reader.read(last=5)) == len(reader.latest(3)) == len(reader.read()) == 0
    fill(dw)
    assert len(reader.read(last="400d")) == len(reader.read(last=10**9)) == len(reader.latest(10**9)) == 35
    assert len(reader.read(last=0)) == len(reader.latest(0)) == 0


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"start": 1.5}, TimeFormatError), ({"start": True}, TimeFormatError), ({"end": np.datetime64("NaT", "us")},
        TimeFormatError),
        ({"start": "soon"}, TimeFormatError), ({"start": "2026-02-30"}, TimeFormatError), ({"end": "1700000000"},
        TimeFormatError),
        ({"inclusive": "none"}, TimeFormatError), ({"last": "5"}, ValueError), ({"last": 1.5}, ValueError),
        ({"last": True}, ValueError),
        ({"last": 5, "start": 1}, TimeFormatError), ({"last": "5min", "end": "now"}, TimeFormatError),
        ({"clock": "price"}, RecordError),
        ({"clock": "position"}, RecordError), ({"columns": ["nothing"]}, RecordError), ({"columns": []}, RecordError),
        ({"columns": ["rows", "rows"]}, RecordError), ({"start": b"2026"}, TimeFormatError), ({"start": [1]},
        TimeFormatError),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("rows", [0, 35])
def test_what_is_no_question_is_refused_on_an_empty_feed_too(
    dw: Platform, wrong: dict[str, Any], error: type, rows: int
) -> None:
    if rows:
        fill(dw, rows)
    with pytest.raises(error) as caught:
        dw["F"].read(**wrong)
    assert isinstance(caught.value, DeepwaterError)


def test_brackets_take_times_and_positions_and_not_both(dw: Platform) -> None:
    full = fill(dw)
    reader = dw["F"]
    day = "2026-01-01"
    assert len(reader[day]) == len(reader[day:day]) == len(reader[date(2026, 1, 1)]) == len(reader["2026":]) == 35
    assert len(reader[:"2025"]) == 0
    assert model.content(reader[5:8]) == model.picked(full, slice(5, 8))
    assert reader[-1].tobytes() == full[-1].tobytes() == reader[np.int64(34)].tobytes()
    for wrong in (slice("2026", 5), slice(5, "2026"), slice(0, 9, 2), 1.5, None, "nonsense", (1, 2), True):
        with pytest.raises((TypeError, TimeFormatError)):
            reader[wrong]
    for outside in (35, -36, 10**20):
        with pytest.raises(IndexError):
            reader[outside]


def test_an_answer_is_a_read_only_view_where_it_can_be(tmp_store: Path) -> None:
    full = np.zeros(20, model.dtype_of(FIELDS))
    full["ts_us"], full["ev_us"] = T0 + np.arange(20), T0 + np.arange(20)[::-1]
    with Platform(tmp_store) as dw:
        dw.create_feed({"feed_name": "F", "ts_col": "ts_us", "fields": FIELDS})
        with dw.create_writer("F") as writer:
            writer.write_batch(full)
        reader = dw["F"]
        window = reader.read(T0 + 3, T0 + 8)
        array = window.to_numpy()
        assert window.is_view and np.shares_memory(array, reader.rows(0, 20).to_numpy())
        assert np.shares_memory(window["price"], array)
        with pytest.raises(ValueError, match="read-only"):
            array["price"][0] = 1
        backwards = reader.read(T0 + 3, T0 + 8, clock="ev_us")
        assert backwards.is_view and len(backwards) == 6  # neighbours, though the clock runs backwards
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_arrays_stay_valid_after_close_rotation_and_deletion(dw: Platform) -> None:
    full = fill(dw)
    reader = dw["F"]
    kept = list(reader.rows(0, 35)) + list(reader.read(T0, T0 + 5)) + [reader.rows(3, 9)["check"]]
    untouched = reader.rows(0, 35)
    reader.close()
    dw.delete_feed("F")
    assert model.content(kept[:4]) == full.tobytes()
    assert kept[-1].tolist() == full["check"][3:9].tolist()
    del untouched


# ------------------------------------------------------------------------------------------ lookups


def test_the_latest_record_is_a_named_tuple_and_an_empty_feed_has_none(dw: Platform) -> None:
    reader = dw["F"]
    with pytest.raises(EmptyFeedError, match="F") as caught:
        reader.get_latest_record()
    assert isinstance(caught.value, RuntimeError)
    full = fill(dw)
    record = reader.get_latest_record()
    assert record[:-1] == full[-1].item()[:-1]
    assert record.position == 34 and type(record.position) is int


def test_asof_of_nothing_and_before_the_first_and_beyond_the_last(dw: Platform) -> None:
    reader = dw["F"]
    assert reader.asof([5, T0]).positions.tolist() == [-1, -1]
    full = fill(dw)
    assert reader.asof([]).positions.tolist() == []
    answer = reader.asof(["2025-12-31", "2026-01-01", T0 + 4, "2027", 2**63 - 1])
    assert answer.positions.tolist() == [-1, 2, 14, 34, 34]
    assert answer.records()["position"].tolist() == [2, 14, 34, 34]
    assert reader.asof("2026-01-01").positions.tolist() == [2]
    with pytest.raises(RecordError, match="no record"):
        answer["rows"]
    frame = answer.to_pandas()  # of a feed that has a column of that name
    assert len(frame) == 5 and frame["rows"].tolist()[1:] == [35] * 4
    assert full["position"][14] == 14


def test_position_of_a_time_beyond_the_end_is_the_end(dw: Platform) -> None:
    reader = dw["F"]
    assert reader.position_of("now") == 0
    fill(dw)
    assert [int(reader.position_of(t)) for t in (0, T0, T0 + 1, T0 + 11, T0 + 12, "2030")] == [0, 0, 3, 33, 35, 35]


# ------------------------------------------------------------------------------------------ the handle


def test_a_closed_reader_says_so_and_what_it_gave_stays(dw: Platform) -> None:
    fill(dw)
    with dw["F"] as reader:
        window = reader.rows(0, 35)
    for use in (reader.read, lambda: len(reader), lambda: reader.end, reader.marks, lambda: reader.follow("earliest"),
                reader.get_latest_record, lambda: reader[0], reader.playback, lambda: reader.latest(1)):  # fmt: skip
        with pytest.raises(ClosedError, match="closed"):
            use()
    assert "closed" in repr(reader)
    assert len(window.to_numpy()) == 35
    reader.close()


def test_reprs_say_what_a_feed_holds(dw: Platform) -> None:
    reader = dw["F"]
    assert "empty" in repr(reader)
    fill(dw)
    for text in (repr(reader), reader._repr_html_()):
        assert "35 records" in text and "2026-01-01T00:00:00" in text and "4 chunks" in text and "0 gaps" in text
    assert "2026" in repr(reader.read("1999", "2000"))
    assert "looks like seconds" in repr(reader.read(1_767_225_600, 1_767_225_700))
    assert reader.schema.names == list(model.CHECKED.names or ())
    assert reader.dtype == model.CHECKED


def test_looking_creates_and_changes_nothing(dw: Platform) -> None:
    fill(dw)
    before = model.tree(Path(dw.base_path))
    reader = dw["F"]
    reader.read().to_numpy()
    list(reader.follow("earliest", timeout=0))
    reader.marks(), reader.asof([T0]), repr(reader), dw.describe_feed("F"), dw.list_feeds(), "F" in dw
    with contextlib.suppress(DeepwaterError):
        reader.playback()
    assert model.tree(Path(dw.base_path)) == before


@pytest.mark.faults
def test_a_year_of_chunks_does_not_exhaust_descriptors(dw: Platform) -> None:
    """More chunks than a process may have open files: read, followed, kept as a window, looked up."""
    fill(dw, 3_000)
    done = run_python(
        """
        import resource, sys
        import numpy as np, model
        from deepwater import Platform
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
        reader = Platform(sys.argv[1])["F"]
        assert len(reader.read()) == 3_000
        for window in (reader.read(), reader.read(5, clock="ts_us"), reader.rows(1, 2_999)):
            assert sum(len(part) for part in window) == len(window)
            assert len(window["check"]) == len(window) == len(window.to_numpy())
        model.whole_writes(model.joined([a.copy() for a in reader.rows(0, 3_000)], model.CHECKED))
        assert sum(len(batch) for batch in reader.follow("earliest", timeout=0)) == 3_000
        rng = np.random.default_rng(1)
        assert len(reader.asof(rng.integers(0, 2**63, 500)).records()) >= 0
        for at in rng.integers(0, 3_000, 200).tolist():
            assert int(reader[at]["position"]) == at
        """,
        dw.base_path, 2 * MAPPED + 60,  # a reader and a follower
    )  # fmt: skip
    assert not done.stderr


def test_a_program_that_ends_with_everything_open_ends_quietly(dw: Platform) -> None:
    """Handles, windows and arrays in globals and in cycles, gone last of all: nothing on stderr, exit 0."""
    fill(dw)
    done = run_python(
        """
        import os, sys
        from deepwater import Platform
        fsync = os.fsync
        os.fsync = lambda fd: fsync(fd)  # holds these globals until the modules are taken down
        dw = Platform(sys.argv[1])
        reader = dw["F"]
        window, array, marks = reader.read(), reader.rows(0, 35).to_numpy(), reader.marks()
        follower = reader.follow("earliest", timeout=0)
        kept = list(follower)
        cycle = [reader, follower]
        cycle.append(cycle)
        """,
        dw.base_path,
    )
    assert not done.stderr and not done.stdout


def test_readers_in_threads_each_with_their_own(dw: Platform) -> None:
    wrong: list[BaseException] = []

    def read() -> None:
        try:
            with Platform(dw.base_path) as own, own["F"] as reader:
                while (end := int(reader.end)) < 160:
                    model.whole_writes(model.joined(reader.rows(0, end), model.CHECKED))
                    assert len(reader.read()) >= end
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    with dw.create_writer("F") as writer:
        for thread in threads:
            thread.start()
        for number in range(40):
            writer.write_batch(model.checked_records(number * 4, 4, number))
        for thread in threads:
            thread.join()
    assert not wrong


# ------------------------------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three sealed chunks and an open one, marks in two of them, and a feed of one chunk."""
    base = tmp_path_factory.mktemp("template") / "store"
    with Platform(base) as dw:
        for name, rows in (("F", 35), ("ONE", 6)):
            dw.create_feed({**SPEC, "feed_name": name})
            with dw.create_writer(name) as writer:
                writer.write_batch(model.checked_records(0, rows - 4, 1))
                writer.mark_gap(3, reason="lost")
                writer.write_batch(model.checked_records(rows - 4, 4, 2, snapshot=True), create_index=True)
    return base


ROWS = {"F": 35, "ONE": 6}


class Probe:
    """Opens a damaged store in every way. Each call gives the right answer or a typed error."""

    def __init__(self, store: Path, feed: str) -> None:
        self.store, self.feed, self.errors = store, feed, []
        self.truth = model.joined([model.checked_records(0, ROWS[feed] - 4, 1), model.checked_records(ROWS[feed] - 4,
            4, 2, snapshot=True)],
                                  model.CHECKED)  # fmt: skip

    def run(self, *, may_lose_tail: bool = False) -> list[DeepwaterError]:
        """`may_lose_tail`: the damage is in words that say how much there is, so less (never other) may be shown."""
        self.may_lose_tail = may_lose_tail
        with Platform(self.store) as dw:
            self.attempt(lambda: self.check_names(dw))
            for use in (self.read, self.by_time, self.follow, self.marks, self.lookup):
                self.attempt(lambda: use(dw))  # noqa: B023
            before = self.snapshot()
            self.attempt(lambda: self.write(dw))
            lost = {name for name in before if name.endswith(".bin") and name not in self.snapshot()}
            assert not lost, f"opening a writer removed {lost}"
        return self.errors

    def attempt(self, use: Callable[[], None]) -> None:
        try:
            use()
        except DeepwaterError as error:
            assert str(error)  # noqa: PT017 (any of them will do)
            self.errors.append(error)

    def snapshot(self) -> dict[str, tuple[int, int]]:
        return model.tree(self.store / "data" / self.feed)

    def right(self, data: bytes) -> None:
        whole = self.truth.tobytes()
        assert data == whole or (self.may_lose_tail and len(data) % SIZE == 0), (
            f"{len(data) // SIZE} of {len(self.truth)} records, or others"
        )

    def check_names(self, dw: Platform) -> None:
        assert dw.list_feeds() == sorted(ROWS)
        dw.describe_feed(self.feed)

    def read(self, dw: Platform) -> None:
        with dw[self.feed] as reader:
            self.right(model.content(reader.rows(0, 10**6)))

    def by_time(self, dw: Platform) -> None:
        with dw[self.feed] as reader:
            self.right(model.content(reader.read("2026-01-01", "2026-01-02")))
            stamps = self.truth["ts_us"]
            window = reader.read(T0 + 1, T0 + 2)
            assert (
                model.content(window) == model.picked(self.truth, model.mask(stamps, T0 + 1, T0 + 2))
                or self.may_lose_tail
            )

    def follow(self, dw: Platform) -> None:
        with dw[self.feed] as reader:
            self.right(model.content(reader.follow("earliest", timeout=0)))

    def marks(self, dw: Platform) -> None:
        with dw[self.feed] as reader:
            kinds = reader.marks()["kind"].tolist()
            assert kinds == [b"gap", b"snapshot"] or self.may_lose_tail
            playback = model.content(reader.playback())
            assert playback == self.truth[-4:].tobytes() or self.may_lose_tail

    def lookup(self, dw: Platform) -> None:
        with dw[self.feed] as reader:
            assert reader.asof([T0 + 1]).positions.tolist() == [5] or self.may_lose_tail
            if len(reader) > 3 or not self.may_lose_tail:
                assert reader[3].tobytes() == self.truth[3].tobytes()

    def write(self, dw: Platform) -> None:
        with dw.create_writer(self.feed) as writer:
            end = writer.end
            assert end == len(self.truth) or self.may_lose_tail
            assert writer.write_batch(model.checked_records(end, 12, 3)) == end
            with dw[self.feed] as reader:
                assert len(reader) == end + 12
                assert model.content(reader.rows(end, end + 12)) == model.checked_records(end, 12, 3).tobytes()


@contextlib.contextmanager
def damaged(template: Path, tmp_path: Path) -> Iterator[Path]:
    copy = tmp_path / "copy"
    shutil.copytree(template, copy)
    yield copy
    shutil.rmtree(copy)


FILES = {
    "sealed": "F/chunk_00000002.bin", "first": "F/chunk_00000001.bin", "last": "F/chunk_00000004.bin",
    "only": "ONE/chunk_00000001.bin",
    "marks": "F/chunk_00000004.idx", "registry": "F/F.reg",
}  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("which", FILES)
def test_a_file_cut_at_any_size_is_an_error_that_says_so_or_not_needed(
    template: Path, tmp_path: Path, which: str
) -> None:
    size = (template / "data" / FILES[which]).stat().st_size
    cuts = sorted({0, 1, 7, 8, 100, 511, 512, 576, 4095, 4096, 4104, 8192, 8300, 16383, 16384, 16448, 17000, size - 1,
        size - 64,
                   size + 1, size + 16384, 2 * size})  # fmt: skip
    for cut in cuts:
        with damaged(template, tmp_path) as store:
            path = store / "data" / FILES[which]
            data = path.read_bytes().ljust(cut, b"\0")[:cut]
            path.write_bytes(data)
            errors = Probe(store, path.parent.name).run()
            if which not in ("registry", "marks") and cut != size:
                assert errors, f"{which} cut to {cut} was taken for whole"
            assert all(isinstance(error, CorruptFileError) for error in errors), errors


@pytest.mark.filterwarnings("ignore:.*this is a copy made while")  # without its last chunk
@pytest.mark.faults
@pytest.mark.parametrize("which", FILES)
@pytest.mark.parametrize(
    "what",
    [
        "missing",
        "directory",
        "fifo",
        "symlink",
        "dangling symlink",
        "empty",
        "garbage",
        "other kind",
        "of another feed",
    ],
)
def test_something_else_in_the_place_of_a_file(template: Path, tmp_path: Path, which: str, what: str) -> None:
    with damaged(template, tmp_path) as store:
        path = store / "data" / FILES[which]
        data = path.read_bytes()
        path.unlink()
        if what == "directory":
            path.mkdir()
        elif what == "fifo":
            os.mkfifo(path)
        elif what == "symlink":
            real = store / "elsewhere"
            real.write_bytes(data)
            path.symlink_to(real)
        elif what == "dangling symlink":
            path.symlink_to(store / "nowhere")
        elif what == "garbage":
            path.write_bytes(np.random.default_rng(1).bytes(len(data)))
        elif what == "other kind":
            other = FILES["registry" if which in ("sealed", "first", "last", "only") else "sealed"]
            shutil.copy(template / "data" / other, path)
        elif what == "of another feed":
            shutil.copy(template / "data" / (FILES["only"] if path.parent.name == "F" else FILES["first"]), path)
        elif what == "empty":
            path.touch()
        absent_is_fine = which == "registry" or (which == "marks" and what == "missing")
        lost = (which, what) in {("only", "missing"), ("last", "missing"), ("marks", "missing")}
        errors = Probe(store, path.parent.name).run(may_lose_tail=lost)
        is_prefix = (which, what) == ("last", "missing")  # as of a copy that was made before there was one
        assert bool(errors) or absent_is_fine or is_prefix or which == "only", (which, what)
        assert all(isinstance(error, (CorruptFileError, LookupError)) for error in errors), errors


@pytest.mark.filterwarnings("ignore:.*the machine went down")  # a copy whose words contradict each other
@pytest.mark.faults
@pytest.mark.parametrize("which", ["sealed", "first", "last", "only", "marks", "registry"])
def test_a_flipped_bit_in_a_header_is_an_error_or_harmless(template: Path, tmp_path: Path, which: str) -> None:
    """The right answer or CorruptFileError; words that only say how far a live file reaches may say less."""
    rng = np.random.default_rng(11)
    path = template / "data" / FILES[which]
    used = np.flatnonzero(np.frombuffer(path.read_bytes(), np.uint8)[:16384])
    offsets = (
        {int(o) for o in rng.choice(used, 60)}
        | {int(o) for o in rng.integers(0, 16384, 10)}
        | {520, 568, 572, 508, 4096, 4103}
    )
    for offset in sorted(offsets):
        live = 4096 <= offset < 4096 + 4096
        with damaged(template, tmp_path) as store:
            model.flip(store / "data" / FILES[which], offset, int(rng.integers(8)))
            try:
                Probe(store, path.parent.name).run(may_lose_tail=live)
            except AssertionError as error:
                raise AssertionError(f"bit of byte {offset} of {which}: {error}") from error


@pytest.mark.filterwarnings("ignore:.*the machine went down")  # a copy whose words contradict each other
@pytest.mark.faults
@pytest.mark.parametrize("which", ["sealed", "last", "only", "marks", "registry"])
@pytest.mark.parametrize("word", [2**64 - 1, 2**63, 2**63 - 1, 2**63 + 5, 10**6, 0])
@pytest.mark.parametrize("offset", [4096, 4160], ids=["commit", "durable"])
def test_counts_from_disk_are_never_trusted_as_lengths(
    template: Path, tmp_path: Path, which: str, word: int, offset: int
) -> None:
    with damaged(template, tmp_path) as store:
        path = store / "data" / FILES[which]
        model.poke(path, offset, word.to_bytes(8, "little"))
        probe = Probe(store, path.parent.name)
        probe.run(may_lose_tail=offset == 4096)
        with Platform(store) as dw, contextlib.suppress(CorruptFileError), dw[path.parent.name] as reader:
            assert len(reader) <= 40 + 12 + 10
            assert dw.describe_feed(path.parent.name)["durable"] <= len(reader)


@pytest.mark.faults
def test_a_gap_or_an_overlap_of_positions_between_chunks_is_damage(template: Path, tmp_path: Path) -> None:
    for which, base in (("sealed", 9), ("sealed", 11), ("sealed", 2**63), ("last", 29), ("last", 31), ("last", 0)):
        for registry in ("kept", "lost"):
            with damaged(template, tmp_path) as store:
                path = store / "data" / FILES[which]
                model.poke(path, *fmt.pack_activation(base, T0))
                if registry == "lost":
                    (store / "data" / FILES["registry"]).unlink()
                errors = Probe(store, "F").run()
                assert errors and all(isinstance(error, CorruptFileError) for error in errors), (which, base, registry)


@pytest.mark.faults
def test_two_chunks_of_one_id_and_chunks_of_another_life_are_damage(template: Path, tmp_path: Path) -> None:
    for source, target in (("sealed", "last"), ("first", "sealed"), ("last", "sealed")):
        with damaged(template, tmp_path) as store:
            shutil.copy(store / "data" / FILES[source], store / "data" / FILES[target])
            errors = Probe(store, "F").run()
            assert errors and all(isinstance(error, CorruptFileError) for error in errors)


@pytest.mark.faults
def test_headers_with_a_right_checksum_and_impossible_numbers(template: Path, tmp_path: Path) -> None:
    """Random changes of the identity, its CRC made right again: an error or an answer, never a crash."""
    rng = random.Random(5)
    numbers = [0, 1, 17, 63, 16384, 100_000, 2**31, 2**63 - 1, 2**63, 2**64 - 64, 2**64 - 1]
    for _ in range(120):
        which = rng.choice(list(FILES))
        with damaged(template, tmp_path) as store:
            path = store / "data" / FILES[which]
            data = bytearray(path.read_bytes())
            for _ in range(rng.randint(1, 2)):
                at = rng.choice([16, 20, 24, 28, *range(80, 200, 8)])
                data[at : at + 8] = rng.choice(numbers).to_bytes(8, "little")
            data[508:512] = fmt.crc32(bytes(data[:508])).to_bytes(4, "little")
            path.write_bytes(data)
            Probe(store, path.parent.name).run(may_lose_tail=True)


@pytest.mark.faults
@pytest.mark.parametrize("how", ["removed", "empty", "garbage", "half", "rows flipped", "stale"])
def test_a_lost_or_damaged_registry_loses_nothing(template: Path, tmp_path: Path, how: str) -> None:
    with damaged(template, tmp_path) as store:
        path = store / "data" / FILES["registry"]
        data = bytearray(path.read_bytes())
        path.unlink()
        if how == "rows flipped":
            data[16384 + 100] ^= 4
        elif how == "stale":  # fewer rows than chunks were sealed
            data[4096:4104] = (1).to_bytes(8, "little")
        elif how == "half":
            data = data[: len(data) // 2]
        elif how == "garbage":
            data = bytearray(np.random.default_rng(2).bytes(len(data)))
        elif how == "empty":
            data = bytearray()
        if how != "removed":
            path.write_bytes(data)
        assert not Probe(store, "F").run()
        with Platform(store) as dw, dw["F"] as reader:
            assert (reader.first, len(reader)) == (0, 47)


@pytest.mark.faults
def test_a_flipped_bit_in_a_row_of_the_registry_changes_no_answer(template: Path, tmp_path: Path) -> None:
    """Positions, counts and bounds of chunks lie in there: a wrong one would hide records from a range."""
    rng = np.random.default_rng(8)
    for at in range(3 * 88):
        if at % 88 < 24 or at % 88 >= 64 or at % 7 == 0:
            with damaged(template, tmp_path) as store:
                model.flip(store / "data" / FILES["registry"], 16384 + at, int(rng.integers(8)))
                assert not Probe(store, "F").run(), at


def test_the_rest_of_a_feed_is_readable_beside_a_damaged_chunk(template: Path, tmp_path: Path) -> None:
    """A missing or cut chunk in the middle is an error when it is touched, and for nobody else."""
    for damage in ("missing", "cut"):
        with damaged(template, tmp_path) as store:
            path = store / "data" / FILES["sealed"]
            data = path.read_bytes()
            path.unlink()
            if damage == "cut":
                path.write_bytes(data[:20_000])
            with Platform(store) as dw, dw["F"] as reader:
                assert len(reader) == 35
                assert len(reader.rows(0, 10).to_numpy()) == 10 and len(reader.rows(20, 35).to_numpy()) == 15
                for use in (lambda: reader.rows(5, 15).to_numpy(), lambda: reader.read().to_numpy()):
                    with pytest.raises(CorruptFileError, match="chunk_00000002"):
                        use()


def test_a_copy_of_a_store_is_a_store(template: Path, tmp_path: Path) -> None:
    with damaged(template, tmp_path) as store:
        assert not Probe(store, "F").run()
        with Platform(template) as dw, dw["F"] as reader:
            assert len(reader) == 35  # what was written to the copy is not here
