"""The command line: ``deepwater``, or ``python -m deepwater.cli``.

Left to right, a module imports only modules to its left::

    failures signals -> output text -> cells times code -> binary -> rows -> stream events query store -> tail ->
    trades replay upkeep rings schema gaps feed_status -> status systemd -> progress -> verify transfer services
    demo book dashboard -> bench -> options -> arguments_services arguments_store arguments_watch arguments_data
    arguments_care -> arguments -> completion -> entry

Promises of every command
    - data goes to stdout, talk to stderr;
    - it exits with 0; 1 if the work failed (a `DeepwaterError`, an error of the operating system);
      2 if the command line is wrong; 130 after Ctrl-C. Four commands answer with their exit code, for scripts,
      and then no error has the number of an answer: `gaps` 0 none, 1 gaps; `status` 0 fresh, 1 stale; both 2 for
      every error, a wrong command line too; `verify` 0 fine, 1 warnings, 2 damage; `repair` 0 nothing is wrong,
      1 there is something to do, 2 something cannot be mended; both 3 for every error;
    - a failure is one line that says what, where and the way out, and no traceback: DEEPWATER_DEBUG=1
      shows it. With ``--json`` the line is a JSON object;
    - who reads stdout may stop reading: that is no failure, and nothing is said about it.

The commands of the store need nothing but the library itself, `record`, `exchange`, `demo` and `dashboard` the
extra ``deepwater[apps]``. Nothing is loaded before the command is known: `--help` costs no NumPy.
A command that follows feeds ends when nobody reads it any more, also while no record comes.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: `entry.main`. Also Ctrl-C while that is loaded is no traceback."""
    try:
        from deepwater.cli.entry import main as run
    except KeyboardInterrupt:
        return 130
    return run(argv)
