"""Deepwater: a feed is a published array of records, live and historical through the same cursor.

The names of `__all__` are the promise; everything else is free to change. Each is loaded when it is first
asked for (PEP 562), so that `import deepwater` costs nothing: no NumPy, no pandas, no pyarrow. This file
knows where a name lives and nothing more.

Examples
--------
>>> import deepwater
>>> issubclass(deepwater.FeedNotFoundError, LookupError)
True
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepwater.errors import (
        ChunkGoneError,
        ClosedError,
        CorruptFileError,
        DeepwaterError,
        DurabilityError,
        EmptyFeedError,
        FeedLockedError,
        FeedNameError,
        FeedNotFoundError,
        LappedError,
        NoSnapshotError,
        RecordError,
        SchemaError,
        SchemaMismatchError,
        StorageFullError,
        TimeFormatError,
    )
    from deepwater.platform import Platform
    from deepwater.schema import FeedSpec

__version__ = "0.1.0"

__all__ = [
    "ChunkGoneError",
    "ClosedError",
    "CorruptFileError",
    "DeepwaterError",
    "DurabilityError",
    "EmptyFeedError",
    "FeedLockedError",
    "FeedNameError",
    "FeedNotFoundError",
    "FeedSpec",
    "LappedError",
    "NoSnapshotError",
    "Platform",
    "RecordError",
    "SchemaError",
    "SchemaMismatchError",
    "StorageFullError",
    "TimeFormatError",
    "__version__",
]

_HOME = {"Platform": "deepwater.platform", "FeedSpec": "deepwater.schema"}


def __getattr__(name: str) -> Any:
    """Load a public name from its module and keep it here."""
    if name not in __all__:
        # `name` and `obj` let Python add "Did you mean".
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__]
        )
    value = getattr(importlib.import_module(_HOME.get(name, "deepwater.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not, for Tab completion."""
    return sorted({*globals(), *__all__})
