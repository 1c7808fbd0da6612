"""Arguments of the commands that care for a store, and for who uses it: verify, repair, rings, bench, completion."""

from __future__ import annotations

from typing import Any

from deepwater.cli.options import base_path, command, jobs, json_flag, path, row_count

__all__ = ["COMMANDS"]


def _rings(commands: Any) -> None:
    parser = command(
        commands, "rings", "rings:rings", "list what feeds have in shared memory, and clean it",
        "deepwater rings\ndeepwater rings orphans\ndeepwater rings clean --base-path ./platform_data",
        "Of all stores of this user, or of the one of --base-path. An orphan is what no\n"
        "feed can use any more; clean removes those that no writer holds. It needs\n"
        "--base-path or --all: without them it only lists them (exit 1 if there are any).",
    )  # fmt: skip
    parser.add_argument("what", choices=("list", "orphans", "clean"), nargs="?", default="list", help="default: list")
    parser.add_argument("--all", action="store_true", help="of all stores of this user: clean wants it said")
    base_path(parser, "all stores of this user")
    json_flag(parser, "a JSON array of objects, times in us since the epoch")


def _verify(commands: Any) -> None:
    parser = command(
        commands, "verify", "verify:verify", "check that the files of feeds are what was written",
        "deepwater verify\ndeepwater verify CB-L2-BTC-USD --json | jq '.findings[].what'",
        "Reads all records and compares them with their checksums; changes nothing and\n"
        "may run beside writers. A line a finding: file, offset, positions, the way out.\n"
        "Exit codes: 0 fine, 1 warnings, 2 damage, 3 it could not look (no such feed,\n"
        "wrong command line).",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="*", help="only these (default: all)")
    parser.add_argument("--quick", action="store_true", help="headers, marks and registries only, no records")
    parser.add_argument("--jobs", metavar="N", type=jobs, help="chunks at a time (default: the cores, at most 4)")
    base_path(parser)
    json_flag(parser, "a JSON object with the findings")


def _repair(commands: Any) -> None:
    parser = command(
        commands, "repair", "verify:repair", "mend the files of feeds, as far as that is possible",
        "deepwater repair\ndeepwater repair CB-L2-BTC-USD --apply",
        "Says what it would do, and which records are lost; with --apply it does it.\n"
        "Registries, headers, marks, checksums and text files are made anew; records\n"
        "whose checksum is wrong are cut off at a feed's end, and replaced by\n"
        "placeholders before that. What is replaced is kept in aside/ in the store.\n"
        "A feed with a writer is left as it is: close the writer first.\n"
        "Exit codes: 0 nothing is wrong (any more), 1 there is something to do, 2 some of\n"
        "it cannot be mended, 3 it could not try (no such feed, wrong command line).",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="*", help="only these (default: all)")
    parser.add_argument("--apply", action="store_true", help="do it (default: only say what would be done)")
    parser.add_argument("--jobs", metavar="N", type=jobs, help="chunks at a time (default: the cores, at most 4)")
    base_path(parser)
    json_flag(parser, "a JSON object with the changes, the losses and what cannot be mended")


def _bench(commands: Any) -> None:
    parser = command(
        commands, "bench", "bench:bench", "measure this machine: writes, reads, as-of lookups",
        "deepwater bench\ndeepwater bench --scratch /data --records 5000000 --json",
        "In a directory of its own, which is removed. memcpys is how many times as long\n"
        "it takes as a plain copy of as many bytes in the same run. Medians of 3 rounds.",
    )  # fmt: skip
    text = "how many, of 64 bytes (default: 1000000)"
    parser.add_argument("--records", metavar="N", type=row_count, default=1_000_000, help=text)
    parser.add_argument("--scratch", metavar="DIR", type=path, help="where to put its directory (default: $TMPDIR)")
    json_flag(parser, "a JSON object")


def _completion(commands: Any) -> None:
    parser = command(
        commands, "completion", "completion:completion", "print what completes commands, options and feeds in a shell",
        "deepwater completion bash > ~/.local/share/bash-completion/completions/deepwater\n"
        "deepwater completion zsh > ~/.zfunc/_deepwater\n"
        "deepwater completion fish > ~/.config/fish/completions/deepwater.fish",
        "The names of feeds are those of the store of the line: its --base-path, else\n"
        "$DEEPWATER_HOME, else ./platform_data.",
    )  # fmt: skip
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


COMMANDS = (_verify, _repair, _rings, _bench, _completion)
