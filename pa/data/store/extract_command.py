"""Reconstruct the `pa extract` command of a store from its spec."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
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
    words = list(_words(spec, with_features))
    for name, path in (source or {}).items():
        words += [f"--{name}", path] if path is not None else []
    return shlex.join(words)


def _words(spec: Spec, with_features: bool) -> Iterator[str]:
    yield from ("pa", "extract", "--encoder", str(spec.encoder["name"]))
    yield from ("--dataset", spec.dataset, "--split", spec.split, "--view", spec.view["name"])
    yield from _view_options(spec)
    options = dict(spec.encoder.get("options", {}))
    if branch := options.pop("branch", None):
        yield from ("--branch", str(branch))
    if layers := options.pop("layers", None):
        yield from ("--layers", ",".join(map(str, layers)))
    if options.pop("accept", False):
        yield "--accept"
    network = spec.encoder.get("architecture", {})
    if "heads" in network and network["heads"] * HEAD_WIDTH != network["width"]:
        yield from ("--num-heads", str(network["heads"]))
    for name, value in options.items():
        yield from ("--option", f"{name}={_text(value)}")
    if spec.limit:
        yield from ("--limit", str(spec.limit))
    for flag, name, default in DEFAULT_PRECISION:
        if spec.precision[name] != default:
            yield from (f"--{flag}", spec.precision[name])
    defaults: set[str] = set()
    if spec.view["name"] in VIEWS:
        defaults = {*VIEWS[spec.view["name"]].default_representations}
    if with_features or not set(spec.representations) <= defaults:
        yield from ("--features", ",".join(spec.representations))


def _view_options(spec: Spec) -> Iterator[str]:
    """Yield the protocol of a view, and every field in which the view differs from it."""
    try:
        view = view_from_json(spec.view)
    except (PaError, TypeError, LookupError):  # a view of another version
        return
    if isinstance(view, PartsView):
        name, changed = protocol_of(view)
        yield from ("--protocol", name)
    else:
        base: View = VIEWS[view.name]  # whose fields are the defaults
        if isinstance(view, WindowsView):
            if view.views:
                yield from ("--views", str(view.views))
            base = replace(windows_for(spec.dataset), views=view.views)
        defaults = asdict(base)  # type: ignore[call-overload]
        fields = asdict(view)  # type: ignore[call-overload]
        changed = {name: value for name, value in fields.items() if value != defaults[name]}
    for name, value in changed.items():
        yield from ("--view-option", f"{name}={_text(value)}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
