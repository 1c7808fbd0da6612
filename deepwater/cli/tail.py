"""The commands tail and head: the newest records, and with -f what is published from then on; the oldest ones."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy.typing as npt

from deepwater import arrow
from deepwater.cli import code, output, rows, times
from deepwater.cli.failures import OK, UsageError
from deepwater.cli.query import about_nothing
from deepwater.cli.stream import CsvStream, JsonStream, Stream, TableStream
from deepwater.cli.text import count
from deepwater.errors import NoSnapshotError
from deepwater.follow import Follower
from deepwater.platform import Platform
from deepwater.reader import Reader
from deepwater.timestamps import MAX_US, instant
from deepwater.window import Coverage, Window

__all__ = ["check_waiting", "follow", "head", "is_json", "say_lost", "show", "tail"]

Array = npt.NDArray[Any]

_PROG = "deepwater tail"
_ROWS = 10


def tail(args: argparse.Namespace) -> int:
    """Print the newest records; with -f go on until Ctrl-C, the time-out or the limit."""
    check_waiting(args, _PROG)
    with Platform(args.base_path) as dw, dw.create_reader(args.feed) as reader:
        end = int(reader.end)
        position = _position(reader, end, args)
        if args.code:
            output.write(_code(dw.base_path, position, end, args))
        elif args.follow:
            follow(reader, position, args)
        else:
            show(reader, reader.rows(position, end), args)
            if not is_json(args) and position == end and args.rows != 0:
                output.say(_why_nothing(reader, args))
    return OK


def head(args: argparse.Namespace) -> int:
    """Print the oldest records."""
    count = _ROWS if args.rows is None else args.rows
    with Platform(args.base_path) as dw, dw.create_reader(args.feed) as reader:
        first = int(reader.first)
        if args.code:
            call = f"rows({first}, {first + count})"
            output.write(code.window_lines(dw.base_path, args.feed, call, columns=args.columns))
            return OK
        args.limit = None
        show(reader, reader.rows(first, first + count), args)
        if not is_json(args) and not len(reader):
            output.say(f"no rows: feed {args.feed} is empty")
    return OK


def is_json(args: argparse.Namespace) -> bool:
    """Whether lines are JSON: then nothing is said to people."""
    return bool(args.json or args.format == "json")


def check_waiting(args: argparse.Namespace, prog: str) -> None:
    """Refuse options about waiting where nothing is waited for."""
    for option in ("timeout", "wait"):
        if getattr(args, option, None) is not None and not args.follow:
            raise UsageError(f"--{option} is about waiting: it goes with -f", prog)


def _code(base_path: str, position: int, end: int, args: argparse.Namespace) -> str:
    if args.follow:
        return code.follow_lines(
            base_path, args.feed, position, columns=args.columns, limit=args.limit, timeout=args.timeout,
            wait=args.wait)  # fmt: skip
    call = f"rows({position}, {end})"
    return code.window_lines(base_path, args.feed, call, columns=args.columns, limit=args.limit)


def _position(reader: Reader, end: int, args: argparse.Namespace) -> int:
    """Return where to begin; `end` is what was published when the command began."""
    if args.snapshot:
        try:
            return reader.playback().position or 0
        except NoSnapshotError:
            if not args.follow or not reader.settings.index_playback:
                raise
            if not args.json:
                output.say(f"feed {args.feed} has no complete snapshot yet: beginning with its next record")
            return end
    if args.start is not None:
        with times.explained(times.TIMES):
            return reader.position_of(times.as_time(args.start))
    return max(reader.first, end - (_ROWS if args.rows is None else args.rows))


def _stream(reader: Reader, args: argparse.Namespace, out: IO[bytes]) -> Stream:
    layout = reader.layout
    columns = arrow.select(layout, args.columns)
    if is_json(args):
        return JsonStream(layout, columns, out)
    if args.format == "csv":
        return CsvStream(layout, columns, out)
    clock = getattr(args, "clock", None) or layout.ts_col
    return TableStream(layout, columns if args.columns else rows.for_people(layout, columns, clock), out)


def _limited(batches: Iterable[Array], limit: int | None) -> Iterator[Array]:
    """Yield batches until they hold `limit` rows; what comes after is not waited for."""
    left = limit
    if left == 0:
        return
    for records in batches:
        yield records if left is None else records[:left]
        if left is not None:
            left -= len(records)
            if left <= 0:
                return


def show(reader: Reader, window: Window, args: argparse.Namespace) -> None:
    """Print the records of a window, at most --limit."""
    with output.destination(None) as out:
        stream = _stream(reader, args, out)
        _put(stream, _limited(window.arrays(stream.block_rows), args.limit))
        stream.close()


def follow(reader: Reader, position: int, args: argparse.Namespace) -> None:
    """Print records from a position on, as they are published, until --timeout, --limit or nobody reads them."""
    with output.destination(None) as out:
        stream = _stream(reader, args, out)
        follower = reader.follow(
            position=position, batch=stream.block_rows, timeout=args.timeout,
            wait=getattr(args, "wait", None) or "auto", on_lap="skip",
        )  # fmt: skip
        if not len(reader) and not args.json:
            output.say(f"feed {reader.feed} is empty: waiting for its first record")
        with follower, output.listened(follower.close):
            _put(stream, _limited(_said_lost(follower, f"feed {reader.feed}"), args.limit))
        stream.close()


def _put(stream: Stream, batches: Iterable[Array]) -> None:
    for number, records in enumerate(batches):
        stream.put(records)
        if not number and stream.left_out:
            output.say(f"no room for {', '.join(stream.left_out)} (choose with --columns)")


def _said_lost(follower: Follower, what: str) -> Iterator[Array]:
    """Yield what a follower gives; say how many records were overwritten before it came to them."""
    said = 0
    for records in follower:
        said = say_lost(what, follower.lost, said)
        yield records


def say_lost(what: str, lost: int, said: int) -> int:
    """Say how many records were lost since that was said last; return how many that makes."""
    if lost > said:
        output.say(
            f"deepwater: warning: {what}: {count(lost - said, 'record')} lost (overwritten before they were read)"
        )
    return lost


def _why_nothing(reader: Reader, args: argparse.Namespace) -> str:
    records = len(reader)
    low, high = reader.coverage() if records else (0, 0)
    since = 0 if args.start is None else instant(times.as_time(args.start) or 0)
    return about_nothing(args.feed, Coverage(low, high, records, since, MAX_US), False)
