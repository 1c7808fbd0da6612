"""A file of a store read with `pread`, and the checks that hold for every binary file.

Never mapped: whatever happens to the file meanwhile, a read returns fewer bytes and nothing kills the process. Each
read is bounded by its caller. What the bytes mean stands in `deepwater.format`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Any, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.errors import CorruptFileError
from deepwater.files import Directory
from deepwater.findings import Findings

OWNER_OFFSET, OWNER_SIZE = fmt.HEARTBEAT * 8 - 128, 128
REPAIR, RESTORE = "run deepwater repair", "restore it from a copy"
_STEP, _MOST_ZEROS = 1 << 20, 1 << 26
MOST_READ = 1 << 26
"""Half a million marks, chunks of a feed; more than that is a file of holes."""


class RawFile:
    """An open file. A context manager.

    Attributes
    ----------
    name, path : str
    size : int
        When it was opened.
    info : os.stat_result
    """

    __slots__ = ("_fd", "info", "name", "path", "size")

    def __init__(self, directory: Directory, name: str) -> None:
        """Open it.

        Raises
        ------
        FileNotFoundError, PermissionError
        CorruptFileError
            It is a link, a FIFO, a directory, or somebody else's.
        """
        self.name, self.path = name, directory.name_of(name)
        self._fd, self.info = directory.open(name)
        self.size = self.info.st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of it, `MOST_READ` at most; fewer where it ends, none from where no file can reach."""
        return os.pread(self._fd, min(size, MOST_READ), offset) if size > 0 and 0 <= offset < 2**62 else b""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer; how many bytes there were."""
        done = 0
        while done < len(buffer):
            got = os.preadv(self._fd, [buffer[done:]], offset + done)
            if not got:
                break
            done += got
        return done

    def word(self, index: int) -> int:
        """The 8-byte word of that index (`deepwater.format`)."""
        return int.from_bytes(self.read(8 * index, 8), "little")

    def first_not_zero(self, start: int, stop: int) -> int | None:
        """The offset of the first byte that is not zero; None if all are. Looks at 64 MiB at most (sparse files)."""
        stop = min(stop, start + _MOST_ZEROS)
        while start < stop:
            data = self.read(start, min(_STEP, stop - start))
            if not data:
                return None
            if data.count(0) != len(data):
                return start + len(data) - len(data.lstrip(b"\0"))
            start += len(data)
        return None


def check_access(out: Findings, path: str, info: os.stat_result, *, directory: bool = False) -> None:
    """Permissions wider than this package makes them, and second names of a file."""
    mode, wanted = stat.S_IMODE(info.st_mode), 0o700 if directory else 0o600
    if mode & ~wanted:
        values = {"expected": f"{wanted:04o} or less", "found": f"{mode:04o}"}
        out.warning("permissions", path, "others may get at it", way_out=f"chmod {wanted:o} it, or mean it", **values)
    if not directory and info.st_nlink > 1:
        text = f"it has {info.st_nlink} names (a backup by cp -al?); a writer refuses such an active chunk"
        out.note("hard-links", path, text)


def check_header(
    out: Findings, file: RawFile, kind: bytes, ids: fmt.Ids, segment_id: int, static: fmt.Static
) -> fmt.Identity | None:
    """What is written once into a file's header: identity, static part, sizes, and that the rest is zero.

    Returns
    -------
    Identity or None
        None when the file cannot be used as what its name says.
    """
    try:
        identity = fmt.parse_identity(file.read(0, fmt.IDENTITY_SIZE), file.path)
    except CorruptFileError as error:
        out.error("header", file.path, error.parts["reason"], offset=0, way_out=REPAIR)
        return None
    if not _is_this_one(out, file, identity, kind, ids, segment_id):
        return None
    _check_static(out, file, identity, static)
    if identity.minor == fmt.MINOR:
        _check_plan(out, file, identity, static)
    grows = kind in fmt.GROWING
    if file.size < identity.file_size or (file.size % fmt.PAGE if grows else file.size != identity.file_size):
        values = {"expected": f"{identity.file_size} bytes", "found": f"{file.size}"}
        end = min(file.size, identity.file_size)
        out.error("size", file.path, "the file was cut or extended", offset=end, way_out=REPAIR, **values)
    _check_zero(out, file, identity)
    return identity


def read_rows(out: Findings, file: RawFile, identity: fmt.Identity, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The committed rows of a file that grows: as many as its commit word says, and as can be."""
    word, fit = file.word(fmt.COMMIT), (file.size - identity.data_offset) // dtype.itemsize
    raw = file.read(identity.data_offset, min(word & fmt.COUNT_MASK, fit) * dtype.itemsize)
    rows = np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)
    if word != len(rows):
        out.error("commit", file.path, "it counts more than it holds", offset=8 * fmt.COMMIT, way_out=REPAIR,
                  expected=f"at most {min(fit, MOST_READ // dtype.itemsize)}", found=str(word))  # fmt: skip
    return rows


def _is_this_one(
    out: Findings, file: RawFile, identity: fmt.Identity, kind: bytes, ids: fmt.Ids, segment_id: int
) -> bool:
    if identity.kind != kind:
        values = {"expected": kind.decode(), "found": identity.kind.decode()}
        out.error("kind", file.path, "it is a file of another kind", offset=16, way_out=REPAIR, **values)
    elif identity.ids != ids:
        fields = [name for name, a, b in zip(ids._fields, identity.ids, ids, strict=True) if a != b]
        at = {"store": 32, "feed": 48, "incarnation": 64}[fields[0]]
        values = {"expected": getattr(ids, fields[0]).hex(), "found": getattr(identity.ids, fields[0]).hex()}
        whose = "life of the feed" if fields[0] == "incarnation" else fields[0]
        out.error("foreign", file.path, f"it belongs to another {whose}", offset=at, way_out=REPAIR, **values)
    elif identity.segment_id != segment_id:
        values = {"expected": str(segment_id), "found": str(identity.segment_id)}
        out.error("wrong-id", file.path, "it is another chunk's under this name", offset=80, way_out=REPAIR, **values)
    else:
        return True
    return False


def _check_static(out: Findings, file: RawFile, identity: fmt.Identity, static: fmt.Static) -> None:
    data = file.read(identity.static_offset, identity.static_size)
    try:
        fmt.parse_static(data, identity, file.path)
    except CorruptFileError as error:
        out.error("static", file.path, error.parts["reason"], offset=identity.static_offset, way_out=REPAIR)
        return
    if data != static.pack() or identity.layout_hash != static.layout_hash:
        at = identity.static_offset
        out.error("layout-differs", file.path, "it describes other records than the feed", offset=at, way_out=REPAIR)


def _check_plan(out: Findings, file: RawFile, identity: fmt.Identity, static: fmt.Static) -> None:
    """A file of this version has the numbers that this version gives it."""
    if identity.record_size * len(static.clocks) == 0 or identity.static_crc != crc32(static.pack()):
        return
    wanted = fmt.plan(
        identity.kind, identity.ids, identity.segment_id, static, identity.record_size, identity.capacity,
        identity.created_us,
    )  # fmt: skip
    differing = [name for name in wanted.__dataclass_fields__ if getattr(wanted, name) != getattr(identity, name)]
    if differing:
        name = differing[0]
        values = {"expected": str(getattr(wanted, name)), "found": str(getattr(identity, name))}
        out.error("header-numbers", file.path, f"{name} is no number of this version", offset=0, way_out=REPAIR,
                  **values)  # fmt: skip


def _check_zero(out: Findings, file: RawFile, identity: fmt.Identity) -> None:
    static_end = identity.static_offset + identity.static_size
    seal_end = identity.seal_offset + (identity.seal_size if identity.kind == fmt.CHUNK else 0)
    areas = [(576, fmt.LIVE_OFFSET), *_unused_live(identity), (static_end, identity.seal_offset),
             (seal_end, identity.data_offset)]  # fmt: skip
    if identity.kind not in (fmt.CHUNK, fmt.RING):
        areas.append((512, 576))
    for start, stop in areas:
        at = file.first_not_zero(start, stop)
        if at is not None:
            text = f"bytes {start} to {stop} of the header must be zero"
            out.error("not-zero", file.path, text, offset=at, way_out=REPAIR)


def _unused_live(identity: fmt.Identity) -> Iterable[tuple[int, int]]:
    """The ranges among the live words in which nothing is ever stored."""
    used = [(8 * fmt.COMMIT, 8)]
    if identity.kind in (fmt.CHUNK, fmt.RING):
        used += [(8 * fmt.DURABLE, 8), (OWNER_OFFSET, OWNER_SIZE), (8 * fmt.HEARTBEAT, 8)]
        used += [(offset, fmt.TAIL_SIZE) for offset in fmt.TAIL_OFFSETS]
        used += [(8 * (fmt.CLOCKS + fmt.CLOCK_WORDS * n), 24) for n in range(identity.clock_count)]
    if identity.kind == fmt.CHUNK:
        used.append((8 * fmt.OLDEST, 8))
    if identity.kind == fmt.RING:
        used.append((8 * fmt.CLAIM, 8))
    at = fmt.LIVE_OFFSET
    for start, size in sorted(used):
        yield at, start
        at = start + size
    yield at, fmt.LIVE_OFFSET + identity.live_size
