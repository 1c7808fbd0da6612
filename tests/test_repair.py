"""repair: whatever was damaged, afterwards nothing is wrong, every record that could be had is where it was, and every
other one is said; a second repair does nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from check_kit import DTYPE, ROWS, SPEC, build, feed, flip, records, said, spoil
from deepwater import FeedNotFoundError, Platform, check, check_feed
from deepwater import format as fmt
from deepwater.check import verify
from deepwater.repair import Repair, repair

CHUNKS = 4
BLOCK = 65536 // DTYPE.itemsize
DATA = fmt.PAGE  # where the records of these small headers begin


def chunk(store: Path, number: int, suffix: str = "bin") -> Path:
    return feed(store) / f"chunk_{number:08d}.{suffix}"


def original(chunks: int = CHUNKS) -> np.ndarray:
    """What `build` writes."""
    return np.concatenate([
        part for at in range(0, chunks * ROWS, ROWS) for part in (records(at, 40), records(at + 40, ROWS - 40))
    ])  # fmt: skip


def everything(store: Path) -> np.ndarray:
    with Platform(store) as dw, dw["F"] as reader:
        parts = [np.array(part) for part in reader.rows(reader.first, reader.end)]
        return np.concatenate(parts) if parts else np.zeros(0, DTYPE)


def gaps(store: Path) -> list[tuple[int, bytes, int]]:
    with Platform(store) as dw, dw["F"] as reader:
        found = reader.gaps()
        found = found[(found["kind"] == b"dropped") & (found["count"] > 0)]
        return [(int(g["position"]), bytes(g["kind"]), int(g["count"])) for g in found]


def state(store: Path) -> list[Any]:
    return sorted((str(p), p.stat().st_mtime_ns, p.stat().st_ino, p.stat().st_size) for p in store.rglob("*"))


def mended(store: Path, **options: Any) -> Repair:
    """Repair, and hold everything that must be so after any repair."""
    before = state(store)
    planned = repair(store, **options)
    assert state(store) == before, "a dry run changed something"
    done = repair(store, apply=True, **options)
    assert not done.problems, [str(p) for p in done.problems]
    assert [str(c) for c in done.changes][: len(planned.changes)] == [str(c) for c in planned.changes]
    assert said(verify(store)) == []
    for again in (repair(store), repair(store, apply=True)):
        assert not again.changes and not again.problems and again.code == 0 and again.aside is None
    return done


def goes_on(store: Path, end: int) -> None:
    """A writer comes and writes on."""
    with Platform(store) as dw, dw.create_writer("F") as writer:
        assert writer.write_batch(records(end, 3000)) == end
    assert (everything(store)[-3000:] == records(end, 3000)).all()
    assert said(verify(store)) == []


def whole(store: Path) -> None:
    """Nothing was lost."""
    assert (everything(store) == original()).all()
    assert gaps(store) == []
    with Platform(store) as dw, dw["F"] as reader:
        assert len(reader.snapshots()) == CHUNKS and len(reader.gaps()) == CHUNKS
    goes_on(store, CHUNKS * ROWS)


def test_nothing_is_done_to_a_sound_store(store: Path) -> None:
    before = state(store)
    for apply in (False, True):
        done = repair(store, apply=apply)
        assert (done.changes, done.problems, done.lost, done.aside, done.code) == ([], [], [], None, 0)
    assert state(store) == before


# --------------------------------------------------------------------------- what can be had again


def zero(path: Path, start: int, stop: int) -> None:
    spoil(path, start, bytes(stop - start))


AREAS: dict[str, Callable[[Path, int], None]] = {
    "the identity": lambda path, _: zero(path, 0, 512),
    "the activation": lambda path, _: zero(path, 512, 576),
    "the commit word": lambda path, _: spoil(path, 4096, b"\xff" * 8),
    "the commit word's SEALED bit": lambda path, _: flip(path, 8 * 4096 + 63),
    "the durable word": lambda path, _: spoil(path, 4160, b"\xff" * 8),
    "the owner": lambda path, _: spoil(path, 4290, b"??"),
    "the heartbeat": lambda path, _: spoil(path, 4417, bytes([path.read_bytes()[4417] ^ 255])),  # whatever it was
    "the clock words": lambda path, _: spoil(path, 4608, b"\x07" * 24),
    "the layout": lambda path, _: spoil(path, 8400, b"?"),
    "the seal": lambda path, at: spoil(path, at, b"?"),
    "the zeros": lambda path, _: spoil(path, 4250, b"?"),
    "its last page is gone": lambda path, _: os.truncate(path, path.stat().st_size - fmt.PAGE),
    "it is longer": lambda path, _: os.truncate(path, path.stat().st_size + fmt.PAGE),
    "all of its header": lambda path, _: zero(path, 0, DATA),
}
SURE = [name for name in AREAS if name != "its last page is gone"]


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("area", SURE)
def test_a_header_is_made_anew(store: Path, area: str, number: int) -> None:
    path = chunk(store, number)
    identity = fmt.parse_identity(path.read_bytes()[:512], str(path))
    AREAS[area](path, identity.seal_offset)
    if number == 4 and area in ("the seal", "the heartbeat"):  # no seal yet, and nobody knows the time
        return
    done = mended(store)
    assert done.changes
    if area == "all of its header" and number == 4:  # nothing says how many there were beyond the last whole block
        end = 3 * ROWS + ROWS // BLOCK * BLOCK
        assert [(lost.first, lost.stop) for lost in done.lost] == [(end, end)]
        assert gaps(store) == [(end, b"dropped", 2**64 - 1)]
        assert (everything(store) == original()[:end]).all()
        goes_on(store, end)
        return
    assert not done.lost
    whole(store)


@pytest.mark.parametrize("suffix", ["idx", "crc"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_what_stands_beside_a_chunk_is_made_anew(store: Path, suffix: str, number: int) -> None:
    path = chunk(store, number, suffix)
    for damage in (lambda: zero(path, 0, 512), lambda: spoil(path, 4096, b"\xff" * 8), lambda: spoil(path, 5000, b"?")):
        damage()
        assert mended(store).changes
    assert (everything(store) == original()).all() and gaps(store) == []
    with Platform(store) as dw, dw["F"] as reader:
        assert len(reader.snapshots()) == CHUNKS and len(reader.gaps()) == CHUNKS
    if suffix == "crc" and number < 4:
        path.unlink()
        assert mended(store).changes
    goes_on(store, CHUNKS * ROWS)


@pytest.mark.parametrize("bit", [4, 40])
def test_records_that_only_a_flipped_bit_of_the_count_claims_are_none(tmp_path: Path, bit: int) -> None:
    store = tmp_path / "store"  # no copy: of that only what is proven counts anyway
    with Platform(store) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("F") as writer:
            writer.write_batch(records(0, 1000))
    flip(chunk(store, 1), 8 * 4096 + bit)  # 1016 or 2**40 + 1000
    assert not mended(store).lost
    assert (everything(store) == records(0, 1000)).all()
    goes_on(store, 1000)


def test_registries_are_made_anew(store: Path) -> None:
    for path in (feed(store) / "F.reg", store / "registry.bin"):
        for damage in ("lost", "zeros", "bit", "short"):
            if damage == "lost":
                path.unlink()
            elif damage == "zeros":
                zero(path, 0, 8192)
            elif damage == "bit":
                flip(path, 8 * (path.stat().st_size - 5000) + 3)
            else:
                os.truncate(path, 5000)
            assert mended(store).changes, (path, damage)
    whole(store)


def test_text_files_are_made_anew(store: Path) -> None:
    for path in (feed(store) / "layout.json", feed(store) / "settings.json", store / "store.json"):
        text = path.read_bytes()
        empty = b"[]" if path.name == "settings.json" else b"{}"
        flipped = b"\xff" + text[1:] if path.name == "settings.json" else text.replace(b'"format"', b'"fprmat"')
        for damage in (b"", empty, text[:-9], flipped, None):
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage)
            done = mended(store)
            assert done.changes and path.read_bytes() == text, (path, damage)
    whole(store)


# ------------------------------------------------------------------------------------- losses


def lost_of(done: Repair) -> list[tuple[Any, Any]]:
    return [(lost.first, lost.stop) for lost in done.lost]


def check_placeholders(store: Path, spans: list[tuple[int, int]], end: int = CHUNKS * ROWS) -> None:
    """Everything is where it was; in `spans` there are zeros with the clocks of the record before."""
    have, wanted = everything(store), original()[:end]
    good = np.ones(end, bool)
    for first, stop in spans:
        good[first:stop] = False
    assert (have[good] == wanted[good]).all()
    for first, stop in spans:
        before = have[first - 1] if first else have[stop]
        for name in DTYPE.names or ():
            values = have[first:stop][name]
            assert (values == before[name]).all() if name in ("ts_us", "late_us") else not values.any(), name
    assert gaps(store) == [(first, b"dropped", stop - first) for first, stop in spans]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_flipped_bit_of_a_sealed_record_costs_its_block(store: Path, number: int, block: int) -> None:
    row = min(ROWS - 1, block * BLOCK + 7)
    flip(chunk(store, number), 8 * (DATA + row * DTYPE.itemsize) + 5)
    first = (number - 1) * ROWS + block * BLOCK
    span = (first, min(first + BLOCK, number * ROWS))
    done = mended(store)
    assert lost_of(done) == [span] and len(done.lost) == 1
    check_placeholders(store, [span])
    with Platform(store) as dw, dw["F"] as reader:  # the snapshot is not offered if a record of it is gone
        assert len(reader.snapshots()) == CHUNKS - (block == 0)
        marks = reader.gaps()[reader.gaps()["kind"] == b"dropped"]
        assert marks["position"].tolist() == list(span)
        stamps = original()["ts_us"]
        before = int(stamps[span[0] - 1]) if span[0] else 0
        assert marks[["from_us", "to_us"]].tolist() == [(before, int(stamps[span[1]])), (0, 0)]
        assert b"dropped" in reader.read().gaps["kind"].tolist()
    goes_on(store, CHUNKS * ROWS)


def test_blocks_all_over_the_feed(store: Path) -> None:
    for number, row in ((1, 3), (1, 1700), (2, 900), (3, 0), (3, 1999)):
        flip(chunk(store, number), 8 * (DATA + row * DTYPE.itemsize))
    spans = [(0, BLOCK), (2 * BLOCK, ROWS), (ROWS + BLOCK, ROWS + 2 * BLOCK), (2 * ROWS, 2 * ROWS + BLOCK),
             (2 * ROWS + 2 * BLOCK, 3 * ROWS)]  # fmt: skip
    assert lost_of(mended(store)) == spans
    check_placeholders(store, spans)
    goes_on(store, CHUNKS * ROWS)


@pytest.mark.parametrize("row", [600, 2600])
def test_a_snapshot_that_reaches_into_a_chunk_with_losses_is_not_offered(tmp_path: Path, row: int) -> None:
    """Its mark stands in the chunk before; cut off, it would come again with the next records."""
    path = tmp_path / "store"
    with Platform(path) as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 1000 * DTYPE.itemsize})
        with dw.create_writer("F") as writer:
            writer.write_batch(records(0, 100), create_index=True)
            writer.write_batch(records(100, 2900), create_index=True)
            writer.write_batch(records(3000, 500))
    number, at = (1, row) if row < 1000 else (3, row - 2000)
    flip(chunk(path, number), 8 * (DATA + at * DTYPE.itemsize))
    mended(path)
    with Platform(path) as dw, dw["F"] as reader:
        assert reader.snapshots()["position"].tolist() == [0] * (row >= 1000)
    goes_on(path, 3500)


def test_a_snapshot_over_the_cut_end_of_a_feed_does_not_come_again(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with Platform(path) as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 2000 * DTYPE.itemsize})
        with dw.create_writer("F") as writer:
            writer.write_batch(records(0, 100), create_index=True)
            writer.write_batch(records(100, 3000), create_index=True)
    flip(chunk(path, 2), 8 * (DATA + 1000 * DTYPE.itemsize))
    assert lost_of(mended(path)) == [(2000 + BLOCK, 3100)]
    with Platform(path) as dw, dw.create_writer("F") as writer:
        writer.write_batch(records(2000 + BLOCK, 3000))
    with Platform(path) as dw, dw["F"] as reader:
        assert reader.snapshots()["position"].tolist() == [0]


@pytest.mark.parametrize("row", [0, 900, 1999])
def test_the_active_chunk_is_cut_before_its_bad_block(store: Path, row: int) -> None:
    flip(chunk(store, 4), 8 * (DATA + row * DTYPE.itemsize))
    end = 3 * ROWS + row // BLOCK * BLOCK
    done = mended(store)
    assert lost_of(done) == [(end, CHUNKS * ROWS)]
    assert (everything(store) == original()[:end]).all()
    assert gaps(store) == [(end, b"dropped", CHUNKS * ROWS - end)]
    with Platform(store) as dw, dw["F"] as reader:
        assert len(reader.snapshots()) == CHUNKS - (row < 40)
    goes_on(store, end)


@pytest.mark.parametrize("size", [0, 1, 512, 4096, DATA, DATA + 50 * DTYPE.itemsize + 3, DATA + 1700 * DTYPE.itemsize])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_file_that_was_cut(store: Path, number: int, size: int) -> None:
    """Row 8 of the first version: a chunk cut in half was "OK"; row 9: the whole feed was unreadable."""
    os.truncate(chunk(store, number), size)
    kept = max(0, size - DATA) // DTYPE.itemsize // BLOCK * BLOCK
    done = mended(store)
    if number == 4:
        end = 3 * ROWS + kept
        assert lost_of(done) in ([(end, CHUNKS * ROWS)], [(end, end)])
        assert (everything(store) == original()[: len(everything(store))]).all()
        goes_on(store, len(everything(store)))
        return
    first = (number - 1) * ROWS
    assert lost_of(done) == [(first + kept, first + ROWS)]
    if number == 1 and not kept:  # nothing is left of it: the feed begins with the next
        assert (everything(store) == original()[ROWS:]).all() and gaps(store) == []
        goes_on(store, CHUNKS * ROWS)
        return
    check_placeholders(store, [(first + kept, first + ROWS)])
    goes_on(store, CHUNKS * ROWS)


@pytest.mark.parametrize("beside", [True, False])
def test_a_chunk_that_is_gone(store: Path, beside: bool) -> None:
    chunk(store, 2).unlink()
    if beside:
        chunk(store, 2, "idx").unlink()
        chunk(store, 2, "crc").unlink()
    done = mended(store)
    assert lost_of(done) == [(ROWS, 2 * ROWS)]
    check_placeholders(store, [(ROWS, 2 * ROWS)])
    with Platform(store) as dw, dw["F"] as reader:  # its gap is known still if its marks are there
        assert len(reader.gaps()) == CHUNKS + (1 if beside else 2)
        assert len(reader.snapshots()) == CHUNKS - 1
    goes_on(store, CHUNKS * ROWS)


def test_several_that_are_gone_without_the_registry(store: Path) -> None:
    for path in [*feed(store).glob("chunk_0000000[23].*"), feed(store) / "F.reg"]:
        path.unlink()
    assert lost_of(mended(store)) == [(ROWS, 3 * ROWS)]
    check_placeholders(store, [(ROWS, 3 * ROWS)])
    goes_on(store, CHUNKS * ROWS)


def test_the_first_that_are_gone_are_let_go(store: Path) -> None:
    for path in feed(store).glob("chunk_0000000[12].*"):
        path.unlink()
    done = mended(store)
    assert lost_of(done) == [(0, 2 * ROWS)]
    assert (everything(store) == original()[2 * ROWS :]).all()
    with Platform(store) as dw, dw["F"] as reader:
        assert (reader.first, reader.end) == (2 * ROWS, CHUNKS * ROWS)
    goes_on(store, CHUNKS * ROWS)


@pytest.mark.parametrize("registry", [True, False])
def test_the_last_that_are_gone_are_cut_off(store: Path, registry: bool) -> None:
    for path in feed(store).glob("chunk_0000000[34].*"):
        path.unlink()
    if not registry:
        (feed(store) / "F.reg").unlink()
    done = mended(store)
    stop = 3 * ROWS if registry else 2 * ROWS  # chunk 3 has a row
    assert lost_of(done) == [(2 * ROWS, stop)]
    assert gaps(store) == [(2 * ROWS, b"dropped", ROWS if registry else 2**64 - 1)]
    assert (everything(store) == original()[: 2 * ROWS]).all()
    goes_on(store, 2 * ROWS)


def test_another_feeds_chunk_and_an_older_copy(store: Path, tmp_path: Path) -> None:
    build(tmp_path / "other", 3)
    shutil.copy(chunk(tmp_path / "other", 2), chunk(store, 2))
    done = mended(store)
    assert lost_of(done) == [(ROWS, 2 * ROWS)] and done.aside is not None
    assert (Path(done.aside) / "F" / "chunk_00000002.bin").read_bytes() == chunk(tmp_path / "other", 2).read_bytes()
    check_placeholders(store, [(ROWS, 2 * ROWS)])


def test_a_chunk_from_a_backup_made_when_it_was_active(tmp_path: Path) -> None:
    path = tmp_path / "store"
    build(path, 2)
    with Platform(path) as dw, dw.create_writer("F") as writer:
        writer.write_batch(records(writer.end, 500))  # chunk 3: the two before are full
    early = chunk(path, 3).read_bytes()
    with Platform(path) as dw, dw.create_writer("F") as writer:
        writer.write_batch(records(writer.end, 300))
        writer._guarded(writer._rotate)
        writer.write_batch(records(writer.end, 300))
    chunk(path, 3).write_bytes(early)
    done = mended(path)
    end = 2 * ROWS + 500
    assert lost_of(done) == [(end, end + 300)]
    assert (everything(path)[:end] == np.concatenate([original(2), records(2 * ROWS, 500)])).all()
    assert (everything(path)[end + 300 :] == records(end + 300, 300)).all()
    assert gaps(path) == [(end, b"dropped", 300)]


def test_where_a_feed_begins_after_retention(pruned: Path) -> None:
    path = feed(pruned) / "oldest.json"
    for damage in ("{}", "", None):
        if damage is None:
            path.unlink()
        else:
            path.write_text(damage)
        assert mended(pruned).changes
        assert (everything(pruned) == original()[2 * ROWS :]).all()
    goes_on(pruned, CHUNKS * ROWS)


# ---------------------------------------------------------------------------------- as a tool


def test_it_needs_the_feeds_lock_and_says_what_it_is_asked_about(store: Path, tmp_path: Path) -> None:
    with Platform(store) as dw, dw.create_writer("F"):
        assert repair(store, apply=True).changes == []  # nothing to do: no lock is asked for
        flip(chunk(store, 1), 8 * (DATA + 5))
        assert repair(store).code == 1
        before = {path.name: path.read_bytes() for path in (store / "data/F").iterdir()}
        dw.create_feed({**SPEC, "feed_name": "G"})
        (store / "data/G/settings.json").unlink()
        done = repair(store, apply=True)  # the other feed is mended, and what was done is said
        assert done.code == 2 and [change.feed for change in done.changes] == ["G"]
        assert [problem.feed for problem in done.problems] == ["F"] and "has a writer" in done.problems[0].what
        assert before == {path.name: path.read_bytes() for path in (store / "data/F").iterdir()}
        assert (store / "data/G/settings.json").exists()
        dw.delete_feed("G")
    with pytest.raises(FeedNotFoundError, match="no feed 'G'"):
        repair(store, ["G"])
    with pytest.raises(FeedNotFoundError, match="no store"):
        repair(tmp_path / "nothing")
    assert repair(store, ["F"], apply=True).code == 0


def test_a_rotation_beside_it_is_no_loss(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest chunk was sealed when it was looked at, and the one after it was not there when names were listed."""
    with Platform(store) as dw, dw.create_writer("F") as writer:
        real = check_feed._walk

        def beside(*args: Any) -> Any:
            facts, out = real(*args)
            writer._guarded(writer._rotate)
            facts.chunks[-1].word |= fmt.SEALED
            return facts, out

        monkeypatch.setattr(check_feed, "_walk", beside)
        for apply in (False, True):
            done = repair(store, apply=apply)
            assert (done.changes, done.problems) == ([], [])


def test_a_feed_that_is_deleted_beside_it_is_no_finding(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Platform(store) as dw:
        dw.create_feed({**SPEC, "feed_name": "G"})
        real = check.row_checks

        def beside(rows: Any) -> Any:  # the rows are read, the directories are not listed yet
            if "G" in dw.list_feeds():
                dw.delete_feed("G")
            return real(rows)

        monkeypatch.setattr(check, "row_checks", beside)
        assert said(verify(store)) == []
        assert dw.list_feeds() == ["F"]


@pytest.mark.parametrize("apply", [False, True], ids=["said", "applied"])
@pytest.mark.parametrize("when", ["before it is looked at", "before the locks"])
@pytest.mark.parametrize("there", [True, False], ids=["made again", "deleted"])
def test_a_feed_that_is_deleted_while_it_is_repaired_is_no_loss(
    store: Path, monkeypatch: pytest.MonkeyPatch, there: bool, when: str, apply: bool
) -> None:
    """What is left of its files while they go is no damage, and the locks are those of the feed that was looked at."""
    with Platform(store) as dw:
        dw.create_feed({**SPEC, "feed_name": "G"})
        dw.write("G", records(0, 50))
        (store / "data/G/settings.json").unlink()  # something to mend
        real, lives = check_feed.walk, []

        def beside(*args: Any) -> Any:
            lives.append(args[1])
            if len(lives) > 1:
                return real(*args)
            found = real(*args) if when == "before the locks" else None
            dw.delete_feed("G")
            if there:
                dw.create_feed({**SPEC, "feed_name": "G"})
                dw.write("G", records(0, 30))
            return found or real(*args)

        monkeypatch.setattr("deepwater.repair.walk", beside)
        done = repair(store, ["G"], apply=apply)
        assert (done.changes, done.problems) == ([], [])
        assert len(lives) > 1 if there else len(lives) == 1
        assert said(verify(store)) == []


def test_what_cannot_be_mended_is_said(store: Path) -> None:
    for path in feed(store).glob("chunk*"):
        path.unlink()
    (feed(store) / "layout.json").write_text("{}")
    done = repair(store, apply=True)
    assert done.code == 2 and "restore layout.json from a copy" in str(done.problems[0])
    assert (feed(store) / "layout.json").read_text() == "{}"


def test_the_damaged_files_are_kept(store: Path) -> None:
    path = chunk(store, 2)
    flip(path, 8 * (DATA + 5))
    bad = path.read_bytes()
    with Platform(store) as dw, dw["F"] as reader:  # what a reader has is not changed under it
        held = reader.rows(ROWS, ROWS + 10)
        before = held.to_numpy()
        done = mended(store)
        assert (held.to_numpy() == before).all()
    assert (Path(done.aside or "") / "F" / path.name).read_bytes() == bad
    report = verify(store)
    assert report.code == 0


def test_it_is_told_as_json(store: Path) -> None:
    flip(chunk(store, 2), 8 * (DATA + 5))
    told = json.loads(json.dumps(repair(store).to_json()))
    assert told["applied"] is False and told["problems"] == [] and told["aside"] is None
    assert {"path", "what", "feed", "first", "stop"} == set(told["changes"][0])
    assert [(c["first"], c["stop"]) for c in told["changes"] if c["first"] is not None] == [(ROWS, ROWS + BLOCK)]


def test_a_name_with_any_number_and_a_fifo_keep_nobody_busy(store: Path) -> None:
    """An id of a file's name was counted up to; a FIFO in the place of layout.json was waited for."""
    for name in ("chunk_99999999.bin", "chunk_9999999999999999.bin"):
        (feed(store) / name).write_bytes(b"")
        os.chmod(feed(store) / name, 0o600)
        tracemalloc.start()
        report, planned = verify(store), repair(store)
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()
        assert report.code == 2
        assert not planned.lost
        (feed(store) / name).unlink()
    layout = feed(store) / "layout.json"
    layout.unlink()
    os.mkfifo(layout)
    mended(store)
    whole(store)
