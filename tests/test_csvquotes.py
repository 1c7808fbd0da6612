"""Quotes of CSV files: one that is not closed, or not where it belongs, is an error, however it is read."""

from __future__ import annotations

import csv as stdlib_csv
import io
import random

import pytest

from deepwater.csvquotes import Quotes


def wrong(data: bytes, cuts: list[int], *, slowly: bool = False) -> str | None:
    quotes = Quotes()
    if slowly:
        quotes._by_parity = lambda block: False  # type: ignore[method-assign]
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if (found := quotes.wrong_in(data[start:stop])) is not None:
            return found
    return quotes.wrong_at_end()


@pytest.mark.parametrize(("data", "why"), [
    (b'a,b\n1,"x\n2,y\n', "the quote opened at line 2 is never closed"),
    (b'a,b\n1,2\n"x,y', "the quote opened at line 3 is never closed"),
    (b'"', "the quote opened at line 1 is never closed"),
    (b'"""', "the quote opened at line 1 is never closed"),
    (b'a,b\n1,"x\n2,"y"\n3,z\n', "line 3 (opened at line 2): text follows a closing quote"),
    (b'a,b\n1,"x"y\n', "line 2: text follows a closing quote"),
    (b'\xef\xbb\xbf"a",b\n', None), (b'a,b\n5" pipe,6""\n', None), (b'"a""b","",x\r\n"1\n2",3\n', None), (b"", None),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(data: bytes, why: str | None) -> None:
    for cuts in ([], list(range(len(data)))):
        found = wrong(data, cuts)
        assert found is None if why is None else (found or "").startswith(why), (found, cuts)


def test_it_is_the_same_however_it_is_cut_and_taken() -> None:
    """The look at a whole block and the walk from quote to quote, blocks of any length."""
    rng, answers = random.Random(1), set()
    for _ in range(4000):
        data = bytes(rng.choices(b'"",\nab', k=rng.randint(0, 14)))
        cuts = sorted(rng.choices(range(len(data) + 1), k=rng.randint(0, 4)))
        found = {
            wrong(data, places, slowly=slowly)
            for places in ([], cuts, list(range(len(data)))) for slowly in (False, True)
        }  # fmt: skip
        assert len(found) == 1, (data, cuts, found)
        answers |= {(answer or "fine").partition(":")[0][:12] for answer in found}
    assert len(answers) >= 3, answers


def test_what_is_written_with_quotes_is_fine() -> None:
    """The standard library's writer, with quotes where they must be and everywhere."""
    rng = random.Random(2)
    for quoting in (stdlib_csv.QUOTE_MINIMAL, stdlib_csv.QUOTE_ALL):
        for _ in range(500):
            out = io.StringIO()
            cells = ["".join(rng.choices('"a,\n\r ', k=rng.randint(0, 5))) for _ in range(4)]
            stdlib_csv.writer(out, quoting=quoting).writerows([cells, cells])
            data = out.getvalue().encode()
            assert wrong(data, [len(data) // 2]) is None, data
