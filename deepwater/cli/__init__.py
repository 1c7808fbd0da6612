"""The command line: ``deepwater``, or ``python -m deepwater.cli``.

Left to right, a module imports only modules to its left::

    failures output text -> cells times code -> rows binary -> stream events query store -> tail -> trades replay upkeep
    rings verify gaps feed_status -> status -> services demo -> options -> arguments_services arguments_store
    arguments_watch arguments_data -> arguments -> entry

Promises of every command
    - data goes to stdout, talk to stderr;
    - it exits with 0; 1 if the work failed (a `DeepwaterError`, an error of the operating system);
      2 if the command line is wrong; 130 after Ctrl-C. `gaps` exits with 1 also if there are gaps,
      `status` with 1 if a feed is stale and with 2 if something failed, `verify` with 1 for warnings and 2 for
      damage, `repair` with 1 if there is something to do and 2 if something cannot be mended: for scripts;
    - a failure is one line that says what, where and the way out, and no traceback: DEEPWATER_DEBUG=1
      shows it. With ``--json`` the line is a JSON object;
    - who reads stdout may stop reading: that is no failure, and nothing is said about it.

The commands of the store need nothing but the library itself, `record`, `exchange` and `demo` the
extra ``deepwater[apps]``. Nothing is loaded before the command is known: `--help` costs no NumPy.
A command that follows feeds ends when nobody reads it any more, also while no record comes.
"""

from __future__ import annotations

from deepwater.cli.entry import main

__all__ = ["main"]
