"""Completion in a shell: the scripts, and what they ask for at each Tab.

A script hands the words of the line over and gets a word a line back, so it knows each command and option as soon as
they are there. The alternative, scripts with all options written out, is quicker by some 50 ms and out of date with the
next option. Feeds are the directories of the store: nothing is opened, and no NumPy is loaded.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterator, Sequence

from deepwater.cli import arguments, output
from deepwater.cli.failures import OK

__all__ = ["completion", "words_for"]

ASKED = "--complete"
"""`deepwater completion --complete WORD...` prints what may stand for the last word."""
_FEED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_BASH = """# deepwater(1) completion for bash
_deepwater() {
    local IFS=$'\\n'
    COMPREPLY=($(deepwater completion --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o default 2>/dev/null
}
complete -F _deepwater deepwater
"""
_ZSH = """#compdef deepwater
_deepwater() {
    local -a found
    found=("${(@f)$(deepwater completion --complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then compadd -- $found; else _files; fi
}
compdef _deepwater deepwater
"""
_FISH = """# deepwater(1) completion for fish
function __deepwater_complete
    set -l words (commandline -opc) (commandline -ct)
    deepwater completion --complete $words[2..-1] 2>/dev/null
end
complete -c deepwater -a '(__deepwater_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    output.write(_SCRIPTS[args.shell])
    return OK


def words_for(words: Sequence[str]) -> list[str]:
    """Return what may stand for the last of the words, sorted.

    Parameters
    ----------
    words : sequence of str
        Those of the line after the program's name; the last one is unfinished, perhaps empty.
    """
    *before, begun = [word for word in words if word != "="] or [""]  # bash breaks a line there too
    return sorted({word for word in _possible(before, begun) if word.startswith(begun)})


def _possible(before: list[str], begun: str) -> Iterator[str]:
    commands = arguments.parsers()
    name = arguments.command_in(before)
    if name is None:
        if not _wants_value(before):
            yield from ("--help", "--version", "--base-path") if begun.startswith("-") else commands
        return
    parser: argparse.ArgumentParser | None = commands.get(name)
    if parser is None:
        return
    for word in before[before.index(name) + 1 :]:  # `record coinbase`: a command of a command
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                parser = action.choices[word]
                break
    yield from _of(parser, before, begun)


def _wants_value(before: list[str]) -> bool:
    return before[-1:] == ["--base-path"]


def _of(parser: argparse.ArgumentParser, before: list[str], begun: str) -> Iterator[str]:
    """Yield the options of a command, or the values of what the words before ask for."""
    options = {text: action for action in parser._actions for text in action.option_strings}
    last = options.get(before[-1]) if before else None
    if last is not None and last.nargs != 0:
        yield from _values(last, before)
        return
    if begun.startswith("-"):
        yield from (text for text, action in options.items() if action.help != argparse.SUPPRESS)
        return
    places = [action for action in parser._actions if not action.option_strings]
    place = _places_taken(before, options)
    if places and (place < len(places) or places[-1].nargs in ("*", "+")):
        yield from _values(places[min(place, len(places) - 1)], before)


def _places_taken(before: list[str], options: dict[str, argparse.Action]) -> int:
    """Return how many of the words after the command are neither options nor their values."""
    words = before[before.index(arguments.command_in(before) or "") + 1 :]
    asks = [word in options and options[word].nargs != 0 for word in ["", *words]]
    return sum(not word.startswith("-") and not asked for word, asked in zip(words, asks, strict=False))


def _values(action: argparse.Action, before: list[str]) -> Iterator[str]:
    if action.choices is not None:
        yield from map(str, action.choices)
    elif action.metavar == "FEED":
        yield from _feeds(before)
    elif action.dest in ("venue", "source"):
        from deepwater.apps.venues import venue_names

        yield from venue_names()
    elif action.metavar == "P":
        yield from (name.partition("-TRADES-")[2] for name in _feeds(before) if "-TRADES-" in name)


def _unquoted(word: str) -> str:
    r"""Return a word as the shell would hand it to the program: a completion gets it as it stands on the line.

    >>> _unquoted(r"my\ data"), _unquoted("'my data'"), _unquoted("./data"), _unquoted("'half")
    ('my data', 'my data', './data', "'half")
    """
    try:
        return os.path.expandvars(" ".join(shlex.split(word)))
    except ValueError:  # a quote that is not closed
        return word


def _feeds(before: list[str]) -> list[str]:
    """Return the feeds of the store of the line."""
    base = os.environ.get("DEEPWATER_HOME") or "./platform_data"
    for word, following in zip(before, [*before[1:], ""], strict=True):
        if word == "--base-path" and following:
            base = _unquoted(following)
        elif word.startswith("--base-path="):
            base = _unquoted(word.partition("=")[2])
    try:
        names = os.listdir(os.path.join(os.path.expanduser(base), "data"))
    except OSError:
        return []
    return [name for name in names if _FEED.fullmatch(name)]
