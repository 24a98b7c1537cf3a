"""What a workspace holds, and what of it is damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pa.data.store.checksums import with_checksum
from pa.errors import MissingError
from pa.report.collection import collect_results
from pa.report.measured import measured_in
from tests.support.commands import Run
from tests.support.parts import MakeParts, make_parts, workspace
from tests.support.report import Runs

__all__ = ["make_parts", "workspace"]


def test_missing_workspace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"workspace .*nowhere does not exist"):
        collect_results(tmp_path / "nowhere", tmp_path / "results", tmp_path / "features")


def edited(
    path: Path, change: Callable[[dict[str, Any]], None], *, keeps_checksum: bool = False
) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    if not keeps_checksum:
        fields = with_checksum(fields)
    path.write_text(json.dumps(fields))


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        for key in keys[:-1]:
            fields = fields[key]
        fields[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", value=99), "result format 99"),
        (put("scores", "ap", "value", value=float("nan")), "scores.ap is .*finite value"),
        (put("scores", "ap", "value", value="0.5"), "scores.ap is .*finite value"),
        (put("scores", "ap", "value", value=42.0), "scores.ap is .*value is 42.0"),
        (put("scores", "ap", "interval", value=[0.9, 0.1]), "scores.ap is .*interval is"),
        (put("scores", "ap", "interval", value="wide"), "scores.ap is .*interval is"),
        (put("scores", "ap", "n", value=1.5), "scores.ap is .*n is 1.5"),
        (put("scores", value=[]), "scores is .*dictionary"),
        (put("stores", "gallery", value={}), "stores.gallery.*required"),
        (put("protocol", "changed", value="all"), "protocol is .*changed is 'all'"),
        (put("representation", value=7), "representation is 7: .*string"),
    ],
)
def test_damaged_result_is_reported_and_skipped(
    runs: Runs, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    runs.probe("dino", "cub")
    edited(runs.retrieval("deit"), change)
    actual = runs.read()
    assert len(actual.results) == 1
    (damaged,) = actual.damaged
    assert damaged.path == runs.written[1]
    assert re.search(message, damaged.reason), damaged.reason


def test_numbers_that_were_changed_by_hand_are_not_taken(runs: Runs) -> None:
    edited(runs.retrieval("deit"), put("scores", "ap", "value", value=0.99), keeps_checksum=True)
    edited(runs.probe("deit"), put("files", value={"a": 7}), keeps_checksum=True)
    actual = runs.read()
    assert actual.results == ()
    for damaged in actual.damaged:
        assert "its checksum does not match" in damaged.reason


def test_result_without_table_is_shown(runs: Runs, make_parts: MakeParts, pa: Run) -> None:
    make_parts("dino")
    assert pa("evaluate", "retrieval", "--representation", "cls").code == 0
    (table,) = Path("results/retrieval").glob("*.parquet")
    table.unlink()
    actual = collect_results(Path.cwd(), Path.cwd() / "results", Path.cwd() / "features")
    assert actual.damaged == ()
    assert [item.queries for item in measured_in(actual)] == ["missing"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b"null", b"[" * 100_000])
def test_invalid_json_is_damaged(runs: Runs, content: bytes) -> None:
    path = runs.retrieval("deit")
    path.write_bytes(content)
    actual = runs.read()
    assert (len(actual.results), [item.path for item in actual.damaged]) == (0, [path])
    assert str(path) not in actual.damaged[0].reason  # it is printed next to the reason


def test_results_of_other_tasks_are_checked_too(runs: Runs) -> None:
    path = runs.retrieval("deit")
    edited(path, put("task", value="probe-knn"))
    edited(path, put("scores", value="whatever"))
    actual = runs.read()
    assert (actual.results, [item.path for item in actual.damaged]) == ((), [path])


def test_result_of_changed_features_is_skipped(make_parts: MakeParts, pa: Run) -> None:
    store = make_parts("dino")
    assert pa("evaluate", "retrieval", "--representation", "cls").code == 0
    manifest = store.path / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["shards"][0]["xxh3"] = "0" * 32  # as if the store had been encoded elsewhere
    manifest.write_text(json.dumps(with_checksum(fields)))
    actual = collect_results(Path.cwd(), Path.cwd() / "results", Path.cwd() / "features")
    assert actual.results == ()
    assert "other features" in actual.damaged[0].reason
    assert pa("verify", "--quick").code == 5


def test_damaged_store_is_reported(runs: Runs, make_parts: MakeParts, workspace: Path) -> None:
    spec = make_parts("dino").path / "spec.json"
    edited(spec, put("spec", "split", value="other"))
    actual = collect_results(workspace, workspace / "results", workspace / "features")
    assert [item.path for item in actual.damaged] == [spec]
    assert "its fields give another fingerprint" in actual.damaged[0].reason
    assert not actual.damaged[0].reason.startswith(str(spec))
