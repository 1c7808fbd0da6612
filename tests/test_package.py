"""What is installed: the wheel holds what it must, and importing it loads no more than it must."""

from __future__ import annotations

import email
import json
import os
import pkgutil
import re
import shutil
import sys
import textwrap
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

import deepwater
from processes import Worker, run_python

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"numpy", "pandas", "pyarrow", "polars", "msgspec", "websockets", "rich", "textual", "asyncio"}
MODULES = [info.name for info in pkgutil.walk_packages(deepwater.__path__, "deepwater.")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Build the wheel with the backend itself: no network, no isolation."""
    target = tmp_path_factory.mktemp("wheel")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    name = run_python(code, target, cwd=ROOT).stdout.split()[-1]
    with zipfile.ZipFile(target / name) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_bytes(wheel.read(f"deepwater-{deepwater.__version__}.dist-info/METADATA"))


def test_the_wheel_holds_every_module_and_the_type_marker(wheel: zipfile.ZipFile) -> None:
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "deepwater").rglob("*.py")}
    assert sources | {"deepwater/py.typed"} <= set(wheel.namelist())


def test_the_wheel_holds_the_specs(wheel: zipfile.ZipFile) -> None:
    specs = {path.name: path.read_bytes() for path in (ROOT / "schemas").glob("*.json")}
    assert specs
    shipped = {name for name in wheel.namelist() if name.startswith("deepwater/schemas/")}
    assert {name.rpartition("/")[2]: wheel.read(name) for name in shipped} == specs


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "deepwater", f"deepwater-{deepwater.__version__}.dist-info",
    }  # fmt: skip


def test_the_metadata_say_what_is_needed(metadata: Message) -> None:
    assert metadata["Version"] == deepwater.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {"apps", "polars", "duckdb", "notebooks", "test", "dev"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    core = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in core) == ["filelock", "numpy", "pandas", "pyarrow"]


def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(f"deepwater-{deepwater.__version__}.dist-info/entry_points.txt").decode()
    assert "deepwater = deepwater.cli:main" in text


def test_every_spec_file_is_json() -> None:
    for path in (ROOT / "schemas").glob("*.json"):
        assert isinstance(json.loads(path.read_bytes()), dict), path.name


def test_the_tests_need_nothing_that_the_extra_leaves_out() -> None:
    """The second command of the README installs `.[test]`; no test may skip because a package is missing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "deepwater[apps,polars,duckdb]" in project["optional-dependencies"]["test"]


# ------------------------------------------------------------------------------------------ what is loaded


def loaded_by(statement: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter has loaded after `statement`."""
    done = run_python(f"import sys\n{statement}\nprint(*sys.modules, file=sys.stderr)")
    return {name.split(".")[0] for name in done.stderr.split()} & HEAVY


@pytest.fixture(scope="module")
def alone() -> Iterator[Worker]:
    with Worker(ROOT / "tests" / "workers" / "imports_alone.py", timeout=280) as worker:
        yield worker


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported_alone(alone: Worker, module: str) -> None:
    """Alone, in a process that knows nothing of Deepwater: whatever the order of imports, nothing depends on it."""
    alone.send(module)
    said = json.loads(alone.readline())
    assert "failed" not in said, said["failed"]
    assert "deepwater" in said["loaded"] and not set(said["loaded"]) & {"pandas", "pyarrow", "polars"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import deepwater; dir(deepwater); deepwater.SchemaError") == set()


def test_importing_every_public_name_loads_neither_pandas_nor_pyarrow() -> None:
    assert loaded_by("from deepwater import *") <= {"numpy"}


def test_help_loads_nothing_heavy_not_even_numpy() -> None:
    code = """
        import sys
        sys.argv = ["deepwater", "--help"]
        from deepwater.cli import main
        try:
            code = main()
        except SystemExit as stop:
            code = stop.code
        assert not code, code
        print(*sys.modules, file=sys.stderr)
    """
    done = run_python(code)
    assert "usage" in done.stdout.lower()
    assert {name.split(".")[0] for name in done.stderr.split()} & HEAVY == set()


def test_python_dash_m_says_help_too() -> None:
    code = "import runpy; runpy.run_module('deepwater.cli', run_name='__main__', alter_sys=True)"
    assert "usage" in run_python(code, "--help").stdout.lower()


# ------------------------------------------------------------------------------------------ the kit itself


def test_a_worker_talks_and_is_reaped() -> None:
    with Worker("for line in iter(input, 'stop'): print(line.upper(), flush=True)") as worker:
        worker.send("ahoy")
        assert worker.readline() == "AHOY"
        worker.send("stop")
        assert worker.finish() == ""
    with Worker("input()") as worker:
        pass
    assert worker.process.returncode == -9
    assert not os.path.exists(f"/proc/{worker.pid}")


def test_a_worker_that_hangs_ends_itself_and_shows_where() -> None:
    done = run_python("import threading\nthreading.Event().wait()", timeout=0.2, check=False)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert '"<worker>", line 2' in done.stderr


def test_workers_run_the_tree_under_test() -> None:
    done = run_python("import deepwater, sys; print(deepwater.__file__, sys.argv[1])", "word")
    assert done.stdout.split() == [deepwater.__file__, "word"]
    assert Path(deepwater.__file__) == ROOT / "deepwater" / "__init__.py"
    assert sys.executable in done.args


LEAKY = """
    import gc, mmap, os, subprocess, sys, threading

    kept = []

    def test_descriptor():
        kept.append(open(__file__))

    def test_mapping(tmp_path):
        path = tmp_path / "mapped"
        path.write_bytes(bytes(4096))
        with open(path, "r+b") as file:
            options = {"trackfd": False} if sys.version_info >= (3, 13) else {}
            kept.append(mmap.mmap(file.fileno(), 0, **options))

    def test_thread():
        kept.append(threading.Thread(target=threading.Event().wait, daemon=True))
        kept[-1].start()

    def test_child():
        kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

    def test_zombie():
        os.spawnlp(os.P_NOWAIT, "true", "true")

    def test_what_the_collector_finds_is_fine():
        gc.disable()
        cycle = [mmap.mmap(-1, 4096)]
        cycle.append(cycle)

    def test_what_ends_soon_is_fine():
        gc.enable()
        threading.Timer(0.1, int).start()

    def test_a_failure_is_let_off():
        file = open(__file__)
        assert not file

    def test_data(shared_data):
        pass
"""


def test_the_tests_are_held_to_leave_nothing_behind(tmp_path: Path) -> None:
    """In a copy of this configuration, where no data lies beside the repository."""
    tests = tmp_path / "repository" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tests.parent)
    conftest = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    hurried, changes = re.subn(r"(?m)^_PATIENCE_S = .*", "_PATIENCE_S = 0.5", conftest)
    assert changes == 1
    (tests / "conftest.py").write_text(hurried, encoding="utf-8")
    (tests / "test_leaky.py").write_text(textwrap.dedent(LEAKY), encoding="utf-8")
    code = "import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests']))"
    done = run_python(code, check=False, cwd=tests.parent)
    said = set(re.findall(r"(?m)^(ERROR|FAILED) tests/test_leaky.py::test_(\w+)", done.stdout))
    leaks = {("ERROR", kind) for kind in ("descriptor", "mapping", "thread", "child", "zombie")}
    assert said == leaks | {("FAILED", "a_failure_is_let_off")}, done.stdout + done.stderr
    assert "data tests: 0 ran, 1 skipped" in done.stdout
