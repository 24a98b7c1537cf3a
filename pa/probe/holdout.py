"""Hold images out, for test or validation: seeded, stratified by class, whole images only.

Shapes: n rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pa.errors import UsageError

Ints = npt.NDArray[np.int64]

NAMES_SHOWN = 5  # class names in a message

REMEDY = (
    "Name both sides instead: --train-split and --test-split, or conditions on the rows, for "
    "instance the left and the right half of each image:\n"
    '  pa probe linear --train-where "x1 <= 112" --test-where "x0 >= 112"'
)


def hold_out(
    images: Ints,
    class_of: Ints,
    names: Sequence[str],
    fraction: float,
    seed: int,
    purpose: str = "for the test",
    remedy: str = REMEDY,
) -> Ints:
    """Select about `fraction` of the images of each class, at least one; return their numbers.

    Classes are assigned from the rarest to the commonest, each from the images not yet assigned
    (Sechidis et al. 2011, iterative stratification, in one pass). `images` and `class_of` (n,) are
    image number and class index of each row, `names` the C classes. Raise `UsageError`, with
    `purpose` and `remedy`, if a class cannot be on both sides.
    """

    def refuse(affected: npt.NDArray[np.bool_], reason: str) -> None:
        if affected.any():
            shown = some_names([n for n, hit in zip(names, affected, strict=True) if hit])
            raise UsageError(
                f"cannot hold images out {purpose}: classes that {reason}: {shown}. {remedy}"
            )

    # An image with several rows of a class counts once.
    pairs = np.unique(np.stack([class_of, images], axis=1), axis=0)  # (pairs, 2): class, image
    n_images = np.bincount(pairs[:, 0])  # (C,)
    refuse(n_images < 2, "have only one image")
    by_class = np.split(pairs[:, 1], np.cumsum(n_images)[:-1])
    rng = np.random.default_rng(seed)
    in_test: dict[int, bool] = {}
    # Rare classes first: their images are the hardest to divide, and common ones fill up the rest.
    for rare in np.argsort(n_images, kind="stable"):
        members = rng.permutation(by_class[rare]).tolist()
        # At least one image of each class on both sides.
        wanted = int(np.clip(round(fraction * len(members)), 1, len(members) - 1))
        wanted -= sum(in_test.get(image, False) for image in members)
        free = [image for image in members if image not in in_test]
        in_test.update((image, index < wanted) for index, image in enumerate(free))
    on_test = np.array([sum(in_test[i] for i in members.tolist()) for members in by_class])
    refuse(
        (on_test == 0) | (on_test == n_images),
        "share their images with others so that they fall on one side only",
    )
    return np.array(sorted(image for image, test in in_test.items() if test), dtype=np.int64)


def some_names(names: Sequence[str]) -> str:
    """Return the first few names, quoted, and the number of all."""
    shown = ", ".join(repr(name) for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown}, … ({len(names)} in all)"
