"""A feed that is being filled: there when it is whole, no sooner; one at a time; nothing of it after an error."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepwater import Platform, shm
from deepwater.check import verify
from deepwater.errors import FeedLockedError
from deepwater.files import Directory
from deepwater.load import load
from deepwater.new_feed import new_feed, refuse_if_filled
from deepwater.schema import FeedSpec
from deepwater.store import IMPORTING, Store, erase_left, is_left

SPEC = FeedSpec.from_json({
    "feed_name": "T", "ts_col": "t_us", "chunk_size_bytes": 1 << 16,
    "fields": [{"name": "t_us", "type": "uint64"}, {"name": "n", "type": "int64"}],
})  # fmt: skip
RING = FeedSpec.from_json({**SPEC.to_json(), "persist": False})
HIDDEN = f"{IMPORTING}T"


def rows(count: int) -> np.ndarray[Any, Any]:
    out = np.zeros(count, [("t_us", "u8"), ("n", "i8")])
    out["t_us"] = out["n"] = np.arange(count)
    return out


def killed(store: Path) -> Path:
    """What a process leaves that dies while it fills a feed: another one, that goes without a goodbye."""
    child = os.fork()
    if not child:
        with new_feed(store, SPEC) as writer:
            writer.write_batch(rows(50))
            os._exit(0)
    os.waitpid(child, 0)
    left = store / "data" / HIDDEN
    assert left.is_dir()
    return left


@pytest.mark.parametrize("spec", [SPEC, RING])
def test_it_is_there_when_the_block_is_left(spec: FeedSpec, tmp_store: Path) -> None:
    with new_feed(tmp_store, spec) as writer:
        for at in range(0, 20_000, 1000):
            writer.write_batch(rows(1000))
            with Platform(tmp_store) as dw:
                assert dw.list_feeds() == [] and len(dw.feeds()) == 0, at
    held = 20_000 if spec.settings.persist else (1 << 16) // 16
    with Platform(tmp_store) as dw:
        assert dw.list_feeds() == ["T"] and dw.feeds().loc["T", "records"] == held
        with dw.create_writer("T") as again:
            assert again.write_batch(rows(1)) == 20_000
        with dw["T"] as reader:
            assert reader.rows(reader.first, reader.end).to_numpy()["n"][-2:].tolist() == [999, 0]
    assert os.listdir(tmp_store / "data") == ["T"]
    with Platform(tmp_store) as dw:
        dw.delete_feed("T")


@pytest.mark.parametrize("spec", [SPEC, RING])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_nothing(spec: FeedSpec, kind: type[BaseException], tmp_store: Path) -> None:
    def fail() -> None:
        with new_feed(tmp_store, spec) as writer:
            writer.write_batch(rows(100))
            raise kind

    with pytest.raises(kind):
        fail()
    assert os.listdir(tmp_store / "data") == []
    with Platform(tmp_store) as dw:
        assert dw.list_feeds() == []
        dw.create_feed(spec)
        assert len(dw["T"]) == 0


def test_one_at_a_time(tmp_path: Path, tmp_store: Path) -> None:
    np.save(tmp_path / "a.npy", rows(5))
    with new_feed(tmp_store, SPEC) as writer, Platform(tmp_store) as dw:
        writer.write_batch(rows(1))
        for second in (
            lambda: new_feed(tmp_store, SPEC).__enter__(), lambda: refuse_if_filled(tmp_store, "T"),
            lambda: load(dw, str(tmp_path / "a.npy"), "T"),
        ):  # fmt: skip
            with pytest.raises(FeedLockedError, match=f"feed 'T' is being imported by process {os.getpid()} on"):
                second()
        refuse_if_filled(tmp_store, "OTHER")
        assert load(dw, str(tmp_path / "a.npy"), "OTHER").records == 5  # it sweeps, and leaves what is alive
    with Platform(tmp_store) as dw:
        assert dw.list_feeds() == ["OTHER", "T"] and len(dw["T"]) == 1
    refuse_if_filled(tmp_store / "none", "T")


@pytest.mark.parametrize("spec", [SPEC, RING])
def test_neither_verify_nor_rings_clean_takes_it_for_an_orphan(spec: FeedSpec, tmp_store: Path) -> None:
    with new_feed(tmp_store, spec) as writer:
        writer.write_batch(rows(9))
        writer.close()  # the moment before it appears: nobody holds the ring
        assert [finding.code for finding in verify(tmp_store).findings] == ["temporary"]
        assert not [entry for entry in shm.listing(str(tmp_store)) if entry["orphan"]]
        writer.flush = lambda: 0  # type: ignore[method-assign]
    with Platform(tmp_store) as dw:
        assert len(dw["T"]) == 9
        dw.delete_feed("T")


def test_a_feed_of_that_name_that_came_meanwhile_stays(tmp_store: Path) -> None:
    filling = new_feed(tmp_store, SPEC)
    filling.__enter__().write_batch(rows(9))
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
    with pytest.raises(FeedLockedError, match="feed 'T' was made by somebody else meanwhile"):
        filling.__exit__(None, None, None)
    with Platform(tmp_store) as dw:
        assert len(dw["T"]) == 0
    assert os.listdir(tmp_store / "data") == ["T"]


@pytest.mark.faults
def test_what_a_kill_left_is_told_from_what_is_alive(tmp_store: Path) -> None:
    left = killed(tmp_store)
    with contextlib.closing(Store.make(str(tmp_store))) as store:
        assert is_left(store.data, HIDDEN) and left.is_dir()
        with new_feed(tmp_store, SPEC) as writer:  # in its place
            writer.write_batch(rows(3))
            assert not is_left(store.data, HIDDEN) and not erase_left(store.data, HIDDEN)
        assert is_left(store.data, HIDDEN) and erase_left(store.data, HIDDEN)  # there is none
    with Platform(tmp_store) as dw:
        assert dw["T"].read().to_numpy()["n"].tolist() == [0, 1, 2]
    assert os.listdir(tmp_store / "data") == ["T"]


@pytest.mark.faults
@pytest.mark.parametrize("gone", [["layout.json"], ["layout.json", "settings.json", "chunk_00000001.bin"], []])
def test_a_removal_that_was_killed_too_is_gone_on_with(gone: list[str], tmp_store: Path) -> None:
    left = killed(tmp_store)
    for name in gone:
        (left / name).unlink()
    with Platform(tmp_store) as dw:
        dw.create_feed(FeedSpec.from_json({**SPEC.to_json(), "feed_name": "OTHER"}))
    assert os.listdir(tmp_store / "data") == ["OTHER"]


def test_what_was_filled_meanwhile_is_not_taken_for_what_was_left(
    tmp_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody opens the directory; then it becomes a feed, and its lock is let go; then they take that lock."""
    from deepwater import store as module

    filling = new_feed(tmp_store, SPEC)
    filling.__enter__().write_batch(rows(7))
    take = module.Lock.take

    def first_to_its_end(name: str, dir_fd: int | None = None) -> Any:
        monkeypatch.undo()
        filling.__exit__(None, None, None)
        return take(name, dir_fd)

    with contextlib.closing(Store.make(str(tmp_store))) as store:
        monkeypatch.setattr(module.Lock, "take", first_to_its_end)
        erase_left(store.data, HIDDEN)
    with Platform(tmp_store) as dw:
        assert len(dw["T"]) == 7


def test_what_the_system_refuses_is_said_of_the_feed(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on a file system that is mounted read-only: the name of a hidden directory says nothing to anybody."""
    Store.make(str(tmp_store)).close()

    def refuse(self: Directory, name: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", name)

    monkeypatch.setattr(Directory, "make_new", refuse)
    with Platform(tmp_store) as dw:
        for make in (lambda: dw.create_feed(SPEC), lambda: new_feed(tmp_store, SPEC).__enter__()):
            with pytest.raises(OSError, match="Read-only") as caught:
                make()
            assert caught.value.filename == str(tmp_store / "data" / "T")
