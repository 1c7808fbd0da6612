"""The command query: records of a time range, in the form asked for."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import IO

from deepwater.cli import code, output, times
from deepwater.cli.failures import OK, UsageError
from deepwater.cli.text import count, terminal_width
from deepwater.platform import Platform
from deepwater.reader import Reader
from deepwater.timestamps import MAX_US, Bounds, duration_us, format_us, guess_unit, resolve
from deepwater.window import Coverage, Window

__all__ = ["about_nothing", "bounds_of", "query", "read_call", "window_of"]

_PROG = "deepwater query"
_ENDINGS = {
    ".txt": "table", ".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json",
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
_DURATIONS = f"{times.DURATIONS}, or a number of rows"


def query(args: argparse.Namespace) -> int:
    """Print or write the records of a time range. None is an answer too: exit code 0."""
    form = _form(args)
    with Platform(args.base_path) as dw, dw.create_reader(args.feed) as reader:
        window, call = window_of(reader, args, _PROG)
        if args.code:
            output.write(code.window_lines(dw.base_path, args.feed, call, columns=args.columns, limit=args.limit))
            return OK
        empty = not len(window)
        if args.limit is not None:
            window = window[: args.limit]
        with output.destination(args.output, force=args.force) as out:
            note = _write(window, out, form, args)
    if empty and form != "json":
        note = about_nothing(args.feed, window.coverage, args.start is not None and args.end is not None)
        note += times.of_today(args.start, args.end)
    if note:
        output.say(note)
    return OK


def _form(args: argparse.Namespace) -> str:
    """Return the format: the one named, else what the file's ending says, else a table."""
    if args.json:
        return "json"
    to_file = not _is_stdout(args.output)
    form: str | None = args.format
    if form is None:
        ending = os.path.splitext(args.output)[1].lower() if to_file else ".txt"
        form = _ENDINGS.get(ending)
    if form is None:
        raise UsageError(f"-o {args.output}: its ending tells no format; add --format", _PROG)
    if form in ("parquet", "arrow") and not to_file and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError(f"{form} is binary and this is a terminal: add -o FILE, or pipe it", _PROG)
    return form


def bounds_of(reader: Reader, args: argparse.Namespace, prog: str) -> Bounds:
    """Return the times that --start and --end, or --last, name; what is relative counts from one moment."""
    if args.last is None:
        with times.explained(times.TIMES):
            return resolve(times.as_time(args.start), times.as_time(args.end))
    if args.start is not None or args.end is not None:
        raise UsageError("--last counts back from the newest record: leave --start and --end out", prog)
    with times.explained(times.DURATIONS if prog == "deepwater trades" else _DURATIONS):
        back = duration_us(args.last)
    newest = reader.coverage(args.clock)[1] if len(reader) else 0
    return Bounds(max(0, newest - back), newest)


def read_call(reader: Reader, bounds: Bounds, clock: str | None) -> str:
    """Return the call of a reader that gives these records again, whatever is written after them."""
    if bounds.empty:
        return "rows(0, 0)"
    hi = bounds.hi if bounds.hi < MAX_US or not len(reader) else max(bounds.lo, reader.coverage(clock)[1])
    named = f", clock={clock!r}" if clock is not None else ""
    return f"read({code.time(bounds.lo)}, {code.time(hi)}{named})"


def window_of(reader: Reader, args: argparse.Namespace, prog: str) -> tuple[Window, str]:
    """Return what is asked for, and the call that gives it again."""
    is_rows = args.last is not None and re.fullmatch(r"[0-9]{1,18}", args.last)
    if is_rows and args.start is None and args.end is None:  # else it is refused below
        window = reader.read(last=int(args.last), clock=args.clock, columns=args.columns)
        first = window.position or 0
        return window, f"rows({first}, {first + len(window)})"
    bounds = bounds_of(reader, args, prog)
    window = reader.read(bounds.lo, bounds.hi, clock=args.clock, columns=args.columns)
    return window, read_call(reader, bounds, args.clock)


def _write(window: Window, out: IO[bytes], form: str, args: argparse.Namespace) -> str:
    """Write the window, and return what is to be said about that."""
    from deepwater.cli import binary, rows

    to_stdout = _is_stdout(args.output)
    if form == "csv":
        rows.write_csv(window, out)
    elif form == "json":
        rows.write_json(window, out)
    elif form == "parquet":
        binary.write_parquet(window, out)
    elif form == "arrow":
        binary.write_arrow(window, out, stream=to_stdout)
    else:
        return rows.write_table(
            window, out, everything=args.limit is not None or not to_stdout, chosen=args.columns is not None,
            width=terminal_width() if to_stdout else None,
        )  # fmt: skip
    return ""


def _is_stdout(path: str | None) -> bool:
    return path in (None, "-")


def about_nothing(feed: str, coverage: Coverage | None, both: bool) -> str:
    """Say why there is no row: what was asked for and what there is."""
    if coverage is None or not coverage.records:
        return f"no rows: feed {feed} is empty"
    if coverage.lo > coverage.hi and both:
        return "no rows: --start is after --end"
    covers = f"{format_us(coverage.first_us)} to {format_us(coverage.last_us)}"
    text = f"no rows: feed {feed} covers {covers} ({count(coverage.records, 'record')})"
    asked = [bound for bound in (coverage.lo, coverage.hi) if 0 < bound < MAX_US]
    hints = [f"{bound} looks like {unit}, times are in us" for bound in asked if (unit := guess_unit(bound))]
    return "; ".join([text, *hints])
