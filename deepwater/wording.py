"""Words that messages about names and values share: what was found, cut to size, and what was meant.

It knows nothing of what it names.
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable
from typing import Final

_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest of `choices`, or an empty string.

    >>> did_you_mean("feed_nme", ["feed_name", "fields"])
    "; did you mean 'feed_name'?"
    """
    near = difflib.get_close_matches(word, list(choices), n=1) if isinstance(word, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""


def short(value: object) -> str:
    r"""Return how `value` looks, in ASCII and at most 80 letters: JSON, names, settings.

    >>> short("5 µs"), len(short("a" * 1000))
    ("'5 \\xb5s'", 80)
    """
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def cut(text: str, most: int) -> str:
    """Return text of at most `most` letters: of a longer one its beginning.

    >>> cut("abcdef", 6), cut("abcdefg", 6)
    ('abcdef', 'abc...')
    """
    return text if len(text) <= most else text[: most - 3] + "..."


def named(names: Iterable[str], most: int = 8) -> str:
    """Return names for a sentence: of many the first, and how many there are besides.

    >>> named(["a", "b"]), named(map(str, range(1000)), 3)
    ('a, b', '0, 1, 2 and 997 more')
    """
    names = [cut(str(name), 60) for name in names]
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def short_path(path: str | os.PathLike[str]) -> str:
    """Return how `path` looks, in ASCII: of a long one its end, which tells files apart.

    >>> short_path("/a" * 500 + "/spec.json")[:12], short_path("/a" * 500 + "/spec.json")[-14:]
    ("'.../a/a/a/a", "a/a/spec.json'")
    """
    text = os.fspath(path)
    return ascii(text if len(text) <= 250 else "..." + text[-240:])


def shown(value: object) -> str:
    """Return how `value` looks, at most 60 letters, even if it is an array or an int of any length.

    >>> len(shown("a" * 1000))
    60
    """
    try:
        return _REPR.repr(value)
    except ValueError:  # an int of more digits than Python is willing to print
        return f"<{type(value).__name__}>"


def one_line(text: str) -> str:
    """Join lines, and escape what a terminal would act on."""
    return escaped(" ".join(text.split()))


def escaped(text: str) -> str:
    r"""Escape what a terminal would act on, and line ends; blanks stay.

    >>> print(escaped("a  b\x1b[31m\n"))
    a  b\x1b[31m\n
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def count(number: int, noun: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> count(1, "gap"), count(0, "gap"), count(12345, "record")
    ('1 gap', '0 gaps', '12,345 records')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def positions_text(first: int, stop: int) -> str:
    """Return the positions ``first <= position < stop``, of which there is one at least.

    Examples
    --------
    >>> positions_text(0, 1), positions_text(0, 5000)
    ('position 0', 'positions 0 to 4,999')
    """
    return f"position {first:,}" if stop - first == 1 else f"positions {first:,} to {stop - 1:,}"


def amount(size_bytes: float) -> str:
    """Return a number of bytes, in decimal units.

    Examples
    --------
    >>> amount(0), amount(999), amount(1_000), amount(67_108_864), amount(5e12)
    ('0 B', '999 B', '1.0 kB', '67.1 MB', '5.0 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 999.95 or (unit == "B" and size_bytes < 1000):
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
