"""The command tail: the newest records, and with -f what is published from then on."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy.typing as npt

from deepwater import arrow
from deepwater.cli import output, rows, times
from deepwater.cli.failures import OK, UsageError
from deepwater.cli.query import about_nothing
from deepwater.cli.stream import CsvStream, JsonStream, Stream, TableStream
from deepwater.cli.text import count
from deepwater.errors import NoSnapshotError
from deepwater.follow import Follower
from deepwater.platform import Platform
from deepwater.reader import Reader
from deepwater.timestamps import MAX_US, instant
from deepwater.window import Coverage

__all__ = ["say_lost", "tail"]

Array = npt.NDArray[Any]

_PROG = "deepwater tail"
_ROWS = 10


def tail(args: argparse.Namespace) -> int:
    """Print the newest records; with -f go on until Ctrl-C, the time-out or the limit."""
    form = "json" if args.json else args.format
    for option in ("timeout", "wait"):
        if getattr(args, option) is not None and not args.follow:
            raise UsageError(f"--{option} is about waiting: it goes with -f", _PROG)
    with Platform(args.base_path) as dw, dw.create_reader(args.feed) as reader, output.destination(None) as out:
        end = int(reader.end)
        position = _position(reader, end, args)
        stream = _stream(form, reader, args.columns, out)
        if args.follow:
            _follow(reader, position, stream, args)
        else:
            _show(stream, _limited(reader.rows(position, end).arrays(stream.block_rows), args.limit))
        stream.close()
        if form != "json" and position == end and not args.follow and args.rows != 0:
            output.say(_why_nothing(reader, args))
    return OK


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


def _stream(form: str, reader: Reader, chosen: list[str] | None, out: IO[bytes]) -> Stream:
    layout = reader.layout
    columns = arrow.select(layout, chosen)
    if form == "table":
        shown = columns if chosen is not None else rows.for_people(layout, columns, layout.ts_col)
        return TableStream(layout, shown, out)
    return CsvStream(layout, columns, out) if form == "csv" else JsonStream(layout, columns, out)


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


def _show(stream: Stream, batches: Iterable[Array]) -> None:
    for number, records in enumerate(batches):
        stream.put(records)
        if not number and stream.left_out:
            output.say(f"no room for {', '.join(stream.left_out)} (choose with --columns)")


def _follow(reader: Reader, position: int, stream: Stream, args: argparse.Namespace) -> None:
    follower = reader.follow(
        position=position, batch=stream.block_rows, timeout=args.timeout, wait=args.wait or "auto", on_lap="skip"
    )
    if not len(reader) and not args.json:
        output.say(f"feed {args.feed} is empty: waiting for its first record")
    with follower, output.listened(follower.close):
        _show(stream, _limited(_said_lost(follower, f"feed {args.feed}"), args.limit))


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
