"""What every writer does, whatever it writes to: checks and packing, staging, one lock, closing, forks.

A write that fails, or is interrupted anywhere, leaves `_unsure` set: the writer then finds its place again from
the files (`_take_place`) before anything else, so nothing half-written can follow or be followed. How records get
into chunks is `deepwater.writer`, into a ring `deepwater.ring_writer`; both stand on this.

Threads: one lock a writer, so writes from several threads are whole and one after the other. Processes: one writer
a feed (`deepwater.locks`); after a fork the child's copy refuses to write.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from deepwater.errors import ClosedError, DeepwaterError, FeedNotFoundError, RecordError, SchemaError
from deepwater.feed_files import Feed
from deepwater.files import Directory
from deepwater.locks import Lock, watch_fork
from deepwater.unshared import Unshared
from deepwater.values import Packer
from deepwater.wake import WAITING, Bell
from deepwater.wording import count

_NOT_PLAIN = (struct.error, TypeError, OverflowError, ValueError)
"""What `struct` says of a value that is not of its type: `values` converts it, or says what is wrong."""
_FLOATS = frozenset((float, int, np.float64, np.float32))
_ACCEPTED = {"float64": _FLOATS, "float32": _FLOATS}
"""Types that `struct` stores in a column as `values` would; it checks the other plain columns by itself."""


def _depth(lock: Any) -> int:
    """How often this thread holds an RLock; early patch releases say it in its repr only."""
    count = getattr(lock, "_recursion_count", None)
    return int(count()) if count else int(repr(lock).partition("count=")[2].split()[0])


def never_pack(*_: Any) -> Any:
    """Stand in for a `struct` that would not store this layout as `values` does."""
    raise TypeError


def check_size(feed: Feed, chunk_size_bytes: int) -> None:
    """Refuse what is no size of a chunk or ring of this feed.

    Raises
    ------
    SchemaError
    """
    feed.settings.replace(chunk_size_bytes=chunk_size_bytes)
    if chunk_size_bytes < feed.layout.record_size:
        raise SchemaError(
            f"feed {feed.name!r}: chunk_size_bytes {chunk_size_bytes} is less than one record "
            f"({feed.layout.record_size} bytes)"
        )


class FeedWriter(Unshared, instead="a feed has one writer, in one process; hand the data to it"):
    """Appends records to a feed; the common part of `Writer` and `RingWriter`.

    Every write returns the position of its first record, and is visible to every process when it
    returns: whole, or after an error or a crash not at all.

    Attributes
    ----------
    feed : str
    layout : Layout
    settings : Settings

    Notes
    -----
    A context manager. Safe to use from several threads (writes follow one another; staged records are the
    writer's, whoever staged them); not after a fork.
    """

    def __init__(self, directory: Directory, feed: Feed, lock: Lock, bell: Bell) -> None:
        self._directory, self._feed, self._lock, self._bell = directory, feed, lock, bell
        self._waiting = bell.waiting
        self.feed, self.layout, self.settings = feed.name, feed.layout, feed.settings
        self._mutex = threading.RLock()
        self._packer = Packer(feed.layout)
        self._size = feed.layout.record_size
        plain = struct.Struct(feed.layout.struct_format)
        self._pack: Callable[..., bytes] = plain.pack
        self._strict = [(k, _ACCEPTED[c.type]) for k, c in enumerate(feed.layout.columns) if c.type in _ACCEPTED]
        self._is_plain = not any(
            c.count is not None or c.kind in ("bool", "chars") or c.type == "float16" for c in feed.layout.columns
        )
        if not self._is_plain:
            self._pack = never_pack
        self._base, self._count, self._limit = 0, 0, 0
        self._staged: list[bytes] = []
        self._in_doubt: tuple[int, int] | None = None
        self._problem: Exception | None = None
        self._unsure = self._is_foreign = False

    def _begin(self) -> None:
        """Take the place. The last step of a subclass's `__init__`."""
        self._problem = ClosedError(f"the writer of feed {self.feed!r} could not be opened")  # until it is
        self._take_place()
        self._problem = None
        watch_fork(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None:  # what was staged is dropped with what failed, as a transaction would be
            self._staged.clear()
        self.close()

    def __repr__(self) -> str:
        state = "closed" if isinstance(self._problem, ClosedError) else f"end={self._base + self._count}"
        return f"<{type(self).__name__} {self.feed!r} {state}>"

    @property
    def end(self) -> int:
        """The position the next record will have."""
        with self._mutex:
            self._check()
            return self._base + self._count

    # --- what a kind of feed does in its own way -----------------------------------------------------

    def _take_place(self) -> None:
        """Find the end of the feed in its files and stand there; `_unsure` is False then."""
        raise NotImplementedError

    def _append_unsure(self, records: npt.NDArray[Any], rows: int, mark_count: int, snapshot: bool) -> int:
        """Make `rows` > 0 packed records visible by one store, and return the position of the first."""
        raise NotImplementedError

    def _append_few(self, raw: bytes, rows: int) -> int:
        """As `_append`, for some rows of packed bytes: the same steps, and nothing besides."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """Say that nobody holds the feed, and close its files."""
        raise NotImplementedError

    # --- writing -------------------------------------------------------------------------------------

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
            take the nearest value). The message names column and row. Of a ring also: more than half of it.
            Nothing is written.
        StorageFullError, DurabilityError, ClosedError

        Notes
        -----
        An array of exactly the feed's dtype is copied once, into the file. Everything else is
        converted first.
        """
        if not create_index and (raw := self._packer.few_bytes(data)):
            return self._append_few(raw, len(data))
        return self._append(self._packer.pack_batch(data), create_index)

    def write_batch_bytes(self, buffer: Any, create_index: bool = False) -> int:
        """Append packed records: any contiguous buffer of a whole number of records.

        Otherwise as `write_batch`. Padding bytes are stored as zero whatever they are.
        """
        return self._append(self._packer.check_bytes(buffer), create_index)

    # --- staging -------------------------------------------------------------------------------------

    def stage_values(self, *values: Any) -> int:
        """Check and pack one record and keep it; `commit_values` makes all that were kept visible at once.

        Parameters
        ----------
        *values
            In field order, padding left out.

        Returns
        -------
        int
            How many are staged now.

        Raises
        ------
        RecordError
            A value does not fit its field, or their number is wrong; what was staged before stays staged.
        ClosedError

        Notes
        -----
        While records are staged every other write is refused, so that none comes before them unnoticed.
        """
        record = self._packed(values)
        with self._mutex:  # else a commit in another thread may have taken the list just now
            if self._problem is not None:
                raise self._problem
            self._staged.append(record)
            return len(self._staged)

    def commit_values(self, create_index: bool = False) -> int:
        """Write all staged records as one batch: visible by one store, whole or absent, across chunks too.

        Returns
        -------
        int
            The position of the first; of the next record to come if none is staged.

        Raises
        ------
        RecordError, StorageFullError, DurabilityError, ClosedError
            As `write_batch`; the records stay staged: commit again, or `discard_values`.
        """
        with self._mutex:
            self._check()
            self._refuse_snapshot(create_index, len(self._staged))
            position = self._base + self._count
            staged, self._staged = self._staged, []
            try:
                return self._append_held(np.frombuffer(b"".join(staged), self.layout.dtype), len(staged), create_index)
            except BaseException:
                self._staged, self._in_doubt = staged + self._staged, (position, len(staged))
                if not self._unsure:
                    self._drop_committed()
                raise

    def _drop_committed(self) -> None:
        """After a commit that failed, once the place is known: an interrupt may come when all is visible already."""
        if self._in_doubt is not None:
            (position, rows), self._in_doubt = self._in_doubt, None
            if self._base + self._count != position:
                del self._staged[:rows]

    def discard_values(self) -> int:
        """Drop the staged records. Returns how many."""
        with self._mutex:
            dropped, self._staged, self._in_doubt = len(self._staged), [], None
            return dropped

    @property
    def staged(self) -> int:
        """How many records are staged."""
        return len(self._staged)

    def _packed(self, values: tuple[Any, ...]) -> bytes:
        """One record as bytes, checked; the quick way where `struct` does what `values` would."""
        try:
            record = self._pack(*values)
        except _NOT_PLAIN:
            return bytes(self._packer.pack_values(values))
        for column, accepted in self._strict:
            if type(values[column]) not in accepted:
                return bytes(self._packer.pack_values(values))
        return record

    def _refuse_mix(self) -> None:
        """Raise while records are staged: what is written now would come before them."""
        if self._staged:
            text = f"records are staged ({len(self._staged)}) and would come after this write: commit_values() or " \
                   f"discard_values() first"
            raise RecordError(f"feed {self.feed!r}: {text}", feed=self.feed, staged=len(self._staged))

    # --- closing -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the feed. What was written stays; idempotent, and may be called again after an interrupt.

        Staged records that were not committed are dropped, with a warning.
        """
        with self._mutex:
            if self._is_foreign or self._lock.released:
                return
            if not isinstance(self._problem, ClosedError):
                text = f"the writer of feed {self.feed!r} is closed: open another with create_writer"
                self._problem = ClosedError(text)
            self._limit, self._unsure = -1, True
            dropped, self._staged = len(self._staged), []
            try:
                self._let_go()
            finally:
                self._bell.close()
                self._lock.release()
                self._directory.close()
            if dropped:
                what = f"was closed: {count(dropped, 'staged record')} dropped"
                warnings.warn(f"the writer of feed {self.feed!r} {what}", UserWarning, stacklevel=2)

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
        self._bell.forget()

    # --- the steps of a write ------------------------------------------------------------------------

    def _append_one(self, values: tuple[Any, ...], snapshot: bool) -> int:
        """Append one record the general way, under the lock."""
        records = self._packer.check_bytes(self._packer.pack_values(values))
        self._refuse_snapshot(snapshot, 1)
        self._refuse_mix()
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
            self._refuse_mix()
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
        if self._waiting[WAITING]:
            self._bell.ring()
        return position

    def _settle(self) -> None:
        """After a write that failed: forget what memory says, and read where the feed ends."""
        self._limit, self._unsure = -1, True
        if self._problem is None:
            self._take_place()
            self._drop_committed()

    def _check_in_place(self) -> None:
        """Raise if nobody would find what is written: at a rotation (of a ring: once a second), it takes a call."""
        if not self._directory.is_in_place:
            raise FeedNotFoundError(
                f"feed {self.feed!r}: {self._directory.path} was removed, renamed or replaced under its writer: put it "
                f"back and write again, or close this writer; nothing that was written is changed", feed=self.feed,
            )  # fmt: skip

    def _guarded(self, step: Callable[[], Any]) -> None:
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
