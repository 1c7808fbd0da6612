"""The command line: what may be said, and the help. Only argparse: asking for help must cost nothing."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from itertools import pairwise

from deepwater.cli import arguments_data, arguments_services, arguments_store, arguments_watch
from deepwater.cli.failures import UsageError
from deepwater.cli.options import Parser, Version, path

__all__ = ["parse", "wants_json"]

_TIMES = {"--at", "--start", "--end", "--last"}


def wants_json(words: Sequence[str]) -> bool:
    """Whether errors are to be JSON: known before the command line is understood.

    Examples
    --------
    >>> wants_json(["feeds", "--json"]), wants_json(["query", "X", "--format=json"]), wants_json(["feeds"])
    (True, True, False)
    """
    formats = [after for word, after in pairwise(words) if word == "--format"]
    return "--json" in words or "--format=json" in words or "json" in formats


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Understand the words of a command.

    Returns
    -------
    argparse.Namespace
        `run` names the function that does it, as ``module:function``.

    Raises
    ------
    UsageError
    SystemExit
        Help or the version was asked for, and shown.
    """
    parser, names = _parser()
    args = parser.parse_args(_joined(words))
    if args.run is None:
        raise UsageError(f"which command? {', '.join(names[:-1])} or {names[-1]}")
    return args


def _joined(words: Sequence[str]) -> list[str]:
    """Join ``--start -15min`` to one word: argparse takes the time for an option.

    >>> _joined(["query", "X", "--start", "-15min", "--limit", "3"])
    ['query', 'X', '--start=-15min', '--limit', '3']
    """
    out: list[str] = []
    for word in words:
        if out and out[-1] in _TIMES and re.match(r"-\d", word):
            out[-1] = f"{out[-1]}={word}"
        else:
            out.append(word)
    return out


def _parser() -> tuple[Parser, list[str]]:
    """Return the parser, and the names of the commands."""
    parser = Parser(
        prog="deepwater",
        description="Live and historical market data as arrays: record feeds, and read them by time.",
        epilog="Start with:  deepwater demo\n\nA store is a directory: --base-path, else $DEEPWATER_HOME, else "
        "./platform_data.\nTimes are UTC. Data goes to stdout, talk to stderr. Exit codes: 0, 1 it failed,\n"
        "2 wrong command line, 130 interrupted; verify, repair, gaps, status: their own.\n"
        "DEEPWATER_DEBUG=1 shows tracebacks.",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="show the version and exit")
    parser.add_argument("--base-path", metavar="DIR", type=path, default=None, help="the store")
    parser.set_defaults(run=None, json=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    groups = (arguments_services, arguments_store, arguments_watch, arguments_data)
    for add in (add for group in groups for add in group.COMMANDS):
        add(commands)
    return parser, list(commands.choices)
