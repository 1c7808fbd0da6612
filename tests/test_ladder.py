"""The depth ladder: what it shows is the book, in any width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwater.book import LEVEL_DTYPE, Book
from deepwater.ladder import ladder, rungs

TIME = 1_786_309_560_000_000


def book(bids: list[tuple[float, float]], asks: list[tuple[float, float]], reason: str = "") -> Book:
    return Book(np.array(bids, LEVEL_DTYPE), np.array(asks, LEVEL_DTYPE), 68_294, TIME, not reason, reason)


BITCOIN = book([(64734.06, 0.5), (64733.9, 0.25), (64733.0, 2.0)], [(64734.08, 0.03), (64735.5, 1.25)])
PICTURE = """\
CB-L2-BTC-USD  2026-08-09 21:06:00.000000 UTC  before position 68,294  valid
         price   qty  total
ask   64735.50  1.25   1.28  ########################
ask   64734.08  0.03   0.03  #
----   spread 0.02, middle 64734.070
bid   64734.06  0.50   0.50  ##########
bid   64733.90  0.25   0.75  ##############
bid   64733.00  2.00   2.75  ###################################################
"""


def test_the_picture() -> None:
    lines = ladder(BITCOIN, title="CB-L2-BTC-USD", ascii_only=True)
    assert "".join(f"{line}\n" for line in lines) == PICTURE
    assert max(map(len, lines)) == 80
    blocks = ladder(BITCOIN, title="CB-L2-BTC-USD")
    assert [line.rstrip("█▏▎▍▌▋▊▉") for line in blocks] == [line.rstrip("#") for line in lines]


def test_a_book_that_is_not_to_be_trusted_says_so_first() -> None:
    gone = book([], [(1.0, 1.0)], "gap before position 7: reconnect")
    lines = ladder(gone, width=100)
    assert lines[0].endswith("NOT valid: gap before position 7: reconnect")
    assert "----   no bids" in lines
    assert ladder(book([], [], "no complete snapshot yet"))[-1] == "----   no asks and bids"
    assert "CROSSED" in ladder(book([(2.0, 1.0)], [(1.0, 1.0)]))[3]


def test_numbers_that_are_no_prices_are_short_and_leave_the_others_as_they_are() -> None:
    lines = ladder(book([(64734.06, 0.5), (1e-300, 1e300)], [(1e300, 0.25)]), width=80, ascii_only=True)
    assert [line.split()[1:3] for line in lines[2:]] == [
        ["1e+300", "0.25"], ["spread", "1e+300,"], ["64734.06", "0.50"], ["1e-300", "1e+300"],
    ]  # fmt: skip
    assert "middle 5e+299" in lines[3] and "inf" not in "".join(lines)
    assert "middle 1.7e+308" in "".join(ladder(book([(1.7e308, 1.0)], [(1.7e308, 1.0)])))


def test_only_as_many_levels_as_asked_for() -> None:
    asks, bids = rungs(BITCOIN, 1)
    assert [(rung.price, rung.share) for rung in asks + bids] == [(64734.08, 0.06), (64734.06, 1.0)]
    assert len(ladder(BITCOIN, 1)) == 2 + 1 + 1 + 1


LEVELS = st.lists(st.tuples(st.floats(1e-9, 1e9), st.floats(1e-12, 1e9)), max_size=15)


@given(LEVELS, LEVELS, st.integers(40, 160))
def test_no_line_is_wider_than_the_terminal(bids: list[tuple[float, float]], asks: list[tuple[float, float]],
                                            width: int) -> None:  # fmt: skip
    shown = book(sorted(bids, reverse=True), sorted(asks))
    lines = ladder(shown, 10, width=width, title="CB-L2-X")
    assert all(len(line) <= width for line in lines)
    assert len(lines) == 3 + min(10, len(bids)) + min(10, len(asks))
    for side, levels in zip(rungs(shown), (sorted(asks), sorted(bids, reverse=True)), strict=True):
        assert [rung[1:3] for rung in side] == levels[:10]
        assert [rung.total for rung in side] == pytest.approx(np.cumsum([qty for _, qty in levels[:10]]))
