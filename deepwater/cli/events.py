"""Records of several feeds in one order, as lines that say which feed they are of: JSON, or for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from deepwater.cli import output, rows
from deepwater.cli.cells import csv_cells, json_cells, table_cells
from deepwater.cli.text import terminal_width
from deepwater.layout import Column, Layout
from deepwater.playback import Batch
from deepwater.reader import Reader

__all__ = ["JsonEvents", "TableEvents"]

Array = npt.NDArray[Any]
T = TypeVar("T")

_TAGS = ("feed", "position")


def _in_order(group: Sequence[Batch], make: Callable[[str, Array, list[int]], list[T]]) -> Iterator[T]:
    """Make something of each record, those of a feed all at once, and yield it in the order of the batches."""
    by_feed: dict[str, list[Batch]] = {}
    for batch in group:
        by_feed.setdefault(batch.feed, []).append(batch)
    made = {}
    for feed, batches in by_feed.items():
        records = np.concatenate([batch.records for batch in batches])
        positions = [at for batch in batches for at in range(batch.position, batch.position + len(batch.records))]
        made[feed] = iter(make(feed, records, positions))
    return (next(made[batch.feed]) for batch in group for _ in range(len(batch.records)))


def _chosen(readers: Sequence[Reader], names: Sequence[str] | None) -> dict[str, list[Column]]:
    """Return the columns of each feed: all, or those of the names that it has.

    Raises
    ------
    RecordError
        No feed has such a column.
    """
    for name in names or ():
        if not any(name in reader.layout.names for reader in readers):
            readers[0].layout.column(name)  # it raises, and says what was meant
    return {
        reader.feed: [
            reader.layout.column(name)
            for name in (reader.layout.names if names is None else dict.fromkeys(names))
            if name in reader.layout.names
        ]
        for reader in readers
    }


class JsonEvents:
    """A JSON object a line: the feed, the position, the columns.

    A column that is itself called feed or position has an underscore behind its name.

    Parameters
    ----------
    readers : sequence of Reader
        Of the feeds that are shown.
    clock : str, optional
        What orders them; of no matter here.
    names : sequence of str, optional
        Only these columns, of the feeds that have them.
    """

    def __init__(self, readers: Sequence[Reader], clock: str | None, names: Sequence[str] | None) -> None:
        self._layouts = {reader.feed: reader.layout for reader in readers}
        self._columns = _chosen(readers, names)
        self._templates = {feed: self._template(feed) for feed in self._columns}
        self.left_out: Sequence[str] = ()

    def _template(self, feed: str) -> str:
        names = [column.name + "_" * (column.name in _TAGS) for column in self._columns[feed]]
        values = "".join(f", {json.dumps(name)}: %s" for name in names)
        return f'{{"feed": {json.dumps(feed)}, "position": %d{values}}}\n'

    def text(self, group: Sequence[Batch]) -> bytes:
        """Return the lines of batches."""
        return "".join(_in_order(group, self._lines)).encode()

    def _lines(self, feed: str, records: Array, positions: list[int]) -> list[str]:
        layout, template = self._layouts[feed], self._templates[feed]
        cells = [json_cells(layout, column, records[column.name]) for column in self._columns[feed]]
        return [template % values for values in zip(positions, *cells, strict=True)]


class _Lane:
    """How one feed is shown to people."""

    def __init__(self, layout: Layout, clock: str | None, columns: list[Column], ordered: bool) -> None:
        self.layout, self.clock = layout, layout.column(clock or layout.ts_col)
        if ordered:
            columns = [c for c in rows.for_people(layout, columns, self.clock.name) if c.name != self.clock.name]
            # Identifiers and other clocks last: where there is no room, a trade without its id is still a trade.
            columns.sort(key=lambda c: (c.name in layout.clocks, c.kind in ("int", "uint", "byte")))
        self.columns = columns
        self.widths = [len(column.name) for column in columns]

    def pairs(self, records: Array) -> list[list[str]]:
        """Return ``name=value`` of each column, of at least the width that was needed before."""
        columns = []
        for number, column in enumerate(self.columns):
            texts = table_cells(self.layout, column, records[column.name])
            pairs = [f"{column.name}={text.rstrip()}" for text in texts]
            self.widths[number] = width = max(self.widths[number], *map(len, pairs))
            columns.append([pair.ljust(width) for pair in pairs])
        return columns

    def fitting(self, room: int | None) -> int:
        """Return how many of the columns, from the left, fit."""
        if room is None:
            return len(self.columns)
        used = np.cumsum([width + 1 for width in self.widths])
        return int(np.count_nonzero(used <= room + 1))


class TableEvents:
    """A line a record: the time, the feed, and the columns as ``name=value``.

    On a terminal the day has a line of its own, and columns that do not fit are left out, the other clocks first.
    Parameters are those of `JsonEvents`.

    Attributes
    ----------
    left_out : sequence of str
        The columns there was no room for.
    """

    def __init__(self, readers: Sequence[Reader], clock: str | None, names: Sequence[str] | None) -> None:
        columns = _chosen(readers, names)
        self._lanes = {
            reader.feed: _Lane(reader.layout, clock, columns[reader.feed], names is None) for reader in readers
        }
        self._feed_width = max(len(reader.feed) for reader in readers)
        self._day = ""
        self._width: int | None = None
        self._left_out: dict[str, None] = {}

    def text(self, group: Sequence[Batch]) -> bytes:
        """Return the lines of batches."""
        self._width = terminal_width()
        lines: list[str] = []
        for stamp, line in _in_order(group, self._lines):
            if self._width is None or not stamp.endswith("Z"):
                lines.append(f"{stamp}  {line}\n")
                continue
            if stamp[:10] != self._day:
                self._day = stamp[:10]
                lines.append(f"{self._day} UTC\n")
            lines.append(f"{stamp[11:26]}  {line}\n")
        return output.encoded("".join(lines))

    def _lines(self, feed: str, records: Array, _: list[int]) -> list[tuple[str, str]]:
        lane = self._lanes[feed]
        stamps = csv_cells(lane.layout, lane.clock, records[lane.clock.name])
        cells = lane.pairs(records)
        fit = lane.fitting(None if self._width is None else self._width - len("hh:mm:ss.ffffff") - self._feed_width - 4)
        self._left_out |= dict.fromkeys(column.name for column in lane.columns[fit:])
        title = feed.ljust(self._feed_width)
        texts = zip(*cells[:fit], strict=True) if fit else ((),) * len(stamps)
        return [(stamp, f"{title}  {' '.join(pairs)}".rstrip()) for stamp, pairs in zip(stamps, texts, strict=True)]

    @property
    def left_out(self) -> Sequence[str]:
        """The columns there was no room for."""
        return tuple(self._left_out)
