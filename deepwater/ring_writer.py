"""The writer of a ring: claim, write, commit (`deepwater.ring`).

The records are checked and packed first, so a bad value overwrites nothing. A write takes at most half of the ring:
so at least the newest half is always whole for readers, also when a writer died inside a write.

A ring has the size of its feed's settings. A new size (`resize_chunk_size`, or settings that were changed while
nobody wrote) is a new ring: made beside the old one under the next id, filled with the newest records that fit,
activated, and then the old one is sealed, which is the one store that sends readers there. A crash before it leaves
the old ring, after it the new one; what is left over of the other is removed by the next writer.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.clockstats import FEW_ROWS, peeks
from deepwater.errors import CorruptFileError, RecordError, StorageFullError
from deepwater.feed_files import Feed, read_settings, write_settings
from deepwater.feed_writer import FeedWriter, check_size
from deepwater.files import Directory
from deepwater.locks import Lock
from deepwater.ring import FEED_HALF, WritableRing, capacity_of, ring_ids
from deepwater.ring_files import SharedPlace, remove_half_made, ring_name, wake_name
from deepwater.segment import Segment
from deepwater.settings import Settings
from deepwater.wake import WAITING, Bell

CHECK_US = 1_000_000
"""How often a writer makes sure that its ring has not been removed."""


class RingWriter(FeedWriter):
    """Writes an ephemeral feed (``persist: false``). Made by `Platform.create_writer`; see `FeedWriter`.

    Nothing is on a disk: what the ring holds survives this process, not the machine.
    """

    def __init__(self, directory: Directory, feed: Feed, lock: Lock, bell: Bell, place: SharedPlace) -> None:
        super().__init__(directory, feed, lock, bell)
        self._place = place
        self._peek = peeks(tuple(sorted(feed.layout.clock_offsets)), feed.layout.record_size)
        self._peek_one = self._peek[1]
        order = sorted(range(len(feed.layout.clocks)), key=feed.layout.clock_offsets.__getitem__)
        self._by_offset = order
        self._last = [0] * len(order)
        self._ring: WritableRing
        self._words: memoryview
        self._publish: Callable[[int], None]
        self._claimed = self._check_at = 0
        self._begin()

    # --- writing -------------------------------------------------------------------------------------

    def write_values(self, *values: Any, create_index: bool = False) -> int:
        """Append one record, in field order, padding left out.

        Returns
        -------
        int
            Its position.

        Raises
        ------
        RecordError
            A value does not fit its field, or their number is wrong, or `create_index` (a ring has no marks).
        ClosedError
        """
        if create_index:
            self._refuse_snapshot(create_index, 1)
        raw = self._packed(values)
        with self._mutex:
            if self._unsure:
                self._check()
            now = time.time_ns() // 1000
            if self._staged or self._limit < 1 or now >= self._check_at:
                return self._append_few(raw, 1)
            self._unsure = True
            count = self._count
            if count >= self._claimed:
                self._claimed = count + 1
                self._ring.segment.claim(count + 1)
            self._ring.put(count, raw)
            last = self._last
            for clock, value in zip(self._by_offset, self._peek_one(raw), strict=True):
                if value < last[clock]:
                    self._ring.step_back(clock, self._base + count)
                last[clock] = value
            self._words[fmt.HEARTBEAT] = now
            self._publish(count + 1)
            self._count = count + 1
            self._unsure = False  # from here on a signal handler may write
            if self._waiting[WAITING]:
                self._bell.ring()
            return self._base + count

    def _append_few(self, raw: bytes, rows: int) -> int:
        with self._mutex:
            if self._unsure:
                self._check()
            now = time.time_ns() // 1000
            if self._staged or rows > self._limit or now >= self._check_at:
                self._refuse_mix()
                self._refuse_size(rows)
                self._guarded(lambda: self._stay_found(now))
            self._unsure = True
            count = self._count
            stop = count + rows
            if stop > self._claimed:
                self._claimed = stop
                self._ring.segment.claim(stop)
            self._ring.put(count, raw)
            self._observe_few(raw, rows, self._base + count)
            self._words[fmt.HEARTBEAT] = now
            self._publish(stop)
            self._count = stop
            self._unsure = False  # from here on a signal handler may write
            if self._waiting[WAITING]:
                self._bell.ring()
            return self._base + count

    def _append_unsure(self, records: npt.NDArray[Any], rows: int, mark_count: int, snapshot: bool) -> int:
        self._refuse_size(rows)
        now = time.time_ns() // 1000
        if now >= self._check_at:
            self._stay_found(now)
        count, stop = self._count, self._count + rows
        data = memoryview(records.tobytes()) if rows < FEW_ROWS else records.view(np.uint8).data
        self._claimed = max(self._claimed, stop)
        self._ring.segment.claim(self._claimed, len(data))
        self._ring.put(count, data)
        self._observe(records, self._base + count)
        self._words[fmt.HEARTBEAT] = now
        self._publish(stop)
        self._count = stop
        return self._base + count

    def _stay_found(self, now: int) -> None:
        """Make sure, once a second, that the ring still has its name; else give it another.

        Whoever removed it (a cleaner of /dev/shm) left it to those that had it open. The new one has its records and
        goes on; the seal of the old one sends them there.
        """
        self._check_in_place()
        self._check_at = now + CHECK_US
        if not os.fstat(self._ring.segment.fd).st_nlink:
            capacity = self._ring.capacity
            self._enter(self._place.with_directory(lambda shared: self._replaced(shared, capacity)))

    def _refuse_size(self, rows: int) -> None:
        if rows > self._limit >= 0:
            holds = self._ring.capacity
            raise RecordError(
                f"feed {self.feed!r}: {rows:,} records in one write; the ring holds {holds:,} and takes at most half "
                f"of that, {self._limit:,}: split the batch, or make the ring larger (resize_chunk_size)",
                feed=self.feed, rows=rows, most=self._limit,
            )  # fmt: skip

    def _observe_few(self, raw: bytes | memoryview, rows: int, position: int) -> None:
        """Note which clocks step back in some rows of packed bytes, before they are published."""
        if rows >= FEW_ROWS:
            self._observe(np.frombuffer(raw, self.layout.dtype), position)
            return
        stamps = self._peek[rows](raw)
        clocks = len(self._last)
        for column, clock in enumerate(self._by_offset):
            last = self._last[clock]
            for row, value in enumerate(stamps[column::clocks]):
                if value < last:
                    self._ring.step_back(clock, position + row)
                last = value
            self._last[clock] = last

    def _observe(self, records: npt.NDArray[Any], position: int) -> None:
        """As `_observe_few`, for many."""
        for clock, name in enumerate(self.layout.clocks):
            column = np.ascontiguousarray(records[name])
            back = np.flatnonzero(column[1:] < column[:-1])
            if len(back):
                self._ring.step_back(clock, position + int(back[-1]) + 1)
            elif int(column[0]) < self._last[clock]:
                self._ring.step_back(clock, position)
            self._last[clock] = int(column[-1])

    def mark_gap(self, lost: int | None = None, from_us: Any = None, to_us: Any = None, reason: str = "") -> int:
        """Refused: a ring keeps no marks.

        Raises
        ------
        RecordError
        """
        raise RecordError(f"feed {self.feed!r} is a ring and keeps no marks: only a durable feed (persist true) does")

    def flush(self) -> int:
        """Nothing to do: a ring is memory. Returns 0, the position below which everything survives a power cut.

        Raises
        ------
        ClosedError
        """
        with self._mutex:
            self._check()
            return 0

    # --- the ring ------------------------------------------------------------------------------------

    def resize_chunk_size(self, chunk_size_bytes: int) -> None:
        """Give the ring another size: a new one, with the newest records that fit. Positions go on.

        Readers go on in it; one that is behind what fits is told how much it lost. The setting is stored.

        Raises
        ------
        StorageFullError
            Both do not fit into the shared memory; the ring and the setting stay as they are.
        """
        check_size(self._feed, chunk_size_bytes)
        with self._mutex:
            self._check()
            self._guarded(lambda: self._resize(read_settings(self._directory), chunk_size_bytes))

    def _resize(self, old: Settings, size: int) -> None:
        """Store the size, then bring the ring to it: a crash in between leaves it to the next writer."""
        self.settings = old.replace(chunk_size_bytes=size)
        write_settings(self._directory, self.settings)
        try:
            self._fit()
        except BaseException:
            if self._ring.capacity != capacity_of(self.layout, size):
                self.settings = old
                write_settings(self._directory, old)
            raise

    def _fit(self) -> None:
        """Bring the ring to the size of the settings."""
        capacity = capacity_of(self.layout, self.settings.chunk_size_bytes)
        if capacity != self._ring.capacity:
            self._enter(self._place.with_directory(lambda shared: self._replaced(shared, capacity)))

    def _replaced(self, shared: Directory, capacity: int) -> WritableRing:
        """A new ring with the newest records of this one, which is sealed and removed."""
        old = self._ring
        end = old.base + old.state()[0]
        first = max(min(end, max(old.base, old.oldest())), end - capacity)
        ids = self._feed.ids._replace(incarnation=old.incarnation)
        ring = WritableRing.begin(shared, self.feed, old.id + 1, self.layout, ids, capacity, first)
        _, records = old.copy(first, end, self.layout.dtype)
        ring.segment.claim(len(records))
        ring.put(0, records.view(np.uint8).data)
        for clock in range(len(self.layout.clocks)):
            if (step := old.stepped_back(clock)) > first + 1:
                ring.step_back(clock, step - 1)
        ring.segment.publish(len(records))
        ring.own()
        ring.activate()
        old.segment.publish(old.state()[0] | fmt.SEALED)  # the one store that sends readers to the new one
        shared.remove(ring_name(self.feed, old.id))
        old.close()
        return ring

    def _take_place(self) -> None:
        old = getattr(self, "_ring", None)
        self._enter(self._place.with_directory(self._continued))
        if old is not None:
            old.close()
        try:
            self._fit()
        except StorageFullError as error:
            text = f"feed {self.feed!r} keeps its ring of {self._ring.capacity:,} records: {error}"
            warnings.warn(text, UserWarning, stacklevel=4)
        self._unsure = False

    def _continued(self, shared: Directory) -> WritableRing:
        """The feed's ring, or a new one; what a crash left beside it is removed."""
        remove_half_made(shared, self.feed)
        found: WritableRing | None = None
        for ring_id in ring_ids(shared, self.feed):
            ring = WritableRing.open(shared, self.feed, ring_id, self.layout, self._feed.ids, writable=True)
            assert ring is None or isinstance(ring, WritableRing)
            if ring is not None and found is None and not ring.state()[1]:
                found = ring
                continue
            shared.remove(ring_name(self.feed, ring_id))
            if ring is not None:
                ring.close()
        if found is None:
            own = self._feed.ids.incarnation[:FEED_HALF] + os.urandom(16 - FEED_HALF)
            ids = self._feed.ids._replace(incarnation=own)
            capacity = capacity_of(self.layout, self.settings.chunk_size_bytes)
            found = WritableRing.begin(shared, self.feed, 1, self.layout, ids, capacity, 0)
            found.activate()
        found.own()
        return found

    def _enter(self, ring: WritableRing) -> None:
        """Make `ring` the one that is written."""
        self._ring, self._base, self._count = ring, ring.base, ring.state()[0]
        self._words, self._publish = ring.segment.words, ring.segment.publish
        self._limit = ring.capacity // 2
        claimed = max(self._count, self._words[fmt.CLAIM])  # a dead writer's claim stands
        self._claimed = min(claimed, self._count + self._limit)  # a damaged one that no writer can have made does not
        if self._claimed != claimed:
            ring.segment.claim(self._claimed)
        if self._count:
            newest = ring.records[(self._count - 1) % ring.capacity]
            self._last = [int(newest[name]) for name in self.layout.clocks]

    def _let_go(self) -> None:
        self._ring.own(held=False)
        self._ring.close()



def ring_exists(place: SharedPlace, feed: str) -> bool:
    """Whether a feed has a ring in shared memory."""
    with contextlib.suppress(FileNotFoundError), place.open() as shared:
        return bool(ring_ids(shared, feed))
    return False


def remove_rings(place: SharedPlace, feed: str) -> None:
    """End the rings of a feed that is being deleted, and remove its files in shared memory. Under its locks.

    The SEALED bit without a successor tells readers that are attached.
    """
    with contextlib.suppress(FileNotFoundError), place.open() as shared:
        remove_half_made(shared, feed)
        for ring_id in ring_ids(shared, feed):
            with contextlib.suppress(FileNotFoundError, CorruptFileError):
                segment = Segment.open(shared, ring_name(feed, ring_id), fmt.RING, writable=True)
                segment.publish(segment.words[fmt.COMMIT] | fmt.SEALED)
                segment.close()
            shared.remove(ring_name(feed, ring_id))
        shared.remove(wake_name(feed))
        place.tidy()
