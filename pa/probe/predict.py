"""Classify regions with heads read from a file, after checks of the file and of its store.

Shapes: S heads, L patch tokens, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.schema import Box
from pa.data.store.reader import Store
from pa.errors import FingerprintError, UsageError, VerificationError
from pa.evaluate.result_files import read_result
from pa.probe.attentive.head import AttentiveHead
from pa.probe.heads import Head, kind_of
from pa.probe.linear.head import LinearHead


@dataclass(frozen=True)
class Prediction:
    """Probabilities of the classes of one region."""

    classes: tuple[tuple[str, float], ...]  # the most probable first
    box: Box
    n_heads: int  # the probabilities are their mean
    representation: str
    store: str  # title of the heads' training store

    def to_json(self) -> dict[str, Any]:
        return {
            "classes": [{"class": name, "probability": share} for name, share in self.classes],
            "box": list(self.box),
            "heads": self.n_heads,
            "representation": self.representation,
            "store": self.store,
        }


def load_heads(path: Path) -> Sequence[Head]:
    """Read linear or attentive heads from their file, or from the result they belong to.

    Raise `UsageError` for a result without heads, `VerificationError` for a file that its result
    does not list, and what `Head.load_all` raises. Without a result next to it, a file is checked
    by its own checksum.
    """
    if path.suffix == ".json":
        result, path = path, path.with_suffix(".safetensors")
        if path.name not in read_result(result).files:
            raise UsageError(
                f"the result {result} has no trained heads. `pa probe linear` and `pa probe "
                f"attentive` train heads; give the result of one of them, or its .safetensors "
                f"file, to --head."
            )
    # A head of another run would give other classes without a word.
    result = path.with_suffix(".json")
    if path.is_file() and result.is_file():
        reason = read_result(result).companion_difference(path)
        if reason is not None:
            raise VerificationError(
                f"{path} does not belong to the result {result} ({reason}). Run the command of the "
                f"result again; `pa verify` checks all of them."
            )
    kind = AttentiveHead if kind_of(path) == AttentiveHead.kind else LinearHead
    return kind.load_all(path)


def check_training_store(heads: Sequence[Head], store: Store) -> None:
    """Raise `FingerprintError` if a store was extracted again after the heads were trained."""
    if heads[0].store_checksum not in (store.checksum, None):
        raise FingerprintError(
            f"the heads were trained on other features of {store.title} than it holds now: the "
            f"store was extracted again, or repaired. Train the heads again."
        )


def predict(
    heads: Sequence[Head], features: Sequence[npt.NDArray[np.float32]], box: Box, store: Store
) -> Prediction:
    """Classify one region by the mean probability of all heads.

    `features` are its representations in the order of the heads' `representation`: vectors (D,),
    which are concatenated, or a class token (D,) and patch tokens (L, D).
    """
    # Patch tokens have two axes; a vector of a linear head has one.
    if any(part.ndim == 2 for part in features):
        region = np.concatenate([np.atleast_2d(part) for part in features])[None]  # (1, 1 + L, D)
    else:
        region = np.concatenate(features)[None]  # (1, D)
    probabilities = np.mean([head.probabilities(region)[0] for head in heads], axis=0)  # (C,)
    order = np.argsort(-probabilities, kind="stable")
    return Prediction(
        classes=tuple((heads[0].classes[index], float(probabilities[index])) for index in order),
        box=box,
        n_heads=len(heads),
        representation=heads[0].representation,
        store=store.title,
    )
