"""A window says which gaps it crosses: those between its first and its last row, and asks nobody who does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import model
from deepwater import ChunkGoneError, CorruptFileError, Platform
from deepwater.files import Directory
from deepwater.index import MARK_DTYPE
from gap_kit import FIELDS, STEPS, as_marks, inside, positions, tell


def _shows_in_pandas(window: Any) -> bool:
    return all(int(part.array()[window.clock].max()) < 2**63 for part in window._parts)


@settings(max_examples=20)
@given(
    steps=STEPS,
    cut=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    times=st.tuples(st.integers(0, 90), st.integers(0, 90)),
)
def test_the_gaps_of_a_window_are_those_between_its_rows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], cut: tuple[int, int], times: tuple[int, int]
) -> None:
    """By position, by a clock in order, by one that is not, and of slices of these."""
    with Platform(tmp_path_factory.mktemp("gaps") / "store") as dw:
        told = tell(dw, "F", steps)
        reader = dw["F"]
        assert as_marks(reader.gaps()) == told.marks
        a, b = min(cut), max(cut)
        windows = [reader.rows(a, b), reader.rows(0, 1000), reader.rows(0, 1000)[a:b], reader.latest(a)]
        windows += [reader.read(100 + a, 100 + 5 * b), reader.read(*sorted(times), clock="ev_us")]
        windows += [windows[-1][a:b], windows[-1][["n"]]]
        for window in windows:
            held = positions(window)
            wanted = inside(told, held[0], held[-1]) if held else []
            assert window.gaps.dtype == MARK_DTYPE
            assert as_marks(window.gaps) == wanted
            text = (
                f"{len(wanted)} gap{'s' * (len(wanted) > 1)} inside: before position {wanted[0].position}"
                if wanted
                else ""
            )
            for shown in (repr(window), window._repr_html_()):
                assert text in shown and ("inside" in shown) == bool(wanted)
            if len(window) and _shows_in_pandas(window):
                assert window[["n"]].to_pandas().attrs.get("gaps", 0) == len(wanted)


def test_a_window_says_what_is_known_of_its_gaps(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        steps: list[Any] = [("write", [(1, 0)] * 4), ("gap", 7, 3, 12), ("write", [(50, 0)])]
        for _ in range(3):
            steps += [("gap", 0, 0, None), ("write", [(1, 0)])]
        tell(dw, "F", steps)
        window = dw["F"].rows(0, 99)
        first = "before position 4, 12 lost, 1970-01-01T00:00:00.000111Z to 1970-01-01T00:00:00.000114Z, a test"
        line = f"4 gaps inside: {first}; before position 5, a test; before position 6, a test; and 1 more"
        assert line in repr(window) and line in window._repr_html_()
        assert f"1 gap inside: {first}" in repr(window[2:5]) and "gap" not in repr(window[0:4])
        assert window.to_pandas().attrs == {"gaps": 4} and window[4:5].to_pandas().attrs == {}
        with dw.create_writer("F") as writer:
            writer.mark_gap(reason="\x1b[2J<b>")
            writer.write_values(500, 0, 8)
        newest = dw["F"].latest(2)
        assert r"before position 8, \x1b[2J<b>" in repr(newest) and "&lt;b&gt;" in newest._repr_html_()


def test_who_does_not_ask_for_gaps_touches_no_marks(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Platform(tmp_store) as dw:
        tell(dw, "F", [("write", [(1, 0)] * 9), ("gap", 1, 1, 1), ("write", [(1, 0)] * 9)])
        reader, opened, listed = dw["F"], [], []
        open_, names = Directory.open, Directory.names
        monkeypatch.setattr(Directory, "open", lambda *a: opened.append(a[1]) or open_(*a))
        monkeypatch.setattr(Directory, "names", lambda *a: listed.append(a) or names(*a))
        window = reader.rows(0, 18)
        assert len(window["n"]) == len(window[3:]) + 3 == len(window.to_arrow()) == len(window.to_numpy()) == 18
        assert not any(name.endswith(".idx") for name in opened) and not listed
        assert len(window.gaps) == 1
        assert [name for name in opened if name.endswith(".idx")] == ["chunk_00000003.idx"] and len(listed) == 1


def test_gaps_that_cannot_be_read_hide_no_records(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        tell(dw, "F", [("write", [(1, 0)] * 3), ("gap", 1, 1, 1), ("write", [(1, 0)] * 3)])
        window = dw["F"].rows(0, 6)
        model.flip(tmp_store / "data" / "F" / "chunk_00000001.idx", 16384 + 40)
        with pytest.raises(CorruptFileError, match="mark 0 has a wrong checksum"):
            _ = window.gaps
        assert "gaps inside are not known: " in repr(window) and "wrong checksum" in window._repr_html_()
        assert window["n"].tolist() == list(range(6)) == window.to_pandas()["n"].tolist()
        assert window.to_pandas().attrs == {"gaps": None}
        dw.delete_feed("F")
        with pytest.raises(ChunkGoneError, match="marks after position 0 were removed with their records"):
            _ = window.gaps
        assert window["n"].tolist() == list(range(6))


def test_windows_of_rings_and_of_no_feed_have_no_gaps(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(
            {"feed_name": "R", "ts_col": "ts_us", "fields": FIELDS, "persist": False, "chunk_size_bytes": 480}
        )
        with dw.create_writer("R") as writer:
            writer.write_batch(np.zeros(10, dw["R"].dtype))
        window = dw["R"].rows(0, 10)
        assert len(window) == 10 and len(window.gaps) == 0 and window.gaps.dtype == MARK_DTYPE
        assert window.to_pandas().attrs == {} and "gap" not in repr(window)
        dw.delete_feed("R")
