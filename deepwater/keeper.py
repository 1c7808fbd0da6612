"""What is done about records after they were published: checksums, and bringing them to the device.

Each writer of a durable feed has a `Keeper`. It follows the feed's files as a reader would, from the oldest chunk
that is not yet whole on the device, through handles of its own, so it shares nothing with the writer but the
files. One thread a process, *deepwater-keeper*, does the work of all its keepers:

* checksums of what was published since (`deepwater.checksums`), several times a second;
* with durability ``"interval"``, a sync every `durability_ms`;
* of each sealed chunk a sync, some seconds after it was sealed, when the kernel has written most of it.

`flush`, and the writer with durability ``"always"``, do the same in their own thread. A writer that is more than
`MOST_BEHIND` chunks ahead of the checksums computes them itself, so their lag is bounded.

Order of a sync, oldest chunk first: marks, checksums, records; then the directory; only then is ``durable`` stored,
and synced too. A sync that failed is final: what the device holds is unknown (a later sync may report success for
pages that the kernel has dropped), so nothing is called durable any more and the writer is told.

Rejected: a thread a writer (a recorder has hundreds of feeds), work on the writer's thread (an fsync of a chunk takes
tens of milliseconds), a process of its own (somebody would have to start it).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable

from deepwater import format as fmt
from deepwater.checksums import ChunkSums, sums_name
from deepwater.chunk import chunk_name
from deepwater.errors import CorruptFileError, StorageFullError
from deepwater.feed_files import Feed
from deepwater.files import Directory, sync
from deepwater.index import index_name
from deepwater.segment import Segment

LOOK_S = 0.25
"""How often a feed is looked at."""
SETTLE_S = 5.0
"""How long after it was sealed a chunk is synced, unless somebody asks for more."""
MOST_BEHIND = 2
"""Chunks that the checksums may be behind the writer."""


class SyncFailedError(Exception):
    """The device refused a sync: `error` is what it said."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Keeper:
    """Keeps one feed that is being written. Any thread.

    Parameters
    ----------
    on_failure : callable
        Called once, from any thread and without this keeper's locks, with the OSError of a sync that failed.
    """

    def __init__(self, directory: Directory, feed: Feed, on_failure: Callable[[OSError], None]) -> None:
        self._directory = Directory(".", parent=directory, path=directory.path)
        self._feed, self._on_failure = feed, weakref.WeakMethod(on_failure)
        settings = feed.settings
        self._every = (settings.durability_ms or 0) / 1000 if settings.durability == "interval" else 0.0
        self._sums_lock, self._sync_lock = threading.Lock(), threading.Lock()
        self._segment: Segment | None = None
        self._sums: ChunkSums | None = None
        self._at = self._newest = 0  # the chunk that the checksums, and the syncs, have come to
        self._sealed: list[tuple[int, float]] = []  # (chunk id, when it was seen sealed), not on the device yet
        self._sync_due = self._look_due = 0.0
        self._failure: OSError | None = None
        self._is_closed = False

    def start(self, active: int) -> None:
        """Begin at the oldest chunk before `active` that is not whole on the device, or has lost its checksums."""
        first = active
        while first > 1 and not self._is_durable(first - 1):
            first -= 1
        recent = range(max(1, first - MOST_BEHIND - 2), first)  # more were never behind a sync
        self._at = next((chunk_id for chunk_id in recent if not self._has_sums(chunk_id)), first)
        _clerk.add(self)

    def _has_sums(self, chunk_id: int) -> bool:
        """Whether a sealed chunk has all its checksums: a power cut may have taken them and left the records."""
        try:
            segment = Segment.open(self._directory, sums_name(chunk_id), fmt.CHECKSUMS, self._feed.ids)
        except FileNotFoundError:
            return not self._directory.exists(chunk_name(chunk_id))  # retained away
        except CorruptFileError:
            return False
        word = segment.words[fmt.COMMIT]
        segment.close()
        return word >= fmt.SEALED

    def _is_durable(self, chunk_id: int) -> bool:
        try:
            segment = Segment.open(self._directory, chunk_name(chunk_id), fmt.CHUNK, self._feed.ids)
        except (FileNotFoundError, CorruptFileError):
            return True  # retained away, or not to be made any better
        durable = segment.words[fmt.DURABLE] == segment.words[fmt.COMMIT]
        segment.close()
        return durable

    @property
    def at(self) -> int:
        """The chunk that the checksums have come to."""
        return self._at

    # --- checksums -------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Compute the checksums of all that is published.

        Errors of files are left for the next time: to have no checksum yet is no failure. After an error, and after
        an interrupt in the middle of it, the files tell how far it came.
        """
        with self._sums_lock, contextlib.suppress(OSError, StorageFullError, CorruptFileError):
            try:
                while not self._is_closed and self._cover():
                    self._at += 1
            except BaseException:
                self._drop()
                raise

    def _cover(self) -> bool:
        """Cover the chunk at hand; whether it is sealed and complete."""
        segment, sums = self._opened()
        if segment is None or sums is None:  # retained away
            return True
        word = segment.words[fmt.COMMIT]
        count = min(word & fmt.COUNT_MASK, segment.capacity)
        sums.advance(count, word >= fmt.SEALED)
        if word < fmt.SEALED:
            return False
        self._drop()
        self._sealed.append((self._at, time.monotonic()))
        return True

    def _opened(self) -> tuple[Segment | None, ChunkSums | None]:
        if self._segment is None:
            try:
                self._segment = Segment.open(
                    self._directory, chunk_name(self._at), fmt.CHUNK, self._feed.ids, writable=True
                )
            except FileNotFoundError:
                if self._at_end():
                    raise
                return None, None
            self._sums = ChunkSums(self._directory, self._segment)
        return self._segment, self._sums

    def _drop(self) -> None:
        segment, sums = self._segment, self._sums
        self._segment = self._sums = None  # first: what is closed must not be met again
        if sums is not None:
            sums.close()
        if segment is not None:
            segment.close()

    def _at_end(self) -> bool:
        return not self._directory.exists(chunk_name(self._at + 1))

    # --- the device ------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Bring everything published so far to the device, and say so in the files.

        Raises
        ------
        SyncFailedError
            Final.
        OSError, CorruptFileError
            A file could not be opened: no sync was tried, try again.
        """
        chunk_id = 0
        while True:  # a writer may seal more meanwhile
            self.catch_up()
            with self._sync_lock:
                if self._is_closed:
                    return
                self._refuse()
                chunk_id = max(chunk_id, self._at)  # before the list: another thread may catch up meanwhile
                for sealed, _ in list(self._sealed):
                    self._sync_chunk(sealed, sums=True)
                    self._sealed.pop(0)
                if not self._sync_chunk(chunk_id):  # what has no checksum yet is brought there too
                    return
            chunk_id += 1

    def _refuse(self) -> None:
        if self._failure is not None:
            raise SyncFailedError(self._failure)

    def _sync_chunk(self, chunk_id: int, sums: bool = False) -> bool:
        """Sync a chunk with its marks and checksums, then say that it is durable. Whether there is one after it.

        `sums`: its checksums may be newer than its last sync.
        """
        try:
            segment = Segment.open(self._directory, chunk_name(chunk_id), fmt.CHUNK, self._feed.ids, writable=True)
        except FileNotFoundError:  # retained away
            return self._directory.exists(chunk_name(chunk_id + 1))
        try:
            word = segment.words[fmt.COMMIT]
            self._sync_file(index_name(chunk_id))  # a mark may be new where no record is
            # Of an empty one too, once: after a power cut a chunk that is not there is taken for one that was lost.
            is_new = segment.words[fmt.DURABLE] != word or (not word and self._newest != chunk_id)
            if sums or is_new:
                self._sync_file(sums_name(chunk_id))
            if is_new:
                self._final(lambda: sync(segment.fd))
                self._final(self._directory.sync)
                segment.words[fmt.DURABLE] = word
                self._final(lambda: sync(segment.fd))
                self._newest = chunk_id
            return word >= fmt.SEALED
        finally:
            segment.close()

    def _sync_file(self, name: str) -> None:
        try:
            fd, _ = self._directory.open(name, os.O_RDWR)
        except FileNotFoundError:
            return
        try:
            self._final(lambda: sync(fd))
        finally:
            os.close(fd)

    def _final(self, step: Callable[[], None]) -> None:
        """Sync; if that fails, what the device holds is unknown from here on."""
        try:
            step()
        except OSError as error:
            self._failure = error
            raise SyncFailedError(error) from error

    # --- the thread's part -----------------------------------------------------------------------------

    def work(self, now: float) -> float:
        """Do what is due; when to come again (of `time.monotonic`)."""
        if now >= self._look_due:
            self.catch_up()
            self._look_due = now + LOOK_S
        due = self._look_due
        try:
            if self._every:
                if now >= self._sync_due:
                    self.flush()
                    self._sync_due = time.monotonic() + self._every
                due = min(due, self._sync_due)
            elif self._sealed and now - self._sealed[0][1] > SETTLE_S:
                self._sync_oldest()
                due = now
        except (OSError, CorruptFileError):  # no descriptor, say: no sync was tried
            due = now + LOOK_S
            self._sync_due = due
        except SyncFailedError as failed:
            self._every = 0.0
            self._sealed.clear()
            tell = self._on_failure()
            if tell is not None:
                tell(failed.error)
        return due

    def _sync_oldest(self) -> None:
        with self._sync_lock:
            if self._sealed and not self._is_closed:
                self._refuse()
                self._sync_chunk(self._sealed[0][0], sums=True)
                self._sealed.pop(0)

    def close(self) -> None:
        """Let go of the files; the thread ends with the last keeper. Idempotent. Does not flush."""
        _clerk.remove(self)
        with self._sums_lock, self._sync_lock:
            self._is_closed = True
            self._drop()
            self._directory.close()


class _Clerk:
    """The thread that does the work of all keepers of this process. It runs while there is one."""

    def __init__(self) -> None:
        self._keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()  # one that nobody closed goes with its writer
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, keeper: Keeper) -> None:
        """Take on a keeper."""
        with self._lock:
            self._keepers.add(keeper)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deepwater-keeper", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # none to be had: a flush and a close do the work
                    self._thread = None
                    return
        self._wake.set()

    def remove(self, keeper: Keeper) -> None:
        """Forget a keeper. Its work may be under way."""
        with self._lock:
            self._keepers.discard(keeper)
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            with self._lock:
                keepers = list(self._keepers)
                if not keepers:
                    self._thread = None
                    return
            now = time.monotonic()
            due = min([keeper.work(now) for keeper in keepers])
            del keepers
            self._wake.wait(max(0.001, due - time.monotonic()))


_clerk = _Clerk()
os.register_at_fork(after_in_child=_clerk.__init__)  # type: ignore[misc]  # a child has no thread, and keeps nothing
