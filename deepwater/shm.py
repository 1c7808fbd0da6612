"""What lies in shared memory: the rings of all this user's stores, and what nobody will come back for.

A killed process leaves its ring, which its feed's next writer continues. An orphan is a file that no feed can
use any more: its store or feed is gone, or another life of the feed has begun. That must be seen to be so: what
cannot be read (a store that is not mounted, a feed with damaged settings) is no proof, and what a process holds that
is alive, or out of sight in a container, is never an orphan. Looking changes nothing; `clean` looks again before it
removes. A store that was moved is only known at its new place once somebody has written there.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from typing import Any

from deepwater import format as fmt
from deepwater.errors import CorruptFileError, FeedNotFoundError
from deepwater.feed_files import Feed, read_feed
from deepwater.files import TEMPORARY, Directory
from deepwater.locks import is_alive, may_be_alive
from deepwater.ring import FEED_HALF
from deepwater.ring_files import ABOUT, WAKE, parse_ring_name, root_of, user_directory_name
from deepwater.segment import Segment
from deepwater.store import IMPORTING, Store, is_left
from deepwater.wake import OWNER_OFFSET

Entry = dict[str, Any]
HALF_MADE_S = 60
"""A file that is being made for longer than this was left by a maker that died."""


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
                    gone = contextlib.suppress(FileNotFoundError, PermissionError)
                    with gone, Directory(store, parent=user) as directory:
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
            with contextlib.suppress(OSError):  # gone, or a directory: not ours
                os.unlink(entry["path"])
                removed += 1
    for path in {os.path.dirname(str(entry["path"])) for entry in entries}:
        with contextlib.suppress(OSError, CorruptFileError):
            if os.listdir(path) == [ABOUT] and _is_gone(path):
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
    with contextlib.suppress(OSError, CorruptFileError, ValueError, KeyError, TypeError, RecursionError):
        about = json.loads(directory.read(ABOUT, 1 << 16))
        path, store_id = os.fsdecode(os.fsencode(about["base_path"])), bytes.fromhex(about["store_id"])
        return (path, store_id) if "\0" not in path else (None, b"")
    return None, b""


class _Owners:
    """What is known of the store that a directory belongs to. Nothing is called gone that was not seen to be.

    Attributes
    ----------
    store : Store or None
        Open, if it is there.
    is_gone : bool
        Proven: the place it was at is readable, and it is not there, or another store is.
    """

    def __init__(self, directory: Directory) -> None:
        self.path, store_id = _about(directory)
        self.store: Store | None = None
        self.is_gone = False
        if self.path is None:
            return
        try:
            store = Store(self.path)
        except FeedNotFoundError:
            with contextlib.suppress(OSError, ValueError):
                self.is_gone = os.access(os.path.dirname(self.path), os.R_OK | os.X_OK)
        except (OSError, ValueError, CorruptFileError):
            pass  # not readable, or not by this version
        else:
            if store.id == store_id and os.path.basename(store.shared.path) == os.path.basename(directory.path):
                self.store = store
                return
            store.close()
            self.is_gone = True

    def why_feed_is_gone(self, feed: str) -> tuple[Feed | None, str | None]:
        """A feed of the store, or why there is none; both None if that cannot be told."""
        if self.store is None:
            return None, "its store is gone" if self.is_gone else None
        try:
            with self.store.open(feed) as directory:
                return read_feed(directory, feed, self.store.id), None
        except FeedNotFoundError:
            if not is_left(self.store.data, IMPORTING + feed) or feed in self.store.names():
                return None, None  # it is being filled, or has just been
            return None, "its feed is gone"
        except (OSError, ValueError, CorruptFileError):
            return None, None

    def close(self) -> None:
        if self.store is not None:
            self.store.close()


def _is_gone(path: str) -> bool:
    with Directory(path) as directory:
        owners = _Owners(directory)
    owners.close()
    return owners.is_gone


def _of_store(directory: Directory, wanted: str | None) -> list[Entry]:
    owners = _Owners(directory)
    try:
        if wanted is not None and owners.path != wanted:
            return []
        found = []
        for name in directory.names():
            if name != ABOUT:
                with contextlib.suppress(FileNotFoundError):
                    entry = _entry(directory, name, owners)
                    found.append(entry | {"store": os.path.basename(directory.path), "base_path": owners.path})
        return found
    finally:
        owners.close()


def _entry(directory: Directory, name: str, owners: _Owners) -> Entry:
    info = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
    entry: Entry = {
        "kind": "other", "path": directory.name_of(name), "inode": info.st_ino, "feed": None, "chunk_id": None,
        "bytes": info.st_blocks * 512, "capacity": 0, "records": 0, "end": 0, "writer_pid": None, "heartbeat_us": 0,
        "orphan": False, "why": None,
    }  # fmt: skip
    why: str | None = None
    if not stat.S_ISREG(info.st_mode):
        return entry
    if name.startswith(TEMPORARY):
        if time.time() - info.st_mtime > HALF_MADE_S:
            why = "whoever was making it died"
    elif (ring := parse_ring_name(name)) is not None:
        entry |= {"kind": "ring", "feed": ring[0], "chunk_id": ring[1]}
        why = _ring(directory, name, entry, *owners.why_feed_is_gone(ring[0]))
    elif name.endswith(WAKE):
        entry |= {"kind": "wake", "feed": name[: -len(WAKE)]}
        why = _wake(directory, name, owners.why_feed_is_gone(name[: -len(WAKE)])[1])
    return entry | {"orphan": why is not None, "why": why}


def _wake(directory: Directory, name: str, why: str | None) -> str | None:
    """Why the words of a feed are an orphan: the feed is gone, and who made them is not alive."""
    try:
        data = directory.read(name, 1 << 16)
    except (OSError, CorruptFileError):
        return None
    owner = fmt.parse_owner(data, OWNER_OFFSET)
    return None if owner is not None and may_be_alive(owner) else why


def _ring(directory: Directory, name: str, entry: Entry, feed: Feed | None, why: str | None) -> str | None:
    """Fill in what a ring's header says; why it is an orphan: what cannot be read is none, nor what may be written."""
    try:
        segment = Segment.open(directory, name, fmt.RING)
    except OSError:
        return None
    except CorruptFileError:
        return why
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
    if owner is not None and may_be_alive(owner):
        return None
    if feed is not None and feed.settings.persist:
        return "its feed is no ring"
    if feed is not None and incarnation[:FEED_HALF] != feed.ids.incarnation[:FEED_HALF]:
        return "another life of its feed has begun"
    if feed is not None and word >= fmt.SEALED:
        return "it was replaced by another ring"
    return why
