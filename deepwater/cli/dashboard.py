"""The command dashboard: a terminal program where there is a terminal for it, plain lines anywhere else."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING

from deepwater.cli import output
from deepwater.cli.failures import OK, UsageError
from deepwater.cli.services import apps_needed
from deepwater.cli.signals import End
from deepwater.platform import default_base_path

if TYPE_CHECKING:
    from deepwater.apps.dashboard.session import Session

__all__ = ["dashboard"]

_PROG = "deepwater dashboard"
_JSON_S, _LINE_S = 1.0, 2.0


def dashboard(args: argparse.Namespace) -> int:
    """Show a store, and record into it if products are named and nobody else does; until it is quit."""
    is_plain = args.json or args.plain or not _has_terminal()
    if not is_plain and (args.interval is not None or args.duration is not None):
        raise UsageError("--interval and --duration are of plain lines: they go with --plain or --json", _PROG)
    products = [name for words in args.product or () for name in words.replace(",", " ").split()]
    with End() as end, contextlib.ExitStack() as stack:
        with apps_needed("dashboard"):
            import deepwater.apps.connection  # noqa: F401 - of the recorder that it may start: said now, not then
            from deepwater.apps.dashboard.session import Session

            if not is_plain:
                import deepwater.apps.dashboard.app as terminal
        session = Session(args.base_path or default_base_path(), args.uri or "", products, args.venue or "coinbase")
        stack.callback(session.close)
        stack.callback(_say_end, session, args, end)
        session.tick()
        if products:
            session.execute("start")
        if is_plain:
            _lines(session, args, end)
        elif not end.is_set:
            terminal.run(session)
    return OK


def _say_end(session: Session, args: argparse.Namespace, end: End) -> None:
    end.listen()
    if session.engine.state != "stopped" and not args.json:
        output.say("ending the recording; all that was received is being flushed")


def _has_terminal() -> bool:
    """Whether there is a terminal that can be drawn on."""
    streams = (sys.stdin, sys.stdout)
    return os.environ.get("TERM", "dumb") != "dumb" and all(s is not None and s.isatty() for s in streams)


def _lines(session: Session, args: argparse.Namespace, end: End) -> None:
    from deepwater.apps.dashboard.plain import lines

    every_s = args.interval or (_JSON_S if args.json else _LINE_S)
    if not args.json:
        for text in session.log:
            output.say(text)
    with output.listened(end):
        for text in lines(lambda: (session.tick(), session.mode), every_s, args.duration, args.json, end.wait):
            output.write(text + "\n")
            output.flush()
