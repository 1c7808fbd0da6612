"""The real sink: feeds of a store on disk, through the public API."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from deepwater.apps.sink import FeedWriter, Records
from deepwater.errors import DeepwaterError, FeedLockedError
from deepwater.platform import Platform
from deepwater.schema import FeedSpec
from deepwater.writer import Writer

__all__ = ["PlatformSink"]


class PlatformSink:
    """Feeds of a store on disk.

    Parameters
    ----------
    base_path : path
        The store's directory; created if absent.
    """

    def __init__(self, base_path: str | Path) -> None:
        self._platform = Platform(base_path)
        self._close = contextlib.ExitStack()
        self._close.callback(self._platform.close)
        self._places: dict[str, tuple[int, int]] = {}
        self._opened: dict[str, FeedWriter] = {}
        self._writers: dict[str, Writer] = {}
        self._chunks: dict[str, int] = {}

    def open(self, spec: FeedSpec) -> FeedWriter:
        """Create the feed if it is absent and open its writer; see `Sink.open`.

        Raises
        ------
        FeedLockedError
            If another process records the feed.
        SchemaMismatchError
            If the feed exists with another layout.
        """
        self._platform.create_feed(spec)
        writer = self._platform.create_writer(spec.feed_name)
        if isinstance(writer, Writer):
            self._writers[spec.feed_name] = writer
            self._chunks[spec.feed_name] = writer.chunk_id
        self._opened[spec.feed_name] = writer
        self._close.callback(self.release, spec.feed_name)
        path = self._path(spec.feed_name)
        place = _place(path)
        if place is not None:
            self._places[path] = place
        return writer

    def release(self, name: str) -> None:
        """See `Sink.release`."""
        writer = self._opened.pop(name, None)
        if writer is None:
            return
        for known in (self._writers, self._chunks):
            known.pop(name, None)
        self._places.pop(self._path(name), None)
        try:
            writer.flush()
        finally:
            writer.close()

    def _path(self, name: str) -> str:
        return os.path.join(self._platform.base_path, "data", name)

    def tail(self, spec: FeedSpec, count: int) -> Records:
        """See `Sink.tail`."""
        with self._platform.create_reader(spec.feed_name) as reader:
            return np.array(reader.latest(count).to_numpy())

    def check(self) -> None:
        """See `Sink.check`: the feeds' directories are those that were opened, or somebody removed them."""
        for path, place in self._places.items():
            if _place(path) != place:
                raise DeepwaterError(f"{path} was removed while it was written: what came since is lost", path=path)

    def rotated(self) -> list[str]:
        """See `Sink.rotated`."""
        begun = {name: writer.chunk_id for name, writer in self._writers.items()}
        names = [name for name, chunk_id in begun.items() if chunk_id != self._chunks[name]]
        self._chunks = begun
        return names

    def retain(self, feeds: Sequence[str] | None = None) -> tuple[int, list[str]]:
        """See `Sink.retain`. A feed that somebody else prunes just now is left to them."""
        chunks, errors = 0, []
        for name in list(self._writers) if feeds is None else feeds:
            try:
                chunks += self._platform.prune(name).chunks
            except FeedLockedError:
                continue
            except Exception as error:  # noqa: BLE001 - nothing that happens here may end a recording
                errors.append(f"retention: feed {name}: {error}")
        return chunks, errors

    def close(self) -> None:
        """Flush and close the writers, the latest opened first, then the store. Idempotent."""
        self._close.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _place(path: str) -> tuple[int, int] | None:
    """Which directory it is; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
