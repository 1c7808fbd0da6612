"""The command line: what may be said, and the help. Only argparse: asking for help must cost nothing."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from itertools import pairwise

from deepwater.cli import arguments_care, arguments_data, arguments_services, arguments_store, arguments_watch
from deepwater.cli.failures import UsageError
from deepwater.cli.options import Parser, Version, path

__all__ = ["command_in", "parse", "parsers", "wants_json"]

_TIMES = {"--at", "--start", "--end", "--last"}
_GROUPS = {
    "record a market": ("demo", "record", "exchange", "book", "dashboard"),
    "look at records": ("query", "trades", "tail", "head", "replay"),
    "files": ("export", "import"),
    "feeds": ("create", "feeds", "info", "schema", "status", "gaps", "snapshots", "resize", "prune", "delete"),
    "care": ("verify", "repair", "rings", "bench", "completion"),
}
"""The commands as the help shows them; one that is in no group is shown below them."""


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
    args, extra = parser.parse_known_args(_joined(words))
    if extra:
        raise UsageError(f"unrecognized arguments: {' '.join(extra)}", args.prog)
    if args.run is None:
        raise UsageError(f"which command? {', '.join(list(names)[:-1])} or {list(names)[-1]}")
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


def command_in(words: Sequence[str]) -> str | None:
    """Return the first word that is neither an option nor the store: the command, if the line is right that far.

    >>> command_in(["--base-path", "verify", "gaps", "--nope"]), command_in(["--help"])
    ('gaps', None)
    """
    plain = (word for before, word in pairwise(["", *words]) if before != "--base-path" and word[:1] != "-")
    return next(plain, None)


def parsers() -> dict[str, Parser]:
    """Return the parser of each command, by name: for completion, and for tests of what holds of all of them."""
    return dict(_parser()[1])


def _parser() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser, and those of the commands."""
    parser = Parser(
        prog="deepwater",
        usage="deepwater [--help] [--version] [--base-path DIR] COMMAND ...",
        epilog="Start with:  deepwater demo;  of a command:  deepwater COMMAND --help\n\n"
        "A store is a directory: --base-path, else $DEEPWATER_HOME, else ./platform_data.\n"
        "Times are UTC. Data goes to stdout, talk to stderr. Exit codes: 0, 1 it failed,\n"
        "2 wrong command line, 130 interrupted; verify, repair, gaps and status answer\n"
        "with theirs. DEEPWATER_DEBUG=1 shows tracebacks.",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="show the version and exit")
    parser.add_argument("--base-path", metavar="DIR", type=path, default=None, help="the store")
    parser.set_defaults(run=None, prog=parser.prog, json=False)
    commands = parser.add_subparsers(prog="deepwater", metavar="COMMAND", help=argparse.SUPPRESS, parser_class=Parser)
    groups = (arguments_services, arguments_data, arguments_store, arguments_watch, arguments_care)
    for add in (add for group in groups for add in group.COMMANDS):
        add(commands)
    texts = {action.dest: action.help or "" for action in commands._choices_actions}
    parser.description = "\n".join([_ABOUT, *_listed(texts)])
    return parser, dict(commands.choices)


_ABOUT = "Live and historical market data as arrays: record feeds, and read them by time."


def _listed(texts: dict[str, str]) -> list[str]:
    """Return the commands in their groups, a line each; a text that is too long is cut where there is a comma."""
    rest = tuple(name for name in texts if not any(name in names for names in _GROUPS.values()))
    lines = []
    for title, names in {**_GROUPS, "more": rest}.items():
        there = [f"    {name:<11} {texts[name]}" for name in names if name in texts]
        lines += ["", f"{title}:", *there] if there else []
    return lines
