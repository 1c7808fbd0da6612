"""The directories of a store: making and deleting feeds beside others doing so, and beside kill -9."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepwater import Platform
from deepwater.errors import CorruptFileError, FeedNotFoundError
from deepwater.files import Directory
from processes import run_python

SPEC = {"feed_name": "F", "ts_col": "ts_us", "chunk_size_bytes": 64, "config": {"depth": 5},
        "fields": [{"name": "ts_us", "type": "uint64"}, {"name": "x", "type": "float64"}]}  # fmt: skip


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        platform.create_feed(SPEC)
        with platform.create_writer("F") as w:
            w.write_batch({"ts_us": range(40), "x": [0.0] * 40})
        yield platform


def test_a_reader_that_opens_a_feed_while_it_is_deleted_finds_all_or_nothing(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each unlink of a delete somebody opens the directory that is going away: never a part of the feed."""
    remove, seen = Directory.remove, set()

    def looked_at(directory: Directory, name: str) -> None:
        remove(directory, name)
        if ".gone-" in directory.path:
            seen.add(Path(directory.path, "layout.json").exists())

    monkeypatch.setattr(Directory, "remove", looked_at)
    dw.delete_feed("F")
    assert seen == {False}  # the description goes first
    with pytest.raises(FeedNotFoundError):
        dw.create_reader("F")


def test_what_a_killed_delete_left_is_removed_by_the_next_one(dw: Platform) -> None:
    """And what is old of a killed create; a create that may be going on is left alone."""
    data = Path(dw.base_path) / "data"
    run_python(
        """
        import os, sys
        from deepwater import Platform, store
        store.Store._erase = lambda self, name: os._exit(0)  # dies after the rename
        Platform(sys.argv[1]).delete_feed("F")
        """,
        dw.base_path,
    )
    (left,) = data.glob(".gone-*")
    assert list(left.glob("chunk_*.bin")) and dw.list_feeds() == []
    for name, age in ((".new-old", 7200), (".new-young", 0)):
        (data / name).mkdir()
        os.utime(data / name, (os.path.getmtime(data) - age,) * 2)
    dw.create_feed(SPEC)
    assert sorted(path.name for path in data.iterdir()) == [".new-young", "F"]


def test_settings_replaced_beside_an_opening_writer_are_not_swept_away(dw: Platform) -> None:
    """Settings are replaced without the writer's lock; only an old temporary file of them is a leftover."""
    feed = Path(dw.base_path) / "data" / "F"
    for name in (".tmp-settings.json-young", ".tmp-settings.json-old", ".tmp-chunk_00000009.bin-x", ".tmp-F.reg-x"):
        (feed / name).write_bytes(b"")
    os.utime(feed / ".tmp-settings.json-old", (1, 1))
    with dw.create_writer("F"):
        pass
    assert [path.name for path in feed.glob(".tmp-*")] == [".tmp-settings.json-young"]


def test_create_beside_create_and_delete_ends_well(dw: Platform) -> None:
    """Eight processes make and delete the same feeds: each call ends as if they had come one after the other."""
    done = run_python(
        """
        import os, random, sys, warnings
        from deepwater import Platform
        from deepwater.errors import FeedLockedError, FeedNotFoundError
        warnings.simplefilter("ignore")
        spec = {"ts_col": "ts_us", "fields": [{"name": "ts_us", "type": "uint64"}]}
        children = []
        for k in range(8):
            if pid := os.fork():
                children.append(pid)
                continue
            try:
                rng = random.Random(k)
                for _ in range(25):
                    dw = Platform(sys.argv[1])
                    name = f"G{rng.randrange(2)}"
                    try:
                        if rng.random() < 0.6:
                            dw.create_feed({**spec, "feed_name": name, "desc": str(k)}, update=rng.random() < 0.5)
                        else:
                            dw.delete_feed(name)
                    except (FeedNotFoundError, FeedLockedError):
                        pass
                os._exit(0)
            except BaseException as error:
                import traceback; traceback.print_exc()
                os._exit(1)
        print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
        """,
        dw.base_path,
    )
    assert done.stdout.splitlines() == [str([0] * 8)]


def test_settings_that_come_while_their_feed_is_removed_are_removed_too(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever replaces them may have opened the feed before."""
    data, rmdir, late = Path(dw.base_path) / "data", os.rmdir, ["settings.json"]

    def rmdir_beside(name: str, dir_fd: int) -> None:
        if late:
            (data / name / late.pop()).write_bytes(b"{}")
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr("deepwater.store.os.rmdir", rmdir_beside)
    dw.delete_feed("F")
    assert not late and list(data.iterdir()) == []


def test_one_readers_settings_are_not_anothers(dw: Platform) -> None:
    """What is kept of a parsed file is not handed out to be changed."""
    with dw["F"] as one, dw["F"] as other:
        one.settings.config["depth"] = 6
        assert other.settings.config == {"depth": 5}


def test_a_writer_that_could_not_be_opened_does_not_warn_that_it_is_open(dw: Platform) -> None:
    (Path(dw.base_path) / "data" / "F" / "chunk_00000010.bin").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CorruptFileError, match="chunk_00000010"):
            dw.create_writer("F")


def test_a_write_does_not_load_masked_arrays(dw: Platform) -> None:
    """Nobody holds one while numpy.ma is not loaded, and loading it within a write costs 10 ms."""
    run_python(
        """
        import sys
        from deepwater import Platform
        with Platform(sys.argv[1]).create_writer("F") as w:
            before = "numpy.ma" in sys.modules
            w.write_batch({"ts_us": [50], "x": [1.0]})
            assert before or "numpy.ma" not in sys.modules
        """,
        dw.base_path,
    )
