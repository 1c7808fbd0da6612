"""The command dashboard as a process: on a pipe, on terminals good and bad, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_kit import COMMAND, deepwater, environment, first_line, started

from deepwater import Platform, cli

MARKET = ["--port", "0", "--rate", "100", "--duration", "200", "--depth", "40"]
DEADLINE_S = 60


def test_on_a_pipe_it_records_and_prints_plain_lines(tmp_store: Path) -> None:
    with started("exchange", *MARKET) as exchange:
        words = ["--uri", first_line(exchange), "--product", "BTC-USD,ETH-USD", "--base-path", tmp_store]
        with started("dashboard", *words, "--interval", "0.2") as shown:
            assert shown.stdout is not None and shown.stderr is not None
            wanted = re.compile(
                r"\d\d:\d\d:\d\d recording 2 products \| BTC-USD [\d,.]+, [\d,.]+ trades/s, [\d,.]+ levels/s "
                r"\| book [\d,.]+ / [\d,.]+ \| 0 gaps, 0 reconnects \| receive to publish p99 <= .*\| .* left\n"
            )
            while not wanted.fullmatch(line := shown.stdout.readline()):
                assert line
            assert "\x1b" not in line
            shown.send_signal(signal.SIGINT)
            shown.communicate(timeout=DEADLINE_S)
            assert shown.returncode == 130
        done = deepwater("dashboard", "--base-path", tmp_store, "--json", "--duration", "1.2")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) >= 2 and done.stderr == ""
    with Platform(tmp_store) as dw:
        for row in found[-1]["products"]:
            names = [f"CB-L2-{row['product']}", f"CB-TRADES-{row['product']}"]
            assert row["records"] == sum(len(dw[name]) for name in names) > 0
            assert row["state"] == "ended" and all(dw.describe_feed(name)["writer"] is None for name in names)
    assert found[-1]["book"]["valid"] and found[-1]["recorders"][0]["state"] == "ended"
    assert found[-1]["latency_us"]["receive_to_publish"]["p99"] > 0


@pytest.mark.parametrize(("form", "number"), [("--plain", signal.SIGTERM), ("--json", signal.SIGHUP)])
def test_a_signal_ends_lines_well_and_nothing_is_left(form: str, number: int, tmp_store: Path) -> None:
    with started("exchange", *MARKET) as exchange:
        words = ["--uri", first_line(exchange), "--product", "BTC-USD", "--base-path", tmp_store]
        with started("dashboard", form, *words, "--interval", "0.1") as shown, Platform(tmp_store) as dw:
            assert shown.stdout is not None and shown.stderr is not None
            while not re.search(r"BTC-USD [\d,.]+, |\"price\": [\d.]+", line := shown.stdout.readline()):
                assert line
            child = dw.describe_feed("CB-L2-BTC-USD")["writer"]["pid"]
            assert child != shown.pid
            shown.send_signal(number)
            said = shown.communicate(timeout=DEADLINE_S)[1]
            assert (shown.returncode, "Traceback" in said) == (0, False)
            assert said.endswith("all that was received is being flushed\n") or form == "--json"
            assert not os.path.exists(f"/proc/{child}")
            for name in ("CB-L2-BTC-USD", "CB-TRADES-BTC-USD"):
                about = dw.describe_feed(name)
                assert about["writer"] is None and about["durable"] == about["records"] > 0 and about["gaps"] == 0


def test_who_ignores_a_hangup_goes_on(tmp_store: Path) -> None:
    """As `nohup` does."""
    ignoring = [sys.executable, "-c", "import os, signal, sys; signal.signal(1, signal.SIG_IGN);"
                "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"]  # fmt: skip
    words = [*ignoring, *COMMAND[1:], "dashboard", "--json", "--interval", "0.1", "--base-path", str(tmp_store)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment(), text=True) as shown:
        first_line(shown)
        shown.send_signal(signal.SIGHUP)
        for _ in range(3):
            assert first_line(shown)
        shown.send_signal(signal.SIGTERM)
        shown.communicate(timeout=DEADLINE_S)
    assert shown.returncode == 0


def test_a_store_that_is_not_there_and_a_reader_that_goes_away(tmp_store: Path) -> None:
    done = deepwater("dashboard", "--base-path", tmp_store, "--duration", "0.1")
    assert done.stdout.endswith(f"not recording; no store at {tmp_store} yet\n")
    assert not tmp_store.exists()
    with started("dashboard", "--base-path", tmp_store, "--interval", "0.1") as shown:
        first_line(shown)
        assert shown.stdout is not None and shown.stderr is not None
        shown.stdout.close()
        assert shown.wait(DEADLINE_S) == 0 and shown.stderr.read() == ""


def test_what_cannot_be_is_one_line(tmp_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, said in (
        (["--product", "a/b"], 2, "products are as BTC-USD"),
        (["--product", "A,A"], 1, "named twice"),
        (["--interval", "0"], 2, "seconds above 0"),
        (["--venue", "nowhere"], 1, "expected one of coinbase, kraken"),
        (["--venue", "kraken", "--product", "BTC"], 1, "product 'BTC' is not allowed"),
    ):
        assert cli.main(["dashboard", *words, "--base-path", str(tmp_store), "--plain", "--duration", "1"]) == code
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1


# --- terminals -------------------------------------------------------------------------------------------


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, *words: object, command: Sequence[str] = COMMAND, **env: str) -> None:
        self.master, slave = pty.openpty()
        os.set_inheritable(slave, True)
        self.process = subprocess.Popen(
            [*command, "dashboard", *map(str, words)], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env=environment(**{"TERM": "xterm", "COLUMNS": "80", "LINES": "24", **env}),
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def shows(self, words: bytes) -> None:
        """Wait until these words have been written."""
        end = time.monotonic() + DEADLINE_S
        while words not in self.seen:
            assert time.monotonic() < end, self.seen[-2000:]
            self.read()

    def read(self) -> None:
        if select.select([self.master], [], [], 0.1)[0]:
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:  # nobody has it open any more
                assert self.process.wait(DEADLINE_S) is not None

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        """Wait for its end, and return the exit code."""
        end = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, self.seen[-2000:]
            self.read()
        for _ in range(5):
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:
                    break
        return self.process.returncode


@contextmanager
def terminal(*words: object, command: Sequence[str] = COMMAND, **env: str) -> Iterator[Terminal]:
    opened = Terminal(*words, command=command, **env)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.master)


LEFT = b"\x1b[?1049l"  # the alternate screen is left: the terminal is as it was


def test_in_a_terminal_it_draws_obeys_and_gives_the_terminal_back(tmp_store: Path) -> None:
    with started("exchange", *MARKET) as exchange:
        words = ["--uri", first_line(exchange), "--product", "BTC-USD", "--base-path", tmp_store]
        with terminal(*words) as shown:
            shown.shows(b"1 connection up")
            shown.shows("│".encode())
            shown.type(b"q\r")
            assert shown.end() == 0
            assert LEFT in shown.seen and b"Traceback" not in shown.seen
            assert b"all that was received is being flushed" in shown.seen.partition(LEFT)[2]
    with Platform(tmp_store) as dw:
        assert len(dw["CB-L2-BTC-USD"]) and dw.describe_feed("CB-L2-BTC-USD")["writer"] is None


def test_lines_that_come_at_once_are_done_one_by_one(tmp_store: Path) -> None:
    """As they do from a paste, a script, a fast hand: no key of one is taken for the other's."""
    with terminal("--base-path", tmp_store, "--uri", "ws://127.0.0.1:1") as shown:
        shown.shows(b"none yet")
        shown.type(b"sub BTC-USD\rsub ETH-EUR\runs\tet\t\rsubs\r")
        shown.shows(b"subscribed: BTC-USD (not recorded)")
        shown.type(b"q\r")
        assert shown.end() == 0


def test_a_line_without_end_keeps_nobody_busy_and_is_no_command(tmp_store: Path) -> None:
    """As a text that is pasted by mistake; what is typed after it is done."""
    with terminal("--base-path", tmp_store, "--uri", "ws://127.0.0.1:1") as shown:
        shown.shows(b"none yet")
        for _ in range(4):
            shown.type(b"sub BTC-USD " * 50)
            shown.read()
        shown.type(b"\rnonsense\r")
        shown.shows(b"at most 1000 letters: nothing was done")
        shown.shows(b"no command 'nonsense'")
        shown.type(b"q\r")
        assert shown.end() == 0


def test_it_ends_where_the_terminal_is_gone_and_what_was_recorded_is_whole(tmp_store: Path) -> None:
    """Without a signal, and with more to draw than is waited for."""
    with started("exchange", *MARKET) as exchange:
        words = ["--uri", first_line(exchange), "--product", "BTC-USD", "--base-path", tmp_store]
        with terminal(*words) as shown:
            shown.shows(b"1 connection up")
            shown.type(b"help\r" * 100)
            os.close(shown.master)
            shown.master = os.open(os.devnull, os.O_RDONLY)
            assert shown.process.wait(DEADLINE_S) == 0
    with Platform(tmp_store) as dw:
        about = dw.describe_feed("CB-L2-BTC-USD")
        assert about["records"] and about["writer"] is None and about["durable"] == about["records"]


CRASH = """
    import sys
    from deepwater.apps.dashboard import panels
    from deepwater.cli import main
    whole = panels.status
    def status(view, width):
        if sum(row.records for row in view.products) > 500:
            raise ZeroDivisionError("a mistake")
        return whole(view, width)
    panels.status = status
    sys.exit(main(sys.argv[1:]))
"""


def test_a_mistake_in_it_is_one_line_and_what_was_recorded_is_whole(tmp_store: Path) -> None:
    with started("exchange", *MARKET) as exchange:
        words = ["--uri", first_line(exchange), "--product", "BTC-USD", "--base-path", tmp_store]
        with terminal(*words, command=[sys.executable, "-W", "error", "-c", textwrap.dedent(CRASH)]) as shown:
            assert shown.end() == 1
    said = shown.seen.partition(LEFT)[2]
    assert b"Traceback" not in shown.seen and "╭".encode() not in said
    assert b"deepwater: error: unexpected ZeroDivisionError: a mistake" in said
    with Platform(tmp_store) as dw:
        about = dw.describe_feed("CB-L2-BTC-USD")
        assert about["records"] and about["writer"] is None and about["durable"] == about["records"]


@pytest.mark.parametrize(("number", "no_colour"), [(signal.SIGTERM, ""), (signal.SIGHUP, "1")])
def test_a_signal_ends_it_and_gives_the_terminal_back(number: int, no_colour: str, tmp_store: Path) -> None:
    """And there is colour, or none with NO_COLOR."""
    with terminal("--base-path", tmp_store, **({"NO_COLOR": no_colour} if no_colour else {})) as shown:
        shown.shows(b"none yet")
        shown.process.send_signal(number)
        assert shown.end() == 0 and LEFT in shown.seen
    styles = re.findall(rb"\x1b\[([0-9;]*)m", shown.seen)
    hues = {hue for codes in styles for hue in re.findall(rb"[34]8;2;(\d+);(\d+);(\d+)", codes)}
    named = [codes for codes in styles if re.search(rb"(^|;)[34][1-6]($|;)", codes)]
    has_colour = bool(named) or any(len(set(hue)) > 1 for hue in hues)
    assert styles and has_colour == (not no_colour)


def test_a_terminal_that_can_do_no_more_gets_plain_lines(tmp_store: Path) -> None:
    with terminal("--base-path", tmp_store, TERM="dumb") as shown:
        shown.shows(b"not recording; no store at")
        shown.type(b"\x03")  # no session of a shell: the signal is sent below
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == 130
    assert b"\x1b" not in shown.seen and b"Traceback" not in shown.seen


def test_lines_have_an_interval_and_a_terminal_has_none(tmp_store: Path) -> None:
    with terminal("--base-path", tmp_store, "--interval", "1") as shown:
        assert shown.end() == 2
    assert b"--interval and --duration are of plain lines" in shown.seen
