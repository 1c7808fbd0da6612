"""From the first version: the README says what replaces its programs, and their argument lists go on working."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_kit import ROOT, one_line
from test_trades import DAY, LAST_US, make_store

from deepwater import cli
from deepwater.cli import arguments

README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = README[README.index("### From the first version") :].partition("\n\n|")[2].partition("\n\n")[0]
ROWS = dict(re.findall(r"^\| `([^`]+)`[^|]*\| `([^`]+)`", "|" + TABLE, re.MULTILINE))

# The programs, and how they were called: word for word.
CALLS = {
    "main_websocket.py": [[], ["--base-path", "{base}"]],
    "orderbook.py": [[]],
    "orderbook_snapshot.py": [
        ["--product", "BTC-USD", "--base-path", "{base}", "--depth", "500", "--interval", "1"],
        ["--product", "BTC-USD", "--base-path", "{base}", "--depth", "50", "--interval", "0.25"],
    ],
    "trades.py": [
        ["--feed", "CB-TRADES-BTC-USD", "--start", "05:22", "--end", "05:23:30", "--base-path", "{base}"],
        ["--feed", "CB-TRADES-BTC-USD", "--start", "05:22:10", "--base-path", "{base}"],
        ["--feed", "CB-TRADES-BTC-USD", "--base-path", "{base}"],
    ],
}  # fmt: skip


def now(program: str) -> list[str]:
    """Return the words of the command that the README puts in the place of a program."""
    (old,) = (old for old in ROWS if old.split()[0] == program)
    words = ROWS[old].split()
    assert words[0] == "deepwater"
    return words[1:]


def test_the_table_has_every_program_and_the_packages() -> None:
    assert {old.split()[0] for old in ROWS} == {*CALLS, "pip"}
    assert ROWS["pip install -r requirements.txt"] == 'pip install "deepwater[apps]"'


@pytest.mark.parametrize(("program", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_the_arguments_are_understood_as_they_were_given(program: str, call: list[str], tmp_path: Path) -> None:
    words = [word.format(base=tmp_path) for word in call]
    args = vars(arguments.parse([*now(program), *words]))
    for option, value in zip(words[::2], words[1::2], strict=True):
        found = args[option.removeprefix("--").replace("-", "_")]
        assert found in (value, [value]) or float(found) == float(value)


def test_trades_are_found_as_they_were(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A whole one: the times of a day that is over need their date."""
    trades = make_store(tmp_store, ["CB-TRADES-BTC-USD"], LAST_US)
    words = [*now("trades.py"), "--feed", "CB-TRADES-BTC-USD", "--start", f"{DAY}05:22", "--end", f"{DAY}05:23:30"]
    assert cli.main([*words, "--base-path", str(tmp_store), "--json"]) == 0
    found = [json.loads(line)["trade_id"] for line in capfd.readouterr().out.splitlines()]
    inside = (trades["proc_us"] >= LAST_US - 120_000_000) & (trades["proc_us"] < LAST_US - 29_000_000)
    assert found == trades["trade_id"][inside].tolist() and found


def test_the_tail_that_stood_in_the_program(
    tmp_store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_store, ["CB-TRADES-MON-USD"], LAST_US)
    monkeypatch.setenv("DEEPWATER_HOME", str(tmp_store))
    assert cli.main(now("orderbook.py")) == 0
    out, said = capfd.readouterr()
    assert len(out.splitlines()) == 11 and said == ""
    monkeypatch.setenv("DEEPWATER_HOME", "/nonexistent")
    assert cli.main(now("orderbook.py")) == 1
    assert "no store at /nonexistent" in one_line(capfd.readouterr().err)
