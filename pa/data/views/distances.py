"""The distance from a keypoint to its nearest neighbour, by the rules of a protocol.

P is the number of points of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

KEPT, LONE, FEW, COINCIDENT = "", "lone", "too few on the object", "coincident"


@dataclass(frozen=True)
class DistanceRule:
    """Which points count as neighbours, and how far apart two points are.

    `distance`: "image" pools the points of all objects of an image; "object" knows only those of
    the same object; "image+id" pools them with the object's id as a third coordinate, as the
    released code does, which keeps other objects away unless their ids are close.
    `coincident`: what becomes of a point on top of another: "skip" it, or "ignore" the other.
    """

    distance: str
    coincident: str
    min_per_object: int


def nearest(
    points: Floats,
    objects: npt.NDArray[np.int64],
    considered: npt.NDArray[np.bool_],
    rule: DistanceRule,
) -> tuple[Floats, npt.NDArray[np.str_]]:
    """The distance of each point (P, 2) to its nearest neighbour in the same image.

    `objects` (P,) are ids, `considered` (P,) marks the points that are wanted themselves; the
    others serve as neighbours only. Returns the distances (P,), infinite where there is no
    neighbour, and the reasons (P,) why a point is left out: `KEPT` for those that are not.
    """
    n = len(points)
    reasons = np.full(n, KEPT, dtype="<U24")
    if n == 1:
        reasons[:] = LONE
        return np.full(n, np.inf), reasons
    wanted_per_object = (objects[:, None] == objects[considered][None, :]).sum(axis=1)
    few = wanted_per_object < rule.min_per_object
    distances = _matrix(points, objects, rule)
    distances[:, few] = np.inf
    d: Floats = distances.min(axis=1)
    reasons[np.isinf(d)] = LONE
    reasons[d == 0] = COINCIDENT  # a zero is left only where the rule skips such points
    reasons[few] = FEW
    return d, reasons


def _matrix(points: Floats, objects: npt.NDArray[np.int64], rule: DistanceRule) -> Floats:
    """Distances between all points of an image (P, P); infinite = not a neighbour."""
    vectors = points
    if rule.distance == "image+id":
        vectors = np.column_stack([points, objects.astype(np.float64)])
    difference = vectors[:, None, :] - vectors[None, :, :]
    distances: Floats = np.sqrt((difference**2).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    if rule.distance == "object":
        distances[objects[:, None] != objects[None, :]] = np.inf
    if rule.coincident == "ignore":
        distances[distances == 0] = np.inf
    return distances
