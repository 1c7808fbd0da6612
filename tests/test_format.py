"""The bytes on disk: golden files stay readable, with and without Deepwater, and are what the page says."""

from __future__ import annotations

import contextlib
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import format_reader
from deepwater import Platform
from deepwater import format as fmt
from deepwater.errors import CorruptFileError
from deepwater.feed_registry import odd_weights, row_checks, row_layout
from deepwater.index import MARK_LAYOUT
from golden.make import T0, records

STORE = Path(__file__).parent / "golden" / "store"
FEED = STORE / "data" / "GOLDEN"
CHUNKS = sorted(FEED.glob("chunk_*.bin"))


@pytest.fixture
def golden(tmp_path: Path) -> Platform:
    """The golden store (a copy: git keeps no modes)."""
    import shutil

    shutil.copytree(STORE, tmp_path / "store")
    with Platform(tmp_path / "store") as dw:
        yield dw


def test_golden_files_read_by_deepwater(golden: Platform) -> None:
    with golden["GOLDEN"] as r:
        got = r.read().to_numpy()
        assert got.tobytes() == records(r.dtype, 0, 58).tobytes()
        assert (r.first, r.end) == (0, 58)
        assert [int(p) for p in r.snapshots()["position"]] == [6] and int(r.snapshots()["count"][0]) == 50
        gap = r.gaps()[0]
        assert (gap["position"], gap["count"], gap["from_us"], gap["to_us"], gap["reason"]) == (
            56,
            7,
            T0 + 550,
            T0 + 560,
            b"sequence 41 to 47",
        )
        full = got["recv_us"]
        mask = (full >= T0 + 100) & (full <= T0 + 200)
        want = got.view("V64")[mask]  # as bytes: numpy leaves padding out when it copies fields
        assert r.read(T0 + 100, T0 + 200, clock="recv_us").to_numpy().tobytes() == want.tobytes()


def test_golden_files_read_with_struct_and_mmap_alone() -> None:
    """Every record, by a reader that knows nothing but the format page."""
    dtype = np.dtype(
        [
            ("type", "S1"),
            ("side", "S1"),
            ("_", "V6"),
            ("trade_id", "<u8"),
            ("recv_us", "<u8"),
            ("proc_us", "<u8"),
            ("price", "<f8"),
            ("size", "<f4"),
            ("ok", "?"),
            ("level", "i1"),
            ("venue", "S2"),
            ("depth", "<i4", 4),
        ]
    )
    want = []
    for row in records(dtype, 0, 58):
        *scalars, depth = row.item()
        want.append((*[v for k, v in enumerate(scalars) if k != 2], *[int(x) for x in depth]))
    assert format_reader.read_feed(CHUNKS) == want


def test_golden_chunks_are_whole_and_in_order() -> None:
    found = [format_reader.read_chunk(path) for path in CHUNKS]
    assert [(base, len(rows), sealed) for base, rows, sealed, _ in found] == [
        (0, 6, True),
        (6, 20, True),
        (26, 20, True),
        (46, 12, False),
    ]
    for _, rows, _, bounds in found[:3]:
        for clock, column in ((0, 4), (1, 3)):  # proc_us, the primary clock, then recv_us
            unsorted, low, high = bounds[clock]
            values = [row[column] for row in rows]
            assert (low, high) == (min(values), max(values))
            assert bool(unsorted) == (values != sorted(values))


def test_golden_marks_and_registry() -> None:
    marks = [row for path in sorted(FEED.glob("*.idx")) for row in format_reader.read_rows(path, b"MARK")]
    assert [(m[0], m[2], m[5].rstrip(b"\0")) for m in marks] == [(6, 50, b"snapshot"), (56, 7, b"gap")]
    for path in sorted(FEED.glob("*.idx")):
        m, head, _ = format_reader.open_segment(path, b"MARK")
        raw = m[head["data_offset"] : head["data_offset"] + 128]
        assert zlib.crc32(raw[:124]) == struct.unpack("<I", raw[124:])[0]
    rows = format_reader.read_rows(FEED / "GOLDEN.reg", b"FREG")
    assert [row[:3] for row in rows] == [(1, 0, 6), (2, 6, 20), (3, 26, 20)]
    (row,) = format_reader.read_rows(STORE / "registry.bin", b"GREG")
    assert row[5].rstrip(b"\0") == b"GOLDEN"


@pytest.mark.parametrize(
    "path", [*CHUNKS, *FEED.glob("*.idx"), FEED / "GOLDEN.reg", STORE / "registry.bin"], ids=lambda p: p.name
)
def test_headers_pack_to_the_golden_bytes(path: Path) -> None:
    """Parsing and packing is the identity on every golden header: no field moved, none was added."""
    data = path.read_bytes()
    identity = fmt.parse_identity(data, str(path))
    assert fmt.pack_identity(identity) == data[:512]
    static = fmt.parse_static(data[identity.static_offset :][: identity.static_size], identity, str(path))
    assert static.pack() == data[identity.static_offset :][: identity.static_size]
    planned = fmt.plan(
        identity.kind,
        identity.ids,
        identity.segment_id,
        static,
        identity.record_size,
        identity.capacity,
        identity.created_us,
    )
    assert planned == identity
    assert len(data) % fmt.PAGE == 0 and identity.data_offset % fmt.PAGE == 0
    if identity.kind == fmt.CHUNK:
        base, activated = fmt.parse_activation(data)
        offset, block = fmt.pack_activation(base, activated)
        assert data[offset : offset + 64] == block
        owner = fmt.parse_owner(data)
        offset, block = fmt.pack_owner(owner)
        assert data[offset : offset + 128] == block


def test_row_sizes_and_offsets_are_those_of_the_page() -> None:
    assert MARK_LAYOUT.record_size == 128 and MARK_LAYOUT.column("crc").offset == 124
    assert MARK_LAYOUT.column("kind").offset == 40 and MARK_LAYOUT.column("reason").offset == 48
    for clocks in (1, 4, 9):
        assert row_layout(clocks).record_size == 64 + 24 * clocks
    from deepwater.global_registry import ROW_LAYOUT

    assert ROW_LAYOUT.record_size == 2048 and ROW_LAYOUT.column("check").offset == 2040


def test_live_words_have_cache_lines_of_their_own() -> None:
    words = [fmt.COMMIT, fmt.DURABLE, fmt.CLAIM, fmt.HEARTBEAT, fmt.CLOCKS, fmt.CLOCKS + fmt.CLOCK_WORDS]
    lines = [8 * word // 64 for word in words]
    assert all(8 * word % 64 == 0 for word in words) and len(set(lines)) == len(lines)


def test_splitmix64_weights() -> None:
    """The first outputs of splitmix64 from seed 0 are published with the algorithm."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(w) for w in odd_weights(3)] == [w | 1 for w in published]


def test_a_row_check_finds_every_flipped_bit() -> None:
    rows = np.zeros(1, row_layout(2).dtype)
    rows["chunk_id"], rows["count"] = 3, 77
    good = int(row_checks(rows)[0])
    raw = bytearray(rows.tobytes())
    for bit in range(8 * (len(raw) - 8)):
        raw[bit // 8] ^= 1 << bit % 8
        assert int(row_checks(np.frombuffer(bytes(raw), rows.dtype))[0]) != good, bit
        raw[bit // 8] ^= 1 << bit % 8


def test_every_flipped_bit_of_a_header_is_found(tmp_path: Path) -> None:
    """Identity, static part, activation, owner and seal: each is under a checksum."""
    data = bytearray(CHUNKS[0].read_bytes())
    identity = fmt.parse_identity(bytes(data), "x")
    static = data[identity.static_offset : identity.static_offset + identity.static_size]
    seal = data[identity.seal_offset : identity.seal_offset + identity.seal_size]

    def broken(block: bytearray, read: Callable[[bytes], object]) -> None:
        for bit in range(8 * len(block)):
            block[bit // 8] ^= 1 << bit % 8
            with contextlib.suppress(CorruptFileError):
                assert read(bytes(block)) is None, bit
            block[bit // 8] ^= 1 << bit % 8

    broken(bytearray(data[:512]), lambda b: fmt.parse_identity(b, "x"))
    broken(static, lambda b: fmt.parse_static(b, identity, "x"))
    broken(seal, lambda b: fmt.parse_seal(b, identity.clock_count, "x"))
    broken(bytearray(data[512:576]), lambda b: fmt.parse_activation(bytes(512) + b))
    broken(bytearray(data[4288:4416]), lambda b: fmt.parse_owner(bytes(4288) + b))


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, b"\x89DWSEG\n\n", "not a Deepwater file"), (8, b"\x02\x00", "format 2"),
        (12, b"\x01\x02\x03\x04", "byte order"), (16, b"XXXX", "unknown kind"), (20, b"\x01\0\0\0", "needs features"),
        (96, bytes(8), "record size"), (104, bytes(8), "capacity"), (104, b"\xff" * 8, "do not fit"),
        (120, bytes(8), "inside the header"), (128, b"\1" + bytes(7), "multiple"), (136, bytes(8), "live words"),
        (168, b"\xff\xff\0\0", "clocks"), (152, b"\xff" * 8, "static part"), (160, b"\xff" * 8, "seal|inside"),
    ],
)  # fmt: skip
def test_impossible_headers_are_refused_with_the_reason(offset: int, value: bytes, reason: str) -> None:
    """Also when the checksum is right: the numbers are checked against each other."""
    data = bytearray(CHUNKS[0].read_bytes()[:512])
    data[offset : offset + len(value)] = value
    data[508:] = struct.pack("<I", zlib.crc32(data[:508]))
    with pytest.raises(CorruptFileError, match=reason):
        fmt.parse_identity(bytes(data), "x")
