"""Tables and progress bars in terminals of several widths."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

import pytest

from pa.commands.console import table

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SHOW_TABLE = """
from pa.commands import console
heads = ["store", "encoder", "rows", "state", "size"]
rows = [
    ["cub/all/parts (paper, first 100)", "mocov3", "1234/1234", "complete", "12.3 MB"],
    ["photos/all/image", "deit", "3/10", "1/2 shards, no active writer", "1.3 MB"],
]
console.out(console.table(heads, rows, "  r r"))
"""
SHOW_BARS = """
from pa.commands import console
progress = console.progress()
for title in ("average precision · cub/test/parts · deit", "training", "{deit}[red]"):
    progress.start(title, 1200, "queries")
    for _ in range(4):
        progress.advance(300)
    progress.stop()
"""


def in_terminal(program: str, columns: int, *, keep_blank: bool = False) -> list[str]:
    """The lines that a program writes to a terminal of this width; a redrawn line is several."""
    ours, reference = pty.openpty()
    ioctl(reference, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=reference,
        stdout=reference,
        stderr=reference,
        env={**environment, "TERM": "xterm"},
    ) as process:
        os.close(reference)
        data = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not block:
                break
            data += block
    os.close(ours)
    assert process.returncode == 0, data
    text = ESCAPE.sub("", data.decode())
    lines = text.replace("\r\n", "\n").splitlines()
    return [line for line in lines if keep_blank or line.strip()]


@pytest.mark.parametrize("columns", [100, 80, 50, 30])
def test_table_fits_terminal_completely(columns: int) -> None:
    lines = in_terminal(SHOW_TABLE, columns)
    assert max(map(len, lines)) <= columns
    shown = re.sub(r"\s", "", "".join(lines))
    for cell in ("mocov3", "deit", "1234/1234", "3/10", "complete", "12.3MB", "1.3MB"):
        assert cell in shown
    if columns >= 80:
        assert [line.split()[:2] for line in lines[:1]] == [["store", "encoder"]]


def test_record_in_narrow_terminal_omits_empty_cells() -> None:
    program = (
        "from pa.commands import console\n"
        "console.out(console.table(['encoder', 'score', 'interval'] + ['part'] * 9,\n"
        "    [['chance', '38.04', ''] + ['12.34'] * 9]))\n"
        "console.out('after')\n"
    )
    lines = in_terminal(program, 40, keep_blank=True)
    assert "interval" not in " ".join(lines)
    assert [line.strip() for line in lines[lines.index("after") - 1 :][:2]] == ["", "after"]


@pytest.mark.parametrize("columns", [80, 50])
def test_table_names_are_not_shortened(columns: int) -> None:
    names = ["datasets.pascal-object.protocol", "datasets.cub.root"]
    rows = [[name, "/a/long/path" * 4, "built in"] for name in names]
    program = f"from pa.commands import console; console.out(console.table(list('abc'), {rows}))"
    shown = " ".join(in_terminal(program, columns)).split()
    assert set(names) <= set(shown)


def test_table_in_pipe_is_as_wide_as_its_cells() -> None:
    assert table(["a", "b"], [["x" * 300, "1"]], " r").splitlines()[1] == "x" * 300 + "  1"


@pytest.mark.parametrize("columns", [100, 80, 50, 40])
def test_progress_bar_fits_terminal_and_ends_once(columns: int) -> None:
    lines = in_terminal(SHOW_BARS, columns)
    assert max(map(len, lines)) <= columns
    # Redrawn in place, each one until it is at its end, and never again after the next began.
    order = [line.split()[0][:3] for line in lines]
    assert list(dict.fromkeys(order)) == ["ave", "tra", "{de"]
    assert order == sorted(order, key=["ave", "tra", "{de"].index)
    assert sum("100%" in line for line in lines) >= 3
    if columns >= 80:
        assert any("average precision · cub/test/parts · deit" in line for line in lines)
    if columns >= 100:
        assert all("/s" in line for line in lines if "100%" in line)
