"""What can still be read of damaged files: marks that are whole, checksums, and how many records these cover."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from deepwater import format as fmt
from deepwater.check_chunk import ChunkFacts
from deepwater.checksums import SUM_DTYPE, sums_name
from deepwater.chunk import chunk_name, static_of
from deepwater.errors import CorruptFileError
from deepwater.feed_files import Feed
from deepwater.files import Directory
from deepwater.index import KINDS, MARK_LAYOUT, SNAPSHOT, index_name
from deepwater.rawfile import RawFile
from deepwater.segment import read_committed

_ALL_ONES = 0xFFFFFFFF


def kind_of(mark: bytes) -> bytes:
    """The kind of a packed mark."""
    return mark[40:48].rstrip(b"\0")


def whole_marks(directory: Directory, chunk_id: int) -> list[bytes]:
    """The marks of a chunk that are whole, whatever is wrong with the header of their file.

    Those after the counted ones may have been taken back, or be the victims of a flipped bit in the count: a gap too
    many does no harm, a snapshot too many would.
    """
    size = MARK_LAYOUT.record_size
    plan = fmt.plan(fmt.MARK, fmt.Ids(b"", b"", b""), chunk_id, static_of(MARK_LAYOUT), size, 1, 0)
    try:
        with RawFile(directory, index_name(chunk_id)) as file:
            counted = file.word(fmt.COMMIT)
            raw = file.read(plan.data_offset, file.size)
    except (OSError, CorruptFileError):
        return []
    out = []
    for row, at in enumerate(range(0, len(raw) - size + 1, size)):
        mark = raw[at : at + size]
        is_whole = crc32(mark[:-4]) == int.from_bytes(mark[-4:], "little") and kind_of(mark) in KINDS
        if not is_whole and row >= counted:
            break
        if is_whole and (row < counted or kind_of(mark) != SNAPSHOT):
            out.append(mark)
    return out


def load_sums(directory: Directory, chunk: ChunkFacts, feed: Feed) -> None:
    """All the checksums of a chunk, whatever its header says."""
    try:
        rows, word = read_committed(directory, sums_name(chunk.id), fmt.CHECKSUMS, feed.ids, SUM_DTYPE)
    except (OSError, CorruptFileError):
        return
    chunk.sums, chunk.sums_complete = rows["crc"], word >= fmt.SEALED
    chunk.bad_sums = tuple(np.flatnonzero((rows["crc"] ^ rows["inverse"]) != _ALL_ONES).tolist())


def has_sums(chunk: ChunkFacts) -> bool:
    """Whether any block of it has a checksum."""
    return chunk.sums is not None and len(chunk.sums) > 0


def block_records(facts: ChunkFacts, size: int) -> int:
    """Records in a checksum block of a chunk."""
    return facts.identity.block_records if facts.identity is not None else max(1, fmt.BLOCK_BYTES // size)


def covered(directory: Directory, facts: ChunkFacts, size: int, offset: int) -> int:
    """How many records of a chunk checksums cover, whatever its commit word says."""
    at, block = 0, block_records(facts, size)
    with RawFile(directory, chunk_name(facts.id)) as file:
        for index, crc in enumerate(facts.sums if facts.sums is not None else ()):
            data = file.read(offset + index * block * size, block * size)
            if index in facts.bad_sums or crc32(data) != int(crc):
                break
            at += block
        for slot in fmt.TAIL_OFFSETS:
            tail = fmt.parse_tail(file.read(slot, fmt.TAIL_SIZE).ljust(fmt.TAIL_SIZE, b"\0"))
            is_next = tail is not None and at < tail[0] <= at + block
            if tail is not None and is_next and crc32(file.read(offset + at * size, (tail[0] - at) * size)) == tail[1]:
                return tail[0]
    return at
