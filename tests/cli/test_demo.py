"""The demonstration, end to end: three processes, and every line it prints is true."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import COMMAND, deepwater, environment
from hypothesis import given
from hypothesis import strategies as st

from deepwater import Platform
from deepwater.apps import demo
from deepwater.apps.demo import BAR, second_bars

SECTIONS = [
    "Trades of two seconds", "One-second bars, by the exchange's clock",
    "Gaps, from the marks stored beside the records",
    "Rates", "The data stays in", "Paste into Python", "or into a shell",
]  # fmt: skip


def sections(text: str) -> dict[str, list[str]]:
    """Return the lines below each title."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line in SECTIONS:
            found[line] = []
        elif line and found:
            found[list(found)[-1]].append(line)
    assert list(found) == SECTIONS
    return found


def test_the_demo_shows_a_market_and_what_it_shows_can_be_pasted(tmp_path: Path) -> None:
    store = tmp_path / "a demo's store"
    done = deepwater("demo", "--seconds", "4", "--base-path", store, env={"COLUMNS": "80"})
    shown = sections(done.stdout)
    assert max(len(line) for title in SECTIONS[:4] for line in shown[title]) <= 80

    # Live counts went to stderr, and rose.
    trades = [int(n.replace(",", "")) for n in re.findall(r"trades +([\d,]+)", done.stderr)]
    assert trades == sorted(trades) and trades[-1] > trades[0] == 0

    # The counts, gaps and bars are those of the store.
    with Platform(store) as dw:
        rates = {line.split()[0]: line.split() for line in shown["Rates"] if line.startswith("  CB-")}
        assert {name: len(dw[name]) for name in dw.list_feeds() if name.startswith("CB-")} == {
            name: int(cells[1].replace(",", "")) for name, cells in rates.items()
        }
        reasons = {mark["reason"].decode() for name in dw.list_feeds() for mark in dw[name].gaps()}
        shown_gaps = "\n".join(shown[SECTIONS[2]])
        assert all(reason in shown_gaps for reason in reasons)
        assert any(reason.startswith("sequence gap: frame") for reason in reasons)
        assert any(reason.startswith("reconnect: closed with 1001") for reason in reasons)
        reader = dw["CB-TRADES-BTC-USD"]
        live = reader.read(int(reader[0]["recv_us"]), clock="ev_us")
        volume = sum(float(line.split()[5].replace(",", "")) for line in shown[SECTIONS[1]][1:])
        assert volume == pytest.approx(live["size"].sum(), abs=1e-3 * len(shown[SECTIONS[1]]))

    # The lines to paste run, and show the rows of the table.
    rows = int(re.search(r": ([\d,]+) rows$", shown[SECTIONS[0]][0])[1].replace(",", ""))  # type: ignore[index]
    assert rows > 0
    python = "\n".join(shown["Paste into Python"])
    assert len(shown["Paste into Python"]) == 3
    pasted = subprocess.run(
        [sys.executable, "-W", "error", "-c", python], capture_output=True, text=True, env=environment(), check=True
    )
    assert f"[{rows} rows x " in pasted.stdout
    shell = "\n".join(shown["or into a shell"]) + " --format csv"
    if shell.startswith("deepwater "):  # whichever is first on PATH: this one is meant
        shell = shlex.join(COMMAND) + shell.removeprefix("deepwater")
    pasted = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=environment(), check=True)
    assert pasted.stdout.count("\n") == rows + 1


@pytest.mark.parametrize("where", ["not on PATH", "another one on PATH", "this one"])
def test_the_line_for_a_shell_calls_this_program(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepwater.apps.demo import shell_lines

    program = tmp_path / "deepwater"
    if where != "not on PATH":
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if where == "this one":
        monkeypatch.setattr(sys, "argv", [str(program)])
    first = shell_lines("/a store", "F", "2026", "2027")[0]
    name = "deepwater" if where == "this one" else f"{shlex.quote(sys.executable)} -m deepwater.cli"
    assert first == f"{name} query F \\"


def _descendants(pid: int) -> list[int]:
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return children + [below for child in children for below in _descendants(child)]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_interrupted_leaves_no_process(number: signal.Signals, code: int, tmp_path: Path) -> None:
    command = [*COMMAND, "demo", "--seconds", "60", "--base-path", str(tmp_path / "store")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True)
    with process:
        try:
            assert process.stderr is not None
            said = ""
            while not re.search(r"trades +[1-9]", said):
                line = process.stderr.readline()
                assert line, said
                said += line
            children = _descendants(process.pid)
            process.send_signal(number)
            out, more = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    assert out == "" and "Traceback" not in more
    assert len(children) == 2 and not any(map(_runs, children))
    # What was recorded is whole: the recorder was ended in order.
    with Platform(tmp_path / "store") as dw:
        assert all(row["writer_pid"] is None for row in _feeds(tmp_path / "store")) and len(dw["CB-L2-BTC-USD"]) > 0


def _feeds(store: Path) -> Any:
    return json.loads(deepwater("feeds", "--json", "--base-path", store).stdout)


def test_the_demo_wants_a_store_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    done = deepwater("demo", "--base-path", tmp_path, code=1)
    assert done.stdout == "" and f"{tmp_path} is not an empty directory" in done.stderr.splitlines()[-1]
    assert os.listdir(tmp_path) == ["precious"]


def test_a_store_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = deepwater("demo", "--base-path", tmp_path / "file" / "store", code=1)
    assert done.stderr.splitlines()[-1] == f"deepwater: error: {tmp_path}/file/store: Not a directory"


@pytest.mark.parametrize(
    ("products", "command", "said"),
    [
        (("a/b",), "exchange", "demo: 'deepwater exchange' failed: product 'a/b' is not allowed"),
        ((f"{'A' * 60}-{'B' * 40}",), "record", "demo: 'deepwater record' failed: feed name 'CB-L2-AAA"),
    ],
)
def test_a_child_that_fails_says_why(
    products: tuple[str, ...], command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PRODUCTS", products)
    with pytest.raises(demo.DemoError, match=re.escape(said)) as caught:
        demo.run_demo(str(tmp_path / "store"), 2.0)
    assert caught.value.command == command  # type: ignore[attr-defined]


def test_an_exchange_that_is_gone_is_noticed(tmp_path: Path) -> None:
    """Killed while it is recorded: the demo ends at once, with a reason, and without a child."""
    held: list[demo.Child] = []

    class Watched(demo.Child):
        def __init__(self, command: str, words: list[str]) -> None:
            super().__init__(command, words)
            held.append(self)

    def on_progress(progress: demo.Progress) -> None:
        if any(progress.records.values()):
            os.kill(held[0]._process.pid, signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "Child", Watched)
        with pytest.raises(demo.DemoError, match="'deepwater exchange' failed: it ended with -9"):
            demo.run_demo(str(tmp_path / "store"), 60.0, on_progress)
    assert [child._process.returncode is not None for child in held] == [True, True]


def test_a_demo_that_fails_leaves_no_directory_that_nobody_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "PRODUCTS", ("a/b",))
    with pytest.raises(demo.DemoError):
        demo.run_demo(None, 2.0)
    assert os.listdir(tmp_path) == []


def test_the_demo_leaves_a_store_of_the_variable_alone(tmp_path: Path) -> None:
    """Its market is not real: it must never get among real feeds because a variable is set."""
    home = tmp_path / "real"
    env = {"DEEPWATER_HOME": str(home), "TMPDIR": str(tmp_path)}
    done = deepwater("demo", "--seconds", "2", env=env)
    where = sections(done.stdout)["The data stays in"][0].split()[0]
    assert where.startswith(str(tmp_path / "deepwater-demo-")) and Path(where).is_dir()
    assert not home.exists()


# --- bars ------------------------------------------------------------------------------------------------

TRADE = np.dtype([("ev_us", "u8"), ("price", "f8"), ("size", "f8")])
NUMBER = st.integers(1, 1000).map(float)


@given(st.lists(st.tuples(st.integers(0, 5_000_000), NUMBER, NUMBER), max_size=60))
def test_bars_are_what_a_loop_makes(trades: list[tuple[int, float, float]]) -> None:
    wanted: dict[int, list[Any]] = {}
    for us, price, size in sorted(trades, key=lambda trade: trade[0]):
        second = us // 1_000_000 * 1_000_000
        if second not in wanted:
            wanted[second] = [second, price, price, price, price, 0.0, 0]
        bar = wanted[second]
        bar[2], bar[3], bar[4] = max(bar[2], price), min(bar[3], price), price
        bar[5] += size
        bar[6] += 1
    bars = second_bars(np.array(trades, TRADE))
    assert bars.dtype == BAR
    assert bars.tolist() == [tuple(bar) for bar in wanted.values()]
