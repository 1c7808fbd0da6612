"""One table of all faults that were provoked: how often, and how often something was wrong.

A test in `tests/faults` counts its trials in `Trials`; the counts travel with its report (from another process too,
under pytest-xdist), and whoever runs the session prints them as one table at its end.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import pytest

PROPERTY = "fault"
_SHOWN = 5


class Trials:
    """The trials of one fault, as a context manager: leaving it fails the test if one of them failed.

    Parameters
    ----------
    item : pytest.Item
        The test, whose report carries the counts.
    fault : str
        Its number in the catalogue, "F1".
    what : str
        In a few words.
    """

    def __init__(self, item: pytest.Item, fault: str, what: str) -> None:
        self._row: dict[str, Any] = {"fault": fault, "what": what, "trials": 0, "failures": 0, "notes": {}}
        self._failures: list[str] = []
        item.user_properties.append((PROPERTY, self._row))  # the row is filled while the test runs

    def done(self, trials: int = 1) -> None:
        """Count trials, whatever came of them."""
        self._row["trials"] += trials

    def fail(self, text: str) -> None:
        """One of the trials failed; `text` says how to do it again."""
        self._row["failures"] += 1
        self._failures.append(text)

    def note(self, **counts: Any) -> None:
        """What the table says beside: ``inside_a_write=412``."""
        self._row["notes"].update({name.replace("_", " "): count for name, count in counts.items()})

    @property
    def trials(self) -> int:
        """How many were done."""
        return self._row["trials"]

    def __enter__(self) -> Trials:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, pytest.skip.Exception):
            self._row["failures"] += not self._failures
        if kind is None:
            assert self.trials, "no trial was done"
            assert not self._failures, f"{len(self._failures)} of {self.trials} failed:\n" + "\n".join(
                self._failures[:_SHOWN]
            )


class FaultTable:
    """Collects the rows from the reports of tests, in whichever process they ran, and prints them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            seconds = {"seconds": report.duration}
            self.rows += [seconds | row for name, row in report.user_properties if name == PROPERTY]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.rows:
            terminalreporter.section("faults")
            for line in table(self.rows):
                terminalreporter.write_line(line)


def _order(row: dict[str, Any]) -> tuple[str, int, str]:
    digits = "".join(c for c in row["fault"] if c.isdigit())
    return row["fault"].rstrip("0123456789"), int(digits or 0), row["what"]


def _summed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for all that say the same of themselves: a fault may be provoked by many tests."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        one = sums.setdefault((row["fault"], row["what"]), {**row, "trials": 0, "failures": 0, "notes": {}})
        one["trials"], one["failures"] = one["trials"] + row["trials"], one["failures"] + row["failures"]
        for name, note in row["notes"].items():
            one["notes"][name] = one["notes"].get(name, 0) + note if isinstance(note, int) else note
    return list(sums.values())


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The lines of the table."""
    cells = [("fault", "trials", "failures", "notes")]
    for row in sorted(_summed(rows), key=_order):
        notes = ", ".join(f"{name} {n:,}" if isinstance(n, int) else f"{name} {n}" for name, n in row["notes"].items())
        cells.append((f"{row['fault']} {row['what']}", f"{row['trials']:,}", f"{row['failures']:,}", notes))
    first, trials, failures = (max(len(line[k]) for line in cells) for k in range(3))
    return [f"{a:{first}} | {b:>{trials}} | {c:>{failures}} | {d}".rstrip() for a, b, c, d in cells]
