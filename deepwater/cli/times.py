"""Times as they are written on a command line, and what is said of one that may not be."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from deepwater.errors import TimeFormatError

__all__ = ["DURATIONS", "TIMES", "as_time", "explained", "of_today"]

# The library's message also lists what only Python has.
TIMES = "a time is 2026-08-09, 2026-08-09T05:23:42.5, 05:23 (today), now, -15min, or 15 to 20 digits of us; UTC"
DURATIONS = "--last is a duration as 250ms, 5m, 1h30m, 2d"
_MICROSECONDS = re.compile(r"[0-9]{15,20}")
_TIME_OF_DAY = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?")


def as_time(text: str | None) -> str | int | None:
    """Return a time as the library takes it: 15 to 20 digits are us.

    Fewer digits may be seconds, and are refused there.

    >>> as_time("1786253022196708"), as_time("2026-08-09"), as_time(None)
    (1786253022196708, '2026-08-09', None)
    """
    return int(text) if text is not None and _MICROSECONDS.fullmatch(text) else text


@contextlib.contextmanager
def explained(forms: str) -> Iterator[None]:
    """Let the error of a time or a duration list the forms that a command line has."""
    try:
        yield
    except TimeFormatError as error:
        raise TimeFormatError(f"{error.message.partition('; accepted are')[0]}; {forms}", **error.parts) from error


def of_today(*texts: str | None) -> str:
    """Return what is to be said where nothing was found by times without a date: they are of today.

    >>> of_today("05:23", None), of_today("2026-08-09T05:23")
    ("; 05:23 is today's: write the date too, as 2026-08-09T05:23", '')
    """
    bare = next((text for text in texts if text is not None and _TIME_OF_DAY.fullmatch(text)), None)
    return f"; {bare} is today's: write the date too, as 2026-08-09T{bare}" if bare is not None else ""
