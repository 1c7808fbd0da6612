"""Checksums of a chunk's records, in a file beside it: what a reboot, a copy or a bad disk left as it was.

The records of a chunk are cut into blocks of ``block_records`` (about 64 KiB, from the chunk's header). The file
``chunk_N.crc`` holds a CRC-32 for each whole block; of a sealed chunk also one for what is left at its end, and says
SEALED then. What an active chunk has beyond its last whole block stands in one of two tail slots of its own header.
Each entry carries its inverse: a flipped bit in a checksum is told from one in the records.

They are computed after the records were published (`deepwater.keeper`), so they cover a prefix of them. A
checksum proves content, not durability: it is what `proven` asks where nobody can say that the
page cache outlived what happened.

Losing the file loses no record: it is made again from the records while these can be trusted.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.chunk import Chunk, static_of
from deepwater.errors import CorruptFileError
from deepwater.files import Directory, sync
from deepwater.layout import Layout
from deepwater.schema import FeedSpec
from deepwater.segment import Segment, read_committed
from deepwater.timestamps import now_us

SUM_LAYOUT = Layout.compile(
    FeedSpec.from_json({
        "feed_name": "checksums", "ts_col": "computed_us",
        "fields": [
            {"name": "computed_us", "type": "uint64", "desc": "when"},
            {"name": "crc", "type": "uint32", "desc": "CRC-32 of the records of one block"},
            {"name": "inverse", "type": "uint32", "desc": "of crc, bit by bit"},
        ],
    })
)  # fmt: skip
SUM_DTYPE = SUM_LAYOUT.dtype
_ALL_ONES = 0xFFFFFFFF


def sums_name(chunk_id: int) -> str:
    """The file name of a chunk's checksums.

    >>> sums_name(7)
    'chunk_00000007.crc'
    """
    return f"chunk_{chunk_id:08d}.crc"


def blocks_of(count: int, block_records: int) -> int:
    """How many blocks `count` records make, the last perhaps not whole."""
    return -(-count // block_records)


def block_sums(data: memoryview, block_bytes: int, first: int = 0) -> list[int]:
    """The checksums of packed records, block by block from block `first` on; the last may be short."""
    return [crc32(data[at : at + block_bytes]) for at in range(first * block_bytes, len(data), block_bytes)]


def read_sums(directory: Directory, chunk: Chunk) -> tuple[npt.NDArray[np.uint32], bool]:
    """The checksums stored for a chunk, up to the first entry that is damaged; and whether they are complete.

    None at all (an empty array) where there is no file, or not this chunk's.
    """
    identity = chunk.segment.identity
    try:
        rows, word = read_committed(directory, sums_name(chunk.id), fmt.CHECKSUMS, identity.ids, SUM_DTYPE)
    except (FileNotFoundError, PermissionError, CorruptFileError):
        return np.zeros(0, np.uint32), False
    good = (rows["crc"] ^ rows["inverse"]) == _ALL_ONES
    if not good.all():
        return rows["crc"][: int(np.argmin(good))], False
    return rows["crc"], word >= fmt.SEALED


def proven(directory: Directory, chunk: Chunk) -> int:
    """How many records of a chunk are surely what was written, wherever its file has been meanwhile.

    The durable ones; then whole blocks whose checksums hold; then what a tail slot covers, or the seal's last block.
    """
    word, identity = chunk.segment.words[fmt.COMMIT], chunk.segment.identity
    count, at = min(word & fmt.COUNT_MASK, chunk.capacity), chunk.durable
    if at >= count:
        return count
    block, size = identity.block_records, identity.record_size
    sums, complete = read_sums(directory, chunk)
    data = memoryview(chunk.segment.mapping)[identity.data_offset : identity.data_offset + count * size]
    try:
        for index in range(at // block, len(sums)):
            stop = min(count, (index + 1) * block)
            whole = stop == (index + 1) * block or (complete and word >= fmt.SEALED)
            if not whole or crc32(data[index * block * size : stop * size]) != sums[index]:
                break
            at = max(at, stop)
        for offset in fmt.TAIL_OFFSETS:
            slot = fmt.parse_tail(chunk.segment.read(offset, fmt.TAIL_SIZE))
            if slot is not None and at < slot[0] <= count:
                start = slot[0] // block * block
                if start <= at and crc32(data[start * size : slot[0] * size]) == slot[1]:
                    at = slot[0]
    finally:
        data.release()
    return at


def check_blocks(directory: Directory, chunk: Chunk) -> None:
    """Compare the published records of a chunk with the checksums there are.

    Raises
    ------
    CorruptFileError
        Some are not what was written; it says which.
    """
    identity = chunk.segment.identity
    count, sealed = chunk.state()
    block, size, at = identity.block_records, identity.record_size, identity.data_offset
    sums, complete = read_sums(directory, chunk)
    data = memoryview(chunk.segment.mapping)
    try:
        for index, crc in enumerate(sums):
            first, stop = index * block, min(count, (index + 1) * block)
            covered = stop - first == block or (complete and sealed and first < stop)
            if covered and crc32(data[at + first * size : at + stop * size]) != crc:
                path, last = chunk.segment.path, chunk.base + stop - 1
                reason = f"records {chunk.base + first} to {last} are not what was written: wrong checksum"
                raise CorruptFileError(f"{path}: {reason}; see deepwater verify", path=path, reason=reason,
                                       first=chunk.base + first, last=last)  # fmt: skip
    finally:
        data.release()


def make_sure(directory: Directory, chunk: Chunk) -> bool:
    """Have a chunk show only what is proven of it; whether that is all it says it holds."""
    if chunk.is_sure:
        return True
    chunk.doubt(proven(directory, chunk))
    count, _ = chunk.state()
    return count == min(chunk.segment.words[fmt.COMMIT] & fmt.COUNT_MASK, chunk.capacity)


class ChunkSums:
    """The checksums of one chunk, for its writer's process. Under the keeper's lock.

    Attributes
    ----------
    covered : int
        Records that have a checksum, in a block or a tail slot.
    is_complete : bool
        Whether the chunk is sealed and all of it is covered.
    """

    def __init__(self, directory: Directory, segment: Segment) -> None:
        self._directory, self._chunk = directory, segment
        identity = segment.identity
        self._block, self._size = identity.block_records, identity.record_size
        self._file: Segment | None = None
        self._crc, self._start, self._stop, self._turn = 0, 0, 0, 0  # of the block that is not whole yet
        self.covered = 0
        self.is_complete = False

    def open(self) -> None:
        """Open the file, or make it, and find how far it goes.

        Raises
        ------
        StorageFullError
        """
        chunk = self._chunk.identity
        name = sums_name(chunk.segment_id)
        try:
            self._file = Segment.open(self._directory, name, fmt.CHECKSUMS, chunk.ids, writable=True)
        except CorruptFileError:
            self._directory.remove(name)
        except FileNotFoundError:
            pass
        if self._file is None:
            static = static_of(SUM_LAYOUT)
            blocks = blocks_of(chunk.capacity, self._block)
            plan = fmt.plan(fmt.CHECKSUMS, chunk.ids, chunk.segment_id, static, SUM_DTYPE.itemsize, blocks, now_us())
            Segment.create(self._directory, name, plan, static)
            self._file = Segment.open(self._directory, name, fmt.CHECKSUMS, chunk.ids, writable=True)
        word = self._file.words[fmt.COMMIT]
        self.is_complete = word >= fmt.SEALED
        self._start = self._stop = self.covered = min(word & fmt.COUNT_MASK, self._file.capacity) * self._block

    def advance(self, count: int, sealed: bool) -> None:
        """Cover the chunk's published records up to `count`, all of them if it is sealed.

        Raises
        ------
        StorageFullError
        """
        if self._file is None:
            self.open()
        if self.is_complete:
            return
        data = memoryview(self._chunk.mapping)
        try:
            whole = count // self._block * self._block
            if self._start < whole:
                self._cover_blocks(data, whole)
            if self._stop < count:
                self._crc = crc32(self._bytes(data, self._stop, count), self._crc)
                self._stop = count
        finally:
            data.release()
        if sealed:
            self._complete(count)
        elif self.covered < count:
            slot = fmt.TAIL_OFFSETS[self._turn]
            self._chunk.write(slot, fmt.pack_tail(count, self._crc))
            self._turn = 1 - self._turn
        self.covered = count

    def _bytes(self, data: memoryview, start: int, stop: int) -> memoryview:
        base = self._chunk.identity.data_offset
        return data[base + start * self._size : base + stop * self._size]

    def _cover_blocks(self, data: memoryview, whole: int) -> None:
        """Store the checksums of whole blocks; the first may have been begun."""
        file, block = self._file, self._block
        assert file is not None
        sums = [crc32(self._bytes(data, self._stop, self._start + block), self._crc)]
        rest = self._bytes(data, self._start + block, whole)
        sums += block_sums(rest, block * self._size)
        self._store(sums, self._start // block)
        file.publish(whole // block)
        self._start = self._stop = whole
        self._crc = 0

    def _store(self, sums: list[int], first: int) -> None:
        file = self._file
        assert file is not None
        rows = np.empty(len(sums), SUM_DTYPE)
        rows["computed_us"] = now_us()
        rows["crc"] = sums
        rows["inverse"] = ~rows["crc"]
        file.write(file.identity.data_offset + first * SUM_DTYPE.itemsize, rows.tobytes())

    def _complete(self, count: int) -> None:
        file = self._file
        assert file is not None
        blocks = blocks_of(count, self._block)
        if self._start < count:
            self._store([self._crc], blocks - 1)
        self._clear(blocks)
        file.publish(blocks | fmt.SEALED)
        self.is_complete = True

    def cut(self, count: int) -> None:
        """Forget the checksums beyond `count` records: what they were of is not there."""
        self.open()
        assert self._file is not None
        kept = min(self._file.words[fmt.COMMIT] & fmt.COUNT_MASK, count // self._block)
        self._file.publish(kept)
        self._clear(kept)

    def _clear(self, first: int) -> None:
        """Zero the entries from `first` on: of records that a power cut took, whose chunk may be sealed before them."""
        assert self._file is not None
        at = self._file.identity.data_offset + first * SUM_DTYPE.itemsize
        if any(self._file.read(at, self._file.size - at)):
            self._file.write(at, bytes(self._file.size - at))

    def flush(self) -> None:
        """Bring the checksums to the device."""
        if self._file is not None:
            sync(self._file.fd)

    def close(self) -> None:
        """Drop the mapping."""
        if self._file is not None:
            self._file.close()
            self._file = None


