"""The chunks of a feed in order, as one reader sees them.

A chain is a table of sealed chunks (from the feed registry, then from seals as chunks are sealed)
and one open chunk at its end, the *tail*. `refresh` loads the tail's commit word and, when it is
sealed, goes on to the next: that is all a reader ever waits for. Chunks are mapped when somebody
touches them and at most `MAPPED` stay mapped, so a year of chunks does not exhaust descriptors;
arrays handed out keep their own mapping.

Searching is O(log) in the number of chunks: prefix maxima and suffix minima of a clock are monotone
even when the clock is not, so two binary searches bound the chunks that can hold an answer.
The table is Python lists: a lookup in one costs less than a call into NumPy, and a year of chunks is
thousands, not millions. Rejected: a tree of intervals (more code; stamps are nearly sorted in practice).
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.chunk import Chunk, chunk_ids, chunk_name
from deepwater.errors import ChunkGoneError, CorruptFileError, FeedNotFoundError
from deepwater.feed_registry import Rows, read_rows
from deepwater.files import Directory, mappings_to_keep, more_descriptors
from deepwater.held import Held
from deepwater.layout import Layout
from deepwater.ring_files import SharedPlace

MAPPED = 64
"""Chunks kept mapped by a reader; fewer where few files may be open."""
_MAX_US = 2**64 - 1
T = TypeVar("T")
_STARVED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class _ClockTable:
    """One clock of the sealed chunks, as lists by chunk; a chunk without records can hold nothing."""

    __slots__ = ("floor", "highs", "in_order", "lows", "reach", "unsorted")

    def __init__(self, rows: Rows, clock: int) -> None:
        held = rows["count"] > 0
        lows = np.where(held, rows["min"][:, clock], np.uint64(_MAX_US))
        highs = np.where(held, rows["max"][:, clock], np.uint64(0))
        self.lows: list[int] = lows.tolist()
        self.highs: list[int] = highs.tolist()
        self.unsorted: list[bool] = (rows["unsorted"][:, clock] != 0).tolist()
        self.reach: list[int] = np.maximum.accumulate(highs).tolist()
        self.floor: list[int] = np.minimum.accumulate(lows[::-1])[::-1].tolist()
        steps_back = bool((lows[held][1:] < highs[held][:-1]).any())
        self.in_order = not steps_back and not any(self.unsorted)

    def enter(self, index: int, bounds: fmt.ClockBounds, held: bool) -> None:
        """Make `bounds` those of the last chunk, number `index`."""
        for column in (self.lows, self.highs, self.unsorted, self.reach, self.floor):
            del column[index:]
        low, high = (bounds.low, bounds.high) if held else (_MAX_US, 0)
        if held and (bounds.unsorted or (self.reach and low < self.reach[-1])):
            self.in_order = False
        self.lows.append(low)
        self.highs.append(high)
        self.unsorted.append(bounds.unsorted)
        self.reach.append(max(high, self.reach[-1]) if self.reach else high)
        at = bisect_right(self.floor, low)
        self.floor[at:] = [low] * (index - at)  # one step: an interrupt leaves it done or not
        self.floor.append(low)


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

    def __init__(self, directory: Directory, place: SharedPlace, feed: str, layout: Layout, ids: fmt.Ids) -> None:
        self.directory, self.place, self.feed, self.layout, self.ids = directory, place, feed, layout, ids
        self._rows = read_rows(directory, feed, layout, ids)
        self._seals: list[fmt.Seal] = []  # of chunks sealed since
        self._bases: list[int] = self._rows["base"].tolist()
        self._counts: list[int] = self._rows["count"].tolist()
        self._first_id = int(self._rows["chunk_id"][0]) if len(self._rows) else 0
        self._clocks: dict[int, _ClockTable] = {}
        self._mapped: OrderedDict[int, Chunk] = OrderedDict()
        self._most = mappings_to_keep(MAPPED)
        self.tail: Chunk | None = None
        self._tail_count = 0
        self.first = self._bases[0] if self._bases else 0
        self.end = self.first
        self.refresh()

    def again(self) -> Chain:
        """Another chain over the same feed, for another thread."""
        again = Directory(".", parent=self.directory, path=self.directory.path)
        return Chain(again, self.place, self.feed, self.layout, self.ids)

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
        directory = self.directory
        return sum(os.stat(n, dir_fd=directory.fd, follow_symlinks=False).st_blocks * 512 for n in directory.names())

    def answer(self, question: Callable[[Held], T]) -> T:
        """Ask something of what is published now."""
        self.refresh()
        return question(self)

    def __len__(self) -> int:
        return len(self._bases) + (self.tail is not None)

    # --- what is published ---------------------------------------------------------------------

    def refresh(self) -> int:
        """Load what is published now. Returns `end`. No system call unless a chunk was sealed."""
        tail = self.tail
        if tail is None and (tail := self._open_tail()) is None:
            return self.end
        count, sealed = tail.state()
        while sealed:
            seal, following = tail.seal(), self._successor(tail.id, tail.base + count)
            self._append(tail.id - self._first_id, seal)
            self._keep(tail.id - self._first_id, tail)
            self.tail = tail = following
            count, sealed = tail.state()
        self._tail_count = count
        self.end = tail.base + count
        return self.end

    def _open_tail(self) -> Chunk | None:
        """The first chunk after the table's; None when the feed has no chunk yet."""
        if self._bases:
            last = len(self._bases) - 1
            self.tail = self._successor(self._first_id + last, self._bases[last] + self._counts[last])
            return self.tail
        ids = chunk_ids(self.directory)
        if ids and ids[0] != 1:
            raise self._missing(1)
        chunk = self._open_chunk(1) if ids else None
        if chunk is not None:
            self.tail, self._first_id, self.first = chunk, chunk.id, chunk.base
            self.end = max(self.end, chunk.base)
        return chunk

    def _successor(self, chunk_id: int, base: int) -> Chunk:
        """The chunk after a sealed one: it must be there, active, and continue the positions."""
        chunk = self._open_chunk(chunk_id + 1)
        if chunk is None or chunk.base != base:
            found = "a spare" if chunk is None else f"position {chunk.base}"
            raise self._corrupt(
                chunk_id + 1, f"begins at {found}, expected position {base}, the end of chunk {chunk_id}"
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
            Always 0: records of a chunk are not overwritten.

        Raises
        ------
        ChunkGoneError
            The position is older than what is held.
        """
        if position >= self.end and self.refresh() <= position:
            return None, position, 0
        if position < self.first:
            raise ChunkGoneError(
                f"feed {self.feed!r}: position {position} is gone; the oldest record held is {self.first}: "
                f"start there with position={self.first}", feed=self.feed, chunk_id=None,
            )  # fmt: skip
        index = self.index_of(position)
        base = self.base(index)
        stop = base + self.count(index)
        if most is not None:
            stop = min(stop, position + most)
        return self.records(index)[position - base : stop - base], stop, 0

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

    def _keep(self, index: int, chunk: Chunk) -> None:
        self._mapped[index] = chunk
        self._mapped.move_to_end(index)
        while len(self._mapped) > self._most:
            self._mapped.popitem(last=False)[1].close()

    def _chunk(self, index: int) -> Chunk:
        """A chunk, mapped."""
        if index >= len(self._bases):
            assert self.tail is not None
            return self.tail
        chunk = self._mapped.get(index)
        if chunk is None:
            chunk = self._open(index)
        self._keep(index, chunk)
        return chunk

    def _open_chunk(self, chunk_id: int) -> Chunk | None:
        """Open a chunk, giving back what this reader keeps mapped if the system has no more to give."""
        try:
            try:
                return Chunk.open(self.directory, chunk_id, self.layout, self.ids)
            except OSError as error:
                if error.errno not in _STARVED:
                    raise
                while self._mapped:
                    self._mapped.popitem()[1].close()
                more_descriptors()
                return Chunk.open(self.directory, chunk_id, self.layout, self.ids)
        except FileNotFoundError:
            raise self._missing(chunk_id) from None

    def _open(self, index: int) -> Chunk:
        chunk_id = self._first_id + index
        chunk = self._open_chunk(chunk_id)
        if chunk is None or (chunk.base, chunk.state()) != (self._bases[index], (self._counts[index], True)):
            raise self._corrupt(chunk_id, "is not the sealed chunk that the registry or its neighbours describe")
        return chunk

    def _corrupt(self, chunk_id: int, reason: str) -> CorruptFileError:
        path = self.directory.name_of(chunk_name(chunk_id))
        return CorruptFileError(f"{path}: {reason}", path=path, reason=reason)

    def _missing(self, chunk_id: int) -> ChunkGoneError | CorruptFileError:
        path = self.directory.name_of(chunk_name(chunk_id))
        if self.directory.is_gone:
            return ChunkGoneError(f"feed {self.feed!r} was deleted: {path}", feed=self.feed, chunk_id=chunk_id)
        return self._corrupt(chunk_id, f"chunk {chunk_id} is missing; restore it from a copy")

    def base(self, index: int) -> int:
        """Position of the first record of a chunk."""
        return self._bases[index] if index < len(self._bases) else self._chunk(index).base

    def count(self, index: int) -> int:
        """Published records of a chunk, as of the last `refresh`."""
        return self._counts[index] if index < len(self._counts) else self._tail_count

    def chunk_id(self, index: int) -> int:
        """The id of a chunk."""
        return self._first_id + index

    def durable(self, index: int) -> int:
        """Records of a chunk that are known to be on the device."""
        return self._chunk(index).durable

    def records(self, index: int) -> npt.NDArray[Any]:
        """The published records of a chunk: a read-only view, valid for as long as it is referenced.

        Raises
        ------
        ChunkGoneError
            The feed was deleted before it was touched.
        CorruptFileError
            It is missing or damaged.
        """
        return self._chunk(index).records[: self.count(index)]

    def column(self, index: int, clock: int) -> npt.NDArray[np.uint64]:
        """A clock of the published records of a chunk; a strided view."""
        return self._chunk(index).columns[clock][: self.count(index)]

    def index_of(self, position: int) -> int:
        """The chunk that holds a position, ``first <= position < end``."""
        if self.tail is not None and position >= self.tail.base:
            return len(self._bases)
        return bisect_right(self._bases, position) - 1

    # --- clocks ----------------------------------------------------------------------------------

    def _clock(self, clock: int) -> _ClockTable:
        table = self._clocks.get(clock)
        if table is None:
            table = _ClockTable(self._rows, clock)
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
