"""A line that tells how it goes: one that is rewritten on a terminal, now and then one elsewhere. On stderr."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator

from deepwater.cli import output
from deepwater.cli.failures import one_line

__all__ = ["StatusLine"]


class StatusLine:
    """Shows the latest of many states.

    Parameters
    ----------
    every_s : float
        Where stderr is no terminal: at least this long between two lines.
    """

    def __init__(self, every_s: float) -> None:
        self._tty = sys.stderr is not None and sys.stderr.isatty()
        self._every_s = every_s
        self._due_s = 0.0
        self._shown = ""

    def show(self, text: str, *, last: bool = False) -> None:
        """Show a state; the `last` one always, and it stays."""
        if self._tty:
            width = self._width()
            cut = text[: width - 1]  # a full line would wrap, and stay
            self._put("\r" + cut.ljust(len(self._shown)) + ("\n" if last else ""))
            self._shown = "" if last else cut
        elif last or time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + self._every_s
            output.say(text)

    def clear(self) -> None:
        """Take the line away, to write something else."""
        if self._shown:
            self._put("\r" + " " * len(self._shown) + "\r")
            self._shown = ""

    @staticmethod
    def _width() -> int:
        """Columns of the terminal, which may be gone: the work goes on without it."""
        try:
            return os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    @staticmethod
    def _put(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()

    @contextlib.contextmanager
    def with_log(self) -> Iterator[None]:
        """Write what the library logs above the line while inside; take the line away at the end."""
        handler = _Handler(self)
        log = logging.getLogger("deepwater")
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            self.clear()


class _Handler(logging.Handler):
    def __init__(self, line: StatusLine) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._line.clear()
        output.say(one_line(self.format(record)))
