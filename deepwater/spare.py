"""The next chunk, made ahead of need in a thread: allocating and syncing a large file takes milliseconds."""

from __future__ import annotations

import contextlib
import threading

from deepwater import format as fmt
from deepwater.chunk import chunk_name, create_chunk
from deepwater.errors import DeepwaterError
from deepwater.files import Directory
from deepwater.layout import Layout


class Spare:
    """A chunk file in the making. Its thread ends by itself; whoever uses the spare waits for it."""

    def __init__(self, directory: Directory, chunk_id: int, layout: Layout, ids: fmt.Ids, size_bytes: int) -> None:
        self._directory, self._chunk_id = directory, chunk_id
        self._made = self._unwanted = False
        self._thread = threading.Thread(
            target=self._make, args=(layout, ids, size_bytes), name="deepwater-spare", daemon=True
        )

    def start(self) -> None:
        """Begin. Called once its owner holds the spare, so that an interrupt in here leaves no thread unknown."""
        with contextlib.suppress(RuntimeError):  # none to be had (a limit, or the interpreter is ending)
            self._thread.start()

    def _make(self, layout: Layout, ids: fmt.Ids, size_bytes: int) -> None:
        try:
            if self._unwanted:
                return
            create_chunk(self._directory, self._chunk_id, layout, ids, size_bytes)
            self._made = True
        except (OSError, DeepwaterError):
            pass  # the writer tries again when it needs the chunk, and reports it then

    def is_ready(self, chunk_id: int) -> bool:
        """Wait for the thread; whether it made chunk `chunk_id`."""
        self._wait()
        return self._made and self._chunk_id == chunk_id

    def discard(self) -> None:
        """Wait for the thread and remove the file: it never was part of the feed."""
        self._unwanted = True
        self._wait()
        if self._made:
            self._directory.remove(chunk_name(self._chunk_id))

    def _wait(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
