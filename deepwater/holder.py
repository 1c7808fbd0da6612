"""Who holds a feed: what its newest file says, the error that says it, and the lock of maintenance."""

from __future__ import annotations

import time

from deepwater import format as fmt
from deepwater.chunk import Chunk, chunk_ids
from deepwater.errors import CorruptFileError, FeedLockedError, FeedNotFoundError
from deepwater.feed_files import LAYOUT, read_feed
from deepwater.files import Directory
from deepwater.locks import Lock
from deepwater.ring_chain import RingChain
from deepwater.store import Store


def owner_of(store: Store, name: str, directory: Directory) -> fmt.Owner | None:
    """Who holds a feed, as its newest chunk or its ring says; None if that cannot be told."""
    try:
        feed = read_feed(directory, name, store.id)
        if not feed.settings.persist:
            ring = RingChain(directory, store.shared, name, feed.layout, feed.ids).tail
            return ring.owner() if ring is not None else None
        for chunk_id in reversed(chunk_ids(directory)):
            chunk = Chunk.open(directory, chunk_id, feed.layout, feed.ids)
            owner = chunk.owner() if chunk is not None else None
            if owner is not None and owner.held:
                return owner
    except (OSError, CorruptFileError, FeedNotFoundError):
        return None
    return None


def locked(feed: str, directory: Directory, owner: fmt.Owner | None) -> FeedLockedError:
    """The error for a feed that another writer holds, naming it where it can be known."""
    if owner is None:
        return FeedLockedError(
            f"feed {feed!r} has a writer already: {directory.path}; one writer a feed: close that one",
            feed=feed,
        )
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(owner.since_us / 1_000_000))
    return FeedLockedError(
        f"feed {feed!r} has a writer already: process {owner.pid} on {owner.host} since {since}; one writer a feed: "
        f"close that one", feed=feed, pid=owner.pid, host=owner.host, since_us=owner.since_us,
    )  # fmt: skip


def maintenance(store: Store, feed: str, directory: Directory) -> Lock:
    """Take the MAINTENANCE lock of a feed; the caller releases it.

    Raises
    ------
    FeedLockedError
        Somebody else has it.
    FeedNotFoundError
        The feed was deleted meanwhile.
    """
    try:
        lock = Lock.take(LAYOUT, directory.fd)
    except FileNotFoundError:
        raise store.not_found(feed) from None
    if lock is None:
        raise FeedLockedError(
            f"feed {feed!r} is under maintenance (a prune or a delete): {directory.path}; one at a time: try again "
            f"when it is done", feed=feed,
        )  # fmt: skip
    if not lock.stat.st_nlink:  # a delete was quicker
        lock.release()
        raise store.not_found(feed)
    return lock
