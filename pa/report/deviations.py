"""Differences of a result from the setting of the paper's number: model, data and recipe.

A published number and the number of a small model on a sample of the images cannot be compared
without these remarks. `published/runs.toml` states the setting that needs no remark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pa.evaluate.result_parts import Gallery, SegmentationSelection, SplitSelection, TrainTest
from pa.evaluate.results import Result, RetrievalResult
from pa.report.cells import encoders, read_toml

Kind = Literal["model", "split", "data", "recipe", "note"]

# timm's names of plain ViTs, by width and depth.
SIZES = {(192, 12): "ViT-Ti", (384, 12): "ViT-S", (768, 12): "ViT-B", (1024, 24): "ViT-L"}

NEARLY_ALL = 0.999  # of the images of a split: a large dataset has a few that cannot be read
CERTAIN = "certain"  # the certainty of a label set that needs no remark


@dataclass(frozen=True)
class Deviation:
    """One difference from the paper's setting.

    Kinds are another `model`, rows of another selection (`split`), fewer images (`data`), another
    `recipe`, and `note`: a remark that is not a deviation.
    """

    kind: Kind
    text: str


@cache
def runs() -> Mapping[str, Any]:
    """Return the setting of the paper: `published/runs.toml`."""
    return read_toml("published", "runs.toml")


def deviations_of(result: Result) -> tuple[Deviation, ...]:
    """Return every difference of a result from the setting of the paper's number."""
    return (*_of_model(result), *_of_data(result), *_of_recipe(result))


def model_name(architecture: Mapping[str, Any]) -> str:
    """Name an architecture: "ViT-Ti/16, 192 wide"; "not known" without width and depth."""
    size = size_name(architecture)
    if size is None:
        return "not known"
    if size.startswith("ViT"):
        return f"{size}, {architecture['width']} wide"
    return f"a ViT of {size}"


def size_name(architecture: Mapping[str, Any]) -> str | None:
    """Return the short size of a ViT: "ViT-Ti/16", else blocks and width; None if not known."""
    width, depth = architecture.get("width"), architecture.get("depth")
    if not isinstance(width, int) or not isinstance(depth, int):
        return None
    if name := SIZES.get((width, depth)):
        return f"{name}/{architecture.get('patch', '?')}"
    return f"{depth} blocks, {width} wide"


def _of_model(result: Result) -> Iterator[Deviation]:
    expected, store, name = runs()["model"], result.tested, result.tested.encoder
    architecture, sha256 = store.architecture, store.weights_sha256
    published = runs()["sha256"].get(name)
    # The hash of the weights says nothing more if already the network differs.
    if any(architecture.get(key) != expected[key] for key in ("width", "depth", "heads", "patch")):
        yield Deviation("model", f"another model: {model_name(architecture)}")
    elif published is None:
        title = encoders()[name].title if name in encoders() else name
        yield Deviation("note", f"weights {sha256[:8]}: {title} publishes no hash to compare with")
    elif not sha256.startswith(published):
        yield Deviation(
            "model", f"other weights than the published {published}…: {sha256[:8] or 'no hash'}…"
        )
    # The released code shuffles the tokens of MAE, so its protocol expects them shuffled.
    options, source = dict(runs()["options"].get(name, {})), "the paper's"
    if result.protocol.name == "released":
        options |= runs()["released_options"].get(name, {})
        source = "the released code's"
    for option, value in options.items():
        if (actual := store.encoder_options.get(option, value)) != value:
            yield Deviation("model", f"{option} {actual}: {source} is {value}")
    if store.view in ("parts", "image") and store.input_size != expected["input"]:
        yield Deviation(
            "model", f"input of {store.input_size} pixels instead of {expected['input']}"
        )


def _of_data(result: Result) -> Iterator[Deviation]:
    test, selection, counts = result.tested, result.selection, result.counts
    train = result.stores.train if isinstance(result.stores, TrainTest) else None
    has_gallery = isinstance(result.stores, Gallery)  # neighbours use the rows of retrieval
    expected: Mapping[str, Any] = next(
        (
            entry
            for entry in runs()["data"]
            if entry["dataset"] == result.dataset
            and (entry.get("task") == RetrievalResult.task) == has_gallery
        ),
        {},
    )
    sides = [(name, s) for name, s in (("test", test), ("train", train)) if s is not None]
    # Training and test rows of one store share its split, so their division is named.
    if train is not None and train.fingerprint == test.fingerprint:
        yield Deviation("split", f"one split for training and test ({selection.rule})")
    else:
        for name, store in sides:
            if (side := expected.get(name)) and store.split != side["split"]:
                yield Deviation("split", f"{name} split {store.split} instead of {side['split']}")
    if side := expected.get("test"):
        yield from _of_size("", side, counts.tested_images)
    if train is not None and (side := expected.get("train")):
        yield from _of_size("trained on a ", side, counts.train_images)
    for split, limit in dict.fromkeys((s.split, s.limit) for _, s in sides if s.limit is not None):
        yield Deviation("data", f"--limit {limit}: the first images of split {split} only")
    if isinstance(selection, SplitSelection):
        for name in ("where", "train_where", "test_where"):
            if condition := getattr(selection, name):
                yield Deviation("split", f"rows chosen by {name} {condition!r}")
    if counts.unreadable:
        yield Deviation("note", f"{counts.unreadable:,} skipped: images that could not be read")
    if isinstance(selection, SegmentationSelection):
        certainty = selection.labels.certainty or CERTAIN
        if certainty != CERTAIN:
            yield Deviation("note", f"classes {certainty}")


def _of_size(prefix: str, side: Mapping[str, Any], images: int) -> Iterator[Deviation]:
    complete = side["images"]
    # Part stores have fewer images than the release: those without a usable part have no row.
    if images < side.get("least", NEARLY_ALL * complete):
        yield Deviation("data", f"{prefix}subset: {images:,} images of {complete:,}")
    elif "least" not in side and images < complete:
        yield Deviation("note", f"{prefix}{images:,} images of {complete:,}")


def _of_recipe(result: Result) -> Iterator[Deviation]:
    protocol, selection = result.protocol, result.selection
    if changed := protocol.changed:
        fields = ", ".join(
            f"{name}={value:g}"
            if isinstance(value, float)
            else f"{name}={str(value).replace('_', ' ')}"
            for name, value in changed.items()
        )
        yield Deviation("recipe", f"changed recipe: {fields}")
    if protocol.is_tuned:
        yield Deviation("recipe", "hyperparameters chosen in a sweep")
    if (target := getattr(selection, "target", "label")) != "label":
        yield Deviation("recipe", f"target {target} instead of the label")
    if "test" in protocol.reported:
        yield Deviation("note", f"reported: {protocol.reported}")
