"""Arguments of the commands about feeds as a whole: create, feeds, info, resize, prune, delete, verify and others."""

from __future__ import annotations

from typing import Any

from deepwater.cli.options import base_path, command, jobs, json_flag, size

__all__ = ["COMMANDS"]


def _create(commands: Any) -> None:
    parser = command(
        commands, "create", "store:create", "create a feed from a spec",
        "deepwater create schemas/cb-trades.json\n"
        "deepwater create --name CB-TRADES-SOL-USD --spec schemas/cb-trades.json",
        "A feed that exists with the same layout stays as it is.",
    )  # fmt: skip
    parser.add_argument("file", metavar="SPEC.json", nargs="?", help="the spec, a JSON file; - is stdin")
    parser.add_argument("--spec", metavar="FILE", help="the same, by name")
    parser.add_argument("--name", metavar="FEED", help="instead of the spec's feed_name")
    parser.add_argument("--update", action="store_true", help="give a feed that exists the spec's settings")
    base_path(parser)
    json_flag(parser, "print what was made as a JSON object")


def _feeds(commands: Any) -> None:
    parser = command(
        commands, "feeds", "store:feeds", "list the feeds of a store",
        "deepwater feeds\ndeepwater feeds --json | jq '.[].feed'",
    )  # fmt: skip
    base_path(parser)
    json_flag(parser, "a JSON array of objects, times in us since the epoch")


def _info(commands: Any) -> None:
    parser = command(
        commands, "info", "store:info", "show what a feed is and holds", "deepwater info CB-TRADES-BTC-USD"
    )
    parser.add_argument("feed", metavar="FEED")
    base_path(parser)
    json_flag(parser, "a JSON object, times in us since the epoch")


def _snapshots(commands: Any) -> None:
    parser = command(
        commands, "snapshots", "store:snapshots", "list the snapshots that playback can start from",
        "deepwater snapshots CB-L2-BTC-USD\ndeepwater snapshots CB-L2-BTC-USD --json | jq '.[-1].position'",
        "Of a feed with index_playback; only snapshots that are complete.",
    )  # fmt: skip
    parser.add_argument("feed", metavar="FEED")
    base_path(parser)
    json_flag(parser, "a JSON array of objects, times in us since the epoch, unknown rows null")


def _resize(commands: Any) -> None:
    parser = command(
        commands, "resize", "upkeep:resize", "change the size of a feed's chunks, or of its ring",
        "deepwater resize CB-TRADES-BTC-USD 256MiB",
        "From now on: chunks that are written stay as they are, a ring keeps its newest\n"
        "records. Positions go on and readers notice nothing. While a writer holds the\n"
        "feed only that writer can do it.",
    )  # fmt: skip
    parser.add_argument("feed", metavar="FEED")
    parser.add_argument(
        "size", metavar="SIZE", type=size,
        help="bytes, or as 512KiB, 64MiB, 1GiB (powers of 1024); 64M and 64MB are refused, they have two readings",
    )  # fmt: skip
    base_path(parser)
    json_flag(parser, "print the sizes before and now as a JSON object")


def _prune(commands: Any) -> None:
    parser = command(
        commands, "prune", "upkeep:prune", "remove the oldest chunks of feeds, to free the disk",
        "deepwater prune --dry-run\ndeepwater prune CB-TRADES-BTC-USD --keep 7d\n"
        "deepwater prune CB-L2-BTC-USD --max-bytes 10GiB --json",
        "By the time of their records, or until a feed's chunks are small enough; without\n"
        "either, by each feed's setting retain. Without FEED all durable feeds.\n"
        "Writers and readers go on meanwhile, positions stay, the newest chunk with\n"
        "records stays.",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="*")
    parser.add_argument("--keep", metavar="AGE", help="remove chunks whose newest record is older: 90min, 12h, 7d")
    parser.add_argument(
        "--max-bytes", metavar="N", type=size, help="remove chunks while a feed's chunk files are larger: 10GiB"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    base_path(parser)
    json_flag(parser, "print what was removed as a JSON array, times in us since the epoch")


def _delete(commands: Any) -> None:
    parser = command(
        commands, "delete", "upkeep:delete", "delete feeds and all their records",
        "deepwater delete CB-TRADES-BTC-USD\ndeepwater delete OLD-1 OLD-2 --yes",
        "Shows what will go and asks. Not while a writer holds the feed.",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="+")
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal")
    base_path(parser)
    json_flag(parser, "print what was deleted as a JSON array")


def _rings(commands: Any) -> None:
    parser = command(
        commands, "rings", "rings:rings", "list what feeds have in shared memory, and clean it",
        "deepwater rings\ndeepwater rings orphans\ndeepwater rings clean",
        "Of all stores of this user, or of the one of --base-path. An orphan is what no\n"
        "feed can use any more; clean removes those that no writer holds.",
    )  # fmt: skip
    parser.add_argument("what", choices=("list", "orphans", "clean"), nargs="?", default="list", help="default: list")
    base_path(parser, "all stores of this user")
    json_flag(parser, "a JSON array of objects, times in us since the epoch")


def _verify(commands: Any) -> None:
    parser = command(
        commands, "verify", "verify:verify", "check that the files of feeds are what was written",
        "deepwater verify\ndeepwater verify CB-L2-BTC-USD --json | jq '.findings[].what'",
        "Reads all records and compares them with their checksums; changes nothing and\n"
        "may run beside writers. A line a finding: file, offset, positions, the way out.\n"
        "Exit codes: 0 fine, 1 warnings or an error (no such feed), 2 damage or a wrong\n"
        "command line.",
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
        "Exit codes: 0 nothing is wrong (any more), 1 there is something to do or an\n"
        "error (no such feed), 2 something cannot be mended or a wrong command line.",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="*", help="only these (default: all)")
    parser.add_argument("--apply", action="store_true", help="do it (default: only say what would be done)")
    parser.add_argument("--jobs", metavar="N", type=jobs, help="chunks at a time (default: the cores, at most 4)")
    base_path(parser)
    json_flag(parser, "a JSON object with the changes, the losses and what cannot be mended")


COMMANDS = (_create, _feeds, _info, _snapshots, _resize, _prune, _delete, _rings, _verify, _repair)
