"""schema, bench and completion: what they print can be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import COMMAND, Kept, environment, started

from deepwater import Platform, cli
from deepwater.cli import arguments, completion
from processes import run_python


def run(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert cli.main([*map(str, words)]) == 0
    return capfd.readouterr().out


# --- schema ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feed", ["TICKS", "ODD"])
def test_the_spec_makes_the_same_feed(
    feed: str, kept: Kept, tmp_path: Path, tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = run(capfd, "schema", feed, "--base-path", kept.path)
    assert text == run(capfd, "schema", feed, "--json", "--base-path", kept.path)
    (tmp_path / "spec.json").write_text(text)
    run(capfd, "create", tmp_path / "spec.json", "--base-path", tmp_store)
    with Platform(kept.path) as dw, dw[feed] as mine, Platform(tmp_store) as other, other[feed] as copy:
        assert copy.layout.to_bytes() == mine.layout.to_bytes() and copy.settings == mine.settings


@pytest.mark.parametrize("feed", ["TICKS", "ODD"])
def test_the_lines_of_python_make_the_dtype(feed: str, kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(run(capfd, "schema", feed, "--format", "python", "--base-path", kept.path), names)
    with Platform(kept.path) as dw, dw[feed] as reader:
        assert names["dtype"] == reader.dtype and names["dtype"].itemsize == reader.dtype.itemsize
        stored = reader.rows(0, 5).to_numpy()
        assert np.array_equal(np.frombuffer(stored.view("u1").tobytes(), names["dtype"])[0], stored[0])


def test_arrow_types_are_those_of_the_reader(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    lines = run(capfd, "schema", "ODD", "--format", "arrow", "--base-path", kept.path).splitlines()
    assert "t_us: timestamp[us, tz=UTC]" in lines and "levels: fixed_size_list<item: float>[4]" in lines
    assert "flag: dictionary<values=string, indices=uint8, ordered=0>" in lines


# --- bench -----------------------------------------------------------------------------------------------


def test_bench_measures_and_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = run(capfd, "bench", "--records", 20_000, "--scratch", tmp_path, "--json")
    found = {row["what"]: row for row in json.loads(text)["measured"]}
    assert list(found) == [
        "memcpy", "write, batches of 10,000", "write, one at a time", "read a range, a copy", "sum of a column",
        "to Arrow", "as-of lookups",
    ]  # fmt: skip
    assert all(row["seconds"] > 0 for row in found.values()) and found["memcpy"]["memcpys"] == 1
    assert not list(tmp_path.iterdir())
    lines = run(capfd, "bench", "--records", 10_000, "--scratch", tmp_path).splitlines()
    assert lines[0].split() == ["what", "records/s", "bytes/s", "took", "memcpys"] and len(lines) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_bench_cleans_up_when_it_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    with started("bench", "--records", 600_000, "--scratch", tmp_path) as process:
        while not list(tmp_path.glob("*/data/BENCH/chunk_00000001.bin")) and process.poll() is None:
            pass
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else 128 + number)
    assert not list(tmp_path.iterdir())


# --- completion ------------------------------------------------------------------------------------------


@pytest.fixture
def at_home(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPWATER_HOME", str(kept.path))


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("quer", ["query"]), ("re", ["record", "repair", "replay", "resize"]), ("nope", []), ("nope ", []),
        ("query ", ["EMPTY", "ODD", "TICKS"]), ("query T", ["TICKS"]), ("replay TICKS O", ["ODD"]),
        ("verify TI", ["TICKS"]), ("query TICKS ", []), ("query --limit 3 T", ["TICKS"]),
        ("query TICKS --form", ["--format"]), ("query --format ", ["arrow", "csv", "json", "parquet", "table"]),
        ("query --format p", ["parquet"]), ("query --start ", []), ("rings ", ["clean", "list", "orphans"]),
        ("record ", ["coinbase", "kraken"]), ("exchange --venue k", ["kraken"]),
        ("record coinbase --dur", ["--duration"]),
        ("trades --feed ", ["EMPTY", "ODD", "TICKS"]), ("trades ", []),
        ("completion ", ["bash", "fish", "zsh"]), ("--ver", ["--version"]), ("--base-path ", []),
        ("--base-path /nowhere query ", []), ("query --base-path /nowhere ", []), ("query --base-path=/nowhere ", []),
        ("import ", []), ("import a.csv ", ["EMPTY", "ODD", "TICKS"]), ("import a.csv T", ["TICKS"]),
    ],
)  # fmt: skip
def test_what_may_stand_there(line: str, wanted: list[str]) -> None:
    assert completion.words_for(line.split(" ")) == wanted


@pytest.mark.usefixtures("at_home")
def test_every_command_and_every_option_is_offered(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "completion", "--complete", "").split() == sorted(arguments.parsers())
    for name, parser in arguments.parsers().items():
        wanted = {text for action in parser._actions for text in action.option_strings}
        assert {*run(capfd, "completion", "--complete", name, "-").split()} == wanted


def test_products_are_those_of_the_feeds_of_trades(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CB-TRADES-BTC-USD", "CB-L2-ETH-USD", ".hidden"):
        (tmp_store / "data" / name).mkdir(parents=True)
    monkeypatch.setenv("DEEPWATER_HOME", str(tmp_store))
    assert completion.words_for(["trades", "--product", ""]) == ["BTC-USD"]


def test_the_store_of_a_line_is_read_as_the_shell_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks in quotes or behind a backslash, variables, a word that bash breaks at its equals sign."""
    (tmp_path / "my data" / "data" / "TICKS").mkdir(parents=True)
    (tmp_path / "my data" / "data" / ".import-OTHER").mkdir()
    monkeypatch.setenv("WHERE", str(tmp_path))
    escaped = str(tmp_path / "my data").replace(" ", "\\ ")
    for words in (["--base-path", escaped], ["--base-path", f"'{tmp_path}/my data'"], [f"--base-path={escaped}"],
                  ["--base-path", "=", escaped], ["--base-path", '"$WHERE/my data"']):  # fmt: skip
        assert completion.words_for(["info", *words, ""]) == ["TICKS"], words
        assert completion.words_for([*words, "info", "T"]) == ["TICKS"], words


def test_bash_completes(kept: Kept, tmp_path: Path) -> None:
    """In a bash of its own, with what `deepwater completion bash` prints."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    program = tmp_path / "deepwater"
    program.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in COMMAND) + ' "$@"\n')
    program.chmod(0o755)
    ask = """source <(deepwater completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
             _deepwater; printf '%s\\n' "${COMPREPLY[@]}"; complete -p deepwater"""
    env = environment(DEEPWATER_HOME=str(kept.path)) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for words, wanted in ((["deepwater", "query", "T"], ["TICKS"]), (["deepwater", "gaps", "--sil"], ["--silence"])):
        done = subprocess.run([bash, "-c", ask, "bash", *words], capture_output=True, text=True, env=env, check=True)
        assert done.stdout.splitlines() == [*wanted, "complete -F _deepwater deepwater"], done


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_one_that_its_shell_reads(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    text = run(capfd, "completion", shell)
    assert "deepwater completion --complete" in text
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n"], input=text, text=True, check=True)


def test_completion_loads_not_even_numpy(kept: Kept) -> None:
    done = run_python(
        """
        import sys
        from deepwater.cli import main
        assert main(["completion", "--complete", "query", "--base-path", sys.argv[1], ""]) == 0
        assert not {"numpy", "pandas", "pyarrow", "filelock"} & {*sys.modules}, sorted(sys.modules)
        """,
        kept.path,
    )
    assert done.stdout.split() == ["EMPTY", "ODD", "TICKS"]
