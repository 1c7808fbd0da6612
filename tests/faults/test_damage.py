"""Damaged files: every bit of a header flipped, mutants of every kind, and what is no file of ours at all."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import model
from deepwater import CorruptFileError, Platform
from deepwater import format as fmt
from fault_table import Trials
from processes import Worker

WORKER = Path(__file__).parent.parent / "workers" / "reads_damaged.py"
Fault = Callable[[str, str], Trials]
SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "index_playback": True,
        "chunk_size_bytes": 10 * model.CHECKED.itemsize}  # fmt: skip
MUTANTS_IN_CI = {"sealed": 20_000, "active": 18_000, "marks": 15_000, "registry": 14_000, "ring": 14_000,
                 "wake": 5_000, "feeds": 3_000, "layout": 5_000, "settings": 4_000, "store": 2_000}  # fmt: skip
BITS_IN_CI = 5_000
KINDS = pytest.mark.parametrize("kind", MUTANTS_IN_CI)


def damaged(directory: Path, trials: Trials, how: str, kind: str, seed: int, most: int, timeout: float) -> None:
    """Let a process of its own open damaged files; its death is a failure that names the trial."""
    board = directory / "told"
    board.write_bytes(bytes(4096))
    with Worker(WORKER, directory, how, kind, seed, most, board, timeout=timeout) as worker:
        rest, _ = worker.process.communicate()
        code, told = worker.process.returncode, struct.unpack("<Q", board.read_bytes()[:8])[0]
        if code or not rest:
            trials.done()
            trials.fail(f"{kind}: the reader ended with {code} at trial {told}:\n{worker.stderr()[-1500:]}")
            return
    found = json.loads(rest)
    trials.done(found["counts"].pop("trials"))
    trials.note(**found["counts"])
    for text in found["failures"]:
        trials.fail(text)


@KINDS
def test_every_bit_of_a_header(quick_dir: Path, fault: Fault, scale: int, kind: str) -> None:
    """F28. One bit is flipped, the file is opened and all it gives is looked at, the bit is flipped back.

    Every bit of what the format describes (and one of each byte that it does not), of JSON files every bit; in CI an
    even sample, all with ``--fault-scale 10``. What must be seen: a DeepwaterError, or the records that were written;
    only in words that change with each write (no checksum covers them) may a flip change what is read.
    """
    most = 0 if scale >= 10 else BITS_IN_CI * scale
    with fault("F28", f"one bit flipped, {kind}") as trials:
        damaged(quick_dir, trials, "bits", kind, 1, most, 280 * scale)


@KINDS
def test_mutants(quick_dir: Path, fault: Fault, scale: int, kind: str) -> None:
    """F29. Random bytes, splices, cuts, extensions, hostile numbers under checksums that are right, twisted JSON.

    In a process with 48 MiB more memory than it has, and a deadline: so SIGSEGV, SIGBUS, a hang and a number taken for
    a size are seen, with the number of the mutant. Each is opened by the functions that open it, some by everything a
    user does (list, describe, read, marks, and the next writer). What must be seen: it works, or a DeepwaterError.
    """
    with fault("F29", f"mutants, {kind}") as trials:
        damaged(quick_dir, trials, "mutants", kind, 1, MUTANTS_IN_CI[kind] * scale, 280 * scale)


def test_a_commit_word_taken_for_a_length_would_be_found(quick_dir: Path) -> None:
    """The power of the tests above: a library that trusts the count of a file dies of it, and the trial is named."""
    broken = quick_dir / "broken.py"
    source = WORKER.read_text()
    line = "LOOKS[kind]()\n"
    assert source.count(line) == 1
    trusting = """
def trusting():
    chunk = Chunk.open(feed_dir, 3, layout, ids)
    return bytes((chunk.segment.words[fmt.COMMIT] & fmt.COUNT_MASK) * SIZE) if chunk else b""
LOOKS["active"] = trusting
"""
    broken.write_text(source.replace(line, trusting + line))
    board = quick_dir / "told"
    board.write_bytes(bytes(4096))
    with Worker(broken, quick_dir, "mutants", "active", 1, 300, board, timeout=60) as worker:
        rest, _ = worker.process.communicate()
        assert worker.process.returncode or json.loads(rest)["failed"]


# ------------------------------------------------------------------------------------------ what it found


def rewritten(path: Path, **changes: object) -> None:
    """Change numbers of a header and make its checksum right."""
    data = bytearray(path.read_bytes())
    identity = fmt.parse_identity(bytes(data[:512]), "")
    data[:512] = fmt.pack_identity(dataclasses.replace(identity, **changes))  # type: ignore[arg-type]
    path.write_bytes(data)


def a_feed(store: Path) -> Platform:
    dw = Platform(store)
    dw.create_feed(SPEC)
    with dw.create_writer("F") as writer:
        for at in range(0, 25, 5):
            writer.write_batch(model.checked_records(at, 5, at + 1), create_index=True)
    return dw


def test_marks_of_another_size_are_damage(tmp_store: Path) -> None:
    """They were an AssertionError."""
    with a_feed(tmp_store) as dw:
        rewritten(tmp_store / "data" / "F" / "chunk_00000001.idx", record_size=64)
        with dw["F"] as reader, pytest.raises(CorruptFileError, match="records of 64 bytes"):
            reader.snapshots()


def test_a_registry_of_feeds_of_another_size_is_made_anew(tmp_store: Path) -> None:
    """It is a cache: listing did end in an AssertionError, making a feed in a CorruptFileError."""
    with a_feed(tmp_store) as dw:
        rewritten(tmp_store / "registry.bin", record_size=1024)
        assert len(dw.feeds()) == 1
        dw.create_feed({**SPEC, "feed_name": "G"})
        assert len(dw.feeds()) == 2


def test_a_row_of_the_registry_with_a_name_that_is_none_hides_nothing(tmp_store: Path) -> None:
    """It was a UnicodeDecodeError of every listing."""
    from deepwater.feed_registry import row_checks
    from deepwater.global_registry import ROW_LAYOUT

    with a_feed(tmp_store) as dw:
        path = tmp_store / "registry.bin"
        data = bytearray(path.read_bytes())
        at = fmt.parse_identity(bytes(data[:512]), "").data_offset
        row = np.frombuffer(data[at : at + ROW_LAYOUT.record_size], ROW_LAYOUT.dtype).copy()
        row["name"] = b"\xff\xfe"
        row["check"] = row_checks(row)
        data[at : at + ROW_LAYOUT.record_size] = row.tobytes()
        path.write_bytes(data)
        assert dw.list_feeds() == ["F"]
        assert len(dw.feeds()) == 1


# ------------------------------------------------------------------------------------------ what is no file of ours

PLACES = ("store.json", "registry.bin", "data/F/layout.json", "data/F/settings.json", "data/F/F.reg",
          "data/F/chunk_00000001.bin", "data/F/chunk_00000002.bin", "data/F/chunk_00000003.bin",
          "data/F/chunk_00000001.idx", "data/F/chunk_00000004.bin")  # fmt: skip
STRANGE = ("missing", "empty", "one byte", "header only", "fifo", "directory", "socket", "link", "dangling link",
           "link to a device", "second name", "mode 000", "foreign owner", "8 TiB of nothing", "8 TiB after it",
           "another chunk")  # fmt: skip


def test_what_is_no_file_of_ours(quick_dir: Path, fault: Fault) -> None:
    """F29. Each of a feed's files is missing, or something else stands under its name.

    FIFO (an open of one waits for ever), directory, socket, links, a second name, no permission, somebody else's,
    8 TiB of holes (a scan of it ends never, a copy in no memory), another chunk's. In a process with a deadline that
    lists, describes, reads all, and opens the next writer. What must be seen: it works, or an error of ours or of the
    system that names the file; no more than 64 MiB are taken, no file that is there is removed but caches and spares.
    """
    with a_feed(quick_dir / "store"):
        pass
    with fault("F29", "what is no file of ours, under each name") as trials:
        args = (quick_dir, ",".join(PLACES), ",".join(STRANGE))
        with Worker(WORKER.with_name("meets_strange_files.py"), *args, timeout=200) as worker:
            found = json.loads(worker.finish())
        trials.done(found["trials"])
        trials.note(**found["counts"])
        for text in found["failures"]:
            trials.fail(text)
        assert trials.trials >= len(PLACES) * (len(STRANGE) - 2)
