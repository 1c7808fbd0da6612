"""Checks of one feed: its text files, the chain of its chunks, its marks and its registry.

The walk over headers is repeated while it finds something, and only what every walk finds counts: a live writer
changes files meanwhile, and none of its steps is a fault. What a killed writer leaves, and the next one removes,
is a note; beside a live one it is nothing. More than 400 lines because one walk compares all of these files with one
another.

Bits whose flip is not seen, besides those that `deepwater.check_chunk` names: in ``layout.json`` and
``settings.json`` of a feed that the store's registry has no row of, what only that row repeats (the settings,
`created_us`); in ``layout.json`` of a feed that has no chunk, what only a chunk's header repeats.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from deepwater import format as fmt
from deepwater.check_chunk import ChunkFacts, check_chunk, neighbours
from deepwater.checksums import sums_name
from deepwater.chunk import chunk_ids, chunk_name, static_of
from deepwater.errors import CorruptFileError, DeepwaterError, SchemaError
from deepwater.feed_files import FORMAT, LAYOUT, SETTINGS, Feed, feed_id, read_feed, read_settings
from deepwater.feed_registry import make_row, registry_name, row_checks, row_layout
from deepwater.files import TEMPORARY, Directory
from deepwater.findings import Findings
from deepwater.index import KINDS, MARK_LAYOUT, index_name, is_valid
from deepwater.keeper import MOST_BEHIND
from deepwater.layout import Layout
from deepwater.oldest import ALL, OLDEST, Oldest, oldest_bytes, read_oldest
from deepwater.rawfile import REPAIR, RESTORE, RawFile, check_access, check_header, read_rows
from deepwater.settings import Settings

WALKS, PAUSE_S = 6, 0.05
MOST_MISSING = 1000
_SIDE = re.compile(r"chunk_(\d{8,19})\.(?:bin|idx|crc)")


@dataclass(slots=True)
class FeedFacts:
    """What one walk over a feed's files learned.

    Attributes
    ----------
    feed : Feed or None
        As voted by all its files; None: nothing says what the records are.
    chunks : list of ChunkFacts
        Those whose files are there, by id.
    oldest : Oldest
        Where the feed begins; if ``oldest.json`` is damaged, where its first usable chunk does.
    end : int
        The position after the last visible record.
    """

    feed: Feed | None = None
    chunks: list[ChunkFacts] = field(default_factory=list)
    oldest: Oldest = ALL
    end: int = 0
    files: int = 0

    @property
    def visible(self) -> list[ChunkFacts]:
        """The usable chunks up to the first that is not sealed."""
        out = []
        for chunk in self.chunks:
            if chunk.identity is not None and chunk.active:
                out.append(chunk)
                if not chunk.sealed:
                    break
        return out

    @property
    def has_writer(self) -> bool:
        """Whether a process that may be alive holds it: only the newest chunk is ever let go of in its header."""
        owned = [chunk for chunk in self.chunks if chunk.active and chunk.owner is not None]
        return bool(owned) and owned[-1].has_writer


def walk(directory: Directory, name: str, store_id: bytes | None, row: Any) -> tuple[FeedFacts, Findings]:
    """Check everything about a feed but its records; again while something looks wrong.

    `row` is its row of the store's registry, None if it has none.
    """
    facts, out = _walk(directory, name, store_id, row)
    for attempt in range(WALKS - 1):
        if not out.found or (attempt >= 1 and not facts.has_writer):
            break
        if facts.has_writer:
            time.sleep(PAUSE_S * (attempt + 1))
        facts, again = _walk(directory, name, store_id, row)
        before = {finding.key for finding in out.found}
        out = Findings(name, [finding for finding in again.found if finding.key in before])
    return facts, out


def _walk(directory: Directory, name: str, store_id: bytes | None, row: Any) -> tuple[FeedFacts, Findings]:
    out, facts = Findings(name), FeedFacts()
    facts.feed = _check_texts(out, directory, name, store_id, row)
    names = directory.names()
    facts.files = len(names)
    if facts.feed is None:
        return facts, out
    oldest = _check_oldest(out, directory, facts.feed.ids)
    begins = oldest.chunk_id if oldest is not None else 0
    for chunk_id in sorted({k for k in chunk_ids(directory) if k >= begins}):
        try:
            facts.chunks.append(check_chunk(out, directory, facts.feed, chunk_id))
        except FileNotFoundError:
            continue  # removed just now, or a name that is not ours: see `_check_names`
    facts.oldest = oldest if oldest is not None else _first_of(facts.chunks)
    _check_chain(out, directory, facts)
    _check_marks(out, directory, facts, facts.feed)
    _check_registry(out, directory, facts, facts.feed)
    _check_names(out, directory, facts, names)
    return facts, out


# --- layout.json, settings.json --------------------------------------------------------------------------


def describe_by_headers(directory: Directory, name: str, store_id: bytes | None) -> Feed | None:
    """What the headers of a feed's chunks say it is: ids and layout of most of them; None if they say nothing."""
    votes: Counter[tuple[fmt.Ids, bytes]] = Counter()
    created: dict[tuple[fmt.Ids, bytes], int] = {}
    for chunk_id in sorted(set(chunk_ids(directory))):
        try:
            with RawFile(directory, chunk_name(chunk_id)) as file:
                identity = fmt.parse_identity(file.read(0, fmt.IDENTITY_SIZE), file.path)
                data = file.read(identity.static_offset, identity.static_size)
                static = fmt.parse_static(data, identity, file.path)
        except (OSError, CorruptFileError):
            continue
        ids = identity.ids
        if ids.feed == feed_id(ids.store, name) and store_id in (None, ids.store):
            votes[ids, static.layout] += 1
            created.setdefault((ids, static.layout), identity.created_us)
    for (ids, layout), _ in votes.most_common():
        try:
            return Feed(name, Layout.from_bytes(layout), Settings(), ids, created[ids, layout])
        except (DeepwaterError, ValueError, TypeError):
            continue
    return None


def _check_texts(out: Findings, directory: Directory, name: str, store_id: bytes | None, row: Any) -> Feed | None:
    """Check both text files, and return what the feed is by the vote of all its files."""
    settings = _check_settings(out, directory, row)
    path, voted = directory.name_of(LAYOUT), describe_by_headers(directory, name, store_id)
    try:
        with RawFile(directory, LAYOUT) as file:
            check_access(out, path, file.info)
            data = file.read(0, file.size)
        feed = read_feed(directory, name, None, settings or Settings())
    except (OSError, DeepwaterError) as error:
        out.error("layout", path, _reason(error), offset=0, way_out=REPAIR if voted else RESTORE)
        return voted
    if voted is not None and (feed.ids, feed.layout.to_bytes()) != (voted.ids, voted.layout.to_bytes()):
        which = "ids" if feed.ids != voted.ids else "layout"
        out.error("layout", path, f"it gives other {which} than the headers of the chunks", offset=0, way_out=REPAIR)
        return Feed(name, voted.layout, feed.settings, voted.ids, feed.created_us)
    if store_id is not None and feed.ids.store != store_id:
        values = {"expected": store_id.hex(), "found": feed.ids.store.hex()}
        out.error("foreign", path, "the feed belongs to another store", way_out="take it out of data/", **values)
        return feed
    if data != layout_bytes(feed):
        text = "it is not as Deepwater writes it: edited, or a flipped bit"
        out.error("layout", path, text, offset=_differs(data, layout_bytes(feed)), way_out=REPAIR)
    if row is not None:
        said = {"created_us": int(row["created_us"][0]), "incarnation": bytes(row["incarnation"][0]).decode("latin-1")}
        here = {"created_us": feed.created_us, "incarnation": feed.incarnation}
        for key, value in said.items():
            if value != here[key]:
                out.error("layout", path, f"its {key} is not that of the store's registry", offset=0, way_out=REPAIR,
                          expected=str(value), found=str(here[key]))  # fmt: skip
    return feed


def layout_bytes(feed: Feed) -> bytes:
    """The text of `layout.json` as `deepwater.feed_files` writes it."""
    about = {
        "format": FORMAT, "feed_name": feed.name, "store_id": feed.ids.store.hex(), "incarnation": feed.incarnation,
        "created_us": feed.created_us, "layout": feed.layout.to_json(),
    }  # fmt: skip
    return (json.dumps(about, indent=1) + "\n").encode()


def _differs(a: bytes, b: bytes) -> int:
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _check_oldest(out: Findings, directory: Directory, ids: fmt.Ids) -> Oldest | None:
    """Check ``oldest.json``: where the feed begins; None: nobody knows."""
    path = directory.name_of(OLDEST)
    try:
        oldest = read_oldest(directory, ids)
        if oldest == ALL:
            return ALL
        with RawFile(directory, OLDEST) as file:
            check_access(out, path, file.info)
            data = file.read(0, file.size)
    except FileNotFoundError:
        return ALL
    except (OSError, CorruptFileError) as error:
        out.error("oldest", path, _reason(error), offset=0, way_out=REPAIR)
        return None
    if data != oldest_bytes(ids, oldest):
        text = "it is not as Deepwater writes it: edited, or a flipped bit"
        out.error("oldest", path, text, offset=_differs(data, oldest_bytes(ids, oldest)), way_out=REPAIR)
    return oldest


def _first_of(chunks: list[ChunkFacts]) -> Oldest:
    return next((Oldest(chunk.id, chunk.base) for chunk in chunks if chunk.identity and chunk.active), ALL)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read: {error.strerror}"
    return str(error.parts["reason"]) if isinstance(error, CorruptFileError) else str(error)


def _check_settings(out: Findings, directory: Directory, row: Any) -> Settings | None:
    path = directory.name_of(SETTINGS)
    try:
        with RawFile(directory, SETTINGS) as file:
            check_access(out, path, file.info)
            data, mtime = file.read(0, file.size), file.info.st_mtime_ns
        settings = read_settings(directory)
    except (OSError, DeepwaterError, SchemaError) as error:
        out.error("settings", path, _reason(error), offset=0, way_out=REPAIR)
        return None
    wanted = (json.dumps(settings.to_json(), indent=1) + "\n").encode()
    text = json.dumps(settings.to_json(), separators=(",", ":")).encode()
    said = bytes(row["settings"][0]) if row is not None else b""
    if said and said != text:
        if int(row["settings_mtime_ns"][0]) == mtime:
            values = {"expected": said.decode("latin-1"), "found": text.decode()}
            what = "it is not what the store's registry was made from: a flipped bit in one of them"
            out.error("settings", path, what, offset=0, way_out=REPAIR, **values)
        else:
            out.note("settings", path, "it was changed since the store's registry was made", offset=0)
    elif data != wanted:
        out.note("settings", path, "it is not as Deepwater writes it: edited?", offset=_differs(data, wanted))
    return settings


# --- the chain of chunks ---------------------------------------------------------------------------------


def _check_chain(out: Findings, directory: Directory, facts: FeedFacts) -> None:
    chunks = facts.chunks
    _check_missing(out, directory, facts)
    for chunk, following in neighbours(chunks):
        if chunk.sealed and following.active and following.base != chunk.end:
            values = {"expected": str(chunk.end), "found": str(following.base)}
            out.error("position", following.path, "its first position is not the end of the chunk before", offset=512,
                      way_out=REPAIR, first=following.base, stop=following.end, **values)  # fmt: skip
        later = following.active and following.count and following.durable == following.word
        if chunk.sealed and later and chunk.count and chunk.durable != chunk.word:
            out.warning("durable-order", chunk.path, "the chunk after it is called durable, and it is not",
                        offset=8 * fmt.DURABLE, way_out=REPAIR)  # fmt: skip
    for chunk in chunks:
        if chunk.identity is not None and chunk.oldest > min(facts.oldest.chunk_id, chunk.id):
            values = {"expected": f"at most {facts.oldest.chunk_id}", "found": str(chunk.oldest)}
            out.error("oldest-word", chunk.path, "it says that retention let go of more than it did",
                      offset=8 * fmt.OLDEST, way_out=REPAIR, **values)  # fmt: skip
    last = next((chunk for chunk in reversed(chunks) if chunk.identity is not None and chunk.active), None)
    visible = facts.visible
    if last is not None and last.sealed and not directory.exists(chunk_name(last.id + 1)):
        out.error("no-successor", last.path, "it is sealed, and the chunk after it is not there", way_out=REPAIR,
                  first=last.end, stop=last.end)  # fmt: skip
    facts.end = visible[-1].end if visible else 0
    for chunk in chunks:
        if chunk.identity is None or not visible or chunk.id <= visible[-1].id:
            continue
        _check_beyond(out, facts, chunk, visible[-1])
    if visible and not visible[-1].sealed:
        _check_active(out, facts, visible[-1])
    if not facts.has_writer:
        return
    ahead = (visible[-1].id if visible else 0) - MOST_BEHIND - 2
    late = {chunk.id for chunk in chunks if chunk.id >= ahead}
    names = {directory.name_of(sums_name(k)) for k in late}
    behind = ("no-checksums", "checksums-incomplete")
    out.found[:] = [f for f in out.found if f.code not in behind or f.path not in names]


def _check_missing(out: Findings, directory: Directory, facts: FeedFacts) -> None:
    """Chunks between others, or before all of them, that are not there; and where the first begins."""
    have, oldest = {chunk.id for chunk in facts.chunks}, facts.oldest
    usable = {chunk.id: chunk for chunk in facts.chunks if chunk.identity is not None and chunk.active}
    begin = usable.get(oldest.chunk_id)
    if begin is not None and begin.base != oldest.position:
        values = {"expected": str(oldest.position), "found": str(begin.base)}
        out.error("position", begin.path, "the feed does not begin there", offset=512, way_out=REPAIR,
                  first=begin.base, stop=begin.end, **values)  # fmt: skip
    last = max(max(have, default=0), oldest.chunk_id if oldest != ALL else 0)
    for chunk_id in _missing(oldest.chunk_id, sorted(have), last):
        before, after = usable.get(chunk_id - 1), usable.get(chunk_id + 1)
        first = before.end if before else oldest.position
        stop = after.base if after else first
        if not directory.exists(chunk_name(chunk_id)):
            out.error("missing", directory.name_of(chunk_name(chunk_id)), f"chunk {chunk_id} is missing",
                      way_out=f"{RESTORE}, or {REPAIR}", first=first, stop=stop)  # fmt: skip


def _missing(first: int, have: list[int], last: int) -> list[int]:
    """The chunks of ``first … last`` that are not there; of each run the first `MOST_MISSING` (a name says any id)."""
    out: list[int] = []
    for chunk_id in [*(k for k in have if k >= first), last + 1]:
        out += range(first, min(chunk_id, first + MOST_MISSING))
        first = chunk_id + 1
    return out


def _check_beyond(out: Findings, facts: FeedFacts, chunk: ChunkFacts, end: ChunkFacts) -> None:
    """A chunk after the first that is not sealed: prepared, or of a write that was not finished."""
    if facts.has_writer:
        return
    if chunk.active and (chunk.word or chunk.id > end.id + 1):
        out.note("unfinished", chunk.path, "of a write that was not finished; the next writer removes it")
    elif not chunk.active:
        out.note("spare", chunk.path, "prepared and not used; the next writer removes it")


def _check_active(out: Findings, facts: FeedFacts, chunk: ChunkFacts) -> None:
    """The chunk that is appended to."""
    at = 8 * fmt.COMMIT
    where = {"first": chunk.base, "stop": chunk.end, "offset": at, "way_out": REPAIR}
    if chunk.sums_complete or chunk.durable >= fmt.SEALED:
        out.error("not-sealed", chunk.path, "it was sealed and its commit word does not say so", **where)
    if chunk.owner is not None and not chunk.owner.held and chunk.durable != chunk.word:
        out.warning("not-durable", chunk.path, "its writer closed it, and not all of it is known to be on the device",
                    **where)  # fmt: skip
    covered = len(chunk.sums) * chunk.identity.block_records if chunk.sums is not None and chunk.identity else 0
    covered = max([covered, *(count for _, count, _ in chunk.tails)])
    if not facts.has_writer and covered < chunk.count:
        text = "records have no checksum yet; the next writer makes them"
        first, stop = chunk.base + covered, chunk.end
        out.note("not-covered", chunk.path, f"{stop - first} {text}", first=first, stop=stop)


# --- marks -----------------------------------------------------------------------------------------------


def _check_marks(out: Findings, directory: Directory, facts: FeedFacts, feed: Feed) -> None:
    for chunk in facts.visible:
        try:
            file = RawFile(directory, index_name(chunk.id))
        except FileNotFoundError:
            continue
        except (OSError, CorruptFileError) as error:
            out.error("unreadable", directory.name_of(index_name(chunk.id)), _reason(error), way_out=REPAIR)
            continue
        with file:
            check_access(out, file.path, file.info)
            static = static_of(MARK_LAYOUT)
            identity = check_header(out, file, fmt.MARK, feed.ids, chunk.id, static)
            if identity is not None:
                _check_mark_rows(out, file, facts, chunk, identity)


def _check_mark_rows(out: Findings, file: RawFile, facts: FeedFacts, chunk: ChunkFacts, index: fmt.Identity) -> None:
    size, rows = MARK_LAYOUT.record_size, read_rows(out, file, index, MARK_LAYOUT.dtype)
    raw = rows.tobytes()
    good = np.ones(len(rows), bool)
    for k, row in enumerate(rows):
        if out.is_full(file.path):
            break
        problem = _mark_problem(raw[k * size : (k + 1) * size], row, chunk, rows[k - 1] if k and good[k - 1] else None)
        if problem:
            good[k] = False
            inside = chunk.base <= int(row["position"]) <= chunk.end
            first = int(row["position"]) if inside else chunk.base
            out.error("mark", file.path, f"mark {k} {problem}", offset=index.data_offset + k * size, way_out=REPAIR,
                      first=first, stop=first if inside else chunk.end)  # fmt: skip
    late = good & ~is_valid(rows, facts.end)
    if late.any() and not facts.has_writer:
        at = index.data_offset + int(np.argmax(late)) * size
        out.note("mark-beyond", file.path, "marks of records that were not published; they do not count", offset=at)
    _check_beyond_marks(out, file, facts, index.data_offset + len(rows) * size)


def _mark_problem(raw: bytes, row: Any, chunk: ChunkFacts, before: Any) -> str:
    if crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
        return "has a wrong checksum"
    if bytes(row["kind"]) not in KINDS:
        return f"is of no known kind ({bytes(row['kind'])!r})"
    if not chunk.base <= int(row["position"]) <= chunk.end and chunk.sealed:
        return f"stands at position {int(row['position'])}, outside its chunk"
    if before is not None and int(row["position"]) < int(before["position"]):
        return "stands before the mark before it"
    return ""


def _check_beyond_marks(out: Findings, file: RawFile, facts: FeedFacts, at: int) -> None:
    size = MARK_LAYOUT.record_size
    raw = file.read(at, size)
    if len(raw) == size and any(raw) and crc32(raw[:-4]) == int.from_bytes(raw[-4:], "little"):
        out.warning("mark-uncounted", file.path, "a whole mark is not counted: taken back, or a flipped bit in the "
                    "count", offset=at, way_out=REPAIR)  # fmt: skip
    elif (wrong := file.first_not_zero(at, file.size)) is not None and not facts.has_writer:
        out.warning("not-zero", file.path, "bytes after the last mark are not zero", offset=wrong, way_out=REPAIR)


# --- the feed's registry ---------------------------------------------------------------------------------


def _check_registry(out: Findings, directory: Directory, facts: FeedFacts, feed: Feed) -> None:
    sealed = [chunk for chunk in facts.visible if chunk.sealed]
    path = directory.name_of(registry_name(feed.name))
    try:
        file = RawFile(directory, registry_name(feed.name))
    except FileNotFoundError:
        if sealed:
            out.warning("no-registry", path, "the feed's registry is missing: opening is slow", way_out=REPAIR)
        return
    except (OSError, CorruptFileError) as error:
        out.warning("unreadable", path, _reason(error), way_out=REPAIR)
        return
    with file:
        check_access(out, path, file.info)
        layout = row_layout(len(feed.layout.clocks))
        identity = check_header(out, file, fmt.FEED_REGISTRY, feed.ids, 0, static_of(layout))
        if identity is not None and identity.record_size == layout.record_size:
            _check_registry_rows(out, file, facts, feed, identity)


def _check_registry_rows(out: Findings, file: RawFile, facts: FeedFacts, feed: Feed, reg: fmt.Identity) -> None:
    dtype = row_layout(len(feed.layout.clocks)).dtype
    size, rows = dtype.itemsize, read_rows(out, file, reg, dtype)
    checks = row_checks(rows) if len(rows) else np.zeros(0, np.uint64)
    chunks = {chunk.id: chunk for chunk in facts.chunks}
    begins = _begins(rows, checks, facts.oldest.chunk_id)
    for k in range(len(rows)):
        if out.is_full(file.path):
            break
        problem = _row_problem(rows[k : k + 1], int(checks[k]), chunks.get(begins + k), feed, begins + k)
        if problem:
            chunk = chunks.get(begins + k)
            records = {"first": chunk.base, "stop": chunk.end} if chunk is not None and chunk.active else {}
            out.error("registry-row", file.path, f"row {k} {problem}", offset=reg.data_offset + k * size,
                      way_out=REPAIR, **records)  # fmt: skip
    sealed, let_go = sum(chunk.sealed for chunk in facts.visible), max(0, facts.oldest.chunk_id - begins)
    if len(rows) - let_go < sealed and not facts.has_writer:
        have = max(0, len(rows) - let_go)
        text = f"it has {have} rows and {sealed} chunks are sealed: a flipped bit in its count, or the next writer " \
               f"adds them"  # fmt: skip
        out.warning("registry-short", file.path, text, offset=8 * fmt.COMMIT, way_out=REPAIR)
    at = file.first_not_zero(reg.data_offset + len(rows) * size, file.size)
    if at is not None and not facts.has_writer:
        out.warning("not-zero", file.path, "bytes after the last row are not zero", offset=at, way_out=REPAIR)


def _begins(rows: Any, checks: Any, oldest: int) -> int:
    """The chunk of the first row, which retention may have let go since; from the rows that are whole."""
    whole = np.flatnonzero(rows["check"] == checks).tolist()
    firsts = Counter(int(rows["chunk_id"][k]) - k for k in whole)
    begins = firsts.most_common(1)[0][0] if firsts else oldest
    return begins if 1 <= begins <= oldest else oldest


def _row_problem(row: Any, check: int, chunk: ChunkFacts | None, feed: Feed, chunk_id: int) -> str:
    if int(row["check"][0]) != check:
        return "has a wrong check word"
    if int(row["chunk_id"][0]) != chunk_id:
        return f"is of chunk {int(row['chunk_id'][0])}, expected {chunk_id}"
    if chunk is None or chunk.identity is None or not chunk.active:
        return ""  # said of the chunk
    if not chunk.sealed:
        return "says its chunk is sealed, and the chunk does not"
    if chunk.seal is None:
        return ""
    wanted = make_row(feed.layout, chunk.id, chunk.identity.capacity, chunk.identity.created_us, chunk.seal)
    return "" if row.tobytes() == wanted.tobytes() else "says other than the seal of its chunk"


# --- names -----------------------------------------------------------------------------------------------


def _check_names(out: Findings, directory: Directory, facts: FeedFacts, names: list[str]) -> None:
    known = {LAYOUT, SETTINGS, OLDEST, registry_name(out.feed or "")}
    ids = {chunk.id for chunk in facts.chunks}
    for name in names:
        path, match = directory.name_of(name), _SIDE.fullmatch(name)
        if match and name[6 : 6 + len(match[1])] == f"{int(match[1]):08d}":
            if int(match[1]) < facts.oldest.chunk_id:
                out.note("leftover", path, "retention let it go and was killed; the next prune removes it")
            elif int(match[1]) not in ids and not facts.has_writer and directory.exists(name):
                say = out.error if name.endswith(".idx") else out.warning
                say("orphan", path, "its chunk is not there", way_out=REPAIR)
        elif name.startswith(TEMPORARY):
            if not facts.has_writer:
                out.note("temporary", path, "left by a process that was killed; the next writer removes it")
        elif name not in known:
            out.warning("unknown", path, "none of the feed's files has that name", way_out="move it elsewhere")
