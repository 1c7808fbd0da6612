"""Marks: snapshots, gaps and where playback starts; they count only once their records do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import CorruptFileError, NoSnapshotError, Platform
from deepwater.index import MARK_DTYPE, UNKNOWN
from deepwater.segment import Segment

SIZE = model.CHECKED.itemsize
SPEC: dict[str, Any] = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
                        "chunk_size_bytes": 10 * SIZE}  # fmt: skip
T0 = model.EPOCH_2026


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(SPEC)
        yield platform


def batch(first: int, rows: int, snapshot: bool = False) -> np.ndarray:
    return model.checked_records(first, rows, first, snapshot)


def positions(arrays: Any) -> list[int]:
    return [int(p) for array in arrays for p in array["position"]]


def test_each_kind_of_mark_says_where_when_and_how_much(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 4))
        writer.mark_gap(7, "2026-01-01T10:00", T0 + 5, reason="sequence jumped from 3 to 11: ü")
        writer.write_batch(batch(4, 23, snapshot=True), create_index=True)
        writer.mark_gap()
        record = batch(27, 1)[0]
        writer.write_values(*record.item()[:-1], record["filler"], create_index=True)
        reader = dw["F"]
        marks = reader.marks()
        assert marks.dtype == MARK_DTYPE
        assert marks["kind"].tolist() == [b"gap", b"snapshot", b"gap", b"snapshot"]
        assert marks["position"].tolist() == [4, 4, 27, 27]
        assert marks["count"].tolist() == [7, 23, UNKNOWN, 0]
        assert (
            marks["timestamp_us"][0] == T0 + 5
            and marks["timestamp_us"][1] == T0 + 1
            and marks["timestamp_us"][3] == T0 + 9
        )
        assert marks["from_us"].tolist()[:2] == [T0 + 36_000_000_000, 0]
        assert marks["reason"][0].decode() == "sequence jumped from 3 to 11: ü"
        assert reader.snapshots()["position"].tolist() == [4, 27] == reader.marks("snapshot")["position"].tolist()
        assert reader.gaps()["position"].tolist() == [4, 27]
        assert len(reader.marks("session")) == len(reader.marks("dropped")) == 0
        with pytest.raises(ValueError, match="snapshot, gap"):
            reader.marks("holes")
        marks["count"] = 0  # a copy
        assert reader.marks()["count"].tolist() == [7, 23, UNKNOWN, 0]


def test_there_is_no_limit_to_the_marks_of_a_chunk(dw: Platform) -> None:
    """The index grows in place; readers that have it mapped go on."""
    reader = dw["F"]
    with dw.create_writer("F") as writer:
        for number in range(3_000):
            writer.mark_gap(number)
            if number % 500 == 0:
                assert reader.gaps()["count"].tolist() == list(range(number + 1))
        assert reader.gaps()["count"].tolist() == list(range(3_000))
        assert len(model.chunk_files(Path(dw.base_path) / "data" / "F")) == 1


def test_marks_of_a_write_count_with_its_records_and_not_before(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    publish, seen, looking = Segment.publish, [], False

    def looked_at(segment: Segment, word: int) -> None:
        if looking and segment.identity.kind in (b"CHNK", b"MARK"):
            seen.append((len(watcher), len(watcher.snapshots())))
        publish(segment, word)

    monkeypatch.setattr(Segment, "publish", looked_at)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 7))
        watcher, looking = dw["F"], True
        writer.write_batch(batch(7, 30, snapshot=True), create_index=True)
        looking = False
    assert len(seen) >= 4 and set(seen) == {(7, 0)}
    assert (len(watcher), len(watcher.snapshots())) == (37, 1)


def test_a_mark_of_a_failed_write_is_taken_back(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    publish, fail = Segment.publish, False

    def failing(segment: Segment, word: int) -> None:
        if fail and segment.identity.kind == b"CHNK":
            raise KeyboardInterrupt
        publish(segment, word)

    monkeypatch.setattr(Segment, "publish", failing)
    with dw.create_writer("F") as writer:
        for rows in (4, 30):
            fail = True
            with pytest.raises(KeyboardInterrupt):
                writer.write_batch(batch(0, rows, snapshot=True), create_index=True)
            fail = False
            assert len(dw["F"].marks()) == 0 == len(dw["F"])
        writer.write_batch(batch(0, 30))
        assert len(dw["F"].marks()) == 0
        writer.mark_gap(1)
        assert dw["F"].marks()["position"].tolist() == [30]


# ------------------------------------------------------------------------------------------ playback


def test_playback_is_the_latest_whole_snapshot_and_all_after_it(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        for first, rows, snapshot in ((0, 5, False), (5, 12, True), (17, 6, False), (23, 15, True), (38, 7, False)):
            writer.write_batch(batch(first, rows, snapshot), create_index=snapshot)
    reader = dw["F"]
    assert positions(reader.playback()) == list(range(23, 45))
    full = model.joined(reader.rows(0, 45), model.CHECKED)
    for at in range(T0 - 2, T0 + 17):
        held = int(model.mask(full["ts_us"], 0, at).sum())  # ascending: these many lie at or before it
        start = 23 if held >= 38 else 5 if held >= 17 else None
        if start is None:
            with pytest.raises(NoSnapshotError) as caught:
                reader.playback(at)
            assert isinstance(caught.value, LookupError)
        else:
            assert positions(reader.playback(at)) == list(range(start, held)), at
    assert positions(reader.playback("2026-01-01")) == list(range(23, 45))
    with pytest.raises(NoSnapshotError):
        reader.playback("2025")


def test_playback_of_a_snapshot_of_unknown_length_starts_there(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        for record in batch(0, 13):
            writer.write_values(*record.item()[:-1], record["filler"], create_index=bool(record["position"] == 11))
    assert positions(dw["F"].playback()) == [11, 12]
    assert positions(dw["F"].follow("snapshot", timeout=0)) == [11, 12]


def test_playback_without_a_snapshot_says_why(dw: Platform) -> None:
    with pytest.raises(NoSnapshotError, match="no complete snapshot"):
        dw["F"].playback()
    dw.create_feed({**SPEC, "feed_name": "PLAIN", "index_playback": False})
    with pytest.raises(NoSnapshotError, match="index_playback"):
        dw["PLAIN"].playback()


def test_a_damaged_mark_is_an_error_and_the_records_are_not_touched_by_it(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        for first in range(0, 30, 3):
            writer.write_batch(batch(first, 3, snapshot=True), create_index=True)
    path = Path(dw.base_path) / "data" / "F" / "chunk_00000001.idx"
    model.flip(path, 16384 + 128 + 40)
    reader = dw["F"]
    for use in (reader.marks, reader.snapshots, reader.gaps):
        with pytest.raises(CorruptFileError, match=r"mark 1 .*checksum"):
            use()
    assert len(reader.read().to_numpy()) == 30
    assert positions(reader.playback()) == [27, 28, 29]  # in another chunk
