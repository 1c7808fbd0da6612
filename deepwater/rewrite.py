"""Files of a feed written anew from what is known and can be read, each put in the place of the old one by a rename.

A reader keeps the file it has mapped; who opens it from then on finds the new one, whole. Nothing is changed in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.check_records import ClockScan
from deepwater.checksums import ChunkSums, sums_name
from deepwater.chunk import chunk_name, static_of
from deepwater.errors import CorruptFileError
from deepwater.feed_files import Feed
from deepwater.files import Directory
from deepwater.index import MARK_LAYOUT, index_name
from deepwater.rawfile import RawFile
from deepwater.segment import Segment
from deepwater.timestamps import now_us

_STEP_BYTES = 1 << 20


@dataclass(slots=True)
class ChunkPlan:
    """A chunk as it is to be.

    Attributes
    ----------
    base, count, sealed : int, int, bool
    lost : list of (int, int)
        Rows ``first <= row < stop``, ascending, that cannot be had: placeholders stand in for them.
    data_offset : int or None
        Where the records begin in the file there is; None: there is none to take them from.
    why : str
        What is wrong with the file there is; empty: it stays as it is.
    """

    id: int
    base: int
    count: int
    sealed: bool
    capacity: int
    created_us: int
    activated_us: int
    lost: list[tuple[int, int]] = field(default_factory=list)
    data_offset: int | None = None
    why: str = ""

    @property
    def end(self) -> int:
        """The position after its last record."""
        return self.base + self.count

    @property
    def lost_records(self) -> int:
        """How many placeholders it gets."""
        return sum(stop - first for first, stop in self.lost)


def write_chunk(directory: Directory, feed: Feed, plan: ChunkPlan, clocks: tuple[int, ...] | None) -> None:
    """Write a chunk anew, its header from what is known, and put it in place, synced.

    A placeholder is a record of zeros with the clocks of the record before it: of the one after it where there is none
    before, and `clocks` (of the chunk before) at the chunk's beginning.

    Raises
    ------
    StorageFullError
        No room; nothing has changed.
    """
    static = static_of(feed.layout)
    identity = fmt.plan(
        fmt.CHUNK, feed.ids, plan.id, static, feed.layout.record_size, max(plan.capacity, plan.count, 1),
        plan.created_us,
    )  # fmt: skip
    scans = [ClockScan() for _ in feed.layout.clocks]
    with directory.new(chunk_name(plan.id), identity.file_size) as fd:
        os.pwrite(fd, fmt.pack_identity(identity), 0)
        os.pwrite(fd, static.pack(), identity.static_offset)
        at = identity.data_offset
        for rows in _records(directory, feed, plan, clocks):
            for scan, name in zip(scans, feed.layout.clocks, strict=True):
                scan.take(rows[name])
            os.pwrite(fd, rows.tobytes(), at)
            at += rows.nbytes
        bounds = tuple(scan.bounds() if plan.count else fmt.ClockBounds(False, 0, 0) for scan in scans)
        _write_words(fd, identity, plan, bounds)
    plan.data_offset = identity.data_offset


def _write_words(fd: int, identity: fmt.Identity, plan: ChunkPlan, bounds: tuple[fmt.ClockBounds, ...]) -> None:
    now = now_us()
    offset, block = fmt.pack_activation(plan.base, plan.activated_us)
    os.pwrite(fd, block, offset)
    if plan.sealed:
        os.pwrite(fd, fmt.pack_seal(fmt.Seal(plan.count, plan.base, now, bounds)), identity.seal_offset)
    word = plan.count | fmt.SEALED if plan.sealed else plan.count
    words = {fmt.COMMIT: word, fmt.DURABLE: word, fmt.HEARTBEAT: now}
    for clock, (unsorted, low, high) in enumerate(bounds):
        at = fmt.CLOCKS + fmt.CLOCK_WORDS * clock
        if unsorted:
            words |= {at + fmt.UNSORTED: 1, at + fmt.MIN: low, at + fmt.MAX: high}
    for index, value in words.items():
        os.pwrite(fd, value.to_bytes(8, "little"), 8 * index)


def _records(
    directory: Directory, feed: Feed, plan: ChunkPlan, clocks: tuple[int, ...] | None
) -> Iterator[npt.NDArray[Any]]:
    """The records of a chunk piece by piece, placeholders included."""
    layout, lost = feed.layout, _mask(plan)
    if clocks is None and lost.any():
        good = np.flatnonzero(~lost)
        clocks = _clocks_at(directory, feed, plan, int(good[0])) if len(good) else (0,) * len(layout.clocks)
    step = max(1, _STEP_BYTES // layout.record_size)
    for first in range(0, plan.count, step):
        data = _read(directory, plan, layout.record_size, first, min(step, plan.count - first))
        rows = np.frombuffer(bytearray(data), layout.dtype)
        raw = rows.view(np.uint8).reshape(len(rows), layout.record_size)
        raw &= ~layout.padding_mask
        here = lost[first : first + len(rows)]
        if here.any():
            raw[here] = 0
            _carry(rows, here, layout.clocks, clocks or ())
        clocks = tuple(int(rows[name][-1]) for name in layout.clocks)
        yield rows


def _mask(plan: ChunkPlan) -> npt.NDArray[np.bool_]:
    lost = np.zeros(plan.count, bool)
    for first, stop in plan.lost:
        lost[first:stop] = True
    return lost


def _carry(
    rows: npt.NDArray[Any], lost: npt.NDArray[np.bool_], names: tuple[str, ...], clocks: tuple[int, ...]
) -> None:
    """Give placeholders the clocks of the last record before them."""
    before = np.maximum.accumulate(np.where(lost, -1, np.arange(len(rows))))
    for name, clock in zip(names, clocks, strict=True):
        column = rows[name]
        column[lost] = np.where(before[lost] >= 0, column[before[lost]], np.uint64(clock))


def _read(directory: Directory, plan: ChunkPlan, size: int, first: int, rows: int) -> bytes:
    """Bytes of records from the file there is; zeros for what is not there."""
    if plan.data_offset is None:
        return bytes(rows * size)
    with RawFile(directory, chunk_name(plan.id)) as file:
        return file.read(plan.data_offset + first * size, rows * size).ljust(rows * size, b"\0")


def _clocks_at(directory: Directory, feed: Feed, plan: ChunkPlan, row: int) -> tuple[int, ...]:
    rows = np.frombuffer(_read(directory, plan, feed.layout.record_size, row, 1), feed.layout.dtype)
    return tuple(int(rows[name][0]) for name in feed.layout.clocks)


def last_clocks(directory: Directory, feed: Feed, plan: ChunkPlan) -> tuple[int, ...] | None:
    """The clocks of the last record of a chunk that is as planned; None if it has none."""
    return _clocks_at(directory, feed, plan, plan.count - 1) if plan.count and plan.data_offset is not None else None


def write_marks(directory: Directory, feed: Feed, chunk_id: int, marks: Iterable[bytes]) -> None:
    """Write the marks of a chunk anew; without any, remove the file."""
    rows = sorted(marks, key=lambda mark: int.from_bytes(mark[:8], "little"))
    if not rows:
        directory.remove(index_name(chunk_id))
        return
    static = static_of(MARK_LAYOUT)
    identity = fmt.plan(fmt.MARK, feed.ids, chunk_id, static, MARK_LAYOUT.record_size, len(rows), now_us())
    with directory.new(index_name(chunk_id), identity.file_size) as fd:
        os.pwrite(fd, fmt.pack_identity(identity), 0)
        os.pwrite(fd, static.pack(), identity.static_offset)
        os.pwrite(fd, b"".join(rows), identity.data_offset)
        os.pwrite(fd, len(rows).to_bytes(8, "little"), 8 * fmt.COMMIT)


def write_sums(directory: Directory, feed: Feed, chunk_id: int) -> None:
    """Make the checksums of a chunk anew from its records."""
    directory.remove(sums_name(chunk_id))
    try:
        segment = Segment.open(directory, chunk_name(chunk_id), fmt.CHUNK, feed.ids, writable=True)
    except (FileNotFoundError, CorruptFileError):
        return
    sums = ChunkSums(directory, segment)
    try:
        word = segment.words[fmt.COMMIT]
        sums.advance(min(word & fmt.COUNT_MASK, segment.capacity), word >= fmt.SEALED)
    finally:
        sums.close()
        segment.close()
