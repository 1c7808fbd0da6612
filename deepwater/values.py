"""Values into records: what is accepted, and nothing stored that is not what was passed.

The rule, for every source (tuples, arrays, lists, DataFrames, Arrow):

* an integer, a bool or a text is accepted if and only if it is stored exactly: ``1.0`` is an integer,
  ``1.5``, NaN, ``2**64`` and, unsigned, ``-1`` are not; only 0, 1, False and True are bools; text is latin-1
  and fits;
* a float field takes the nearest float; a finite number that would become infinite is refused;
* a clock takes whole microseconds since the epoch, or a time that is one (naive means UTC); NaT never;
* None and missing values are refused: records have no nulls. Numbers are not read from text.

One rule object per column holds it, on whole arrays. Rows are looked at one by one only where the source is
Python objects. Fast paths skip checks whose result is known (`struct` refuses what does not fit an integer
field; an array of the layout's own dtype needs only its padding and bools looked at); they decide nothing:
what they do not take goes to the rules.

More than 400 lines because the rule is one concept: each line of it is stated once, for all sources.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepwater.arrow import columns_from_arrow
from deepwater.errors import RecordError
from deepwater.frames import columns_from_frame
from deepwater.layout import PADDING_BITS, Column, Layout
from deepwater.schema import did_you_mean

Array: TypeAlias = NDArray[Any]

# `struct` takes whatever has __float__ (a complex64 loses its imaginary part): only these may go there.
_PLAIN = frozenset(
    {int, float, bool, str, bytes, np.float64, np.float32, np.uint64, np.int64, np.uint32, np.int32}
)  # fmt: skip
_NOT_PLAIN = (struct.error, ValueError, OverflowError, TypeError)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_MAX_US = 2**64 - 1
_NAT = np.iinfo(np.int64).min
# Microseconds in a unit of datetime64, as a fraction.
_UNITS = {
    "W": (604_800_000_000, 1), "D": (86_400_000_000, 1), "h": (3_600_000_000, 1), "m": (60_000_000, 1),
    "s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 10**3), "ps": (1, 10**6),
    "fs": (1, 10**9), "as": (1, 10**12),
}  # fmt: skip
_MISSING = "is missing; records have no nulls: fill it or leave the row out"
_BEYOND = "is beyond 2^64-1 microseconds"
_NO_ROWS = (str, bytes, bytearray, Mapping)
_SOURCES = "a structured array, a dict of columns, a DataFrame or Arrow data"


class Packer:
    """Turns values into records of one layout, exactly or not at all.

    Holds no state but the layout: any number of threads may share one, as long as nobody changes the data
    meanwhile.

    Parameters
    ----------
    layout : Layout

    Attributes
    ----------
    layout : Layout

    Examples
    --------
    >>> layout = Layout.compile({"feed_name": "t", "ts_col": "t_us", "fields": [
    ...     {"name": "t_us", "type": "uint64"}, {"name": "px", "type": "float64"}]})
    >>> packer = Packer(layout)
    >>> packer.pack_values((1, 2.5)).hex()
    '01000000000000000000000000000440'
    >>> packer.pack_batch({"px": [1.0, 2.0], "t_us": np.array([5, 6])})["t_us"].tolist()
    [5, 6]
    >>> packer.pack_batch({"px": [1.0, 2.0], "t_us": [5, -6]})
    Traceback (most recent call last):
    deepwater.errors.RecordError: column 't_us', row 1: -6 does not fit uint64 (0 to 18446744073709551615)
    """

    __slots__ = (
        "_few",
        "_few_mask",
        "_fixes",
        "_keep",
        "_masks",
        "_rules",
        "_same_dtype",
        "_struct",
        "_word",
        "layout",
    )

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._rules = tuple(_Rule(column, column.name in layout.clocks) for column in layout.columns)
        self._fixes = tuple((i, fix) for i, rule in enumerate(self._rules) if (fix := rule.fix()))
        self._struct = struct.Struct(layout.struct_format)
        mask = layout.padding_mask
        self._word = np.dtype(f"<u{math.gcd(layout.record_size, 8)}")
        words = mask.view(self._word)
        self._masks = tuple((int(k), int(words[k])) for k in np.flatnonzero(words))
        self._few = min(32, 8192 // layout.record_size)
        self._few_mask = int.from_bytes(mask.tobytes() * self._few, "little")
        self._same_dtype = layout.dtype  # the last dtype object found equal: comparing two takes longer than a copy
        self._keep = np.where(mask == PADDING_BITS, 0, 0xFF).astype(np.uint8)

    # --- one record ------------------------------------------------------------------------------------

    def pack_values(self, values: Sequence[Any]) -> bytes:
        """Return one record as bytes.

        Parameters
        ----------
        values : tuple
            One per column, in field order without padding.

        Returns
        -------
        bytes
            `record_size` bytes; padding is zero.

        Raises
        ------
        RecordError
            Another number of values, or a value that does not fit; attributes `column` and `value`.

        Notes
        -----
        About 0.8 us for ten plain fields, of which half look at the types and the texts. Some 5 us a column
        if one value is of another type (a datetime, a Decimal, a list), and before an error.
        """
        if len(values) == len(self._rules) and _PLAIN.issuperset(map(type, values)):
            try:
                if self._fixes:
                    values = list(values)
                    for i, fix in self._fixes:
                        values[i] = fix(values[i])
                return self._struct.pack(*values)
            except _NOT_PLAIN:
                pass  # the rules find out what is wrong, if anything is
        return self._pack_by_rule(values)

    def _pack_by_rule(self, values: Sequence[Any]) -> bytes:
        if len(values) != len(self._rules):
            names = ", ".join(self.layout.names)
            raise RecordError(f"{len(values)} values for {len(self._rules)} columns; pass {names}")
        record = np.zeros(1, self.layout.dtype)
        for rule, value in zip(self._rules, values, strict=True):
            try:
                record[rule.name] = rule.array([value])
            except RecordError as error:
                why = error.parts.get("why", error.message)
                item = error.parts.get("item")
                where = f"column {rule.name!r}" if item is None else f"column {rule.name!r}, item {item}"
                raise RecordError(f"{where}: {why}", column=rule.name, value=value, why=why) from None
        return record.tobytes()

    # --- many records ----------------------------------------------------------------------------------

    def pack_batch(self, data: Any) -> Array:
        """Return records of the columns in `data`, matched by name.

        Parameters
        ----------
        data : structured array, dict of columns, DataFrame, or Arrow data
            Every column of the layout and no other, in any order, each of any type whose values fit. A
            named index of a DataFrame counts as a column; void fields of an array are padding.

        Returns
        -------
        numpy.ndarray
            One-dimensional, C-contiguous, of ``layout.dtype``; padding zero, bools 0 or 1. **Shares the
            memory of `data`** if that is already such an array, so nobody may change it until it is
            stored; else it is new.

        Raises
        ------
        RecordError
            Columns missing, unknown or of different lengths; a value that does not fit (attributes
            `column`, `row`, `value`).

        Notes
        -----
        An array of the layout's dtype costs one pass over the words that hold padding or bools: some 10 us
        for 10,000 records of 64 bytes, about 1 us for 10. Columns cost a copy, and a check where their type
        does not fit by itself: some 100 us for the same 10,000, as Python lists 7 ms.
        """
        if type(data) is np.ndarray and data.ndim == 1 and self._is_same(data.dtype):
            if not data.flags.c_contiguous:
                # As opaque bytes: a dtype with gaps is copied field by field, at a twentieth of the speed.
                data = np.ascontiguousarray(data.view(f"V{data.itemsize}")).view(data.dtype)
            return self._clean(data)
        columns = _columns(data, self.layout)
        self._check_names(columns)
        arrays = {rule.name: rule.array(columns[rule.name]) for rule in self._rules}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            some = ", ".join(f"{name} {length}" for name, length in list(lengths.items())[:20])
            raise RecordError(f"columns differ in length: {some}; pass as many values for each")
        out = np.zeros(next(iter(lengths.values())), self.layout.dtype)
        for name, array in arrays.items():
            out[name] = array
        return out

    def _is_same(self, dtype: np.dtype[Any]) -> bool:
        if dtype is not self._same_dtype:
            if dtype != self.layout.dtype:
                return False
            self._same_dtype = dtype
        return True

    def check_bytes(self, buffer: Any) -> Array:
        """Return packed records as an array.

        Parameters
        ----------
        buffer : bytes-like
            Contiguous; a whole number of records, as `Layout.struct_format` packs them.

        Returns
        -------
        numpy.ndarray
            One-dimensional, of ``layout.dtype``: a view of `buffer`, which it keeps alive, or a copy if
            padding had to be set to zero.

        Raises
        ------
        RecordError
            No bytes, part of a record, or a bool that is neither 0 nor 1 (attributes `column`, `row`).
        """
        try:
            with memoryview(buffer) as view:
                size = view.nbytes
            array = np.frombuffer(buffer, np.uint8) if size else np.empty(0, np.uint8)
        except (TypeError, ValueError, BufferError) as error:
            raise RecordError(f"packed records must be contiguous bytes: {error}") from None
        if array.size % self.layout.record_size:
            raise RecordError(
                f"{array.size} bytes are not a whole number of records of {self.layout.record_size} bytes"
            )
        return self._clean(array.view(self.layout.dtype))

    def _clean(self, array: Array) -> Array:
        """Return `array` if padding is zero and bools are 0 or 1; zero the padding in a copy."""
        if len(array) <= self._few:  # one AND of integers as long as the batch is quicker than calls into NumPy
            if not int.from_bytes(array.tobytes(), "little") & self._few_mask:
                return array
            return self._cleaned(array)
        words = array.view(self._word).reshape(len(array), self.layout.record_size // self._word.itemsize)
        for k, mask in self._masks:
            if int(np.bitwise_or.reduce(words[:, k])) & mask:
                break
        else:
            return array
        return self._cleaned(array)

    def _cleaned(self, array: Array) -> Array:
        for rule in self._rules:
            if rule.kind == "bool":
                rule.check_bool_bytes(array[rule.name])
        raw = array.view(np.uint8).reshape(len(array), self.layout.record_size)
        return (raw & self._keep).view(self.layout.dtype).reshape(len(array))

    def _check_names(self, columns: Mapping[Any, Any]) -> None:
        wanted = self.layout.names
        missing = [name for name in wanted if name not in columns]
        extra = [name for name in columns if name not in wanted]
        if missing or extra:
            said = [f"missing: {', '.join(missing)}"] if missing else []
            if extra:
                hint = did_you_mean(extra[0], missing or wanted)
                said.append(f"not in the feed: {', '.join(map(repr, extra[:20]))}{hint}")
            raise RecordError(f"columns do not match the layout; {'; '.join(said)}", missing=missing, extra=extra)


# --- one column ----------------------------------------------------------------------------------------


class _Rule:
    """What one column accepts. `array` is the whole of it; every other path only foretells its answer."""

    __slots__ = ("_check", "clock", "count", "dtype", "hi", "items", "kind", "lo", "name", "type")

    def __init__(self, column: Column, clock: bool) -> None:
        self.name, self.type, self.kind, self.count = column.name, column.type, column.kind, column.count
        self.clock = clock
        self.dtype = np.dtype(column.item)
        self.lo, self.hi = 0, 0
        if self.dtype.kind in "iu":
            info = np.iinfo(self.dtype)
            self.lo, self.hi = int(info.min), int(info.max)
        checks: dict[str, Callable[[Array], Array]] = {
            "int": self._ints, "uint": self._ints, "byte": self._ints, "float": self._floats,
            "bool": self._bools, "char": self._texts, "chars": self._texts,
        }  # fmt: skip
        self._check = checks[self.kind]
        # The rule of one item of type[N], for rows that come as Python sequences.
        self.items = None if column.count is None else _Rule(_item_column(column), clock)

    def array(self, values: Any) -> Array:
        """Return `values` as an array that NumPy stores in the column exactly, or raise `RecordError`."""
        source = self._source(values)
        if isinstance(source, list):
            return self._objects(source)
        shape = (len(source),) if self.count is None else (len(source), self.count)
        if not len(source):
            return np.empty(shape, self.dtype)  # of no rows any type will do
        if source.shape != shape:
            wanted = "one value a row" if self.count is None else f"{self.count} values a row"
            raise self._error(f"{wanted} expected, found an array of shape {source.shape}")
        return self._check(source)

    def _source(self, values: Any) -> Array | list[Any]:
        """Return `values` as an array of at least one dimension, or as a list of Python objects."""
        if isinstance(values, np.ma.MaskedArray):
            if (missing := np.ma.getmaskarray(values)).any():
                self._refuse(np.asarray(values), (missing, "is masked; records have no nulls: fill it"))
            values = values.data
        if not isinstance(values, np.ndarray) and hasattr(values, "__array__"):
            values = np.asarray(values)
        scalar = isinstance(values, np.ndarray) and values.ndim == 0
        if scalar or isinstance(values, _NO_ROWS) or not isinstance(values, Iterable):
            shown = "a scalar" if scalar else type(values).__name__
            raise self._error(f"one value a row expected, found {shown}; pass an array or a list")
        if isinstance(values, np.ndarray) and values.dtype.kind != "O":
            return np.asarray(values)
        # Never np.asarray of a list: [2**53 + 1, 1.0] would be rounded before anyone could look.
        return list(values)

    # --- Python objects --------------------------------------------------------------------------------

    def _objects(self, items: list[Any]) -> Array:
        if self.items is not None:
            return self._rows(items, self.items)
        if not items:
            return np.empty(0, self.dtype)
        if (source := self._alike(items)) is not None:
            return self._check(source)
        out = np.empty(len(items), self.dtype)
        for row, item in enumerate(items):
            source = self._alike([item])
            if source is None:
                raise self._error(self._why_not(item), row=row, value=item)
            try:
                out[row] = self._check(source)[0]
            except RecordError as error:
                raise self._error(error.parts["why"], row=row, value=item) from None
        return out

    def _rows(self, rows: list[Any], rule: _Rule) -> Array:
        """Return the rows of a ``type[N]`` column, each a sequence of N items, as one array."""
        shapes = {(row.shape, row.dtype) if isinstance(row, np.ndarray) else None for row in rows}
        if len(shapes) == 1 and (one := shapes.pop()) and one[0] == (self.count,) and one[1].kind != "O":
            return self._check(np.stack(rows))
        out = np.empty((len(rows), self.count or 0), self.dtype)
        for row, values in enumerate(rows):
            try:
                items = rule.array(values)
            except RecordError as error:
                parts = error.parts
                raise self._error(parts["why"], row=row, item=parts.get("row"), value=parts.get("value")) from None
            if len(items) != self.count:
                raise self._error(f"{len(items)} items where {self.type} takes {self.count}", row=row, value=values)
            out[row] = items
        return out

    def _alike(self, items: list[Any]) -> Array | None:
        """Return objects of one type as an array that holds them exactly; None if there is none."""
        kind = type(items[0])
        if any(type(item) is not kind for item in items):
            return None
        if kind is float or kind is bool or kind is np.bool_:
            return np.array(items)
        if issubclass(kind, np.number):
            return np.array(items)
        if issubclass(kind, int) and not issubclass(kind, bool):
            return _integers(items, wide=self.kind == "float")
        if issubclass(kind, (str, bytes)):
            return self._text_array(items)
        if issubclass(kind, (Decimal, Fraction)):
            return _rationals(items, whole=self.kind != "float")
        if issubclass(kind, np.datetime64):
            return np.array(items) if len(items) == 1 else None  # units may differ: one by one
        if issubclass(kind, date) and self.clock:
            return _instants(items)
        return None

    def _text_array(self, items: Sequence[str | bytes]) -> Array | None:
        if self.kind not in ("char", "chars"):
            return None
        try:
            texts = [item.encode("latin-1") if isinstance(item, str) else item for item in items]
        except UnicodeEncodeError:
            return None
        width = self.dtype.itemsize
        if any(len(text) > width or (text.endswith(b"\0") and self.kind == "chars") for text in texts):
            return None
        return np.array(texts, self.dtype)

    def _why_not(self, item: Any) -> str:
        """Say why `item` has no place in the column."""
        shown, kind = _short(item), type(item).__name__
        text = self.kind in ("char", "chars")
        if item is None or kind in ("NAType", "NaTType"):
            return f"{shown} {_MISSING}"
        if isinstance(item, (str, bytes)):
            return self._why_not_text(item) if text else f"{shown} is text and {self.type} is not; convert it"
        if isinstance(item, date):
            if not self.clock:
                return f"{shown} is a time, and {self.type} is no clock; convert it to a number"
            return f"{shown} is no whole microsecond from 1970 to 2^64-1; round it, or write an integer"
        if isinstance(item, (int, Decimal, Fraction)) and not text:
            return f"{shown} {self._range()}"
        return f"{shown} is {kind}; it cannot be stored in {self.type}"

    def _why_not_text(self, item: str | bytes) -> str:
        if isinstance(item, str) and not all(ord(letter) < 256 for letter in item):
            return f"{_short(item)} has letters beyond latin-1; {self.type} stores one byte a letter"
        if len(item) > self.dtype.itemsize:
            return f"{_short(item)} has {len(item)} bytes; {self.type} holds {self.dtype.itemsize}"
        return f"{_short(item)} ends with NUL, which {self.type} cannot tell from its padding; cut it off"

    # --- arrays ----------------------------------------------------------------------------------------

    def _ints(self, source: Array) -> Array:
        kind = source.dtype.kind
        if kind in "biu":
            if not np.can_cast(source.dtype, self.dtype) and (source.min() < self.lo or source.max() > self.hi):
                self._refuse(source, ((source < self.lo) | (source > self.hi), self._range()))
            return source
        if kind == "f":
            with np.errstate(all="ignore"):
                # lo and hi + 1 are zero or powers of two, exact in floats; NaN is never inside.
                wide = source.astype(np.float64) if source.dtype.itemsize < 8 else source
                inside = (wide >= float(self.lo)) & (wide < float(self.hi + 1))
                broken = np.trunc(wide) != wide
                self._refuse(source, (~inside, self._range()), (broken, f"is not whole, and {self.type} is"))
                return wide.astype(self.dtype)
        if kind == "M":
            return self._clock(source)
        raise self._wrong_type(source)

    def _floats(self, source: Array) -> Array:
        if source.dtype.kind not in "biuf":
            raise self._wrong_type(source)
        if np.can_cast(source.dtype, self.dtype):
            return source
        with np.errstate(all="ignore"):
            stored = source.astype(self.dtype)
        over = np.isinf(stored)
        if source.dtype.kind == "f":
            over &= ~np.isinf(source)
        self._refuse(source, (over, self._range()))
        return stored

    def _bools(self, source: Array) -> Array:
        if source.dtype.kind == "b":
            self.check_bool_bytes(source)
            return source
        if source.dtype.kind not in "iu":
            raise self._wrong_type(source)
        self._refuse(source, ((source != 0) & (source != 1), "is neither 0 nor 1"))
        return source.astype(np.bool_)

    def check_bool_bytes(self, source: Array) -> None:
        """Raise `RecordError` if a byte of a bool array is neither 0 nor 1 (other arrays can be cast to it)."""
        raw = source.view(np.uint8)
        self._refuse(raw, (raw > 1, "is the byte of a bool; it must be 0 or 1"))

    def _texts(self, source: Array) -> Array:
        width = self.dtype.itemsize
        if source.dtype.kind == "S":
            if source.dtype.itemsize <= width:
                return source
            cut = source.astype(self.dtype)
            self._refuse(source, (cut != source, f"is longer than {self.type}, {width} bytes"))
            return cut
        if source.dtype.kind != "U":
            raise self._wrong_type(source)
        letters = source.dtype.itemsize // 4
        native = np.ascontiguousarray(source.astype(source.dtype.newbyteorder("=")))
        codes = native.view(np.uint32).reshape(len(source), letters)
        foreign, long = (codes > 255).any(axis=1), codes[:, width:].any(axis=1)
        why = f"has letters beyond latin-1; {self.type} stores one byte a letter"
        self._refuse(source, (foreign, why), (long, f"is longer than {self.type}, {width} bytes"))
        kept = np.ascontiguousarray(codes[:, :width].astype(np.uint8))
        return kept.view(f"S{kept.shape[1]}").reshape(len(source))

    def _clock(self, source: Array) -> Array:
        """Return datetime64 as uint64 microseconds, by integer arithmetic that cannot overflow."""
        if not self.clock:
            raise self._error(
                f"holds times ({source.dtype}), and only clocks do (ts_col, uint64 fields ending in _us); "
                f"convert it to integers"
            )
        unit, step = np.datetime_data(source.dtype)
        ticks = source.astype(source.dtype.newbyteorder("="), copy=False).view(np.int64)
        if unit in ("Y", "M"):
            # 2^64 us are 584,554 years: what is surely beyond goes first, lest the days overflow.
            self._refuse(source, (ticks > 600_000 * 12 // step, _BEYOND))
            source, unit, step = source.astype("M8[D]"), "D", 1
            ticks = source.view(np.int64)
        if unit not in _UNITS:
            unit = "us"  # a time without a unit can only be NaT
        many, parts = _UNITS[unit]
        common = math.gcd(many * step, parts)
        many, parts = many * step // common, parts // common
        self._refuse(
            source,
            (ticks == _NAT, _MISSING),
            (ticks < 0, "is before 1970, where clocks begin"),
            (ticks % parts != 0, "has a part below a microsecond; round it to 'us'"),
            (ticks // parts > _MAX_US // many, _BEYOND),
        )
        ticks = ticks // parts if parts > 1 else ticks
        return ticks.astype(np.uint64) * np.uint64(many)

    # --- wording ---------------------------------------------------------------------------------------

    def _range(self) -> str:
        if self.kind == "float":
            return f"is beyond {self.type} (at most {np.finfo(self.dtype).max:.6g})"
        if self.kind == "bool":
            return "is neither 0 nor 1"
        return f"does not fit {self.type.partition('[')[0]} ({self.lo} to {self.hi})"

    def _refuse(self, source: Array, *reasons: tuple[Any, str]) -> None:
        """Raise `RecordError` for the first place where a mask of `reasons` is true, if there is one."""
        bad = reasons[0][0] if len(reasons) == 1 else np.logical_or.reduce([mask for mask, _ in reasons])
        if not bad.any():
            return
        place = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
        why = next(why for mask, why in reasons if mask[place])
        value = source[place]
        shown = str(value) if source.dtype.kind == "M" else _short(value.item())
        item = place[1] if len(place) > 1 else None
        raise self._error(f"{shown} {why}", row=place[0], item=item, value=value)

    def _wrong_type(self, source: Array) -> RecordError:
        first = source.flat[0]
        shown = str(first) if source.dtype.kind in "mM" else _short(first.item())
        return self._error(f"{shown} ({source.dtype}) cannot be stored in {self.type}; convert it", row=0)

    def _error(self, why: str, **parts: Any) -> RecordError:
        known = {key: value for key, value in parts.items() if value is not None}
        places = [
            f"column {self.name!r}",
            *(f"{key} {known[key]}" for key in ("row", "item") if key in known),
        ]
        return RecordError(f"{', '.join(places)}: {why}", column=self.name, why=why, **known)

    def fix(self) -> Callable[[Any], Any] | None:
        """Return what makes `struct` as strict as this rule for one plain value, or None if it is already.

        The function raises ValueError for what is not certain to be right.
        """
        if self.kind == "char":
            return _fix_char
        if self.kind == "chars":
            return _fix_chars(self.dtype.itemsize)
        if self.kind == "bool":
            return _fix_bool
        return _fix_narrow if self.kind == "float" and self.dtype.itemsize < 8 else None


def _item_column(column: Column) -> Column:
    base = column.type.partition("[")[0]
    return Column(column.name, base, column.kind, column.offset, column.size, column.item, None)


def _fix_char(value: Any) -> bytes:
    if type(value) is str:
        value = value.encode("latin-1")
    return value or b"\0"


def _fix_chars(width: int) -> Callable[[Any], Any]:
    def fix(value: Any) -> Any:
        if type(value) is str:
            value = value.encode("latin-1")
        if type(value) is not bytes or len(value) > width or value.endswith(b"\0"):
            raise ValueError
        return value

    return fix


def _fix_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _fix_narrow(value: Any) -> Any:
    # `struct` goes by way of float64: an int beyond 2^53 would be rounded twice.
    if isinstance(value, int) and abs(value) > 2**53:
        raise ValueError
    return value


def _integers(items: list[int], *, wide: bool) -> Array | None:
    """Return ints as int64 or uint64, or (`wide`) as float64 if they are beyond both; None if that fails."""
    for dtype in (np.int64, np.uint64, np.float64)[: 3 if wide else 2]:
        try:
            return np.array(items, dtype)
        except OverflowError:
            pass
    return None


def _rationals(items: Sequence[Any], *, whole: bool) -> Array | None:
    """Return Decimals or Fractions as exact integers (`whole`) or nearest float64s; None if it cannot be."""
    try:
        if whole:
            if not all(abs(item) < 2**65 and item == int(item) for item in items):
                return None
            return _integers([int(item) for item in items], wide=False)
        floats = np.array([float(item) for item in items])
    except (ValueError, ArithmeticError):  # NaN to int, signalling NaN; too large for a float
        return None
    grown = np.isinf(floats) & [item not in (Decimal("inf"), Decimal("-inf")) for item in items]
    return None if grown.any() else floats


def _instants(items: Sequence[date]) -> Array | None:
    """Return dates and datetimes (naive means UTC) as uint64 microseconds; None if one is none."""
    out = []
    for item in items:
        if type(item).__name__ == "NaTType" or getattr(item, "nanosecond", False):
            return None  # pandas: not a time, or one with nanoseconds
        to_python = getattr(item, "to_pydatetime", None)
        item = to_python() if to_python else item
        moment = item if isinstance(item, datetime) else datetime(item.year, item.month, item.day, tzinfo=UTC)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        out.append((moment - _EPOCH) // _US)
    return np.array(out, np.uint64) if min(out) >= 0 else None


# --- many columns --------------------------------------------------------------------------------------


def _columns(data: Any, layout: Layout) -> Mapping[Any, Any]:
    """Return the columns of `data` by name, as arrays or lists."""
    if not isinstance(data, np.ndarray) and getattr(getattr(data, "dtype", None), "names", None):
        data = np.asarray(data)  # a window: its records, without the way through Arrow
    if isinstance(data, np.ndarray):
        return _array_columns(data, layout)
    if isinstance(data, Mapping):
        return data
    if any(base.__module__.partition(".")[0] == "pandas" for base in type(data).__mro__):
        if not hasattr(data, "columns"):
            raise RecordError(f"pass {_SOURCES}, not a {type(data).__name__}; to_frame() makes a DataFrame of it")
        return columns_from_frame(data)
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return columns_from_arrow(data)
    more = "; packed records go to write_batch_bytes" if isinstance(data, (bytes, bytearray, memoryview)) else ""
    raise RecordError(f"pass {_SOURCES}, not {type(data).__name__}{more}")


def _array_columns(data: Array, layout: Layout) -> dict[str, Array]:
    if data.dtype.names is None:
        raise RecordError(f"an array of {data.dtype} has no column names; pass {_SOURCES}")
    if data.ndim != 1:
        raise RecordError(f"records are one-dimensional, found shape {data.shape}; reshape(-1) makes them so")
    fields: Mapping[str, Any] = data.dtype.fields or {}
    # A void field that the layout does not know is padding by another name.
    return {name: data[name] for name in data.dtype.names if name in layout.names or fields[name][0].kind != "V"}


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
