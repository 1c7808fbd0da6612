"""The sequence rule of one connection.

Coinbase numbers the frames of a connection 0, 1, 2 … over all its channels and products. A jump is
that many frames lost. The number starts again at 0 only with a new connection, so a number that
steps back means the stream is not the one we subscribed to; the caller should connect anew.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Jump", "Sequence"]


@dataclass(frozen=True, slots=True)
class Jump:
    """A break in the numbers: `expected` was due, `found` came.

    Attributes
    ----------
    expected, found : int
        Sequence numbers.
    """

    expected: int
    found: int

    @property
    def lost(self) -> int | None:
        """How many frames are missing; None if the numbers stepped back (unknown)."""
        return self.found - self.expected if self.found > self.expected else None

    @property
    def reason(self) -> str:
        """One line for the mark (at most 72 bytes)."""
        if self.lost is None:
            return f"sequence stepped back: expected {self.expected}, found {self.found}"
        if self.lost == 1:
            return f"sequence gap: frame {self.expected} missing"
        return f"sequence gap: frames {self.expected}..{self.found - 1} missing"


class Sequence:
    """Checks the numbers of ONE connection; make a new one for each.

    Examples
    --------
    >>> numbers = Sequence()
    >>> numbers.check(0), numbers.check(1)
    (None, None)
    >>> numbers.check(4)
    Jump(expected=2, found=4)
    >>> numbers.check(5), numbers.check(0).lost
    (None, None)
    """

    __slots__ = ("expected",)

    def __init__(self) -> None:
        self.expected = 0

    def check(self, number: int) -> Jump | None:
        """Take the next frame's number: None if it was due, else the jump.

        After a jump forward the count goes on behind `number`; after a step back it does not move.
        """
        expected = self.expected
        if number >= expected:
            self.expected = number + 1
        return None if number == expected else Jump(expected, number)
