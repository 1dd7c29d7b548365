"""The walls of the house: who may import whom. Failing here means: move the code, or hand it what it needs."""

import ast
from pathlib import Path

import pytest

from support.runs import ROOT

# Each room may import those that stand before it, and files of its own. What stands below training takes plain
# arguments, never the config.
ORDER = ["version", "system", "fields", "scene", "capture", "config", "rendering", "evaluation", "training", "export",
         "viewer", "report", "command_line", "jobs", "slurm", "batch"]  # fmt: skip
WITHOUT_CONFIG = {"system", "fields", "scene", "capture", "rendering", "evaluation", "export", "viewer"}
HELPERS = ["loss", "load_blender", "load_capture", "load_dtu", "load_llff", "run_nerf_helpers"]
SCRIPTS = ["run_nerf", "evaluate", "report", "duplicate_config", "make_scene", "export_mesh", "view"]
LIBRARY = sorted((ROOT / "infonerf").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The dotted names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(dotted: str) -> str | None:
    """infonerf.scene.cameras -> scene; None for what is not of the package."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "infonerf" and len(parts) > 1 else None


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_room_imports_only_rooms_before_it(path):
    own = path.relative_to(ROOT / "infonerf").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    others = {room(dotted) for dotted in imports(path)} - {None, own}
    assert {other for other in others if ORDER.index(other) > ORDER.index(own)} == set()
    if own in WITHOUT_CONFIG:
        assert "config" not in others


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_the_machine_never_imports_the_root(path):
    root = {file.stem for file in ROOT.glob("*.py")} | {"tools", "tests", "benchmarks"}
    assert {dotted.split(".")[0] for dotted in imports(path)} & root == set()


@pytest.mark.parametrize("path", [*sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py"))],
                         ids=name_of)  # fmt: skip
def test_no_test_imports_another(path):
    assert not {dotted for dotted in imports(path) if dotted.split(".")[-1].startswith("test_")}


def test_the_root_holds_the_required_names_and_thin_scripts():
    assert {file.stem for file in ROOT.glob("*.py")} == {*HELPERS, *SCRIPTS}


@pytest.mark.parametrize("name", [*HELPERS, *SCRIPTS])
def test_scripts_share_only_helpers(name):
    """A script imports no script; run_nerf_helpers what stands before it; a loader or loss no other root file."""
    allowed = {"run_nerf_helpers": HELPERS[:-1]} | dict.fromkeys(SCRIPTS, HELPERS)
    root = {dotted.split(".")[0] for dotted in imports(ROOT / f"{name}.py")} & {*HELPERS, *SCRIPTS}
    assert root <= set(allowed.get(name, ()))


def test_only_the_command_line_sees_a_namespace():
    for path in [*LIBRARY, *ROOT.glob("*.py")]:
        assert "Namespace" not in path.read_text(), path
