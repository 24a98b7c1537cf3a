"""`pa probe attentive` as typed: stores, protocols, output, errors."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pa import cli
from pa.data.store.reader import Store
from pa.data.views.parts import PROTOCOLS
from pa.probe.attentive.head import AttentiveHead
from pa.probe.attentive.recipes import PAPER
from tests.support.arrays import MakeStore
from tests.support.probes import attentive
from tests.support.tokens import token_maps

Run = Callable[..., tuple[int, str, str]]
TWO = ("--train-split", "train", "--test-split", "test")
QUICK = ("--epochs", 3, "--batch", 16)


@pytest.fixture
def pa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `pa …` in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pa", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def workspace(make_store: MakeStore, in_empty_folder: Path) -> dict[str, Store]:
    """A workspace with the stores of two protocols, of view `parts`."""
    result = {}
    for name, split, protocol, seed in (
        ("paper train", "train", "paper", 0),
        ("paper test", "test", "paper", 1),
        ("released train", "train", "released-train", 2),
        ("released test", "test", "released", 3),
    ):
        tokens, labels = token_maps(60, seed)
        store = make_store(
            {"cls": tokens[:, 0], "patch": tokens[:, 1:]},
            labels,
            (np.arange(60) // 2).tolist(),
            split=split,
            view=PROTOCOLS[protocol].to_json(),
        )
        encoder = store.encoder.replace("/", "--")
        target = in_empty_folder / "features/toy" / split / "parts" / encoder / store.spec.short
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(store.path, target)
        result[name] = Store.open(target)
    return result


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_protocol_means_the_recipe_and_its_stores(
    pa: Run, workspace: dict[str, Store], protocol: str
) -> None:
    code, out, err = pa("probe", "attentive", *TWO, "--protocol", protocol, *QUICK, "--json")
    assert code == 0, err
    fields = json.loads(out)
    for role in ("train", "test"):
        expected = workspace[f"{protocol} {role}"].fingerprint
        assert fields["stores"][role]["fingerprint"] == expected
    assert fields["protocol"]["protocol"] == protocol
    assert fields["protocol"]["bn_eval"] == ("batch" if protocol == "released" else "running")
    assert ("accuracy_last_epoch" in fields["scores"]) == (protocol == "released")
    assert Path(fields["file"]).is_file()


def test_command_prints_scores(pa: Run, workspace: dict[str, Store]) -> None:
    words = ("--seeds", 2, "--lr", "0.1,0.4", "--order-seed", 3)
    code, out, err = pa("probe", "attentive", *TWO, *QUICK, *words)
    assert code == 0, err
    head = f"attentive probe · cls+patch · toy/train/parts/timm/ramp/{workspace['paper train'].spec.short}"
    assert out.startswith(head)
    assert "chosen on held-out part of train: " in out
    assert out.count("chosen") == 1
    assert " ± " in out
    assert "n = 60 rows of 30 images; chance 33.33 %" in out
    assert "  seeds 0 to 1: " in out
    assert "  by class: " in out
    assert "'seed': 3" in out
    assert "patch tokens kept in memory" in out
    assert "optimistic" not in out


def test_released_is_printed_with_its_caveats(pa: Run, workspace: dict[str, Store]) -> None:
    code, out, _ = pa("probe", "attentive", *TWO, *QUICK, "--protocol", "released", "--memory", 0)
    assert code == 0
    assert "chosen on the rows it is scored on and so optimistic; the last epoch gives" in out
    assert "a row's class depends on its neighbours in the file" in out
    assert "patch tokens streamed" in out


def test_run_attentive_equals_the_command(pa: Run, workspace: dict[str, Store]) -> None:
    _, out, _ = pa("probe", "attentive", *TWO, *QUICK, "--seeds", 2, "--json")
    outcome = attentive(
        workspace["paper train"],
        workspace["paper test"],
        results=Path("results"),
        recipe=replace(PAPER, epochs=3, batch=16),
        seeds=2,
    )
    fields = json.loads(out)
    assert fields["scores"] == outcome.result.to_json()["scores"]
    assert Path(fields["file"]).resolve() == outcome.result_path.resolve()
    assert len(AttentiveHead.load_all(outcome.head_path)) == 2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--select-split", "val"), 2, "--select-split names the validation rows"),
        (("--precision", "fp8"), 2, "unknown precision of a recipe 'fp8'"),
        (("--attention-heads", "7"), 2, "7 attention heads do not divide the tokens' width 64"),
        (("--lr", "1e30"), 2, "training diverged: with learning rate 1e+30"),
        (("--lr", "fast"), 2, "numbers with commas"),
        (("--protocol", "papre"), 2, "Did you mean paper"),
        (("--encoder", "mae"), 3, "no store for"),
        (("--device", "tpu"), 2, "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_paragraph_with_its_exit_code(
    pa: Run, workspace: dict[str, Store], words: tuple[Any, ...], code: int, text: str
) -> None:
    outcome, out, err = pa("probe", "attentive", *TWO, *QUICK, *words)
    assert outcome == code, err
    assert text in err
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_confusion_and_curves_are_drawn(
    pa: Run, workspace: dict[str, Store], protocol: str
) -> None:
    words = ("probe", "attentive", *TWO, *QUICK, "--protocol", protocol)
    code, _, err = pa(*words, "--figure", "a.png")
    assert code == 0, err
    with Image.open("a.png") as picture:
        assert picture.width == 1950
    code, _, err = pa(*words, "--figure", "a.doc")
    assert code == 2
    assert ".png, .pdf, .svg" in err
