"""Venues by name: those of this package, and those that installed distributions add.

A distribution adds one by the entry-point group ``deepwater.venues``::

    [project.entry-points."deepwater.venues"]
    myvenue = "mypackage.venue:VENUE"

The object is a `venue.Venue` whose `name` is that of the entry point. Nothing of it is loaded before it is asked for,
so a broken one harms nobody else. The names of this package can not be taken over.
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from deepwater.errors import DeepwaterError

if TYPE_CHECKING:
    from deepwater.apps.venue import Venue

__all__ = ["BUILTIN", "GROUP", "VenueError", "find_venue", "venue_names"]

GROUP = "deepwater.venues"
BUILTIN = {
    "coinbase": "deepwater.apps.coinbase_venue:COINBASE",
    "kraken": "deepwater.apps.kraken_venue:KRAKEN",
}
"""Also in pyproject.toml, for whoever looks at entry points; found here when nothing is installed."""
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class VenueError(DeepwaterError, LookupError):
    """There is no such venue, or it can not be loaded. Attribute: `venue`, and `distribution` where one is to blame."""


def venue_names() -> list[str]:
    """Return the names of all venues, this package's first; loads none of them."""
    added = sorted({entry.name for entry in entry_points(group=GROUP)} - set(BUILTIN))
    return [*BUILTIN, *added]


def find_venue(name: str) -> Venue:
    """Load a venue.

    Raises
    ------
    VenueError
        If there is none of that name, or two; if it can not be loaded or is no venue: the message names the
        distribution it is of.
    MissingPackageError
        If the extra ``deepwater[apps]`` is not installed.
    """
    if name in BUILTIN:
        module, _, attribute = BUILTIN[name].partition(":")
        found: Venue = getattr(importlib.import_module(module), attribute)
        return found
    entries = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not entries:
        raise VenueError(f"venue {name!r} does not exist: expected one of {', '.join(venue_names())}", venue=name)
    if len(entries) > 1:
        owners = " and ".join(_owner(entry) for entry in entries)
        raise VenueError(f"venue {name!r} is of {owners}: uninstall all but one", venue=name)
    return _load(entries[0])


def _load(entry: EntryPoint) -> Venue:
    """Load what a distribution adds, and see that it is what it claims to be."""
    from deepwater.apps.venue import Venue
    from deepwater.apps.venue_guard import GuardedVenue

    owner = _owner(entry)
    about = {"venue": entry.name, "distribution": owner}
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # one that exits would end the command, with its exit code
        text = f"{type(error).__name__}: {error}"
        raise VenueError(f"venue {entry.name!r} of {owner} can not be loaded: {text}; mend or uninstall it",
                         **about) from error  # fmt: skip
    if not isinstance(found, Venue):
        lacks = [part for part in sorted(_parts(Venue)) if getattr(found, part, None) is None]
        raise VenueError(f"venue {entry.name!r} of {owner} is no venue: it lacks {', '.join(lacks)}", **about)
    if found.name != entry.name or not _NAME.fullmatch(entry.name):
        raise VenueError(
            f"venue {entry.name!r} of {owner} calls itself {found.name!r}: expected the name of its entry point, "
            "small letters, digits and minus", **about,
        )  # fmt: skip
    return GuardedVenue(found, owner)


def _parts(protocol: type) -> set[str]:
    members = set(protocol.__annotations__) | set(vars(protocol))
    return {name for name in members if not name.startswith("_")}


def _owner(entry: EntryPoint) -> str:
    return f"distribution {entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
