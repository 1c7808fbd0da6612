"""The time rule: whatever a caller may write for a time becomes integer microseconds, once, here.

Invariants
----------
- A clock is `uint64` microseconds since 1970-01-01 UTC. Nothing downstream of this module sees any
  other kind of time, so the API and the command line cannot disagree.
- The oracle of every range is ``(clock >= lo) & (clock <= hi)``. All arithmetic is on Python
  integers; no float and no `datetime` subtraction is on the way, so nothing rounds or overflows.
- A time is a *span* ``(first, last)``: the first µs that is not before it and the last µs that is
  not after it. A text such as ``2026-01`` and a `date` name a period, everything else an instant
  (``first == last``). An instant between two µs is a span that holds none (``first == last + 1``).
  So one rule serves all: a start begins at ``first`` (left out: after ``last``), an end stops at
  ``last`` (left out: before ``first``).
- Text names the period that pandas' ``.loc`` gives it: up to the day, hour, minute or second that
  is written; one to three digits of a second name a millisecond, four to six a microsecond, seven
  to nine an instant in nanoseconds.
- Naive means UTC. The machine's time zone is never asked.

It must not know what a feed is, and it never imports pandas: a `pandas.Timestamp` is a `datetime`
that can give itself as a `numpy.datetime64`. It is long because the one rule has many forms and each
public function documents them; text, scalars, arrays and durations share one table of units.
"""

from __future__ import annotations

import calendar
import re
import reprlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from deepwater.errors import TimeFormatError

__all__ = [
    "MAX_US",
    "Bounds",
    "duration_us",
    "format_us",
    "guess_unit",
    "instant",
    "instants",
    "is_time",
    "last_instant",
    "now_us",
    "resolve",
]

TimeLike: TypeAlias = "str | int | date | datetime | np.datetime64 | np.integer[Any]"
DurationLike: TypeAlias = "str | timedelta | np.timedelta64"
Inclusive: TypeAlias = Literal["both", "left", "right", "neither"]
Rounding: TypeAlias = Literal["up", "down"]
Span: TypeAlias = tuple[int, int]

MAX_US: Final = 2**64 - 1
_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_ONE_US: Final = timedelta(microseconds=1)
_LAST_SHOWN_US: Final = (date.max.toordinal() - _EPOCH_ORDINAL + 1) * _DAY - 1

# numpy unit -> microseconds a tick, as a fraction. Years and months have no fixed length.
_TICK: Final = {
    "W": (7 * _DAY, 1), "D": (_DAY, 1), "h": (_HOUR, 1), "m": (_MINUTE, 1), "s": (_SECOND, 1),
    "ms": (1000, 1), "us": (1, 1), "ns": (1, 10**3), "ps": (1, 10**6), "fs": (1, 10**9), "as": (1, 10**12),
}  # fmt: skip
_UNIT_NS: Final = {
    name: ns
    for names, ns in (
        ("w week weeks", 7 * _DAY * 1000), ("d day days", _DAY * 1000), ("h hr hour hours", _HOUR * 1000),
        ("m min minute minutes", _MINUTE * 1000), ("s sec second seconds", _SECOND * 1000),
        ("ms", 10**6), ("us µs μs", 1000), ("ns", 1),
    )
    for name in names.split()
}  # fmt: skip

_ZONE = r"([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)"
_CLOCK = r"([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?)?"
_ISO: Final = re.compile(rf"([0-9]{{4}})(?:-([0-9]{{2}})(?:-([0-9]{{2}})(?:[Tt ]{_CLOCK}{_ZONE}?)?)?)?")
_TODAY: Final = re.compile(rf"(?=..:){_CLOCK}[Zz]?")
_DURATION: Final = re.compile(r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{1,15})? ?[A-Za-zµμ]+ ?)+")
_DURATION_PART: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))? ?([A-Za-zµμ]+)")

_FORMS: Final = (
    "accepted are text: '2026', '2026-01', '2026-01-01', '2026-01-01T10' with ':30', ':30:00' or "
    "':30:00.123456' and 'Z' or '+01:00', '10:30' or '10:30:00' (today, UTC), 'today', 'yesterday', "
    "'now', '-15min'; date, datetime, pandas.Timestamp, numpy.datetime64; int microseconds since 1970 UTC"
)
_DURATION_FORMS: Final = (
    "accepted are text: '5min', '1h30m', '2d', '250ms', '10us', '1w'; datetime.timedelta, "
    "pandas.Timedelta, numpy.timedelta64"
)
# What people write that is nearly a time: the first pattern that matches adds a sentence.
_HINTS: Final = (
    (re.compile(r"[0-9]+"), "a bare number in text has no unit: pass an int of microseconds"),
    (re.compile(r"[0-9]{4}(-[0-9]{2})?(-[0-9]{2})?[Tt ]?" + _ZONE), "an offset needs a time of day"),
    (re.compile(r"[0-9]{2}:[0-9:.]+[+-][0-9:]+"), "a time of today is in UTC: write the date too"),
    (re.compile(r"[0-9T: -]+\.[0-9]{10,}[^0-9]*"), "a second has at most 9 digits after the point"),
    (_DURATION, "a duration before now is written with a minus sign, as '-15min'"),
)
_NO_FLOAT: Final = ": a float does not hold the microseconds of today exactly, pass an int"
_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range of clock values, both ends inclusive: ``(clock >= lo) & (clock <= hi)``.

    Made by `resolve`, which keeps both within 0..2^64-1 and makes every empty range ``(1, 0)``.

    Attributes
    ----------
    lo, hi : int
        First and last microsecond since the epoch. ``lo > hi`` means that nothing can match.
    """

    lo: int
    hi: int

    @property
    def empty(self) -> bool:
        """Whether no clock value can match."""
        return self.lo > self.hi


_EMPTY: Final = Bounds(1, 0)


def now_us() -> int:
    """Microseconds since the epoch, now, by the machine's wall clock (which may step back).

    Examples
    --------
    >>> now_us() > instant("2026")
    True
    """
    return time.time_ns() // 1000


def resolve(
    start: TimeLike | None,
    end: TimeLike | None,
    *,
    inclusive: Inclusive = "both",
    now: int | None = None,
) -> Bounds:
    """Turn the two ends of a time range into integer bounds.

    Parameters
    ----------
    start, end : str, date, datetime, pandas.Timestamp, numpy.datetime64, int or None
        Text and `date` name a period: as `start` its first µs, as `end` its last. All others, and
        ``"now"`` and ``"-15min"``, are instants; one finer than a µs is rounded inwards, up as
        `start` and down as `end`, so that comparing whole µs gives what comparing instants would.
        Naive is UTC, int is µs since the epoch. None: 0 and 2^64-1.
    inclusive : {"both", "left", "right", "neither"}
        Which ends belong to the range. An end left out is left out whole: ``"left"`` drops the
        entire period named by `end`, ``"right"`` that named by `start`. None has nothing to drop.
    now : int, optional
        What relative times count from, in µs; default the wall clock, read once for both ends.

    Returns
    -------
    Bounds
        Inclusive, within 0..2^64-1; bounds beyond are clamped, and ``(1, 0)`` if start is after end.

    Raises
    ------
    TimeFormatError
        If an end is not one of the forms (float, bool, NaT, 30 February, …) or `inclusive` is not.

    Notes
    -----
    Pure; safe in any thread.

    Examples
    --------
    >>> day = resolve("2026-01-01", "2026-01-02", inclusive="left")
    >>> format_us(day.lo), format_us(day.hi)
    ('2026-01-01T00:00:00.000000Z', '2026-01-01T23:59:59.999999Z')
    >>> resolve("2026-01-01", "2026-01-01") == day
    True
    >>> resolve(20, 10)
    Bounds(lo=1, hi=0)
    >>> resolve("-15min", "now", now=1_000_000_000)
    Bounds(lo=100000000, hi=1000000000)
    """
    if type(start) is int and type(end) is int and inclusive == "both":
        return _clamped(start, end)  # skips work only: what follows gives the same
    if inclusive not in ("both", "left", "right", "neither"):
        raise TimeFormatError(
            f"inclusive={_shown(inclusive)}: expected 'both', 'left', 'right' or 'neither'", value=inclusive
        )
    if now is None:
        now = now_us()
    lo, hi = 0, MAX_US
    if start is not None:
        first, last = _span(start, "start", now)
        lo = first if inclusive in ("both", "left") else last + 1
    if end is not None:
        first, last = _span(end, "end", now)
        hi = last if inclusive in ("both", "right") else first - 1
    return _clamped(lo, hi)


def instant(value: TimeLike, *, rounding: Rounding = "up", now: int | None = None) -> int:
    """Give a time as one instant; of a period the first µs.

    Parameters
    ----------
    value : str, date, datetime, pandas.Timestamp, numpy.datetime64 or int
        As in `resolve`.
    rounding : {"up", "down"}
        Where an instant between two µs goes. ``"up"`` finds "the first record at or after it",
        ``"down"`` "the last at or before it".
    now : int, optional
        What relative times count from, in µs; default the wall clock.

    Returns
    -------
    int
        µs since the epoch, clamped to 0..2^64-1.

    Raises
    ------
    TimeFormatError
        If `value` is not one of the forms.

    Examples
    --------
    >>> instant("1970-01-02"), instant("1970-01-01T01:00+01:00"), instant(5), instant("1969")
    (86400000000, 0, 5, 0)
    >>> instant("1970-01-01T00:00:00.0000015"), instant("1970-01-01T00:00:00.0000015", rounding="down")
    (2, 1)
    """
    span = _span(value, "time", now_us() if now is None else now)
    return _clamp(_single(span, rounding))


def last_instant(value: TimeLike, *, now: int | None = None) -> int:
    """Give the last µs that is not after a time: of a period its last, of an instant itself.

    Parameters and errors are those of `instant`; an instant between two µs goes down, and the
    result is clamped to 0..2^64-1.

    Examples
    --------
    >>> format_us(last_instant("2024-02"))
    '2024-02-29T23:59:59.999999Z'
    """
    return _clamp(_span(value, "time", now_us() if now is None else now)[1])


def instants(values: Any, *, rounding: Rounding = "down", now: int | None = None) -> npt.NDArray[np.uint64]:
    """Give many times as instants; of periods the first µs.

    Parameters
    ----------
    values : scalar, sequence, one-dimensional array, pandas Series or DatetimeIndex
        Scalars as in `instant`. datetime64 and integer arrays are converted as a whole, all else
        item by item. Integers are µs; a time zone is converted to UTC, none means UTC.
    rounding : {"up", "down"}
        Where instants between two µs go. The default is that of "the last record at or before".
    now : int, optional
        What relative times count from, in µs; default the wall clock, read once.

    Returns
    -------
    numpy.ndarray of uint64
        Shape ``(n,)``, ``(1,)`` for a scalar; µs since the epoch, clamped to 0..2^64-1. Always a
        new array: it never shares memory with `values`.

    Raises
    ------
    TimeFormatError
        If an item is not a time; a missing one (None, NaN, NaT, masked) is not. It says which.

    Examples
    --------
    >>> instants(["1970-01-02", 7])
    array([86400000000,           7], dtype=uint64)
    >>> instants(np.array(["1970-01-01T00:00:01.5"], dtype="M8[ns]"))
    array([1500000], dtype=uint64)
    """
    now = now_us() if now is None else now
    if not hasattr(values, "__array__") or isinstance(values, np.generic):
        if isinstance(values, Sequence) and not isinstance(values, (str, bytes, bytearray, memoryview)):
            return _each(values, rounding, now)
        return np.array([_clamp(_single(_span(values, "time", now), rounding))], dtype=np.uint64)
    array = np.atleast_1d(_as_array(values))
    if array.ndim != 1:
        raise TimeFormatError(f"times have shape {array.shape}: expected (n,), ravel() them", value=None)
    kind = array.dtype.kind
    if kind in "iu":
        return np.asarray(np.maximum(array, 0).astype(np.uint64))
    if kind == "M":
        _refuse_missing(np.isnat(array))
        unit, count = np.datetime_data(array.dtype)
        if unit in _TICK and count == 1:
            native = array.astype(array.dtype.newbyteorder("="), copy=False)
            return _from_ticks(native.view(np.int64), unit, rounding)
    elif kind not in "OUT":
        why = f"an array of {array.dtype} holds no times"
        raise _bad("times", values, why + _NO_FLOAT if kind == "f" else why)
    return _each(array, rounding, now)


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


def format_us(us: int) -> str:
    """Write µs since the epoch as ISO 8601 in UTC, always with six digits of the second.

    Values that `datetime` cannot show (from the year 10000 on) give the integer as text.

    Examples
    --------
    >>> format_us(1_786_253_022_196_708), format_us(2**64 - 1)
    ('2026-08-09T05:23:42.196708Z', '18446744073709551615')
    """
    us = int(us)
    if not 0 <= us <= _LAST_SHOWN_US:
        return str(us)
    return f"{np.datetime64(us, 'us')}Z"


def is_time(value: object) -> bool:
    """Whether a value is of a type that means a time. An int is not: in slices it is a position.

    Only the type is looked at: ``"banana"`` and NaT are times here, and refused by `resolve`.

    Examples
    --------
    >>> is_time("2026"), is_time(date(2026, 1, 1)), is_time(np.datetime64("2026")), is_time(5)
    (True, True, True, False)
    """
    return isinstance(value, (str, date, np.datetime64))


def guess_unit(us: int) -> str | None:
    """Guess the unit of a bound that is not in µs: for hints when a range matches nothing.

    Returns
    -------
    str or None
        ``"seconds"``, ``"milliseconds"`` or ``"nanoseconds"`` if the number, read in that unit, lies
        in 2000..2099. The four ranges do not overlap; read as µs these would be within the first
        weeks of 1970 or after the year 31,000.

    Examples
    --------
    >>> guess_unit(1_786_253_022), guess_unit(1_786_253_022_196_708_000), guess_unit(1_786_253_022_196_708)
    ('seconds', 'nanoseconds', None)
    """
    for unit, per_second in (("seconds", 1), ("milliseconds", 10**3), ("nanoseconds", 10**9)):
        if 946_684_800 * per_second <= us < 4_102_444_800 * per_second:
            return unit
    return None


def _clamp(us: int) -> int:
    return min(max(us, 0), MAX_US)


def _clamped(lo: int, hi: int) -> Bounds:
    """Cut unbounded ends to the clock's range. A range outside it becomes empty, not its edge."""
    lo, hi = max(lo, 0), min(hi, MAX_US)
    return Bounds(lo, hi) if lo <= hi else _EMPTY


def _single(span: Span, rounding: Rounding) -> int:
    """Give the instant of a span: its start, and for one between two µs the neighbour asked for."""
    return span[0] if rounding == "up" else min(span)


def _span(value: object, what: str, now: int) -> Span:
    """Find the first µs not before and the last not after. Ints of any size: the caller clamps."""
    if isinstance(value, str):
        return _span_of_text(value, what, now)
    # timedelta64 is a numpy integer, and bool is an int: neither is a time.
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64)):
        return (us := int(value)), us
    if isinstance(value, datetime):
        if not hasattr(value, "to_datetime64"):
            return (us := _us_of_datetime(value)), us
        value = value.to_datetime64()  # pandas: exact in its own unit, in UTC, and beyond year 9999
    elif isinstance(value, date):
        first = (value.toordinal() - _EPOCH_ORDINAL) * _DAY
        return first, first + _DAY - 1
    if isinstance(value, np.datetime64):
        return _span_of_datetime64(value, what)
    hint = _NO_FLOAT if isinstance(value, (float, np.floating)) else ""
    raise _bad(what, value, f"{type(value).__name__} is not accepted{hint}")


def _us_of_datetime(value: datetime) -> int:
    offset = value.utcoffset() or timedelta(0)
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    days = value.toordinal() - _EPOCH_ORDINAL
    return days * _DAY + seconds * _SECOND + value.microsecond - offset // _ONE_US


def _span_of_datetime64(value: np.datetime64, what: str) -> Span:
    if np.isnat(value):
        raise _bad(what, value, "NaT is not a time")
    unit, count = np.datetime_data(value.dtype)
    ticks = int(value.astype(np.int64)) * count
    if unit in ("Y", "M"):
        year, month = divmod(ticks * 12 if unit == "Y" else ticks, 12)
        return (us := _days_to_month(1970 + year, month) * _DAY), us
    if unit not in _TICK:
        raise _bad(what, value, f"a datetime64 of unit {unit!r} has no meaning as a time")
    num, den = _TICK[unit]
    ticks *= num
    return -(-ticks // den), ticks // den


def _days_to_month(year: int, month0: int) -> int:
    """Count the days from the epoch to the first of a month (0 = January) in any year, Gregorian.

    `date` ends at the year 9999 but a uint64 clock at 586,524: years are taken modulo 400, the
    period after which the calendar repeats.
    """
    cycles, year = divmod(year - 2000, 400)
    return cycles * 146_097 + date(2000 + year, month0 + 1, 1).toordinal() - _EPOCH_ORDINAL


def _span_of_text(text: str, what: str, now: int) -> Span:
    word = text.strip()
    if match := _ISO.fullmatch(word):
        return _span_of_iso(match, what, text)
    today = now - now % _DAY
    if match := _TODAY.fullmatch(word):
        first, last = _time_of_day(match.groups(), what, text)
        return today + first, today + last
    lowered = word.lower()
    if lowered == "now":
        return now, now
    if lowered in ("today", "yesterday"):
        first = today if lowered == "today" else today - _DAY
        return first, first + _DAY - 1
    if word[:1] in ("+", "-"):
        ahead = _duration_text(word) * (1 if word[0] == "+" else -1)
        return now + ahead, now + ahead
    hint = next((hint for pattern, hint in _HINTS if pattern.fullmatch(word)), "it is in none of the forms")
    raise _bad(what, text, hint)


def _span_of_iso(match: re.Match[str], what: str, text: str) -> Span:
    year_text, month_text, day_text, *clock, zone = match.groups()
    year, month, day = int(year_text), int(month_text or 1), int(day_text or 1)
    if year < 1:
        raise _bad(what, text, "the first year is 0001")
    if not 1 <= month <= 12:
        raise _bad(what, text, f"there is no month {month_text}")
    days = calendar.monthrange(year, month)[1]
    if not 1 <= day <= days:
        raise _bad(what, text, f"{year:04}-{month:02} has {days} days")
    first = (date(year, month, day).toordinal() - _EPOCH_ORDINAL) * _DAY
    if clock[0] is None:
        if day_text:
            days = 1
        elif not month_text:
            days = 365 + calendar.isleap(year)
        return first, first + days * _DAY - 1
    if clock[1] is None and zone and len(zone) == 3:  # 10-05: an offset, or five past ten?
        raise _bad(what, text, "write the offset of a bare hour as ±hh:mm")
    first -= _offset_us(zone, what, text)
    earliest, latest = _time_of_day(clock, what, text)
    return first + earliest, first + latest


def _time_of_day(clock: Sequence[str | None], what: str, text: str) -> Span:
    """``(hour, minute, second, fraction)`` as written, to first and last µs since midnight."""
    hour, minute, second = (int(part or 0) for part in clock[:3])
    if hour > 23:
        raise _bad(what, text, "hours are 00 to 23 (24:00 is 00:00 of the next day)")
    if minute > 59:
        raise _bad(what, text, "minutes are 00 to 59")
    if second > 59:
        raise _bad(what, text, "seconds are 00 to 59 (the clock has no leap seconds)")
    us = hour * _HOUR + minute * _MINUTE + second * _SECOND
    fraction = clock[3]
    if fraction is None:
        length = _HOUR if clock[1] is None else _MINUTE if clock[2] is None else _SECOND
        return us, us + length - 1
    part, below = divmod(int(fraction.ljust(9, "0")), 1000)
    us += part
    return us + (below > 0), us + (999 if len(fraction) <= 3 else 0)


def _offset_us(zone: str | None, what: str, text: str) -> int:
    if zone is None or zone in "Zz":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    if hours > 23 or minutes > 59:
        raise _bad(what, text, "an offset is at most ±23:59")
    us = hours * _HOUR + minutes * _MINUTE
    return -us if zone[0] == "-" else us


def _duration(value: object) -> int:
    if isinstance(value, str):
        return _duration_text(value)
    if isinstance(value, timedelta):
        if not hasattr(value, "to_timedelta64"):
            return min(abs(value) // _ONE_US, MAX_US)
        value = value.to_timedelta64()  # pandas
    if isinstance(value, np.timedelta64) and not np.isnat(value):
        unit, count = np.datetime_data(value.dtype)
        if unit in _TICK:
            num, den = _TICK[unit]
            return min(abs(int(value.astype(np.int64))) * count * num // den, MAX_US)
        why = "it has no unit" if unit == "generic" else "years and months have no fixed length"
        raise _bad_duration(value, why)
    if isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.timedelta64)):
        raise _bad_duration(value, "a number has no unit: write '5s'")
    raise _bad_duration(value, f"{type(value).__name__} is not accepted")


def _duration_text(text: str) -> int:
    word = text.strip()
    if not _DURATION.fullmatch(word):
        raise _bad_duration(text, "it is not numbers with units")
    total, previous = 0, 0
    for whole, fraction, unit in _DURATION_PART.findall(word):
        ns = _UNIT_NS.get(unit)
        if ns is None:
            raise _bad_duration(text, f"there is no unit {unit[:20]!r} (a month has no fixed length)")
        if previous and ns >= previous:
            raise _bad_duration(text, "write each unit once, the largest first")
        total += int(whole + fraction) * ns // 10 ** len(fraction)
        previous = ns
    return min(total // 1000, MAX_US)


def _as_array(values: Any) -> npt.NDArray[Any]:
    """Take an array of what can give itself as one. Time zones of pandas are converted to UTC."""
    if isinstance(values, np.ma.MaskedArray):
        _refuse_missing(np.ma.getmaskarray(values))
        return np.asarray(values.data)
    unit = getattr(getattr(values, "dtype", None), "unit", None)
    if unit is not None and type(values).__module__.split(".")[0] == "pandas":
        # np.asarray() of a zoned Series or Index makes a Timestamp object of every item.
        return np.asarray(values.to_numpy(dtype=f"datetime64[{unit}]"))
    return np.asarray(values)


def _from_ticks(ticks: npt.NDArray[np.int64], unit: str, rounding: Rounding) -> npt.NDArray[np.uint64]:
    num, den = _TICK[unit]
    if den > 1:
        # Without NaT, which is the least int64, -ticks cannot overflow.
        ticks = -(-ticks // den) if rounding == "up" else ticks // den
    us = np.maximum(ticks, 0).astype(np.uint64)
    if num > 1:
        beyond = us > MAX_US // num
        us *= np.uint64(num)  # wraps where `beyond`, which is overwritten
        us[beyond] = MAX_US
    return us


def _each(values: Any, rounding: Rounding, now: int) -> npt.NDArray[np.uint64]:
    """Convert item by item into a new array; an error says which item."""
    out = np.empty(len(values), dtype=np.uint64)
    for row, value in enumerate(values):
        us = value if type(value) is int else _single(_span(value, f"time {row}", now), rounding)
        out[row] = _clamp(us)
    return out


def _refuse_missing(missing: npt.NDArray[np.bool_]) -> None:
    if missing.any():
        row = int(missing.argmax())
        raise TimeFormatError(f"time {row} is missing (NaT or masked); {_FORMS}", value=None, row=row)


def _shown(value: object) -> str:
    try:
        return _REPR.repr(value)
    except ValueError:  # an int of more digits than Python is willing to print
        return f"<{type(value).__name__}>"


def _bad(what: str, value: object, why: str, forms: str = _FORMS) -> TimeFormatError:
    plain = isinstance(value, (str, int, float, date, timedelta, np.generic, type(None)))
    shown = _shown(value)
    # `value` is an attribute only if it can be pickled with the error; otherwise how it looks.
    return TimeFormatError(f"{what} {shown}: {why}; {forms}", value=value if plain else shown)


def _bad_duration(value: object, why: str) -> TimeFormatError:
    return _bad("duration", value, why, _DURATION_FORMS)
