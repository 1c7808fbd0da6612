"""A chunk: a segment that is appended to, then sealed.

A chunk file is first a *spare* (prepared ahead, without a base position), then *active* (the one
being appended to), then *sealed* (never changes again). Which it is stands in its activation block
and in the SEALED bit of its commit word; see `deepwater.format`.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy.typing as npt

from deepwater import format as fmt
from deepwater.errors import CorruptFileError
from deepwater.files import FULL, Directory, full
from deepwater.layout import Layout
from deepwater.locks import this_boot, this_owner
from deepwater.segment import Segment
from deepwater.timestamps import now_us

_NAME = re.compile(r"chunk_(\d{8,19})\.bin")
PWRITE_BYTES = 65536
"""From here on a batch goes in by `pwrite`: first touch of a fresh mapping costs more than the call."""
FIRST_CHUNK_BYTES = 1 << 20
"""A feed's first chunk is at most this large, so that a small feed stays small."""
PREFAULT_BYTES = 2 << 20


def chunk_name(chunk_id: int) -> str:
    """The file name of a chunk.

    >>> chunk_name(7)
    'chunk_00000007.bin'
    """
    return f"chunk_{chunk_id:08d}.bin"


def chunk_ids(directory: Directory) -> list[int]:
    """The ids of the chunk files in a directory, ascending."""
    return sorted(int(match[1]) for name in os.listdir(directory.fd) if (match := _NAME.fullmatch(name)))


def static_of(layout: Layout) -> fmt.Static:
    """What the header of a file of this layout says of its records."""
    index = {name: k for k, name in enumerate(layout.names)}
    clocks = tuple((offset, index[name]) for name, offset in zip(layout.clocks, layout.clock_offsets, strict=True))
    return fmt.Static(clocks, layout.struct_format, layout.to_bytes(), layout.hash)


def create_chunk(directory: Directory, chunk_id: int, layout: Layout, ids: fmt.Ids, size_bytes: int) -> None:
    """Make the spare file of a chunk with a record area of `size_bytes` (at least one record).

    Raises
    ------
    StorageFullError
        No space; nothing is left behind.
    """
    capacity = max(1, size_bytes // layout.record_size)
    static = static_of(layout)
    identity = fmt.plan(fmt.CHUNK, ids, chunk_id, static, layout.record_size, capacity, now_us())
    Segment.create(directory, chunk_name(chunk_id), identity, static)


class Chunk:
    """An open chunk.

    Attributes
    ----------
    id : int
    base : int
        Position of its first record.
    records : numpy.ndarray
        All its record slots; read-only unless the chunk was opened for writing. Only the first
        `state()[0]` of them are published.
    """

    __slots__ = (
        "__weakref__", "_bounds", "_has_seal", "_proven", "activated_us", "base", "capacity", "columns", "id",
        "records", "segment",
    )  # fmt: skip

    def __init__(self, segment: Segment, layout: Layout, base: int, activated_us: int) -> None:
        self.segment = segment
        self._proven: int | None = None
        self._has_seal = True
        self._bounds: dict[tuple[int, int], fmt.ClockBounds] = {}
        self.id = segment.identity.segment_id
        self.base, self.activated_us = base, activated_us
        self.records: npt.NDArray[Any] = segment.array(layout.dtype)
        self.capacity = len(self.records)
        self.columns = tuple(self.records[name] for name in layout.clocks)

    @classmethod
    def open(
        cls, directory: Directory, chunk_id: int, layout: Layout, ids: fmt.Ids, *, writable: bool = False
    ) -> Chunk | None:
        """Open a chunk of the feed; None for a spare, and for one that was none but came back from a power cut as one.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        CorruptFileError
            It is damaged, another feed's, or of another layout.
        """
        segment = Segment.open(directory, chunk_name(chunk_id), fmt.CHUNK, ids, writable=writable)
        _check(segment, chunk_id, layout)
        active = fmt.parse_activation(segment.read(0, fmt.LIVE_OFFSET))
        if active is None:
            lost = segment.words[fmt.DURABLE] or (segment.words[fmt.COMMIT] and _is_of_now(segment))
            segment.close()
            if lost:
                reason = "its activation block is damaged: it has records and does not say from which position"
                raise CorruptFileError(f"{segment.path}: {reason}", path=segment.path, reason=reason)
            return None
        return cls(segment, layout, *active)

    def close(self) -> None:
        """Drop this handle's references; arrays handed out stay valid."""
        self.segment.close()

    def state(self) -> tuple[int, bool]:
        """``(count, sealed)`` from one load of the commit word; clamped to the capacity, and to what is proven."""
        word = self.segment.words[fmt.COMMIT]
        if self._proven is not None:
            return self._doubted(word, self._proven)
        return min(word & fmt.COUNT_MASK, self.capacity), word >= fmt.SEALED

    @property
    def is_sure(self) -> bool:
        """Whether what the commit word counts is there for certain.

        It is if all of it was on the device, or if it was written since the machine started, into this very file:
        then the page cache is what it was. Else `deepwater.checksums.proven` says how much of it is.
        """
        words = self.segment.words
        return 0 != words[fmt.DURABLE] == words[fmt.COMMIT] or self.is_of_now

    @property
    def is_of_now(self) -> bool:
        """Whether it was written since the machine started, into this very file."""
        return _is_of_now(self.segment)

    @property
    def is_copy(self) -> bool:
        """Whether this is not the file that its writer wrote."""
        owner = self.owner()
        return owner is not None and owner.inode != self.segment.place[0]

    @property
    def is_doubted(self) -> bool:
        """Whether `doubt` was called and no writer has made sure since."""
        return self._proven is not None

    def doubt(self, proven: int) -> None:
        """Show no more than `proven` records, and believe nothing the header says of them, until a writer made sure.

        Nor that it is sealed, without a whole seal.
        """
        self._proven, self._bounds, self._has_seal = proven, {}, True
        try:
            self.seal()
        except CorruptFileError:
            self._has_seal = False

    def _doubted(self, word: int, proven: int) -> tuple[int, bool]:
        count, sealed = min(word & fmt.COUNT_MASK, self.capacity), word >= fmt.SEALED
        if count <= proven and (self._has_seal or not sealed):
            return count, sealed
        if self.is_sure:  # a writer has been here meanwhile
            self._proven = None
            return self.state()
        return min(count, proven), False

    def bounds(self, clock: int, count: int) -> fmt.ClockBounds:
        """Bounds of a clock over the first `count` > 0 records, loaded after that count.

        Exact while the clock is sorted; else a superset.
        """
        at = fmt.CLOCKS + fmt.CLOCK_WORDS * clock
        words = self.segment.words
        if self._proven is not None:
            key = clock, count
            if key not in self._bounds:
                self._bounds = {**self._bounds, key: exact_bounds(self.columns[clock][:count])}
            return self._bounds[key]
        if words[at + fmt.UNSORTED]:
            return fmt.ClockBounds(True, words[at + fmt.MIN], words[at + fmt.MAX])
        column = self.columns[clock]
        return fmt.ClockBounds(False, int(column[0]), int(column[count - 1]))

    def seal(self) -> fmt.Seal:
        """The seal of a sealed chunk.

        Raises
        ------
        CorruptFileError
            It is damaged or says another count than the commit word.
        """
        identity, path = self.segment.identity, self.segment.path
        seal = fmt.parse_seal(self.segment.read(identity.seal_offset, identity.seal_size), identity.clock_count, path)
        if seal.records != self.state()[0] or seal.base_position != self.base:
            found = f"{self.state()[0]} from {self.base}"
            reason = f"sealed with {seal.records} records from {seal.base_position}, the header says {found}"
            raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
        return seal

    def owner(self) -> fmt.Owner | None:
        """Who last opened this chunk for writing."""
        return fmt.parse_owner(self.segment.read(0, 2 * fmt.LIVE_PAGE))

    @property
    def durable(self) -> int:
        """Records of this chunk known to be on the device."""
        return min(self.segment.words[fmt.DURABLE] & fmt.COUNT_MASK, self.capacity)

    @property
    def heartbeat_us(self) -> int:
        """When the writer last wrote; 0 for never."""
        return self.segment.words[fmt.HEARTBEAT]


def _is_of_now(segment: Segment) -> bool:
    """Whether a chunk was written since the machine started, into this very file."""
    owner = fmt.parse_owner(segment.read(0, 2 * fmt.LIVE_PAGE))
    return owner is not None and (owner.boot_id, owner.inode, owner.device) == (this_boot(), *segment.place)


def refuse_to_end_before(directory: Directory, chunk_id: int, ids: fmt.Ids) -> None:
    """Raise if records of a chunk after this one are known to be on the device.

    Syncs go from the oldest chunk on, so a power cut never leaves that: whatever makes this chunk the end is damage.
    """
    try:
        segment = Segment.open(directory, chunk_name(chunk_id + 1), fmt.CHUNK, ids)
    except (FileNotFoundError, CorruptFileError):
        return
    durable = segment.words[fmt.DURABLE]
    segment.close()
    if durable:
        path = directory.name_of(chunk_name(chunk_id))
        reason = "records of it are missing that were on the device: the chunk after it is"
        raise CorruptFileError(f"{path}: {reason}; see deepwater verify", path=path, reason=reason)


def ends_a_copy(directory: Directory, chunk_id: int, layout: Layout, ids: fmt.Ids) -> bool:
    """Whether a sealed chunk is the last of a copy that was made while its feed was written.

    The chunk after it was not there yet when ``cp -r`` listed the directory. In a feed that nobody copied, that chunk
    can only have been lost.
    """
    if any(following > chunk_id for following in chunk_ids(directory)):
        return False
    try:
        chunk = Chunk.open(directory, chunk_id, layout, ids)
    except FileNotFoundError:
        return False
    if chunk is None:
        return False
    try:
        return chunk.is_copy
    finally:
        chunk.close()


def exact_bounds(column: npt.NDArray[Any]) -> fmt.ClockBounds:
    """The bounds of a clock, from the records."""
    if not len(column):
        return fmt.ClockBounds(False, 0, 0)
    return fmt.ClockBounds(bool((column[1:] < column[:-1]).any()), int(column.min()), int(column.max()))


def _check(segment: Segment, chunk_id: int, layout: Layout) -> None:
    reason = ""
    if segment.identity.segment_id != chunk_id:
        reason = f"it is chunk {segment.identity.segment_id} under the name of chunk {chunk_id}"
    elif segment.identity.layout_hash != layout.hash or segment.identity.record_size != layout.record_size:
        reason = "its records have another layout than the feed"
    elif segment.identity.clock_count != len(layout.clocks):
        reason = f"{segment.identity.clock_count} clocks, the layout has {len(layout.clocks)}"
    if reason:
        segment.close()
        raise CorruptFileError(f"{segment.path}: {reason}", path=segment.path, reason=reason)


class WritableChunk(Chunk):
    """The chunk a writer appends to. One thread of one process, under the feed's lock.

    Nothing here is visible until `publish`.
    """

    __slots__ = ("buffer", "data_offset", "record_size")

    def __init__(self, segment: Segment, layout: Layout, base: int, activated_us: int) -> None:
        super().__init__(segment, layout, base, activated_us)
        self.data_offset = segment.identity.data_offset
        self.record_size = layout.record_size
        self.buffer = memoryview(segment.mapping)

    @classmethod
    def activate(cls, directory: Directory, chunk_id: int, layout: Layout, ids: fmt.Ids, base: int) -> WritableChunk:
        """Make a spare part of the feed: give it its base position and this process as its owner."""
        segment = Segment.open(directory, chunk_name(chunk_id), fmt.CHUNK, ids, writable=True)
        _check(segment, chunk_id, layout)
        now = now_us()
        segment.write(*fmt.pack_activation(base, now))
        chunk = cls(segment, layout, base, now)
        chunk.own()
        return chunk

    def close(self) -> None:
        """Drop this handle's references."""
        self.buffer.release()
        super().close()

    def own(self) -> None:
        """Write down this process as the one that holds the feed."""
        self.segment.write(*fmt.pack_owner(this_owner(os.fstat(self.segment.fd))))

    def disown(self) -> None:
        """Write down that this process held the feed and let it go; nothing if the chunk is closed."""
        if self.segment.fd >= 0:
            self.segment.write(*fmt.pack_owner(this_owner(os.fstat(self.segment.fd), held=False)))

    def put(self, row: int, data: memoryview) -> None:
        """Copy packed records into the unpublished slots from `row` on.

        Raises
        ------
        StorageFullError
            Only where allocation promises nothing (copy-on-write file systems).
        """
        at = self.data_offset + row * self.record_size
        if len(data) < PWRITE_BYTES:
            self.buffer[at : at + len(data)] = data
            return
        try:
            while data:
                done = os.pwrite(self.segment.fd, data, at)
                data, at = data[done:], at + done
        except OSError as error:
            if error.errno in FULL:
                raise full(error, self.segment.path) from error
            raise

    def publish(self, count: int, sealed: bool = False) -> None:
        """The one store that makes `count` records of this chunk visible (and closes it for good)."""
        self.segment.publish(count | fmt.SEALED if sealed else count)

    def write_seal(self, count: int, clocks: tuple[fmt.ClockBounds, ...]) -> fmt.Seal:
        """Write the seal for `count` records with the exact bounds; `publish` with SEALED comes after.

        The live words come to say the same, so that a bit that flips in them later is seen.
        """
        seal = fmt.Seal(count, self.base, now_us(), clocks)
        self.segment.write(self.segment.identity.seal_offset, fmt.pack_seal(seal))
        for clock, bounds in enumerate(clocks):
            if bounds.unsorted:
                self.widen(clock, bounds.low, bounds.high)
        self.segment.words[fmt.HEARTBEAT] = seal.sealed_us
        return seal

    def take_back(self, count: int) -> None:
        """Publish only the first `count` records, proven, of a chunk that is not sure; after an unclean shutdown.

        What the header says of their clocks is set anew first, from the records. The owner comes last: until then the
        chunk stays doubted, and a recovery that was killed is done again.
        """
        words = self.segment.words
        for clock, column in enumerate(self.columns):
            unsorted, low, high = exact_bounds(column[:count])
            at = fmt.CLOCKS + fmt.CLOCK_WORDS * clock
            words[at + fmt.MIN], words[at + fmt.MAX] = (low, high) if unsorted else (0, 0)
            words[at + fmt.UNSORTED] = unsorted
        for offset in fmt.TAIL_OFFSETS:
            tail = fmt.parse_tail(self.segment.read(offset, fmt.TAIL_SIZE))
            if tail is None or tail[0] > count:  # of records that are lost
                self.segment.write(offset, bytes(fmt.TAIL_SIZE))
        words[fmt.DURABLE] = min(self.durable, count)
        self.segment.publish(count)

    def widen(self, clock: int, low: int, high: int) -> None:
        """Say, before a commit, that a clock is not sorted and lies in ``low … high`` (inclusive)."""
        at = fmt.CLOCKS + fmt.CLOCK_WORDS * clock
        words = self.segment.words
        words[at + fmt.MIN] = low
        words[at + fmt.MAX] = high
        words[at + fmt.UNSORTED] = 1

    def narrow(self, clock: int) -> None:
        """Take back what a write that failed said of a clock, of which nothing needs to be said yet."""
        at = fmt.CLOCKS + fmt.CLOCK_WORDS * clock
        words = self.segment.words
        for word in (fmt.UNSORTED, fmt.MIN, fmt.MAX):
            if words[at + word]:
                words[at + word] = 0
