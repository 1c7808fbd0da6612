"""Strict JSON: the one way it enters Deepwater.

Every JSON text (specs, settings, registries, what the command line reads) comes through `load_json`: UTF-8,
bounded in size, depth and digits, duplicate keys and numbers beyond float64 refused. `json_value` holds
what a program passes to the same bounds, so that whatever is written can be read back.

It knows nothing of what the JSON says: which keys an object may have is passed in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from deepwater.errors import SchemaError
from deepwater.wording import did_you_mean, short

MAX_JSON_BYTES = 16 * 2**20
MAX_JSON_DEPTH = 64
MAX_JSON_DIGITS = 40


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
        count = len(digits.lstrip("-"))
        if count > MAX_JSON_DIGITS:
            raise SchemaError(f"{what}: an integer of {count} digits; at most {MAX_JSON_DIGITS} are read")
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
    return json_value(value, what)


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


def json_value(value: Any, what: str, depth: int = 0) -> Any:
    """Return a copy of `value` if JSON can hold it exactly, else raise `SchemaError`. Tuples become lists."""
    if depth > MAX_JSON_DEPTH:
        raise SchemaError(f"{what}: nested deeper than {MAX_JSON_DEPTH} levels; flatten it")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value, what)
    if type(value) is int and abs(value) < 10**MAX_JSON_DIGITS:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        return [json_value(item, what, depth + 1) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {clean_text(key, what): json_value(item, what, depth + 1) for key, item in value.items()}
    raise SchemaError(f"{what}: {short(value)} ({type(value).__name__}) cannot be stored as JSON")


def clean_text(value: str, what: str) -> str:
    """Return `value` if UTF-8 can hold it, else raise `SchemaError`."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise SchemaError(f"{what}: {short(value)} holds half of a surrogate pair; it is not text") from None
    return str(value)


def json_object(data: object, keys: Iterable[str], where: str) -> dict[str, Any]:
    """Return `data` as a dict if its keys are all among `keys`, else raise `SchemaError`."""
    if not isinstance(data, Mapping):
        raise SchemaError(f"{where}: expected a JSON object, found {short(data)}")
    known = tuple(keys)
    for key in data:
        if key not in known:
            hint = did_you_mean(key, known) or f"; keys are {', '.join(known)}"
            raise SchemaError(f"{where}: unknown key {short(key)}{hint}", key=key)
    return dict(data)


def require_keys(found: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    """Raise `SchemaError` if one of `keys` is not in `found`."""
    for key in keys:
        if key not in found:
            raise SchemaError(f"{where}: key {key!r} is missing; {', '.join(keys)} must be there", key=key)
