"""The chunks of a feed in order, as one reader sees them.

A chain is a table of sealed chunks (from the feed registry, then from seals as chunks are sealed)
and one open chunk at its end, the *tail*. `refresh` loads the tail's commit word and, when it is
sealed, goes on to the next: that is all a reader ever waits for. Chunks are mapped when somebody
touches them and at most `MAPPED` stay mapped, so a year of chunks does not exhaust descriptors;
arrays handed out keep their own mapping.

Searching is O(log) in the number of chunks: prefix maxima and suffix minima of a clock are monotone
even when the clock is not, so two binary searches bound the chunks that can hold an answer.
Rejected: a tree of intervals (more code, and stamps are nearly sorted in practice).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.chunk import Chunk, chunk_ids, chunk_name
from deepwater.errors import ChunkGoneError, CorruptFileError
from deepwater.feed_registry import Rows, make_row, read_rows, row_layout
from deepwater.files import Directory
from deepwater.layout import Layout

MAPPED = 64
"""Chunks kept mapped by a reader."""


class Chain:
    """The chunks of one feed. One thread at a time (readers are not shared between threads).

    Attributes
    ----------
    first, end : int
        Positions held, ``first <= position < end``; `end` as of the last `refresh`.
    """

    def __init__(self, directory: Directory, feed: str, layout: Layout, ids: fmt.Ids) -> None:
        self.directory, self.feed, self.layout, self.ids = directory, feed, layout, ids
        self._rows: Rows = read_rows(directory, feed, layout, ids)
        self._sealed = len(self._rows)
        self._bounds: dict[int, tuple[int, Rows, Rows]] = {}
        self._mapped: OrderedDict[int, Chunk] = OrderedDict()
        self._tail: Chunk | None = None
        self._tail_count = 0
        self.first = int(self._rows["base"][0]) if self._sealed else 0
        self.end = self.first
        self.refresh()

    @classmethod
    def again(cls, other: Chain) -> Chain:
        """Another chain over the same feed, for another thread."""
        return cls(
            Directory(".", parent=other.directory, path=other.directory.path),
            other.feed,
            other.layout,
            other.ids,
        )

    @property
    def tail(self) -> Chunk | None:
        """The chunk being appended to; None before the first writer."""
        return self._tail

    def __len__(self) -> int:
        return self._sealed + (self._tail is not None)

    def refresh(self) -> int:
        """Load what is published now. Returns `end`. No system call unless a chunk was sealed."""
        tail = self._tail
        if tail is None and (tail := self._open_tail()) is None:
            return self.end
        count, sealed = tail.state()
        while sealed:
            self._append_row(
                make_row(self.layout, tail.id, tail.capacity, tail.segment.identity.created_us, tail.seal())
            )
            self._keep(tail)
            self._tail = tail = self._successor(tail.id, tail.base + count)
            count, sealed = tail.state()
        self._tail_count = count
        self.end = tail.base + count
        return self.end

    def _open_tail(self) -> Chunk | None:
        """The first chunk after the table's; None when the feed has no chunk yet."""
        if self._sealed:
            row = self._rows[self._sealed - 1]
            self._tail = self._successor(int(row["chunk_id"]), int(row["base"] + row["count"]))
            return self._tail
        ids = chunk_ids(self.directory)
        chunk = Chunk.open(self.directory, ids[0], self.layout, self.ids) if ids else None
        if chunk is not None:
            self._tail, self.first = chunk, chunk.base
            self.end = max(self.end, chunk.base)
        return chunk

    def _successor(self, chunk_id: int, base: int) -> Chunk:
        """The chunk after a sealed one: it must be there, active, and continue the positions."""
        path = self.directory.name_of(chunk_name(chunk_id + 1))
        try:
            chunk = Chunk.open(self.directory, chunk_id + 1, self.layout, self.ids)
        except FileNotFoundError:
            raise self._missing(chunk_id + 1) from None
        found = "a spare" if chunk is None else f"position {chunk.base}"
        if chunk is None or chunk.base != base:
            reason = f"begins at {found}, expected position {base}, the end of chunk {chunk_id}"
            raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
        return chunk

    def _missing(self, chunk_id: int) -> Exception:
        path = self.directory.name_of(chunk_name(chunk_id))
        if self.directory.is_gone:
            return ChunkGoneError(f"feed {self.feed!r} was deleted: {path}", feed=self.feed, chunk_id=chunk_id)
        later = [i for i in chunk_ids(self.directory) if i > chunk_id]
        if later and later[0] > chunk_id + 1 and self._is_first_chunk(later[0]):
            return ChunkGoneError(f"{path}: removed by retention", feed=self.feed, chunk_id=chunk_id)
        reason = f"chunk {chunk_id} is missing"
        return CorruptFileError(f"{path}: {reason}; restore it from a copy", path=path, reason=reason)

    def _is_first_chunk(self, chunk_id: int) -> bool:
        return chunk_ids(self.directory)[:1] == [chunk_id]

    def _append_row(self, row: Rows) -> None:
        if self._sealed == len(self._rows):
            grown = np.zeros(max(16, 2 * self._sealed), row_layout(len(self.layout.clocks)).dtype)
            grown[: self._sealed] = self._rows[: self._sealed]
            self._rows = grown
        self._rows[self._sealed] = row[0]
        self._sealed += 1

    def _keep(self, chunk: Chunk) -> None:
        self._mapped[chunk.id] = chunk
        self._mapped.move_to_end(chunk.id)
        while len(self._mapped) > MAPPED:
            self._mapped.popitem(last=False)[1].close()

    def _chunk(self, index: int) -> Chunk:
        """The chunk of a row of the table (the last index is the tail)."""
        if index >= self._sealed:
            assert self._tail is not None
            return self._tail
        chunk_id = int(self._rows["chunk_id"][index])
        chunk = self._mapped.get(chunk_id)
        if chunk is None:
            try:
                chunk = Chunk.open(self.directory, chunk_id, self.layout, self.ids)
            except FileNotFoundError:
                raise self._missing(chunk_id) from None
            if chunk is None or (chunk.base, chunk.state()) != (
                int(self._rows["base"][index]),
                (int(self._rows["count"][index]), True),
            ):
                path = self.directory.name_of(chunk_name(chunk_id))
                reason = "is not the sealed chunk that the registry or its neighbours describe"
                raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
        self._keep(chunk)
        return chunk

    def base(self, index: int) -> int:
        """Position of the first record of a chunk."""
        return int(self._rows["base"][index]) if index < self._sealed else self._chunk(index).base

    def count(self, index: int) -> int:
        """Published records of a chunk, as of the last `refresh`."""
        return int(self._rows["count"][index]) if index < self._sealed else self._tail_count

    def chunk_id(self, index: int) -> int:
        """The id of a chunk."""
        return int(self._rows["chunk_id"][index]) if index < self._sealed else self._chunk(index).id

    def records(self, index: int) -> npt.NDArray[Any]:
        """The published records of a chunk: a read-only view, valid for as long as it is referenced.

        Raises
        ------
        ChunkGoneError
            Retention or deletion removed it before it was touched.
        CorruptFileError
            It is missing or damaged.
        """
        return self._chunk(index).records[: self.count(index)]

    def column(self, index: int, clock: int) -> npt.NDArray[np.uint64]:
        """A clock of the published records of a chunk; a strided view."""
        return self._chunk(index).columns[clock][: self.count(index)]

    def durable(self, index: int) -> int:
        """Records of a chunk that are known to be on the device."""
        return self._chunk(index).durable

    def index_of(self, position: int) -> int:
        """The chunk that holds a position, ``first <= position < end``."""
        if self._tail is not None and position >= self._tail.base:
            return self._sealed
        return int(self._rows["base"][: self._sealed].searchsorted(np.uint64(position), "right")) - 1

    def bounds(self, index: int, clock: int) -> fmt.ClockBounds:
        """Bounds of a clock over a chunk that holds records: exact if sealed or sorted, else a superset."""
        if index >= self._sealed:
            return self._chunk(index).bounds(clock, self._tail_count)
        row = self._rows[index]
        return fmt.ClockBounds(bool(row["unsorted"][clock]), int(row["min"][clock]), int(row["max"][clock]))

    def span(self, clock: int) -> tuple[int, int]:
        """The least and the greatest value of a clock over all records held (there is one); exact."""
        lows, highs = [], []
        if self._sealed and self.first < int(self._rows["base"][self._sealed - 1] + self._rows["count"][self._sealed - 1]):
            reach, floor = self._envelope(clock)
            lows, highs = [int(floor[0])], [int(reach[-1])]
        if self._tail_count:
            bounds = self.bounds(self._sealed, clock)
            if bounds.unsorted:  # the header's bounds run ahead
                column = self.column(self._sealed, clock)
                bounds = fmt.ClockBounds(True, int(column.min()), int(column.max()))
            lows.append(bounds.low)
            highs.append(bounds.high)
        return min(lows), max(highs)

    def candidates(self, clock: int, low: int, high: int) -> Iterator[int]:
        """The chunks that can hold a record with ``low <= clock <= high``, ascending."""
        if self._sealed:
            reach, floor = self._envelope(clock)
            start = int(reach.searchsorted(np.uint64(low)))
            stop = int(floor.searchsorted(np.uint64(high), "right"))
            lows, highs = self._rows["min"][start:stop, clock], self._rows["max"][start:stop, clock]
            hit = (lows <= np.uint64(high)) & (highs >= np.uint64(low)) & (self._rows["count"][start:stop] > 0)
            yield from (np.flatnonzero(hit) + start).tolist()
        if self._tail_count:
            bounds = self.bounds(self._sealed, clock)
            if bounds.low <= high and bounds.high >= low:
                yield self._sealed

    def reach(self, clock: int, index: int) -> int:
        """The greatest value of a clock over the chunks up to `index` inclusive (a superset in the tail)."""
        if index >= self._sealed:
            return max(self.bounds(index, clock).high, self.reach(clock, index - 1) if index else 0)
        return int(self._envelope(clock)[0][index])

    def _envelope(self, clock: int) -> tuple[Rows, Rows]:
        """Prefix maxima and suffix minima of a clock over the sealed chunks; both ascend."""
        cached = self._bounds.get(clock)
        if cached is None or cached[0] != self._sealed:
            rows = self._rows[: self._sealed]
            held = rows["count"] > 0
            reach = np.maximum.accumulate(np.where(held, rows["max"][:, clock], np.uint64(0)))
            floor = np.minimum.accumulate(np.where(held, rows["min"][:, clock], np.uint64(2**64 - 1))[::-1])[::-1]
            cached = self._bounds[clock] = (self._sealed, reach, np.ascontiguousarray(floor))
        return cached[1], cached[2]
