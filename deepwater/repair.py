"""Mending what `deepwater.check.verify` finds: `repair`.

What is to be done to a feed is planned from its files alone (`deepwater.repair_plan`), and said; with `apply` it is
done, under the feed's WRITER and MAINTENANCE locks. Each file that is replaced or removed is first put aside, under
``aside/<time>/<feed>/`` in the store, by a second name for it (no copy: what is replaced is never written to), and each
new file is put in place whole. So a kill in the middle leaves damage that the next repair mends, and the damaged files
are there for who wants to look. When a feed is mended it is checked again; what then remains is planned again, a few
times at most. A repair of a sound store does nothing.

What a killed import left (`deepwater.store`) is removed: it is no feed. Steps of a feed: strangers moved aside; where
it begins; of each chunk its marks, then its records, then its checksums; what a writer does when it comes
(`deepwater.recover`), and the registry; last the text files. More than 400 lines because half of them say what is done.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from deepwater.check import (
    ASIDE,
    LIVES,
    Progress,
    check_all_records,
    check_store,
    cores,
    feed_names,
    is_at,
    is_same_row,
    open_store,
    row_of,
    store_bytes,
)
from deepwater.check_feed import layout_bytes, walk
from deepwater.checksums import sums_name
from deepwater.chunk import chunk_name
from deepwater.errors import CorruptFileError, DeepwaterError, FeedLockedError, SchemaError
from deepwater.feed_files import LAYOUT, Feed, read_feed, write_settings
from deepwater.feed_registry import FeedRegistry, registry_name, valid_rows
from deepwater.files import Directory
from deepwater.findings import ERROR, WARNING
from deepwater.global_registry import NAME, GlobalRegistry
from deepwater.holder import locked
from deepwater.index import index_name
from deepwater.jsontext import load_json
from deepwater.locks import Lock
from deepwater.oldest import OLDEST, write_oldest
from deepwater.rawfile import RawFile
from deepwater.recover import recover
from deepwater.repair_plan import FeedPlan, plan_feed
from deepwater.rewrite import ChunkPlan, last_clocks, write_chunk, write_marks, write_sums
from deepwater.settings import Settings
from deepwater.store import IMPORTING, STORE, erase_left, is_left
from deepwater.wording import count, positions_text

_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is done, or would be.

    Attributes
    ----------
    path : str
    what : str
        What is done to it, and why.
    feed : str or None
    first, stop : int or None
        The positions ``first <= position < stop`` of records that are lost, if this is about a loss; equal if nobody
        knows how many.
    """

    path: str
    what: str
    feed: str | None = None
    first: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(slots=True)
class Repair:
    """What `repair` did, or would do.

    Attributes
    ----------
    applied : bool
        Whether it was done.
    changes : list of Change
    problems : list of Change
        What cannot be mended, and why.
    aside : str or None
        The directory that the damaged files are in now.
    """

    applied: bool = False
    changes: list[Change] = field(default_factory=list)
    problems: list[Change] = field(default_factory=list)
    aside: str | None = None

    @property
    def lost(self) -> list[Change]:
        """The losses among the changes."""
        return [change for change in self.changes if change.first is not None]

    @property
    def code(self) -> int:
        """0: nothing was wrong, or all is mended; 1: something would be done; 2: something cannot be mended."""
        return 2 if self.problems else 1 if self.changes and not self.applied else 0

    def to_json(self) -> dict[str, Any]:
        """Return all of it as a dict of plain values."""
        plain = [{name: getattr(change, name) for name in Change.__slots__} for change in self.changes]
        problems = [{name: getattr(change, name) for name in ("path", "what", "feed")} for change in self.problems]
        return {"applied": self.applied, "changes": plain, "problems": problems, "aside": self.aside}


def repair(
    base_path: str | os.PathLike[str], feeds: Iterable[str] | None = None, *, apply: bool = False,
    jobs: int | None = None, progress: Progress | None = None,
) -> Repair:  # fmt: skip
    """Mend the files of a store.

    Parameters
    ----------
    base_path : str or path-like
    feeds : iterable of str, optional
        Only these (and what they share); all if left out.
    apply : bool
        Do it; otherwise only say what would be done.
    jobs, progress : optional
        As of `deepwater.check.verify`.

    Returns
    -------
    Repair

    Raises
    ------
    FeedNotFoundError
        There is no store, or no such feed.
    StorageFullError, FeedNameError, PermissionError, OSError
        What was mended before stays mended.

    Notes
    -----
    Readers may be there: what they have mapped stays as it is, and they should be opened again. A feed that has a
    writer or is under maintenance is left as it is: one of the `Repair.problems`. The others are mended.
    """
    base, data = open_store(base_path)
    with base, data:
        done = _Repairer(base, data, apply, jobs or cores(), progress)
        done.store()
        done.left()
        for name in feed_names(data, feeds):
            done.feed(name)
        done.registry()
    return done.result


class _Repairer:
    """One run of a repair."""

    def __init__(self, base: Directory, data: Directory, apply: bool, jobs: int, progress: Progress | None) -> None:
        self._base, self._data, self._apply, self._jobs, self._progress = base, data, apply, jobs, progress
        self.result = Repair(apply)
        self._found, self._store_id, self._rows = check_store(base, data)
        self._changed = False

    # --- the store -------------------------------------------------------------------------------------

    def store(self) -> None:
        """``store.json``."""
        path = self._base.name_of(STORE)
        if not any(f.path == path and f.severity == ERROR for f in self._found):
            return
        if self._store_id is None:
            self._problem(path, "no file says which store this is: restore it from a copy")
            return
        self._say(path, "written anew: the other files say which store this is")
        if self._apply:
            self._put_aside(self._base, STORE, "")
            self._base.write(STORE, store_bytes(self._store_id))

    def left(self) -> None:
        """What killed imports left: no feed, and never to become one."""
        for name in self._data.directories():
            if name.startswith(IMPORTING) and is_left(self._data, name):
                self._say(self._data.name_of(name), "removed: a killed import left it")
                if self._apply:
                    erase_left(self._data, name)

    def registry(self) -> None:
        """``registry.bin``, a cache: made anew."""
        path = self._base.name_of(NAME)
        wrong = [f for f in self._found if f.path == path and f.severity in (ERROR, WARNING)]
        wrong = [finding for finding in wrong if finding.code != "permissions"]
        if wrong:
            self._say(path, f"made anew: {wrong[0].what}")
        if not self._apply or not (wrong or self._changed) or self._store_id is None:
            return
        if wrong:
            self._put_aside(self._base, NAME, "")
            self._base.remove(NAME)
        registry = GlobalRegistry(self._base, self._store_id)
        for name in feed_names(self._data, None):
            with contextlib.suppress(OSError, DeepwaterError), Directory(name, parent=self._data) as directory:
                registry.put(read_feed(directory, name, self._store_id), directory)

    # --- a feed ----------------------------------------------------------------------------------------

    def feed(self, name: str) -> None:
        """Mend a feed; anew if it was deleted and made again meanwhile, or its row of the store's registry changed."""
        for _ in range(LIVES):
            with contextlib.suppress(FileNotFoundError), Directory(name, parent=self._data) as directory:
                plan = self._plan(directory, name)
                if plan.is_empty:
                    return
                if self._is_settled(directory, name) and self._mended(directory, name, plan):
                    return

    def _is_settled(self, directory: Directory, name: str) -> bool:
        """Whether it is still the feed that was planned for; the next plan is for the one that it is now."""
        row, before = row_of(self._base, self._data, self._store_id, name), self._rows.get(name)
        self._rows[name] = row
        return is_same_row(row, before) and is_at(self._data, name, directory)

    def _mended(self, directory: Directory, name: str, plan: FeedPlan) -> bool:
        """Mend it, again as long as mending shows more; False, and nothing is said, if it is another feed by now."""
        told = len(self.result.changes)
        self._tell(directory, name, plan)
        if not self._apply or plan.problem:
            return True
        try:
            with self._locked(directory, name):
                if self._is_settled(directory, name):
                    self._mend(directory, name)
                    return True
        except (FeedLockedError, FileNotFoundError) as error:  # the other feeds need not wait
            if is_at(self._data, name, directory):
                del self.result.changes[told:]
                self._problem(directory.path, str(error), name)
                return True
        del self.result.changes[told:]
        return False

    def _mend(self, directory: Directory, name: str) -> None:
        for attempt in range(_ROUNDS):
            plan = self._plan(directory, name)  # under the locks: nobody changes it now
            if attempt:
                self._tell(directory, name, plan)
            if plan.is_empty or plan.problem:
                return
            try:
                self._do(directory, plan)
            except CorruptFileError as error:  # what a writer refuses too
                self._problem(directory.path, str(error), name)
                return
        self._problem(directory.path, "something is wrong still: deepwater verify says what")

    def _plan(self, directory: Directory, name: str) -> FeedPlan:
        facts, out = walk(directory, name, self._store_id, self._rows.get(name))
        if facts.feed is None:
            return plan_feed(directory, facts, out.found, {}, [])
        facts.feed = self._described(directory, facts.feed)
        records = check_all_records(out, directory, facts, facts.feed, self._jobs, self._progress)
        rows = valid_rows(directory, name, facts.feed.layout, facts.feed.ids)
        return plan_feed(directory, facts, out.found, records, rows)

    def _described(self, directory: Directory, feed: Feed) -> Feed:
        """What is known of a feed, its settings and time of making from the store's registry if need be."""
        row = self._rows.get(feed.name)
        created, settings = feed.created_us, feed.settings
        if row is not None and bytes(row["incarnation"][0]).decode("latin-1") == feed.incarnation:
            created = int(row["created_us"][0])
        try:
            settings = read_feed(directory, feed.name, None).settings
        except DeepwaterError:
            with contextlib.suppress(SchemaError, TypeError, KeyError):
                if row is not None:
                    settings = Settings.from_json(load_json(bytes(row["settings"][0]), NAME))
        return Feed(feed.name, feed.layout, settings, feed.ids, created)

    def _tell(self, directory: Directory, name: str, plan: FeedPlan) -> None:
        if plan.problem:
            self._problem(directory.path, plan.problem, name)
            return
        changes = [(file, f"written anew: {why}") for file, why in plan.texts]
        changes += [(file, f"moved away: {why}") for file, why in plan.aside]
        if plan.oldest is not None:
            where = f"chunk {plan.oldest.chunk_id}, position {plan.oldest.position}"
            changes.append((OLDEST, f"written: the feed begins with {where}"))
        for chunk in plan.chunks:
            if chunk.id in plan.marks:
                changes.append((index_name(chunk.id), _marked(len(plan.marks[chunk.id]))))
            if chunk.why:
                changes.append((chunk_name(chunk.id), f"written anew: {chunk.why}"))
        changes += [(sums_name(k), "made anew from the records") for k in plan.sums]
        if plan.registry:
            changes.append((registry_name(name), f"made anew: {plan.registry}"))
        for file, what in changes:
            self._say(directory.name_of(file), what, name)
        for first, stop, what in plan.lost:
            lost = f"from {first} on"
            if stop > first:
                lost = f"{count(stop - first, 'record')}, {positions_text(first, stop)}"
            self._say(directory.path, f"LOST {lost}: {what}", name, first, stop)

    @contextlib.contextmanager
    def _locked(self, directory: Directory, name: str) -> Iterator[None]:
        writer = Lock.take(".", directory.fd)  # by its name it may be another feed by now
        if writer is None:
            raise locked(name, directory, None)
        maintenance = None
        try:
            with contextlib.suppress(OSError):  # no layout.json, or a link: nobody can hold it
                maintenance = Lock.take(LAYOUT, directory.fd)
                if maintenance is None:
                    raise FeedLockedError(f"feed {name!r} is under maintenance: try again when it is done", feed=name)
            yield
        finally:
            if maintenance is not None:
                maintenance.release()
            writer.release()

    def _do(self, directory: Directory, plan: FeedPlan) -> None:
        assert plan.feed is not None
        feed, self._changed = plan.feed, True
        for file, _ in plan.aside:
            self._put_aside(directory, file, feed.name)
            directory.remove(file)
        if plan.oldest is not None:
            self._put_aside(directory, OLDEST, feed.name)
            write_oldest(directory, feed.ids, plan.oldest)
        rewritten = any(chunk.why for chunk in plan.chunks)
        if plan.registry or rewritten:  # its rows say what the seals said
            self._put_aside(directory, registry_name(feed.name), feed.name)
            directory.remove(registry_name(feed.name))
        self._chunks(directory, feed, plan)
        if plan.chunks:
            _recover(directory, feed)
        # Last: the lock of maintenance is on the layout that is replaced.
        for file, _ in plan.texts:
            self._put_aside(directory, file, feed.name)
            if file == LAYOUT:
                directory.write(LAYOUT, layout_bytes(feed))
            else:
                write_settings(directory, feed.settings)

    def _chunks(self, directory: Directory, feed: Feed, plan: FeedPlan) -> None:
        before: ChunkPlan | None = None
        for chunk in plan.chunks:
            if chunk.id in plan.marks:
                self._put_aside(directory, index_name(chunk.id), feed.name)
                write_marks(directory, feed, chunk.id, plan.marks[chunk.id])
            if chunk.why:
                self._put_aside(directory, chunk_name(chunk.id), feed.name)
                clocks = last_clocks(directory, feed, before) if before is not None else None
                write_chunk(directory, feed, chunk, clocks)
            if chunk.id in plan.sums:
                self._put_aside(directory, sums_name(chunk.id), feed.name)
                write_sums(directory, feed, chunk.id)
            before = chunk

    # --- what was done ---------------------------------------------------------------------------------

    def _say(self, path: str, what: str, feed: str | None = None, first: int | None = None, stop: int | None = None
             ) -> None:  # fmt: skip
        self.result.changes.append(Change(path, what, feed, first, stop))

    def _problem(self, path: str, what: str, feed: str | None = None) -> None:
        self.result.problems.append(Change(path, what, feed))

    def _put_aside(self, directory: Directory, name: str, feed: str) -> None:
        """Give a file a second name in the store's directory for such."""
        if not directory.exists(name):
            return
        with self._place(feed) as place:
            try:
                os.link(name, name, src_dir_fd=directory.fd, dst_dir_fd=place.fd, follow_symlinks=False)
            except FileExistsError:  # an earlier round's
                return
            except OSError:  # a directory, or a file system without links
                _copy_or_move(directory, name, place)
            place.sync()

    @contextlib.contextmanager
    def _place(self, feed: str) -> Iterator[Directory]:
        self._base.make(ASIDE)
        with Directory(ASIDE, parent=self._base) as aside:
            if self.result.aside is None:
                stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
                name = next(n for k in range(1000) if not aside.exists(n := f"{stamp}.{k}" if k else stamp))
                aside.make_new(name)
                self.result.aside = aside.name_of(name)
            with Directory(os.path.basename(self.result.aside), parent=aside) as run:
                if not feed:
                    yield run
                    return
                run.make(feed)
                with Directory(feed, parent=run) as place:
                    yield place


def _marked(marks: int) -> str:
    return f"written anew with {count(marks, 'mark')}"


def _copy_or_move(directory: Directory, name: str, place: Directory) -> None:
    try:
        source = RawFile(directory, name)
    except (OSError, CorruptFileError):  # none of our files
        os.rename(name, name, src_dir_fd=directory.fd, dst_dir_fd=place.fd)
        return
    with source, place.new(name, source.size) as fd:
        for at in range(0, source.size, 1 << 20):
            os.pwrite(fd, source.read(at, 1 << 20), at)


def _recover(directory: Directory, feed: Feed) -> None:
    """Leave the feed as a writer would that opens and closes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what was dropped is said by the plan
        rows, chunk = recover(directory, feed)
    if chunk is not None:
        chunk.close()
    registry = FeedRegistry(directory, feed.name, feed.layout, feed.ids)
    registry.adopt(rows)
    registry.close()
