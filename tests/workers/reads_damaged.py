"""Opens damaged files: each header bit flipped, or mutants of any kind. Says one line of JSON at the end.

Arguments: base directory, "bits" or "mutants", kind of file (see `FILES`), seed, how many (0: all bits), and a file
that is told before each trial what it is, so that a crash or a hang can be done again: ``word 0`` the trial.

Quick: the functions that open this kind of file, and a look at all they give. Now and then a whole feed is opened
through the front door, read, and written to. A trial is well if it raises a DeepwaterError, or gives records that
were written there. Memory is limited to little more than this process had before.
"""

import contextlib
import dataclasses
import json
import mmap
import os
import random
import resource
import shutil
import struct
import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

import model
from deepwater import DeepwaterError, Platform
from deepwater import feed_registry as registry
from deepwater import format as fmt
from deepwater import global_registry as greg
from deepwater.chunk import Chunk
from deepwater.feed_files import read_feed, read_settings
from deepwater.files import Directory
from deepwater.index import read_marks
from deepwater.oldest import ALL
from deepwater.ring import Ring
from deepwater.segment import Page
from deepwater.store import _read_id
from deepwater.wake import MAGIC

base, how, kind, seed, most = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
with open(sys.argv[6], "r+b") as file:
    told = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
SIZE, ROWS = model.CHECKED.itemsize, 10
FILES = {
    "sealed": "data/F/chunk_00000001.bin", "active": "data/F/chunk_00000003.bin", "marks": "data/F/chunk_00000001.idx",
    "registry": "data/F/F.reg", "feeds": "registry.bin", "layout": "data/F/layout.json",
    "settings": "data/F/settings.json", "store": "store.json", "ring": "RING", "wake": "WAKE",
}  # fmt: skip
JSON = ("layout", "settings", "store")
SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, "chunk_size_bytes": ROWS * SIZE,
        "index_playback": True}  # fmt: skip
FULL_EVERY = 400
rng = random.Random(seed)
warnings.simplefilter("ignore")


def build(store: Path) -> None:
    """A feed of three chunks with marks, and a ring that has gone around."""
    with Platform(store) as dw:
        dw.create_feed(SPEC)
        dw.create_feed({**SPEC, "feed_name": "R", "persist": False, "index_playback": False})
        for feed in "FR":
            with dw.create_writer(feed) as writer:
                for at in range(0, 25, 5):
                    writer.write_batch(model.checked_records(at, 5, at + 1), create_index=feed == "F")
                    if feed == "F":
                        writer.mark_gap(3, reason="a test")


store = base / f"store-{kind}"
build(store)
dw = Platform(store)
feed_dir, base_dir = Directory(str(store / "data" / "F")), Directory(str(store))
store_id = _read_id(base_dir)
feed, ring_feed = (read_feed(Directory(str(store / "data" / name)), name, store_id) for name in "FR")
keeper = dw.create_writer("R")
shared = Path(dw._store.shared.path)
shared_dir = Directory(str(shared))
path = {"ring": shared / "R-1", "wake": shared / "R.wake"}.get(kind, store / FILES[kind])
original = path.read_bytes()
layout, ids = feed.layout, feed.ids
truth = {"F": model.checked_records(0, 0, 0)}
with dw["F"] as reader, dw["R"] as ring:
    truth = {"F": model.joined(reader.rows(0, 25), model.CHECKED).tobytes(),
             "R": model.joined(ring.rows(15, 25), model.CHECKED).tobytes()}  # fmt: skip
if kind in ("ring", "wake"):
    keeper.close()
    shared.mkdir(parents=True, exist_ok=True)
    path.write_bytes(original)
    path.chmod(0o600)
HEAD = 0 if kind in JSON or kind == "wake" else fmt.parse_identity(original[:512], "").data_offset


# ------------------------------------------------------------------------------------------ looks


def look_chunk(number: int, first: int, rows: int) -> bytes:
    chunk = Chunk.open(feed_dir, number, layout, ids)
    if chunk is None:
        return b""
    try:
        count, sealed = chunk.state()
        if sealed:
            chunk.seal()
        for clock in range(len(layout.clocks)):
            if count:
                chunk.bounds(clock, count)
        chunk.owner()
        assert chunk.durable <= chunk.capacity
        found = chunk.records[:count].tobytes()
        if chunk.base != first:
            raise DeepwaterError("the chain compares this with the chunk before")
        return found
    finally:
        chunk.close()


def look_ring() -> bytes:
    ring = Ring.open(shared_dir, "R", 1, ring_feed.layout, ring_feed.ids)
    if ring is None:
        return b""
    try:
        count, _ = ring.state()
        end, oldest = ring.base + count, ring.oldest()
        first = max(ring.base, oldest, end - ring.capacity)
        _, records = ring.copy(first, max(first, end), ring_feed.layout.dtype)
        ring.owner(), ring.stepped_back(0)
        return records.tobytes()
    finally:
        ring.close()


def look_wake() -> bytes:
    page = Page.open(shared_dir, "R.wake", MAGIC)
    try:
        fmt.parse_owner(page.mapping[:4096], 256)
        return bytes(page.words[:64])[:0]
    finally:
        page.close()


def look_registry() -> bytes:
    rows = registry.read_rows(feed_dir, "F", layout, ids, ALL)
    assert len(rows) <= 2 or how == "mutants", "rows that nobody wrote"
    return b""


def look_feeds() -> bytes:
    rows = greg.GlobalRegistry(base_dir, store_id).rows()
    for row in rows.values():
        greg.GlobalRegistry.settings(row, feed_dir)
    return b""


def look_marks() -> bytes:
    assert len(read_marks(feed_dir, 1, ids, 25)) <= 200
    return b""


def look_layout() -> bytes:
    read_feed(feed_dir, "F", store_id)
    return b""


LOOKS = {
    "sealed": lambda: look_chunk(1, 0, ROWS), "active": lambda: look_chunk(3, 20, 5), "marks": look_marks,
    "registry": look_registry, "feeds": look_feeds, "layout": look_layout, "settings": lambda: read_settings(feed_dir),
    "store": lambda: _read_id(base_dir) and b"", "ring": look_ring, "wake": look_wake,
}  # fmt: skip
PIECES = {"sealed": truth["F"][: ROWS * SIZE], "active": truth["F"][20 * SIZE :], "ring": truth["R"]}


def front_door(write: bool) -> bytes:
    """Everything a user does: list, describe, read all and by time, marks; then write, as the next writer."""
    name = "R" if kind in ("ring", "wake") else "F"
    found = b""
    with Platform(store) as dw:
        dw.list_feeds()
        with dw[name] as reader:
            window = reader.rows(reader.first, reader.end)
            found = model.joined(window, model.CHECKED).tobytes()
            reader.read(model.EPOCH_2026, model.EPOCH_2026 + 3), reader.latest(3), repr(reader)
            dw.describe_feed(name)
            if name == "F":
                reader.snapshots(), reader.gaps()
        if write:
            with dw.create_writer(name) as writer:
                writer.write_values(*model.checked_records(0, 1, 99)[0].item()[:-1], [0, 0])
            with dw[name] as reader:
                assert len(reader) >= 1
    return found


# ------------------------------------------------------------------------------------------ damage


def used() -> list[range]:
    """The bytes of a header that mean something."""
    identity = fmt.parse_identity(original[:512], "")
    static_end = identity.static_offset + identity.static_size
    return [range(576), range(4096, 4672), range(fmt.CLOCKS * 8, fmt.CLOCKS * 8 + 64 * identity.clock_count),
            range(identity.static_offset, static_end),
            range(identity.seal_offset, identity.seal_offset + identity.seal_size)]  # fmt: skip


def bits() -> list[int]:
    """Every bit of the bytes that mean something, and one of each that does not."""
    if kind in JSON:
        return list(range(8 * len(original)))
    if kind == "wake":
        return list(range(8 * 512))
    meaning = {byte for piece in used() for byte in piece}
    rest = [8 * byte + rng.randrange(8) for byte in range(HEAD) if byte not in meaning]
    return sorted([8 * byte + bit for byte in meaning for bit in range(8)] + rest)


def unchecked(bit: int) -> bool:
    """Whether a bit is in a word that changes with every write, which no checksum can cover."""
    return kind in ("active", "ring", "wake") and 4096 <= bit // 8 < 4096 + 512 + 64


HOSTILE = (0, 1, 2, 7, 64, 4095, 4096, 16383, 16384, 65536, 65537, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**43, 2**62,
           2**63 - 1, 2**63, 2**63 + 5, 2**64 - SIZE, 2**64 - 1)  # fmt: skip
NUMBERS = ("segment_id", "created_us", "record_size", "capacity", "block_records", "data_offset", "file_size",
           "live_size", "static_offset", "static_size", "seal_offset", "clock_count", "struct_size", "layout_size",
           "required_features", "optional_features", "checksum_kind")  # fmt: skip


def hostile_header(data: bytearray) -> None:
    """Impossible numbers under a checksum that is right; sometimes with a file of the size they ask for."""
    identity = fmt.parse_identity(original[:512], "")
    changes: dict[str, Any] = {}
    for name in rng.sample(NUMBERS, rng.choice((1, 1, 2, 3))):
        now = getattr(identity, name)
        changes[name] = rng.choice((*HOSTILE, now + 1, now * 2, max(0, now - 1), now + 16384))
    if rng.random() < 0.1:
        changes["kind"] = rng.choice(fmt.KINDS)
    if rng.random() < 0.05:
        changes["layout_hash"] = rng.randbytes(16)
    with contextlib.suppress(struct.error):
        data[:512] = fmt.pack_identity(dataclasses.replace(identity, **changes))


def hostile_words(data: bytearray) -> None:
    """The live words, the activation block and the seal, with checksums that are right."""
    for word in rng.sample((fmt.COMMIT, fmt.DURABLE, fmt.CLAIM, fmt.HEARTBEAT, fmt.CLOCKS, fmt.CLOCKS + 1,
                            fmt.CLOCKS + 2), 2):  # fmt: skip
        data[8 * word : 8 * word + 8] = struct.pack("<Q", rng.choice(HOSTILE))
    if rng.random() < 0.5:
        at, block = fmt.pack_activation(rng.choice(HOSTILE), rng.choice(HOSTILE))
        data[at : at + len(block)] = block
    if rng.random() < 0.3:
        bounds = tuple(fmt.ClockBounds(True, rng.choice(HOSTILE), rng.choice(HOSTILE)) for _ in range(1))
        seal = fmt.pack_seal(fmt.Seal(rng.choice(HOSTILE), rng.choice(HOSTILE), 1, bounds))
        at = fmt.parse_identity(original[:512], "").seal_offset
        data[at : at + len(seal)] = seal


def hostile_rows(data: bytearray) -> None:
    """Rows of marks or of a registry with hostile numbers and checks that are right."""
    identity = fmt.parse_identity(original[:512], "")
    size, count = identity.record_size, rng.choice((1, 2, 3, 5))
    data[8 * fmt.COMMIT : 8 * fmt.COMMIT + 8] = struct.pack("<Q", rng.choice((count, count, *HOSTILE)))
    for row in range(count):
        at = HEAD + row * size
        for _ in range(rng.choice((1, 2, 4))):
            word = at + 8 * rng.randrange(min(9, size // 8 - 1))
            data[word : word + 8] = rng.choice((struct.pack("<Q", rng.choice(HOSTILE)), rng.randbytes(8)))
        body = bytes(data[at : at + size])
        if kind == "marks":
            data[at + size - 4 : at + size] = struct.pack("<I", crc32(body[:-4]))
        else:
            words = np.frombuffer(body, np.uint64)[:-1]
            check = int((words * registry.odd_weights(len(words))).sum(dtype=np.uint64))
            data[at + size - 8 : at + size] = struct.pack("<Q", check)


def bytes_changed(data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        at = rng.randrange(min(len(data), HEAD + 512 or len(data)))
        piece = rng.choice((rng.randbytes(1), rng.randbytes(8), b"\0" * 16, b"\xff" * 8))
        data[at : at + len(piece)] = piece


def spliced(data: bytearray) -> None:
    at, size = rng.randrange(len(data)), rng.randrange(1, 600)
    other = rng.randrange(len(data))
    data[at : at + size] = data[other : other + size]


def cut(data: bytearray) -> None:
    del data[rng.choice((rng.randrange(len(data)), 64 * rng.randrange(len(data) // 64 + 1))) :]


def extended(data: bytearray) -> None:
    data += rng.choice((b"\0", b"\0" * 16384, rng.randbytes(100), rng.randbytes(16384)))


def text_changed(data: bytearray) -> None:
    """Tokens of JSON moved, doubled, replaced by what JSON or Python make something strange of."""
    tokens = (b"-1", b"1e400", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"99999999999999999999999", b"1.5",
              b'"O"', b'"u8,O"', b'"char[99999999]"', b'"_99999999"', b'"float64[65537]"', b'"\\ud800"', b"[" * 5000,
              b'"../x"', b"0", b"9" * 5000, b'"persist"', b"18446744073709551616")  # fmt: skip
    places = [k for k, byte in enumerate(data) if byte in b':,[{"'] or [-1]
    for _ in range(rng.choice((1, 2))):
        at = rng.choice(places) + 1
        stop = min((data.find(mark, at) for mark in (b",", b"}", b"]", b"\n") if data.find(mark, at) > 0), default=at)
        data[at : rng.choice((at, stop))] = rng.choice(tokens)


def ways() -> list[Any]:
    common = [bytes_changed, spliced, cut, extended]
    if kind in JSON:
        return [*common, text_changed, text_changed, text_changed]
    if kind == "wake":
        return common
    rows = [hostile_rows] * 3 if kind in ("marks", "registry", "feeds") else []
    return [*common, hostile_header, hostile_header, hostile_words, hostile_words, *rows]


# ------------------------------------------------------------------------------------------ trials

counts: Counter = Counter()
failures: list[str] = []


def judge(look: Any, may_be_wrong: bool, what: str) -> None:
    """One look at damaged files."""
    counts["trials"] += 1
    try:
        found = look()
        counts["opened"] += 1
    except DeepwaterError:
        counts["refused"] += 1
        return
    except FileNotFoundError:  # of what a damaged registry or description names
        counts["refused"] += 1
        return
    except BaseException:  # noqa: BLE001 (that is what is looked for)
        failures.append(f"{kind} {what}: {traceback.format_exc(limit=-3)[-700:]}")
        return
    piece = truth["R" if kind in ("ring", "wake") else "F"] if look not in LOOKS.values() else PIECES.get(kind, b"")
    if not may_be_wrong and isinstance(found, bytes) and not (piece.startswith(found) or piece.endswith(found)):
        failures.append(f"{kind} {what}: {len(found) // SIZE} records, and not those that were written")
    elif may_be_wrong and isinstance(found, bytes) and not (piece.startswith(found) or piece.endswith(found)):
        counts["in words without a checksum"] += 1


def limit() -> None:
    """Little more memory than now; and no file that fills the disk."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (now + (48 << 20), now + (48 << 20)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))


def reset() -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(original)
    path.chmod(0o600)


def every_bit() -> None:
    chosen = bits()
    counts["bits"] = len(chosen)
    if most and most < len(chosen):
        chosen = sorted(rng.sample(chosen, most))
    look = LOOKS[kind]
    fd = os.open(path, os.O_RDWR)
    for number, bit in enumerate(chosen):
        told[0] = bit
        at, byte = bit // 8, original[bit // 8]
        os.pwrite(fd, bytes([byte ^ 1 << bit % 8]), at)
        judge(look, unchecked(bit), f"bit {bit} (byte {at})")
        if number % FULL_EVERY == 0 and kind != "store":
            judge(lambda: front_door(False), unchecked(bit), f"bit {bit} (byte {at}), front door")
        os.pwrite(fd, bytes([byte]), at)
    os.close(fd)


def mutants() -> None:
    look, choices = LOOKS[kind], ways()
    # Damage to the records themselves is for the checksums of blocks; the ring beside a wake page goes on here.
    is_data = kind in ("sealed", "active", "ring", "wake")
    backup = base / f"backup-{kind}"
    shutil.copytree(store, backup)
    for number in range(most):
        own = seed * 1_000_003 + number
        told[0] = own
        rng.seed(own)
        data = bytearray(original)
        for _ in range(rng.choice((1, 1, 1, 2))):
            if len(data) >= len(original):  # what was cut is not damaged further: there may be nothing
                rng.choice(choices)(data)
        with open(path, "wb") as file:
            file.write(data)
        judge(look, is_data, f"mutant {own}")
        if number % FULL_EVERY == 0:
            judge(lambda: front_door(True), is_data, f"mutant {own}, front door")
            if kind not in ("ring", "wake"):
                shutil.rmtree(store)
                shutil.copytree(backup, store)
                reopen()
            else:
                reset()


def reopen() -> None:
    """The store's directories are others now."""
    global feed_dir, base_dir
    feed_dir.close()
    base_dir.close()
    feed_dir, base_dir = Directory(str(store / "data" / "F")), Directory(str(store))


LOOKS[kind]()
judge(lambda: front_door(False), False, "undamaged")
assert not failures, failures
limit()
every_bit() if how == "bits" else mutants()
print(json.dumps({"counts": counts, "failures": failures[:30], "failed": len(failures)}), flush=True)
os._exit(0)  # the limits of memory are no concern of an orderly end
