"""Checks of one chunk's header, its words and its checksum file; nothing of its records.

What is found about a chunk is kept as `ChunkFacts`, which the checks between chunks (`deepwater.check_feed`), of the
records (`deepwater.check_records`) and the repair (`deepwater.repair`) go on from.

A flipped bit that is not seen: in a durable word that is smaller than the commit word, one that makes another
smaller number, or takes its SEALED bit (it only says that less is known to be on the device); in the oldest word, one
that makes another chunk's id that retention may have stored there; in `computed_us` of a
checksum (nothing depends on it), one that makes another time of the file's life.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.checksums import SUM_DTYPE, SUM_LAYOUT, blocks_of, sums_name
from deepwater.chunk import chunk_name, static_of
from deepwater.errors import CorruptFileError
from deepwater.feed_files import Feed
from deepwater.files import Directory
from deepwater.findings import Findings
from deepwater.locks import may_be_alive
from deepwater.rawfile import MOST_READ, OWNER_OFFSET, OWNER_SIZE, REPAIR, RawFile, check_access, check_header
from deepwater.timestamps import now_us

HOUR_US = 3_600_000_000
_ALL_ONES = 0xFFFFFFFF


@dataclass(slots=True, eq=False)
class ChunkFacts:
    """What a chunk's header says, as far as it can be believed.

    Attributes
    ----------
    identity : Identity or None
        None: the file cannot be used.
    base, count : int
        Positions ``base <= position < base + count``; 0 records for a spare.
    word, durable, oldest : int
        The words as they are.
    seal : Seal or None
        None: not sealed, or damaged.
    tails : tuple of (int, int, int)
        ``(offset, count, crc)`` of the tail slots that are whole.
    sums : numpy.ndarray or None
        The checksum of each block, None: not read; `bad_sums` are indexes of those that are damaged themselves.
    sums_complete : bool
    """

    id: int
    path: str
    size: int = 0
    identity: fmt.Identity | None = None
    active: bool = False
    base: int = 0
    word: int = 0
    count: int = 0
    durable: int = 0
    oldest: int = 0
    seal: fmt.Seal | None = None
    owner: fmt.Owner | None = None
    tails: tuple[tuple[int, int, int], ...] = ()
    sums: npt.NDArray[np.uint32] | None = None
    bad_sums: tuple[int, ...] = ()
    sums_complete: bool = False

    @property
    def sealed(self) -> bool:
        """Whether its commit word says SEALED."""
        return self.word >= fmt.SEALED

    @property
    def end(self) -> int:
        """The position after its last record."""
        return self.base + self.count

    @property
    def has_writer(self) -> bool:
        """Whether the process that holds it may be alive."""
        return self.owner is not None and self.owner.held and may_be_alive(self.owner)


def check_chunk(out: Findings, directory: Directory, feed: Feed, chunk_id: int) -> ChunkFacts:
    """Check the header of a chunk and its checksum file.

    Raises
    ------
    FileNotFoundError
        It is not there (any more).
    """
    facts = ChunkFacts(chunk_id, directory.name_of(chunk_name(chunk_id)))
    try:
        file = RawFile(directory, chunk_name(chunk_id))
    except FileNotFoundError:
        raise
    except (OSError, CorruptFileError) as error:
        out.error("unreadable", facts.path, _why(error), way_out="make it a readable file of the store's owner")
        return facts
    with file:
        facts.size = file.size
        check_access(out, file.path, file.info)
        _check_words(out, file, facts, feed)
    if facts.identity is not None and facts.active:
        _check_sums(out, directory, facts, feed)
    return facts


def _why(error: Exception) -> str:
    return str(error.parts["reason"]) if isinstance(error, CorruptFileError) else str(getattr(error, "strerror", error))


def _check_words(out: Findings, file: RawFile, facts: ChunkFacts, feed: Feed) -> None:
    identity = check_header(out, file, fmt.CHUNK, feed.ids, facts.id, static_of(feed.layout))
    if identity is not None and identity.block_records * identity.record_size > MOST_READ:
        identity = None  # said already: no number of this version
    facts.word = word = file.word(fmt.COMMIT)
    active = fmt.parse_activation(file.read(0, fmt.LIVE_OFFSET).ljust(fmt.LIVE_OFFSET, b"\0"))
    if active is not None:
        facts.active, facts.base = True, active[0]
    if identity is None or identity.record_size != feed.layout.record_size:
        return
    facts.identity = identity
    facts.durable, count = file.word(fmt.DURABLE), word & fmt.COUNT_MASK
    facts.oldest = file.word(fmt.OLDEST)
    facts.count = min(count, identity.capacity)
    if active is None and (word or any(file.read(512, 64))):
        out.error("activation", file.path, "its activation block is damaged", offset=512, way_out=REPAIR)
        return
    if count > identity.capacity:
        values = {"expected": f"at most {identity.capacity}", "found": str(count)}
        out.error("commit", file.path, "it counts more records than it holds", offset=8 * fmt.COMMIT, way_out=REPAIR,
                  first=facts.base, stop=facts.end, **values)  # fmt: skip
    _check_seal(out, file, facts, identity)
    _check_durable(out, file, facts)
    _check_owner(out, file, facts)
    _check_tails(out, file, facts)
    if facts.seal is not None and facts.sealed:
        _check_sealed_words(out, file, facts, facts.seal)
    end = identity.data_offset + identity.capacity * identity.record_size
    at = file.first_not_zero(end, min(file.size, identity.file_size))
    if at is not None:
        out.error("not-zero", file.path, "bytes after the last record must be zero", offset=at, way_out=REPAIR)


def _check_seal(out: Findings, file: RawFile, facts: ChunkFacts, identity: fmt.Identity) -> None:
    raw = file.read(identity.seal_offset, identity.seal_size)
    where = {"offset": identity.seal_offset, "first": facts.base, "stop": facts.end, "way_out": REPAIR}
    try:
        facts.seal = fmt.parse_seal(raw, identity.clock_count, file.path) if len(raw) == identity.seal_size else None
    except CorruptFileError:
        facts.seal = None
    if facts.sealed and facts.seal is None:
        out.error("seal", file.path, "the chunk is sealed and its seal is damaged", **where)
    elif facts.sealed and facts.seal is not None:
        said = (facts.seal.records, facts.seal.base_position)
        if said != (facts.word & fmt.COUNT_MASK, facts.base):
            values = {"expected": f"{said[0]} records from position {said[1]}",
                      "found": f"{facts.word & fmt.COUNT_MASK} from {facts.base}"}  # fmt: skip
            where["offset"] = 8 * fmt.COMMIT
            out.error("seal-differs", file.path, "its commit word says other than its seal", **where, **values)


def _check_durable(out: Findings, file: RawFile, facts: ChunkFacts) -> None:
    durable, word = facts.durable, file.word(fmt.COMMIT)
    wrong = durable & fmt.COUNT_MASK > word & fmt.COUNT_MASK or (durable >= fmt.SEALED and durable != word)
    if wrong:
        values = {"expected": f"at most {_counted(word)}", "found": _counted(durable)}
        out.error("durable", file.path, "more records are called durable than there are", offset=8 * fmt.DURABLE,
                  way_out=REPAIR, first=facts.base, stop=facts.end, **values)  # fmt: skip


def _counted(word: int) -> str:
    return f"{word & fmt.COUNT_MASK}{', sealed' if word >= fmt.SEALED else ''}"


def _check_owner(out: Findings, file: RawFile, facts: ChunkFacts) -> None:
    facts.owner = fmt.parse_owner(file.read(0, 2 * fmt.LIVE_PAGE))
    if facts.owner is None and any(file.read(OWNER_OFFSET, OWNER_SIZE)):
        out.error("owner", file.path, "the lines that say who wrote it are damaged", offset=OWNER_OFFSET,
                  way_out=REPAIR)  # fmt: skip


def _check_tails(out: Findings, file: RawFile, facts: ChunkFacts) -> None:
    whole = []
    for offset in fmt.TAIL_OFFSETS:
        data = file.read(offset, fmt.TAIL_SIZE)
        if not any(data):
            continue
        slot = fmt.parse_tail(data)
        if slot is None or data != fmt.pack_tail(*slot) or slot[0] > file.word(fmt.COMMIT) & fmt.COUNT_MASK:
            text = "a checksum of the newest records is damaged itself"
            out.warning("tail-slot", file.path, text, offset=offset, way_out=REPAIR)
        else:
            whole.append((offset, *slot))
    facts.tails = tuple(whole)


def _check_sealed_words(out: Findings, file: RawFile, facts: ChunkFacts, seal: fmt.Seal) -> None:
    """The live words of a sealed chunk say what its seal says."""
    beat = file.word(fmt.HEARTBEAT)
    if beat != seal.sealed_us:
        values = {"expected": str(seal.sealed_us), "found": str(beat)}
        out.error("heartbeat", file.path, "its last write is not when it was sealed", offset=8 * fmt.HEARTBEAT,
                  way_out=REPAIR, **values)  # fmt: skip
    for clock, bounds in enumerate(seal.clocks):
        at = fmt.CLOCKS + fmt.CLOCK_WORDS * clock
        found = tuple(file.word(at + k) for k in (fmt.UNSORTED, fmt.MIN, fmt.MAX))
        wanted = (1, bounds.low, bounds.high) if bounds.unsorted else (0, 0, 0)
        if found != wanted:
            values = {"expected": str(wanted), "found": str(found)}
            say = out.error if found[0] or wanted[0] else out.warning  # a kill between two stores leaves the latter
            say("clock-words", file.path, f"its words for clock {clock} are not its seal's", offset=8 * at,
                way_out=REPAIR, **values)  # fmt: skip


# --- the checksum file -----------------------------------------------------------------------------------


def _check_sums(out: Findings, directory: Directory, facts: ChunkFacts, feed: Feed) -> None:
    name = sums_name(facts.id)
    try:
        file = RawFile(directory, name)
    except FileNotFoundError:
        if facts.sealed and facts.count:
            out.warning("no-checksums", directory.name_of(name), "a sealed chunk has no checksums", way_out=REPAIR,
                        first=facts.base, stop=facts.end)  # fmt: skip
        return
    except (OSError, CorruptFileError) as error:
        out.error("unreadable", directory.name_of(name), _why(error), way_out=REPAIR)
        return
    with file:
        check_access(out, file.path, file.info)
        identity = check_header(out, file, fmt.CHECKSUMS, feed.ids, facts.id, static_of(SUM_LAYOUT))
        if identity is not None and identity.record_size == SUM_DTYPE.itemsize:
            _check_entries(out, file, facts, identity)


def _check_entries(out: Findings, file: RawFile, facts: ChunkFacts, sums: fmt.Identity) -> None:
    identity = facts.identity
    assert identity is not None
    word, block = file.word(fmt.COMMIT), identity.block_records
    stored, wanted = word & fmt.COUNT_MASK, blocks_of(facts.count, block)
    facts.sums_complete = word >= fmt.SEALED
    rows_fit = (file.size - sums.data_offset) // SUM_DTYPE.itemsize
    end = {"first": facts.base, "stop": facts.end}
    if facts.sums_complete and (stored != wanted or not facts.sealed):
        values = {"expected": str(wanted), "found": str(stored)}
        out.error("checksum-count", file.path, "it is complete, with another number of blocks than its chunk",
                  offset=8 * fmt.COMMIT, way_out=REPAIR, **end, **values)  # fmt: skip
    elif not facts.sums_complete and stored > min(rows_fit, facts.count // block):
        values = {"expected": f"at most {facts.count // block}", "found": str(stored)}
        out.error("checksum-count", file.path, "it has checksums of blocks that are not there",
                  offset=8 * fmt.COMMIT, way_out=REPAIR, **end, **values)  # fmt: skip
    elif facts.sealed and not facts.sums_complete:
        first = facts.base + stored * block
        out.warning("checksums-incomplete", file.path, "a sealed chunk has checksums of its beginning only",
                    offset=8 * fmt.COMMIT, way_out=REPAIR, first=first, stop=facts.end)  # fmt: skip
    used = min(stored, wanted, rows_fit)
    raw = file.read(sums.data_offset, used * SUM_DTYPE.itemsize)
    rows = np.frombuffer(raw[: len(raw) // SUM_DTYPE.itemsize * SUM_DTYPE.itemsize], SUM_DTYPE)
    facts.sums = rows["crc"]
    bad = np.flatnonzero((rows["crc"] ^ rows["inverse"]) != _ALL_ONES)
    facts.bad_sums = tuple(bad.tolist())
    early, late = identity.created_us - HOUR_US, now_us() + HOUR_US
    odd = np.flatnonzero((rows["computed_us"] < np.uint64(max(0, early))) | (rows["computed_us"] > np.uint64(late)))
    for row in bad.tolist():
        first = facts.base + row * block
        out.error("checksum-entry", file.path, f"the checksum of block {row} is damaged, not the records",
                  offset=sums.data_offset + row * SUM_DTYPE.itemsize, way_out=REPAIR, first=first,
                  stop=min(facts.end, first + block))  # fmt: skip
    for row in odd.tolist():
        out.warning("checksum-time", file.path, f"the checksum of block {row} was made at an impossible time",
                    offset=sums.data_offset + row * SUM_DTYPE.itemsize, way_out=REPAIR)  # fmt: skip
    at = file.first_not_zero(sums.data_offset + stored * SUM_DTYPE.itemsize, file.size)
    if at is not None and facts.sums_complete:
        out.error("not-zero", file.path, "bytes after the last checksum must be zero", offset=at, way_out=REPAIR)


def neighbours(chunks: list[ChunkFacts]) -> list[tuple[ChunkFacts, ChunkFacts]]:
    """Usable chunks that follow each other by id."""
    return [(a, b) for a, b in pairwise(chunks) if a.id + 1 == b.id and a.identity and b.identity and a.active]
