"""The command rings: what feeds have in shared memory, what of it no feed can use any more, and away with that."""

from __future__ import annotations

import argparse
from typing import Any

from deepwater import shm
from deepwater.cli import output
from deepwater.cli.failures import FAILED, OK, UsageError
from deepwater.cli.store import no_room, put_json
from deepwater.cli.text import Table, amount, count, terminal_width

__all__ = ["rings"]

Entry = dict[str, Any]


def rings(args: argparse.Namespace) -> int:
    """List rings, list orphans, or remove these. None is an answer too: exit code 0."""
    if args.all and args.base_path is not None:
        raise UsageError("--all is of all stores, --base-path of one: leave one of them out", "deepwater rings")
    entries = shm.listing(args.base_path)
    orphans = [entry for entry in entries if entry["orphan"]]
    if args.what == "clean" and (args.all or args.base_path is not None):
        return _clean(orphans, args.json)
    if args.what == "clean" and args.json:
        put_json({"removed": 0, "orphans": orphans})
        return FAILED if orphans else OK
    is_list = args.what == "list"
    shown = [entry for entry in entries if entry["kind"] == "ring"] if is_list else orphans
    if args.json:
        put_json(shown)
    elif shown:
        _show(_RINGS if is_list else _ORPHANS, shown)
    if not args.json and not shown:
        output.say(f"no {'rings' if is_list else 'orphans'} in shared memory")
    if not args.json and is_list and orphans:
        output.say(f"{count(len(orphans), 'orphan')}: see deepwater rings orphans")
    return _not_cleaned(orphans) if args.what == "clean" else OK


def _not_cleaned(orphans: list[Entry]) -> int:
    """Nobody said whose orphans may go: say how to say it."""
    if orphans:
        output.say("nothing was removed: name a store with --base-path DIR, or say --all for all of your stores")
    return FAILED if orphans else OK


def _clean(orphans: list[Entry], as_json: bool) -> int:
    """Remove orphans and say how many."""
    removed = shm.clean(orphans) if orphans else 0
    if as_json:
        put_json({"removed": removed})
        return OK
    files, size = count(removed, "orphan"), amount(sum(entry["bytes"] for entry in orphans))
    output.write(f"removed {files}, {size}\n" if removed else "nothing to remove\n")
    return OK


_RINGS = Table(("feed", "records", "size", "writer", "orphan", "store"), left=frozenset({"feed", "orphan", "store"}))
_ORPHANS = Table(("feed", "kind", "size", "why", "path"), left=frozenset({"feed", "kind", "why", "path"}))


def _show(table: Table, entries: list[Entry]) -> None:
    cells = [[_cell(entry, title) for title in table.titles] for entry in entries]
    width = terminal_width()
    output.write("\n".join(table.lines(cells, width)) + "\n")
    no_room(table.left_out(cells, width))


def _cell(entry: Entry, title: str) -> str:
    if title == "records":
        return f"{entry['records']:,}"
    if title == "size":
        return amount(entry["bytes"])
    if title == "writer":
        return f"pid {entry['writer_pid']}" if entry["writer_pid"] else "-"
    if title == "orphan":
        return str(entry["why"] or "-")
    if title == "store":
        return str(entry["base_path"] or entry["store"])
    return str(entry[title] or "-")
