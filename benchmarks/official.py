"""Largest difference between each encoder and the outputs of its authors' own code.

    python benchmarks/official.py [--fixtures ../shared/fixtures/encoders]

The fixtures hold, for each encoder, small random weights in the official format, inputs, and the
class token and patch tokens that the official code computed from them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pa.extract.encoders import ENCODERS, load_encoder

FOLDERS = {"mocov3": "moco_v3"}  # where the folder is not named as the encoder
HEADS = 3  # of the fixtures, which their files do not say


def differences(name: str, folder: Path) -> tuple[float, float]:
    """Largest absolute difference of the class token, and of the patch tokens."""
    encoder = load_encoder(name, folder / "checkpoint.pth", num_heads=HEADS)
    inputs = torch.from_numpy(np.load(folder / "inputs.npy"))
    actual = encoder.encode(inputs, {"cls", "patch"})
    expected = np.load(folder / "expected.npz")
    pairs = ((actual["cls"], expected["cls"]), (actual["patch"], expected["tokens"][:, 1:]))
    cls, patch = (float(np.abs(ours.numpy() - reference).max()) for ours, reference in pairs)
    return cls, patch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(__file__).parents[2] / "shared" / "fixtures" / "encoders"
    parser.add_argument("--fixtures", type=Path, default=default, help="Folder of the fixtures.")
    folder = parser.parse_args().fixtures
    print(f"{'encoder':8} {'class token':>12} {'patch tokens':>13}")
    actual = {name: differences(name, folder / FOLDERS.get(name, name)) for name in ENCODERS}
    for name, (cls, patch) in actual.items():
        print(f"{name:8} {cls:12.1e} {patch:13.1e}")
    print(f"largest difference in tokens: {max(map(max, actual.values())):.1e}")


if __name__ == "__main__":
    main()
