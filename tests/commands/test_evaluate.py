"""`pa evaluate` as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import Run
from tests.support.parts import MakeParts, birds, features_of, make_parts, workspace

__all__ = ["make_parts", "workspace"]


def width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


def test_table_shows_scores(pa: Run, make_parts: MakeParts) -> None:
    make_parts("dino")
    make_parts("mocov3")
    done = pa("evaluate", "retrieval", "--encoder", "mocov3,dino", "--dataset", "cub")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("part retrieval · cub/all/parts · protocol paper")
    assert lines[1].startswith(f"{len(birds())} queries of 40 images, 4 classes")
    assert [line.split()[:2] for line in lines[4:11]] == [
        ["mocov3", "cls"],
        ["mocov3", "pooled"],
        ["mocov3", "projected"],
        ["dino", "cls"],
        ["dino", "pooled"],
        ["dino", "projected"],
        ["chance", lines[10].split()[1]],
    ]
    assert "selected on this score" in done.out
    assert "mocov3: projected − cls" in done.out
    assert "cls: dino − mocov3" in done.out


def test_json_is_one_object(pa: Run, make_parts: MakeParts) -> None:
    make_parts("dino")
    done = pa("evaluate", "retrieval", "--json").json
    assert [result["representation"] for result in done["results"]] == [
        "cls",
        "pooled",
        "projected",
    ]
    assert done["results"][0]["scores"]["ap"]["n"] == len(birds())
    assert done["better_encoded"][0]["chosen_on"] == "the score that is reported"
    assert Path(done["results"][0]["file"]).exists()
    assert len(done["differences"]) == 3


def test_parts_are_scored_by_the_protocol_that_cut_them(pa: Run, make_parts: MakeParts) -> None:
    make_parts("dino", "paper")
    make_parts("dino", "released")
    refused = pa("evaluate", "retrieval")
    assert refused.code == 2
    assert "--protocol paper" in refused.err
    assert "--protocol released" in refused.err
    for protocol, include in (("paper", False), ("released", True)):
        done = pa("evaluate", "retrieval", "--protocol", protocol, "--json").json["results"][0]
        assert done["protocol"]["protocol"] == protocol
        assert done["protocol"]["include_self"] is include
    changed = pa("evaluate", "retrieval", "--protocol", "released", "--exclude-self", "--json")
    assert changed.json["results"][0]["protocol"]["changed"] == {"include_self": False}


def test_unknown_protocol_is_named(pa: Run, make_parts: MakeParts) -> None:
    make_parts()
    refused = pa("evaluate", "retrieval", "--protocol", "relased")
    assert refused.code == 2
    assert "Did you mean released" in refused.err


def test_retrieval_split_is_preferred(pa: Run, make_parts: MakeParts) -> None:
    make_parts(split="all")
    make_parts(split="test")
    done = pa("evaluate", "retrieval", "--dataset", "cub", "--representation", "cls", "--json")
    assert done.json["results"][0]["stores"]["gallery"]["split"] == "all"
    other = pa("evaluate", "retrieval", "--split", "test", "--representation", "cls", "--json")
    assert other.json["results"][0]["stores"]["gallery"]["split"] == "test"


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_figures_of_scores(pa: Run, make_parts: MakeParts, suffix: str, workspace: Path) -> None:
    make_parts()
    done = pa("evaluate", "retrieval", "--figure", f"r.{suffix}")
    assert f"figure: r.{suffix}" in done.out
    first = (workspace / f"r.{suffix}").read_bytes()
    pa("evaluate", "retrieval", "--figure", f"r.{suffix}")
    assert (workspace / f"r.{suffix}").read_bytes() == first


def test_unsupported_figure_suffix_is_refused_early(
    pa: Run, make_parts: MakeParts, workspace: Path
) -> None:
    make_parts()
    for words in (("retrieval", "--figure"), ("neighbours", "--hubs")):
        refused = pa("evaluate", *words, "r.doc")
        assert refused.code == 2
        assert ".png, .pdf, .svg" in refused.err
    assert not (workspace / "results").exists()


def test_depth_curve_is_drawn(pa: Run, make_parts: MakeParts, workspace: Path) -> None:
    rows = birds()
    layers = np.stack([features_of(rows, 12, noise) for noise in (4.0, 0.5)], axis=1)
    make_parts(features={"cls": layers[:, 1], "layers_cls": layers}, layers=(3, 11))
    done = pa("evaluate", "retrieval", "--layers", "all", "--figure", "depth.png")
    assert done.code == 0, done.err
    assert "layers_cls:3" in done.out
    assert width(workspace / "depth.png") == 1950
    for wrong, text in (("3,5", "no block 5"), ("deep", "takes all, or block numbers")):
        refused = pa("evaluate", "retrieval", "--layers", wrong)
        assert refused.code == 2
        assert text in refused.err


def test_neighbours(pa: Run, make_parts: MakeParts, workspace: Path) -> None:
    make_parts("dino")
    done = pa("evaluate", "neighbours", "-k", 5, "--figure", "shares.png")
    assert done.code == 0, done.err
    assert "same part of another object" in done.out
    assert "dino: projected − cls" in done.out
    assert "hubness: skewness" in done.out
    assert width(workspace / "shares.png") == 1950
    output = pa("evaluate", "neighbours", "-k", 5, "--json").json
    assert output["results"][0]["protocol"]["k"] == 5
    assert len(output["differences"]) == 2


def test_hubs_are_cut_out_of_their_images(pa: Run, make_parts: MakeParts, workspace: Path) -> None:
    make_parts("dino")
    for path in birds()["path"].unique():
        Image.new("RGB", (32, 32), "orange").save(workspace / path)
    words = ("evaluate", "neighbours", "-k", 5, "--representation", "cls", "--hubs", "hubs.png")
    assert pa(*words, "--root", workspace).code == 0
    with Image.open(workspace / "hubs.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert (255, 165, 0) in colours
    missing = pa(*words)
    assert missing.code == 3
    assert "/birds" in missing.err


def test_small_store_has_fewer_neighbours(pa: Run, make_parts: MakeParts) -> None:
    rows = birds()[:10]
    make_parts("dino", rows=rows, features={"cls": features_of(rows, 12, 1.0)})
    output = pa("evaluate", "neighbours", "--json").json
    assert output["results"][0]["protocol"]["k"] == 9
    done = pa("figure", "shares", "--json")
    assert done.code == 0, done.err
    again = pa("figure", "shares", "-k", 9)
    assert again.code == 0, again.err


def test_k_beyond_the_rows_is_refused(pa: Run, make_parts: MakeParts) -> None:
    store = make_parts()
    refused = pa("evaluate", "neighbours", "-k", store.n_rows)
    assert refused.code == 2
    assert f"from 1 to {store.n_rows - 1}" in refused.err
