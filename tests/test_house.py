"""The rules of the folder utils: which wing may import which, and what a wing's __init__ holds."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

# A wing may import itself, the ground (the modules of utils itself) and all wings on lower floors.
FLOORS = {
    "ground": 0,
    "documents": 1,
    "splade": 1,
    "search": 2,
    "training_data": 3,
    "evaluation": 3,
    "serving": 3,
    "export": 4,
    "training": 4,
}
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "utils").rglob("*.py"))
}


def wing(module: str) -> str:
    parts = module.split(".")
    return parts[1] if (ROOT / "utils" / parts[1]).is_dir() else "ground"


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            inner = {f"{node.module}.{name.name}" for name in node.names} & MODULES.keys()
            found |= inner or {node.module}
    return found


ARROWS = {module: imported(path) for module, path in MODULES.items()}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "utils"])
def test_imports_lead_down(module):
    for target in ARROWS[module]:
        assert target.split(".")[0] not in SCRIPTS, f"{module} imports the script {target}"
        if target.startswith("utils."):
            assert target in MODULES, f"{module} imports {target}, which is no module"
            own, other = wing(module), wing(target)
            assert {own, other} <= FLOORS.keys(), f"{own} or {other} has no floor yet: give it one in FLOORS"
            assert own == other or FLOORS[other] < FLOORS[own], f"{module} ({own}) imports {target} ({other})"


def test_imports_form_no_circle():
    try:
        TopologicalSorter(ARROWS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in (ROOT / "utils").rglob("__init__.py")), ids=lambda path: path.name
)
def test_a_folder_says_what_it_is_for_and_exports_nothing(folder):
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) and len(tree.body) == 1
    named = set(ast.get_docstring(tree).replace("`", " ").split())
    missing = {word for word in named if word.endswith(".py") and "*" not in word and not (folder / word).is_file()}
    assert not missing, "its docstring names modules that are not there"
