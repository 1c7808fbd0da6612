"""What the tests of the command line share: running it as a process, as a user does, and a store to ask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "deepwater.cli"]


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without what steers the command, and with `extra`."""
    steering = ("DEEPWATER_HOME", "DEEPWATER_DEBUG", "COLUMNS", "LINES", "NO_COLOR")
    kept = {key: value for key, value in os.environ.items() if key not in steering}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, **extra}


def deepwater(
    *words: object, code: int = 0, env: dict[str, str] | None = None, text: bool = True, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end; it must exit with `code` and show no traceback."""
    options = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, "timeout": 120} | options
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        stderr=subprocess.PIPE, env=environment(**(env or {})), check=False, **options,
    )  # fmt: skip
    said = done.stderr.decode()
    assert "Traceback" not in said and "Exception ignored" not in said, said
    assert done.returncode == code, f"exit {done.returncode}, not {code}:\n{said}"
    done.stderr = said
    if text and done.stdout is not None:
        done.stdout = done.stdout.decode()
    return done


@contextmanager
def started(*words: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that runs beside the test; killed and reaped if it is still there at the end."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    process = subprocess.Popen([*COMMAND, *map(str, words)], text=True, env=environment(), **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the next line of its stdout; waits for it."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def one_line(said: str) -> str:
    """Return the single line that was said."""
    assert said.endswith("\n") and said.count("\n") == 1, repr(said)
    return said[:-1]


# --- a store -------------------------------------------------------------------------------------------

TICKS_SPEC = {
    "feed_name": "TICKS", "ts_col": "proc_us", "chunk_size_bytes": 48 * 700, "desc": "Trades of nothing.",
    "fields": [
        {"name": "side", "type": "char", "desc": "B or S"}, {"name": "good", "type": "bool"},
        {"name": "_", "type": "_6"}, {"name": "trade_id", "type": "uint64"},
        {"name": "proc_us", "type": "uint64"}, {"name": "ev_us", "type": "uint64"},
        {"name": "price", "type": "float64"}, {"name": "size", "type": "float64"},
    ],
}  # fmt: skip
ODD_SPEC = {
    "feed_name": "ODD", "ts_col": "t_us",
    "fields": [
        {"name": "t_us", "type": "uint64"}, {"name": "ev_us", "type": "uint64"}, {"name": "name", "type": "char[8]"},
        {"name": "value", "type": "float64"}, {"name": "levels", "type": "float32[4]"},
        {"name": "small", "type": "float32"},
        {"name": "step", "type": "int16"}, {"name": "flag", "type": "char"}, {"name": "raw", "type": "byte"},
    ],
}  # fmt: skip
START_US = 1_786_253_022_196_708  # 2026-08-09T05:23:42.196708Z
ODD_NAMES = [b"plain", b'a,"b"', b"x\ny", b"\xe9t\xe9", b"\x1b[2J", b""]


@dataclass(frozen=True)
class Kept:
    """A store on disk and what was written to it."""

    path: Path
    ticks: npt.NDArray[Any]
    odd: npt.NDArray[Any]


def make_ticks(dtype: np.dtype[Any], rows: int) -> npt.NDArray[Any]:
    rng = np.random.default_rng(7)
    ticks = np.zeros(rows, dtype)
    ticks["trade_id"] = np.arange(rows) + 10**15
    ticks["proc_us"] = START_US + np.arange(rows, dtype="u8") * 1000
    ticks["ev_us"] = ticks["proc_us"] - rng.integers(0, 50_000, rows).astype("u8")
    ticks["side"] = rng.choice([b"B", b"S"], rows)
    ticks["good"] = rng.random(rows) < 0.5
    ticks["price"] = np.round(65_000 + rng.normal(0, 5, rows).cumsum(), 2)
    ticks["size"] = np.round(rng.exponential(0.1, rows), 8)
    return ticks


def make_odd(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    odd = np.zeros(len(ODD_NAMES), dtype)
    odd["t_us"] = START_US + np.arange(len(odd), dtype="u8")
    odd["ev_us"] = [0, 1, START_US, 253_402_300_799_999_999, 253_402_300_800_000_000, 2**64 - 1]
    odd["name"] = ODD_NAMES
    odd["value"] = [0.1, np.nan, np.inf, -np.inf, 1e-300, -0.0]
    odd["levels"] = np.arange(24).reshape(6, 4) / 3
    odd["levels"][1] = np.nan
    odd["small"] = [0.1, 3.4e38, 1e-7, np.nan, 2, 16777217]
    odd["step"] = [-32768, 32767, 0, 1, -1, 5]
    odd["flag"] = [b"A", b"\x00", b"\xff", b"\x1b", b'"', b","]
    odd["raw"] = [0, 255, 1, 2, 3, 4]
    return odd
