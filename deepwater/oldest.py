"""Where a feed begins after retention: ``oldest.json``, the one durable word on what was let go.

A feed begins with chunk 1 at position 0. Once retention has let chunks go (`deepwater.retain`), ``oldest.json``
beside them says with which chunk it begins, and at which position::

    {"format": "1.0", "incarnation": "<32 hex digits>",     of the life of the feed it speaks of
     "chunk_id": 7, "position": 60000,                      the oldest chunk held, and its first record
     "until_us": 1786309549000000,                          the greatest primary clock of all that was let go
     "crc": 1234567890}                                     CRC-32 of the other members as canonical JSON

Invariants: it is replaced by rename and synced BEFORE the first file goes; `chunk_id` and `position` only grow; the
chunk it names is there, and its activation block says the same position. So files of lower ids are leftovers of a
prune that was killed (nobody reads them, the next prune removes them), and a first chunk that is missing without this
file to explain it is damage, as ever. Absent: nothing was let go.

Rejected: *the lowest chunk there is, is the first* (a lost file would pass for a pruned one); *the feed registry* (a
cache: losing it must lose nothing); *settings.json* (replaced by operators and by `resize_feed`, without a lock: an
update that crosses a prune would undo it); *a word in the header of the first chunk held* (a sealed chunk would
change, and who opens it cannot know that it is the first); *an emptied chunk 1 as a tombstone* (files never shrink).
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass

from deepwater import format as fmt
from deepwater.errors import CorruptFileError, SchemaError
from deepwater.files import Directory
from deepwater.jsontext import load_json

OLDEST = "oldest.json"
_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Oldest:
    """The oldest chunk held and the position of its first record; `until_us`: the newest stamp that was let go."""

    chunk_id: int = 1
    position: int = 0
    until_us: int = 0


ALL = Oldest()
"""Nothing was let go."""


def read_oldest(directory: Directory, ids: fmt.Ids) -> Oldest:
    """Where a feed begins.

    Raises
    ------
    CorruptFileError
        The file is damaged, or of another life of the feed.
    """
    try:
        data = directory.read(OLDEST)
    except FileNotFoundError:
        return ALL
    path = directory.name_of(OLDEST)
    try:
        found = load_json(data, path)
        crc, life = found.pop("crc"), found["incarnation"]
        oldest = Oldest(*(found[key] for key in ("chunk_id", "position", "until_us")))
    except (SchemaError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(path, f"not what retention wrote: {error}") from error
    if crc != _crc(found) or not all(type(n) is int and 0 <= n <= _MAX for n in asdict(oldest).values()):
        raise _corrupt(path, "its checksum does not fit: it was damaged or edited")
    if life != ids.incarnation.hex():
        raise _corrupt(path, f"it speaks of another life of the feed ({life}, expected {ids.incarnation.hex()})")
    return oldest


def write_oldest(directory: Directory, ids: fmt.Ids, oldest: Oldest) -> None:
    """Say durably where a feed begins. Under its MAINTENANCE lock, before a file goes."""
    directory.write(OLDEST, oldest_bytes(ids, oldest))


def oldest_bytes(ids: fmt.Ids, oldest: Oldest) -> bytes:
    """The text of the file."""
    about = {"format": f"{fmt.MAJOR}.{fmt.MINOR}", "incarnation": ids.incarnation.hex(), **asdict(oldest)}
    return (json.dumps({**about, "crc": _crc(about)}, indent=1) + "\n").encode()


def _crc(about: dict[str, object]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True, separators=(",", ":")).encode())


def _corrupt(path: str, reason: str) -> CorruptFileError:
    way_out = "restore it from a copy, or see deepwater repair"
    return CorruptFileError(f"{path}: {reason}; {way_out}", path=path, reason=reason)
