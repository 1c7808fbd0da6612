"""Coinbase's timestamps to microseconds, exactly.

The exchange writes RFC 3339 as Go does: trailing zeros of the fraction are cut, so one stream
carries 0 to 9 fractional digits (3 to 9 in practice). Digits beyond the sixth are dropped (floor),
never rounded: a record must not claim to be later than it was. No float is involved anywhere.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_SHAPE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_TAIL = re.compile(r"(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)


@lru_cache(maxsize=256)
def _whole_seconds(text: str) -> int:
    """Seconds since the epoch of ``YYYY-MM-DDTHH:MM:SS``; frames of one second share the parse."""
    if _SHAPE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not YYYY-MM-DDTHH:MM:SS")
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH) // _SECOND


def time_us(text: str) -> int:
    """Microseconds since the epoch, UTC, of an RFC 3339 time with 0 to 9 fractional digits.

    Parameters
    ----------
    text : str
        As the exchange sends it, e.g. ``2026-08-09T05:23:42.196708651Z``. An offset ``+hh:mm`` is
        accepted in place of ``Z``.

    Returns
    -------
    int
        Whole microseconds; digits beyond the sixth are dropped. A time before 1970 (Go's zero time,
        ``0001-01-01T00:00:00Z``, stands for "not set") is 0, "no time".

    Raises
    ------
    ValueError
        If `text` is not such a time.

    Examples
    --------
    >>> time_us("2026-08-09T05:23:42.196708651Z"), time_us("2026-08-09T05:23:42.1967Z")
    (1786253022196708, 1786253022196700)
    >>> time_us("1970-01-01T00:00:01Z"), time_us("0001-01-01T00:00:00Z")
    (1000000, 0)
    """
    seconds = _whole_seconds(text[:19])
    digits = text[20:-1]
    if 0 < len(digits) <= 9 and text[19] == "." and text[-1] == "Z" and digits.isascii() and digits.isdecimal():
        micros = int(digits[:6].ljust(6, "0"))  # the common shape; the rest is the general rule
    else:
        tail = _TAIL.fullmatch(text, 19)
        if tail is None:
            raise ValueError(f"{text!r} is not an RFC 3339 time")
        micros = int((tail[1] or "").ljust(6, "0")[:6])
        if tail[2]:
            offset = int(tail[3]) * 3600 + int(tail[4]) * 60
            seconds -= offset if tail[2] == "+" else -offset
    return max(seconds * 1_000_000 + micros, 0)
