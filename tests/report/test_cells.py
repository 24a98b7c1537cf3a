"""The published numbers: what they mean, and every one against the text of the paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pa.data.datasets import DATASETS
from pa.errors import UnknownNameError
from pa.extract.encoders import ENCODERS
from pa.report.cells import Question, cell, encoders, published, tables

SIZES = {1: 14, 2: 21, 3: 48, 4: 63, 5: 42, 6: 42}
# What the paper's columns are, in its order, read off its headings by eye.
MEASURES = ("miou", "macc", "aacc")
HEADINGS = {
    1: ["imagenet/linear", "imagenet/attentive"],
    2: [f"ade20k/{m}" for m in MEASURES],
    3: [f"{d}/{k}" for d in ("cub", "coco") for k in ("encoded", "projected")]
    + [f"{d}/{k}" for d in ("cub", "coco") for k in ("linear", "attentive")],
    4: [f"{d}/{m}" for d in ("ade20k-part", "pascal-part", "lip") for m in MEASURES],
    5: [f"{d}/{m}" for d in ("ade20k-object", "ade20k-part") for m in MEASURES],
    6: [f"{d}/{m}" for d in ("pascal-object", "pascal-part") for m in MEASURES],
}


def printed_in(text: str) -> dict[int, list[tuple[str, list[str]]]]:
    """Table → its rows as printed: the method's name, and the entries, dashes kept."""
    collected: dict[int, list[tuple[str, list[str]]]] = {}
    number = 0
    for line in text.splitlines():
        if start := re.match(r"Table (\d): ", line):
            number = int(start[1])
        name, *entries = line.split("\t")
        if number and entries and all(re.fullmatch(r"\d+\.\d|–", item) for item in entries):
            collected.setdefault(number, []).append((name, entries))
    return collected


def test_cells_are_230_with_distinct_keys() -> None:
    assert {table.number: len(table.cells) for table in tables()} == SIZES
    assert len({item.key for item in published()}) == len(published()) == sum(SIZES.values())


def test_columns_have_order_of_paper() -> None:
    assert {table.number: list(table.columns) for table in tables()} == HEADINGS


@pytest.mark.shared
def test_numbers_equal_the_paper(shared_dir: Path) -> None:
    paper = printed_in((shared_dir / "paper.txt").read_text(encoding="utf-8"))
    assert sorted(paper) == sorted(SIZES)
    titles = [item.title for item in encoders().values()]
    for table in tables():
        assert [name for name, _ in paper[table.number]] == titles
        for (_, entries), encoder in zip(paper[table.number], encoders(), strict=True):
            assert len(entries) == len(table.columns)
            for entry, column in zip(entries, table.columns, strict=True):
                current = table.at(encoder, column)
                assert ("–" if current is None else current.printed) == entry, (
                    table,
                    encoder,
                    column,
                )


@pytest.mark.shared
def test_numbers_agree_with_second_transcription(shared_dir: Path) -> None:
    """`protocols.md`, section 8, lists the targets in another form, written down separately."""
    notes = (shared_dir / "protocols.md").read_text(encoding="utf-8")
    listed = re.search(r"mIoU: ADE-Part / Pascal-Part / LIP / ADE-Obj / Pascal-Obj: (.+)", notes)
    assert listed is not None
    rows = [re.findall(r"\d+\.\d", row) for row in listed[1].split(";")]
    columns = ("t4/{}/ade20k-part", "t4/{}/pascal-part", "t4/{}/lip")
    columns += ("t5/{}/ade20k-object", "t6/{}/pascal-object")
    for row, encoder in zip(rows, encoders(), strict=True):
        assert [cell(f"{item.format(encoder)}/miou").printed for item in columns] == row


def test_tables_4_to_6_print_the_part_scores_twice_and_differ_once() -> None:
    first: dict[Question, str] = {}
    differing = []
    for item in published():
        if first.setdefault(item.question, item.printed) != item.printed:
            differing.append(item.key)
    assert differing == ["t6/deit/pascal-part/macc"]  # 36.2, where Table 4 has 36.1


def test_cell_has_a_description() -> None:
    first = cell("t3/dino/cub/projected")
    assert (first.value, first.metric, first.representation) == (31.7, "AP", "projected")
    assert (first.task, first.probe) == ("retrieval", "none")
    assert first.source == "Table 3, DINO, CUB-200-2011 Projected"
    assert first.sentence == "Table 3, CUB-200-2011, DINO, projected, AP"
    assert cell("t4/cae/lip/miou").sentence == "Table 4, LIP, CAE, mIoU"
    assert cell("t1/mocov3/imagenet/linear").sentence == "Table 1, ImageNet, MoCo v3, linear, top-1"
    assert cell("t3/cae/coco/attentive").task == "part-classification"
    assert cell("t5/mae/ade20k-object/aacc").task == "object-segmentation"
    assert cell("t5/mae/ade20k-part/aacc").task == "part-segmentation"


def test_names_are_those_of_the_package() -> None:
    assert {item.encoder for item in published()} == set(ENCODERS)
    assert {item.dataset for item in published()} <= set(DATASETS)


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="t3/dino/cub/encoded"):
        cell("t3/dinno/cub/encoded")
