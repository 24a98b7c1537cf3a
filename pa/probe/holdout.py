"""Hold images back, for the test or to choose by: seeded, stratified, never cutting an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pa.errors import UsageError

Ints = npt.NDArray[np.int64]

NAMES_SHOWN = 5

CURE = (
    "Give the two sides yourself: --train-split and --test-split, or conditions on the rows; for "
    "windows of a grid, for instance, left against right of each image:\n"
    '  pa probe linear --train-where "x1 <= 112" --test-where "x0 >= 112"'
)


def hold_out(
    images: Ints,
    class_of: Ints,
    names: Sequence[str],
    fraction: float,
    seed: int,
    purpose: str = "for the test",
    cure: str = CURE,
) -> Ints:
    """Choose the images to hold back: about `fraction` of each class's, at least one of each.

    `images` (n,) and `class_of` (n,) give the image number and the class index of each row; an
    image may hold rows of several classes. `names` are the C classes, each of which has a row.
    Classes are served from the rarest to the commonest, each from
    the images not yet assigned (Sechidis et al. 2011, iterative stratification, in one pass).
    Returns sorted image numbers. Raises `UsageError` where a class cannot be on both sides;
    `purpose` and `cure` are words of it.
    """
    pairs = np.unique(np.stack([class_of, images], axis=1), axis=0)  # (class, image), each once
    n_images = np.bincount(pairs[:, 0])
    what = f"cannot hold images back {purpose}"
    _refuse(what, _named(names, n_images < 2), "have only one image", cure)
    by_class = np.split(pairs[:, 1], np.cumsum(n_images)[:-1])
    rng = np.random.default_rng(seed)
    in_test: dict[int, bool] = {}
    for index in np.argsort(n_images, kind="stable"):
        members = rng.permutation(by_class[index]).tolist()
        wanted = int(np.clip(round(fraction * len(members)), 1, len(members) - 1))
        wanted -= sum(in_test.get(image, False) for image in members)
        free = [image for image in members if image not in in_test]
        in_test.update((image, place < wanted) for place, image in enumerate(free))
    on_test = np.array([sum(in_test[i] for i in members.tolist()) for members in by_class])
    one_sided = (on_test == 0) | (on_test == n_images)
    _refuse(
        what,
        _named(names, one_sided),
        "share their images with others so that they fall on one side only",
        cure,
    )
    return np.array(sorted(image for image, test in in_test.items() if test), dtype=np.int64)


def some_names(names: Sequence[str]) -> str:
    """The first few names, quoted, and how many there are in all."""
    shown = ", ".join(repr(name) for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown}, … ({len(names)} in all)"


def _named(names: Sequence[str], chosen: npt.NDArray[np.bool_]) -> list[str]:
    return [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]


def _refuse(what: str, names: list[str], reason: str, cure: str) -> None:
    if names:
        raise UsageError(f"{what}: classes that {reason}: {some_names(names)}. {cure}")
