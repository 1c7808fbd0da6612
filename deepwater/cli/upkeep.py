"""The commands that change what a store holds: resize, prune, delete."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from deepwater.cli import output
from deepwater.cli.failures import FAILED, OK, UsageError, describe, message
from deepwater.cli.store import feed_row, feed_table, put_json
from deepwater.cli.text import amount, clock_span, count, positions_text
from deepwater.errors import DeepwaterError, FeedLockedError, TimeFormatError
from deepwater.platform import Platform
from deepwater.retain import Pruned
from deepwater.timestamps import format_us

__all__ = ["delete", "prune", "resize"]


def resize(args: argparse.Namespace) -> int:
    """Change the size of a feed's chunks; say what it was."""
    with Platform(args.base_path) as dw:
        with dw.create_reader(args.feed) as reader:
            before = reader.settings.chunk_size_bytes
        try:
            dw.resize_feed(args.feed, args.size)
        except FeedLockedError as error:
            who = error.message.partition("; one writer a feed")[0]
            way_out = f"use that writer's resize_chunk_size({args.size}), or end it"
            raise FeedLockedError(f"{who}; {way_out}", **error.parts) from error
    if args.json:
        put_json({"feed": args.feed, "chunk_size_bytes": args.size, "before": before})
        return OK
    was = "as before" if before == args.size else f"was {before} ({amount(before)})"
    output.write(f"{args.feed}: chunk_size_bytes {args.size} ({amount(args.size)}), {was}\n")
    return OK


# --- prune -----------------------------------------------------------------------------------------------


def prune(args: argparse.Namespace) -> int:
    """Let the oldest chunks of feeds go; a feed that cannot be pruned is said, and the others go on."""
    with Platform(args.base_path) as dw:
        names = list(dict.fromkeys(args.feeds)) or _durable(dw)
        rows: list[dict[str, Any]] = []
        errors: list[str] = []
        for name in names:
            try:
                rows.append(_pruned(dw, name, args))
            except TimeFormatError as error:
                raise UsageError(f"--keep: {error}", "deepwater prune") from error
            except (DeepwaterError, OSError) as error:
                rows.append({"feed": name, "problem": message(error)})
                errors.append(describe(error, as_json=args.json))
                if len(names) == 1 and args.feeds:
                    raise
    if args.json:
        put_json(rows)
    for text in errors:
        output.say(text)
    return FAILED if errors else OK


def _durable(dw: Platform) -> list[str]:
    """Every feed of the store that is no ring; one that cannot be read is tried, to say why."""
    names = [row["feed"] for row in (feed_row(dw, name) for name in dw.list_feeds()) if row.get("persist", True)]
    if not names:
        output.say(f"no durable feed in {dw.base_path}: nothing to prune")
    return names


def _pruned(dw: Platform, name: str, args: argparse.Namespace) -> dict[str, Any]:
    asked = args.keep is not None or args.max_bytes is not None
    done = dw.prune(name, args.keep, args.max_bytes, args.dry_run)
    if not args.json:
        output.write(f"{name}: {_let_go(done)}\n")
        if not asked and not done.chunks and not dw[name].settings.retain:
            output.say(f"feed {name} has no setting retain: say --keep or --max-bytes, or create it with one")
    return done.to_json() | {"problem": None}


def _let_go(done: Pruned) -> str:
    verb = "would remove" if done.dry_run else "removed"
    if not done.chunks:
        return f"{verb} nothing" + (f" but what a killed prune left, {amount(done.bytes)}" if done.bytes else "")
    what = f"{verb} {count(done.chunks, 'chunk')}, {amount(done.bytes)}: {count(done.records, 'record')}"
    if done.first_us is None or done.last_us is None:
        return what
    first, last = clock_span(format_us(done.first_us), format_us(done.last_us))
    return f"{what}, {positions_text(done.first, done.stop)}, {first} to {last}"


# --- delete ----------------------------------------------------------------------------------------------


def delete(args: argparse.Namespace) -> int:
    """Delete feeds, once that is confirmed; the first that cannot be deleted ends it, and those after it stay."""
    names = list(dict.fromkeys(args.feeds))
    if not args.yes and not _can_ask():
        raise UsageError("there is no terminal to ask at: add --yes to delete without being asked", "deepwater delete")
    with Platform(args.base_path) as dw:
        known = set(dw.list_feeds())
        for name in names:
            if name not in known:  # before anything is deleted; it raises
                dw.create_reader(name).close()
        rows = [feed_row(dw, name) for name in names]
        if not args.yes and not _confirmed(rows):
            output.say("nothing was deleted")
            return FAILED
        deleted: list[dict[str, Any]] = []
        try:
            for row in rows:
                dw.delete_feed(row["feed"])
                deleted.append(row)
                if not args.json:
                    output.write(f"deleted {_what(row)}\n")
        finally:
            if args.json and (deleted or sys.exc_info()[0] is None):
                put_json([{key: row.get(key) for key in ("feed", "records", "bytes")} for row in deleted])
    return OK


def _can_ask() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _confirmed(rows: list[dict[str, Any]]) -> bool:
    """Show what will go, and ask; nothing but yes is yes."""
    for line in feed_table(rows)[0]:
        output.say(line)
    for row in rows:
        if row["problem"]:
            output.say(f"feed {row['feed']} cannot be read: {row['problem']}")
    sys.stderr.write(f"delete {_sum(rows)}, for good? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _what(row: dict[str, Any]) -> str:
    if row["problem"]:
        return f"{row['feed']}, which could not be read"
    return f"{row['feed']}: {count(row['records'], 'record')}, {amount(row['bytes'])}"


def _sum(rows: list[dict[str, Any]]) -> str:
    if len(rows) == 1:
        return _what(rows[0])
    records = sum(row["records"] or 0 for row in rows)
    return f"{count(len(rows), 'feed')}: {count(records, 'record')}, {amount(sum(row.get('bytes', 0) for row in rows))}"
