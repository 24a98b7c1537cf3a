"""A box of an image as a query, and the encoder of a store, loaded as its specification records.

A query can only be compared with a store if the network of the store encodes it too: the same
weights, found by their SHA-256, with the recorded options and precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data import images as im
from pa.data.schema import Box
from pa.data.store.reader import Store
from pa.data.store.spec import describe
from pa.errors import CheckpointError, FingerprintError, MissingError, PaError, UsageError

if TYPE_CHECKING:
    from pa.extract.encoders import Encoder

STORES_SHOWN = 12  # of a longer list in an error message


@dataclass(frozen=True)
class ImageQuery:
    """A box x0, y0, x1, y1 in the pixels of an upright RGB image.

    Raises
    ------
    UsageError
        If the box is outside the image, or holds no pixel after rounding.
    """

    name: str
    picture: Image.Image = field(repr=False)
    box: Box

    def __post_init__(self) -> None:
        shown = ",".join(f"{value:g}" for value in self.box)
        (width, height), (x0, y0, x1, y1) = self.picture.size, self.box
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise UsageError(
                f"--box {shown} is outside the image, which has {width}×{height} pixels (upright, "
                f"after its EXIF rotation). Expected x0,y0,x1,y1 with 0 ≤ x0 < x1 ≤ {width} and "
                f"0 ≤ y0 < y1 ≤ {height}."
            )
        if round(x0) == round(x1) or round(y0) == round(y1):
            rounded = ",".join(str(round(value)) for value in self.box)
            raise UsageError(
                f"--box {shown} holds no pixel: it is cut at whole pixels, {rounded}. Make it "
                f"larger."
            )

    @classmethod
    def read(cls, path: Path, box: Box | None = None) -> ImageQuery:
        """Read an image file; without a box, the query is the whole image."""
        if not path.is_file():
            raise MissingError(f"image {path} does not exist.")
        picture = im.decode(path.read_bytes(), path)
        return cls(
            str(path), picture, box or (0.0, 0.0, float(picture.width), float(picture.height))
        )

    def encode(self, encoder: Encoder, representation: str) -> npt.NDArray[np.float32]:
        """Return the vector (D,) of the box, cut and resized as a patch of view `parts`."""
        from pa.extract.encoding import encode_pixels  # imports torch

        encoder.require([representation])
        cut = im.crop_resize(self.picture, self.box, encoder.transform.size, "bicubic")
        vector: npt.NDArray[np.float32]
        vector = encode_pixels(encoder, im.stack([cut]), [representation])[representation][0]
        return vector


def load_recorded(store: Store, checkpoint: Path | None, device: str) -> Encoder:
    """Load the encoder that produced a store, with its recorded options and precision.

    Raise `FingerprintError` if this version of pa loads the same file as another network.
    """
    from pa.extract.encoders import load_encoder  # imports torch

    spec = store.spec.encoder
    options = dict(spec["options"])
    encoder = load_encoder(
        store.encoder,
        checkpoint,
        num_heads=spec["architecture"].get("heads"),
        branch=options.pop("branch", None),
        layers=options.pop("layers", ()),
        device=device,
        compute=store.spec.precision["compute"],
        **options,
    )
    loaded, transform = encoder.spec.to_json(), encoder.transform.to_json()
    now = replace(store.spec, encoder=loaded, transform=transform)
    if differences := store.spec.differences(now):
        raise FingerprintError(
            f"{store.title}: this version of pa loads {encoder.checkpoint or 'the weights'} as "
            f"another network than the one recorded. Fields that differ (store → now):\n"
            f"{describe(differences)}\nExtract the store again with:\n"
            f"  {store.command} --replace"
        )
    return encoder


def find_checkpoint(
    store: Store,
    checkpoints: Sequence[Path],
    configured: Path | None,
    *,
    settings: Path,
    command: str,
) -> Path | None:
    """Return the first file with the SHA-256 of a store; None for weights that timm downloads.

    Parameters
    ----------
    checkpoints, configured
        Files to try first, and after the one recorded with the store.
    settings, command
        The pa.toml, and the command that takes --checkpoint, for messages.

    Raises
    ------
    MissingError
        If none of the files exists.
    CheckpointError
        If they hold other weights.
    """
    from pa.extract.encoders.checkpoint import file_sha256
    from pa.extract.encoders.timm_models import PREFIX

    expected, recorded = store.spec.encoder["weights_sha256"], store.source.get("checkpoint")
    origins = {path.expanduser().resolve(): "--checkpoint" for path in checkpoints}
    if recorded is not None:
        origins.setdefault(Path(recorded), "recorded with the store")
    if configured is not None:
        origin = f"found by {settings} or `pa encoders fetch`"
        origins.setdefault(configured.expanduser().resolve(), origin)
    lines: list[str] = []
    error_type: type[PaError] = MissingError
    for path, origin in origins.items():
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            lines.append(f"  {path} ({origin}): {error.strerror}")
            continue
        if sha256 == expected:
            return path
        error_type = CheckpointError
        lines.append(f"  {path} ({origin}): SHA-256 {sha256}")
    if recorded is None and store.encoder.startswith(PREFIX):
        return None
    searched = "\n".join(lines) or "  no file is recorded with the store"
    raise error_type(
        f"{store.title} was computed with a checkpoint of SHA-256 {expected}. That file is "
        f"needed again, and was not found:\n{searched}\nGive its current path:\n"
        f"  {command} --checkpoint FILE\n"
        f'or set it in {settings}:\n  [encoders."{store.encoder}"]\n'
        f'  checkpoint = "FILE"'
    )


def check_checkpoints(checkpoints: Sequence[Path], stores: Sequence[Store]) -> None:
    """Raise unless every file is the checkpoint of one of the stores."""
    if not checkpoints:
        return
    from pa.extract.encoders.checkpoint import file_sha256  # imports torch

    for path in checkpoints:
        if not path.expanduser().is_file():
            raise MissingError(f"--checkpoint {path} is not a file.")
        sha256 = file_sha256(path.expanduser())
        if all(store.spec.encoder["weights_sha256"] != sha256 for store in stores):
            expected = "\n".join(
                f"  {store.spec.encoder['weights_sha256']}  {store.title}, "
                f"{store.source.get('checkpoint') or 'no file recorded'}"
                for store in stores[:STORES_SHOWN]
            )
            raise CheckpointError(
                f"--checkpoint {path} produced none of the stores: its SHA-256 is\n"
                f"  {sha256}\nExpected one of:\n{expected}\n"
                f"Leave out --checkpoint to use the recorded file."
            )
