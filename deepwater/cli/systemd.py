r"""A systemd unit that runs a command as it was given.

Every word of ``ExecStart=`` is quoted as systemd reads it (systemd.service(5), "Command lines"): in double quotes,
``\\`` and ``"`` behind a ``\\``, ``$`` and ``%`` twice, control characters and bytes that are no text as ``\\xHH``.
The program itself is looked at otherwise, so one with a strange name is run by ``/usr/bin/env``. Paths are absolute,
since a unit has another working directory.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

__all__ = ["quoted", "recorder_words", "unit"]

_PLAIN = re.compile(r"[A-Za-z0-9_@./:=,+-]+")
_KEPT = ("DEEPWATER_SHM",)
_UNIT = """\
# Print it to /etc/systemd/system/deepwater-record.service (or ~/.config/systemd/user/), then
#   systemctl daemon-reload && systemctl enable --now deepwater-record
[Unit]
Description=Deepwater: {about}
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={command}
{more}Restart=on-failure
RestartSec=5
TimeoutStopSec=60
NoNewPrivileges=yes

[Install]
WantedBy=default.target
"""


def quoted(word: str) -> str:
    r"""Return a word as it stands in a command line of a unit.

    Examples
    --------
    >>> quoted("BTC-USD"), quoted("/data/50% off"), quoted('a"b$c')
    ('BTC-USD', '"/data/50%% off"', '"a\\"b$$c"')
    """
    if _PLAIN.fullmatch(word):
        return word
    out = ""
    for byte in os.fsencode(word):
        char = chr(byte)
        if char in '\\"':
            out += "\\" + char
        elif char in "$%":
            out += char * 2
        elif " " <= char <= "~":
            out += char
        else:
            out += f"\\x{byte:02x}"
    return f'"{out}"'


def unit(words: Sequence[str], about: str, reloads: str | None = None) -> str:
    """Return the text of a unit.

    Parameters
    ----------
    words : sequence of str
        Of the command, the program first.
    about : str
        For the description.
    reloads : str, optional
        A file that SIGHUP reads anew: then ``systemctl reload`` sends it.
    """
    program = [] if _PLAIN.fullmatch(words[0]) else ["/usr/bin/env"]
    more = "ExecReload=/bin/kill -HUP $MAINPID\n" if reloads else ""
    for name in _KEPT:
        if name in os.environ:
            more += f"Environment={quoted(f'{name}={os.environ[name]}').replace('$$', '$')}\n"
    return _UNIT.format(about=about, command=" ".join(quoted(word) for word in [*program, *words]), more=more)


def recorder_words(args: argparse.Namespace, venue: str, base_path: str) -> list[str]:
    """Return ``record`` with the options it was given, paths made absolute."""
    words = [sys.executable, "-m", "deepwater.cli", "record", "--venue", venue]
    for product in args.product:
        words += ["--product", product]
    if args.products_file is not None:
        words += ["--products-file", os.path.abspath(args.products_file)]
    for channel in args.channel or ():
        words += ["--channel", channel]
    for option, value in (("--uri", args.uri), ("--duration", args.duration)):
        if value is not None:
            words += [option, f"{value:g}" if isinstance(value, float) else value]
    return [*words, "--base-path", os.path.abspath(base_path)]
