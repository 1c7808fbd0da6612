"""The text files of a feed: `layout.json`, written once, and `settings.json`, replaced by rename."""

from __future__ import annotations

import copy
import json
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from deepwater import format as fmt
from deepwater.errors import CorruptFileError, FeedNotFoundError, SchemaError
from deepwater.files import Directory
from deepwater.jsontext import load_json
from deepwater.layout import Layout
from deepwater.settings import Settings

LAYOUT, SETTINGS = "layout.json", "settings.json"
FORMAT = f"{fmt.MAJOR}.{fmt.MINOR}"


@dataclass(frozen=True, slots=True)
class Feed:
    """What is written down about a feed. `ids` say which feed of which store, in which life."""

    name: str
    layout: Layout
    settings: Settings
    ids: fmt.Ids
    created_us: int

    @property
    def incarnation(self) -> str:
        """The id of this life of the feed, 32 hex digits."""
        return self.ids.incarnation.hex()


def feed_id(store_id: bytes, name: str) -> bytes:
    """The id of a feed of that name in a store, the same in all its lives."""
    return uuid.uuid5(uuid.UUID(bytes=store_id), name).bytes


def write_feed(directory: Directory, feed: Feed) -> None:
    """Write both files of a new feed."""
    write_settings(directory, feed.settings)
    about = {
        "format": FORMAT,
        "feed_name": feed.name,
        "store_id": feed.ids.store.hex(),
        "incarnation": feed.incarnation,
        "created_us": feed.created_us,
        "layout": feed.layout.to_json(),
    }
    directory.write(LAYOUT, (json.dumps(about, indent=1) + "\n").encode())


def write_settings(directory: Directory, settings: Settings) -> None:
    """Replace `settings.json`."""
    directory.write(SETTINGS, (json.dumps(settings.to_json(), indent=1) + "\n").encode())


def read_feed(
    directory: Directory, name: str, store_id: bytes | None = None, settings: Settings | None = None
) -> Feed:
    """Read both files; with `settings` at hand only the layout.

    Raises
    ------
    FeedNotFoundError
        There is no `layout.json`: no feed, or one that was just deleted.
    CorruptFileError
        One of them is missing or not what was written, or another store's.
    """
    try:
        about = directory.read(LAYOUT)
    except FileNotFoundError:
        raise FeedNotFoundError(f"no feed {name!r}: {directory.name_of(LAYOUT)} is not there", feed=name) from None
    path = directory.name_of(LAYOUT)
    found, layout, ids, created = _parse_layout(about, path)
    if found != name:
        raise _corrupt(path, f"describes feed {found!r}, its directory is {name!r}: rename the directory back")
    if store_id is not None and ids.store != store_id:
        raise _corrupt(path, "belongs to another store: its directory was copied or moved here")
    return Feed(name, layout, settings or read_settings(directory), ids, created)


@lru_cache(maxsize=256)
def _parse_layout(data: bytes, path: str) -> tuple[str, Layout, fmt.Ids, int]:
    """Name, layout, ids and time of making; opening a feed again costs a read, not a parse."""
    about = _parse(data, path)
    try:
        ids = fmt.Ids(bytes.fromhex(about["store_id"]), b"", bytes.fromhex(about["incarnation"]))
        ids = ids._replace(feed=feed_id(ids.store, about["feed_name"]))
        layout, created = Layout.from_json(about["layout"]), int(about["created_us"])
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(path, f"not a feed's description: {error}") from error
    if not 0 <= created < 2**64:
        raise _corrupt(path, f"created_us {created} is no time")
    return about["feed_name"], layout, ids, created


def read_settings(directory: Directory) -> Settings:
    """Read `settings.json`; raises CorruptFileError, or FeedNotFoundError when the feed is being deleted."""
    path = directory.name_of(SETTINGS)
    try:
        settings = _parse_settings(directory.read(SETTINGS), path)
        return settings.replace(config=copy.deepcopy(settings.config)) if settings.config else settings
    except FileNotFoundError:
        if not directory.exists(LAYOUT):  # a delete takes that one first
            raise FeedNotFoundError(f"the feed of {directory.path} was deleted just now") from None
        raise _corrupt(path, "it is missing: restore it from a copy, or see deepwater repair") from None
    except SchemaError as error:
        raise _corrupt(path, str(error)) from error


@lru_cache(maxsize=256)
def _parse_settings(data: bytes, path: str) -> Settings:
    return Settings.from_json(_parse(data, path))


def _parse(data: bytes, path: str) -> dict[str, Any]:
    try:
        parsed = load_json(data, path)
    except SchemaError as error:
        raise _corrupt(path, str(error)) from error
    if not isinstance(parsed, dict):
        raise _corrupt(path, "not a JSON object")
    return parsed


def _corrupt(path: str, reason: str) -> CorruptFileError:
    return CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
