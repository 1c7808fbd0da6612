"""The command replay: several feeds in the order of their times, as lines that say which feed they are of."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

from deepwater.cli import output, rows, times
from deepwater.cli.events import JsonEvents, TableEvents
from deepwater.cli.failures import OK, UsageError
from deepwater.cli.tail import say_lost
from deepwater.cli.text import count
from deepwater.platform import Platform
from deepwater.playback import Batch, Replay, merge
from deepwater.reader import Reader
from deepwater.timestamps import duration_us, format_us

__all__ = ["replay"]

_PROG = "deepwater replay"


def replay(args: argparse.Namespace) -> int:
    """Print the records of feeds in the order of a clock. None is an answer too: exit code 0."""
    _check(args)
    as_json = args.json or args.format == "json"
    with contextlib.ExitStack() as stack:
        dw = stack.enter_context(Platform(args.base_path))
        readers = [stack.enter_context(dw.create_reader(name)) for name in args.feeds]
        play = stack.enter_context(_merged(readers, args))
        events = (JsonEvents if as_json else TableEvents)(readers, args.clock, args.columns)
        with output.destination(None) as out, output.listened(play.close):
            printed = _play(play, events, out, _block_rows(readers, as_json), args.limit)
        if not as_json:
            output.say(_about(printed, readers, args))
    return OK


def _play(play: Replay, events: JsonEvents | TableEvents, out: IO[bytes], most: int, limit: int | None) -> int:
    """Print what comes, about `most` rows at a time; return how many rows it was."""
    printed = said = 0
    left_out: set[str] = set()
    for group in _groups(play, most, limit):
        text = events.text(group)
        if more := [name for name in events.left_out if name not in left_out]:
            left_out.update(more)
            output.say(f"no room for {', '.join(more)} (choose with --columns)")
        said = say_lost("the replay", play.lost, said)
        out.write(text)
        output.flush()
        printed += sum(len(batch.records) for batch in group)
    return printed


def _check(args: argparse.Namespace) -> None:
    if len(set(args.feeds)) < len(args.feeds):
        raise UsageError("a feed is named twice: name each once", _PROG)
    if args.last is not None and (args.start is not None or args.end is not None):
        raise UsageError("--last counts back from the newest record: leave --start and --end out", _PROG)
    if args.live and args.end is not None:
        raise UsageError("--live has no end: leave --end out, or --live", _PROG)
    if args.timeout is not None and not args.live:
        raise UsageError("--timeout is about waiting: it goes with --live", _PROG)


def _merged(readers: Sequence[Reader], args: argparse.Namespace) -> Replay:
    options: dict[str, Any] = {
        "clock": args.clock, "speed": args.speed, "live": args.live, "timeout": args.timeout,
        "batch": min(rows.block_rows(reader.layout) for reader in readers), "on_lap": "skip",
    }  # fmt: skip
    if args.last is not None:
        with times.explained(times.DURATIONS):
            back = duration_us(args.last)
        newest = [reader.coverage(args.clock)[1] for reader in readers if len(reader)]
        return merge(readers, max(0, max(newest, default=0) - abs(back)), **options)
    with times.explained(times.TIMES):
        return merge(readers, times.as_time(args.start), times.as_time(args.end), **options)


def _block_rows(readers: Sequence[Reader], as_json: bool) -> int:
    sizes = (rows.block_rows(reader.layout) for reader in readers)
    return min(sizes) if as_json else min(*sizes, rows.TABLE_BLOCK_ROWS)


def _groups(play: Replay, most: int, limit: int | None) -> Iterator[list[Batch]]:
    """Yield what is due, together: waits for the first batch only. At most about `most` rows, and `limit` in all."""
    left = limit
    if left == 0:
        return
    for first in play:
        group, held = [first], len(first.records)
        while held < most and (batch := play.poll()) is not None:
            group.append(batch)
            held += len(batch.records)
        if left is not None:
            group, left = _cut(group, left)
        yield group
        if left == 0:
            return


def _cut(group: list[Batch], left: int) -> tuple[list[Batch], int]:
    """Return the first `left` rows of a group, and how many may still follow."""
    kept = []
    for batch in group:
        if left > 0:
            kept.append(batch._replace(records=batch.records[:left]))
            left -= len(kept[-1].records)
    return kept, left


def _about(printed: int, readers: Sequence[Reader], args: argparse.Namespace) -> str:
    """Say how much it was; of nothing, why."""
    spans = [reader.coverage(args.clock) for reader in readers if len(reader)]
    if printed or args.limit == 0:
        return f"{count(printed, 'row')} of {count(len(readers), 'feed')}"
    if not spans:
        return f"no rows: {', '.join(args.feeds)} {'is' if len(args.feeds) == 1 else 'are'} empty"
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    return f"no rows: what is there is of {format_us(low)} to {format_us(high)}"
