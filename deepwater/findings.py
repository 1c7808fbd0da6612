"""What a check of files finds: values that say what is wrong, where, and what to do about it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)
_MOST_A_FILE = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes
    ----------
    severity : str
        ``"error"``: damage. ``"warning"``: nothing is lost yet, but somebody should act. ``"note"``: a fact worth
        knowing, such as what a killed writer left and the next one removes.
    code : str
        What kind of thing, one word: stable, for programs.
    path : str
        The file or directory.
    what : str
        A sentence: what is wrong, what was expected and what was found.
    way_out : str
        What to do about it; empty for a note.
    feed : str or None
    offset : int or None
        Where in the file, in bytes.
    first, stop : int or None
        The positions of the records concerned, ``first <= position < stop``.
    expected, found : str
        The two values, where it is about values.
    """

    severity: str
    code: str
    path: str
    what: str
    way_out: str = ""
    feed: str | None = None
    offset: int | None = None
    first: int | None = None
    stop: int | None = None
    expected: str = ""
    found: str = ""

    @property
    def key(self) -> tuple[str, str, int | None]:
        """The same for the same thing found again."""
        return self.code, self.path, self.offset

    def to_json(self) -> dict[str, Any]:
        """Return all of it as a dict of plain values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        where = f"{self.path}" if self.offset is None else f"{self.path} @{self.offset}"
        values = f": expected {self.expected}, found {self.found}" if self.expected or self.found else ""
        records = "" if self.first is None else f" [positions {self.first} to {(self.stop or 0) - 1}]"
        return f"{self.severity}: {where}: {self.what}{values}{records}{f'; {self.way_out}' if self.way_out else ''}"


@dataclass(slots=True)
class Findings:
    """Collects findings about one feed (or, without a name, about the store)."""

    feed: str | None = None
    found: list[Finding] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)

    def error(self, code: str, path: str, what: str, **more: Any) -> None:
        """Add damage."""
        self._add(ERROR, code, path, what, more)

    def warning(self, code: str, path: str, what: str, **more: Any) -> None:
        """Add what somebody should act on."""
        self._add(WARNING, code, path, what, more)

    def note(self, code: str, path: str, what: str, **more: Any) -> None:
        """Add what is worth knowing."""
        self._add(NOTE, code, path, what, more)

    def _add(self, severity: str, code: str, path: str, what: str, more: dict[str, Any]) -> None:
        """Add a finding; of one file no more than a hundred, and one that says so."""
        self._counts[path] += 1
        if self._counts[path] <= _MOST_A_FILE:
            self.found.append(Finding(severity, code, path, what, feed=self.feed, **more))
        elif self._counts[path] == _MOST_A_FILE + 1:
            text = "more is wrong with it, which is not said one by one"
            self.found.append(Finding(severity, "more", path, text, feed=self.feed))

    def is_full(self, path: str) -> bool:
        """Whether no more is said of a file."""
        return self._counts[path] > _MOST_A_FILE

    def of(self, *severities: str) -> list[Finding]:
        """Those of some severities."""
        return [finding for finding in self.found if finding.severity in severities]

    def has(self, *codes: str) -> bool:
        """Whether there is one of these codes."""
        return any(finding.code in codes for finding in self.found)


@dataclass(slots=True)
class Report:
    """What `deepwater.check.verify` found.

    Attributes
    ----------
    findings : list of Finding
        Errors first, then warnings, then notes; each in the order of the files.
    feeds, files, records : int
        How many were looked at.
    bytes_read : int
        Of headers and records.
    quick : bool
        Whether only headers were read.
    """

    findings: list[Finding] = field(default_factory=list)
    feeds: int = 0
    files: int = 0
    records: int = 0
    bytes_read: int = 0
    quick: bool = False

    def add(self, found: Iterable[Finding]) -> None:
        """Take findings in, in order of severity."""
        self.findings = sorted([*self.findings, *found], key=lambda finding: SEVERITIES.index(finding.severity))

    def count(self, severity: str) -> int:
        """How many findings of a severity there are."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def code(self) -> int:
        """0: nothing but notes; 1: warnings; 2: damage."""
        return 2 if self.count(ERROR) else 1 if self.count(WARNING) else 0

    def to_json(self) -> dict[str, Any]:
        """Return all of it as a dict of plain values."""
        counts = {"errors": self.count(ERROR), "warnings": self.count(WARNING), "notes": self.count(NOTE)}
        looked = {"feeds": self.feeds, "files": self.files, "records": self.records, "bytes_read": self.bytes_read}
        return {**counts, **looked, "quick": self.quick, "findings": [finding.to_json() for finding in self.findings]}
