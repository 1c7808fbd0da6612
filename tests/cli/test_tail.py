"""tail: the newest records, then those that come, with nothing lost or repeated between; and how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import START_US, TICKS_SPEC, Kept, deepwater, first_line, make_ticks, one_line, started

from deepwater import Platform, cli
from deepwater.timestamps import format_us
from deepwater.writer import Writer
from processes import Worker

IDS = ["--columns", "trade_id"]
BOOK_SPEC = {**TICKS_SPEC, "feed_name": "BOOK", "index_playback": True}


def run(capfd: pytest.CaptureFixture[str], kept: Kept, *words: object) -> tuple[list[str], str]:
    assert cli.main(["tail", *map(str, words), "--base-path", str(kept.path)]) == 0
    out, said = capfd.readouterr()
    return out.splitlines(), said


@contextmanager
def ticking(store: Path) -> Iterator[Writer]:
    """A writer of a new feed TICKS; not a fixture, which pytest would keep until after the search for leaks."""
    with Platform(store) as dw:
        dw.create_feed(TICKS_SPEC)
        with dw.create_writer("TICKS") as writer:
            yield writer


def write(writer: Writer, first: int, rows: int = 1) -> None:
    """Write ticks with the ids ``first, first + 1, …``."""
    ticks = make_ticks(writer.layout.dtype, rows)
    ticks["trade_id"] = np.arange(first, first + rows)
    writer.write_batch(ticks)


def following(store: Path, *words: object, **options: Any) -> Any:
    return started("tail", "TICKS", "-f", *words, *IDS, "--json", "--base-path", store, **options)


def next_id(process: subprocess.Popen[str]) -> int:
    return int(json.loads(first_line(process))["trade_id"])


# --- what is there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "first", "rows"),
    [
        ([], -10, 10), (["-n", "3"], -3, 3), (["-n3"], -3, 3), (["--rows", "0"], 0, 0), (["-n", "99999"], 0, 5000),
        (["-n", "1500"], -1500, 1500), (["-n", "100", "--limit", "7"], -100, 7), (["--limit", "0"], 0, 0),
        (["--start", str(START_US + 4_990_500)], -9, 9), (["--start", format_us(START_US + 4_999_000)], -1, 1),
        (["--start", "2026-08-09T05:23:47"], -196, 196), (["--start", "2026", "--limit", "10000"], 0, 5000),
        (["--start", "-15min"], 0, 0), (["--start", "2026-08-09", "--limit", "1"], 0, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("follow", [[], ["-f", "--timeout", "0.01"], ["-f", "--timeout", "0.01", "--wait", "spin"]])
def test_which_records(
    words: list[str], first: int, rows: int, follow: list[str], kept: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    lines, _ = run(capfd, kept, "TICKS", *words, *follow, "--format", "csv", *IDS)
    ids = kept.ticks["trade_id"]
    wanted = ids[first if first >= 0 else len(ids) + first :][:rows].tolist()
    assert lines == ["trade_id", *map(str, wanted)]


@pytest.mark.parametrize("feed", ["TICKS", "ODD"])
@pytest.mark.parametrize("form", ["json", "csv"])
def test_the_lines_are_those_of_query(form: str, feed: str, kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    tailed, said = run(capfd, kept, feed, "-n", "2000", "--format", form)
    assert cli.main(["query", feed, "--last", "2000", "--format", form, "--base-path", str(kept.path)]) == 0
    assert tailed == capfd.readouterr().out.splitlines() and said == ""


def test_json_is_short_for_a_format(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, kept, "ODD", "--json") == run(capfd, kept, "ODD", "--format", "json")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["EMPTY"], "feed EMPTY is empty"),
        (["TICKS", "--start", "2030"], f"feed TICKS covers {format_us(START_US)} to "),
        (["TICKS", "--start", str(START_US * 1000)], "looks like nanoseconds"),
    ],
)
def test_no_row_is_an_answer_with_a_reason(
    words: list[str], why: str, kept: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    lines, said = run(capfd, kept, *words)
    assert why in one_line(said) and [line.split()[0] for line in lines] == ["proc_us"]
    assert run(capfd, kept, *words, "--json") == ([], "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--start", "soon"], "a time is 2026-08-09"), (["--start", ""], "a time is"),
        (["--start", "1786253022"], "15 to 20 digits of us"), (["--columns", "pric"], "did you mean 'price'"),
        (["--columns", ""], "columns are"), (["--snapshot"], "made without index_playback"),
        (["-f", "--snapshot"], "made without index_playback"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(words: list[str], said: str, kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tail", "TICKS", *words, "--base-path", str(kept.path)]) == 1
    out, text = capfd.readouterr()
    assert out == "" and said in one_line(text)


# --- snapshots -------------------------------------------------------------------------------------------


def test_it_begins_at_the_latest_complete_snapshot(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(BOOK_SPEC)
        with dw.create_writer("BOOK") as writer:
            ticks = make_ticks(writer.layout.dtype, 2000)
            words = ["tail", "BOOK", "--snapshot", *IDS, "--format", "csv", "--base-path", str(tmp_store)]
            writer.write_batch(ticks[:5])
            assert cli.main(words) == 1
            assert "no complete snapshot" in one_line(capfd.readouterr().err)
            # With -f it will do with what comes.
            assert cli.main([*words, "-f", "--timeout", "0.01"]) == 0
            out, said = capfd.readouterr()
            assert out == "trade_id\n" and "no complete snapshot yet" in one_line(said)
            writer.write_batch(ticks[5:1005], create_index=True)
            writer.write_batch(ticks[1005:])
        for follow in ([], ["-f", "--timeout", "0.01"]):
            assert cli.main([*words, *follow]) == 0
            out, said = capfd.readouterr()
            assert out.split() == ["trade_id", *map(str, ticks["trade_id"][5:].tolist())] and said == ""


# --- what comes ------------------------------------------------------------------------------------------


def test_nothing_is_lost_or_repeated_between_history_and_live(tmp_store: Path) -> None:
    """Another process writes all the time, across many chunks."""
    code = """
        import random, select, sys
        import numpy as np
        from deepwater import Platform
        rng = random.Random(1)
        with Platform(sys.argv[1]) as dw, dw.create_writer("TICKS") as writer:
            number = 0
            while not select.select([sys.stdin], [], [], 0)[0]:
                rows = rng.choice((1, 1, 2, 30))
                ticks = np.zeros(rows, writer.layout.dtype)
                ticks["trade_id"] = np.arange(number, number + rows)
                ticks["proc_us"] = np.arange(number, number + rows)
                ticks["side"] = b"B"
                writer.write_batch(ticks)
                number += rows
                if number == rows:
                    print("writing", flush=True)
    """
    with Platform(tmp_store) as dw:
        dw.create_feed(TICKS_SPEC)
        with Worker(code, tmp_store) as worker, dw["TICKS"] as reader:
            assert worker.readline() == "writing"
            for back in (0, 500):
                before = int(reader.end)
                words = ["-f", "-n", back, "--limit", 20_000, "--format", "csv", "--base-path", tmp_store]
                ids = [int(word) for word in deepwater("tail", "TICKS", *words, *IDS).stdout.split()[1:]]
                assert ids == list(range(ids[0], ids[0] + 20_000))
                assert ids[0] >= max(0, before - back)
            worker.finish()


def test_each_record_is_there_at_once(tmp_store: Path) -> None:
    """The next is not written before the last was read: nothing waits for a buffer to fill."""
    with ticking(tmp_store) as writer:
        write(writer, 0, 3)
        with following(tmp_store, "-n", 2) as process:
            assert [next_id(process), next_id(process)] == [1, 2]
            for number in range(3, 40):
                write(writer, number)
                assert next_id(process) == number


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_an_empty_feed_is_waited_for(form: str, tmp_store: Path) -> None:
    words = ["tail", "TICKS", "-f", *IDS, "--format", form, "--base-path", tmp_store]
    with ticking(tmp_store) as writer, started(*words) as process:
        if form == "csv":
            assert first_line(process) == "trade_id"
        elif form == "table":
            assert process.stderr is not None
            assert process.stderr.readline() == "feed TICKS is empty: waiting for its first record\n"
        write(writer, 77)
        wanted = {"table": ["trade_id", "77"], "csv": ["77"], "json": ['{"trade_id": 77}']}[form]
        assert [first_line(process) for _ in wanted] == wanted


def test_it_ends_after_some_time_without_a_record(tmp_store: Path) -> None:
    with ticking(tmp_store) as writer:
        write(writer, 0, 3)
    done = deepwater("tail", "TICKS", "-f", "--timeout", "0.2s", *IDS, "--json", "--base-path", tmp_store)
    assert done.stdout.count("\n") == 3 and done.stderr == ""


def test_it_ends_at_the_limit_and_waits_for_no_more(tmp_store: Path) -> None:
    with ticking(tmp_store) as writer:
        write(writer, 0, 3)
        with following(tmp_store, "-n", 2, "--limit", 4) as process:
            assert [next_id(process), next_id(process)] == [1, 2]
            write(writer, 3, 9)
            out, said = process.communicate(timeout=60)
            assert [json.loads(line)["trade_id"] for line in out.splitlines()] == [3, 4]
            assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize("wait", ["auto", "spin", "wake"])
def test_ctrl_c_ends_it_with_130_and_not_a_word(wait: str, tmp_store: Path) -> None:
    with ticking(tmp_store) as writer:
        write(writer, 5)
    with following(tmp_store, "--wait", wait) as process:
        assert next_id(process) == 5
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
        assert (process.returncode, out, said) == (130, "", "")


@pytest.mark.parametrize("wait", ["auto", "spin", "wake"])
def test_when_nobody_reads_any_more_it_ends_though_nothing_comes(wait: str, tmp_store: Path) -> None:
    """`tail -f | head -1`: it does not wait for a record to notice."""
    with ticking(tmp_store) as writer:
        write(writer, 5)
    with following(tmp_store, "--wait", wait) as process:
        assert next_id(process) == 5
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_head_ends_a_tail_that_writes_all_the_time(kept: Kept) -> None:
    words = ["tail", "TICKS", "-f", "-n", "5000", "--json", "--base-path", kept.path]
    with (
        started(*words) as process,
        subprocess.Popen(["head", "-1"], stdin=process.stdout, stdout=subprocess.PIPE) as head,
    ):
        process.stdout.close()
        out, _ = head.communicate(timeout=60)
        assert json.loads(out)["trade_id"] == int(kept.ticks["trade_id"][0])
        assert process.wait(60) == 0 and process.stderr.read() == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_a_feed_that_is_deleted_meanwhile_is_one_line(as_json: bool, tmp_store: Path) -> None:
    with ticking(tmp_store) as writer:
        write(writer, 5)
    with Platform(tmp_store) as dw:
        words = ["--json"] if as_json else ["--format", "csv"]
        with started("tail", "TICKS", "-f", *IDS, *words, "--base-path", tmp_store) as process:
            assert [first_line(process) for _ in range(1 if as_json else 2)][-1] in ('{"trade_id": 5}', "5")
            dw.delete_feed("TICKS")
            out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    text = json.loads(one_line(said))["error"]["message"] if as_json else one_line(said)
    assert "feed 'TICKS' was deleted" in text


def test_what_a_ring_overwrote_is_said(tmp_store: Path) -> None:
    """The command is stopped while the ring goes round: it goes on with what is left, and says what is not."""
    spec = {**TICKS_SPEC, "persist": False, "chunk_size_bytes": 48 * 512}
    with Platform(tmp_store) as dw:
        dw.create_feed(spec)
        with dw.create_writer("TICKS") as writer:
            write(writer, 0)
            with following(tmp_store) as process:
                assert next_id(process) == 0
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
                for number in range(1, 3001, 100):
                    write(writer, number, 100)
                process.send_signal(signal.SIGCONT)
                first = next_id(process)
                assert [next_id(process) for _ in range(first + 1, 3001)] == list(range(first + 1, 3001))
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=60)
                assert process.returncode == 130
        dw.delete_feed("TICKS")
    assert first >= 3001 - 512
    what = f"deepwater: warning: feed TICKS: {first - 1:,} records lost (overwritten before they were read)"
    assert one_line(said) == what


# --- the table -------------------------------------------------------------------------------------------


def test_the_table_has_its_titles_once_and_its_columns_in_line(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    lines, said = run(capfd, kept, "TICKS", "-n", "1200")
    assert lines[0].split() == ["proc_us", "side", "price", "size", "good", "trade_id", "ev_us"] and said == ""
    sides = {b"B": "buy", b"S": "sell"}
    assert [line.split()[1] for line in lines[1:]] == [sides[side] for side in kept.ticks["side"][-1200:].tolist()]
    assert [line.split()[5] for line in lines[1:]] == [str(number) for number in kept.ticks["trade_id"][-1200:]]
    assert lines[-1].split()[0] == format_us(int(kept.ticks["proc_us"][-1]))
    assert len({line.index(".", 30) for line in lines[600:]}) == 1


def test_columns_do_not_jump_from_batch_to_batch(tmp_store: Path) -> None:
    words = ["--columns", "price,size", "--base-path", tmp_store]
    with ticking(tmp_store) as writer, started("tail", "TICKS", "-f", *words) as process:
        assert process.stdout is not None
        lines = []
        for price, size in ((1000.25, 0.5), (7.0, 0.12345678), (33.5, 2.0), (float("nan"), 1e-20)):
            ticks = np.zeros(1, writer.layout.dtype)
            ticks["price"], ticks["size"], ticks["side"] = price, size, b"B"
            writer.write_batch(ticks)
            lines += [process.stdout.readline() for _ in range(1 if lines else 2)]
    assert lines == [
        "  price  size\n",
        "1000.25   0.5\n",
        "   7.0   0.12345678\n",
        "  33.5   2.0\n",
        " nan     1e-20\n",
    ]


@pytest.mark.parametrize("columns", [40, 80])
def test_the_table_fits_the_terminal(
    columns: int, kept: Kept, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in (["TICKS", "-n", "3000"], ["ODD", "-f", "--limit", "6"]):
        lines, said = run(capfd, kept, *words)
        assert max(map(len, lines)) <= columns
        assert one_line(said).startswith("no room for ") and said.endswith(" (choose with --columns)\n")


def test_on_a_terminal_the_titles_come_with_each_page(kept: Kept) -> None:
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        words = ["tail", "TICKS", "-n", "50", "--base-path", str(kept.path)]
        done = deepwater(*words, stdout=slave)
        shown = b""
        while shown.count(b"\n") < 53:
            shown += os.read(master, 1 << 16)
    finally:
        os.close(slave)
        os.close(master)
    lines = shown.decode().splitlines()
    assert [number for number, line in enumerate(lines) if "trade_id" in line] == [0, 24, 47]
    assert len(lines) == 54 and max(map(len, lines)) <= 80
    assert one_line(done.stderr) == "no room for ev_us (choose with --columns)"
    assert lines[1] == "2026-08-09 UTC" and lines[2].split()[0] == format_us(int(kept.ticks["proc_us"][-50]))[11:26]


def test_a_day_has_a_line_of_its_own_and_times_of_another_day_are_whole(
    tmp_store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with ticking(tmp_store) as writer:
        ticks = make_ticks(writer.layout.dtype, 4)
        ticks["proc_us"] += np.array([0, 1, 86_400_000_000, 2**62], "u8")
        writer.write_batch(ticks)
    assert cli.main(["tail", "TICKS", "--columns", "proc_us,ev_us", "--base-path", str(tmp_store)]) == 0
    titles, first, *rows, last = capfd.readouterr().out.splitlines()
    proc, ev = ([format_us(int(us)) for us in ticks[name]] for name in ("proc_us", "ev_us"))
    assert (titles.split(), first) == (["proc_us", "ev_us"], "2026-08-09 UTC")
    assert [row.split() for row in rows] == [
        [proc[0][11:26], ev[0][11:26]], [proc[1][11:26], ev[1][11:26]],
        ["2026-08-10", "UTC"], [proc[2][11:26], ev[2]],
    ]  # fmt: skip
    assert last.split() == [proc[3], ev[3]] and not proc[3].endswith("Z")


# --- head, and lines of Python -----------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "rows"), [([], 10), (["-n", "3"], 3), (["-n", "0"], 0), (["--rows", "9999"], 5000)])
def test_head_is_the_beginning(words: list[str], rows: int, kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["head", "TICKS", *words, *IDS, "--format", "csv", "--base-path", str(kept.path)]) == 0
    assert capfd.readouterr().out.split()[1:] == list(map(str, kept.ticks["trade_id"][:rows].tolist()))


def test_head_of_an_empty_feed_is_an_answer_with_a_reason(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["head", "EMPTY", "--base-path", str(kept.path)]) == 0
    assert one_line(capfd.readouterr().err) == "no rows: feed EMPTY is empty"


@pytest.mark.parametrize(
    "words",
    [["tail"], ["tail", "-n", "3000", "--limit", "1500"], ["tail", "--start", "2026-08-09T05:23:47"],
     ["tail", "--columns", "price,side", "-n", "5"], ["head"], ["head", "-n", "3", "--columns", "size"]],
)  # fmt: skip
def test_the_code_hands_out_what_the_command_prints(
    words: list[str], kept: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [words[0], "TICKS", *words[1:], "--base-path", str(kept.path)]
    assert cli.main([*command, "--json"]) == 0
    printed = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert cli.main([*command, "--code"]) == 0
    names: dict[str, Any] = {}
    exec(capfd.readouterr().out, names)
    found = names["window"]
    assert list(found.columns) == list(printed[0]) and len(found) == len(printed) > 0
    name = "price" if "price" in printed[0] else "size"
    assert found[name].tolist() == [row[name] for row in printed]
    names["dw"].close()


@pytest.mark.parametrize("words", [[], ["--limit", "4"], ["--columns", "trade_id", "-n", "3"]])
def test_the_code_of_a_tail_follows(words: list[str], kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["tail", "TICKS", "-f", "--timeout", "0.01", *words, "--base-path", str(kept.path)]
    assert cli.main([*command, "--json"]) == 0
    ids = [json.loads(line)["trade_id"] for line in capfd.readouterr().out.splitlines()]
    assert cli.main([*command, "--code"]) == 0
    names: dict[str, Any] = {"print": (batches := []).append}
    exec(capfd.readouterr().out, names)
    assert np.concatenate(batches)["trade_id"].tolist() == ids
    names["dw"].close()


def test_no_byte_of_a_record_acts_on_the_terminal(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    lines, _ = run(capfd, kept, "ODD")
    assert len(lines) == 7 and not any("\x1b" in line for line in lines)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["size"], ["buy", "sell", "ask", "U"]),
        (["qty"], ["bid", "sell", "ask", "U"]),
        (["size", "action"], ["bid", "sell", "ask", "U"]),
    ],
)
def test_sides_are_words_of_trades_or_of_books(
    more: list[str], words: list[str], tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fields = [("t_us", "uint64"), ("side", "char"), ("_", "_7"), *((name, "float64") for name in more)]
    spec = {"feed_name": "S", "ts_col": "t_us", "fields": [{"name": name, "type": type_} for name, type_ in fields]}
    with Platform(tmp_store) as dw:
        dw.create_feed(spec)
        with dw.create_writer("S") as writer:
            for side in "BSAU":
                writer.write_values(START_US, side, *[1.0] * len(more))
    assert cli.main(["tail", "S", "--columns", "side", "--base-path", str(tmp_store)]) == 0
    assert capfd.readouterr().out.split() == ["side", *words]
    assert cli.main(["tail", "S", "--columns", "side", "--format", "csv", "--base-path", str(tmp_store)]) == 0
    assert capfd.readouterr().out.split() == ["side", *"BSAU"]  # data is as it is stored
