"""Marks: where snapshots start, what was missed, where sessions begin.

The marks of a chunk are in ``chunk_N.idx`` beside it, which exists once the chunk has one. A mark is
committed before its records are published and counts only once those are, so a crash in between
leaves a mark that nobody counts; the next writer drops it. There is no limit on their number: the
file is extended in place by doubling.
"""

from __future__ import annotations

import os
import struct
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.chunk import static_of
from deepwater.errors import CorruptFileError, RecordError
from deepwater.files import Directory, sync
from deepwater.layout import Layout
from deepwater.schema import FeedSpec
from deepwater.segment import Segment
from deepwater.timestamps import now_us

UNKNOWN = 2**64 - 1
"""`count` of a gap when nobody knows how many records were missed."""
SNAPSHOT, GAP, SESSION, DROPPED = b"snapshot", b"gap", b"session", b"dropped"
KINDS = (SNAPSHOT, GAP, SESSION, DROPPED)
REASON_BYTES = 72
_INITIAL_ROWS = 128

MARK_LAYOUT = Layout.compile(
    FeedSpec.from_json({
        "feed_name": "marks", "ts_col": "timestamp_us",
        "fields": [
            {"name": "position", "type": "uint64", "desc": "of the record the mark stands before"},
            {"name": "timestamp_us", "type": "uint64", "desc": "primary clock of it, or when it was noticed"},
            {"name": "count", "type": "uint64", "desc": "records: of a snapshot (0 unknown), missed (2**64-1 unknown)"},
            {"name": "from_us", "type": "uint64", "desc": "a gap's begin, 0 if unknown"},
            {"name": "to_us", "type": "uint64", "desc": "a gap's end, 0 if unknown"},
            {"name": "kind", "type": "char[8]", "desc": "snapshot, gap, session or dropped"},
            {"name": "reason", "type": f"char[{REASON_BYTES}]"},
            {"name": "_", "type": "_4"},
            {"name": "crc", "type": "uint32", "desc": "CRC-32 of the 124 bytes before"},
        ],
    })
)  # fmt: skip
_PACK = struct.Struct("<QQQQQ8s72s4x")
assert MARK_LAYOUT.record_size == 128 == _PACK.size + 4
MARK_DTYPE = np.dtype([(name, MARK_LAYOUT.dtype[name]) for name in MARK_LAYOUT.names if name != "crc"])
"""What `marks()` returns: position, timestamp_us, count, from_us, to_us (uint64), kind (S8), reason (S72)."""


def index_name(chunk_id: int) -> str:
    """The file name of a chunk's marks."""
    return f"chunk_{chunk_id:08d}.idx"


def pack_mark(position: int, timestamp_us: int, count: int, kind: bytes, from_us: int = 0, to_us: int = 0,
              reason: str = "") -> bytes:  # fmt: skip
    """The 128 bytes of a mark.

    Raises
    ------
    RecordError
        A number is no uint64, or the reason is longer than 72 bytes of UTF-8.
    """
    text = reason.encode("utf-8")
    if len(text) > REASON_BYTES:
        raise RecordError(f"reason of a mark: {len(text)} bytes, at most {REASON_BYTES} fit: shorten it", value=reason)
    try:
        body = _PACK.pack(position, timestamp_us, count, from_us, to_us, kind, text)
    except struct.error as error:
        raise RecordError(f"mark: count, from_us and to_us must be whole numbers from 0 to 2**64-1: {error}") from None
    return body + crc32(body).to_bytes(4, "little")


class MarkIndex:
    """The marks of one chunk, for its writer. Under the feed's lock."""

    __slots__ = ("_chunk_id", "_directory", "_ids", "_segment")

    def __init__(self, directory: Directory, chunk_id: int, ids: fmt.Ids) -> None:
        self._directory, self._chunk_id, self._ids = directory, chunk_id, ids
        self._segment: Segment | None = None

    def _open(self, create: bool) -> Segment | None:
        if self._segment is None:
            name = index_name(self._chunk_id)
            if not self._directory.exists(name):
                if not create:
                    return None
                static = static_of(MARK_LAYOUT)
                plan = fmt.plan(
                    fmt.MARK,
                    self._ids,
                    self._chunk_id,
                    static,
                    MARK_LAYOUT.record_size,
                    _INITIAL_ROWS,
                    now_us(),
                )
                Segment.create(self._directory, name, plan, static)
            self._segment = Segment.open(self._directory, name, fmt.MARK, self._ids, writable=True)
        return self._segment

    @property
    def count(self) -> int:
        """How many marks are committed."""
        segment = self._open(create=False)
        return segment.count() if segment else 0

    def append(self, mark: bytes) -> None:
        """Commit a mark; it counts once the records it speaks of are published.

        Raises
        ------
        StorageFullError
            No space for the index; nothing has changed.
        """
        segment = self._open(create=True)
        assert segment is not None and len(mark) == MARK_LAYOUT.record_size
        count = segment.count()
        if count == segment.rows:
            grown = segment.grow(segment.identity.data_offset + 2 * count * MARK_LAYOUT.record_size)
            segment.close()
            self._segment = segment = grown
        segment.write(segment.identity.data_offset + count * MARK_LAYOUT.record_size, mark)
        segment.publish(count + 1)

    def truncate(self, count: int) -> None:
        """Take back marks whose records were never published (nobody has counted them)."""
        segment = self._open(create=False)
        if segment is not None and count < segment.count():
            segment.publish(count)

    def drop_beyond(self, end: int) -> None:
        """Take back what a crashed write left: trailing marks of records that were not published."""
        segment = self._open(create=False)
        if segment is None:
            return
        rows = segment.array(MARK_LAYOUT.dtype)[: segment.count()]
        keep = len(rows)
        while keep and not is_valid(rows[keep - 1 : keep], end)[0]:
            keep -= 1
        self.truncate(keep)

    def drop_damaged(self) -> None:
        """Take back everything from the first mark whose checksum is wrong: it was not on the device."""
        segment = self._open(create=False)
        if segment is not None:
            wrong = _wrong_mark(segment.array(MARK_LAYOUT.dtype)[: segment.count()])
            if wrong is not None:
                self.truncate(wrong)

    def has(self, position: int, kind: bytes) -> bool:
        """Whether there is a mark of that kind at a position."""
        segment = self._open(create=False)
        if segment is None:
            return False
        rows = segment.array(MARK_LAYOUT.dtype)[: segment.count()]
        return bool(((rows["position"] == position) & (rows["kind"] == kind)).any())

    def flush(self) -> None:
        """Bring the marks to the device."""
        segment = self._open(create=False)
        if segment is not None:
            sync(segment.fd)

    def close(self) -> None:
        """Drop the mapping."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None


def is_valid(marks: npt.NDArray[Any], end: int) -> npt.NDArray[np.bool_]:
    """Which marks count when positions below `end` are published."""
    rows = np.where(marks["kind"] == SNAPSHOT, np.maximum(marks["count"], 1), 0).astype(np.uint64)
    return np.asarray((marks["position"] <= end) & (rows <= end) & (marks["position"] + rows <= end))


def read_marks(directory: Directory, chunk_id: int, ids: fmt.Ids, end: int, torn: bool = False) -> npt.NDArray[Any]:
    """The marks of a chunk that count when positions below `end` are published; a copy.

    If it may be `torn` (the machine went down while it was written) those before the first damaged one.

    Raises
    ------
    CorruptFileError
        The index is damaged: its header, or a mark's checksum.
    """
    try:
        segment = Segment.open(directory, index_name(chunk_id), fmt.MARK, ids)
    except FileNotFoundError:
        return np.zeros(0, MARK_DTYPE)
    try:
        for _ in range(3):  # a writer taking back a failed write's mark may be at it just now
            raw = segment.copy(MARK_LAYOUT.dtype)
            wrong = _wrong_mark(raw)
            if wrong is not None and torn:
                raw, wrong = raw[:wrong], None
            if wrong is None:
                return _public(raw[is_valid(raw, end)])
        reason = f"mark {wrong} has a wrong checksum"
        raise CorruptFileError(f"{segment.path}: {reason}", path=segment.path, reason=reason)
    finally:
        segment.close()


def count_marks(directory: Directory, chunk_id: int) -> int:
    """How many marks of a chunk are committed, those that do not count yet among them; reads eight bytes."""
    try:
        fd, _ = directory.open(index_name(chunk_id))
    except FileNotFoundError:
        return 0
    try:
        return int.from_bytes(os.pread(fd, 8, 8 * fmt.COMMIT), "little") & fmt.COUNT_MASK
    finally:
        os.close(fd)


def _wrong_mark(raw: npt.NDArray[Any]) -> int | None:
    """The first mark with a wrong checksum."""
    data, size = raw.tobytes(), MARK_LAYOUT.record_size
    for row in range(len(raw)):
        body = data[row * size : (row + 1) * size]
        if crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
            return row
    return None


def _public(raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    out = np.empty(len(raw), MARK_DTYPE)
    for name in MARK_DTYPE.names or ():
        out[name] = raw[name]
    return out
