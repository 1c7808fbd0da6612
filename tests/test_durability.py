"""What survives what: durability levels, `flush`, failed syncs, checksums, and feeds that come back from elsewhere."""

from __future__ import annotations

import errno
import os
import random
import shutil
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

import model
from deepwater import CorruptFileError, DurabilityError, Platform, checksums, chunk, keeper
from deepwater import format as fmt
from deepwater.check import verify
from deepwater.chunk import WritableChunk
from deepwater.index import UNKNOWN
from deepwater.keeper import Keeper
from deepwater.repair import repair
from faults.power import Device
from interrupts import Interrupt

FIELDS = [{"name": "ts_us", "type": "uint64"}, {"name": "value", "type": "uint64"}]
SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": FIELDS, "chunk_size_bytes": 16 * 20, "index_playback": True}
DTYPE = [("ts_us", "<u8"), ("value", "<u8")]


def batch(first: int, rows: int) -> np.ndarray:
    out = np.zeros(rows, DTYPE)
    out["ts_us"] = np.arange(first, first + rows)
    out["value"] = out["ts_us"] * 7
    return out


def held(dw: Platform) -> list[int]:
    with dw["F"] as reader:
        values = [value for part in reader.rows(reader.first, reader.end) for value in part["value"].tolist()]
        assert values == [7 * k for k in range(len(values))]
        return values


def durable(dw: Platform) -> int:
    return int(dw.describe_feed("F")["durable"])


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.005)


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as made:
        yield made


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done by a thread, and blocks are of four records."""
    monkeypatch.setattr(keeper._clerk, "add", lambda _: None)
    monkeypatch.setattr("deepwater.spare.Spare.start", lambda spare: None)
    monkeypatch.setattr(fmt, "BLOCK_BYTES", 64)


@pytest.fixture
def reboot(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The machine is started again; what was in its page cache happens to be on the disk."""

    def again() -> None:
        monkeypatch.setattr(chunk, "this_boot", lambda: bytes(range(16)))

    return again


def refuse(monkeypatch: pytest.MonkeyPatch, at: int = 0) -> list[int]:
    """Let the `at`-th sync from now on, and all after it, fail as a broken device does."""
    calls: list[int] = []
    real = keeper.sync

    def sync(fd: int) -> None:
        calls.append(fd)
        if len(calls) > at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(keeper, "sync", sync)
    return calls


# -------------------------------------------------------------------------------------- levels


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_always_means_that_what_returned_survives_a_power_cut(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    dw.create_feed({**SPEC, "durability": "always"})
    base, rng = Path(dw.base_path), random.Random(3)
    device = Device(monkeypatch, base / "data" / "F")
    with dw.create_writer("F") as writer:
        end = marks = 0
        for step in range(40):
            kind = rng.choice(("one", "few", "many", "staged", "bytes", "gap", "snapshot"))
            rows = {"one": 1, "gap": 0, "many": rng.randint(33, 60)}.get(kind, rng.randint(2, 8))
            if kind == "one":
                writer.write_values(end, 7 * end)
            elif kind == "staged":
                for record in batch(end, rows):
                    writer.stage_values(*record.item())
                writer.commit_values()
            elif kind == "bytes":
                writer.write_batch_bytes(batch(end, rows).tobytes())
            elif kind == "gap":
                writer.mark_gap(1)
                marks += 1
            else:
                writer.write_batch(batch(end, rows), create_index=kind == "snapshot")
                marks += kind == "snapshot"
            end += rows
            device.look()
            device.after_power_cut(rng, base, base.parent / f"after-{step}")
            with Platform(base.parent / f"after-{step}") as after, after["F"] as reader:
                assert len(held(after)) == end
                assert len(reader.marks()) == marks


@pytest.mark.parametrize("rows", [3, 50], ids=["one chunk", "many chunks"])
def test_interval_brings_records_to_the_device_by_itself(dw: Platform, rows: int) -> None:
    dw.create_feed({**SPEC, "durability": "interval", "durability_ms": 20})
    with dw.create_writer("F") as writer:
        for first in range(0, 3 * rows, rows):
            writer.write_batch(batch(first, rows))
            until(lambda first=first: durable(dw) == first + rows)


def test_sealed_chunks_come_to_the_device_by_themselves(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SETTLE_S", 0.0)
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 50))
        until(lambda: durable(dw) == 40)
    assert durable(dw) == 50  # a writer that was closed has nothing that is not there


def test_a_recorder_may_have_hundreds_of_writers_and_one_thread(dw: Platform) -> None:
    import threading

    writers = []
    for k in range(200):
        dw.create_feed({**SPEC, "feed_name": f"F{k}", "durability": "interval", "durability_ms": 10})
        writers.append(dw.create_writer(f"F{k}"))
    for writer in writers:
        writer.write_values(0, 0)
    for k in range(200):
        until(lambda k=k: dw.describe_feed(f"F{k}")["durable"] == 1)
    assert [thread.name for thread in threading.enumerate()].count("deepwater-keeper") == 1
    for writer in writers:
        writer.close()
    until(lambda: "deepwater-keeper" not in [thread.name for thread in threading.enumerate()])


# -------------------------------------------------------------------------------------- failed syncs


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("at", range(5))
def test_a_sync_that_failed_is_final(dw: Platform, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The device would say yes the second time: to the kernel the dirty pages are gone. Nothing is called durable."""
    dw.create_feed(SPEC)
    writer = dw.create_writer("F")
    writer.write_batch(batch(0, 10))
    assert writer.flush() == 10
    writer.write_batch(batch(10, 15))
    with monkeypatch.context() as patch:
        calls = refuse(patch, at)
        with pytest.raises(DurabilityError, match="read-only") as refused:
            writer.flush()
        assert refused.value.errno == errno.EIO
        assert len(calls) == at + 1
        known = durable(dw)
        assert known in (10, 20)
    for use in (writer.flush, lambda: writer.write_values(25, 0), lambda: writer.write_batch(batch(25, 2)),
                lambda: writer.mark_gap(1), lambda: writer.resize_chunk_size(4096)):  # fmt: skip
        with pytest.raises(DurabilityError):
            use()
    assert durable(dw) == known
    assert len(held(dw)) == 25  # readers lose nothing
    writer.close()
    with dw.create_writer("F") as following:
        assert following.write_batch(batch(25, 5)) == 25
    assert len(held(dw)) == durable(dw) == 30


@pytest.mark.usefixtures("by_hand")
def test_a_chunk_without_records_is_brought_to_the_device_once(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is part of the feed must not be lost; a feed that nobody writes to costs no sync."""
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        calls = refuse(monkeypatch, 100)
        assert writer.flush() == 0 and calls
        calls.clear()
        assert writer.flush() == 0 and not calls
        writer.write_batch(batch(0, 3))
        writer.resize_chunk_size(4096)
        writer.flush()
        calls.clear()
        assert writer.flush() == 3 and not calls


@pytest.mark.faults
def test_a_sync_that_failed_in_the_background_stops_the_next_write(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    dw.create_feed({**SPEC, "durability": "interval", "durability_ms": 10})
    writer = dw.create_writer("F")
    refuse(monkeypatch)
    position = 0

    def write() -> bool:
        nonlocal position
        try:
            writer.write_values(position, 7 * position)
        except DurabilityError:
            return True
        position += 1
        return False

    until(write)
    assert len(held(dw)) == position
    writer.close()


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_a_flush_before_the_writer_was_told_of_a_failed_sync_is_refused(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread's sync failed just now. Another one would succeed, and say that what the kernel dropped is there."""
    dw.create_feed({**SPEC, "durability": "interval", "durability_ms": 10})
    writer: Any = dw.create_writer("F")
    writer.write_batch(batch(0, 10))
    with monkeypatch.context() as patch:
        refuse(patch)
        patch.setattr(writer._keeper, "_on_failure", lambda: None)
        writer._keeper.work(time.monotonic())
    with pytest.raises(DurabilityError, match="read-only"):
        writer.flush()
    assert durable(dw) == 0
    writer.close()


@pytest.mark.faults
def test_a_close_that_cannot_sync_says_so_and_lets_go(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    dw.create_feed(SPEC)
    writer = dw.create_writer("F")
    writer.write_batch(batch(0, 5))
    with monkeypatch.context() as patch:
        refuse(patch)
        with pytest.raises(DurabilityError, match="closed, but"):
            writer.close()
    with dw.create_writer("F") as following:
        assert following.end == 5


# -------------------------------------------------------------------------------------- checksums


def independent_sums(data: bytes, block: int) -> list[int]:
    return [crc32(data[at : at + block]) for at in range(0, len(data), block)]


def check_sums(directory: Path) -> None:
    """The checksums of a feed are those of its records, all of them; read with `struct` alone."""
    for path in model.chunk_files(directory):
        raw = path.read_bytes()
        word, offset = struct.unpack_from("<Q", raw, 4096)[0], struct.unpack_from("<Q", raw, 120)[0]
        count, sealed = word & (2**63 - 1), word >> 63
        records = raw[offset : offset + 16 * count]
        sums = path.with_suffix(".crc").read_bytes()
        kind, found = sums[16:20], struct.unpack_from("<Q", sums, 4096)[0]
        assert kind == b"CSUM" and found >> 63 == sealed
        expected = independent_sums(records, 64)[: None if sealed else count // 4]
        start = struct.unpack_from("<Q", sums, 120)[0]
        rows_ = [struct.unpack_from("<QII", sums, start + 16 * k) for k in range(found & (2**63 - 1))]
        assert [crc for _, crc, _ in rows_] == expected
        assert all(crc ^ inverse == 0xFFFFFFFF for _, crc, inverse in rows_)
        if not sealed and count:
            slots = [struct.unpack_from("<QI4xI", raw, at) for at in (4480, 4544)]
            assert max(slots)[:2] == (count, crc32(records[count // 4 * 64 :]))


@pytest.mark.parametrize("rows", [1, 7, 8, 20, 21, 59, 60, 61])
@pytest.mark.usefixtures("by_hand")
def test_checksums_are_those_of_the_blocks(dw: Platform, rows: int) -> None:
    """After however many looks of the keeper."""
    dw.create_feed(SPEC)
    rng = random.Random(rows)
    with dw.create_writer("F") as writer:
        end = 0
        while end < rows:
            step = min(rows - end, rng.randint(1, 9))
            writer.write_batch(batch(end, step))
            end += step
            if rng.random() < 0.7:
                writer._keeper.catch_up()
    check_sums(Path(dw.base_path) / "data" / "F")


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("begun", [True, False], ids=["in a file", "no file yet"])
def test_a_keeper_interrupted_anywhere_goes_on_with_the_right_checksums(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """What was half done in memory is forgotten: else a file just opened is taken for one that is gone, for ever."""
    cover, covered = Keeper._cover, 0

    def counted(self: Keeper) -> bool:
        nonlocal covered
        covered += 1
        assert covered < 100, "it goes on and on"
        return cover(self)

    monkeypatch.setattr(Keeper, "_cover", counted)
    for place in range(1, 400):
        covered = 0
        dw.create_feed({**SPEC, "feed_name": f"F{place}"})
        with dw.create_writer(f"F{place}") as writer:
            writer.write_batch(batch(0, 3))
            if begun:
                writer._keeper.catch_up()
            writer.write_batch(batch(3, 7))
            interrupt, before = Interrupt(place, keeper, checksums), sys.gettrace()
            sys.settrace(interrupt)
            try:
                writer._keeper.catch_up()
            except KeyboardInterrupt:
                assert interrupt.came
            finally:
                sys.settrace(before)
            writer.write_batch(batch(10, 1 + 30 * (place % 2)))
            writer._keeper.catch_up()
            check_sums(Path(dw.base_path) / "data" / f"F{place}")
        if not interrupt.came:
            break
    assert 20 < place < 399


@pytest.mark.usefixtures("by_hand")
def test_checksums_fall_behind_by_two_chunks_at_most(dw: Platform) -> None:
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        for first in range(0, 400, 10):
            writer.write_batch(batch(first, 10))
            assert writer._chunk.id - writer._keeper.at <= keeper.MOST_BEHIND + 1


@pytest.mark.faults
def test_a_lost_or_damaged_file_of_checksums_is_made_again(dw: Platform) -> None:
    dw.create_feed(SPEC)
    path = Path(dw.base_path) / "data" / "F" / "chunk_00000001.crc"
    damages = (path.unlink, lambda: path.write_bytes(b""), lambda: path.write_bytes(bytes(32768)))
    for end, damage in zip((5, 7, 9), damages, strict=True):
        with dw.create_writer("F") as writer:
            writer.write_batch(batch(writer.end, end - writer.end))
        whole = path.read_bytes()
        damage()
        with dw.create_writer("F") as writer:
            writer.write_batch(batch(end, 1))
        assert len(path.read_bytes()) == len(whole)
        assert len(held(dw)) == end + 1


# -------------------------------------------------------------------------------------- back from elsewhere


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("covered", [True, False], ids=["checksums", "none"])
def test_a_copy_of_a_live_store_ends_at_what_is_proven(dw: Platform, tmp_path: Path, covered: bool) -> None:
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 10))
        writer.flush()
        writer.write_batch(batch(10, 47))
        if covered:
            writer._keeper.catch_up()
        shutil.copytree(dw.base_path, tmp_path / "copy")
    proven = 57 if covered else 10
    with Platform(tmp_path / "copy") as copy:
        assert len(held(copy)) == proven
        with copy["F"] as reader, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with copy.create_writer("F") as writer:
                assert writer.end == proven
                writer.write_batch(batch(proven, 5))
            assert reader.end == proven + 5  # a reader that was there before goes on
        assert len(held(copy)) == proven + 5
        with copy["F"] as reader:
            marks = reader.gaps()
        assert [str(warning.message)[:8] for warning in said] == ([] if covered else ["feed 'F'"])
        assert marks["kind"].tolist() == ([] if covered else [b"dropped"])
        assert marks["count"].tolist() == ([] if covered else [47]) and marks["position"].tolist() == [10][: len(marks)]
    assert len(held(dw)) == 57  # the original does not know of it


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_after_a_reboot_only_what_is_proven_counts(dw: Platform, reboot: Callable[[], None]) -> None:
    dw.create_feed(SPEC)
    writer: Any = dw.create_writer("F")
    writer.write_batch(batch(0, 33))
    writer.flush()
    writer.write_batch(batch(33, 5))
    writer._keeper.close()  # as if the machine had stopped here
    writer._keeper.flush = lambda: None
    writer.close()
    assert len(held(dw)) == 38
    reboot()
    assert len(held(dw)) == 33
    with pytest.warns(UserWarning, match="5 records from position 33"), dw.create_writer("F") as following:
        assert following.end == 33


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_records_of_a_chunk_that_came_back_as_it_was_made_are_said_to_be_lost(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, reboot: Callable[[], None]
) -> None:
    """The seal of the chunk before it was synced, of itself nothing: it does not say how much it held, or of what."""
    activate, path = WritableChunk.activate, Path(dw.base_path) / "data" / "F" / "chunk_00000002.bin"
    made = b""

    def noted(directory: Any, chunk_id: int, *args: Any) -> WritableChunk:
        nonlocal made
        made = path.read_bytes() if chunk_id == 2 else made
        return activate(directory, chunk_id, *args)

    monkeypatch.setattr(WritableChunk, "activate", noted)
    dw.create_feed(SPEC)
    writer: Any = dw.create_writer("F")
    writer.write_batch(batch(0, 35))
    writer._keeper.catch_up()
    writer._keeper._sync_oldest()
    writer._keeper.flush = lambda: None
    writer.close()
    with path.open("r+b") as file:  # the same file: this is no copy
        file.write(made)
    path.with_suffix(".crc").unlink()
    reboot()
    assert len(held(dw)) == 20
    with pytest.warns(UserWarning, match="records from position 20 on .* how many is not known"):
        following = dw.create_writer("F")
    assert following.write_batch(batch(20, 5)) == 20
    following.close()
    with dw["F"] as reader:
        assert reader.gaps()[["position", "kind", "count"]].tolist() == [(20, b"dropped", UNKNOWN)]
    dw.create_writer("F").close()  # it is said once


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_damage_is_not_taken_for_a_power_cut(dw: Platform, tmp_path: Path) -> None:
    """A page of zeros where the words of a chunk were, and chunks after it are on the device: nothing is removed."""
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 70))
    path = Path(dw.base_path) / "data" / "F" / "chunk_00000002.bin"
    model.poke(path, 4096, bytes(4096))
    before = model.tree(Path(dw.base_path))
    with dw["F"] as reader:
        assert reader.end == 70
        with pytest.raises(CorruptFileError, match="chunk_00000002"):
            reader.read().to_numpy()
    (path.parent / "F.reg").unlink()
    before = model.tree(Path(dw.base_path))
    for use in (dw.create_writer, dw.create_reader):
        with pytest.raises(CorruptFileError, match="chunk_00000002"):
            use("F")
        assert model.tree(Path(dw.base_path)) == before


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_a_flush_reaches_the_end_although_no_checksum_can_be_stored(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without space for the files of checksums: they are behind, what `flush` says is durable is not."""
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        with monkeypatch.context() as patch:
            patch.setattr("deepwater.checksums.ChunkSums.open", lambda self: refuse_space())
            for first in range(0, 90, 30):
                writer.write_batch(batch(first, 30))
                assert writer.flush() == first + 30 == durable(dw)
        writer._keeper.catch_up()
        assert writer._keeper.at == writer._chunk.id


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_a_chunk_sealed_while_older_ones_are_synced_is_not_passed_over(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper's thread flushes; the writer, far ahead, catches up with the checksums meanwhile."""
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 25))
        sync_chunk, order = keeper.Keeper._sync_chunk, []

        def slow(self: keeper.Keeper, chunk_id: int, **options: bool) -> bool:
            order.append(chunk_id)
            if len(order) == 1:
                writer.write_batch(batch(25, 30))
                self.catch_up()
            return sync_chunk(self, chunk_id, **options)

        monkeypatch.setattr(keeper.Keeper, "_sync_chunk", slow)
        writer._keeper.flush()
        assert order == sorted(order) and set(order) == {1, 2, 3}


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_a_long_flush_brings_the_checksums_of_each_chunk_it_passes(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush that meets ever more chunks of a fast writer: none is left durable with checksums only in memory."""
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        sync_file, synced, sync_chunk = keeper.Keeper._sync_file, [], keeper.Keeper._sync_chunk

        def note(self: keeper.Keeper, name: str) -> None:
            if (self._directory.exists(name)) and name.endswith(".crc"):
                word = (Path(dw.base_path) / "data" / "F" / name).read_bytes()[4096 : 4096 + 8]
                synced.append((name, word[7] >> 7))
            sync_file(self, name)

        def chased(self: keeper.Keeper, chunk_id: int, **options: bool) -> bool:
            if chunk_id < 8:
                writer.write_batch(batch(writer.end, 20))
            return sync_chunk(self, chunk_id, **options)

        monkeypatch.setattr(keeper.Keeper, "_sync_file", note)
        monkeypatch.setattr(keeper.Keeper, "_sync_chunk", chased)
        writer.write_batch(batch(0, 25))
        writer._keeper.flush()
        assert {(f"chunk_{k:08d}.crc", 1) for k in range(1, writer.chunk_id)} <= set(synced)


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_what_covered_the_tail_of_lost_records_is_forgotten(dw: Platform, reboot: Callable[[], None]) -> None:
    """The header has come to the device with its count and its tail slots, the records have not."""
    dw.create_feed({**SPEC, "chunk_size_bytes": 16 * 60})
    path = Path(dw.base_path) / "data" / "F" / "chunk_00000001.bin"
    writer: Any = dw.create_writer("F")
    writer.write_batch(batch(0, 6))
    writer.flush()
    early = path.read_bytes()
    writer.write_batch(batch(6, 4))
    writer._keeper.catch_up()
    late = path.read_bytes()
    writer.close()
    path.write_bytes(late[:16384] + early[16384:])
    reboot()
    others = batch(6, 5)
    others["ts_us"] += np.uint64(1)
    with pytest.warns(UserWarning, match="4 records from position 6"), dw.create_writer("F") as writer:
        writer.write_batch(others)
    assert verify(dw.base_path).findings == []


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("late", [30, 20], ids=["sealed", "some blocks"])
def test_checksums_of_records_that_were_lost_are_forgotten(
    dw: Platform, reboot: Callable[[], None], late: int
) -> None:
    """The kernel had written the file of checksums, and of the chunk only what was flushed: all of that is sure."""
    dw.create_feed({**SPEC, "chunk_size_bytes": 16 * 24})
    path = Path(dw.base_path) / "data" / "F" / "chunk_00000001.bin"
    writer: Any = dw.create_writer("F")
    writer.write_batch(batch(0, 6))
    writer.flush()
    on_device = path.read_bytes()
    writer.write_batch(batch(6, late - 6))
    writer._keeper.catch_up()
    sums = path.with_suffix(".crc").read_bytes()
    writer.close()
    path.write_bytes(on_device)
    path.with_suffix(".crc").write_bytes(sums)
    for name in ("chunk_00000002.bin", "chunk_00000002.crc", "F.reg"):
        (path.parent / name).unlink(missing_ok=True)
    reboot()
    others = batch(6, 20)
    others["ts_us"] += np.uint64(1)
    with dw.create_writer("F") as writer:
        assert writer.end == 6
        writer.write_batch(others)
    assert verify(dw.base_path).findings == []


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_checksums_that_came_after_their_records_were_durable_are_brought_to_the_device(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        with monkeypatch.context() as patch:
            patch.setattr("deepwater.checksums.ChunkSums.open", lambda self: refuse_space())
            writer.write_batch(batch(0, 50))
            assert writer.flush() == 50
        synced, sync = [], keeper.sync

        def note(fd: int) -> None:
            synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
            sync(fd)

        monkeypatch.setattr(keeper, "sync", note)
        writer._keeper.catch_up()
        writer.flush()
        assert {"chunk_00000001.crc", "chunk_00000002.crc"} <= set(synced)


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("how", ["gone", "zeros", "not sealed"])
def test_checksums_that_a_power_cut_took_from_durable_chunks_are_made_again(dw: Platform, how: str) -> None:
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(0, 70))
    for path in (Path(dw.base_path) / "data" / "F").glob("chunk_0000000[23].crc"):
        if how == "gone":
            path.unlink()
        elif how == "zeros":
            path.write_bytes(bytes(path.stat().st_size))
        else:
            model.poke(path, 4096, bytes(8))
    assert how == "gone" or verify(dw.base_path).code
    with dw.create_writer("F") as writer:
        writer.write_batch(batch(70, 1))
    assert verify(dw.base_path).findings == []


def refuse_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_copy_without_its_last_chunk_is_a_prefix(tmp_path: Path) -> None:
    """``cp -r`` lists the directory, then the feed rotates: the last chunk copied is sealed, the next not there."""
    with Platform(tmp_path / "live") as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("F") as writer:
            writer.write_batch(batch(0, 50))
            writer.resize_chunk_size(1 << 16)  # a rotation
            writer.write_batch(batch(50, 10))
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "live", copy)
    last = max((copy / "data" / "F").glob("chunk_*.bin"))
    last.unlink()
    with Platform(copy) as dw:
        with dw["F"] as reader:
            assert reader.end == 50
            assert held(dw) == [7 * k for k in range(50)]
            with pytest.warns(UserWarning, match="position 50 on were not copied"):
                writer = dw.create_writer("F")
            assert writer.write_values(300, 7) == 50
            writer.close()
            assert reader.end == 51
            assert reader.gaps()[["position", "kind"]].tolist() == [(50, b"dropped")]
        dw.create_writer("F").close()  # is told once


def test_a_lost_last_chunk_is_not_taken_for_a_copy(tmp_path: Path) -> None:
    with Platform(tmp_path) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("F") as writer:
            writer.write_values(1, 1)
            writer.resize_chunk_size(1 << 16)
        (tmp_path / "data" / "F" / "chunk_00000002.bin").unlink()
        with pytest.raises(CorruptFileError, match="chunk 2 is missing"):
            dw["F"]
        with pytest.raises(CorruptFileError, match="chunk 2 is missing"):
            dw.create_writer("F")


def flip(path: Path, offset: int, bit: int) -> None:
    """Flip a bit of a file in place: it stays the file that its writer wrote."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("what", ["sealed", "count"])
def test_a_bit_that_is_lost_from_a_commit_word_removes_nothing(dw: Platform, what: str, closed: bool) -> None:
    """A writer came, took the chunk for the end of the feed, and removed or wrote over what was after it."""
    dw.create_feed(SPEC)
    writer: Any = dw.create_writer("F")
    writer.write_batch(batch(0, 50))  # 20, 20 and 10
    writer._keeper.catch_up()
    if not closed:
        writer._keeper.close()  # as if it had been killed
        writer._keeper.flush = lambda: None
    writer.close()
    flip(Path(dw.base_path) / "data" / "F" / f"chunk_0000000{2 if what == 'sealed' else 3}.bin",
         4103 if what == "sealed" else 4096, 7 if what == "sealed" else 3)  # fmt: skip
    before = model.tree(Path(dw.base_path))
    with pytest.raises(CorruptFileError, match="see deepwater verify"):
        dw.create_writer("F")
    assert model.tree(Path(dw.base_path)) == before
    assert repair(dw.base_path, apply=True).lost == []
    assert len(held(dw)) == 50
    dw.create_writer("F").close()


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_what_was_said_of_records_that_a_power_cut_took_is_forgotten(dw: Platform, tmp_path: Path) -> None:
    """A tail slot of theirs was compared with the records that took their positions."""
    dw.create_feed({**SPEC, "chunk_size_bytes": 16 * 400})
    writer: Any = dw.create_writer("F")
    writer.write_batch(batch(0, 1))
    writer.flush()
    for first in (1, 2):
        writer.write_batch(batch(first, 1))
        writer._keeper.catch_up()
    shutil.copytree(dw.base_path, tmp_path / "copy")
    model.poke(tmp_path / "copy" / "data" / "F" / "chunk_00000001.bin", 16384 + 16, bytes(32))
    writer.close()
    with Platform(tmp_path / "copy") as copy:
        with pytest.warns(UserWarning, match="2 records from position 1"):
            following: Any = copy.create_writer("F")
        following.write_batch(np.concatenate([batch(1, 1), batch(7, 1)]))
        following._keeper.catch_up()
        report = verify(copy.base_path)
        assert report.code == 0, report.findings
        following.close()


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_a_snapshot_over_two_chunks_that_a_power_cut_took_half_of_does_not_come_again(
    dw: Platform, tmp_path: Path
) -> None:
    dw.create_feed(SPEC)
    writer: Any = dw.create_writer("F")
    writer.write_batch(batch(0, 4), create_index=True)
    writer.write_batch(batch(4, 31), create_index=True)  # 16 in the first chunk, 15 in the second
    writer._keeper.catch_up()
    shutil.copytree(dw.base_path, tmp_path / "copy")
    model.poke(tmp_path / "copy" / "data" / "F" / "chunk_00000002.bin", 16384 + 16 * 8, bytes(16 * 7))
    writer.close()
    with Platform(tmp_path / "copy") as copy:
        with pytest.warns(UserWarning, match="7 records from position 28"):
            following = copy.create_writer("F")
        following.write_batch(batch(28, 30))
        following.close()
        with copy["F"] as reader:
            assert reader.snapshots()["position"].tolist() == [0]


@pytest.mark.faults
@pytest.mark.usefixtures("by_hand")
def test_checksums_of_records_that_a_power_cut_took_do_not_stay_in_the_file(dw: Platform, tmp_path: Path) -> None:
    dw.create_feed({**SPEC, "chunk_size_bytes": 16 * 400})
    writer: Any = dw.create_writer("F")
    writer.write_batch(batch(0, 1))
    writer.flush()
    writer.write_batch(batch(1, 100))
    writer._keeper.catch_up()
    shutil.copytree(dw.base_path, tmp_path / "copy")
    model.poke(tmp_path / "copy" / "data" / "F" / "chunk_00000001.bin", 16384 + 16 * 9, bytes(16 * 80))
    writer.close()
    with Platform(tmp_path / "copy") as copy:
        with pytest.warns(UserWarning, match="93 records from position 8"):
            following = copy.create_writer("F")
        following.write_batch(batch(8, 5))
        following.resize_chunk_size(16 * 100)
        following.flush()
        report = verify(copy.base_path)
        assert report.code == 0, report.findings
        following.close()
