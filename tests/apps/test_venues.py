"""Venues by name: those of the package, those that a distribution adds, and those that are broken."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from deepwater.apps.venue import Venue
from deepwater.apps.venues import BUILTIN, GROUP, VenueError, find_venue, venue_names
from processes import ROOT, run_python

ADDED = """
from deepwater.apps.coinbase_venue import Coinbase

class Other(Coinbase):
    name = "other"
    uri = "ws://127.0.0.1:1"

VENUE = Other()
NO_VENUE = object()
"""
LEAVES = "import sys\nsys.exit(0)\n"


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory on the path with an installed distribution that adds venues, most of them broken."""
    (tmp_path / "added_venues.py").write_text(ADDED)
    (tmp_path / "added_exit.py").write_text(LEAVES)
    about = tmp_path / "added_venues-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: added-venues\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(
        "[deepwater.venues]\nother = added_venues:VENUE\nmisnamed = added_venues:VENUE\nempty = added_venues:NO_VENUE\n"
        "lost = added_venues:GONE\nabsent = no_such_module:VENUE\nleaves = added_exit:VENUE\n"
        "coinbase = added_venues:VENUE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_packages_own_are_venues_and_entry_points_too() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert declared == BUILTIN
    for name in BUILTIN:
        venue = find_venue(name)
        assert isinstance(venue, Venue) and venue.name == name


def test_a_distribution_adds_a_venue_and_can_not_take_a_name_over(added: Path) -> None:
    assert venue_names() == ["coinbase", "kraken", "absent", "empty", "leaves", "lost", "misnamed", "other"]
    assert find_venue("other").uri == "ws://127.0.0.1:1"
    assert find_venue("coinbase").uri.startswith("wss://")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent", "can not be loaded: ModuleNotFoundError: No module named 'no_such_module'; mend or uninstall it"),
        ("lost", "can not be loaded: AttributeError"),
        ("leaves", "can not be loaded: SystemExit: 0"),
        ("empty", "is no venue: it lacks channels, check_product"),
        ("misnamed", "calls itself 'other'"),
    ],
)
def test_a_broken_one_is_one_line_that_names_its_distribution(added: Path, name: str, said: str) -> None:
    with pytest.raises(VenueError) as caught:
        find_venue(name)
    assert said in str(caught.value) and "distribution added-venues 1.2" in str(caught.value)
    done = run_python(
        "import sys; from deepwater.cli import main; sys.exit(main(sys.argv[1:]))",
        "record", "--venue", name, "--product", "A-B", check=False, env={"PYTHONPATH": f"{added}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and said in done.stderr


def test_one_that_two_distributions_add_is_refused_with_both_named(added: Path) -> None:
    about = added / "more_venues-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: more-venues\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[deepwater.venues]\nother = added_venues:VENUE\n")
    with pytest.raises(VenueError, match=r"added-venues 1\.2 and distribution more-venues 0\.1|more-venues 0\.1 and"):
        find_venue("other")


def test_one_that_is_not_there_is_refused_with_a_list() -> None:
    with pytest.raises(VenueError, match="expected one of coinbase, kraken"):
        find_venue("nowhere")
