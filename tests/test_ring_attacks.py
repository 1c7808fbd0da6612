"""Attacks on rings and on shared memory that once succeeded: each test repeats one.

What a race does by chance is done here at the one moment that matters, from a hook: a resize between the listing of a
directory and the opening of what was listed, a lap between two loads, an interrupt wherever CPython can deliver one.
Each test has a shared memory of its own, below its directory, and leaves it empty.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import (
    CorruptFileError,
    FeedNotFoundError,
    Platform,
    RecordError,
    SchemaError,
    StorageFullError,
    follow,
    futex,
    ring_chain,
    ring_writer,
    shm,
    wake,
)
from deepwater import format as fmt
from deepwater.locks import boot_id, start_ticks
from deepwater.ring import Ring, WritableRing
from deepwater.ring_chain import Pieces, RingChain
from deepwater.ring_files import ROOT_VARIABLE
from deepwater.waiting import Waiter
from interrupts import Interrupt
from processes import Worker, run_python

CAPACITY = 100
FIELDS = [{"name": "ts_us", "type": "uint64"}, {"name": "x", "type": "uint64"}]
DTYPE = model.dtype_of(FIELDS)
SIZE = DTYPE.itemsize
NOBODY = 65534
NEVER = float("inf")
DURABLE = {"persist": True}
RING_AND_DURABLE = (("R",), ("D", 25, True))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")


def spec(name: str = "R", rows: int = CAPACITY, persist: bool = False, **changes: Any) -> dict[str, Any]:
    return {"feed_name": name, "ts_col": "ts_us", "persist": persist, "chunk_size_bytes": rows * SIZE,
            "fields": FIELDS, **changes}  # fmt: skip


def rows(first: int, count: int) -> np.ndarray:
    """Records that say their position, 1 ms apart."""
    out = np.zeros(count, DTYPE)
    out["x"] = np.arange(first, first + count)
    out["ts_us"] = (out["x"] + 1) * 1000
    return out


def more(writer: Any, count: int) -> None:
    """Write the next records, in writes that a ring of `CAPACITY` takes."""
    while count:
        now = min(count, CAPACITY // 2)
        writer.write_batch(rows(writer.end, now))
        count -= now


def positions(batches: Any) -> list[int]:
    return [int(x) for records in batches for x in records["x"]]


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def shared(dw: Platform) -> Path:
    return Path(dw._store.shared.path)


def rings(dw: Platform, feed: str = "R") -> list[str]:
    return sorted(path.name for path in shared(dw).glob(f"{feed}-*"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared memory that no other run of the tests looks into."""
    path = tmp_path / "shm"
    path.mkdir()
    monkeypatch.setenv(ROOT_VARIABLE, str(path))
    return path


@pytest.fixture
def dw(tmp_store: Path, root: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(spec())
        yield platform
        for name in platform:
            platform.delete_feed(name)
    assert [path for path in files_below(root) if not path.endswith("/store.json")] == []


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that every user may write into, with a shared memory in it: `tmp_path` is closed to others."""
    path = Path(tempfile.mkdtemp(prefix="deepwater-test-"))
    (path / "shm").mkdir()
    for directory in (path, path / "shm"):
        directory.chmod(0o1777)
    monkeypatch.setenv(ROOT_VARIABLE, str(path / "shm"))
    yield path
    shutil.rmtree(path)


AS_NOBODY = """
import codecs, os, sys
import filelock, numpy as np
import test_ring_attacks as kit
from deepwater import Platform, futex, ring_chain, shm, wake
import deepwater.cli, deepwater.describe
[codecs.lookup(name) for name in ("ascii", "idna", "latin-1", "utf-8")]  # what loads late is loaded as root
list(Platform(sys.argv[1]).list_feeds())
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
"""


def as_nobody(code: str, *args: object) -> str:
    """What a program of another user says (of this one, where we are not root)."""
    first = "import pandas\n" if ".feeds()" in code else ""
    return run_python(first + AS_NOBODY + code, *args).stdout.strip()


# -------------------------------------------------------------------------------- a resize while a ring is looked for


class Resizes:
    """Resizes a ring, always a bit larger, just after somebody has listed the shared directory."""

    def __init__(self, writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._writer, self._listed = writer, ring_chain.ring_ids
        self._size, self.gaps, self.in_a_row = CAPACITY, 0, 1
        monkeypatch.setattr(ring_chain, "ring_ids", self._ring_ids)

    def now(self) -> None:
        self._size += 1
        self._writer.resize_chunk_size(self._size * SIZE)

    def _ring_ids(self, directory: Any, feed: str) -> list[int]:
        found = self._listed(directory, feed)
        if self.gaps:
            self.gaps -= 1
            for _ in range(self.in_a_row):
                self.now()
        return found


def _attached_reader(dw: Platform, writer: Any, resizes: Resizes, arm: Callable[[], None]) -> None:
    reader = dw["R"]
    assert len(reader) == 50
    resizes.now()
    arm()
    assert positions(reader.read()) == list(range(50))


def _attached_follower(dw: Platform, writer: Any, resizes: Resizes, arm: Callable[[], None]) -> None:
    follower = dw["R"].follow("latest", timeout=0)
    writer.write_batch(rows(50, 5))
    resizes.now()
    arm()
    assert positions(follower) == list(range(50, 55))


def _fresh_reader(dw: Platform, writer: Any, resizes: Resizes, arm: Callable[[], None]) -> None:
    arm()
    reader = dw["R"]
    assert reader._ring_chain.end == 50
    assert positions(reader.read()) == list(range(50))


def _fresh_follower(dw: Platform, writer: Any, resizes: Resizes, arm: Callable[[], None]) -> None:
    reader = dw["R"]
    arm()
    follower = reader.follow("latest", timeout=0)
    writer.write_batch(rows(50, 5))
    assert positions(follower) == list(range(50, 55))


def _fresh_record(dw: Platform, writer: Any, resizes: Resizes, arm: Callable[[], None]) -> None:
    arm()
    assert dw["R"].get_latest_record().x == 49


@pytest.mark.parametrize(("gaps", "in_a_row"), [(1, 1), (2, 3), (7, 2)])
@pytest.mark.parametrize(
    "use",
    [_attached_reader, _attached_follower, _fresh_reader, _fresh_follower, _fresh_record],
    ids=lambda use: use.__name__,
)
def test_a_resize_while_the_ring_is_looked_for_hides_nothing(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, use: Any, gaps: int, in_a_row: int
) -> None:
    """What was listed is gone when it is opened, again and again: the feed is neither deleted nor empty."""
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))
        resizes = Resizes(writer, monkeypatch)

        def arm() -> None:
            resizes.gaps, resizes.in_a_row = gaps, in_a_row

        use(dw, writer, resizes, arm)
        resizes.gaps = 0


def test_at_each_step_of_a_resize_readers_see_all_there_is(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attached ones and fresh ones look before and after each: the old ring stands beside the new one meanwhile."""
    attached, looked = dw["R"], []
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 50))

        def look() -> None:
            looked.append(None)
            for reader in (attached, dw["R"]):
                assert positions(reader.read()) == list(range(50))

        for owner, name in [(WritableRing, "begin"), (WritableRing, "own"), (WritableRing, "activate"),
                            (ring_writer.Directory, "remove")]:  # fmt: skip
            real = getattr(owner, name)

            def stepped(*args: Any, real: Any = real, **kwargs: Any) -> Any:
                look()
                result = real(*args, **kwargs)
                look()
                return result

            monkeypatch.setattr(owner, name, stepped)
        writer.resize_chunk_size(90 * SIZE)
        monkeypatch.undo()
        monkeypatch.setenv(ROOT_VARIABLE, os.path.dirname(os.path.dirname(shared_path(dw))))
        assert len(looked) >= 8
        look()


def shared_path(dw: Platform) -> str:
    return str(shared(dw))


# -------------------------------------------------------------------------------- listing and cleaning


def _typo(dw: Platform) -> Callable[[], None]:
    path = Path(dw.base_path) / "data" / "R" / "settings.json"
    before = path.read_bytes()
    path.write_text("{oops")
    return lambda: path.write_bytes(before) and None


def _newer(dw: Platform) -> Callable[[], None]:
    path = Path(dw.base_path) / "store.json"
    before = path.read_bytes()
    path.write_text(f'{{"format": "9.0", "store_id": "{uuid.uuid4()}"}}')
    return lambda: path.write_bytes(before) and None


def _renamed(dw: Platform) -> Callable[[], None]:
    moved = dw.base_path + "-moved"
    os.rename(dw.base_path, moved)
    return lambda: os.rename(moved, dw.base_path)


def _no_about(dw: Platform) -> Callable[[], None]:
    path = shared(dw) / "store.json"
    before = path.read_bytes()
    path.unlink()
    return lambda: path.write_bytes(before) and None


@pytest.mark.faults
@pytest.mark.parametrize("state", ["open", "closed"])
@pytest.mark.parametrize("hurt", [_typo, _newer, _renamed, _no_about], ids=lambda f: f.__name__)
def test_what_cannot_be_told_is_no_orphan_and_stays(dw: Platform, hurt: Any, state: str) -> None:
    """A live ring whatever became of its store; a ring that nobody writes unless its store is seen to be gone."""
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 10))
        path = shared(dw) / "R-1"
        if state == "closed":
            writer.close()
            if hurt is _renamed:
                pytest.skip("not known at its new place until somebody has written there")
        undo = hurt(dw)
        entries = shm.listing()
        assert [(e["orphan"], e["why"]) for e in entries if e["path"] == str(path)] == [(False, None)]
        assert not any(e["orphan"] for e in entries)
        assert shm.clean([e | {"orphan": True} for e in entries]) == 0
        assert path.exists()
        undo()
        if state == "open":
            writer.write_batch(rows(10, 5))
        assert len(dw["R"]) == (15 if state == "open" else 10)


@pytest.mark.faults
def test_a_store_that_cannot_be_read_for_a_moment_keeps_its_ring(public: Path) -> None:
    """By its own user: an encrypted home that is not open, a share that is not mounted. Written or not."""
    said = as_nobody(
        """
for closed in (False, True):
    base = f"{sys.argv[1]}/{closed}/store"
    os.makedirs(base)
    dw = Platform(base)
    dw.create_feed(kit.spec())
    writer = dw.create_writer("R")
    writer.write_batch(kit.rows(0, 10))
    if closed:
        writer.close()
    for hidden in (base, os.path.dirname(base)):
        os.chmod(hidden, 0)
        entries = shm.listing()
        print(*{entry["orphan"] for entry in entries}, shm.clean(entries), end=" ")
        os.chmod(hidden, 0o700)
    print(len(dw["R"]), end=" ")
    writer.close()
    dw.delete_feed("R")
""",
        public,
    )
    assert said == " ".join(["False 0 False 0 10"] * 2)
    assert files_below(public / "shm") == []


def own_line(path: Path, offset: int, **changes: Any) -> None:
    """Store an owner's line as a process of another machine or container would."""
    owner: dict[str, Any] = {"pid": 4_194_303, "start": 1, "boot_id": boot_id(), "inode": 1, "device": 1,
                             "since_us": 1, "host": "elsewhere", "held": True}  # fmt: skip
    model.poke(path, offset, fmt.pack_owner(fmt.Owner(**(owner | changes)))[1])


@pytest.mark.faults
@pytest.mark.parametrize("gone", ["feed", "store"])
@pytest.mark.parametrize(
    ("changes", "stays"),
    [({}, True), ({"held": False}, False), ({"boot_id": bytes(16)}, False), ({"host": os.uname().nodename}, False),
     ({"host": os.uname().nodename, "pid": os.getpid(), "start": start_ticks(os.getpid())}, True)],
    ids=["out of sight", "released", "another boot", "dead", "alive"],
)  # fmt: skip
def test_a_ring_held_in_a_container_of_this_machine_is_no_orphan(
    dw: Platform, root: Path, changes: dict[str, Any], stays: bool, gone: str
) -> None:
    """Its process cannot be looked up from here, and its feed is not to be seen either. Rings and words alike."""
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 10))
        words = (shared(dw) / "R.wake").read_bytes() if futex.available() else None
    paths = [shared(dw) / "R-1"]
    own_line(paths[0], fmt.pack_owner(fmt.Owner(1, 1, bytes(16), 1, 1, 1, "", True))[0], **changes)
    if words is not None:
        paths.append(shared(dw) / "R.wake")
        paths[1].write_bytes(words)
        own_line(paths[1], getattr(wake, "OWNER_OFFSET", 256), **changes)
    data = Path(dw.base_path) / "data" / "R"
    shutil.rmtree(data if gone == "feed" else dw.base_path)
    entries = shm.listing()
    assert [(e["path"], e["orphan"]) for e in entries] == [(str(path), not stays) for path in paths]
    assert shm.clean([e | {"orphan": True} for e in entries]) == (0 if stays else len(paths))
    assert [path.exists() for path in paths] == [stays] * len(paths)
    if stays:
        shutil.rmtree(next(root.iterdir()))


KILLED_WRITER = """
import sys
import test_ring_attacks as kit
from deepwater import Platform
writer = Platform(sys.argv[1]).create_writer("R")
writer.write_batch(kit.rows(0, 10))
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.faults
@pytest.mark.parametrize("gone", ["store", "feed", "life"])
def test_what_a_killed_writer_left_of_something_that_is_gone_is_removed(dw: Platform, root: Path, gone: str) -> None:
    with Worker(KILLED_WRITER, dw.base_path) as worker:
        assert worker.readline() == "written"
        live = shm.listing()
        assert live and not any(e["orphan"] for e in live) and live[0]["writer_pid"] == worker.pid
        worker.kill()
    assert not any(e["orphan"] for e in shm.listing())  # the feed's next writer goes on with it
    data = Path(dw.base_path) / "data" / "R"
    shutil.rmtree(dw.base_path if gone == "store" else data)
    if gone == "life":
        dw.create_feed(spec())
    why = {"store": "its store is gone", "feed": "its feed is gone", "life": "another life of its feed has begun"}[gone]
    entries = shm.listing()
    assert {e["why"] for e in entries if e["kind"] == "ring"} == {why}
    assert shm.clean(entries) == sum(e["orphan"] for e in entries) >= 1
    assert rings(dw) == []
    if gone == "store":
        assert list(root.iterdir()) == []


@pytest.mark.faults
def test_half_made_files_that_are_old_are_removed_and_young_ones_are_not(dw: Platform) -> None:
    with dw.create_writer("R"):
        old, young = (shared(dw) / f".tmp-R-2-{uuid.uuid4().hex}" for _ in range(2))
        for path in (old, young):
            path.write_bytes(bytes(100))
        minute_ago = time.time() - 61
        os.utime(old, (minute_ago, minute_ago))
        entries = shm.listing()
        assert [e["path"] for e in entries if e["orphan"]] == [str(old)]
        assert shm.clean(entries) == 1
        assert (old.exists(), young.exists(), rings(dw)) == (False, True, ["R-1"])
    with dw.create_writer("R"):
        assert not young.exists()


ABOUTS = {
    "nul": '{"base_path": "/a\\u0000b", "store_id": "00"}',
    "surrogate": '{"base_path": "\\ud800", "store_id": "00"}',
    "long": '{"base_path": "/%s", "store_id": "00"}' % ("a" * 5000),
    "numbers": '{"base_path": 1, "store_id": 2}',
    "list": "[1]",
    "deep": "[" * 60_000,
    "huge": "[" * 100_000,
    "not json": "\0",
}


@pytest.mark.faults
@pytest.mark.parametrize("about", ABOUTS)
def test_one_bad_description_of_a_store_does_not_end_the_listing(dw: Platform, about: str) -> None:
    bad = shared(dw).parent / "0123456789abcdef"
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 3))
        bad.mkdir()
        (bad / "store.json").write_text(ABOUTS[about])
        (bad / "x-1").write_bytes(b"junk")
        entries = shm.listing()
        assert str(shared(dw) / "R-1") in [e["path"] for e in entries]
        assert not any(e["orphan"] for e in entries)
        assert shm.clean(entries) == 0
    shutil.rmtree(bad)


@pytest.mark.faults
@pytest.mark.parametrize("what", ["directory", "fifo", "link", "empty", "second name", "unreadable directory"])
@pytest.mark.parametrize("where", ["live store", "gone store"])
def test_no_strange_file_stops_cleaning_or_costs_a_live_ring(
    dw: Platform, tmp_path: Path, what: str, where: str
) -> None:
    """Of two orphans in a store that is gone both go, whatever lies between them; nothing of a live one does."""
    other = tmp_path / "other"
    with Platform(other) as gone:
        for name in ("A", "Z"):
            gone.create_feed(spec(name))
            gone.create_writer(name).close()
        place = shared(gone)
    shutil.rmtree(other)
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 3))
        strange = (shared(dw) if where == "live store" else place) / "R-7"
        {"directory": strange.mkdir, "fifo": lambda: os.mkfifo(strange), "empty": strange.touch,
         "link": lambda: strange.symlink_to("/etc/passwd"), "second name": lambda: os.link(shared(dw) / "R-1", strange),
         "unreadable directory": lambda: strange.mkdir(mode=0)}[what]()  # fmt: skip
        entries = shm.listing()
        assert {e["path"] for e in entries if e["orphan"]} >= {str(place / "A-1"), str(place / "Z-1")}
        assert shm.clean(entries) >= 2
        assert not (place / "A-1").exists() and not (place / "Z-1").exists()
        writer.write_batch(rows(3, 3))
        assert len(dw["R"]) == 6
        if what in ("directory", "unreadable directory"):
            strange.rmdir()
        else:
            strange.unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.faults
def test_a_directory_of_ones_own_that_cannot_be_opened_hides_no_other(public: Path) -> None:
    said = as_nobody(
        """
dw = Platform(sys.argv[1] + "/store")
dw.create_feed(kit.spec())
writer = dw.create_writer("R")
closed = dw._store.shared.path[:-4] + "0000"
os.mkdir(closed, 0)
entries = shm.listing()
print([os.path.basename(entry["path"]) for entry in entries if entry["kind"] == "ring"], shm.clean(entries))
os.rmdir(closed)
writer.close()
dw.delete_feed("R")
""",
        public,
    )
    assert said == "['R-1'] 0"


# -------------------------------------------------------------------------------- kills while a file is made

KILLED_MAKER = """
import os, signal, sys
from deepwater import Platform
reserve = os.posix_fallocate
def die(fd, offset, size):
    reserve(fd, offset, size)
    if size > 16384 or sys.argv[2] == "wake file":
        os.kill(os.getpid(), signal.SIGKILL)
os.posix_fallocate = die
Platform(sys.argv[1]).create_writer(sys.argv[3])
"""


@pytest.mark.faults
@pytest.mark.skipif(not futex.available(), reason="without futexes there is no wake file")
@pytest.mark.parametrize("feed", ["R", "D"], ids=["ring", "durable"])
@pytest.mark.parametrize("by", ["the next writer", "delete_feed"])
@pytest.mark.parametrize("file", ["wake file", "ring"])
def test_a_file_that_was_being_made_goes_with_the_next_writer_or_the_feed(
    dw: Platform, feed: str, by: str, file: str
) -> None:
    """Killed when its memory was reserved. What another feed is making, whose name begins alike, stays."""
    if (feed, file) == ("D", "ring"):
        pytest.skip("a durable feed has no ring")
    dw.create_feed(spec("D", **DURABLE))
    dw.create_feed(spec(f"{feed}-1"))
    for _ in range(2):
        assert run_python(KILLED_MAKER, dw.base_path, file, feed, check=False).returncode == -9
        left = [path for path in shared(dw).iterdir() if path.name.startswith(f".tmp-{feed}")]
        assert len(left) == 1  # of the one before nothing is left
    others = shared(dw) / f".tmp-{feed}-1-1-{uuid.uuid4().hex}"
    others.touch()
    if by == "delete_feed":
        dw.delete_feed(feed)
        assert [path.name for path in shared(dw).iterdir() if path.name.startswith(".tmp")] == [others.name]
    else:
        with dw.create_writer(feed) as writer:
            assert [path.name for path in shared(dw).iterdir() if path.name.startswith(".tmp")] == [others.name]
            writer.write_batch(rows(0, 3))
            assert positions(dw[feed].read()) == [0, 1, 2]


# -------------------------------------------------------------------------------- a lap between two loads


class Laps:
    """The words of a ring, seen by a reader that is held up after it loaded the commit word for the n-th time."""

    def __init__(self, words: memoryview, load: int, meanwhile: Callable[[], None]) -> None:
        self._words, self._left, self._meanwhile = words, load, meanwhile

    def __getitem__(self, index: int) -> int:
        value = self._words[index]
        if index == fmt.COMMIT:
            self._left -= 1
            if self._left == 0:
                self._meanwhile()
        return value

    def release(self) -> None:
        self._words.release()


LOOKS: dict[str, Callable[[Any], Any]] = {
    "len": lambda r: list(range(len(r))),
    "read": lambda r: positions(r.read()),
    "latest": lambda r: positions(r.latest(1)),
    "last rows": lambda r: positions(r.read(last=3)),
    "last time": lambda r: positions(r.read(last="1ms")),
    "record": lambda r: [r.get_latest_record().x],
    "index": lambda r: [int(r[-1]["x"])],
    "slice": lambda r: positions(r[-5:]),
    "coverage": lambda r: [int(time) // 1000 - 1 for time in r.coverage()],
    "asof": lambda r: [int(r.asof([10**9]).positions[0])],
}


@pytest.mark.parametrize(("load", "moved"), [(1, 60), (1, 100), (1, 250), (2, 130)])
@pytest.mark.parametrize("look", LOOKS)
def test_a_ring_that_went_around_between_two_loads_is_not_empty(dw: Platform, look: str, load: int, moved: int) -> None:
    """Commit word and claim word are loaded one after the other, and the writer may be a lap on in between."""
    with dw.create_writer("R") as writer:
        more(writer, 100)
        reader = dw["R"]
        words = reader._ring_chain.tail.segment.words
        reader._ring_chain.tail.segment.words = Laps(words, load, lambda: more(writer, moved))
        try:
            found = LOOKS[look](reader)
            more(writer, 100)
            again = LOOKS[look](reader)
        finally:
            reader._ring_chain.tail.segment.words = words
        for answer, ends in [(found, (100, 100 + moved)), (again, (writer.end - moved, writer.end))]:
            if look == "len":
                assert 0 < len(answer) <= CAPACITY
            elif look == "coverage":
                assert answer[1] + 1 in ends and 0 <= answer[1] - answer[0] < CAPACITY
            else:
                assert answer == list(range(answer[0], answer[0] + len(answer))) and answer[-1] + 1 in ends
        if look in ("latest", "last rows", "last time", "slice"):
            assert len(found) == {"latest": 1, "last rows": 3, "last time": 2, "slice": 5}[look]


@pytest.mark.parametrize("moved", [60, 100, 130, 250])
@pytest.mark.parametrize("load", [1, 2])
def test_the_earliest_record_is_found_though_the_ring_goes_around(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, load: int, moved: int
) -> None:
    """The chain that a follower gets of its own is held up while it opens the ring: it is told of no loss after it."""
    with dw.create_writer("R") as writer:
        more(writer, 100)
        reader, opened = dw["R"], Ring.open.__func__  # type: ignore[attr-defined]

        def held_up(cls: Any, *args: Any, **kwargs: Any) -> Any:
            ring = opened(cls, *args, **kwargs)
            ring.segment.words = Laps(ring.segment.words, load, lambda: more(writer, moved))
            return ring

        with monkeypatch.context() as patch:
            patch.setattr(Ring, "open", classmethod(held_up))
            follower = reader.follow("earliest", timeout=0)
            with follower:
                first, end = reader.first, reader.end
                assert end == 100 + moved and follower.position == first
                assert positions(follower) == list(range(first, end))


# -------------------------------------------------------------------------------- records change inside a question


@pytest.mark.parametrize("disorder", [False, True], ids=["in order", "out of order"])
@pytest.mark.parametrize("question", ["asof", "range", "last", "position"])
def test_a_question_whose_oldest_records_change_inside_it_is_asked_again(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, question: str, disorder: bool
) -> None:
    """The writer overwrites them between any two looks of the question at a column."""
    column, left = Pieces.column, 0

    def changing(self: Pieces, index: int, clock: int) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            writer.write_batch(rows(writer.end, 23))
        return column(self, index, clock)

    with dw.create_writer("R") as writer:
        for _ in range(5):
            writer.write_batch(rows(writer.end, 23))
        reader, met = dw["R"], 0
        monkeypatch.setattr(Pieces, "column", changing)
        for step in range(1, 16):
            if disorder:
                records = rows(writer.end, 23)
                records["ts_us"][11] -= 1  # after the one before it still, but the ring cannot know that it will be
                records["ts_us"][12] -= 1001
                writer.write_batch(records)
            first, end = reader.first, reader.end
            times = (np.arange(first, end, dtype=np.uint64) + 1) * 1000
            left = step
            if question == "asof":
                answer = reader.asof(times)
                found = answer.positions
                held = found[found >= 0]
                assert (found[: len(found) - len(held)] == -1).all() and len(held) >= 20
                assert (answer.records()["x"] == held).all()
                assert (answer.records()["ts_us"] <= times[len(found) - len(held) :]).all()
                if not disorder:
                    assert held.tolist() == list(range(end - len(held), end))
            elif question == "position":
                at = reader.position_of(int(times[30]))
                assert first <= at <= reader.end
            else:
                window = reader.read(int(times[0]), int(times[-1])) if question == "range" else reader.read(last="60ms")
                got = positions(window)
                assert got == sorted(set(got)) and len(got) >= 20
            met += left <= 0
            left = 0
        assert met  # some of the steps were inside the question


# -------------------------------------------------------------------------------- the file is removed


def _one(name: str) -> Callable[[Platform], None]:
    return lambda dw: (shared(dw) / name).unlink()


REMOVALS: dict[str, Callable[[Platform], None]] = {
    "file": _one("R-1"),
    "store": lambda dw: shutil.rmtree(shared(dw)),
    "user": lambda dw: shutil.rmtree(shared(dw).parent),
}


@pytest.mark.parametrize("state", ["open", "closed"])
@pytest.mark.parametrize("removal", REMOVALS)
def test_a_reader_whose_ring_was_removed_is_told(dw: Platform, removal: str, state: str) -> None:
    """At the next of the looks that it takes now and then; every call of it makes them."""
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 10))
        if state == "closed":
            writer.close()
        uses: list[Callable[[Any], Any]] = [
            len, lambda r: r.read(), lambda r: r.latest(1), lambda r: r.end, lambda r: r[-1], lambda r: r.asof([1]),
            lambda r: r.get_latest_record(), lambda r: r.coverage(), lambda r: r.follow(),
            lambda r: r.borrow(1).__enter__(),
        ]  # fmt: skip
        readers = [dw["R"] for _ in uses]
        for reader in readers:
            assert len(reader) == 10
            reader._check_at = NEVER
        REMOVALS[removal](dw)
        for use, reader in zip(uses, readers, strict=True):
            reader._check_at = 0
            with pytest.raises(FeedNotFoundError, match="removed"):
                use(reader)


def _write_values(writer: Any, first: int) -> None:
    for record in rows(first, 3):
        writer.write_values(*record.item())


def _commit_values(writer: Any, first: int) -> None:
    for record in rows(first, 3):
        writer.stage_values(*record.item())
    writer.commit_values()


WRITES: dict[str, tuple[int, Callable[[Any, int], Any]]] = {
    "values": (3, _write_values),
    "staged": (3, _commit_values),
    "few": (2, lambda w, first: w.write_batch(rows(first, 2))),
    "bytes": (2, lambda w, first: w.write_batch_bytes(rows(first, 2).tobytes())),
    "many": (50, lambda w, first: w.write_batch(rows(first, 50))),
}


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("write", WRITES)
def test_a_writer_whose_ring_was_removed_makes_another_and_goes_on(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, write: str, removal: str
) -> None:
    """Under the next id, with the records and the positions: fresh readers find it, attached ones are led there."""
    monkeypatch.setattr(ring_writer, "CHECK_US", 0, raising=False)
    count, do = WRITES[write]
    with dw.create_writer("R") as writer:
        more(writer, 80)
        attached, follower = dw["R"], dw["R"].follow("earliest", timeout=0)
        attached._check_at = NEVER
        follower._check_at = NEVER
        assert positions(follower) == list(range(80))
        REMOVALS[removal](dw)
        do(writer, 80)
        end = 80 + count
        assert (writer.end, rings(dw)) == (end, ["R-2"])
        held = list(range(max(0, end - CAPACITY), end))
        fresh = dw["R"]
        assert positions(fresh.read()) == positions(attached.read()) == held
        assert positions(follower) == list(range(80, end))
        attached._check_at = 0  # it is there again: nobody is told that it was removed
        assert attached.end == end and attached.incarnation == fresh.incarnation
        more(writer, 60)
        assert positions(follower) == list(range(end, end + 60)) and follower.lost == 0
        assert rings(dw) == ["R-2"]


def test_a_ring_that_cannot_be_made_again_loses_no_write_of_those_that_are_refused(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for another when its file is removed: the write is refused, and one later is the next record."""
    monkeypatch.setattr(ring_writer, "CHECK_US", 0, raising=False)
    with dw.create_writer("R") as writer:
        more(writer, 30)
        (shared(dw) / "R-1").unlink()
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", no_space_beyond(0))
            with pytest.raises(StorageFullError):
                writer.write_batch(rows(30, 5))
        assert writer.write_batch(rows(writer.end, 5)) in (0, 30)  # a new life, if nothing was left of the old one
        assert len(dw["R"]) == writer.end


@pytest.mark.parametrize("state", ["before the next writer", "after it"])
def test_a_position_of_a_life_that_is_over_is_refused_by_the_old_reader_too(dw: Platform, state: str) -> None:
    """It is still attached to the ring that was removed; a follower would begin in the new one."""
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 10))
        old = dw["R"]
        kept = old.end
        old._check_at = NEVER
        (shared(dw) / "R-1").unlink()
    if state == "after it":
        with dw.create_writer("R") as writer:
            writer.write_batch(rows(0, 30))
    for reader in (old, dw["R"]):
        with pytest.raises(RecordError, match="another life"):
            reader.follow(position=kept)
    if state == "after it":
        fresh = dw["R"]
        assert positions(fresh.follow(position=fresh.end - 1, timeout=0)) == [29]
        old._check_at = 0
        with pytest.raises(FeedNotFoundError, match="removed"):
            len(old)


# -------------------------------------------------------------------------------- Ctrl-C in a follower



def _aiter(follower: Any) -> Any:
    """One batch of the asynchronous iterator, without a loop: it only ever gives way."""
    step = follower.__anext__()
    try:
        while True:
            step.send(None)
    except StopIteration as done:
        return done.value
    finally:
        step.close()


@pytest.mark.filterwarnings("ignore:coroutine 'sleep' was never awaited")  # interrupted between making and awaiting it
@pytest.mark.parametrize("as_", ["numpy", "arrow"])
@pytest.mark.parametrize("feed", ["R", "D"], ids=["ring", "durable"])
@pytest.mark.parametrize("way", ["next", "wait", "poll", "async", "lap"])
def test_an_interrupt_anywhere_in_a_follower_loses_and_repeats_nothing(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, feed: str, way: str, as_: Any
) -> None:
    """Who goes on with it, or from its `position`, has all: what was handed out and what then comes is everything."""
    if (way, feed) == ("lap", "D"):
        pytest.skip("a durable feed does not overtake")
    dw.create_feed(spec("D", rows=25, **DURABLE))
    step, late = Waiter.step, []

    def arriving(self: Waiter, until: float) -> None:
        if late:
            late.clear()
            writer.write_batch(rows(writer.end, 30))
        step(self, until)

    monkeypatch.setattr(Waiter, "step", arriving)
    take: Callable[[Any], Any] = {"poll": lambda f: f.poll(), "async": _aiter}.get(way, next)
    modules = (follow, ring_chain, sys.modules["deepwater.chain"])
    if way == "poll" and as_ == "arrow":
        pytest.skip("poll hands out arrays")
    with dw.create_writer(feed) as writer, dw[feed] as reader:
        places = 0
        while True:
            places += 1
            skip: Any = {"on_lap": "skip"} if way == "lap" else {}
            follower = reader.follow("latest", as_=as_, batch=10, timeout=60 if way == "wait" else 0, **skip)
            start, got = int(follower.position), []
            if way == "wait":
                late.append(True)
            elif way == "lap":
                more(writer, 170)
            else:
                writer.write_batch(rows(writer.end, 30))
            interrupt = Interrupt(places, *modules)
            before = sys.gettrace()
            try:
                sys.settrace(interrupt)
                try:
                    got.append(take(follower))
                finally:
                    sys.settrace(before)
            except KeyboardInterrupt:
                pass
            if late:  # it came before the records did
                late.clear()
                writer.write_batch(rows(writer.end, 30))
            follower._timeout = 0
            if places % 2:
                got += follower
            else:
                with reader.follow(position=follower.position, as_=as_, timeout=0, **skip) as resumed:
                    got += resumed
                    follower.lost += resumed.lost
            seen = [int(x) for records in got for x in np.asarray(records["x"])]
            assert seen == list(range(start + follower.lost, writer.end)), places
            assert follower.lost == (70 if way == "lap" else 0)
            assert not follower._in_wait.locked()
            follower.close()
            if not interrupt.came:
                break
        assert places > 3


# -------------------------------------------------------------------------------- memory that does not suffice


def no_space_beyond(limit: int) -> Callable[[int, int, int], None]:
    reserve = os.posix_fallocate

    def full(fd: int, offset: int, size: int) -> None:
        if size > limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(fd, offset, size)

    return full


def test_a_ring_that_never_fitted_can_be_made_smaller(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice of the error is `resize_feed`: it must not need the ring that does not fit."""
    monkeypatch.setattr(os, "posix_fallocate", no_space_beyond(1 << 20))
    dw.create_feed(spec("BIG", rows=1 << 20))
    with pytest.raises(StorageFullError, match="resize_feed"):
        dw.create_writer("BIG")
    with pytest.raises(SchemaError):
        dw.resize_feed("BIG", 3)
    with pytest.raises(FeedNotFoundError):
        dw.resize_feed("NONE", 1600)
    dw.resize_feed("BIG", 60 * SIZE)
    assert dw["BIG"].settings.chunk_size_bytes == 60 * SIZE
    assert dw.describe_feed("BIG")["persist"] is False
    with dw.create_writer("BIG") as writer:
        writer.write_batch(rows(0, 30))
        assert writer._ring.capacity == 60
        assert positions(dw["BIG"].read()) == list(range(30))


def test_settings_that_ask_for_too_large_a_ring_keep_the_one_there_is(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", no_space_beyond(1 << 20))
    with dw.create_writer("R") as writer:
        more(writer, 80)
    reader = dw["R"]
    dw.create_feed(spec(rows=1 << 20), update=True)
    with pytest.warns(UserWarning, match=r"keeps its ring of 100 records.*resize_feed") as warned:
        writer = dw.create_writer("R")
    assert len(warned) == 1
    with writer:
        more(writer, 40)
        assert positions(reader.read()) == list(range(20, 120))
    with pytest.warns(UserWarning, match="keeps its ring"):
        dw.resize_feed("R", 70 * SIZE)
    with dw.create_writer("R") as writer:
        assert (writer.end, writer._ring.capacity) == (120, 70)
        assert positions(reader.read()) == list(range(50, 120))


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("step", ["begin", "own", "activate"])
def test_a_resize_that_fails_restores_the_setting_and_the_writer_goes_on(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    with dw.create_writer("R") as writer:
        more(writer, 80)
        reader = dw["R"]

        def fail(*_: Any, **__: Any) -> None:
            patch.undo()
            raise error(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            patch.setattr(WritableRing, step, fail)
            with pytest.raises(error):
                writer.resize_chunk_size(300 * SIZE)
        assert writer.settings.chunk_size_bytes == dw["R"].settings.chunk_size_bytes == CAPACITY * SIZE
        assert writer._ring.capacity == CAPACITY
        more(writer, 40)
        assert positions(reader.read()) == list(range(20, 120))
        assert rings(dw) == ["R-1"]
        writer.resize_chunk_size(300 * SIZE)
        assert (writer.end, writer._ring.capacity, len(reader)) == (120, 300, 100)


# -------------------------------------------------------------------------------- other users


@needs_root
@pytest.mark.parametrize("made_by", ["owner", "root"])
def test_what_root_writes_into_the_store_of_a_user_is_that_users(public: Path, made_by: str) -> None:
    """Store, feeds, chunks, marks, registries, ring and wake file: the owner reads, writes and deletes it all after."""
    base = public / "store"
    base.mkdir()
    os.chown(base, NOBODY, NOBODY)
    if made_by == "owner":
        as_nobody("[Platform(sys.argv[1]).create_feed(kit.spec(*feed)) for feed in kit.RING_AND_DURABLE]", base)
    with Platform(base) as dw:
        if made_by == "root":
            for feed in RING_AND_DURABLE:
                dw.create_feed(spec(*feed))
        dw.create_feed(spec("N", rows=25, index_playback=True, **DURABLE))
        with dw.create_writer("R") as ring, dw.create_writer("D") as durable, dw.create_writer("N") as marked:
            for writer in (ring, durable):
                more(writer, 60)
            marked.write_batch(rows(0, 60), create_index=True)
            ring.resize_chunk_size(200 * SIZE)
            marked.mark_gap(lost=1)
            below = [*base.rglob("*"), *(public / "shm").rglob("*")]
            theirs = {path.name: path.stat().st_uid for path in below}
            assert {"store.json", "registry.bin", "data", "R", "D.reg", "layout.json", "chunk_00000001.bin",
                    "chunk_00000001.idx", "R-2"} <= set(theirs)  # fmt: skip
            assert not futex.available() or {"R.wake", "D.wake"} <= set(theirs)
            assert {name for name, uid in theirs.items() if uid != NOBODY} == set()
    said = as_nobody(
        """
dw = Platform(sys.argv[1])
print(*[len(dw[name]) for name in dw], list(dw.feeds()["records"]))
for name in dw:
    with dw.create_writer(name) as writer:
        kit.more(writer, 40)
        writer.resize_chunk_size(90 * kit.SIZE)
        kit.more(writer, 30)
    print(name, dw[name].end, [entry["orphan"] for entry in shm.listing()])
dw.create_feed(kit.spec("OWN"))
for name in dw:
    dw.delete_feed(name)
""",
        base,
    )
    assert said.splitlines() == ["60 60 60 [60, 60, 60]", "D 130 [False]", "N 130 [False]", "R 130 [False]"]
    assert files_below(public / "shm") == [] and list((public / "shm").iterdir()) == []
    assert list((base / "data").iterdir()) == []


def test_a_feed_that_may_not_be_read_is_a_row_that_says_so(public: Path) -> None:
    """A colleague's look at all feeds: the ring, which is the owner's alone, does not hide the durable ones."""
    base = public / "store"
    with Platform(base) as dw:
        for name, kind in (("D", DURABLE), ("R", {}), ("Z", DURABLE)):
            dw.create_feed(spec(name, **kind))
            with dw.create_writer(name) as writer:
                writer.write_batch(rows(0, 10))
        subprocess.run(["chmod", "-R", "a+rX", base], check=True)
        shared(dw).chmod(0)
        said = as_nobody(
            """
frame = Platform(sys.argv[1]).feeds()
print(frame["records"].fillna(0).astype(int).to_dict())
print(sys.argv[2] in frame.loc["R", "problem"], frame["problem"].notna().to_dict())
""",
            base, shared(dw).parent,
        )  # fmt: skip
        shared(dw).chmod(0o700)
        assert said.splitlines() == ["{'D': 10, 'R': 0, 'Z': 10}", "True {'D': False, 'R': True, 'Z': False}"]
        for name in dw:
            dw.delete_feed(name)
    assert files_below(public / "shm") == []


# -------------------------------------------------------------------------------- one look

ONE_LOOK: dict[str, tuple[Callable[[Any], list[int]], int]] = {
    "r[-1]": (lambda r: [int(r[-1]["x"])], 1),
    "r[-100]": (lambda r: [int(r[-100]["x"])], 1),
    "r[-3:]": (lambda r: positions(r[-3:]), 3),
    "r[-1000:]": (lambda r: positions(r[-1000:]), 100),
    "r[:]": (lambda r: positions(r[:]), 100),
    "r[-9:-4]": (lambda r: positions(r[-9:-4]), 5),
    "read(last='1ms')": (lambda r: positions(r.read(last="1ms")), 2),
    "read(last=3)": (lambda r: positions(r.read(last=3)), 3),
    "latest(3)": (lambda r: positions(r.latest(3)), 3),
    "get_latest_record": (lambda r: [r.get_latest_record().x], 1),
}


@pytest.mark.parametrize("look", ONE_LOOK)
def test_what_counts_from_the_end_is_resolved_in_the_look_that_answers(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """A writer that is a lap on at every look: what was the end at the one before is not held at the next."""
    with dw.create_writer("R") as writer:
        more(writer, 100)
        reader, refresh = dw["R"], RingChain.refresh

        def later(self: RingChain) -> int:
            more(writer, 100)
            return refresh(self)

        with monkeypatch.context() as patch:
            patch.setattr(RingChain, "refresh", later)
            ask, count = ONE_LOOK[look]
            found = ask(reader)
        first = {"r[-100]": writer.end - 100, "r[-9:-4]": writer.end - 9}.get(look, writer.end - count)
        assert found == list(range(first, first + count))
        with pytest.raises(IndexError, match="-101 is not held"):
            reader[-101]


# -------------------------------------------------------------------------------- forks

FORKED = """
import asyncio, os, signal, sys, threading, warnings
import test_ring_attacks as kit
from deepwater import Platform
from deepwater.waiting import Waiter
base, feed, way = sys.argv[1:]
dw = Platform(base)
writer = dw.create_writer(feed)
follower = dw[feed].follow(wait="wake")
got = []

async def one():
    return await follower.__anext__()

async def begin():  # returns while a thread still waits
    task = asyncio.ensure_future(one())
    while not follower._in_wait.locked():
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass

if way == "async":
    asyncio.run(begin())
else:
    thread = threading.Thread(target=lambda: got.append(next(follower)))
    thread.start()
    while not follower._in_wait.locked():
        os.sched_yield()
ready, say = os.pipe()
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: it is what is tried here
child = os.fork()
if child == 0:
    signal.alarm(15)
    step, told = Waiter.step, []
    def waits(self, until):
        if not told:
            told.append(os.write(say, b"x"))
        step(self, until)
    Waiter.step = waits
    batch = asyncio.run(one()) if way == "async" else next(follower)
    follower.close()
    os._exit(len(batch))
os.close(say)
print("the child waits:", os.read(ready, 1) == b"x")
os.close(ready)
writer.write_batch(kit.rows(0, 5))
print("the child got", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if way == "async":
    got.append(asyncio.run(one()))
else:
    thread.join()
print("the parent got", len(got[0]))
follower.close()
writer.close()
"""


@pytest.mark.parametrize(("way", "feed"), [("sync", "R"), ("async", "R"), ("async", "D")])
def test_a_follower_that_waits_while_its_process_forks_works_in_the_child(dw: Platform, feed: str, way: str) -> None:
    """The lock of the thread that waits, and that thread, stay behind in the parent, where they go on."""
    dw.create_feed(spec("D", **DURABLE))
    said = run_python(FORKED, dw.base_path, feed, way, timeout=30).stdout.splitlines()
    assert said == ["the child waits: True", "the child got 5", "the parent got 5"]


# -------------------------------------------------------------------------------- deleting, closing, options


@pytest.mark.faults
@pytest.mark.parametrize("trick", ["the shared memory is a file", "the wake file is a directory", "link"])
def test_a_durable_feed_can_be_deleted_whatever_is_in_shared_memory(dw: Platform, root: Path, trick: str) -> None:
    dw.create_feed(spec("D", **DURABLE))
    if trick == "the wake file is a directory":
        dw.create_writer("R").close()
        (shared(dw) / "D.wake").mkdir()
    elif trick == "link":
        (root / f"deepwater-{os.geteuid()}").symlink_to("/")
    else:
        root.rmdir()
        root.write_text("")
    with dw.create_writer("D") as writer:
        writer.write_batch(rows(0, 3))
    assert positions(dw["D"].follow("earliest", timeout=0)) == [0, 1, 2]
    if trick != "the wake file is a directory":
        with pytest.raises(CorruptFileError, match="refused as shared memory"):
            dw.create_writer("R")
    dw.delete_feed("D")
    assert list(dw) == ["R"]
    if trick == "the shared memory is a file":
        root.unlink()
        root.mkdir()
    elif trick == "link":
        (root / f"deepwater-{os.geteuid()}").unlink()
    else:
        (shared(dw) / "D.wake").rmdir()


@pytest.mark.faults
@pytest.mark.parametrize("feed", ["R", "D"], ids=["ring", "durable"])
@pytest.mark.parametrize("name", ["layout.json", "settings.json"])
def test_a_feed_whose_description_is_damaged_can_be_deleted(dw: Platform, name: str, feed: str) -> None:
    """With its ring, and its readers are told; no reader and no writer of it can be made any more."""
    dw.create_feed(spec("D", **DURABLE))
    with dw.create_writer(feed) as writer:
        writer.write_batch(rows(0, 3))
    reader = dw[feed]
    (Path(dw.base_path) / "data" / feed / name).write_text("{oops")
    with pytest.raises(CorruptFileError, match=name):
        dw.create_writer(feed)
    dw.delete_feed(feed)
    assert feed not in dw and rings(dw, feed) == []
    if feed == "R":
        with pytest.raises(FeedNotFoundError, match="deleted"):
            len(reader)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to count descriptors")
@pytest.mark.parametrize("feed", ["R", "D"], ids=["ring", "durable"])
def test_closed_followers_hold_no_descriptor(dw: Platform, feed: str) -> None:
    """Though they are still there, and know their position: those that slept or ended, and asynchronous ones."""
    dw.create_feed(spec("D", rows=25, **DURABLE))
    with dw.create_writer(feed) as writer:
        more(writer, 60)
        reader = dw[feed]
        before = _descriptors()
        followers = [reader.follow("earliest", timeout=0.001, wait="wake") for _ in range(10)]

        async def run(follower: Any) -> list[Any]:
            return [batch async for batch in follower]

        for k, follower in enumerate(followers):
            batches = asyncio.run(run(follower)) if k % 3 == 2 else list(follower) if k % 3 else []
            assert positions(batches) == (list(range(60)) if k % 3 else [])
        assert _descriptors() > before
        for k, follower in enumerate(followers):
            follower.close()
            follower.close()
            assert follower.position == (60 if k % 3 else 0) and follower.position.incarnation == reader.incarnation
            assert follower.layout is reader.layout
            follower.close()
            assert list(follower) == []
        assert _descriptors() == before
        with pytest.raises(Exception, match="closed"):
            followers[0].poll()
        del batches, follower


@pytest.mark.parametrize("feed", ["R", "D"], ids=["ring", "durable"])
@pytest.mark.parametrize("way", ["next", "poll", "async"])
@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "records there"])
def test_close_from_another_thread_in_the_middle_of_a_look_ends_the_iteration(
    dw: Platform, monkeypatch: pytest.MonkeyPatch, feed: str, way: str, there: bool
) -> None:
    """It lets go of the files, which the look then does not find; nobody hears of that."""
    dw.create_feed(spec("D", rows=25, **DURABLE))
    with dw.create_writer(feed) as writer:
        more(writer, 40)
        for held_up in ("refresh", "take", "check_there"):
            follower = dw[feed].follow("latest", timeout=60)
            follower._check_at = 0
            if there:
                more(writer, 40)
            chain = type(follower._chain)
            real = getattr(chain, held_up)

            def closed(self: Any, *args: Any, real: Any = real, follower: Any = follower) -> Any:
                other = threading.Thread(target=follower.close)
                other.start()
                other.join()
                return real(self, *args)

            with monkeypatch.context() as patch:
                patch.setattr(chain, held_up, closed)
                try:
                    got = {"next": next, "poll": lambda f: f.poll(), "async": _aiter}[way](follower)
                except (StopIteration, StopAsyncIteration):
                    got = None
            assert got is None or (there and got["x"].tolist() == list(range(got["x"][0], got["x"][0] + len(got))))
            follower.close()
            assert list(follower) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [*(("batch", value) for value in (1.5, 2.0, "3", True, 0, -1, float("nan"))),
     *(("timeout", value) for value in ("1", -1, -0.5, True, float("nan"), b"1", [1]))],
)  # fmt: skip
def test_what_is_no_option_of_a_follower_is_refused_by_name(dw: Platform, option: str, value: Any) -> None:
    dw.create_feed(spec("D", **DURABLE))
    for feed in ("R", "D"):
        with pytest.raises((ValueError, TypeError), match=option):
            dw[feed].follow("earliest", **{option: value})


@pytest.mark.parametrize("feed", ["R", "D"], ids=["ring", "durable"])
def test_a_follower_starts_at_one_place(dw: Platform, feed: str) -> None:
    dw.create_feed(spec("D", **DURABLE))
    with dw.create_writer(feed) as writer:
        writer.write_batch(rows(0, 10))
    for start in ("earliest", "snapshot", 0, "2026-01-01"):
        with pytest.raises(ValueError, match=r"start=.*position="):
            dw[feed].follow(start, position=3)
    for good in ({"batch": np.int64(3)}, {"timeout": 0}, {"batch": 1, "timeout": np.float64(0)}, {}):
        with dw[feed].follow(position=4, **{"timeout": 0, **good}) as follower:
            assert positions(follower) == list(range(4, 10))


@pytest.mark.faults
@pytest.mark.parametrize("claim", [2**64 - 1, 2**63, 2**62, 81, 0])
def test_a_claim_that_no_writer_can_have_made_is_mended_by_the_next(dw: Platform, claim: int) -> None:
    """A write takes at most half a ring; more would leave a ring of which nobody can ever read anything."""
    with dw.create_writer("R") as writer:
        writer.write_batch(rows(0, 30))
    model.poke(shared(dw) / "R-1", fmt.CLAIM * 8, claim.to_bytes(8, "little"))
    with dw.create_writer("R") as writer:
        reader, follower = dw["R"], dw["R"].follow("earliest", timeout=0)
        assert positions(reader.read()) == positions(follower) == list(range(30))
        more(writer, 60)
        assert positions(follower) == list(range(30, 90)) and follower.lost == 0
        more(writer, 60)
        assert positions(reader.read()) == list(range(50, 150))
