"""Prunes a feed many times beside its writer, and holds a view of the oldest chunks over each.

Arguments: base path, feed, number of prunes that let something go, bytes to keep. Says at the end what it did.
"""

import json
import sys
import time

from deepwater import ChunkGoneError, Platform

base, feed, wanted, keep = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
prunes = chunks = views = late = 0
held = []
with Platform(base) as dw:
    reader = dw[feed]
    while prunes < wanted:
        window = reader.rows(reader.first, reader.first + 25)
        if len(window) < 25:
            time.sleep(0.001)
            continue
        parts = list(window)
        before = [part.tobytes() for part in parts]
        untouched = reader.rows(reader.first, reader.first + 25)
        done = dw.prune(feed, max_bytes=keep)
        if not done.chunks:
            time.sleep(0.001)
            continue
        prunes, chunks = prunes + 1, chunks + done.chunks
        assert reader.first == done.stop
        assert [part.tobytes() for part in parts] == before
        views += 1
        held.append((parts, before))
        try:
            untouched.to_numpy()
        except ChunkGoneError:
            late += 1
    assert all([part.tobytes() for part in parts] == before for parts, before in held)
    held.clear()
print(json.dumps({"prunes": prunes, "chunks": chunks, "views": views, "gone": late}))
