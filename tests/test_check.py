"""verify: a sound store has no finding, whoever writes it; every flipped bit of one has one, at its place."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from check_kit import DTYPE, ROWS, SIZE, SPEC, build, feed, flip, records, said, spoil
from deepwater import CorruptFileError, FeedNotFoundError, Platform, SchemaError, check_feed
from deepwater.check import verify
from deepwater.check_chunk import check_chunk
from deepwater.check_feed import FeedFacts
from deepwater.files import Directory
from deepwater.findings import Finding, Findings, Report
from deepwater.repair import repair
from processes import Worker, run_python


def the(report: Report, severity: str = "error") -> Finding:
    found = [finding for finding in report.findings if finding.severity == severity]
    assert len(found) == 1, [str(finding) for finding in report.findings]
    return found[0]


# ------------------------------------------------------------------------------------------ sound


def test_a_sound_store_has_no_finding(sound: Path) -> None:
    report = verify(sound)
    assert said(report) == [] and report.code == 0
    assert report.records == 4 * ROWS and report.bytes_read == 4 * ROWS * DTYPE.itemsize and report.feeds == 1


def test_a_copy_has_none_either_and_quick_reads_no_records(store: Path) -> None:
    assert said(verify(store)) == []
    report = verify(store, ["F"], quick=True)
    assert said(report) == [] and report.bytes_read == 0 and report.quick


def test_looking_changes_and_creates_nothing(store: Path) -> None:
    def state() -> list[Any]:
        return sorted((str(p), p.stat().st_mtime_ns, p.stat().st_ino, p.stat().st_size) for p in store.rglob("*"))

    before = state()
    verify(store)
    assert state() == before


def test_a_store_that_is_not_there_and_a_feed_that_is_not(store: Path, tmp_path: Path) -> None:
    with pytest.raises(FeedNotFoundError, match="no store at"):
        verify(tmp_path / "nowhere")
    with pytest.raises(FeedNotFoundError, match="feeds: F"):
        verify(store, ["G"])


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_small_feeds_and_rings(tmp_store: Path, rows: int) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        dw.create_feed({**SPEC, "feed_name": "R", "persist": False, "index_playback": False})
        if rows:
            dw.write("F", records(0, rows))
        with dw.create_writer("R") as writer:
            writer.write_batch(records(0, 1 + rows))
            assert said(verify(tmp_store)) == []
        assert said(verify(tmp_store)) == []
        dw.delete_feed("R")
        assert said(verify(tmp_store)) == []


# ------------------------------------------------------------------------------------------ every bit


def header_bits(data: bytes) -> Iterator[int]:
    """Every bit of a header that says something, and one of every fifth byte that must be zero."""
    end = int.from_bytes(data[120:128], "little")
    rng = random.Random(3)
    words = {4096, 4160, 4416}
    for byte in range(end):
        if data[byte] or byte < 576 or byte // 8 * 8 in words or 4608 <= byte < 4736:
            yield from range(8 * byte, 8 * byte + 8)
        elif byte % 5 == 0:
            yield 8 * byte + rng.randrange(8)


def checker(directory: Directory, facts: FeedFacts, name: str) -> Callable[[Findings], object]:
    """What looks at one of the files, without the others."""
    about = facts.feed
    assert about is not None
    if name.endswith(".idx"):
        return lambda out: check_feed._check_marks(out, directory, facts, about)
    if name.endswith(".reg"):
        return lambda out: check_feed._check_registry(out, directory, facts, about)
    return lambda out: check_chunk(out, directory, about, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chunk_00000002.bin", "chunk_00000002.idx", "chunk_00000002.crc", "F.reg"])
def test_every_bit_of_a_header_is_reported_in_its_file(store: Path, name: str) -> None:
    path = feed(store) / name
    good = path.read_bytes()
    silent, bits = [], list(header_bits(good))
    with Directory(feed(store)) as directory, path.open("r+b", buffering=0) as file:
        facts, out = check_feed.walk(directory, "F", None, None)
        look = checker(directory, facts, name)
        look(out)
        assert out.found == []
        for bit in bits:
            os.pwrite(file.fileno(), bytes([good[bit // 8] ^ 1 << bit % 8]), bit // 8)
            out = Findings("F")
            look(out)
            if not out.found:  # what only its neighbours tell
                _, out = check_feed._walk(directory, "F", None, None)
            if not any(finding.path == str(path) for finding in out.found):
                silent.append(bit)
            os.pwrite(file.fileno(), good[bit // 8 : bit // 8 + 1], bit // 8)
    assert path.read_bytes() == good and len(bits) > 10_000 and silent == []


@pytest.mark.parametrize("name", ["data/F/layout.json", "data/F/settings.json", "store.json"])
def test_every_bit_of_a_text_file_is_reported(store: Path, name: str) -> None:
    path = store / name
    good = path.read_bytes()
    with Platform(store) as dw:
        dw.resize_feed("F", 2500 * SIZE)  # the copy's times in its registry
    info = path.stat()
    assert path.read_bytes() == good and said(verify(store, quick=True)) == []
    bits = range(0, 8 * len(good), max(1, 8 * len(good) // 400 | 1))
    for bit in bits:
        flip(path, bit)
        report = verify(store, quick=True)
        assert any(finding.path == str(path) and finding.severity == "error" for finding in report.findings), (
            bit, good[bit // 8 - 5 : bit // 8 + 5], said(report),
        )  # fmt: skip
        path.write_bytes(good)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_every_bit_of_the_rows_of_the_stores_registry_is_reported(store: Path) -> None:
    path = store / "registry.bin"
    good = path.read_bytes()
    start = int.from_bytes(good[120:128], "little")
    bits = [*range(8 * 4096, 8 * 4104), *(bit for bit in header_bits(good) if bit % 61 == 0)]
    bits += [8 * byte + byte % 8 for byte in range(start, start + 2048, 13)]
    silent = []
    for bit in bits:
        flip(path, bit)
        if not any(finding.path == str(path) for finding in verify(store, quick=True).findings):
            silent.append(bit)
        flip(path, bit)
    # Counting empty rows too is what a store looks like whose feeds were deleted: see `deepwater.check`.
    assert silent == [8 * 4096 + k for k in (1, 2)] and said(verify(store, quick=True)) == []


def test_every_bit_of_records_marks_and_checksums_is_reported_with_its_range(store: Path) -> None:
    rng = random.Random(5)
    chunk, sums, marks = (feed(store) / f"chunk_00000002.{kind}" for kind in ("bin", "crc", "idx"))
    data = chunk.read_bytes()
    start, block = int.from_bytes(data[120:128], "little"), int.from_bytes(data[112:120], "little")
    for bit in rng.sample(range(8 * start, 8 * (start + ROWS * DTYPE.itemsize)), 40):
        flip(chunk, bit)
        found = the(verify(store))
        row = (bit // 8 - start) // DTYPE.itemsize
        assert found.code == "records" and found.path == str(chunk) and found.feed == "F"
        assert (found.first, found.stop) == (ROWS + row // block * block, ROWS + min(ROWS, (row // block + 1) * block))
        assert found.offset == start + row // block * block * DTYPE.itemsize
        flip(chunk, bit)
    for path, size, rows in ((sums, 16, 3), (marks, 128, 2)):
        start = int.from_bytes(path.read_bytes()[120:128], "little")
        skip = 8 if path == sums else 0  # computed_us: see `deepwater.check_chunk`
        for bit in (8 * (start + size * r + b) + k for r in range(rows) for b in range(skip, size) for k in range(8)):
            if bit % 9:
                continue
            flip(path, bit)
            found = the(verify(store, quick=True))
            assert found.path == str(path) and found.first is not None and found.stop is not None
            assert ROWS <= found.first <= found.stop <= 2 * ROWS
            flip(path, bit)
    assert said(verify(store)) == []


# ------------------------------------------------------------------------------------------ damage of every kind


def rewrite(path: Path, data: bytes) -> None:
    """Another file of that name, as a copy would make it."""
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o600)


def swap(store: Path) -> None:
    one, two = (feed(store) / f"chunk_0000000{k}.bin" for k in (1, 2))
    three = one.with_suffix(".was")
    one.rename(three)
    two.rename(one)
    three.rename(two)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, tuple[int, int] | None, int]] = {
    "missing middle": (lambda s: (feed(s) / "chunk_00000002.bin").unlink(), "missing", (ROWS, 2 * ROWS), 2),
    "missing last": (lambda s: (feed(s) / "chunk_00000004.bin").unlink(), "no-successor", (3 * ROWS, 3 * ROWS), 2),
    "swapped": (swap, "wrong-id", None, 2),
    "twice": (lambda s: rewrite(feed(s) / "chunk_00000003.bin", (feed(s) / "chunk_00000002.bin").read_bytes()),
              "wrong-id", None, 2),
    "half": (lambda s: os.truncate(feed(s) / "chunk_00000002.bin", 90_000), "size", None, 2),
    "empty": (lambda s: os.truncate(feed(s) / "chunk_00000002.bin", 0), "header", None, 2),
    "zeroed page": (lambda s: spoil(feed(s) / "chunk_00000002.bin", 40960, bytes(4096)), "records",
                    (ROWS, ROWS + 65536 // DTYPE.itemsize), 2),
    "zeroed header": (lambda s: spoil(feed(s) / "chunk_00000002.bin", 0, bytes(4096)), "header", None, 2),
    "longer": (lambda s: os.truncate(feed(s) / "chunk_00000002.bin", 2**40), "size", None, 2),
    "no registry": (lambda s: (feed(s) / "F.reg").unlink(), "no-registry", None, 1),
    "garbage registry": (lambda s: rewrite(feed(s) / "F.reg", random.Random(1).randbytes(40_000)), "header", None, 2),
    "garbage index": (lambda s: spoil(feed(s) / "chunk_00000002.idx", 16384, b"x" * 128), "mark", (ROWS, 2 * ROWS), 2),
    "no checksums": (lambda s: (feed(s) / "chunk_00000002.crc").unlink(), "no-checksums", (ROWS, 2 * ROWS), 1),
    "link": (lambda s: ((feed(s) / "F.reg").unlink(), (feed(s) / "F.reg").symlink_to("/etc/passwd")), "unreadable",
             None, 1),
    "fifo": (lambda s: ((feed(s) / "chunk_00000001.crc").unlink(), os.mkfifo(feed(s) / "chunk_00000001.crc")),
             "unreadable", None, 2),
    "stranger": (lambda s: (feed(s) / "notes.txt").touch(0o600), "unknown", None, 1),
    "wide open": (lambda s: (feed(s) / "chunk_00000001.bin").chmod(0o644), "permissions", None, 1),
    "hard link": (lambda s: os.link(feed(s) / "chunk_00000001.bin", s.parent / "backup"), "hard-links", None, 0),
    "index alone": (lambda s: rewrite_new(feed(s) / "chunk_00000009.idx"), "orphan", None, 2),
    "temporary": (lambda s: (feed(s) / ".tmp-chunk_00000009.bin-00").touch(0o600), "temporary", None, 0),
}  # fmt: skip


def rewrite_new(path: Path) -> None:
    shutil.copy2(path.with_name("chunk_00000002.idx"), path)


@pytest.mark.faults
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_reported(store: Path, kind: str) -> None:
    damage, code, positions, exit_code = DAMAGE[kind]
    damage(store)
    report = verify(store)
    found = [finding for finding in report.findings if finding.code == code]
    assert report.code == exit_code and found, said(report)
    assert positions is None or (found[0].first, found[0].stop) == positions, said(report)
    for finding in report.findings:
        assert str(finding).startswith(f"{finding.severity}: {store}")
        assert finding.way_out or finding.severity == "note"
        json.dumps(finding.to_json())


@pytest.mark.faults
def test_truncated_at_many_lengths_it_is_reported_and_nothing_else_is_raised(store: Path) -> None:
    path = feed(store) / "chunk_00000003.bin"
    data = path.read_bytes()
    for length in [*range(0, 16384, 1509), *range(16384, len(data), 17919)]:
        rewrite(path, data[:length])
        report = verify(store)
        found = [finding for finding in report.findings if finding.path == str(path) and finding.severity == "error"]
        assert found and report.code == 2, (length, said(report))
        if length > 16384:
            block = int.from_bytes(data[112:120], "little")
            lost = (length - 16384) // DTYPE.itemsize // block * block
            ranges = [(f.first, f.stop) for f in found if f.code == "records"]
            assert ranges == ([(2 * ROWS + lost, 3 * ROWS)] if lost < ROWS and length - 16384 < ROWS * DTYPE.itemsize
                              else []), length  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("name", ["data/F/chunk_00000002.bin", "data/F/chunk_00000002.crc", "data/F/chunk_00000002.idx",
                                  "data/F/F.reg", "registry.bin", "store.json", "data/F/layout.json",
                                  "data/F/settings.json"])  # fmt: skip
def test_any_bytes_in_a_files_place_are_reported(store: Path, name: str) -> None:
    rng = random.Random(name)
    path = store / name
    data = path.read_bytes()
    for k in range(12):
        junk = bytearray(data)
        if k % 3 == 0:
            junk = bytearray(rng.randbytes(rng.randrange(1, len(data))))
        elif k % 3 == 1:
            at = rng.randrange(0, len(data) // 2)
            junk[at : at + 700] = rng.randbytes(len(junk[at : at + 700]))
        else:
            del junk[rng.randrange(len(junk)) :]
        rewrite(path, bytes(junk))
        report = verify(store)
        assert any(finding.path == str(path) for finding in report.findings), (k, said(report))


@pytest.mark.faults
@pytest.mark.parametrize("at", range(80, 176, 8))
@pytest.mark.parametrize("value", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_hostile_values_with_a_right_checksum_are_reported(store: Path, at: int, value: int) -> None:
    path = feed(store) / "chunk_00000002.bin"
    head = bytearray(path.read_bytes()[:512])
    head[at : at + 8] = value.to_bytes(8, "little")
    head[508:512] = zlib.crc32(head[:508]).to_bytes(4, "little")
    spoil(path, 0, bytes(head))
    report = verify(store)
    assert report.code == 2 and any(finding.path == str(path) or finding.path.endswith(".reg") for finding in
                                    report.findings), said(report)  # fmt: skip


def test_another_feeds_chunk_and_another_stores(store: Path, tmp_path: Path) -> None:
    with Platform(store) as dw:
        dw.create_feed({**SPEC, "feed_name": "G"})
        dw.write("G", records(0, 5000))
    build(tmp_path / "other")
    for source, field in ((store / "data/G", "feed"), (tmp_path / "other/data/F", "store")):
        rewrite(feed(store) / "chunk_00000002.bin", (source / "chunk_00000001.bin").read_bytes())
        found = [finding for finding in verify(store, ["F"]).findings if finding.code == "foreign"]
        assert f"another {field}" in found[0].what and found[0].path.endswith("chunk_00000002.bin")


# ------------------------------------------------------------------------------------------ beside a writer


@pytest.mark.faults
def test_beside_a_live_writer_two_hundred_rounds_have_no_finding(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 400 * SIZE})
    source = """
import sys, numpy as np
from deepwater import Platform
import check_kit
with Platform(sys.argv[1]) as dw, dw.create_writer("F") as writer:
    print("ready", flush=True)
    k = 0
    while not __import__("select").select([sys.stdin], [], [], 0.002)[0]:
        k += 1
        if k % 50 == 0:
            dw.prune("F", max_bytes=20 * 400 * 64)
        writer.write_batch(check_kit.records(writer.end, 1 + k * 37 % 90), create_index=k % 5 == 0)
        if k % 11 == 0:
            writer.mark_gap(lost=1)
    print(writer.end, flush=True)
"""
    with Worker(source, tmp_store, timeout=280) as worker:
        assert worker.readline() == "ready"
        ends = set()
        for _ in range(200):
            report = verify(tmp_store)
            assert said(report) == []
            ends.add(report.records)
            time.sleep(0.01)
        worker.send("end")
        end = int(worker.readline())
        worker.finish()
    assert len(ends) > 100 and end > 20_000  # it moved, over many chunks
    assert said(verify(tmp_store)) == []


@pytest.mark.parametrize("there", [True, False], ids=["made again", "deleted"])
def test_a_feed_that_is_deleted_while_it_is_checked_is_not_damaged(
    tmp_store: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """The rows of the store's registry were read before; then the feed of that name is another one, or none."""
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        dw.write("F", records(0, 50))
        lives = []

        def walk(*args: Any) -> Any:
            if not lives:
                dw.delete_feed("F")
                if there:
                    dw.create_feed(SPEC)
                    dw.write("F", records(0, 30))
            lives.append(args[-1])
            return check_feed.walk(*args)

        monkeypatch.setattr("deepwater.check.walk", walk)
        report = verify(tmp_store)
        assert said(report) == []
        assert report.records == (30 if there else 0) and len(lives) == (2 if there else 1)


@pytest.mark.faults
def test_after_a_kill_there_are_notes_and_warnings_and_no_damage(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 400 * SIZE})
    run_python(
        """
        import os, sys
        from deepwater import Platform
        import check_kit
        writer = Platform(sys.argv[1]).create_writer("F")
        for k in range(60):
            writer.write_batch(check_kit.records(writer.end, 77))
        os.kill(os.getpid(), 9)
        """,
        tmp_store, check=False,
    )  # fmt: skip
    report = verify(tmp_store)
    assert report.code <= 1 and report.records == 60 * 77, said(report)
    assert {finding.code for finding in report.findings} <= {
        "spare", "not-covered", "checksums-incomplete", "no-checksums", "temporary",
    }  # fmt: skip
    with Platform(tmp_store) as dw, dw.create_writer("F"):
        pass
    assert said(verify(tmp_store)) == []


def test_the_modes_of_what_is_made(sound: Path) -> None:
    for path in [sound, *sound.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


# ------------------------------------------------------------------------------------- retention


def test_a_feed_that_retention_shortened_is_sound(pruned: Path) -> None:
    report = verify(pruned)
    assert said(report) == [] and report.records == 2 * ROWS
    with Platform(pruned) as dw, dw.create_writer("F") as writer:  # the registry made anew begins later
        writer.write_batch(records(writer.end, 3000))
    assert said(verify(pruned)) == []


def test_every_flipped_bit_of_what_retention_says_is_found(pruned: Path) -> None:
    path = feed(pruned) / "oldest.json"
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        assert verify(pruned, quick=True).code == 2, bit
        flip(path, bit)
    chunk = feed(pruned) / "chunk_00000004.bin"
    for bit in range(2, 64):  # 3 is the oldest chunk held: a flip of the lowest two bits gives one let go before it
        flip(chunk, 8 * 4232 + bit)
        assert [f.code for f in verify(pruned, quick=True).findings] == ["oldest-word"]
        flip(chunk, 8 * 4232 + bit)
    assert said(verify(pruned)) == []


def test_a_prune_that_was_killed_leaves_notes(store: Path, pruned: Path, sound: Path) -> None:
    for suffix in ("bin", "idx", "crc"):
        shutil.copy(feed(sound) / f"chunk_00000002.{suffix}", feed(pruned))
    report = verify(pruned)
    assert {f.code for f in report.findings} == {"leftover"} and report.code == 0
    (feed(pruned) / "oldest.json").unlink()
    assert {f.code for f in verify(pruned).findings if f.severity == "error"} >= {"missing"}


def test_chunks_that_are_compared_hold_arrays(store: Path) -> None:
    """Equality of dataclasses with arrays in them is an array."""
    with Directory("F", parent=Directory(str(store / "data"))) as directory:
        about = check_feed.read_feed(directory, "F")
        a, b = (check_chunk(Findings(), directory, about, 1) for _ in range(2))
    assert a == a and a != b  # noqa: PLR0124




# ---------------------------------------------------------------------------------- readers that ask


def test_a_reader_may_ask_for_the_checksums(store: Path) -> None:
    with Platform(store) as dw, dw.create_reader("F", verify=True) as reader:
        assert len(reader.rows(0, 4 * ROWS)) == 4 * ROWS == len(reader.read().to_numpy())
    flip(feed(store) / "chunk_00000002.bin", 8 * ((1 << 14) + 900 * DTYPE.itemsize))
    with Platform(store) as dw:
        with dw["F"] as reader:  # who does not ask is not told
            assert len(reader.rows(0, 4 * ROWS).to_numpy()) == 4 * ROWS
        with dw.create_reader("F", verify=True) as reader:
            assert len(reader.rows(2 * ROWS, 4 * ROWS).to_numpy()) == 2 * ROWS  # others are as they were
            with pytest.raises(CorruptFileError, match="records 2819 to 3637 are not what was written") as caught:
                reader.rows(0, 4 * ROWS).to_numpy()
            assert (caught.value.parts["first"], caught.value.parts["last"]) == (2819, 3637)
    flip(feed(store) / "chunk_00000004.bin", 8 * (1 << 14))  # the one that is appended to, too
    with Platform(store) as dw, pytest.raises(CorruptFileError, match="records 6000 to 6818"):
        dw.create_reader("F", verify=True)


def test_a_ring_has_no_checksums(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "feed_name": "R", "persist": False, "index_playback": False})
        with pytest.raises(SchemaError, match="no checksums"):
            dw.create_reader("R", verify=True)


@pytest.mark.parametrize("lost", ["the file", "the row"])
def test_a_feed_that_lacks_its_row_gets_it_from_whoever_would_make_the_feed(store: Path, lost: str) -> None:
    """Who made it may have been killed before the row; its successor asks for the same feed again."""
    with Platform(store) as dw:
        if lost == "the file":
            (store / "registry.bin").unlink()
        else:
            dw._store.registry.remove("F")
        assert said(verify(store)) != []
        dw.create_feed(SPEC)
    assert said(verify(store)) == []


def test_what_stands_among_the_feeds_and_is_none_is_a_note(store: Path) -> None:
    (store / "data" / "lost+found").mkdir(mode=0o700)
    report = verify(store)
    assert [(f.severity, f.code) for f in report.findings] == [("note", "unknown")] and report.code == 0
    assert repair(store, apply=True).changes == []


@pytest.mark.faults
@pytest.mark.parametrize("name", ["data/F/chunk_00000002.idx", "data/F/F.reg", "registry.bin", "data/F/layout.json"])
def test_a_file_of_holes_that_counts_millions_costs_no_memory(store: Path, name: str) -> None:
    """Its header may be whole: what is read of a file is bounded, and so is what is said of it."""
    path = store / name
    os.truncate(path, 64 << 30)
    if path.suffix != ".json":
        spoil(path, 4096, (1 << 28).to_bytes(8, "little"))
    done = run_python(
        """
        import sys
        from deepwater.check import verify
        from processes import peak_kilobytes
        report = verify(sys.argv[1])
        print(report.code, len(report.findings), peak_kilobytes() // 1024)
        """,
        store, timeout=120,
    )  # fmt: skip
    code, findings, megabytes = map(int, done.stdout.split())
    assert code == 2 and findings < 300 and megabytes < 1000, done.stdout
