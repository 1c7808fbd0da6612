"""A bar for work that takes long: on a terminal, a few times a second, and gone when the work is done."""

from __future__ import annotations

import sys
import time

from deepwater.cli.status import StatusLine
from deepwater.cli.text import amount, seconds

__all__ = ["Bar"]

_EVERY_S = 0.2
_CELLS = 20


class Bar:
    """Says how far work is; nothing where stderr is no terminal.

    A context manager: leaving it takes the bar away.
    """

    def __init__(self) -> None:
        self._line = StatusLine(every_s=0.0) if sys.stderr is not None and sys.stderr.isatty() else None
        self._due_s = time.monotonic() + _EVERY_S
        self._what, self._began_s = "", 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._line is not None:
            self._line.clear()

    def show(self, what: str, done: int, total: int | None, unit: str = "records") -> None:
        """Show that so much of the work `what` is done; `total` None is not known."""
        now = time.monotonic()
        if self._line is None or (now < self._due_s and what == self._what):
            return
        if what != self._what:
            self._what, self._began_s = what, now
        self._due_s = now + _EVERY_S
        self._line.show(bar_text(what, done, total, unit, now - self._began_s))


def bar_text(what: str, done: int, total: int | None, unit: str, elapsed_s: float) -> str:
    """Return the line: a bar, how much of how much, how fast, how long yet.

    Examples
    --------
    >>> bar_text("TICKS", 500_000, 2_000_000, "records", 2.0)
    'TICKS [#####---------------]  25 %  500,000 of 2,000,000 records  250,000/s  6.0 s left'
    >>> bar_text("a.csv", 3_000_000, 4_000_000, "bytes", 0.0)
    'a.csv [###############-----]  75 %  3.0 MB of 4.0 MB'
    """
    shown = amount if unit == "bytes" else "{:,}".format
    noun = "" if unit == "bytes" else f" {unit}"
    if total is None:
        return f"{what}  {shown(done)}{noun}"
    share = min(1.0, done / total) if total else 1.0
    cells = int(share * _CELLS)
    text = f"{what} [{'#' * cells}{'-' * (_CELLS - cells)}] {share:4.0%}".replace("%", " %")
    text = f"{text}  {shown(done)} of {shown(total)}{noun}"
    if elapsed_s < 1.0 or not done:
        return text
    rate = done / elapsed_s
    return f"{text}  {shown(int(rate))}/s  {seconds(max(0.0, total - done) / rate * 1e6)} left"
