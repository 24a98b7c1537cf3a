"""The figures of the study as steps, each after the steps whose stores and results it shows.

Figures 2, 4, 6, 7 and 8 of the paper, and three more: neighbour shares, and depth and sweep if the
workspace holds such results, which no number of the paper needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pa.evaluate.result_files import ResultFile
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
    figures: list[Step] = []
    missing: list[Missing] = []
    for figure in (
        *_retrieval(steps),
        *_segmentation(steps, protocol),
        *_shares(steps, protocol),
        *_of_results(steps, protocol, results),
    ):
        if isinstance(figure, Step):
            figures.append(figure)
        else:
            missing.append(figure)
    return figures, missing


# -- of the paper ---------------------------------------------------------------------------------


def _retrieval(steps: Sequence[Step]) -> Iterator[Step | Missing]:
    """Yield Figures 2, 4, 7 and 8: neighbours among the windows of ImageNet."""
    built = _by_encoder(steps, "index", "build", "imagenet")
    if not built:
        why = "they show windows of dataset imagenet, split val, which the study does not have here"
        yield "figures 2, 4, 7, 8", why
        return
    among = {"2": FIGURE_2, "4": PROJECTED, "7": tuple(built), "8": tuple(built)}
    for number, encoders in among.items():
        shown = [name for name in built if name in encoders]
        if not shown:
            has = " with a projector" if number == "4" else ""
            why = f"it shows encoders{has}, {listed(map(title_of, encoders))}; none is here"
            yield f"figure {number}", why
            continue
        kind = "projected" if number == "4" else "neighbours"
        words = ["--dataset", "imagenet", "--split", "val", "--view", "grid"]
        words += ["--representation", "pooled", "--example", QUERIES[number]]
        needed = [built[name] for name in shown]
        yield _figure(f"figure {number}", kind, f"figure-{number}", needed, words)


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
        words = ["--labels", ",".join(pair), "--protocol", protocol]
        name = f"figure-6-{source}-{protocol}"
        yield _figure(f"figure 6 {source} {protocol}", "segmentation", name, needed, words)


# -- ours -----------------------------------------------------------------------------------------


def _shares(steps: Sequence[Step], protocol: str) -> Iterator[Step | Missing]:
    for dataset in PARTS:
        scored = _by_encoder(steps, "evaluate", "neighbours", dataset)
        if scored:
            yield _of_scores("shares", dataset, protocol, list(scored.values()))
        else:
            yield f"figure shares of {dataset}", "the study extracts no part patches of it"


def _of_results(
    steps: Sequence[Step], protocol: str, results: ResultCollection | None
) -> Iterator[Step | Missing]:
    """Yield depth and sweep of the encoders that have such results."""
    kinds: dict[str, tuple[str, Callable[[ResultFile], bool], str]] = {
        "depth": (
            "scores of single blocks: extract with --layers, then pa evaluate retrieval --layers "
            "all",
            lambda file: (
                file.result.task == "retrieval"
                and file.result.representation.startswith("layers_")
                and file.result.selection.target == "label"
            ),
            "retrieval",
        ),
        "sweep": (
            "results of a sweep: pa probe linear --sweep",
            lambda file: (
                file.result.task == "probe-linear" and file.result.protocol.sweep is not None
            ),
            "linear",
        ),
    }
    for kind, (needs, accepts, before) in kinds.items():
        for dataset in PARTS:
            group = "evaluate" if before == "retrieval" else "probe"
            available = _by_encoder(steps, group, before, dataset)
            if not available:
                continue
            fitting = [
                file
                for file in (results.results if results else ())
                if accepts(file)
                and file.result.dataset == dataset
                and file.result.tested.encoder in available
                and protocol_key(file) == protocol
            ]
            if fitting:
                encoders = {file.result.tested.encoder for file in fitting}
                read = sorted(file.result.digest for file in fitting)
                needed = [available[name] for name in in_order(encoders)]
                yield _of_scores(kind, dataset, protocol, needed, read)
            else:
                yield f"figure {kind} of {dataset}", f"it shows {needs}"


# -- steps ----------------------------------------------------------------------------------------


def _of_scores(
    kind: str, dataset: str, protocol: str, needed: Sequence[Step], read: Iterable[str] = ()
) -> Step:
    words = ["--dataset", dataset, "--protocol", protocol]
    name = f"figure {kind} {dataset} {protocol}"
    return _figure(name, kind, f"{dataset}-{protocol}", needed, words, dataset, read)


def _figure(
    name: str,
    kind: str,
    file: str,
    needed: Sequence[Step],
    words: Sequence[str],
    dataset: str | None = None,
    read: Iterable[str] = (),
) -> Step:
    """Return the step of a figure; it reads what the steps before it read, too."""
    encoders = dict.fromkeys(str(step.encoder) for step in needed)
    after = dict.fromkeys(item for step in needed for item in (*step.after, step.name))
    chosen = ["figure", kind, "--encoder", ",".join(encoders), *words, "--name", file]
    return Step(name, tuple(chosen), None, dataset, tuple(after), read=tuple(read))


def _by_encoder(steps: Sequence[Step], group: str, kind: str, dataset: str) -> dict[str, Step]:
    """Return the steps of a command on a dataset by encoder, in the order of the paper."""
    file = {
        str(step.encoder): step
        for step in steps
        if step.words[:2] == (group, kind) and step.dataset == dataset
    }
    return {name: file[name] for name in in_order(file)}
