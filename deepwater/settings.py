"""How a feed lives: `Settings`, each checked by itself and against the others, with the key named.

Settings can change while a feed lives; nothing here says a byte of a record or of a file. It knows no
fields and no feed: what depends on the size of a record (`chunk_size_bytes`) is checked by the spec.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepwater.durations import duration_us
from deepwater.errors import SchemaError
from deepwater.jsontext import clean_text, json_object, json_value
from deepwater.wording import did_you_mean, short

MAX_CHUNK_SIZE = 2**40
DURABILITIES = ("os", "interval", "always")


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
        ``{"age": "7d", "bytes": 10_000_000_000}``, either or both: what `Platform.prune` and the recorder let go
        (`deepwater.retain`). Needs `persist`.
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
        if self.retain is not None and not self.persist:
            raise _wrong("retain", self.retain, "left out when persist is false: a ring keeps what fits")
        for key in ("columns", "keep_rows"):
            if getattr(self, key) is not None:
                raise _wrong(key, getattr(self, key), "left out: it is reserved and nothing acts on it yet")
        if not isinstance(self.config, Mapping):
            raise _wrong("config", self.config, 'a JSON object such as {"depth": 500}')
        put(self, "config", json_value(dict(self.config), "settings: config"))
        if not isinstance(self.desc, str):
            raise _wrong("desc", self.desc, "a text")
        clean_text(self.desc, "settings: desc")

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
        return {key: copy.deepcopy(getattr(self, key)) for key in SETTING_NAMES}

    @classmethod
    def from_json(cls, data: object) -> Settings:
        """Return the settings of a JSON object; keys that are left out take their defaults."""
        return cls(**json_object(data, SETTING_NAMES, "settings"))

    def replace(self, **changes: Any) -> Settings:
        """Return a copy with some settings changed, checked like new ones.

        >>> Settings().replace(rotate_s=3600).rotate_s
        3600
        """
        return Settings(**(self.to_json() | json_object(changes, SETTING_NAMES, "settings")))

    def diff(self, other: Settings) -> list[str]:
        """Return a line for each setting that differs.

        >>> Settings().diff(Settings(rotate_s=60))
        ['rotate_s: None here, 60 there']
        """
        both = ((key, getattr(self, key), getattr(other, key)) for key in SETTING_NAMES)
        return [f"{key}: {short(a)} here, {short(b)} there" for key, a, b in both if a != b]


_BYTES = re.compile(r"\s*(\d{1,9})\s*([KMGT]?)(i?)B?\s*", re.ASCII | re.IGNORECASE)
SETTING_NAMES = tuple(field.name for field in dataclasses.fields(Settings))


def _wrong(key: str, found: object, wanted: str) -> SchemaError:
    return SchemaError(f"settings: {key} is {short(found)}; it must be {wanted}", key=key)


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
    found = json_object(value, ("age", "bytes"), "settings: retain")
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
