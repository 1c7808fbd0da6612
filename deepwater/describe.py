"""What a feed is and holds, as plain values. Functions of a reader."""

from __future__ import annotations

from typing import Any

from deepwater import format as fmt
from deepwater.chain import Chain
from deepwater.held import Held
from deepwater.locks import is_alive
from deepwater.reader import Reader


def writer_of(reader: Reader) -> dict[str, Any] | None:
    """The live writer of a feed: pid, host, since_us, heartbeat_us; None if nobody writes it."""
    tail = reader._chain.tail
    owner: fmt.Owner | None = tail.owner() if tail is not None else None
    if tail is None or owner is None or not is_alive(owner):
        return None
    return {
        "pid": owner.pid,
        "host": owner.host,
        "since_us": owner.since_us,
        "heartbeat_us": tail.heartbeat_us,
    }


def overview(reader: Reader) -> dict[str, Any]:
    """A feed in one row: no record is read but the first and the last."""
    records = len(reader)
    low, high = reader.coverage() if records else (None, None)
    chain = reader._chain
    tail = chain.tail
    return {
        "feed": reader.feed,
        "records": records,
        "first_us": low,
        "last_us": high,
        "record_bytes": reader.layout.record_size,
        "persist": reader.settings.persist,
        "bytes": chain.stored_bytes(),
        "chunks": len(chain),
        "gaps": len(reader.gaps()),
        "chunk_size_bytes": reader.settings.chunk_size_bytes,
        "index_playback": reader.settings.index_playback,
        "heartbeat_us": tail.heartbeat_us if tail is not None else 0,
        "writer_pid": (writer_of(reader) or {}).get("pid"),
        "problem": None,
    }


def describe(reader: Reader) -> dict[str, Any]:
    """Everything about a feed: `overview`, layout, settings, coverage of each clock, writer."""
    records = len(reader)
    return {
        **overview(reader),
        "incarnation": reader.incarnation,
        "first": reader.first,
        "end": int(reader.end),
        "ts_col": reader.layout.ts_col,
        "clocks": {name: reader.coverage(name) if records else None for name in reader.layout.clocks},
        "fields": [{"name": c.name, "type": c.type, "offset": c.offset, "desc": c.desc} for c in reader.layout.columns],
        "durable": durable(reader) if reader.settings.persist else 0,
        "settings": reader.settings.to_json(),
        "snapshots": len(reader.snapshots()),
        "writer": writer_of(reader),
        "path": reader._chain.path,
    }


def durable(reader: Reader) -> int:
    """The durable position: everything below it is on the device. Looks back to the last chunk that was synced."""
    return reader._ask(_durable)


def _durable(chain: Held) -> int:
    assert isinstance(chain, Chain)
    for index in reversed(range(len(chain))):
        on_device = chain.durable(index)
        if on_device or index == 0:
            return chain.base(index) + on_device
    return chain.first
