"""Both branches of the cure: operators that load, and operators that do not."""

from __future__ import annotations

import subprocess
import sys

REAL = """
import torch
library = torch.library.Library("torchvision", "DEF")  # stands for operators that have loaded
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from pa.extract import torchvision_ops
torchvision_ops.ensure()
assert not torchvision_ops._declared
"""

BROKEN = """
import sys
try:
    import torchvision
    real = True
except RuntimeError as error:
    assert "torchvision::nms does not exist" in str(error)
    assert "torchvision" not in sys.modules
    real = False
from pa.extract import torchvision_ops
torchvision_ops.ensure()
torchvision_ops.ensure()
assert len(torchvision_ops._declared) == (not real)
import torchvision.transforms
"""

PRECEDENCE = """
import sys
import pa, pa.data
assert "torch" not in sys.modules
import pa.extract.encoders
assert "torch" in sys.modules
assert not {"timm", "torchvision"} & set(sys.modules)
"""


def run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_real_operators_are_left_alone() -> None:
    run(REAL)


def test_missing_operators_are_declared_even_after_a_failed_import() -> None:
    run(BROKEN)


def test_import_loads_nothing_heavy() -> None:
    run(PRECEDENCE)
