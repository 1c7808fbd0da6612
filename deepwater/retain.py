"""Retention: letting the oldest sealed chunks of a feed go, by the age of their records or by bytes on disk.

What goes is a run of whole chunks from the oldest on: those whose newest record, on the primary clock as the seal
says it (never a file's time, never when the chunk was made), is older than `keep` before now, and those that must go
until the chunk files held are at most `max_bytes`. What stays:

- the newest chunk that holds records, and everything after it; so the active chunk is never touched;
- a chunk that is not old, and every later one however old its records are (a backfill): what remains is one run of
  positions;
- a chunk whose newest time is 0 or 2**64-1: "no time" has no age (`max_bytes` still lets it go).

Prune runs under the MAINTENANCE lock, beside a writer, readers and followers. Its steps, in this order:

1. the chunk that becomes the oldest is synced, so that after a power cut the feed has a chunk to begin with;
2. ``oldest.json`` is replaced and synced (`deepwater.oldest`): from here on all of it is gone for whoever looks;
3. the active chunk's `oldest` word is stored: open readers look at the file (`deepwater.chain`);
4. the files of lower ids are unlinked, the lowest id first, of each id ``.idx`` and ``.crc`` before ``.bin``.

Killed before 2 it has changed nothing; after 2 the feed begins later, and files are left over that nobody reads: the
next prune (any, unless it is a dry run) removes them and repeats 3. Nothing is ever half there. Views handed out keep
their mapping, and the disk gives the blocks back with the last of them; a reader lets go of what it had mapped when
it next looks. The feed registry is a cache: its rows of chunks that are gone are passed over, and the next writer
leaves them out.

Rejected: *unlinking first, then saying so* (killed in between it looks like damage, and a reader in between calls it
damage); *taking the WRITER lock* (a feed that is recorded day and night would never be pruned); *punching holes, or
cutting files* (a mapping of them would read zeros, or kill its process); *a tombstone for each chunk* (directories
that grow for ever).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deepwater import format as fmt
from deepwater.chain import Chain
from deepwater.chunk import chunk_name
from deepwater.durations import DurationLike, duration_us, time_error
from deepwater.errors import SchemaError
from deepwater.feed_files import Feed, read_feed
from deepwater.files import TEMPORARY, Directory, sync
from deepwater.holder import maintenance
from deepwater.oldest import ALL, OLDEST, Oldest, read_oldest, write_oldest
from deepwater.segment import Segment
from deepwater.store import Store
from deepwater.timestamps import MAX_US, now_us

_FILES = re.compile(r"chunk_(\d{8,19})\.(idx|crc|bin)")
_ORDER = ("idx", "crc", "bin")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one prune let go, or would let go.

    Attributes
    ----------
    feed : str
    dry_run : bool
        Whether nothing was changed.
    chunks : int
    first, stop : int
        The positions ``first <= position < stop``; `stop` is the oldest position held now.
    first_us, last_us : int or None
        The least and the greatest time of them on the primary clock; None if there are none.
    bytes : int
        Size of the files, those that an earlier prune was killed before it removed included.
    """

    feed: str
    dry_run: bool
    chunks: int
    first: int
    stop: int
    first_us: int | None
    last_us: int | None
    bytes: int

    @property
    def records(self) -> int:
        """How many."""
        return self.stop - self.first

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        names = ("feed", "dry_run", "chunks", "records", "first", "stop", "first_us", "last_us", "bytes")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class _Limits:
    """What may stay: records not older than `age_us`, files of at most `size_bytes`; None is no limit."""

    age_us: int | None
    size_bytes: int | None


def prune(store: Store, name: str, keep: DurationLike | None = None, max_bytes: int | None = None,
          dry_run: bool = False) -> Pruned:  # fmt: skip
    """Let the oldest chunks of a feed go; see `Platform.prune`.

    Raises
    ------
    FeedLockedError
        Other maintenance runs on it.
    PermissionError, OSError
        The store cannot be written; nothing was let go.
    TimeFormatError, SchemaError, FeedNotFoundError, CorruptFileError, StorageFullError
    """
    with store.open(name) as directory:
        feed = read_feed(directory, name, store.id)
        limits = _limits(feed, keep, max_bytes)
        if dry_run:
            with _chain(store, directory, feed) as chain:
                return _said(chain, _how_many(chain, limits), dry_run=True)
        lock = maintenance(store, name, directory)
        try:
            with _chain(store, directory, feed) as chain, _writable(directory):
                return _remove(chain, _how_many(chain, limits))
        finally:
            lock.release()


# --- what goes ---------------------------------------------------------------------------------------


def _limits(feed: Feed, keep: DurationLike | None, max_bytes: int | None) -> _Limits:
    """What is asked for; the feed's own setting if nothing is."""
    if not feed.settings.persist:
        raise SchemaError(
            f"feed {feed.name!r} is a ring (persist is false) and keeps what fits: nothing to prune; resize_feed makes "
            f"it smaller", feed=feed.name, field="persist",
        )  # fmt: skip
    if keep is None and max_bytes is None:
        setting = feed.settings.retain or {}
        return _Limits(duration_us(setting["age"]) if "age" in setting else None, setting.get("bytes"))
    if max_bytes is not None:  # checked as the setting is
        feed.settings.replace(retain={"bytes": max_bytes})
    return _Limits(None if keep is None else _age_us(keep), max_bytes)


def _age_us(keep: DurationLike) -> int:
    age = duration_us(keep)
    negative = keep.lstrip().startswith("-") if isinstance(keep, str) else keep < type(keep)(0)
    if negative or age == 0:
        raise time_error("keep", keep, "how long records are kept is above 0", "such as '7d', '12h' or '90min'")
    return age


def _how_many(chain: Chain, limits: _Limits) -> int:
    """How many of the oldest chunks go."""
    newest = next((index for index in reversed(range(len(chain))) if chain.count(index)), 0)
    go = 0
    if limits.age_us is not None:
        before = now_us() - limits.age_us
        while go < newest and _is_older(chain, go, before):
            go += 1
    if limits.size_bytes is not None:
        sizes = [_size(chain.directory, chunk_name(chain.chunk_id(index))) for index in range(len(chain))]
        total = sum(sizes[go:])
        while go < newest and total > limits.size_bytes:
            total -= sizes[go]
            go += 1
    return go


def _is_older(chain: Chain, index: int, before: int) -> bool:
    """Whether no record of a sealed chunk is of `before` or later; one without records hinders nothing."""
    return not chain.count(index) or 0 < chain.bounds(index, 0).high < min(before, MAX_US)


def _size(directory: Directory, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory.fd, follow_symlinks=False).st_size
    except FileNotFoundError:  # a dry run beside a prune
        return 0


def _said(chain: Chain, go: int, dry_run: bool) -> Pruned:
    """What letting the first `go` chunks go means, while they are there."""
    bounds = [chain.bounds(index, 0) for index in range(go) if chain.count(index)]
    names = _files_before(chain.directory, _oldest_after(chain, go).chunk_id)
    size = sum(_size(chain.directory, name) for name in names)
    return Pruned(
        chain.feed, dry_run, go, chain.first, chain.base(go) if go else chain.first,
        min((each.low for each in bounds), default=None), max((each.high for each in bounds), default=None), size,
    )  # fmt: skip


def _files_before(directory: Directory, chunk_id: int) -> list[str]:
    """The files of lower chunk ids, in the order in which they go."""
    found = [match for name in directory.names() if (match := _FILES.fullmatch(name)) and int(match[1]) < chunk_id]
    return [match[0] for match in sorted(found, key=lambda match: (int(match[1]), _ORDER.index(match[2])))]


# --- letting it go -------------------------------------------------------------------------------------


def _oldest_after(chain: Chain, go: int) -> Oldest:
    """Where the feed begins once the first `go` chunks are gone."""
    before = read_oldest(chain.directory, chain.ids)
    if not go:
        return before
    newest = max((chain.bounds(index, 0).high for index in range(go) if chain.count(index)), default=0)
    return Oldest(chain.chunk_id(go), chain.base(go), max(before.until_us, newest))


def _remove(chain: Chain, go: int) -> Pruned:
    """The steps, in their order; with nothing to let go, those that a killed prune left undone."""
    said, oldest, directory = _said(chain, go, dry_run=False), _oldest_after(chain, go), chain.directory
    for name in directory.names():
        if name.startswith(f"{TEMPORARY}{OLDEST}"):
            directory.remove(name)
    if go:
        _sync(directory, chunk_name(oldest.chunk_id))
        write_oldest(directory, chain.ids, oldest)
    if oldest != ALL:
        _tell_readers(chain, oldest)
    for name in _files_before(directory, oldest.chunk_id):
        directory.remove(name)
    return said


def _sync(directory: Directory, name: str) -> None:
    fd, _ = directory.open(name)
    try:
        sync(fd)
    finally:
        os.close(fd)


def _tell_readers(chain: Chain, oldest: Oldest) -> None:
    """Store the word in the tail; in the next one too if it was sealed meanwhile, for who had gone on before."""
    while True:
        chain.refresh()
        tail = chain.tail
        assert tail is not None  # what begins late has chunks
        if tail.segment.words[fmt.OLDEST] != oldest.chunk_id:
            with contextlib.suppress(PermissionError):  # somebody else's: readers see it when they next open a chunk
                segment = Segment.open(chain.directory, chunk_name(tail.id), fmt.CHUNK, chain.ids, writable=True)
                segment.words[fmt.OLDEST] = oldest.chunk_id
                segment.close()
        if not tail.state()[1]:
            return


# --- around it -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _chain(store: Store, directory: Directory, feed: Feed) -> Iterator[Chain]:
    chain = Chain(directory, store.shared, feed.name, feed.layout, feed.ids)
    try:
        yield chain
    finally:
        chain.close()


@contextlib.contextmanager
def _writable(directory: Directory) -> Iterator[None]:
    """Say where a store that cannot be changed is, and what would be needed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        what = f"{os.strerror(error.errno)}: pruning needs to write in the feed's directory"
        raise OSError(error.errno, what, directory.path) from error
