"""The commands export and import: a feed to a file, a file into a feed (what that promises is in `deepwater.load`)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import IO, Any

from deepwater.cli import binary, output, rows
from deepwater.cli.failures import OK, UsageError, one_line
from deepwater.cli.progress import Bar
from deepwater.cli.query import about_nothing, window_of
from deepwater.cli.signals import terminable
from deepwater.cli.store import put_json
from deepwater.cli.text import Table, amount, count, positions_text, terminal_width
from deepwater.errors import RecordError, SchemaError
from deepwater.load import Loaded, form_of, load
from deepwater.platform import Platform
from deepwater.window import Window

__all__ = ["export", "import_"]

_EXPORT, _IMPORT = "deepwater export", "deepwater import"


# --- export ----------------------------------------------------------------------------------------------


def export(args: argparse.Namespace) -> int:
    """Write records of a feed to a file, which appears whole or not at all."""
    form = args.format or form_of(args.output)
    if form is None or form not in binary.FORMS:
        raise UsageError(f"-o {args.output}: its ending tells no format; add --format", _EXPORT)
    to_stdout = args.output == "-"
    if to_stdout and args.json:
        raise UsageError("--json says on stdout what was written: name a file with -o", _EXPORT)
    if to_stdout and form != "csv" and output.is_terminal():
        raise UsageError(f"{form} is binary and this is a terminal: name a file with -o, or pipe it", _EXPORT)
    with Platform(args.base_path) as dw, dw.create_reader(args.feed) as reader:
        window, _ = window_of(reader, args, _EXPORT)
        empty = not len(window)
        if args.limit is not None:
            window = window[: args.limit]
        with Bar() as bar, output.destination(args.output, force=args.force, prog=_EXPORT) as out:
            _write(window, out, form, to_stdout, _counted(window, bar))
    if args.json:
        size = os.path.getsize(args.output)
        put_json({"feed": args.feed, "path": args.output, "format": form, "records": len(window), "bytes": size})
    elif empty:
        output.say(about_nothing(args.feed, window.coverage, args.start is not None and args.end is not None))
    elif not to_stdout:
        about = f"{count(len(window), 'record')} to {args.output}, {form}, {amount(os.path.getsize(args.output))}"
        output.say(f"{args.feed}: {about}")
    return OK


def _counted(window: Window, bar: Bar) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Return what passes arrays or batches on and shows how many rows they were."""

    def passed(pieces: Iterator[Any]) -> Iterator[Any]:
        done = 0
        for piece in pieces:
            yield piece
            done += len(piece)
            bar.show(f"exporting {window.feed}", done, len(window))

    return passed


def _write(
    window: Window, out: IO[bytes], form: str, stream: bool, passed: Callable[[Iterator[Any]], Iterator[Any]]
) -> None:
    if form == "csv":
        rows.write_csv(window, out, passed)
    elif form == "npy":
        binary.write_npy(window, out, passed)
    elif form == "parquet":
        binary.write_parquet(window, out, passed)
    else:
        binary.write_arrow(window, out, stream=stream, passed=passed)


# --- import ----------------------------------------------------------------------------------------------


def import_(args: argparse.Namespace) -> int:
    """Append the records of a file to a feed, all or none; say what was inferred and what was lost."""
    with terminable(), Platform(args.base_path) as dw, Bar() as bar:
        try:
            found = load(
                dw, args.file, args.feed, form=args.format, spec=args.spec, ts_col=args.ts_col, columns=args.columns,
                skip=args.skip, dry_run=args.dry_run,
                progress=lambda what, done, total, unit: bar.show(f"{what} {args.file}", done, total, unit),
            )  # fmt: skip
        except RecordError as error:
            if error.parts.get("path") is None:
                raise RecordError(f"{args.file}: {error.message}", **error.parts) from error
            raise
        except SchemaError as error:
            raise type(error)(error.message.replace("pass ts_col=", "say --ts-col"), **error.parts) from error
    if args.json:
        put_json(found.to_json() | {"dry_run": args.dry_run})
        return OK
    _say_inferred(found)
    for note in found.notes:
        output.say(one_line(note))
    for name, times in found.cut.items():
        output.say(f"{name}: {count(times, 'time')} between two microseconds, cut to the one before")
    output.write(_about(found, args.dry_run) + "\n")
    return OK


def _say_inferred(found: Loaded) -> None:
    """Show the fields of a feed that is made without a spec, and what in the file they are."""
    if not found.inferred:
        return
    output.say(f"feed {found.feed}, from {found.inferred}: {found.spec.record_size} bytes a record")
    cells = [
        (field.name, field.type, found.names[field.name], "clock" if field.name == found.spec.ts_col else "")
        for field in found.spec.fields
        if not field.is_padding
    ]
    table = Table(("field", "type", "column", ""), left=frozenset({"field", "type", "column", ""}), indent=2)
    for line in table.lines(cells, terminal_width()):
        output.say(line)


def _about(found: Loaded, dry_run: bool) -> str:
    records = count(found.records, "record")
    if dry_run:
        made = "; the feed would be made" if found.created else ""
        return f"{found.path}: {records} would be imported into {found.feed}{made}; nothing was written (--dry-run)"
    made = ", which was made" if found.created else ""
    where = ""
    if found.records and found.first is not None:
        where = f", {positions_text(found.first, found.first + found.records)}"
    return f"{found.path}: {records} imported into {found.feed}{made}{where}"
