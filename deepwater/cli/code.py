"""A command as lines of Python that do the same: to paste into a session or a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from deepwater.timestamps import MAX_US, format_us

__all__ = ["follow_lines", "time", "window_lines"]


def _opened(base_path: str) -> list[str]:
    return ["from deepwater import Platform", "", f"dw = Platform({base_path!r})"]


def time(us: int) -> str:
    """Return a moment as it is written in a call: text where a calendar has it; None for no bound.

    >>> time(1_786_253_022_196_708), time(0), time(2**63)
    ("'2026-08-09T05:23:42.196708Z'", 'None', '9223372036854775808')
    """
    if us in (0, MAX_US):
        return "None"
    text = format_us(us)
    return repr(text) if text.endswith("Z") else text


def _chosen(columns: Sequence[str] | None) -> str:
    return f"[{list(columns)!r}]" if columns is not None else ""


def window_lines(
    base_path: str, feed: str, call: str, *, columns: Sequence[str] | None = None, limit: int | None = None
) -> str:
    """Return lines that read what `call`, a method of a reader with its arguments, hands out."""
    rows = f"[:{limit}]" if limit is not None else ""
    lines = [
        *_opened(base_path),
        f"window = dw[{feed!r}].{call}{rows}{_chosen(columns)}",
        "window.to_pandas()",
    ]
    return "\n".join(lines) + "\n"


def follow_lines(
    base_path: str, feed: str, position: int, *, columns: Sequence[str] | None = None, limit: int | None = None,
    timeout: float | None = None, wait: str | None = None,
) -> str:  # fmt: skip
    """Return lines that follow a feed from a position."""
    options = "".join(f", {name}={value!r}" for name, value in (("timeout", timeout), ("wait", wait)) if value)
    call = f"dw[{feed!r}].follow(position={position}{options})"
    if limit is None:
        lines = [f"for batch in {call}:", f"    print(batch{_chosen(columns)})"]
    else:
        lines = [
            f"left = {limit}", f"for batch in {call}:", f"    print(batch[:left]{_chosen(columns)})",
            "    left -= len(batch)", "    if left <= 0:", "        break",
        ]  # fmt: skip
    return "\n".join([*_opened(base_path), *lines]) + "\n"
