"""Messages that could not be used, kept aside whole: what a maintainer of a venue needs to see.

``<base_path>/bad_frames.jsonl``, a JSON object a line::

    {"time": "2026-08-09T05:23:42.196708Z", "venue": "coinbase", "reason": "…", "bytes": 5123, "text": "{…"}

`text` is the message if it is UTF-8, else `base64` has it; of a message beyond 1 MiB only the beginning (`bytes` is
its real size). The file is bounded: at 8 MiB it becomes ``bad_frames.1.jsonl``, in place of the one before. Recorders
of one store share it: a line is one write to a file opened for appending.

Keeping them never harms a recording: what fails is logged once and let go. Rejected: a feed of its own (its records
are of fixed size, and messages are anything up to megabytes).
"""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

from deepwater.timestamps import format_us

__all__ = ["BadFrames"]

_log = logging.getLogger("deepwater.recorder")
_FILE_BYTES, _FRAME_BYTES = 8 << 20, 1 << 20


class BadFrames:
    """Appends to the file of a store; nothing is created before the first.

    Parameters
    ----------
    base_path : path
        The store.
    venue : str
        Noted with each.
    file_bytes : int
        Beyond this the file begins anew.

    Attributes
    ----------
    path : Path
        The file.
    """

    def __init__(self, base_path: str | Path, venue: str, file_bytes: int = _FILE_BYTES) -> None:
        self.path = Path(base_path) / "bad_frames.jsonl"
        self._venue = venue
        self._file_bytes = file_bytes
        self._failed = False

    def __call__(self, recv_us: int, reason: str, data: bytes) -> None:
        """Keep one message; see `ingest.KeepBad`."""
        try:
            text = json.dumps(self._entry(recv_us, reason, data), ensure_ascii=False)
            self._append(text.encode(errors="replace") + b"\n")
        except OSError as error:
            if not self._failed:
                _log.warning("bad frames can not be kept in %s: %s", self.path, error.strerror)
            self._failed = True

    def _entry(self, recv_us: int, reason: str, data: bytes) -> dict[str, Any]:
        kept = data[:_FRAME_BYTES]
        entry: dict[str, Any] = {
            "time": format_us(recv_us), "venue": self._venue, "reason": reason, "bytes": len(data),
        }  # fmt: skip
        try:
            entry["text"] = kept.decode()
        except UnicodeDecodeError:
            entry["base64"] = base64.b64encode(kept).decode()
        return entry

    def _append(self, line: bytes) -> None:
        # O_NONBLOCK: a FIFO that nobody reads would be waited for, and the recording with it.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(self.path, flags, 0o600)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "is no regular file")
            size = found.st_size
            if size and size + len(line) > self._file_bytes:
                os.replace(self.path, self.path.with_name("bad_frames.1.jsonl"))
                os.close(file)
                file = os.open(self.path, flags, 0o600)
            os.write(file, line)
        finally:
            os.close(file)
