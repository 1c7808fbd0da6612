"""The commands that change what a store holds: resize, delete."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from deepwater.cli import output
from deepwater.cli.failures import FAILED, OK, UsageError
from deepwater.cli.store import feed_row, feed_table, put_json
from deepwater.cli.text import amount, count
from deepwater.errors import FeedLockedError
from deepwater.platform import Platform

__all__ = ["delete", "resize"]


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
