"""Parts the arguments of every command are made of: the parser, kinds of values. Only argparse: help costs nothing."""

from __future__ import annotations

import argparse
import math
import re
import shutil
from collections.abc import Callable
from typing import Any, NoReturn

import deepwater
from deepwater.cli import output
from deepwater.cli.failures import UsageError

__all__ = [
    "FORMATS", "Parser", "Version", "base_path", "choice_of_rows", "code_flag", "columns", "command", "feed_name",
    "form", "jobs", "json_flag", "levels", "listed", "one_of", "path", "port", "positive", "products", "row_count",
    "seconds", "size", "time_range", "waiting",
]  # fmt: skip

FORMATS = ("table", "csv", "json", "parquet", "arrow")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wraps to the terminal, but never so narrow that argparse fails."""

    def __init__(self, prog: str) -> None:
        width = shutil.get_terminal_size().columns
        super().__init__(prog, max_help_position=26, width=min(max(width, 50), 100))


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, and notices when its help cannot be written."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(formatter_class=_Help, **options)
        self.on_help: Callable[[], str] | None = None
        """Gives text to stand at the end of the help; called only when that is shown."""

    def error(self, message: str) -> NoReturn:
        """Raise what the entry point says in one line."""
        raise UsageError(message, self.prog)

    def print_help(self, file: Any = None) -> None:
        """Write the help as data: it may be piped."""
        more = "" if self.on_help is None else f"\n{self.on_help()}\n"
        output.write(self.format_help() + more)


class Version(argparse.Action):
    """Argparse's own passes over a stdout that is full or closed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Write it as data."""
        output.write(f"deepwater {deepwater.__version__}\n")
        parser.exit()


# --- values ----------------------------------------------------------------------------------------------


def path(text: str) -> str:
    """Any text but none."""
    if not text:
        raise argparse.ArgumentTypeError("a path is needed, this is empty")
    return text


def row_count(text: str) -> int:
    """``0``, ``1000``."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: a number of rows is a whole number, 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """``90``, ``1.5``, ``30s``, ``5m``, ``2h``, ``1d``."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|d)?", text)
    value = float(found[1]) * {"m": 60, "min": 60, "h": 3600, "d": 86400}.get(found[2], 1) if found else 0.0
    if not 0 < value < 1e9 or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}: seconds above 0 are needed, as 90 or 1.5, or 30s, 5m, 2h, 1d")
    return value


def jobs(text: str) -> int:
    """``1`` to ``64``."""
    if not re.fullmatch(r"[0-9]{1,2}", text) or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r}: how many at a time is 1 to 64")
    return int(text)


def levels(text: str) -> int:
    """``1`` to ``2046``: what a record of a book holds."""
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= 2046:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of levels a side is 1 to 2046")
    return int(text)


def products(text: str) -> list[str]:
    """``BTC-USD``, ``BTC-USD,ETH-USD``."""
    names = [name.strip() for name in text.split(",")]
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", name) for name in names):
        raise argparse.ArgumentTypeError(f"{text!r}: products are as BTC-USD, or BTC-USD,ETH-USD")
    return names


def positive(text: str) -> float:
    """``0.5``, ``20``."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 0 is needed")
    return value


def port(text: str) -> int:
    """``0`` to ``65535``."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: a port is 0 (any free one) to 65535")
    return int(text)


def columns(text: str) -> list[str]:
    """``price,size``; whether there are such columns the feed will say."""
    return [name.strip() for name in text.split(",")]


def listed(text: str) -> list[str]:
    """``A,B``; what the words are others will say."""
    return [word.strip() for word in text.split(",")]


_SIZE = re.compile(r"([0-9]{1,15})\s*(?:([KMGT])(i?)B?|B)?", re.IGNORECASE)


def size(text: str) -> int:
    """Bytes: ``67108864``, ``64MiB``. As in a spec, ``64M`` is refused with both its readings.

    >>> size("65536"), size("64KiB"), size("1 gib")
    (65536, 65536, 1073741824)
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: a size is a number of bytes above 0, or as 512KiB, 64MiB, 1GiB")
    number, unit = int(found[1]), (found[2] or "").upper()
    power = " KMGT".index(unit or " ")
    if unit and not found[3]:
        both = f"{number}{unit}iB ({number << 10 * power} bytes) or {number * 1000**power}"
        raise argparse.ArgumentTypeError(f"{text!r} has two readings: write {both}")
    return number << 10 * power


# --- commands --------------------------------------------------------------------------------------------


def command(commands: Any, name: str, run: str, text: str, example: str, more: str = "") -> Parser:
    """Add a command.

    Parameters
    ----------
    commands : the subparsers it is one of
    name : str
    run : str
        Which function does it, as ``module:function``.
    text : str
        What it does, as it stands in the list of commands.
    example : str
        Lines for a shell.
    more : str
        What else its help says.
    """
    description = f"{text[0].upper()}{text[1:]}."
    parser: Parser = commands.add_parser(
        name, help=text, description=f"{description}\n\n{more}" if more else description,
        epilog=f"example:\n{_indented(example)}",
    )  # fmt: skip
    parser.set_defaults(run=run, prog=parser.prog)
    return parser


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def base_path(parser: Parser, default: str = "$DEEPWATER_HOME, else ./platform_data") -> None:
    """Add ``--base-path``."""
    # SUPPRESS: one given before the command stays.
    text = f"the store (default: {default})"
    parser.add_argument("--base-path", metavar="DIR", type=path, default=argparse.SUPPRESS, help=text)


def json_flag(parser: Any, text: str) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help=f"{text}; errors are JSON too, on stderr")


# --- options that several commands have: one name, one meaning ------------------------------------------------


def feed_name(parser: Any, text: str | None = None) -> None:
    """Add the feed."""
    parser.add_argument("feed", metavar="FEED", help=text)


def time_range(parser: Any, last: str = "so long back from the newest record, as 5m") -> None:
    """Add ``--start``, ``--end``, ``--last`` and ``--clock``."""
    parser.add_argument("--start", metavar="T", help="first time, inclusive")
    parser.add_argument("--end", metavar="T", help="last time, inclusive")
    if last:
        parser.add_argument("--last", metavar="D", help=f"instead: {last}")
    parser.add_argument("--clock", metavar="COLUMN", help="which clock the times are of (default: the primary)")


def choice_of_rows(parser: Any, limit: str = "at most the first N rows") -> None:
    """Add ``--columns`` and ``--limit``."""
    parser.add_argument("--columns", metavar="A,B", type=columns, help="only these, in this order")
    parser.add_argument("--limit", metavar="N", type=row_count, help=limit)


def waiting(parser: Any, flag: str, text: str) -> None:
    """Add the flag that goes on with what is published, and ``--timeout``."""
    names = (flag,) if flag.startswith("--") else (flag, "--follow")
    parser.add_argument(*names, action="store_true", help=text)
    text = f"with {flag}: end after so long without a record"
    parser.add_argument("--timeout", metavar="S", type=seconds, help=text)


def form(parser: Any, formats: tuple[str, ...], json_text: str, default: str | None = "table") -> Any:
    """Add ``--format`` and ``--json``; return the group, of whose options there may be one."""
    how = parser.add_mutually_exclusive_group()
    one_of(how, "--format", formats, default or "by the ending of -o, else table", default)
    json_flag(how, json_text)
    return how


def one_of(parser: Any, name: str, choices: tuple[str, ...], said: str, default: str | None = None) -> None:
    """Add an option that takes one of some words; the help names them, and `said`, the default."""
    text = f"{', '.join(choices[:-1])} or {choices[-1]} (default: {said})"
    parser.add_argument(name, metavar="FORM", choices=choices, default=default, help=text)


def code_flag(how: Any) -> None:
    """Add ``--code``."""
    how.add_argument("--code", action="store_true", help="print instead the lines of Python that do the same")
