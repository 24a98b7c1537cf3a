"""Imports run one way, each heavy library has an owner, and start-up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pa

PACKAGE = Path(pa.__file__).parent

# From the bottom up: a module may import modules of its own layer's folder and of lower layers.
LAYERS = [
    {"errors", "registry", "progress"},
    {"data"},
    {"evaluate"},
    {"extract", "index", "probe"},
    {"report", "figures"},
    {"config", "console"},
    {"paper"},
    {"cluster", "workers"},
    {
        "commands",
        "explore",
        "describe",
        "describe_attentive",
        "describe_datasets",
        "describe_evaluate",
        "describe_index",
        "describe_masks",
        "describe_plan",
        "describe_probe",
        "describe_report",
        "describe_run",
        "describe_segmentation",
        "describe_stores",
        "describe_submit",
        "demo",
    },
    {"options"},
    {
        "cli_datasets",
        "cli_encoders",
        "cli_evaluate",
        "cli_explore",
        "cli_figure",
        "cli_index",
        "cli_plan",
        "cli_probe",
        "cli_report",
        "cli_run",
        "cli_segmentation",
        "cli_stores",
        "cli_submit",
    },
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The command line's own parts say how things look; the work below knows nothing of them.
SIBLINGS = {"extract", "index", "probe"}

OWNERS = {
    "click": {
        "cli",
        "cli_datasets",
        "cli_encoders",
        "cli_evaluate",
        "cli_explore",
        "cli_figure",
        "cli_index",
        "cli_plan",
        "cli_probe",
        "cli_report",
        "cli_run",
        "cli_segmentation",
        "cli_stores",
        "cli_submit",
        "options",
    },
    "h5py": {"data.shards"},
    "faiss": {"index"},
    "timm": {"extract", "demo"},
    "torchvision": {"extract"},
    "torch": {"evaluate", "extract", "probe", "figures.heads", "commands.choose", "demo"},
    "matplotlib": {"evaluate", "index", "probe", "figures"},
    "pydantic": {"config"},
    "rich": {"console"},
    "fastapi": {"explore", "commands.explore"},
    "starlette": {"explore"},
    "uvicorn": {"explore", "commands.explore"},
    "submitit": {"cluster"},
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or inside functions, as a dotted name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_run_one_way(path: Path) -> None:
    here = dotted(path).split(".")[0]
    if here == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "pa" or len(parts) == 1 or parts[1] not in LEVEL:
            continue
        there = parts[1]
        assert LEVEL[there] <= LEVEL[here], f"{dotted(path)} imports upwards: {name}"
        both = {here, there}
        assert here == there or not both <= SIBLINGS, f"{dotted(path)} imports a sibling: {name}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_every_library_has_its_owner(path: Path) -> None:
    here = dotted(path)
    for name in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        if owners is None:
            continue
        allowed = any(here == owner or here.startswith(f"{owner}.") for owner in owners)
        assert allowed, f"{here} imports {name}, which belongs to {', '.join(sorted(owners))}"


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


@pytest.mark.parametrize("module", ["pa", "pa.data.store", "pa.data.crops", "pa.data.verify"])
def test_reading_a_store_loads_no_torch_timm_or_faiss(module: str) -> None:
    assert not loaded_by(f"import {module}") & HEAVY


def test_searching_loads_no_torch() -> None:
    assert not loaded_by("import pa.index.search, pa.index.build") & {
        "torch",
        "timm",
        "torchvision",
    }


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_one_function_opens_images(path: Path) -> None:
    """Pillow's `open` is called where the formats are listed, and nowhere else."""
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr == "open"
        and isinstance(node.value, ast.Name)
        and node.value.id in ("Image", "PIL")
    ]
    assert len(calls) == (dotted(path) == "data.images")
