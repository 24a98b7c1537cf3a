"""`pa probe predict`: classify a region of an image file with trained heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.data.schema import Box
    from pa.probe.predict import Prediction
    from pa.workspace import Workspace

CLASSES_SHOWN = 10


@click.command()
@click.option("--image", type=options.PATH, required=True, help="Image file to classify.")
@click.option(
    "--box",
    callback=options.box,
    help="Region of the image as x0,y0,x1,y1 in pixels. Default: the whole image.",
)
@click.option(
    "--head",
    type=options.PATH,
    required=True,
    help="Trained head (.safetensors) or its result (.json).",
)
@click.option("--device", help="Device: auto, cpu, cuda or cuda:N.")
@options.checkpoints
@options.as_json
@options.workspace
def predict(
    workspace: Workspace,
    image: Path,
    box: Box | None,
    head: Path,
    device: str | None,
    checkpoints: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Classify a region of an image with a trained head.

    The head is stored next to the result of `pa probe linear` or `pa probe attentive`. The region
    is encoded by the encoder that produced the head's training features.

    \b
    pa probe predict --image bird.jpg --box 40,60,96,116 --head results/probe-linear/….safetensors
    """
    from pa.extract.image_query import ImageQuery

    query = ImageQuery.read(image, box)
    prediction = workspace.predict(head, query, device=device, checkpoints=checkpoints)
    if as_json:
        options.emit(prediction.to_json())
    else:
        console.out(prediction_text(prediction))


def prediction_text(prediction: Prediction) -> str:
    """Return the most probable classes of one box."""
    from pa.data.datasets.imagenet import readable_label

    rows = [
        [readable_label(name), f"{100 * probability:.2f}"]
        for name, probability in prediction.classes[:CLASSES_SHOWN]
    ]
    heads = f"mean of {prediction.n_heads} heads" if prediction.n_heads > 1 else "one head"
    box = ",".join(f"{value:g}" for value in prediction.box)
    return (
        console.table(["class", "probability %"], rows, " r")
        + f"\nbox {box}; {prediction.representation}, {heads} trained on {prediction.store}"
    )
