"""What holds of every command: exit codes, one line of trouble, streams that are closed, full or odd."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cli_kit import COMMAND, ROOT, START_US, TICKS_SPEC, Kept, deepwater, environment, make_ticks, one_line

from deepwater import Platform, cli
from deepwater.cli import arguments, entry, failures
from processes import run_python

COMMANDS = sorted(arguments.parsers())
FORMATS = ["table", "csv", "json", "parquet", "arrow"]


# --- help ------------------------------------------------------------------------------------------------


def test_help_loads_not_even_numpy() -> None:
    done = run_python("""
        import sys
        from deepwater.cli import main
        from deepwater.cli.arguments import parsers
        assert main(["--help"]) == 0 and main(["feeds", "--nope"]) == 2
        assert all(main([name, "--help"]) == 0 for name in parsers())
        assert main(["completion", "bash"]) == 0 and main(["completion", "--complete", "query", ""]) == 0
        heavy = {"numpy", "pandas", "pyarrow", "filelock", "websockets", "msgspec", "rich", "asyncio", "mmap"}
        assert not heavy & {name.partition(".")[0] for name in sys.modules}, sorted(sys.modules)
        print("light")
    """)
    assert done.stdout.endswith("light\n")


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS), ["record", "coinbase"]])
def test_every_command_has_help_with_an_example(words: list[str]) -> None:
    text = deepwater(*words, "--help").stdout
    assert text.startswith("usage: deepwater")
    assert "example:\n  deepwater " in text or not words
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("  deepwater"))


def test_the_command_list_names_them_all() -> None:
    text = deepwater("--help").stdout
    assert all(f"\n    {command} " in text for command in COMMANDS)


def test_the_version_is_the_packages() -> None:
    import deepwater as package

    assert deepwater("--version").stdout == f"deepwater {package.__version__}\n"


def test_the_console_script_is_this_entry_point() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"deepwater": "deepwater.cli:main"}
    assert cli.main(["--version"]) == entry.main(["--version"]) == 0


# --- exit codes and what is said -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "", "nope", "feeds --nope", "info", "query", "query X --format xml", "query X --limit -1",
        "query X --limit 1.5", "query X --limit many", "query X --lim 3", "query X --base-path ''",
        "create", "create a.json --spec b.json",
        "tail", "tail X -n -1", "tail X -n 1.5", "tail X --format parquet",
        "tail X --timeout 3", "tail X --wait spin", "tail X -f --wait nap", "tail X -f --timeout 0",
        "tail X -n 3 --start now", "tail X --start now --snapshot", "tail X Y", "tail X --limit few",
        "snapshots", "resize X", "resize X 0", "resize X -5", "resize X 12x", "resize X 1.5MiB", "resize X ''",
        "rings all", "rings clean --yes", "rings clean --all --base-path x",
        "delete", "delete X", "delete X Y", "delete --yes", "bench --records 5", "schema", "schema X --format xml",
        "completion", "completion csh", "head X -n -1", "head X --start now",
        "replay", "replay X --speed 0", "replay X --last 5m --start now", "replay X --timeout 3",
        "replay X --format csv", "replay X X",
        "record", "record kraken", "record coinbase", "record coinbase --product BTC-USD --duration -1",
        "demo --seconds 0", "demo --seconds 1", "demo --seconds nan",
        "book --depth 0", "book --interval nan", "book --at now --depth 3", "book X",
        "exchange --port 70000", "exchange --rate 0", "exchange --speed 2", "exchange --tape a.gz --product BTC-USD",
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_and_exit_2(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPWATER_HOME", "/nonexistent/store")
        assert cli.main(shlex.split(line)) == 2
    out, said = capfd.readouterr()
    assert out == ""
    assert one_line(said).startswith("deepwater") and "--help)" in said


@pytest.mark.parametrize("words", [["feeds", "--nope"], ["import", "a", "b", "c"], ["import"], ["tail", "X", "--rows"]])
def test_a_wrong_line_of_a_command_points_to_the_help_of_that_command(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    said = one_line(capfd.readouterr().err)
    assert said.startswith(f"deepwater {words[0]}: error: ") and said.endswith(f"(deepwater {words[0]} --help)")


@pytest.mark.parametrize("words", [["feeds"], ["info", "TICKS"], ["gaps", "TICKS"], ["status"], ["verify"], ["repair"],
                                   ["snapshots", "ODD"], ["prune", "--dry-run"], ["rings"]])  # fmt: skip
def test_json_of_a_command_is_one_line(words: list[str], kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--json", "--base-path", str(kept.path)]) == (words[0] == "gaps")
    json.loads(one_line(capfd.readouterr().out))


def test_one_is_one_in_words(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No command says "1 records"."""
    with Platform(tmp_store) as dw:
        dw.create_feed({**TICKS_SPEC, "retain": {"bytes": 10**9}})
        dw.write("TICKS", make_ticks(dw["TICKS"].dtype, 1))
        with dw.create_writer("TICKS") as writer:
            writer.mark_gap(1, reason="one")
        print(repr(dw["TICKS"]), repr(dw["TICKS"].read()), repr(dw["TICKS"].read(1, 2)))
    path, one = (str(tmp_store.parent / name) for name in ("a.csv", "one.csv"))
    Path(one).write_text(f"t_us,n\n{START_US},1\n")
    for line in ("feeds", "info TICKS", "status", "gaps", "verify", "repair", "prune", "head TICKS", "query TICKS",
                 "query TICKS --end 1971", f"export TICKS -o {path}", f"import {path} TICKS", f"import {one} ONE",
                 f"import {one} ONE --dry-run", "delete ONE --yes"):  # fmt: skip
        words = line.split()
        assert cli.main([*words, "--base-path", str(tmp_store)]) == (words[0] == "gaps"), words
    out, said = capfd.readouterr()
    assert "1 record" in out
    assert not re.findall(r"(?<![\d.,:])1 (?:record|row|gap|chunk|feed|file|span|column|slice|snapshot|mark)s\b",
                          out + said), out + said  # fmt: skip
    assert "positions 0 to 0" not in out


def test_a_failure_is_one_line_and_exit_1(kept: Kept) -> None:
    done = deepwater("info", "TICKZ", "--base-path", kept.path, code=1)
    assert done.stdout == ""
    assert one_line(done.stderr) == f"deepwater: error: no feed 'TICKZ' in {kept.path}; did you mean 'TICKS'?"


@pytest.mark.parametrize(
    "words",
    [["feeds"], ["info", "X"], ["query", "X"], ["tail", "X"], ["snapshots", "X"], ["resize", "X", "1MiB"],
     ["delete", "X", "--yes"], ["replay", "X"], ["prune"]],
)  # fmt: skip
def test_an_error_of_the_system_says_where(words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("no store")
    assert cli.main([*words, "--base-path", str(file)]) == 1
    assert one_line(capfd.readouterr().err) == f"deepwater: error: {file}: Not a directory"


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["info", "X", "--json"], 1, "FeedNotFoundError"),
        (["query", "TICKS", "--json", "--start", "soon"], 1, "TimeFormatError"),
        (["query", "TICKS", "--format", "json", "--clock", "price"], 1, "RecordError"),
        (["query", "TICKS", "--format=json", "--limit", "x"], 2, "UsageError"),
        (["feeds", "--json", "--nope"], 2, "UsageError"),
        (["query", "TICKS", "--json", "--format", "csv"], 2, "UsageError"),
        (["tail", "TICKS", "--json", "--format", "csv"], 2, "UsageError"),
        (["tail", "TICKS", "-f", "--json", "--snapshot"], 1, "NoSnapshotError"),
        (["delete", "TICKS", "--json"], 2, "UsageError"),
        (["replay", "TICKS", "NONE", "--json"], 1, "FeedNotFoundError"),
    ],
)
def test_with_json_an_error_is_json_too(
    words: list[str], code: int, kind: str, kept: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--base-path", str(kept.path), *words]) == code
    out, said = capfd.readouterr()
    error = json.loads(one_line(said))["error"]
    assert out == ""
    assert error["type"] == kind and error["message"]


def test_the_parts_of_an_error_are_in_the_json(kept: Kept) -> None:
    done = deepwater("info", "TICKZ", "--json", "--base-path", kept.path, code=1)
    assert json.loads(done.stderr)["error"]["feed"] == "TICKZ"


@pytest.mark.parametrize(
    ("raised", "code"), [(ZeroDivisionError("oh"), 1), (KeyboardInterrupt(), 130), (MemoryError(), 1)]
)
def test_whatever_is_raised_there_is_no_traceback(
    raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from deepwater.cli import store

    def fail(args: object) -> int:
        raise raised

    monkeypatch.setattr(store, "feeds", fail)
    monkeypatch.delenv("DEEPWATER_DEBUG", raising=False)
    assert cli.main(["feeds"]) == code
    said = capfd.readouterr().err
    assert "Traceback" not in said
    if isinstance(raised, ZeroDivisionError):
        assert one_line(said) == "deepwater: error: unexpected ZeroDivisionError: oh; DEEPWATER_DEBUG=1 shows where"
    monkeypatch.setenv("DEEPWATER_DEBUG", "1")
    assert cli.main(["feeds"]) == code
    assert "Traceback" in capfd.readouterr().err


def test_a_message_is_one_line_that_a_terminal_does_not_act_on() -> None:
    text = failures.message(OSError(2, "No such\nfile", "a\x1b[2Jb"))
    assert text == r"a\x1b[2Jb: No such file"


# --- where the store is ----------------------------------------------------------------------------------


def test_the_store_is_the_base_path_then_the_variable_then_here(kept: Kept, tmp_path: Path) -> None:
    elsewhere = {"DEEPWATER_HOME": str(tmp_path / "nothing")}
    assert "TICKS" in deepwater("feeds", "--base-path", kept.path, env=elsewhere).stdout
    assert "TICKS" in deepwater("--base-path", kept.path, "feeds", env=elsewhere).stdout
    assert "TICKS" in deepwater("feeds", env={"DEEPWATER_HOME": str(kept.path)}).stdout
    (tmp_path / "platform_data").symlink_to(kept.path)
    assert "TICKS" in deepwater("feeds", cwd=tmp_path).stdout
    done = deepwater("feeds", env=elsewhere)
    assert done.stdout == "" and f"no feeds in {tmp_path / 'nothing'}" in one_line(done.stderr)
    assert not (tmp_path / "nothing").exists()


# --- streams ---------------------------------------------------------------------------------------------


def _reader_gone(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command whose stdout nobody reads any more."""
    receiving, sending = os.pipe()
    os.close(receiving)
    try:
        return deepwater(*words, stdout=sending)
    finally:
        os.close(sending)


@pytest.mark.parametrize("form", FORMATS)
def test_a_closed_pipe_is_quiet(form: str, kept: Kept) -> None:
    done = _reader_gone("query", "TICKS", "--format", form, "--base-path", kept.path)
    assert "error" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["feeds"], ["info", "TICKS"], ["feeds", "--json"], ["tail", "TICKS"],
     ["tail", "TICKS", "--json"], ["tail", "TICKS", "-f", "--format", "csv"], ["tail", "EMPTY", "-f", "--json"],
     ["snapshots", "TICKS", "--json"], ["replay", "TICKS", "ODD"], ["replay", "TICKS", "--json"]],
)  # fmt: skip
def test_a_closed_pipe_is_quiet_for_little_text_too(words: list[str], kept: Kept) -> None:
    assert _reader_gone("--base-path", kept.path, *words).stderr == ""


def test_head_gets_its_lines_and_all_is_well(kept: Kept) -> None:
    command = [*COMMAND, "query", "TICKS", "--format", "csv", "--limit", "99999999", "--base-path", str(kept.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"side,good,")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["feeds"],
        ["info", "TICKS"],
        *(["query", "TICKS", "--format", form] for form in FORMATS),
        *(["tail", "TICKS", "-f", "--format", form] for form in FORMATS[:3]),
        ["snapshots", "TICKS", "--json"],
        ["replay", "TICKS", "ODD"],
        ["replay", "TICKS", "--json"],
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_one_line(words: list[str], unbuffered: str, kept: Kept) -> None:
    with open("/dev/full", "wb") as full:
        env = {"PYTHONUNBUFFERED": unbuffered}
        done = deepwater("--base-path", kept.path, *words, code=1, env=env, stdout=full)
    said = one_line(done.stderr)
    as_json = {"json", "--json"} & {*words}
    message = json.loads(said)["error"]["message"] if as_json else said.removeprefix("deepwater: error: ")
    assert message == "stdout: No space left on device"


@pytest.mark.parametrize("words", [["--help"], ["feeds"], ["query", "TICKS"]])
def test_a_closed_stdout_is_one_line(words: list[str], kept: Kept) -> None:
    close = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", close, *COMMAND[1:], "--base-path", str(kept.path), *words]
    done = subprocess.run(command, stderr=subprocess.PIPE, env=environment(), check=False, text=True)
    assert done.returncode == 1
    assert one_line(done.stderr) == "deepwater: error: stdout: it is closed"


def test_without_stderr_the_exit_code_still_tells(kept: Kept) -> None:
    close = "import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", close, *COMMAND[1:], "--base-path", str(kept.path), "info", "X"]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_terminal_will_do(encoding: str, kept: Kept) -> None:
    env = {"PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = deepwater("query", "ODD", "--base-path", kept.path, "--columns", "name", env=env, text=False)
    shown = "\xe9t\xe9".encode(encoding, "backslashreplace")
    assert shown in done.stdout and b"\x1b" not in done.stdout
    csv = deepwater("query", "ODD", "--base-path", kept.path, "--format", "csv", env=env, text=False)
    assert "\xe9t\xe9".encode() in csv.stdout  # data is UTF-8 everywhere


@pytest.mark.parametrize("columns", ["1", "0", "-5", "x", "40", "100000"])
@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["query", "--help"],
        ["feeds"],
        ["info", "TICKS"],
        ["query", "TICKS"],
        ["query", "ODD", "--limit", "2"],
        ["tail", "TICKS"],
        ["tail", "ODD", "-f", "--limit", "6"],
        ["replay", "TICKS", "ODD", "--limit", "300"],
        ["replay", "ODD"],
        ["trades", "--feed", "TICKS"],
        ["head", "ODD"],
        ["snapshots", "TICKS"],
    ],
)
def test_any_width_of_the_terminal_will_do(
    words: list[str], columns: str, kept: Kept, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["--base-path", str(kept.path), *words]) == 0
    out = capfd.readouterr().out
    assert out
    if columns == "40" and "--help" not in words and words[0] != "info":
        assert max(map(len, out.splitlines())) <= 40


def test_a_word_that_is_no_utf8_is_refused_in_words(kept: Kept) -> None:
    done = subprocess.run(
        [*COMMAND, "info", b"\xff", "--base-path", str(kept.path)],
        capture_output=True, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"feed name" in done.stderr and b"Traceback" not in done.stderr


# --- the package -----------------------------------------------------------------------------------------


def test_a_module_of_the_package_imports_only_from_its_left() -> None:
    import ast

    diagram = " ".join(line for line in (cli.__doc__ or "").splitlines() if "->" in line)
    line = diagram.replace("->", " ").split()
    for path in (ROOT / "deepwater" / "cli").glob("[!_]*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deepwater.cli"):
                parts = node.module.split(".")[2:] or [alias.name for alias in node.names]
                assert all(line.index(part) < line.index(path.stem) for part in parts), (path.stem, parts)


@pytest.mark.parametrize("loaded", ["datetime", "deepwater.cli.entry"])
def test_ctrl_c_while_modules_are_loaded_is_an_end_without_a_word(loaded: str) -> None:
    """NumPy loads `datetime` from C, and makes an ImportError of whatever is raised there."""
    done = run_python(
        """
        import os, signal, sys
        class Interrupts:
            def find_spec(self, name, path=None, target=None):
                if name == sys.argv[1] and ("numpy" in sys.modules or name != "datetime"):
                    sys.meta_path.remove(self)
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Interrupts())
        from deepwater.cli import main
        code = main(["feeds", "--base-path", "no-store"])
        assert not any(isinstance(finder, Interrupts) for finder in sys.meta_path), "it was loaded before"
        sys.exit(code)
        """,
        loaded, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
