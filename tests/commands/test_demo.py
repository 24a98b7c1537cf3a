"""`pa demo`: its photographs, queries and commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pa.commands import demo
from pa.errors import MissingError


def query_ids(commands: Sequence[Sequence[str]]) -> list[int]:
    return [int(words[words.index("--query-id") + 1]) for words in commands]


def test_photographs_contain_every_query(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    names = demo.prepare_photographs(tmp_path, None)
    expected = [name for _, files in demo.PHOTOGRAPHS.values() for name in files]
    assert sorted(names) == sorted(expected)
    commands = demo.search_commands(tmp_path, names, known=True)
    queried = [names[row // demo.WINDOWS] for row in query_ids(commands)]
    assert queried == [query.photograph for query in demo.QUERIES]
    assert all("--exclude-same-image" in words for words in commands)
    assert len({words[-1] for words in commands}) == len(commands), "each figure has its own file"


@pytest.mark.parametrize(("n", "queries"), [(1, 1), (2, 2), (6, 6), (40, 6)])
def test_user_photographs_are_searched_by_their_middle_window(
    tmp_path: Path, n: int, queries: int
) -> None:
    names = ["astronaut.png", *(f"{number:02d}.png" for number in range(1, n))]
    commands = demo.search_commands(tmp_path, names, known=False)
    rows = query_ids(commands)
    assert len(rows) == queries
    assert {row % demo.WINDOWS for row in rows} == {demo.WINDOWS // 2}
    # A single photograph has neighbours only in itself.
    assert all(("--exclude-same-image" in words) is (n > 1) for words in commands)


def test_missing_photograph_names_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        demo, "PHOTOGRAPHS", {"matplotlib": ("mpl-data/sample_data", ("gone.jpg",))}
    )
    with pytest.raises(MissingError, match=r"matplotlib has no gone\.jpg.*demo"):
        demo.prepare_photographs(tmp_path, None)
