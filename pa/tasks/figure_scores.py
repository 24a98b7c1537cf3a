"""`pa figure depth`, `shares` and `sweep`: figures of results that are there already."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pa.config import Config
from pa.errors import MissingError, VerificationError
from pa.figures.names import listed
from pa.figures.record import FigureOutput, FigureRecord, WrittenFigure
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.data.store.spec import Spec
    from pa.evaluate.results import ResultFile
    from pa.figures.results import OfEncoder, Wanted
    from pa.figures.style import Metadata
    from pa.report.collection import ResultCollection

BLOCKS = "encoder.options.layers"  # the field of a spec that names the stored blocks
Draw = Callable[[Sequence[Path], float, "Metadata"], None]


@dataclass(frozen=True)
class ScoresRequest:
    """What `pa figure depth`, `shares` or `sweep` was asked; empty or None = what is there."""

    encoders: tuple[str, ...] = ()
    dataset: str | None = None
    protocol: str | None = None
    k: int | None = None
    output: FigureOutput = field(default_factory=FigureOutput)


def figure_depth(config: Config, request: ScoresRequest, progress: Progress) -> WrittenFigure:
    """Draw the average precision after every block, from results of `pa evaluate retrieval`.

    Raises what `pa.figures.results.choose` raises.
    """
    from pa.figures.results import Wanted, choose
    from pa.figures.scores import depth_panels, draw_depth, mean_of

    command = "pa evaluate retrieval --layers all"
    wanted = _wanted(config, request, Wanted, "retrieval", command, _is_of_labels)
    workspace = _workspace(config)
    there = choose(workspace, wanted, progress)
    chosen = [one for one in there if depth_panels([one])]
    if request.encoders or not chosen:
        _require_blocks(config, [one for one in there if one not in chosen])
    panels = depth_panels(chosen)
    any_result = chosen[0].results[0]
    mean = mean_of(any_result, "ap")
    chance, method = mean.chance, "" if mean.interval is None else f" by {mean.interval.method}"
    encoders = listed(curve.label for curve in next(iter(panels.values())))
    told = (
        f"Average precision of part retrieval after each block, without any norm, and after the "
        f"final norm, of {encoders} on {_gallery(any_result)}; bands and bars are 95 % intervals"
        f"{method}, the dotted line is chance ({100 * chance:.1f} %)."
    )
    return _finish(
        config,
        request,
        workspace,
        chosen,
        "depth",
        f"Part retrieval by depth: {encoders}",
        told,
        lambda paths, width, metadata: draw_depth(
            panels, chance, paths, width=width, metadata=metadata
        ),
    )


def figure_shares(config: Config, request: ScoresRequest, progress: Progress) -> WrittenFigure:
    """Draw what the neighbours of part patches are, from results of `pa evaluate neighbours`.

    Raises what `pa.figures.results.choose` raises.
    """
    from pa.evaluate.neighbours import default_k
    from pa.evaluate.results import NeighboursResult
    from pa.figures.results import Wanted, choose
    from pa.figures.scores import draw_shares, share_bars

    command = "pa evaluate neighbours" + ("" if request.k is None else f" -k {request.k}")

    def is_of_k(found: ResultFile) -> bool:
        k = default_k(found.result.counts.rows) if request.k is None else request.k
        return isinstance(found.result, NeighboursResult) and found.result.k == k

    wanted = _wanted(config, request, Wanted, "neighbours", command, is_of_k)
    workspace = _workspace(config)
    chosen = choose(workspace, wanted, progress)
    k = chosen[0].results[0].result.protocol.parameters["k"]
    bars = share_bars(chosen)
    encoders = listed(one.title for one in chosen)
    told = (
        f"What the {k} nearest neighbours of a part patch are, by cosine, mean over "
        f"{_gallery(chosen[0].results[0])}, for {encoders}; the last bar is a neighbour at random. "
        f"Blue is the same part, orange another part of the same object or class."
    )
    return _finish(
        config,
        request,
        workspace,
        chosen,
        "shares",
        f"Part against whole among the {k} nearest neighbours: {encoders}",
        told,
        lambda paths, width, metadata: draw_shares(bars, k, paths, width=width, metadata=metadata),
    )


def figure_sweep(config: Config, request: ScoresRequest, progress: Progress) -> WrittenFigure:
    """Draw the validation accuracy of a sweep, from results of `pa probe linear --sweep`.

    Raises what `pa.figures.results.choose` raises, `MissingError` for a lost table, and
    `VerificationError` for one that has changed since it was written.
    """
    import polars as pl

    from pa.figures.results import Wanted, choose
    from pa.figures.scores import draw_sweep, sweep_sheets

    command = "pa probe linear --sweep --lr 0.1,0.4,1 --weight-decay 0,0.0001"
    wanted = _wanted(
        config,
        request,
        Wanted,
        "probe-linear",
        command,
        lambda found: found.result.protocol.sweep is not None,
    )
    workspace = _workspace(config)
    chosen = choose(workspace, wanted, progress)
    tables = {}
    for one in chosen:
        file = one.results[0].path.with_suffix(".sweep.parquet")
        if not file.is_file():
            raise MissingError(
                f"{file} is not there: the table of the sweep, beside its result. Sweep again:\n"
                f"  {command} --encoder {one.encoder} --dataset {one.store.dataset}"
            )
        if (reason := one.results[0].companion_difference(file)) is not None:
            raise VerificationError(
                f"{file}: {reason}. Sweep again:\n"
                f"  {command} --encoder {one.encoder} --dataset {one.store.dataset}"
            )
        tables[one.encoder] = pl.read_parquet(file, glob=False)
    sheets = sweep_sheets(chosen, tables)
    sweep = chosen[0].results[0].result.protocol.sweep or {}
    encoders = listed(one.title for one in chosen)
    seeds = chosen[0].results[0].result.protocol.seeds
    mean = f"mean of {seeds} seeds, " if seeds != 1 else ""
    told = (
        f"Validation accuracy (%) of a linear probe of {encoders} on {chosen[0].store.dataset} "
        f"by learning rate and weight decay ({mean}on a {sweep['by']}); the framed setting was "
        f"chosen, a cross is one that diverged. No test row took part."
    )
    return _finish(
        config,
        request,
        workspace,
        chosen,
        "sweep",
        f"Sweep of the linear probe: {encoders}",
        told,
        lambda paths, width, metadata: draw_sweep(sheets, paths, width=width, metadata=metadata),
    )


def _wanted(
    config: Config,
    request: ScoresRequest,
    kind: type[Wanted],
    task: str,
    command: str,
    accepts: Callable[[ResultFile], bool] = lambda found: True,
) -> Wanted:
    dataset = request.dataset or config.settings.dataset
    return kind(
        task,
        command,
        request.encoders,
        (dataset,) if dataset else (),
        request.protocol,
        accepts,
    )


def _workspace(config: Config) -> ResultCollection:
    from pa.report.collection import collect_results

    return collect_results(config.workspace, config.results, config.features)


def _gallery(found: ResultFile) -> str:
    counts, store = found.result.counts, found.result.tested
    return (
        f"{counts.rows:,} part patches of {counts.images:,} images of {store.dataset}/{store.split}"
    )


def _is_of_labels(found: ResultFile) -> bool:
    return bool(found.result.selection.target == "label")


def _require_blocks(config: Config, without: Sequence[OfEncoder]) -> None:
    """Raise `MissingError` where there are encoders without a score of single blocks."""
    if without:
        raise MissingError(
            f"the results of {listed(one.title for one in without)} are of no single "
            f"block. Score the blocks, of a store that keeps them:\n"
            f"{_blocks_commands(config, without[0])}"
        )


def _blocks_commands(config: Config, one: OfEncoder) -> str:
    """The commands that score the blocks of an encoder on the rows of its results."""
    from pa.data.store import extract_command as retyping
    from pa.data.store import find as stores
    from pa.data.store.spec import Spec
    from pa.evaluate.rows import keeps_blocks

    scored = one.store
    own = Spec(
        **scored.spec,
        dataset=scored.dataset,
        split=scored.split,
        limit=scored.limit,
        representations={},
    )
    score, source = ["pa", "evaluate", "retrieval", "--layers", "all"], None
    for store in stores.find(config.features, stores.StoreSelector(own.dataset, own.split)):
        if keeps_blocks(store) and store.is_complete and _is_same_but_for_blocks(store.spec, own):
            return f"  {shlex.join([*score, '--store', store.spec.short[:8]])}"
        if store.fingerprint == scored.fingerprint:
            own, source = store.spec, store.source
    depth = own.encoder.get("architecture", {}).get("depth")
    blocks = ",".join(map(str, range(depth))) if depth else "BLOCKS"
    vectors = [name for name, shape in own.representations.items() if len(shape) == 1]
    kinds = [f"layers_{name}" for name in ("cls", "pooled") if name in vectors or not vectors]
    features = ",".join([*(vectors or ("cls", "pooled")), *kinds])
    options = {**own.encoder.get("options", {}), "layers": [blocks]}
    wanted = replace(
        own,
        encoder={**own.encoder, "options": options},
        representations={name: [] for name in features.split(",")},
    )
    extract = retyping.command(wanted, source)
    score += ["--encoder", one.encoder, "--dataset", own.dataset, "--split", own.split]
    return f"  {extract} --alongside\n  {shlex.join(score)}"


def _is_same_but_for_blocks(spec: Spec, other: Spec) -> bool:
    """Whether two specs are of the same rows, encoder and precision."""
    names = {name.split(".")[0] for name, _, _ in spec.differences(other) if name != BLOCKS}
    return names <= {"representations"}


def _finish(
    config: Config,
    request: ScoresRequest,
    workspace: ResultCollection,
    chosen: Sequence[OfEncoder],
    kind: str,
    title: str,
    told: str,
    draw: Draw,
) -> WrittenFigure:
    from pa.figures.results import recipe_of, remarks, shown_result

    first = chosen[0].results[0]
    recipe, dataset = recipe_of(first), str(chosen[0].store.dataset)
    words = ["--encoder", ",".join(one.encoder for one in chosen), "--dataset", dataset]
    words += ["--protocol", recipe]
    words += ["-k", str(first.result.protocol.parameters["k"])] if kind == "shares" else []
    record = FigureRecord(
        kind=kind,
        name=f"{dataset}-{recipe}",
        title=title,
        caption=" ".join(filter(None, [told, f"Protocol {recipe}.", remarks(chosen)])),
        command=shlex.join(["pa", "figure", kind, *words]),
        stores=[
            asdict(store)
            for one in chosen
            for store in one.results[0].result.stores_by_role.values()
        ],
        protocol=dict(first.result.protocol.parameters),
        results=[shown_result(found, workspace) for one in chosen for found in one.results],
    )
    paths = record.paths(request.output, config.figures)
    draw(paths, request.output.width, record.metadata)
    return record.write(paths)
