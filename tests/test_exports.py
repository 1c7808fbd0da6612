"""`deepwater.__all__` is the promise: adding a name is a decision, removing one breaks somebody."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import deepwater
from deepwater import errors

ERRORS = [
    "ChunkGoneError", "ClosedError", "CorruptFileError", "DeepwaterError", "DurabilityError",
    "EmptyFeedError", "FeedLockedError", "FeedNameError", "FeedNotFoundError", "LappedError",
    "NoSnapshotError", "RecordError", "SchemaError", "SchemaMismatchError", "StorageFullError",
    "TimeFormatError",
]  # fmt: skip
PROMISED = [*ERRORS, "FeedSpec", "Platform", "__version__"]


def test_all_is_what_was_promised() -> None:
    assert deepwater.__all__ == sorted(PROMISED)


def test_every_error_is_exported() -> None:
    classes = inspect.getmembers(errors, inspect.isclass)
    assert [name for name, value in classes if issubclass(value, Exception)] == ERRORS


@pytest.mark.parametrize("name", PROMISED)
def test_each_name_is_there_and_listed(name: str) -> None:
    value = getattr(deepwater, name)
    assert name in dir(deepwater)
    assert getattr(deepwater, name) is value
    assert name == "__version__" or (value.__name__ == name and value.__module__.startswith("deepwater."))


def test_type_checkers_are_shown_the_same_names() -> None:
    tree = ast.parse(Path(deepwater.__file__).read_text(encoding="utf-8"))
    shown = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
             and (node.module or "").startswith("deepwater.") for alias in node.names]  # fmt: skip
    assert sorted([*shown, "__version__"]) == sorted(PROMISED)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Platfrom'"):
        deepwater.Platfrom  # noqa: B018
    with pytest.raises(ImportError, match="Platfrom"):
        from deepwater import Platfrom  # noqa: F401
