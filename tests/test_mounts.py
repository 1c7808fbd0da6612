"""Places and machines on which the promises do not hold are refused, or warned of, in words."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

import model
from deepwater import DeepwaterError, Platform, mounts

SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS}


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Say of which kind the file system of this test's directory is."""

    def as_(kind: str, *, device: str | None = None) -> None:
        found = os.stat(tmp_path).st_dev
        table = tmp_path / f"mounts-{kind}-{device}"
        device = device or f"{os.major(found)}:{os.minor(found)}"
        point = str(tmp_path).replace(" ", "\\040")
        table.write_text(
            "1 0 254:99 / / rw - ext4 /dev/root rw\nshort line\n"
            f"36 1 {device} / {point} rw,relatime shared:1 master:2 - {kind} host:/export rw\n"
        )
        monkeypatch.setattr(mounts, "MOUNTS", str(table))

    return as_


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs"])
def test_a_writer_on_a_network_file_system_is_refused(tmp_path: Path, mounted, kind: str) -> None:
    """So is who makes a store there; who reads one is warned; whoever knows better may say so."""
    with Platform(tmp_path / "store") as dw:
        dw.create_feed(SPEC)
        dw.write("F", model.checked_records(0, 3, 1))
    mounted(kind)
    with Platform(tmp_path / "new") as dw, pytest.raises(DeepwaterError, match=f"is on {kind}: .*local file system"):
        dw.create_feed(SPEC)
    assert not list((tmp_path / "new").glob("*"))
    with Platform(tmp_path / "store") as dw:
        with pytest.warns(UserWarning, match=f"is on {kind}: a network file system"), dw["F"] as reader:
            assert len(reader) == 3
        with pytest.raises(DeepwaterError, match="DEEPWATER_ANY_FILE_SYSTEM=1") as raised:
            dw.create_writer("F")
        assert raised.value.file_system == kind


def test_whoever_knows_better_is_only_warned(tmp_path: Path, mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted("nfs4")
    monkeypatch.setenv(mounts.ANY_VARIABLE, "1")
    with Platform(tmp_path / "store") as dw:
        with pytest.warns(UserWarning, match="nfs4"):
            dw.create_feed(SPEC)
        with pytest.warns(UserWarning, match="nfs4"):
            dw.write("F", model.checked_records(0, 3, 1))


@pytest.mark.parametrize(
    ("kind", "text"), [("fuse", "FUSE"), ("fuse.mergerfs", "FUSE"), ("virtiofs", "host"), ("vboxsf", "host")]
)
def test_what_depends_on_who_serves_it_is_warned_of(tmp_path: Path, mounted, kind: str, text: str) -> None:
    mounted(kind)
    with Platform(tmp_path / "store") as dw, pytest.warns(UserWarning, match=text):
        dw.create_feed(SPEC)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "apfs", "f2fs", "what-is-this"])
def test_local_file_systems_are_not_spoken_of(tmp_path: Path, mounted, kind: str) -> None:
    mounted(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Platform(tmp_path / "store") as dw:
            dw.create_feed(SPEC)


def test_a_device_of_its_own_is_found_by_path(tmp_path: Path, mounted) -> None:
    """Files on btrfs have another device than their mount; the longest mount point above them tells."""
    mounted("nfs", device="0:4242")
    with Platform(tmp_path / "store") as dw, pytest.raises(DeepwaterError, match="is on nfs"):
        dw.create_feed(SPEC)


def test_where_nobody_tells_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", str(tmp_path / "nowhere"))
    with Platform(tmp_path / "store") as dw:
        dw.create_feed(SPEC)
    assert mounts.kind_of(os.stat(tmp_path).st_dev, str(tmp_path), str(tmp_path / "nowhere")) == ""


def test_this_machines_mounts_are_read(tmp_path: Path) -> None:
    if not os.path.exists(mounts.MOUNTS):
        pytest.skip("no mountinfo here")
    kind = mounts.kind_of(os.stat(tmp_path).st_dev, str(tmp_path), mounts.MOUNTS)
    assert kind and not mounts.why_not(kind)
    assert mounts.kind_of(os.stat("/proc").st_dev, "/proc", mounts.MOUNTS) == "proc"


@pytest.mark.parametrize(("word_bytes", "byte_order", "text"), [(4, "little", "32-bit"), (8, "big", "big-endian")])
def test_other_machines_are_refused(word_bytes: int, byte_order: str, text: str) -> None:
    with pytest.raises(DeepwaterError, match=text):
        mounts.check_machine(word_bytes, byte_order)
    mounts.check_machine()
