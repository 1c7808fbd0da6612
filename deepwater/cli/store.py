"""The commands that make and show feeds: create, feeds, info, snapshots."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from deepwater.cli import output
from deepwater.cli.failures import FAILED, OK, UsageError
from deepwater.cli.text import Table, amount, clock_span, count, paragraph, positions_text, seconds, terminal_width
from deepwater.describe import overview
from deepwater.errors import DeepwaterError
from deepwater.jsontext import MAX_JSON_BYTES, load_json
from deepwater.platform import Platform
from deepwater.settings import Settings
from deepwater.timestamps import format_us, now_us

__all__ = ["create", "feed_row", "feed_table", "feeds", "info", "put_json", "snapshots"]


def put_json(value: Any) -> None:
    """Write a JSON value as data: a line, as of every command, whatever it is."""
    output.write(json.dumps(value, default=int) + "\n")


# --- create ----------------------------------------------------------------------------------------------


def create(args: argparse.Namespace) -> int:
    """Create a feed, or see that it is there; say which."""
    spec = _spec(args)
    with Platform(args.base_path) as dw:
        before = set(dw.list_feeds())
        name = dw.create_feed(spec, update=args.update)
        about = dw.describe_feed(name)
    made = name not in before
    if args.json:
        parts = {key: about[key] for key in ("path", "record_bytes", "fields", "settings")}
        put_json({"feed": name, "created": made, **parts})
        return OK
    what = f"{about['record_bytes']} bytes a record, {count(len(about['fields']), 'field')}, clock {about['ts_col']}"
    kind = "chunks" if about["settings"]["persist"] else "a ring"
    where = f"{kind} of {amount(about['settings']['chunk_size_bytes'])}, in {about['path']}"
    output.write(f"{'created' if made else 'there already:'} {name}: {what}, {where}\n")
    return OK


def _spec(args: argparse.Namespace) -> Any:
    """What `Platform.create_feed` takes: a path, or a dict where the name is given here or stdin is read."""
    if (args.file is None) == (args.spec is None):
        raise UsageError("name one spec: SPEC.json or --spec FILE", "deepwater create")
    path = args.file or args.spec
    if path != "-" and args.name is None:
        # A file of a name that begins with a brace would be taken for JSON text.
        return path if not path.lstrip().startswith("{") else f"./{path}"
    if path == "-":
        source = sys.stdin.buffer.read(MAX_JSON_BYTES + 1) if sys.stdin is not None else b""
    else:
        with open(path, "rb") as file:
            source = file.read(MAX_JSON_BYTES + 1)
    spec = load_json(source, "stdin" if path == "-" else f"spec file {path!r}")
    if args.name is not None and isinstance(spec, dict):
        spec["feed_name"] = args.name
    return spec


# --- feeds -----------------------------------------------------------------------------------------------


def feeds(args: argparse.Namespace) -> int:
    """List the feeds. One that cannot be read is listed with its problem, and the exit code is 1."""
    with Platform(args.base_path) as dw:
        rows = [feed_row(dw, name) for name in dw.list_feeds()]
        base_path = dw.base_path
    if args.json:
        put_json(rows)
    elif not rows:
        output.say(f"no feeds in {base_path}: record or create one, or name another store with --base-path")
    else:
        _show_feeds(rows)
    return FAILED if any(row["problem"] for row in rows) else OK


def feed_row(dw: Platform, name: str) -> dict[str, Any]:
    """Return a feed in one row; one that cannot be read with its `problem`."""
    try:
        with dw.create_reader(name) as reader:
            return overview(reader)
    except (DeepwaterError, OSError) as error:
        return {"feed": name, "records": None, "problem": str(error)}


def no_room(left_out: list[str]) -> None:
    """Say which columns the terminal was too narrow for."""
    if left_out:
        output.say(f"no room for: {', '.join(left_out)} (see --json)")


def _show_feeds(rows: list[dict[str, Any]]) -> None:
    lines, left_out = feed_table(rows)
    output.write("\n".join(lines) + "\n")
    no_room(left_out)
    for row in rows:
        if row["problem"]:
            output.say(f"deepwater: error: feed {row['feed']}: {row['problem']}")


def feed_table(rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the lines of a table of feeds, and the titles there is no room for."""
    titles = ("feed", "records", "first (UTC)", "last", "size", "gaps", "writer")
    table = Table(titles, left=frozenset({"feed"}), spare=("size",))
    cells = [_feed_cells(row) for row in rows]
    width = terminal_width()
    return table.lines(cells, width), table.left_out(cells, width)


def _feed_cells(row: dict[str, Any]) -> list[str]:
    if row["problem"]:
        return [row["feed"], "?", "", "", "", "", ""]
    first, last = "", ""
    if row["records"]:
        first, last = clock_span(format_us(row["first_us"]), format_us(row["last_us"]))
    writer = f"pid {row['writer_pid']}" if row["writer_pid"] else "-"
    return [row["feed"], f"{row['records']:,}", first, last, amount(row["bytes"]), f"{row['gaps']:,}", writer]


# --- info ------------------------------------------------------------------------------------------------


def info(args: argparse.Namespace) -> int:
    """Show a feed."""
    with Platform(args.base_path) as dw:
        about = dw.describe_feed(args.feed)
    if args.json:
        put_json(about)
        return OK
    width = terminal_width()
    lines = [about["feed"]]
    if about["settings"]["desc"]:
        lines.append(paragraph(about["settings"]["desc"], "  ", width))
    lines.append("")
    facts = _facts(about)
    longest = max(len(key) for key, _ in facts)
    lines += [f"  {key.ljust(longest)}  {value}" for key, value in facts]
    output.write("\n".join([*lines, "", *_fields(about, width)]) + "\n")
    return OK


def _facts(about: dict[str, Any]) -> list[tuple[str, str]]:
    records = about["records"]
    positions = f", {positions_text(about['first'], about['end'])}" if records else ""
    facts = [("records", f"{records:,}{positions}")]
    for name, bounds in about["clocks"].items():
        if bounds is not None:
            facts.append((name, f"{format_us(bounds[0])} to {format_us(bounds[1])}"))
    if records and about["last_us"] > about["first_us"]:
        lasts = about["last_us"] - about["first_us"]
        facts.append(("rate", f"{records / lasts * 1e6:,.1f} records/s over {seconds(lasts)}"))
    facts += [
        *(_on_disk(about) if about["settings"]["persist"] else _in_memory(about)),
        ("writer", _writer(about["writer"])),
        ("settings", _settings(about["settings"])),
        ("path", about["path"]),
    ]
    return facts


def _on_disk(about: dict[str, Any]) -> list[tuple[str, str]]:
    size = f"{amount(about['bytes'])} in {count(about['chunks'], 'chunk')}, {about['record_bytes']} bytes a record"
    return [
        ("on disk", size),
        ("durable", count(about["durable"] - about["first"], "record") + " (all)" * (about["durable"] == about["end"])),
        ("marks", f"{count(about['gaps'], 'gap')}, {count(about['snapshots'], 'snapshot')}"),
    ]


def _in_memory(about: dict[str, Any]) -> list[tuple[str, str]]:
    held = "one ring" if about["chunks"] else "no ring yet"
    return [("in memory", f"{amount(about['bytes'])} in {held}, {about['record_bytes']} bytes a record")]


def _writer(writer: dict[str, Any] | None) -> str:
    if writer is None:
        return "none"
    text = f"pid {writer['pid']} on {writer['host']} since {format_us(writer['since_us'])}"
    if not writer["heartbeat_us"]:
        return text
    return f"{text}, last sign {seconds(max(0, now_us() - writer['heartbeat_us']))} ago"


def _settings(settings: dict[str, Any]) -> str:
    """The size of chunks, and what is not as by default."""
    default = Settings().to_json() | {"desc": settings["desc"]}
    size = settings["chunk_size_bytes"]
    other = [
        f"{key} {json.dumps(value)}"
        for key, value in settings.items()
        if value != default.get(key) and key != "chunk_size_bytes"
    ]
    return ", ".join([f"chunk_size_bytes {size} ({amount(size)})", *other])


def _fields(about: dict[str, Any], width: int | None) -> list[str]:
    """Return the table of fields; descriptions are wrapped below one another in the room that is left."""
    rows = [(field["name"], field["type"], str(field["offset"])) for field in about["fields"]]
    table = Table(("field", "type", "offset"), left=frozenset({"field", "type"}), indent=2)
    lines = table.lines(rows, width)
    at = max(map(len, lines)) + 2
    described = [lines[0]]
    for line, field in zip(lines[1:], about["fields"], strict=True):
        if not field["desc"]:
            described.append(line)
        elif width is not None and width - at < 24:
            described += [line, paragraph(field["desc"], "      ", width)]
        else:
            text = paragraph(field["desc"], " " * at, width)
            described.append(line.ljust(at) + text[at:])
    return described


# --- snapshots -------------------------------------------------------------------------------------------


def snapshots(args: argparse.Namespace) -> int:
    """List the complete snapshots of a feed. None is an answer too: exit code 0."""
    with Platform(args.base_path) as dw, dw.create_reader(args.feed) as reader:
        marks = reader.snapshots()[["position", "timestamp_us", "count"]].tolist()
        kept = reader.settings.index_playback
    if args.json:
        put_json([{"position": position, "timestamp_us": us, "rows": n or None} for position, us, n in marks])
        return OK
    cells = [(f"{position:,}", format_us(us), f"{n:,}" if n else "unknown") for position, us, n in marks]
    table, width = Table(("position", "time", "rows")), terminal_width()
    output.write("\n".join(table.lines(cells, width)) + "\n")
    no_room(table.left_out(cells, width))
    if not marks:
        why = "has no complete snapshot yet" if kept else "keeps no snapshots: it has no index_playback"
        output.say(f"feed {args.feed} {why}")
    return OK
