"""The front door: a store and its feeds. More than 400 lines because half of them document what users call."""

from __future__ import annotations

import contextlib
import os
import uuid
import warnings
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from deepwater import format as fmt
from deepwater import frames, retain
from deepwater.chain import Chain
from deepwater.describe import describe, overview
from deepwater.durations import DurationLike
from deepwater.errors import (
    ClosedError,
    CorruptFileError,
    FeedNotFoundError,
    SchemaError,
    SchemaMismatchError,
)
from deepwater.feed_files import Feed, feed_id, read_feed, write_settings
from deepwater.feed_writer import FeedWriter, check_size
from deepwater.files import Directory
from deepwater.holder import locked, maintenance, owner_of
from deepwater.layout import Layout
from deepwater.locks import Lock
from deepwater.mounts import check_place
from deepwater.reader import Reader
from deepwater.retain import Pruned
from deepwater.ring_chain import RingChain
from deepwater.ring_reader import RingReader
from deepwater.ring_writer import RingWriter, remove_rings, ring_exists
from deepwater.schema import FeedSpec, check_feed_name
from deepwater.store import Store
from deepwater.timestamps import now_us
from deepwater.wake import Bell
from deepwater.writer import Writer

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_BASE_PATH = "./platform_data"
HOME_VARIABLE = "DEEPWATER_HOME"


def default_base_path() -> str:
    """``$DEEPWATER_HOME``, else ``./platform_data``."""
    return os.environ.get(HOME_VARIABLE) or DEFAULT_BASE_PATH


class Platform:
    """A store: makes, lists, describes and deletes feeds, and opens readers and writers.

    Parameters
    ----------
    base_path : path, optional
        Its directory; ``$DEEPWATER_HOME`` or ``./platform_data`` by default. Resolved once (symlinks
        allowed). Nothing is created before the first feed is.

    Notes
    -----
    A context manager: leaving it closes the writers it made. Safe to use from several threads. May be pickled: the
    other process opens the store for itself; readers, writers and windows cannot be.

    Examples
    --------
    >>> import tempfile
    >>> base = tempfile.TemporaryDirectory()
    >>> dw = Platform(base.name)
    >>> spec = {"feed_name": "ticks", "ts_col": "ts_us", "fields": [
    ...     {"name": "ts_us", "type": "uint64"}, {"name": "price", "type": "float64"}]}
    >>> dw.create_feed(spec)
    'ticks'
    >>> with dw.create_writer("ticks") as w:
    ...     w.write_values(1_700_000_000_000_000, 101.5)
    0
    >>> dw["ticks"].read("2023-11-14")["price"]
    array([101.5])
    >>> dw.close(); base.cleanup()
    """

    def __init__(self, base_path: str | os.PathLike[str] | None = None) -> None:
        self.base_path = os.path.abspath(os.fspath(base_path if base_path is not None else default_base_path()))
        self._open_store: Store | None = None
        self._closed = False
        self._writers: weakref.WeakSet[FeedWriter] = weakref.WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Platform], tuple[str]]:
        return type(self), (self.base_path,)  # opened anew where it is unpickled

    def close(self) -> None:
        """Close the writers made here and let go of the store. Readers and arrays stay valid. Idempotent."""
        for writer in list(self._writers):
            writer.close()
        self._closed = True
        if self._open_store is not None:
            store, self._open_store = self._open_store, None
            store.close()

    def __repr__(self) -> str:
        return f"Platform({self.base_path!r})"

    @property
    def _store(self) -> Store:
        """The store, opened when it is there."""
        if self._closed:
            raise ClosedError(f"this Platform({self.base_path!r}) is closed: make another")
        if self._open_store is None:
            self._open_store = Store(self.base_path)
        return self._open_store

    # --- feeds -----------------------------------------------------------------------------------

    def create_feed(self, spec: Any, update: bool = False) -> str:
        """Make a feed, or see that the one there has this layout.

        Parameters
        ----------
        spec
            A dict, a `FeedSpec`, or the path of a JSON file.
        update
            On an existing feed, replace its settings by the spec's. Without it they stay (an
            operator's changes survive the restart of a recorder) and a difference is warned about.

        Returns
        -------
        str
            The feed's name.

        Raises
        ------
        SchemaError
            The spec is wrong.
        SchemaMismatchError
            The feed exists with another layout; the message names the field.
        """
        if self._closed:
            raise ClosedError(f"this Platform({self.base_path!r}) is closed: make another")
        wanted = FeedSpec.from_json(spec)
        layout = Layout.compile(wanted)
        if self._open_store is None:
            self._open_store = Store.make(self.base_path)
        store = self._open_store
        while wanted.feed_name not in store.names():
            ids = fmt.Ids(store.id, feed_id(store.id, wanted.feed_name), uuid.uuid4().bytes)
            if store.add(Feed(wanted.feed_name, layout, wanted.settings, ids, now_us())):
                for text in layout.warnings:
                    warnings.warn(f"feed {wanted.feed_name!r}: {text}", stacklevel=2)
                return wanted.feed_name
        self._agree(wanted, layout, update)
        return wanted.feed_name

    def _agree(self, wanted: FeedSpec, layout: Layout, update: bool) -> None:
        """See that an existing feed is what a spec says."""
        name = wanted.feed_name
        with self._store.open(name) as directory:
            feed = read_feed(directory, name, self._store.id)
            difference = feed.layout.diff(layout)
            if difference:
                raise SchemaMismatchError(
                    f"feed {name!r} exists with another layout: {difference}; layouts are fixed: create a new feed",
                    feed=name, field=difference.split("'")[1] if "'" in difference else None,
                )  # fmt: skip
            if name not in self._store.registry.rows():  # who made it was killed before that
                self._store.registry.put(feed, directory)
            changes = feed.settings.diff(wanted.settings)
            if changes and not update:
                what = "; ".join(changes)
                text = f"feed {name!r} exists with other settings, which stay: {what} (update=True applies the spec's)"
                warnings.warn(text, stacklevel=3)
            elif changes:
                if feed.settings.persist != wanted.settings.persist:
                    raise SchemaError(
                        f"feed {name!r}: persist can never change; create a new feed",
                        feed=name,
                        field="persist",
                    )
                try:
                    write_settings(directory, wanted.settings)
                except FileNotFoundError:
                    raise self._store.not_found(name) from None  # deleted meanwhile
                self._store.registry.put(read_feed(directory, name, self._store.id), directory)

    def delete_feed(self, name: str) -> None:
        """Delete a feed and its files. Arrays that readers hold stay valid.

        Raises
        ------
        FeedNotFoundError
        FeedLockedError
            It has a writer, or maintenance runs on it.
        """
        with self._store.open(name) as directory:
            writer = self._lock(name, directory)
            try:
                maintaining = maintenance(self._store, name, directory)
                try:
                    with contextlib.suppress(OSError, CorruptFileError):  # no shared memory of ours: nothing to remove
                        remove_rings(self._store.shared, name)
                    self._store.remove(name)
                finally:
                    maintaining.release()  # whoever keeps the error of a delete that failed keeps no lock
            finally:
                writer.release()

    def prune(self, name: str, keep: DurationLike | None = None, max_bytes: int | None = None,
              dry_run: bool = False) -> Pruned:  # fmt: skip
        """Let the oldest sealed chunks of a feed go, beside its writer and its readers; see `deepwater.retain`.

        Parameters
        ----------
        keep : duration, optional
            ``"7d"``, a timedelta: chunks go whose newest record (by the primary clock) is older than this before now.
        max_bytes : int, optional
            Chunks go while the feed's chunk files are larger than this.
        dry_run : bool
            Only say what would go.

        Returns
        -------
        Pruned
            What went: chunks, positions, times, bytes. With neither limit the feed's setting `retain` is applied;
            without one nothing goes.

        Notes
        -----
        The newest chunk that holds records always stays. Positions stay what they are: `Reader.first` is how many
        were let go. Arrays handed out stay valid; what was not touched yet raises `ChunkGoneError`, and a follower
        that was overtaken `LappedError` (or goes on, with ``on_lap="skip"``).

        Raises
        ------
        FeedLockedError
            Other maintenance runs on it.
        SchemaError
            It is a ring, or `max_bytes` is no number of bytes.
        TimeFormatError, FeedNotFoundError, PermissionError, CorruptFileError, StorageFullError
        """
        return retain.prune(self._store, name, keep, max_bytes, dry_run)

    def resize_feed(self, name: str, new_chunk_size_bytes: int) -> None:
        """Change the size of a feed's chunks, or of its ring, from now on; positions go on, readers go on.

        A ring keeps the newest records that fit.

        Raises
        ------
        FeedLockedError
            It has a writer: use that writer's `resize_chunk_size`.
        SchemaError
            It is no size.
        StorageFullError
            A ring of that size does not fit into the shared memory beside the one there is; nothing changes.
        """
        if not self._resize_before_first_writer(name, new_chunk_size_bytes):
            with self.create_writer(name) as writer:
                writer.resize_chunk_size(new_chunk_size_bytes)
        with self._store.open(name) as directory:
            self._store.registry.put(read_feed(directory, name, self._store.id), directory)

    def _resize_before_first_writer(self, name: str, size: int) -> bool:
        """Where there is no ring yet there is only the setting to change: its old value may not even fit."""
        with self._store.open(name) as directory:
            feed = read_feed(directory, name, self._store.id)
            if feed.settings.persist or ring_exists(self._store.shared, name):
                return False
            check_size(feed, size)
            lock = self._lock(name, directory)
            try:
                write_settings(directory, feed.settings.replace(chunk_size_bytes=size))
            finally:
                lock.release()
            return True

    def list_feeds(self) -> list[str]:
        """The names of the feeds, sorted; empty when there is no store."""
        try:
            return self._store.names()
        except FeedNotFoundError:
            return []

    def describe_feed(self, name: str) -> dict[str, Any]:
        """What a feed is and holds: layout, settings, positions, coverage, size, writer, gaps. Plain values."""
        with self.create_reader(name) as reader:
            return describe(reader)

    def feeds(self) -> pd.DataFrame:
        """A row for each feed: records, coverage of the primary clock, bytes, chunks, writer."""
        rows = []
        names = self.list_feeds()
        cached = self._store.registry.rows() if names else {}
        for name in names:
            try:
                with self._reader(name, cached.get(name)) as reader:
                    rows.append(overview(reader))
            except (OSError, FeedNotFoundError, CorruptFileError) as error:  # somebody else's ring among them
                rows.append({"feed": name, "problem": str(error)})
        return frames.table(rows, index="feed")

    # --- readers and writers -----------------------------------------------------------------------

    def create_reader(self, name: str, *, verify: bool = False) -> Reader:
        """Open a feed for reading; a new object each call. A `RingReader` when its `persist` is false.

        Parameters
        ----------
        verify : bool
            Compare each chunk with its checksums when this reader first maps it (a CRC-32 of all it holds): of the one
            that is appended to what has a checksum by then. Records that are not what was written are a
            CorruptFileError that says which. Rings have no checksums: there it is a SchemaError.

        Raises
        ------
        FeedNameError, FeedNotFoundError, CorruptFileError, SchemaError
        """
        return self._reader(name, None, verify)

    def _reader(self, name: str, cached: Any, verify: bool = False) -> Reader:
        directory = self._store.open(name)
        try:
            settings = self._store.registry.settings(cached, directory)
            feed = read_feed(directory, name, self._store.id, settings)
            if feed.settings.persist:
                return Reader(Chain(directory, self._store.shared, name, feed.layout, feed.ids, verify), feed)
            if verify:
                raise SchemaError(  # noqa: TRY301  # the directory is closed below
                    f"feed {name!r} is a ring: it has no checksums to verify", feed=name, field="persist"
                )
            return RingReader(RingChain(directory, self._store.shared, name, feed.layout, feed.ids), feed)
        except BaseException:
            directory.close()
            raise

    def create_writer(self, name: str) -> Writer | RingWriter:
        """Open a feed for writing: the only writer of it anywhere. A `RingWriter` when its `persist` is false.

        Raises
        ------
        FeedLockedError
            Somebody else writes it; the message says who.
        FeedNameError, FeedNotFoundError, CorruptFileError, StorageFullError
        """
        directory = self._store.open(name)
        lock = bell = None
        try:
            check_place(directory, write=True)
            lock = self._lock(name, directory)
            feed = read_feed(directory, name, self._store.id)
            bell = Bell(self._store.shared, name)
            writer = self._writer(directory, feed, lock, bell)
        except BaseException:
            if bell is not None:
                bell.close()
            if lock is not None:
                lock.release()
            directory.close()
            raise
        self._writers.add(writer)
        return writer

    def _writer(self, directory: Directory, feed: Feed, lock: Lock, bell: Bell) -> Writer | RingWriter:
        if feed.settings.persist:
            return Writer(directory, feed, lock, bell)
        return RingWriter(directory, feed, lock, bell, self._store.shared)

    def _lock(self, name: str, directory: Directory) -> Lock:
        """Take the WRITER lock, on the directory that is the feed's now."""
        try:
            lock = Lock.take(".", directory.fd)
        except FileNotFoundError:  # deleted since it was opened
            raise self._store.not_found(name) from None
        if lock is None:
            raise locked(name, directory, owner_of(self._store, name, directory))
        try:
            now = os.stat(name, dir_fd=self._store.data.fd, follow_symlinks=False)
        except FileNotFoundError:
            now = None
        if now is None or (now.st_dev, now.st_ino) != (lock.stat.st_dev, lock.stat.st_ino):
            lock.release()
            raise self._store.not_found(name)
        return lock

    def write(self, name: str, data: Any, ts_col: str | None = None, **settings: Any) -> int:
        """Append a DataFrame, Arrow, Polars or structured array to a feed, making the feed from it if absent.

        Returns
        -------
        int
            The position of the first record.
        """
        check_feed_name(name)
        if name not in self.list_feeds():
            self.create_feed(_spec_of(name, data, ts_col, settings))
        with self.create_writer(name) as writer:
            return writer.write_batch(data)

    def __getitem__(self, name: str) -> Reader:
        return self.create_reader(name)

    def __contains__(self, name: object) -> bool:
        return name in self.list_feeds()

    def __iter__(self) -> Iterator[str]:
        return iter(self.list_feeds())

    def _ipython_key_completions_(self) -> list[str]:
        return self.list_feeds()


def _spec_of(name: str, data: Any, ts_col: str | None, settings: dict[str, Any]) -> FeedSpec:
    dtype = getattr(data, "dtype", None)
    if dtype is not None and dtype.names:
        return FeedSpec.from_dtype(name, dtype, ts_col, **settings)
    if type(data).__module__.split(".")[0] == "pandas":
        return FeedSpec.from_dataframe(name, data, ts_col, **settings)
    return FeedSpec.from_arrow(name, data, ts_col, **settings)


