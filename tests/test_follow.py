"""A follower hands out every position once, in order: from history to live, across rotations and restarts."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import ChunkGoneError, ClosedError, Platform, RecordError
from deepwater.follow import Position
from processes import Worker

WORKERS = Path(__file__).parent / "workers"
SPEC: dict[str, Any] = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True}
SIZE = model.CHECKED.itemsize


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed({**SPEC, "chunk_size_bytes": 10 * SIZE})
        yield platform


def batch(first: int, rows: int) -> np.ndarray:
    return model.checked_records(first, rows, write=first)


def positions(batches: Any) -> list[int]:
    return [int(p) for records in batches for p in records["position"]]


# -------------------------------------------------------------------------------- two processes


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_process_that_keeps_every_batch_sees_each_position_once(dw: Platform, tmp_path: Path, seed: int) -> None:
    """At least 100 rotations, resizes, restarts of the writer, batches over several chunks, 100 resumptions."""
    total = 60_000
    dw.resize_feed("F", 300 * SIZE)
    progress = tmp_path / "progress"
    progress.write_bytes(bytes(8))
    args = (dw.base_path, "F", total, seed, progress)
    with Worker(WORKERS / "follow_and_keep.py", *args, timeout=200) as reader:
        assert reader.readline() == "ready"
        with Worker(WORKERS / "write_steadily.py", *args, timeout=200) as writer:
            writes = int(writer.finish())
        seen = json.loads(reader.finish())
    rotations = len(model.chunk_files(Path(dw.base_path) / "data" / "F")) - 1
    print(f"follow: {rotations} rotations, {seen}")
    assert rotations >= 100
    assert seen["resumed"] >= 100
    assert seen["writes"] == writes
    assert seen["lost"] == 0
    assert seen["waits"] >= 100  # it was not simply late, reading history


# -------------------------------------------------------------------------------- where it starts


def test_each_start_fixes_the_cursor_when_follow_is_called(dw: Platform) -> None:
    reader = dw["F"]
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 25))
        writer.write_batch(batch(25, 4), create_index=True)
        writer.write_batch(batch(29, 4))
        stamp = int(batch(14, 1)["ts_us"][0])  # 12, 13 and 14 share it
        starts = {"latest": 33, "earliest": 0, "snapshot": 25, stamp: 12, stamp + 10**9: 33, 0: 0}
        followers = {start: reader.follow(start, timeout=0) for start in starts}
        followers["position"] = reader.follow(position=31, timeout=0)
        starts["position"] = 31
        assert {start: int(f.position) for start, f in followers.items()} == starts
        writer.write_batch(batch(33, 30))
        for start, follower in followers.items():
            assert positions(follower) == list(range(starts[start], 63)), start
            assert follower.position == 63
            assert follower.lost == 0


def test_snapshot_without_one_is_latest_and_an_incomplete_one_is_none(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 3))
        assert dw["F"].follow("snapshot", timeout=0).position == 3


def test_it_goes_on_over_restarts_of_the_writer_and_resizes(dw: Platform) -> None:
    follower = dw["F"].follow("earliest", timeout=0)
    got: list[np.ndarray] = []
    for life in range(6):
        with dw.create_writer("F") as writer:
            writer.write_batch(batch(life * 30, 15))
            got += follower
            writer.resize_chunk_size((life + 1) * 3 * SIZE)
            writer.write_batch(batch(life * 30 + 15, 15))
        got += follower
    model.whole_writes(model.joined(got, model.CHECKED))
    assert len(positions(got)) == 180


def test_chunks_left_empty_are_passed_over(dw: Platform) -> None:
    """Each resize seals a chunk; two in a row seal an empty one."""
    follower = dw["F"].follow("earliest", timeout=0)
    with dw.create_writer("F") as writer:
        for rows in (20, 30, 40):
            writer.resize_chunk_size(rows * SIZE)
        writer.write_batch(batch(0, 5))
        for rows in (20, 30):
            writer.resize_chunk_size(rows * SIZE)
        assert positions(follower) == list(range(5))
        assert positions(dw["F"].read()) == positions(dw["F"].rows(0, 9)) == list(range(5))
        writer.write_batch(batch(5, 5))
        assert positions(follower) == list(range(5, 10))


# -------------------------------------------------------------------------------- waiting and ending


def test_timeout_zero_takes_what_is_there_and_never_waits(dw: Platform) -> None:
    follower = dw["F"].follow("earliest", timeout=0)
    assert list(follower) == []
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 25))
        assert positions(follower) == list(range(25))
        assert list(follower) == []
        writer.write_batch(batch(25, 1))
        assert positions(follower) == [25]


@pytest.mark.parametrize("wait", ["auto", "spin"])
def test_an_empty_feed_is_waited_for(dw: Platform, wait: Any) -> None:
    """No writer has been there yet; the first record ends the wait."""
    follower = dw["F"].follow("latest", wait=wait)
    got: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: got.append(next(follower)))
    thread.start()
    with dw.create_writer("F") as writer:
        assert thread.is_alive()
        writer.write_batch(batch(0, 2))
        thread.join()
    assert positions(got) == [0, 1]


def test_close_from_another_thread_ends_a_follower_that_waits(dw: Platform) -> None:
    follower = dw["F"].follow("latest")
    thread = threading.Thread(target=lambda: list(follower))
    thread.start()
    follower.close()
    thread.join()
    with pytest.raises(ClosedError):
        follower.poll()


def test_a_timeout_counts_from_the_last_record(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 3))
        assert positions(dw["F"].follow("earliest", timeout=0.01)) == [0, 1, 2]


# -------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("limit", [1, 3, 10, 1000])
def test_a_batch_has_at_most_the_records_asked_for_and_is_never_empty(dw: Platform, limit: int) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 57))
    got = list(dw["F"].follow("earliest", batch=limit, timeout=0))
    assert positions(got) == list(range(57))
    assert all(0 < len(records) <= limit for records in got)


def test_batches_are_read_only_views_of_the_files(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 9))
        reader = dw["F"]
        (first,) = reader.follow("earliest", timeout=0)
        assert np.shares_memory(first, next(reader.follow("earliest", timeout=0))) or not first.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            first["position"][0] = 7
        with pytest.raises(ValueError, match="WRITEABLE"):
            first.flags.writeable = True


def test_arrow_batches_hold_the_same_records(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 33))
    got = list(dw["F"].follow("earliest", as_="arrow", timeout=0))
    assert [p for record_batch in got for p in record_batch.column("position").to_pylist()] == list(range(33))


# -------------------------------------------------------------------------------- positions


def test_a_position_is_an_int_that_survives_pickling_and_knows_its_feeds_life(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 12))
    follower = dw["F"].follow("earliest", batch=5, timeout=0)
    next(follower)
    kept = pickle.loads(pickle.dumps(follower.position))
    assert kept == 5 and isinstance(kept, int) and kept.incarnation == dw["F"].incarnation
    assert positions(dw["F"].follow(position=kept, timeout=0)) == list(range(5, 12))
    dw.delete_feed("F")
    dw.create_feed({**SPEC, "chunk_size_bytes": 10 * SIZE})
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 12))
    for use in (lambda: dw["F"].follow(position=kept), lambda: dw["F"].rows(kept, 9), lambda: dw["F"][kept]):
        with pytest.raises(RecordError, match="another life"):
            use()


@pytest.mark.parametrize("position", [-1, 13, 2**63, Position(99)])
def test_a_position_the_feed_does_not_hold_is_refused(dw: Platform, position: int) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 12))
    with pytest.raises(RecordError, match="not in feed"):
        dw["F"].follow(position=position)


@pytest.mark.parametrize("wrong", [{"as_": "list"}, {"wait": "never"}, {"batch": 0}, {"batch": -1}])
def test_what_is_not_an_option_is_refused_by_name(dw: Platform, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dw["F"].follow("earliest", **wrong)


@pytest.mark.parametrize("wrong", [1.5, "yesterday evening", True, None])
def test_a_start_that_is_no_time_is_refused(dw: Platform, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"accepted|start"):
        dw["F"].follow(wrong)


# -------------------------------------------------------------------------------- deletion


def test_a_follower_of_a_deleted_feed_keeps_its_arrays_and_says_what_is_gone(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 35))
    reader = dw["F"]
    behind, got = reader.follow("earliest", timeout=0), []
    got.append(next(behind))
    untouched = reader.rows(20, 30)
    dw.delete_feed("F")
    with pytest.raises(ChunkGoneError):
        got += behind
    with pytest.raises(ChunkGoneError):
        untouched.to_numpy()
    assert positions(got)[:10] == list(range(10))


# -------------------------------------------------------------------------------- the streams of the first version


def test_streams_of_tuples_and_of_memoryviews(dw: Platform) -> None:
    reader = dw["F"]
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 5))
        writer.write_batch(batch(5, 7), create_index=True)
        streams = {
            "tuples": reader.stream_latest_records(timeout=0),
            "raw": reader.stream_latest_records_raw(timeout=0),
            "batches": reader.read_batch(4, timeout=0),
            "raw batches": reader.read_batch_raw(4, timeout=0),
            "from snapshot": reader.read_batch(100, playback=True, timeout=0),
        }
        writer.write_batch(batch(12, 30))
    got = {name: list(stream) for name, stream in streams.items()}
    assert [record[1] for record in got["tuples"]] == list(range(12, 42))
    truth = batch(12, 30).tobytes()
    assert b"".join(got["raw"]) == truth and len(got["raw"]) == 30
    assert all(view.readonly for view in got["raw"])
    assert positions(got["batches"]) == list(range(12, 42)) and max(map(len, got["batches"])) == 4
    assert b"".join(got["raw batches"]) == truth
    assert positions(got["from snapshot"]) == list(range(5, 42))


def test_stream_time_range_has_both_ends_and_ends_at_what_is_published(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 30))
        reader = dw["F"]
        low, high = model.EPOCH_2026 + 2, model.EPOCH_2026 + 5
        assert [r[1] for r in reader.stream_time_range(low, high)] == list(range(6, 18))
        stream = reader.stream_time_range(low)
        writer.write_batch(batch(30, 5))
        assert [r[1] for r in stream] == list(range(6, 30))
