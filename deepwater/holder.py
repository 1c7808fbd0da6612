"""Who holds a feed: what its newest file says, and the error that says it."""

from __future__ import annotations

import time

from deepwater import format as fmt
from deepwater.chunk import Chunk, chunk_ids
from deepwater.errors import CorruptFileError, FeedLockedError, FeedNotFoundError
from deepwater.feed_files import read_feed
from deepwater.files import Directory
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
