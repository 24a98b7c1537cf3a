"""The command that makes a store names all that makes it what it is."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest

from pa.data.store.extract_command import command
from pa.data.store.spec import Spec
from pa.data.views import VIEWS, GridView, configure
from pa.data.views.base import View
from pa.data.views.parts import PROTOCOLS
from pa.data.views.windows import windows_for

USUAL = Spec(
    dataset="lip",
    split="val",
    view=GridView().to_json(),
    encoder={"name": "dino", "weights_sha256": "0", "architecture": {}, "options": {}},
    transform={},
    precision={"compute": "fp32", "storage": "fp16"},
    representations={"cls": [4], "pooled": [4]},
    rows={"n": 1, "n_images": 1, "sha256": ""},
)


def options(spec: Spec) -> dict[str, list[str]]:
    """The flags of the command and their values."""
    words = shlex.split(command(spec))
    assert words[:2] == ["pa", "extract"]
    collected: dict[str, list[str]] = {}
    for flag, value in zip(words[2::2], words[3::2], strict=True):
        collected.setdefault(flag, []).append(value)
    return collected


def rebuilt(spec: Spec) -> View:
    """The view that the flags of the command ask for."""
    values = options(spec)
    name = values["--view"][0]
    base = PROTOCOLS[values["--protocol"][0]] if name == "parts" else VIEWS[name]
    if name == "windows":
        base = windows_for(spec.dataset, int(values.get("--views", ["0"])[0]))  # type: ignore[assignment]
    changes: list[tuple[str, Any]] = []
    for option in values.get("--view-option", []):
        key, _, text = option.partition("=")
        try:
            changes.append((key, json.loads(text)))
        except ValueError:
            changes.append((key, text))
    return configure(base, changes)


@pytest.mark.parametrize(
    "view",
    [
        VIEWS["image"],
        VIEWS["grid"],
        GridView(stride=56, interpolation="bilinear"),
        PROTOCOLS["paper"],
        PROTOCOLS["released"],
        PROTOCOLS["released-train"],
        PROTOCOLS["boxes"],
        replace(PROTOCOLS["released"], min_d=20.0, parts=("ear, left", "nose")),
        replace(PROTOCOLS["released"], max_d=None),
        windows_for("lip"),
        windows_for("lip", 7),
        replace(windows_for("lip", 7), seed=3, flip=0.0),
        windows_for("pascal-part", 1),
    ],
)
def test_command_options_reproduce_view(view: View) -> None:
    spec = replace(USUAL, view=view.to_json())
    assert rebuilt(spec) == view


def test_command_omits_defaults() -> None:
    assert command(USUAL) == "pa extract --encoder dino --dataset lip --split val --view grid"


def test_command_lists_all_changes() -> None:
    unusual = replace(
        USUAL,
        encoder={
            **USUAL.encoder,
            "options": {
                "branch": "student",
                "layers": [3, 5],
                "token_order": "shuffled",
                "seed": 2,
            },
        },
        precision={"compute": "bf16", "storage": "int8"},
        limit=40,
        representations={"cls": [4], "layers": [2, 9, 4]},
    )
    assert options(unusual) == {
        "--encoder": ["dino"],
        "--dataset": ["lip"],
        "--split": ["val"],
        "--view": ["grid"],
        "--branch": ["student"],
        "--layers": ["3,5"],
        "--option": ["token_order=shuffled", "seed=2"],
        "--limit": ["40"],
        "--dtype": ["bf16"],
        "--storage": ["int8"],
        "--features": ["cls,layers"],
    }


def test_view_of_other_version_is_accepted() -> None:
    spec = replace(USUAL, view={"name": "grid", "unheard": 1})
    assert command(spec).endswith("--view grid")
