"""Imports run one way, without cycles; each heavy library has an owner; start-up stays light.

The layers are read from the folders: adding a module or a command changes nothing here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pa

PACKAGE = Path(pa.__file__).parent

# From the bottom up. Folders of one layer are siblings and do not import each other.
LAYERS = [
    {"errors"},
    {"registry", "progress"},
    {"data"},
    {"config"},
    {"evaluate"},
    {"extract", "index", "probe"},
    {"report"},
    {"figures"},
    {"workspace"},
    {"cluster"},
    {"explore", "maintenance", "study"},
    {"commands"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ENTRIES = {"pa", "pa.__main__"}  # the lazy public names and `python -m pa`

OWNERS = {
    "click": {"cli", "commands"},
    "h5py": {"data.store"},
    "faiss": {"index"},
    "timm": {"extract", "commands.demo"},
    "torchvision": {"extract"},
    "torch": {"evaluate", "extract", "probe", "figures.heads", "commands.demo"},
    "matplotlib": {"figures"},
    "pydantic": {
        "config",
        "data.datasets",
        "evaluate.result_files",
        "evaluate.results",
        "explore.schema",
        "index.stored",
    },
    "rich": {"commands"},
    "jinja2": {"report"},
    "cachetools": {"explore"},
    "fastapi": {"explore"},
    "starlette": {"explore"},
    "uvicorn": {"explore"},
    "submitit": {"cluster"},
}


def dotted(path: Path) -> str:
    parts = ("pa", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}
SOURCES = pytest.mark.parametrize("module", MODULES)


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that a file imports: at the top, inside functions, or for types alone."""
    collected = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            collected |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                collected.add(name if name in MODULES else str(node.module))
    return frozenset(collected)


def folder(module: str) -> str:
    return module.split(".")[1]


@SOURCES
def test_imports_run_one_way(module: str) -> None:
    if module in ENTRIES:
        return
    here = folder(module)
    for name in imports(module) & MODULES.keys() - ENTRIES:
        existing = folder(name)
        below = LEVEL[existing] < LEVEL[here]
        assert here == existing or below, f"{module} imports {name}, which is not in a lower layer"


def cycles() -> Iterator[list[str]]:
    """The strongly connected groups of modules (Tarjan)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> Iterator[list[str]]:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for name in sorted(imports(module) & MODULES.keys() - {module}):
            if name not in number:
                yield from visit(name)
                lowest[module] = min(lowest[module], lowest[name])
            elif name in stack:
                lowest[module] = min(lowest[module], number[name])
        if lowest[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                yield group

    for module in MODULES:
        if module not in number:
            yield from visit(module)


def test_imports_have_no_cycle() -> None:
    assert list(cycles()) == []


@SOURCES
def test_library_is_imported_by_its_owner_only(module: str) -> None:
    here = module.removeprefix("pa.")
    for name in imports(module):
        owners = OWNERS.get(name.split(".")[0])
        if owners is None:
            continue
        allowed = any(here == owner or here.startswith(f"{owner}.") for owner in owners)
        assert allowed, f"{module} imports {name}, which belongs to {', '.join(sorted(owners))}"


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are loaded after running some code in a fresh interpreter."""
    script = (
        f"{code}\nimport sys; print(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "timm", "torchvision", "faiss", "matplotlib", "sklearn", "scipy"}


def test_help_loads_nothing_heavy() -> None:
    code = "from pa.cli import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_by(code) & (HEAVY | {"h5py", "polars", "numpy", "pydantic", "rich"})


@pytest.mark.parametrize(
    "module", ["pa", "pa.data.store.reader", "pa.data.crops", "pa.data.store.verify"]
)
def test_reading_a_store_loads_no_torch_timm_or_faiss(module: str) -> None:
    assert not loaded_by(f"import {module}") & HEAVY


def test_searching_loads_no_torch() -> None:
    assert not loaded_by("import pa.index.search, pa.index.build") & {
        "torch",
        "timm",
        "torchvision",
    }


@SOURCES
def test_image_files_are_opened_by_one_function(module: str) -> None:
    """Pillow's `open` is called where the formats are listed, and nowhere else."""
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr == "open"
        and isinstance(node.value, ast.Name)
        and node.value.id in ("Image", "PIL")
    ]
    assert len(calls) == (module == "pa.data.images")
