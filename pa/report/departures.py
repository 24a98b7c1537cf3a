"""Where a result is not what the paper's number is of: the model, the data, the recipe.

A number of a small model on a sample of the images stands beside a published one only with these
remarks. What a run must be to need none is data: `published/runs.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from pa.report.cells import encoders
from pa.report.found import RETRIEVAL, Found, Workspace

Kind = Literal["model", "split", "data", "recipe", "note"]

# timm's names of plain ViTs, by width and depth.
SIZES = {(192, 12): "ViT-Ti", (384, 12): "ViT-S", (768, 12): "ViT-B", (1024, 24): "ViT-L"}

NEARLY_ALL = 0.999  # of a split's images: some may be torn
CERTAIN = "certain"  # what a label set says of itself that needs no remark


@dataclass(frozen=True)
class Departure:
    """One difference from the paper's setting: another `model`, other rows by choice (`split`),
    fewer images (`data`), another `recipe`. A `note` is worth saying and is none."""

    kind: Kind
    text: str


@cache
def runs() -> Mapping[str, Any]:
    """What a run must be: `published/runs.toml`."""
    text = (resources.files("pa.report") / "published" / "runs.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def departures_of(found: Found, workspace: Workspace) -> tuple[Departure, ...]:
    """Every difference of a result from what the paper's number is of."""
    test = found.tested
    spec = workspace.spec(test)
    return (
        *_of_model(test, spec, found.protocol.get("protocol", "")),
        *_of_data(found),
        *_of_recipe(found),
    )


# -- the model ----------------------------------------------------------------------------------


def model_name(spec: Mapping[str, Any] | None) -> str:
    """An architecture in words: "ViT-Ti, 192 wide"; "not known" without the store."""
    architecture = (spec or {}).get("encoder", {}).get("architecture", {})
    width, depth = architecture.get("width"), architecture.get("depth")
    if not isinstance(width, int) or not isinstance(depth, int):
        return "not known"
    patch = architecture.get("patch", "?")
    if name := SIZES.get((width, depth)):
        return f"{name}/{patch}, {width} wide"
    return f"a ViT of {depth} blocks, {width} wide"


def size_name(architecture: Mapping[str, Any]) -> str | None:
    """The size of a ViT, short: "ViT-Ti/16", else blocks and width; None where it is not known."""
    width, depth = architecture.get("width"), architecture.get("depth")
    if not isinstance(width, int) or not isinstance(depth, int):
        return None
    if name := SIZES.get((width, depth)):
        return f"{name}/{architecture.get('patch', '?')}"
    return f"{depth} blocks, {width} wide"


def _of_model(
    store: Mapping[str, Any], spec: dict[str, Any] | None, protocol: str
) -> Iterator[Departure]:
    if spec is None:
        yield Departure(
            "model",
            "model not known: the store is gone, and a result of this age does not say what made "
            "its features",
        )
        return
    expected, encoder = runs()["model"], dict(spec["encoder"])
    architecture = encoder.get("architecture", {})
    fields = ("width", "depth", "heads", "patch")
    if any(architecture.get(name) != expected[name] for name in fields):
        yield Departure("model", f"another model: {model_name(spec)}")
    else:
        yield from _of_weights(store, str(encoder.get("weights_sha256", "")))
    name = str(store.get("encoder"))
    yield from _of_options(name, encoder.get("options", {}), protocol)
    side = spec.get("transform", {}).get("size")
    if spec["view"].get("name") in ("parts", "image") and side != expected["input"]:
        yield Departure("model", f"input of {side} pixels in place of {expected['input']}")


def _of_weights(store: Mapping[str, Any], sha256: str) -> Iterator[Departure]:
    name = str(store.get("encoder"))
    published = runs()["sha256"].get(name)
    title = encoders()[name].title if name in encoders() else name
    if published is None:
        yield Departure("note", f"weights {sha256[:8]}: {title} publishes no hash to compare with")
    elif not sha256.startswith(published):
        yield Departure(
            "model", f"other weights than the published {published}…: {sha256[:8] or 'no hash'}…"
        )


def _of_options(name: str, options: Mapping[str, Any], protocol: str) -> Iterator[Departure]:
    expected = dict(runs()["options"].get(name, {}))
    if protocol == "released":
        expected |= runs()["released_options"].get(name, {})
    for option, value in expected.items():
        if (here := options.get(option, value)) != value:
            by = "the released code's" if protocol == "released" else "the paper's"
            yield Departure("model", f"{option} {here}: {by} is {value}")


# -- the data -----------------------------------------------------------------------------------


def _expected_data(dataset: str, task: str) -> Mapping[str, Any]:
    for entry in runs()["data"]:
        if entry["dataset"] == dataset and (entry.get("task") == RETRIEVAL) == (task == RETRIEVAL):
            return dict(entry)
    return {}


def _of_data(found: Found) -> Iterator[Departure]:
    test, train = found.tested, found.store("train")
    dataset, counts = dataset_of(found), found.fields["counts"]
    expected = _expected_data(dataset, found.task)
    tested = counts.get("images", counts.get("test_images"))
    if train and train.get("fingerprint") == test.get("fingerprint"):
        rule = found.fields["selection"].get("rule", "one store")
        yield Departure("split", f"one split for training and test ({rule})")
    else:
        yield from _of_split("test", expected.get("test"), test)
        yield from _of_split("train", expected.get("train"), train)
    yield from _of_size("", expected.get("test"), tested)
    yield from _of_size("trained on a ", expected.get("train"), counts.get("train_images"))
    limited = [(s["split"], s["limit"]) for s in (test, train) if s.get("limit") is not None]
    for split, limit in dict.fromkeys(limited):
        yield Departure("data", f"--limit {limit}: the first images of split {split} only")
    selection = found.fields["selection"]
    for name in ("where", "train_where", "test_where"):
        if selection.get(name):
            yield Departure("split", f"rows chosen by {name} {selection[name]!r}")
    if bad := sum(count for name, count in counts.items() if name.endswith("_bad") and count):
        yield Departure("note", f"{bad:,} left out: images that could not be read")
    certainty = (selection.get("labels") or {}).get("certainty", CERTAIN)
    if certainty != CERTAIN:
        yield Departure("note", f"classes {certainty}")


def _of_split(role: str, expected: Any, store: Mapping[str, Any]) -> Iterator[Departure]:
    if expected and store and store.get("split") != expected["split"]:
        yield Departure(
            "split", f"{role} split {store.get('split')} in place of {expected['split']}"
        )


def _of_size(prefix: str, expected: Any, images: Any) -> Iterator[Departure]:
    if not expected or not isinstance(images, int):
        return
    complete = expected["images"]
    if images < expected.get("least", NEARLY_ALL * complete):
        yield Departure("data", f"{prefix}subset: {images:,} images of {complete:,}")
    elif "least" not in expected and images < complete:
        yield Departure("note", f"{prefix}{images:,} images of {complete:,}")


def dataset_of(found: Found) -> str:
    """The dataset whose question a result answers: for segmentation that of the label set."""
    labels = found.fields["selection"].get("labels")
    if isinstance(labels, dict) and labels.get("name"):
        return str(labels["name"])
    return str(found.tested.get("dataset"))


# -- the recipe ---------------------------------------------------------------------------------


def _of_recipe(found: Found) -> Iterator[Departure]:
    protocol, selection = found.protocol, found.fields["selection"]
    if changed := protocol.get("changed"):
        fields = ", ".join(f"{name}={_value(value)}" for name, value in changed.items())
        yield Departure("recipe", f"changed recipe: {fields}")
    if protocol.get("sweep") or protocol.get("choosing") or protocol.get("lr_choices"):
        yield Departure("recipe", "hyperparameters chosen in a sweep")
    if (target := selection.get("target", "label")) != "label":
        yield Departure("recipe", f"target {target} in place of the label")
    if "test" in str(protocol.get("reported")):
        yield Departure("note", f"reported: {protocol['reported']}")


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")
