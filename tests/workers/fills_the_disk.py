"""Writes until there is no space, again and again. What is acknowledged is never lost; with space it goes on.

Arguments: "limit" (a limit on the size of files stands for the full disk) or "disk" (the base path is on a small file
system of its own), the base path, how many rounds. Says counts as name=value.
"""

import contextlib
import errno
import os
import random
import resource
import sys
from pathlib import Path

import model
from deepwater import DeepwaterError, Platform, StorageFullError

how, base, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
rng = random.Random(5)
SIZE = model.CHECKED.itemsize
CHUNK_ROWS = 512  # 48 KiB of header and records
SPEC = {
    "feed_name": "D",
    "ts_col": "ts_us",
    "fields": model.CHECKED_FIELDS,
    "index_playback": True,
    "chunk_size_bytes": CHUNK_ROWS * SIZE,
}
_, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)
counts = {"rounds": 0, "refused": 0, "marks_refused": 0, "opens_refused": 0, "written": 0}
filler = base.parent / "filler"


def starve() -> None:
    """Take the space away, to a random level."""
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (rng.choice((20_000, 40_000, 48_000)), HARD))
        return
    left = rng.choice((0, 4096, 16384, 32768, 49_152, 65_536, rng.randrange(400_000)))
    with filler.open("wb") as file:
        while (size := (free := os.statvfs(base.parent)).f_bavail * free.f_frsize - left) > 0:
            with contextlib.suppress(OSError):  # the writer's next chunk, just being made, took some of it
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)


def feed() -> None:
    """Give it back."""
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (HARD, HARD))
    else:
        filler.unlink(missing_ok=True)


def check(dw: Platform, end: int) -> None:
    with dw["D"] as reader:
        assert int(reader.end) == end, (reader.end, end)
        model.whole_writes(model.joined(reader.rows(0, end), model.CHECKED))
        reader.marks()
    directory = base / "data" / "D"
    assert len(model.stored(directory)) == end * SIZE


def check_closed() -> None:
    """A failed allocation leaves no file (while a writer is open, its next chunk may be in the making)."""
    left = [name for name in os.listdir(base / "data" / "D") if name.startswith(".tmp")]
    assert not left, left


def write(writer, end: int, number: int) -> int:
    """One write of a random kind; the new end. StorageFullError leaves everything as it was."""
    rows = rng.choice((1, 1, 20, 200, CHUNK_ROWS, 3 * CHUNK_ROWS))
    batch = model.checked_records(end, rows, number)
    try:
        if rows == 1:
            assert writer.write_values(*batch[0].item()[:-1], batch[0]["filler"]) == end
        else:
            assert writer.write_batch(batch, create_index=rng.random() < 0.2) == end
    except StorageFullError as error:
        assert isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG), error  # noqa: PT017
        counts["refused"] += 1
        assert writer.end == end
        return end
    counts["written"] += rows
    return end + rows


with Platform(base) as dw:
    end = number = 0
    writer = None
    for round_ in range(rounds):
        if writer is None or end > 12_000:
            if writer:
                writer.close()
                check_closed()
                dw.delete_feed("D")
            dw.create_feed(SPEC)
            writer, end = dw.create_writer("D"), 0
        starve()
        for _ in range(12):
            number += 1
            end = write(writer, end, number)
            try:
                writer.mark_gap(number)
            except StorageFullError:
                counts["marks_refused"] += 1
        check(dw, end)
        if round_ % 7 == 0:  # also a writer that opens on a full disk
            writer.close()
            check_closed()
            try:
                writer = dw.create_writer("D")
            except StorageFullError:
                counts["opens_refused"] += 1
                feed()
                writer = dw.create_writer("D")
            assert writer.end == end
        if round_ % 5 == 0:
            try:
                writer.resize_chunk_size(rng.choice((300, 512)) * SIZE)
            except StorageFullError:
                assert writer.end == end
        if round_ % 9 == 0:
            try:
                dw.create_feed({**SPEC, "feed_name": "OTHER"})
                other = dw.create_writer("OTHER")
                other.close()
            except (OSError, DeepwaterError) as error:
                assert error.errno in (errno.ENOSPC, errno.EFBIG), error  # noqa: PT017
                counts["opens_refused"] += 1
        feed()
        if "OTHER" in dw:
            dw.create_writer("OTHER").close()
            dw.delete_feed("OTHER")
        before = counts["refused"]
        for _ in range(2):
            number += 1
            end = write(writer, end, number)
        assert counts["refused"] == before, "there is space, and it does not go on"
        check(dw, end)
        counts["rounds"] += 1
    writer.close()
    dw.delete_feed("D")
    assert not [name for name in os.listdir(base / "data") if name != "F"], os.listdir(base / "data")
print(*(f"{name}={count}" for name, count in counts.items()))
