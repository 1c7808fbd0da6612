"""Numbers and ids: what is missing, what came twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deepwater.apps import trade_ids
from deepwater.apps.sequence import Jump, Sequence
from deepwater.apps.trade_ids import Anew, Hole, TradeIds


def test_a_connection_counts_from_zero() -> None:
    numbers = Sequence()
    assert [numbers.check(number) for number in range(5)] == [None] * 5


def test_a_first_number_above_zero_is_a_gap() -> None:
    jump = Sequence().check(3)
    assert jump == Jump(0, 3)
    assert jump.lost == 3
    assert jump.reason == "sequence gap: frames 0..2 missing"


def test_a_step_back_is_of_unknown_size_and_does_not_move_the_count() -> None:
    numbers = Sequence()
    numbers.check(0)
    numbers.check(1)
    back = numbers.check(1)
    assert back == Jump(2, 1)
    assert back.lost is None
    assert numbers.check(2) is None


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_the_frames_lost_are_those_that_did_not_come(arrives: list[bool]) -> None:
    numbers = Sequence()
    jumps = [numbers.check(number) for number, here in enumerate(arrives) if here]
    last = max((number for number, here in enumerate(arrives) if here), default=-1)
    assert sum(jump.lost for jump in jumps if jump) == arrives[: last + 1].count(False)


def test_reasons_fit_a_mark() -> None:
    most = 2**63 - 1
    for text in (Jump(most - 1, most).reason, Jump(most, 0).reason, Hole(most - 1, most).reason):
        assert len(text.encode()) <= 72


@given(st.lists(st.lists(st.integers(100, 160), max_size=12), max_size=20))
def test_each_trade_is_admitted_once_and_every_hole_is_named_once(batches: list[list[int]]) -> None:
    """Against a set of all ids seen. Ids below the first one seen are older than the recording."""
    ids = TradeIds()
    seen: set[int] = set()
    holes: set[int] = set()
    first = None
    for batch in batches:
        flags, found = ids.admit(batch)
        for number, new in zip(batch, flags, strict=True):
            first = number if first is None else first
            assert new == (number not in seen and number >= first)
            seen.add(number)
        for index, hole in found:
            assert batch[index] == hole.last + 1
            opened = set(range(hole.first, hole.last + 1))
            assert not opened & holes
            holes |= opened
    if first is not None:
        arrived_late = {number for number in seen if number in holes}
        assert holes == set(range(first, max(seen) + 1)) - (seen - arrived_late)


@given(st.lists(st.integers(1, 60), max_size=40), st.lists(st.integers(1, 60), max_size=40))
def test_a_new_life_goes_on_where_the_feed_ends(stored: list[int], later: list[int]) -> None:
    one = TradeIds.resume(stored)
    lowest = min(stored, default=0)
    flags, _ = one.admit(later)
    new = [number for number, flag in zip(later, flags, strict=True) if flag]
    assert not set(new) & set(stored)
    assert len(new) == len(set(new))
    if stored:
        assert set(new) == {number for number in later if number >= lowest} - set(stored)


def test_a_huge_jump_costs_bounded_memory() -> None:
    ids = TradeIds()
    ids.admit([1])
    flags, holes = ids.admit([10**12])
    assert flags == [True]
    assert holes == [(0, Hole(2, 10**12 - 1))]
    assert len(ids.missing) == trade_ids.MISSING_MAX
    assert ids.admit([10**12 - 1, 2]) == ([True, False], [])
    for power in range(13, 18):
        ids.admit([10**power])
        assert trade_ids.MISSING_MAX <= len(ids.missing) <= 2 * trade_ids.MISSING_MAX
        assert ids.admit([10**power - 1]) == ([True], [])


def test_what_could_not_be_stored_may_come_again() -> None:
    ids = TradeIds()
    ids.admit([1, 2, 3])
    ids.withdraw([2, 3])
    assert ids.admit([1, 2, 3, 4]) == ([False, True, True, True], [])


SECOND = 1_000_000


def test_a_numbering_that_begins_anew_is_named_and_its_trades_are_new() -> None:
    ids = TradeIds()
    ids.admit([100, 101], [10 * SECOND, 11 * SECOND])
    assert ids.admit([5, 6, 7], [10 * SECOND, 20 * SECOND, 21 * SECOND]) == ([False, True, True], [(1, Anew(101, 6))])
    assert ids.admit([6, 7, 8], [20 * SECOND, 21 * SECOND, 22 * SECOND]) == ([False, False, True], [])
    assert len(Anew(2**63 - 1, 2**63 - 2).reason) <= 72


def test_repeats_of_old_trades_are_no_new_numbering() -> None:
    ids = TradeIds()
    ids.admit([100, 103], [10 * SECOND, 11 * SECOND])
    flags, holes = ids.admit([98, 99, 100, 101, 103], [8 * SECOND, 12 * SECOND, 10 * SECOND, 12 * SECOND, 11 * SECOND])
    assert (flags, holes) == ([False, False, False, True, False], [])


def test_one_absurd_id_does_not_end_the_trades() -> None:
    ids = TradeIds()
    ids.admit([1], [SECOND])
    ids.admit([2**63 - 1], [2 * SECOND])
    flags, _ = ids.admit([2, 3, 4, 5], [3 * SECOND, 4 * SECOND, 5 * SECOND, 6 * SECOND])
    assert flags[1:] == [True, True, True]


def test_a_new_life_knows_which_numbering_is_the_last() -> None:
    stored, times = [100, 101, 5, 6, 8], [SECOND * at for at in (10, 11, 20, 21, 22)]
    ids = TradeIds.resume(stored, times)
    assert (ids.high, list(ids.missing), ids.latest_us) == (8, [7], 22 * SECOND)
    assert ids.admit([6, 7, 8, 9], [SECOND * at for at in (21, 21, 22, 23)]) == ([False, True, False, True], [])
