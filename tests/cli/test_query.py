"""query: the rows that NumPy finds, in every format; files that appear whole; memory that stays bounded."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pty
import subprocess
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import COMMAND, ODD_NAMES, START_US, TICKS_SPEC, Kept, deepwater, environment, make_ticks, one_line

from deepwater import Platform, cli
from deepwater.timestamps import format_us
from processes import run_python

NAMES = ["side", "good", "trade_id", "proc_us", "ev_us", "price", "size"]
CLOCKS = {"proc_us", "ev_us", "t_us"}


def iso(us: int) -> str:
    """Say a time by `datetime`, which the command does not use."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(us))
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def run(capfdbinary: pytest.CaptureFixture[bytes], kept: Kept, *words: object) -> tuple[bytes, str]:
    assert cli.main(["query", *map(str, words), "--base-path", str(kept.path)]) == 0
    out, said = capfdbinary.readouterr()
    return out, said.decode()


def plain(record: Any, names: list[str]) -> dict[str, Any]:
    """Say what a record is in JSON, from the array that was written."""
    values = {}
    for name in names:
        value = record[name]
        if name in CLOCKS:
            values[name] = iso(value)
        else:
            values[name] = value.decode("latin-1") if isinstance(value, bytes) else value.item()
    return values


# --- formats ---------------------------------------------------------------------------------------------


def test_json_is_one_object_a_line_and_says_all(kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, said = run(capfdbinary, kept, "TICKS", "--json")
    rows = [json.loads(line) for line in out.decode("ascii").splitlines()]
    assert said == ""
    assert rows == [plain(record, NAMES) for record in kept.ticks]


def test_csv_reads_back_to_the_same_values(kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, said = run(capfdbinary, kept, "TICKS", "--format", "csv")
    header, *rows = csv.reader(io.StringIO(out.decode(), newline=""))
    assert said == "" and header == NAMES
    for row, record in zip(rows, kept.ticks, strict=True):
        side, good, trade_id, proc, ev, price, size = row
        assert (side.encode(), good, int(trade_id)) == (
            record["side"],
            str(bool(record["good"])).lower(),
            record["trade_id"],
        )
        assert (proc, ev) == (iso(record["proc_us"]), iso(record["ev_us"]))
        assert (float(price), float(size)) == (record["price"], record["size"])


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_parquet_and_arrow_hold_the_window(form: str, kept: Kept, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import feather, parquet

    path = tmp_path / f"ticks.{form}"
    assert cli.main(["query", "TICKS", "-o", str(path), "--base-path", str(kept.path)]) == 0
    table = parquet.read_table(path) if form == "parquet" else feather.read_table(path)
    piped = deepwater("query", "TICKS", "--format", form, "--base-path", kept.path, text=False).stdout
    if form == "parquet":
        assert parquet.read_table(io.BytesIO(piped)).equals(table)
    else:
        assert pa.ipc.open_stream(piped).read_all().equals(table)
    with Platform(kept.path) as dw:
        wanted = dw["TICKS"].read().to_arrow()
    assert table.schema.equals(wanted.schema)
    decode = [field.name for field in wanted.schema if pa.types.is_dictionary(field.type)]
    for name in NAMES:
        left, right = (t[name].cast(pa.string()) if name in decode else t[name] for t in (table, wanted))
        assert left.combine_chunks().equals(right.combine_chunks()), name


def test_an_arrow_file_of_many_batches_is_read_by_polars(tmp_path: Path) -> None:
    """An IPC file may hold one dictionary a column: letters that come late must be in it from the start."""
    rows = 400_000
    with Platform(tmp_path / "store") as dw:
        dw.create_feed({**TICKS_SPEC, "chunk_size_bytes": 2**22})
        with dw.create_writer("TICKS") as writer:
            ticks = make_ticks(dw["TICKS"].dtype, rows)
            ticks["side"][-1] = b"U"
            writer.write_batch(ticks)
    path = tmp_path / "ticks.arrow"
    assert cli.main(["query", "TICKS", "-o", str(path), "--base-path", str(tmp_path / "store")]) == 0
    # Polars keeps descriptors for the life of its process.
    done = run_python("""
        import sys
        import polars
        frame = polars.read_ipc(sys.argv[1])
        print("".join(frame["side"].cast(polars.String).to_list()))
    """, path)  # fmt: skip
    assert done.stdout == ticks["side"].tobytes().decode() + "\n"


def test_odd_values_in_json(kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = run(capfdbinary, kept, "ODD", "--json")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in out.decode("ascii").splitlines()]
    assert [row["name"] for row in rows] == [name.decode("latin-1") for name in ODD_NAMES]
    assert [row["value"] for row in rows] == [0.1, None, None, None, 1e-300, 0.0]
    assert math.copysign(1, rows[5]["value"]) == -1
    assert [row["ev_us"] for row in rows] == [
        "1970-01-01T00:00:00.000000Z", "1970-01-01T00:00:00.000001Z", iso(START_US),
        "9999-12-31T23:59:59.999999Z", "253402300800000000", "18446744073709551615",
    ]  # fmt: skip
    assert rows[1]["levels"] == [None] * 4
    assert np.array_equal(np.array(rows[2]["levels"], "f4"), kept.odd["levels"][2])
    assert [rows[0]["small"], rows[5]["small"]] == [0.1, 16777216.0]
    assert [row["flag"] for row in rows] == ["A", "", "\xff", "\x1b", '"', ","]


def test_odd_values_in_csv(kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = run(capfdbinary, kept, "ODD", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out.decode(), newline="")))
    assert [row["name"] for row in rows] == [name.decode("latin-1") for name in ODD_NAMES]
    assert [float(row["value"]) for row in rows[2:]] == [math.inf, -math.inf, 1e-300, 0.0] and math.isnan(
        float(rows[1]["value"])
    )
    assert json.loads(rows[3]["levels"]) == pytest.approx(kept.odd["levels"][3].tolist())
    assert [row["step"] for row in rows] == [str(step) for step in kept.odd["step"].tolist()]
    assert [row["flag"] for row in rows] == ["A", "", "\xff", "\x1b", '"', ","]


def test_a_clock_that_arrow_cannot_hold_is_one_line_and_no_file(kept: Kept, tmp_path: Path) -> None:
    done = deepwater("query", "ODD", "-o", tmp_path / "odd.parquet", "--base-path", kept.path, code=1)
    assert "ev_us" in one_line(done.stderr)
    assert list(tmp_path.iterdir()) == []
    deepwater("query", "ODD", "-o", tmp_path / "odd.parquet", "--columns", "t_us,value", "--base-path", kept.path)


# --- ranges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["proc_us", "ev_us"])
def test_a_range_is_what_the_mask_finds(clock: str, kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    low, high = START_US + 300_000, START_US + 2_100_000
    found = kept.ticks[(kept.ticks[clock] >= low) & (kept.ticks[clock] <= high)]
    forms = [(low, high), (format_us(low), format_us(high))]
    for start, end in forms:
        out, _ = run(
            capfdbinary,
            kept,
            "TICKS",
            "--start",
            start,
            "--end",
            end,
            "--clock",
            clock,
            "--format",
            "csv",
            "--columns",
            "trade_id",
        )
        assert out.decode().split() == ["trade_id", *map(str, found["trade_id"].tolist())]


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (["--last", "7"], 7), (["--last", "0"], 0), (["--last", "99999999"], 5000), (["--last", "10ms"], 11),
        (["--last", "-10ms"], 11), (["--last", "1h"], 5000), (["--limit", "0"], 0), (["--limit", "3"], 3),
        (["--limit", "999999999999999999"], 5000), (["--start", "-15min"], 0), (["--start", "now"], 0),
        (["--start", "1969", "--end", "9999"], 5000), (["--start", "2027", "--end", "2026"], 0),
        (["--start", "2026-08-09", "--end", "2026-08-09"], 5000), (["--end", "2026-08-09T05:23:42"], 804),
        (["--start", "2026-03-29T02:30", "--end", "2026-08-09T05:23:42.196"], 1),
        (["--start", "2026-08-09T07:23:42.196708+02:00", "--end", "2026-08-09T05:23:42.196708Z"], 1),
        (["--last", "5m", "--clock", "ev_us", "--limit", "2"], 2),
    ],
)  # fmt: skip
def test_how_many_rows(words: list[str], rows: int, kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = run(capfdbinary, kept, "TICKS", "--format", "csv", *words)
    assert out.count(b"\n") == rows + 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--start", "2026-02-30"], "2026-02 has 28 days"),
        (["--start", "1786253022"], "15 to 20 digits of us"),
        (["--end", "10000-01-01"], "a time is"),
        (["--start", "1.5"], "a time is"),
        (["--last", "5" * 19], "--last is a duration"),
        (["--last", "soon"], "--last is a duration"),
        (["--last", "-5"], "--last is a duration"),
        (["--start", ""], "a time is"),
        (["--clock", "price"], "'price' is no clock; its clocks are proc_us, ev_us"),
        (["--columns", "pric"], "did you mean 'price'"),
        (["--columns", ""], "columns are"),
        (["--columns", "price,price"], "price"),
        (["--columns", "price,,size"], "columns are"),
    ],
)
def test_a_bad_value_is_named(words: list[str], said: str, kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["query", "TICKS", *words, "--base-path", str(kept.path)]) == 1
    out, text = capfd.readouterr()
    assert out == "" and said in one_line(text)


def test_last_goes_with_no_bounds(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["query", "TICKS", "--last", "5m", "--end", "now", "--base-path", str(kept.path)]) == 2
    assert "leave --start and --end out (deepwater query --help)" in one_line(capfd.readouterr().err)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["EMPTY"], "feed EMPTY is empty"),
        (["TICKS", "--start", "2030"], f"feed TICKS covers {format_us(START_US)} to "),
        (["TICKS", "--start", "2027", "--end", "2026"], "--start is after --end"),
        (["TICKS", "--end", "1969-12-31"], f"feed TICKS covers {format_us(START_US)} to "),
        (["TICKS", "--start", "99999999999999999999"], f"feed TICKS covers {format_us(START_US)} to "),
        (["TICKS", "--start", str(START_US * 1000)], "looks like nanoseconds"),
    ],
)
def test_no_row_is_an_answer_with_a_reason(
    words: list[str], why: str, kept: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["query", *words, "--base-path", str(kept.path)]) == 0
    out, said = capfd.readouterr()
    assert why in one_line(said)
    assert out.split()[0] == "proc_us" and out.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [[], ["--last", "7"], ["--last", "1s"], ["--start", "2026-08-09T05:23:43", "--end", "2026-08-09T05:23:44"],
     ["--clock", "ev_us", "--start", "2026-08-09T05:23:43", "--limit", "9"],
     ["--columns", "price,trade_id", "--last", "1s"], ["--start", "now"], ["--start", "2027", "--end", "2026"]],
)  # fmt: skip
def test_the_code_hands_out_what_the_command_prints(
    words: list[str], kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    out, _ = run(capfdbinary, kept, "TICKS", *words, "--format", "csv", "--columns", "trade_id")
    names: dict[str, Any] = {}
    exec(run(capfdbinary, kept, "TICKS", *words, "--code")[0].decode(), names)
    assert list(map(str, names["window"]["trade_id"].tolist())) == out.decode().split()[1:]
    names["dw"].close()


# --- the table -------------------------------------------------------------------------------------------


def test_a_long_table_shows_its_ends(kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, said = run(capfdbinary, kept, "TICKS")
    lines = out.decode().splitlines()
    ids = [line.split()[5] for line in lines[1:]]
    wanted = kept.ticks["trade_id"].tolist()
    assert lines[0].split() == ["proc_us", "side", "price", "size", "good", "trade_id", "ev_us"]
    assert ids == [*map(str, wanted[:10]), "...", *map(str, wanted[-10:])]
    assert one_line(said) == "5,000 rows, 20 shown (--limit N, or --format csv, for more)"


def test_with_a_limit_it_shows_them_all(kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, said = run(capfdbinary, kept, "TICKS", "--limit", "1234", "--columns", "size,proc_us")
    lines = out.decode().splitlines()
    assert lines[0].split() == ["size", "proc_us"]
    assert [line.split()[1] for line in lines[1:]] == [iso(us) for us in kept.ticks["proc_us"][:1234]]
    assert one_line(said) == "1,234 rows"


def test_a_file_gets_the_whole_table(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert cli.main(["query", "TICKS", "-o", str(tmp_path / "a.txt"), "--base-path", str(kept.path)]) == 0
    lines = (tmp_path / "a.txt").read_text().splitlines()
    assert len(lines) == 5001 and {len(line.split()) for line in lines} == {7}


def test_decimal_points_are_in_line(kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = run(capfdbinary, kept, "TICKS", "--limit", "300", "--columns", "price")
    assert len({line.index(".") for line in out.decode().splitlines()[1:]}) == 1


def test_no_byte_of_a_record_acts_on_the_terminal(kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = run(capfdbinary, kept, "ODD")
    assert b"\x1b" not in out and rb"\x1b[2J" in out and out.count(b"\n") == 1 + len(kept.odd)


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "begins"),
    [("a.csv", b"side,good"), ("a.json", b'{"side"'), ("a.JSONL", b'{"side"'), ("a.txt", b"     "),
     ("a.parquet", b"PAR1"), ("a.arrow", b"ARROW1"), ("a.feather", b"ARROW1")],
)  # fmt: skip
def test_the_ending_tells_the_format(name: str, begins: bytes, kept: Kept, tmp_path: Path) -> None:
    assert cli.main(["query", "TICKS", "-o", str(tmp_path / name), "--base-path", str(kept.path)]) == 0
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_ending_that_tells_nothing_needs_a_format(
    kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["query", "TICKS", "--base-path", str(kept.path), "-o", str(tmp_path / "a.dat")]
    assert cli.main(words) == 2
    assert "--format" in one_line(capfd.readouterr().err)
    assert cli.main([*words, "--format", "csv"]) == 0


def test_a_file_is_not_replaced_unless_told(kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("precious")
    words = ["query", "TICKS", "--base-path", str(kept.path), "-o", str(path)]
    assert cli.main(words) == 1
    assert (
        one_line(capfd.readouterr().err)
        == f"deepwater: error: {path}: there is such a file already; --force replaces it"
    )
    assert path.read_text() == "precious"
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    assert cli.main([*words[:-1], str(link), "--force"]) == 0
    assert link.is_symlink() and path.read_text().startswith("side,good")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "link.csv"]


def test_a_file_that_came_meanwhile_is_not_replaced(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepwater.cli import rows

    path, write = tmp_path / "a.csv", rows.write_csv

    def slow(*args: Any) -> None:
        write(*args)
        path.write_text("first")

    monkeypatch.setattr(rows, "write_csv", slow)
    assert cli.main(["query", "TICKS", "--base-path", str(kept.path), "-o", str(path)]) == 1
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError])
def test_a_query_cut_short_leaves_no_file(
    raised: type[BaseException], kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepwater.cli import rows

    def cut(window: Any, out: Any) -> None:
        out.write(b"half")
        raise raised

    monkeypatch.setattr(rows, "write_csv", cut)
    code = cli.main(["query", "TICKS", "--base-path", str(kept.path), "-o", str(tmp_path / "a.csv")])
    assert code == (130 if raised is KeyboardInterrupt else 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("where", "said"),
    [("{}/no/a.csv", "No such file or directory"), ("{}", "is a directory"), ("/dev/full", "No space left on device")],
)
def test_a_place_where_nothing_can_be_written(
    where: str, said: str, kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = where.format(tmp_path)
    code = cli.main(["query", "TICKS", "--format", "csv", "--base-path", str(kept.path), "-o", path])
    line = one_line(capfd.readouterr().err)
    assert code == (2 if path == str(tmp_path) else 1)
    assert path in line and said in line and list(tmp_path.iterdir()) == []
    assert code == 1 or line.startswith("deepwater query: error: -o ")


def test_a_dash_is_stdout_and_a_device_is_written_to(kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    out, _ = run(capfdbinary, kept, "TICKS", "--format", "csv", "-o", "-")
    assert out.count(b"\n") == 5001
    run(capfdbinary, kept, "TICKS", "--format", "csv", "-o", "/dev/null")


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_no_binary_on_a_terminal(form: str, kept: Kept) -> None:
    master, slave = pty.openpty()
    try:
        done = deepwater("query", "TICKS", "--format", form, "--base-path", kept.path, code=2, stdout=slave)
    finally:
        os.close(slave)
        os.close(master)
    assert "add -o FILE, or pipe it" in one_line(done.stderr)


# --- size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "json", "parquet", "arrow", "table"])
def test_memory_does_not_grow_with_the_window(form: str, tmp_path: Path) -> None:
    """Four times the rows: the peak of what Python and NumPy allocate stays where it was."""
    peaks = []
    with Platform(tmp_path / "store") as dw:
        dw.create_feed({**TICKS_SPEC, "chunk_size_bytes": 2**20})
        with dw.create_writer("TICKS") as writer:
            writer.write_batch(make_ticks(dw["TICKS"].dtype, 1_200_000))
    limits = {"parquet": (300_000, 1_200_000), "arrow": (300_000, 1_200_000), "table": (3_000, 12_000)}.get(
        form, (30_000, 120_000)
    )
    for limit in (1, *limits):  # the first loads what is loaded once
        words = ["query", "TICKS", "--format", form, "--limit", str(limit), "-o", str(tmp_path / f"{limit}")]
        tracemalloc.start()
        try:
            assert cli.main([*words, "--base-path", str(tmp_path / "store")]) == 0
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1]


def test_a_child_that_is_interrupted_exits_with_130(kept: Kept) -> None:
    """Ctrl-C while the reader of the pipe does not read."""
    import signal

    words = ["query", "TICKS", "--format", "json", "--base-path", str(kept.path)]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)  # it is writing, and the pipe is full soon: it cannot end by itself
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        process.stdout.close()
        assert process.wait() == 130 and said == b""
