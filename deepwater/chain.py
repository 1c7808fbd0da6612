"""The chunks of a feed in order, as one reader sees them.

A chain is a table of sealed chunks (from the feed registry, then from seals as chunks are sealed)
and one open chunk at its end, the *tail*. `refresh` loads the tail's commit word and, when it is
sealed, goes on to the next: that is all a reader ever waits for. Chunks are mapped when somebody
touches them and at most `MAPPED` stay mapped, so a year of chunks does not exhaust descriptors;
arrays handed out keep their own mapping.

Retention lets the oldest chunks go under a reader (`deepwater.retain`). It says so in ``oldest.json`` and then in a
word of the tail, so `refresh` notices with one more load; a reader that has just moved on to a new tail, where nobody
may have said it, looks at the file. A chunk that is opened and is not there is explained by that file, or missing.
What is known of chunks is then cut at the front, so indexes are those of one look: whatever is kept longer (a part
of a window) names its chunk by its id. More than 400 lines because all of this is one state.

Searching is O(log) in the number of chunks: prefix maxima and suffix minima of a clock are monotone
even when the clock is not, so two binary searches bound the chunks that can hold an answer.
The table is Python lists: a lookup in one costs less than a call into NumPy, and a year of chunks is
thousands, not millions. Rejected: a tree of intervals (more code; stamps are nearly sorted in practice).
"""

from __future__ import annotations

import contextlib
import errno
import os
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.checksums import check_blocks, make_sure
from deepwater.chunk import Chunk, chunk_ids, chunk_name, ends_a_copy, refuse_to_end_before
from deepwater.clocktable import ClockTable
from deepwater.errors import ChunkGoneError, CorruptFileError, FeedNotFoundError
from deepwater.feed_registry import Rows, read_rows
from deepwater.files import Directory, mappings_to_keep, more_descriptors
from deepwater.held import Held
from deepwater.layout import Layout
from deepwater.oldest import ALL, OLDEST, Oldest, read_oldest
from deepwater.ring_files import SharedPlace
from deepwater.wording import count

MAPPED = 64
"""Chunks kept mapped by a reader; fewer where few files may be open."""
_MAX_US = 2**64 - 1
T = TypeVar("T")
_STARVED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Chain:
    """The chunks of one feed. One thread at a time (readers are not shared between threads).

    Chunks are named by their index: 0 is the oldest held, the last is the tail.

    Attributes
    ----------
    first, end : int
        Positions held, ``first <= position < end``; `end` as of the last `refresh`.
    tail : Chunk or None
        The chunk being appended to; None before the first writer.
    """

    def __init__(
        self, directory: Directory, place: SharedPlace, feed: str, layout: Layout, ids: fmt.Ids, verify: bool = False
    ) -> None:
        self.directory, self.place, self.feed, self.layout, self.ids = directory, place, feed, layout, ids
        self._verify = verify
        self._rows: Rows
        self._seals: list[fmt.Seal]  # of chunks sealed since
        self._bases: list[int]
        self._counts: list[int]
        self._clocks: dict[int, ClockTable]
        self._oldest: Oldest
        self._mapped: OrderedDict[int, Chunk] = OrderedDict()  # by id
        self._most = mappings_to_keep(MAPPED)
        self.tail: Chunk | None = None
        self._tail_count = self._told = self.first = self.end = 0
        self._begin()
        self.refresh()

    def _begin(self) -> None:
        """Begin at the oldest chunk held, with what the registry knows; the tail is to be found."""
        oldest = read_oldest(self.directory, self.ids)
        rows = read_rows(self.directory, self.feed, self.layout, self.ids, oldest)
        bases, counts = rows["base"].tolist(), rows["count"].tolist()
        end = max(self.end, bases[-1] + counts[-1] if bases else oldest.position)
        # Nothing is called from here on, so that an interrupt finds all of it or nothing.
        self._oldest, self._rows, self._bases, self._counts = oldest, rows, bases, counts
        self._seals, self._clocks, self.tail, self._tail_count = [], {}, None, 0
        self.first, self.end = oldest.position, end

    def _forget(self, oldest: Oldest) -> None:
        """Leave out the chunks before `oldest`, which is among those known."""
        assert self.tail is not None
        gone = oldest.chunk_id - self._oldest.chunk_id
        base = self._bases[gone] if gone < len(self._bases) else self.tail.base
        if base != oldest.position:
            path, reason = self.directory.name_of(OLDEST), f"chunk {oldest.chunk_id} begins at position {base}"
            raise CorruptFileError(f"{path}: {reason}, expected {oldest.position}", path=path, reason=reason)
        rows, bases, counts = self._rows[gone:], self._bases[gone:], self._counts[gone:]
        seals = self._seals[max(0, gone - len(self._rows)) :]
        # As in `_begin`.
        self._oldest, self._rows, self._bases, self._counts = oldest, rows, bases, counts
        self._seals, self._clocks, self.first = seals, {}, oldest.position
        for chunk_id in [chunk_id for chunk_id in self._mapped if chunk_id < oldest.chunk_id]:
            self._mapped.pop(chunk_id).close()  # who maps a file keeps its blocks on the disk

    def again(self) -> Chain:
        """Another chain over the same feed, for another thread."""
        again = Directory(".", parent=self.directory, path=self.directory.path)
        return Chain(again, self.place, self.feed, self.layout, self.ids, self._verify)

    @property
    def incarnation(self) -> str:
        """Which life of the feed this is."""
        return self.ids.incarnation.hex()

    def tail_incarnation(self) -> str:
        """As `incarnation`."""
        return self.incarnation

    @property
    def path(self) -> str:
        """Where the files are."""
        return self.directory.path

    def stored_bytes(self) -> int:
        """Bytes on disk of all the feed's files."""
        total = 0
        for name in self.directory.names():
            with contextlib.suppress(FileNotFoundError):  # just made, under a name for the time being
                total += os.stat(name, dir_fd=self.directory.fd, follow_symlinks=False).st_blocks * 512
        return total

    def answer(self, question: Callable[[Held], T]) -> T:
        """Ask something of what is published now; again if retention took away what it needed."""
        while True:
            self.refresh()
            try:
                return question(self)
            except ChunkGoneError:
                if not self._notice():
                    raise

    def __len__(self) -> int:
        return len(self._bases) + (self.tail is not None)

    # --- what is published ---------------------------------------------------------------------

    def refresh(self) -> int:
        """Load what is published now. Returns `end`. No system call unless a chunk was sealed, or some were let go."""
        tail = self.tail
        if tail is not None and tail.segment.words[fmt.OLDEST] == self._told:
            count, sealed = tail.state()
            if not sealed:
                self._tail_count = count
                self.end = tail.base + count
                return self.end
        return self._catch_up()

    def _catch_up(self) -> int:
        """Go on to the present tail, and see what retention let go."""
        while True:
            try:
                tail = self._go_to_tail()
                if tail is None:
                    return self.end
                # The word first: a prune that the file does not tell of yet changes the word after it.
                self._told = tail.segment.words[fmt.OLDEST]
                if not self._notice():
                    return self.end
            except ChunkGoneError:
                if not self._notice():
                    raise

    def _go_to_tail(self) -> Chunk | None:
        tail = self.tail
        if tail is None and (tail := self._open_tail()) is None:
            return None
        count, sealed = tail.state()
        while sealed:
            seal, following = tail.seal(), self._successor(tail.id, tail.base + count)
            if following is None:
                break
            self._append(tail.id - self._oldest.chunk_id, seal)
            self._keep(tail)
            self.tail = tail = following
            count, sealed = tail.state()
        self._tail_count = count
        self.end = tail.base + count
        return tail

    def _notice(self) -> bool:
        """Leave out what retention has let go since it was looked at; whether it has let go any."""
        oldest = read_oldest(self.directory, self.ids)
        if oldest.chunk_id <= self._oldest.chunk_id:
            return False
        if self.tail is None or oldest.chunk_id > self.tail.id:
            self._begin()
        else:
            self._forget(oldest)
        return True

    def _open_tail(self) -> Chunk | None:
        """The first chunk after the table's; None when the feed has no chunk yet."""
        oldest = self._oldest
        if self._bases:
            last = len(self._bases) - 1
            self.tail = self._successor(oldest.chunk_id + last, self._bases[last] + self._counts[last])
            if self.tail is None or not self.tail.is_of_now:
                self._cut_to_proven()
        elif oldest != ALL:
            self.tail = self._successor(oldest.chunk_id - 1, oldest.position)
        elif chunk_ids(self.directory):
            self.tail = self._open_chunk(1)
            if self.tail is not None and self.tail.base:
                found, self.tail = self.tail.base, None
                raise self._corrupt(1, f"begins at position {found}, expected position 0")
        return self.tail

    def _cut_to_proven(self) -> None:
        """The machine went down, or this is a copy: end at the first sealed chunk that is not proven whole.

        A chunk that is sure has only such before it: syncs go from the oldest chunk on.
        """
        for index in reversed(range(len(self._bases))):
            chunk = self._open_chunk(self._oldest.chunk_id + index)
            whole = chunk is not None and chunk.state() == (self._counts[index], True)
            if chunk is not None and whole and not chunk.is_doubted:
                break
            if not whole:
                self.end = self._bases[index]
                self._rows = self._rows[:index]
                del self._bases[index:], self._counts[index:]
                self.tail = chunk

    def _successor(self, chunk_id: int, base: int) -> Chunk | None:
        """The chunk after a sealed one: it must be there and continue the positions.

        None if it is a spare: it was made part of the feed before the seal, so the machine went down in between. And
        if it did not get into a copy.
        """
        chunk = self._open_chunk(chunk_id + 1)
        if chunk is not None and chunk.base != base:
            raise self._corrupt(
                chunk_id + 1, f"begins at position {chunk.base}, expected position {base}, the end of chunk {chunk_id}"
            )
        return chunk

    def _append(self, index: int, seal: fmt.Seal) -> None:
        """Enter a sealed chunk. Interrupted anywhere, doing it again gives the same table."""
        del self._seals[index - len(self._rows) :], self._counts[index:], self._bases[index:]
        self._seals.append(seal)
        self._counts.append(seal.records)
        self._bases.append(seal.base_position)
        for clock, table in self._clocks.items():
            table.enter(index, seal.clocks[clock], seal.records > 0)

    # --- following -----------------------------------------------------------------------------

    def take(self, position: int, most: int | None) -> tuple[npt.NDArray[Any] | None, int, int]:
        """What is there of one chunk from a position on, at most so many records.

        Returns
        -------
        records : numpy.ndarray or None
            A view; None if nothing is there.
        next : int
            The position after them.
        lost : int
            How many records from `position` on were let go by retention before this.

        Raises
        ------
        ChunkGoneError
            The feed was deleted.
        """
        if position >= self.end and self.refresh() <= position:
            return None, position, 0
        while True:
            start = max(position, self.first)
            if start >= self.end:
                return None, start, start - position
            index = self.index_of(start)
            base = self.base(index)
            stop = base + self.count(index)
            if most is not None:
                stop = min(stop, start + most)
            try:
                return self.records(index)[start - base : stop - base], stop, start - position
            except ChunkGoneError:
                if not self._notice():
                    raise
                self.refresh()

    def why_lost(self, lost: int) -> str:
        """What to tell a follower that was overtaken."""
        return (
            f"retention let {count(lost, 'record')} go before somebody read them: read faster, keep more (the setting "
            f"retain), or take on_lap='skip'"
        )

    def close(self) -> None:
        """Let go of the files. Arrays handed out stay valid."""
        if self.tail is not None:
            self.tail.close()
            self.tail = None  # its arrays would keep the mapping, and its descriptor
        while self._mapped:
            self._mapped.popitem()[1].close()
        self.directory.close()

    def watch(self) -> tuple[memoryview, int] | None:
        """The words and the commit word as last loaded: a new value means there is something to `take`."""
        return (self.tail.segment.words, self._tail_count) if self.tail is not None else None

    def check_there(self) -> None:
        """Raise if the feed was deleted. Takes a system call: for who waits."""
        if self.directory.is_gone:
            raise FeedNotFoundError(f"feed {self.feed!r} was deleted while it was followed", feed=self.feed)

    # --- chunks ----------------------------------------------------------------------------------

    def _keep(self, chunk: Chunk) -> None:
        self._mapped[chunk.id] = chunk
        self._mapped.move_to_end(chunk.id)
        while len(self._mapped) > self._most:
            self._mapped.popitem(last=False)[1].close()

    def _chunk(self, index: int) -> Chunk:
        """A chunk, mapped."""
        if index >= len(self._bases):
            assert self.tail is not None
            return self.tail
        return self._sealed(self.chunk_id(index), self._bases[index], self._counts[index])

    def _sealed(self, chunk_id: int, base: int, count: int) -> Chunk:
        """A chunk that is sealed, mapped: what it holds is known."""
        chunk = self._mapped.get(chunk_id)
        if chunk is None:
            chunk = self._open_chunk(chunk_id)
            if chunk is None or (chunk.base, chunk.state()) != (base, (count, True)):
                raise self._corrupt(chunk_id, "is not the sealed chunk that the registry or its neighbours describe")
        self._keep(chunk)
        return chunk

    def _open_chunk(self, chunk_id: int) -> Chunk | None:
        """Open a chunk, giving back what this reader keeps mapped if the system has no more to give."""
        try:
            try:
                chunk = Chunk.open(self.directory, chunk_id, self.layout, self.ids)
            except OSError as error:
                if error.errno not in _STARVED:
                    raise
                while self._mapped:
                    self._mapped.popitem()[1].close()
                more_descriptors()
                chunk = Chunk.open(self.directory, chunk_id, self.layout, self.ids)
        except FileNotFoundError:
            if not ends_a_copy(self.directory, chunk_id - 1, self.layout, self.ids):
                raise self._missing(chunk_id) from None
            return None
        if chunk is not None:
            make_sure(self.directory, chunk)
            if self._verify:
                check_blocks(self.directory, chunk)
        if chunk is None or (chunk.is_doubted and not chunk.state()[1]):
            refuse_to_end_before(self.directory, chunk_id, self.ids)
        return chunk

    def _corrupt(self, chunk_id: int, reason: str) -> CorruptFileError:
        path = self.directory.name_of(chunk_name(chunk_id))
        return CorruptFileError(f"{path}: {reason}", path=path, reason=reason)

    def _missing(self, chunk_id: int) -> ChunkGoneError | CorruptFileError:
        path = self.directory.name_of(chunk_name(chunk_id))
        if self.directory.is_gone:
            return ChunkGoneError(f"feed {self.feed!r} was deleted: {path}", feed=self.feed, chunk_id=chunk_id)
        oldest = read_oldest(self.directory, self.ids)
        if chunk_id < oldest.chunk_id:
            return ChunkGoneError(
                f"feed {self.feed!r}: chunk {chunk_id} was let go by retention before it was read; the oldest record "
                f"held is {oldest.position}: read from there, or keep more (the setting retain)",
                feed=self.feed, chunk_id=chunk_id, first=oldest.position,
            )  # fmt: skip
        return self._corrupt(chunk_id, f"chunk {chunk_id} is missing; restore it from a copy, or see deepwater repair")

    def base(self, index: int) -> int:
        """Position of the first record of a chunk."""
        return self._bases[index] if index < len(self._bases) else self._chunk(index).base

    def count(self, index: int) -> int:
        """Published records of a chunk, as of the last `refresh`."""
        return self._counts[index] if index < len(self._counts) else self._tail_count

    def chunk_id(self, index: int) -> int:
        """The id of a chunk."""
        return self._oldest.chunk_id + index

    def may_be_torn(self, index: int) -> bool:
        """Whether marks of a chunk may be damaged without anybody's fault: it came from a power cut, or is a copy."""
        chunk = self._chunk(index)
        return chunk.is_doubted or (not chunk.state()[1] and not chunk.is_of_now)

    def durable(self, index: int) -> int:
        """Records of a chunk that are known to be on the device; never more than it shows."""
        return min(self._chunk(index).durable, self.count(index))

    def records(self, index: int) -> npt.NDArray[Any]:
        """The published records of a chunk: a read-only view, valid for as long as it is referenced.

        Raises
        ------
        ChunkGoneError
            The feed was deleted, or retention let the chunk go, before it was touched.
        CorruptFileError
            It is missing or damaged.
        """
        return self._chunk(index).records[: self.count(index)]

    def opener(self, index: int) -> Callable[[], npt.NDArray[Any]]:
        """A way to the records of a chunk as they are published now, for later: it names the chunk by its id."""
        if index < len(self._bases):
            return partial(self._sealed_records, self.chunk_id(index), self._bases[index], self._counts[index])
        assert self.tail is not None
        return partial(self._tail_records, self.tail.id, self._tail_count)

    def _sealed_records(self, chunk_id: int, base: int, count: int) -> npt.NDArray[Any]:
        return self._sealed(chunk_id, base, count).records[:count]

    def _tail_records(self, chunk_id: int, count: int) -> npt.NDArray[Any]:
        """Of what was the tail: it may have been sealed since."""
        chunk = self._mapped.get(chunk_id) or self.tail
        if chunk is None or chunk.id != chunk_id:
            chunk = self._open_chunk(chunk_id)
            if chunk is None or chunk.state()[0] < count:
                raise self._corrupt(chunk_id, f"holds less than the {count} records that were published in it")
            self._keep(chunk)
        return chunk.records[:count]

    def column(self, index: int, clock: int) -> npt.NDArray[np.uint64]:
        """A clock of the published records of a chunk; a strided view."""
        return self._chunk(index).columns[clock][: self.count(index)]

    def index_of(self, position: int) -> int:
        """The chunk that holds a position, ``first <= position < end``."""
        if self.tail is not None and position >= self.tail.base:
            return len(self._bases)
        return bisect_right(self._bases, position) - 1

    # --- clocks ----------------------------------------------------------------------------------

    def _clock(self, clock: int) -> ClockTable:
        table = self._clocks.get(clock)
        if table is None:
            table = ClockTable(self._rows, clock)
            for index, seal in enumerate(self._seals, len(self._rows)):
                table.enter(index, seal.clocks[clock], seal.records > 0)
            self._clocks[clock] = table
        return table

    def bounds(self, index: int, clock: int) -> fmt.ClockBounds:
        """Bounds of a clock over a chunk that holds records: exact if sealed or sorted, else a superset."""
        if index >= len(self._bases):
            return self._chunk(index).bounds(clock, self._tail_count)
        table = self._clock(clock)
        return fmt.ClockBounds(table.unsorted[index], table.lows[index], table.highs[index])

    def span(self, clock: int) -> tuple[int, int]:
        """The least and the greatest value of a clock over all records held (there is one); exact."""
        table = self._clock(clock)
        low, high = (table.floor[0], table.reach[-1]) if table.floor else (_MAX_US, 0)
        if self._tail_count:
            bounds = self.bounds(len(self._bases), clock)
            if bounds.unsorted:  # the header's bounds run ahead
                column = self.column(len(self._bases), clock)
                bounds = fmt.ClockBounds(True, int(column.min()), int(column.max()))
            low, high = min(low, bounds.low), max(high, bounds.high)
        return low, high

    def candidates(self, clock: int, low: int, high: int) -> Iterator[int]:
        """The chunks that can hold a record with ``low <= clock <= high``, ascending."""
        table = self._clock(clock)
        lows, highs = table.lows, table.highs
        for index in range(bisect_left(table.reach, low), bisect_right(table.floor, high)):
            if lows[index] <= high and highs[index] >= low:
                yield index
        if self._tail_count:
            bounds = self.bounds(len(self._bases), clock)
            if bounds.low <= high and bounds.high >= low:
                yield len(self._bases)

    def is_in_order(self, clock: int) -> bool:
        """Whether a clock is known never to step back over all records held."""
        table = self._clock(clock)
        if not table.in_order or not self._tail_count:
            return table.in_order
        tail = self.bounds(len(self._bases), clock)
        return not tail.unsorted and (not table.reach or table.reach[-1] <= tail.low)

    def reach(self, clock: int, index: int) -> int:
        """The greatest value of a clock over the chunks up to `index` inclusive (a superset in the tail)."""
        if index >= len(self._bases):
            return max(self.bounds(index, clock).high, self.reach(clock, index - 1) if index else 0)
        return self._clock(clock).reach[index]
