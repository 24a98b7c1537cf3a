"""`pa search`: the nearest regions of a region, or of a box in an image of one's own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pa.config import Config
from pa.data.schema import Box
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.errors import MissingError, UsageError
from pa.progress import Progress
from pa.tasks.choose import asked_encoders, choose_store, store_query
from pa.tasks.encoders import check_given_checkpoints, load_store_encoder
from pa.workspace import Workspace

if TYPE_CHECKING:
    from pa.index.search import Query, SearchResult


@dataclass(frozen=True)
class SearchRequest:
    """What `pa search` was asked. Either `query_id`, or `image` with a `box` in its own pixels."""

    query_id: int | None = None
    image: Path | None = None
    box: Box | None = None
    k: int = 24
    encoders: tuple[str, ...] = ()
    representations: tuple[str, ...] = ()
    dataset: str | None = None
    split: str | None = None
    view: str | None = None
    protocol: str | None = None
    store: str | None = None
    include_self: bool = False
    exclude_same_image: bool = False
    factory: str | None = None
    device: str | None = None
    checkpoints: tuple[Path, ...] = ()


def search(
    config: Config, request: SearchRequest, progress: Progress
) -> list[tuple[Store, SearchResult]]:
    """Answer one query from the index of every encoder and representation asked for.

    Indexes that are missing are built first. Raises `UsageError` where stores of several encoders
    do not hold the same regions, so that one id means different things.
    """
    from pa.index.search import search as run

    if (request.query_id is None) == (request.image is None):
        raise UsageError("what is the query? Give --query-id N, or --image FILE (with --box).")
    if request.box is not None and request.image is None:
        raise UsageError("--box is a box in --image FILE: it does not go with --query-id.")
    if request.image is not None and not request.image.is_file():
        raise MissingError(f"the query image {request.image} is not there.")
    if request.checkpoints and request.image is None:
        raise UsageError("--checkpoint is the file that encodes --image: give both, or neither.")
    chosen = _stores_to_search(config, request)
    check_given_checkpoints(request.checkpoints, chosen)
    answers = []
    for store in chosen:
        for representation in request.representations or (config.settings.representation,):
            _require_regions(store, representation)
            workspace = Workspace(config.workspace, progress)
            index = workspace.index(store, representation, request.factory, _index_device(request))
            query = _query(config, request, store, representation)
            found = run(
                index,
                [query],
                request.k,
                include_self=request.include_self,
                exclude_same_image=request.exclude_same_image,
            )
            answers.append((store, found[0]))
    return answers


def _require_regions(store: Store, representation: str) -> None:
    """Raise `UsageError` for a store of token maps, saying which store can be searched."""
    vectors = [name for name, shape in store.spec.representations.items() if len(shape) == 1]
    if store.view == "windows" and representation not in vectors:
        raise UsageError(
            f"{store.title} holds the tokens of large windows, for segmentation; a search compares "
            f"one vector per region. Make a store of regions, then search it:\n"
            f"  {store.command_for(view=VIEWS['grid'])}"
        )


def _stores_to_search(config: Config, request: SearchRequest) -> list[Store]:
    chosen = [
        choose_store(
            config,
            store_query(
                config,
                dataset=request.dataset,
                split=request.split,
                view=request.view,
                protocol=request.protocol,
                encoder=encoder,
                fingerprint=request.store,
            ),
        )
        for encoder in asked_encoders(config, request.encoders, request.store)
    ]
    for other in chosen[1:]:
        if other.spec.rows["sha256"] != chosen[0].spec.rows["sha256"]:
            raise UsageError(
                f"{chosen[0].title} and {other.title} do not hold the same regions, so one query "
                f"id means two things. Extract both from the same split, view and --limit."
            )
    return chosen


def _index_device(request: SearchRequest) -> str:
    """Where the index is searched: on the device named, where FAISS has GPUs to name.

    With `--image` the device is first of all the encoder's, which may have a GPU without FAISS
    having one.
    """
    from pa.index.gpu import gpus

    named_for_encoder = request.image is not None and not gpus()
    return "cpu" if request.device is None or named_for_encoder else request.device


def _query(
    config: Config, request: SearchRequest, store: Store, representation: str
) -> Query | int:
    if request.query_id is not None:
        return request.query_id
    return _query_from_image(config, request, store, representation)


def _query_from_image(
    config: Config, request: SearchRequest, store: Store, representation: str
) -> Query:
    """Encode a box of the user's image with the encoder that produced the store."""
    from pa.data import images as im
    from pa.extract.run import encode_region
    from pa.index.search import Query

    if request.image is None:  # the caller has checked; this tells the type checker
        raise UsageError("--image is missing.")
    picture = im.decode(request.image.read_bytes(), request.image)
    box = request.box or (0.0, 0.0, float(picture.width), float(picture.height))
    check_box(box, picture.size)
    command = shlex.join(["pa", "search", "--image", str(request.image)])
    encoder = load_store_encoder(
        config,
        store,
        f"{command} --store {store.spec.short}",
        given=request.checkpoints,
        device_name=request.device,
    )
    vector = encode_region(encoder, picture, box, representation)
    return Query(vector=vector, path=str(request.image), box=box, canvas=picture)


def check_box(box: Box, size: tuple[int, int]) -> None:
    """Raise `UsageError` unless a box lies in the image and holds pixels, as it will be rounded."""
    shown = ",".join(f"{value:g}" for value in box)
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
        raise UsageError(
            f"--box {shown} is no box of the image, which has {size[0]}×{size[1]} pixels (upright, "
            f"after its EXIF rotation): it is x0,y0,x1,y1 with 0 ≤ x0 < x1 ≤ {size[0]} and "
            f"0 ≤ y0 < y1 ≤ {size[1]}."
        )
    if round(x0) == round(x1) or round(y0) == round(y1):
        rounded = ",".join(str(round(value)) for value in box)
        raise UsageError(
            f"--box {shown} has no pixel: it is cut at whole pixels, {rounded}. Make it larger."
        )


def draw(
    answers: Sequence[tuple[Store, SearchResult]], figure: Path, root: Path | None = None
) -> Path:
    """Draw the query and its neighbours; see `pa.figures.neighbours`."""
    from pa.data.crops import Crops
    from pa.figures.neighbours import draw as run

    crops = {store.path: Crops(store, root) for store, _ in answers}
    return run([result for _, result in answers], [crops[s.path] for s, _ in answers], figure)
