"""What may be typed at the prompt: the commands, their words, completion and history. Pure; nothing is done here."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from deepwater.errors import DeepwaterError

__all__ = ["COMMANDS", "Command", "CommandError", "History", "complete", "help_lines", "parse", "product_of"]


class CommandError(DeepwaterError, ValueError):
    """What was typed is no command; the message says what would be one."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How a command is used: its words, what it does, and what its words are ("products", "product" or "")."""

    words: str
    does: str
    takes: str = ""


COMMANDS = {
    "start": Usage("start", "record the products subscribed to"),
    "stop": Usage("stop", "end the recording; the subscriptions stay"),
    "sub": Usage("sub BTC-USD ETH-USD", "subscribe; while it records, they are at once", "products"),
    "unsub": Usage("unsub ETH-USD", "record them no longer; the others go on", "products"),
    "show": Usage("show ETH-USD", "show its book and its trades (F3: the next one)", "product"),
    "products": Usage("products", "list the products of the store"),
    "subs": Usage("subs", "list the subscriptions"),
    "status": Usage("status", "say in one line how it goes"),
    "reset": Usage("reset", "count from now on; what is stored stays"),
    "logs": Usage("logs", "show or hide the log (F2)"),
    "help": Usage("help", "list the commands"),
    "quit": Usage("quit, q", "end; a recording inside is flushed first"),
}
_SHORT = {"q": "quit", "exit": "quit", "?": "help", "log": "logs"}


@dataclass(frozen=True, slots=True)
class Command:
    """A command that may be done: its name and its products."""

    name: str
    products: tuple[str, ...] = ()


def parse(line: str) -> Command | None:
    """Understand a line; None of an empty one.

    Products may be separated by blanks or commas, in small letters, and with the slash that some exchanges write.

    Raises
    ------
    CommandError
        There is no such command, or a word too many or too few.

    Examples
    --------
    >>> parse("sub btc-usd, ETH-USD")
    Command(name='sub', products=('BTC-USD', 'ETH-USD'))
    >>> parse("show btc/usd@Kraken").products
    ('BTC-USD@kraken',)
    >>> parse(" q ").name, parse("")
    ('quit', None)
    >>> parse("strat")
    Traceback (most recent call last):
    deepwater.apps.dashboard.commands.CommandError: no command 'strat'; did you mean start?
    """
    words = line.replace(",", " ").split()
    if not words:
        return None
    word = words[0].lower()
    name = _SHORT.get(word, word)
    usage = COMMANDS.get(name)
    if usage is None:
        near = difflib.get_close_matches(word, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "help lists them"
        raise CommandError(f"no command {words[0][:40]!r}; {hint}")
    products = tuple(dict.fromkeys(product_of(word) for word in words[1:]))
    if products and not usage.takes:
        raise CommandError(f"{name} takes no words, but there is {words[1][:40]!r}")
    if usage.takes and not products:
        raise CommandError(f"{name} needs a product, as: {usage.words}")
    if usage.takes == "product" and len(products) > 1:
        raise CommandError(f"{name} takes one product, as: {usage.words}")
    return Command(name, products)


def product_of(word: str) -> str:
    """A product as it is called here, of what is typed.

    >>> product_of("btc/usd"), product_of("eth-eur@KRAKEN")
    ('BTC-USD', 'ETH-EUR@kraken')
    """
    product, at, venue = word.partition("@")
    return f"{product.upper().replace('/', '-')}{at}{venue.lower()}"


def help_lines() -> list[str]:
    """The commands, a line each."""
    width = max(len(usage.words) for usage in COMMANDS.values())
    return [f"{usage.words:<{width}}  {usage.does}" for usage in COMMANDS.values()]


def complete(line: str, products: Sequence[str]) -> tuple[str, list[str]]:
    """Complete the last word of a line.

    Parameters
    ----------
    line : str
        Up to the cursor.
    products : sequence of str
        What may stand where a product is needed.

    Returns
    -------
    line : str
        Longer by what all choices have in common, and a blank if there is one choice only; else as it was.
    choices : list of str
        All words that it may become, if there are several.

    Examples
    --------
    >>> complete("unsub b", ["BTC-USD", "ETH-USD"])
    ('unsub BTC-USD ', [])
    >>> complete("show eth/e", ["BTC-USD", "ETH-EUR@kraken"])
    ('show ETH-EUR@kraken ', [])
    >>> complete("sta", []), complete("s", [])[1]
    (('sta', ['start', 'status']), ['start', 'stop', 'sub', 'show', 'subs', 'status'])
    """
    head, word = line[: len(line) - len(line.rpartition(" ")[2])], line.rpartition(" ")[2]
    words = head.split()
    if not words:
        choices = [name for name in COMMANDS if name.startswith(word.lower())]
    else:
        usage = COMMANDS.get(_SHORT.get(words[0].lower(), words[0].lower()))
        if usage is None or not usage.takes:
            return line, []
        named = {product_of(name.rstrip(",")) for name in words[1:]}
        choices = sorted(name for name in products if name.startswith(product_of(word)) and name not in named)
    if not choices:
        return line, []
    if len(choices) == 1:
        return f"{head}{choices[0]} ", []
    return head + max(_common(choices), word, key=len), choices


def _common(words: Sequence[str]) -> str:
    """What all words begin with."""
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    return "".join(column[0] for column in letters)


class History:
    """Lines that were entered, to be called back with up and down.

    Examples
    --------
    >>> history = History()
    >>> history.add("start"); history.add("subs")
    >>> history.up("half"), history.up(""), history.up(""), history.down(), history.down()
    ('subs', 'start', 'start', 'subs', 'half')
    """

    def __init__(self, limit: int = 500) -> None:
        self._lines: list[str] = []
        self._limit = limit
        self._at = 0
        self._draft = ""

    def add(self, line: str) -> None:
        """Keep a line, unless it is empty or the one before again; and stand at the end."""
        if line.strip() and self._lines[-1:] != [line]:
            self._lines = [*self._lines, line][-self._limit :]
        self._at, self._draft = len(self._lines), ""

    def up(self, present: str) -> str:
        """Return the line before; what is being written is kept for the way back."""
        if self._at == len(self._lines):
            self._draft = present
        self._at = max(0, self._at - 1)
        return self._lines[self._at] if self._lines else present

    def down(self) -> str:
        """Return the line after; at the end what was being written."""
        self._at = min(len(self._lines), self._at + 1)
        return self._draft if self._at == len(self._lines) else self._lines[self._at]
