"""`pa encoders check`: load a checkpoint strictly and report each key."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.errors import CheckpointError

if TYPE_CHECKING:
    from pa.extract.encoders import LoadReport
    from pa.extract.precision import Agreement
    from pa.workspace import EncoderOptions, Workspace

KEYS_SHOWN = 20  # keys of a list in the terminal; --json lists all


@click.command()
@click.argument("name")
@options.encoder_options
@click.option(
    "--precision",
    "folder",
    type=options.PATH,
    help="Compare bf16 and fp16 with fp32 on the images of this folder.",
)
@click.option(
    "--limit",
    type=click.IntRange(3),
    default=64,
    show_default=True,
    help="Number of images that --precision compares.",
)
@options.as_json
@options.workspace
def check(
    workspace: Workspace,
    name: str,
    encoder_options: EncoderOptions,
    folder: Path | None,
    limit: int,
    as_json: bool,
) -> None:
    """Load a checkpoint strictly and report the use of each key.

    Exit code 4 means that the file does not fit.

    \b
    pa encoders check mocov3 --checkpoint vit-b-300ep.pth.tar
    pa encoders check deit --precision photos/
    """
    report = workspace.load_report(name, encoder_options)
    agreements: list[Agreement] = []
    if report.ok and folder is not None:
        from pa.data import datasets
        from pa.extract.precision import compare

        images = datasets.load("images", "folder", folder)
        paths = [folder / path for path in images.table["path"].head(limit)]
        by_dtype = {dtype: replace(encoder_options, dtype=dtype) for dtype in options.DTYPES}
        encoders = {dtype: workspace.encoder(name, chosen) for dtype, chosen in by_dtype.items()}
        agreements = compare(encoders, paths)
    if as_json:
        options.emit({**report.to_json(), "precision": [vars(entry) for entry in agreements]})
    else:
        console.out(_report_text(report))
        if agreements:
            console.out("\n" + _agreements_text(agreements))
    if not report.ok:
        sys.exit(CheckpointError.exit_code)


def _report_text(report: LoadReport) -> str:
    lines = [f"{report.checkpoint} as {report.name}: {'fits' if report.ok else 'DOES NOT FIT'}"]
    if report.sha256:
        lines.append(f"  sha256 {report.sha256}" + (f", {report.known}" if report.known else ""))
    if report.problem:
        return "\n".join([*lines, f"  {report.problem}"])
    fields = ", ".join(f"{name} {value}" for name, value in report.architecture.items())
    lines.append(f"  architecture: {fields}")
    lines.append(f"  matched {len(report.matched)} keys of {report.container}")
    example = ", such as " + " → ".join(report.renamed[0]) if report.renamed else ""
    lines.append(f"  renamed {len(report.renamed)} of these{example}")
    lines.append(f"  ignored by rule {len(report.ignored)}")
    reasons = Counter(reason for _, reason in report.ignored)
    lines += [f"    {count} × {reason}" for reason, count in reasons.items()]
    for title, keys in report.mismatches():
        lines.append(f"  {title} {len(keys)}")
        lines += [f"    {key}" for key in keys[:KEYS_SHOWN]]
        if len(keys) > KEYS_SHOWN:
            lines.append(f"    … and {len(keys) - KEYS_SHOWN} more; --json lists all")
    if report.accepted:
        lines.append("  accepted with --accept, without evidence for this encoder")
    if report.looks_like and (report.accepted or not report.ok):
        lines.append(f"  {report.looks_like}")
    if report.norms:
        norms = ", ".join(f"{name} {value:.4f}" for name, value in report.norms.items())
        lines.append(f"  mean norms on the fixed synthetic image: {norms}")
    return "\n".join(lines)


def _agreements_text(agreements: Sequence[Agreement]) -> str:
    rows = [
        [a.dtype, a.representation, f"{a.cosine_min:.6f}", f"{a.cosine_mean:.6f}", f"{a.top_k:.3f}"]
        for a in agreements
    ]
    k, n = agreements[0].k, agreements[0].n
    heads = ["precision", "representation", "cosine, min", "cosine, mean", f"same top {k}"]
    return f"against fp32 on {n} images:\n" + console.table(heads, rows, "  rrr")
