"""The command trades: what was traded in a window of time, of a product.

A feed of trades is known by its name, VENUE-TRADES-PRODUCT: nothing is opened to find it.
"""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from deepwater.cli import code, output, times
from deepwater.cli.failures import OK, UsageError
from deepwater.cli.query import about_nothing, bounds_of, read_call
from deepwater.cli.store import feed_row, feed_table, no_room
from deepwater.cli.tail import check_waiting, follow, is_json, show
from deepwater.cli.text import clock_span, count
from deepwater.errors import FeedNotFoundError
from deepwater.platform import Platform
from deepwater.reader import Reader
from deepwater.timestamps import MAX_US, Bounds, format_us
from deepwater.window import Window
from deepwater.wording import did_you_mean

__all__ = ["trades"]

_PROG = "deepwater trades"
_NAME = re.compile(r"[A-Za-z0-9]+-TRADES-(.+)")
_MINUTE_US = 60_000_000


def trades(args: argparse.Namespace) -> int:
    """Print the trades of a window; with -f go on with what is published."""
    _check(args)
    with Platform(args.base_path) as dw:
        name = args.feed or _feed(dw, args)
        with dw.create_reader(name) as reader:
            bounds = _bounds(reader, args)
            if args.follow:
                _follow(dw.base_path, reader, bounds, args)
            elif args.code:
                call = read_call(reader, bounds, args.clock)
                output.write(code.window_lines(dw.base_path, name, call, columns=args.columns, limit=args.limit))
            else:
                window = reader.read(bounds.lo, bounds.hi, clock=args.clock)
                show(reader, window, args)
                if not is_json(args):
                    output.say(_about(name, window, bounds, args))
    return OK


def _check(args: argparse.Namespace) -> None:
    check_waiting(args, _PROG)
    if args.follow and args.end is not None:
        raise UsageError("-f has no end: leave --end out, or -f", _PROG)
    if args.follow and args.clock is not None:
        raise UsageError("-f goes by the primary clock: leave --clock out, or -f", _PROG)


# --- which feed ------------------------------------------------------------------------------------------


def _feed(dw: Platform, args: argparse.Namespace) -> str:
    """Return the feed of trades that is meant: that of the product, or the only one."""
    products: dict[str, list[str]] = {}
    for name in dw.list_feeds():
        if found := _NAME.fullmatch(name):
            products.setdefault(found[1], []).append(name)
    if args.product is None:
        names = [name for feeds in products.values() for name in feeds]
        if len(names) > 1:
            _which(dw, names, args)
        wanted = names
    else:
        wanted = products.get(args.product) or products.get(args.product.upper(), [])
    if len(wanted) > 1:
        wanted = [name for name in wanted if _holds_trades(dw, name)] or wanted
    if len(wanted) > 1:
        feeds = " or ".join(f"--feed {name}" for name in wanted)
        raise UsageError(f"{args.product} has several feeds of trades: say {feeds}", _PROG)
    if wanted:
        return wanted[0]
    of = "" if args.product is None else f" {args.product!r}"
    hint = did_you_mean(args.product, products) or (f"; there are {', '.join(products)}" if products else "")
    text = f"no trades of{of}" if of else "no feed of trades"
    raise FeedNotFoundError(
        f"{text} in {dw.base_path}{hint or '; record some, or name any feed with --feed'}",
        product=args.product, base_path=dw.base_path,
    )  # fmt: skip


def _holds_trades(dw: Platform, name: str) -> bool:
    with dw.create_reader(name) as reader:
        return len(reader) > 0


def _which(dw: Platform, names: list[str], args: argparse.Namespace) -> NoReturn:
    """Show the feeds of trades that there are, and ask which is meant."""
    if not is_json(args):
        lines, left_out = feed_table([feed_row(dw, name) for name in names])
        output.write("\n".join(lines) + "\n")
        no_room(left_out)
    raise UsageError(f"of which product? {', '.join(names)}: add --product or --feed", _PROG)


# --- when ------------------------------------------------------------------------------------------------


def _bounds(reader: Reader, args: argparse.Namespace) -> Bounds:
    """Return the window: without a start the minute up to the end, or up to the newest record without one."""
    bounds = bounds_of(reader, args, _PROG)
    if args.start is not None or args.last is not None or not len(reader):
        return bounds
    if args.end is not None:
        return Bounds(max(0, bounds.hi - _MINUTE_US + 1), bounds.hi)
    return Bounds(max(0, reader.coverage(args.clock)[1] - _MINUTE_US), MAX_US)


def _follow(base_path: str, reader: Reader, bounds: Bounds, args: argparse.Namespace) -> None:
    position = int(reader.position_of(bounds.lo))
    if not args.code:
        follow(reader, position, args)
        return
    what = {"columns": args.columns, "limit": args.limit, "timeout": args.timeout}
    output.write(code.follow_lines(base_path, reader.feed, position, **what))


def _about(name: str, window: Window, bounds: Bounds, args: argparse.Namespace) -> str:
    """Say what was shown: how much, of when; of nothing, why."""
    if not len(window):
        text = about_nothing(name, window.coverage, args.start is not None and args.end is not None)
        return text + times.of_today(args.start, args.end)
    rows = len(window) if args.limit is None else min(args.limit, len(window))
    first, last = int(window[0][window.clock]), int(window[-1][window.clock])
    span = " to ".join(clock_span(format_us(min(first, last)), format_us(max(first, last))))
    minute = ", the last minute" if args.start is None and args.last is None else ""
    of = f" of {len(window):,}" if rows < len(window) else ""
    return f"{name}: {count(rows, 'trade')}{of}, {span} UTC{minute}"
