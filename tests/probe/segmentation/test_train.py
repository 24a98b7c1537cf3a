"""Training against torch's own pieces, heads together against heads alone, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pa.data.store.reader import Store
from pa.data.views.windows import cut_mask
from pa.errors import UsageError, VerificationError
from pa.probe.segmentation import train as module
from pa.probe.segmentation.batches import TrainingWindows, grid_of
from pa.probe.segmentation.labels import LabelMaps, WindowRows
from pa.probe.segmentation.recipes import PAPER, RELEASED, SegmentationRecipe, named_recipe
from pa.probe.segmentation.train import HeadSpec, TrainedHead, initial_weight, train_heads

MakeStore = Callable[..., Store]
SHORT = replace(PAPER, iterations=12, warmup=3, batch=5, lr=0.02)
SHORT_RELEASED = replace(RELEASED, iterations=12, warmup=3, batch=5, lr=0.02)


def windows_of(
    store: Store, maps: list[LabelMaps], recipe: SegmentationRecipe, seed: int = 0
) -> TrainingWindows:
    rows = WindowRows.of(store)
    return TrainingWindows(rows, maps, recipe.representation, recipe.batch, seed)


def naive(windows: TrainingWindows, recipe: SegmentationRecipe) -> TrainedHead:
    """The protocol in torch's own words: the paper enlarges features and then convolves."""
    store, rows = windows.windows.store, windows.windows
    n_classes, grid = len(windows.maps[0].classes), windows.grid
    conv = torch.nn.Conv2d(windows.width, n_classes, 1)
    with torch.no_grad():
        conv.weight[:, :, 0, 0] = initial_weight(0, windows.width, n_classes, recipe.init_std)
        conv.bias.zero_()
    decayed = [{"params": [conv.weight]}, {"params": [conv.bias]}]
    if not recipe.decay_bias:
        decayed[1]["weight_decay"] = 0.0
    optimizer = torch.optim.AdamW(decayed, lr=recipe.lr, weight_decay=recipe.weight_decay)
    losses = []
    for iteration in range(recipe.iterations):
        indices = windows.indices(iteration)
        raw = torch.from_numpy(store.read(recipe.representation, rows.rows[indices]))
        if raw.ndim == 4:  # concatenate the layers' channels
            raw = torch.cat(raw.unbind(1), dim=-1)
        features = raw.transpose(1, 2).unflatten(2, (grid, grid))
        cut = []
        for index in indices:
            image = rows.images[rows.image_of[index]]
            cut.append(cut_mask(windows.maps[0].read(image), rows.windows[index]))
        labels = torch.from_numpy(np.stack(cut)).long()
        if recipe.upsample_first > 1:
            features = F.interpolate(features, scale_factor=4, mode="bilinear")
        logits = F.interpolate(conv(features), labels.shape[1:], mode="bilinear")
        each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
        n = (labels != 255).sum() if recipe.loss_over == "valid" else labels.numel()
        loss = each.sum() / n
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.factor(iteration)
        optimizer.step()
        losses.append(loss.item())
    weight = conv.weight.detach()[:, :, 0, 0]
    assert conv.bias is not None
    return TrainedHead(weight, conv.bias.detach(), torch.tensor(losses))


@pytest.mark.parametrize(
    "recipe", [SHORT, SHORT_RELEASED, replace(SHORT_RELEASED, decay_bias=False)]
)
def test_training_is_that_of_torch(
    make_store: MakeStore, maps: LabelMaps, recipe: SegmentationRecipe
) -> None:
    windows = windows_of(make_store(), [maps], recipe)
    (head,) = train_heads(windows, [HeadSpec(0, recipe.lr)], recipe)
    expected = naive(windows, recipe)
    torch.testing.assert_close(head.losses, expected.losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.weight, expected.weight, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(head.bias, expected.bias, rtol=1e-3, atol=2e-4)


def test_learning_rate_warms_up_and_decays_to_zero() -> None:
    rates = [PAPER.lr * PAPER.factor(t) for t in (0, 750, 1500, 80_000, 159_999)]
    assert rates[0] == pytest.approx(4e-4 * 1e-6)
    assert rates[1] == pytest.approx(4e-4 * (1 - 750 / 160_000) * 0.5, rel=1e-5)
    assert rates[2] == pytest.approx(4e-4 * (1 - 1500 / 160_000))
    assert rates[3] == pytest.approx(2e-4)
    assert rates[4] == pytest.approx(4e-4 / 160_000)


def test_recipes_say_what_they_changed() -> None:
    assert PAPER.to_json()["changed"] == {}
    assert PAPER.shortened(1600).to_json()["changed"] == {"iterations": 1600, "warmup": 15}
    mae = named_recipe("released", "mae")
    assert not mae.decay_bias
    assert mae.to_json(mae)["changed"] == {}
    assert replace(RELEASED, seed=3).to_json()["changed"] == {}


def test_heads_together_equal_heads_alone(make_store: MakeStore, maps: LabelMaps) -> None:
    """Two label sets, two rates, two seeds in one pass."""
    merged = LabelMaps("few", maps.classes, maps.root)
    store, sets = make_store(), [maps, merged]
    specs = [HeadSpec(0, 0.02), HeadSpec(0, 0.002), HeadSpec(1, 0.02, init_seed=4)]
    together = train_heads(windows_of(store, sets, SHORT), specs, SHORT)
    for spec, head in zip(specs, together, strict=True):
        alone = HeadSpec(0, spec.lr, spec.init_seed)
        (expected,) = train_heads(windows_of(store, [sets[spec.maps]], SHORT), [alone], SHORT)
        torch.testing.assert_close(head.weight, expected.weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head.bias, expected.bias, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head.losses, expected.losses, rtol=1e-4, atol=1e-5)


def test_epoch_contains_every_window_once(make_store: MakeStore, maps: LabelMaps) -> None:
    windows = windows_of(make_store(), [maps], SHORT, seed=7)
    n = len(windows.windows)
    drawn = np.concatenate([windows.indices(t) for t in range(-(-2 * n // SHORT.batch))])
    assert sorted(drawn[:n]) == list(range(n))
    assert sorted(drawn[n : 2 * n]) == list(range(n))
    assert drawn[:n].tolist() != drawn[n : 2 * n].tolist()
    later = windows_of(make_store(), [maps], SHORT, seed=7).indices(2)
    assert later.tolist() == windows.indices(2).tolist()  # needs no earlier iteration


class KilledError(Exception):
    pass


def test_killed_run_resumes_bit_for_bit(
    make_store: MakeStore, maps: LabelMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state, specs = make_store(), tmp_path / "state.safetensors", [HeadSpec(0, 0.02)]
    (whole,) = train_heads(windows_of(store, [maps], SHORT), specs, SHORT)

    done = 0
    step = module.Heads.step

    def dying(self: module.Heads, iteration: int, gradients: dict[str, torch.Tensor]) -> None:
        nonlocal done
        if iteration == 7 and done < 8:
            raise KilledError
        done += 1
        step(self, iteration, gradients)

    monkeypatch.setattr(module.Heads, "step", dying)
    options = {"state": state, "key": "k", "save_seconds": 0.0}
    with pytest.raises(KilledError):
        train_heads(windows_of(store, [maps], SHORT), specs, SHORT, **options)
    assert done == 7
    done = 8
    (resumed,) = train_heads(windows_of(store, [maps], SHORT), specs, SHORT, **options)
    assert done == 8 + 5  # only what was missing
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.bias, whole.bias)
    assert torch.equal(resumed.losses, whole.losses)


@pytest.mark.parametrize("damage", ["other key", "torn", "empty"])
def test_state_of_another_run_is_not_used(
    make_store: MakeStore, maps: LabelMaps, tmp_path: Path, damage: str
) -> None:
    store, state, specs = make_store(), tmp_path / "state.safetensors", [HeadSpec(0, 0.02)]
    options = {"state": state, "save_seconds": 0.0}
    (whole,) = train_heads(windows_of(store, [maps], SHORT), specs, SHORT, key="a", **options)
    if damage != "other key":
        state.write_bytes(state.read_bytes()[:200] if damage == "torn" else b"")
    key = "b" if damage == "other key" else "a"
    (again,) = train_heads(windows_of(store, [maps], SHORT), specs, SHORT, key=key, **options)
    assert torch.equal(again.losses, whole.losses)


def test_divergence_names_rate_and_iteration(make_store: MakeStore, maps: LabelMaps) -> None:
    recipe = replace(SHORT, warmup=0, lr=1e38)
    specs = [HeadSpec(0, 0.01), HeadSpec(0, 1e38)]
    with pytest.raises(UsageError, match=r"learning rate 1e\+38 .* iteration \d"):
        train_heads(windows_of(make_store(), [maps], recipe), specs, recipe)


def test_features_that_are_not_finite(make_store: MakeStore, maps: LabelMaps) -> None:
    """A store refuses such values when it is written, so they come from a damaged one."""
    windows = windows_of(make_store(), [maps], SHORT)
    read = windows.windows.store.read

    def damaged(representation: str, rows: np.ndarray) -> np.ndarray:
        values = read(representation, rows)
        values[np.asarray(rows) == 3, 2, 1] = np.nan
        return values

    windows.windows.store.read = damaged  # type: ignore[method-assign,assignment]
    with pytest.raises(VerificationError, match="1 rows hold NaN or infinity: rows 3"):
        train_heads(windows, [HeadSpec(0, 0.02)], SHORT)


def test_representation_without_token_map_is_refused(make_store: MakeStore) -> None:
    store = make_store()
    assert grid_of(store, "patch") == (4, 24)
    assert grid_of(store, "layers") == (4, 48)
    store.spec.representations["patch"] = [15, 24]
    with pytest.raises(UsageError, match="square of tokens"):
        grid_of(store, "patch")
