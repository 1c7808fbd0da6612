"""The pictures: as large as they say, in the README as they are, made by the script beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from processes import run_python

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
SIZES = [(80, 24), (160, 48)]


def check(text: str, width: int, height: int) -> None:
    """See that a picture is a whole screen of a recording with a book."""
    lines = text.splitlines()
    assert len(lines) == height and max(map(len, lines)) <= width
    assert lines[0].startswith(" Deepwater  ./platform_data  recording 2 products") and lines[-1].startswith("> ")
    assert sum(" │ " in line for line in lines) > height / 3
    assert re.search(r"receive to publish <\d", text) and "connections up" in text


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_picture_is_a_whole_screen(width: int, height: int) -> None:
    check((PICTURES / f"dashboard-{width}x{height}.txt").read_text(encoding="utf-8"), width, height)


def test_the_picture_of_the_demo_is_its_whole_report() -> None:
    text = (PICTURES / "demo.txt").read_text(encoding="utf-8")
    parts = ("Trades of two seconds", "One-second bars", "Gaps, from the marks", "Rates", "Paste into Python")
    at = [text.index(f"\n{part}") for part in parts]
    assert at == sorted(at) and max(map(len, text.splitlines())) <= 80
    assert "'./demo_data'" in text and "\ndeepwater query " in text


def test_the_readme_shows_the_small_one() -> None:
    text = (PICTURES / "dashboard-80x24.txt").read_text(encoding="utf-8")
    assert f"```text\n{text}```\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_they_can_be_made_again(tmp_path: Path) -> None:
    run_python(PICTURES / "make.py", "--seconds", "3", "--to", tmp_path)
    for width, height in SIZES:
        check((tmp_path / f"dashboard-{width}x{height}.txt").read_text(encoding="utf-8"), width, height)
