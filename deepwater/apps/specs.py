"""The feeds of the recorder and of the maintainer: the specs of ``schemas/``, one feed a product.

The JSON files are the one place where the records are described; the dtypes here are compiled from
them. A spec in a file is named for any product; only its `feed_name` is filled in.
"""

from __future__ import annotations

import dataclasses
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from deepwater.errors import DeepwaterError
from deepwater.layout import Layout
from deepwater.schema import FeedSpec

__all__ = [
    "DEPTH_MAX", "KRAKEN_L2", "KRAKEN_TRADES", "L2", "METRICS", "SNAPSHOTS", "TRADES", "dtype", "feed_name", "packer",
    "snapshots_spec", "spec",
]  # fmt: skip

L2 = "cb-l2"
SNAPSHOTS = "cb-l2snap"
TRADES = "cb-trades"
KRAKEN_L2 = "kr-l2"
KRAKEN_TRADES = "kr-trades"
METRICS = "dw-metrics"
DEPTH_MAX = 2046
"""The most levels a side that fit into a record of 65,536 bytes."""
_RING_RECORDS = 1024

# Installed, the specs lie beside the package; in the repository, at its root.
_PLACES = (Path(__file__).parents[1] / "schemas", Path(__file__).parents[2] / "schemas")


@lru_cache(maxsize=8)
def _template(kind: str) -> FeedSpec:
    for place in _PLACES:
        path = place / f"{kind}.json"
        if path.is_file():
            return FeedSpec.from_json(path)
    raise DeepwaterError(
        f"spec {kind}.json is in neither {_PLACES[0]} nor {_PLACES[1]}: the installation is incomplete; "
        "install deepwater again",
        kind=kind,
    )


def feed_name(kind: str, product: str) -> str:
    """Return the name of a product's feed.

    Examples
    --------
    >>> feed_name(TRADES, "BTC-USD"), feed_name(L2, "ETH-USD")
    ('CB-TRADES-BTC-USD', 'CB-L2-ETH-USD')
    """
    return f"{kind.upper()}-{product}"


def spec(kind: str, product: str) -> FeedSpec:
    """Return the spec of a product's feed.

    Parameters
    ----------
    kind : {"cb-trades", "cb-l2", "kr-trades", "kr-l2", "dw-metrics"}
    product : str
        E.g. ``BTC-USD``; of metrics the number of the recorder.

    Raises
    ------
    FeedNameError
        If the product cannot be part of a feed's name.
    """
    return dataclasses.replace(_template(kind), feed_name=feed_name(kind, product))


def snapshots_spec(product: str, depth: int, persist: bool) -> FeedSpec:
    """Return the spec of a product's feed of books of `depth` levels a side: a ring of 1,024, or durable.

    Raises
    ------
    DeepwaterError
        `depth` is not 1 to `DEPTH_MAX`.
    FeedNameError

    Examples
    --------
    >>> snapshots_spec("BTC-USD", 20, persist=False).fields[-1].type
    'float64[20]'
    """
    if not 1 <= depth <= DEPTH_MAX:
        raise DeepwaterError(f"depth {depth}: 1 to {DEPTH_MAX} levels a side fit into a record", depth=depth)
    about = spec(SNAPSHOTS, product).to_json()
    for field in about["fields"]:
        if field["type"].startswith("float64["):
            field["type"] = f"float64[{depth}]"
    about |= {"persist": persist, "config": {**about["config"], "depth": depth}}
    if not persist:
        about["chunk_size_bytes"] = _RING_RECORDS * (40 + 4 * 8 * depth)
    return FeedSpec.from_json(about)


@lru_cache(maxsize=8)
def dtype(kind: str) -> np.dtype[Any]:
    """Return the record dtype of a kind of feed, as the writer takes it without conversion.

    Examples
    --------
    >>> dtype(TRADES).itemsize, dtype(TRADES).fields["price"][1]
    (64, 48)
    """
    return Layout.compile(_template(kind)).dtype


@lru_cache(maxsize=8)
def packer(kind: str) -> struct.Struct:
    """Return what packs one record of a kind of feed from its values, in field order without padding.

    Examples
    --------
    >>> packer(L2).size, packer(L2).format
    (64, '<cc6xQQQQddQ')
    """
    return struct.Struct(Layout.compile(_template(kind)).struct_format)
