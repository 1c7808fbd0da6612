"""A store for the command line: a feed of several chunks, one of odd values, an empty one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cli_kit import ODD_SPEC, START_US, TICKS_SPEC, Kept, make_odd, make_ticks

from deepwater import Platform


@pytest.fixture(autouse=True, scope="session")
def as_wide_as_need_be() -> Iterator[None]:
    """Whoever runs the tests may have said how wide a terminal is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    path = tmp_path_factory.mktemp("cli") / "a store"
    with Platform(path) as dw:
        for spec in (TICKS_SPEC, ODD_SPEC, {**TICKS_SPEC, "feed_name": "EMPTY"}):
            dw.create_feed(spec)
        with dw.create_writer("TICKS") as writer:
            ticks = make_ticks(dw["TICKS"].dtype, 5000)
            writer.write_batch(ticks)
            writer.mark_gap(lost=3, from_us=START_US, to_us=START_US + 5, reason="a test")
        with dw.create_writer("ODD") as writer:
            odd = make_odd(dw["ODD"].dtype)
            writer.write_batch(odd)
    return Kept(path, ticks, odd)
