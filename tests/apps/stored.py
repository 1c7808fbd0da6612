"""Feeds of a store as plain rows and marks, for the comparison with a walk over the tape."""

from __future__ import annotations

from typing import Any

import numpy as np
from tape_walk import Gap, Product, Row, book_differences, differences

from deepwater import Platform

UNKNOWN = 2**64 - 1


def rows_of(array: np.ndarray[Any, Any]) -> list[Row]:
    return [dict(zip(array.dtype.names, row, strict=True)) for row in array.tolist()]


def gaps_of(marks: np.ndarray[Any, Any]) -> list[Gap]:
    return [
        (position, reason.decode().split(" ")[0], None if count == UNKNOWN else count)
        for position, reason, count in marks[["position", "reason", "count"]].tolist()
    ]


def faults(store: Platform, name: str, product: Product) -> list[str]:
    """Say everything in which the feeds of a product are not what the walk over the tape expects."""
    with store.create_reader(f"CB-L2-{name}") as reader:
        levels = rows_of(reader.rows(reader.first, reader.end).to_numpy())
        snapshots = [tuple(mark) for mark in reader.snapshots()[["position", "count"]].tolist()]
        level_gaps = gaps_of(reader.gaps())
        book = rows_of(reader.playback().to_numpy()) if snapshots else []
    with store.create_reader(f"CB-TRADES-{name}") as reader:
        trades = rows_of(reader.rows(reader.first, reader.end).to_numpy())
        trade_gaps = gaps_of(reader.gaps())
    found = [*differences(levels, product.levels), *differences(trades, product.trades)]
    found += book_differences(book, product)
    for what, stored, wanted in (
        ("snapshot marks", snapshots, product.snapshots),
        ("gaps of the book", level_gaps, product.level_gaps),
        ("gaps of the trades", trade_gaps, product.trade_gaps),
    ):
        if stored != wanted:
            found.append(f"{what}: {stored} stored, {wanted} expected")
    return found
