"""Something that happens in the middle of a call: before any line of some modules, or where CPython runs a handler."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def stop_at(step: int, act: Callable[[], None], *modules: Any) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that acts before line number `step` that runs in the files of some modules."""
    names, left = {module.__file__ for module in modules}, step

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in names:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                act()
        return trace

    return trace


def traced(step: int, act: Callable[[], None], run: Callable[[], Any], *modules: Any) -> Any:
    """The result of `run` with `act` done inside it; what `act` raises goes the way of any exception there."""
    before = sys.gettrace()
    sys.settrace(stop_at(step, act, *modules))
    try:
        return run()
    finally:
        sys.settrace(before)


def interrupt() -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


_CHECKED_AFTER = ("RESUME", "CALL", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")


class Interrupt:
    """A trace function that raises at the n-th place where CPython could run a signal handler, in some files.

    Handlers run between two bytecodes only after some of them: a call, a jump back, the beginning of a function.
    """

    def __init__(self, place: int, *modules: Any) -> None:
        self._left, self._files = place, {module.__file__ for module in modules}
        self._last: dict[FrameType, str] = {}
        self.came = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "call":
            if frame.f_back in self._last:
                self._last[frame.f_back] = ""  # type: ignore[index]  # a return into it is no such place
            self._last[frame] = "RESUME"  # the event comes after it
        elif event == "opcode":
            before = self._last.get(frame, "")
            self._last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before.startswith(_CHECKED_AFTER):
                self._left -= 1
                if self._left == 0:
                    self.came = True
                    sys.settrace(None)
                    raise KeyboardInterrupt
        elif event == "exception":
            self._last[frame] = ""  # after a call that raised comes its handler, and no such place
        return self
