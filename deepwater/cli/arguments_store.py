"""Arguments of the commands about feeds as a whole: create, feeds, info, schema, snapshots, resize, prune, delete."""

from __future__ import annotations

from typing import Any

from deepwater.cli.options import base_path, command, feed_name, json_flag, one_of, path, size

__all__ = ["COMMANDS"]


def _create(commands: Any) -> None:
    parser = command(
        commands, "create", "store:create", "create a feed from a spec",
        "deepwater create schemas/cb-trades.json\n"
        "deepwater create --name CB-TRADES-SOL-USD --spec schemas/cb-trades.json",
        "A feed that exists with the same layout stays as it is.",
    )  # fmt: skip
    parser.add_argument("file", metavar="SPEC.json", nargs="?", help="the spec, a JSON file; - is stdin")
    parser.add_argument("--spec", metavar="SPEC.json", type=path, help="the same, by name")
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
    feed_name(parser)
    base_path(parser)
    json_flag(parser, "a JSON object, times in us since the epoch")


def _schema(commands: Any) -> None:
    parser = command(
        commands, "schema", "schema:schema", "print the schema of a feed: as a spec, a NumPy dtype, or Arrow",
        "deepwater schema CB-TRADES-BTC-USD > spec.json && deepwater create spec.json --name COPY\n"
        "deepwater schema CB-TRADES-BTC-USD --format python",
        "json    its spec: create and import --spec take it\n"
        "python  lines that make the dtype: np.frombuffer and np.fromfile take it\n"
        "arrow   the types of its columns in Arrow and Parquet",
    )  # fmt: skip
    feed_name(parser)
    how = parser.add_mutually_exclusive_group()
    one_of(how, "--format", ("json", "python", "arrow"), "json", "json")
    json_flag(how, "= --format json")
    base_path(parser)


def _snapshots(commands: Any) -> None:
    parser = command(
        commands, "snapshots", "store:snapshots", "list the snapshots that playback can start from",
        "deepwater snapshots CB-L2-BTC-USD\ndeepwater snapshots CB-L2-BTC-USD --json | jq '.[-1].position'",
        "Of a feed with index_playback; only snapshots that are complete.",
    )  # fmt: skip
    feed_name(parser)
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
    feed_name(parser)
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


COMMANDS = (_create, _feeds, _info, _schema, _snapshots, _resize, _prune, _delete)
