"""A ring: a segment in shared memory that overwrites its oldest records.

The file is a chunk's (`deepwater.format`), with other rules for its words. Position ``p`` lies in slot
``(p - base) % capacity``. `commit` counts all records ever published in this ring, and `claim` is the end, counted
likewise, of what may have been overwritten: ``claim >= commit``.

*Writing* ``n`` records: store ``claim = max(claim, count + n)``; then the records; then ``commit = count + n``.
*Reading* ``[first, stop)``: load commit (``stop`` is at most that); copy; load claim. What was copied is true from
position ``base + claim - capacity`` on: a slot whose claim had not come when the copy was over was not touched
while it ran. So a copy that was overtaken is true in its later part, and which part is known exactly.

`claim` never decreases, across writers too: a writer that dies inside a write has overwritten slots that its
commit does not tell of. Its successor keeps the claim, else readers would take torn records for old ones.

A ring ends as a chunk does, by the SEALED bit. With a successor (the next id, which begins with the newest records
of this one: a resize) readers go on there; without one the feed was deleted. Then the file is unlinked. A ring that
is begun anew, after the machine lost its memory, gets an incarnation of its own: the first 8 bytes are the feed's,
the others random, and its positions start at 0.

*Clocks*: `unsorted` of a clock is 0, or 1 + the position of the newest record that stepped back. While that record,
or one after it, is the oldest held, the records held are in order: a ring forgets its disorder with its records.
It is stored before the commit.

Rejected: *a sequence number in each slot* (a record would no longer be the user's dtype); *a lock or a reader
count* (a reader must never hold up the writer); *checking before the copy only* (a writer that laps during the copy
goes unseen; the tests show how often).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.chunk import static_of
from deepwater.errors import CorruptFileError, StorageFullError
from deepwater.files import Directory
from deepwater.layout import Layout
from deepwater.locks import this_owner
from deepwater.ring_files import parse_ring_name, ring_name
from deepwater.segment import Segment
from deepwater.timestamps import now_us

Records = npt.NDArray[Any]
FEED_HALF = 8
"""Bytes of a ring's incarnation that are its feed's."""


def ring_ids(directory: Directory, feed: str) -> list[int]:
    """The ids of a feed's ring files, ascending: one, or two for a moment while it is resized."""
    found = (parse_ring_name(name) for name in os.listdir(directory.fd))
    return sorted(pair[1] for pair in found if pair is not None and pair[0] == feed)


def capacity_of(layout: Layout, size_bytes: int) -> int:
    """Records in a ring of that many bytes; at least 2, because a write may take half of it."""
    return max(2, size_bytes // layout.record_size)


def create_ring(directory: Directory, feed: str, ring_id: int, layout: Layout, ids: fmt.Ids, capacity: int) -> None:
    """Make the file of a ring, without a base position yet.

    Raises
    ------
    StorageFullError
        The shared memory is too small or full; says how large it is, and what to do.
    """
    static = static_of(layout)
    identity = fmt.plan(fmt.RING, ids, ring_id, static, layout.record_size, capacity, now_us())
    try:
        Segment.create(directory, ring_name(feed, ring_id), identity, static)
    except StorageFullError as error:
        raise _too_small(directory, feed, identity.file_size, error) from error.__cause__


def _too_small(directory: Directory, feed: str, wanted: int, error: StorageFullError) -> StorageFullError:
    system = os.fstatvfs(directory.fd)
    size, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
    return StorageFullError(
        f"{directory.path}: the ring of feed {feed!r} needs {wanted:,} bytes and the shared memory has {free:,} free "
        f"of {size:,}: use a smaller chunk_size_bytes (resize_feed), give the machine more (docker run --shm-size=1g, "
        f"mount -o remount,size=1g /dev/shm), name another place with $DEEPWATER_SHM, or look for leftovers with "
        f"'deepwater rings'",
        errno=error.errno, path=directory.path, wanted=wanted, size=size, free=free,
    )  # fmt: skip


class Ring:
    """An open ring, for reading.

    Attributes
    ----------
    id : int
    base : int
        Position of the first record that was ever in it.
    capacity : int
        In records.
    records : numpy.ndarray
        All slots as they are now: they change. Read-only.
    incarnation : bytes
    """

    __slots__ = ("__weakref__", "_bytes", "base", "capacity", "id", "incarnation", "records", "segment", "size")

    def __init__(self, segment: Segment, layout: Layout, base: int) -> None:
        self.segment, self.base, self.size = segment, base, layout.record_size
        self.id = segment.identity.segment_id
        self.incarnation = segment.identity.ids.incarnation
        self.records: Records = segment.array(layout.dtype)
        self.records.flags.writeable = False
        self.capacity = len(self.records)
        start = segment.identity.data_offset
        self._bytes = memoryview(segment.mapping)[start : start + self.capacity * self.size]

    @classmethod
    def open(cls, directory: Directory, feed: str, ring_id: int, layout: Layout, ids: fmt.Ids, *,
             writable: bool = False) -> Ring | None:  # fmt: skip
        """Open a ring of the feed; None for one that is being made, or belongs to another life of the feed.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        CorruptFileError
            It is damaged or of another layout.
        """
        name = ring_name(feed, ring_id)
        segment = Segment.open(directory, name, fmt.RING, writable=writable)
        theirs = segment.identity.ids
        wrong = _wrong(segment, ring_id, layout)
        if wrong:
            segment.close()
            text = f"{segment.path}: {wrong}; what a ring holds is not kept anyway: remove the file"
            raise CorruptFileError(text, path=segment.path, reason=wrong)
        active = fmt.parse_activation(segment.read(0, fmt.LIVE_OFFSET))
        same = theirs[:2] == ids[:2] and theirs.incarnation[:FEED_HALF] == ids.incarnation[:FEED_HALF]
        if active is None or not same:
            segment.close()
            return None
        return cls(segment, layout, active[0])

    def close(self) -> None:
        """Drop this handle's references."""
        self._bytes.release()
        self.segment.close()

    def state(self) -> tuple[int, bool]:
        """``(count, sealed)`` from one load of the commit word: records ever published here, and whether it ended."""
        word = self.segment.words[fmt.COMMIT]
        return word & fmt.COUNT_MASK, word >= fmt.SEALED

    def oldest(self) -> int:
        """The first position that is surely whole now, if it is published. Load it after what it is to judge."""
        overwritten = self.segment.words[fmt.CLAIM] - self.capacity
        return self.base + overwritten if overwritten > 0 else self.base

    def copy(self, first: int, stop: int, dtype: np.dtype[Any]) -> tuple[int, Records]:
        """Copy published positions ``first <= p < stop``, at most `capacity` of them.

        Returns
        -------
        from_ : int
            The first position of the copy that is true; `stop` if none is.
        records : numpy.ndarray
            Those from there on, read-only, of its own memory.
        """
        base, capacity, size = self.base, self.capacity, self.size
        at = (first - base) % capacity
        rest = at + stop - first - capacity
        if rest <= 0:
            data = bytes(self._bytes[at * size : (capacity + rest) * size])
        else:
            data = b"".join((self._bytes[at * size :], self._bytes[: rest * size]))
        oldest = self.oldest()  # only now is known what was overwritten meanwhile
        if oldest <= first:
            return first, np.frombuffer(data, dtype)
        valid = min(stop, oldest)
        return valid, np.frombuffer(data, dtype, stop - valid, (valid - first) * size)

    def pieces(self, first: int, stop: int) -> list[tuple[int, Records]]:
        """The slots of positions ``first <= p < stop`` (at most `capacity`) as one or two live views, with bases."""
        at = (first - self.base) % self.capacity
        rows = min(stop - first, self.capacity - at)
        found = [(first, self.records[at : at + rows])] if rows > 0 else []
        if first + rows < stop:
            found.append((first + rows, self.records[: stop - first - rows]))
        return found

    def stepped_back(self, clock: int) -> int:
        """1 + the position of the newest record that is below the one before it on a clock; 0 if there is none."""
        return self.segment.words[fmt.CLOCKS + fmt.CLOCK_WORDS * clock + fmt.UNSORTED]

    def owner(self) -> fmt.Owner | None:
        """Who last opened this ring for writing."""
        return fmt.parse_owner(self.segment.read(0, 2 * fmt.LIVE_PAGE))

    @property
    def heartbeat_us(self) -> int:
        """When the writer last wrote; 0 for never."""
        return self.segment.words[fmt.HEARTBEAT]


def _wrong(segment: Segment, ring_id: int, layout: Layout) -> str:
    if segment.identity.segment_id != ring_id:
        return f"it is ring {segment.identity.segment_id} under the name of ring {ring_id}"
    if segment.identity.layout_hash != layout.hash or segment.identity.record_size != layout.record_size:
        return "its records have another layout than the feed"
    if segment.identity.clock_count != len(layout.clocks):
        return f"{segment.identity.clock_count} clocks, the layout has {len(layout.clocks)}"
    return ""


class WritableRing(Ring):
    """The ring a writer writes. One thread of one process, under the feed's lock."""

    __slots__ = ("slots",)

    def __init__(self, segment: Segment, layout: Layout, base: int) -> None:
        super().__init__(segment, layout, base)
        self.slots = self._bytes

    @classmethod
    def begin(cls, directory: Directory, feed: str, ring_id: int, layout: Layout, ids: fmt.Ids, capacity: int,
              base: int) -> WritableRing:  # fmt: skip
        """Make a ring that begins at position `base`; nobody sees it before `activate`."""
        directory.remove(ring_name(feed, ring_id))  # of a maker that died
        create_ring(directory, feed, ring_id, layout, ids, capacity)
        segment = Segment.open(directory, ring_name(feed, ring_id), fmt.RING, ids, writable=True)
        segment.populate(segment.identity.data_offset, capacity * layout.record_size)
        return cls(segment, layout, base)

    def activate(self) -> None:
        """Make it the feed's ring, as soon as the one before is sealed."""
        self.segment.write(*fmt.pack_activation(self.base, now_us()))

    def own(self, held: bool = True) -> None:
        """Write down this process as the one that holds the feed, or that held it."""
        if self.segment.fd >= 0:
            self.segment.write(*fmt.pack_owner(this_owner(os.fstat(self.segment.fd), held=held)))

    def put(self, count: int, data: bytes | memoryview) -> None:
        """Copy packed records into the slots after `count` records, which must be claimed."""
        at = count % self.capacity * self.size
        room = self.capacity * self.size - at
        if len(data) <= room:
            self.slots[at : at + len(data)] = data
        else:
            self.slots[at : at + room] = data[:room]
            self.slots[: len(data) - room] = data[room:]

    def step_back(self, clock: int, position: int) -> None:
        """Say, before the commit, that the record at `position` is below the one before it on a clock."""
        self.segment.words[fmt.CLOCKS + fmt.CLOCK_WORDS * clock + fmt.UNSORTED] = position + 1
