"""The compiled spec: where each field lies in a record, as NumPy, `struct` and bytes.

A `Layout` is what is the same for every record of a feed for ever. It is stored as JSON in `layout.json`
and in the header of every binary file, so a file can be read without anything else. Two layouts are equal
if every field (padding included) has the same name, type and offset and the primary clock is the same;
descriptions do not count.

Invariants: little-endian; offsets are the running sum of the sizes as written, nothing hidden between or
after fields; `dtype` has explicit offsets and leaves the padding out. It knows nothing of files or values.
"""

from __future__ import annotations

import hashlib
import html
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from deepwater.errors import RecordError, SchemaError
from deepwater.fields import Field, check_fields, parse_type
from deepwater.jsontext import load_json
from deepwater.schema import FeedSpec
from deepwater.wording import did_you_mean

LAYOUT_VERSION = 1
PADDING_BITS = 0xFF
BOOL_BITS = 0xFE


@dataclass(frozen=True, slots=True)
class Column:
    """A field of the record that is not padding.

    Attributes
    ----------
    name, type, desc : str
        As in the spec, the type spelled out.
    kind : str
        char, chars, bool, int, uint, float or byte; of ``type[N]`` that of its items.
    offset, size : int
        Bytes from the start of the record; bytes it takes.
    item : str
        NumPy code of one item: ``<f8``, ``S1``, ``S8``.
    count : int or None
        N of ``type[N]``, else None.
    """

    name: str
    type: str
    kind: str
    offset: int
    size: int
    item: str
    count: int | None
    desc: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of one value: of ``type[N]`` a sub-array of shape (N,)."""
        return np.dtype(self.item) if self.count is None else np.dtype((self.item, (self.count,)))

    @property
    def alignment(self) -> int:
        """Bytes its offset should be a multiple of (1 for text)."""
        return 1 if self.kind in ("char", "chars") else self.size // (self.count or 1)


@final
class Layout:
    """Where each field lies in a record. Immutable, hashable, pickle-able; safe to share among threads.

    Make one with `compile`, `from_json` or `from_bytes`.

    Attributes
    ----------
    fields : tuple of Field
        All fields, padding included.
    columns : tuple of Column
        The fields without padding, in the order of their bytes.
    names : tuple of str
        Names of the columns.
    ts_col : str
        The primary clock.
    clocks : tuple of str
        `ts_col`, then every other ``uint64`` column whose name ends in ``_us``, in field order.
    clock_offsets : tuple of int
        Byte offset of each clock in the record.
    record_size : int
        Bytes of a record, padding included.
    dtype : numpy.dtype
        Structured, explicit offsets and itemsize, padding left out.
    struct_format : str
        For `struct`: ``<cc6xQQQQQdd``. The items of ``type[N]`` are N separate values there.
    hash : bytes
        16 bytes: names, types and offsets of all fields, and `ts_col`.
    padding_mask : numpy.ndarray
        uint8, one per byte of the record, read-only: 0xFF at padding, 0xFE at bools, else 0. The OR over
        records, AND this mask, is zero if and only if padding is clean and every bool is 0 or 1.
    warnings : tuple of str
        What the layout costs, and where to put padding. Empty for an aligned layout.

    Examples
    --------
    >>> layout = Layout.compile({"feed_name": "t", "ts_col": "t_us", "fields": [
    ...     {"name": "side", "type": "char"}, {"name": "_", "type": "_7"},
    ...     {"name": "t_us", "type": "u64"}, {"name": "px", "type": "f64"}]})
    >>> layout.struct_format, layout.record_size, layout.column("px").offset
    ('<c7xQd', 24, 16)
    >>> Layout.from_bytes(layout.to_bytes()) == layout
    True
    """

    __slots__ = (
        "_by_name",
        "clock_offsets",
        "clocks",
        "columns",
        "dtype",
        "fields",
        "hash",
        "names",
        "padding_mask",
        "record_size",
        "struct_format",
        "ts_col",
    )

    fields: tuple[Field, ...]
    columns: tuple[Column, ...]
    names: tuple[str, ...]
    ts_col: str
    clocks: tuple[str, ...]
    clock_offsets: tuple[int, ...]
    record_size: int
    dtype: np.dtype[Any]
    struct_format: str
    hash: bytes
    padding_mask: NDArray[np.uint8]
    _by_name: dict[str, Column]

    def __init__(self, fields: tuple[Field, ...], ts_col: str, *, where: str = "layout") -> None:
        fields = check_fields(fields, ts_col, where)
        offsets = _offsets(fields)
        columns = tuple(
            Column(f.name, f.type, f.kind, offset, f.size, f.item, f.count, f.desc)
            for f, offset in zip(fields, offsets, strict=True)
            if not f.is_padding
        )
        by_name = {column.name: column for column in columns}
        others = [c.name for c in columns if c.type == "uint64" and c.name.endswith("_us") and c.name != ts_col]
        clocks = (ts_col, *others)
        size = sum(field.size for field in fields)
        values: dict[str, Any] = {
            "fields": fields,
            "columns": columns,
            "names": tuple(by_name),
            "ts_col": ts_col,
            "clocks": clocks,
            "clock_offsets": tuple(by_name[name].offset for name in clocks),
            "record_size": size,
            "dtype": _dtype(columns, size),
            "struct_format": "<"
            + "".join("x" if f.size == 1 and f.is_padding else parse_type(f.type).code for f in fields),
            "hash": _digest(fields, offsets, ts_col),
            "padding_mask": _padding_mask(fields, offsets, size),
            "_by_name": by_name,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Layout is immutable; {name!r} cannot be set")

    # --- from and to -----------------------------------------------------------------------------------

    @classmethod
    def compile(cls, spec: object) -> Layout:
        """Return the layout of a `FeedSpec`, or of anything `FeedSpec.from_json` takes.

        Never warns: `warnings` says what `create_feed` should.

        Raises
        ------
        SchemaError, FeedNameError
        """
        spec = FeedSpec.from_json(spec)
        return cls(spec.fields, spec.ts_col, where=f"feed {spec.feed_name!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the layout as a dict of JSON values; `from_json` reads it back.

        Offsets and sizes are written although they follow from the types: a reader in another language
        needs no rule, and a reader here has something to check.
        """
        fields = [
            {"name": f.name, "type": f.type, "offset": offset, "size": f.size} | ({"desc": f.desc} if f.desc else {})
            for f, offset in zip(self.fields, _offsets(self.fields), strict=True)
        ]
        head = {"version": LAYOUT_VERSION, "mode": "UF", "byte_order": "little"}
        return head | {"record_size": self.record_size, "ts_col": self.ts_col, "fields": fields}

    def to_bytes(self) -> bytes:
        """Return `to_json` as compact UTF-8 JSON; the same layout and descriptions give the same bytes."""
        return _canonical(self.to_json())

    @classmethod
    def from_json(cls, data: object) -> Layout:
        """Return the layout of a dict as `to_json` writes it.

        Raises
        ------
        SchemaError
            An unknown or missing key, another version, or numbers that contradict the types.
        """
        if not isinstance(data, dict) or set(data) != _KEYS:
            found = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
            raise SchemaError(f"layout: expected the keys {sorted(_KEYS)}, found {found}")
        rows = data["fields"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SchemaError("layout: fields must be a list of objects")
        fields = tuple(
            Field.from_json({key: row[key] for key in row if key not in ("offset", "size")}, f"layout: field {i}")
            for i, row in enumerate(rows)
        )
        layout = cls(fields, data["ts_col"])
        wanted = layout.to_json()
        # As text: 8, 8.0 and true are equal in Python and three things in JSON.
        for i, (row, right) in enumerate(zip(rows, wanted["fields"], strict=True)):
            if _canonical(row) != _canonical(right):
                raise SchemaError(f"layout: field {i} is {row}; its type makes it {right}", field=row.get("name"))
        for key in ("version", "mode", "byte_order", "record_size"):
            if _canonical(data[key]) != _canonical(wanted[key]):
                raise SchemaError(f"layout: {key} is {data[key]!r}; this version expects {wanted[key]!r}", key=key)
        return layout

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Layout:
        """Return the layout of UTF-8 JSON; the last 256 are remembered: every file opened has one.

        Raises
        ------
        SchemaError
            On anything `to_bytes` would not write, other than white space.
        """
        return _from_bytes(bytes(data))

    def __reduce__(self) -> tuple[Any, ...]:
        return Layout.from_bytes, (self.to_bytes(),)

    # --- asking ----------------------------------------------------------------------------------------

    def column(self, name: object) -> Column:
        """Return the column `name`, or raise `RecordError` (attribute `column`) with the nearest name.

        >>> Layout.compile({"feed_name": "t", "ts_col": "t_us",
        ...     "fields": [{"name": "t_us", "type": "u64"}]}).column("t_ms")
        Traceback (most recent call last):
        deepwater.errors.RecordError: no column 't_ms'; did you mean 't_us'?
        """
        found = self._by_name.get(name) if isinstance(name, str) else None
        if found is None:
            hint = did_you_mean(name, self.names) or f"; columns are {', '.join(self.names[:20])}"
            raise RecordError(f"no column {name!r}{hint}", column=name)
        return found

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the layout costs and where to put padding, a sentence each; empty if aligned."""
        return _warnings(self)

    def diff(self, other: Layout) -> str | None:
        """Return the first difference from `other` that makes records incompatible, or None.

        The wording is "here" for this layout and "there" for `other`.
        """
        mine, theirs = _places(self), _places(other)
        for name, here in mine.items():
            there = theirs.get(name)
            if there is None:
                return f"field {name!r}: {here} here, missing there{did_you_mean(name, theirs)}"
            if there != here:
                return f"field {name!r}: {here} here, {there} there"
        for name, there in theirs.items():
            if name not in mine:
                return f"field {name!r}: missing here, {there} there"
        if self.ts_col != other.ts_col:
            return f"ts_col: {self.ts_col!r} here, {other.ts_col!r} there"
        if self.record_size != other.record_size:
            return f"record size: {self.record_size} bytes here, {other.record_size} there"
        return None if self == other else "padding: other names or widths here than there"

    def __eq__(self, other: object) -> bool:
        return self.hash == other.hash if isinstance(other, Layout) else NotImplemented

    def __hash__(self) -> int:
        return int.from_bytes(self.hash[:8], "little", signed=True)

    def __repr__(self) -> str:
        shown = [f"{c.name} {c.type} @{c.offset}" for c in self.columns[:12]]
        more = f", ... {len(self.columns) - 12} more" if len(self.columns) > 12 else ""
        return f"<Layout {self.record_size} bytes, ts_col {self.ts_col}: {', '.join(shown)}{more}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{c.offset}</td><td>{html.escape(c.name)}</td><td>{html.escape(c.type)}</td>"
            f"<td>{'clock' if c.name in self.clocks else ''}</td><td>{html.escape(c.desc)}</td></tr>"
            for c in self.columns
        )
        head = "<tr><th>offset</th><th>name</th><th>type</th><th></th><th>meaning</th></tr>"
        return f"<table><caption>{self.record_size} bytes, ts_col {self.ts_col}</caption>{head}{rows}</table>"


_KEYS = {"version", "mode", "byte_order", "record_size", "ts_col", "fields"}


@lru_cache(maxsize=256)
def _from_bytes(data: bytes) -> Layout:
    return Layout.from_json(load_json(data, "layout"))


def _canonical(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


def _offsets(fields: tuple[Field, ...]) -> list[int]:
    offsets, end = [], 0
    for field in fields:
        offsets.append(end)
        end += field.size
    return offsets


def _dtype(columns: tuple[Column, ...], size: int) -> np.dtype[Any]:
    return np.dtype(
        {
            "names": [column.name for column in columns],
            "formats": [column.dtype for column in columns],
            "offsets": [column.offset for column in columns],
            "itemsize": size,
        }
    )


def _digest(fields: tuple[Field, ...], offsets: list[int], ts_col: str) -> bytes:
    facts = [[f.name, f.type, offset] for f, offset in zip(fields, offsets, strict=True)]
    text = json.dumps([ts_col, facts], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"deepwater layout").digest()


def _padding_mask(fields: tuple[Field, ...], offsets: list[int], size: int) -> NDArray[np.uint8]:
    mask = np.zeros(size, np.uint8)
    for field, offset in zip(fields, offsets, strict=True):
        if field.is_padding or field.kind == "bool":
            mask[offset : offset + field.size] = PADDING_BITS if field.is_padding else BOOL_BITS
    mask.flags.writeable = False
    return mask


def _places(layout: Layout) -> dict[str, str]:
    return {c.name: f"{c.type} at offset {c.offset}" for c in layout.columns}


def _warnings(layout: Layout) -> tuple[str, ...]:
    """Walk the record as it would be with the padding that is proposed, so that proposals add up."""
    added, put = 0, []
    for column in layout.columns:
        if gap := -(column.offset + added) % column.alignment:
            put.append(f'{{"name": "_", "type": "_{gap}"}} before {column.name!r}')
            added += gap
    if gap := -(layout.record_size + added) % 8:
        put.append(f'{{"name": "_", "type": "_{gap}"}} at the end')
    cost = "each lookup by such a column copies all of it: 30 ms for 10 million records, not 1 us"
    cure = "put " + (", ".join(put) if len(put) <= 4 else f"{', '.join(put[:4])} and {len(put) - 4} more")
    found = []
    bad = [f"{c.name!r} ({c.type} at offset {c.offset})" for c in layout.columns if c.offset % c.alignment]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        found.append(f"misaligned: {', '.join(bad[:3])}{more}; {cost}; {cure}")
    if layout.record_size % 8:
        size = f"record size {layout.record_size} is not a multiple of 8"
        found.append(f"{size}: every field of 8 bytes is misaligned in most records; {cost}; {cure}")
    return tuple(found)
