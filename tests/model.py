"""What a feed is checked against: one NumPy array, times worked out by NumPy, and the bytes of the files.

Nothing here imports deepwater: an oracle that shares code with what it judges proves nothing.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

MAX_US = 2**64 - 1
DAY_US = 86_400_000_000

# ------------------------------------------------------------------------------------------ records

_SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
CODES = {"char": ("S1", 1), "bool": ("?", 1), "byte": ("u1", 1)}
for _bits, _bytes in _SIZES.items():
    CODES[f"int{_bits}"] = (f"<i{_bytes}", _bytes)
    CODES[f"uint{_bits}"] = (f"<u{_bytes}", _bytes)
    if _bytes > 1:
        CODES[f"float{_bits}"] = (f"<f{_bytes}", _bytes)


def dtype_of(fields: list[dict[str, str]]) -> np.dtype[Any]:
    """The dtype that a spec's fields describe: packed as written, padding left out."""
    names, formats, offsets, at = [], [], [], 0
    for field in fields:
        kind = field["type"]
        if kind.startswith("_"):
            at += int(kind[1:])
            continue
        match = re.fullmatch(r"(\w+)\[(\d+)\]", kind)
        base, count = (match[1], int(match[2])) if match else (kind, 1)
        code, size = (f"S{count}", 1) if match and base == "char" else CODES[base]
        names.append(field["name"])
        formats.append((code, (count,)) if match and base != "char" else code)
        offsets.append(at)
        at += size * count
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": at})


def random_records(dtype: np.dtype[Any], rows: int, rng: np.random.Generator) -> np.ndarray:
    """Records of any valid content; padding is zero."""
    out = np.zeros(rows, dtype)
    for name in dtype.names or ():
        field = dtype[name]
        shape = (rows, *field.shape)
        base = field.base
        if base.kind == "S":
            letters = rng.integers(65, 91, (*shape, base.itemsize), np.uint8)
            values: Any = np.ascontiguousarray(letters).view(base).reshape(shape)
        elif base.kind == "b":
            values = rng.integers(0, 2, shape).astype(bool)
        elif base.kind == "f":
            values = rng.normal(0, 100, shape).astype(base)
            values[rng.random(shape) < 0.05] = np.nan
        else:
            info = np.iinfo(base)
            values = rng.integers(info.min, info.max, shape, base, endpoint=True)
        out[name] = values
    return out


def opaque(array: np.ndarray) -> np.ndarray:
    """Records as whole bytes: NumPy copies a dtype with padding field by field, and leaves the rest undefined."""
    return array.view(f"V{array.dtype.itemsize}")


def joined(arrays: Iterable[np.ndarray], dtype: np.dtype[Any]) -> np.ndarray:
    """One array of all records, padding included."""
    pieces = [opaque(np.asarray(array)) for array in arrays]
    whole = np.concatenate(pieces) if pieces else np.empty(0, f"V{dtype.itemsize}")
    return whole.view(dtype)


def picked(full: np.ndarray, rows: Any) -> bytes:
    """The bytes of some records, by mask, index array or slice."""
    return opaque(full)[rows].tobytes()


def content(slices: Iterable[np.ndarray]) -> bytes:
    """The bytes of a window's slices, one after the other."""
    return b"".join(opaque(np.ascontiguousarray(opaque(piece)).view(piece.dtype)).tobytes() for piece in slices)


# ------------------------------------------------------------------------------------------ files


def chunk_files(feed: Path) -> list[Path]:
    """The chunk files of a feed's directory in order."""
    return sorted(feed.glob("chunk_*.bin"))


def stored(feed: Path) -> bytes:
    """All published records of a feed as they lie in its files, read by the format page alone."""
    out = []
    for path in chunk_files(feed):
        data = path.read_bytes()
        size, capacity, _, start = struct.unpack_from("<4Q", data, 96)
        word = struct.unpack_from("<Q", data, 4096)[0]
        count = word & (1 << 63) - 1
        assert count <= capacity, path
        out.append(data[start : start + size * count])
        if not word >> 63:
            break
    return b"".join(out)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def poke(path: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def tree(path: Path) -> dict[str, tuple[int, int]]:
    """Name, size and time of change of everything below a directory: it tells whether anything was touched."""
    found = {}
    for top, directories, files in os.walk(path):
        for name in directories + files:
            info = os.lstat(os.path.join(top, name))
            found[os.path.relpath(os.path.join(top, name), path)] = (info.st_size, info.st_mtime_ns)
    return found


# ------------------------------------------------------------------------------------------ times


@dataclass(frozen=True)
class Bound:
    """A time as a caller may write it, and the µs it names: `first` as a start, `last` as an end."""

    value: Any
    first: int
    last: int


TEXT_FORMS = ("Y", "M", "D", "h", "m", "s", "ms", "us")
"""Texts by the unit of the period they name."""
INSTANT_FORMS = ("int", "np_us", "np_ms", "np_s", "np_ns", "datetime", "aware", "zoned", "timestamp")
FORMS = (*TEXT_FORMS, "date", *INSTANT_FORMS)
PANDAS_FORMS = (*TEXT_FORMS, "aware", "zoned", "timestamp")
"""What `.loc` of a frame with a UTC index takes as well: text and aware times."""


def bound(form: str, us: int, suffix: str = "") -> Bound:
    """The time `us` (1970 to 9999) in one of `FORMS`; coarse forms name the period or instant it lies in.

    `suffix` is "", "Z" or an offset such as "+01:00", for texts of a time of day.
    """
    if form == "int":
        return Bound(us, us, us)
    if form in TEXT_FORMS:
        return _text(form, us, suffix)
    moment = np.datetime64(us, "us")
    if form.startswith("np_"):
        return _numpy(form[3:], moment)
    whole = datetime(1970, 1, 1) + timedelta(microseconds=us)  # noqa: DTZ001 (naive is one of the forms)
    if form == "date":
        day = us - us % DAY_US
        return Bound(date(whole.year, whole.month, whole.day), day, day + DAY_US - 1)
    if form == "datetime":
        return Bound(whole, us, us)
    if form == "aware":
        return Bound(whole.replace(tzinfo=UTC), us, us)
    import pandas as pd

    zone = "America/New_York" if form == "zoned" else "UTC"
    return Bound(pd.Timestamp(moment, tz="UTC").tz_convert(zone), us, us)


def _text(unit: str, us: int, suffix: str) -> Bound:
    shift = 0
    if suffix and unit in ("Y", "M", "D"):
        suffix = ""
    if suffix[:1] in ("+", "-") and suffix:
        hours, minutes = int(suffix[1:3]), int(suffix[4:6])
        shift = (hours * 60 + minutes) * 60_000_000 * (1 if suffix[0] == "+" else -1)
    period = np.datetime64(us + shift, "us").astype(f"M8[{unit}]")
    first = int(period.astype("M8[us]").astype(np.int64)) - shift
    last = int((period + np.timedelta64(1, unit)).astype("M8[us]").astype(np.int64)) - 1 - shift
    return Bound(f"{period}{suffix}", first, last)


def _numpy(unit: str, moment: np.datetime64) -> Bound:
    if unit == "ns":  # 300 ns after the µs: no whole µs is in it
        us = int(moment.astype(np.int64))
        return Bound(np.datetime64(us * 1000 + 300, "ns"), us + 1, us)
    cut = moment.astype(f"M8[{unit}]")
    us = int(cut.astype("M8[us]").astype(np.int64))
    return Bound(cut, us, us)


def limits(start: Bound | None, end: Bound | None, inclusive: str = "both") -> tuple[int, int]:
    """The bounds ``lo <= clock <= hi`` of a range, worked out from the rule."""
    lo, hi = 0, MAX_US
    if start is not None:
        lo = start.first if inclusive in ("both", "left") else start.last + 1
    if end is not None:
        hi = end.last if inclusive in ("both", "right") else end.first - 1
    return lo, hi


def mask(clock: np.ndarray, lo: int, hi: int) -> np.ndarray:
    """The oracle of every range. `lo` and `hi` may lie beyond what a clock can hold."""
    if lo > hi or hi < 0 or lo > MAX_US:
        return np.zeros(len(clock), bool)
    return (clock >= np.uint64(max(lo, 0))) & (clock <= np.uint64(min(hi, MAX_US)))


def asof(clock: np.ndarray, times: np.ndarray) -> np.ndarray:
    """For each time the position of the greatest stamp <= it, the last of equal ones; -1 before the first."""
    order = np.argsort(clock, kind="stable")
    at = clock[order].searchsorted(times, "right")
    return np.where(at > 0, order[np.maximum(at, 1) - 1] if len(order) else -1, -1)


# ------------------------------------------------------------------------------------------ clocks

EPOCH_2026 = 1_767_225_600_000_000
ORDERED = ("steps", "ties", "constant", "days")
UNORDERED = ("jitter", "shuffled", "backfill", "reversed", "extremes")


def clock_values(kind: str, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Stamps of one kind, uint64 µs."""
    base = np.uint64(EPOCH_2026)
    if kind == "constant":
        return np.full(rows, base, np.uint64)
    if kind == "extremes":
        return rng.choice(np.array([0, 1, 5, 2**63 - 1, 2**63, MAX_US - 1, MAX_US], np.uint64), rows)
    steps = {"ties": rng.integers(0, 2, rows) * 1000, "days": rng.integers(0, DAY_US, rows)}
    values = np.cumsum(steps.get(kind, rng.integers(0, 50, rows))).astype(np.uint64) + base
    if kind == "jitter":
        values = values - rng.integers(0, 60, rows).astype(np.uint64) * (rng.random(rows) < 0.2)
    elif kind == "shuffled":
        rng.shuffle(values)
    elif kind == "reversed":
        values = values[::-1].copy()
    elif kind == "backfill":
        values = np.roll(values, rows // 3)
    return values.astype(np.uint64)


# ------------------------------------------------------------------------------------------ self-checking records

CHECKED_FIELDS = [
    {"name": "ts_us", "type": "uint64"},
    {"name": "position", "type": "uint64"},
    {"name": "write", "type": "uint64", "desc": "number of the write it came with"},
    {"name": "first", "type": "uint64", "desc": "position of the first record of that write"},
    {"name": "rows", "type": "uint32", "desc": "records of that write"},
    {"name": "snapshot", "type": "uint32", "desc": "1 if that write was marked as a snapshot"},
    {"name": "check", "type": "uint64", "desc": "of all the other fields"},
    {"name": "filler", "type": "uint64[2]", "desc": "check again, turned"},
]
CHECKED = dtype_of(CHECKED_FIELDS)
_ODD = [np.uint64(2 * n + 1) for n in (0x1E3779B97F4A7C15, 0x2F58476D1CE4E5B9, 0x14D049BB133111EB, 0x0B4F3C2D1E0F9A87)]


def _checks(records: np.ndarray) -> np.ndarray:
    total = np.zeros(len(records), np.uint64)
    names = ("ts_us", "position", "write", "first")
    for odd, name in zip(_ODD, names, strict=True):
        mixed = (records[name] + odd) * odd
        total = (total ^ mixed) * _ODD[0]
    return total + records["rows"] * np.uint64(3) + records["snapshot"]


def checked_records(first: int, rows: int, write: int, snapshot: bool = False) -> np.ndarray:
    """The records of one write: each says where it stands, what it came with, and carries its own check."""
    out = np.zeros(rows, CHECKED)
    out["position"] = np.arange(first, first + rows)
    out["ts_us"] = EPOCH_2026 + out["position"] // 3
    out["write"], out["first"], out["rows"], out["snapshot"] = write, first, rows, snapshot
    out["check"] = _checks(out)
    out["filler"] = (out["check"] ^ np.uint64(2**64 - 1))[:, None]
    return out


def whole_writes(records: np.ndarray, first: int = 0, cut: int | None = None) -> np.ndarray:
    """Assert that records from position `first` on are as written: none torn, none missing, every write whole.

    But for the one that ends at `cut`, where a copy or a power cut ended the feed.

    Returns the first record of each write.
    """
    assert (records["position"] == np.arange(first, first + len(records), dtype=np.uint64)).all(), "positions"
    assert (records["check"] == _checks(records)).all(), "torn record"
    assert (records["filler"] == (records["check"] ^ np.uint64(2**64 - 1))[:, None]).all(), "torn record"
    starts = np.flatnonzero(records["first"] == records["position"])
    assert not len(records) or starts[0] == 0, "begins inside a write"
    lengths = np.diff(np.append(starts, len(records)))
    is_cut = (starts + lengths + first == cut) & (lengths < records["rows"][starts]) if cut is not None else False
    assert ((lengths == records["rows"][starts]) | is_cut).all(), "a write is not whole"
    return records[starts]
