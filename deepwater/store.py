"""A store on disk: its identity, and the directories of its feeds. Looking creates nothing."""

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
from deepwater.mounts import check_place
from deepwater.ring_files import SharedPlace
from deepwater.schema import check_feed_name, is_feed_name
from deepwater.wording import did_you_mean

STORE, DATA, LOCK = "store.json", "data", "store.lock"
_HIDDEN = (".new-", ".gone-")
_OLD_S = 3600


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
        hidden = f"{_HIDDEN[0]}{uuid.uuid4().hex}"
        try:
            self.data.make_new(hidden)
            with Directory(hidden, parent=self.data) as directory:
                write_feed(directory, feed)
                os.rename(hidden, feed.name, src_dir_fd=self.data.fd, dst_dir_fd=self.data.fd)
                self.data.sync()
                self.registry.put(feed, directory)
        except BaseException as error:
            self._erase(hidden)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        self._sweep()
        return True

    def remove(self, name: str) -> None:
        """Take a feed out of the store by rename, then remove its files. Mappings stay readable."""
        hidden = f"{_HIDDEN[1]}{uuid.uuid4().hex}"
        with full_is_said(self.data.name_of(name)):
            os.rename(name, hidden, src_dir_fd=self.data.fd, dst_dir_fd=self.data.fd)
            self.data.sync()
        self.registry.remove(name)
        self._erase(hidden)
        self._sweep()

    def _erase(self, hidden: str) -> None:
        """Remove a directory that is no feed (any more), and the files in it."""
        with contextlib.suppress(FileNotFoundError), Directory(hidden, parent=self.data) as directory:
            directory.remove(LAYOUT)  # first: whoever opens it from now on finds no feed, not a part of one
            for name in directory.names():
                directory.remove(name)
            os.rmdir(hidden, dir_fd=self.data.fd)

    def _sweep(self) -> None:
        """Remove what a killed process left of deleting a feed, and what is old of making one."""
        for name in self.data.directories():
            with contextlib.suppress(OSError):
                old = time.time() - os.stat(name, dir_fd=self.data.fd).st_mtime > _OLD_S
                if name.startswith(_HIDDEN[1]) or (name.startswith(_HIDDEN[0]) and old):
                    self._erase(name)


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
