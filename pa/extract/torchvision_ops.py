"""Make `import torchvision`, and thus `import timm`, possible with a CPU-only torch.

PyPI's Linux torchvision links CUDA libraries. With a CPU-only torch its operators cannot load, and
the import fails with "operator torchvision::nms does not exist", because torchvision registers
fake implementations of two undeclared operators. Declaring them is enough: `pa` never calls them.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import sys

import torch

# The operators whose fakes torchvision/_meta_registrations.py registers without checking that the
# library is loaded (nms in every version, qnms since 0.28).
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_declared: list[torch.library.Library] = []  # one that is garbage-collected removes its schemas


def ensure() -> None:
    """Declare torchvision's operators if the real ones cannot load.

    Call it before the first `import torchvision` or `import timm`. It may be called repeatedly, and
    after a failed import of torchvision.
    """
    if _declared or "torchvision" in sys.modules:
        return
    # Try the compiled library of torchvision, without importing the package.
    package = importlib.util.find_spec("torchvision")
    for folder in (package.submodule_search_locations or []) if package else []:
        loaders = importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES
        library = importlib.machinery.FileFinder(folder, loaders).find_spec("_C")
        if library is not None and library.origin is not None:
            with contextlib.suppress(OSError, ImportError):
                torch.ops.load_library(library.origin)  # type: ignore[no-untyped-call]
    missing = [s for s in SCHEMAS if not hasattr(torch.ops.torchvision, s.partition("(")[0])]
    if len(missing) < len(SCHEMAS):
        return  # the real operators are loaded; an older torchvision has no qnms
    # Remove the submodules that a failed `import torchvision` leaves.
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]
    declared = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in missing:
        declared.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(declared)
