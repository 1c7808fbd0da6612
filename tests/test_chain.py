"""The chunks of a feed as a reader holds them: what is missing is said, what the system refuses is given back."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deepwater import Platform
from deepwater.errors import CorruptFileError
from processes import run_python

SPEC = {"feed_name": "F", "ts_col": "ts_us", "chunk_size_bytes": 4 * 16,
        "fields": [{"name": "ts_us", "type": "uint64"}, {"name": "x", "type": "float64"}]}  # fmt: skip


def fill(dw: Platform, rows: int) -> None:
    dw.create_feed(SPEC)
    with dw.create_writer("F") as w:
        w.write_batch({"ts_us": np.arange(rows, dtype=np.uint64), "x": np.arange(float(rows))})


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        yield platform


@pytest.mark.parametrize("writes", [False, True])
def test_a_feed_without_its_first_chunk_and_registry_is_damaged_not_shorter(dw: Platform, writes: bool) -> None:
    """The lowest chunk there is must not pass for the first."""
    fill(dw, 20)
    feed = Path(dw.base_path) / "data" / "F"
    (feed / "chunk_00000001.bin").unlink()
    (feed / "F.reg").unlink()
    with pytest.raises(CorruptFileError, match="chunk 1 is missing"):
        dw.create_writer("F") if writes else dw.create_reader("F")
    assert len(list(feed.glob("chunk_*.bin"))) == 4  # and nothing more was removed


def test_a_registry_that_begins_late_is_not_believed(dw: Platform) -> None:
    """Its rows are right one by one, and the first of them is not the first chunk's."""
    fill(dw, 20)
    path = Path(dw.base_path) / "data" / "F" / "F.reg"
    data = bytearray(path.read_bytes())
    row = 64 + 24
    data[16384 : 16384 + 3 * row] = data[16384 + row : 16384 + 4 * row]
    data[4096:4104] = (3).to_bytes(8, "little")
    path.write_bytes(data)
    with dw["F"] as r:
        assert (r.first, len(r)) == (0, 20)


def test_readers_of_many_chunks_live_with_few_descriptors(dw: Platform) -> None:
    """A reader that is refused a descriptor gives back what it keeps mapped, and the soft limit is raised."""
    fill(dw, 400)
    code = """
        import resource, sys
        from deepwater import Platform
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, {hard}))
        dw = Platform(sys.argv[1])
        readers = [dw["F"] for _ in range(3)]
        for r in readers:
            assert [int(r.rows(k, k + 4)["x"][0]) for k in range(0, 400, 4)] == list(range(0, 400, 4))
            assert r.read(390, 393).to_numpy()["x"].tolist() == [390, 391, 392, 393]
        """
    for hard in ("40", "hard"):  # a limit that is fixed, and one that may be raised
        many = 1 if hard == "40" else 3
        run_python(code.replace("{hard}", hard).replace("range(3)", f"range({many})"), dw.base_path)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 40


def test_arrays_of_a_thousand_chunks_are_held_at_the_usual_limit(dw: Platform) -> None:
    """Each mapping takes a descriptor before Python 3.13: the soft limit is raised when it is met."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4096:
        pytest.skip("the hard limit of open files is too low here")
    fill(dw, 1200 * 4)
    code = """
        import resource, sys
        from deepwater import Platform
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        r = Platform(sys.argv[1])["F"]
        kept = list(r.rows(0, 4800))
        assert [int(k["x"][0]) for k in kept] == list(range(0, 4800, 4))
        """
    run_python(code, dw.base_path)
