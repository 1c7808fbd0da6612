"""How a feed is doing, for who operates it: fresh or not, who writes it, how fast, how long the disk lasts.

Looks only: takes no lock, creates nothing, and opens the newest chunk, the one where the last minute begins, and the
marks. A feed's *age* is the time since its writer last wrote (the heartbeat in its newest file, by the machine's
clock), not the age of its newest record: records may carry an exchange's clock, or be of the past.
"""

from __future__ import annotations

import os
from typing import Any

from deepwater.chain import Chain
from deepwater.chunk import Chunk
from deepwater.describe import durable
from deepwater.locks import is_alive, may_be_alive
from deepwater.reader import Reader
from deepwater.timestamps import now_us

MINUTE_US, DAY_US = 60_000_000, 86_400_000_000


def status_of(reader: Reader, now: int | None = None) -> dict[str, Any]:
    """Return how a feed is doing, as plain values.

    Parameters
    ----------
    reader : Reader
        Of a durable feed or of a ring.
    now : int, optional
        The time, µs since the epoch.

    Returns
    -------
    dict
        - feed, persist, records, end (position after the newest record);
        - newest_us, newest_age_us: primary clock of the newest record, and how long ago that is (negative: ahead);
        - heartbeat_us, age_us: when the writer last wrote, and how long ago; None if nobody ever did;
        - writer: None, or pid, host, since_us, and state: "alive", "stopped" (by a signal), "elsewhere" (out of sight:
          a container of this machine), "dead" (it did not close the feed) or "closed";
        - rate: records/s over the last minute of its clock, up to the newest record;
        - bytes_per_day at that rate, None of a ring; disk_free: bytes where its files are;
        - gaps_today: gap marks noticed since midnight UTC;
        - durable_lag: records published that are not known to be on the device, None of a ring.

    Raises
    ------
    CorruptFileError, FeedNotFoundError
    """
    now = now_us() if now is None else now
    chain = reader._chain
    end = int(reader.end)
    newest = reader.latest(1)[reader.layout.ts_col]
    newest_us = int(newest[0]) if len(newest) else None
    heartbeat = heartbeat_us(reader)
    rate = _rate(reader, end, newest_us)
    persist = reader.settings.persist
    today = now - now % DAY_US
    return {
        "feed": reader.feed, "persist": persist, "records": end - int(reader.first), "end": end,
        "newest_us": newest_us, "newest_age_us": None if newest_us is None else now - newest_us,
        "heartbeat_us": heartbeat, "age_us": None if heartbeat is None else max(0, now - heartbeat),
        "writer": writer_state(reader), "rate": rate,
        "bytes_per_day": round(rate * 86_400 * reader.layout.record_size) if persist else None,
        "disk_free": _free(chain.directory.path) if isinstance(chain, Chain) else None,
        "gaps_today": int((reader.gaps()["timestamp_us"] >= today).sum()),
        "durable_lag": max(0, end - durable(reader)) if persist else None,
    }  # fmt: skip


def heartbeat_us(reader: Reader) -> int | None:
    """When the writer last wrote; None if nobody ever did. A chunk that has no record yet was begun by a write."""
    tail = reader._chain.tail
    if tail is None or not int(reader.end):
        return None
    return tail.heartbeat_us or (tail.activated_us if isinstance(tail, Chunk) else 0) or None


def writer_state(reader: Reader) -> dict[str, Any] | None:
    """Who writes the feed, or was the last to: `writer` of `status_of`. Reads no record and no mark."""
    tail = reader._chain.tail
    owner = tail.owner() if tail is not None else None
    if owner is None:
        return None
    if not owner.held:
        state = "closed"
    elif is_alive(owner):
        state = "stopped" if _is_stopped(owner.pid) else "alive"
    else:
        state = "elsewhere" if may_be_alive(owner) else "dead"
    return {"pid": owner.pid, "host": owner.host, "since_us": owner.since_us, "state": state}


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process (SIGSTOP, a debugger)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False


def _rate(reader: Reader, end: int, newest_us: int | None) -> float:
    """Records/s of the last minute up to the newest record; of a feed younger than that, since it began."""
    if newest_us is None:
        return 0.0
    begin = max(0, newest_us - MINUTE_US)
    first = int(reader.position_of(begin))
    length = MINUTE_US
    if first <= reader.first:
        oldest = reader.rows(first, first + 1)[reader.layout.ts_col]
        length = newest_us - int(oldest[0]) if len(oldest) else 0
    return max(0, end - first - (first <= reader.first)) / length * 1e6 if length > 0 else 0.0


def _free(path: str) -> int:
    system = os.statvfs(path)
    return system.f_bavail * system.f_frsize
