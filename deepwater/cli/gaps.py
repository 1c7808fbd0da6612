"""The command gaps: where feeds are contiguous, what they missed, and when none of several misses anything."""

from __future__ import annotations

import argparse
from typing import Any

from deepwater.cli import output, times
from deepwater.cli.failures import FAILED, OK, UsageError
from deepwater.cli.store import no_room, put_json
from deepwater.cli.text import Table, count, seconds, terminal_width
from deepwater.gaps import REMOVED, Contiguity, common, contiguous
from deepwater.index import UNKNOWN
from deepwater.platform import Platform
from deepwater.timestamps import format_us
from deepwater.window_text import printable

__all__ = ["gaps"]

_SILENCES = "--silence is a duration as 250ms, 5s, 1h30m"
_SPANS = Table(("first", "records", "whole from (UTC)", "to", "lasts"), indent=2, spare=("first", "to"))
_GAPS = Table(("before", "lost", "from (UTC)", "to", "lasts", "kind", "reason"), left=frozenset({"kind", "reason"}),
              indent=2, spare=("to", "before", "kind"))  # fmt: skip
_COMMON = Table(("from (UTC)", "to", "lasts"), indent=2)


def gaps(args: argparse.Namespace) -> int:
    """Show spans and gaps. Exit code 1 if there is a gap; a removed beginning is one only where --start reaches it."""
    with Platform(args.base_path) as dw:
        names = list(dict.fromkeys(args.feeds)) or dw.list_feeds()
        if args.common and not names:
            raise UsageError("--common needs feeds, and the store has none", "deepwater gaps")
        found = [_of(dw, name, args) for name in names]
    shared = common(found).tolist() if args.common else None
    if args.json:
        put_json({"feeds": [_as_json(each) for each in found], "common": None if shared is None else [
            {"from_us": begin, "to_us": end} for begin, end in shared]})  # fmt: skip
    elif not found:
        output.say(f"no feeds in {dw.base_path}")
    else:
        left_out = [title for each in found for title in _show(each)]
        if shared is not None:
            left_out += _show_common(shared, found)
        no_room(list(dict.fromkeys(left_out)))
    is_gap = [(each.gaps["kind"] != REMOVED) | (args.start is not None) for each in found]
    return FAILED if any(flags.any() for flags in is_gap) else OK


def _of(dw: Platform, name: str, args: argparse.Namespace) -> Contiguity:
    with dw.create_reader(name) as reader, times.explained(f"{times.TIMES}; {_SILENCES}"):
        start, end = times.as_time(args.start), times.as_time(args.end)
        return contiguous(reader, start, end, clock=args.clock, silence=args.silence)


# --- JSON --------------------------------------------------------------------------------------------------


def _as_json(found: Contiguity) -> dict[str, Any]:
    """A feed as a JSON object: times in us, null where unknown."""
    extent = found.extent
    names = found.spans.dtype.names or ()
    return {
        "feed": found.feed, "clock": found.clock, "records": found.records,
        "from_us": extent and extent[0], "to_us": extent and extent[1],
        "covered_us": found.covered_us, "share": round(found.share, 9),
        "spans": [_timed(dict(zip(names, span, strict=True))) for span in found.spans.tolist()],
        "gaps": [_gap(mark) for mark in found.gaps],
    }  # fmt: skip


def _timed(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if key.endswith("_us") and not value else value for key, value in values.items()}


def _gap(mark: Any) -> dict[str, Any]:
    lost = int(mark["count"])
    return _timed({
        "position": int(mark["position"]), "kind": mark["kind"].decode(), "lost": None if lost == UNKNOWN else lost,
        "from_us": int(mark["from_us"]), "to_us": int(mark["to_us"]), "noticed_us": int(mark["timestamp_us"]),
        "reason": mark["reason"].decode("utf-8", "replace"),
    })  # fmt: skip


# --- text --------------------------------------------------------------------------------------------------


def _show(found: Contiguity) -> list[str]:
    """Write of a feed what there is to say; return the columns there is no room for."""
    extent = found.extent
    about = f"{count(len(found.spans), 'span')}, {count(len(found.gaps), 'gap')}, {count(found.records, 'record')}"
    lines = [f"{found.feed}: {about}"]
    if extent is not None:
        covered = f"{found.share:.2%} of {found.clock} {format_us(extent[0])} to {format_us(extent[1])} covered"
        lines.append(f"  {covered}, {seconds(found.covered_us)} of {seconds(extent[1] - extent[0])}")
    width, left_out = terminal_width(), []
    if len(found.spans):
        cells = [_span_cells(each) for each in found.spans]
        lines += _SPANS.lines(cells, width)
        left_out += _SPANS.left_out(cells, width)
    if len(found.gaps):
        cells = [_gap_cells(_gap(mark)) for mark in found.gaps]
        lines += ["  gaps", *_GAPS.lines(cells, width)]
        left_out += _GAPS.left_out(cells, width)
    output.write("\n".join(lines) + "\n")
    return left_out


def _span_cells(span: Any) -> tuple[str, ...]:
    begin, end = int(span["whole_from_us"]), int(span["whole_to_us"])
    return (f"{int(span['first']):,}", f"{int(span['records']):,}", *_moments(begin, end))


def _moments(begin: int, end: int) -> tuple[str, str, str]:
    return (format_us(begin), format_us(end), seconds(end - begin)) if end else ("?", "?", "?")


def _gap_cells(gap: dict[str, Any]) -> tuple[str, ...]:
    lost = "?" if gap["lost"] is None else f"{gap['lost']:,}"
    begin, end = gap["from_us"], gap["to_us"]
    moments = [format_us(us) if us else "?" for us in (begin, end)]
    lasts = seconds(end - begin) if begin and end and end >= begin else "?"
    return (f"{gap['position']:,}", lost, *moments, lasts, gap["kind"], printable(gap["reason"]))


def _show_common(shared: list[tuple[int, int]], found: list[Contiguity]) -> list[str]:
    whole = seconds(sum(end - begin for begin, end in shared))
    lines = [f"common to {count(len(found), 'feed')}: {count(len(shared), 'interval')}, {whole}"]
    cells, width = [_moments(begin, end) for begin, end in shared], terminal_width()
    if cells:
        lines += _COMMON.lines(cells, width)
    output.write("\n".join(lines) + "\n")
    return _COMMON.left_out(cells, width)
