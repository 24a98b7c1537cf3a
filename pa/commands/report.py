"""`pa report`: parse, call one function of `pa.tasks.report`, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pa.commands import console
from pa.commands.old_options import PATH, emit, listed, with_config, with_json
from pa.errors import EXIT_PARTLY_DONE


@click.command()
@click.option("--out", type=PATH, help="Folder to write to; default reports/ of the workspace.")
@click.option(
    "--format", "formats", callback=listed, help="html, md, latex, csv, parquet; default all."
)
@click.option(
    "--missing",
    is_flag=True,
    help="Write nothing; print the commands of missing cells as a script.",
)
@with_json
@with_config
def report(
    config: Any, as_json: bool, missing: bool, out: Path | None, formats: tuple[str, ...]
) -> None:
    """Put what the workspace holds beside the paper's tables, and judge the paper's claims.

    One HTML page that needs nothing beside it, Markdown, LaTeX tables, CSV and Parquet of every
    number. Protocols never share a column, and a number that is not of the paper's model, images
    or recipe says so. Exit code 6 says that some result files could not be read: they are listed.

    \b
    pa report
    pa report --format html,csv --out ~/report
    pa report --missing > fill.sh
    """
    from pa.commands import text_report as describe_report
    from pa.tasks.report import ReportRequest, missing_cells, write_report

    if missing:
        if out is not None or formats:
            raise click.UsageError("--missing writes nothing: leave out --out and --format.")
        left = missing_cells(config, console.progress())
        if as_json:
            emit(left.to_json())
        else:
            console.out(left.script())
        return
    made = write_report(config, ReportRequest(out, formats), console.progress())
    if as_json:
        emit(made.to_json())
    else:
        console.out(describe_report.written(made))
    if made.report.damaged:
        sys.exit(EXIT_PARTLY_DONE)
