"""How long: units of time in microseconds, and whatever a caller may write for a length of time.

All arithmetic is on Python integers, so nothing rounds or overflows. The one table of units (`TICK`) serves
durations, times and the values of clocks.

It must not know of points in time, and it never imports pandas: a `pandas.Timedelta` is a `timedelta`
that can give itself as a `numpy.timedelta64`.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Final, TypeAlias

import numpy as np

from deepwater.errors import TimeFormatError
from deepwater.wording import shown

DurationLike: TypeAlias = "str | timedelta | np.timedelta64"

MAX_US: Final = 2**64 - 1
SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
ONE_US: Final = timedelta(microseconds=1)

# numpy unit -> microseconds a tick, as a fraction. Years and months have no fixed length.
TICK: Final = {
    "W": (7 * DAY, 1), "D": (DAY, 1), "h": (HOUR, 1), "m": (MINUTE, 1), "s": (SECOND, 1),
    "ms": (1000, 1), "us": (1, 1), "ns": (1, 10**3), "ps": (1, 10**6), "fs": (1, 10**9), "as": (1, 10**12),
}  # fmt: skip
_UNIT_NS: Final = {
    name: ns
    for names, ns in (
        ("w week weeks", 7 * DAY * 1000), ("d day days", DAY * 1000), ("h hr hour hours", HOUR * 1000),
        ("m min minute minutes", MINUTE * 1000), ("s sec second seconds", SECOND * 1000),
        ("ms", 10**6), ("us µs μs", 1000), ("ns", 1),
    )
    for name in names.split()
}  # fmt: skip

DURATION_TEXT: Final = re.compile(r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{1,15})? ?[A-Za-zµμ]+ ?)+")
_PART: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))? ?([A-Za-zµμ]+)")
_DURATION_FORMS: Final = (
    "accepted are text: '5min', '1h30m', '2d', '250ms', '10us', '1w'; datetime.timedelta, "
    "pandas.Timedelta, numpy.timedelta64"
)


def duration_us(value: DurationLike) -> int:
    """Give the length of a time difference; a sign is allowed and dropped.

    Parameters
    ----------
    value : str, timedelta, pandas.Timedelta or numpy.timedelta64
        Text is numbers with units, the largest first: ``w d h m s ms us ns``, also spelled ``min``,
        ``sec``, ``hours`` and so on. Upper case is refused: ``M`` might be a month.

    Returns
    -------
    int
        Microseconds, 0..2^64-1 (clamped). Rounded down, which is exact where whole-µs clocks are
        compared: a difference of whole µs is within 1.5 µs if it is within 1.

    Raises
    ------
    TimeFormatError
        If it is none of these: a number without a unit, NaT, years or months (no fixed length).

    Examples
    --------
    >>> duration_us("5min"), duration_us("-1h30m"), duration_us("1.5s"), duration_us(timedelta(days=2))
    (300000000, 5400000000, 1500000, 172800000000)
    """
    return _duration(value)


def _duration(value: object) -> int:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, timedelta):
        if not hasattr(value, "to_timedelta64"):
            return min(abs(value) // ONE_US, MAX_US)
        value = value.to_timedelta64()  # pandas
    if isinstance(value, np.timedelta64) and not np.isnat(value):
        unit, count = np.datetime_data(value.dtype)
        if unit in TICK:
            num, den = TICK[unit]
            return min(abs(int(value.astype(np.int64))) * count * num // den, MAX_US)
        why = "it has no unit" if unit == "generic" else "years and months have no fixed length"
        raise _bad(value, why)
    if isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.timedelta64)):
        raise _bad(value, "a number has no unit: write '5s'")
    raise _bad(value, f"{type(value).__name__} is not accepted")


def _text(text: str) -> int:
    word = text.strip()
    if not DURATION_TEXT.fullmatch(word):
        raise _bad(text, "it is not numbers with units")
    total, previous = 0, 0
    for whole, fraction, unit in _PART.findall(word):
        ns = _UNIT_NS.get(unit)
        if ns is None:
            raise _bad(text, f"there is no unit {unit[:20]!r} (a month has no fixed length)")
        if previous and ns >= previous:
            raise _bad(text, "write each unit once, the largest first")
        total += int(whole + fraction) * ns // 10 ** len(fraction)
        previous = ns
    return min(total // 1000, MAX_US)


def time_error(what: str, value: object, why: str, forms: str) -> TimeFormatError:
    """Make the error of a time or a duration that is in none of the accepted `forms`."""
    plain = isinstance(value, (str, int, float, date, timedelta, np.generic, type(None)))
    found = shown(value)
    # `value` is an attribute only if it can be pickled with the error; otherwise how it looks.
    return TimeFormatError(f"{what} {found}: {why}; {forms}", value=value if plain else found)


def _bad(value: object, why: str) -> TimeFormatError:
    return time_error("duration", value, why, _DURATION_FORMS)
