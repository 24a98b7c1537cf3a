"""Result files: what is not one is refused, and damage of it and its tables is detected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pa.errors import MismatchError, MissingError, VerificationError
from pa.evaluate.result_files import read_result, write_result
from pa.evaluate.results import RESULT_FORMAT
from pa.maintenance.verify import CheckResult, verify_results
from pa.workspace import Workspace
from tests.support.results import linear_result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a result with a table."""
    outcome = linear_result()
    table = outcome.path(tmp_path / "results").with_suffix(".parquet")
    table.parent.mkdir(parents=True)
    pl.DataFrame({"ap": [0.4, 0.5, 0.6]}).write_parquet(table)
    return write_result(tmp_path / "results", outcome)


@pytest.mark.parametrize("full", [True, False])
def test_undamaged_result_has_no_differences(path: Path, full: bool) -> None:
    assert read_result(path).difference(full=full) is None
    assert list(verify_results(Workspace(path.parents[2]), full=full)) == [CheckResult(path)]


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda data: data[:-7], lambda data: data[:40], lambda _: b"PAR1"]
)
@pytest.mark.parametrize("full", [True, False])
def test_verify_reports_empty_or_truncated_table(
    path: Path, damage: Callable[[bytes], bytes], full: bool
) -> None:
    table = path.with_suffix(".parquet")
    table.write_bytes(damage(table.read_bytes()))
    (result,) = verify_results(Workspace(path.parents[2]), full=full)
    assert result.path == path
    assert result.issue is not None
    assert result.issue.what.startswith(f"{table.name}: it")
    assert read_result(path).path == path  # the result itself is whole


def test_result_without_checksum_is_damaged(path: Path) -> None:
    fields = json.loads(path.read_text())
    del fields["checksum"], fields["files"]
    path.write_text(json.dumps(fields))
    with pytest.raises(VerificationError, match="its checksum"):
        read_result(path)


def test_foreign_files_are_not_results(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no result at"):
        read_result(tmp_path / "none.json")
    path = tmp_path / "result.json"
    path.write_text("{")
    with pytest.raises(MismatchError, match="is not readable JSON"):
        read_result(path)
    path.write_text('{"format": 9}')
    with pytest.raises(
        MismatchError, match=f"result format 9, this version reads {RESULT_FORMAT}"
    ) as caught:
        read_result(path)
    assert caught.value.exit_code == 4
    path.write_text("[]")
    with pytest.raises(MismatchError, match="result format None"):
        read_result(path)
