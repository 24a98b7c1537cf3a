"""Run the commands of the pages in order, on real images with tiny networks.

`pa.toml` points the names of datasets and encoders to the folder of real data. The tables below list
every command that is changed or skipped to save time.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pa.cli import cli
from tests.docs.pages import ROOT, blocks, commands
from tests.support.checkpoints import FIXTURES

pytestmark = pytest.mark.shared

FEW_IMAGES = 12

# Defaults that each page expects in its pa.toml.
SETTINGS = {
    "README.md": 'dataset = "imagenet"\nencoder = "mocov3"',
    "docs/search.md": 'dataset = "imagenet"\nencoder = "mocov3"',
    "docs/retrieval.md": "",
    "docs/attentive.md": 'encoder = "deit"',
    "docs/probes.md": 'encoder = "deit"',
    "docs/figures.md": "",
}
# Commands that run before those of a page.
PREPARED = {
    "README.md": [],
    "docs/search.md": [
        "extract --encoder mocov3 --dataset imagenet --split val",
        "extract --encoder mocov3,dino --dataset imagenet --split train",
        "extract --encoder dino --dataset imagenet --split val",
    ],
    "docs/retrieval.md": [],
    "docs/attentive.md": [
        "extract --encoder deit --dataset cub --split train --view parts --protocol released-train "
        "--features cls,patch",
        "extract --encoder deit --dataset cub --split test --view parts --protocol released "
        "--features cls,patch",
    ],
    "docs/probes.md": [
        "extract --encoder deit --dataset cub --split train --view parts",
        "extract --encoder deit --dataset cub --split test --view parts",
        "extract --encoder deit --dataset cub --split train --view parts --protocol released-train",
        "extract --encoder deit --dataset cub --split test --view parts --protocol released",
    ],
    "docs/figures.md": [
        "extract --encoder deit,mocov3,cae --dataset imagenet --split val",
        "extract --encoder deit --dataset cub --split all --layers 0,1,2 "
        "--features cls,pooled,layers_cls,layers_pooled",
        "extract --encoder deit --dataset cub --split train --view parts",
        "extract --encoder deit --dataset cub --split test --view parts",
        "extract --encoder deit --dataset cub --split test --view parts --protocol released",
        "evaluate retrieval --encoder deit --dataset cub --split all --layers all",
        "evaluate neighbours --encoder deit --dataset cub --split test --protocol released",
        "probe linear --encoder deit --dataset cub --train-split train --test-split test "
        "--lr 0.1,0.4 --weight-decay 0,1e-4 --sweep",
    ],
}
# Commands that are not run here, by their first words, with the reason.
NOT_RUN = {
    "demo": "run by the test of the quick start",
    "extract --encoder timm/": "downloads weights",
    "search --image": "reads a file of the user",
    "probe predict": "reads a file of the user",
    "probe linear --train-split train --test-split val": "ImageNet's training split",
    "index build --index IVF1024": "needs 1024 rows for its lists",
    "figure segmentation": "run by tests/figures/test_segmentation.py, which trains its heads",
}
REPLACED_WORDS = {
    "0,1,2,3,4,5,6,7,8,9,10,11": "0,1,2",  # the tiny networks have three blocks
    "/data/imagenet": "imagenet",
    "val_00013660:19": "n01440764_tench:19",  # an image of the sample
}
# Options that shorten training to seconds.
EXTRA_WORDS = {
    "probe attentive": ["--epochs", "3", "--attention-heads", "3"],
    "probe linear": ["--epochs", "3"],
}


@pytest.fixture
def workspace(tmp_path: Path, shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = shared_dir / "data" / "imagenet_sample_1000" / "val"
    images = sorted(source.rglob("*.JPEG"))
    for split, selected in {"val": images[:FEW_IMAGES], "train": images[-FEW_IMAGES:]}.items():
        for index, image in enumerate(selected):
            # The sample has one image per class; a probe with held-out images needs two.
            label = selected[index - index % 2].parent.name
            target = tmp_path / "imagenet" / split / label / image.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, target)
    lines = ['[datasets.imagenet]\nroot = "imagenet"\nsplit = "val"']
    lines.append(f'[datasets.cub]\nroot = "{shared_dir}/data/CUB_200_2011_320px"')
    for name, folder in FIXTURES.items():
        file = shared_dir / "fixtures" / "encoders" / folder / "checkpoint.pth"
        lines.append(f'[encoders.{name}]\ncheckpoint = "{file}"\nnum_heads = 3')
    deit = shared_dir / "fixtures" / "encoders" / "deit" / "checkpoint.pth"
    (tmp_path / "deit_base_patch16_224-b5f2ef4d.pth").symlink_to(deit)
    (tmp_path / "pa.toml").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PREPARED)
def test_commands_of_page_run(page: str, workspace: Path) -> None:
    settings = workspace / "pa.toml"
    settings.write_text(f"{SETTINGS[page]}\n{settings.read_text()}")
    typed = [
        words
        for block in blocks(ROOT / page)
        if block.language == "sh"
        for words in commands(block)
        if not any(" ".join(words).startswith(start) for start in NOT_RUN)
    ]
    assert typed
    for words in [*(line.split() for line in PREPARED[page]), *typed]:
        extra = EXTRA_WORDS.get(" ".join(words[:2]), [])
        replaced = [REPLACED_WORDS.get(word, word) for word in [*words, *extra]]
        done = CliRunner().invoke(cli, replaced)
        assert done.exit_code == 0, f"pa {' '.join(words)}\n{done.output}\n{done.exception!r}"
