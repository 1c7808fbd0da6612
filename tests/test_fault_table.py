"""Counts of faults come home with the reports of tests, and one that failed fails its test."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fault_table import PROPERTY, FaultTable, Trials, table


def test_the_table_is_in_the_order_of_the_catalogue() -> None:
    rows = [
        {"fault": fault, "what": "x", "trials": 1200, "failures": n, "notes": {"inside": 1000, "why": "so"}}
        for n, fault in enumerate(("F10", "F9", "F2"))
    ]
    lines = table(rows)
    assert [line.split()[0] for line in lines] == ["fault", "F2", "F9", "F10"]
    assert lines[1] == "F2 x  |  1,200 |        2 | inside 1,000, why so"


def test_tests_that_count_for_the_same_fault_share_a_line() -> None:
    notes = ({"killed": 1}, {"killed": 1, "seed": "x"}, {})
    rows = [{"fault": "mutants", "what": "of it", "trials": 1, "failures": k == 2, "notes": n}
            for k, n in enumerate(notes)]  # fmt: skip
    assert table(rows)[1:] == ["mutants of it |      3 |        1 | killed 2, seed x"]
    assert rows[0]["notes"] == {"killed": 1}


def test_a_failed_trial_fails_its_test_and_is_counted() -> None:
    item: Any = SimpleNamespace(user_properties=[])
    with pytest.raises(AssertionError, match="1 of 3 failed:\nseed 7"), Trials(item, "F1", "kill") as trials:  # noqa: PT012
        trials.done(3)
        trials.fail("seed 7")
    with pytest.raises(AssertionError, match="no trial"), Trials(item, "F1", "kill") as trials:
        trials.note(nothing=1)
    with pytest.raises(KeyError), Trials(item, "F2", "kill"):
        raise KeyError
    seen = FaultTable()
    seen.pytest_runtest_logreport(
        SimpleNamespace(when="call", duration=1.0, user_properties=item.user_properties)  # type: ignore[arg-type]
    )
    counts = [(row["fault"], row["trials"], row["failures"]) for row in seen.rows]
    assert counts == [("F1", 3, 1), ("F1", 0, 0), ("F2", 0, 1)]
    assert all(name == PROPERTY for name, _ in item.user_properties)
