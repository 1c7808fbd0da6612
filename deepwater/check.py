"""Whether the files of a store are what was written: `verify`.

Everything is read with `pread` in pieces of a mebibyte and nothing is mapped: whatever happens to a file meanwhile,
nothing here is killed by it, and memory stays bounded. No lock is taken and nothing is created, so it may run beside
live writers: of a chunk that is being appended to, what is published and has a checksum is checked.

Every single flipped bit of a sealed chunk, of its marks and checksums, of both registries and of the text files is
found, but for those that `deepwater.check_chunk` and `deepwater.check_feed` name, and: in the count of
``registry.bin``, one that counts empty rows (those of deleted feeds look the same).
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from deepwater import format as fmt
from deepwater.check_chunk import ChunkFacts
from deepwater.check_feed import PAUSE_S, FeedFacts, describe_by_headers, walk
from deepwater.check_records import RecordFacts, check_records
from deepwater.check_rings import check_rings
from deepwater.chunk import static_of
from deepwater.errors import CorruptFileError, DeepwaterError, FeedNotFoundError
from deepwater.feed_files import FORMAT, Feed
from deepwater.feed_registry import row_checks
from deepwater.files import TEMPORARY, Directory
from deepwater.findings import Finding, Findings, Report
from deepwater.global_registry import GONE, LIVE, NAME, ROW_LAYOUT
from deepwater.rawfile import REPAIR, RESTORE, RawFile, check_access, check_header, read_rows
from deepwater.schema import check_feed_name, is_feed_name
from deepwater.store import DATA, IMPORTING, LOCK, MAKING, STORE, is_left
from deepwater.store import GONE as GONE_FEED

Progress = Callable[[str, int, int], None]
"""Called with the feed's name, records checked and records to check of it."""
LIVES = 20
"""A feed that is made again more often while it is looked at is not checked."""
ASIDE = "aside"
"""Where `deepwater.repair` puts what it changes."""


def verify(
    base_path: str | os.PathLike[str],
    feeds: Iterable[str] | None = None,
    *,
    quick: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check the files of a store.

    Parameters
    ----------
    base_path : str or path-like
    feeds : iterable of str, optional
        Only these feeds (and what they share); all if left out.
    quick : bool
        Headers, marks and registries only; no records are read.
    jobs : int, optional
        Chunks checked at a time, in threads; as many as there are cores (at most 4) if left out.
    progress : callable, optional

    Returns
    -------
    Report
        Its `code` is 0 (fine, perhaps with notes), 1 (warnings) or 2 (damage).

    Raises
    ------
    FeedNotFoundError
        There is no store, or no such feed.
    FeedNameError, PermissionError

    Notes
    -----
    Safe beside writers and readers. Reads all records: a file system cache of other data suffers.
    """
    report = Report(quick=quick)
    base, data = open_store(base_path)
    with base, data:
        names = feed_names(data, feeds)
        found, store_id, rows = check_store(base, data, names if feeds is not None else None)
        report.add(found)
        for name in names:
            _verify_feed(report, base, data, name, store_id, rows.get(name), quick, jobs or cores(), progress)
            report.feeds += 1
        out = Findings()
        if store_id is not None:
            check_rings(out, base, data, store_id)
        report.add(out.found)
    return report


def open_store(base_path: str | os.PathLike[str]) -> tuple[Directory, Directory]:
    """The directories of a store and of its feeds, whatever is wrong with the files in them.

    Raises
    ------
    FeedNotFoundError
        There is none.
    """
    path = os.fspath(base_path)
    try:
        base = Directory(path)
        try:
            return base, Directory(DATA, parent=base)
        except BaseException:
            base.close()
            raise
    except (FileNotFoundError, NotADirectoryError):
        text = f"no store at {path}: name another --base-path"
        raise FeedNotFoundError(text, base_path=path) from None


def check_store(
    base: Directory, data: Directory, only: list[str] | None = None
) -> tuple[list[Finding], bytes | None, dict[str, Any]]:
    """Check what all feeds share. Returns what was found, the store's id, and the registry's rows by feed."""
    out = Findings()
    store_id = _check_store(out, base, data)
    found = Findings()
    rows = _check_global(found, base, data, store_id, only)
    if found.found:  # a feed may have been made or deleted meanwhile: what is wrong is found again
        time.sleep(PAUSE_S)
        again = Findings()
        rows = _check_global(again, base, data, store_id, only)
        keys = {finding.key for finding in found.found}
        found.found = [finding for finding in again.found if finding.key in keys]
    return out.found + found.found, store_id, rows


def cores() -> int:
    """How many chunks are checked at a time unless somebody says: the cores there are, at most 4."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def feed_names(data: Directory, feeds: Iterable[str] | None) -> list[str]:
    """The feeds asked for, all if None; FeedNotFoundError if one is not there."""
    there = [name for name in data.directories() if is_feed_name(name)]
    if feeds is None:
        return there
    wanted = list(dict.fromkeys(feeds))
    for name in wanted:
        check_feed_name(name)
        if name not in there:
            text = f"no feed {name!r} in {os.path.dirname(data.path)}; feeds: {', '.join(there[:8]) or 'none'}"
            raise FeedNotFoundError(text, feed=name)
    return wanted


# --- a feed ----------------------------------------------------------------------------------------------


def _verify_feed(
    report: Report, base: Directory, data: Directory, name: str, store_id: bytes | None, row: Any, quick: bool,
    jobs: int, progress: Progress | None,
) -> None:  # fmt: skip
    """Check a feed; anew if it was deleted and made again meanwhile, or its row of the registry changed."""
    for _ in range(LIVES):
        try:
            directory = Directory(name, parent=data)
        except FileNotFoundError:
            return  # deleted just now
        with directory:
            found: dict[int, RecordFacts] = {}
            facts, out = walk(directory, name, store_id, row)
            check_access(out, directory.path, os.fstat(directory.fd), directory=True)
            if not quick and facts.feed is not None:
                found = check_all_records(out, directory, facts, facts.feed, jobs, progress)
            now = row_of(base, data, store_id, name) if out.found else row
            if not out.found or (is_same_row(now, row) and is_at(data, name, directory)):
                report.files += facts.files
                report.records += sum(chunk.count for chunk in facts.chunks if chunk.id in found)
                report.bytes_read += sum(result.bytes_read for result in found.values())
                report.add(out.found)
                return
        row = now


def row_of(base: Directory, data: Directory, store_id: bytes | None, name: str) -> Any:
    """The row of a feed in the store's registry as it is now; None if it has none."""
    return _check_global(Findings(), base, data, store_id, [name]).get(name)


def is_same_row(row: Any, other: Any) -> bool:
    """Whether two rows, or none, say the same."""
    return (row is None) == (other is None) and (row is None or row.tobytes() == other.tobytes())


def is_at(data: Directory, name: str, directory: Directory) -> bool:
    """Whether the feed of that name is still the one in this directory."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=data.fd, follow_symlinks=False), os.fstat(directory.fd))
    except FileNotFoundError:
        return False


def check_all_records(
    out: Findings, directory: Directory, facts: FeedFacts, feed: Feed, jobs: int, progress: Progress | None = None
) -> dict[int, RecordFacts]:
    """Check the records of all chunks that have any, several at a time; what was found, by chunk."""
    visible = facts.visible
    seen = {chunk.id for chunk in visible}
    beyond = [c for c in facts.chunks if c.identity is not None and c.active and c.sealed and c.id not in seen]
    todo, done = [*visible, *beyond], 0
    total = sum(chunk.count for chunk in todo)

    def one(chunk: ChunkFacts) -> tuple[ChunkFacts, Findings, RecordFacts]:
        found = Findings(feed.name)
        result = check_records(found, directory, feed, chunk)
        for _ in range(2):  # a writer may have cut it, or it was read while it was replaced
            if chunk.sealed or not found.found:
                break
            fresh, _ = walk(directory, feed.name, None, None)
            chunk = next((c for c in fresh.visible if c.id == chunk.id), chunk)
            found = Findings(feed.name)
            result = check_records(found, directory, feed, chunk)
        return chunk, found, result

    results: dict[int, RecordFacts] = {}
    with ThreadPoolExecutor(jobs, thread_name_prefix="deepwater-verify") as pool:
        for chunk, found, result in pool.map(one, todo):
            out.found += found.found
            results[chunk.id] = result
            done += chunk.count
            if progress is not None:
                progress(feed.name, done, total)
    return results


# --- the store -------------------------------------------------------------------------------------------


def store_id_by_headers(base: Directory, data: Directory) -> bytes | None:
    """The store's id as most of its other files say it."""
    votes: Counter[bytes] = Counter()
    try:
        with RawFile(base, NAME) as file:
            votes[fmt.parse_identity(file.read(0, fmt.IDENTITY_SIZE), file.path).ids.store] += 1
    except (OSError, CorruptFileError):
        pass
    for name in data.directories():
        try:
            with Directory(name, parent=data) as directory:
                feed = describe_by_headers(directory, name, None)
                about = json.loads(directory.read("layout.json")) if feed is None else {}
            votes[feed.ids.store if feed is not None else bytes.fromhex(about["store_id"])] += 1
        except (OSError, DeepwaterError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return votes.most_common(1)[0][0] if votes else None


def store_bytes(store_id: bytes) -> bytes:
    """The text of ``store.json`` as `deepwater.store` writes it."""
    return (json.dumps({"format": FORMAT, "store_id": str(uuid.UUID(bytes=store_id))}) + "\n").encode()


def _check_store(out: Findings, base: Directory, data: Directory) -> bytes | None:
    """Check ``store.json`` and the directories; the id of the store."""
    for directory in (base, data):
        check_access(out, directory.path, os.fstat(directory.fd), directory=True)
    path, voted = base.name_of(STORE), store_id_by_headers(base, data)
    try:
        with RawFile(base, STORE) as file:
            check_access(out, path, file.info)
            text = file.read(0, 1 << 16)
        about = json.loads(text)
        store_id = uuid.UUID(about["store_id"]).bytes
    except (OSError, CorruptFileError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error.parts["reason"] if isinstance(error, CorruptFileError) else error
        way_out = REPAIR if voted is not None else RESTORE
        out.error("store", path, f"not a store's description: {reason}", offset=0, way_out=way_out)
        return voted
    if voted is not None and voted != store_id:
        values = {"expected": voted.hex(), "found": store_id.hex()}
        out.error("store", path, "it gives another id than the headers", offset=0, way_out=REPAIR, **values)
        return voted
    if text != store_bytes(store_id):
        out.error("store", path, "it is not as Deepwater writes it: edited, or a flipped bit", offset=0,
                  way_out=REPAIR, expected=repr(store_bytes(store_id)), found=repr(text[:200]))  # fmt: skip
    known = {STORE, DATA, NAME, LOCK, "registry.lock", ASIDE, ".shm"}
    for name in base.names():
        if name.startswith(TEMPORARY):
            out.note("temporary", base.name_of(name), "left by a process that was killed, or being written just now")
        elif name not in known:
            out.note("unknown", base.name_of(name), "none of the store's files has that name")
    for name in data.names():
        if name.startswith(IMPORTING):
            left = "left by an import that was killed: the next import or create removes it, and repair"
            what = left if is_left(data, name) else "an import that is running"
            out.note("temporary", data.name_of(name), what)
        elif name.startswith((MAKING, GONE_FEED)):
            out.note("temporary", data.name_of(name), "a feed that is being made or deleted, or was left by a kill")
        elif not is_feed_name(name):
            out.note("unknown", data.name_of(name), "no feed can have that name")
    return store_id


def _check_global(
    out: Findings, base: Directory, data: Directory, store_id: bytes | None, only: list[str] | None
) -> dict[str, Any]:
    """Check ``registry.bin``; its valid live rows by feed."""
    path = base.name_of(NAME)
    try:
        file = RawFile(base, NAME)
    except FileNotFoundError:
        if any(map(is_feed_name, data.directories())):
            out.warning("no-registry", path, "the store's registry is missing: listing is slow", way_out=REPAIR)
        return {}
    except (OSError, CorruptFileError) as error:
        reason = error.parts["reason"] if isinstance(error, CorruptFileError) else error.strerror
        out.warning("unreadable", path, str(reason), way_out=REPAIR)
        return {}
    with file:
        check_access(out, path, file.info)
        ids = fmt.Ids(store_id or bytes(16), bytes(16), bytes(16))
        identity = check_header(out, file, fmt.GLOBAL_REGISTRY, ids, 0, static_of(ROW_LAYOUT))
        if identity is None or identity.record_size != ROW_LAYOUT.record_size:
            return {}
        return _check_global_rows(out, file, data, identity, only)


def _check_global_rows(
    out: Findings, file: RawFile, data: Directory, identity: fmt.Identity, only: list[str] | None
) -> dict[str, Any]:
    size, rows = ROW_LAYOUT.record_size, read_rows(out, file, identity, ROW_LAYOUT.dtype)
    good = rows["check"] == row_checks(rows) if len(rows) else np.zeros(0, bool)
    found: dict[str, Any] = {}
    there = set(data.directories())
    for k in range(len(rows)):
        if out.is_full(file.path):
            break
        name = bytes(rows["name"][k]).decode("latin-1")
        at = identity.data_offset + k * size
        state = int(rows["state"][k])
        if not good[k] or state not in (LIVE, GONE):
            out.error("registry-row", file.path, f"row {k} has a wrong check word", offset=at, way_out=REPAIR)
        elif state == LIVE and name in found:
            out.error("registry-row", file.path, f"row {k} is a second one of feed {name}", offset=at, way_out=REPAIR)
        elif state == LIVE and name not in there:
            out.warning("registry-row", file.path, f"row {k} is of a feed that is gone", offset=at, way_out=REPAIR)
        elif state == LIVE:
            found[name] = rows[k : k + 1]
    feeds = sorted(name for name in there if is_feed_name(name) and (only is None or name in only))
    for name in (name for name in feeds if name not in found and good.all()):
        out.warning("registry-short", file.path, f"feed {name} has no row in it", offset=8 * fmt.COMMIT,
                    way_out=REPAIR)  # fmt: skip
    beyond = file.first_not_zero(identity.data_offset + len(rows) * size, file.size)
    if beyond is not None:
        out.warning("not-zero", file.path, "bytes after the last row are not zero", offset=beyond, way_out=REPAIR)
    return found
