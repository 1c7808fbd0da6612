"""The writer of a feed: whole writes, each visible by one store.

Every write copies its records into unpublished slots, says what it must of the clocks, and publishes
with one 8-byte store. A write that does not fit goes on in new chunks, published from the last to the
first, so the store that seals the first chunk shows all of it. A write that fails, or is interrupted
anywhere, leaves `_unsure` set: the writer then finds its place again from the files (`recover`) before
anything else, so nothing half-written can follow or be followed.

Threads: one lock a writer, so writes from several threads are whole and one after the other. Processes:
one writer a feed (`deepwater.locks`); after a fork the child's copy refuses to write.

More than 300 lines because the steps of one write belong side by side.
"""

from __future__ import annotations

import math
import os
import struct
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

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
from deepwater.errors import ClosedError, DeepwaterError, DurabilityError, RecordError, SchemaError
from deepwater.feed_files import Feed, read_settings, write_settings
from deepwater.feed_registry import FeedRegistry, make_row
from deepwater.files import Directory
from deepwater.flush import flush_chunk, flush_sealed
from deepwater.index import GAP, SNAPSHOT, UNKNOWN, MarkIndex, index_name, pack_mark
from deepwater.locks import Lock, watch_fork
from deepwater.recover import recover
from deepwater.spare import Spare
from deepwater.timestamps import instant, now_us
from deepwater.values import Packer

_NEVER = 2**63
QUICK_S = 2.0
"""A chunk that filled within this time has its successor's successor prepared at once."""
_NOT_PLAIN = (struct.error, TypeError, OverflowError, ValueError)
"""What `struct` says of a value that is not of its type: `values` converts it, or says what is wrong."""
_FLOATS = frozenset((float, int, np.float64, np.float32))
_ACCEPTED = {"float64": _FLOATS, "float32": _FLOATS}
"""Types that `struct` stores in a column as `values` would; it checks the other plain columns by itself."""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def _depth(lock: Any) -> int:
    """How often this thread holds an RLock; early patch releases say it in its repr only."""
    count = getattr(lock, "_recursion_count", None)
    return int(count()) if count else int(repr(lock).partition("count=")[2].split()[0])


def _never_pack(*_: Any) -> None:
    raise TypeError


class Writer:
    """Appends records to a durable feed. Made by `Platform.create_writer`.

    Every write returns the position of its first record, and is visible to every process when it
    returns: whole, or after an error or a crash not at all.

    Attributes
    ----------
    feed : str
    layout : Layout
    settings : Settings

    Notes
    -----
    A context manager. Safe to use from several threads (writes follow one another); not after a fork.
    """

    def __init__(self, directory: Directory, feed: Feed, lock: Lock) -> None:
        self._directory, self._feed, self._lock = directory, feed, lock
        self.feed, self.layout, self.settings = feed.name, feed.layout, feed.settings
        self._mutex = threading.RLock()
        self._packer = Packer(feed.layout)
        self._pack_into = struct.Struct(feed.layout.struct_format).pack_into
        self._size = feed.layout.record_size
        self._primary = feed.layout.clocks.index(feed.layout.ts_col)
        names = list(feed.layout.names)
        self._strict = [(k, _ACCEPTED[c.type]) for k, c in enumerate(feed.layout.columns) if c.type in _ACCEPTED]
        if any(c.count is not None or c.kind in ("bool", "chars") or c.type == "float16" for c in feed.layout.columns):
            self._pack_into = _never_pack
        self._clock_args = [names.index(name) for name in feed.layout.clocks]
        self._registry = FeedRegistry(directory, feed.name, feed.layout, feed.ids)
        self._spare: Spare | None = None
        self._problem: Exception | None = None
        self._chunk: WritableChunk
        self._marks: MarkIndex
        self._stats: ClockStats
        self._words: memoryview
        self._buffer: memoryview
        self._publish: Callable[[int], None]
        self._clocks: list[tuple[int, int, list[int]]]
        self._base, self._count, self._limit, self._offset, self._prepare_at, self._rotate_at = (
            0,
            0,
            0,
            0,
            0,
            0,
        )
        self._entered = -math.inf
        self._unsure = self._is_foreign = False
        self._problem = ClosedError(f"the writer of feed {feed.name!r} could not be opened")  # until it is
        self._take_place()
        self._problem = None
        watch_fork(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if isinstance(self._problem, ClosedError) else f"end={self._base + self._count}"
        return f"<Writer {self.feed!r} {state}>"

    @property
    def end(self) -> int:
        """The position the next record will have."""
        with self._mutex:
            self._check()
            return self._base + self._count

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
            if create_index or count >= self._limit or now >= self._rotate_at:
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

    def write_batch(self, data: Any, create_index: bool = False) -> int:
        """Append many records: all of them become visible at once.

        Parameters
        ----------
        data
            A structured array, a dict of columns, a DataFrame, or anything with
            ``__arrow_c_stream__``. Columns are matched BY NAME (a named index of a frame counts).
        create_index
            Mark the batch as one snapshot (needs `index_playback`).

        Returns
        -------
        int
            The position of the first record; of the next one to come if there is none in `data`.

        Raises
        ------
        RecordError
            A column is missing or unknown, or a value does not fit its field exactly (float fields
            take the nearest value). The message names column and row. Nothing is written.
        StorageFullError, DurabilityError, ClosedError

        Notes
        -----
        An array of exactly the feed's dtype is copied once, into the file. Everything else is
        converted first.
        """
        if not create_index and (raw := self._packer.few_bytes(data)):
            return self._append_few(raw, len(data))
        return self._append(self._packer.pack_batch(data), create_index)

    def _append_few(self, raw: bytes, rows: int) -> int:
        """As `_append`, for some rows that fit where it was made ready: the same steps, and nothing besides."""
        with self._mutex:
            if self._unsure:
                self._check()
            self._unsure = True
            count, now = self._count, time.time_ns() // 1000
            stop = count + rows
            if stop > self._limit or now >= self._rotate_at:
                return self._append_held(np.frombuffer(raw, self.layout.dtype), rows, False)
            at = self._offset + count * self._size
            self._buffer[at : at + len(raw)] = raw
            self._stats.observe_few(raw, rows, count)
            self._words[fmt.HEARTBEAT] = now
            self._publish(stop)
            self._count = stop
            position = self._base + count
            self._unsure = False
            return position

    def write_batch_bytes(self, buffer: Any, create_index: bool = False) -> int:
        """Append packed records: any contiguous buffer of a whole number of records.

        Otherwise as `write_batch`. Padding bytes are stored as zero whatever they are.
        """
        return self._append(self._packer.check_bytes(buffer), create_index)

    def mark_gap(self, lost: int | None = None, from_us: Any = None, to_us: Any = None, reason: str = "") -> int:
        """Say that something was missed before the next record.

        Parameters
        ----------
        lost : int, optional
            How many records, if known.
        from_us, to_us : optional
            Between when: any instant (`deepwater.timestamps`).
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
            return position

    def resize_chunk_size(self, chunk_size_bytes: int) -> None:
        """Change the size of chunks from now on: the current one is sealed, the next has the new size.

        Positions go on; readers notice nothing. The setting is stored.
        """
        self.settings.replace(chunk_size_bytes=chunk_size_bytes)  # refuses what is no size
        if chunk_size_bytes < self._size:
            raise SchemaError(
                f"feed {self.feed!r}: chunk_size_bytes {chunk_size_bytes} is less than one record ({self._size} bytes)"
            )
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
        """
        with self._mutex:
            self._check()
            count = self._count
            self._unsure = True  # a write in the middle of it (a signal handler's) is refused
            try:
                flush_sealed(self._directory, self._chunk.id, self._feed.ids)
                self._marks.flush()
                flush_chunk(self._chunk.segment, count)
                self._directory.sync()
                self._unsure = False
            except OSError as error:
                self._problem = DurabilityError(
                    f"feed {self.feed!r}: the device refused a sync ({error}); this writer is read-only now: "
                    f"close it, check the device, open a new one", errno=error.errno, feed=self.feed,
                )  # fmt: skip
                self._limit, self._unsure = -1, True
                raise self._problem from error
            return self._base + count

    def close(self) -> None:
        """Let go of the feed. What was written stays; idempotent, and may be called again after an interrupt."""
        with self._mutex:
            if self._is_foreign or self._lock.released:
                return
            if not isinstance(self._problem, ClosedError):
                text = f"the writer of feed {self.feed!r} is closed: open another with create_writer"
                self._problem = ClosedError(text)
            self._limit, self._unsure = -1, True
            self._drop_spare()
            try:
                self._chunk.disown()
                self._chunk.close()
                self._marks.close()
                self._registry.close()
            finally:
                self._lock.release()
                self._directory.close()

    def __del__(self) -> None:
        if getattr(self, "_problem", self) is None:
            try:
                warnings.warn(f"the writer of feed {self.feed!r} was not closed", ResourceWarning, 2, self)
                self.close()
            except Exception:  # noqa: BLE001  # at interpreter exit anything may be gone already
                pass

    def after_fork(self) -> None:
        """In a forked child: this copy owns nothing, and says so when used."""
        self._problem = ClosedError(
            f"this writer of feed {self.feed!r} belongs to process {os.getppid()}, which this one was forked from: "
            f"write there, or open one here after the parent closed it"
        )
        self._mutex = threading.RLock()
        self._is_foreign = True
        self._limit, self._unsure = -1, True

    # --- the steps of a write --------------------------------------------------------------------

    def _append_one(self, values: tuple[Any, ...], snapshot: bool) -> int:
        """Append one record the general way, under the lock."""
        records = self._packer.check_bytes(self._packer.pack_values(values))
        self._refuse_snapshot(snapshot, 1)
        return self._append_held(records, 0, snapshot)

    def _refuse_snapshot(self, snapshot: bool, rows: int) -> None:
        if snapshot and not (self.settings.index_playback and rows):
            playback = self.settings.index_playback
            why = "an empty write starts no snapshot" if playback else "the feed has no index_playback"
            raise RecordError(f"feed {self.feed!r}: create_index: {why}")

    def _append(self, records: npt.NDArray[Any], snapshot: bool) -> int:
        """Append packed records of exactly the feed's dtype."""
        self._refuse_snapshot(snapshot, len(records))
        with self._mutex:
            self._check()
            return self._append_held(records, len(records), snapshot)

    def _append_held(self, records: npt.NDArray[Any], mark_count: int, snapshot: bool) -> int:
        """Append under the lock, sure of the place."""
        if not len(records):
            return self._base + self._count
        self._unsure = True
        try:
            position = self._append_unsure(records, len(records), mark_count, snapshot)
        except BaseException:
            self._settle()
            raise
        self._unsure = False
        return position

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
        """Find the end of the feed in its files and stand there."""
        rows, chunk = recover(self._directory, self._feed)
        self._registry.adopt(rows)
        if chunk is None:
            first = min(self.settings.chunk_size_bytes, FIRST_CHUNK_BYTES)
            create_chunk(self._directory, 1, self.layout, self._feed.ids, first)
            chunk = WritableChunk.activate(self._directory, 1, self.layout, self._feed.ids, 0)
        else:
            chunk.own()
        self._enter(chunk, chunk.state()[0], None)
        self._unsure = False

    def _settle(self) -> None:
        """After a write that failed: forget what memory says, and read where the feed ends."""
        self._limit, self._unsure = -1, True
        if self._problem is not None:
            return
        self._drop_spare()
        old = self._chunk
        self._take_place()
        if old is not self._chunk:
            old.close()

    def _guarded(self, step: Any) -> None:
        self._unsure = True
        try:
            step()
        except BaseException:
            self._settle()
            raise
        self._unsure = False

    def _check(self) -> None:
        """Raise what keeps this writer from writing; find its place again if it must."""
        if self._problem is not None:
            raise self._problem
        if self._unsure and _depth(self._mutex) > 1:
            raise DeepwaterError(
                f"feed {self.feed!r}: a write is running in this thread, and a signal handler (or a __del__) called in "
                f"the middle of it: set a flag there and write afterwards", feed=self.feed,
            )  # fmt: skip
        if self._unsure:
            self._settle()

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.discard()
            self._spare = None  # only now: its thread has ended
