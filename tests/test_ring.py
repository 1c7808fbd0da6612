"""Ephemeral feeds: the interface of a durable feed over what a ring still holds, its lives, and its places."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
import ring_kit
from deepwater import (
    ClosedError,
    CorruptFileError,
    FeedLockedError,
    FeedNotFoundError,
    LappedError,
    NoSnapshotError,
    Platform,
    RecordError,
    SchemaError,
    StorageFullError,
)
from deepwater import format as fmt
from deepwater.ring import Ring, WritableRing
from deepwater.ring_chain import RingChain
from deepwater.ring_files import ROOT_VARIABLE
from deepwater.ring_reader import RingReader
from deepwater.ring_writer import RingWriter
from processes import run_python

CAPACITY = 100
FIELDS = [
    {"name": "ts_us", "type": "uint64"}, {"name": "recv_us", "type": "uint64"}, {"name": "side", "type": "char"},
    {"name": "_", "type": "_7"}, {"name": "x", "type": "float64"},
]  # fmt: skip
DTYPE = model.dtype_of(FIELDS)
SPEC = {"feed_name": "R", "ts_col": "ts_us", "persist": False, "chunk_size_bytes": CAPACITY * 32, "fields": FIELDS}


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(SPEC)
        yield platform
        for name in platform:
            platform.delete_feed(name)


def rows(first: int, count: int) -> np.ndarray:
    """Records that say their position; `recv_us` jitters, three share each `ts_us`."""
    out = np.zeros(count, DTYPE)
    at = np.arange(first, first + count)
    out["ts_us"], out["recv_us"], out["x"] = 1000 + at // 3, 1000 + at + (at * 7919) % 11, at
    out["side"] = np.array([b"B", b"S"])[at % 2]
    return out


def positions(batches: Any) -> list[int]:
    return [int(x) for records in batches for x in records["x"]]


def shared(dw: Platform) -> Path:
    return Path(dw._store.shared.path)


# -------------------------------------------------------------------------------- the interface


def test_a_ring_is_chosen_by_the_spec(dw: Platform) -> None:
    with dw.create_writer("R") as writer:
        assert isinstance(writer, RingWriter)
        assert isinstance(dw["R"], RingReader)
        assert dw["R"].settings.persist is False
        about = dw.describe_feed("R")
        assert about["persist"] is False
        assert about["writer"]["pid"] == os.getpid()
        assert about["path"] == str(shared(dw) / "R-1")
        assert dw.feeds().loc["R", "bytes"] == os.stat(about["path"]).st_size


@pytest.mark.parametrize("persist", [True, False])
def test_every_call_answers_as_a_durable_feed_does(tmp_store: Path, persist: bool) -> None:
    """The same calls on both kinds, held against NumPy."""
    full = rows(0, 90)
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "persist": persist})
        reader = dw["R"]
        tail = reader.follow("latest", timeout=0)
        streams = [reader.read_batch_raw(7, timeout=0), reader.stream_latest_records_raw(timeout=0),
                   reader.stream_latest_records(timeout=0)]  # fmt: skip
        with dw.create_writer("R") as writer:
            assert writer.write_batch(full[:40]) == 0
            assert writer.write_values(*full[40].item()) == 40
            assert writer.write_batch_bytes(full[41:].tobytes()) == 41
            assert (reader.first, reader.end, len(reader)) == (0, 90, 90)
            assert positions(reader.read()) == list(range(90))
            for lo, hi in [(1000, 1005), (0, 999), (1029, 9999), (1003, 1003), (1010, 1009)]:
                for clock in ("ts_us", "recv_us"):
                    right = np.flatnonzero(model.mask(full[clock], lo, hi))
                    assert positions(reader.read(lo, hi, clock=clock)) == right.tolist(), (clock, lo, hi)
            assert positions(reader.rows(10, 20)) == positions(reader[10:20]) == list(range(10, 20))
            assert positions(reader[-5:]) == positions(reader.latest(5)) == positions(reader.read(last=5))
            assert reader[-1]["x"] == 89 == reader.get_latest_record().x
            assert reader.position_of(1010) == 30
            assert reader.coverage() == (1000, 1029)
            assert reader.coverage("recv_us") == (full["recv_us"].min(), full["recv_us"].max())
            times = np.array([999, 1000, 1017, 5000], np.uint64)
            for clock in ("ts_us", "recv_us"):
                found = reader.asof(times, clock=clock)
                assert found.positions.tolist() == model.asof(full[clock], times).tolist()
                assert found.records()["x"].tolist() == found.positions[1:].tolist()
            frame = reader.read().to_pandas()
            assert frame["x"].tolist() == list(range(90)) and frame.index.name == "ts_us"
            assert reader.read().to_arrow().column("side").to_pylist()[:2] == ["B", "S"]
            assert positions(tail) == list(range(90))
            assert b"".join(streams[0]) == b"".join(streams[1]) == full.tobytes()
            assert [record[4 - 1] for record in streams[2]] == list(range(90))
            assert [r[3] for r in reader.stream_time_range(1001, 1001)] == [3, 4, 5]
            assert "90 records" in repr(reader) and "90 records" in reader._repr_html_()
        dw.delete_feed("R")


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_writes_holds_the_newest_records(dw: Platform, seed: int) -> None:
    """Batches of any size up to half, single values, restarts: what is held is the end of the whole."""
    rng = np.random.default_rng(seed)
    reader, end = dw["R"], 0
    follower = reader.follow("earliest", timeout=0, batch=None if seed % 2 else 9)
    got: list[int] = []
    for life in range(5):
        with dw.create_writer("R") as writer:
            assert writer.end == end
            for _ in range(30):
                n = int(rng.integers(0, CAPACITY // 2 + 1))
                if n == 1:
                    assert writer.write_values(*rows(end, 1)[0].item()) == end
                else:
                    assert writer.write_batch(rows(end, n)) == end
                end += n
                got += positions(follower)
                first = max(0, end - CAPACITY)
                held = rows(first, end - first)
                assert (reader.first, reader.end) == (first, end)
                assert reader.read().to_numpy().tobytes() == held.tobytes()
                lo, hi = sorted(rng.integers(900, 1100 + end, 2).tolist())
                for clock in ("ts_us", "recv_us"):
                    expected = held["x"][model.mask(held[clock], lo, hi)].tolist()
                    assert positions(reader.read(lo, hi, clock=clock)) == expected
                times = rng.integers(900, 1100 + end, 3).astype(np.uint64)
                found = reader.asof(times, clock="recv_us").positions
                right = model.asof(held["recv_us"], times)
                assert found.tolist() == np.where(right < 0, -1, right + first).tolist()
        assert life or reader.incarnation
    assert got == list(range(end))
    assert follower.lost == 0


def test_a_ring_forgets_disorder_with_the_records_that_stepped_back(dw: Platform) -> None:
    reader = dw["R"]
    with dw.create_writer("R") as writer:
        stamps = list(range(1000, 1050))
        stamps[20] = 5
        for k, stamp in enumerate(stamps):
            writer.write_values(stamp, stamp, "B", float(k))
        in_order = lambda: reader._ask(lambda held: held.is_in_order(0))  # noqa: E731
        assert not in_order()
        assert positions(reader.read(0, 10)) == [20]
        batch = np.zeros(70, DTYPE)
        batch["ts_us"] = batch["recv_us"] = np.arange(2000, 2070)
        batch["x"] = np.arange(50, 120)
        writer.write_batch(batch[:40])
        assert not in_order()
        writer.write_batch(batch[40:])
        assert reader.first == 20 and in_order()
        assert positions(reader.read(1040, 2001)) == [*range(40, 50), 50, 51]
        writer.write_values(2000, 0, "B", 120.0)
        assert not in_order() and positions(reader.read(2000, 2000)) == [50, 120]


def test_a_write_of_more_than_half_is_refused_and_changes_nothing(dw: Platform) -> None:
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))
        writer.write_batch(rows(50, 50))
        for write in (lambda: writer.write_batch(rows(0, 51)), lambda: writer.write_batch_bytes(bytes(32 * 99))):
            with pytest.raises(RecordError, match=r"at most half.*split the batch"):
                write()
        assert (dw["R"].first, dw["R"].end) == (0, 100)
        assert writer.write_batch(rows(100, 50)) == 100


@pytest.mark.parametrize(
    "values", [(1,), (-1, 0, "B", 1.0), (1, 2, "toolong", 1.0), (1, 2, "B", "x"), (1.5, 0, "B", 1)]
)
def test_a_bad_value_overwrites_nothing(dw: Platform, values: tuple[Any, ...]) -> None:
    """The oldest record lies where the new one would go: it is still there."""
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))
        writer.write_batch(rows(50, 50))
        with pytest.raises(RecordError):
            writer.write_values(*values)
        assert positions(dw["R"].read()) == list(range(100))


def test_what_a_ring_cannot_do_is_said(dw: Platform) -> None:
    reader = dw["R"]
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 3))
        with pytest.raises(RecordError, match="index_playback"):
            writer.write_batch(rows(3, 1), create_index=True)
        with pytest.raises(RecordError, match="index_playback"):
            writer.write_values(1, 1, "B", 1.0, create_index=True)
        with pytest.raises(RecordError, match="keeps no marks"):
            writer.mark_gap(lost=1)
        assert writer.flush() == 0
        assert len(reader.marks()) == len(reader.snapshots()) == len(reader.gaps()) == 0
        with pytest.raises(ValueError, match="kind"):
            reader.marks("nonsense")
        with pytest.raises(NoSnapshotError):
            reader.playback()
        assert reader.follow("snapshot", timeout=0).position == 3
        with pytest.raises(SchemaError, match="index_playback"):
            dw.create_feed({**SPEC, "feed_name": "S", "index_playback": True})
        with pytest.raises(FeedLockedError, match=str(os.getpid())):
            dw.create_writer("R")
    with pytest.raises(ClosedError):
        writer.write_values(1, 1, "B", 1.0)


# -------------------------------------------------------------------------------- copies, laps, loans


def test_what_was_handed_out_does_not_change(dw: Platform) -> None:
    reader = dw["R"]
    follower = reader.follow("earliest", timeout=0)
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))
        window, batch, latest = reader.read(), next(follower), reader[-1]
        arrays = [*window, batch, window["x"]]
        before = [array.tobytes() for array in arrays]
        assert not window.is_view
        for k in range(6):
            writer.write_batch(rows(50 + 50 * k, 50))
        assert [array.tobytes() for array in arrays] == before
        assert latest["x"] == 49
        for array in (batch, window.to_numpy()):
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
    reader.close()
    assert [array.tobytes() for array in arrays] == before


def test_an_overtaken_follower_is_told_exactly_and_goes_on(dw: Platform) -> None:
    reader = dw["R"]
    raising = reader.follow("earliest", timeout=0, batch=30)
    skipping = reader.follow("earliest", timeout=0, on_lap="skip")
    with dw.create_writer("R") as writer:
        for k in range(5):
            writer.write_batch(rows(50 * k, 50))
        with pytest.raises(LappedError, match="150 records") as caught:
            next(raising)
        assert (caught.value.lost, raising.lost, raising.position) == (150, 150, 150)
        assert positions(raising) == list(range(150, 250))
        assert positions(skipping) == list(range(150, 250))
        assert (skipping.lost, skipping.position) == (150, 250)
        writer.write_batch(rows(250, 1))
        assert positions(raising) == positions(skipping) == [250]
        resumed = reader.follow(position=raising.position, timeout=0)
        assert positions(resumed) == []


def test_a_copy_that_is_overtaken_in_the_middle_keeps_its_true_part(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer comes into the copy just after it was made: what it overwrote is lost, the rest is handed out."""
    follower = dw["R"].follow("earliest", timeout=0, on_lap="skip")
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))
        writer.write_batch(rows(50, 50))
        oldest = Ring.oldest
        looked = 0

        def meanwhile(self: Ring) -> int:
            nonlocal looked
            looked += 1
            if looked == 1:  # after the copy
                writer.write_batch(rows(100, 30))
            return oldest(self)

        monkeypatch.setattr(Ring, "oldest", meanwhile)
        assert positions([next(follower)]) == list(range(30, 100))
        assert follower.lost == 30
        monkeypatch.undo()
        assert positions(follower) == list(range(100, 130))


@pytest.mark.parametrize(("way", "rows_"), [("values", 1), ("few", 3), ("many", 50), ("staged", 5)])
def test_records_are_claimed_before_they_are_overwritten(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, way: str, rows_: int
) -> None:
    """Looks just before and just after the copy, when nothing is published yet: what was there is held no more."""
    put, held, reader = WritableRing.put, [], dw["R"]

    def looked_at(self: WritableRing, count: int, data: Any) -> None:
        held.append(positions(reader.read()))
        put(self, count, data)
        held.append(positions(reader.read()))

    with dw.create_writer("R") as writer:
        for first in (0, 50):
            writer.write_batch(rows(first, 50))
        monkeypatch.setattr(WritableRing, "put", looked_at)
        more = rows(100, rows_)
        if way in ("values", "staged"):
            for record in more:
                (writer.write_values if way == "values" else writer.stage_values)(*record.item())
            writer.commit_values()
        else:
            writer.write_batch(more)
    assert held == [list(range(rows_, 100))] * 2
    assert positions(reader.read()) == list(range(rows_, 100 + rows_))


def test_an_answer_is_asked_again_until_nothing_came_into_it(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that writes at each look: the range is still whole and in order, and at last it is taken from a copy."""
    reader = dw["R"]
    with dw.create_writer("R") as writer:
        end = 0
        for _ in range(4):
            writer.write_batch(rows(end, 50))
            end += 50
        live, copied, counts = RingChain.live, RingChain._copied, {"live": 0, "copied": 0}

        def busy(self: RingChain) -> Any:
            nonlocal end
            counts["live"] += 1
            found = live(self)
            writer.write_batch(rows(end, 7))
            end += 7
            return found

        def counted(self: RingChain) -> Any:
            counts["copied"] += 1
            return copied(self)

        monkeypatch.setattr(RingChain, "live", busy)
        monkeypatch.setattr(RingChain, "_copied", counted)
        for clock in ("ts_us", "recv_us"):
            got = positions(reader.read(0, 10**9, clock=clock))
            assert got == list(range(got[0], got[-1] + 1))
            assert len(got) >= CAPACITY // 2
        assert counts["live"] > 2
        found = reader.asof([10**9])
        assert found.records()["x"][0] == found.positions[0]


def test_a_loan_is_checked_on_return(dw: Platform) -> None:
    reader = dw["R"]
    with reader.borrow(5) as nothing:
        assert len(nothing) == 0
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))
        writer.write_batch(rows(50, 40))
        with reader.borrow(30) as window:
            assert window.is_view
            assert positions(window) == list(range(60, 90))
            assert np.shares_memory(window.to_numpy(), reader._ring_chain.tail.records)
            with pytest.raises(ValueError, match="read-only"):
                window.to_numpy()["x"][0] = 1
        writer.write_batch(rows(90, 30))
        with reader.borrow(60) as window:  # it wraps
            assert len(list(window)) == 2 and positions(window) == list(range(60, 120))
        loan = reader.borrow(100)
        window = loan.__enter__()
        writer.write_batch(rows(120, 20))
        assert positions(window)[:20] == list(range(120, 140))  # live: it changes
        with pytest.raises(LappedError) as caught:
            loan.__exit__(None, None, None)
        assert caught.value.lost == 20
        loan = reader.borrow(100)
        loan.__enter__()
        writer.write_batch(rows(140, 20))
        assert not loan.__exit__(KeyError, KeyError(), None)  # the block's own error goes on
        with reader.borrow(10**6) as window:
            assert len(window) == CAPACITY
            writer.resize_chunk_size(32 * 40)
            writer.write_batch(rows(160, 20))
            assert reader.first == 140
            assert positions(window)[-1] == 159  # of the ring that was replaced: nobody writes it any more


# -------------------------------------------------------------------------------- lives


def test_readers_that_come_before_the_writer_wait_for_it(dw: Platform) -> None:
    reader = dw["R"]
    followers = [reader.follow(start, timeout=0) for start in ("latest", "earliest", "snapshot", 0)]
    assert (len(reader), reader.first, reader.end, reader.incarnation) == (0, 0, 0, "")
    assert [list(f) for f in followers] == [[]] * 4
    assert "empty" in repr(reader)
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 5))
        assert [positions(f) for f in followers] == [list(range(5))] * 4
        assert followers[0].position.incarnation == reader.incarnation != ""


def test_a_resize_keeps_the_newest_records_that_fit_and_readers_go_on(dw: Platform) -> None:
    reader = dw["R"]
    follower, late = reader.follow("earliest", timeout=0), reader.follow("earliest", timeout=0)
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))
        writer.write_batch(rows(50, 45))
        assert positions(follower) == list(range(95))
        writer.resize_chunk_size(32 * 30)
        assert sorted(p.name for p in shared(dw).glob("R-*")) == ["R-2"]
        assert (reader.first, reader.end, positions(reader.read())) == (65, 95, list(range(65, 95)))
        with pytest.raises(LappedError) as caught:
            next(late)
        assert caught.value.lost == 65
        writer.write_batch(rows(95, 15))
        assert positions(follower) == list(range(95, 110))
        writer.resize_chunk_size(32 * 1000)
        writer.resize_chunk_size(32 * 900)  # twice while nobody looks
        writer.write_batch(rows(110, 400))
        assert positions(follower) == list(range(110, 510))
        assert (reader.first, reader.end) == (80, 510)
        assert dw["R"].settings.chunk_size_bytes == 32 * 900
        writer.resize_chunk_size(32 * 900)  # the same: nothing changes
        assert sorted(p.name for p in shared(dw).glob("R-*")) == ["R-4"]
        with pytest.raises(SchemaError):
            writer.resize_chunk_size(31)
        with pytest.raises(FeedLockedError):
            dw.resize_feed("R", 32 * 50)
    dw.resize_feed("R", 32 * 50)
    assert (reader.first, reader.end) == (460, 510)
    dw.create_feed({**SPEC, "chunk_size_bytes": 32 * 77}, update=True)
    with dw.create_writer("R") as writer:
        assert writer._ring.capacity == 77
        assert positions(reader.read()) == list(range(460, 510))


def test_a_resize_keeps_what_it_knows_of_the_order_of_clocks(dw: Platform) -> None:
    reader = dw["R"]
    with dw.create_writer("R") as writer:
        for k in range(20):
            writer.write_values(1000 + (k if k != 15 else -500), 1000, "B", float(k))
        writer.resize_chunk_size(32 * 10)
        assert positions(reader.read(0, 600)) == [15]
        writer.resize_chunk_size(32 * 4)
        assert positions(reader.read(1016, 1017)) == [16, 17]
        assert reader._ask(lambda held: held.is_in_order(0))


def test_a_deleted_ring_tells_its_readers_and_a_new_one_is_another(dw: Platform) -> None:
    reader = dw["R"]
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 10))
        with pytest.raises(FeedLockedError):
            dw.delete_feed("R")
    follower, kept = reader.follow("earliest", timeout=0), reader.end
    window = reader.read()
    dw.delete_feed("R")
    assert not shared(dw).exists()
    assert positions([next(follower)]) == list(range(10))  # what it knew of already
    for use in (lambda: len(reader), reader.read, lambda: next(follower), lambda: reader.end):
        with pytest.raises(FeedNotFoundError, match="deleted"):
            use()
    assert positions(window) == list(range(10))
    dw.create_feed(SPEC)
    again = dw["R"]
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))
        with pytest.raises(FeedNotFoundError, match="deleted"):
            next(follower)
        with pytest.raises(RecordError, match="another life"):
            again.follow(position=kept)
        assert positions(again.read()) == list(range(50))


def test_a_ring_lost_with_the_machine_is_a_new_life(dw: Platform) -> None:
    """Nothing is left in shared memory after a reboot: positions start at 0, old ones are refused."""
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 10))
    kept, life = dw["R"].end, dw["R"].incarnation
    shutil.rmtree(shared(dw))
    reader = dw["R"]
    assert len(reader) == 0
    with pytest.raises(RecordError, match="another life"):
        reader.follow(position=kept)
    with dw.create_writer("R") as writer:
        assert writer.write_batch(rows(0, 20)) == 0
        assert reader.incarnation not in ("", life)
        with pytest.raises(RecordError, match="another life"):
            reader.rows(kept, 99)


def test_a_ring_that_was_taken_away_under_a_follower_is_told(dw: Platform) -> None:
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 10))
        follower = dw["R"].follow("latest", timeout=60)
        (shared(dw) / "R-1").unlink()
        with pytest.raises(FeedNotFoundError, match="removed"):
            next(follower)


@pytest.mark.faults
@pytest.mark.parametrize("forgets", [False, True], ids=["keeps", "forgets"])
def test_a_successor_keeps_the_claim_of_a_writer_that_died_inside_a_write(dw: Platform, forgets: bool) -> None:
    """It had overwritten 50 slots and published nothing. Readers never take them for the old records.

    The second run shows that the test would see it: with a successor that takes the claim back, they do.
    """
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))
        writer.write_batch(rows(50, 50))
    reader = dw["R"]
    code = """
        import os, sys
        sys.path.insert(0, "tests")
        import test_ring
        from deepwater import Platform
        writer = Platform(sys.argv[1]).create_writer("R")
        writer._publish = lambda word: os._exit(7)
        writer.write_batch(test_ring.rows(100, 40))
    """
    root = Path(__file__).resolve().parent.parent
    assert run_python(code, dw.base_path, check=False, cwd=root).returncode == 7
    ring = reader._ring_chain.tail
    assert ring.segment.words[fmt.CLAIM] == 140 and ring.segment.words[fmt.COMMIT] == 100
    assert positions(reader.read()) == list(range(40, 100))
    with dw.create_writer("R") as writer:
        if forgets:
            writer._ring.segment.claim(100)
            assert positions(reader.read())[:40] == list(range(100, 140))  # wrong, and accepted
            return
        assert (writer.end, reader.first) == (100, 40)
        assert positions(reader.read()) == list(range(40, 100))
        writer.write_values(*rows(100, 1)[0].item())
        assert ring.segment.words[fmt.CLAIM] == 140
        assert positions(reader.read()) == list(range(40, 101))
        writer.write_batch(rows(101, 50))
        assert positions(reader.read()) == list(range(51, 151))


@pytest.mark.faults
def test_a_resize_that_dies_at_any_step_leaves_one_ring(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the seal the old ring stands, after it the new one; the next writer removes what is left over."""
    reader = dw["R"]
    end, capacity = 0, CAPACITY
    for step in ("create_ring", "own", "activate", "publish", "remove"):
        with dw.create_writer("R") as writer:
            writer.write_batch(rows(end, 20))
            end += 20
        new = 64 if capacity != 64 else 90
        code = f"""
            import os, sys
            from deepwater import Platform, ring
            from deepwater.files import Directory
            from deepwater.segment import Segment
            writer = Platform(sys.argv[1]).create_writer("R")
            where = {{"create_ring": (ring, "create_ring"), "own": (ring.WritableRing, "own"),
                     "activate": (ring.WritableRing, "activate"), "publish": (Segment, "publish"),
                     "remove": (Directory, "remove")}}["{step}"]
            calls = 0
            original = getattr(*where)
            def die(*args, **kwargs):
                global calls
                calls += 1
                if "{step}" == "remove" and calls == 1 or "{step}" == "publish" and calls == 1:
                    return original(*args, **kwargs)
                os._exit(7)
            setattr(*where, die)
            writer.resize_chunk_size(32 * {new})
        """
        assert run_python(code, dw.base_path, check=False).returncode == 7, step
        assert reader.end == end
        assert positions(reader.read())[-20:] == list(range(end - 20, end)), step
        capacity = new
        with dw.create_writer("R") as writer:
            assert (writer.end, writer._ring.capacity) == (end, new)  # the setting was stored
            assert len(list(shared(dw).glob("R-*"))) == 1
            assert positions(reader.read()) == list(range(reader.first, end))
            assert len(reader) >= min(end, 64, capacity)


def test_a_forked_child_neither_writes_nor_keeps_the_lock(dw: Platform) -> None:
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 3))
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                writer.write_values(1, 1, "B", 1.0)
            except ClosedError:
                os.write(write_end, b"refused")
            os._exit(0)
        os.close(write_end)
        assert os.read(read_end, 100) == b"refused"
        os.close(read_end)
        os.waitpid(pid, 0)
        assert writer.write_batch(rows(3, 3)) == 3
    assert positions(dw["R"].read()) == list(range(6))


# -------------------------------------------------------------------------------- places


def test_two_stores_never_share_and_a_copy_does_not_share_with_its_original(dw: Platform, tmp_path: Path) -> None:
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 10))
        shutil.copytree(dw.base_path, tmp_path / "copy")
        with Platform(tmp_path / "other") as other, Platform(tmp_path / "copy") as copy:
            other.create_feed(SPEC)
            for store in (other, copy):
                assert len(store["R"]) == 0
                with store.create_writer("R") as theirs:
                    theirs.write_batch(rows(500, 5))
                assert positions(store["R"].read()) == list(range(500, 505))
                store.delete_feed("R")
        assert positions(dw["R"].read()) == list(range(10))


def test_files_and_directories_are_for_the_owner_alone(dw: Platform) -> None:
    before = os.umask(0)
    try:
        with dw.create_writer("R") as writer:
            writer.write_batch(rows(0, 1))
            place = shared(dw)
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (place.parent, place, *place.iterdir())}
    finally:
        os.umask(before)
    assert modes.pop(place.name) == modes.pop(place.parent.name) == 0o700
    assert set(modes) == {"R-1", "R.wake", "store.json"} and set(modes.values()) == {0o600}


@pytest.mark.faults
@pytest.mark.parametrize("trick", ["link", "file", "open to all", "foreign"])
def test_somebody_elses_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trick: str) -> None:
    """A squatter in shared memory: refused by the writer of a ring, with the way out; a durable feed only polls."""
    root = tmp_path / "shm"
    root.mkdir()
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    mine = root / f"deepwater-{os.geteuid()}"
    if trick == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        mine.symlink_to(tmp_path / "elsewhere")
    elif trick == "file":
        mine.write_text("")
    elif trick == "open to all":
        mine.mkdir()
        mine.chmod(0o777)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        mine.mkdir(mode=0o700)
        os.chown(mine, 65534, 65534)
    with Platform(tmp_path / "store") as dw:
        dw.create_feed(SPEC)
        dw.create_feed({**SPEC, "feed_name": "D", "persist": True})
        with pytest.raises(CorruptFileError, match=r"refused as shared memory.*remove it"):
            dw.create_writer("R")
        with dw.create_writer("D") as writer:
            writer.write_batch(rows(0, 3))
            assert positions(dw["D"].follow("earliest", timeout=0)) == [0, 1, 2]


@pytest.mark.faults
@pytest.mark.parametrize("where", ["identity", "static", "cut", "another layout", "fifo"])
def test_a_damaged_ring_is_said_and_never_crashes(dw: Platform, where: str) -> None:
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 3))
    path = shared(dw) / "R-1"
    if where == "identity":
        model.flip(path, 104)
    elif where == "static":
        model.flip(path, 8192 + 40)
    elif where == "cut":
        path.write_bytes(path.read_bytes()[:-16384])
    elif where == "fifo":
        path.unlink()
        os.mkfifo(path)
    else:
        data = path.read_bytes()
        path.unlink()
        dw.create_feed({**SPEC, "feed_name": "S", "fields": [FIELDS[0]]})
        with dw.create_writer("S"):
            pass
        path.write_bytes((shared(dw) / "S-1").read_bytes())
        del data
    for use in (lambda: dw["R"], lambda: dw.create_writer("R")):
        if where == "another layout":  # another feed's file: not ours, so there is no ring
            continue
        with pytest.raises(CorruptFileError, match="R-1"):
            use()
    if path.exists() and not path.is_fifo():
        path.unlink()


@pytest.mark.parametrize("word", [2**64 - 1, 2**63, 2**62, 101])
def test_numbers_from_a_ring_are_never_trusted_as_lengths(dw: Platform, word: int) -> None:
    """A commit or claim word that cannot be: an error or an answer, of at most the ring's records, no crash."""
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 30))
    path = shared(dw) / "R-1"
    for offset in (fmt.COMMIT * 8, fmt.CLAIM * 8):
        before = path.read_bytes()[offset : offset + 8]
        model.poke(path, offset, word.to_bytes(8, "little"))
        try:
            assert len(dw["R"].read()) <= CAPACITY
            list(dw["R"].follow("earliest", timeout=0, on_lap="skip"))
            with dw["R"].borrow(10):
                pass
        except (FeedNotFoundError, LappedError, CorruptFileError):
            pass
        model.poke(path, offset, before)


@pytest.mark.faults
def test_a_small_shared_memory_says_so_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's: 8 MB here. The ring does not fit; a smaller one does, in the same store."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    root = tmp_path / "shm"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", root], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    try:
        with Platform(tmp_path / "store") as dw:
            dw.create_feed({**SPEC, "chunk_size_bytes": 64 << 20})
            with pytest.raises(StorageFullError, match=r"shm-size=1g.*deepwater rings") as caught:
                dw.create_writer("R")
            assert caught.value.errno == errno.ENOSPC and caught.value.size <= 8 << 20 < caught.value.wanted
            assert not [p for p in root.rglob("*") if "R-" in p.name or p.name.startswith(".tmp")]
            dw.create_feed({**SPEC, "chunk_size_bytes": 3 << 20}, update=True)
            with dw.create_writer("R") as writer:
                writer.write_batch(rows(0, 1000))
                with pytest.raises(StorageFullError):
                    writer.resize_chunk_size(6 << 20)
                assert writer.settings.chunk_size_bytes == dw["R"].settings.chunk_size_bytes == 3 << 20
                writer.write_batch(rows(1000, 1000))
                assert positions(dw["R"].read()) == list(range(2000))
            dw.delete_feed("R")
            assert list(root.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)  # tracebacks may still hold a mapping


@pytest.mark.parametrize("place", ["missing", "relative"])
def test_another_place_must_be_there(dw: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """A typo makes no directory on a disk."""
    named = str(tmp_path / "typo") if place == "missing" else "somewhere"
    monkeypatch.setenv(ROOT_VARIABLE, named)
    with Platform(dw.base_path) as other, pytest.raises(CorruptFileError, match=r"DEEPWATER_SHM"):
        other.create_writer("R")
    assert not os.path.exists(named)


def test_no_space_is_said_without_root_too(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageFullError, match="chunk_size_bytes"):
        dw.create_writer("R")
    monkeypatch.undo()
    with dw.create_writer("R") as writer:
        assert writer.write_batch(rows(0, 3)) == 0


def test_the_kit_tells_torn_records() -> None:
    truth = ring_kit.table()
    right = truth[5:105].copy()
    assert ring_kit.wrong_rows(truth, right, 5) == ring_kit.wrong_rows(truth, right, 5 + ring_kit.PERIOD) == 0
    right[50, 3] = truth[5 + 50 + 64, 3]
    assert ring_kit.wrong_rows(truth, right, 5) == 1
    assert ring_kit.wrong_rows(truth, truth[6:106], 5) == 100
