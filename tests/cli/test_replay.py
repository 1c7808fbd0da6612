"""replay: the records of several feeds in the order of a clock, as NumPy finds it; paced, live, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import ODD_SPEC, START_US, TICKS_SPEC, deepwater, first_line, make_ticks, one_line, started

from deepwater import Platform, cli
from deepwater.cli import replay
from deepwater.layout import Layout
from deepwater.timestamps import format_us
from processes import Worker

Ticks = dict[str, np.ndarray[Any, Any]]
ODD_NAMES_SPEC = {
    "feed_name": "TAGS", "ts_col": "t_us",
    "fields": [{"name": "t_us", "type": "uint64"}, {"name": "feed", "type": "int64"},
               {"name": "position", "type": "float64"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "store"
    with Platform(path) as dw:
        for name in ("A", "B", "EMPTY"):
            dw.create_feed({**TICKS_SPEC, "feed_name": name})
        dw.create_feed(ODD_NAMES_SPEC)
        dw.create_feed({**ODD_SPEC, "feed_name": "OTHER"})
        for name, ticks in written().items():
            dw.write(name, ticks)
        with dw.create_writer("TAGS") as writer:
            writer.write_values(START_US, -7, 0.5)
    return path


def written() -> Ticks:
    dtype = Layout.compile(TICKS_SPEC).dtype
    rng = np.random.default_rng(3)
    feeds = {}
    for number, (name, rows) in enumerate((("A", 1500), ("B", 2500))):
        ticks = make_ticks(dtype, rows)
        ticks["trade_id"] = np.arange(rows) + number * 10_000
        ticks["proc_us"] = START_US + np.sort(rng.integers(0, 1_000_000, rows)).astype("u8") // 500 * 500
        ticks["ev_us"] = ticks["proc_us"] - np.uint64(number * 100)
        feeds[name] = ticks
    return feeds


def merged(clock: str = "proc_us") -> list[tuple[str, int, int]]:
    """Say (feed, position, time) of all, in the order that is promised."""
    feeds = written()
    keys = np.concatenate([feeds[name][clock] for name in "AB"])
    rows = [(name, position) for name in "AB" for position in range(len(feeds[name]))]
    return [(*rows[k], int(keys[k])) for k in np.argsort(keys, kind="stable")]


def run(capfd: pytest.CaptureFixture[str], store: Path, *words: object) -> tuple[list[str], str]:
    assert cli.main(["replay", *map(str, words), "--base-path", str(store)]) == 0
    out, said = capfd.readouterr()
    return out.splitlines(), said


# --- what and in which order -----------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["proc_us", "ev_us"])
def test_json_has_all_in_order_of_the_clock(clock: str, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines, said = run(capfd, store, "A", "B", "--json", *([] if clock == "proc_us" else ["--clock", clock]))
    events = [json.loads(line) for line in lines]
    assert said == ""
    assert [(event["feed"], event["position"]) for event in events] == [row[:2] for row in merged(clock)]
    feeds = written()
    for event, (feed, position, us) in zip(events, merged(clock), strict=True):
        record = feeds[feed][position]
        assert list(event) == ["feed", "position", *record.dtype.names]
        assert (event["trade_id"], event["price"]) == (record["trade_id"], record["price"])
        assert event[clock] == format_us(us) and event["side"] == record["side"].decode()


@pytest.mark.parametrize(
    ("words", "low", "high"),
    [
        (["--start", START_US + 400_000, "--end", START_US + 500_000], 400_000, 500_000),
        (["--end", format_us(START_US + 1000)], 0, 1000), (["--start", START_US + 999_000], 999_000, 10**6),
        (["--last", "10ms"], 989_500, 10**6), (["--last", "1h"], 0, 10**6), (["--start", "2030"], 1, 0),
        (["--start", "2027", "--end", "2026"], 1, 0), (["--start", "2026-08-09", "--end", "2026-08-09"], 0, 10**6),
    ],
)  # fmt: skip
def test_a_range_is_that_of_every_feed(
    words: list[object], low: int, high: int, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines, _ = run(capfd, store, "A", "B", "EMPTY", "--json", *words)
    wanted = [row[:2] for row in merged() if low <= row[2] - START_US <= high]
    assert [(event["feed"], event["position"]) for event in map(json.loads, lines)] == wanted


@pytest.mark.parametrize("limit", [0, 1, 499, 500, 501, 3999, 4000, 4001])
def test_the_limit_counts_rows_of_all_feeds(limit: int, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for form, words in (("json", ["trade_id"]), ("table", ["trade_id"])):
        lines, said = run(capfd, store, "A", "B", "--limit", limit, "--format", form, "--columns", *words)
        assert len(lines) == min(limit, 4000)
        assert form == "json" or one_line(said) == f"{min(limit, 4000):,} row{'' if limit == 1 else 's'} of 2 feeds"


def test_columns_are_those_that_a_feed_has(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines, _ = run(capfd, store, "TAGS", "A", "--limit", 3, "--json", "--columns", "price,position,price")
    events = [json.loads(line) for line in lines]
    by_feed = {event["feed"]: list(event) for event in events}
    assert by_feed == {"TAGS": ["feed", "position", "position_"], "A": ["feed", "position", "price"]}


def test_a_column_named_as_a_tag_has_an_underscore(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines, _ = run(capfd, store, "TAGS", "--json")
    assert [json.loads(line) for line in lines] == [
        {"feed": "TAGS", "position": 0, "t_us": format_us(START_US), "feed_": -7, "position_": 0.5}
    ]


def test_the_table_says_time_feed_and_values(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines, said = run(capfd, store, "A", "TAGS", "--limit", 600)
    assert one_line(said) == "600 rows of 2 feeds"
    tagged = next(line for line in lines if "TAGS" in line)
    assert tagged == f"{format_us(START_US)}  TAGS  position=0.5 feed=-7"
    ticks = [line for line in lines if line.split()[1] == "A"]
    feeds = written()
    for line, record in zip(ticks, feeds["A"], strict=False):
        found = re.fullmatch(
            r"(\S+)  A     side=(buy|sell) +price=([\d.]+) +size=([\d.]+) +good=(true|false) "
            r"+trade_id=(\d+) +ev_us=(\S+)",
            line,
        )
        assert found is not None, line
        assert found[1] == format_us(int(record["proc_us"])) and int(found[6]) == record["trade_id"]
        assert (float(found[3]), float(found[4])) == (record["price"], record["size"])


@pytest.mark.parametrize("columns", [40, 80])
def test_on_a_terminal_it_fits_and_the_day_has_its_own_line(
    columns: int, store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines, said = run(capfd, store, "A", "B")
    assert lines[0] == "2026-08-09 UTC" and len(lines) == 4001 and max(map(len, lines)) <= columns
    assert re.fullmatch(r"05:23:42\.\d{6}  [AB]  side=(buy|sell).*", lines[1])
    room, rows = said.splitlines()
    assert room.startswith("no room for ") and room.endswith("ev_us (choose with --columns)")
    assert rows == "4,000 rows of 2 feeds"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["EMPTY"], "no rows: EMPTY is empty"), (["EMPTY", "OTHER"], "no rows: EMPTY, OTHER are empty"),
        (["A", "EMPTY", "--start", "2030"], "no rows: what is there is of 2026-08-09T05:23:42."),
        (["EMPTY", "--last", "5m"], "no rows: EMPTY is empty"),
    ],
)  # fmt: skip
def test_no_row_is_an_answer_with_a_reason(
    words: list[str], why: str, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines, said = run(capfd, store, *words)
    assert lines == [] and one_line(said).startswith(why)
    assert run(capfd, store, *words, "--json") == ([], "")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["A", "NONE"], 1, "no feed 'NONE'"), (["A", "--clock", "price"], 1, "'price' is no clock"),
        (["A", "TAGS", "--clock", "ev_us"], 1, "'ev_us' is no clock; its clocks are t_us"),
        (["A", "--columns", "pric"], 1, "did you mean 'price'"), (["A", "--start", "soon"], 1, "a time is 2026"),
        (["A", "--start", "1786253022"], 1, "15 to 20 digits of us"),
        (["A", "--last", "soon"], 1, "--last is a duration"), (["A", "--last", "1000"], 1, "--last is a duration"),
        (["A", "B", "A"], 2, "named twice"), (["A", "--live", "--end", "now"], 2, "--live has no end"),
        (["A", "--timeout", "3"], 2, "goes with --live"), (["A", "--last", "5m", "--end", "now"], 2, "leave --start"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(
    words: list[str], code: int, said: str, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["replay", *words, "--base-path", str(store)]) == code
    out, text = capfd.readouterr()
    assert out == "" and said in one_line(text)


# --- paced, live -----------------------------------------------------------------------------------------


def test_a_speed_changes_nothing_but_the_pace(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["A", "B", "--json", "--limit", "700"]
    assert run(capfd, store, *words, "--speed", "5") == run(capfd, store, *words)


def test_live_goes_on_with_what_another_process_writes(tmp_store: Path) -> None:
    code = """
        import sys
        from deepwater import Platform
        with Platform(sys.argv[1]) as dw, dw.create_writer("A") as a, dw.create_writer("B") as b:
            print("ready", flush=True)
            for line in sys.stdin:
                number = int(line)
                writer = (a, b)[number % 2]
                writer.write_values(b"B", True, number, number + 1, 0, 1.5, 2.5)
    """
    with Platform(tmp_store) as dw:
        for name in "AB":
            dw.create_feed({**TICKS_SPEC, "feed_name": name})
    with Worker(code, tmp_store) as worker:
        assert worker.readline() == "ready"
        words = ["A", "B", "--live", "--json", "--columns", "trade_id", "--base-path", tmp_store]
        worker.send(0)
        with started("replay", *words, "--limit", 30) as process:
            for number in range(30):  # each is sent after the one before was read
                if number:
                    worker.send(number)
                event = json.loads(first_line(process))
                assert event == {"feed": "AB"[number % 2], "position": number // 2, "trade_id": number}
            assert process.wait(60) == 0 and process.stderr.read() == ""
        with started("replay", *words) as process:
            assert json.loads(first_line(process))["trade_id"] == 0
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
            assert (process.returncode, said) == (130, "")
        with started("replay", *words, "--limit", 31) as process:
            for _ in range(30):
                first_line(process)
            process.stdout.close()  # it waits, and notices
            assert process.wait(60) == 0 and process.stderr.read() == ""
        done = deepwater("replay", *words, "--timeout", "0.1")
        assert done.stdout.count("\n") == 30 and done.stderr == ""
        worker.finish()


def test_head_gets_its_lines_and_all_is_well(store: Path) -> None:
    with (
        started("replay", "A", "B", "--base-path", store) as process,
        subprocess.Popen(["head", "-1"], stdin=process.stdout, stdout=subprocess.PIPE) as head,
    ):
        process.stdout.close()
        out, _ = head.communicate(timeout=60)
        assert out.startswith(b"2026-08-09T05:23:42.") and out.count(b"\n") == 1
        assert process.wait(60) == 0 and process.stderr.read() == ""


def test_ctrl_c_ends_a_slow_one_with_130(store: Path) -> None:
    with started("replay", "A", "B", "--speed", "0.0001", "--json", "--base-path", store) as process:
        assert json.loads(first_line(process))["position"] == 0  # the first is due at once, and is not kept back
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, "")


def test_rows_that_are_due_are_made_text_together(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    text = replay.JsonEvents.text

    def counted(self: Any, group: Any) -> bytes:
        sizes.append(sum(len(batch.records) for batch in group))
        return text(self, group)

    monkeypatch.setattr(replay.JsonEvents, "text", counted)
    assert cli.main(["replay", "A", "B", "--json", "--base-path", str(store)]) == 0
    assert sum(sizes) == 4000 and len(sizes) <= 2
