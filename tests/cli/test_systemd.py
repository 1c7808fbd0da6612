"""The unit that `record --print-systemd` prints: what systemd would run is what was typed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import deepwater

from deepwater.cli import systemd

STRANGE = [
    "plain", "with space", 'q"uo\'te', "50%", "$HOME ${X}", "back\\slash", "é", "semi;colon", "tab\there", "#no", "",
]  # fmt: skip


def words_of(line: str) -> list[str]:
    """Read a command line as systemd.service(5) says, by other rules than those that wrote it."""
    words = []
    for quoted, plain in re.findall(r'"((?:\\.|[^"\\])*)"|(\S+)', line):
        word = plain or quoted
        raw = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), word.encode())
        text = re.sub(r"\\(.)", r"\1", raw.decode("utf-8", "surrogateescape"))
        words.append(text.replace("%%", "%").replace("$$", "$"))
    return words


@pytest.mark.parametrize("word", STRANGE)
def test_a_word_comes_back_as_it_was(word: str) -> None:
    assert words_of(systemd.quoted(word)) == [word]


def test_the_unit_runs_what_was_typed(tmp_path: Path) -> None:
    store, listed = tmp_path / 'a "b" 5%$ c', tmp_path / "list of mine.txt"
    listed.touch()
    text = deepwater(
        "record", "kraken", "--product", "BTC-USD,ETH-USD", "--products-file", listed.name, "--uri", "ws://127.0.0.1:1",
        "--channel", "book", "--duration", "90", "--base-path", store.name, "--print-systemd", cwd=tmp_path,
    ).stdout  # fmt: skip
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert words_of(line.removeprefix("ExecStart=")) == [
        sys.executable, "-m", "deepwater.cli", "record", "--venue", "kraken", "--product", "BTC-USD", "--product",
        "ETH-USD", "--products-file", str(listed), "--channel", "book", "--uri", "ws://127.0.0.1:1", "--duration", "90",
        "--base-path", str(store),
    ]  # fmt: skip
    assert "\nRestart=on-failure\n" in text and "\nExecReload=/bin/kill -HUP $MAINPID\n" in text
    assert not store.exists()
    if shutil.which("systemd-analyze") is None:
        return
    unit = tmp_path / "deepwater-record.service"
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "deepwater-record" in line]
    assert not ours, done.stderr


def test_a_program_with_a_strange_name_is_run_by_env() -> None:
    text = systemd.unit(["/opt/my env/python", "-m", "x"], "x")
    assert 'ExecStart=/usr/bin/env "/opt/my env/python" -m x\n' in text and "ExecReload" not in text
