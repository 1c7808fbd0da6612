"""The shape of the package, read from its syntax: what may import what, and what nobody may do.

`LINE` is the whole architecture: a module imports only modules to its left. All imports count, those inside
functions and under TYPE_CHECKING too, so no cycle can hide; inside a function late loading is fine.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINE = """
    errors unshared wording jsontext durations spans timestamps | fields settings infer schema | layout
    | arrow frames rules values | format | files futex timerslack mounts | ring_files segment locks wake
    | chunk checksums index clockstats spare | feed_files oldest feed_registry global_registry store
    | clocktable held part window_text window | ring chain ring_chain
    | search asof marks cuts waiting follow reader ring_reader gaps | levels side bases book
    | recover keeper feed_writer writer ring_writer | pace lanes merge resume playback
    | book_records books live_book ladder | holder
    | findings rawfile check_chunk check_records check_feed check_rings check evidence rewrite repair_plan repair
    | describe feed_status retain new_feed platform shm | tables csvquotes csvfile dbn load | apps | cli
""".replace("|", "").split()

# Who may import what is not in the standard library ("*": everyone); `LATE` ones only inside functions.
# As types, under TYPE_CHECKING, they may be named anywhere.
THIRD_PARTY = {
    "numpy": {"*"}, "filelock": {"files"},
    "pyarrow": {"arrow", "tables", "csvfile"}, "pandas": {"frames", "timestamps"}, "polars": {"window"},
    "msgspec": {"apps"}, "websockets": {"apps"}, "rich": {"apps", "cli"}, "textual": {"apps"},
}  # fmt: skip
LATE = {"filelock", "pyarrow", "pandas", "polars"}
ONLY_IN = {"mmap": {"segment"}, "fcntl": {"files", "locks"}}

# Records are visible when the commit word is stored: in this function of this module, and nowhere else.
PUBLISH = ("segment", "publish")
COMMIT_WORD = re.compile(r"\bCOMMIT\w*")

# `ndarray(buffer=)` and memmap do not pin the mapping, SharedMemory is destroyed by a reader's exit, and a
# shorter file kills whoever has it mapped.
FORBIDDEN = {"memmap", "SharedMemory", "shared_memory", "resize", "ftruncate", "os.truncate", "O_TRUNC"}
PACK_INTO = {"writer"}  # pack_into zeroes before it writes: never on what is published

# Oracles prove something only while they share no code with what they judge.
ORACLES = {"format_reader": {"struct", "mmap"}}
FILE_LINES, FUNCTION_LINES, FUNCTION_AIM = 400, 60, 40

TREES = {
    path.relative_to(ROOT / "deepwater").with_suffix("").as_posix(): ast.parse(path.read_bytes(), str(path))
    for path in sorted((ROOT / "deepwater").rglob("*.py"))
}
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
EVERY_MODULE = pytest.mark.parametrize("module", [name for name in TREES if name != "__init__"])


def concept(module: str) -> str:
    """Return the module's name in LINE: "apps" for all of apps/."""
    return module.partition("/")[0]


def imports(tree: ast.AST, module: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield (absolute dotted name, node) for every import; `from a import b` yields "a.b"."""
    package = ["deepwater", *module.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{start}.{alias.name}", node) for alias in node.names)


def in_functions(tree: ast.AST) -> set[ast.AST]:
    """Return the nodes inside functions: they run late."""
    functions = (node for node in ast.walk(tree) if isinstance(node, FUNCTION))
    return {inner for node in functions for inner in ast.walk(node)}


def in_type_checking(tree: ast.AST) -> set[ast.AST]:
    """Return the nodes below `if TYPE_CHECKING:`; they never run."""
    tests = (node for node in ast.walk(tree) if isinstance(node, ast.If))
    bodies = (node.body for node in tests if ast.unparse(node.test).endswith("TYPE_CHECKING"))
    return {inner for body in bodies for child in body for inner in ast.walk(child)}


@EVERY_MODULE
def test_a_module_imports_only_from_its_left(module: str) -> None:
    assert concept(module) in LINE, f"{module}: not in LINE; a new module is a place in the architecture"
    here = LINE.index(concept(module))
    for name, node in imports(TREES[module], module):
        top, _, rest = name.partition(".")
        if top != "deepwater":
            continue
        target = rest.split(".")[0]
        where = f"{module}.py:{node.lineno} imports {name}"
        if target in {"__version__", ""}:
            continue
        assert target in LINE, f"{where}, which is no module"
        assert LINE.index(target) < here or target == concept(module) in ("apps", "cli"), f"{where}, to its right"


@EVERY_MODULE
def test_a_module_uses_only_the_packages_that_are_its_own(module: str) -> None:
    tree = TREES[module]
    late, types = in_functions(tree), in_type_checking(tree)
    for name, node in imports(tree, module):
        top = name.split(".")[0]
        where = f"{module}.py:{node.lineno} imports {name}"
        if top in {"deepwater", "__future__"} or node in types:
            continue
        if top in sys.stdlib_module_names:
            assert concept(module) in ONLY_IN.get(top, {concept(module)}), f"{where}: not here"
            continue
        assert top in THIRD_PARTY, f"{where}: not a dependency"
        assert THIRD_PARTY[top] & {"*", concept(module)}, f"{where}: not here"
        assert top not in LATE or node in late, f"{where}: inside a function, please"


def test_the_package_itself_loads_nothing() -> None:
    tree = TREES["__init__"]
    run = {name for name, node in imports(tree) if node not in in_type_checking(tree)}
    assert {name.split(".")[0] for name in run} <= {"__future__", "importlib", "sys", "typing"}


@EVERY_MODULE
def test_nobody_does_what_breaks_a_mapping(module: str) -> None:
    for node in ast.walk(TREES[module]):
        where = f"{module}.py:{getattr(node, 'lineno', 0)}"
        named = {getattr(node, key, None) for key in ("attr", "id", "name")} - {None}
        named |= {ast.unparse(node)} if isinstance(node, ast.Attribute) else set()
        if isinstance(node, ast.ImportFrom | ast.Import):
            named |= {part for name, _ in imports(ast.Module([node], [])) for part in name.split(".")}
        if not isinstance(node, FUNCTION):
            assert not named & FORBIDDEN, f"{where}: {named & FORBIDDEN}"
        assert "pack_into" not in named or module in PACK_INTO, f"{where}: pack_into"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ndarray"):
            assert "buffer" not in {key.arg for key in node.keywords}, f"{where}: ndarray(buffer=)"


def stores_to_commit_word(function: ast.AST) -> int:
    """Return how many assignments to `…[… COMMIT …]` a function holds."""
    targets: list[ast.expr] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets.append(node.target)
    words = (target for target in targets if isinstance(target, ast.Subscript))
    return sum(bool(COMMIT_WORD.search(ast.unparse(word.slice))) for word in words)


def test_there_is_one_place_that_publishes() -> None:
    found = {
        (module, node.name): stores_to_commit_word(node)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTION)
    }
    assert {place: count for place, count in found.items() if count} == {PUBLISH: 1}
    assert sum(stores_to_commit_word(tree) for tree in TREES.values()) == 1


@pytest.mark.parametrize("oracle", sorted(ORACLES))
def test_an_oracle_shares_no_code_with_what_it_judges(oracle: str) -> None:
    tree = ast.parse((ROOT / "tests" / f"{oracle}.py").read_bytes())
    assert {name.split(".")[0] for name, _ in imports(tree)} <= ORACLES[oracle] | {"__future__"}


# ------------------------------------------------------------------------------------------ size


@pytest.mark.parametrize("module", list(TREES))
def test_a_file_can_be_held_in_mind(module: str) -> None:
    """A longer file says why in its docstring: "… lines because …"."""
    lines = len((ROOT / "deepwater" / f"{module}.py").read_text(encoding="utf-8").splitlines())
    reason = "lines because" in " ".join((ast.get_docstring(TREES[module]) or "").split())
    assert lines <= FILE_LINES or reason, f"{lines} lines"


def length(function: FUNCTION) -> int:
    """Return the lines of a function, its docstring left out."""
    documented = ast.get_docstring(function) is not None
    body = function.body[documented:] or function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 + (body[0].lineno > function.lineno)


def test_functions_are_short() -> None:
    functions = {
        f"{module}.py:{node.lineno} {node.name}": length(node)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTION)
    }
    for name, lines in functions.items():
        if lines > FUNCTION_AIM:
            print(f"{name}: {lines} lines, the aim is {FUNCTION_AIM}")
    assert {name: lines for name, lines in functions.items() if lines > FUNCTION_LINES} == {}
