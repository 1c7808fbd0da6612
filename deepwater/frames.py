"""Records to and from pandas.

A frame's index is the clock asked for, ``datetime64[us, UTC]``, named after it and not repeated as a column.
Other clocks are ``datetime64[us, UTC]`` columns; ``char`` is Categorical text whose categories are the
characters present, sorted; ``char[N]`` is `str` in an object column; ``type[N]`` an object column of 1-D
arrays; numbers and bools keep their dtype; padding is left out. The NUL character is the empty text, as in
NumPy.

It knows layouts and arrays, nothing of feeds, files or windows. pandas is loaded when a function needs it.
All functions are safe to call from several threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepwater.arrow import (
    columns_from_arrow,
    decode_text,
    distinct,
    encode_text,
    gather,
    letter,
    look_up,
    rank,
    refuse_beyond_int64,
    select,
)
from deepwater.errors import RecordError
from deepwater.layout import Column, Layout

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]

_TEXT_BLOCK = 65_536


# --- to pandas -------------------------------------------------------------------------------------------


def frame(
    layout: Layout,
    arrays: Iterable[Array],
    *,
    index: str,
    columns: str | Iterable[str] | None = None,
    copy: bool = True,
    rows: int | None = None,
) -> pd.DataFrame:
    """Make a DataFrame of records.

    Parameters
    ----------
    layout : Layout
    arrays : iterable of structured arrays
        Pieces of records in order, of the dtype of the layout.
    index : str
        The clock that becomes the index, whatever `columns` says.
    columns : str or iterable of str, optional
        The columns wanted, in this order. Default all, in field order.
    copy : bool
        If False and there is one array: bools and numbers that are no clocks and lie aligned are read-only,
        strided views of it, and the rows of such ``type[N]`` columns too. The index, other clocks, text and
        misaligned fields are always copied. A scan over a view reads whole records, so it is slower than
        over a copy; use it to look at few columns or few rows.
    rows : int, optional
        How many records `arrays` holds. Required if it is not a sequence.

    Returns
    -------
    pandas.DataFrame
        A copy, but for `copy=False`. Copied columns of one item size share one block of memory, which lives
        as long as any of them.

    Raises
    ------
    RecordError
        A clock is above 2^63-1 (leave it out by `columns`, or use integers); a column is unknown.

    Examples
    --------
    >>> layout = Layout.compile({"feed_name": "t", "ts_col": "t_us", "fields": [
    ...     {"name": "t_us", "type": "u64"}, {"name": "px", "type": "f64"}]})
    >>> records = np.array([(1_786_253_022_196_708, 2.5)], layout.dtype)
    >>> frame(layout, [records], index="t_us")
                                       px
    t_us
    2026-08-09 05:23:42.196708+00:00  2.5
    """
    import pandas as pd

    wanted = [column for column in select(layout, columns) if column.name != index]
    if rows is None:
        arrays = arrays if isinstance(arrays, Sequence) else list(arrays)
        rows = sum(map(len, arrays))
    views: dict[str, Array] = {}
    if not copy and isinstance(arrays, Sequence) and len(arrays) == 1:
        views = {c.name: arrays[0][c.name] for c in wanted if _can_be_viewed(layout, c, arrays[0])}
    gathered = gather([layout.column(index), *(c for c in wanted if c.name not in views)], arrays, rows)
    values = gathered | views
    data = {column.name: _to_pandas(layout, column, values[column.name]) for column in wanted}
    return pd.DataFrame(data, index=_times(index, values[index], name=index), copy=False)


def _can_be_viewed(layout: Layout, column: Column, array: Array) -> bool:
    if column.kind in ("char", "chars") or column.name in layout.clocks:
        return False
    # pandas hands columns to compiled code that may take alignment for granted.
    return bool(array[column.name].flags.aligned)


def _to_pandas(layout: Layout, column: Column, values: Array) -> Any:
    import pandas as pd

    if column.name in layout.clocks:
        return _times(column.name, values)
    if column.kind == "char":
        present = distinct(values)
        codes = rank(values, present)
        # int8 and int16 are what pandas itself takes for as many categories.
        signed: Array = codes.view(np.int8) if len(present) < 127 else codes.astype(np.int16)
        return pd.Categorical.from_codes(signed, dtype=_categories(tuple(present)), validate=False)
    if column.kind == "chars":
        return pd.Index(_text(values), dtype=object)  # a bare array of str becomes `str` in pandas 3
    # One 1-D array a row, each a view of `values`.
    return values if column.count is None else np.fromiter(values, object, len(values))


def _times(column: str, values: Array, name: str | None = None) -> pd.DatetimeIndex:
    """Return a clock as a DatetimeIndex over the same memory."""
    import pandas as pd

    ticks = refuse_beyond_int64(column, values, "pandas")
    return pd.DatetimeIndex(ticks, dtype=_utc(), name=name, copy=False)


@lru_cache(maxsize=1)
def _utc() -> pd.DatetimeTZDtype:
    import pandas as pd

    return pd.DatetimeTZDtype("us", "UTC")


@lru_cache(maxsize=256)
def _categories(values: tuple[int, ...]) -> pd.CategoricalDtype:
    import pandas as pd

    return pd.CategoricalDtype(pd.Index([letter(value) for value in values], dtype=str))


def _text(values: Array) -> Array:
    """Return text as `str` objects, in blocks: the way there takes four bytes a character."""
    out = np.empty(len(values), object)
    for start in range(0, len(values), _TEXT_BLOCK):
        stop = start + _TEXT_BLOCK
        out[start:stop] = decode_text(values[start:stop])
    return out


# --- from pandas -----------------------------------------------------------------------------------------


def columns_from_frame(df: pd.DataFrame) -> dict[str, Array]:
    """Return the columns of a DataFrame as NumPy arrays, for the packer.

    Parameters
    ----------
    df : pandas.DataFrame
        A named index (each named level of several) counts as a column, first; an unnamed one is ignored.

    Returns
    -------
    dict of str to numpy.ndarray
        Numbers and bools as they are, times as ``datetime64`` of their unit in UTC (a naive time is UTC),
        text as ``S<width>`` where latin-1 holds it, equal rows of arrays as shape (rows, N); what fits none
        of these stays an object array. Views of the frame's memory where it allows.

    Raises
    ------
    RecordError
        A value is missing (None, NA, NaT; NaN in text): column and row are named. NaN among floats is a
        value. Two columns have one name, or a name is not a `str`.

    Examples
    --------
    >>> import pandas
    >>> columns_from_frame(pandas.DataFrame({"side": ["B", "S"], "px": [1.5, 2.5]}))
    {'side': array([b'B', b'S'], dtype='|S1'), 'px': array([1.5, 2.5])}
    """
    index = df.index
    levels = [(level, index.get_level_values(i)) for i, level in enumerate(index.names) if level is not None]
    found: dict[str, Array] = {}
    for name, values in [*levels, *((label, df.iloc[:, i]) for i, label in enumerate(df.columns))]:
        if not isinstance(name, str):
            raise RecordError(f"column {name!r}: its name is not a str; columns are matched by name", column=name)
        if name in found:
            raise RecordError(
                f"two columns are called {name!r} (a named index counts as one); rename or drop one",
                column=name,
            )
        found[name] = _from_pandas(name, values)
    return found


def _from_pandas(name: str, values: Any) -> Array:
    """One column or index level."""
    import pandas as pd

    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind not in "OmM":
        return np.asarray(values)
    if isinstance(dtype, pd.SparseDtype):
        return _from_pandas(name, pd.Series(np.asarray(values)))
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return _from_objects(name, np.asarray(values, object))
    missing = np.asarray(values.isna())
    if missing.any():
        row = int(missing.argmax())
        _refuse_missing(name, row, values.array[row])
    if isinstance(dtype, pd.CategoricalDtype):
        return look_up(_from_pandas(name, dtype.categories), values.array.codes)
    if dtype.kind == "M" and hasattr(values.array, "asi8"):
        ticks: Array = values.array.asi8
        return ticks.view(f"M8[{values.array.unit}]")
    if isinstance(dtype, pd.StringDtype) and dtype.storage == "python":
        return encode_text(values.array.tolist())
    if isinstance(dtype, (pd.StringDtype, pd.ArrowDtype)):
        return columns_from_arrow(pd.DataFrame({name: values.array}))[name]
    return np.asarray(values.to_numpy(getattr(dtype, "numpy_dtype", None)))


def _from_objects(name: str, values: Array) -> Array:
    import pandas as pd

    for row in np.flatnonzero(np.asarray(pd.isna(values))):
        # NaN may belong to a float field; the packer knows.
        if not isinstance(values[row], float):
            _refuse_missing(name, int(row), values[row])
    first = values[0] if len(values) else None
    if isinstance(first, (str, bytes)):
        return encode_text(values)
    if isinstance(first, (np.ndarray, list, tuple)):
        arrays = [np.asarray(value) for value in values]
        # Other dtypes would be widened, perhaps with loss, to one that holds all.
        if len({(array.dtype, array.shape) for array in arrays}) == 1:
            return np.stack(arrays)
    return values


def _refuse_missing(name: str, row: int, value: object) -> None:
    raise RecordError(
        f"column {name!r}, row {row}: {value!r}; a record has a value in every field, so fill it first",
        column=name,
        row=row,
        value=value,
    )


# --- other tables -----------------------------------------------------------------------------------------


def asof_frame(layout: Layout, clock: str, times: Array, positions: Array, records: Array) -> pd.DataFrame:
    """Return the answer of `Reader.asof` as a frame: a row for each time, missing where there is no record.

    Parameters
    ----------
    times : numpy.ndarray of uint64
        The index, as ``datetime64[us, UTC]``.
    positions : numpy.ndarray of int64
        -1 where there is no record; the column `position` (`position_` if the feed has one of that name).
    records : numpy.ndarray
        The records found, in order.

    Raises
    ------
    RecordError
        A clock is above 2^63-1, which pandas cannot show.
    """
    import pandas as pd

    found = positions >= 0
    df = frame(layout, [records], index=clock, rows=len(records)).reset_index()[list(layout.names)]
    if not found.all():
        for name in df.columns:
            dtype = df[name].dtype
            if isinstance(dtype, np.dtype) and dtype.kind in "iu":  # NaN would make floats of them
                nullable = f"{'U' if dtype.kind == 'u' else ''}Int{8 * dtype.itemsize}"
                df[name] = df[name].astype(pd.api.types.pandas_dtype(nullable))
            elif dtype.kind == "b":
                df[name] = df[name].astype("boolean")
        rows = np.cumsum(found) - 1
        rows[~found] = -1
        df = df.reindex(rows)
    df.index = _times("time", times, "time")
    df.insert(0, "position" if "position" not in layout.names else "position_", positions)
    return df


def table(rows: list[dict[str, Any]], index: str) -> pd.DataFrame:
    """Return dicts as a frame; columns ending in `_us` are times, missing where None or 0."""
    import pandas as pd

    df = pd.DataFrame(rows, columns=None if rows else [index])
    for name in [name for name in df.columns if name.endswith("_us")]:
        values = [int(row[name]) if row.get(name) else None for row in rows]  # pandas made floats of them
        df[name] = pd.to_datetime(pd.Series(values, dtype="Int64"), unit="us", utc=True)
    return df.set_index(index)
