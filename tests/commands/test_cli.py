"""The commands as a user types them: output, exit codes, and what errors say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa import cli
from pa.data.store.reader import IMAGES, RUNS, Store
from tests.support.commands import Run
from tests.support.images import noise_image


def test_extract_search_and_probe_run(pa: Run, workspace: Path) -> None:
    extracted = pa("extract", "--encoder", "timm/test_vit", "--split", "all")
    assert extracted.code == 0, extracted.err
    assert "588 rows of 12 images: cls 64, pooled 64" in extracted.out
    assert "limited by" in extracted.out

    outcome = pa("search", "--query-id", 123, "-k", 24)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith("timm/test_vit · pooled · cosine, exact · photos/all/grid/")
    assert lines[1] == "query: row 123, class0/2.png 112,84,168,140 class0"
    assert lines[2].split() == ["rank", "id", "cosine", "image", "box", "label"]
    assert len(lines) == 3 + 24
    assert "built the index" in outcome.err

    probed = pa("probe", "linear", "--test-fraction", 0.25)
    assert probed.code == 0, probed.err
    assert "accuracy" in probed.out
    assert "chance 33.33 %" in probed.out
    assert "held out" in probed.out


def test_search_equals_exact_cosines(pa: Run, extracted: Path) -> None:
    answer = pa("search", "--query-id", 60, "-k", 5, "--json").json["results"][0]
    store = Store.open(next(extracted.rglob("manifest.json")).parent)
    features = store.read("pooled").astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit[60]
    cosines[60] = -2
    order = np.argsort(-cosines, kind="stable")[:5]
    assert [n["row"] for n in answer["neighbours"]] == order.tolist()
    assert np.allclose([n["cosine"] for n in answer["neighbours"]], cosines[order], atol=1e-6)
    assert answer["fingerprint"] == store.fingerprint


def test_own_image_as_query_finds_its_place(pa: Run, extracted: Path, tmp_path: Path) -> None:
    """A window of a dataset image, given as file and box, finds that very window."""
    store = Store.open(next(extracted.rglob("manifest.json")).parent)
    path = Path(store.source["root"]) / store.rows["path"][0]
    # The canvas as a file: its pixels are those the grid was cut from.
    from pa.data.crops import Crops

    Crops(store).canvas(0).save(tmp_path / "canvas.png")
    outcome = pa(
        "search", "--image", tmp_path / "canvas.png", "--box", "28,56,84,112", "-k", 1, "--json"
    )
    neighbour = outcome.json["results"][0]["neighbours"][0]
    assert (neighbour["row"], neighbour["path"]) == (2 * 7 + 1, f"class0/{path.name}")
    assert neighbour["cosine"] > 0.9999


def test_figure_of_two_encoders_and_two_representations(
    pa: Run, workspace: Path, tmp_path: Path
) -> None:
    both = "timm/test_vit,timm/test_efficientnet"
    assert pa("extract", "--encoder", both).code == 0
    figure = tmp_path / "f.png"
    outcome = pa("search", "--query-id", 3, "--encoder", both, "--figure", figure, "--json")
    assert [r["encoder"] for r in outcome.json["results"]] == both.split(",")
    assert outcome.json["figure"] == str(figure)
    pixels = np.asarray(Image.open(figure).convert("RGB"))
    assert (pixels == (255, 0, 0)).all(-1).sum() > 100
    outcome = pa("search", "--query-id", 3, "--representation", "cls,pooled", "--figure", figure)
    assert outcome.code == 0


def test_convolutional_network_has_no_class_token(pa: Run, workspace: Path) -> None:
    outcome = pa("extract", "--encoder", "timm/test_efficientnet")
    assert "pooled 256" in outcome.out
    assert "cls" not in outcome.out
    asked = pa(
        "search", "--query-id", 0, "--encoder", "timm/test_efficientnet", "--representation", "cls"
    )
    assert asked.code == 2
    assert "it holds pooled" in asked.err
    refused = pa("extract", "--encoder", "timm/test_efficientnet", "--features", "cls")
    assert refused.code == 2


def test_two_views_are_shown_and_verified(pa: Run, workspace: Path) -> None:
    assert pa("extract", "--view", "image,grid").code == 0
    state = pa("status", "--json").json["stores"]
    assert [(s["rows"], s["rows_done"], s["complete"]) for s in state] == [
        (588, 588, True),
        (12, 12, True),
    ]
    assert "photos/all/image" in pa("status").out
    good = pa("verify")
    assert good.code == 0
    assert good.out.count(": good (complete") == 2
    shard = next(workspace.rglob("grid/**/shard-00000.h5"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    damaged = pa("verify")
    assert damaged.code == 5
    assert "its bytes have changed since they were written" in damaged.out


def test_ambiguous_store_is_refused(pa: Run, workspace: Path) -> None:
    pa("extract", "--view", "image,grid")
    asked = pa("search", "--query-id", 1)
    assert asked.code == 2
    assert "2 stores fit. Choose one by adding flags" in asked.err
    assert "--view image --encoder timm/test_vit --store " in asked.err
    assert pa("search", "--query-id", 1, "--view", "image", "-k", 3).code == 0


def test_index_build_and_info(pa: Run, extracted: Path) -> None:
    assert pa("index", "info").out.strip() == "no index yet."
    built = pa(
        "index", "build", "--representation", "cls", "--index", "IVF4,Flat@nprobe=2", "--json"
    )
    assert 0 < built.json["indexes"][0]["recall_at_24"]["value"] <= 1
    assert "IVF4,Flat@nprobe=2 (recall@24 " in pa("index", "info").out
    assert pa("index", "build").out.count("(exact)") == 1


def test_probe_by_conditions(pa: Run, extracted: Path) -> None:
    conditions = ("--train-where", "x1 <= 112", "--test-where", "x0 >= 112", "--target", "path")
    result = pa("probe", "linear", *conditions, "--epochs", 5, "--json").json
    assert result["protocol"]["changed"] == {"epochs": 5}
    assert result["scores"]["accuracy"]["n"] == 12 * 21
    assert Path(result["file"]).is_file()


def test_config_show(pa: Run, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PA_STORAGE", "fp32")
    shown = pa("config", "show", "--json").json
    assert shown["storage"] == {"value": "fp32", "source": "environment PA_STORAGE"}
    assert shown["encoder"]["source"] == str(workspace / "pa.toml")
    assert "environment PA_STORAGE" in pa("config", "show").out


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("extract", "--encoder", "mocov"), 2, "unknown encoder 'mocov'. Did you mean mocov3"),
        (("extract", "--encoder", "timm/test_vitt"), 2, "test_vit"),
        (("extract", "--dataset", "fotos"), 2, "unknown dataset 'fotos'"),
        (("extract", "--dataset", "imagenet"), 2, "where is dataset imagenet?"),
        (
            ("extract", "--dataset", "imagenet", "--root", "/no/where"),
            3,
            "/no/where is not a folder",
        ),
        (("extract", "--split", "train"), 2, "unknown split of dataset photos"),
        (("extract", "--view", "gird"), 2, "unknown view 'gird'. Did you mean grid"),
        (("extract", "--checkpoint", "/no.pth"), 3, "/no.pth"),
        (
            ("extract", "--encoder", "dino,mae", "--checkpoint", "x"),
            2,
            "--checkpoint is one file",
        ),
        (("extract", "--dtype", "fp8"), 2, "'fp8' is not one of"),
        (("extract", "--device", "cuda"), 2, "finds no CUDA device"),
        (("extract", "--device", "meta"), 2, "unknown device 'meta'"),
        (("search", "--query-id", "1"), 3, "pa extract --encoder timm/test_vit"),
        (("search",), 2, "what is the query? Give --query-id N, or --image FILE"),
        (("search", "--image", "a.png", "--box", "1,2,3"), 2, "four numbers x0,y0,x1,y1"),
        (("probe", "linear"), 3, "no store"),
        (("probe", "linear", "--train-split", "a"), 2, "name both, or neither"),
        (("probe", "liner"), 2, "No such command 'liner'"),
        (("index", "build"), 3, "no store"),
    ],
)
def test_errors_before_any_work(
    pa: Run, workspace: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    outcome = pa(*words)
    assert message in outcome.err
    assert outcome.code == code
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("search", "--query-id", "588"),
            2,
            "query id 588 is outside this store: it has rows 0 to 587",
        ),
        (("search", "--query-id", "-1"), 2, "query id -1 is outside"),
        (("search", "--query-id", "0", "-k", "588"), 2, "Ask for k ≤ 587"),
        (("search", "--query-id", "0", "-k", "0"), 2, "k is 0; it must be at least 1"),
        (("search", "--query-id", "0", "--figure", "x.bmp"), 2, "expected a file ending in"),
        (("search", "--query-id", "0", "--index", "Flatt"), 2, "Flatt"),
        (("search", "--image", "no.png"), 3, "image no.png does not exist"),
        (("probe", "linear", "--where", "nonsense >"), 2, "nonsense"),
        (("probe", "linear", "--representation", "patch"), 2, "patch"),
        (("probe", "linear", "--protocol", "papre"), 2, "Did you mean paper"),
    ],
)
def test_errors_with_a_store(
    pa: Run, extracted: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    outcome = pa(*words)
    assert message in outcome.err
    assert outcome.code == code


def test_other_weights_are_refused_with_differences(
    pa: Run, extracted: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights["test_vit"])
    tensors["norm.bias"] += 1
    save_file(tensors, tmp_path / "other.safetensors")
    refused = pa("extract", "--checkpoint", tmp_path / "other.safetensors")
    assert refused.code == 4
    assert "encoder.weights_sha256" in refused.err
    second = pa("extract", "--limit", 2, "--checkpoint", tmp_path / "other.safetensors")
    assert second.code == 0


def test_wrong_checkpoint(pa: Run, workspace: Path, weights: dict[str, Path]) -> None:
    wrong = pa("extract", "--checkpoint", weights["test_efficientnet"])
    assert wrong.code == 4
    assert "missing" in wrong.err
    assert not (workspace / "features").exists()


def test_bad_images_exit_6_and_the_rest_is_usable(pa: Run, workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "class0" / "0.png").write_bytes(b"")
    noise_image(1).convert("L").save(root / "class0" / "1.png")
    noise_image(2).convert("CMYK").save(root / "class0" / "2.jpg")
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(
        root / "class0" / "3.png"
    )
    outcome = pa("extract")
    assert outcome.code == 6
    assert "1 images could not be read" in outcome.out
    assert "class0/0.png: the file is empty (0 bytes)" in outcome.out
    asked = pa("search", "--query-id", 5)
    assert asked.code == 2
    assert "could not be decoded (the file is empty (0 bytes))" in asked.err
    output = pa("search", "--query-id", 60, "-k", 100, "--json").json["results"][0]
    assert all(n["path"] != "class0/0.png" for n in output["neighbours"])
    # Asked again, it still says so.
    assert pa("extract").code == 6


def test_unwritable_workspace(pa: Run, workspace: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    refused = pa("--workspace", blocked / "below", "extract", "--dataset", "folder", "--root", ".")
    assert refused.code == 2
    assert "(Not a directory). Choose another workspace with --workspace DIR" in refused.err


def test_unwritable_features_folder_is_reported(pa: Run, workspace: Path) -> None:
    (workspace / "features").write_text("a file")
    refused = pa("extract")
    assert refused.code == 1
    assert "cannot write" in refused.err
    assert "choose another folder with --workspace DIR" in refused.err


def test_unsafe_pickle_is_refused(pa: Run, workspace: Path, tmp_path: Path) -> None:
    import torch

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": {"a": torch.zeros(2)}, "x": Evil()}, tmp_path / "evil.pth")
    refused = pa("extract", "--checkpoint", tmp_path / "evil.pth")
    assert refused.code == 4
    assert "reading them could run code" in refused.err
    assert "weights_only" not in refused.err
    assert not (tmp_path / "ran").exists()


# -- stopped and killed -----------------------------------------------------------------------


def start(workspace: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from pa.cli import main; main()", *words]
    return subprocess.Popen(
        command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_partial(workspace: Path, process: subprocess.Popen[str]) -> None:
    """Until the process is in the middle of a shard."""
    limit = time.monotonic() + 60
    while not list(workspace.rglob("shard-*.partial")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_exits_130_and_resumes(pa: Run, workspace: Path, number: int) -> None:
    process = start(workspace, "extract", "--batch-size", "2")
    wait_for_partial(workspace, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to continue" in err
    assert not list(workspace.rglob("*.partial"))
    assert pa("extract", "--batch-size", "2").code == 0
    assert pa("verify").code == 0


def test_killed_three_times_and_resumed_equals_undisturbed(
    pa: Run, workspace: Path, tmp_path: Path
) -> None:
    words = ("extract", "--batch-size", "8", "--shard-rows", "98")
    for _ in range(3):
        process = start(workspace, *words)
        wait_for_partial(workspace, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert pa(*words).code == 0
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "pa.toml").write_bytes((workspace / "pa.toml").read_bytes())
    assert pa("--workspace", whole, *words).code == 0
    left, right = (
        {
            p.name: p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file() and p.name not in (RUNS, IMAGES)
        }
        for folder in (workspace / "features", whole / "features")
    )
    assert left == right
    assert len(left) == 6 + 3


@pytest.mark.parametrize(
    ("ending", "code"),
    [("2>&-", 0), ("| head -1", 0), ("> /dev/full", 1)],
)
def test_streams_that_are_closed_or_full(workspace: Path, ending: str, code: int) -> None:
    script = f"{sys.executable} -c 'from pa.cli import main; main()' config show {ending}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=workspace, check=False
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_ascii_terminal_is_supported(pa: Run, extracted: Path) -> None:
    command = [sys.executable, "-c", "from pa.cli import main; main()", "search", "--query-id", "3"]
    done = subprocess.run(
        command,
        capture_output=True,
        cwd=extracted,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    assert b"timm/test_vit ? pooled" in done.stdout


def test_help_of_every_command(pa: Run) -> None:
    shown = pa("--help")
    assert shown.code == 0
    for name in cli.cli.commands:
        assert name in shown.out
        assert pa(name, "--help").code == 0
