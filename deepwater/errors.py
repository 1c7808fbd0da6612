"""Every error Deepwater raises, in one tree.

::

    DeepwaterError
    ├── misuse: the caller can mend it
    │   ├── SchemaError(ValueError)            a spec is wrong
    │   │   └── SchemaMismatchError            the feed exists with another layout
    │   ├── TimeFormatError(ValueError)        a time is not one of the accepted forms
    │   ├── FeedNameError(ValueError)          a name is not [A-Za-z0-9][A-Za-z0-9._-]{0,99}
    │   ├── FeedNotFoundError(LookupError)     no such feed in this store
    │   ├── RecordError(ValueError)            a value does not fit its field
    │   └── ClosedError(ValueError)            the handle is closed, or belongs to another process
    ├── state: true now, perhaps not later
    │   ├── FeedLockedError                    another writer holds the feed
    │   ├── EmptyFeedError(RuntimeError)       the feed has no record
    │   ├── NoSnapshotError(LookupError)       no complete snapshot at or before the time asked for
    │   ├── LappedError                        a ring overwrote, or retention let go, what was being read
    │   ├── ChunkGoneError(LookupError)        retention removed the chunk
    │   ├── StorageFullError(OSError)          no space for the next chunk; nothing was lost
    │   └── DurabilityError(OSError)           the device refused a sync; the writer is read-only now
    └── damage
        └── CorruptFileError                   a file is not what its header or its neighbours say

Each message says what and where, what was expected and found, and the way out. The parts named in
the message are attributes too (`error.parts` holds them all), and errors survive pickling, so they
can cross a process boundary.
"""

from __future__ import annotations

from typing import Any


class DeepwaterError(Exception):
    """Base of every error raised on purpose by Deepwater.

    Parameters
    ----------
    message : str
        What and where; expected and found; the way out.
    **parts
        The facts of the message by name. Each becomes an attribute.
    """

    def __init__(self, message: str, /, **parts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.parts = parts
        for name, value in parts.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.parts)


def _rebuild(cls: type[DeepwaterError], message: str, parts: dict[str, Any]) -> DeepwaterError:
    return cls(message, **parts)


class SchemaError(DeepwaterError, ValueError):
    """A spec is wrong. Attributes, where known: `field`, `feed`."""


class SchemaMismatchError(SchemaError):
    """The feed exists with another layout, or data has another one. Attributes: `feed`, `field`."""


class TimeFormatError(DeepwaterError, ValueError):
    """A time is in none of the accepted forms. Attribute: `value`."""


class FeedNameError(DeepwaterError, ValueError):
    """A feed name breaks the naming rule. Attribute: `name`."""


class FeedNotFoundError(DeepwaterError, LookupError):
    """No such feed in this store. Attributes: `feed`, `base_path`, `suggestions`."""


class RecordError(DeepwaterError, ValueError):
    """A value does not fit its field. Attributes, where known: `column`, `row`, `value`."""


class ClosedError(DeepwaterError, ValueError):
    """The handle was closed, or was opened by the process this one was forked from."""


class FeedLockedError(DeepwaterError):
    """Another writer holds the feed. Attributes: `feed`, `pid`, `host`, `since_us`."""


class EmptyFeedError(DeepwaterError, RuntimeError):
    """The feed holds no record. Attribute: `feed`."""


class NoSnapshotError(DeepwaterError, LookupError):
    """No complete snapshot at or before the time asked for. Attributes: `feed`, `at_us`."""


class LappedError(DeepwaterError):
    """A ring overwrote records, or retention let them go, before a reader came to them. Attribute: `lost`."""

    lost: int = 0


class ChunkGoneError(DeepwaterError, LookupError):
    """Retention removed a chunk before it was read. Attributes, where known: `feed`, `chunk_id`, `first`."""


class StorageFullError(DeepwaterError, OSError):
    """No space for the next chunk. Nothing published is lost; write again when there is space.

    Attributes: `errno`, `path`.
    """


class DurabilityError(DeepwaterError, OSError):
    """A sync failed. The writer accepts nothing more; what the device holds is `durable`."""


class CorruptFileError(DeepwaterError):
    """A file is not what its header or its neighbours say. Attributes: `path`, `reason`."""
