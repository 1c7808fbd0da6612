"""Values into records: columns of any source, matched by name, each stored by its rule.

`rules` says what a column accepts. The fast paths here skip checks whose result is known (`struct` refuses
what does not fit an integer field; an array of the layout's own dtype needs only its padding and bools
looked at); they decide nothing: what they do not take goes to the rules.

It knows nothing of files and feeds: records go out as bytes or as one array.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from deepwater.arrow import columns_from_arrow
from deepwater.errors import RecordError
from deepwater.frames import columns_from_frame
from deepwater.layout import PADDING_BITS, Layout
from deepwater.rules import Array, Rule
from deepwater.wording import did_you_mean

# `struct` takes whatever has __float__ (a complex64 loses its imaginary part): only these may go there.
_PLAIN = frozenset(
    {int, float, bool, str, bytes, np.float64, np.float32, np.uint64, np.int64, np.uint32, np.int32}
)  # fmt: skip
_NOT_PLAIN = (struct.error, ValueError, OverflowError, TypeError)
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
        self._rules = tuple(Rule(column, column.name in layout.clocks) for column in layout.columns)
        self._fixes = tuple((i, fix) for i, rule in enumerate(self._rules) if (fix := _fix(rule)))
        self._struct = struct.Struct(layout.struct_format)
        mask = layout.padding_mask
        self._word = np.dtype(f"<u{math.gcd(layout.record_size, 8)}")
        words = mask.view(self._word)
        self._masks = tuple((int(k), int(words[k])) for k in np.flatnonzero(words))
        self._few = min(31, 8192 // layout.record_size)
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

    def few_bytes(self, data: Any) -> bytes | None:
        """The packed bytes of a small clean array of exactly the layout's dtype; None for anything else."""
        if type(data) is np.ndarray and data.ndim == 1 and self._is_same(data.dtype) and len(data) <= self._few:
            raw = data.tobytes()
            if not int.from_bytes(raw, "little") & self._few_mask:
                return raw
        return None

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


# --- one plain value -----------------------------------------------------------------------------------


def _fix(rule: Rule) -> Callable[[Any], Any] | None:
    """Return what makes `struct` as strict as `rule` for one plain value, or None if it is already.

    The function raises ValueError for what is not certain to be right.
    """
    if rule.kind == "char":
        return _fix_char
    if rule.kind == "chars":
        return _fix_chars(rule.dtype.itemsize)
    if rule.kind == "bool":
        return _fix_bool
    return _fix_narrow if rule.kind == "float" and rule.dtype.itemsize < 8 else None


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
