"""The time rule: whatever a caller may write for a time becomes integer microseconds, once, here.

Invariants
----------
- A clock is `uint64` microseconds since 1970-01-01 UTC. Nothing downstream of this module sees any
  other kind of time, so the API and the command line cannot disagree.
- The oracle of every range is ``(clock >= lo) & (clock <= hi)``. All arithmetic is on Python
  integers; no float and no `datetime` subtraction is on the way, so nothing rounds or overflows.
- `spans` gives each time as its first and last µs, so one rule serves all: a start begins at ``first``
  (left out: after ``last``), an end stops at ``last`` (left out: before ``first``).

It must not know what a feed is, nor how a time is written (`spans`) or a duration (`durations`); it never
imports pandas.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from deepwater.durations import DAY, MAX_US, TICK, duration_us
from deepwater.errors import TimeFormatError
from deepwater.spans import EPOCH_ORDINAL, FORMS, NO_FLOAT, Span, TimeLike, bad_time, span_of
from deepwater.wording import shown

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

Inclusive: TypeAlias = Literal["both", "left", "right", "neither"]
Rounding: TypeAlias = Literal["up", "down"]

_LAST_SHOWN_US: Final = (date.max.toordinal() - EPOCH_ORDINAL + 1) * DAY - 1


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
            f"inclusive={shown(inclusive)}: expected 'both', 'left', 'right' or 'neither'", value=inclusive
        )
    if now is None:
        now = now_us()
    lo, hi = 0, MAX_US
    if start is not None:
        first, last = span_of(start, "start", now)
        lo = first if inclusive in ("both", "left") else last + 1
    if end is not None:
        first, last = span_of(end, "end", now)
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
    span = span_of(value, "time", now_us() if now is None else now)
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
    return _clamp(span_of(value, "time", now_us() if now is None else now)[1])


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
        return np.array([_clamp(_single(span_of(values, "time", now), rounding))], dtype=np.uint64)
    array = np.atleast_1d(_as_array(values))
    if array.ndim != 1:
        raise TimeFormatError(f"times have shape {array.shape}: expected (n,), ravel() them", value=None)
    kind = array.dtype.kind
    if kind in "iu":
        return np.asarray(np.maximum(array, 0).astype(np.uint64))
    if kind == "M":
        _refuse_missing(np.isnat(array))
        unit, count = np.datetime_data(array.dtype)
        if unit in TICK and count == 1:
            native = array.astype(array.dtype.newbyteorder("="), copy=False)
            return _from_ticks(native.view(np.int64), unit, rounding)
    elif kind not in "OUT":
        why = f"an array of {array.dtype} holds no times"
        raise bad_time("times", values, why + NO_FLOAT if kind == "f" else why)
    return _each(array, rounding, now)


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


def _as_array(values: Any) -> npt.NDArray[Any]:
    """Take an array of what can give itself as one. Time zones of pandas are converted to UTC."""
    if "numpy.ma" in sys.modules and isinstance(values, np.ma.MaskedArray):  # loading it takes 10 ms
        _refuse_missing(np.ma.getmaskarray(values))
        return np.asarray(values.data)
    unit = getattr(getattr(values, "dtype", None), "unit", None)
    if unit is not None and type(values).__module__.split(".")[0] == "pandas":
        # np.asarray() of a zoned Series or Index makes a Timestamp object of every item.
        return np.asarray(values.to_numpy(dtype=f"datetime64[{unit}]"))
    return np.asarray(values)


def _from_ticks(ticks: npt.NDArray[np.int64], unit: str, rounding: Rounding) -> npt.NDArray[np.uint64]:
    num, den = TICK[unit]
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
        us = value if type(value) is int else _single(span_of(value, f"time {row}", now), rounding)
        out[row] = _clamp(us)
    return out


def _refuse_missing(missing: npt.NDArray[np.bool_]) -> None:
    if missing.any():
        row = int(missing.argmax())
        raise TimeFormatError(f"time {row} is missing (NaT or masked); {FORMS}", value=None, row=row)
