"""export and import: what goes out comes back equal, files appear whole, and people are told what happened."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_kit import ODD_SPEC, START_US, TICKS_SPEC, Kept, make_ticks, one_line, started
from pyarrow import feather, ipc

from deepwater import Platform, cli
from deepwater.cli import binary
from deepwater.cli.signals import terminable
from processes import run_python

ENDINGS = ["parquet", "arrow", "feather", "csv", "npy"]


def run(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    assert cli.main([*map(str, words)]) == code
    return capfd.readouterr()


def records_of(store: Path, feed: str) -> bytes:
    with Platform(store) as dw, dw[feed] as reader:
        return reader.rows(0, 1 << 40).to_numpy().view(np.uint8).tobytes()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("into", ["a feed that is there", "a new feed", "a new feed of a spec"])
def test_what_goes_out_comes_back_equal(
    ending: str, into: str, kept: Kept, tmp_path: Path, tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, there = tmp_path / f"a.{ending}", ["--base-path", kept.path]
    out, said = run(capfd, "export", "TICKS", "-o", path, *there)
    assert out == "" and one_line(said).startswith("TICKS: 5,000 records to ")
    words: list[object] = ["import", path, "COPY", "--base-path", tmp_store]
    if into == "a feed that is there":
        with Platform(tmp_store) as dw:
            dw.create_feed({**TICKS_SPEC, "feed_name": "COPY"})
    elif into == "a new feed of a spec":
        (tmp_path / "spec.json").write_text(run(capfd, "schema", "TICKS", *there)[0])
        words += ["--spec", tmp_path / "spec.json"]
    elif ending in ("csv", "npy"):
        words += ["--ts-col", "proc_us"]
    out, said = run(capfd, *words)
    made = "" if into == "a feed that is there" else ", which was made"
    assert one_line(out) == f"{path}: 5,000 records imported into COPY{made}, positions 0 to 4,999"
    assert ("feed COPY, from the " in said) == (into == "a new feed")
    assert records_of(tmp_store, "COPY") == kept.ticks.view(np.uint8).tobytes()


@pytest.mark.parametrize("ending", ["csv", "npy"])
def test_odd_values_come_back_equal(
    ending: str, kept: Kept, tmp_path: Path, tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Clocks that no calendar has, NaN and infinities in lists, control characters, NUL."""
    with Platform(tmp_store) as dw:
        dw.create_feed({**ODD_SPEC, "feed_name": "COPY"})
    run(capfd, "export", "ODD", "-o", tmp_path / f"a.{ending}", "--base-path", kept.path)
    run(capfd, "import", tmp_path / f"a.{ending}", "COPY", "--base-path", tmp_store)
    assert records_of(tmp_store, "COPY") == kept.odd.view(np.uint8).tobytes()


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_what_a_format_cannot_hold_is_one_line_and_no_file(
    ending: str, kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, said = run(capfd, "export", "ODD", "-o", tmp_path / f"a.{ending}", "--base-path", kept.path, code=1)
    assert out == "" and "above 2^63-1" in one_line(said) and not list(tmp_path.iterdir())
    run(capfd, "export", "ODD", "--limit", 5, "-o", tmp_path / f"a.{ending}", "--base-path", kept.path)


def test_a_limit_of_no_rows_is_not_called_an_empty_feed(
    kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, said = run(capfd, "export", "TICKS", "--limit", 0, "-o", tmp_path / "a.csv", "--base-path", kept.path)
    assert one_line(said).startswith("TICKS: 0 records to ")


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_layout_goes_with_the_file(
    ending: str, kept: Kept, tmp_path: Path, tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of all columns to the byte, with padding and descriptions; .npy has no descriptions, CSV no widths either."""
    path = tmp_path / f"a.{ending}"
    run(capfd, "export", "TICKS", "-o", path, "--base-path", kept.path)
    run(capfd, "import", path, "COPY", "--ts-col", "proc_us", "--base-path", tmp_store)
    with Platform(kept.path) as dw, dw["TICKS"] as mine, Platform(tmp_store) as other, other["COPY"] as copy:
        assert copy.layout.record_size == mine.layout.record_size and copy.layout.names == mine.layout.names
        if ending not in ("csv", "npy"):
            assert copy.layout.to_bytes() == mine.layout.to_bytes()
        elif ending == "npy":
            assert copy.layout.dtype == mine.layout.dtype


@pytest.mark.parametrize("ending", ENDINGS)
def test_times_and_columns(ending: str, kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"a.{ending}"
    words = ["--start", START_US + 1_000_000, "--end", START_US + 1_999_999, "--columns", "price,side,proc_us"]
    run(capfd, "export", "TICKS", *words, "-o", path, "--base-path", kept.path)
    wanted = kept.ticks[1000:2000]
    if ending == "npy":
        array = np.load(path)
        assert array.dtype == np.dtype([("price", "<f8"), ("side", "S1"), ("proc_us", "<u8")])
        assert all(np.array_equal(array[name], wanted[name]) for name in array.dtype.names)
    elif ending == "csv":
        lines = path.read_text().splitlines()
        assert lines[0] == "price,side,proc_us" and len(lines) == 1001
        assert [float(line.split(",")[0]) for line in lines[1:]] == wanted["price"].tolist()
    else:
        table = pq.read_table(path) if ending == "parquet" else feather.read_table(str(path))
        assert table.column_names == ["price", "side", "proc_us"]
        assert np.array_equal(table["price"].to_numpy(), wanted["price"])
    assert run(capfd, "export", "TICKS", "--last", "7", "-o", path, "--force", "--base-path", kept.path)[1] != ""


@pytest.mark.parametrize("form", ["parquet", "arrow", "csv", "npy"])
def test_stdout_takes_it_too(form: str, kept: Kept, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    import io

    assert cli.main(["export", "TICKS", "-o", "-", "--format", form, "--base-path", str(kept.path)]) == 0
    out, said = capfdbinary.readouterr()
    read = {
        "parquet": lambda data: pq.read_table(io.BytesIO(data)).num_rows, "csv": lambda data: data.count(b"\n") - 1,
        "npy": lambda data: len(np.load(io.BytesIO(data))),
        "arrow": lambda data: ipc.open_stream(data).read_all().num_rows,
    }  # fmt: skip
    assert read[form](out) == 5000 and said == b""


# --- whole or not at all ---------------------------------------------------------------------------------


def test_a_file_that_is_there_stays(kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("mine")
    said = run(capfd, "export", "TICKS", "-o", path, "--base-path", kept.path, code=1)[1]
    assert "--force replaces it" in one_line(said) and path.read_text() == "mine"
    run(capfd, "export", "TICKS", "-o", path, "--force", "--base-path", kept.path)
    assert path.read_text().count("\n") == 5001


@pytest.mark.parametrize("ending", ["parquet", "csv", "npy", "arrow"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_what_breaks_off_leaves_no_file(
    ending: str, kind: type[BaseException], kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from deepwater.cli.progress import Bar

    def fail(self: Bar, *_: object) -> None:
        raise kind

    monkeypatch.setattr(Bar, "show", fail)
    run(capfd, "export", "TICKS", "-o", tmp_path / f"a.{ending}", "--base-path", kept.path,
        code=130 if kind is KeyboardInterrupt else 1)  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_an_interrupted_import_says_how_much_is_there(tmp_path: Path, tmp_store: Path) -> None:
    """SIGINT to a process in the middle of writing: the feed was there, so what was written stays, and is said."""
    array = np.zeros(3_000_000, [("t_us", "u8"), ("px", "f8")])
    np.save(tmp_path / "a.npy", array)
    with Platform(tmp_store) as dw:
        dw.write("T", array[:1])
        with started("import", tmp_path / "a.npy", "T", "--base-path", tmp_store) as process, dw["T"] as reader:
            while reader.end == 1 and process.poll() is None:
                pass
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=60)
            written = int(reader.end) - 1
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert (process.returncode, out) == (130, "")
    assert f"{written:,} records of it are in feed 'T', positions 1 to {written:,}" in one_line(said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_import_removes_the_feed_that_it_made(
    number: signal.Signals, tmp_path: Path, tmp_store: Path
) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3_000_000, [("t_us", "u8"), ("px", "f8")]))
    words = ("import", tmp_path / "a.npy", "T", "--base-path", tmp_store)
    with started(*words, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:
        while not list(tmp_store.glob("data/.import-T/chunk_*")) and process.poll() is None:
            pass
        process.send_signal(number)
        out, said = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert (process.returncode, out) == (128 + number, "")
    assert "terminated: nothing of it is in feed 'T'" in one_line(said)
    with Platform(tmp_store) as dw:
        assert dw.list_feeds() == []


@pytest.mark.faults
@pytest.mark.parametrize("then", ["import", "repair", "create"])
def test_a_killed_import_leaves_no_feed_and_what_it_left_is_removed(
    then: str, tmp_path: Path, tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of writing a new feed: nothing that looks finished, neither to commands nor in Python."""
    array = np.zeros(3_000_000, [("t_us", "u8"), ("px", "f8")])
    np.save(tmp_path / "a.npy", array)
    there, left = ["--base-path", tmp_store], tmp_store / "data" / ".import-T"
    with started("import", tmp_path / "a.npy", "T", *there) as process:
        while not list(left.glob("chunk_*")) and process.poll() is None:
            pass
        process.kill()
        process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert left.is_dir() and run(capfd, "feeds", *there)[1].startswith("no feeds in")
    with Platform(tmp_store) as dw:
        assert dw.list_feeds() == [] and "T" not in dw
    assert "left by an import that was killed" in run(capfd, "verify", *there, code=1)[0]
    if then == "repair":
        assert "a killed import left it" in run(capfd, "repair", *there, code=1)[0] and left.is_dir()
        run(capfd, "repair", "--apply", *there)
    elif then == "create":
        with Platform(tmp_store) as dw:
            dw.create_feed({**TICKS_SPEC, "feed_name": "OTHER"})
    assert left.is_dir() == (then == "import")
    run(capfd, "import", tmp_path / "a.npy", "T", *there)
    assert not left.exists() and records_of(tmp_store, "T") == array.view(np.uint8).tobytes()
    assert run(capfd, "verify", *there)[1] == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_export_leaves_no_file(number: signal.Signals, kept: Kept, tmp_path: Path) -> None:
    words = ("export", "TICKS", "-o", tmp_path / "a.csv", "--base-path", kept.path)
    with started(*words, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:
        while not list(tmp_path.iterdir()) and process.poll() is None:
            pass
        process.send_signal(number)
        process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 128 + number
    assert not list(tmp_path.iterdir())


def test_who_ignores_a_hangup_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- what is said ----------------------------------------------------------------------------------------


def test_a_bad_row_is_one_line(tmp_path: Path, tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("t_us,px\n1786253022196708,1.5\n1786253022196709,x\n")
    words = ["import", tmp_path / "a.csv", "T", "--base-path", tmp_store]
    with Platform(tmp_store) as dw:
        dw.create_feed({"feed_name": "T", "ts_col": "t_us", "fields": [
            {"name": "t_us", "type": "uint64"}, {"name": "px", "type": "float64"}]})  # fmt: skip
    said = run(capfd, *words, code=1)[1]
    assert one_line(said) == f"deepwater: error: '{tmp_path}/a.csv': row 2, column 'px': 'x' is no float64"
    error = json.loads(run(capfd, *words, "--json", code=1)[1])["error"]
    assert (error["type"], error["row"], error["column"], error["path"]) == (
        "RecordError", 2, "px", str(tmp_path / "a.csv"))  # fmt: skip


def test_what_was_inferred_and_cut_is_said(
    tmp_path: Path, tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("time,side,px\n2026-08-09T05:23:42.123456789Z,B,1.5\n2026-08-09T05:23:43Z,S,2\n")
    words = ["import", tmp_path / "a.csv", "T", "--base-path", tmp_store]
    out, said = run(capfd, *words, "--dry-run")
    assert "2 records would be imported into T; the feed would be made; nothing was written" in one_line(out)
    first, titles, *rows, last = said.splitlines()
    assert first == "feed T, from the columns of the file: 24 bytes a record"
    assert titles.split() == ["field", "type", "column"]
    assert [row.split() for row in rows] == [
        ["time_us", "uint64", "time", "clock"], ["side", "char", "side"], ["px", "float64", "px"]
    ]  # fmt: skip
    assert last == "time_us: 1 time between two microseconds, cut to the one before" and not tmp_store.exists()
    about = json.loads(run(capfd, *words, "--json")[0])
    assert (about["records"], about["created"], about["cut"]) == (2, True, {"time_us": 1})
    assert about["spec"]["fields"][1] == {"name": "side", "type": "char"}


def test_which_clock_is_asked_for(kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(capfd, "export", "TICKS", "-o", tmp_path / "a.csv", "--base-path", kept.path)
    said = run(capfd, "import", tmp_path / "a.csv", "T", "--base-path", tmp_path / "store", code=1)[1]
    assert one_line(said).endswith("which column is the clock? Candidates: proc_us, ev_us; say --ts-col")


def test_a_dbn_file(tmp_store: Path, shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (path,) = (shared_data / "dbn/nautilus").glob("futures_trades*.zst")
    out, said = run(capfd, "import", path, "ESNQ", "--base-path", tmp_store)
    assert "120 records imported into ESNQ, which was made" in out
    assert "120 records have times between two microseconds: cut to the one before" in said
    assert "ts_recv_us" in said and "DBN version 1, GLBX.MDP3 trades" in said


def test_json_says_what_was_written(kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.parquet"
    about = json.loads(run(capfd, "export", "TICKS", "-o", path, "--json", "--base-path", kept.path)[0])
    size = path.stat().st_size
    assert about == {"feed": "TICKS", "path": str(path), "format": "parquet", "records": 5000, "bytes": size}


def test_nothing_to_export_says_why(kept: Kept, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    out, said = run(capfd, "export", "TICKS", "--start", "2030", "-o", path, "--base-path", kept.path)
    assert out == "" and "no rows: feed TICKS covers" in one_line(said) and path.read_text().count("\n") == 1


@pytest.mark.parametrize(
    "line",
    ["export TICKS", "export TICKS -o a.txt", "export TICKS -o a.json", "export TICKS -o - --json --format csv",
     "export TICKS -o a.csv --last 5m --start now", "export TICKS -o a.csv --format json", "export -o a.csv",
     "import", "import a.csv", "import a.csv T --format xml", "import a.csv T --dry", "import '' T"],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line(
    line: str, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPWATER_HOME", str(kept.path))
    said = run(capfd, *(word.strip("'") for word in line.split()), code=2)[1]
    assert "--help)" in one_line(said) and not list(tmp_path.iterdir())


def test_there_is_a_bar_on_a_terminal_and_none_elsewhere(kept: Kept, tmp_path: Path) -> None:
    """Shown at most five times a second: here each time, by a clock that runs ahead."""
    code = """
        import sys, time
        from itertools import count
        from deepwater import cli
        from deepwater.cli import binary, progress
        binary._BATCH_BYTES = 48 * 500
        ahead = count()
        progress.time.monotonic = lambda: next(ahead)
        sys.exit(cli.main(sys.argv[1:]))
    """
    words = ["export", "TICKS", "-o", tmp_path / "a.npy", "--base-path", kept.path]
    quiet = run_python(code, *map(str, words))
    assert "[" not in quiet.stderr
    master, slave = pty.openpty()
    try:
        import subprocess
        import sys
        import textwrap

        from cli_kit import environment

        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, words), "--force"]
        subprocess.run(command, stderr=slave, env=environment(), check=True)
        shown = os.read(master, 1 << 16).decode()
    finally:
        os.close(slave)
        os.close(master)
    bars = re.findall(r"exporting TICKS \[([#-]{20})\] +(\d+) %  ([\d,]+) of 5,000 records", shown)
    assert len(bars) > 3 and [int(percent) for _, percent, _ in bars] == sorted(int(percent) for _, percent, _ in bars)
    assert shown.rstrip("\r\n").endswith("npy, 240.3 kB") and "\r" in shown


def test_memory_is_bounded_whatever_the_length(tmp_store: Path, tmp_path: Path) -> None:
    import tracemalloc

    with Platform(tmp_store) as dw:
        dw.create_feed({**TICKS_SPEC, "chunk_size_bytes": 1 << 24})
        with dw["TICKS"] as reader, dw.create_writer("TICKS") as writer:
            peaks = []
            for rows in (150_000, 300_000):
                writer.write_batch(make_ticks(reader.dtype, rows))
                window = reader.rows(0, 1 << 40)
                for write in (binary.write_npy, binary.write_parquet):
                    with open(tmp_path / "a", "wb") as out:
                        tracemalloc.start()
                        write(window, out)
                        peaks.append(tracemalloc.get_traced_memory()[1])
                        tracemalloc.stop()
    assert max(peaks[2:]) < 1.5 * max(peaks[:2]), peaks


