"""What lies in shared memory: the rings of all this user's stores, and what nobody will come back for.

A killed process leaves its ring, which its feed's next writer continues. An orphan is a file that no feed can
use any more: its store or feed is gone, or another life of the feed has begun. Looking changes nothing; `clean`
looks again before it removes.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from deepwater import format as fmt
from deepwater.errors import CorruptFileError, FeedNotFoundError
from deepwater.feed_files import Feed, read_feed
from deepwater.files import Directory
from deepwater.locks import is_alive
from deepwater.ring import FEED_HALF
from deepwater.ring_files import ABOUT, WAKE, parse_ring_name, root_of, user_directory_name
from deepwater.segment import Segment
from deepwater.store import Store

Entry = dict[str, Any]


def listing(base_path: str | None = None) -> list[Entry]:
    """Everything in the shared memory that stores of this user have there.

    Parameters
    ----------
    base_path : str, optional
        Only of this store.

    Returns
    -------
    list of dict
        By path, with: `kind` ("ring", "wake": the words that readers are woken by, "other"), `path`, `store` (its
        directory), `base_path` (None if nobody says), `feed`, `chunk_id`, `bytes`, `capacity`, `records` held, `end`,
        `writer_pid` (None: no live writer), `heartbeat_us`, `orphan`, and `why` (a text, where it is one).
    """
    wanted = None if base_path is None else os.path.realpath(base_path)
    found: list[Entry] = []
    with contextlib.suppress(FileNotFoundError), Directory(root_of(base_path or ".")) as root:
        names = [name for name in root.directories() if name == user_directory_name(_uid(base_path))]
        for name in names:
            with Directory(name, parent=root) as user:
                for store in user.directories():
                    with contextlib.suppress(FileNotFoundError), Directory(store, parent=user) as directory:
                        found += _of_store(directory, wanted)
    return sorted(found, key=lambda entry: str(entry["path"]))


def clean(entries: list[Entry]) -> int:
    """Remove those of the entries that are (still) orphans, and directories that are empty then.

    Returns
    -------
    int
        How many files were removed.
    """
    removed = 0
    again = [e for base in {e["base_path"] for e in entries} for e in listing(base) if e["orphan"]]
    still = {(e["path"], e["inode"]) for e in again}
    for entry in entries:
        if (entry["path"], entry["inode"]) in still:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry["path"])
                removed += 1
    for path in {os.path.dirname(str(entry["path"])) for entry in entries}:
        with contextlib.suppress(OSError):
            if os.listdir(path) == [ABOUT] and not _store_is_there(path):
                os.unlink(os.path.join(path, ABOUT))
            os.rmdir(path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(path))
    return removed


def _uid(base_path: str | None) -> int:
    """Whose directory: that of the owner of the base path."""
    with contextlib.suppress(OSError):
        if base_path is not None:
            return os.stat(base_path).st_uid
    return os.geteuid()


def _about(directory: Directory) -> tuple[str | None, bytes]:
    """Base path and store id, as the store's writers wrote them down."""
    with contextlib.suppress(OSError, CorruptFileError, ValueError, KeyError, TypeError):
        about = json.loads(directory.read(ABOUT, 1 << 16))
        return str(about["base_path"]), bytes.fromhex(about["store_id"])
    return None, b""


def _open_store(path: str | None, store_id: bytes, name: str) -> Store | None:
    """The store that a directory belongs to, if it is still that store."""
    if path is None:
        return None
    with contextlib.suppress(OSError, FeedNotFoundError, CorruptFileError):
        store = Store(path)
        if store.id == store_id and os.path.basename(store.shared.path) == name:
            return store
        store.close()
    return None


def _store_is_there(path: str) -> bool:
    with Directory(path) as directory:
        store = _open_store(*_about(directory), os.path.basename(path))
    if store is not None:
        store.close()
    return store is not None


def _of_store(directory: Directory, wanted: str | None) -> list[Entry]:
    base_path, store_id = _about(directory)
    if wanted is not None and base_path != wanted:
        return []
    name = os.path.basename(directory.path)
    store = _open_store(base_path, store_id, name)
    try:
        found = []
        for file in directory.names():
            if file != ABOUT:
                with contextlib.suppress(FileNotFoundError):
                    found.append(_entry(directory, file, store) | {"store": name, "base_path": base_path})
        return found
    finally:
        if store is not None:
            store.close()


def _entry(directory: Directory, name: str, store: Store | None) -> Entry:
    info = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
    entry: Entry = {
        "kind": "other", "path": directory.name_of(name), "inode": info.st_ino, "feed": None, "chunk_id": None,
        "bytes": info.st_blocks * 512, "capacity": 0, "records": 0, "end": 0, "writer_pid": None, "heartbeat_us": 0,
        "orphan": False, "why": None,
    }  # fmt: skip
    ring = parse_ring_name(name)
    if ring is not None:
        entry |= {"kind": "ring", "feed": ring[0], "chunk_id": ring[1]}
    elif name.endswith(WAKE):
        entry |= {"kind": "wake", "feed": name[: -len(WAKE)]}
    feed = _feed(store, entry["feed"])
    why = _why(store, feed, entry["kind"])
    if ring is not None:
        why = _look_into(directory, name, entry, feed) or why
    return entry | {"orphan": why is not None, "why": why}


def _feed(store: Store | None, name: str | None) -> Feed | None:
    if store is not None and name is not None:
        with contextlib.suppress(OSError, ValueError, FeedNotFoundError, CorruptFileError), store.open(name) as own:
            return read_feed(own, name, store.id)
    return None


def _why(store: Store | None, feed: Feed | None, kind: str) -> str | None:
    if store is None:
        return "its store is gone"
    if kind == "other":
        return None  # in the making, or not ours: not for us to remove
    if feed is None:
        return "its feed is gone"
    if kind == "ring" and feed.settings.persist:
        return "its feed is no ring"
    return None


def _look_into(directory: Directory, name: str, entry: Entry, feed: Feed | None) -> str | None:
    """Fill in what a ring's header says; why it is an orphan, if the header tells."""
    try:
        segment = Segment.open(directory, name, fmt.RING)
    except CorruptFileError as error:
        return f"not a ring: {error.reason}" if hasattr(error, "reason") else "not a ring"
    except PermissionError:
        return None
    active = fmt.parse_activation(segment.read(0, fmt.LIVE_OFFSET))
    word, claim = segment.words[fmt.COMMIT], segment.words[fmt.CLAIM]
    count, capacity = word & fmt.COUNT_MASK, segment.identity.capacity
    owner = fmt.parse_owner(segment.read(0, 2 * fmt.LIVE_PAGE))
    entry |= {
        "capacity": capacity,
        "records": max(0, count - max(0, claim - capacity)),
        "end": (active[0] if active else 0) + count,
        "heartbeat_us": segment.words[fmt.HEARTBEAT],
        "writer_pid": owner.pid if owner is not None and is_alive(owner) else None,
    }
    incarnation = segment.identity.ids.incarnation
    segment.close()
    if feed is not None and incarnation[:FEED_HALF] != feed.ids.incarnation[:FEED_HALF]:
        return "another life of its feed has begun"
    if word >= fmt.SEALED:
        return "it was replaced by another ring"
    return None
