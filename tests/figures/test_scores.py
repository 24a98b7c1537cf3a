"""`pa figure depth`, `shares` and `sweep`: drawn from results, with their numbers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pa.evaluate.bootstrap import Mean
from pa.evaluate.intervals import Interval
from pa.evaluate.neighbours import RELATIONS
from pa.figures.names import in_order, listed, look_of, title_of
from pa.figures.results import EncoderResults
from pa.figures.scores import depth_panels, share_bars
from pa.report.collection import collect_results
from tests.figures.conftest import size_of
from tests.support.arrays import PutStore, make_store, put_store
from tests.support.commands import Run
from tests.support.parts import MakeParts, birds, features_of, make_parts, workspace

__all__ = ["make_parts", "make_store", "put_store", "workspace"]


def in_layers(make_parts: MakeParts, encoder: str, seed: int = 12) -> None:
    layers = np.stack([features_of(birds(), seed, noise) for noise in (4.0, 0.5)], axis=1)
    features = {"cls": layers[:, 1], "layers_cls": layers, "layers_pooled": layers[:, ::-1]}
    make_parts(encoder, features=features, layers=(3, 11))


def results_of(workspace: Path, task: str, encoder: str) -> EncoderResults:
    everything = collect_results(workspace, workspace / "results", workspace / "features").results
    direct = [
        item
        for item in everything
        if item.result.task == task and item.result.tested.encoder == encoder
    ]
    return EncoderResults(encoder, {item.result.representation: item for item in direct})


def test_mean_is_read_as_written() -> None:
    wide, narrow = Interval(0.4, 0.6, "wide"), Interval(0.45, 0.55, "narrow")
    for mean in (Mean(0.5, 10, 5, wide, narrow, 0.25, 0.2), Mean(0.5, 3, 1, None)):
        again = Mean.read(json.loads(json.dumps(mean.to_json())))
        assert (again.interval, again.fixed_gallery) == (mean.interval, mean.fixed_gallery)
        assert again.to_json() == mean.to_json()


def test_encoders_have_one_name_one_place_one_look() -> None:
    names = ["timm/vit_tiny", "ibot", "dino", "deit", "another"]
    assert in_order(names) == ["deit", "dino", "ibot", "another", "timm/vit_tiny"]
    assert [title_of(name) for name in names] == ["vit_tiny", "iBOT", "DINO", "DeiT", "another"]
    base, tiny = (
        {"width": width, "depth": 12, "heads": width // 64, "patch": 16} for width in (768, 192)
    )
    assert title_of("deit", base) == "DeiT"
    assert title_of("deit", tiny) == "DeiT (ViT-Ti/16)"
    assert title_of("deit", {**base, "patch": 32}) == "DeiT (ViT-B/32)"
    assert title_of("deit", {**base, "width": 96}) == "DeiT (12 blocks, 96 wide)"
    assert title_of("timm/vit_tiny", tiny) == "vit_tiny"
    assert look_of("dino", ["dino"]) == look_of("dino", names)
    assert len({look_of(name, names) for name in names}) == 5
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_depth_draws_the_scores_of_the_results(
    pa: Run, make_parts: MakeParts, workspace: Path
) -> None:
    in_layers(make_parts, "dino")
    in_layers(make_parts, "deit", 20)
    assert pa("evaluate", "retrieval", "--encoder", "dino,deit", "--layers", "all").code == 0
    done = pa("figure", "depth", "--json")
    assert done.code == 0, done.err
    assert "of DeiT and DINO on" in done.json["caption"]
    assert "Not the paper's setting" in done.json["caption"]
    (png,) = (path for path in done.json["files"] if path.endswith(".png"))
    assert size_of(png)[0] == 1950
    of = [results_of(workspace, "retrieval", name) for name in ("deit", "dino")]
    panels = depth_panels([file.result for entry in of for file in entry.results])
    assert list(panels) == ["cls", "pooled"]
    assert [curve.label for curve in panels["cls"]] == ["DeiT", "DINO"]
    for curve, item in zip(panels["cls"], of, strict=True):
        for block in (3, 11):
            score = item.by_representation[f"layers_cls:{block}"].result.scores["ap"]
            assert curve.means[block].value == score.value
            assert curve.means[block].interval == score.interval
        assert curve.final is not None
    assert panels["pooled"][0].final is None


def test_depth_leaves_out_encoders_without_blocks_unless_they_are_named(
    pa: Run, make_parts: MakeParts
) -> None:
    in_layers(make_parts, "dino")
    make_parts("deit")
    pa("evaluate", "retrieval", "--encoder", "dino", "--layers", "all")
    pa("evaluate", "retrieval", "--encoder", "deit")
    assert "of DINO on" in pa("figure", "depth").out
    refused = pa("figure", "depth", "--encoder", "dino,deit")
    assert refused.code == 3
    assert "the results of DeiT have no scores of single blocks" in refused.err
    assert "pa extract --encoder deit --dataset cub --split all" in refused.err


def test_recommended_commands_score_blocks(pa: Run, make_parts: MakeParts) -> None:
    """On the same images, whichever stores there are."""
    make_parts("deit", limit=10, depth=4)
    assert pa("evaluate", "retrieval").code == 0
    extract, score = commands_of(pa("figure", "depth").err)
    assert extract[extract.index("--limit") + 1] == "10"
    assert extract[extract.index("--layers") + 1] == "0,1,2,3"
    assert extract[extract.index("--root") + 1] == "/birds"
    layers = np.stack([features_of(birds(), 12, noise) for noise in (4, 2, 1, 0.5)], axis=1)
    features = {"cls": layers[:, 3], "layers_cls": layers, "layers_pooled": layers[:, ::-1]}
    make_parts("deit", features=features, limit=10, depth=4, layers=(0, 1, 2, 3))
    (again,) = commands_of(pa("figure", "depth").err)
    for words in (score, again):
        done = pa(*words)
        assert done.code == 0, done.err
    assert pa("figure", "depth").code == 0


def commands_of(message: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in message.splitlines() if line.startswith("  pa ")]


def test_narrow_figure_stacks_panels(pa: Run, make_parts: MakeParts) -> None:
    in_layers(make_parts, "dino")
    pa("evaluate", "retrieval", "--layers", "all")
    pa("figure", "depth", "--out", "wide.png")
    pa("figure", "depth", "--width", "3.25", "--out", "narrow.png")
    wide, narrow = (size_of(f"{name}.png") for name in ("wide", "narrow"))
    assert (wide[0], narrow[0]) == (1950, 975)
    assert narrow[1] > 1.5 * wide[1]


def test_shares_draws_the_scores_of_the_results(
    pa: Run, make_parts: MakeParts, workspace: Path
) -> None:
    make_parts("dino")
    pa("evaluate", "neighbours", "-k", 5)
    pa("evaluate", "neighbours", "-k", 7)
    done = pa("figure", "shares", "-k", 7, "--out", "shares.svg")
    assert done.code == 0, done.err
    fields = json.loads(Path("shares.json").read_text())
    assert {result["protocol"]["k"] for result in fields["results"]} == {7}
    first = results_of(workspace, "neighbours", "dino")
    bars = share_bars([file.result for file in first.results])
    assert list(bars) == ["DINO, class token", "DINO, mean patch token", "DINO, projected"]
    for means in bars.values():  # what a neighbour can be, exactly one of which holds
        assert sum(means[name].value for name in RELATIONS) == pytest.approx(1)
    missing = pa("figure", "shares", "-k", 9)
    assert missing.code == 3
    assert "pa evaluate neighbours -k 9" in missing.err


def test_sweep_is_drawn_from_its_table(pa: Run, put_store: PutStore) -> None:
    put_store("train", "paper")
    put_store("test", "paper", 1)
    words = ("--train-split", "train", "--test-split", "test", "--epochs", 3, "--no-references")
    grid = ("--sweep", "--lr", "0.01,0.4", "--weight-decay", "0,1e-4")
    pa("probe", "linear", *words)
    assert pa("figure", "sweep").code == 3  # a probe without a sweep does not count
    pa("probe", "linear", *words, *grid, "--representation", "cls,pooled")
    done = pa("figure", "sweep", "--json")
    assert done.code == 0, done.err
    assert "No test row took part" in done.json["caption"]
    (table,) = Path("results/probe-linear").glob("*.sweep.parquet")
    assert len(pl.read_parquet(table)) == 8
    # The names of the panels are text in an SVG.
    assert pa("figure", "sweep", "--out", "sweep.svg").code == 0
    for title in ("ramp, class token", "ramp, mean patch token"):
        assert f"<!-- {title}: validation (%) -->" in Path("sweep.svg").read_text()
    table.unlink()
    lost = pa("figure", "sweep")
    assert lost.code == 3
    assert "the table of the sweep, is missing" in lost.err


def test_protocols_and_datasets_are_never_mixed(pa: Run, make_parts: MakeParts) -> None:
    make_parts("dino", "released")
    make_parts("dino", "paper")
    for protocol in ("paper", "released"):
        pa("evaluate", "neighbours", "-k", 5, "--protocol", protocol)
    for wanted, words in (("paper", ()), ("released", ("--protocol", "released"))):
        output = pa("figure", "shares", "-k", 5, *words, "--json").json
        assert f"Protocol {wanted}." in output["caption"]
        assert len({item["fingerprint"] for item in output["stores"]}) == 1
    make_parts("dino", dataset="mine")
    pa("evaluate", "neighbours", "-k", 5, "--dataset", "mine")
    refused = pa("figure", "shares", "-k", 5)
    assert refused.code == 2
    assert "results of 2 datasets: cub, mine" in refused.err


def test_encoders_scored_on_other_rows_do_not_share_a_figure(
    pa: Run, make_parts: MakeParts
) -> None:
    make_parts("dino")
    make_parts("deit", rows=birds().head(80))
    for encoder in ("dino", "deit"):
        pa("evaluate", "neighbours", "-k", 5, "--encoder", encoder)
    refused = pa("figure", "shares", "-k", 5)
    assert refused.code == 4
    assert "were scored on different rows" in refused.err


def test_missing_results_name_the_command(pa: Run, workspace: Path) -> None:
    refused = pa("figure", "depth", "--dataset", "cub", "--encoder", "dino")
    assert refused.code == 3
    assert "pa evaluate retrieval --layers all --encoder dino --dataset cub" in refused.err
