"""rings: what lies in shared memory, what of it is nobody's any more, and that only that is removed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_kit import TICKS_SPEC, one_line

from deepwater import Platform, cli
from processes import Worker

RING_SPEC = {**TICKS_SPEC, "feed_name": "RING", "persist": False}
RECORD = (b"B", True, 1, 1_700_000_000_000_000, 1, 1.5, 2.5)
WRITE = """
    import sys
    from deepwater import Platform
    with Platform(sys.argv[1]) as dw, dw.create_writer("RING") as writer:
        writer.write_values(b"B", True, 1, 1, 1, 1.5, 2.5)
        print("written", flush=True)
        sys.stdin.read()
"""


def run(capfd: pytest.CaptureFixture[str], store: Path, *words: str) -> tuple[str, str]:
    assert cli.main(["rings", *words, "--base-path", str(store)]) == 0
    return capfd.readouterr()


@contextmanager
def a_ring(store: Path) -> Iterator[Platform]:
    """A store with a ring of one record; deleted afterwards."""
    with Platform(store) as dw:
        dw.create_feed(RING_SPEC)
        dw.create_feed({**TICKS_SPEC, "feed_name": "DURABLE"})
        with dw.create_writer("RING") as writer:
            writer.write_values(*RECORD)
        yield dw
        dw.delete_feed("RING")


def test_rings_are_listed_with_their_writers(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with a_ring(tmp_store) as dw:
        out, said = run(capfd, tmp_store)
        titles, row = (line.split() for line in out.splitlines())
        assert (titles[0], titles[-1], row[0], row[-1]) == ("feed", "store", "RING", str(tmp_store))
        assert row[-3:-1] == ["-", "-"] and said == ""
        with dw.create_writer("RING"):
            assert f"  pid {os.getpid()}  " in run(capfd, tmp_store, "list")[0]
            (entry,) = json.loads(run(capfd, tmp_store, "--json")[0])
        assert (entry["feed"], entry["records"], entry["end"]) == ("RING", 1, 1)
        assert (entry["writer_pid"], entry["orphan"], entry["why"]) == (os.getpid(), False, None)


def test_without_any_there_is_nothing_to_list_or_remove(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words, said in (([], "no rings in"), (["orphans"], "no orphans in")):
        out, text = run(capfd, tmp_store, *words)
        assert out == "" and one_line(text).startswith(said)
        assert run(capfd, tmp_store, *words, "--json") == ("[]\n", "")
    assert run(capfd, tmp_store, "clean") == ("nothing to remove\n", "")
    assert json.loads(run(capfd, tmp_store, "clean", "--json")[0]) == {"removed": 0}
    assert not tmp_store.exists()


def test_a_ring_that_its_feed_can_use_is_kept(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with a_ring(tmp_store) as dw:
        with Worker(WRITE, tmp_store) as worker:
            assert worker.readline() == "written"
            worker.kill()
        assert run(capfd, tmp_store, "clean") == ("nothing to remove\n", "")
        assert len(dw["RING"]) == 2


def test_orphans_are_listed_and_removed(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(RING_SPEC)
    with Worker(WRITE, tmp_store) as worker:
        assert worker.readline() == "written"
        worker.kill()
    shutil.rmtree(tmp_store)
    out, said = run(capfd, tmp_store)
    assert "its store is gone" in out and "deepwater rings orphans" in one_line(said)
    out, said = run(capfd, tmp_store, "orphans")
    titles, *lines = out.splitlines()
    assert titles.split() == ["feed", "kind", "size", "why", "path"] and said == ""
    assert any(line.startswith("RING  ring") for line in lines)
    paths = [entry["path"] for entry in json.loads(run(capfd, tmp_store, "orphans", "--json")[0])]
    assert paths and all(os.path.exists(path) for path in paths)
    out, said = run(capfd, tmp_store, "clean")
    assert out.startswith(f"removed {len(paths)} orphan") and said == ""
    assert not any(os.path.exists(path) for path in paths)


def test_clean_wants_to_be_told_whose_orphans(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of all stores only with --all; without a word it lists what would go, and removes nothing."""
    with Platform(tmp_store) as dw:
        dw.create_feed(RING_SPEC)
    with Worker(WRITE, tmp_store) as worker:
        assert worker.readline() == "written"
        worker.kill()
    shutil.rmtree(tmp_store)
    paths = {entry["path"] for entry in json.loads(run(capfd, tmp_store, "orphans", "--json")[0])}
    assert paths
    assert cli.main(["rings", "clean"]) == 1  # of other tests' stores too, perhaps: looked at, and left
    out, said = capfd.readouterr()
    assert all(path in out for path in paths) and all(os.path.exists(path) for path in paths)
    assert one_line(said).startswith("nothing was removed: name a store with --base-path DIR, or say --all")
    assert cli.main(["rings", "clean", "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert found["removed"] == 0 and paths <= {entry["path"] for entry in found["orphans"]}
    assert cli.main(["rings", "clean", "--all", "--base-path", str(tmp_store)]) == 2
    capfd.readouterr()
    assert all(os.path.exists(path) for path in paths)
    assert run(capfd, tmp_store, "clean")[0].startswith(f"removed {len(paths)} orphan")


def test_a_written_ring_is_no_orphan_though_its_store_was_moved(
    tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(RING_SPEC)
    with Worker(WRITE, tmp_store) as worker:
        assert worker.readline() == "written"
        tmp_store.rename(tmp_store.with_name("elsewhere"))
        assert run(capfd, tmp_store, "clean")[0] == "nothing to remove\n"
        (ring,) = json.loads(run(capfd, tmp_store, "--json")[0])
        assert os.path.exists(ring["path"]) and ring["writer_pid"] == worker.pid and not ring["orphan"]
        tmp_store.with_name("elsewhere").rename(tmp_store)
        worker.finish()
    with Platform(tmp_store) as dw:
        dw.delete_feed("RING")


@pytest.mark.parametrize("columns", ["1", "40", "80"])
def test_it_fits_the_terminal(
    columns: str, tmp_store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with a_ring(tmp_store):
        out, said = run(capfd, tmp_store)
    assert max(map(len, out.splitlines())) <= max(int(columns), len("feed"))
    assert "no room for: " in said
    assert columns != "80" or out.split("\n")[0].split() == ["feed", "records", "size", "writer", "orphan"]
