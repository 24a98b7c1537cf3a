"""Reconstruct the `pa extract` command of a store from its spec."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from pa.data.store.spec import Spec
from pa.data.views import VIEWS, view_from_json
from pa.data.views.base import View
from pa.data.views.parts import PartsView, protocol_of
from pa.data.views.windows import WindowsView, windows_for
from pa.errors import PaError

HEAD_WIDTH = 64  # of every official ViT: another number of heads has to be named
DEFAULT_PRECISION = (("dtype", "compute", "fp32"), ("storage", "storage", "fp16"))


def command(
    spec: Spec, source: Mapping[str, str | None] | None = None, *, with_features: bool = False
) -> str:
    """Return the `pa extract` command of a spec, with every option that is not the default.

    `source` holds the paths of dataset and checkpoint, which are not part of a spec. With
    `with_features` the representations are always named: an encoder skips default ones that it
    does not have, and refuses named ones.
    """
    words = ["pa", "extract", "--encoder", str(spec.encoder["name"])]
    words += ["--dataset", spec.dataset, "--split", spec.split, "--view", spec.view["name"]]
    words += _view_options(spec)
    options = dict(spec.encoder.get("options", {}))
    if branch := options.pop("branch", None):
        words += ["--branch", str(branch)]
    if layers := options.pop("layers", None):
        words += ["--layers", ",".join(map(str, layers))]
    if options.pop("accept", False):
        words.append("--accept")
    network = spec.encoder.get("architecture", {})
    if "heads" in network and network["heads"] * HEAD_WIDTH != network["width"]:
        words += ["--num-heads", str(network["heads"])]
    for name, value in options.items():
        words += ["--option", f"{name}={_text(value)}"]
    if spec.limit:
        words += ["--limit", str(spec.limit)]
    for flag, name, default in DEFAULT_PRECISION:
        if spec.precision[name] != default:
            words += [f"--{flag}", spec.precision[name]]
    defaults: set[str] = set()
    if spec.view["name"] in VIEWS:
        defaults = {*VIEWS[spec.view["name"]].default_representations}
    if with_features or not set(spec.representations) <= defaults:
        words += ["--features", ",".join(spec.representations)]
    for name, path in (source or {}).items():
        words += [f"--{name}", path] if path is not None else []
    return shlex.join(words)


def _view_options(spec: Spec) -> list[str]:
    """Return the protocol of a view, and every field in which the view differs from it."""
    try:
        view = view_from_json(spec.view)
    except (PaError, TypeError, LookupError):  # a view of another version
        return []
    words = []
    if isinstance(view, PartsView):
        name, changed = protocol_of(view)
        words += ["--protocol", name]
    else:
        base: View = VIEWS[view.name]  # whose fields are the defaults
        if isinstance(view, WindowsView):
            words += ["--views", str(view.views)] if view.views else []
            base = windows_for(spec.dataset, view.views)
        defaults = base.to_json()
        changed = {name: v for name, v in view.to_json().items() if v != defaults[name]}
    for name, value in changed.items():
        words += ["--view-option", f"{name}={_text(value)}"]
    return words


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
