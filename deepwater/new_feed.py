"""A feed that appears with its records: with all of them, or not at all.

It is filled in a directory that nobody sees, by a writer like any other, and renamed to the name of the feed when all
records are on the device (`deepwater.store` has the names and the lock). A kill at any moment, and a power cut, leave
no feed, or the whole one; what the directory holds then is removed by the next one that makes a feed in the store.

Rejected: a feed that is there from the start with a mark "not complete" in its settings, which each reader would have
to look for; a copy of the files at the end, which takes the space twice. The rings of an ephemeral feed are in shared
memory under its name from the start: nobody opens them before the feed is there, and after a kill they are orphans.
"""

from __future__ import annotations

import contextlib
import os
import uuid
import warnings
from collections.abc import Iterator

from deepwater import format as fmt
from deepwater.errors import CorruptFileError, FeedLockedError, FeedNotFoundError
from deepwater.feed_files import Feed, feed_id
from deepwater.files import Directory
from deepwater.holder import owner_of
from deepwater.layout import Layout
from deepwater.locks import Lock
from deepwater.ring_writer import RingWriter, remove_rings
from deepwater.schema import FeedSpec
from deepwater.store import IMPORTING, Store, is_left
from deepwater.timestamps import format_us, now_us
from deepwater.wake import Bell
from deepwater.writer import Writer


@contextlib.contextmanager
def new_feed(base_path: str | os.PathLike[str], spec: FeedSpec) -> Iterator[Writer | RingWriter]:
    """Hand out the writer of a feed that is there when the block is left, and not before; after an error not at all.

    Parameters
    ----------
    base_path : str or path-like
        Of the store; made if there is none.
    spec : FeedSpec

    Raises
    ------
    SchemaError
        The spec is wrong.
    FeedLockedError
        Somebody else is filling a feed of that name, or has made one meanwhile: nothing of this one is there.
    StorageFullError, DurabilityError, OSError
    """
    layout = Layout.compile(spec)
    store = Store.make(os.path.abspath(os.fspath(base_path)))
    try:
        ids = fmt.Ids(store.id, feed_id(store.id, spec.feed_name), uuid.uuid4().bytes)
        feed = Feed(spec.feed_name, layout, spec.settings, ids, now_us())
        lock = store.stage(feed)
        if lock is None:
            raise _busy(store, feed.name)
        try:
            with _writer(store, feed) as writer:
                yield writer
                writer.flush()
            if not store.appear(feed):
                text = f"feed {feed.name!r} was made by somebody else meanwhile: nothing was added to it; do it again"
                raise FeedLockedError(text, feed=feed.name)  # noqa: TRY301  # what was filled goes
        except BaseException:
            with contextlib.suppress(OSError, CorruptFileError):
                if not spec.settings.persist and feed.name not in store.names():
                    remove_rings(store.shared, feed.name)
            store.unstage(feed.name)
            raise
        finally:
            lock.release()
    finally:
        store.close()
    for text in layout.warnings:
        warnings.warn(f"feed {feed.name!r}: {text}", stacklevel=3)


def refuse_if_filled(base_path: str | os.PathLike[str], name: str) -> None:
    """Raise if a feed of that name is being filled: so that it is said before long work.

    Raises
    ------
    FeedLockedError
    """
    try:
        store = Store(os.path.abspath(os.fspath(base_path)))
    except FeedNotFoundError:
        return
    try:
        if not is_left(store.data, IMPORTING + name):
            raise _busy(store, name)
    finally:
        store.close()


def _writer(store: Store, feed: Feed) -> Writer | RingWriter:
    directory = Directory(IMPORTING + feed.name, parent=store.data)
    lock = bell = None
    try:
        lock = Lock.take(".", directory.fd)
        assert lock is not None, "nobody else opens it"
        bell = Bell(store.shared, feed.name)
        if feed.settings.persist:
            return Writer(directory, feed, lock, bell)
        return RingWriter(directory, feed, lock, bell, store.shared)
    except BaseException:
        for part in (bell, directory):
            if part is not None:
                part.close()
        if lock is not None:
            lock.release()
        raise


def _busy(store: Store, name: str) -> FeedLockedError:
    owner = None
    with contextlib.suppress(OSError), Directory(IMPORTING + name, parent=store.data) as directory:
        owner = owner_of(store, name, directory)
    parts = {} if owner is None else {"pid": owner.pid, "host": owner.host, "since_us": owner.since_us}
    who = "" if owner is None else f" by process {owner.pid} on {owner.host} since {format_us(owner.since_us)}"
    text = f"feed {name!r} is being imported{who}: it appears when that is done; wait, or end that import"
    return FeedLockedError(text, feed=name, **parts)
