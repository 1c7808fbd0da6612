"""Whether the quotes of a CSV file are closed, looked at while it is read: one that is not swallows the rows after it.

RFC 4180: a cell that begins with a quote ends at the next one that is not doubled, and behind that comes a comma or a
line's end. Parsers take the rest of the file for one cell where the quote is missing, and what stands between a closing
quote and the comma for more of the cell; here both are errors that name the line. A quote inside a cell that does not
begin with one is a letter.

A block is first looked at as a whole (`_by_parity`): where every other quote opens and closes as it should, nothing
else can be wrong. Only a block in which one does not is passed over quote by quote (`_one_by_one`), which is the rule
itself; alone it would take longer than all the rest of an import.

It knows bytes, nothing of columns.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

_QUOTE, _STARTS, _ENDS = ord('"'), b",\r\n", b'",\r\n'
_BOM = b"\xef\xbb\xbf"


class _At(Enum):
    """Where a block ends: outside of quotes, inside, or behind a quote that closes or is the first of a double one."""

    OUTSIDE, INSIDE, BEHIND = range(3)


class Quotes:
    """The quotes of a file, block after block.

    Attributes
    ----------
    opened : int or None
        The line, from 1, of the quote that is open now.
    """

    def __init__(self) -> None:
        self._at, self._last, self._line, self._since = _At.OUTSIDE, b"", 1, 1
        self._is_first = True

    @property
    def opened(self) -> int | None:
        """The line of the quote that is open now."""
        return self._since if self._at is _At.INSIDE else None

    def wrong_in(self, block: bytes) -> str | None:
        """Take the next block; return what is wrong, if anything is."""
        if self._is_first:
            block, self._is_first = block.removeprefix(_BOM), False
        if not block:
            return None
        wrong = None
        if self._at is _At.BEHIND and block[0] not in _ENDS:
            return self._trailing(0, block)
        if b'"' in block:
            if not self._by_parity(block):
                wrong = self._one_by_one(block)
        elif self._at is _At.BEHIND:
            self._at = _At.OUTSIDE
        self._line += block.count(b"\n")
        self._last = block[-1:]
        return wrong

    def wrong_at_end(self) -> str | None:
        """Return what is wrong with the file where it ends here, if anything is."""
        return None if self.opened is None else f"the quote opened at line {self.opened} is never closed"

    def _trailing(self, at: int, block: bytes) -> str:
        line = self._line + block.count(b"\n", 0, at)
        where = f"line {line}" + (f" (opened at line {self._since})" if line != self._since else "")
        return f"{where}: text follows a closing quote; is a quote missing, or one too many?"

    def _by_parity(self, block: bytes) -> bool:
        """Take a block in which all quotes are in their places; False, and nothing taken, if one is not."""
        data = np.frombuffer(block, np.uint8)
        places = np.flatnonzero(data == _QUOTE)
        opening, closing = (places[1::2], places[::2]) if self._at is _At.INSIDE else (places[::2], places[1::2])
        before = data[opening - 1]  # of the first byte the last one, which is put right here
        if len(opening) and opening[0] == 0:
            if self._at is _At.OUTSIDE and self._last == b'"':  # a letter, which makes of this one a letter too
                return False
            before[0] = self._last[0] if self._last else ord("\n")
        behind = data[np.minimum(closing + 1, len(data) - 1)]  # of the last byte itself, a quote
        good = np.zeros(256, np.bool_)
        good[list(_ENDS)] = True
        if not (good[before].all() and good[behind].all()):
            return False
        first = opening[before != _QUOTE]
        if len(first):
            self._since = self._line + block.count(b"\n", 0, int(first[-1]))
        if len(opening) and (not len(closing) or opening[-1] > closing[-1]):
            self._at = _At.INSIDE
        else:
            self._at = _At.BEHIND if places[-1] == len(data) - 1 else _At.OUTSIDE
        return True

    def _one_by_one(self, block: bytes) -> str | None:
        """Take a block, quote by quote."""
        at, before = block.find(b'"'), -2 if self._at is not _At.BEHIND else -1
        while at >= 0:
            if self._at is _At.BEHIND and at == before + 1:
                self._at = _At.INSIDE  # a double one
            elif self._at is _At.INSIDE:
                self._at = _At.BEHIND
            else:
                if self._at is _At.BEHIND and block[before + 1] not in _ENDS:
                    return self._trailing(before + 1, block)
                last = block[at - 1 : at] if at else self._last
                self._at = _At.OUTSIDE
                if not last or last in _STARTS:
                    self._at, self._since = _At.INSIDE, self._line + block.count(b"\n", 0, at)
            before, at = at, block.find(b'"', at + 1)
        if self._at is _At.BEHIND and before < len(block) - 1:
            if block[before + 1] not in _ENDS:
                return self._trailing(before + 1, block)
            self._at = _At.OUTSIDE
        return None
