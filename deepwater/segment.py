"""One mapping: a header and an array of records. The only module that maps files.

Ownership. Arrays are made with ``np.frombuffer`` on the mapping and nothing else: each array keeps
the mapping alive, and the mapping refuses to go while one lives. So `Segment.close` drops its own
references and never invalidates what a user holds; the memory goes with the last array.
(``np.ndarray(buffer=...)`` and ``np.memmap`` do not pin it: the next read after a close kills the
process.) Readers map with PROT_READ: their arrays cannot be made writeable.

Publishing. `Segment.publish` is the one statement in the package that stores a commit word, an
aligned 8-byte store through ``memoryview.cast("Q")``. ``struct.pack_into`` is never used on a live
word: it zeroes its destination first, and readers were seen loading the zero. x86-64 keeps stores
in order, and so does CPython's C code between two bytecodes; elsewhere `_fence` is called first
(argued, not tested on those machines).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import sys
import threading
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.errors import CorruptFileError
from deepwater.files import FULL, Directory, allocate, full

_TOTAL_STORE_ORDER = platform.machine().lower() in ("x86_64", "amd64")
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14; not in Python's mmap
_PLAIN_COPY_BYTES = 65536
_fence_lock = threading.Lock()


def _fence() -> None:
    """A full barrier where the machine needs one: release of a lock, then acquire of it."""
    with _fence_lock:
        pass
    with _fence_lock:
        pass


class Segment:
    """A mapped file of one of the five kinds.

    Attributes
    ----------
    identity, static
        The checked header.
    path : str
        For messages.
    fd : int
        Of a writable segment, for `pwrite` and syncs; -1 for readers, which need none.
    words : memoryview
        The file as 8-byte words, see the indexes in `deepwater.format`.
    place : (int, int)
        The file's inode and device, when it was opened by name.

    Notes
    -----
    Any number of processes may map a file for reading; one writes, under the feed's lock.
    """

    __slots__ = ("__weakref__", "_map", "fd", "identity", "path", "place", "size", "static", "words")

    def __init__(
        self, fd: int, size: int, path: str, identity: fmt.Identity, static: fmt.Static, writable: bool
    ) -> None:
        self.identity, self.static, self.path, self.size, self.fd = identity, static, path, size, -1
        self.place = (0, 0)
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        kwargs: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # else a descriptor each
        self._map: mmap.mmap | None = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=prot, **kwargs)
        self.words = memoryview(self._map).cast("Q")

    @staticmethod
    def create(directory: Directory, name: str, identity: fmt.Identity, static: fmt.Static) -> None:
        """Make the file: allocated, header written, synced (unless it is a cache), then put into place.

        Raises
        ------
        StorageFullError
            No space; nothing is left behind.
        FileExistsError
            There is a file of that name; it stays as it is.
        """
        cache = identity.kind in fmt.CACHES
        with directory.new(name, identity.file_size, replace=False, durable=not cache) as fd:
            os.pwrite(fd, fmt.pack_identity(identity), 0)
            os.pwrite(fd, static.pack(), identity.static_offset)

    @classmethod
    def open(
        cls,
        directory: Directory,
        name: str,
        kind: bytes,
        ids: fmt.Ids | None = None,
        *,
        writable: bool = False,
    ) -> Self:
        """Check the header of a file and map it.

        Parameters
        ----------
        ids
            Whose file it must be; None takes any.

        Raises
        ------
        FileNotFoundError
            There is none.
        CorruptFileError
            Not this kind, not this feed's, damaged, or not as long as its header says.
        """
        path = directory.name_of(name)
        fd, info = directory.open(name, os.O_RDWR if writable else os.O_RDONLY)
        try:
            identity, static = read_header(fd, info.st_size, path)
            _expect(identity, kind, ids, path)
            segment = cls(fd, info.st_size, path, identity, static, writable)
            segment.place = info.st_ino, info.st_dev
            if writable:
                segment.fd, fd = fd, -1
            return segment
        finally:
            if fd >= 0:
                os.close(fd)

    def close(self) -> None:
        """Drop this handle's references. Arrays handed out stay valid. Idempotent."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
        if self._map is not None:
            mapping, self._map = self._map, None
            with contextlib.suppress(BufferError):  # a view of the words is in use just now
                self.words.release()
            with contextlib.suppress(BufferError):  # arrays live: the mapping goes with the last of them
                mapping.close()

    def __del__(self) -> None:
        try:  # noqa: SIM105  # contextlib may be gone already
            self.close()
        except Exception:  # noqa: BLE001  # at interpreter exit anything may be gone already
            pass

    @property
    def mapping(self) -> mmap.mmap:
        """The mapping itself, while open."""
        if self._map is None:
            raise ValueError(f"{self.path}: segment is closed")
        return self._map

    @property
    def rows(self) -> int:
        """Records the mapped file has room for."""
        return (self.size - self.identity.data_offset) // self.identity.record_size

    def count(self) -> int:
        """Published records, never more than fit: a number from disk is not trusted as a length."""
        return min(self.words[fmt.COMMIT] & fmt.COUNT_MASK, self.capacity)

    @property
    def capacity(self) -> int:
        """Records that may be published in this mapping."""
        return self.rows if self.identity.kind in fmt.GROWING else self.identity.capacity

    def array(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """All record slots, published or not, as a view that keeps the mapping alive."""
        if dtype.itemsize != self.identity.record_size:
            raise self._of_another_size(dtype)
        return np.frombuffer(self.mapping, dtype, self.capacity, self.identity.data_offset)

    def _of_another_size(self, dtype: np.dtype[Any]) -> CorruptFileError:
        reason = f"records of {self.identity.record_size} bytes, the layout has {dtype.itemsize}"
        return CorruptFileError(f"{self.path}: {reason}", path=self.path, reason=reason)

    def copy(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """The published records as a writeable copy, padding included (a structured copy would lose it)."""
        if dtype.itemsize != self.identity.record_size:
            raise self._of_another_size(dtype)
        size = self.count() * dtype.itemsize
        return np.frombuffer(bytearray(self.read(self.identity.data_offset, size)), dtype)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the header."""
        return self.mapping[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes that nobody reads yet (a block under a CRC, or unpublished records)."""
        self.mapping[offset : offset + len(data)] = data

    def publish(self, word: int) -> None:
        """Store the commit word: what `word` counts is visible to every process from here on."""
        if not _TOTAL_STORE_ORDER:
            _fence()
        self.words[fmt.COMMIT] = word

    def claim(self, word: int, nbytes: int = 0) -> None:
        """Of a ring: say which records are about to be overwritten, before the first byte of them is.

        `nbytes` are about to be copied: of many the C library may store past the caches, which keeps no order.
        """
        self.words[fmt.CLAIM] = word
        if nbytes > _PLAIN_COPY_BYTES or not _TOTAL_STORE_ORDER:
            _fence()

    def populate(self, offset: int, size: int) -> None:
        """Fault pages in for writing ahead of use, where the system can."""
        start = offset - offset % mmap.PAGESIZE
        with contextlib.suppress(OSError, ValueError):
            self.mapping.madvise(_POPULATE_WRITE, start, min(offset + size, self.size) - start)

    def grow(self, size: int) -> Segment:
        """Extend the file to `size` bytes (never less) and map it again.

        Returns the new segment; this one and its arrays stay valid.

        Raises
        ------
        StorageFullError
            No space; the file is as it was.
        """
        size = fmt.round_up(size, fmt.PAGE)
        assert self.fd >= 0 and size >= self.size, (self.fd, size, self.size)
        fd = os.dup(self.fd)
        try:
            allocate(fd, self.size, size - self.size)
            grown = type(self)(fd, size, self.path, self.identity, self.static, True)
            grown.fd, fd = fd, -1
            return grown
        except OSError as error:
            if error.errno in FULL:
                raise full(error, self.path) from error
            raise
        finally:
            if fd >= 0:
                os.close(fd)


class Page:
    """A small file of words that several processes write (`deepwater.wake`); no records, no commit.

    Attributes
    ----------
    mapping : mmap.mmap
    words : memoryview
        The file as 8-byte words.
    """

    __slots__ = ("__weakref__", "_fd", "mapping", "words")

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.mapping = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.words = memoryview(self.mapping).cast("Q")

    @staticmethod
    def create(directory: Directory, name: str, magic: bytes, size: int) -> None:
        """Make the file, allocated, zero but for its first 8 bytes; FileExistsError if there is one."""
        with directory.new(name, size, replace=False, durable=False) as fd:
            os.pwrite(fd, magic, 0)

    @classmethod
    def open(cls, directory: Directory, name: str, magic: bytes) -> Self:
        """Map the file for reading and writing.

        Raises
        ------
        FileNotFoundError, PermissionError
        CorruptFileError
            It does not begin with `magic`, or is no whole number of pages.
        """
        fd, info = directory.open(name, os.O_RDWR)
        try:
            if os.pread(fd, 8, 0) != magic or info.st_size % fmt.PAGE:
                path, reason = directory.name_of(name), f"not a page of words that begins with {magic!r}"
                raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
            page = cls(fd, info.st_size)
            fd = -1
            return page
        finally:
            if fd >= 0:
                os.close(fd)

    @property
    def stat(self) -> os.stat_result:
        """Of the file."""
        return os.fstat(self._fd)

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes that nobody reads yet."""
        self.mapping[offset : offset + len(data)] = data

    @property
    def is_gone(self) -> bool:
        """Whether the file was removed."""
        return self._fd < 0 or os.fstat(self._fd).st_nlink == 0

    def close(self) -> None:
        """Unmap. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
            with contextlib.suppress(BufferError):  # in use just now: goes with its last user
                self.words.release()
            with contextlib.suppress(BufferError):
                self.mapping.close()

    def __del__(self) -> None:
        try:  # noqa: SIM105  # contextlib may be gone already
            self.close()
        except Exception:  # noqa: BLE001  # at interpreter exit anything may be gone already
            pass


def read_published(
    directory: Directory, name: str, kind: bytes, ids: fmt.Ids, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """The published records of a small file as a writeable copy; it is read, not mapped.

    Raises
    ------
    FileNotFoundError, CorruptFileError
        As `Segment.open`.
    """
    return read_committed(directory, name, kind, ids, dtype)[0]


def read_committed(
    directory: Directory, name: str, kind: bytes, ids: fmt.Ids, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], int]:
    """As `read_published`, and the commit word."""
    path = directory.name_of(name)
    fd, info = directory.open(name)
    try:
        identity, _ = read_header(fd, info.st_size, path)
        _expect(identity, kind, ids, path)
        if identity.record_size != dtype.itemsize:
            reason = f"records of {identity.record_size} bytes, expected {dtype.itemsize}"
            raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
        word = int.from_bytes(os.pread(fd, 8, 8 * fmt.COMMIT), "little")
        count = min(word & fmt.COUNT_MASK, (info.st_size - identity.data_offset) // identity.record_size)
        data = os.pread(fd, count * identity.record_size, identity.data_offset)
        return np.frombuffer(bytearray(data[: len(data) - len(data) % dtype.itemsize]), dtype), word
    finally:
        os.close(fd)


def read_header(fd: int, size: int, path: str) -> tuple[fmt.Identity, fmt.Static]:
    """Check a file's header and its size against each other, before anything is mapped.

    Raises
    ------
    CorruptFileError
        With the reason.
    """
    head = os.pread(fd, fmt.HEADER_READ, 0)
    identity = fmt.parse_identity(head[: fmt.IDENTITY_SIZE], path)
    wrong = size < identity.file_size or size % fmt.PAGE if identity.kind in fmt.GROWING else size != identity.file_size
    if wrong:
        reason = f"{size} bytes, the header says {identity.file_size}: the file was cut or extended"
        way_out = "restore it from a copy, or see deepwater repair"
        raise CorruptFileError(f"{path}: {reason}; {way_out}", path=path, reason=reason)
    end = identity.static_offset + identity.static_size
    if end > len(head):
        head = os.pread(fd, end, 0)
    return identity, fmt.parse_static(head[identity.static_offset : end], identity, path)


def _expect(identity: fmt.Identity, kind: bytes, ids: fmt.Ids | None, path: str) -> None:
    reason = ""
    if identity.kind != kind:
        reason = f"a {identity.kind.decode()} file, expected {kind.decode()}"
    elif ids is not None and identity.ids != ids:
        which = "store" if identity.ids.store != ids.store else "feed or another life of this feed"
        reason = f"it belongs to another {which} ({identity.ids.incarnation.hex()}, expected {ids.incarnation.hex()})"
    if reason:
        raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
