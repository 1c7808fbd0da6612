"""The dashboard over a recorded session: its book is the book of a walk over the tape, or says why it is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tape_walk import walk
from test_tapes import PAIR, PRODUCTS, opened, record_tape

from deepwater import Platform
from deepwater.apps.dashboard import panels
from deepwater.apps.dashboard.model import Model
from deepwater.apps.dashboard.plain import line
from deepwater.apps.tape import read_tape


@pytest.mark.parametrize("faults", [[], ["drop@140"]])
def test_book_and_trades_of_a_tape(faults: list[str], shared_data: Path, tmp_store: Path) -> None:
    with opened(shared_data / "coinbase" / PAIR) as source:
        frames = list(read_tape(source))
    session = record_tape(frames, PRODUCTS[PAIR], tmp_store, faults=faults)
    expected = walk(session.received, PRODUCTS[PAIR])
    looking = Model(tmp_store)
    for name in PRODUCTS[PAIR]:
        looking.choose(name)
        while (view := looking.look()).book.behind:
            pass
        assert view.chosen == name and view.trades[0].price == float(expected[name].trades[-1]["price"])
        ladder = "\n".join(text.plain for text in panels.book(view, 60, 20))
        if faults:
            assert "frame 140 missing" in view.book.reason and "frame 140 missing" in ladder and "│" not in ladder
            assert "book NOT valid" in line(view, "x")
        else:
            bid, ask = (float(price) for price in expected[name].best())
            assert not view.book.reason and (view.book.bids[0][0], view.book.asks[0][0]) == (bid, ask)
            assert f"{bid:,.2f} │ {ask:,.2f}" in ladder
        row = view.product
        assert row is not None and row.gaps == len(faults)
        with Platform(tmp_store) as dw:
            assert row.records == len(dw[f"CB-L2-{name}"]) + len(dw[f"CB-TRADES-{name}"])
    looking.close()
