"""Checks of a chunk's records: block checksums, padding, and the clocks against the seal.

One pass in steps of about a mebibyte; `zlib.crc32` and the reads let other threads run meanwhile, so several chunks
can be checked at a time.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.check_chunk import ChunkFacts
from deepwater.chunk import chunk_name
from deepwater.feed_files import Feed
from deepwater.files import Directory
from deepwater.findings import Findings
from deepwater.layout import Layout
from deepwater.rawfile import REPAIR, RawFile

_STEP_BYTES = 1 << 20


@dataclass(slots=True)
class RecordFacts:
    """What one pass over a chunk's records found.

    Attributes
    ----------
    bad : list of int
        Blocks whose checksum is wrong, or that are not in the file.
    dirty : int or None
        The first record (row in the chunk) whose padding is not zero, or a bool not 0 or 1.
    clocks : list of ClockBounds
        Exact, over all records read.
    bytes_read : int
    """

    bad: list[int] = field(default_factory=list)
    dirty: int | None = None
    clocks: list[fmt.ClockBounds] = field(default_factory=list)
    bytes_read: int = 0


class ClockScan:
    """Bounds of one clock, taken in piece by piece."""

    def __init__(self) -> None:
        self.unsorted, self.low, self.high, self._last = False, 2**64 - 1, 0, 0

    def take(self, column: npt.NDArray[Any]) -> None:
        """Take in the next stamps, at least one."""
        stamps = np.ascontiguousarray(column)
        if int(stamps[0]) >= self._last and not (stamps[1:] < stamps[:-1]).any():
            low, high = int(stamps[0]), int(stamps[-1])
        else:
            self.unsorted = True
            low, high = int(stamps.min()), int(stamps.max())
        self.low, self.high, self._last = min(self.low, low), max(self.high, high), int(stamps[-1])

    def bounds(self) -> fmt.ClockBounds:
        """Exact, of all that was taken in."""
        return fmt.ClockBounds(self.unsorted, self.low, self.high)


def scan(file: RawFile, facts: ChunkFacts, layout: Layout) -> RecordFacts:
    """Read all published records of a chunk once."""
    identity = facts.identity
    assert identity is not None
    block, size = identity.block_records, layout.record_size
    out, clocks = RecordFacts(), [ClockScan() for _ in layout.clocks]
    step = max(1, _STEP_BYTES // (block * size)) * block
    buffer = memoryview(bytearray(min(step, max(1, facts.count)) * size))
    for row in range(0, facts.count, step):
        rows = min(step, facts.count - row)
        got = file.read_into(buffer[: rows * size], identity.data_offset + row * size)
        out.bytes_read += got
        whole = got // size
        _compare(out, facts, buffer, row, rows, whole)
        if whole:
            records = np.frombuffer(buffer, layout.dtype, whole)
            for clock, name in zip(clocks, layout.clocks, strict=True):
                clock.take(records[name])
            _padding(out, np.frombuffer(buffer, np.uint8, whole * size).reshape(whole, size), layout, row)
    out.clocks = [clock.bounds() for clock in clocks] if facts.count else [fmt.ClockBounds(False, 0, 0)] * len(clocks)
    return out


def _compare(out: RecordFacts, facts: ChunkFacts, buffer: memoryview, row: int, rows: int, whole: int) -> None:
    assert facts.identity is not None
    block, size = facts.identity.block_records, facts.identity.record_size
    sums = facts.sums if facts.sums is not None else ()
    for at in range(0, rows, block):
        index, stop = (row + at) // block, min(rows, at + block)
        covered = index < len(sums) and index not in facts.bad_sums
        covered = covered and (stop - at == block or facts.sums_complete)
        if stop > whole or (covered and crc32(buffer[at * size : stop * size]) != int(sums[index])):
            out.bad.append(index)


def _padding(out: RecordFacts, rows: npt.NDArray[np.uint8], layout: Layout, first: int) -> None:
    used = np.flatnonzero(layout.padding_mask)
    if out.dirty is not None or not len(used):
        return
    dirty = np.zeros(len(rows), bool)
    for column in used.tolist():
        dirty |= (rows[:, column] & layout.padding_mask[column]) != 0
    if dirty.any():
        out.dirty = first + int(np.argmax(dirty))


def check_records(out: Findings, directory: Directory, feed: Feed, facts: ChunkFacts) -> RecordFacts:
    """Check the published records of a chunk."""
    assert facts.identity is not None
    try:
        file = RawFile(directory, chunk_name(facts.id))
    except FileNotFoundError:  # retained away
        return RecordFacts()
    with file:
        found = scan(file, facts, feed.layout)
        _check_tail_slots(out, file, facts, found)
    block, size, start = facts.identity.block_records, facts.identity.record_size, facts.identity.data_offset
    for _, group in groupby(enumerate(found.bad), lambda pair: pair[1] - pair[0]):
        blocks = [index for _, index in group]
        first, stop = blocks[0] * block, min(facts.count, (blocks[-1] + 1) * block)
        missing = start + stop * size > facts.size
        text = "records are not in the file" if missing else "records are not what was written: wrong checksum"
        out.error("records", facts.path, f"{stop - first} {text}", offset=start + first * size, way_out=REPAIR,
                  first=facts.base + first, stop=facts.base + stop)  # fmt: skip
    if found.bad:
        return found
    if found.dirty is not None:
        out.error("padding", facts.path, "padding of a record is not zero, or a bool is neither 0 nor 1",
                  offset=start + found.dirty * size, way_out=REPAIR, first=facts.base + found.dirty,
                  stop=facts.base + found.dirty + 1)  # fmt: skip
    if facts.sealed and facts.seal is not None:
        _check_clocks(out, facts, facts.seal, found, feed.layout.clocks)
    elif not facts.sealed and facts.count:
        _check_live_clocks(out, directory, facts, found, feed.layout.clocks)
    return found


def _check_live_clocks(
    out: Findings, directory: Directory, facts: ChunkFacts, found: RecordFacts, names: tuple[str, ...]
) -> None:
    """The words of a chunk that is appended to bound all of it; they only widen, so what they say now bounds more."""
    with contextlib.suppress(FileNotFoundError), RawFile(directory, chunk_name(facts.id)) as file:
        for clock, (name, true) in enumerate(zip(names, found.clocks, strict=True)):
            at = fmt.CLOCKS + fmt.CLOCK_WORDS * clock
            unsorted, low, high = (file.word(at + k) for k in (fmt.UNSORTED, fmt.MIN, fmt.MAX))
            holds = low <= true.low and true.high <= high if unsorted == 1 else unsorted == 0 and not true.unsorted
            if not holds:
                values = {"expected": str(tuple(true)), "found": str((unsorted, low, high))}
                out.error("clock-words", facts.path, f"its words for {name} do not bound its records", offset=8 * at,
                          way_out=REPAIR, first=facts.base, stop=facts.end, **values)  # fmt: skip


def _check_clocks(
    out: Findings, facts: ChunkFacts, seal: fmt.Seal, found: RecordFacts, names: tuple[str, ...]
) -> None:
    """The seal's bounds are exact; that a clock is called unsorted and is not costs time only."""
    assert facts.identity is not None
    for name, said, true in zip(names, seal.clocks, found.clocks, strict=True):
        if said[1:] != true[1:] or (true.unsorted and not said.unsorted):
            values = {"expected": str(tuple(true)), "found": str(tuple(said))}
            out.error("seal-clocks", facts.path, f"its seal has other bounds of {name} than its records",
                      offset=facts.identity.seal_offset, way_out=REPAIR, first=facts.base, stop=facts.end,
                      **values)  # fmt: skip


def _check_tail_slots(out: Findings, file: RawFile, facts: ChunkFacts, found: RecordFacts) -> None:
    """What the tail slots cover: the newest proves what the blocks do not yet."""
    assert facts.identity is not None
    block, size, start = facts.identity.block_records, facts.identity.record_size, facts.identity.data_offset
    for offset, count, crc in facts.tails:
        first = count // block * block
        if count == first or first // block in found.bad or count > facts.count:
            continue
        if crc32(file.read(start + first * size, (count - first) * size)) != crc:
            if facts.sums is not None and first // block < len(facts.sums):
                out.warning("tail-slot", facts.path, "an old tail slot has another checksum than the records",
                            offset=offset, way_out=REPAIR)  # fmt: skip
            else:
                found.bad.append(first // block)
