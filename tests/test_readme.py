"""The README is run: every Python block in order, in one namespace; every console line is one that parses."""

from __future__ import annotations

import codeop
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_python_block_runs(tmp_path: Path) -> None:
    """In order, as a newcomer would paste them; what they promise in comments is checked here."""
    code = "\n".join(text for kind, text in BLOCKS if kind == "python")
    checks = """
assert len(r) == 7 and r.end == 7 and round(vwap, 6) == round((65083.66 * .25 + 65083.5 * .1 + 65083.75 * .2) / .55, 6)
assert frame.index.name == "ts_us" and len(frame) == 3
assert len(book) == 3 and sum(map(len, live)) == 4
assert r.gaps()["count"].tolist() == [3] and r.snapshots()["count"].tolist() == [2]
assert max(spread) == 4.5 and mid.tolist() == [65083.75, 65083.75] and missed == 4000 - 2730
assert sum(rows for _, rows in played) == 3 + 2730 and {feed for feed, _ in played} == {"TICKS", "QUOTES"}
assert records.tobytes() == r.rows(0, count).to_numpy().tobytes() and count == 7
assert crossed["position"].tolist() == [6] and found.spans[["first", "stop"]].tolist() == [(0, 6), (6, 7)]
assert both.tolist() == [(1_786_309_549_000_001, 1_786_309_549_000_003)]
assert gone.records == tape.first > 0 and tape.end == 900_000 and len(window.to_numpy()) == 1000
assert then.bids.tolist() == [(65082.5, 2.0)] and then.asks.tolist() == [(65084.0, 0.5)]
assert then.valid and not then.crossed
assert not late.valid and late.reason == "gap before position 4: reconnect" and late.best_ask == 65083.5
assert rows["valid"].tolist() == [False, True, True, False] and rows["bid_px"][1].tolist() == [65083.0, 65082.5]
assert kept.best_bid == (65082.5, 2.0) and kept.reason == late.reason
assert top.valid and top.bids.tolist() == [(65083.5, 3.0), (65083.0, 1.0)] and top.position == 10
assert snapshot["l2_position"] == 9 and changes["price"].tolist() == [65083.5]
assert loaded.records == len(trades) > 0 and loaded.created and "ts_us" in loaded.names
dw.delete_feed("QUOTES")
dw.delete_feed("TAPE")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + checks], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [text for kind, text in BLOCKS if kind == "python"])
def test_every_python_block_can_be_pasted_into_a_prompt(block: str) -> None:
    """The prompt of Python 3.11 and 3.12 ends a compound statement at a blank line only."""
    pending: list[str] = []
    for line in [*block.splitlines(), ""]:
        pending.append(line)
        if codeop.compile_command("\n".join(pending), symbol="single") is not None:
            pending = []
    assert not pending, pending


@pytest.mark.parametrize("line", re.findall(r"^\$ (.*)$", README, re.MULTILINE))
def test_every_console_line_is_a_command_that_parses(line: str, tmp_path: Path) -> None:
    """`--help` of each command knows every option the README uses."""
    words = shlex.split(line)
    assert words[0] == "deepwater"
    command = [word for word in words[1:3] if not word.startswith("-")]
    if command[0] != "record":
        command = command[:1]
    done = subprocess.run(
        [sys.executable, "-m", "deepwater.cli", *command, "--help"], cwd=tmp_path, capture_output=True, text=True,
        timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    for option in (word for word in words if word.startswith("--")):
        assert option in done.stdout, (option, done.stdout)


def test_the_two_commands_are_those_that_ci_runs() -> None:
    """Word for word, but for the environment's name."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert '-m pip install -q ".[apps]" && .venv/bin/deepwater demo' in README
    assert '-m pip install -q -e ".[test]" && .venv/bin/python -m pytest -q' in README
    assert 'pip install -q ".[apps]"' in script and "deepwater demo" in script
    assert 'pip install -q -e ".[test]"' in script and "python -m pytest -q" in script


def test_every_test_that_a_guarantee_names_is_there() -> None:
    table = README[README.index("## Guarantees") : README.index("**Not guaranteed")]
    named = set(re.findall(r"`((?:\w+/)?test_\w+)`", table))
    assert named and all((ROOT / "tests" / f"{name}.py").exists() for name in named), named
