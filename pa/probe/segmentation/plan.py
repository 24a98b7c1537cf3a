"""Compare ways to run a segmentation probe by disk space, windows to encode, and recorded time.

The features of the training windows can be stored once (one plain crop per image), stored for K
random crops of each image, or encoded again for every batch (online).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pa.probe.segmentation.batches import LABEL_CACHE

FLOAT = 4  # bytes of float32


@dataclass(frozen=True)
class Workload:
    """Sizes of a run: `tokens` of a window, each of `layers` vectors of `width` values, each
    `vector_bytes` on disk; `classes` of every head."""

    train_images: int
    test_images: int
    test_windows: int  # sliding windows
    crop: int  # pixels
    tokens: int
    width: int
    layers: int
    vector_bytes: int
    classes: tuple[int, ...]  # of each head
    iterations: int
    batch: int

    @property
    def window_bytes(self) -> int:
        """Bytes of one window's features in the store."""
        return self.tokens * self.layers * self.vector_bytes

    @property
    def epochs(self) -> float:
        """Number of times that each training image is used."""
        return self.iterations * self.batch / self.train_images

    @property
    def memory(self) -> int:
        """Peak bytes of the arrays in training."""
        n_logits = sum(self.classes)
        values = self.layers * self.width
        heads = 4 * values * n_logits  # weights, gradients and both moments of AdamW
        features = 2 * self.batch * self.tokens * values  # this batch and the next one
        logits = 2 * self.batch * self.tokens * n_logits  # logits and their gradient
        return FLOAT * (heads + features + logits) + LABEL_CACHE

    def to_json(self) -> dict[str, Any]:
        derived = {name: getattr(self, name) for name in ("window_bytes", "epochs", "memory")}
        return {**asdict(self), **derived}


@dataclass(frozen=True)
class Strategy:
    """One way to obtain the features; times are None without a recorded run.

    `windows` are encoded in total, with `bytes` on disk; `random_crops`: whether each image is used
    in several random crops, as the recipe does.
    """

    name: str
    windows: int
    bytes: int
    random_crops: bool
    encode_seconds: float | None
    train_seconds: float | None

    @property
    def seconds(self) -> float | None:
        if self.encode_seconds is None or self.train_seconds is None:
            return None
        return self.encode_seconds + self.train_seconds

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": self.seconds}


@dataclass(frozen=True)
class SegmentationPlan:
    """All strategies, and the recommended one. `encoder` states where the sizes are from."""

    work: Workload
    encoder: str
    free: int
    strategies: tuple[Strategy, ...]

    @property
    def recommended(self) -> Strategy:
        """The fastest strategy with random crops that fits; without times, the fewest windows."""
        fitting = [s for s in self.strategies if s.random_crops and s.bytes <= self.free]
        times = [s.seconds for s in fitting if s.seconds is not None]
        if len(times) == len(fitting):
            return fitting[times.index(min(times))]
        return min(fitting, key=lambda strategy: strategy.windows)

    def to_json(self) -> dict[str, Any]:
        return {
            "work": self.work.to_json(),
            "encoder": self.encoder,
            "free": self.free,
            "strategies": [strategy.to_json() for strategy in self.strategies],
            "recommended": self.recommended.name,
        }


def plan_segmentation(
    work: Workload,
    encoder: str,
    n_views: int,
    free: int,
    *,
    windows_per_second: float | None = None,
    train_seconds: float | None = None,
) -> SegmentationPlan:
    """Plan one plain crop, `n_views` random crops, and encoding online.

    If `n_views` crops of each image do not fit on the disk, as many as fit are planned too.
    """

    def strategy(name: str, windows: int, n_bytes: int, random_crops: bool) -> Strategy:
        encode = None if windows_per_second is None else windows / windows_per_second
        return Strategy(name, windows, n_bytes, random_crops, encode, train_seconds)

    counts = {1, n_views}  # crops per image
    # Largest K with K crops of every image and the sliding windows on the disk.
    fitting = int((free / work.window_bytes - work.test_windows) // work.train_images)
    if 1 < fitting < n_views:
        counts.add(fitting)
    strategies = []
    for views in sorted(counts):
        windows = views * work.train_images + work.test_windows
        name = "cached, 1 plain crop" if views == 1 else f"cached, {views} random crops"
        strategies.append(strategy(name, windows, windows * work.window_bytes, views > 1))
    windows = work.iterations * work.batch + work.test_windows
    strategies.append(strategy("online", windows, 0, True))
    return SegmentationPlan(work, encoder, free, tuple(strategies))
