"""Files of a store: named relative to an open directory, checked before use, replaced by rename.

The base path is resolved once, symlinks allowed. Below it every file is opened by name relative to
its directory's descriptor, without following links (``O_NOFOLLOW``), without blocking on a FIFO
(``O_NONBLOCK``), and must be a regular file that belongs to the owner of the directory, to root or
to this user. New files are 0600, new directories 0700.

Rejected: paths joined as text for each access (a directory renamed or replaced by a link in between
would lead elsewhere), and lock files to create files under (creation is by rename, which is atomic).
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
import sys
import uuid
from collections.abc import Iterator
from typing import Self

from deepwater.errors import CorruptFileError, StorageFullError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
TEMPORARY = ".tmp-"
"""Prefix of files that are being made. Whoever holds the directory's lock may remove them."""


class Directory:
    """An open directory of a store.

    Attributes
    ----------
    path : str
        As it was when opened; only for messages and for opening it anew.
    fd : int
        Its descriptor. Valid until `close`.

    Notes
    -----
    A context manager. Any thread may use it; after a fork both processes may.
    """

    __slots__ = ("_owners", "fd", "path")

    def __init__(self, name: str | os.PathLike[str], *, parent: Directory | None = None, path: str = "") -> None:
        self.path: str = path or (os.path.join(parent.path, name) if parent else os.fspath(name))
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if parent else 0)
        self.fd: int = os.open(name, flags, dir_fd=parent.fd if parent else None)  # closed by `__del__` if this fails
        self._owners = (os.fstat(self.fd).st_uid, 0, os.geteuid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __del__(self) -> None:
        try:  # noqa: SIM105  # contextlib may be gone already
            self.close()
        except Exception:  # noqa: BLE001  # at interpreter exit anything may be gone already
            pass

    def name_of(self, name: str) -> str:
        """The path of `name`, for messages."""
        return os.path.join(self.path, name)

    def directories(self) -> list[str]:
        """The names of the directories in it, sorted; links do not count."""
        with os.scandir(self.fd) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    @property
    def is_gone(self) -> bool:
        """Whether the directory was removed while this handle was open."""
        return os.fstat(self.fd).st_nlink == 0

    @property
    def is_in_place(self) -> bool:
        """Whether `path` still leads to it: it was not removed, renamed or replaced."""
        try:
            now, own = os.stat(self.path), os.fstat(self.fd)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino)

    def open(self, name: str, flags: int = os.O_RDONLY) -> tuple[int, os.stat_result]:
        """Open an existing regular file; the caller closes the descriptor.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        CorruptFileError
            It is a link, a FIFO, a device, a directory, or somebody else's.
        """
        try:
            fd = os.open(name, flags | _OPEN, dir_fd=self.fd)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
                raise self._refuse(name, "not a regular file (a link, a FIFO, a socket or a directory)") from error
            error.filename = self.name_of(name)
            raise
        try:
            info = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        if not stat.S_ISREG(info.st_mode) or info.st_uid not in self._owners:
            os.close(fd)
            what = "not a regular file" if not stat.S_ISREG(info.st_mode) else f"it belongs to uid {info.st_uid}"
            raise self._refuse(name, what)
        return fd, info

    def _refuse(self, name: str, reason: str) -> CorruptFileError:
        path = self.name_of(name)
        return CorruptFileError(f"{path}: refused: {reason}", path=path, reason=reason)

    def exists(self, name: str) -> bool:
        """Whether there is anything of that name (a dangling link counts)."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        """The names in the directory, sorted."""
        return sorted(os.listdir(self.fd))

    def read(self, name: str, limit: int = 1 << 24) -> bytes:
        """The whole of a small file.

        Raises
        ------
        CorruptFileError
            It is larger than `limit` bytes.
        """
        fd, info = self.open(name)
        try:
            if info.st_size > limit:
                raise self._refuse(name, f"{info.st_size} bytes, at most {limit} expected")
            return os.read(fd, info.st_size + 1)
        finally:
            os.close(fd)

    def write(self, name: str, data: bytes) -> None:
        """Put `data` in the place of `name`: whole or not at all, also after a power cut.

        Raises
        ------
        StorageFullError
            No space; the old file stands.
        """
        with self.new(name) as fd:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

    @contextlib.contextmanager
    def new(self, name: str, size: int = 0, *, replace: bool = True, durable: bool = True):  # type: ignore[no-untyped-def]  # a generator: typed by its decorator
        """A descriptor of a new file of `size` allocated bytes that becomes `name` on exit.

        Temporary name, allocation, the caller's writes, fsync, rename, fsync of the directory.
        On any failure the temporary file is removed and whatever `name` was stays. With `replace`
        False it is a FileExistsError if there is a file of that name already. Without `durable` nothing is
        synced: for caches, whose loss costs nothing.
        """
        temporary = f"{TEMPORARY}{name}-{uuid.uuid4().hex}"
        fd = -1
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=self.fd)
            self.give(fd)
            if size:
                allocate(fd, 0, size)
            yield fd
            if durable:
                sync(fd)
            if replace:
                os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            else:
                self._link(temporary, name)
            if durable:
                self.sync()
        except BaseException as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.fd)
            if isinstance(error, OSError) and error.errno in FULL:
                raise full(error, self.name_of(name)) from error
            raise
        finally:
            if fd >= 0:
                os.close(fd)

    def _link(self, temporary: str, name: str) -> None:
        """Rename without replacing; where there are no links (vfat, some FUSE), by looking first."""
        try:
            os.link(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
            os.unlink(temporary, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
            if self.exists(name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.name_of(name)) from error
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def give(self, fd: int) -> None:
        """Root makes files for the owner of the directory, not for itself."""
        if os.geteuid() == 0 and self._owners[0] != 0:
            os.fchown(fd, self._owners[0], -1)

    def touch(self, name: str) -> None:
        """Make an empty file (0600), to be locked; fine if there is something of that name."""
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=self.fd)
        except FileExistsError:
            return
        except OSError as error:
            error.filename = self.name_of(name)
            raise
        try:
            self.give(fd)
        finally:
            os.close(fd)

    def guarded(self, name: str) -> contextlib.AbstractContextManager[object]:
        """Hold a lock on a file of its own, made if absent, for something short; waits. Dies with its process."""
        from filelock import FileLock  # here: whoever only reads need not wait for its import

        self.touch(name)
        return FileLock(self.name_of(name), mode=0o600)

    def remove(self, name: str) -> None:
        """Unlink a file if it is there. Mappings of it stay readable."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            error.filename = self.name_of(name)
            raise

    def make(self, name: str) -> None:
        """Make a subdirectory (0700); fine if it is there."""
        with contextlib.suppress(FileExistsError):
            self.make_new(name)
            self.sync()

    def make_new(self, name: str) -> None:
        """Make a subdirectory (0700); FileExistsError if there is one."""
        os.mkdir(name, 0o700, dir_fd=self.fd)
        with Directory(name, parent=self) as made:
            self.give(made.fd)

    def sync(self) -> None:
        """Bring the names to the device."""
        os.fsync(self.fd)


def more_descriptors() -> None:
    """Raise this process's limit of open files as far as it may: a mapping takes one each before Python 3.13."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def mappings_to_keep(most: int) -> int:
    """How many mappings one reader should keep, at most `most`: not all of the open files this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or sys.version_info >= (3, 13):  # a mapping takes no descriptor there
        return most
    return max(2, min(most, soft // 8))


def sync(fd: int) -> None:
    """Bring a file to the device, its drive's cache included where the platform can (macOS)."""
    if sys.platform == "darwin":  # pragma: no cover
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def allocate(fd: int, offset: int, size: int) -> None:
    """Reserve blocks, so that no later store into a mapping meets a full disk (which is SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, size)
        return
    zeros = bytes(1 << 20)  # pragma: no cover  (macOS: written zeros are the portable allocation)
    for at in range(offset, offset + size, len(zeros)):  # pragma: no cover
        os.pwrite(fd, zeros[: offset + size - at], at)


@contextlib.contextmanager
def full_is_said(path: str) -> Iterator[None]:
    """Have a disk without space raise `StorageFullError` whatever call met it (a new name takes space too).

    Other errors of calls by a name in an open directory are said of `path`: that name says nothing to anybody.
    """
    try:
        yield
    except StorageFullError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise full(error, path) from error
        if isinstance(error.filename, str) and not os.path.isabs(error.filename):
            error.filename = path
        raise


def full(error: OSError, path: str) -> StorageFullError:
    """The error for a disk without space; nothing published is lost."""
    return StorageFullError(
        f"{path}: no space ({os.strerror(error.errno or 0)}); nothing published is lost: free space and write again",
        errno=error.errno, path=path,
    )  # fmt: skip
