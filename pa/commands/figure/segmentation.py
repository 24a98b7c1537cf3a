"""`pa figure segmentation`: objects against parts, by trained heads (Figure 6)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.figure.selection import STORED, output, show
from pa.commands.probe.segmentation_inputs import SegmentationInputs, label_maps, source_root
from pa.errors import MissingError, UsageError
from pa.progress import Progress, Silent

if TYPE_CHECKING:
    from pa.evaluate.result_files import ResultFile
    from pa.figures.heads import ScoredHead
    from pa.figures.record import FigureOutput, FigureRecord
    from pa.figures.results import EncoderResults
    from pa.report.collection import ResultCollection
    from pa.workspace import Workspace

TASK = "probe-segmentation"

ByLabelSet = dict[str, "list[EncoderResults]"]


@click.command()
@click.option("--encoder", "encoders", callback=options.listed, help=STORED)
@click.option(
    "--labels",
    callback=options.listed,
    help="Label sets, such as pascal-object,pascal-part. Default: the objects and parts with "
    "trained heads.",
)
@click.option("--protocol", help="Protocol of the heads. Default: paper, if it has heads.")
@click.option("--image", "images", callback=options.listed, help="Names of images, with commas.")
@click.option(
    "--examples",
    type=click.IntRange(1, 50),
    default=4,
    show_default=True,
    help="Number of images if none is named.",
)
@click.option("--root", type=options.PATH, help="Current root folder of the images.")
@click.option("--device", help="Device: auto, cpu, cuda or cuda:N.")
@output
@options.as_json
@options.workspace
def segmentation(
    workspace: Workspace,
    encoders: tuple[str, ...],
    labels: tuple[str, ...],
    protocol: str | None,
    images: tuple[str, ...],
    examples: int,
    root: Path | None,
    device: str | None,
    output: FigureOutput,
    as_json: bool,
) -> None:
    """Objects against parts: image, labels, and the prediction of every encoder (Figure 6).

    The heads are those of `pa probe segmentation`; nothing is trained.

    \b
    pa figure segmentation --labels pascal-object,pascal-part
    pa figure segmentation --encoder deit,cae,ibot --image 2008_000009 --out figure6
    """
    from pa.figures.heads import drawable_pair, labelled_images, read_examples
    from pa.figures.names import title_of_store
    from pa.figures.segmentation import Labels, draw, line_title
    from pa.report.collection import collect_results

    config = workspace.config
    collection = collect_results(config.workspace, config.results, config.features)
    if not labels:

        def prepare(pair: tuple[str, str]) -> None:
            chosen = _choose(workspace, collection, encoders, pair, protocol, Silent())
            heads = [_head(workspace, key, each) for key in pair for each in chosen[key]]
            labelled_images(heads, images, examples)

        existing = {file.result.dataset for file in collection.results if file.result.task == TASK}
        labels = drawable_pair(existing, prepare, config.results / TASK)
    chosen = _choose(workspace, collection, encoders, labels, protocol, workspace.progress)
    heads = {key: [_head(workspace, key, each) for each in chosen[key]] for key in labels}
    names = labelled_images([h for key in labels for h in heads[key]], images, examples)
    drawn = read_examples(
        list(heads.values()),
        names,
        root or source_root(heads[labels[0]][0].store),
        workspace.device(device),
        workspace.progress,
    )
    record = _record(collection, chosen, [head.encoder for head in heads[labels[0]]], names)
    target = record.target(output, config.figures)
    draw(
        drawn,
        [Labels(line_title(key, len(labels)), heads[key][0].maps.classes) for key in labels],
        [title_of_store(head.store.spec.to_json()) for head in heads[labels[0]]],
        target,
    )
    show(record.write(target.paths), as_json)


def _choose(
    workspace: Workspace,
    collection: ResultCollection,
    encoders: tuple[str, ...],
    labels: Sequence[str],
    protocol: str | None,
    progress: Progress,
) -> ByLabelSet:
    """Return the results of every label set, of the same encoders in all.

    Results whose windows still exist are chosen before others.
    """
    from pa.data.store import find
    from pa.figures.names import in_order, listed, title_of
    from pa.figures.results import ResultQuery, protocol_key, select_by_encoder

    if len(set(labels)) < len(labels):
        raise UsageError(f"--labels names a set twice: {', '.join(labels)}.")
    fingerprints = {store.fingerprint for store in find.find(workspace.config.features)}
    by_set: ByLabelSet = {}
    for name in labels:
        wanted = ResultQuery(TASK, "pa probe segmentation", encoders, (name,), protocol, _has_head)
        drawable = replace(
            wanted,
            accepts=lambda file: _has_head(file) and file.result.tested.fingerprint in fingerprints,
        )
        # A result without its windows is chosen only if no other fits: the error then names it.
        if any(drawable.accepts(file) for file in collection.results if wanted.matches(file)):
            wanted = drawable
        by_set[name] = select_by_encoder(collection, wanted, progress)
        # All label sets by the protocol of the first.
        protocol = protocol or protocol_key(by_set[name][0].results[0])
    common = set.intersection(*({each.encoder for each in row} for row in by_set.values()))
    every = {each.encoder for row in by_set.values() for each in row}
    if incomplete := in_order(every - common):
        titles = listed(map(title_of, incomplete))
        progress.note(f"skipped: {titles}, without heads of every label set")
    if not common:
        raise MissingError(
            f"no encoder has heads of all of {', '.join(labels)}. Train the missing ones: pa probe "
            f"segmentation --encoder NAME --labels {' --labels '.join(labels)}"
        )
    return {name: [e for e in row if e.encoder in common] for name, row in by_set.items()}


def _has_head(file: ResultFile) -> bool:
    return file.path.with_suffix(".safetensors").is_file()


def _head(workspace: Workspace, labels: str, chosen: EncoderResults) -> ScoredHead:
    from pa.data.store import find
    from pa.data.store.find import StoreSelector
    from pa.figures.heads import ScoredHead
    from pa.figures.names import title_of

    file, features = chosen.results[0], workspace.config.features
    try:
        store = find.choose(features, StoreSelector(fingerprint=file.result.tested.fingerprint))
    except MissingError:
        raise MissingError(
            f"the windows that the head of {title_of(chosen.encoder)} was scored on, "
            f"{file.result.tested.title}, are not in {features}, and the figure shows its "
            f"predictions of them. Extract them again."
        ) from None
    (maps,) = label_maps(
        workspace, SegmentationInputs(labels=(labels,)), store.spec.dataset, source_root(store)
    )
    return ScoredHead(chosen.encoder, file, store, maps)


def _record(
    collection: ResultCollection, chosen: ByLabelSet, encoders: Sequence[str], names: Sequence[str]
) -> FigureRecord:
    from pa.figures.names import listed, title_of
    from pa.figures.record import FigureRecord
    from pa.figures.results import protocol_key, remarks, shown_result

    labels = list(chosen)
    files = [each.results[0] for row in chosen.values() for each in row]
    recipe = protocol_key(files[0])
    stores = {file.result.tested.fingerprint: file.result.tested for file in files}
    titles = listed(title_of(name) for name in encoders)
    scores = []
    for name, row in chosen.items():
        values = [each.results[0].result.scores["mIoU"].value for each in row]
        cells = (f"{e.title} {100 * v:.1f}" for e, v in zip(row, values, strict=True))
        scores.append(f"{name}: {', '.join(cells)}")
    caption = (
        f"Linear segmentation of {listed(labels)} on frozen features of {titles}: image, labels "
        f"and predictions; ignored pixels are faded. mIoU (%) over all scored images: "
        f"{'; '.join(scores)}. Protocol {recipe}. Images: {', '.join(names)}."
    )
    words = ["--encoder", ",".join(encoders), "--labels", ",".join(labels), "--protocol", recipe]
    words += ["--image", ",".join(names)]
    deviations = dict.fromkeys(filter(None, (remarks(row) for row in chosen.values())))
    return FigureRecord(
        kind="segmentation",
        name=f"{'-'.join(labels)}-{recipe}",
        title=f"Linear segmentation of {listed(labels)}: {titles}",
        caption=" ".join([caption, *deviations]),
        command=shlex.join(["pa", "figure", "segmentation", *words]),
        stores=[asdict(store) for store in stores.values()],
        protocol=dict(files[0].result.protocol.parameters),
        results=[shown_result(file, collection) for file in files],
    )
