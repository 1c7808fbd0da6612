"""Recorded sessions of an exchange as frames, byte for byte.

Two kinds of JSON lines are read: ``{"venue": "coinbase", "elapsed_nanos", "payload", …}`` (other venues than the one
asked for and lines with a `source`, which are not frames, are passed over) and ``{"t": "recv", "conn", "ts", "data"}``.
In both the frame is a string as it came over the wire.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deepwater.arrow import decompressed
from deepwater.errors import DeepwaterError

__all__ = ["TapeFrame", "read_tape"]


@dataclass(frozen=True, slots=True)
class TapeFrame:
    """A frame and when it was received: seconds from any origin, for pacing."""

    time_s: float
    data: bytes


def read_tape(tape: str | Path | IO[bytes], venue: str = "coinbase") -> Iterator[TapeFrame]:
    """Yield the frames of a tape, in order.

    Parameters
    ----------
    tape : path or binary file
        A path may end in ``.gz`` or ``.zst``. For any other compression pass the stream of its decompressor;
        it is not closed here.
    venue : str
        Whose frames, on a tape that names venues.

    Raises
    ------
    DeepwaterError
        If a line is not JSON, or no line is a frame. Attribute `line`, where known.
    """
    count = 0
    with _open(tape) as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line) if line.strip() else None
            except ValueError as error:
                raise DeepwaterError(
                    f"tape {tape}: line {number} is not JSON ({error}); is it compressed? Then its name ends "
                    "in .gz or .zst",
                    line=number,
                ) from error
            frame = _frame(entry, venue)
            if frame is not None:
                count += 1
                yield frame
    if not count:
        raise DeepwaterError(f"tape {tape}: no line is a frame of {venue}")


def _frame(entry: Any, venue: str) -> TapeFrame | None:
    if not isinstance(entry, dict):
        return None
    if entry.get("venue") == venue and "source" not in entry and isinstance(entry.get("payload"), str):
        return TapeFrame(entry.get("elapsed_nanos", 0) / 1e9, entry["payload"].encode())
    if entry.get("t") == "recv" and isinstance(entry.get("data"), str):
        return TapeFrame(float(entry.get("ts", 0.0)), entry["data"].encode())
    return None


def _open(tape: str | Path | IO[bytes]) -> contextlib.AbstractContextManager[Iterable[bytes]]:
    if not isinstance(tape, str | Path):
        return contextlib.nullcontext(_lines(tape))
    if str(tape).endswith(".gz"):
        return gzip.open(tape, "rb")
    if str(tape).endswith(".zst"):
        return _decompressed_lines(str(tape))
    return open(tape, "rb")


@contextlib.contextmanager
def _decompressed_lines(path: str) -> Iterator[Iterable[bytes]]:
    with decompressed(path, "zstd") as stream:
        yield _lines(stream)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Split a stream that only has `read` (a decompressor) into lines."""
    rest = b""
    while block := stream.read(1 << 20):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest
