"""Make `import torchvision`, and with it `import timm`, possible beside a CPU-only torch.

PyPI's Linux torchvision links CUDA libraries. Beside a CPU-only torch its operators cannot load,
and the import dies with "operator torchvision::nms does not exist", because torchvision attaches
fake implementations to two operators that nobody has declared. Declaring them is enough: nothing
here ever calls them.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys

import torch

# The two operators that torchvision/_meta_registrations.py attaches fakes to without asking first
# whether the library has loaded (nms in every version, qnms since 0.28).
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_declared: list[torch.library.Library] = []  # a Library that is collected takes its schemas along


def ensure() -> None:
    """Declare torchvision's operators where the real ones cannot load; else do nothing.

    Call it before the first `import torchvision` or `import timm`. Safe to call any number of
    times, and after an import of torchvision that failed.
    """
    if _declared or "torchvision" in sys.modules:
        return
    _load_real_operators()
    missing = [s for s in SCHEMAS if not hasattr(torch.ops.torchvision, s.partition("(")[0])]
    if len(missing) < len(SCHEMAS):
        return  # real operators; an older torchvision has no qnms, and asks for none
    _forget_half_imported()
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in missing:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)


def _load_real_operators() -> None:
    """Load torchvision's compiled `_C` without importing the package; silent where it cannot."""
    package = importlib.util.find_spec("torchvision")
    for folder in (package.submodule_search_locations or []) if package else []:
        finder = importlib.machinery.FileFinder(
            folder,
            (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        )
        library = finder.find_spec("_C")
        if library is not None and library.origin is not None:
            try:
                torch.ops.load_library(library.origin)  # type: ignore[no-untyped-call]
            except (OSError, ImportError):
                return


def _forget_half_imported() -> None:
    """Drop the submodules which a failed `import torchvision` leaves behind."""
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]
