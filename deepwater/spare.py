"""The next chunk, made ahead of need in a thread: allocating and syncing a large file takes milliseconds."""

from __future__ import annotations

import threading

from deepwater import format as fmt
from deepwater.chunk import chunk_name, create_chunk
from deepwater.errors import DeepwaterError
from deepwater.files import Directory
from deepwater.index import index_name
from deepwater.layout import Layout


class Spare:
    """A chunk file in the making. Its thread ends by itself; whoever uses the spare waits for it."""

    def __init__(self, directory: Directory, chunk_id: int, layout: Layout, ids: fmt.Ids, size_bytes: int) -> None:
        self._directory, self._chunk_id = directory, chunk_id
        self._made = False
        thread = threading.Thread(
            target=self._make, args=(layout, ids, size_bytes), name="deepwater-spare", daemon=True
        )
        self._thread: threading.Thread | None = None
        try:
            thread.start()
            self._thread = thread
        except RuntimeError:
            pass  # no thread to be had (a limit, or the interpreter is ending): the writer makes the chunk itself

    def _make(self, layout: Layout, ids: fmt.Ids, size_bytes: int) -> None:
        try:
            self._directory.remove(index_name(self._chunk_id))
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
        self._wait()
        if self._made:
            self._directory.remove(chunk_name(self._chunk_id))

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
