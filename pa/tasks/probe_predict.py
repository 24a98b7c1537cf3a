"""`pa probe predict`: a trained head on a box of an image of one's own."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.schema import Box
from pa.data.store import find as stores
from pa.data.store.find import StoreSelector
from pa.errors import FingerprintError, MissingError, UsageError, VerificationError
from pa.tasks.encoders import check_given_checkpoints, load_store_encoder
from pa.tasks.search import check_box

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pa.data.store.reader import Store
    from pa.extract.encoders import Encoder
    from pa.probe.attentive.head import AttentiveHead
    from pa.probe.linear.head import LinearHead


@dataclass(frozen=True)
class PredictRequest:
    """The options of `pa probe predict`: an image, a `box` x0, y0, x1, y1 in its pixels (None =
    all of it), the file of a trained head or the result it belongs to, and checkpoint files where
    the recorded one moved."""

    image: Path
    head: Path
    box: Box | None = None
    device: str | None = None
    checkpoints: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """Probability of each class, the likeliest first; the mean over the `n_heads` of the file.

    `store` is the title of the store that the head was trained on.
    """

    classes: tuple[tuple[str, float], ...]
    box: Box
    n_heads: int
    representation: str
    store: str

    def to_json(self) -> dict[str, Any]:
        return {
            "classes": [{"class": name, "probability": share} for name, share in self.classes],
            "box": list(self.box),
            "heads": self.n_heads,
            "representation": self.representation,
            "store": self.store,
        }


def probe_predict(config: Config, request: PredictRequest) -> Prediction:
    """Encode a box with the encoder of the head's training store, and classify it.

    The box is cut and resized as a patch of view `parts`. Raises `MissingError` for an image, a
    head, a store or a checkpoint that is not there, `CheckpointError` for a file that is not a
    head and for a checkpoint that did not make the store, and `UsageError` for a box outside the
    image or a result without a head.
    """
    import numpy as np

    from pa.data import images as im

    if not request.image.is_file():
        raise MissingError(f"the image {request.image} is not there.")
    head = _head_file(request.head)
    _check_result(head)
    heads = _load(head)
    store = _training_store(config, heads[0])
    picture = im.decode(request.image.read_bytes(), request.image)
    box = request.box or (0.0, 0.0, float(picture.width), float(picture.height))
    check_box(box, picture.size)
    check_given_checkpoints(request.checkpoints, [store])
    files = ["--image", str(request.image), "--head", str(request.head)]
    encoder = load_store_encoder(
        config,
        store,
        shlex.join(["pa", "probe", "predict", *files]),
        given=request.checkpoints,
        device_name=request.device,
    )
    features = _encode(encoder, picture, box, heads[0].representation)
    shares = np.mean([head.probabilities(features)[0] for head in heads], axis=0)
    order = np.argsort(-shares, kind="stable")
    return Prediction(
        classes=tuple((heads[0].classes[index], float(shares[index])) for index in order),
        box=box,
        n_heads=len(heads),
        representation=heads[0].representation,
        store=store.title,
    )


def _head_file(path: Path) -> Path:
    """Return the file of a head; of a result, `X.json`, the head that was written with it."""
    from pa.evaluate.results import read_result

    if path.suffix != ".json":
        return path
    head = path.with_suffix(".safetensors")
    if head.name not in read_result(path).files:
        raise UsageError(
            f"the result {path} has no trained head. `pa probe linear` and `pa probe attentive` "
            f"train heads; give the result of one of them, or its .safetensors file, to --head."
        )
    return head


def _check_result(head: Path) -> None:
    """Raise `VerificationError` where a head is not the one of the result next to it.

    A head that was copied without its result is checked by its own checksum alone.
    """
    from pa.evaluate.results import read_result

    result = head.with_suffix(".json")
    if not head.is_file() or not result.is_file():
        return
    if (reason := read_result(result).companion_difference(head)) is not None:
        raise VerificationError(
            f"{head} is not the head of the result {result} ({reason}). Run the command that made "
            f"the result again; `pa verify` checks all of them."
        )


def _load(path: Path) -> tuple[LinearHead, ...] | tuple[AttentiveHead, ...]:
    from pa.probe.attentive.head import KIND, load_attentive_heads
    from pa.probe.heads import kind_of
    from pa.probe.linear.head import load_heads

    return load_attentive_heads(path) if kind_of(path) == KIND else load_heads(path)


def _training_store(config: Config, head: LinearHead | AttentiveHead) -> Store:
    try:
        store = stores.choose(config.features, StoreSelector(fingerprint=head.fingerprint))
    except MissingError:
        raise MissingError(
            f"the store {head.fingerprint[:16]} that the head was trained on is not in "
            f"{config.features}: it says which encoder, weights and precision the head reads. Run "
            f"in the workspace that has it (--workspace DIR), or extract it again."
        ) from None
    if head.store_checksum not in (store.checksum, None):
        raise FingerprintError(
            f"the head was trained on other features of {store.title} than there are now: the "
            f"store was extracted again, or repaired. Train the head again."
        )
    return store


def _encode(
    encoder: Encoder, picture: Any, box: Box, representation: str
) -> npt.NDArray[np.float32]:
    """Features of one region: (1, D), or (1, 1 + L, D) where the head reads tokens."""
    import numpy as np

    from pa.extract.run import encode_region

    parts = [encode_region(encoder, picture, box, name) for name in representation.split("+")]
    if any(part.ndim == 2 for part in parts):
        return np.concatenate([np.atleast_2d(part) for part in parts])[None]
    return np.concatenate(parts)[None]
