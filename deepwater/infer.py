"""Fields from data that exists: a NumPy dtype, an Arrow schema or table, a pandas DataFrame.

Each source becomes columns, pairs of a name and a type as a spec would write it, with "time" for a
timestamp; `record_fields` chooses the clock among them and adds the padding. pandas and pyarrow are never
imported: a frame or a schema is asked for what it holds, so one rule serves every version of them.

It knows nothing of feeds and settings, and of values only how wide text is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from deepwater import wording
from deepwater.errors import SchemaError
from deepwater.fields import SCALARS, Field

Columns: TypeAlias = list[tuple[str, str]]


def record_fields(
    columns: Columns, ts_col: str | None, where: str, gaps: list[int] | None = None
) -> tuple[tuple[Field, ...], str]:
    """Return the fields of a record with `columns`, padding included, and the name of its clock.

    Parameters
    ----------
    columns : list of (name, type)
        In the order of their bytes.
    ts_col : str or None
        The clock; None finds it: the only "time", else the only integer whose name ends in ``_us``.
    where : str
        What it is, for messages.
    gaps : list of int, optional
        Bytes of padding before each column and after the last. Left out, padding aligns each field and
        makes the record a multiple of 8 bytes.

    Raises
    ------
    SchemaError
        No clock, or more than one that could be it; a second time that is no clock by its name.
    """
    clock = _pick_clock(columns, ts_col, where)
    fields: list[Field] = []
    for i, (name, type_) in enumerate(columns):
        field = Field(name, _clock_type(name, type_, clock, where))
        gap = gaps[i] if gaps else -sum(f.size for f in fields) % _alignment(field)
        fields += [*_padding(gap), field]
    fields += _padding(gaps[-1] if gaps else -sum(f.size for f in fields) % 8)
    return tuple(fields), clock


def _pick_clock(columns: Columns, ts_col: str | None, where: str) -> str:
    if ts_col is not None:
        return ts_col
    times = [name for name, type_ in columns if type_ == "time"]
    clocks = ("time", "uint64", "int64")
    named = [name for name, type_ in columns if type_ in clocks and str(name).endswith("_us")]
    for found in (times, named):
        if len(found) == 1:
            return found[0]
    some = wording.named(times or named) or "none"
    raise SchemaError(f"{where}: which column is the clock? Candidates: {some}; pass ts_col=", key="ts_col")


def _clock_type(name: str, type_: str, clock: str, where: str) -> str:
    if name == clock and type_ in ("time", "int64"):
        return "uint64"
    if type_ != "time":
        return type_
    if not str(name).endswith("_us"):
        why = "holds times, and beside ts_col only names that end in _us are clocks"
        raise SchemaError(f"{where}: column {name!r} {why}; rename it to '{name}_us'", field=name)
    return "uint64"


def _padding(size: int) -> list[Field]:
    return [Field("_", f"_{size}")] if size else []


def _alignment(field: Field) -> int:
    return 1 if field.kind in ("char", "chars") else field.size // (field.count or 1)


# --- NumPy ---------------------------------------------------------------------------------------------


def dtype_columns(source: Any) -> tuple[Columns, list[int]]:
    """Return the columns in the order of their bytes, and the gaps before each and after the last."""
    dtype: np.dtype[Any] = np.dtype(source)
    if not dtype.names or dtype.fields is None:
        raise SchemaError(f"dtype {dtype} has no fields; pass a structured dtype")
    columns, gaps, end = [], [], 0
    for name in sorted(dtype.names, key=lambda name: dtype.fields[name][1]):  # type: ignore[index]
        part, offset = dtype.fields[name][:2]
        if offset < end:
            raise SchemaError(f"field {name!r} at offset {offset} overlaps the one before it", field=name)
        if part.kind == "V" and part.subdtype is None and part.names is None:
            continue  # plain void is padding: it is part of the gap
        columns.append((name, _numpy_type(part, name)))
        gaps.append(offset - end)
        end = offset + part.itemsize
    return columns, [*gaps, dtype.itemsize - end]


def _numpy_type(dtype: np.dtype[Any], name: str) -> str:
    base, shape = dtype.subdtype or (dtype, ())
    array = f"[{shape[0]}]" if shape else ""
    if base.kind == "M" and not shape:
        return "time"
    if base.kind in "SU" and base.itemsize and not shape:
        width = base.itemsize // (4 if base.kind == "U" else 1)
        return "char" if base.str == "|S1" else f"char[{width}]"
    named = {t.item.lstrip("<"): t.name for t in SCALARS.values()} | {"u1": "uint8", "b1": "bool"}
    found = named.get(f"{base.kind}{base.itemsize}")
    if found is None or len(shape) > 1:
        raise _no_type(name, dtype)
    return found + array


def _no_type(name: object, found: object) -> SchemaError:
    cure = "convert it to numbers of at most 64 bits, to text or to arrays of one length, or leave it out"
    return SchemaError(f"column {name!r}: no type of Deepwater holds {found}; {cure}", field=name)


# --- Arrow ---------------------------------------------------------------------------------------------


def arrow_columns(data: Any, widths: Mapping[str, int] | None = None) -> Columns:
    """Return the columns of an Arrow schema or table; of a table the width of text is measured.

    `widths` has those of text that was measured elsewhere, in bytes, by name.
    """
    if hasattr(data, "to_arrow"):
        data = data.to_arrow()
    schema = getattr(data, "schema", data)
    table = data if schema is not data else None
    if not hasattr(schema, "names") or not hasattr(schema, "field"):
        raise SchemaError(f"expected an Arrow schema or table, found {type(data).__name__}")
    columns = []
    for i, name in enumerate(schema.names):
        text = str(schema.field(i).type)
        values = table.column(i).unique().to_pylist() if table is not None and is_text(text) else None
        width = (widths or {}).get(name)
        columns.append((name, _arrow_type(text, name, values) if width is None else text_of_width(width)))
    return columns


_ARROW = {"halffloat": "float16", "float": "float32", "double": "float64", "boolean": "bool"}
_TEXTS = r"(large_)?(string|utf8|binary)(_view)?"


def is_text(text: str) -> bool:
    """Whether an Arrow type, as `str` shows it, is text, perhaps in a dictionary."""
    return re.fullmatch(rf"{_TEXTS}|dictionary<values={_TEXTS},.*", text) is not None


def _arrow_type(text: str, name: str, values: list[Any] | None) -> str:
    """Return our type for an Arrow type, given as `str` shows it."""
    if text.startswith("timestamp["):
        return "time"
    if match := re.fullmatch(r"fixed_size_list<(?:.*: )?(\w+)(?: not null)?>\[(\d+)\]", text):
        return f"{_ARROW.get(match[1], match[1])}[{match[2]}]"
    if match := re.fullmatch(r"fixed_size_binary\[(\d+)\]", text):
        return f"char[{match[1]}]"
    if is_text(text):
        if values is not None:
            return _text_type(values, name)
        if text.startswith("dictionary<"):
            return "char"
        why = "the width of text is not in an Arrow schema; pass the table, or write a spec with char[N]"
        raise SchemaError(f"column {name!r}: {why}", field=name)
    if (found := _ARROW.get(text, text)) not in SCALARS:
        raise _no_type(name, text)
    return found


# --- pandas, and text of any source --------------------------------------------------------------------


def frame_columns(df: Any) -> tuple[Columns, str | None]:
    """Return the columns, named indexes first, and the name of the only index of times if there is one."""
    if not hasattr(df, "columns") or not hasattr(df, "index"):
        raise SchemaError(f"expected a pandas DataFrame, found {type(df).__name__}")
    index = df.index
    columns = [
        (name, _series_type(index.get_level_values(i), name)) for i, name in enumerate(index.names) if name is not None
    ]
    clocks = [name for name, type_ in columns if type_ == "time"]
    columns += [(name, _series_type(df.iloc[:, i], name)) for i, name in enumerate(df.columns)]
    return columns, clocks[0] if len(clocks) == 1 else None


def _series_type(values: Any, name: str) -> str:
    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return _numpy_type(dtype, name)
    text = str(dtype).removesuffix("[pyarrow]").lower()
    if text.startswith(("datetime64[", "timestamp[")):
        return "time"
    if text in ("object", "category", "str") or text.startswith("string") or is_text(text):
        items = list(values.dropna().unique() if text != "object" else values)
        if items and all(isinstance(item, np.ndarray) and item.ndim == 1 for item in items):
            return _numpy_type(np.dtype((items[0].dtype, items[0].shape)), name)
        return _text_type(items, name)
    return _arrow_type(text, name, None)


def _text_type(values: Iterable[Any], name: str) -> str:
    """Return the narrowest of char, char[8], char[16] ... for all texts of `values` (None is skipped)."""
    width = 0
    for value in values:
        if not isinstance(value, (str, bytes)):
            if value is None:
                continue
            raise _no_type(name, f"{type(value).__name__} objects")
        width = max(width, len(value))
    return text_of_width(width)


def text_of_width(width: int) -> str:
    """Return the narrowest of char, char[8], char[16] ... for texts of so many bytes."""
    return "char" if width == 1 else f"char[{-(-max(width, 1) // 8) * 8}]"
