"""What each command imports: what it uses, and nothing else.

Every command runs on a small workspace in a process of its own, and what that process had loaded
at its end is compared with what the command may load. No clock is looked at: the times are those
of `benchmarks/startup.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest

from pa.cli import cli
from tests.support.images import noise_image

# Libraries that take long to load, or that belong to one part of the work.
WATCHED = {
    *("torch", "torchvision", "timm", "faiss", "matplotlib", "sklearn", "scipy", "submitit"),
    *("h5py", "polars", "numpy", "pydantic", "rich", "PIL", "safetensors", "huggingface_hub"),
    *("pandas", "pycocotools", "skimage", "jinja2", "fastapi", "uvicorn"),
}
SETTINGS = {"pydantic"}
IMAGES = {*SETTINGS, "numpy", "polars", "PIL"}
STORES = {*IMAGES, "h5py"}
INDEXES = {*STORES, "faiss"}
FIGURES = {"matplotlib"}
# torch is in the modules that hold the networks' cards; timm and what it brings load a network.
CARDS = {*STORES, "torch"}
NETWORKS = {*CARDS, "torchvision", "timm", "safetensors", "huggingface_hub"}
HEADS = {*STORES, "torch", "safetensors"}
CONVEX = {*HEADS, "sklearn", "scipy", "rich"}  # scikit-learn loads rich for its own progress bars
SLURM = {"submitit"}

# A command line, its exit code on the workspace below, and what of the watched it may load.
# Codes 2 and 3: the photographs have neither keypoints nor label maps, or there is no such result,
# and the command says so.
COMMANDS: dict[str, tuple[int, set[str]]] = {
    "config show": (0, STORES),
    "datasets list": (0, STORES),
    "datasets check photos": (0, STORES),
    "datasets show photos --out sheet.png": (0, STORES | FIGURES),
    "datasets build pascal-part --root photos --out built": (3, STORES | {"scipy"}),
    "encoders list": (0, CARDS),
    "encoders check timm/test_vit": (0, NETWORKS),
    "extract --features cls,pooled,patch": (0, NETWORKS),
    "plan extract --limit 2": (0, NETWORKS),
    "plan index build": (0, INDEXES),
    "plan probe linear --target label": (0, CONVEX),
    "plan probe attentive --target label": (0, CONVEX),
    "plan probe segmentation": (2, HEADS | {"scipy"}),
    "plan evaluate retrieval --target label": (0, STORES | {"scipy"}),
    "status": (0, STORES),
    "verify": (0, STORES),
    "gc": (0, STORES),
    "index build": (0, INDEXES),
    "index info": (0, STORES),
    "search --query-id 3 -k 5": (0, INDEXES),
    "search --query-id 3 -k 5 --figure found.png": (0, INDEXES | FIGURES),
    "evaluate retrieval --target label": (0, STORES | {"scipy"}),
    "evaluate neighbours": (2, STORES),
    "probe linear --target label --epochs 1": (0, CONVEX),
    "probe attentive --target label --epochs 1": (0, HEADS),
    "probe knn --target label": (0, HEADS),
    "probe predict --head HEAD --image photos/class0/0.png": (0, NETWORKS),
    "probe segmentation": (3, HEADS | {"scipy"}),
    "report --format md": (0, STORES | {"jinja2"}),
    "run paper --dry-run": (3, CARDS),
    "figure neighbours --query 3 -k 5": (0, INDEXES | FIGURES),
    "figure projected": (3, STORES),
    "figure depth": (3, STORES),
    "figure shares": (3, STORES),
    "figure sweep": (3, STORES),
    "figure segmentation": (3, HEADS | {"scipy"}),
    "submit index build --dry-run": (0, STORES | SLURM),
    "submit extract --limit 2 --dry-run": (0, NETWORKS | SLURM),
    "submit extract --limit 2 --dry-run --local": (0, NETWORKS),
}
ELSEWHERE = {
    "demo": "tests of the quick start run it",
    "encoders fetch": "fetches from the network",
    "explore": "serves until it is interrupted",
}


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    weights: dict[str, Path],
) -> Path:
    """A workspace with 12 photographs of 3 classes, encoded with their patches, and a probe."""
    workspace = tmp_path_factory.mktemp("startup")
    for number in range(12):
        label = workspace / "photos" / f"class{number % 3}"
        label.mkdir(parents=True, exist_ok=True)
        noise_image(number).save(label / f"{number}.png")
    (workspace / "pa.toml").write_text(
        f"""
encoder = "timm/test_vit"
view = "image"
device = "cpu"
[datasets.photos]
kind = "folder"
root = "photos"
[encoders."timm/test_vit"]
checkpoint = "{weights["test_vit"]}"
"""
    )
    for line in (
        "extract --features cls,pooled,patch",
        "probe linear --target label --epochs 1",
    ):
        code, _, outcome = run(line.split(), workspace)
        assert code == 0, outcome
    return workspace


def run(words: Sequence[str], folder: Path) -> tuple[int, set[str], str]:
    """Run `pa words…`. Return its exit code, the loaded modules, and its output."""
    output = folder / "modules.json"
    code = (
        "import atexit, json, pathlib, sys\n"
        f"target = pathlib.Path({str(output)!r})\n"
        "atexit.register(lambda: target.write_text(json.dumps(list(sys.modules))))\n"
        "from pa.cli import main\n"
        f"sys.argv = ['pa', *{list(words)!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, set(json.loads(output.read_text())), done.stdout + done.stderr


def libraries(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} & WATCHED


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that is not a group of others."""
    if not isinstance(command, click.Group):
        yield words
        return
    for name, inner in command.commands.items():
        yield from commands(inner, (*words, name))


def test_commands_are_all_covered() -> None:
    known = [tuple(line.split()) for line in (*COMMANDS, *ELSEWHERE)]
    unknown = [
        " ".join(words)
        for words in commands(cli)
        if not any(line[: len(words)] == words for line in known)
    ]
    assert not unknown, f"say in COMMANDS what these may load: {unknown}"


@pytest.mark.parametrize("line", COMMANDS)
def test_command_imports_only_what_it_uses(line: str, folder: Path) -> None:
    expected, allowed = COMMANDS[line]
    head = str(next(folder.rglob("*.safetensors"), ""))
    code, modules, outcome = run(line.replace("HEAD", head).split(), folder)
    assert code == expected, outcome
    assert libraries(modules) <= allowed, f"pa {line} also loads {libraries(modules) - allowed}"


def test_help_of_every_command_imports_no_library_but_click() -> None:
    lines = [list(words) for words in commands(cli)]
    code = (
        "import contextlib, io, sys\n"
        "from pa.cli import cli\n"
        f"for words in [[], *{lines!r}]:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        cli.main([*words, '--help'])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "click" in modules
    assert not libraries(modules)
    assert not {
        name for name in modules if name.startswith(("pa.data", "pa.workspace", "pa.config"))
    }
