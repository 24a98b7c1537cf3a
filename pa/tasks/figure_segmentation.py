"""`pa figure segmentation`: trained heads on some images, objects against parts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pa.config import Config
from pa.data.store import find as stores
from pa.data.store.find import StoreSelector
from pa.errors import AmbiguousError, MissingError, PaError, UsageError
from pa.figures.names import PAIRS, in_order, listed, title_of, title_of_store
from pa.figures.record import FigureOutput, FigureRecord, WrittenFigure
from pa.progress import Progress
from pa.tasks.choose import device
from pa.tasks.segmentation_inputs import InputsRequest, source_of
from pa.tasks.segmentation_labels import label_maps

if TYPE_CHECKING:
    from PIL import Image

    from pa.data.store.reader import Store
    from pa.evaluate.results import ResultFile
    from pa.figures.heads import ScoredHead
    from pa.figures.results import OfEncoder
    from pa.figures.segmentation import Example
    from pa.report.collection import ResultCollection

TASK = "probe-segmentation"
LINE_TITLES = {"object": "objects", "part": "parts"}

Rows = dict[str, "list[OfEncoder]"]


@dataclass(frozen=True)
class SegmentationFigureRequest:
    """What `pa figure segmentation` was asked; empty or None = what is there.

    `labels` are label sets, a line of each image for each; `images` names of images without suffix,
    in place of `examples` spread evenly over those that were scored.
    """

    encoders: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    protocol: str | None = None
    images: tuple[str, ...] = ()
    examples: int = 4
    root: Path | None = None
    device: str | None = None
    output: FigureOutput = field(default_factory=FigureOutput)


def figure_segmentation(
    config: Config, request: SegmentationFigureRequest, progress: Progress
) -> WrittenFigure:
    """Draw images, their labels and what the head of each encoder predicts (Figure 6).

    Nothing is trained: the heads are those beside results, applied to the cached windows they were
    scored on. Raises `MissingError` with the command that makes what is missing, and what
    `pa.figures.results.choose` raises.
    """
    from pa.figures.segmentation import Labels, draw
    from pa.report.collection import collect_results

    workspace = collect_results(config.workspace, config.results, config.features)
    sets = request.labels or _drawable_pair(config, workspace, request)
    chosen, heads, names = _prepared(config, workspace, request, sets, progress)
    place = device(request.device or config.settings.device)
    examples = _examples(heads, names, request.root, place, progress)
    encoders = [head.encoder for head in heads[sets[0]]]
    record = _plate(request, workspace, chosen, encoders, names)
    paths = record.paths(request.output, config.figures)
    draw(
        examples,
        [Labels(_line_title(name, sets), heads[name][0].maps.classes) for name in sets],
        [title_of_store(head.store.spec.to_json()) for head in heads[sets[0]]],
        paths,
        width=request.output.width,
        metadata=record.metadata,
    )
    return record.write(paths)


# -- which heads -----------------------------------------------------------------------------------


def _prepared(
    config: Config,
    workspace: ResultCollection,
    request: SegmentationFigureRequest,
    sets: Sequence[str],
    progress: Progress,
) -> tuple[Rows, dict[str, list[ScoredHead]], list[str]]:
    """All that a figure is drawn from: results and heads of each label set, names of images."""
    from pa.figures.heads import labelled_images

    chosen = _chosen(config, workspace, request, sets, progress)
    heads = {name: [_head(config, name, one) for one in chosen[name]] for name in sets}
    each = [head for name in sets for head in heads[name]]
    return chosen, heads, labelled_images(each, request.images, request.examples)


def _drawable_pair(
    config: Config, workspace: ResultCollection, request: SegmentationFigureRequest
) -> tuple[str, ...]:
    """The pair of objects and parts that can be drawn as asked.

    Raises `AmbiguousError` where both can, and where none can what stands in the way of the first
    that has results.
    """
    from pa.progress import Silent

    there = {found.result.dataset for found in workspace.results if found.result.task == TASK}
    pairs = [pair for pair in PAIRS if set(pair) <= there]
    drawable, refused = [], []
    for pair in pairs:
        try:
            _prepared(config, workspace, request, pair, Silent())
            drawable.append(pair)
        except PaError as error:
            refused.append(error)
    if len(drawable) > 1:
        said = " or ".join(",".join(pair) for pair in drawable)
        raise AmbiguousError(f"there are heads of two pairs. Choose one: --labels {said}.")
    if refused and not drawable:
        raise refused[0]
    if not drawable:
        has = f" There are heads of {', '.join(sorted(there))}." if there else ""
        raise MissingError(
            f"there are no heads of objects and parts in {workspace.root / 'results' / TASK}.{has} "
            f"Train them on one store:\n  pa probe segmentation --encoder NAME --dataset "
            f"pascal-part --labels pascal-object --labels pascal-part\nor draw one set: --labels "
            f"NAME."
        )
    return drawable[0]


def _chosen(
    config: Config,
    workspace: ResultCollection,
    request: SegmentationFigureRequest,
    sets: Sequence[str],
    progress: Progress,
) -> Rows:
    """The results of every label set, of the same encoders in all.

    Results whose windows are still there go before all others.
    """
    from pa.figures.results import Wanted, choose, recipe_of

    if len(set(sets)) < len(sets):
        raise UsageError(f"--labels names a set twice: {', '.join(sets)}.")
    protocol = request.protocol
    fingerprints = {store.fingerprint for store in stores.find(config.features, StoreSelector())}
    rows: Rows = {}
    for name in sets:
        wanted = Wanted(
            TASK, "pa probe segmentation", request.encoders, (name,), protocol, _has_its_head
        )
        drawable = replace(
            wanted,
            accepts=lambda found: (
                _has_its_head(found) and found.result.tested.fingerprint in fingerprints
            ),
        )
        if any(drawable.accepts(f) for f in workspace.results if wanted.is_met_by(f)):
            wanted = drawable
        rows[name] = choose(workspace, wanted, progress)
        protocol = protocol or recipe_of(rows[name][0].results[0])
    common = set.intersection(*({one.encoder for one in each} for each in rows.values()))
    if left := in_order({one.encoder for each in rows.values() for one in each} - common):
        progress.note(f"left out: {listed(map(title_of, left))}, without heads of every label set")
    if not common:
        raise MissingError(
            f"no encoder has heads of all of {', '.join(sets)}. Train what is missing: pa probe "
            f"segmentation --encoder NAME --labels {' --labels '.join(sets)}"
        )
    return {name: [one for one in each if one.encoder in common] for name, each in rows.items()}


def _has_its_head(found: ResultFile) -> bool:
    return found.path.with_suffix(".safetensors").is_file()


def _head(config: Config, name: str, one: OfEncoder) -> ScoredHead:
    from pa.figures.heads import ScoredHead

    found = one.results[0]
    try:
        query = StoreSelector(fingerprint=found.result.tested.fingerprint)
        store = stores.choose(config.features, query)
    except MissingError:
        raise MissingError(
            f"the windows that the head of {title_of(one.encoder)} was scored on, "
            f"{found.result.tested.title}, are not in {config.features}: the figure shows what it "
            f"says of them. Extract them again."
        ) from None
    (maps,) = label_maps(
        config, InputsRequest(labels=(name,)), store.spec.dataset, source_of(store)
    )
    return ScoredHead(one.encoder, found, store, maps)


# -- pictures --------------------------------------------------------------------------------------


def _examples(
    heads: dict[str, list[ScoredHead]],
    names: Sequence[str],
    root: Path | None,
    place: str,
    progress: Progress,
) -> list[Example]:
    from pa.figures.heads import truth
    from pa.figures.segmentation import Example, Line

    said = {
        (head.maps.name, head.encoder): head.predict(
            [head.paths()[name] for name in names], place, progress
        )
        for each in heads.values()
        for head in each
    }
    first = next(iter(heads.values()))[0]
    return [
        Example(
            _image(first.store, first.paths()[name], root),
            [
                Line(
                    truth(each[0], each[0].paths()[name]),
                    [said[head.maps.name, head.encoder][name] for head in each],
                )
                for each in heads.values()
            ],
        )
        for name in names
    ]


def _image(store: Store, path: str, root: Path | None) -> Image.Image:
    from pa.data import images as im
    from pa.data.store.image_files import check_content

    file = (root or source_of(store)) / path
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise MissingError(
            f"the image {file} is not there. If the images moved, give their folder with --root."
        ) from None
    row = (store.rows["path"] == path).arg_max()
    check_content(store, int(row or 0), data, file)
    return im.decode(data, file)


def _line_title(name: str, sets: Sequence[str]) -> str:
    kind = name.rpartition("-")[2]
    return LINE_TITLES.get(kind, name) if len(sets) > 1 else name


def _plate(
    request: SegmentationFigureRequest,
    workspace: ResultCollection,
    chosen: Rows,
    encoders: Sequence[str],
    names: Sequence[str],
) -> FigureRecord:
    from pa.figures.results import recipe_of, remarks, shown_result

    sets = list(chosen)
    results = [one.results[0] for each in chosen.values() for one in each]
    recipe = recipe_of(results[0])
    titles = listed(title_of(name) for name in encoders)
    scores = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{one.title} {100 * one.results[0].result.scores['mIoU'].value:.1f}" for one in each
        )
        for name, each in chosen.items()
    )
    told = (
        f"Linear segmentation of {listed(sets)} on frozen features of {titles}: image, labels and "
        f"predictions; ignored pixels are faded. mIoU (%) over all images that were scored: "
        f"{scores}. Protocol {recipe}. Images: {', '.join(names)}."
    )
    words = ["--encoder", ",".join(encoders), "--labels", ",".join(sets), "--protocol", recipe]
    words += ["--image", ",".join(names)]
    unlike = list(dict.fromkeys(filter(None, (remarks(each) for each in chosen.values()))))
    return FigureRecord(
        kind="segmentation",
        name=f"{'-'.join(sets)}-{recipe}",
        title=f"Linear segmentation of {listed(sets)}: {titles}",
        caption=" ".join(filter(None, [told, *unlike])),
        command=shlex.join(["pa", "figure", "segmentation", *words]),
        stores=list(
            {r.result.tested.fingerprint: asdict(r.result.tested) for r in results}.values()
        ),
        protocol=dict(results[0].result.protocol.parameters),
        results=[shown_result(found, workspace) for found in results],
    )
