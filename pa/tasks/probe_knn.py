"""`pa probe knn`: which stores and rows, then `pa.probe.knn`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pa.config import Config
from pa.progress import Named, Progress
from pa.tasks.choose import device
from pa.tasks.probe_rows import (
    RowsRequest,
    probe_stores,
    split_options,
    usual_representation,
    with_settings,
)

if TYPE_CHECKING:
    from pa.probe.knn import KnnResult


@dataclass(frozen=True)
class KnnRequest(RowsRequest):
    """What `pa probe knn` was asked; `k` empty = DINO's list, as far as there are rows."""

    representation: str | None = None
    k: tuple[int, ...] = ()
    temperature: float = 0.07
    seed: int = 0


def probe_knn(config: Config, request: KnnRequest, progress: Progress) -> KnnResult:
    """Classify the test rows by their nearest training rows; see `pa.probe.knn`.

    `protocol` says here which stores of view `parts` go together. Raises `UsageError` as
    `probe_stores` does.
    """
    from pa.probe.knn import run_knn
    from pa.probe.linear.recipes import LINEAR_PROTOCOLS
    from pa.probe.recipes import permitted_differences

    request = with_settings(config, request)
    if request.protocol is not None:
        LINEAR_PROTOCOLS[request.protocol]  # an unknown name is an error with the nearest ones
    train, test = probe_stores(config, request)
    return run_knn(
        train,
        test,
        results=config.results,
        representation=request.representation or usual_representation(train),
        split_options=split_options(config, request, request.seed),
        permitted=permitted_differences(request.protocol or ""),
        ks=request.k or None,
        temperature=request.temperature,
        device=device(request.device or config.settings.device),
        progress=Named(progress, train.label),
    )
