"""`pa figure depth`: average precision after every block."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.figure.selection import ResultSelector, output, results, show
from pa.errors import MissingError

if TYPE_CHECKING:
    from pa.figures.record import FigureOutput
    from pa.figures.results import EncoderResults
    from pa.workspace import Workspace

BLOCKS = "encoder.options.layers"  # field of a spec with the stored blocks
COMMAND = "pa evaluate retrieval --layers all"


@click.command()
@results
@output
@options.as_json
@options.workspace
def depth(
    workspace: Workspace, selector: ResultSelector, output: FigureOutput, as_json: bool
) -> None:
    """Draw the average precision of part retrieval after every block, a line for each encoder.

    Draws results of `pa evaluate retrieval --layers all`.

    \b
    pa figure depth --dataset cub
    pa figure depth --dataset cub --encoder deit,dino --width 3.25 --out depth.pdf
    """
    from pa.figures.names import listed
    from pa.figures.scores import depth_panels, describe, draw_depth, gallery

    collection, fitting = selector.select(
        workspace,
        "retrieval",
        COMMAND,
        lambda file: file.result.selection.target == "label",
    )
    scores = {entry.encoder: [file.result for file in entry.results] for entry in fitting}
    chosen = [entry for entry in fitting if depth_panels(scores[entry.encoder])]
    without = [entry for entry in fitting if entry not in chosen]
    if without and (selector.encoders or not chosen):
        raise MissingError(
            f"the results of {listed(entry.title for entry in without)} have no scores of single "
            f"blocks. Score the blocks of a store that keeps them:\n"
            f"{_commands(workspace, without[0])}"
        )
    # All results are of the same rows, so that chance and gallery are those of the first.
    result = chosen[0].results[0].result
    mean = result.scores["ap"]
    method = "" if mean.interval is None else f" by {mean.interval.method}"
    encoders = listed(entry.title for entry in chosen)
    record = describe(
        "depth",
        collection,
        chosen,
        title=f"Part retrieval by depth: {encoders}",
        sentence=(
            f"Average precision of part retrieval after each block, without any norm, and after "
            f"the final norm, of {encoders} on {gallery(result)}; bands and bars are 95 % "
            f"intervals{method}, the dotted line is chance ({100 * mean.chance:.1f} %)."
        ),
    )
    target = record.target(output, workspace.config.figures)
    draw_depth([result for entry in chosen for result in scores[entry.encoder]], target)
    show(record.write(target.paths), as_json)


def _commands(workspace: Workspace, entry: EncoderResults) -> str:
    """Return the commands that score the blocks of an encoder on the rows of its results."""
    from pa.data.store import extract_command, find
    from pa.data.store.spec import Spec
    from pa.evaluate.rows import keeps_blocks

    scored = entry.store
    # A store of the same rows may keep the blocks. Otherwise the scored one is extracted again with
    # them, from its images if it still exists.
    source = None
    spec = Spec(
        **scored.spec,
        dataset=scored.dataset,
        split=scored.split,
        limit=scored.limit,
        representations={},  # a result does not record those of its store
    )
    score = shlex.split(COMMAND)
    selector = find.StoreSelector(spec.dataset, spec.split)
    for store in find.find(workspace.config.features, selector):
        differing = {
            name.split(".")[0] for name, *_ in store.spec.differences(spec) if name != BLOCKS
        }
        if keeps_blocks(store) and store.is_complete and differing <= {"representations"}:
            return f"  {shlex.join([*score, '--store', store.spec.short[:8]])}"
        if store.fingerprint == scored.fingerprint:
            spec, source = store.spec, store.source
    n_blocks = spec.encoder.get("architecture", {}).get("depth")
    blocks = ",".join(map(str, range(n_blocks))) if n_blocks else "BLOCKS"  # to be filled in
    vectors = [name for name, shape in spec.representations.items() if len(shape) == 1]
    kinds = [f"layers_{name}" for name in ("cls", "pooled") if name in vectors or not vectors]
    with_blocks = replace(
        spec,
        encoder={
            **spec.encoder,
            "options": {**spec.encoder.get("options", {}), "layers": [blocks]},
        },
        representations={name: [] for name in [*(vectors or ("cls", "pooled")), *kinds]},
    )
    extract = extract_command.command(with_blocks, source)
    score += ["--encoder", entry.encoder, "--dataset", spec.dataset, "--split", spec.split]
    return f"  {extract} --alongside\n  {shlex.join(score)}"
