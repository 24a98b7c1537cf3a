"""Run the commands of docs/scale.md on a few photographs, and check its arithmetic."""

from __future__ import annotations

import shlex
from pathlib import Path

from click.testing import CliRunner

from pa.cli import cli
from pa.data.store.shards import DISK_DTYPES, disk_shape
from pa.index.training import ADVISED, sample_rows
from tests.docs.pages import ROOT, blocks, commands

PAGE = ROOT / "docs" / "scale.md"
# A small network and few rows, to save time.
REPLACED_WORDS = {
    "mocov3": "timm/test_vit",
    "train": "all",
    "2000": "6",
    "65536": "49",
    "IVF65536,PQ64@nprobe=32": "IVF8,PQ8x4@nprobe=8",
    "64": "5",
}


def test_scale_page_commands_run(workspace: Path) -> None:
    typed = [words for block in blocks(PAGE) if block.language == "sh" for words in commands(block)]
    assert len(typed) == 5
    for words in typed:
        replaced = [REPLACED_WORDS.get(word, word) for word in words]
        if words[:2] == ["index", "build"]:  # needs the store of all rows
            done = CliRunner().invoke(cli, shlex.split("extract --shard-rows 49 --replace"))
            assert done.exit_code == 0, done.output
        if words[0] in ("index", "search"):
            store = next(
                p for p in workspace.rglob("spec.json") if '"limit": null' in p.read_text()
            )
            replaced += ["--store", store.parent.name]
        done = CliRunner().invoke(cli, replaced)
        assert done.exit_code == 0, f"pa {' '.join(words)}\n{done.output}\n{done.exception!r}"
    assert len(list(workspace.rglob("index.ivfdata"))) == 1


def test_scale_page_numbers_follow_from_constants() -> None:
    """Compare the numbers of the page with constants of the program."""
    text = PAGE.read_text()

    def row_bytes(shape: list[int], storage: str) -> int:
        n = int(DISK_DTYPES[storage].itemsize)
        for size in disk_shape(shape, storage):
            n *= size
        return n

    for shape in ([768], [256], [196, 768]):
        for storage in ("fp16", "int8"):
            assert f"{row_bytes(shape, storage):,} B |" in text
    for rows in (1024, 8192, 65536):
        assert f"{-(-(10**9) // rows):,}" in text
    assert round(1e9 / 2226 / 3600) == 125
    assert round(7e9 / 2226 / 3600) == 874
    assert "125 GPU hours, the seven encoders of the paper 874" in text
    for code, shown in ((1544, "754 MB"), (776, "379 MB"), (72, "35 MB")):
        assert f"{1e9 * code * 32 / 65536 / 1e6:.0f} MB" == shown
        assert f"| {shown} |" in text
    assert f"{sample_rows(65_536, 768):,} of width 768" in text
    assert f"{sample_rows(65_536, 768) // ADVISED:,} lists get" in text
