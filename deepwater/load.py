"""Records of a file into a feed: `load`.

A feed is only ever appended to, so nothing can be taken back from one that was there before. The file is therefore
passed over twice: first every row is converted and checked, and nothing is written; then it is written, a batch at a
time. A file with a bad row changes nothing. What can still end the second pass (a full disk, an interrupt, a kill, a
file that was changed meanwhile) leaves no feed where one was to be made (`deepwater.new_feed`); in a feed that was
there it leaves the first records of the file, and says how many where it can. The alternative, one pass that stops at
the bad row, is twice as fast and leaves half a file in a feed.

Columns are matched by name; a clock ``x_us`` also takes a column ``x``. Times finer than a microsecond are cut to the
one before, and how many records that concerned is counted: `Platform.write` would refuse them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepwater.csvfile import CsvSource
from deepwater.dbn import DbnSource
from deepwater.errors import RecordError, SchemaError, SchemaMismatchError
from deepwater.layout import Layout
from deepwater.new_feed import new_feed, refuse_if_filled
from deepwater.platform import Platform
from deepwater.ring_writer import RingWriter
from deepwater.schema import FeedSpec, check_feed_name
from deepwater.settings import Settings
from deepwater.tables import Array, ArrowSource, Batch, NpySource, Source
from deepwater.values import Packer
from deepwater.wording import count, did_you_mean, named, positions_text, short_path, shown
from deepwater.writer import Writer

FORMS = ("parquet", "arrow", "csv", "npy", "dbn")
ENDINGS = {
    "parquet": "parquet", "arrow": "arrow", "feather": "arrow", "ipc": "arrow", "arrows": "arrow", "csv": "csv",
    "npy": "npy", "dbn": "dbn",
}  # fmt: skip
_PACKED = ("gz", "bz2", "zst")
Progress = Callable[[str, int, int | None, str], None]
"""Called with what is being done, how much of it, of how much (None: unknown), and of what: "records" or "bytes"."""


@dataclass(slots=True)
class Loaded:
    """What was, or would be, loaded.

    Attributes
    ----------
    path, form, feed : str
    spec : FeedSpec
        Of the feed; what was inferred if nobody said.
    created : bool
        Whether the feed was made for it.
    inferred : str
        What its spec was taken from, in words; empty where it was given.
    names : dict of str to str
        For each column of the feed that of the file.
    records : int
        How many were written (or would be).
    first : int or None
        Position of the first one, where some were written.
    cut : dict of str to int
        For each clock how many of its times had a part below a microsecond.
    notes : list of str
        What else there is to say.
    """

    path: str
    form: str
    feed: str
    spec: FeedSpec
    created: bool
    inferred: str
    names: dict[str, str]
    records: int = 0
    first: int | None = None
    cut: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as a dict of plain values, the spec without settings that are as by default."""
        keys = ("path", "form", "feed", "created", "inferred", "records", "first", "cut", "notes")
        return {key: getattr(self, key) for key in keys} | {"spec": self.spec.to_json()}


def form_of(path: str) -> str | None:
    """Return the form that the ending of a file's name says.

    >>> form_of("a.parquet"), form_of("b.CSV.gz"), form_of("c.dbn.zst"), form_of("d.txt")
    ('parquet', 'csv', 'dbn', None)
    """
    parts = path.lower().split(".")
    if len(parts) > 2 and parts[-1] in _PACKED:
        parts.pop()
    return ENDINGS.get(parts[-1]) if len(parts) > 1 else None


def open_source(path: str, form: str | None = None) -> Source:
    """Open a file of records for looking.

    Raises
    ------
    RecordError
        Its form is not known, or it is not of that form.
    OSError
    """
    form = form or form_of(path)
    if form == "csv":
        return CsvSource(path)
    if form == "npy":
        return NpySource(path)
    if form == "dbn":
        return DbnSource(path)
    if form in ("parquet", "arrow"):
        return ArrowSource(path, form)
    raise RecordError(f"{short_path(path)}: its ending tells no format; say which: {', '.join(FORMS)}", path=path)


def load(
    platform: Platform, path: str, feed: str, *, form: str | None = None, spec: Any = None, ts_col: str | None = None,
    columns: Iterable[str] | None = None, skip: int = 0, dry_run: bool = False, progress: Progress | None = None,
) -> Loaded:  # fmt: skip
    """Append the records of a file to a feed, all of them or none; the feed is made if there is none.

    Parameters
    ----------
    platform : Platform
    path : str
        A Parquet, Arrow IPC, CSV (perhaps compressed), ``.npy`` or DBN file.
    feed : str
    form : {"parquet", "arrow", "csv", "npy", "dbn"}, optional
        Default by the ending of `path`.
    spec : dict, path or FeedSpec, optional
        Of a feed that is to be made; its name does not matter. Default inferred from the file. A feed that is there
        must have its layout.
    ts_col : str, optional
        The clock, where it is inferred and more than one column could be it.
    columns : iterable of str, optional
        Only these columns of the file.
    skip : int
        Leave out so many rows at the beginning: those that an import that was broken off has brought in.
    dry_run : bool
        Check all of the file, and write nothing.
    progress : callable, optional

    Returns
    -------
    Loaded

    Raises
    ------
    RecordError
        A row that does not fit, named by file, row (from 1) and column; a file that is not what it should be. Nothing
        was written.
    SchemaError, SchemaMismatchError
        No layout can be made of it, or not that of the feed.
    FeedLockedError, StorageFullError, OSError
        Where records were written to a feed that was there, a note says how many.
    """
    check_feed_name(feed)
    source = open_source(path, form)
    chosen = _chosen(source, columns)
    exists = feed in platform
    wanted, inferred = _spec(platform, source, feed, spec, ts_col, chosen, exists)
    layout = Layout.compile(wanted)
    found = Loaded(path, source.form, feed, wanted, not exists, inferred, _matched(source, layout, chosen))
    if not dry_run:  # that somebody writes it is said before a long file is read
        if exists:
            platform.create_writer(feed).close()
        else:
            refuse_if_filled(platform.base_path, feed)
    _check(source, layout, found, skip, progress)
    if not dry_run:
        _write(platform, source, layout, found, skip, progress)
    return found


# --- what goes where -------------------------------------------------------------------------------------


def _chosen(source: Source, columns: Iterable[str] | None) -> tuple[str, ...]:
    if columns is None:
        return source.names
    wanted = tuple(dict.fromkeys(columns))
    for name in wanted:
        if name not in source.names:
            hint = did_you_mean(name, source.names) or f"; columns are {named(source.names)}"
            raise source.refuse(f"no column {shown(name)}{hint}", column=name)
    return wanted


def _spec(
    platform: Platform, source: Source, feed: str, spec: Any, ts_col: str | None, chosen: tuple[str, ...], exists: bool
) -> tuple[FeedSpec, str]:
    """Return the spec of the feed, and what it was taken from where nobody gave it."""
    given = None if spec is None else FeedSpec.from_json(spec)
    if exists:
        with platform.create_reader(feed) as reader:
            layout, settings = reader.layout, reader.settings
        if given is not None and (difference := layout.diff(Layout.compile(given))):
            text = f"feed {feed!r} exists with another layout: {difference}; leave the spec out, or name another feed"
            raise SchemaMismatchError(text, feed=feed)
        return FeedSpec(feed, layout.fields, layout.ts_col, settings=settings), ""
    if given is not None:
        return FeedSpec(feed, given.fields, given.ts_col, settings=given.settings), ""
    if source.layout is not None and chosen == source.names and ts_col in (None, source.layout.ts_col):
        return FeedSpec(feed, source.layout.fields, source.layout.ts_col), "the layout that the file carries"
    if isinstance(source, DbnSource):
        ts_col = ts_col or source.clock
    with _naming(source):
        fields, clock = source.spec_fields(ts_col, short_path(source.path), chosen)
        made = FeedSpec(feed, fields, clock, settings=Settings.from_json(source.settings()))
        Layout.compile(made)  # what is wrong with the names and types is wrong with the file
    return made, "the columns of the file"


@contextlib.contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Let errors about a spec that was inferred name the file."""
    try:
        yield
    except SchemaError as error:
        if error.message.startswith(short_path(source.path)):
            raise
        raise type(error)(f"{short_path(source.path)}: {error.message}", **error.parts) from error


def _matched(source: Source, layout: Layout, chosen: tuple[str, ...]) -> dict[str, str]:
    """Return for each column of the feed that of the file."""
    names = {}
    for name in layout.names:
        plain = name.removesuffix("_us") if name in layout.clocks else name
        names[name] = name if name in chosen else plain
    missing = [name for name, own in names.items() if own not in chosen]
    extra = [name for name in chosen if name not in names.values()]
    if missing:
        hint = did_you_mean(missing[0], extra)
        raise source.refuse(
            f"has no column for {named(missing)}{hint}; its columns are {named(source.names)}",
            missing=missing,
        )
    if extra:
        text = f"{named(extra)}: no such field in the feed; say which columns to take"
        raise source.refuse(text, extra=extra)
    return names


# --- two passes ------------------------------------------------------------------------------------------


def _packed(source: Source, batch: Batch, packer: Packer, found: Loaded, skip: int) -> Array:
    """Return a batch as records, without the first `skip` of the file, or say which row of the file does not fit."""
    skip -= batch.first
    if skip >= batch.rows:
        return np.zeros(0, packer.layout.dtype)
    try:
        values = source.values(batch, packer.layout, found.names)
        for name in packer.layout.clocks:
            values[name], cut = _whole_us(values[name])
            if cut:
                found.cut[name] = found.cut.get(name, 0) + cut
        return packer.pack_batch(values)[max(0, skip) :]
    except RecordError as error:
        parts = {key: value for key, value in error.parts.items() if key not in ("row", "column", "path")}
        row, name = error.parts.get("row"), str(error.parts.get("column"))
        if row is None:
            raise source.refuse(error.message, **parts) from error
        why = parts.get("why") or error.message.partition(": ")[2]
        number = batch.first + row + 1
        own = found.names.get(name, name)
        raise source.refuse(f"row {number}, column {own!r}: {why}", row=number, column=own, **parts) from error


def _whole_us(values: Array) -> tuple[Array, int]:
    """Return times finer than a microsecond cut to the one before, and how many had more than that."""
    if values.dtype.kind != "M" or np.datetime_data(values.dtype)[0] not in ("ns", "ps", "fs", "as"):
        return values, 0
    cut = values.astype("M8[us]")
    return cut, int(np.count_nonzero((cut != values) & ~np.isnat(values)))


def _check(source: Source, layout: Layout, found: Loaded, skip: int, progress: Progress | None) -> None:
    packer = Packer(layout)
    for batch in source.batches():
        found.records += len(_packed(source, batch, packer, found, skip))
        if progress is not None:
            progress("checking", batch.done, source.total, source.unit)
    found.cut |= {name: source.cut[own] for name, own in found.names.items() if source.cut.get(own)}
    found.notes = source.notes()


def _write(
    platform: Platform, source: Source, layout: Layout, found: Loaded, skip: int, progress: Progress | None
) -> None:
    base: int | None = None
    try:
        with _writer(platform, found) as writer:
            base = writer.end
            packer, again = Packer(layout), dataclasses.replace(found, cut={})
            for batch in source.batches():
                for piece in _pieces(_packed(source, batch, packer, again, skip), found.spec):
                    writer.write_batch(piece)
                if progress is not None:
                    progress("writing", batch.done, source.total, source.unit)
            writer.flush()
        found.first = base
    except BaseException as error:  # Ctrl-C too: what is there is said
        error.add_note(_left(platform, found, base))
        raise


def _writer(platform: Platform, found: Loaded) -> contextlib.AbstractContextManager[Writer | RingWriter]:
    """Return the writer of the feed; of one that is made, one that is not there before all records are."""
    return new_feed(platform.base_path, found.spec) if found.created else platform.create_writer(found.feed)


def _end(platform: Platform, feed: str) -> int:
    with platform.create_reader(feed) as reader:
        return int(reader.end)


def _left(platform: Platform, found: Loaded, base: int | None) -> str:
    """Say how much of a file is in a feed; the feed is asked: an interrupt may come between a write and its return."""
    written = 0 if base is None or found.created else _end(platform, found.feed) - base
    if base is None or not written:
        return f"nothing of it is in feed {found.feed!r}"
    verb = "is" if written == 1 else "are"
    where = positions_text(base, base + written)
    return f"{count(written, 'record')} of it {verb} in feed {found.feed!r}, {where}"


def _pieces(records: Array, spec: FeedSpec) -> Iterator[Array]:
    """Cut a batch to what one write takes: of a ring at most its half."""
    ring = max(1, spec.settings.chunk_size_bytes // spec.record_size // 2)
    most = len(records) if spec.settings.persist else ring
    return (records[at : at + most] for at in range(0, len(records), max(1, most)))
