"""The rules of the house, read from the source: floors, forbidden words, sizes, docstrings, import time."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "longtake"
FLOORS = {
    "core": 0,
    "media": 1,
    "ops": 1,
    "methods": 2,
    "nn": 2,
    "data": 2,
    "memory": 2,
    "models": 3,
    "convert": 4,
    "engine": 5,
    "train": 5,
    "recipes": 6,
    "eval": 6,
    "serve": 6,
    "cli": 7,
}
TOP_FILES = {"__init__.py", "_version.py", "auto.py"}
FORBIDDEN_PACKAGES = {"torchvision", "timm", "decord", "cv2", "flash_attn"}
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            found.append(node.module or "")
    return found


def room(path: Path) -> str | None:
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else None


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in FILES} - {None} == set(FLOORS)
    assert {path.name for path in SOURCE.glob("*.py")} == TOP_FILES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_only_go_down(path: Path) -> None:
    here = room(path)
    if here is None:
        return
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "longtake" and len(parts) > 1 and parts[1] in FLOORS and parts[1] != here:
            assert FLOORS[parts[1]] < FLOORS[here], f"{name_of(path)} imports {module}, which is not below"


def shortcuts(path: Path) -> list[str]:
    """Calls and names that have no place outside their homes."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("cuda", "environ") and ast.unparse(node) != "torch.cuda":
            found.append(ast.unparse(node))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            loose = any(word.arg == "strict" and ast.unparse(word.value) == "False" for word in node.keywords)
            if called in ("print", "pickle.load", "pickle.loads") or (loose and called.endswith("load_state_dict")):
                found.append(ast.unparse(node))
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append("a bare except")
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_takes_a_forbidden_package_or_shortcut(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path)} & FORBIDDEN_PACKAGES
    assert shortcuts(path) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short_and_explained(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600
    if path.name != "__init__.py" or path.stat().st_size:
        assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 100, f"{node.name} in {name_of(path)} is long"


def test_methods_can_be_removed_one_by_one() -> None:
    """Nothing below models names a method; the registry finds them."""
    for path in FILES:
        if room(path) not in ("models", "convert", "engine", "train", "cli", "methods"):
            assert not any(module.startswith("longtake.methods.") for module in imports(path)), name_of(path)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, longtake; assert not {'torch', 'transformers', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_line_does_not_import_torch() -> None:
    code = "import sys, longtake.cli.main; assert not {'torch', 'transformers', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_public_list_is_what_can_be_had() -> None:
    import longtake

    assert all(getattr(longtake, name) is not None for name in longtake.__all__)
    assert set(dir(longtake)) == set(longtake.__all__)
