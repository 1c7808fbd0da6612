"""The global registry: the feeds of a store and their settings, in one file.

A cache: the directories under ``data/`` are the truth. A row is used only while the feed's
`settings.json` is the one it was made from; a lost or damaged registry costs a look into each
directory. Writers of rows take a file lock beside it; looking takes none.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.chunk import static_of
from deepwater.errors import CorruptFileError, SchemaError
from deepwater.feed_files import SETTINGS, Feed
from deepwater.feed_registry import row_checks
from deepwater.files import Directory
from deepwater.jsontext import load_json
from deepwater.layout import Layout
from deepwater.schema import FeedSpec
from deepwater.segment import Segment
from deepwater.settings import Settings
from deepwater.timestamps import now_us

NAME, LOCK = "registry.bin", "registry.lock"
_SETTINGS_BYTES = 1848
_INITIAL_ROWS = 8
LIVE, GONE = 1, 0

ROW_LAYOUT = Layout.compile(
    FeedSpec.from_json({
        "feed_name": "registry", "ts_col": "created_us",
        "fields": [
            {"name": "created_us", "type": "uint64"},
            {"name": "incarnation", "type": "char[32]"},
            {"name": "settings_mtime_ns", "type": "uint64", "desc": "of the settings.json this row was made from"},
            {"name": "state", "type": "uint64", "desc": "1 live, 0 gone"},
            {"name": "record_size", "type": "uint64"},
            {"name": "name", "type": "char[128]"},
            {"name": "settings", "type": f"char[{_SETTINGS_BYTES}]", "desc": "JSON; empty if longer"},
            {"name": "check", "type": "uint64"},
        ],
    })
)  # fmt: skip


class GlobalRegistry:
    """The registry of a store."""

    def __init__(self, base: Directory, store_id: bytes) -> None:
        self._base = base
        self._ids = fmt.Ids(store_id, bytes(16), bytes(16))

    @staticmethod
    def settings(row: npt.NDArray[Any] | None, directory: Directory) -> Settings | None:
        """The settings in a row, if the feed's `settings.json` has not changed since; else None."""
        if row is None:
            return None
        with contextlib.suppress(OSError, SchemaError):
            if (
                os.stat(SETTINGS, dir_fd=directory.fd).st_mtime_ns == int(row["settings_mtime_ns"][0])
                and row["settings"][0]
            ):
                return Settings.from_json(load_json(bytes(row["settings"][0]), NAME))
        return None

    def rows(self) -> dict[str, npt.NDArray[Any]]:
        """The valid live rows by feed name, each an array of one; a copy."""
        try:
            segment = Segment.open(self._base, NAME, fmt.GLOBAL_REGISTRY, self._ids)
        except (FileNotFoundError, CorruptFileError):
            return {}
        try:
            rows = segment.copy(ROW_LAYOUT.dtype)
        except CorruptFileError:
            return {}
        finally:
            segment.close()
        good = (rows["check"] == row_checks(rows)) & (rows["state"] == LIVE) if len(rows) else []
        return {bytes(rows["name"][k]).decode("latin-1"): rows[k : k + 1] for k in np.flatnonzero(good)}

    def put(self, feed: Feed, directory: Directory) -> None:
        """Add or replace the row of a feed. It is a cache: no failure to write it is an error."""
        text = json.dumps(feed.settings.to_json(), separators=(",", ":")).encode()
        row = np.zeros(1, ROW_LAYOUT.dtype)
        row["created_us"], row["incarnation"] = feed.created_us, feed.incarnation
        with contextlib.suppress(OSError):  # deleted meanwhile: a row that matches nothing
            row["settings_mtime_ns"] = os.stat(SETTINGS, dir_fd=directory.fd).st_mtime_ns
        row["state"], row["record_size"], row["name"] = LIVE, feed.layout.record_size, feed.name
        row["settings"] = text if len(text) <= _SETTINGS_BYTES else b""
        self._store(feed.name, row)

    def remove(self, feed: str) -> None:
        """Mark the row of a feed as gone; its place is used again."""
        row = np.zeros(1, ROW_LAYOUT.dtype)
        row["state"] = GONE
        self._store(feed, row)

    def _store(self, feed: str, row: npt.NDArray[Any]) -> None:
        row["check"] = row_checks(row)
        with contextlib.suppress(OSError), self._base.guarded(LOCK):
            segment = self._open()
            try:
                rows = segment.array(ROW_LAYOUT.dtype)[: segment.count()]
                same = np.flatnonzero((rows["name"] == feed.encode()) | (rows["state"] == GONE))
                named = np.flatnonzero(rows["name"] == feed.encode())
                if len(named) or (len(same) and row["state"][0] == LIVE):
                    self._put(segment, int(named[0] if len(named) else same[0]), row)
                elif row["state"][0] == LIVE:
                    segment = self._append(segment, row)
            finally:
                segment.close()

    def _open(self) -> Segment:
        try:
            segment = Segment.open(self._base, NAME, fmt.GLOBAL_REGISTRY, self._ids, writable=True)
            if segment.identity.record_size == ROW_LAYOUT.record_size:
                return segment
            segment.close()
            self._base.remove(NAME)
        except FileNotFoundError:
            pass
        except CorruptFileError:
            self._base.remove(NAME)  # a cache: made anew
        static = static_of(ROW_LAYOUT)
        plan = fmt.plan(fmt.GLOBAL_REGISTRY, self._ids, 0, static, ROW_LAYOUT.record_size, _INITIAL_ROWS, now_us())
        Segment.create(self._base, NAME, plan, static)
        return Segment.open(self._base, NAME, fmt.GLOBAL_REGISTRY, self._ids, writable=True)

    @staticmethod
    def _put(segment: Segment, at: int, row: npt.NDArray[Any]) -> None:
        segment.write(segment.identity.data_offset + at * row.itemsize, row.tobytes())

    def _append(self, segment: Segment, row: npt.NDArray[Any]) -> Segment:
        count = segment.count()
        if count == segment.rows:
            grown = segment.grow(segment.identity.data_offset + 2 * count * row.itemsize)
            segment.close()
            segment = grown
        self._put(segment, count, row)
        segment.publish(count + 1)
        return segment
