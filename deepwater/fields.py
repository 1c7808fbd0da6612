"""The fields of a record: type names and their meaning, one `Field`, and whether fields make a record.

Types come from a fixed table (`char bool int8..int64 uint8..uint64 byte float16 float32 float64`,
`char[N]`, `type[N]`, `_N` padding). No dtype is ever built from a string of the user's or of a file.

It knows sizes, not offsets (`layout`), and nothing of feeds, settings or values.
"""

from __future__ import annotations

import dataclasses
import keyword
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from deepwater.errors import SchemaError
from deepwater.jsontext import clean_text, json_object, require_keys
from deepwater.wording import did_you_mean, short

MAX_FIELDS = 4_096
MAX_RECORD_SIZE = 65_536

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


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


SCALARS = _scalar_types()
# "i8" is int8 to some and int64 to NumPy: the same letters, a factor of eight apart. Bits only, from 16 up.
_SHORT = {
    f"{t.kind[0]}{8 * t.size}": t.name for t in SCALARS.values() if t.kind in ("int", "uint", "float") and t.size > 1
}
_ARRAY = re.compile(r"(.+)\[([1-9][0-9]{0,5})\]")
_PADDING = re.compile(r"_([1-9][0-9]{0,5})")


@lru_cache(maxsize=1024)
def parse_type(text: str) -> FieldType:
    """Return the meaning of a type name, or raise `SchemaError` with what to write instead.

    >>> parse_type("f64").name, parse_type("char[8]").item, parse_type("float64[500]").size
    ('float64', 'S8', 4000)
    """
    if found := SCALARS.get(_SHORT.get(text, text)):
        return found
    if match := _PADDING.fullmatch(text):
        size = int(match[1])
        if size <= MAX_RECORD_SIZE:
            return FieldType(f"_{size}", "padding", "", size, None, f"{size}x")
    elif match := _ARRAY.fullmatch(text):
        count, base = int(match[2]), SCALARS.get(_SHORT.get(match[1], match[1]))
        if base is not None and count * base.size <= MAX_RECORD_SIZE:
            if base.kind == "char":
                return FieldType(f"char[{count}]", "chars", f"S{count}", count, None, f"{count}s")
            size, code = count * base.size, f"{count}{base.code}"
            return FieldType(f"{base.name}[{count}]", base.kind, base.item, size, count, code)
    raise SchemaError(f"type {short(text)} is not known: {_type_hint(text)}", type=text)


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
        readings = [name + rest if name in SCALARS else none for name, none in names]
        return f"read as bits it is {readings[0]}, read as bytes (NumPy) {readings[1]}; write it in full"
    for pattern, hint in _HINTS:
        if match := re.fullmatch(pattern, text):
            return hint.replace("{1}", match[match.lastindex or 0])
    return f"types are {' '.join(SCALARS)}, char[N], type[N] and _N (padding){did_you_mean(text, SCALARS)}"


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
            raise self._error(f"type must be a text such as 'float64', not {short(self.type)}")
        try:
            parsed = parse_type(self.type)
        except SchemaError as error:
            raise self._error(error.message, type=self.type) from None
        for key, value in (("type", parsed.name), *((key, getattr(parsed, key)) for key in _PARSED)):
            object.__setattr__(self, key, value)
        _check_field_name(self.name, padding=parsed.kind == "padding")
        if not isinstance(self.desc, str):
            raise self._error(f"desc must be a text, not {short(self.desc)}")
        clean_text(self.desc, f"field {self.name!r}: desc")

    def _error(self, message: str, **parts: Any) -> SchemaError:
        return SchemaError(f"field {short(self.name)}: {message}", field=self.name, **parts)

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
        found = json_object(data, ("name", "type", "desc"), where)
        if isinstance(name := found.get("name"), str):
            where = f"field {short(name)}"
        require_keys(found, ("name", "type"), where)
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
        raise SchemaError(f"field name {short(name)} is not allowed: {why}; rename the field", field=name)


def check_fields(fields: object, ts_col: object, where: str) -> tuple[Field, ...]:
    """Return `fields` as a tuple if they make a record with the clock `ts_col`, else raise `SchemaError`."""
    if not isinstance(fields, (tuple, list)) or not all(isinstance(field, Field) for field in fields):
        raise SchemaError(f"{where}: fields must be a tuple of Field, not {short(fields)}")
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
        raise SchemaError(f"{where}: ts_col {short(ts_col)} is no field{hint}", field=ts_col, key="ts_col")
    if clock.type != "uint64":
        why = f"ts_col {ts_col!r} is {clock.type}; a clock is uint64, microseconds since the epoch, UTC"
        raise SchemaError(f"{where}: {why}", field=ts_col, key="ts_col")
    return tuple(fields)
