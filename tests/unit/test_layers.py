"""The rooms of the house: who may import whom, what start-up may cost, and what no file may do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import s2s_cli

PACKAGE = Path(s2s_cli.__file__).parent
LEVELS = {
    "errors": 0, "files": 1, "worker": 1, "config": 1, "configio": 1, "runtime": 2, "data": 3, "models": 4, "evaluation": 4,
    "checkpoint": 5, "search": 6, "training": 7, "cli": 8, "__main__": 9,
}  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [module.relative_to(PACKAGE).as_posix() for module in MODULES]
EACH = pytest.mark.parametrize("module", MODULES, ids=NAMES)


def room_of(module: Path) -> str:
    """The first part of a module's path in the package: a folder or a file of its own."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> set[str]:
    """Full names of all that a module imports, anywhere in it: `a.b.c` for both `import a.b.c` and `from a.b import c`."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@EACH
def test_a_room_imports_only_lower_ones(module):
    room = room_of(module)
    if room == "__init__":
        return  # what it names, it imports when asked: see below
    for name in imports(module):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if package != "s2s_cli" or other in (room, "", "__version__"):
            continue
        assert LEVELS[other] < LEVELS[room] or {other, room} == {"config", "configio"}, f"{room} imports {name}"


def test_imports_go_round_in_no_circle():
    graph = {
        "s2s_cli." + ".".join(module.relative_to(PACKAGE).with_suffix("").parts): {
            known for name in imports(module) for known in (name, name.rpartition(".")[0])
        }
        for module in MODULES
    }
    left = {name: needed & graph.keys() - {name} for name, needed in graph.items()}
    while ready := {name for name, needed in left.items() if not needed}:
        left = {name: needed - ready for name, needed in left.items() if name not in ready}
    assert not left, f"a circle among {sorted(left)}"


@pytest.mark.parametrize("module", ["", ".cli", ".config", ".configio", ".files", ".evaluation.score"])
def test_start_up_imports_no_torch(module):
    code = f"import sys, s2s_cli{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@EACH
def test_a_module_can_be_read_at_a_sitting(module):
    text = module.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, "a room that grows becomes a folder"
    assert ast.get_docstring(ast.parse(text)) or not text.strip(), "a module says what it is for"


@EACH
def test_nothing_is_unpickled_or_evaluated(module):
    bad = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
    assert not {name.partition(".")[0] for name in imports(module)} & bad
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "compile", "torch.load", "torch.save", "yaml.load"}, called
            allowed = [word for word in node.keywords if word.arg == "allow_pickle"]
            assert all(ast.unparse(word.value) == "False" for word in allowed), called
