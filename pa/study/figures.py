"""The figures of the study as steps, each after the steps whose stores and results it shows.

Figures 2, 4, 6, 7 and 8 of the paper, and three more: neighbour shares, and depth and sweep if the
workspace holds such results, which no number of the paper needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pa.evaluate.result_files import ResultFile
from pa.evaluate.results import LinearProbeResult, RetrievalResult
from pa.figures.names import PAIRS, in_order, listed, title_of
from pa.figures.results import protocol_key
from pa.report.collection import ResultCollection
from pa.study.steps import PARTS, PROJECTED, Step

# Figure 2 prints three encoders. The released code has three queries and does not state their
# figures: 7 and 8 use the second and the third.
FIGURE_2 = ("deit", "mocov3", "cae")
QUERIES = {"2": "1,2", "4": "1", "7": "2", "8": "3"}  # numbers of --example

Missing = tuple[str, str]  # a figure that cannot be drawn here, and what it needs


def figure_steps(
    steps: Sequence[Step], protocol: str, results: ResultCollection | None
) -> tuple[list[Step], list[Missing]]:
    """Return the figures that can be drawn after these steps, and those that cannot.

    `results` are those that depth and sweep are drawn from, None without any.
    """
    figures = [
        *_retrieval(steps),
        *_segmentation(steps, protocol),
        *_of_parts(steps, protocol, results),
    ]
    drawn = [figure for figure in figures if isinstance(figure, Step)]
    return drawn, [figure for figure in figures if not isinstance(figure, Step)]


def _retrieval(steps: Sequence[Step]) -> Iterator[Step | Missing]:
    """Yield Figures 2, 4, 7 and 8: neighbours among the windows of ImageNet."""
    built = _by_encoder(steps, "index", "build", "imagenet")
    if not built:
        why = "they show windows of dataset imagenet, split val, which the study does not have here"
        yield "figures 2, 4, 7, 8", why
        return
    among = {"2": FIGURE_2, "4": PROJECTED, "7": tuple(built), "8": tuple(built)}
    for number, encoders in among.items():
        needed = [step for name, step in built.items() if name in encoders]
        if not needed:
            has = " with a projector" if number == "4" else ""
            why = f"it shows encoders{has}, {listed(map(title_of, encoders))}; none is here"
            yield f"figure {number}", why
            continue
        words = ["projected" if number == "4" else "neighbours", "--dataset", "imagenet"]
        words += ["--split", "val", "--view", "grid", "--representation", "pooled"]
        words += ["--example", QUERIES[number], "--name", f"figure-{number}"]
        yield _figure(f"figure {number}", words, needed)


def _segmentation(steps: Sequence[Step], protocol: str) -> Iterator[Step | Missing]:
    """Yield Figure 6 for each dataset with objects and parts."""
    for pair in PAIRS:
        source = pair[0].partition("-")[0]
        objects, parts = (_by_encoder(steps, "probe", "segmentation", name) for name in pair)
        both = [name for name in objects if name in parts]
        if not both:
            lacking = [n for n, of in zip(pair, (objects, parts), strict=True) if not of]
            why = (
                f"it shows segmentation of {listed(pair)}; the study has none of {listed(lacking)}"
            )
            yield f"figure 6 of {source}", why
            continue
        needed = [of[name] for of in (objects, parts) for name in both]
        words = ["segmentation", "--labels", ",".join(pair), "--protocol", protocol]
        words += ["--name", f"figure-6-{source}-{protocol}"]
        yield _figure(f"figure 6 {source} {protocol}", words, needed)


def _of_parts(
    steps: Sequence[Step], protocol: str, collection: ResultCollection | None
) -> Iterator[Step | Missing]:
    """Yield shares of neighbours, and depth and sweep of the encoders that have such results."""

    def figure(kind: str, dataset: str, needed: Iterable[Step], read: Iterable[str] = ()) -> Step:
        words = [kind, "--dataset", dataset, "--protocol", protocol]
        words += ["--name", f"{dataset}-{protocol}"]
        return _figure(f"figure {kind} {dataset} {protocol}", words, needed, dataset, read)

    for dataset in PARTS:
        if scored := _by_encoder(steps, "evaluate", "neighbours", dataset):
            yield figure("shares", dataset, scored.values())
        else:
            yield f"figure shares of {dataset}", "the study extracts no part patches of it"
    kinds: tuple[tuple[str, tuple[str, str], Callable[[ResultFile], bool], str], ...] = (
        (
            "depth",
            ("evaluate", "retrieval"),
            _is_of_a_block,
            "scores of single blocks: extract with --layers, then pa evaluate retrieval --layers "
            "all",
        ),
        ("sweep", ("probe", "linear"), _is_a_sweep, "results of a sweep: pa probe linear --sweep"),
    )
    for kind, command, accepts, needs in kinds:
        for dataset in PARTS:
            available = _by_encoder(steps, *command, dataset)
            if not available:
                continue
            fitting = [
                file
                for file in (collection.results if collection else ())
                if accepts(file)
                and file.result.dataset == dataset
                and file.result.tested.encoder in available
                and protocol_key(file) == protocol
            ]
            if fitting:
                encoders = {file.result.tested.encoder for file in fitting}
                needed = [available[name] for name in in_order(encoders)]
                read = sorted(file.result.digest for file in fitting)
                yield figure(kind, dataset, needed, read)
            else:
                yield f"figure {kind} of {dataset}", f"it shows {needs}"


def _is_of_a_block(file: ResultFile) -> bool:
    result = file.result
    return (
        isinstance(result, RetrievalResult)
        and result.representation.startswith("layers_")
        and result.selection.target == "label"
    )


def _is_a_sweep(file: ResultFile) -> bool:
    return isinstance(file.result, LinearProbeResult) and file.result.protocol.sweep is not None


def _figure(
    name: str,
    words: Sequence[str],
    needed: Iterable[Step],
    dataset: str | None = None,
    read: Iterable[str] = (),
) -> Step:
    """Return the step of a figure; it reads what the steps before it read, too."""
    needed = list(needed)
    kind, *options = words
    encoders = ",".join(dict.fromkeys(str(step.encoder) for step in needed))
    after = dict.fromkeys(item for step in needed for item in (*step.after, step.name))
    command = ("figure", kind, "--encoder", encoders, *options)
    return Step(name, command, None, dataset, tuple(after), read=tuple(read))


def _by_encoder(steps: Sequence[Step], group: str, kind: str, dataset: str) -> dict[str, Step]:
    """Return the steps of a command on a dataset by encoder, in the order of the paper."""
    file = {
        str(step.encoder): step
        for step in steps
        if step.words[:2] == (group, kind) and step.dataset == dataset
    }
    return {name: file[name] for name in in_order(file)}
