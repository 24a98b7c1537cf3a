"""What a message recommends is typed as it stands, and helps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from pa.data.store.spec import PROJECTORS, REPRESENTATIONS, WITHOUT_PROJECTOR
from pa.extract.encoders import ENCODERS, Features
from tests.support.commands import Outcome, Run

COMMAND = re.compile(r"(?:^ *|with: )pa (.+)$", re.MULTILINE)
SEARCH = ("search", "--query-id", 0, "-k", 3)


def advice(outcome: Outcome, **fillers: object) -> list[list[str]]:
    """The commands of a message, with the words in capitals filled in."""
    actual = [shlex.split(line) for line in COMMAND.findall(outcome.out + outcome.err)]
    assert actual, outcome.err
    return [[str(fillers.get(word, word)) for word in words] for words in actual]


@pytest.mark.parametrize(
    "asked",
    [
        SEARCH,
        (*SEARCH, "--view", "image"),
        ("index", "build"),
        ("probe", "linear", "--epochs", 1),
        ("probe", "knn", "--view", "image"),
        ("evaluate", "retrieval", "--dataset", "photos", "--view", "image"),
        ("figure", "neighbours", "--query", 0, "-k", 3),
        ("status", "--view", "image"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_missing_store_names_command(asked: tuple[object, ...], pa: Run, workspace: Path) -> None:
    missing = pa(*asked)
    assert missing.code == 3
    (words,) = advice(missing)
    assert pa(*words).code == 0
    assert pa(*asked).code == 0


@pytest.mark.parametrize("asked", [SEARCH, ("status",)], ids=["search", "status"])
def test_missing_settings_are_reported(
    asked: tuple[object, ...],
    pa: Run,
    weights: dict[str, Path],
    image_tree: Callable[..., Path],
    in_empty_folder: Path,
) -> None:
    missing = pa(*asked)
    assert "no pa.toml found" in missing.out + missing.err
    (words,) = advice(
        missing,
        ENCODER="timm/test_vit",
        DATASET="folder",
        DIR=image_tree(),
        SPLIT="all",
        FILE=weights["test_vit"],
    )
    assert pa(*words).code == 0
    assert pa(*asked).code == 0


@pytest.mark.parametrize(
    "asked",
    ["status", "verify", "index info", "report", "explore", "search --query-id 3", "probe knn"],
)
def test_missing_workspace_is_reported(asked: str, pa: Run, tmp_path: Path) -> None:
    missing = pa("-w", tmp_path / "nope", *asked.split())
    assert missing.code == 3
    assert str(tmp_path / "nope") in missing.err
    assert not (tmp_path / "nope").exists()


def test_new_workspace_is_announced(
    pa: Run, weights: dict[str, Path], image_tree: Callable[..., Path], tmp_path: Path
) -> None:
    words = ("extract", "--dataset", "folder", "--root", image_tree(), "--limit", 1)
    words += ("--encoder", "timm/test_vit", "--checkpoint", weights["test_vit"], "--view", "image")
    refused = pa(*words, "-w", tmp_path / "nope" / "deeper")
    assert refused.code == 3
    assert not (tmp_path / "nope").exists()
    outcome = pa(*words, "-w", tmp_path / "new")
    assert outcome.code == 0, outcome.err
    assert f"creating workspace {tmp_path / 'new'}" in outcome.err


def test_split_must_be_named_if_several_exist(pa: Run, workspace: Path, tmp_path: Path) -> None:
    """The command names the split of the dataset's settings, or a small existing one."""
    root = tmp_path / "imagenet"
    for split, folder in (("train", "class0"), ("val", "class1")):
        (root / split).mkdir(parents=True)
        (tmp_path / "photos" / folder).rename(root / split / "n01440764")
    settings = workspace / "pa.toml"
    table = f'[datasets.imagenet]\nroot = "{root}"\n'
    settings.write_text(settings.read_text() + table)
    asked = (*SEARCH, "--dataset", "imagenet", "--view", "image")
    (words,) = advice(pa(*asked))
    assert words[words.index("--split") + 1] == "val"
    settings.write_text(settings.read_text().replace(table, f'{table}split = "train"\n'))
    (words,) = advice(pa(*asked))
    assert words[words.index("--split") + 1] == "train"
    assert pa(*words).code == 0
    assert pa(*asked).code == 0


def test_probe_without_tokens_names_extract_command(pa: Run, extracted: Path) -> None:
    asked = ("probe", "attentive", "--epochs", 1, "--attention-heads", 1)
    (words,) = advice(pa(*asked))
    assert pa(*words).code == 0
    assert pa(*asked).code == 0


def test_representation_not_stored_names_extract_command(pa: Run, extracted: Path) -> None:
    asked = (*SEARCH, "--representation", "layers_pooled")
    (words,) = advice(pa(*asked))
    assert pa(*words, "--layers", 0).code == 0


def test_representation_not_supported_by_encoder_is_refused(pa: Run, extracted: Path) -> None:
    """No command is recommended that cannot store it."""
    refused = pa(*SEARCH, "--representation", "projected")
    assert refused.code == 2
    assert "timm/test_vit has no projector" in refused.err
    assert "mocov3" in refused.err
    assert "pa extract" not in refused.err
    assert "Did you mean" not in refused.err
    drawn = pa("figure", "projected")
    assert drawn.code == 3
    (words,) = advice(drawn)
    assert words[words.index("--encoder") + 1] == "ENCODER"


def test_projected_representations_match_encoders() -> None:
    for name, family in ((name, ENCODERS[name]) for name in ENCODERS):
        assert (name in PROJECTORS) == (family.project is not None)
        assert (name in WITHOUT_PROJECTOR) == (family.project is None)
        assert ("`bottleneck`" in family.card.projector) == (
            "bottleneck" in PROJECTORS.get(name, ())
        )


def test_misspelled_representation_suggests_nearest(pa: Run, extracted: Path) -> None:
    refused = pa(*SEARCH, "--representation", "clss")
    assert refused.code == 2
    assert "Did you mean cls" in refused.err
    assert refused.err.count("clss") == 1


@pytest.mark.parametrize(
    ("option", "misspelt", "suggestion"),
    [
        ("split", "al", "all"),
        ("split", "trian", "train"),
        ("dataset", "photso", "photos"),
    ],
)
def test_misspelled_name_suggests_nearest(
    option: str, misspelt: str, suggestion: str, pa: Run, extracted: Path
) -> None:
    refused = pa(*SEARCH, f"--{option}", misspelt)
    assert refused.code == 3
    assert f"Did you mean --{option} " in refused.err
    assert suggestion in refused.err
    assert "pa extract" not in refused.err


def test_representation_names_are_valid() -> None:
    assert [field.name for field in fields(Features)] == [*REPRESENTATIONS]


def test_unfinished_store_is_reported(pa: Run, extracted: Path) -> None:
    (store,) = (path.parent for path in extracted.rglob("manifest.json"))
    (store / "manifest.json").unlink()
    (store / "shard-00000.h5").unlink()
    for asked, code in ((SEARCH, 3), (("verify",), 6)):
        outcome = pa(*asked)
        assert outcome.code == code
        words = advice(outcome)[-1]
    assert pa(*words).code == 0
    assert pa(*SEARCH).code == 0


def test_tokens_of_windows_are_not_searched(pa: Run, workspace: Path) -> None:
    asked = (*SEARCH, "--encoder", "timm/test_efficientnet", "--view")
    outcome = pa("extract", *asked[5:], "windows", "--features", "patch", "--limit", 1)
    assert outcome.code == 0, outcome.err
    (words,) = advice(pa(*asked, "windows"))
    assert pa(*words).code == 0
    assert pa(*asked, "grid").code == 0


def test_damage_is_repaired(pa: Run, extracted: Path) -> None:
    assert pa(*SEARCH).code == 0
    index = next(extracted.rglob("index.faiss"))
    index.write_bytes(b"damaged")
    next(extracted.rglob("shard-00000.h5")).write_bytes(b"damaged")
    damaged = pa("verify")
    assert damaged.code == 5
    (repair,) = (words for words in advice(damaged) if words[0] == "verify")
    repaired = pa(*repair)
    for words in advice(repaired):
        assert pa(*words).code == 0
    assert pa("verify").code == 0
    assert pa(*SEARCH).code == 0
