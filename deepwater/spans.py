"""One time as the microseconds that it names: text, `date`, `datetime`, `numpy.datetime64`, int.

A time is a *span* ``(first, last)``: the first µs that is not before it and the last µs that is not
after it. A text such as ``2026-01`` and a `date` name a period, everything else an instant
(``first == last``). An instant between two µs is a span that holds none (``first == last + 1``).

Text names the period that pandas' ``.loc`` gives it: up to the day, hour, minute or second that is
written; one to three digits of a second name a millisecond, four to six a microsecond, seven to nine an
instant in nanoseconds. Naive means UTC; the machine's time zone is never asked.

It must not know of ranges, arrays or the clock's limits (spans are ints of any size), and it never imports
pandas: a `pandas.Timestamp` is a `datetime` that can give itself as a `numpy.datetime64`.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final, TypeAlias

import numpy as np

from deepwater.durations import DAY, DURATION_TEXT, HOUR, MINUTE, ONE_US, SECOND, TICK, duration_us, time_error
from deepwater.errors import TimeFormatError

TimeLike: TypeAlias = "str | int | date | datetime | np.datetime64 | np.integer[Any]"
Span: TypeAlias = tuple[int, int]

EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()

_ZONE = r"([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)"
_CLOCK = r"([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?)?"
_ISO: Final = re.compile(rf"([0-9]{{4}})(?:-([0-9]{{2}})(?:-([0-9]{{2}})(?:[Tt ]{_CLOCK}{_ZONE}?)?)?)?")
_TODAY: Final = re.compile(rf"(?=..:){_CLOCK}[Zz]?")

FORMS: Final = (
    "accepted are text: '2026', '2026-01', '2026-01-01', '2026-01-01T10' with ':30', ':30:00' or "
    "':30:00.123456' and 'Z' or '+01:00', '10:30' or '10:30:00' (today, UTC), 'today', 'yesterday', "
    "'now', '-15min'; date, datetime, pandas.Timestamp, numpy.datetime64; int microseconds since 1970 UTC"
)
# What people write that is nearly a time: the first pattern that matches adds a sentence.
_HINTS: Final = (
    (re.compile(r"[0-9]+"), "a bare number in text has no unit: pass an int of microseconds"),
    (re.compile(r"[0-9]{4}(-[0-9]{2})?(-[0-9]{2})?[Tt ]?" + _ZONE), "an offset needs a time of day"),
    (re.compile(r"[0-9]{2}:[0-9:.]+[+-][0-9:]+"), "a time of today is in UTC: write the date too"),
    (re.compile(r"[0-9T: -]+\.[0-9]{10,}[^0-9]*"), "a second has at most 9 digits after the point"),
    (DURATION_TEXT, "a duration before now is written with a minus sign, as '-15min'"),
)
NO_FLOAT: Final = ": a float does not hold the microseconds of today exactly, pass an int"


def span_of(value: object, what: str, now: int) -> Span:
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
        first = (value.toordinal() - EPOCH_ORDINAL) * DAY
        return first, first + DAY - 1
    if isinstance(value, np.datetime64):
        return _span_of_datetime64(value, what)
    hint = NO_FLOAT if isinstance(value, (float, np.floating)) else ""
    raise bad_time(what, value, f"{type(value).__name__} is not accepted{hint}")


def _us_of_datetime(value: datetime) -> int:
    offset = value.utcoffset() or timedelta(0)
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    days = value.toordinal() - EPOCH_ORDINAL
    return days * DAY + seconds * SECOND + value.microsecond - offset // ONE_US


def _span_of_datetime64(value: np.datetime64, what: str) -> Span:
    if np.isnat(value):
        raise bad_time(what, value, "NaT is not a time")
    unit, count = np.datetime_data(value.dtype)
    ticks = int(value.astype(np.int64)) * count
    if unit in ("Y", "M"):
        year, month = divmod(ticks * 12 if unit == "Y" else ticks, 12)
        return (us := _days_to_month(1970 + year, month) * DAY), us
    if unit not in TICK:
        raise bad_time(what, value, f"a datetime64 of unit {unit!r} has no meaning as a time")
    num, den = TICK[unit]
    ticks *= num
    return -(-ticks // den), ticks // den


def _days_to_month(year: int, month0: int) -> int:
    """Count the days from the epoch to the first of a month (0 = January) in any year, Gregorian.

    `date` ends at the year 9999 but a uint64 clock at 586,524: years are taken modulo 400, the
    period after which the calendar repeats.
    """
    cycles, year = divmod(year - 2000, 400)
    return cycles * 146_097 + date(2000 + year, month0 + 1, 1).toordinal() - EPOCH_ORDINAL


def _span_of_text(text: str, what: str, now: int) -> Span:
    word = text.strip()
    if match := _ISO.fullmatch(word):
        return _span_of_iso(match, what, text)
    today = now - now % DAY
    if match := _TODAY.fullmatch(word):
        first, last = _time_of_day(match.groups(), what, text)
        return today + first, today + last
    lowered = word.lower()
    if lowered == "now":
        return now, now
    if lowered in ("today", "yesterday"):
        first = today if lowered == "today" else today - DAY
        return first, first + DAY - 1
    if word[:1] in ("+", "-"):
        ahead = duration_us(word) * (1 if word[0] == "+" else -1)
        return now + ahead, now + ahead
    hint = next((hint for pattern, hint in _HINTS if pattern.fullmatch(word)), "it is in none of the forms")
    raise bad_time(what, text, hint)


def _span_of_iso(match: re.Match[str], what: str, text: str) -> Span:
    year_text, month_text, day_text, *clock, zone = match.groups()
    year, month, day = int(year_text), int(month_text or 1), int(day_text or 1)
    if year < 1:
        raise bad_time(what, text, "the first year is 0001")
    if not 1 <= month <= 12:
        raise bad_time(what, text, f"there is no month {month_text}")
    days = calendar.monthrange(year, month)[1]
    if not 1 <= day <= days:
        raise bad_time(what, text, f"{year:04}-{month:02} has {days} days")
    first = (date(year, month, day).toordinal() - EPOCH_ORDINAL) * DAY
    if clock[0] is None:
        if day_text:
            days = 1
        elif not month_text:
            days = 365 + calendar.isleap(year)
        return first, first + days * DAY - 1
    if clock[1] is None and zone and len(zone) == 3:  # 10-05: an offset, or five past ten?
        raise bad_time(what, text, "write the offset of a bare hour as ±hh:mm")
    first -= _offset_us(zone, what, text)
    earliest, latest = _time_of_day(clock, what, text)
    return first + earliest, first + latest


def _time_of_day(clock: Sequence[str | None], what: str, text: str) -> Span:
    """``(hour, minute, second, fraction)`` as written, to first and last µs since midnight."""
    hour, minute, second = (int(part or 0) for part in clock[:3])
    if hour > 23:
        raise bad_time(what, text, "hours are 00 to 23 (24:00 is 00:00 of the next day)")
    if minute > 59:
        raise bad_time(what, text, "minutes are 00 to 59")
    if second > 59:
        raise bad_time(what, text, "seconds are 00 to 59 (the clock has no leap seconds)")
    us = hour * HOUR + minute * MINUTE + second * SECOND
    fraction = clock[3]
    if fraction is None:
        length = HOUR if clock[1] is None else MINUTE if clock[2] is None else SECOND
        return us, us + length - 1
    part, below = divmod(int(fraction.ljust(9, "0")), 1000)
    us += part
    return us + (below > 0), us + (999 if len(fraction) <= 3 else 0)


def _offset_us(zone: str | None, what: str, text: str) -> int:
    if zone is None or zone in "Zz":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    if hours > 23 or minutes > 59:
        raise bad_time(what, text, "an offset is at most ±23:59")
    us = hours * HOUR + minutes * MINUTE
    return -us if zone[0] == "-" else us


def bad_time(what: str, value: object, why: str) -> TimeFormatError:
    """Make the error of a `value` that is no time, with the forms that are."""
    return time_error(what, value, why, FORMS)
