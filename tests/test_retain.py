"""Retention: what goes is old by its records, the newest stays, positions stay, and who reads on is told exactly."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import (
    ChunkGoneError,
    CorruptFileError,
    FeedLockedError,
    FeedNotFoundError,
    LappedError,
    NoSnapshotError,
    Platform,
    SchemaError,
    TimeFormatError,
    chain,
    keeper,
    retain,
)
from deepwater.keeper import Keeper
from deepwater.oldest import Oldest, read_oldest
from deepwater.settings import Settings
from faults.power import Device
from processes import Worker, run_python

WORKERS = Path(__file__).parent / "workers"
ROWS = 10
SPEC: dict[str, Any] = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
                        "chunk_size_bytes": ROWS * model.CHECKED.itemsize}  # fmt: skip
PLAIN: dict[str, Any] = {"feed_name": "P", "ts_col": "ts_us", "chunk_size_bytes": 4 * 16,
                         "fields": [{"name": name, "type": "uint64"} for name in ("ts_us", "x_us")]}  # fmt: skip
CHUNK_BYTES = 32768
"""Of a chunk file here: a header of 16 KiB and records of less than that."""
NOW = model.EPOCH_2026 + 365 * model.DAY_US
DAY = model.DAY_US


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(SPEC)
        platform.create_feed(PLAIN)
        yield platform


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> int:
    """The moment that prunes of this process take for now."""
    monkeypatch.setattr(retain, "now_us", lambda: NOW)
    return NOW


def path_of(dw: Platform, name: str = "F") -> Path:
    return Path(dw.base_path) / "data" / name


def fill(dw: Platform, rows: int, start: int = 0) -> np.ndarray:
    """Append self-checking records, `ROWS` a chunk."""
    records = model.checked_records(start, rows, start + 1)
    with dw.create_writer("F") as writer:
        assert writer.write_batch(records) == start
    return records


def stamped(dw: Platform, *chunks: list[int]) -> None:
    """Write chunks of four records with these stamps of the primary clock, and one active chunk of one record."""
    with dw.create_writer("P") as writer:
        for stamps in chunks:
            assert len(stamps) == 4
            writer.write_batch({"ts_us": np.array(stamps, np.uint64), "x_us": np.arange(4, dtype=np.uint64)})
        writer.write_batch({"ts_us": np.array([1], np.uint64), "x_us": np.array([1], np.uint64)})


def ids(dw: Platform, name: str = "F") -> list[int]:
    return [int(path.stem[6:]) for path in model.chunk_files(path_of(dw, name))]


def check(reader: Any, full: np.ndarray, first: int) -> None:
    """All that a reader answers, against the array of all that was ever written."""
    held = full[first:]
    assert (reader.first, int(reader.end), len(reader)) == (first, len(full), len(held))
    assert model.content(reader.rows(0, len(full))) == held.tobytes()
    assert model.content(reader.read()) == held.tobytes()
    assert model.content(reader.latest(7)) == held[-7:].tobytes()
    assert model.content(reader[first + 3 : first + 19]) == held[3:19].tobytes()
    low, high = int(held["ts_us"][2]), int(held["ts_us"][-3])
    mask = model.mask(held["ts_us"], low, high)
    assert model.content(reader.read(low, high)) == model.picked(held, mask)
    times = np.unique(np.concatenate([full["ts_us"], full["ts_us"] + np.uint64(1), [np.uint64(5)]]))
    found = model.asof(held["ts_us"], times)
    assert reader.asof(times).positions.tolist() == np.where(found < 0, -1, found + first).tolist()
    assert model.content(reader.follow("earliest", timeout=0)) == held.tobytes()
    assert reader.coverage() == (int(held["ts_us"].min()), int(held["ts_us"].max()))
    if first:
        with pytest.raises(IndexError, match=f"positions are {first} to"):
            reader[first - 1]


# -------------------------------------------------------------------------------- what goes


def test_old_records_in_new_files_go_and_new_records_in_old_files_stay(dw: Platform, now: int) -> None:
    """The age is that of the records, by the primary clock: not of the file, not of when they were written."""
    stamped(dw, [now - 30 * DAY] * 4, [now - 20 * DAY] * 4, [now - 2 * DAY] * 4)
    for path in path_of(dw, "P").iterdir():
        os.utime(path, (1, 1))
    assert dw.prune("P", keep="90d").chunks == 0
    assert ids(dw, "P") == [1, 2, 3, 4]
    gone = dw.prune("P", keep="7d")
    assert (gone.chunks, gone.first, gone.stop, gone.records) == (2, 0, 8, 8)
    assert (gone.first_us, gone.last_us, gone.bytes) == (now - 30 * DAY, now - 20 * DAY, 4 * CHUNK_BYTES)
    assert ids(dw, "P") == [3, 4]
    assert read_oldest(dw._store.open("P"), dw["P"]._chain.ids) == Oldest(3, 8, now - 20 * DAY)


def test_the_newest_record_of_a_chunk_decides_and_the_bound_is_exact(dw: Platform, now: int) -> None:
    """A chunk with one late record among old ones stays; so does one of exactly that age."""
    edge = now - 7 * DAY
    stamped(dw, [5, edge - 1, 6, 7], [8, 9, edge, 10], [11, 12, 13, 14])
    assert dw.prune("P", keep=timedelta(days=7)).stop == 4
    assert dw.prune("P", keep=np.timedelta64(7 * DAY - 1, "us")).stop == 12


def test_a_backfill_behind_newer_records_waits_for_them(dw: Platform, now: int) -> None:
    """What remains is one run of positions: an old chunk after one that is not old is not taken out of the middle."""
    stamped(dw, [1, 2, 3, 4], [now - DAY] * 4, [5, 6, 7, 8], [now] * 4)
    assert dw.prune("P", keep="7d").stop == 4
    assert ids(dw, "P") == [2, 3, 4, 5]
    assert dw.prune("P", keep="12h").stop == 12


def test_no_time_has_no_age(dw: Platform, now: int) -> None:
    stamped(dw, [0, 0, 0, 0], [3, 4, 5, model.MAX_US], [6, 7, 8, 9])
    assert dw.prune("P", keep="1us").chunks == 0
    assert dw.prune("P", max_bytes=3 * CHUNK_BYTES).stop == 4
    assert dw.prune("P", keep="1us").chunks == 0
    assert dw.prune("P", max_bytes=2 * CHUNK_BYTES).stop == 8
    assert dw.prune("P", keep="1us").stop == 12


@pytest.mark.parametrize("limit", [{"keep": "1us"}, {"max_bytes": 1}, {"keep": "1us", "max_bytes": 1}])
@pytest.mark.parametrize("writing", [False, True])
def test_the_newest_chunk_with_records_is_never_removed(dw: Platform, limit: dict[str, Any], writing: bool) -> None:
    """Not while it is the active one, and not while the active one is empty."""
    full = fill(dw, 35)
    writer = dw.create_writer("F")
    assert dw.prune("F", **limit).stop == 30
    check(dw["F"], full, 30)
    writer.resize_chunk_size(20 * model.CHECKED.itemsize)  # seals the active chunk of five records
    assert ids(dw)[:2] == [4, 5]
    if not writing:
        writer.close()
    assert dw.prune("F", **limit).chunks == 0
    check(dw["F"], full, 30)
    if not writing:
        writer = dw.create_writer("F")
    assert writer.write_values(*model.checked_records(35, 1, 9)[0].item()[:-1], [0, 0]) == 35
    assert dw.prune("F", **limit).stop == 35
    assert (dw["F"].first, len(dw["F"]), ids(dw)[0]) == (35, 1, 5)
    writer.close()


def test_by_bytes_the_oldest_go_until_the_rest_fits(dw: Platform) -> None:
    full = fill(dw, 95)
    for held in (12, 10, 9, 7, 4):
        assert dw.prune("F", max_bytes=held * CHUNK_BYTES + 1).stop == max(0, 10 - held) * ROWS
        assert len(ids(dw)) == min(10, held)
    check(dw["F"], full, 60)


def test_the_setting_is_applied_where_nothing_else_is_said(dw: Platform, now: int) -> None:
    stamped(dw, [1] * 4, [now - DAY] * 4, [now - DAY] * 4, [now] * 4)
    assert dw.prune("P").chunks == 0
    dw.create_feed({**PLAIN, "retain": {"age": "7d", "bytes": 3 * CHUNK_BYTES}}, update=True)
    assert dw.describe_feed("P")["settings"]["retain"] == {"age": "7d", "bytes": 3 * CHUNK_BYTES}
    assert dw.prune("P", keep="8d").stop == 4  # instead of the setting, not besides
    assert dw.prune("P").stop == 8
    dw.create_feed({**PLAIN, "retain": {"age": "12h"}}, update=True)
    assert dw.prune("P").stop == 12


@pytest.mark.parametrize("wrong", [{"keep": "soon"}, {"keep": "0d"}, {"keep": "-7d"}, {"keep": 7}, {"max_bytes": 0},
                                   {"keep": timedelta(-1)}, {"max_bytes": True}, {"max_bytes": "1GB"}])  # fmt: skip
def test_limits_that_are_none_are_refused(dw: Platform, wrong: dict[str, Any]) -> None:
    fill(dw, 35)
    with pytest.raises((TimeFormatError, SchemaError), match=r"keep|retain bytes|duration"):
        dw.prune("F", **wrong)
    assert ids(dw) == [1, 2, 3, 4]


def test_a_ring_is_not_pruned_and_has_no_such_setting(dw: Platform) -> None:
    dw.create_feed({**PLAIN, "feed_name": "R", "persist": False})
    with pytest.raises(SchemaError, match=r"'R' is a ring .* keeps what fits"):
        dw.prune("R", max_bytes=1)
    with pytest.raises(SchemaError, match="left out when persist is false"):
        Settings(persist=False, retain={"age": "1d"})
    with pytest.raises(FeedNotFoundError):
        dw.prune("NONE", max_bytes=1)
    assert dw.prune("F", max_bytes=1).chunks == 0  # it has no chunk yet


def test_a_dry_run_says_the_same_and_changes_nothing(dw: Platform) -> None:
    full = fill(dw, 65)
    with dw.create_writer("F") as writer, dw["F"] as reader:
        writer.flush()
        before = model.tree(path_of(dw))
        said = dw.prune("F", max_bytes=3 * CHUNK_BYTES, dry_run=True)
        assert model.tree(path_of(dw)) == before
        check(reader, full, 0)
        done = dw.prune("F", max_bytes=3 * CHUNK_BYTES)
        assert {**done.to_json(), "dry_run": True} == said.to_json()
        assert (said.chunks, said.records, said.dry_run, done.dry_run) == (4, 40, True, False)
        assert writer.end == 65


# -------------------------------------------------------------------------------- what remains


@pytest.mark.parametrize("registry", ["kept", "lost"])
@pytest.mark.parametrize("kind", ["steps", "ties", "jitter", "backfill", "reversed"])
def test_every_answer_is_that_of_the_array_from_the_first_position_held(dw: Platform, kind: str, registry: str) -> None:
    """Readers from before, from after, and after the next writer; positions stay what they were."""
    rng = np.random.default_rng(7)
    full = model.checked_records(0, 300, 1)
    full["ts_us"] = model.clock_values(kind, 300, rng)
    at = 0
    with dw.create_writer("F") as writer:
        while at < 200:
            rows = int(rng.integers(1, 40))
            writer.write_batch(full[at : at + rows], create_index=True)
            at += rows
    before = dw["F"]
    check(before, full[:at], 0)
    first = 0
    for held in (14, 13, 8, 3):
        first = dw.prune("F", max_bytes=held * CHUNK_BYTES).stop
        if registry == "lost":
            (path_of(dw) / "F.reg").unlink(missing_ok=True)
        check(before, full[:at], first)
        check(dw["F"], full[:at], first)
        for reader in (before, dw["F"]):
            starts = reader.snapshots()["position"]
            assert (starts >= first).all() and len(starts)
            assert reader.playback().position == starts[-1]
        with dw.create_writer("F") as writer:
            assert writer.end == at
            writer.write_batch(full[at : at + 15], create_index=True)
        at += 15
        check(before, full[:at], first)
        check(dw["F"], full[:at], first)
    assert first >= 150


def test_the_registry_is_made_anew_without_what_is_gone(dw: Platform) -> None:
    full = fill(dw, 95)
    dw.prune("F", max_bytes=4 * CHUNK_BYTES)
    size = (path_of(dw) / "F.reg").stat().st_size
    with dw.create_writer("F"):
        pass
    data = (path_of(dw) / "F.reg").read_bytes()
    words = np.frombuffer(data[16384:], np.uint64)
    assert int.from_bytes(data[4096:4104], "little") == 3  # chunks 7, 8 and 9 are sealed
    assert words[0] == 7 and words[1] == 60 and len(data) <= size
    check(dw["F"], full, 60)


def test_a_playback_whose_snapshot_went_has_none(dw: Platform) -> None:
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 5, 1, True), create_index=True)
        writer.write_batch(model.checked_records(5, 40, 2))
        reader = dw["F"]
        assert reader.playback().position == 0
        dw.prune("F", max_bytes=2 * CHUNK_BYTES)
        with pytest.raises(NoSnapshotError):
            reader.playback()
        assert len(reader.marks()) == 0
        writer.write_batch(model.checked_records(45, 5, 3, True), create_index=True)
        assert reader.playback().position == 45


def test_an_open_reader_notices_by_a_word_and_asks_the_system_nothing_else(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`first` moves on with the next look; between prunes a look reads no file."""
    fill(dw, 95)
    asked: list[int] = []
    real = chain.read_oldest

    def counted(*args: Any) -> Oldest:
        asked.append(1)
        return real(*args)

    reader = dw["F"]
    with dw.create_writer("F") as writer:
        monkeypatch.setattr(chain, "read_oldest", counted)
        for n in range(5):
            writer.write_batch(model.checked_records(95 + n, 1, n))
            assert (reader.first, int(reader.end)) == (0, 96 + n)
        assert not asked
        assert dw.prune("F", max_bytes=6 * CHUNK_BYTES).stop == 40
        asked.clear()
        assert reader.first == 40
        assert len(asked) <= 2
        asked.clear()
        assert reader.first == 40 and not asked


def test_a_reader_that_slept_through_everything_it_knew_goes_on(dw: Platform) -> None:
    """All the chunks it had seen are gone, its tail among them."""
    fill(dw, 35)
    reader, follower = dw["F"], dw["F"].follow("earliest", timeout=0, on_lap="skip")
    waiting = dw["F"].follow("latest", timeout=0)
    everything = np.concatenate([model.checked_records(0, 35, 1), fill(dw, 200, 35)])
    dw.prune("F", max_bytes=3 * CHUNK_BYTES)
    first = dw["F"].first
    assert first > 150
    check(reader, everything, first)
    assert model.content(follower) == everything[first:].tobytes()
    assert follower.lost == first
    with pytest.raises(LappedError, match=r"retention let 1[0-9]{2} records go") as caught:
        next(waiting)
    assert (caught.value.lost, waiting.lost, int(waiting.position)) == (first - 35, first - 35, first)
    assert model.content(waiting) == everything[first:].tobytes()


# -------------------------------------------------------------------------------- what is held and what is told


def test_views_stay_and_what_was_not_touched_says_that_it_is_gone(dw: Platform) -> None:
    full = fill(dw, 95)
    reader = dw["F"]
    window, touched = reader.rows(0, 95), reader.rows(0, 40)
    views = list(touched)
    lookup = reader.asof(full["ts_us"][[3, 60]])
    dw.prune("F", max_bytes=4 * CHUNK_BYTES)
    assert model.content(views) == model.content(touched) == full[:40].tobytes()
    assert model.content(window[70:95]) == full[70:95].tobytes()  # parts that are held, of before
    with pytest.raises(ChunkGoneError, match=r"chunk 5 was let go by retention .* held is 60") as caught:
        window.to_numpy()
    assert (caught.value.feed, caught.value.chunk_id, caught.value.first) == ("F", 5, 60)  # 1 to 4 were mapped
    assert reader.first == 60
    with pytest.raises(ChunkGoneError):
        window[45:47].to_numpy()
    with pytest.raises(ChunkGoneError, match=r"position [0-9]+ was found, and let go"):
        lookup.records()
    assert model.content(reader.rows(60, 95)) == full[60:].tobytes()


def test_a_part_of_what_was_the_tail_is_read_after_rotations_and_prunes(dw: Platform) -> None:
    """Parts name their chunk, not its place among those held: the places have moved."""
    full = np.concatenate([fill(dw, 45), model.checked_records(45, 60, 2)])
    reader = dw["F"]
    window = reader.rows(0, 45)
    with dw.create_writer("F") as writer:
        writer.write_batch(full[45:])
    dw.prune("F", max_bytes=7 * CHUNK_BYTES)
    assert (reader.first, int(reader.end)) == (40, 105)
    assert model.content(window[40:45]) == full[40:45].tobytes()


@pytest.mark.parametrize("as_", ["numpy", "arrow"])
def test_an_overtaken_follower_is_told_how_many_it_lost(dw: Platform, as_: Any) -> None:
    full = fill(dw, 95)
    reader, laps = dw["F"], ("raise", "skip")
    raising, skipping = (reader.follow("earliest", timeout=0, batch=7, as_=as_, on_lap=how) for how in laps)
    assert len(next(raising)) == len(next(skipping)) == 7
    dw.prune("F", max_bytes=4 * CHUNK_BYTES)
    seen = {}
    for follower in (raising, skipping):
        count, told = 7, 0
        while True:
            try:
                count += len(next(follower))
            except LappedError as error:
                told += error.lost
            except StopIteration:
                break
        seen[follower] = count, follower.lost, told
    # The chunk that was mapped is read to its end: nothing of it is lost.
    assert seen[raising] == (10 + 35, 50, 50)
    assert seen[skipping] == (10 + 35, 50, 0)
    late = dw["F"].follow(position=3, timeout=0)
    with pytest.raises(LappedError):
        next(late)
    assert late.lost == 57
    if as_ == "numpy":
        assert model.content(late) == full[60:].tobytes()


@pytest.mark.faults
@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("registry", ["kept", "lost"])
def test_what_retention_does_not_explain_is_damage(dw: Platform, registry: str, writes: bool) -> None:
    fill(dw, 95)
    dw.prune("F", max_bytes=4 * CHUNK_BYTES)
    opened = dw.create_writer if writes else dw.__getitem__
    where = path_of(dw)
    if registry == "lost":
        (where / "F.reg").unlink()
    told = (where / "oldest.json").read_bytes()
    (where / "oldest.json").unlink()
    with pytest.raises(CorruptFileError, match="chunk 1 is missing"):
        (opened("F") if registry == "lost" else dw["F"]).read().to_numpy()
    (where / "oldest.json").write_bytes(told)
    chunk = (where / "chunk_00000007.bin").rename(where / "elsewhere")
    with pytest.raises(CorruptFileError, match="chunk 7 is missing"):
        (opened("F") if registry == "lost" else dw["F"]).read().to_numpy()
    chunk.rename(where / "chunk_00000007.bin")
    for name in ("chunk_00000008.bin", "chunk_00000009.bin", "chunk_00000010.bin"):
        (where / name).unlink()
    with pytest.raises(CorruptFileError, match="missing"):
        opened("F")


@pytest.mark.faults
def test_every_flipped_bit_of_the_file_that_says_where_a_feed_begins_is_seen(dw: Platform) -> None:
    fill(dw, 95)
    dw.prune("F", max_bytes=4 * CHUNK_BYTES)
    path = path_of(dw) / "oldest.json"
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        model.flip(path, bit // 8, bit % 8)
        with pytest.raises(CorruptFileError, match=r"oldest\.json"):
            dw["F"]
        path.write_bytes(data)
    about = json.loads(data)
    dw.delete_feed("F")
    dw.create_feed(SPEC)
    fill(dw, 35)
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=f"another life of the feed .{about['incarnation']}"):
        dw["F"]


# -------------------------------------------------------------------------------- beside others


@pytest.mark.slow
def test_followers_beside_a_writer_and_100_prunes_see_or_are_told_every_position(dw: Platform, tmp_path: Path) -> None:
    """Accepted + lost = published, for each; a view taken before each prune has the same bytes after it."""
    with (
        Worker(WORKERS / "write_on.py", dw.base_path, "F", 3, timeout=200) as writing,
        Worker(WORKERS / "follow_retained.py", dw.base_path, "F", "raise", 1, timeout=200) as raising,
        Worker(WORKERS / "follow_retained.py", dw.base_path, "F", "skip", 2, timeout=200) as skipping,
        Worker(WORKERS / "prune_on.py", dw.base_path, "F", 100, 5 * CHUNK_BYTES, timeout=200) as pruning,
    ):
        assert writing.readline() == "ready"
        pruned = json.loads(pruning.finish())
        end = int(writing.finish())
        for worker in (raising, skipping):
            assert worker.process.poll() is None, worker.stderr()
            worker.send(end)
        seen = [json.loads(worker.finish()) for worker in (raising, skipping)]
    print(f"retention: {pruned}, followers {seen}, end {end:,}")
    assert pruned["prunes"] == 100 and pruned["chunks"] > 100 and pruned["views"] == 100
    for one in seen:
        assert one["start"] + one["accepted"] + one["lost"] == end
        assert one["told"] == (one["lost"] if one["on_lap"] == "raise" else 0)
    assert sum(one["lost"] for one in seen), "nobody was overtaken: this proved nothing"
    reader = dw["F"]
    records = model.joined(reader.rows(0, end), model.CHECKED)
    assert len(records) == end - reader.first
    assert (records["position"] == np.arange(reader.first, end, dtype=np.uint64)).all()


@pytest.mark.faults
@pytest.mark.parametrize("registry", ["kept", "lost"])
def test_a_prune_killed_before_each_of_its_steps(dw: Platform, registry: str) -> None:
    """The feed begins where it did or where it will, whole; the next prune leaves what one that was not killed does."""
    with dw.create_writer("F") as writer:
        for n in range(9):
            writer.write_batch(model.checked_records(10 * n, 10, n, True), create_index=True)
        writer.write_batch(model.checked_records(90, 5, 9))
    if registry == "lost":
        (path_of(dw) / "F.reg").unlink()
    dw.close()
    with Worker(WORKERS / "prune_dies.py", dw.base_path, 4 * CHUNK_BYTES, timeout=200) as nursery:
        steps = [json.loads(line) for line in nursery.finish().splitlines()]
    firsts = [step["first"] for step in steps]
    assert firsts == sorted(firsts) and set(firsts) == {0, 60}
    assert steps[firsts.index(60) - 1]["before"] == "os.rename"
    left = [step["left"] for step in steps]
    assert set(left) == set(range(19)) and left[-1] == 0  # .idx, .crc and .bin of chunks 1 to 6, one after the other


@pytest.mark.faults
@pytest.mark.parametrize("covered", [True, False], ids=["checksums", "none"])
def test_a_power_cut_after_a_prune_leaves_a_feed_that_begins_where_it_said(
    dw: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, covered: bool
) -> None:
    """Nothing had been synced: of what stays as much as is proven is there, from the position that was said on."""
    monkeypatch.setattr(keeper._clerk, "add", lambda _: None)
    monkeypatch.setattr("deepwater.spare.Spare.start", lambda spare: None)
    device, full = Device(monkeypatch, path_of(dw)), model.checked_records(0, 95, 1)
    with dw.create_writer("F") as writer:
        writer.write_batch(full)
        if covered:
            writer._keeper.catch_up()
        device.look()
        dw.prune("F", max_bytes=4 * CHUNK_BYTES)
        device.look()
        for seed in range(60):
            to = tmp_path / f"after{seed}"
            device.after_power_cut(random.Random(seed), Path(dw.base_path), to)
            with Platform(to) as after:
                with after["F"] as reader:
                    assert reader.first == 60
                    end = int(reader.end)
                    assert model.content(reader.rows(60, end)) == full[60:end].tobytes()
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "feed 'F'")
                    with after.create_writer("F") as following:
                        assert following.end == end


def test_one_prune_at_a_time_and_both_leave_a_feed_that_is_whole(dw: Platform) -> None:
    """In many processes and rounds: each is done or refused, and never half of either."""
    full = fill(dw, 395)
    code = """
        import sys
        from deepwater import FeedLockedError, Platform
        done = refused = 0
        with Platform(sys.argv[1]) as dw:
            sys.stdin.readline()
            for held in range(39, 2, -1):
                try:
                    done += dw.prune("F", max_bytes=held * 32768).chunks
                except FeedLockedError as error:
                    assert "is under maintenance" in str(error), error
                    refused += 1
        print(done, refused)
        """
    with Worker(code, dw.base_path) as one, Worker(code, dw.base_path) as other:
        one.send("go")
        other.send("go")
        counts = [list(map(int, worker.finish().split())) for worker in (one, other)]
    dw.prune("F", max_bytes=3 * CHUNK_BYTES)
    assert sum(done for done, _ in counts) in (36, 37)
    check(dw["F"], full, 370)
    assert ids(dw) == [38, 39, 40]


def test_while_it_is_pruned_a_feed_is_not_deleted_and_the_other_way_round(dw: Platform) -> None:
    fill(dw, 35)
    lock = retain.maintenance(dw._store, "F", dw._store.open("F"))
    for change in (lambda: dw.prune("F", max_bytes=1), lambda: dw.delete_feed("F")):
        with pytest.raises(FeedLockedError, match="under maintenance"):
            change()
    assert dw.prune("F", max_bytes=1, dry_run=True).chunks == 3  # looking takes no lock
    lock.release()
    directory = dw._store.open("F")
    dw.delete_feed("F")
    with pytest.raises(FeedNotFoundError):
        retain.maintenance(dw._store, "F", directory)
    with pytest.raises(FeedNotFoundError):
        dw.prune("F", max_bytes=1)


def test_prunes_beside_deletes_never_say_anything_else(dw: Platform) -> None:
    """200 rounds of a feed that is pruned and deleted at once."""
    said: list[str] = []
    for _ in range(200):
        fill(dw, 35)
        start = threading.Barrier(2)

        def prune(start: threading.Barrier = start) -> None:
            with Platform(dw.base_path) as other:
                start.wait()
                try:
                    said.append(f"pruned {other.prune('F', max_bytes=1).chunks}")
                except (FeedLockedError, FeedNotFoundError) as error:
                    said.append(type(error).__name__)

        thread = threading.Thread(target=prune)
        thread.start()
        start.wait()
        try:
            dw.delete_feed("F")
        except FeedLockedError:
            thread.join()
            dw.delete_feed("F")
        thread.join()
        assert "F" not in dw
        dw.create_feed(SPEC)
    print({kind: said.count(kind) for kind in set(said)})
    assert len(said) == 200 and set(said) <= {"pruned 3", "FeedLockedError", "FeedNotFoundError"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_store_that_cannot_be_written_says_where(dw: Platform, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """As root there are no permissions: the system's refusal is put in its place."""
    full = fill(dw, 35)
    real = os.open

    def refusing(name: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_CREAT | os.O_RDWR):
            raise OSError(code, os.strerror(code), name)
        return real(name, flags, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refusing)
        with pytest.raises(OSError, match="pruning needs to write in the feed's directory") as caught:
            dw.prune("F", max_bytes=1)
        assert (caught.value.errno, caught.value.filename) == (code, str(path_of(dw)))
        assert dw.prune("F", max_bytes=1, dry_run=True).chunks == 3
    check(dw["F"], full, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_feed_without_write_permission_is_not_pruned(dw: Platform) -> None:
    full = fill(dw, 35)
    path_of(dw).chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="pruning needs"):
            dw.prune("F", max_bytes=1)
        check(dw["F"], full, 0)
    finally:
        path_of(dw).chmod(0o700)


@pytest.mark.faults
def test_a_disk_without_space_for_the_note_lets_nothing_go(dw: Platform) -> None:
    """The file is written before anything goes; what it replaces stands."""
    full = fill(dw, 35)
    code = """
        import resource, signal, sys
        from deepwater import Platform, StorageFullError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with Platform(sys.argv[1]) as dw:
            dw.list_feeds()
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
            try:
                dw.prune("F", max_bytes=1)
            except StorageFullError as error:
                print(error.path.rpartition("/")[2])
        """
    assert run_python(code, dw.base_path).stdout == "oldest.json\n"
    check(dw["F"], full, 0)
    assert not [name for name in os.listdir(path_of(dw)) if name.startswith(".")]


def test_flush_beside_a_prune_goes_on(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """What retention let go between a flush's list of chunks and its work on them is no failed sync."""
    monkeypatch.setattr(keeper._clerk, "add", lambda _: None)
    with dw.create_writer("F") as writer:
        writer.write_batch(model.checked_records(0, 95, 1))
        real = Keeper.catch_up

        def then_pruned(self: Keeper) -> None:
            real(self)
            assert len(self._sealed) == 9
            assert dw.prune("F", max_bytes=1).chunks == 9

        with monkeypatch.context() as patch:
            patch.setattr(Keeper, "catch_up", then_pruned)
            assert writer.flush() == 95
        assert writer.write_batch(model.checked_records(95, 3, 2)) == 95
    assert dw.describe_feed("F")["durable"] == 98


@pytest.mark.parametrize("what", ["marks", "snapshots", "gaps", "describe"])
def test_marks_asked_for_while_retention_lets_chunks_go_are_those_that_are_left(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with dw.create_writer("F") as writer:
        for k in range(6):
            writer.write_batch(model.checked_records(10 * k, 10, k, True), create_index=True)
            writer.mark_gap(1)
    reader, real, pruned = dw["F"], chain.Chain.may_be_torn, []

    def meanwhile(self: chain.Chain, index: int) -> bool:
        if not pruned:
            pruned.append(dw.prune("F", max_bytes=3 * CHUNK_BYTES))
        return real(self, index)

    monkeypatch.setattr(chain.Chain, "may_be_torn", meanwhile)
    if what == "describe":
        about = dw.describe_feed("F")
        assert (about["first"], about["gaps"], about["snapshots"]) == (reader.first, 6 - reader.first // 10, 3)
    else:
        found = getattr(reader, what)()
        assert len(found) and found["position"].min() >= reader.first
    assert pruned[0].chunks
