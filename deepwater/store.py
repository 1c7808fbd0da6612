"""A store on disk: its identity, and the directories of its feeds. Looking creates nothing.

Beside the feeds ``data/`` has directories under names that no feed can have, so that nobody lists or opens them::

    .new-<uuid>     a feed that is being made: its two text files, for moments; then it is renamed
    .gone-<uuid>    a feed that is being deleted
    .import-<feed>  a feed that is being filled (`deepwater.new_feed`), for as long as that takes; then it is renamed

Who fills a feed holds the lock on its ``layout.json`` (MAINTENANCE) before the directory gets that name and until it
has the feed's: a directory of an import that is not locked was left by a kill. Whoever makes or deletes a feed, or
repairs the store, removes it. Rejected: to go by its age, as with ``.new-``; an import takes hours.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
import uuid
from functools import lru_cache

from deepwater.errors import CorruptFileError, FeedNotFoundError, SchemaError
from deepwater.feed_files import FORMAT, LAYOUT, Feed, write_feed
from deepwater.files import Directory, full_is_said
from deepwater.global_registry import GlobalRegistry
from deepwater.jsontext import load_json
from deepwater.locks import Lock
from deepwater.mounts import check_place
from deepwater.ring_files import SharedPlace
from deepwater.schema import check_feed_name, is_feed_name
from deepwater.wording import did_you_mean

STORE, DATA, LOCK = "store.json", "data", "store.lock"
MAKING, GONE, IMPORTING = ".new-", ".gone-", ".import-"
_OLD_S = 3600
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
_TRIES = 100


class Store:
    """The open directories of a store.

    Attributes
    ----------
    base, data : Directory
    id : bytes
        16 bytes, the store's UUID.
    registry : GlobalRegistry
    shared : SharedPlace
        Where its rings are.
    """

    def __init__(self, path: str) -> None:
        """Open an existing store.

        Raises
        ------
        FeedNotFoundError
            There is no store at `path`.
        """
        missing = FeedNotFoundError(
            f"no store at {path}: record or create a feed there, or name another --base-path", base_path=path
        )
        try:
            self.base = Directory(path)  # resolved by this open, once; below it no link is followed
        except FileNotFoundError:
            raise missing from None
        try:
            self.id = _read_id(self.base)
            self.data = Directory(DATA, parent=self.base)
        except FileNotFoundError:
            self.base.close()
            raise missing from None
        try:
            check_place(self.base, write=False)
        except BaseException:
            self.close()
            raise
        self.registry = GlobalRegistry(self.base, self.id)
        self.shared = SharedPlace(self.base, self.id)

    @classmethod
    def make(cls, path: str) -> Store:
        """Open a store, making it (directories 0700) if there is none."""
        with full_is_said(path):
            try:
                os.stat(path)  # a path that is too long is refused here, by its name
            except FileNotFoundError:
                os.makedirs(path, mode=0o700, exist_ok=True)
            with Directory(path) as base:
                check_place(base, write=True)
                if not base.exists(STORE) or not base.exists(DATA):
                    with base.guarded(LOCK):
                        base.make(DATA)
                        if not base.exists(STORE):
                            text = json.dumps({"format": FORMAT, "store_id": str(uuid.uuid4())}) + "\n"
                            base.write(STORE, text.encode())
        return cls(path)

    def close(self) -> None:
        """Close the directories. Idempotent."""
        self.data.close()
        self.base.close()

    def names(self) -> list[str]:
        """The feeds, sorted."""
        return [name for name in self.data.directories() if is_feed_name(name)]

    def open(self, name: str) -> Directory:
        """The directory of a feed.

        Raises
        ------
        FeedNameError, FeedNotFoundError
        """
        check_feed_name(name)
        try:
            return Directory(name, parent=self.data)
        except FileNotFoundError:
            raise self.not_found(name) from None
        except OSError as error:
            path = self.data.name_of(name)
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):  # no descriptor left, no permission: no damage
                error.filename = path
                raise
            reason = "not a directory (links are not followed inside a store)"
            raise CorruptFileError(f"{path}: {reason}: {error.strerror}", path=path, reason=reason) from error

    def not_found(self, name: str) -> FeedNotFoundError:
        """The error for a feed that is not there, with what it may have meant."""
        names = self.names()
        hint = did_you_mean(name, names) or (f"; feeds: {', '.join(names[:8])}" if names else "; the store has no feed")
        return FeedNotFoundError(
            f"no feed {name!r} in {self.base.path}{hint}",
            feed=name,
            base_path=self.base.path,
            suggestions=names[:8],
        )

    def add(self, feed: Feed) -> bool:
        """Make the directory of a feed with its two files, by rename; False if there is one already."""
        with full_is_said(self.data.name_of(feed.name)):
            return self._add(feed)

    def _add(self, feed: Feed) -> bool:
        hidden = f"{MAKING}{uuid.uuid4().hex}"
        try:
            self.data.make_new(hidden)
            with Directory(hidden, parent=self.data) as directory:
                write_feed(directory, feed)
                os.rename(hidden, feed.name, src_dir_fd=self.data.fd, dst_dir_fd=self.data.fd)
                self.data.sync()
                self.registry.put(feed, directory)
        except BaseException as error:
            self._erase(hidden)
            if isinstance(error, OSError) and error.errno in _TAKEN:
                return False
            raise
        self._sweep()
        return True

    def stage(self, feed: Feed) -> Lock | None:
        """Make the directory of a feed that is to be filled; None if somebody else is filling one of its name.

        Returns
        -------
        Lock or None
            To be held until `appear` or `unstage`.
        """
        hidden, place = f"{MAKING}{uuid.uuid4().hex}", IMPORTING + feed.name
        lock = None
        try:
            with full_is_said(self.data.name_of(feed.name)):
                self.data.make_new(hidden)
                with Directory(hidden, parent=self.data) as directory:
                    write_feed(directory, feed)
                    lock = Lock.take(LAYOUT, directory.fd)
                assert lock is not None, "nobody knows it yet"
                if self._rename_to_import(hidden, place):
                    self._sweep()
                    return lock
        except BaseException:
            self._erase(hidden)
            raise
        self._erase(hidden)
        lock.release()
        return None

    def _rename_to_import(self, hidden: str, place: str) -> bool:
        """Give a locked directory its name; what a killed import left under it goes. False if there is a live one."""
        for k in range(_TRIES):
            try:
                os.rename(hidden, place, src_dir_fd=self.data.fd, dst_dir_fd=self.data.fd)
                return True
            except OSError as error:
                if error.errno not in _TAKEN or k == _TRIES - 1:
                    raise
            if not erase_left(self.data, place):
                return False
        return False

    def appear(self, feed: Feed) -> bool:
        """Make a filled feed one of the store; False if there is a feed of its name by now."""
        with full_is_said(self.data.name_of(feed.name)):
            try:
                os.rename(IMPORTING + feed.name, feed.name, src_dir_fd=self.data.fd, dst_dir_fd=self.data.fd)
            except OSError as error:
                if error.errno in _TAKEN:
                    return False
                raise
            self.data.sync()
        with Directory(feed.name, parent=self.data) as directory:
            self.registry.put(feed, directory)
        return True

    def unstage(self, name: str) -> None:
        """Remove what was filled. Under its lock."""
        self._erase(IMPORTING + name)

    def remove(self, name: str) -> None:
        """Take a feed out of the store by rename, then remove its files. Mappings stay readable."""
        hidden = f"{GONE}{uuid.uuid4().hex}"
        with full_is_said(self.data.name_of(name)):
            os.rename(name, hidden, src_dir_fd=self.data.fd, dst_dir_fd=self.data.fd)
            self.data.sync()
        self.registry.remove(name)
        self._erase(hidden)
        self._sweep()

    def _erase(self, hidden: str) -> None:
        """Remove a directory that is no feed (any more), and the files in it."""
        with contextlib.suppress(FileNotFoundError), Directory(hidden, parent=self.data) as directory:
            _empty(self.data, hidden, directory)

    def _sweep(self) -> None:
        """Remove what a killed process left of deleting or filling a feed, and what is old of making one."""
        for name in self.data.directories():
            with contextlib.suppress(OSError):
                old = time.time() - os.stat(name, dir_fd=self.data.fd).st_mtime > _OLD_S
                if name.startswith(GONE) or (name.startswith(MAKING) and old):
                    self._erase(name)
                elif name.startswith(IMPORTING):
                    erase_left(self.data, name)


def is_left(data: Directory, name: str) -> bool:
    """Whether a directory of an import is one that nobody fills any more."""
    return _left(data, name, erase=False)


def erase_left(data: Directory, name: str) -> bool:
    """Remove a directory of an import that nobody fills any more; False if somebody does."""
    return _left(data, name, erase=True)


def _left(data: Directory, name: str, *, erase: bool) -> bool:
    try:
        directory = Directory(name, parent=data)
    except FileNotFoundError:
        return True
    lock = None
    with directory:
        try:
            with contextlib.suppress(FileNotFoundError):  # killed while it was removed: nobody can hold it
                lock = Lock.take(LAYOUT, directory.fd)
                if lock is None:
                    return False
            # Who filled it may have come to the end since it was opened: then these files are those of a feed.
            if erase and os.path.samestat(os.stat(name, dir_fd=data.fd, follow_symlinks=False), os.fstat(directory.fd)):
                _empty(data, name, directory)
        except FileNotFoundError:
            pass
        finally:
            if lock is not None:
                lock.release()
    return True


def _empty(data: Directory, name: str, directory: Directory) -> None:
    """Remove a directory and its files. Who opened the feed before may still put one there: then once more.

    What stays all the same is removed by whoever makes or deletes the next feed.
    """
    directory.remove(LAYOUT)  # first: whoever opens it from now on finds no feed, not a part of one
    for _ in range(_TRIES):
        for file in directory.names():
            directory.remove(file)
        try:
            os.rmdir(name, dir_fd=data.fd)
            return
        except OSError as error:
            if error.errno not in _TAKEN:
                raise


def _read_id(base: Directory) -> bytes:
    return _parse_id(base.read(STORE), base.name_of(STORE))


@lru_cache(maxsize=64)
def _parse_id(data: bytes, path: str) -> bytes:
    try:
        about = load_json(data, path)
        if str(about["format"]).split(".")[0] != FORMAT.split(".")[0]:
            reason = f"format {about['format']}; this version reads {FORMAT}"
            raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
        return uuid.UUID(about["store_id"]).bytes
    except (SchemaError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFileError(f"{path}: not a store's description: {error}", path=path, reason=str(error)) from error
