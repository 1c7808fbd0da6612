"""What holds of all commands, looked up in their parsers: a new command is held to it without being named here."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from cli_kit import ROOT, Kept, one_line

from deepwater import Platform, cli
from deepwater.cli import arguments
from deepwater.cli.failures import TROUBLE
from deepwater.cli.progress import Bar

PARSERS = arguments.parsers()
EVERY_COMMAND = pytest.mark.parametrize("name", sorted(PARSERS))

# Commands that open no store; that have nothing to say in JSON, and why.
WITHOUT_STORE = {"exchange", "bench", "completion"}
WITHOUT_JSON = {
    "demo": "a report for people", "exchange": "prints its URI", "completion": "prints a script",
}  # fmt: skip
# Options that may take another kind of value in one command, and why.
DIFFERENT = {
    "--product": "record takes several, trades one",
    "--depth": "of an exchange any, of a kept book what a record holds",
}
SYNONYMS = {
    "--from", "--to", "--since", "--until", "--begin", "--count", "--number", "--max", "--out", "--out-file", "--dir",
    "--directory", "--path", "--store", "--symbol", "--fields", "--cols", "--quiet", "--interactive", "--type", "--fmt",
}  # fmt: skip


def leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of a command that take its options: `record coinbase`, not `record`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return [leaf for child in dict.fromkeys(action.choices.values()) for leaf in leaves(child)]
    return [parser]


LEAVES = [leaf for parser in PARSERS.values() for leaf in leaves(parser)]
EVERY_LEAF = pytest.mark.parametrize("parser", LEAVES, ids=lambda parser: parser.prog)


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {text: action for action in parser._actions for text in action.option_strings}


def examples(parser: argparse.ArgumentParser) -> list[list[str]]:
    """Return the command lines of its example, up to a pipe or whatever else a shell does with them."""
    text = (parser.epilog or "").partition("example:\n")[2].replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        for part in re.split(r"\|\||&&|\|", line):
            before, _, rest = part.partition("deepwater ")
            if rest and before.strip() in ("", "HEALTHCHECK CMD"):
                found.append(shlex.split(re.split(r" > ", rest)[0], comments=True))
    return found


# --- help ------------------------------------------------------------------------------------------------


@EVERY_LEAF
def test_its_examples_are_command_lines(parser: argparse.ArgumentParser) -> None:
    lines = examples(parser)
    assert lines, "no example"
    for words in lines:
        args = arguments.parse(words)  # it raises if it is none
        assert args.run
    assert any(" ".join(["deepwater", *words]).startswith(parser.prog) for words in lines)


@EVERY_LEAF
def test_each_option_says_what_it_is(parser: argparse.ArgumentParser) -> None:
    positional = [action for action in parser._actions if not action.option_strings]
    named = [action for action in parser._actions if action.option_strings]
    assert all(action.help for action in named), [action.option_strings for action in named if not action.help]
    assert all(action.metavar or action.choices for action in positional)


@EVERY_LEAF
def test_what_does_it_is_there(parser: argparse.ArgumentParser) -> None:
    module, _, name = str(parser.get_default("run")).partition(":")
    assert callable(getattr(importlib.import_module(f"deepwater.cli.{module}"), name))


def test_each_command_is_in_a_group_of_the_help() -> None:
    grouped = [name for names in arguments._GROUPS.values() for name in names]
    assert set(PARSERS) <= set(grouped) and len(grouped) == len(set(grouped))


# --- options ---------------------------------------------------------------------------------------------


def test_an_option_is_the_same_in_every_command() -> None:
    """One name has one kind of value, shown alike: --start is a time and --columns a list wherever they are."""
    kinds: dict[str, dict[tuple[Any, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    for parser in LEAVES:
        for text, action in options(parser).items():
            takes = None if action.nargs == 0 else (action.metavar, getattr(action.type, "__name__", None))
            kinds[text][action.dest, takes].append(parser.prog)
    assert {text: dict(found) for text, found in kinds.items() if len(found) > 1 and text not in DIFFERENT} == {}


def test_nothing_has_a_second_name() -> None:
    assert {text for parser in LEAVES for text in options(parser)} & SYNONYMS == set()


@EVERY_LEAF
def test_every_command_takes_the_store_and_json(parser: argparse.ArgumentParser) -> None:
    name = parser.prog.split()[1]
    assert ("--base-path" in options(parser)) == (name not in WITHOUT_STORE)
    assert ("--json" in options(parser)) == (name not in WITHOUT_JSON)


# --- exit codes ------------------------------------------------------------------------------------------


@EVERY_COMMAND
def test_a_wrong_command_line_has_a_code_of_its_own(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """2; or what the command has for every error, where 2 is an answer."""
    assert cli.main([name, "--nope"]) == TROUBLE.get(name, 2)
    out, said = capfd.readouterr()
    assert out == "" and one_line(said).startswith("deepwater")


@pytest.mark.parametrize("name", sorted(TROUBLE))
def test_commands_that_answer_with_their_code_say_so(
    name: str, kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = PARSERS[name].description or ""
    codes = dict(re.findall(r"(?:codes: |, )(\d) ([^,]+)", " ".join(text.split())))
    assert sorted(map(int, codes)) == list(range(TROUBLE[name] + 1)) and "could not" in codes[str(TROUBLE[name])]
    for words in (["NO", "--base-path", str(kept.path)], ["TICKS", "--base-path", str(tmp_path / "nowhere")]):
        assert cli.main([name, *words]) == TROUBLE[name]
        assert one_line(capfd.readouterr().err).startswith("deepwater: error: ")


@EVERY_COMMAND
def test_no_other_command_answers_with_its_code(name: str) -> None:
    assert ("Exit codes:" in (PARSERS[name].description or "")) == (name in TROUBLE)


# --- JSON, tables, bars ----------------------------------------------------------------------------------

# Each command that shows something of a store, as it is asked for it; "{tmp}" is a directory.
SHOWS = {
    "create": "{tmp}/spec.json", "feeds": "", "info": "TICKS", "schema": "TICKS", "status": "", "gaps": "TICKS",
    "snapshots": "BOOK", "resize": "TICKS 64KiB", "prune": "TICKS --dry-run", "delete": "GONE --yes",
    "query": "TICKS --last 3", "trades": "--feed TICKS", "tail": "TICKS", "head": "TICKS", "replay": "TICKS --limit 3",
    "export": "TICKS -o {tmp}/a.csv", "import": "{tmp}/in.csv IN", "verify": "", "repair": "", "rings": "",
    "bench": "--records 10000 --scratch {tmp}",
}  # fmt: skip
ELSEWHERE = {"record", "book", "dashboard"}  # they run until they are told to stop: their own tests ask for --json


def test_every_command_with_json_is_asked_for_it() -> None:
    assert set(PARSERS) - WITHOUT_JSON.keys() - ELSEWHERE == SHOWS.keys()


@pytest.fixture
def words_of(kept: Kept, tmp_path: Path) -> Any:
    """Return what gives the words of a command, on a store of its own."""
    import shutil

    store = Path(shutil.copytree(kept.path, tmp_path / "store"))
    spec = json.loads((ROOT / "schemas" / "cb-l2.json").read_text())
    with Platform(store) as dw:
        dw.create_feed({**spec, "feed_name": "BOOK"})
        dw.create_feed({**spec, "feed_name": "GONE"})
        with dw.create_writer("BOOK") as writer:
            writer.write_values(b"S", b"B", 1, 2, 3, 4, 1.5, 2.5, 0, create_index=True)
    (tmp_path / "spec.json").write_text(json.dumps({**spec, "feed_name": "NEW"}))
    (tmp_path / "in.csv").write_text("t_us,px\n1786253022196708,1.5\n")

    def words(name: str, *more: str) -> list[str]:
        base = [] if name in WITHOUT_STORE else ["--base-path", str(store)]
        return [name, *SHOWS[name].format(tmp=tmp_path).split(), *more, *base]

    return words


@pytest.mark.parametrize("name", sorted(SHOWS))
def test_json_is_json_and_nothing_else(name: str, words_of: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words_of(name, "--json")) in ({0, 1} if name in TROUBLE else {0})
    out, said = capfd.readouterr()
    assert said == ""
    if name in ("query", "trades", "tail", "head", "replay"):
        assert all(isinstance(json.loads(line), dict) for line in out.splitlines()) and out
    else:
        assert isinstance(json.loads(out), (dict, list))


TABLES = ["feeds", "status", "gaps", "snapshots", "query", "trades", "tail", "head", "replay", "import"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("columns", [45, 80])
def test_tables_fit_the_terminal_and_say_what_had_no_room(
    name: str, columns: int, words_of: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    titles = {}
    for width in (200, columns):
        monkeypatch.setenv("COLUMNS", str(width))
        words = words_of(name)
        if name == "import":
            words.append("--dry-run")
        assert cli.main(words) in ({0, 1} if name in TROUBLE else {0})
        out, said = capfd.readouterr()
        is_table = {"import": lambda line: line.startswith("  ")}.get(name, bool)
        lines = [line for line in (said if name == "import" else out).splitlines() if is_table(line)]
        titles[width] = lines[0].split()
        if width == columns and name != "gaps":  # it begins with a sentence
            assert max(map(len, lines)) <= columns, lines
    if name not in ("gaps", "replay", "import") and len(titles[columns]) < len(titles[200]):
        assert "no room for" in said


@pytest.mark.parametrize("name", ["verify", "repair", "export", "import"])
def test_long_work_shows_how_far_it_is(
    name: str, words_of: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Bar, "show", lambda self, *progress: shown.append(progress))
    assert cli.main(words_of(name)) == 0
    capfd.readouterr()
    assert shown and all(done <= (total or done) for _, done, total, *_ in shown)
    assert shown[-1][1] == shown[-1][2]
