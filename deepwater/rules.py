"""What a column accepts, and nothing stored that is not what was passed.

The rule, for every source (tuples, arrays, lists, DataFrames, Arrow):

* an integer, a bool or a text is accepted if and only if it is stored exactly: ``1.0`` is an integer,
  ``1.5``, NaN, ``2**64`` and, unsigned, ``-1`` are not; only 0, 1, False and True are bools; text is latin-1
  and fits;
* a float field takes the nearest float; a finite number that would become infinite is refused;
* a clock takes whole microseconds since the epoch, or a time that is one (naive means UTC); NaT never;
* None and missing values are refused: records have no nulls. Numbers are not read from text.


A `Rule` holds it for one column, on whole arrays. Rows are looked at one by one only where the source is
Python objects. It knows nothing of records: where a column lies, and what else is written with it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepwater.durations import MAX_US, TICK
from deepwater.errors import RecordError
from deepwater.layout import Column

Array: TypeAlias = NDArray[Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_NAT = np.iinfo(np.int64).min
_MISSING = "is missing; records have no nulls: fill it or leave the row out"
_BEYOND = "is beyond 2^64-1 microseconds"
_NO_ROWS = (str, bytes, bytearray, Mapping)


class Rule:
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
        self.items = None if column.count is None else Rule(_item_column(column), clock)

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
        if "numpy.ma" in sys.modules and isinstance(values, np.ma.MaskedArray):  # loading it takes 10 ms
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

    def _rows(self, rows: list[Any], rule: Rule) -> Array:
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
        if unit not in TICK:
            unit = "us"  # a time without a unit can only be NaT
        many, parts = TICK[unit]
        common = math.gcd(many * step, parts)
        many, parts = many * step // common, parts // common
        self._refuse(
            source,
            (ticks == _NAT, _MISSING),
            (ticks < 0, "is before 1970, where clocks begin"),
            (ticks % parts != 0, "has a part below a microsecond; round it to 'us'"),
            (ticks // parts > MAX_US // many, _BEYOND),
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
        shown = _moment(value) if source.dtype.kind == "M" else _short(value.item())
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


def _item_column(column: Column) -> Column:
    base = column.type.partition("[")[0]
    return Column(column.name, base, column.kind, column.offset, column.size, column.item, None)


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


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _moment(value: np.datetime64) -> str:
    """A time as text; one that no calendar reaches as its number of units."""
    try:
        return str(value)
    except OverflowError:  # NumPy 2.5
        return f"{value.view(np.int64)} {np.datetime_data(value.dtype)[0]}"
