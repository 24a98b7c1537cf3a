"""The distance d from a keypoint to its nearest neighbour, by the rules of a protocol.

Shapes: P points of an image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pa.data.views.part_rules import PartRules

Floats = npt.NDArray[np.float64]

# Why a point is skipped; they are stored in the counts of `pa datasets check`.
KEPT, LONE, FEW, COINCIDENT = "", "lone", "too few on the object", "coincident"


def nearest(
    points: Floats,
    objects: npt.NDArray[np.int64],
    considered: npt.NDArray[np.bool_],
    rules: PartRules,
) -> tuple[Floats, npt.NDArray[np.str_]]:
    """Return the distance of each point to its nearest neighbour in the same image.

    Parameters
    ----------
    points
        x and y in pixels, (P, 2).
    objects
        Id of the object of each point, (P,).
    considered
        Whether the distance of a point is needed, (P,); the others are only neighbours.
    rules
        `distance`, `coincident` and `min_per_object` are used.

    Returns
    -------
    Distances (P,), infinite without a neighbour, and the reasons (P,) why a point is skipped,
    `KEPT` for the others.
    """
    n = len(points)
    reasons = np.full(n, KEPT, dtype="<U24")  # the longest reason has 21 characters
    if n == 1:
        reasons[:] = LONE
        return np.full(n, np.inf), reasons
    n_considered = (objects[:, None] == objects[considered][None, :]).sum(axis=1)  # (P,)
    few = n_considered < rules.min_per_object
    distances = _matrix(points, objects, rules)
    distances[:, few] = np.inf
    d: Floats = distances.min(axis=1)  # (P,)
    reasons[np.isinf(d)] = LONE
    reasons[d == 0] = COINCIDENT  # zeros remain only if the rules skip such points
    reasons[few] = FEW
    return d, reasons


def _matrix(points: Floats, objects: npt.NDArray[np.int64], rules: PartRules) -> Floats:
    """Return the distances between all points of an image (P, P); infinite = not a neighbour."""
    vectors = points  # (P, 2)
    if rules.distance == "image+id":
        vectors = np.column_stack([points, objects.astype(np.float64)])  # (P, 3)
    difference = vectors[:, None, :] - vectors[None, :, :]  # (P, P, 2 or 3)
    distances: Floats = np.sqrt((difference**2).sum(axis=2))  # (P, P)
    np.fill_diagonal(distances, np.inf)
    if rules.distance == "object":
        distances[objects[:, None] != objects[None, :]] = np.inf
    if rules.coincident == "ignore":
        distances[distances == 0] = np.inf
    return distances
