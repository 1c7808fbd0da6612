"""Puts something strange under the name of each file of a feed, and uses the feed. Says one line of JSON.

Arguments: base directory (the feed's store is ``store`` in it), names of files, what to put there, each with commas.
Each use is in a forked child with a deadline, so that a hang or a crash is seen; as root, some are as nobody.
"""

import json
import os
import shutil
import signal
import socket
import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path

import model
from deepwater import DeepwaterError, Platform
from processes import peak_kilobytes

base, places, strange = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(",")
NOBODY, DEADLINE_S, MOST_KIB = 65534, 20, 64 << 10
warnings.simplefilter("ignore")
counts: Counter = Counter()
failures: list[str] = []
with Platform(base / "store") as dw, dw["F"] as reader:
    truth = model.joined(reader.rows(0, reader.end), model.CHECKED).tobytes()


def put(path: Path, what: str) -> bool:
    """Put it there; False if it cannot be made here."""
    aside = path.with_name("aside")
    data = path.read_bytes() if path.exists() else bytes(32768)
    if what not in ("mode 000", "foreign owner", "8 TiB after it", "second name"):
        path.unlink(missing_ok=True)
    elif not path.exists():
        path.write_bytes(data)
    if what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            os.chdir(path.parent)  # its whole path may be too long
            server.bind(path.name)
            os.chdir("/")
    elif what == "link":
        aside.write_bytes(data)
        path.symlink_to("aside")
    elif what == "dangling link":
        path.symlink_to("nowhere")
    elif what == "link to a device":
        path.symlink_to("/dev/zero")
    elif what == "second name":
        os.link(path, base / "backup")
    elif what == "mode 000":
        path.chmod(0)
    elif what == "foreign owner":
        if os.geteuid() != 0:
            return False
        os.chown(path, NOBODY, NOBODY)
    elif what in ("8 TiB of nothing", "8 TiB after it"):
        try:
            with path.open("ab") as file:
                file.truncate(8 << 40)
        except OSError:
            return False
    elif what == "another chunk":
        shutil.copy(base / "store" / "data" / "F" / "chunk_00000002.bin", path)
    elif what != "missing":
        path.write_bytes({"empty": b"", "one byte": data[:1], "header only": data[:512]}[what])
    return True


def use(store: Path) -> str:
    """Everything a user does; what happened."""
    happened = "works"
    for step in (look, write):
        try:
            step(store)
        except (DeepwaterError, OSError) as error:
            if str(store) not in str(error) and not isinstance(error, DeepwaterError):
                raise
            happened = "refused"
    return happened


def look(store: Path) -> None:
    with Platform(store) as dw:
        dw.list_feeds()
        dw.feeds()
        with dw["F"] as reader:
            found = model.joined(reader.rows(0, reader.end), model.CHECKED).tobytes()
            assert truth.startswith(found), "other records than were written"
            dw.describe_feed("F")
            reader.snapshots()
            reader.read(model.EPOCH_2026, model.EPOCH_2026 + 5)


def write(store: Path) -> None:
    with warnings.catch_warnings(record=True) as said, Platform(store) as dw:
        warnings.simplefilter("always")
        writer = dw.create_writer("F")
        end, all_of_it = writer.end, len(truth) // model.CHECKED.itemsize
        is_told = any("records from position" in str(each.message) for each in said)  # a copy without its last chunk
        assert end == all_of_it or is_told, "a writer goes on where records are missing"
        writer.write_batch(model.checked_records(end, 15, 99), create_index=True)


def trial(place: str, what: str) -> None:
    store = base / "trial"
    shutil.rmtree(store, ignore_errors=True)
    (base / "backup").unlink(missing_ok=True)
    shutil.copytree(base / "store", store)
    if not put(store / place, what):
        return
    as_nobody = what == "mode 000" and os.geteuid() == 0
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(DEADLINE_S)
            if as_nobody:
                base.chmod(0o755)
                for path in (store, *store.rglob("*")):
                    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            before = peak_kilobytes()
            said = use(store)
            more = peak_kilobytes() - before
            os.write(writing, (said if more < MOST_KIB else f"{more} KiB of memory taken").encode())
            os._exit(0)
        except BaseException:  # noqa: BLE001 (a child must not go on as its parent)
            os.write(writing, traceback.format_exc(limit=-2)[-900:].encode())
            os._exit(1)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    said = os.read(reading, 1000).decode()
    os.close(reading)
    counts["trials"] += 1
    if status or said not in ("works", "refused"):
        failures.append(f"{place}: {what}: status {status}: {said}")
    counts[said if said in ("works", "refused") else "wrong"] += 1


look(base / "store")  # loads what children would each load
for place in places:
    for what in strange:
        trial(place, what)
shutil.rmtree(base / "trial")
print(json.dumps({"trials": counts.pop("trials"), "counts": counts, "failures": failures}))
