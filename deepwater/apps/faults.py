"""What the local exchange does wrong on purpose, and when.

A fault is written ``what@when``: `what` is ``drop`` (a frame keeps its number and is not sent), ``close``
(the connection ends) or ``silent`` (it stays open, and nothing comes any more); `when` is the number of
a frame of the connection, or seconds since the first subscription, as ``2.5s``. Each fault happens once
in the life of the exchange, on the connection that first gets there, so the next one is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from deepwater.errors import DeepwaterError

__all__ = ["Fault", "Faults"]

_KINDS = ("drop", "close", "silent")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `kind`, and either `frame` (from 0) or `after_s` (seconds)."""

    kind: str
    frame: int | None = None
    after_s: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS or (self.frame is None) == (self.after_s is None):
            raise DeepwaterError(f"{self!r}: expected a kind of {_KINDS} and either frame or after_s")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``what@when``.

        Raises
        ------
        DeepwaterError
            If `text` is not of that form.

        Examples
        --------
        >>> Fault.parse("drop@120"), Fault.parse("close@2.5s")
        (Fault(kind='drop', frame=120, after_s=None), Fault(kind='close', frame=None, after_s=2.5))
        """
        kind, _, when = text.partition("@")
        form = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)s", when, re.ASCII)
        if kind not in _KINDS or form is None:
            raise DeepwaterError(
                f"fault {text!r}: expected drop, close or silent, then @FRAME or @SECONDSs, "
                "e.g. drop@120 or close@2.5s",
                fault=text,
            )
        return cls(kind, frame=int(form[1])) if form[1] else cls(kind, after_s=float(form[2]))


class Faults:
    """The faults still to happen. For one event loop."""

    def __init__(self, faults: Iterable[Fault | str] = ()) -> None:
        self.pending = [fault if isinstance(fault, Fault) else Fault.parse(fault) for fault in faults]

    def take(self, number: int, elapsed_s: float) -> list[str]:
        """Return the kinds due at frame `number`, `elapsed_s` seconds in, and strike them off.

        Examples
        --------
        >>> faults = Faults(["drop@2", "close@1s"])
        >>> faults.take(1, 0.5), faults.take(2, 0.6), faults.take(2, 1.0), faults.take(3, 2.0)
        ([], ['drop'], ['close'], [])
        """
        if not self.pending:
            return []
        due = [
            fault
            for fault in self.pending
            if fault.frame == number or (fault.after_s is not None and elapsed_s >= fault.after_s)
        ]
        self.pending = [fault for fault in self.pending if fault not in due]
        return [fault.kind for fault in due]
