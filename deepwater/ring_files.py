"""Where a store's shared memory lies: rings, and the words that waking readers takes.

::

    /dev/shm/deepwater-<uid>/<store>/          0700 each; uid of the owner of the base path
        store.json                             whose it is: base path, store id
        <feed>-<chunk_id>                      a ring (`deepwater.ring`)
        <feed>.wake                            who waits for the feed (`deepwater.wake`); also of durable feeds

``<store>`` is a hash of the store's id and of the device and inode of its base path: two stores never share a
name, a copied store does not share the original's rings. Where there is no /dev/shm (macOS) it is
``<base_path>/.shm`` instead, and ``$DEEPWATER_SHM`` names another place; who reads must name the same.

Plain files: whoever creates unlinks (a ring with its feed, a wake file with its writer), a reader's exit removes
nothing, and what a killed process leaves can be listed and cleaned (`deepwater.shm`). Directories are removed when
the last file in them is; a maker that loses that race makes them again.

Rejected: ``multiprocessing.shared_memory``, whose resource tracker unlinks a live writer's segment when a reader
exits; names in one flat directory (two stores would meet in them).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from typing import TypeVar

from deepwater.errors import CorruptFileError
from deepwater.files import TEMPORARY, Directory, full_is_said

ROOT_VARIABLE = "DEEPWATER_SHM"
ABOUT = "store.json"
WAKE = ".wake"
_DEFAULT_ROOT = "/dev/shm"
_RING = re.compile(r"(.+)-([1-9]\d{0,18})")
_ATTEMPTS = 100
T = TypeVar("T")


def user_directory_name(uid: int) -> str:
    """The name of a user's directory on the shared-memory file system."""
    return f"deepwater-{uid}"


def root_of(base_path: str) -> str:
    """The directory that holds the users' directories."""
    chosen = os.environ.get(ROOT_VARIABLE)
    if chosen:
        return chosen
    return _DEFAULT_ROOT if os.path.isdir(_DEFAULT_ROOT) else os.path.join(base_path, ".shm")


def ring_name(feed: str, chunk_id: int) -> str:
    """The file name of a ring."""
    return f"{feed}-{chunk_id}"


def wake_name(feed: str) -> str:
    """The file name of a feed's waiters."""
    return f"{feed}{WAKE}"


def is_half_made(name: str, feed: str) -> bool:
    """Whether a file is one of the feed's that somebody was making. Who holds the feed's lock may remove it.

    >>> is_half_made(".tmp-A-1-" + "0" * 32, "A"), is_half_made(".tmp-A-1-1-" + "0" * 32, "A")
    (True, False)
    """
    return bool(re.fullmatch(rf"{re.escape(TEMPORARY + feed)}(-\d+|{re.escape(WAKE)})-[0-9a-f]{{32}}", name))


def remove_half_made(directory: Directory, feed: str) -> None:
    """Remove what a killed process was making for a feed. Under the feed's lock."""
    for name in directory.names():
        if is_half_made(name, feed):
            directory.remove(name)


def parse_ring_name(name: str) -> tuple[str, int] | None:
    """Feed and id of a ring's file name; None if it is none.

    >>> parse_ring_name("CB-L2SNAP-BTC-USD-2"), parse_ring_name("store.json")
    (('CB-L2SNAP-BTC-USD', 2), None)
    """
    found = _RING.fullmatch(name)
    return (found[1], int(found[2])) if found else None


class SharedPlace:
    """The shared memory of one store, found or made when it is needed.

    Parameters
    ----------
    base : Directory
        The store's base path, open.
    store_id : bytes
    """

    __slots__ = ("_about", "_store", "_uid", "root")

    def __init__(self, base: Directory, store_id: bytes) -> None:
        info = os.fstat(base.fd)
        self._uid = info.st_uid
        self.root = root_of(base.path)
        about = {"base_path": os.path.realpath(base.path), "store_id": store_id.hex()}
        self._about = (json.dumps(about) + "\n").encode()
        name = store_id + info.st_dev.to_bytes(8, "little") + info.st_ino.to_bytes(8, "little")
        self._store = hashlib.blake2b(name, digest_size=8, person=b"deepwater shm").hexdigest()

    @property
    def path(self) -> str:
        """The directory, there or not."""
        return os.path.join(self.root, user_directory_name(self._uid), self._store)

    def open(self) -> Directory:
        """Open the directory; the caller closes it.

        Raises
        ------
        FileNotFoundError
            There is none: nobody writes.
        CorruptFileError
            Somebody else made it, or others may write into it.
        """
        with self._root() as root, _own(root, user_directory_name(self._uid), self._uid) as user:
            return _own(user, self._store, self._uid)

    def _root(self) -> Directory:
        if not os.path.isabs(self.root):
            raise _refuse(self.root, f"${ROOT_VARIABLE} must be an absolute path")
        try:
            return Directory(self.root)
        except NotADirectoryError as error:
            raise _refuse(self.root, "it is no directory") from error

    def with_directory(self, work: Callable[[Directory], T]) -> T:
        """Do `work` with the directory, made if it is not there; `work` is done again if it was removed meanwhile."""
        for attempt in range(_ATTEMPTS):
            try:
                with full_is_said(self.path):
                    self._make()
                with self.open() as directory:
                    if self._said(directory) != self._about:  # new, or the store was moved
                        directory.write(ABOUT, self._about)
                    return work(directory)
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    @staticmethod
    def _said(directory: Directory) -> bytes:
        try:
            return directory.read(ABOUT)
        except FileNotFoundError:
            return b""

    def _make(self) -> None:
        try:
            os.stat(self.root)
        except FileNotFoundError:
            if os.environ.get(ROOT_VARIABLE):
                raise _refuse(self.root, f"${ROOT_VARIABLE} names it, and it is not there: make it first") from None
            os.makedirs(self.root, mode=0o700, exist_ok=True)
        with self._root() as root:
            _make(root, user_directory_name(self._uid), self._uid)
            with _own(root, user_directory_name(self._uid), self._uid) as user:
                _make(user, self._store, self._uid)

    def tidy(self) -> None:
        """Remove the directory, and the user's, if nothing is left in them. Never fails."""
        with contextlib.suppress(OSError, CorruptFileError), self.open() as directory:
            if directory.names() == [ABOUT]:
                directory.remove(ABOUT)
                try:
                    os.rmdir(self.path)
                except OSError:  # a writer came just now
                    directory.write(ABOUT, self._about)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.path))


def _make(parent: Directory, name: str, uid: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent.fd)
        if os.geteuid() == 0 and uid != 0:  # for the owner of the store, not for root
            os.chown(name, uid, -1, dir_fd=parent.fd, follow_symlinks=False)


def _own(parent: Directory, name: str, uid: int) -> Directory:
    """Open a directory that must be the user's (or root's, or ours) and closed to writers among the others."""
    path = parent.name_of(name)
    try:
        directory = Directory(name, parent=parent)
    except NotADirectoryError as error:
        raise _refuse(path, "it is no directory (links are not followed)") from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            error.filename = path
            raise
        raise _refuse(path, "it is a link") from error
    info = os.fstat(directory.fd)
    reason = ""
    if info.st_uid not in (uid, 0, os.geteuid()):
        reason = f"it belongs to uid {info.st_uid}, expected {uid}"
    elif stat.S_IMODE(info.st_mode) & 0o022:
        reason = f"others may write into it (mode {stat.S_IMODE(info.st_mode):04o}, expected 0700)"
    if reason:
        directory.close()
        raise _refuse(path, reason)
    return directory


def _refuse(path: str, reason: str) -> CorruptFileError:
    text = f"{path}: refused as shared memory: {reason}; remove it, or name another place with ${ROOT_VARIABLE}"
    return CorruptFileError(text, path=path, reason=reason)
