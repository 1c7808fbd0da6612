"""Calls to the system that fail."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import model
from deepwater import Platform, StorageFullError
from fault_table import Trials
from processes import Worker

WORKERS = Path(__file__).parent.parent / "workers"
SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS}
IN_CI = {"chunks": 400, "ring": 300}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chunks", "ring"])
def test_every_call_to_the_system_fails_once(
    quick_dir: Path, fault: Callable[[str, str], Trials], scale: int, kind: str
) -> None:
    """F4. The calls are replaced in `os`, `fcntl` and `mmap`; each call of each operation fails with each error.

    Making a store and a feed, opening, writing one record and across chunks, a gap, a resize, flush, close, settings,
    deleting, reading. What must be seen: an error of that errno (a full disk is StorageFullError, a failed sync
    DurabilityError, and never "damage"); the same writer goes on, or after a failed sync the next one does; every
    write is whole; no descriptor and no mapping is left. All of them with ``--fault-scale 10``, else a sample.
    """
    most, seed = (0 if scale >= 10 else IN_CI[kind] * scale), 5
    with fault("F4", f"each call to the system fails, {kind}") as trials:
        with Worker(WORKERS / "fails_at_each_call.py", quick_dir, kind, most, seed, timeout=280 * scale) as worker:
            found = json.loads(worker.finish())
        trials.done(found["done"])
        trials.note(planned=found["plan"], not_reached=found["missed"], seed=seed)
        for text in found["failures"]:
            trials.fail(text)
        assert found["missed"] <= 0.2 * found["plan"]


def test_a_delete_that_failed_keeps_no_lock(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps the error kept its frames, and with them the lock: the next delete said "has a writer"."""
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        rename = os.rename

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "rename", full)
        with pytest.raises(StorageFullError) as kept:
            dw.delete_feed("F")
        monkeypatch.setattr(os, "rename", rename)
        dw.delete_feed("F")
        assert dw.list_feeds() == []
        del kept


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_what_the_system_has_none_left_of_is_no_damage(
    tmp_store: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A feed's directory that could not be opened for want of descriptors was called "not a directory"."""
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        real = os.open

        def starved(path: object, *args: int, **kwargs: int) -> int:
            if path == "F":
                raise OSError(code, os.strerror(code))
            return real(path, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", starved)
        with pytest.raises(OSError, match=str(tmp_store)) as raised:
            dw.create_reader("F")
        assert raised.value.errno == code
