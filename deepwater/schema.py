"""What the user writes: a spec, checked once, with every mistake named.

A `FeedSpec` is the name of a feed, its `Field` list, its primary clock and its `Settings`. It comes
from a dict, a JSON file, a NumPy dtype, an Arrow schema or a DataFrame, and is immutable and valid
from then on: nothing to the right of this module checks a name or a type again.

It knows nothing of offsets (`layout`), values (`values`) or binary files.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepwater.errors import FeedNameError, SchemaError
from deepwater.fields import Field, check_fields
from deepwater.infer import Columns, arrow_columns, dtype_columns, frame_columns, record_fields
from deepwater.jsontext import MAX_JSON_BYTES, json_object, load_json, require_keys
from deepwater.settings import SETTING_NAMES, Settings
from deepwater.wording import short, short_path

_FEED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SPEC_KEYS = ("feed_name", "mode", "fields", "ts_col")


def is_feed_name(name: str) -> bool:
    """Whether a feed can have that name (`check_feed_name`)."""
    return _FEED_NAME.fullmatch(name) is not None


def check_feed_name(name: object) -> str:
    """Return `name` if it is a feed name, else raise `FeedNameError`.

    A name becomes a directory and a file name, so it is 1 to 100 ASCII letters, digits, dots, dashes and
    underscores, and starts with a letter or a digit. Names are case-sensitive.

    >>> check_feed_name("CB-TRADES-BTC-USD")
    'CB-TRADES-BTC-USD'
    """
    if isinstance(name, str) and _FEED_NAME.fullmatch(name):
        return str(name)
    shown = repr(name) if len(repr(name)) <= 120 else repr(name)[:117] + "..."
    raise FeedNameError(
        f"feed name {shown} is not allowed: a name is 1 to 100 letters, digits, '.', '-' or '_' and starts "
        f"with a letter or a digit; choose another name",
        name=name,
    )


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """A feed as its user writes it: name, fields, primary clock, settings. Valid once constructed.

    Parameters
    ----------
    feed_name : str
        See `check_feed_name`.
    fields : tuple of Field
        1 to 4,096 fields, padding included, in the order of their bytes; 1 to 65,536 bytes in all.
    ts_col : str
        The primary clock: a ``uint64`` field, microseconds since the epoch, UTC.
    mode : str
        "UF", fixed-width fields. Nothing else exists.
    settings : Settings

    Raises
    ------
    SchemaError
        What is wrong, in which field, and what to write; attributes `feed` and, where known, `field`.
    FeedNameError
        The feed's name.

    Examples
    --------
    >>> spec = FeedSpec.from_json({"feed_name": "ticks", "ts_col": "t_us",
    ...     "fields": [{"name": "t_us", "type": "u64"}, {"name": "px", "type": "f64"}]})
    >>> spec.record_size, spec.fields[0].type
    (16, 'uint64')
    """

    feed_name: str
    fields: tuple[Field, ...]
    ts_col: str
    mode: str = "UF"
    settings: Settings = dataclasses.field(default_factory=Settings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "feed_name", check_feed_name(self.feed_name))
        if not isinstance(self.settings, Settings):
            raise self._error(f"settings must be a Settings, not {short(self.settings)}")
        if self.mode != "UF":
            raise self._error(f"mode is {short(self.mode)}; only 'UF' (fixed-width fields) exists")
        object.__setattr__(self, "fields", check_fields(self.fields, self.ts_col, f"feed {self.feed_name!r}"))
        if self.settings.chunk_size_bytes < self.record_size:
            raise self._error(
                f"chunk_size_bytes is {self.settings.chunk_size_bytes}, less than one record of "
                f"{self.record_size} bytes; write at least {self.record_size}",
                key="chunk_size_bytes",
            )

    def _error(self, message: str, **parts: Any) -> SchemaError:
        return SchemaError(f"feed {self.feed_name!r}: {message}", feed=self.feed_name, **parts)

    @property
    def record_size(self) -> int:
        """Bytes of one record, padding included."""
        return sum(field.size for field in self.fields)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as a dict of JSON values, every setting written out."""
        fields = [field.to_json() for field in self.fields]
        head = {"feed_name": self.feed_name, "mode": self.mode, "fields": fields, "ts_col": self.ts_col}
        return head | self.settings.to_json()

    @classmethod
    def from_json(cls, source: object) -> FeedSpec:
        """Return the spec that `source` holds.

        Parameters
        ----------
        source : FeedSpec, dict, path or JSON text
            A `FeedSpec` comes back as it is. A `str` that starts with ``{`` and any `bytes` are JSON text;
            another `str` or an `os.PathLike` is the path of a JSON file.

        Raises
        ------
        SchemaError, FeedNameError
            Also for a file that cannot be read.
        """
        if isinstance(source, FeedSpec):
            return source
        data, where = _spec_object(source)
        found = json_object(data, (*_SPEC_KEYS, *SETTING_NAMES), where)
        if "feed_name" in found:
            where = f"feed {check_feed_name(found['feed_name'])!r}"
        require_keys(found, ("feed_name", "fields", "ts_col"), where)
        rows = found["fields"]
        if not isinstance(rows, (list, tuple)):
            raise SchemaError(f"{where}: fields must be a list of objects, not {short(rows)}", key="fields")
        try:
            fields = tuple(Field.from_json(row, f"field number {i}") for i, row in enumerate(rows))
            settings = Settings.from_json({key: found[key] for key in SETTING_NAMES if key in found})
        except SchemaError as error:
            raise SchemaError(f"{where}: {error.message}", **error.parts) from None
        return cls(found["feed_name"], fields, found["ts_col"], found.get("mode", "UF"), settings)

    @classmethod
    def from_dtype(cls, feed_name: str, dtype: Any, ts_col: str | None = None, **settings: Any) -> FeedSpec:
        """Return a spec with the names, widths and offsets of a NumPy structured dtype.

        Gaps between fields become padding, so a little-endian array of `dtype` has the bytes of the feed.
        ``datetime64`` fields become ``uint64`` clocks, ``U<N>`` becomes ``char[N]``. With `ts_col` None the
        clock is the only datetime field, else the only integer field whose name ends in ``_us``.

        >>> import numpy as np
        >>> FeedSpec.from_dtype("t", np.dtype([("t_us", "u8"), ("px", "f4")])).ts_col
        't_us'
        """
        columns, gaps = dtype_columns(dtype)
        return cls._from_columns(feed_name, columns, ts_col, settings, gaps)

    @classmethod
    def from_arrow(cls, feed_name: str, schema: Any, ts_col: str | None = None, **settings: Any) -> FeedSpec:
        """Return a spec for an Arrow schema, or for a Table, RecordBatch or Polars frame.

        Timestamps become ``uint64`` clocks, dictionaries of text ``char``. The width of plain text is not
        in a schema: pass the table and it is measured (and rounded up to a multiple of 8). Padding is added
        where a field would be misaligned. `ts_col` None as in `from_dtype`.
        """
        return cls._from_columns(feed_name, arrow_columns(schema), ts_col, settings)

    @classmethod
    def from_dataframe(cls, feed_name: str, df: Any, ts_col: str | None = None, **settings: Any) -> FeedSpec:
        """Return a spec for a pandas DataFrame; a named index is the first column.

        As `from_arrow`; with `ts_col` None a named datetime index is the clock.
        """
        columns, clock = frame_columns(df)
        return cls._from_columns(feed_name, columns, clock if ts_col is None else ts_col, settings)

    @classmethod
    def _from_columns(
        cls,
        feed_name: str,
        columns: Columns,
        ts_col: str | None,
        settings: dict[str, Any],
        gaps: list[int] | None = None,
    ) -> FeedSpec:
        where = f"feed {check_feed_name(feed_name)!r}"
        fields, clock = record_fields(columns, ts_col, where, gaps)
        return cls(feed_name, fields, clock, settings=Settings.from_json(settings))


def _start_of(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_JSON_BYTES + 1)


def _spec_object(source: object) -> tuple[object, str]:
    if isinstance(source, Mapping):
        return source, "spec"
    text = isinstance(source, str) and source.lstrip().startswith("{")
    if text or isinstance(source, (bytes, bytearray)):
        return load_json(source, "spec"), "spec"  # type: ignore[arg-type]  # a str or bytes here
    if not isinstance(source, (str, os.PathLike)):
        raise SchemaError(f"a spec is a dict, a FeedSpec or the path of a JSON file, not {short(source)}")
    where = f"spec file {short_path(source)}"
    try:
        # A pipe or a device would block or never end: look before reading.
        regular = stat.S_ISREG(os.stat(source).st_mode)
        data = _start_of(source) if regular else b""
    except (OSError, ValueError) as error:
        raise SchemaError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not regular:
        raise SchemaError(f"{where}: not a regular file; a spec is a dict or the path of a JSON file")
    return load_json(data, where), where
