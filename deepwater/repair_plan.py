"""What is to be done to a damaged feed: `plan_feed`, from what `deepwater.check` found. Nothing here changes a file.

A feed is one run of positions, so what cannot be had is lost in one of three ways:

* at its beginning: the feed begins later, as after retention (``oldest.json``);
* at its end: it is cut after the last record that is proven; the next records get these positions;
* in between: *placeholders* stand in, records of zeros with the clocks of the record before, so that every other
  record keeps its position (followers, snapshots and marks hold positions).

Each loss is a mark of kind ``dropped`` and is said. What a header says is believed where a checksum covers it
(activation, seal, the registry's row); where two of them differ the neighbours decide.

Rejected: *closing the hole* (each later record would get another position, in every later chunk, mark and cursor);
*keeping the bytes of a block whose checksum is wrong* (they look like prices); *a chunk that says it is a hole* (each
reader, window and search would have to step over it for what happens once in a disk's life).

More than 400 lines because one plan weighs all that is known of a feed's chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from deepwater import format as fmt
from deepwater.check_chunk import ChunkFacts
from deepwater.check_feed import FeedFacts
from deepwater.check_records import RecordFacts
from deepwater.checksums import sums_name
from deepwater.chunk import FIRST_CHUNK_BYTES, chunk_name, static_of
from deepwater.evidence import block_records, covered, has_sums, kind_of, load_sums, whole_marks
from deepwater.feed_files import LAYOUT, SETTINGS, Feed
from deepwater.feed_registry import registry_name
from deepwater.files import Directory
from deepwater.findings import ERROR, WARNING, Finding
from deepwater.index import DROPPED, SNAPSHOT, UNKNOWN, index_name, pack_mark
from deepwater.oldest import ALL, OLDEST, Oldest
from deepwater.rawfile import RawFile
from deepwater.rewrite import ChunkPlan
from deepwater.timestamps import now_us

_OTHERS = ("permissions", "unknown", "hard-links")
_FOREIGN = ("kind", "foreign", "wrong-id", "unreadable")
_MOST_BYTES, _MOST_MISSING = 1 << 40, 100_000


@dataclass(slots=True)
class FeedPlan:
    """What a repair of a feed is to do, in this order.

    Attributes
    ----------
    feed : Feed
    problem : str
        Why nothing can be done; empty if something can.
    texts : list of (str, str)
        Text files to be written anew, and what is wrong with them.
    aside : list of (str, str)
        Names that are no part of the feed, to be moved away, and why.
    oldest : Oldest or None
        Where it is to begin; None: as it does.
    chunks : list of ChunkPlan
        All of them, by id; those with a `why` are written anew.
    marks : dict
        The marks of the chunks whose marks are to be written anew.
    sums : list of int
        Chunks whose checksums are to be made anew.
    registry : str
        What is wrong with the feed's registry; empty if nothing is.
    lost : list of (int, int, str)
        Positions ``first <= position < stop`` of records that are lost, and what becomes of them.
    """

    feed: Feed | None = None
    problem: str = ""
    texts: list[tuple[str, str]] = field(default_factory=list)
    aside: list[tuple[str, str]] = field(default_factory=list)
    oldest: Oldest | None = None
    chunks: list[ChunkPlan] = field(default_factory=list)
    marks: dict[int, list[bytes]] = field(default_factory=dict)
    sums: list[int] = field(default_factory=list)
    registry: str = ""
    lost: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        todo = (self.problem, self.texts, self.aside, self.oldest, self.marks, self.sums, self.registry, self.lost)
        return not any(todo) and not any(chunk.why for chunk in self.chunks)


def plan_feed(
    directory: Directory, facts: FeedFacts, found: Sequence[Finding], records: dict[int, RecordFacts], rows: Any
) -> FeedPlan:
    """Plan the repair of a feed.

    Parameters
    ----------
    found : sequence of Finding
        All that was found about it.
    records : dict
        What was found of the records of its chunks.
    rows : numpy.ndarray
        The valid rows of its registry.
    """
    wrong: dict[str, list[Finding]] = {}
    for finding in found:
        if finding.severity in (ERROR, WARNING) and finding.code not in _OTHERS:
            wrong.setdefault(finding.path.rpartition("/")[2], []).append(finding)
    plan = FeedPlan(facts.feed)
    plan.texts = [(name, _what(wrong[name])) for name in (LAYOUT, SETTINGS) if name in wrong]
    if facts.feed is None:
        plan.problem = "nothing says what its records are: restore layout.json from a copy"
        return plan
    if facts.feed.settings.persist and wrong:  # of a sound feed a live writer may have changed what was looked at
        _Chunks(directory, facts, records, wrong, rows, plan).plan()
    if registry_name(facts.feed.name) in wrong:
        plan.registry = _what(wrong[registry_name(facts.feed.name)])
    return plan


def _what(findings: list[Finding]) -> str:
    return "; ".join(dict.fromkeys(finding.what for finding in findings))


class _Chunks:
    """The part of a plan that is about chunks and what stands beside them."""

    def __init__(
        self, directory: Directory, facts: FeedFacts, records: dict[int, RecordFacts],
        wrong: dict[str, list[Finding]], rows: Any, plan: FeedPlan,
    ) -> None:  # fmt: skip
        assert facts.feed is not None
        self._directory, self._facts, self._records, self._wrong, self._out = directory, facts, records, wrong, plan
        self._feed = facts.feed
        self._size = self._feed.layout.record_size
        self._rows = {int(row["chunk_id"]): row for row in rows}
        self._dropped: dict[int, list[bytes]] = {}
        self._uncounted: set[int] = set()
        self._chunks = {chunk.id: chunk for chunk in facts.chunks if not self._is_foreign(chunk)}

    def plan(self) -> None:
        """Do it."""
        for facts in self._chunks.values():
            if facts.sums is None or chunk_name(facts.id) in self._wrong:  # read as far as its header said
                load_sums(self._directory, facts, self._feed)
        ids, begin = self._span()
        for name in self._wrong:
            self._put_aside(name, ids)
        if not ids:
            if OLDEST in self._wrong:
                self._out.problem = "its chunks are gone, and nothing says where it began: restore it from a copy"
            return
        if len(ids) > len(self._chunks) + _MOST_MISSING:
            self._out.problem = f"chunk {ids[-1]} is there, and chunks before it are not: move away what is another's"
            return
        self._lay_out(ids, begin)
        if self._out.problem:
            return
        for chunk in self._out.chunks:
            self._find_lost(chunk)
        while len(self._out.chunks) > 1 and 0 < self._out.chunks[0].count == self._out.chunks[0].lost_records:
            self._let_go(self._out.chunks.pop(0), self._out.chunks[0])
        for chunk in self._out.chunks:
            self._doubt(chunk)
        self._close(self._out.chunks[-1])
        gone = self._gone()
        for chunk in self._out.chunks:
            self._say_why(chunk)
            self._plan_marks(chunk, gone)
            if chunk.why or sums_name(chunk.id) in self._wrong:
                self._out.sums.append(chunk.id)

    # --- what is there ---------------------------------------------------------------------------------

    def _is_foreign(self, chunk: ChunkFacts) -> bool:
        return any(finding.code in _FOREIGN for finding in self._wrong.get(chunk_name(chunk.id), ()))

    def _put_aside(self, name: str, ids: range) -> None:
        """Chunks that are another's, and marks and checksums of chunks that are none of the feed's."""
        codes = {finding.code for finding in self._wrong[name]}
        is_foreign = name.endswith(".bin") and codes & set(_FOREIGN)
        if is_foreign or ("orphan" in codes and self._chunk_of(name) not in ids):
            self._out.aside.append((name, _what(self._wrong[name])))

    @staticmethod
    def _chunk_of(name: str) -> int:
        return int(name.partition("_")[2].partition(".")[0])

    def _span(self) -> tuple[range, Oldest]:
        """The chunks from the first that is there to the last that was part of the feed; where the first begins."""
        usable = [k for k in sorted(self._chunks) if self._was_used(k)]
        if not usable:
            return range(0), ALL
        first, last = usable[0], self._last(usable)
        oldest = self._facts.oldest
        if first == oldest.chunk_id and OLDEST not in self._wrong:
            return range(first, last + 1), oldest
        position = self._base(first)
        if position is None:  # its header is gone: from what follows it
            following = next((k for k in usable[1:] if self._base(k) is not None), None)
            count = self._count(first)
            position = (self._base(following) or 0) - (count or 0) if following == first + 1 else oldest.position
        let_go = [int(row["max"][0]) for k, row in self._rows.items() if k < first and int(row["count"])]
        begin = Oldest(first, position, max([oldest.until_us, *let_go]))
        if begin != oldest or OLDEST in self._wrong:
            self._out.oldest = begin
        if position > oldest.position and first > oldest.chunk_id:
            self._out.lost.append((oldest.position, position, "the feed begins after them"))
        return range(first, last + 1), begin

    def _was_used(self, chunk_id: int) -> bool:
        """Whether a chunk ever was more than a spare."""
        chunk = self._chunks[chunk_id]
        return chunk.active or bool(chunk.word) or chunk.seal is not None or has_sums(chunk) or chunk_id in self._rows

    def _last(self, usable: list[int]) -> int:
        """The chunk that is appended to: the first after which nothing is known to have been published."""
        for chunk_id in usable:
            if not self._was_sealed(chunk_id):
                return chunk_id
        return usable[-1]

    def _was_sealed(self, chunk_id: int) -> bool:
        """Whether it was sealed: its word may have lost the bit, or have got one."""
        chunk = self._chunks[chunk_id]
        if chunk.seal is not None and chunk.sealed:
            return True
        later = [self._chunks[k] for k in self._chunks if k > chunk_id]
        proof = chunk_id in self._rows or any(each.durable or each.tails or has_sums(each) for each in later)
        return proof or (chunk.seal is not None and (chunk.sums_complete or chunk.durable >= fmt.SEALED))

    def _base(self, chunk_id: int) -> int | None:
        """The first position, from what a checksum covers."""
        chunk = self._chunks.get(chunk_id)
        if chunk is not None and chunk.active:
            return chunk.base
        if chunk is not None and chunk.seal is not None:
            return chunk.seal.base_position
        return int(self._rows[chunk_id]["base"]) if chunk_id in self._rows else None

    def _count(self, chunk_id: int) -> int | None:
        """How many records; None if only the neighbours know."""
        chunk = self._chunks.get(chunk_id)
        if chunk is not None and chunk.seal is not None and (chunk.sealed or chunk_id in self._rows):
            return chunk.seal.records
        if chunk_id in self._rows:
            return int(self._rows[chunk_id]["count"])
        return None

    # --- where each begins and ends -----------------------------------------------------------------------

    def _lay_out(self, ids: range, begin: Oldest) -> None:
        """Give each chunk its positions, so that each begins where the one before ends."""
        at = begin.position
        bases = []
        for chunk_id in ids:
            known = self._base(chunk_id)
            if known is not None and known < at:
                self._out.problem = (
                    f"chunk {chunk_id} begins at position {known}, and chunk {chunk_id - 1} ends at {at}: one of them "
                    f"is another's; restore one from a copy, or move it away"
                )  # fmt: skip
                return
            at = known if known is not None else at
            bases.append(at)
            at += self._room(chunk_id, ids, at)
        for k, chunk_id in enumerate(ids):
            is_last = k + 1 == len(bases)
            count = self._end_of_last(chunk_id) if is_last else bases[k + 1] - bases[k]
            sealed = not is_last or self._was_sealed(chunk_id)
            self._out.chunks.append(self._chunk_plan(chunk_id, bases[k], count, sealed))

    def _room(self, chunk_id: int, ids: range, at: int) -> int:
        """Records of a chunk, as far as it knows; else as many as fit below the next one that says where it begins."""
        count = self._count(chunk_id)
        if count is not None:
            return count
        following = next((base for k in ids if k > chunk_id and (base := self._base(k)) is not None), at)
        chunk = self._chunks.get(chunk_id)
        return min(max(0, following - at), self._capacity(chunk) if chunk is not None else following - at)

    def _end_of_last(self, chunk_id: int) -> int:
        chunk = self._chunks[chunk_id]
        count = self._count(chunk_id)
        if count is not None and self._was_sealed(chunk_id):
            return count
        said = {finding.code for finding in self._wrong.get(chunk_name(chunk_id), ())}
        count = chunk.word & fmt.COUNT_MASK
        if said & {"clock-words", "not-durable", "commit"} and (end := self._before_zeros(chunk, count)) < count:
            return end
        if count <= self._capacity(chunk) and not said & {"durable", "header", "static", "commit", "tail-slot"}:
            return count
        proven = covered(self._directory, chunk, self._size, self._offset(chunk))
        if proven <= count <= self._capacity(chunk) and (count or chunk.size > self._offset(chunk)):
            return count
        if proven % block_records(chunk, self._size) == 0 and self._is_written(chunk, proven):
            self._uncounted.add(chunk_id)  # no tail slot says where they end
        return proven

    def _before_zeros(self, chunk: ChunkFacts, count: int) -> int:
        """Where proven records end if nothing but zeros follows: then the word counts what was never written."""
        proven, offset = covered(self._directory, chunk, self._size, self._offset(chunk)), self._offset(chunk)
        stop = offset + min(count, self._capacity(chunk)) * self._size
        with RawFile(self._directory, chunk_name(chunk.id)) as file:
            return count if file.first_not_zero(offset + proven * self._size, stop) is not None else proven

    def _is_written(self, chunk: ChunkFacts, row: int) -> bool:
        """Whether there is something where a record would be, or the file was cut before the first."""
        if chunk.size <= self._offset(chunk):
            return True
        with RawFile(self._directory, chunk_name(chunk.id)) as file:
            return any(file.read(self._offset(chunk) + row * self._size, self._size))

    def _capacity(self, chunk: ChunkFacts) -> int:
        if chunk.identity is not None:
            return chunk.identity.capacity
        if chunk.id in self._rows:
            return int(self._rows[chunk.id]["capacity"])
        return max(1, (chunk.size - self._offset(chunk)) // self._size)

    def _offset(self, chunk: ChunkFacts) -> int:
        if chunk.identity is not None:
            return chunk.identity.data_offset
        plan = fmt.plan(fmt.CHUNK, self._feed.ids, chunk.id, static_of(self._feed.layout), self._size, 1, 0)
        return plan.data_offset

    def _chunk_plan(self, chunk_id: int, base: int, count: int, sealed: bool) -> ChunkPlan:
        chunk, row = self._chunks.get(chunk_id), self._rows.get(chunk_id)
        created = chunk.identity.created_us if chunk is not None and chunk.identity is not None else None
        if created is None:
            created = int(row["created_us"]) if row is not None else self._feed.created_us
        capacity = self._capacity(chunk) if chunk is not None else int(row["capacity"]) if row is not None else count
        if count * self._size > _MOST_BYTES:
            self._out.problem = f"chunk {chunk_id} would have {count:,} records: more than can be"
        offset = self._offset(chunk) if chunk is not None else None
        return ChunkPlan(chunk_id, base, count, sealed, max(1, capacity), created, created, data_offset=offset)

    # --- what is lost ----------------------------------------------------------------------------------

    def _find_lost(self, chunk: ChunkPlan) -> None:
        facts = self._chunks.get(chunk.id)
        if facts is None:
            chunk.lost = [(0, chunk.count)] if chunk.count else []
            return
        found, block = self._records.get(chunk.id), block_records(facts, self._size)
        bad = set(found.bad if found is not None and facts.count == chunk.count else self._bad_blocks(facts, chunk))
        there = max(0, facts.size - self._offset(facts)) // self._size
        is_older = facts.identity is not None and facts.seal is None and not facts.sealed  # a copy from before its end
        proven = covered(self._directory, facts, self._size, self._offset(facts)) if is_older else 0
        here = min(chunk.count, there, max(proven, facts.count if is_older else 0) or chunk.count)
        spans = [(max(proven, k * block), min(here, (k + 1) * block)) for k in sorted(bad)]
        if here < chunk.count:
            spans.append((here, chunk.count))
        chunk.lost = _joined(spans)

    def _bad_blocks(self, facts: ChunkFacts, chunk: ChunkPlan) -> list[int]:
        """Blocks with wrong checksums of a chunk whose own header does not say how many records it has."""
        if facts.sums is None:
            return []
        bad, block = [], block_records(facts, self._size)
        with RawFile(self._directory, chunk_name(facts.id)) as file:
            for index in range(len(facts.sums)):
                first, stop = index * block, min(chunk.count, (index + 1) * block)
                whole = stop == (index + 1) * block or facts.sums_complete
                data = file.read(self._offset(facts) + first * self._size, max(0, stop - first) * self._size)
                if whole and first < stop and index not in facts.bad_sums and crc32(data) != int(facts.sums[index]):
                    bad.append(index)
        return bad

    def _doubt(self, chunk: ChunkPlan) -> None:
        """Say of a chunk without checksums whose seal tells of other records that some of them are wrong."""
        codes = {finding.code for finding in self._wrong.get(chunk_name(chunk.id), ())}
        facts = self._chunks.get(chunk.id)
        if "seal-clocks" in codes and facts is not None and not facts.sums_complete:
            self._out.lost.append((chunk.base, chunk.end, "some of them are wrong, and nothing says which"))
            reason = f"repaired: up to position {chunk.end - 1} some are wrong"
            self._mark(chunk.id, pack_mark(chunk.base, now_us(), UNKNOWN, DROPPED, reason=reason))

    def _let_go(self, chunk: ChunkPlan, following: ChunkPlan) -> None:
        """Have the feed begin after its first chunk, of which nothing is left."""
        row, until = self._rows.get(chunk.id), (self._out.oldest or self._facts.oldest).until_us
        until = max(until, int(row["max"][0]) if row is not None else 0)
        self._out.oldest = Oldest(following.id, following.base, until)
        self._out.lost.append((chunk.base, chunk.end, "the feed begins after them"))
        for name in (chunk_name(chunk.id), index_name(chunk.id), sums_name(chunk.id)):
            if self._directory.exists(name) and name not in dict(self._out.aside):
                self._out.aside.append((name, "nothing is left of its chunk, the first"))

    def _close(self, last: ChunkPlan) -> None:
        """Cut what is appended to before its first bad block; give a sealed one a successor."""
        beyond = sum(int(row["count"]) for k, row in self._rows.items() if k > last.id)
        if not last.sealed and last.id in self._uncounted:
            self._drop(last.id, last.end, UNKNOWN, "nothing says how many there were")
            last.why = "nothing says how many records it had"
        if not last.sealed and last.lost:
            end = last.base + last.lost[0][0]
            self._drop(last.id, end, last.end - end, "they are cut off")
            last.count, last.lost, last.why = end - last.base, [], "it is cut before the first block that is not whole"
        elif last.sealed:
            size = min(self._feed.settings.chunk_size_bytes, FIRST_CHUNK_BYTES) // self._size
            now = now_us()
            new = ChunkPlan(last.id + 1, last.end, 0, False, max(1, size), now, now, why="it is missing")
            self._out.chunks.append(new)
            self._drop(new.id, last.end, beyond or UNKNOWN, "they are cut off")
        for chunk in self._out.chunks:
            for first, stop in chunk.lost:
                self._replace(chunk, chunk.base + first, chunk.base + stop)

    def _replace(self, chunk: ChunkPlan, first: int, stop: int) -> None:
        """Mark both ends of a run of placeholders: so they are a span of their own (`deepwater.gaps`)."""
        before, after = self._stamp(first - 1), self._stamp(stop)
        self._out.lost.append((first, stop, "placeholders stand in for them"))
        reason = f"repaired: placeholders up to position {stop - 1}"
        self._mark(chunk.id, pack_mark(first, now_us(), stop - first, DROPPED, before, after, reason))
        self._mark(chunk.id, pack_mark(stop, now_us(), 0, DROPPED, reason="repaired: end of placeholders"))

    def _stamp(self, position: int) -> int:
        """The primary clock of a record that is not lost; 0 if that cannot be had."""
        chunk = next((chunk for chunk in self._out.chunks if chunk.base <= position < chunk.end), None)
        row = position - chunk.base if chunk is not None else 0
        if chunk is None or chunk.data_offset is None or any(a <= row < b for a, b in chunk.lost):
            return 0
        with RawFile(self._directory, chunk_name(chunk.id)) as file:
            data = file.read(chunk.data_offset + row * self._size + self._feed.layout.clock_offsets[0], 8)
        return int.from_bytes(data, "little")

    def _drop(self, chunk_id: int, position: int, count: int, what: str) -> None:
        stop = position + count if count != UNKNOWN else position
        self._out.lost.append((position, stop, what))
        self._mark(chunk_id, pack_mark(position, now_us(), count, DROPPED, reason="repaired: cut off"))

    def _mark(self, chunk_id: int, mark: bytes) -> None:
        self._dropped.setdefault(chunk_id, []).append(mark)

    # --- what is written anew --------------------------------------------------------------------------

    def _say_why(self, chunk: ChunkPlan) -> None:
        facts, name = self._chunks.get(chunk.id), chunk_name(chunk.id)
        if chunk.why:
            return
        if facts is None:
            chunk.why = "it is missing"
        elif name in self._wrong:
            chunk.why = _what(self._wrong[name])
        elif (facts.base, facts.count, facts.sealed) != (chunk.base, chunk.count, chunk.sealed) or not facts.active:
            chunk.why = "it does not continue the chunk before it"

    def _gone(self) -> list[tuple[int, int]]:
        """Positions of what placeholders stand in for, and of all that comes after what was cut off."""
        gone = [(chunk.base + first, chunk.base + stop) for chunk in self._out.chunks for first, stop in chunk.lost]
        last = self._out.chunks[-1]
        return [*gone, (last.end, 2**64)] if last.id in self._dropped or self._was_cut(last) else gone

    def _was_cut(self, last: ChunkPlan) -> bool:
        """Whether a chunk is to have fewer records than its word counts."""
        facts = self._chunks.get(last.id)
        return facts is not None and last.count < facts.count

    def _plan_marks(self, chunk: ChunkPlan, gone: list[tuple[int, int]]) -> None:
        new, name = self._dropped.get(chunk.id, []), index_name(chunk.id)
        is_wrong, touched = bool(new) or name in self._wrong, [span for span in gone if span[1] > chunk.base]
        if is_wrong and not chunk.sealed:
            touched.append((chunk.end, 2**64))
        if not is_wrong and not touched:
            return
        kept, left_out = [], False
        for mark in whole_marks(self._directory, chunk.id):
            first, count = (int.from_bytes(mark[at : at + 8], "little") for at in (0, 16))
            is_whole = kind_of(mark) != SNAPSHOT or not _touches(touched, first, first + max(1, count))
            left_out |= not is_whole
            if is_whole and chunk.base <= first <= chunk.end:
                kept.append(mark)
        if not is_wrong and not left_out:
            return
        had = {mark[:8] for mark in kept if kind_of(mark) == DROPPED}
        self._out.marks[chunk.id] = kept + [mark for mark in new if mark[:8] not in had]


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for first, stop in spans:
        if out and out[-1][1] >= first:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        elif first < stop:
            out.append((first, stop))
    return out


def _touches(gone: list[tuple[int, int]], first: int, stop: int) -> bool:
    """Whether a snapshot has records that are lost, or cut off."""
    return any(first < b and a < stop for a, b in gone)
