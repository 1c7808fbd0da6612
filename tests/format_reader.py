"""Reads a feed's files with `struct` and `mmap` alone: the format page is all another language needs."""

import mmap
import struct

SEALED = 1 << 63
NAMES = "id created_us record_size capacity block data_offset file_size live static_offset static_size seal_offset"


def crc32(data):
    """CRC-32 (IEEE 802.3), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def open_segment(path, kind):
    """``(mapping, header words by name, struct of a record)`` of one file."""
    with open(path, "rb") as file:
        m = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    magic, major, _, order, found = struct.unpack_from("<8sHHI4s", m, 0)
    assert (magic, major, order, found) == (b"\x89DWSEG\r\n", 1, 0x01020304, kind), path
    assert struct.unpack_from("<I", m, 508)[0] == crc32(m[:508]), path
    head = dict(zip(NAMES.split(), struct.unpack_from("<11Q", m, 80), strict=True))
    head["clocks"], static_crc, _, struct_size, _ = struct.unpack_from("<II16sII", m, 168)
    static = m[head["static_offset"] : head["static_offset"] + head["static_size"]]
    assert crc32(static) == static_crc, path
    table = 16 * head["clocks"]
    head["clock_offsets"] = [struct.unpack_from("<I", static, at)[0] for at in range(0, table, 16)]
    head["layout"] = static[table + struct_size :]
    return m, head, struct.Struct(static[table : table + struct_size].decode())


def rows(m, head, record, count):
    """The first `count` records as tuples."""
    start, size = head["data_offset"], head["record_size"]
    return [record.unpack_from(m, start + size * k) for k in range(count)]


def read_chunk(path):
    """``(base position, records, sealed, clock bounds)``; bounds are (unsorted, min, max), a superset."""
    m, head, record = open_segment(path, b"CHNK")
    base, _, state, crc = struct.unpack_from("<QQ40x4sI", m, 512)
    assert state == b"ACTV" and crc == crc32(m[512:572]), path
    word = struct.unpack_from("<Q", m, 4096)[0]
    records = rows(m, head, record, min(word & SEALED - 1, head["capacity"]))
    bounds = [struct.unpack_from("<QQQ", m, 4608 + 64 * k) for k in range(head["clocks"])]
    if word & SEALED:
        size = 24 + 24 * head["clocks"] + 8
        seal = m[head["seal_offset"] : head["seal_offset"] + size]
        assert struct.unpack_from("<I", seal, size - 4)[0] == crc32(seal[:-4]), path
        assert struct.unpack_from("<QQ", seal) == (len(records), base), path
        bounds = [struct.unpack_from("<QQQ", seal, 24 + 24 * k) for k in range(head["clocks"])]
    return base, records, bool(word & SEALED), bounds


def read_feed(paths):
    """All records of a feed, given its chunk files in order: it ends at the first that is not sealed."""
    out = []
    for path in paths:
        base, records, sealed, _ = read_chunk(path)
        assert not out or base == len(out), path
        out += records
        if not sealed:
            break
    return out


def read_rows(path, kind):
    """The committed rows of a mark index (``MARK``) or a registry (``FREG``, ``GREG``)."""
    m, head, record = open_segment(path, kind)
    return rows(m, head, record, struct.unpack_from("<Q", m, 4096)[0])
