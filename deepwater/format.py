"""Every byte of every binary file, in one place.

A feed is a published array of records. Each binary file of Deepwater is the same shape: **a header,
then an array of one NumPy structured dtype, and one commit word stored after the records it
covers**. Chunks, rings, mark indexes, checksums and both registries are six uses of it. This module is the
specification, and the only one that knows an offset; ``segment`` maps what is described here and
``tests/format_reader.py`` reads it in sixty lines with nothing but ``struct`` and ``mmap``.
More than 400 lines because the page and the code that keeps it must not drift apart.

All numbers are little-endian and unsigned. ``u64`` at an offset divisible by 8 is called a *word*.
Times are microseconds since the epoch, UTC. CRC is CRC-32 (zlib, IEEE 802.3).

Files
-----
::

    store.json                        {"format": "1.0", "store_id": "<uuid>"}
    registry.bin                      kind GREG  a row per feed            (cache of the directories)
    data/<feed>/layout.json           ids, the layout; written once
    data/<feed>/settings.json         lifecycle; replaced by rename
    data/<feed>/<feed>.reg            kind FREG  a row per sealed chunk    (cache of the chunk headers)
    data/<feed>/chunk_00000001.bin    kind CHNK  records
    data/<feed>/chunk_00000001.idx    kind MARK  marks; absent when the chunk has none
    data/<feed>/chunk_00000001.crc    kind CSUM  a checksum for each block of records (`deepwater.checksums`)
    data/<feed>/oldest.json           where the feed begins once retention let chunks go (`deepwater.oldest`)
    <shm>/<store>/<feed>-<id>         kind RING  records, overwritten from the oldest (`deepwater.ring`)
    <shm>/<store>/<feed>.wake         a page of words, none of these kinds (`deepwater.wake`)

Whole file
----------
::

    0              identity      512 bytes, written once, under a CRC
    512            activation     64 bytes, written once when the chunk enters the feed, under a CRC
    576            zero           to 4096
    4096           live words    each on a cache line of its own; nothing else shares these pages
    static_offset  static        clock table, struct format, layout JSON; written once, under a CRC
    seal_offset    seal          written once, before the commit word says SEALED, under a CRC
    data_offset    records       capacity x record_size bytes; then zero to the end of the file

``data_offset`` and the file size are multiples of 16384 (whole pages where pages are 4, 8 or 16
KiB), so header and records share no page and no store can fall beyond the end of the file inside
its last page, where it would be lost without an error. Readers MUST take ``data_offset`` from the
header.

Identity (offset 0)
-------------------
====== ==== ===================== ==========================================================
offset size name                  meaning
====== ==== ===================== ==========================================================
0      8    magic                 ``89 44 57 53 45 47 0D 0A`` (a text-mode copy damages it)
8      2    major                 readers MUST refuse another major
10     2    minor                 readers MUST accept a higher minor
12     4    byte_order            0x01020304; read as 0x04030201 on a big-endian mistake
16     4    kind                  ``CHNK RING MARK CSUM FREG GREG``
20     4    required_features     readers MUST refuse an unknown bit (none is defined in 1.0)
24     4    optional_features     readers MAY ignore. bit 0: ``chunk_N.crc`` holds block checksums
28     4    checksum_kind         of the blocks: 0 none, 1 CRC-32 (CHNK)
32     16   store_id              UUID in ``store.json``
48     16   feed_id               UUIDv5(store_id, feed name); zero in GREG
64     16   incarnation           UUID of this life of the feed; zero in GREG
80     8    segment_id            1, 2, 3 … (0 in FREG and GREG)
88     8    created_us
96     8    record_size           bytes, 1 … 65536
104    8    capacity              records in the file when it was created
112    8    block_records         records in a checksum block (about 64 KiB); never part of one
120    8    data_offset
128    8    file_size             bytes when it was created
136    8    live_size             bytes of live words (whole pages from 4096)
144    8    static_offset
152    8    static_size
160    8    seal_offset
168    4    clock_count
172    4    static_crc            CRC of the static bytes
176    16   layout_hash           BLAKE2b-128 of names, types and offsets
192    4    struct_size           bytes of the struct format
196    4    layout_size           bytes of the layout JSON
200    308  zero
508    4    crc                   CRC of bytes 0 … 507
====== ==== ===================== ==========================================================

CHNK and RING files have exactly ``file_size`` bytes. MARK, FREG and GREG files *grow*: they have at
least ``file_size`` bytes, and hold ``(size - data_offset) // record_size`` rows. They are extended
in place by doubling and never shrink, so a mapping made before stays true; a reader whose mapping
is shorter than the commit word says maps again.

Activation (offset 512)
-----------------------
====== ==== ===================== ==========================================================
512    8    base_position         position of the first record
520    8    activated_us          when the chunk became part of the feed
528    40   zero
568    4    state                 ``ACTV``
572    4    crc                   CRC of bytes 512 … 571
====== ==== ===================== ==========================================================

A chunk is prepared before its base is known. Until this block is whole the file is a spare, not
part of the feed. MARK, FREG and GREG files have none.

Live words (offset 4096)
------------------------
====== ==== ===================== ==========================================================
4096   8    commit                ``count | SEALED << 63``
4160   8    durable               records known to be on the device; set after the sync returns, with
                                  ``SEALED << 63`` once that sync took the seal along
4224   8    claim                 RING: count up to which slots may have been overwritten; else 0
4232   8    oldest                CHNK: ``chunk_id`` of ``oldest.json``, stored in the active chunk by retention
                                  once that file is replaced: open readers look at it again
4288   128  owner                 pid 8, start 8 (clock ticks after boot), boot_id 16, inode 8,
                                  device 8, since_us 8, host 64, state 4 (1 held, 0 released),
                                  CRC 4 of the 124 bytes before
4416   8    heartbeat             µs; the writer's last write; of a sealed chunk when it was sealed
4480   24   tail slot A           count 8, crc of the records from the last whole block below count 4, zero 4,
                                  CRC 4 of the 16 bytes before, zero 4
4544   24   tail slot B           the same; written in turn, so that one is always whole
4608   64n  clock n               unsorted 8, min 8, max 8, zero 40; n < clock_count
====== ==== ===================== ==========================================================

Static (static_offset)
----------------------
``clock_count`` entries of 16 bytes: ``field_offset u32, unit u32 (6: 10**-6 s), field_index u32
(padding not counted), zero u32``; the first is the primary clock. Then the record as a
``struct`` format (``<cc6xQQQQQdd``: enough to read the file in most languages), then the complete
layout as JSON.

Seal (seal_offset)
------------------
``count u64, base_position u64, sealed_us u64``, then for each clock ``unsorted u64, min u64,
max u64`` (exact), then ``zero u32, crc u32`` of all the seal's bytes before the CRC.

Invariants
----------
1. *One store publishes.* Records first, then one aligned 8-byte store of the commit word. A reader
   loads the word first, then reads at most ``count`` records. Nothing else makes a record visible.
2. *SEALED is for ever.* A sealed chunk never changes again. A feed ends at its first chunk that is
   not SEALED, whatever later chunks hold. A write that spans chunks fills and publishes the last
   one first and seals the first one last: that one store shows all of it, or, after a crash,
   none. Recovery removes every chunk after the first one that is not SEALED.
3. *A sealed chunk has a successor*, in the directory and synced, before it is sealed. A sealed
   chunk without one is damage, never an end.
4. *Positions continue.* ``base_position`` of a chunk is its predecessor's base plus its count.
5. *Clock statistics lag no reader.* While ``unsorted`` is 0 the published records are in order on
   that clock, and its bounds ARE the first and the last record, read from the data. Before the
   first record out of order is published, ``min`` and ``max`` are stored, then ``unsorted = 1``.
   From then on both only widen, each time before the commit: at any moment and after any crash
   they bound a superset of what is published. Exact values go into the seal.
6. *Marks come first.* A mark is committed before its records are published, and counts only once
   those are: ``position + max(count, 1) <= end`` for a snapshot, ``position <= end`` for the rest.
   Recovery drops marks beyond the end.
7. *Registries are caches.* Losing one loses nothing. FREG rows exist only for sealed chunks and
   never change; GREG rows are replaced as settings are.
8. *No file shrinks in place*; a store into a mapping beyond the end of its file kills the process.
9. Padding bytes of records are zero.
10. *A ring's words*: `commit` counts all records ever published in it, ``claim >= commit`` is stored before the first
   byte of a write and never decreases; record ``n`` of the file lies in slot ``n % capacity``; what was read is true
   from record ``claim - capacity`` on, with the claim loaded afterwards. `unsorted` of a clock is 0, or 1 + the
   position of the newest record below the one before it; `min` and `max` are not used. There is no seal block: the
   SEALED bit says that readers go on in the ring with the next id, or, if there is none, that the feed was deleted.
   The incarnation is 8 bytes of the feed's and 8 of its own, another after a reboot.

11. *Durable never runs ahead.* ``durable`` is stored after a sync of the records it counts, of all before them and
   of their marks has returned. After a reboot, or in a copy (another boot id, device or inode than the owner's
   lines say), a chunk whose durable word is not its commit word holds what is *proven*: the durable records, then
   whole blocks whose checksums hold, then a tail slot whose checksum holds. A feed ends at the first chunk that is
   not proven whole; recovery cuts it there, and only then may a SEALED bit go.
12. *Checksums lag.* They are written after the records are published, block by block, by the writer's process; a
   sealed chunk's are complete once its CSUM file says SEALED.

Rows
----
CSUM (16 bytes)::

    computed_us u64 | crc u32 of one block of ``block_records`` records (of the last: what there is) | its inverse u32

MARK (128 bytes)::

    position u64 | timestamp_us u64 | count u64 | from_us u64 | to_us u64 | kind char[8] |
    reason char[72] | zero u32 | crc u32 of the 124 bytes before

kind ``snapshot``: count records from position on are one snapshot (0: length unknown);
``gap``: count records were missed before position (2^64-1: unknown), between from_us and to_us;
``session``: a source's session begins at position; ``dropped``: count records were dropped by a
recovery at position. ``timestamp_us`` of a snapshot is its first record's primary clock, else the
time of the event.

FREG (64 + 24 x clocks bytes)::

    chunk_id u64 | base u64 | count u64 | created_us u64 | sealed_us u64 | capacity u64 | zero u64 |
    min u64[clocks] | max u64[clocks] | unsorted u64[clocks] | check u64

GREG (2048 bytes)::

    created_us u64 | incarnation char[32] (hex) | settings_mtime_ns u64 | state u64 (1 live, 0 gone) |
    record_size u64 | name char[128] | settings char[1848] (JSON; empty if longer) | check u64

``check`` is ``sum(word[i] * ODD[i]) mod 2**64`` over the row's other words, ``ODD[i]`` the i-th
output of splitmix64 from seed 0 with its lowest bit set: any change confined to one word changes
it, and NumPy checks ten thousand rows in one product (a CRC call per row took 4 ms of an open).

Rejected
--------
* *Several live words (count, last position, first and last time)*: they tear against each other;
  readers and crashes saw combinations that never were. Everything derives from one word.
* *A commit word per write that spans chunks* (a journal): one more file to recover. The chain of
  SEALED bits gives whole-or-absent with the words there are.
* *A separate base position in the file name or the registry*: the name would change on rotation,
  and a registry could not be a cache any more.
* *first/last time in the header as bounds*: wrong as soon as one stamp steps back, and stale between
  record and header. Bounds come from the data or are a superset.
* *Checksums inside blocks of records*: the file would no longer be one array. They go beside it.
* *Checksums before the commit*: a third of the speed of large batches (0.46 ns a byte against 0.25), for what only a
  reboot or a bad disk asks for. They follow within a second, and in the writer's own time if they fall behind.
* *Sparse files*: on a full disk a store into a hole is SIGBUS. Files are allocated before use.
* *Big header JSON with mutable state*: needs a lock to read. JSON here is written once.
* *An end marker or a trailing footer*: nothing to read in a live file; needs a shrink or a rewrite.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

from deepwater.errors import CorruptFileError

MAGIC = b"\x89DWSEG\r\n"
MAJOR, MINOR = 1, 0
BYTE_ORDER = 0x01020304
KNOWN_REQUIRED_FEATURES = 0
CHUNK, RING, MARK, CHECKSUMS, FEED_REGISTRY, GLOBAL_REGISTRY = b"CHNK", b"RING", b"MARK", b"CSUM", b"FREG", b"GREG"
KINDS = (CHUNK, RING, MARK, CHECKSUMS, FEED_REGISTRY, GLOBAL_REGISTRY)
GROWING = (MARK, FEED_REGISTRY, GLOBAL_REGISTRY)
CACHES = (CHECKSUMS, FEED_REGISTRY, GLOBAL_REGISTRY)
"""Kinds that are not synced when they are made: to lose one costs no record that was promised."""
HAS_CHECKSUMS, CRC32 = 1 << 0, 1
"""An optional feature of chunks, and their kind of checksum."""

PAGE = 16384
"""Alignment in bytes of ``data_offset`` and of file sizes."""
LIVE_OFFSET = 4096
LIVE_PAGE = 4096
MAX_RECORD_SIZE = 65536
MAX_CLOCKS = 4096
MAX_STATIC = 1 << 22
BLOCK_BYTES = 65536

COMMIT = 4096 // 8
"""Word indexes, for a ``memoryview.cast("Q")`` of the file."""
DURABLE = 4160 // 8
CLAIM = 4224 // 8
OLDEST = 4232 // 8
HEARTBEAT = 4416 // 8
TAIL_OFFSETS = (4480, 4544)
CLOCKS = 4608 // 8
CLOCK_WORDS = 8
UNSORTED, MIN, MAX = 0, 1, 2
"""Word indexes within a clock's line."""

SEALED = 1 << 63
COUNT_MASK = SEALED - 1

IDENTITY_SIZE = 512
_IDENTITY = struct.Struct("<8sHHI4sIII16s16s16sQQQQQQQQQQQII16sII")
_ACTIVATION_OFFSET = 512
_ACTIVATION = struct.Struct("<QQ40xI")
_ACTIVE = int.from_bytes(b"ACTV", "little")
_OWNER_OFFSET = 4288
_OWNER = struct.Struct("<QQ16sQQQ64sI")
_CLOCK_ENTRY = struct.Struct("<IIII")
_SEAL = struct.Struct("<QQQ")
_TRIPLE = struct.Struct("<QQQ")
_CRC = struct.Struct("<I")
_TAIL = struct.Struct("<QI4x")
TAIL_SIZE = 24
_MICROSECONDS = 6
HEADER_READ = PAGE
"""Bytes to read at first: the smallest header there is."""


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`.

    >>> round_up(16385, 16384)
    32768
    """
    return -(-value // step) * step


class Ids(NamedTuple):
    """Who a file belongs to; each 16 bytes."""

    store: bytes
    feed: bytes
    incarnation: bytes


class ClockBounds(NamedTuple):
    """What a chunk says of one clock. `low` and `high` are inclusive."""

    unsorted: bool
    low: int
    high: int


class Seal(NamedTuple):
    """The last word on a chunk: exact, written once."""

    records: int
    base_position: int
    sealed_us: int
    clocks: tuple[ClockBounds, ...]


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds, or last held, the writer's lock of a segment."""

    pid: int
    start: int
    boot_id: bytes
    inode: int
    device: int
    since_us: int
    host: str
    held: bool


@dataclass(frozen=True, slots=True)
class Static:
    """The part of a header that describes the records.

    `clocks` are ``(field_offset, field_index)``, the primary clock first.
    """

    clocks: tuple[tuple[int, int], ...]
    struct_format: str
    layout: bytes
    layout_hash: bytes

    def pack(self) -> bytes:
        """The static bytes of a file."""
        table = b"".join(_CLOCK_ENTRY.pack(offset, _MICROSECONDS, index, 0) for offset, index in self.clocks)
        return table + self.struct_format.encode("ascii") + self.layout


@dataclass(frozen=True, slots=True)
class Identity:
    """The immutable header of a file; sizes in bytes, capacity in records."""

    kind: bytes
    ids: Ids
    segment_id: int
    created_us: int
    record_size: int
    capacity: int
    block_records: int
    data_offset: int
    file_size: int
    live_size: int
    static_offset: int
    static_size: int
    seal_offset: int
    clock_count: int
    static_crc: int
    layout_hash: bytes
    struct_size: int
    layout_size: int
    required_features: int = 0
    optional_features: int = 0
    checksum_kind: int = 0
    minor: int = MINOR

    @property
    def seal_size(self) -> int:
        """Bytes of the seal."""
        return _SEAL.size + _TRIPLE.size * self.clock_count + 8


def plan(kind: bytes, ids: Ids, segment_id: int, static: Static, record_size: int, capacity: int,
         created_us: int) -> Identity:  # fmt: skip
    """Lay out a new file of `capacity` records of `record_size` bytes.

    Growing kinds get as many records as fill the last page; the others exactly `capacity`.
    """
    assert 1 <= record_size <= MAX_RECORD_SIZE and capacity >= 1, (record_size, capacity)
    packed = static.pack()
    clocks = len(static.clocks)
    live = round_up(CLOCKS * 8 - LIVE_OFFSET + 8 * CLOCK_WORDS * clocks, LIVE_PAGE)
    static_offset = LIVE_OFFSET + live
    seal_offset = round_up(static_offset + len(packed), 64)
    data_offset = round_up(seal_offset + _SEAL.size + _TRIPLE.size * clocks + 8, PAGE)
    file_size = round_up(data_offset + capacity * record_size, PAGE)
    if kind in GROWING:
        capacity = (file_size - data_offset) // record_size
    return Identity(
        kind=kind, ids=ids, segment_id=segment_id, created_us=created_us, record_size=record_size,
        capacity=capacity, block_records=max(1, BLOCK_BYTES // record_size), data_offset=data_offset,
        file_size=file_size, live_size=live, static_offset=static_offset, static_size=len(packed),
        seal_offset=seal_offset, clock_count=clocks, static_crc=crc32(packed),
        layout_hash=static.layout_hash, struct_size=len(static.struct_format), layout_size=len(static.layout),
        optional_features=HAS_CHECKSUMS * (kind == CHUNK), checksum_kind=CRC32 * (kind == CHUNK),
    )  # fmt: skip


def pack_identity(i: Identity) -> bytes:
    """The first 512 bytes of a file."""
    body = _IDENTITY.pack(
        MAGIC, MAJOR, i.minor, BYTE_ORDER, i.kind, i.required_features, i.optional_features,
        i.checksum_kind, i.ids.store, i.ids.feed, i.ids.incarnation, i.segment_id, i.created_us,
        i.record_size, i.capacity, i.block_records, i.data_offset, i.file_size, i.live_size,
        i.static_offset, i.static_size, i.seal_offset, i.clock_count, i.static_crc, i.layout_hash,
        i.struct_size, i.layout_size,
    ).ljust(IDENTITY_SIZE - 4, b"\0")  # fmt: skip
    return body + _CRC.pack(crc32(body))


@lru_cache(maxsize=1024)
def parse_identity(data: bytes, path: str) -> Identity:
    """Read and check the first 512 bytes of a file: in this order magic, order, version, CRC, sizes.

    The answer to the same bytes is kept: a file that is opened again is not parsed again.

    Raises
    ------
    CorruptFileError
        The bytes are no header of a known version, or contradict themselves.
    """

    def bad(reason: str) -> CorruptFileError:
        return CorruptFileError(f"{path}: {reason}", path=path, reason=reason)

    if len(data) < IDENTITY_SIZE:
        raise bad(f"{len(data)} bytes; a header has at least {IDENTITY_SIZE}")
    (magic, major, minor, order, kind, required, optional, checksum, store, feed, incarnation, segment_id,
     created, record_size, capacity, block, data_offset, file_size, live, static_offset, static_size, seal_offset,
     clocks, static_crc, layout_hash, struct_size, layout_size) = _IDENTITY.unpack_from(data)  # fmt: skip
    if magic != MAGIC:
        raise bad(f"not a Deepwater file: begins with {bytes(magic)!r}, expected {MAGIC!r}")
    if order != BYTE_ORDER:
        raise bad(f"byte order mark {order:#010x}, expected {BYTE_ORDER:#010x} (little-endian)")
    if major != MAJOR:
        raise bad(f"format {major}.{minor}; this version reads {MAJOR}.x: use a matching deepwater")
    if _CRC.unpack_from(data, IDENTITY_SIZE - 4)[0] != crc32(data[: IDENTITY_SIZE - 4]):
        raise bad("header checksum is wrong: the first 512 bytes are damaged")
    if required & ~KNOWN_REQUIRED_FEATURES:
        raise bad(f"needs features {required:#x} that this version does not have: use a newer deepwater")
    identity = Identity(
        kind, Ids(store, feed, incarnation), segment_id, created, record_size, capacity, block, data_offset,
        file_size, live, static_offset, static_size, seal_offset, clocks, static_crc, layout_hash, struct_size,
        layout_size, required, optional, checksum, minor,
    )  # fmt: skip
    problem = _contradiction(identity)
    if problem:
        raise bad(problem)
    return identity


def _contradiction(i: Identity) -> str | None:
    """What is impossible about the numbers of a header, or None."""
    table = _CLOCK_ENTRY.size * i.clock_count + i.struct_size + i.layout_size
    checks = (
        (i.kind in KINDS, f"unknown kind {i.kind!r}"),
        (1 <= i.record_size <= MAX_RECORD_SIZE, f"record size {i.record_size}, possible are 1 to {MAX_RECORD_SIZE}"),
        (i.capacity >= 1, "capacity 0"),
        (i.clock_count <= MAX_CLOCKS, f"{i.clock_count} clocks"),
        (i.block_records >= 1, "checksum blocks of 0 records"),
        (i.live_size % LIVE_PAGE == 0 and i.live_size >= CLOCKS * 8 - LIVE_OFFSET + 64 * i.clock_count,
         f"{i.live_size} bytes of live words for {i.clock_count} clocks"),
        (i.static_offset == LIVE_OFFSET + i.live_size, f"static part at {i.static_offset}"),
        (i.static_size == table and i.static_size <= MAX_STATIC, f"static part of {i.static_size} bytes"),
        (i.static_offset + i.static_size <= i.seal_offset and i.seal_offset % 8 == 0, f"seal at {i.seal_offset}"),
        (i.seal_offset + i.seal_size <= i.data_offset, f"data offset {i.data_offset} lies inside the header"),
        (i.data_offset % PAGE == 0, f"data offset {i.data_offset} is not a multiple of {PAGE}"),
        (i.file_size % PAGE == 0, f"file size {i.file_size} is not a multiple of {PAGE}"),
        (i.data_offset + i.capacity * i.record_size <= i.file_size,
         f"{i.capacity} records of {i.record_size} bytes do not fit into {i.file_size} bytes"),
    )  # fmt: skip
    return next((message for holds, message in checks if not holds), None)


@lru_cache(maxsize=256)
def parse_static(data: bytes, identity: Identity, path: str) -> Static:
    """Read and check the static bytes (exactly `static_size` of them)."""
    if len(data) != identity.static_size or crc32(data) != identity.static_crc:
        reason = "layout checksum is wrong: the header's description of the records is damaged"
        raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
    table = _CLOCK_ENTRY.size * identity.clock_count
    clocks = tuple((offset, index) for offset, _, index, _ in _CLOCK_ENTRY.iter_unpack(data[:table]))
    text = data[table : table + identity.struct_size]
    return Static(clocks, text.decode("ascii", "replace"), data[table + identity.struct_size :], identity.layout_hash)


def pack_activation(base_position: int, activated_us: int) -> tuple[int, bytes]:
    """Offset and bytes of the block that makes a prepared chunk part of the feed."""
    body = _ACTIVATION.pack(base_position, activated_us, _ACTIVE).ljust(60, b"\0")
    return _ACTIVATION_OFFSET, body + _CRC.pack(crc32(body))


def parse_activation(data: bytes | memoryview) -> tuple[int, int] | None:
    """``(base_position, activated_us)`` from a file's first 4096 bytes; None for a spare."""
    body = bytes(data[_ACTIVATION_OFFSET : _ACTIVATION_OFFSET + 64])
    base, activated, state = _ACTIVATION.unpack_from(body)
    if state != _ACTIVE or _CRC.unpack_from(body, 60)[0] != crc32(body[:60]):
        return None
    return base, activated


def pack_owner(owner: Owner) -> tuple[int, bytes]:
    """Offset and bytes of the owner's lines."""
    body = _OWNER.pack(owner.pid, owner.start, owner.boot_id, owner.inode, owner.device, owner.since_us,
                       owner.host.encode("utf-8")[:63], int(owner.held))  # fmt: skip
    return _OWNER_OFFSET, body + _CRC.pack(crc32(body))


def parse_owner(data: bytes | memoryview, offset: int = _OWNER_OFFSET) -> Owner | None:
    """The owner's lines from a file's header (or at `offset`); None when nobody wrote them, or not all of them."""
    body = bytes(data[offset : offset + _OWNER.size + 4])
    if len(body) < _OWNER.size + 4:
        return None
    pid, start, boot, inode, device, since, host, state = _OWNER.unpack_from(body)
    if pid == 0 or _CRC.unpack_from(body, _OWNER.size)[0] != crc32(body[: _OWNER.size]):
        return None
    return Owner(pid, start, boot, inode, device, since, host.rstrip(b"\0").decode("utf-8", "replace"), state == 1)


def pack_tail(count: int, crc: int) -> bytes:
    """The bytes of a tail slot: the checksum of the records from the last whole block below `count` to it."""
    body = _TAIL.pack(count, crc)
    return body + _CRC.pack(crc32(body)) + bytes(4)


def parse_tail(data: bytes) -> tuple[int, int] | None:
    """``(count, crc)`` from a tail slot; None when it was not written, or not all of it."""
    count, crc = _TAIL.unpack_from(data)
    return None if not count or _CRC.unpack_from(data, _TAIL.size)[0] != crc32(data[: _TAIL.size]) else (count, crc)


def pack_seal(seal: Seal) -> bytes:
    """The bytes of a seal, to be stored at `seal_offset`."""
    body = _SEAL.pack(seal.records, seal.base_position, seal.sealed_us)
    body += b"".join(_TRIPLE.pack(int(c.unsorted), c.low, c.high) for c in seal.clocks) + bytes(4)
    return body + _CRC.pack(crc32(body))


def parse_seal(data: bytes, clock_count: int, path: str) -> Seal:
    """Read and check a seal.

    Raises
    ------
    CorruptFileError
        Its checksum is wrong: the commit word says SEALED, so the seal must be whole.
    """
    body, crc = data[:-4], _CRC.unpack_from(data, len(data) - 4)[0]
    if crc32(body) != crc:
        reason = "the chunk is sealed and its seal is damaged"
        raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
    count, base, sealed_us = _SEAL.unpack_from(body)
    triples = struct.iter_unpack("<QQQ", body[_SEAL.size : _SEAL.size + _TRIPLE.size * clock_count])
    return Seal(count, base, sealed_us, tuple(ClockBounds(u != 0, low, high) for u, low, high in triples))
