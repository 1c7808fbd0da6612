"""Databento Binary Encoding (DBN), versions 1 to 3, read by the bytes.

::

    0   "DBN"   3   version (u8)   4   length of the metadata after these 8 bytes (u32)
    8   dataset (16 bytes of text)   24  schema (u16; 65535: several)   26  start, end, limit (u64 each)
    50  version 1 only: record count (u64)
    then stype_in, stype_out, ts_out (u8 each), from version 2 the length of a symbol (u16; 22 in version 1), padding up
    to byte 108; the length of a schema definition (u32, always 0); four lists (u32 count each): symbols, partial,
    not_found, and mappings of a symbol to those of the venue by days

    records: length in words of 4 bytes (u8), rtype (u8), publisher_id (u16), instrument_id (u32), ts_event (u64), body

All is little-endian. The whole may be inside Zstandard. The bodies that are read (`_BODIES`) are the same in all
three versions; definitions, statistics, imbalances and statuses are not: a file of these is refused. A file of one
schema may hold records of other kinds (errors, symbol mappings, heartbeats): they are passed over and counted. One of
another schema is an error that names it, and so are records that are all of a kind not known: nothing would be left of
the file. A length of 0, which would never end, and a record that is cut off are errors that name the record.

What becomes of values: prices, integers of 1e-9, become the nearest float64, and 2^63-1 ("none") NaN. Times,
nanoseconds, become microseconds, rounded down: how many records had a part below is counted (`Source.notes`); 2^64-1
("none") stays. ``ts_in_delta`` stays in nanoseconds. The alternative for prices, integers as they are, makes every
reader divide.

It knows files and columns, nothing of feeds.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deepwater.arrow import decompressed
from deepwater.infer import Columns
from deepwater.layout import Layout
from deepwater.tables import BATCH_BYTES, Array, Batch, Source, arrow_errors, check_regular
from deepwater.wording import count

_ZSTD = b"\x28\xb5\x2f\xfd"
_HEAD_BYTES = 8
_FIXED_BYTES = 104  # of the metadata, from byte 8: dataset up to the schema definition's length
_MAX_METADATA = 64 << 20
_SYMBOL_V1 = 22
_KEPT_SYMBOLS = 1000
_NO_PRICE = np.int64(2**63 - 1)
_NO_TIME = np.uint64(2**64 - 1)
_EXACT_INT = 2**53

_HEADER = [("length", "u1"), ("rtype", "u1"), ("publisher_id", "<u2"), ("instrument_id", "<u4"), ("ts_event", "<u8")]
_TAIL = [("flags", "u1"), ("depth", "u1"), ("ts_recv", "<u8"), ("ts_in_delta", "<i4"), ("sequence", "<u4")]
_TRADE = [("price", "<i8"), ("size", "<u4"), ("action", "S1"), ("side", "S1"), *_TAIL]
_LEVEL = [("bid_px", "<i8"), ("ask_px", "<i8"), ("bid_sz", "<u4"), ("ask_sz", "<u4"),
          ("bid_ct", "<u4"), ("ask_ct", "<u4")]  # fmt: skip
_BBO = [("price", "<i8"), ("size", "<u4"), ("_1", "V1"), ("side", "S1"), ("flags", "u1"), ("_2", "V1"),
        ("ts_recv", "<u8"), ("_3", "V4"), ("sequence", "<u4"), *_LEVEL]  # fmt: skip
_BARS = [("open", "<i8"), ("high", "<i8"), ("low", "<i8"), ("close", "<i8"), ("volume", "<u8")]
_MBO = [("order_id", "<u8"), ("price", "<i8"), ("size", "<u4"), ("flags", "u1"), ("channel_id", "u1"),
        ("action", "S1"), ("side", "S1"), ("ts_recv", "<u8"), ("ts_in_delta", "<i4"), ("sequence", "<u4")]  # fmt: skip
# rtype -> the fields after the header
_BODIES: dict[int, Any] = {
    0x00: _TRADE, 0x01: [*_TRADE, *_LEVEL], 0x0A: [*_TRADE, ("levels", _LEVEL, (10,))], 0xA0: _MBO,
    0xC3: _BBO, 0xC4: _BBO, 0x20: _BARS, 0x21: _BARS, 0x22: _BARS, 0x23: _BARS, 0x24: _BARS,
}  # fmt: skip
_SCHEMAS = {
    0: ("mbo", 0xA0), 1: ("mbp-1", 0x01), 2: ("mbp-10", 0x0A), 3: ("tbbo", 0x01), 4: ("trades", 0x00),
    5: ("ohlcv-1s", 0x20), 6: ("ohlcv-1m", 0x21), 7: ("ohlcv-1h", 0x22), 8: ("ohlcv-1d", 0x23), 13: ("ohlcv-eod", 0x24),
    18: ("bbo-1s", 0xC3), 19: ("bbo-1m", 0xC4),
}  # fmt: skip
_REFUSED = {9: "definition", 10: "statistics", 11: "status", 12: "imbalance", 14: "cmbp-1", 15: "cbbo-1s",
            16: "cbbo-1m", 17: "tcbbo"}  # fmt: skip
_KINDS = {rtype: name for name, rtype in reversed(_SCHEMAS.values())} | {
    0x12: "status", 0x13: "definition", 0x14: "imbalance", 0x18: "statistics", 0xB1: "cmbp-1", 0xC0: "cbbo-1s",
    0xC1: "cbbo-1m", 0xC2: "tcbbo",
}  # fmt: skip
"""rtype -> the schema that has such records."""
_BESIDE = {0x15, 0x16, 0x17}
"""Errors, symbol mappings, heartbeats: beside records of any schema."""
_PRICES = {"price", "open", "high", "low", "close", "bid_px", "ask_px"}


class DbnSource(Source):
    """A DBN file of one schema, plain or in Zstandard.

    Attributes
    ----------
    version : int
    dataset, schema : str
    symbols : list of str
        As they were asked for, the first 1000.
    symbol_count : int
        How many were.
    """

    form = "dbn"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        check_regular(path)
        with open(path, "rb") as file:
            self._is_packed = file.read(4) == _ZSTD
        self._lost = self._others = 0
        self._unknown: int | None = None
        with arrow_errors(self), self._stream() as stream:
            self._start = self._metadata(stream)
        body = _BODIES[self._rtype]
        self._dtype = np.dtype([*_HEADER, *body, *([("ts_out", "<u8")] if self._ts_out else [])])
        self.names = tuple(name for name, _ in self._columns())

    @contextlib.contextmanager
    def _stream(self) -> Iterator[Any]:
        with decompressed(self.path, "zstd") if self._is_packed else open(self.path, "rb") as stream:
            yield stream

    # --- metadata ------------------------------------------------------------------------------------

    def _metadata(self, stream: Any) -> int:
        """Read what stands before the records; return where they begin."""
        head = stream.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES or head[:3] != b"DBN":
            raise self.refuse(f"not a DBN file: it begins with {head[:3]!r}, not b'DBN'")
        self.version, size = head[3], int.from_bytes(head[4:], "little")
        if not 1 <= self.version <= 3:
            raise self.refuse(f"DBN of version {self.version}; versions 1 to 3 are read")
        if not _FIXED_BYTES <= size <= _MAX_METADATA:
            raise self.refuse(f"metadata of {size} bytes; {_FIXED_BYTES} to {_MAX_METADATA} are possible")
        data = stream.read(size)
        if len(data) < size:
            raise self.refuse(f"cut off in its metadata: {len(data)} of {size} bytes; get it again")
        self.dataset = data[:16].rstrip(b"\0").decode("ascii", "replace")
        (number,) = struct.unpack_from("<H", data, 16)
        at = 42 + 8 * (self.version == 1)
        self._ts_out, symbol_bytes = bool(data[at + 2]), _SYMBOL_V1
        if self.version > 1:
            (symbol_bytes,) = struct.unpack_from("<H", data, at + 3)
        if number not in _SCHEMAS:
            what = _REFUSED.get(number, "several schemas at once" if number == 0xFFFF else f"schema {number}")
            raise self.refuse(f"holds {what}; read are {', '.join(name for name, _ in _SCHEMAS.values())}")
        self.schema, self._rtype = _SCHEMAS[number]
        self.symbol_count, self.symbols = self._symbols(data, symbol_bytes)
        return _HEAD_BYTES + size

    def _symbols(self, data: bytes, size: int) -> tuple[int, list[str]]:
        """Return how many there are, and the first of them: a file that promises millions takes no memory for them."""
        at = _FIXED_BYTES + int.from_bytes(data[_FIXED_BYTES - 4 : _FIXED_BYTES], "little")
        (number,) = struct.unpack_from("<I", data, at) if len(data) >= at + 4 else (0,)
        if not size or at + 4 + number * size > len(data):
            raise self.refuse(f"damaged metadata: {number} symbols of {size} bytes do not fit into it")
        raw = (data[at + 4 + k * size : at + 4 + (k + 1) * size] for k in range(min(number, _KEPT_SYMBOLS)))
        return number, [symbol.partition(b"\0")[0].decode("latin-1") for symbol in raw]

    # --- records -------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """Pass over the file, from its beginning."""
        size = self._dtype.itemsize
        want = max(1, BATCH_BYTES // 8 // size) * size
        first = self._lost = self._others = 0
        self._unknown = None
        with arrow_errors(self), self._stream() as stream:
            stream.read(self._start)
            rest = b""
            while data := stream.read(want):
                data = rest + data
                records, used = self._records(data, first)
                rest = data[used:]
                if len(records):
                    yield Batch(first, len(records), records, first + len(records))
                    first += len(records)
            records, used = self._walk(rest, first)  # the last ones may be shorter than ours
            if len(records):
                yield Batch(first, len(records), records, first + len(records))
                first += len(records)
            rest = rest[used:]
        if rest:
            left = count(len(rest), "byte")
            raise self.refuse(f"cut off in record {first + self._others + 1}: {left} of it {_there(len(rest))}")
        if not first and self._unknown is not None:
            raise self.refuse(f"holds no record of {self.schema}, but of a kind not known, {self._unknown:#04x}")

    def _records(self, data: bytes, first: int) -> tuple[Array, int]:
        """Return the records of our kind that are whole in `data`, and how many bytes that took."""
        size = self._dtype.itemsize
        whole = len(data) // size
        records = np.frombuffer(data, self._dtype, whole)
        ours = (records["length"] == size // 4) & (records["rtype"] == self._rtype)
        if ours.all():
            return records, whole * size
        return self._walk(data, first)

    def _walk(self, data: bytes, first: int) -> tuple[Array, int]:
        """Step from record to record: some are of another kind."""
        size, at, kept = self._dtype.itemsize, 0, bytearray()
        while at < len(data):
            length = data[at] * 4
            if length < 16:
                number = first + len(kept) // size + self._others + 1
                raise self.refuse(f"record {number} says that it has {length} bytes; a header alone has 16")
            if at + length > len(data):
                break
            if data[at + 1] != self._rtype:
                self._pass_over(data[at + 1], first + len(kept) // size)
            elif length != size:
                number = first + len(kept) // size + self._others + 1
                raise self.refuse(f"record {number} has {length} bytes, one of {self.schema} {size}")
            else:
                kept += data[at : at + length]
            at += length
        return np.frombuffer(bytes(kept), self._dtype), at

    def _pass_over(self, rtype: int, before: int) -> None:
        """Count a record of another kind; one of another schema is refused."""
        self._others += 1
        if rtype in _KINDS:
            text = f"record {before + self._others} is of {_KINDS[rtype]}, the metadata says {self.schema}"
            raise self.refuse(f"{text}: the file is of another schema than it says, or of several")
        if rtype not in _BESIDE:
            self._unknown = rtype

    # --- values --------------------------------------------------------------------------------------

    def columns(self, chosen: tuple[str, ...]) -> Columns:
        """Return names and types."""
        return [(name, type_) for name, type_ in self._columns() if name in chosen]

    def _columns(self) -> Columns:
        found = []
        fields: Mapping[str, Any] = self._dtype.fields or {}
        for name in self._dtype.names or ():
            if name in ("length", "rtype") or name.startswith("_"):
                continue
            if name == "levels":
                found += [(level, _type_of(level, np.dtype(code)) + "[10]") for level, code in _LEVEL]
            else:
                found.append((name, _type_of(name, fields[name][0])))
        clock = "ts_recv" if "ts_recv" in fields else "ts_event"
        # The clock first, then the other times, then what is wide: little padding.
        return sorted(found, key=lambda c: (c[0] != clock, c[1] != "time", c[0] in ("action", "side")))

    @property
    def clock(self) -> str:
        """The column that never steps back in a recording."""
        return self.names[0]

    def settings(self) -> dict[str, Any]:
        """Return what a feed made of it keeps in its settings: where it is from, and the symbols."""
        about = {"dataset": self.dataset, "schema": self.schema, "symbols": self.symbols}
        return {"desc": f"{self.dataset} {self.schema}, from Databento", "config": {"dbn": about}}

    def values(self, batch: Batch, layout: Layout, names: dict[str, str]) -> dict[str, Array]:
        """Return the columns of a batch as a packer takes them."""
        out, cut = {}, np.zeros(batch.rows, np.bool_)
        for name, own in names.items():
            values = batch.data[own] if own in batch.data.dtype.names else batch.data["levels"][own]
            if own.startswith("ts_") and own != "ts_in_delta":
                is_time = values != _NO_TIME
                cut |= is_time & (values % np.uint64(1000) != 0)
                values = np.where(is_time, values // np.uint64(1000), _NO_TIME)
            elif own in _PRICES:
                values = _prices(values)
            out[name] = values
        self._lost += int(np.count_nonzero(cut))
        return out

    def notes(self) -> list[str]:
        """Return what it is, what was cut and what was left out."""
        said = [f"DBN version {self.version}, {self.dataset} {self.schema}, {count(self.symbol_count, 'symbol')}"]
        if self._lost:
            verb = "has" if self._lost == 1 else "have"
            said.append(f"{count(self._lost, 'record')} {verb} times between two microseconds: cut to the one before")
        if self._others:
            verb = "is" if self._others == 1 else "are"
            others = f"{count(self._others, 'record')} of other kinds (errors, mappings, heartbeats)"
            said.append(f"{others} {verb} left out")
        return said


def _there(number: int) -> str:
    return "is there" if number == 1 else "are there"


def _type_of(name: str, dtype: np.dtype[Any]) -> str:
    if name.startswith("ts_") and name != "ts_in_delta":
        return "time"
    if name in _PRICES:
        return "float64"
    return "char" if dtype == "S1" else str(dtype)


def _prices(raw: Array) -> Array:
    """Integers of 1e-9 as the nearest float64; none as NaN."""
    out: Array = np.where(raw == _NO_PRICE, np.nan, raw / 1e9)
    # An int beyond 2^53 is rounded when it becomes a float, and again when it is divided: Python rounds once.
    large = (np.abs(raw) > _EXACT_INT) & (raw != _NO_PRICE)
    for place in zip(*np.nonzero(large), strict=True):
        out[place] = int(raw[place]) / 10**9
    return out
