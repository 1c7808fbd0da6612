"""The writer of a durable feed: whole writes into chunks, each visible by one store.

Every write copies its records into unpublished slots, says what it must of the clocks, and publishes
with one 8-byte store. A write that does not fit goes on in new chunks, published from the last to the
first, so the store that seals the first chunk shows all of it. What holds for every writer (checks, staging,
what happens after a write that failed) is in `deepwater.feed_writer`.

More than 400 lines because the steps of one write belong side by side.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.chunk import (
    FIRST_CHUNK_BYTES,
    PREFAULT_BYTES,
    PWRITE_BYTES,
    WritableChunk,
    chunk_name,
    create_chunk,
)
from deepwater.clockstats import FEW_ROWS, GUARD, HIGH, LOW, SORTED, ClockStats, stamps_of
from deepwater.errors import DurabilityError, RecordError
from deepwater.feed_files import Feed, read_settings, write_settings
from deepwater.feed_registry import FeedRegistry, make_row
from deepwater.feed_writer import _NOT_PLAIN, FeedWriter, check_size, never_pack
from deepwater.files import Directory
from deepwater.index import GAP, SNAPSHOT, UNKNOWN, MarkIndex, index_name, pack_mark
from deepwater.keeper import MOST_BEHIND, Keeper, SyncFailedError
from deepwater.locks import Lock
from deepwater.recover import recover
from deepwater.spare import Spare
from deepwater.timestamps import instant, now_us
from deepwater.wake import WAITING, Bell

_NEVER = 2**63
QUICK_S = 2.0
"""A chunk that filled within this time has its successor's successor prepared at once."""
def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


class Writer(FeedWriter):
    """Appends records to a durable feed. Made by `Platform.create_writer`; see `FeedWriter` for what holds of it."""

    def __init__(self, directory: Directory, feed: Feed, lock: Lock, bell: Bell) -> None:
        super().__init__(directory, feed, lock, bell)
        self._pack_into = struct.Struct(feed.layout.struct_format).pack_into if self._is_plain else never_pack
        names = list(feed.layout.names)
        self._clock_args = [names.index(name) for name in feed.layout.clocks]
        self._registry = FeedRegistry(directory, feed.name, feed.layout, feed.ids)
        self._spare: Spare | None = None
        self._is_refused = False
        self._always = feed.settings.durability == "always"
        self._keeper = Keeper(directory, feed, self._sync_failed)
        self._chunk: WritableChunk
        self._marks: MarkIndex
        self._stats: ClockStats
        self._words: memoryview
        self._buffer: memoryview
        self._publish: Callable[[int], None]
        self._clocks: list[tuple[int, int, list[int]]]
        self._offset, self._prepare_at, self._rotate_at = 0, 0, 0
        self._entered = -math.inf
        self._begin()
        self._keeper.start(self._chunk.id)

    @property
    def chunk_id(self) -> int:
        """The id of the chunk that is appended to: another one after each rotation. Asks nobody."""
        return self._chunk.id

    # --- writing -------------------------------------------------------------------------------

    def write_values(self, *values: Any, create_index: bool = False) -> int:
        """Append one record.

        Parameters
        ----------
        *values
            In field order, padding left out.
        create_index
            Mark it as the first record of a snapshot of unknown length (needs `index_playback`).

        Returns
        -------
        int
            Its position.

        Raises
        ------
        RecordError
            A value does not fit its field, or their number is wrong; nothing is written.
        StorageFullError, DurabilityError, ClosedError
        """
        with self._mutex:
            if self._unsure:
                self._check()
            self._unsure = True
            count, now = self._count, time.time_ns() // 1000
            if create_index or count >= self._limit or now >= self._rotate_at or self._staged:
                self._unsure = False
                return self._append_one(values, create_index)
            stamps: Sequence[Any] = values
            at = self._offset + count * self._size
            try:
                self._pack_into(self._buffer, at, *values)
                for column, accepted in self._strict:
                    if type(values[column]) not in accepted:
                        stamps = self._put_checked(at, values)
                        break
            except _NOT_PLAIN:
                stamps = self._put_checked(at, values)
            try:
                for column, clock, state in self._clocks:
                    value = stamps[column]
                    if type(value) is not int:  # arithmetic on a NumPy scalar would wrap
                        value = int(value)
                    if value >= state[HIGH]:
                        state[HIGH] = value
                        if value > state[GUARD]:
                            self._stats.take_one(clock, value, count)
                    elif state[SORTED] or value < state[LOW]:
                        self._stats.take_one(clock, value, count)
            except TypeError:  # an integer to `struct`, but nothing that can be compared
                self._settle()
                return self._append_one(values, False)
            self._words[fmt.HEARTBEAT] = now
            self._publish(count + 1)
            self._count = count + 1
            position = self._base + count
            self._unsure = False  # from here on a signal handler may write
            if self._waiting[WAITING]:
                self._bell.ring()
            if self._always:
                self._bring_to_device()
            return position

    def _put_checked(self, at: int, values: tuple[Any, ...]) -> list[Any]:
        """Put one record into its slot with all checks and conversions; returns its values, clocks as integers."""
        try:
            record = self._packer.pack_values(values)
        except RecordError:
            self._unsure = False  # nothing has changed
            raise
        self._buffer[at : at + self._size] = record
        stamps = list(values)
        for (column, _, _), stamp in zip(self._clocks, stamps_of(record, self.layout.clock_offsets), strict=True):
            stamps[column] = stamp
        return stamps

    def _append_few(self, raw: bytes, rows: int) -> int:
        """As `_append`, for some rows that fit where it was made ready: the same steps, and nothing besides."""
        with self._mutex:
            if self._unsure:
                self._check()
            self._unsure = True
            count, now = self._count, time.time_ns() // 1000
            stop = count + rows
            if stop > self._limit or now >= self._rotate_at or self._staged:
                self._unsure = False
                self._refuse_mix()
                return self._append_held(np.frombuffer(raw, self.layout.dtype), rows, False)
            at = self._offset + count * self._size
            self._buffer[at : at + len(raw)] = raw
            self._stats.observe_few(raw, rows, count)
            self._words[fmt.HEARTBEAT] = now
            self._publish(stop)
            self._count = stop
            position = self._base + count
            self._unsure = False
            if self._waiting[WAITING]:
                self._bell.ring()
            if self._always:
                self._bring_to_device()
            return position

    def _append_held(self, records: npt.NDArray[Any], mark_count: int, snapshot: bool) -> int:
        position = super()._append_held(records, mark_count, snapshot)
        if self._always:
            self._bring_to_device()
        return position

    def mark_gap(self, lost: int | None = None, from_us: Any = None, to_us: Any = None, reason: str = "") -> int:
        """Say that something was missed before the next record.

        Parameters
        ----------
        lost : int, optional
            How many records, if known.
        from_us, to_us : optional
            Between when, on the primary clock: any instant (`deepwater.timestamps`).
        reason : str
            At most 72 bytes of UTF-8.

        Returns
        -------
        int
            The position the mark stands before.
        """
        if not (lost is None or (_is_whole(lost) and 0 <= lost < UNKNOWN)):
            raise RecordError(f"lost={lost!r}: the number of records missed, or None when unknown", value=lost)
        begin, end = (0 if t is None else instant(t) for t in (from_us, to_us))
        count = UNKNOWN if lost is None else int(lost)
        with self._mutex:
            self._check()
            position = self._base + self._count
            mark = pack_mark(position, end or now_us(), count, GAP, begin, end, reason)
            self._guarded(lambda: self._marks.append(mark))
            if self._always:
                self._bring_to_device()
            return position

    def resize_chunk_size(self, chunk_size_bytes: int) -> None:
        """Change the size of chunks from now on: the current one is sealed, the next has the new size.

        Positions go on; readers notice nothing. The setting is stored.
        """
        check_size(self._feed, chunk_size_bytes)
        with self._mutex:
            self._check()
            self.settings = read_settings(self._directory).replace(chunk_size_bytes=chunk_size_bytes)
            write_settings(self._directory, self.settings)
            self._drop_spare()
            if self._chunk.capacity != max(1, chunk_size_bytes // self._size):
                self._guarded(self._rotate)

    def flush(self) -> int:
        """Bring all published records to the device.

        Returns
        -------
        int
            The durable position: everything below it survives a power cut.

        Raises
        ------
        DurabilityError
            The device refused. What it holds is unknown, so this writer accepts nothing more;
            close it, look at the device, and open a new one.
        OSError
            A file could not be opened, for want of descriptors, say: flush again.
        """
        with self._mutex:
            self._check()
            position = self._base + self._count
            self._unsure = True  # a write in the middle of it (a signal handler's) is refused
            self._bring_to_device()
            self._unsure = False
            return position

    def _bring_to_device(self) -> None:
        try:
            self._keeper.flush()
        except (SyncFailedError, OSError) as failed:
            if isinstance(failed, OSError) and not self._always:
                raise  # nothing was synced, so nothing failed: flush again
            error = failed if isinstance(failed, OSError) else failed.error
            self._sync_failed(error)
            assert self._problem is not None
            raise self._problem from error

    def _sync_failed(self, error: OSError) -> None:
        """Accept nothing more: the device refused a sync. From any thread."""
        with self._mutex:
            self._is_refused = True
            if self._problem is None:
                self._problem = DurabilityError(
                    f"feed {self.feed!r}: the device refused a sync ({error}); this writer is read-only now: "
                    f"close it, check the device, open a new one", errno=error.errno, feed=self.feed,
                )  # fmt: skip
            self._limit, self._unsure = -1, True

    def _let_go(self) -> None:
        self._drop_spare()
        try:
            if not self._is_refused:
                self._keeper.flush()
        except SyncFailedError as failed:
            raise DurabilityError(
                f"feed {self.feed!r}: closed, but the device refused the last sync ({failed.error}): what was written "
                f"since the last flush may not survive a power cut", errno=failed.error.errno, feed=self.feed,
            ) from failed.error  # fmt: skip
        finally:
            self._keeper.close()
            self._chunk.disown()
            self._chunk.close()
            self._marks.close()
            self._registry.close()

    # --- the steps of a write --------------------------------------------------------------------

    def _append_unsure(self, records: npt.NDArray[Any], rows: int, mark_count: int, snapshot: bool) -> int:
        now = time.time_ns() // 1000
        if now >= self._rotate_at and self._count:
            self._rotate()
        count = self._count
        data = memoryview(records.tobytes()) if rows < FEW_ROWS else records.view(np.uint8).data
        if count + rows > self._limit and not self._make_room(count + rows, len(data)):
            return self._append_across(records, data, mark_count, snapshot)
        self._chunk.put(count, data)
        self._stats.observe(records, data, count)
        if snapshot:
            self._mark_snapshot(self._marks, records, self._base + count, mark_count)
        self._words[fmt.HEARTBEAT] = now
        self._publish(count + rows)
        self._count = count + rows
        return self._base + count

    def _mark_snapshot(self, marks: MarkIndex, records: npt.NDArray[Any], position: int, count: int) -> None:
        marks.append(pack_mark(position, int(records[self.layout.ts_col][0]), count, SNAPSHOT))

    def _make_room(self, count: int, nbytes: int) -> bool:
        """Whether the active chunk takes records up to `count`; prepares what is needed ahead."""
        if count > self._chunk.capacity:
            return False
        if count > self._prepare_at and self._spare is None:
            self._spare = Spare(
                self._directory,
                self._chunk.id + 1,
                self.layout,
                self._feed.ids,
                self.settings.chunk_size_bytes,
            )
            self._spare.start()
        ahead = count
        if nbytes < PWRITE_BYTES:
            ahead = min(self._chunk.capacity, count + PREFAULT_BYTES // self._size)
            at = self._offset + self._count * self._size
            self._chunk.segment.populate(at, (ahead - self._count) * self._size)
        self._limit = min(ahead, self._prepare_at) if self._spare is None else ahead
        self._limit = max(self._limit, count)
        return True

    def _append_across(self, records: npt.NDArray[Any], data: memoryview, mark_count: int, snapshot: bool) -> int:
        """A write that fills the active chunk and goes on in as many new ones as it takes."""
        old, old_count, position = self._chunk, self._count, self._base + self._count
        room = old.capacity - old_count
        pieces: list[tuple[WritableChunk, int, int]] = []  # chunk, first row of the write, one past its last
        try:
            at = room
            while at < len(records):
                chunk = self._next_chunk(old.id + 1 + len(pieces), position + at)
                stop = min(len(records), at + chunk.capacity)
                pieces.append((chunk, at, stop))
                at = stop
            seals = []
            for chunk, start, stop in pieces:
                stats = self._fill(chunk, records[start:stop], data[start * self._size : stop * self._size], 0)
                rows = stop - start
                seals.append(chunk.write_seal(rows, stats.exact(rows)) if stop < len(records) else None)
            if room:
                self._fill(old, records[:room], data[: room * self._size], old_count, self._stats)
            if snapshot:
                marks = self._marks if room else MarkIndex(self._directory, pieces[0][0].id, self._feed.ids)
                self._mark_snapshot(marks, records, position, mark_count)
            seal = old.write_seal(old.capacity, self._stats.exact(old.capacity))
            for (chunk, start, stop), sealed in zip(reversed(pieces), reversed(seals), strict=True):
                if sealed is None:
                    chunk.segment.words[fmt.HEARTBEAT] = now_us()
                chunk.publish(stop - start, sealed=sealed is not None)
            old.publish(old.capacity, sealed=True)  # the one store that shows all of it
        except BaseException:
            for chunk, _, _ in pieces:
                if chunk is not self._chunk:
                    chunk.close()
            raise
        self._register(old, seal)
        for (chunk, _, _), sealed in zip(pieces, seals, strict=True):
            if sealed is not None:
                self._register(chunk, sealed)
        last, start, stop = pieces[-1]
        self._enter(last, stop - start, stats)
        return position

    def _fill(self, chunk: WritableChunk, records: npt.NDArray[Any], data: memoryview, row: int,
              stats: ClockStats | None = None) -> ClockStats:  # fmt: skip
        chunk.put(row, data)
        stats = stats or self._stats_of(chunk, row)
        stats.observe(records, data, row)
        return stats

    def _stats_of(self, chunk: WritableChunk, count: int) -> ClockStats:
        return ClockStats(chunk, self.layout.clocks, self.layout.clock_offsets, count)

    def _rotate(self) -> None:
        """Seal the active chunk early and go on in a new one."""
        old, count = self._chunk, self._count
        chunk = self._next_chunk(old.id + 1, self._base + count)
        seal = old.write_seal(count, self._stats.exact(count))
        old.publish(count, sealed=True)
        self._register(old, seal)
        self._enter(chunk, 0, None)

    def _next_chunk(self, chunk_id: int, base: int) -> WritableChunk:
        """A new chunk that is part of the feed: the spare if one is ready, else made now."""
        self._check_in_place()
        ready = self._spare is not None and self._spare.is_ready(chunk_id)
        self._spare = None  # only now: its thread has ended
        self._directory.remove(index_name(chunk_id))
        if not ready:
            self._make_chunk(chunk_id, self.settings.chunk_size_bytes)
        return WritableChunk.activate(self._directory, chunk_id, self.layout, self._feed.ids, base)

    def _make_chunk(self, chunk_id: int, size_bytes: int) -> None:
        """Make the file of a chunk in place of what was never part of the feed."""
        for last in (False, True):
            self._directory.remove(chunk_name(chunk_id))
            try:
                create_chunk(self._directory, chunk_id, self.layout, self._feed.ids, size_bytes)
                return
            except FileExistsError:  # a thread that an interrupt left behind was quicker
                if last:
                    raise

    def _register(self, chunk: WritableChunk, seal: fmt.Seal) -> None:
        """Note a chunk that has just been sealed, and let go of it."""
        self._registry.add(make_row(self.layout, chunk.id, chunk.capacity, chunk.segment.identity.created_us, seal))
        chunk.close()
        if chunk.id > self._keeper.at + MOST_BEHIND:
            self._keeper.catch_up()

    def _enter(self, chunk: WritableChunk, count: int, stats: ClockStats | None) -> None:
        """Make `chunk` the one that is appended to."""
        quick = time.monotonic() - self._entered < QUICK_S
        self._entered = time.monotonic()
        if hasattr(self, "_marks"):
            self._marks.close()
        self._chunk, self._count, self._base = chunk, count, chunk.base
        self._stats = stats or self._stats_of(chunk, count)
        self._marks = MarkIndex(self._directory, chunk.id, self._feed.ids)
        self._words, self._buffer, self._offset = chunk.segment.words, chunk.buffer, chunk.data_offset
        self._publish = chunk.segment.publish
        self._clocks = [(self._clock_args[k], k, state) for k, state in enumerate(self._stats.states)]
        self._prepare_at = 0 if quick else chunk.capacity * 4 // 5
        self._limit = 0
        rotate = self.settings.rotate_s
        self._rotate_at = chunk.activated_us + int(rotate * 1_000_000) if rotate else _NEVER

    def _take_place(self) -> None:
        self._drop_spare()
        self._check_in_place()
        old = getattr(self, "_chunk", None)
        rows, chunk = recover(self._directory, self._feed)
        self._registry.adopt(rows)
        if chunk is None:
            first = min(self.settings.chunk_size_bytes, FIRST_CHUNK_BYTES)
            create_chunk(self._directory, 1, self.layout, self._feed.ids, first)
            chunk = WritableChunk.activate(self._directory, 1, self.layout, self._feed.ids, 0)
        else:
            chunk.own()
        self._enter(chunk, chunk.state()[0], None)
        if old is not None:
            old.close()
        self._unsure = False

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.discard()
            self._spare = None  # only now: its thread has ended
