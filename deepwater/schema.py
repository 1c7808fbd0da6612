"""What the user writes: a spec, checked once, with every mistake named.

A `FeedSpec` is the name of a feed, its `Field` list, its primary clock and its `Settings`. It comes
from a dict, a JSON file, a NumPy dtype, an Arrow schema or a DataFrame, and is immutable and valid
from then on: nothing below this module checks a name or a type again.

Types come from a fixed table (`char bool int8..int64 uint8..uint64 byte float16 float32 float64`,
`char[N]`, `type[N]`, `_N` padding). No dtype is ever built from a string of the user's or of a file.

`load_json` is the one way JSON enters Deepwater: strict, bounded, duplicate keys refused. More
than 400 lines because a spec, its settings, its JSON and its sources are one grammar, with one wording of
mistakes. It knows nothing of offsets (`layout`), values (`values`) or binary files.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import keyword
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from deepwater.errors import FeedNameError, SchemaError
from deepwater.timestamps import duration_us

MAX_FIELDS = 4_096
MAX_RECORD_SIZE = 65_536
MAX_CHUNK_SIZE = 2**40
MAX_JSON_BYTES = 16 * 2**20
MAX_JSON_DEPTH = 64
MAX_JSON_DIGITS = 40
DURABILITIES = ("os", "interval", "always")

_FEED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest of `choices`, or an empty string.

    >>> did_you_mean("feed_nme", ["feed_name", "fields"])
    "; did you mean 'feed_name'?"
    """
    near = difflib.get_close_matches(word, list(choices), n=1) if isinstance(word, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""


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


# --- JSON ----------------------------------------------------------------------------------------------


def load_json(text: str | bytes | bytearray | memoryview, what: str) -> Any:
    """Parse strict JSON (RFC 8259, UTF-8) or raise `SchemaError`.

    Parameters
    ----------
    text : str or bytes-like
        At most 16 MiB, without a byte order mark.
    what : str
        What it is, for messages: ``"spec 'trades.json'"``.

    Returns
    -------
    object
        dict, list, str, int (at most 40 digits), finite float, bool or None.

    Raises
    ------
    SchemaError
        Not UTF-8, not JSON, a byte order mark, a duplicate key, NaN or Infinity, a number beyond float64,
        nesting deeper than 64, half of a surrogate pair.

    Examples
    --------
    >>> load_json('{"depth": 500}', "config")
    {'depth': 500}
    >>> load_json('{"a": 1, "a": 2}', "config")
    Traceback (most recent call last):
    deepwater.errors.SchemaError: config: key 'a' appears twice; keep one
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise SchemaError(f"{what}: key {twice!r} appears twice; keep one", key=twice)
        return found

    def constant(name: str) -> Any:
        raise SchemaError(f"{what}: {name} is not JSON; write a finite number or null")

    def integer(digits: str) -> int:
        if len(digits) > MAX_JSON_DIGITS:
            raise SchemaError(f"{what}: an integer of {len(digits)} digits; at most {MAX_JSON_DIGITS} are read")
        return int(digits)

    def real(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            raise SchemaError(f"{what}: {digits[:40]} is beyond a 64-bit float; write a finite number")
        return value

    try:
        value = json.loads(
            _text(text, what),
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_int=integer,
            parse_float=real,
        )
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}"
        raise SchemaError(f"{what}: not JSON at {at}: {error.msg}; correct the text") from None
    except RecursionError:
        raise SchemaError(f"{what}: nested deeper than {MAX_JSON_DEPTH} levels; flatten it") from None
    return _json_value(value, what)


def _text(text: str | bytes | bytearray | memoryview, what: str) -> str:
    if len(text) > MAX_JSON_BYTES:
        raise SchemaError(f"{what}: {len(text)} bytes of JSON; at most {MAX_JSON_BYTES} are read")
    if not isinstance(text, str):
        try:
            text = bytes(text).decode("utf-8")
        except UnicodeDecodeError as error:
            raise SchemaError(f"{what}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if text.startswith("\ufeff"):
        raise SchemaError(f"{what}: begins with a byte order mark; save it as UTF-8 without one")
    return text


def _json_value(value: Any, what: str, depth: int = 0) -> Any:
    """Return a copy of `value` if JSON can hold it exactly, else raise `SchemaError`. Tuples become lists."""
    if depth > MAX_JSON_DEPTH:
        raise SchemaError(f"{what}: nested deeper than {MAX_JSON_DEPTH} levels; flatten it")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _clean_text(value, what)
    if type(value) is int and abs(value) < 10**MAX_JSON_DIGITS:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        return [_json_value(item, what, depth + 1) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {_clean_text(key, what): _json_value(item, what, depth + 1) for key, item in value.items()}
    raise SchemaError(f"{what}: {_short(value)} ({type(value).__name__}) cannot be stored as JSON")


def _clean_text(value: str, what: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise SchemaError(f"{what}: {_short(value)} holds half of a surrogate pair; it is not text") from None
    return str(value)


def _short(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


# --- types and fields ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FieldType:
    """What a type name means: see `Field`. `code` is what `struct` calls it."""

    name: str
    kind: str
    item: str
    size: int
    count: int | None
    code: str


_PARSED = ("kind", "item", "size", "count")


def _scalar_types() -> dict[str, FieldType]:
    table = {
        "char": FieldType("char", "char", "S1", 1, None, "c"),
        "bool": FieldType("bool", "bool", "?", 1, None, "?"),
        "byte": FieldType("byte", "byte", "u1", 1, None, "B"),
    }
    codes = {"int": "bhiq", "uint": "BHIQ", "float": " efd"}
    for kind, letters in codes.items():
        for power, code in enumerate(letters):
            size = 2**power
            name, order = f"{kind}{8 * size}", "<" if size > 1 else ""
            if code != " ":
                table[name] = FieldType(name, kind, f"{order}{kind[0]}{size}", size, None, code)
    return table


_SCALARS = _scalar_types()
# "i8" is int8 to some and int64 to NumPy: the same letters, a factor of eight apart. Bits only, from 16 up.
_SHORT = {
    f"{t.kind[0]}{8 * t.size}": t.name for t in _SCALARS.values() if t.kind in ("int", "uint", "float") and t.size > 1
}
_ARRAY = re.compile(r"(.+)\[([1-9][0-9]{0,5})\]")
_PADDING = re.compile(r"_([1-9][0-9]{0,5})")


@lru_cache(maxsize=1024)
def parse_type(text: str) -> FieldType:
    """Return the meaning of a type name, or raise `SchemaError` with what to write instead.

    >>> parse_type("f64").name, parse_type("char[8]").item, parse_type("float64[500]").size
    ('float64', 'S8', 4000)
    """
    if found := _SCALARS.get(_SHORT.get(text, text)):
        return found
    if match := _PADDING.fullmatch(text):
        size = int(match[1])
        if size <= MAX_RECORD_SIZE:
            return FieldType(f"_{size}", "padding", "", size, None, f"{size}x")
    elif match := _ARRAY.fullmatch(text):
        count, base = int(match[2]), _SCALARS.get(_SHORT.get(match[1], match[1]))
        if base is not None and count * base.size <= MAX_RECORD_SIZE:
            if base.kind == "char":
                return FieldType(f"char[{count}]", "chars", f"S{count}", count, None, f"{count}s")
            size, code = count * base.size, f"{count}{base.code}"
            return FieldType(f"{base.name}[{count}]", base.kind, base.item, size, count, code)
    raise SchemaError(f"type {_short(text)} is not known: {_type_hint(text)}", type=text)


# What to write instead, by the shape of what was written; the first that matches. {1} is its first group.
_HINTS = (
    (r"_.*", f"padding is _N with N from 1 to {MAX_RECORD_SIZE} and no leading zero"),
    (r"[<>=|!].*", "types have no byte order mark, everything is little-endian; write uint64, float64, ..."),
    (r"[SUa]0*([1-9]\d*)", "text is char[N], one byte a character; write char[{1}]"),
    (r"([SUa]\d*|str|string|bytes|text)", "text is char[N], one byte a character; write for example char[8]"),
    (r"([Mm]8|date|time).*", "times are whole microseconds; write uint64 and end the field's name in _us"),
    (r"(O|object)", "objects have no fixed width; write the number or the char[N] that they hold"),
    (r"(.+)\[.*\]", f"an array is type[N], N from 1, at most {MAX_RECORD_SIZE} bytes, such as float64[500]"),
    (r"(int|uint|float)", "write {1}64"),
    (r"double", "write float64"),
    (r"(b1|\?)", "write bool"),
)  # fmt: skip


def _type_hint(text: str) -> str:
    if match := re.fullmatch(r"([iuf])([1248])(\[.*)?", text):
        family = {"i": "int", "u": "uint", "f": "float"}[match[1]]
        bits, rest = int(match[2]), match[3] or ""
        names = [(f"{family}{width}", f"of {width} bits there is none") for width in (bits, 8 * bits)]
        readings = [name + rest if name in _SCALARS else none for name, none in names]
        return f"read as bits it is {readings[0]}, read as bytes (NumPy) {readings[1]}; write it in full"
    for pattern, hint in _HINTS:
        if match := re.fullmatch(pattern, text):
            return hint.replace("{1}", match[match.lastindex or 0])
    return f"types are {' '.join(_SCALARS)}, char[N], type[N] and _N (padding){did_you_mean(text, _SCALARS)}"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    Parameters
    ----------
    name : str
        ``[A-Za-z_][A-Za-z0-9_]{0,63}``, no keyword, not ``__x``. ``_`` is for padding only.
    type : str
        A type name; short forms are spelled out (``f64`` becomes ``float64``).
    desc : str
        What it means, its unit, the value that stands for "none".

    Attributes
    ----------
    kind : str
        char, chars (``char[N]``), bool, int, uint, float, byte or padding; of ``type[N]`` that of its items.
    item : str
        NumPy code of one item (``<f8``, ``S1``, ``S8``); empty for padding.
    size : int
        Bytes in the record.
    count : int or None
        N of ``type[N]``, else None.

    Raises
    ------
    SchemaError
        With attributes `field` and, for types, `type`.

    Examples
    --------
    >>> Field("price", "f64").type
    'float64'
    """

    name: str
    type: str
    desc: str = ""
    kind: str = dataclasses.field(init=False, repr=False, compare=False)
    item: str = dataclasses.field(init=False, repr=False, compare=False)
    size: int = dataclasses.field(init=False, repr=False, compare=False)
    count: int | None = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.type, str):
            raise self._error(f"type must be a text such as 'float64', not {_short(self.type)}")
        try:
            parsed = parse_type(self.type)
        except SchemaError as error:
            raise self._error(error.message, type=self.type) from None
        for key, value in (("type", parsed.name), *((key, getattr(parsed, key)) for key in _PARSED)):
            object.__setattr__(self, key, value)
        _check_field_name(self.name, padding=parsed.kind == "padding")
        if not isinstance(self.desc, str):
            raise self._error(f"desc must be a text, not {_short(self.desc)}")
        _clean_text(self.desc, f"field {self.name!r}: desc")

    def _error(self, message: str, **parts: Any) -> SchemaError:
        return SchemaError(f"field {_short(self.name)}: {message}", field=self.name, **parts)

    @property
    def is_padding(self) -> bool:
        """Whether these bytes hold nothing and are always zero."""
        return self.kind == "padding"

    def to_json(self) -> dict[str, str]:
        """Return ``{"name", "type"}``, and ``"desc"`` if there is one."""
        found = {"name": self.name, "type": self.type}
        return found | {"desc": self.desc} if self.desc else found

    @classmethod
    def from_json(cls, data: object, where: str = "field") -> Field:
        """Return the field of a JSON object with `name`, `type` and perhaps `desc`."""
        found = _object(data, ("name", "type", "desc"), where)
        if isinstance(name := found.get("name"), str):
            where = f"field {_short(name)}"
        _require(found, ("name", "type"), where)
        return cls(**found)


def _check_field_name(name: object, *, padding: bool) -> None:
    why = ""
    if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):
        why = "a field name is 1 to 64 ASCII letters, digits and '_', and does not start with a digit"
    elif keyword.iskeyword(name):
        why = "it is a Python keyword, and fields become attributes of records"
    elif name.startswith("__"):
        why = "names that start with '__' belong to Python"
    elif name == "_" and not padding:
        why = "'_' is the name of padding (_N)"
    if why:
        raise SchemaError(f"field name {_short(name)} is not allowed: {why}; rename the field", field=name)


def _object(data: object, keys: Iterable[str], where: str) -> dict[str, Any]:
    """Return `data` as a dict if its keys are all among `keys`, else raise `SchemaError`."""
    if not isinstance(data, Mapping):
        raise SchemaError(f"{where}: expected a JSON object, found {_short(data)}")
    known = tuple(keys)
    for key in data:
        if key not in known:
            hint = did_you_mean(key, known) or f"; keys are {', '.join(known)}"
            raise SchemaError(f"{where}: unknown key {_short(key)}{hint}", key=key)
    return dict(data)


def _require(found: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in keys:
        if key not in found:
            raise SchemaError(f"{where}: key {key!r} is missing; {', '.join(keys)} must be there", key=key)


# --- settings ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """How a feed lives. Can change later (`persist` cannot); says nothing about bytes of a record.

    Parameters
    ----------
    chunk_size_bytes : int
        Bytes of records in a chunk, or in the ring; from one record to 2^40. 64 MiB by default.
    rotate_s : int or float or None
        A new chunk at the latest after so many seconds of wall clock.
    persist : bool
        True: chunks on disk. False: a ring in shared memory.
    index_playback : bool
        Keep marks of snapshots, for playback. Needs `persist`.
    durability : {"os", "interval", "always"}
        Who syncs: the kernel, Deepwater every `durability_ms`, or every write.
    durability_ms : int or None
        Milliseconds, with "interval" only.
    retain : dict or None
        ``{"age": "7d", "bytes": 10_000_000_000}``, either or both.
    columns, keep_rows
        Reserved; None.
    config : dict
        Any JSON object of the application's; copied.
    desc : str
        What the feed is.

    Raises
    ------
    SchemaError
        Naming the key, with attribute `key`.
    """

    chunk_size_bytes: int = 64 * 2**20
    rotate_s: float | None = None
    persist: bool = True
    index_playback: bool = False
    durability: str = "os"
    durability_ms: int | None = None
    retain: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)
    columns: Any = None
    keep_rows: Any = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    desc: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "chunk_size_bytes", _bytes("chunk_size_bytes", self.chunk_size_bytes))
        if self.chunk_size_bytes > MAX_CHUNK_SIZE:
            raise _wrong("chunk_size_bytes", self.chunk_size_bytes, f"at most {MAX_CHUNK_SIZE} (1 TiB)")
        _check_rotate(self.rotate_s)
        for key in ("persist", "index_playback"):
            if not isinstance(getattr(self, key), bool):
                raise _wrong(key, getattr(self, key), "true or false")
        if self.index_playback and not self.persist:
            raise _wrong("index_playback", True, "false when persist is false: a ring has no marks")
        self._check_durability()
        put(self, "retain", _retain(self.retain))
        for key in ("columns", "keep_rows"):
            if getattr(self, key) is not None:
                raise _wrong(key, getattr(self, key), "left out: it is reserved and nothing acts on it yet")
        if not isinstance(self.config, Mapping):
            raise _wrong("config", self.config, 'a JSON object such as {"depth": 500}')
        put(self, "config", _json_value(dict(self.config), "settings: config"))
        if not isinstance(self.desc, str):
            raise _wrong("desc", self.desc, "a text")
        _clean_text(self.desc, "settings: desc")

    def _check_durability(self) -> None:
        level, every = self.durability, self.durability_ms
        if level not in DURABILITIES:
            hint = did_you_mean(level, DURABILITIES)
            raise _wrong("durability", level, f"one of {', '.join(map(repr, DURABILITIES))}{hint}")
        if level != "os" and not self.persist:
            raise _wrong("durability", level, "'os' when persist is false: memory does not outlive the machine")
        if level == "interval":
            if type(every) is not int or not 1 <= every <= 86_400_000:
                raise _wrong("durability_ms", every, "an integer from 1 to 86400000 with 'interval'")
        elif every is not None:
            raise _wrong("durability_ms", every, f"left out with durability {level!r}")

    def to_json(self) -> dict[str, Any]:
        """Return every setting, as a dict of JSON values (a copy)."""
        return {key: copy.deepcopy(getattr(self, key)) for key in _SETTINGS}

    @classmethod
    def from_json(cls, data: object) -> Settings:
        """Return the settings of a JSON object; keys that are left out take their defaults."""
        return cls(**_object(data, _SETTINGS, "settings"))

    def replace(self, **changes: Any) -> Settings:
        """Return a copy with some settings changed, checked like new ones.

        >>> Settings().replace(rotate_s=3600).rotate_s
        3600
        """
        return Settings(**(self.to_json() | _object(changes, _SETTINGS, "settings")))

    def diff(self, other: Settings) -> list[str]:
        """Return a line for each setting that differs.

        >>> Settings().diff(Settings(rotate_s=60))
        ['rotate_s: None here, 60 there']
        """
        both = ((key, getattr(self, key), getattr(other, key)) for key in _SETTINGS)
        return [f"{key}: {_short(a)} here, {_short(b)} there" for key, a, b in both if a != b]


_BYTES = re.compile(r"\s*(\d{1,9})\s*([KMGT]?)(i?)B?\s*", re.ASCII | re.IGNORECASE)
_SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))


def _wrong(key: str, found: object, wanted: str) -> SchemaError:
    return SchemaError(f"settings: {key} is {_short(found)}; it must be {wanted}", key=key)


def _bytes(key: str, value: object) -> int:
    """Return a positive number of bytes as int, or raise `SchemaError` with the number to write."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0:
        return int(value)
    if isinstance(value, str) and (match := _BYTES.fullmatch(value)):
        count, unit = int(match[1]), match[2].upper()
        power = " KMGT".index(unit or " ")
        both = f"{count * 1024**power} ({count} {unit}iB) or {count * 1000**power}"
        raise _wrong(key, value, f"a number of bytes: write {count * 1024**power if match[3] or not unit else both}")
    if isinstance(value, float) and value.is_integer() and value > 0:
        raise _wrong(key, value, f"an integer: write {int(value)}")
    raise _wrong(key, value, "a positive integer, in bytes")


def _check_rotate(value: object) -> None:
    if value is None:
        return
    # Bounded so that the next rotation is always a time that can be written down.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1e9:
        raise _wrong("rotate_s", value, "a positive number of seconds (at most 1e9), or left out")


def _retain(value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise _wrong("retain", value, 'an object such as {"age": "7d", "bytes": 10000000000}')
    found = _object(value, ("age", "bytes"), "settings: retain")
    if "bytes" in found:
        found["bytes"] = _bytes("retain bytes", found["bytes"])
    if "age" in found:
        age = found["age"]
        try:
            sane = isinstance(age, str) and not age.lstrip().startswith("-") and duration_us(age) > 0
        except ValueError:
            sane = False
        if not sane:
            raise _wrong("retain age", age, "a duration such as '7d', '12h' or '90min'")
    return found


# --- the spec ------------------------------------------------------------------------------------------


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
            raise self._error(f"settings must be a Settings, not {_short(self.settings)}")
        if self.mode != "UF":
            raise self._error(f"mode is {_short(self.mode)}; only 'UF' (fixed-width fields) exists")
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
        found = _object(data, (*_SPEC_KEYS, *_SETTINGS), where)
        if "feed_name" in found:
            where = f"feed {check_feed_name(found['feed_name'])!r}"
        _require(found, ("feed_name", "fields", "ts_col"), where)
        rows = found["fields"]
        if not isinstance(rows, (list, tuple)):
            raise SchemaError(f"{where}: fields must be a list of objects, not {_short(rows)}", key="fields")
        try:
            fields = tuple(Field.from_json(row, f"field number {i}") for i, row in enumerate(rows))
            settings = Settings.from_json({key: found[key] for key in _SETTINGS if key in found})
        except SchemaError as error:
            raise SchemaError(f"{where}: {error.message}", **error.parts) from None
        return cls(found["feed_name"], fields, found["ts_col"], found.get("mode", "UF"), settings)

    @classmethod
    def from_dtype(cls, feed_name: str, dtype: Any, ts_col: str | None = None, **settings: Any) -> FeedSpec:
        """Return a spec with the names, widths and offsets of a NumPy structured dtype.

        Gaps between fields become padding, so a little-endian array of `dtype` has the bytes of the feed.
        ``datetime64`` fields become ``uint64`` clocks, ``U<N>`` becomes ``char[N]``. With `ts_col` None the
        clock is the only datetime field, else the only integer field whose name ends in ``_us``.

        >>> FeedSpec.from_dtype("t", np.dtype([("t_us", "u8"), ("px", "f4")])).ts_col
        't_us'
        """
        columns, gaps = _dtype_columns(np.dtype(dtype))
        return cls._from_columns(feed_name, columns, ts_col, settings, gaps)

    @classmethod
    def from_arrow(cls, feed_name: str, schema: Any, ts_col: str | None = None, **settings: Any) -> FeedSpec:
        """Return a spec for an Arrow schema, or for a Table, RecordBatch or Polars frame.

        Timestamps become ``uint64`` clocks, dictionaries of text ``char``. The width of plain text is not
        in a schema: pass the table and it is measured (and rounded up to a multiple of 8). Padding is added
        where a field would be misaligned. `ts_col` None as in `from_dtype`.
        """
        return cls._from_columns(feed_name, _arrow_columns(schema), ts_col, settings)

    @classmethod
    def from_dataframe(cls, feed_name: str, df: Any, ts_col: str | None = None, **settings: Any) -> FeedSpec:
        """Return a spec for a pandas DataFrame; a named index is the first column.

        As `from_arrow`; with `ts_col` None a named datetime index is the clock.
        """
        columns, clock = _frame_columns(df)
        return cls._from_columns(feed_name, columns, clock if ts_col is None else ts_col, settings)

    @classmethod
    def _from_columns(
        cls,
        feed_name: str,
        columns: list[tuple[str, str]],
        ts_col: str | None,
        settings: dict[str, Any],
        gaps: list[int] | None = None,
    ) -> FeedSpec:
        where = f"feed {check_feed_name(feed_name)!r}"
        clock = _pick_clock(columns, ts_col, where)
        fields: list[Field] = []
        for i, (name, type_) in enumerate(columns):
            field = Field(name, _clock_type(name, type_, clock, where))
            gap = gaps[i] if gaps else -sum(f.size for f in fields) % _alignment(field)
            fields += [*_padding(gap), field]
        fields += _padding(gaps[-1] if gaps else -sum(f.size for f in fields) % 8)
        return cls(feed_name, tuple(fields), clock, settings=Settings.from_json(settings))


_SPEC_KEYS = ("feed_name", "mode", "fields", "ts_col")


def check_fields(fields: object, ts_col: object, where: str) -> tuple[Field, ...]:
    """Return `fields` as a tuple if they make a record with the clock `ts_col`, else raise `SchemaError`."""
    if not isinstance(fields, (tuple, list)) or not all(isinstance(field, Field) for field in fields):
        raise SchemaError(f"{where}: fields must be a tuple of Field, not {_short(fields)}")
    if not 1 <= len(fields) <= MAX_FIELDS:
        raise SchemaError(f"{where}: {len(fields)} fields; a record has 1 to {MAX_FIELDS}")
    size = sum(field.size for field in fields)
    if size > MAX_RECORD_SIZE:
        raise SchemaError(f"{where}: a record of {size} bytes; at most {MAX_RECORD_SIZE} are allowed")
    seen: set[str] = set()
    for field in fields:
        if field.name in seen and field.name != "_":
            raise SchemaError(f"{where}: two fields are named {field.name!r}; rename one", field=field.name)
        seen.add(field.name)
    clock = next((field for field in fields if field.name == ts_col and not field.is_padding), None)
    if clock is None:
        names = [field.name for field in fields if field.type == "uint64"]
        hint = did_you_mean(ts_col, names) or f"; uint64 fields are {', '.join(names[:8]) or 'missing'}"
        raise SchemaError(f"{where}: ts_col {_short(ts_col)} is no field{hint}", field=ts_col, key="ts_col")
    if clock.type != "uint64":
        why = f"ts_col {ts_col!r} is {clock.type}; a clock is uint64, microseconds since the epoch, UTC"
        raise SchemaError(f"{where}: {why}", field=ts_col, key="ts_col")
    return tuple(fields)


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
        raise SchemaError(f"a spec is a dict, a FeedSpec or the path of a JSON file, not {_short(source)}")
    where = f"spec file {_short(os.fspath(source))}"
    try:
        # A pipe or a device would block or never end: look before reading.
        regular = stat.S_ISREG(os.stat(source).st_mode)
        data = _start_of(source) if regular else b""
    except (OSError, ValueError) as error:
        raise SchemaError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not regular:
        raise SchemaError(f"{where}: not a regular file; a spec is a dict or the path of a JSON file")
    return load_json(data, where), where


# --- columns of other libraries: (name, type) pairs, type "time" for a timestamp ------------------------


def _pick_clock(columns: list[tuple[str, str]], ts_col: str | None, where: str) -> str:
    if ts_col is not None:
        return ts_col
    times = [name for name, type_ in columns if type_ == "time"]
    clocks = ("time", "uint64", "int64")
    named = [name for name, type_ in columns if type_ in clocks and str(name).endswith("_us")]
    for found in (times, named):
        if len(found) == 1:
            return found[0]
    some = ", ".join(times or named) or "none"
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


def _dtype_columns(dtype: np.dtype[Any]) -> tuple[list[tuple[str, str]], list[int]]:
    """Return the columns in the order of their bytes, and the gaps before each and after the last."""
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
    named = {t.item.lstrip("<"): t.name for t in _SCALARS.values()} | {"u1": "uint8", "b1": "bool"}
    found = named.get(f"{base.kind}{base.itemsize}")
    if found is None or len(shape) > 1:
        raise _no_type(name, dtype)
    return found + array


def _no_type(name: object, found: object) -> SchemaError:
    cure = "convert it to numbers of at most 64 bits, to text or to arrays of one length, or leave it out"
    return SchemaError(f"column {name!r}: no type of Deepwater holds {found}; {cure}", field=name)


def _arrow_columns(data: Any) -> list[tuple[str, str]]:
    if hasattr(data, "to_arrow"):
        data = data.to_arrow()
    schema = getattr(data, "schema", data)
    table = data if schema is not data else None
    if not hasattr(schema, "names") or not hasattr(schema, "field"):
        raise SchemaError(f"expected an Arrow schema or table, found {type(data).__name__}")
    columns = []
    for i, name in enumerate(schema.names):
        text = str(schema.field(i).type)
        values = table.column(i).unique().to_pylist() if table is not None and _is_text(text) else None
        columns.append((name, _arrow_type(text, name, values)))
    return columns


_ARROW = {"halffloat": "float16", "float": "float32", "double": "float64", "boolean": "bool"}
_TEXTS = r"(large_)?(string|utf8|binary)(_view)?"


def _is_text(text: str) -> bool:
    return re.fullmatch(rf"{_TEXTS}|dictionary<values={_TEXTS},.*", text) is not None


def _arrow_type(text: str, name: str, values: list[Any] | None) -> str:
    """Return our type for an Arrow type, given as `str` shows it."""
    if text.startswith("timestamp["):
        return "time"
    if match := re.fullmatch(r"fixed_size_list<(?:.*: )?(\w+)(?: not null)?>\[(\d+)\]", text):
        return f"{_ARROW.get(match[1], match[1])}[{match[2]}]"
    if match := re.fullmatch(r"fixed_size_binary\[(\d+)\]", text):
        return f"char[{match[1]}]"
    if _is_text(text):
        if values is not None:
            return _text_type(values, name)
        if text.startswith("dictionary<"):
            return "char"
        why = "the width of text is not in an Arrow schema; pass the table, or write a spec with char[N]"
        raise SchemaError(f"column {name!r}: {why}", field=name)
    if (found := _ARROW.get(text, text)) not in _SCALARS:
        raise _no_type(name, text)
    return found


def _frame_columns(df: Any) -> tuple[list[tuple[str, str]], str | None]:
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
    if text in ("object", "category", "str") or text.startswith("string") or _is_text(text):
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
    return "char" if width == 1 else f"char[{-(-max(width, 1) // 8) * 8}]"
