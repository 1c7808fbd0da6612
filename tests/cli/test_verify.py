"""verify: a line a finding, a sum, and an exit code that scripts can act on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_kit import Kept, deepwater, one_line

from deepwater import cli


@pytest.fixture
def copy(kept: Kept, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept.path, tmp_path / "copy"))


def test_a_sound_store_is_one_line_and_exit_0(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--base-path", str(kept.path)]) == 0
    out, said = capfd.readouterr()
    assert one_line(out).startswith("verified 3 feeds, ") and out.endswith(": nothing is wrong\n") and not said
    assert cli.main(["verify", "TICKS", "--quick", "--jobs", "1", "--base-path", str(kept.path)]) == 0
    assert capfd.readouterr().out.endswith(", no records read (--quick): nothing is wrong\n")


@pytest.mark.faults
def test_damage_is_exit_2_a_warning_1_and_json_says_all(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (copy / "data/TICKS/TICKS.reg").unlink()
    assert cli.main(["verify", "--base-path", str(copy)]) == 1
    assert capfd.readouterr().out.splitlines()[0].startswith(f"warning: {copy}/data/TICKS/TICKS.reg: ")
    chunk = copy / "data/TICKS/chunk_00000002.bin"
    with chunk.open("r+b") as file:
        file.seek(16384 + 48 * 10)
        file.write(b"\xff")
    assert cli.main(["verify", "TICKS", "--json", "--base-path", str(copy)]) == 2
    report = json.loads(capfd.readouterr().out)
    assert (report["errors"], report["warnings"]) == (1, 1)
    found = report["findings"][0]
    assert (found["code"], found["path"], found["feed"], found["first"]) == ("records", str(chunk), "TICKS", 700)


def test_what_is_not_there_is_one_line(kept: Kept) -> None:
    """And exit 3: 1 and 2 are what was found."""
    for command in ("verify", "repair"):
        assert "no feed 'NO'" in one_line(deepwater(command, "NO", "--base-path", kept.path, code=3).stderr)
        assert "no store" in one_line(deepwater(command, "--base-path", "/nowhere", code=3).stderr)
        assert "1 to 64" in one_line(deepwater(command, "--jobs", "0", code=3).stderr)
        assert "--nope" in one_line(deepwater("--base-path", kept.path, command, "--nope", code=3).stderr)


@pytest.mark.faults
def test_repair_says_then_does_then_has_nothing_to_do(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = ["--base-path", str(copy)]
    assert cli.main(["repair", *base]) == 0
    assert capfd.readouterr().out == "nothing to mend\n"
    with (copy / "data/TICKS/chunk_00000002.bin").open("r+b") as file:
        file.seek(16384 + 48 * 10)
        file.write(b"\xff")
    (copy / "data/TICKS/settings.json").unlink()
    assert cli.main(["repair", "TICKS", *base]) == 1
    planned = capfd.readouterr().out.splitlines()
    assert "nothing was changed: --apply does it" in planned[-1] and any(": LOST " in line for line in planned)
    assert planned[-1].startswith(f"{len(planned) - 2} changes to make, ")  # a loss is not one of them
    assert cli.main(["repair", "--apply", "--json", *base]) == 0
    done = json.loads(capfd.readouterr().out)
    assert done["applied"] and not done["problems"]
    assert (Path(done["aside"]) / "TICKS" / "chunk_00000002.bin").exists()
    assert cli.main(["verify", *base]) == 0 == cli.main(["repair", "--apply", *base])


def test_what_cannot_be_repaired_is_exit_2(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in [*(copy / "data/TICKS").glob("chunk*"), copy / "data/TICKS/layout.json"]:
        path.unlink()
    assert cli.main(["repair", "TICKS", "--apply", "--base-path", str(copy)]) == 2
    assert "cannot be mended" in capfd.readouterr().out
