"""Checks of a store's directory in shared memory: the headers of its rings, and what belongs to no feed."""

from __future__ import annotations

from deepwater import format as fmt
from deepwater.chunk import static_of
from deepwater.errors import CorruptFileError, DeepwaterError
from deepwater.feed_files import read_feed
from deepwater.files import TEMPORARY, Directory
from deepwater.findings import Findings
from deepwater.rawfile import RawFile, check_access, check_header
from deepwater.ring_files import ABOUT, WAKE, SharedPlace, parse_ring_name
from deepwater.store import IMPORTING, is_left

_CLEAN = "deepwater rings clean with the --base-path of this store"
_FEED_HALF = 8


def check_rings(out: Findings, base: Directory, data: Directory, store_id: bytes) -> None:
    """The headers of the store's rings, and what belongs to no feed."""
    try:
        directory = SharedPlace(base, store_id).open()
    except FileNotFoundError:
        return
    except (OSError, CorruptFileError) as error:
        reason = error.parts["reason"] if isinstance(error, CorruptFileError) else error.strerror
        out.error("shared-memory", SharedPlace(base, store_id).path, str(reason), way_out="remove it")
        return
    with directory:
        there = data.directories()
        filled = [name for name in there if name.startswith(IMPORTING) and not is_left(data, name)]
        feeds = {*there, *(name.removeprefix(IMPORTING) for name in filled)}
        for name in directory.names():
            ring = parse_ring_name(name)
            feed = ring[0] if ring else name.removesuffix(WAKE)
            if name == ABOUT or name.startswith(TEMPORARY):
                continue
            if feed not in feeds and directory.exists(name):
                out.warning("orphan", directory.name_of(name), "its feed is gone", way_out=_CLEAN)
            elif ring is not None:
                _check_ring(out, directory, data, name, *ring)


def _check_ring(out: Findings, directory: Directory, data: Directory, name: str, feed: str, ring_id: int) -> None:
    try:
        with Directory(feed, parent=data) as of_feed:
            about = read_feed(of_feed, feed)
        with RawFile(directory, name) as file:
            check_access(out, file.path, file.info)
            identity = fmt.parse_identity(file.read(0, fmt.IDENTITY_SIZE), file.path)
            if identity.ids.incarnation[:_FEED_HALF] != about.ids.incarnation[:_FEED_HALF]:
                out.warning("orphan", file.path, "of another life of its feed", way_out=_CLEAN)
                return
            ids = about.ids._replace(incarnation=identity.ids.incarnation)
            check_header(out, file, fmt.RING, ids, ring_id, static_of(about.layout))
            count, claim = file.word(fmt.COMMIT) & fmt.COUNT_MASK, file.word(fmt.CLAIM)
            if claim < count:
                out.error("claim", file.path, "it claims less than it published", offset=8 * fmt.CLAIM,
                          way_out="remove the ring", expected=f"at least {count}", found=str(claim))  # fmt: skip
    except FileNotFoundError:
        return  # gone just now
    except CorruptFileError as error:
        out.error("header", directory.name_of(name), str(error.parts["reason"]), offset=0, way_out="remove the ring")
    except (OSError, DeepwaterError):
        return  # said of the feed
