"""What the local exchange does wrong on purpose, and when.

A fault is written ``what@when``. `what` is

    drop     a frame keeps its number and is not sent
    swap     a frame comes behind the next one
    error    an error frame comes before the frame; it has no number
    close    the connection ends with a closing handshake
    reset    the connection is cut off (TCP reset); frames on their way are lost
    silent   the connection stays open, and nothing comes any more

`when` is the number of a frame of the connection, or seconds since the first subscription, as ``2.5s``. A fault
happens once in the life of the exchange, on the connection that first gets there, so the next one is whole; with a
``*`` behind it happens again and again: ``drop@500*`` on each connection at the frames 500, 1000, …, ``close@3s*``
every three seconds. One of these that fell due while nobody was connected is not made up for: a client that waits for
longer than that before it comes back would be sent away each time, and wait for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from deepwater.errors import DeepwaterError

__all__ = ["KINDS", "Fault", "Faults"]

KINDS = ("drop", "swap", "error", "close", "reset", "silent")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `kind`, and either `frame` (from 0) or `after_s` (seconds); `again` at each multiple of it."""

    kind: str
    frame: int | None = None
    after_s: float | None = None
    again: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.frame is None) == (self.after_s is None):
            raise DeepwaterError(f"{self!r}: expected a kind of {KINDS} and either frame or after_s")
        if self.again and not (self.frame or self.after_s):
            raise DeepwaterError(f"{self!r}: what happens again and again needs a number above 0")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``what@when``.

        Raises
        ------
        DeepwaterError
            If `text` is not of that form.

        Examples
        --------
        >>> Fault.parse("drop@120")
        Fault(kind='drop', frame=120, after_s=None, again=False)
        >>> Fault.parse("close@2.5s*")
        Fault(kind='close', frame=None, after_s=2.5, again=True)
        """
        kind, _, when = text.partition("@")
        form = re.fullmatch(r"(?:(\d{1,18})|(\d{1,18}(?:\.\d+)?)s)(\*?)", when, re.ASCII)
        if kind not in KINDS or form is None:
            raise DeepwaterError(
                f"fault {text!r}: expected {', '.join(KINDS[:-1])} or {KINDS[-1]}, then @FRAME or @SECONDSs, and a * "
                "for again and again, e.g. drop@120 or close@2.5s*",
                fault=text,
            )
        again = bool(form[3])
        if form[1]:
            return cls(kind, frame=int(form[1]), again=again)
        return cls(kind, after_s=float(form[2]), again=again)

    def is_due(self, number: int, elapsed_s: float, due_s: float) -> bool:
        """Whether it happens at this frame; `due_s`: one by time, not before."""
        if self.frame is not None:
            return number == self.frame or (self.again and number > 0 and number % self.frame == 0)
        return elapsed_s >= due_s


class Faults:
    """The faults still to happen. For one event loop."""

    def __init__(self, faults: Iterable[Fault | str] = ()) -> None:
        self.pending = [fault if isinstance(fault, Fault) else Fault.parse(fault) for fault in faults]
        self._due_s = {id(fault): fault.after_s or 0.0 for fault in self.pending}

    def take(self, number: int, elapsed_s: float) -> list[str]:
        """Return the kinds due at frame `number`, `elapsed_s` seconds in, and strike off what happens once.

        Examples
        --------
        >>> faults = Faults(["drop@2", "close@1s", "error@3s*"])
        >>> faults.take(1, 0.5), faults.take(2, 0.6), faults.take(2, 1.0), faults.take(3, 2.0)
        ([], ['drop'], ['close'], [])
        >>> [faults.take(number, number) for number in range(4, 8)]
        [['error'], [], [], ['error']]
        >>> faults.take(0, 20), faults.take(1, 20), faults.take(2, 23)
        ([], [], ['error'])
        """
        if not self.pending:
            return []
        due = [fault for fault in self.pending if fault.is_due(number, elapsed_s, self._due_s[id(fault)])]
        if number == 0:
            due = [fault for fault in due if not self._is_late(fault, elapsed_s)]
        for fault in due:
            if not fault.again:
                self.pending.remove(fault)
            elif fault.after_s is not None:
                self._due_s[id(fault)] = elapsed_s + fault.after_s
        return [fault.kind for fault in due]

    def _is_late(self, fault: Fault, elapsed_s: float) -> bool:
        """Whether one that happens again by time is due before a connection had a frame: then it is put off."""
        if fault.again and fault.after_s is not None:
            self._due_s[id(fault)] = elapsed_s + fault.after_s
            return True
        return False
