"""How a result differs from the setting of the paper's number: the model, the data, the recipe.

A number of a small model on a sample of the images is compared with a published one only with these
remarks. What a run must match to need none is data: `published/runs.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from pa.evaluate.results import (
    Gallery,
    Result,
    RetrievalResult,
    SegmentationSelection,
    SplitSelection,
    StoreReference,
    TrainTest,
)
from pa.report.cells import encoders

Kind = Literal["model", "split", "data", "recipe", "note"]

# timm's names of plain ViTs, by width and depth.
SIZES = {(192, 12): "ViT-Ti", (384, 12): "ViT-S", (768, 12): "ViT-B", (1024, 24): "ViT-L"}

NEARLY_ALL = 0.999  # of a split's images: a few of a large dataset are unreadable
CERTAIN = "certain"  # the certainty of a label set that needs no remark


@dataclass(frozen=True)
class Deviation:
    """One difference from the paper's setting: another `model`, other rows by choice (`split`),
    fewer images (`data`), another `recipe`. A `note` is a remark and no deviation."""

    kind: Kind
    text: str


@cache
def runs() -> Mapping[str, Any]:
    """Return what a run must match: `published/runs.toml`."""
    text = (resources.files("pa.report") / "published" / "runs.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def deviations_of(result: Result) -> tuple[Deviation, ...]:
    """Return every difference of a result from the setting of the paper's number."""
    return (*_of_model(result), *_of_data(result), *_of_recipe(result))


# -- the model ----------------------------------------------------------------------------------


def model_name(architecture: Mapping[str, Any]) -> str:
    """Name an architecture: "ViT-Ti/16, 192 wide"; "not known" without width and depth."""
    size = size_name(architecture)
    if size is None:
        return "not known"
    width, depth = architecture["width"], architecture["depth"]
    if (width, depth) in SIZES:
        return f"{size}, {width} wide"
    return f"a ViT of {depth} blocks, {width} wide"


def size_name(architecture: Mapping[str, Any]) -> str | None:
    """Return the short size of a ViT: "ViT-Ti/16", else blocks and width; None if not known."""
    width, depth = architecture.get("width"), architecture.get("depth")
    if not isinstance(width, int) or not isinstance(depth, int):
        return None
    if name := SIZES.get((width, depth)):
        return f"{name}/{architecture.get('patch', '?')}"
    return f"{depth} blocks, {width} wide"


def _of_model(result: Result) -> Iterator[Deviation]:
    expected, store = runs()["model"], result.tested
    architecture = store.architecture
    if any(
        architecture.get(name) != expected[name] for name in ("width", "depth", "heads", "patch")
    ):
        yield Deviation("model", f"another model: {model_name(architecture)}")
    else:
        yield from _of_weights(store)
    is_released = result.protocol.name == "released"
    options = dict(runs()["options"].get(store.encoder, {}))
    if is_released:
        options |= runs()["released_options"].get(store.encoder, {})
    for option, value in options.items():
        if (actual := store.encoder_options.get(option, value)) != value:
            source = "the released code's" if is_released else "the paper's"
            yield Deviation("model", f"{option} {actual}: {source} is {value}")
    if store.view in ("parts", "image") and store.input_size != expected["input"]:
        yield Deviation(
            "model", f"input of {store.input_size} pixels instead of {expected['input']}"
        )


def _of_weights(store: StoreReference) -> Iterator[Deviation]:
    name, sha256 = store.encoder, store.weights_sha256
    published = runs()["sha256"].get(name)
    title = encoders()[name].title if name in encoders() else name
    if published is None:
        yield Deviation("note", f"weights {sha256[:8]}: {title} publishes no hash to compare with")
    elif not sha256.startswith(published):
        yield Deviation(
            "model", f"other weights than the published {published}…: {sha256[:8] or 'no hash'}…"
        )


# -- the data -----------------------------------------------------------------------------------


def _expected_data(result: Result) -> Mapping[str, Any]:
    is_retrieval = isinstance(result.stores, Gallery)  # neighbours are of the same rows
    for entry in runs()["data"]:
        is_of_retrieval = entry.get("task") == RetrievalResult.task
        if entry["dataset"] == result.dataset and is_of_retrieval == is_retrieval:
            return dict(entry)
    return {}


def _of_data(result: Result) -> Iterator[Deviation]:
    test, selection, counts = result.tested, result.selection, result.counts
    train = result.stores.train if isinstance(result.stores, TrainTest) else None
    expected = _expected_data(result)
    if train is not None and train.fingerprint == test.fingerprint:
        yield Deviation("split", f"one split for training and test ({selection.rule})")
    else:
        yield from _of_split("test", expected.get("test"), test)
        yield from _of_split("train", expected.get("train"), train)
    yield from _of_size("", expected.get("test"), counts.tested_images)
    if train is not None:
        yield from _of_size("trained on a ", expected.get("train"), counts.train_images)
    limits = [(s.split, s.limit) for s in (test, train) if s is not None and s.limit is not None]
    for split, limit in dict.fromkeys(limits):
        yield Deviation("data", f"--limit {limit}: the first images of split {split} only")
    if isinstance(selection, SplitSelection):
        for name in ("where", "train_where", "test_where"):
            if condition := getattr(selection, name):
                yield Deviation("split", f"rows chosen by {name} {condition!r}")
    if counts.unreadable:
        yield Deviation("note", f"{counts.unreadable:,} left out: images that could not be read")
    if isinstance(selection, SegmentationSelection):
        certainty = selection.labels.certainty or CERTAIN
        if certainty != CERTAIN:
            yield Deviation("note", f"classes {certainty}")


def _of_split(role: str, expected: Any, store: StoreReference | None) -> Iterator[Deviation]:
    if expected and store is not None and store.split != expected["split"]:
        yield Deviation("split", f"{role} split {store.split} instead of {expected['split']}")


def _of_size(prefix: str, expected: Any, images: int) -> Iterator[Deviation]:
    if not expected:
        return
    complete = expected["images"]
    if images < expected.get("least", NEARLY_ALL * complete):
        yield Deviation("data", f"{prefix}subset: {images:,} images of {complete:,}")
    elif "least" not in expected and images < complete:
        yield Deviation("note", f"{prefix}{images:,} images of {complete:,}")


# -- the recipe ---------------------------------------------------------------------------------


def _of_recipe(result: Result) -> Iterator[Deviation]:
    protocol, selection = result.protocol, result.selection
    if changed := protocol.changed:
        fields = ", ".join(f"{name}={_value(value)}" for name, value in changed.items())
        yield Deviation("recipe", f"changed recipe: {fields}")
    if protocol.is_tuned:
        yield Deviation("recipe", "hyperparameters chosen in a sweep")
    if (target := getattr(selection, "target", "label")) != "label":
        yield Deviation("recipe", f"target {target} instead of the label")
    if "test" in protocol.reported:
        yield Deviation("note", f"reported: {protocol.reported}")


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")
