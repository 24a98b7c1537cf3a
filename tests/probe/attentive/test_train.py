from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pa.data.store.reader import Store
from pa.data.store.stream import BlockShuffle
from pa.errors import UsageError, VerificationError
from pa.probe.attentive.recipes import PAPER, AttentiveRecipe
from pa.probe.attentive.stack import AttentiveStack
from pa.probe.attentive.tokens import Tokens
from pa.probe.attentive.train import train_heads
from pa.probe.checkpoints import Checkpoint
from pa.probe.recipes import BEST_ON_TEST, LAST
from pa.probe.selection import Side
from pa.probe.training import Candidate, TrainedHead
from tests.support.arrays import MakeStore
from tests.support.plain_attentive import PlainHead
from tests.support.tokens import WIDTH, token_maps

CPU = torch.device("cpu")


def head(seed: int, lr: float) -> Candidate:
    return Candidate("cls+patch", lr, 0.0, seed)


ORDER = BlockShuffle(seed=1, block_rows=8, buffer_rows=32)
QUICK = replace(PAPER, epochs=3, batch=16, order=ORDER, eval_batch=10)
TWO = [head(0, 0.04), head(1, 0.4)]


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    tokens, labels = token_maps(60)
    return make_store({"cls": tokens[:, 0], "patch": tokens[:, 1:]}, labels)


def side(store: Store, rows: Sequence[int] | np.ndarray) -> Side:
    rows = np.asarray(rows)
    targets = np.array([int(label[1:]) for label in store.rows["label"].to_list()])[rows]
    return Side(store, rows, targets, rows, 0, 0)


def run(
    store: Store,
    candidates: Sequence[Candidate] = TWO,
    recipe: AttentiveRecipe = QUICK,
    memory: float = 1e9,
    **args: object,
) -> list[TrainedHead]:
    train = Tokens(side(store, np.arange(40)), CPU, memory=memory)
    test = Tokens(side(store, np.arange(40, 60)), CPU, memory=memory)
    return train_heads(train, test, candidates, recipe, **args)


def assert_equal_heads(actual: TrainedHead, expected: TrainedHead) -> None:
    for name, tensor in expected.tensors.items():
        assert torch.equal(actual.tensors[name], tensor), name
    for name in ("train_loss", "train_accuracy", "test_accuracy", "predicted", "last_predicted"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), name)
    assert (actual.test_loss, actual.epoch) == (expected.test_loss, expected.epoch)


def test_training_is_that_of_plain_torch(store: Store) -> None:
    """Three epochs with torch.optim.SGD on the plain head, batch after batch in the stated order."""
    recipe = replace(QUICK, weight_decay=0.01)
    outcome = run(store, recipe=recipe)
    rows = side(store, np.arange(60))
    tokens = np.concatenate([store.read("cls")[:, None], store.read("patch")], axis=1)
    x, y = torch.from_numpy(tokens).float(), torch.from_numpy(rows.targets)
    for index, candidate in enumerate(TWO):
        plain = PlainHead.like(AttentiveStack.new([candidate.seed], WIDTH, 3, recipe, CPU), 0)
        optimizer = torch.optim.SGD(plain.parameters(), lr=1, momentum=0.9, weight_decay=0.01)
        for epoch in range(3):
            total = 0.0
            optimizer.param_groups[0]["lr"] = recipe.rate(candidate.lr, epoch, 0, 3)
            order = torch.from_numpy(np.concatenate(ORDER.buffers(40, epoch)))
            assert [len(rows) for rows in order.split(16)] == [16, 16, 8]
            for places in order.split(16):
                loss = F.cross_entropy(plain(x[places]), y[places])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(places)
            assert outcome[index].train_loss[epoch] == pytest.approx(total / 40, rel=1e-4)
        for name, folder in plain.places().items():
            ours = outcome[index].tensors[name]
            torch.testing.assert_close(ours, folder, rtol=1e-4, atol=1e-5, msg=name)
        with torch.no_grad():
            logits = plain.eval()(x[40:])
        np.testing.assert_array_equal(outcome[index].predicted, logits.argmax(1).numpy())
        loss = F.cross_entropy(logits, y[40:]).item()
        assert outcome[index].test_loss == pytest.approx(loss, rel=1e-4)


def test_heads_equal_heads_trained_alone(store: Store) -> None:
    candidates = [head(seed, lr) for seed in (0, 1, 5) for lr in (0.01, 0.04, 0.4)]
    together = run(store, candidates)
    for index, candidate in enumerate(candidates):
        (alone,) = run(store, [candidate])
        for name, tensor in alone.tensors.items():
            torch.testing.assert_close(
                together[index].tensors[name], tensor, rtol=1e-5, atol=1e-5, msg=name
            )
        np.testing.assert_array_equal(together[index].predicted, alone.predicted)


def test_streamed_or_in_memory_equal_to_the_bit(store: Store) -> None:
    kept, streamed = run(store, memory=1e9), run(store, memory=0)
    for item, other in zip(kept, streamed, strict=True):
        assert_equal_heads(item, other)


def test_equal_seeds_give_equal_bits_without_global_seeding(store: Store) -> None:
    before = torch.random.get_rng_state()
    first, again, other = run(store), run(store), run(store, [head(2, 0.04)])
    assert torch.equal(torch.random.get_rng_state(), before)
    for item, repeated in zip(first, again, strict=True):
        assert_equal_heads(item, repeated)
    assert not torch.equal(first[0].tensors["weight"], other[0].tensors["weight"])


def test_head_learns_information_of_tokens(store: Store) -> None:
    """The class is in one patch token of a random place: neither class token nor mean of any use
    to a plain average of places, but to attention."""
    (trained,) = run(store, [head(0, 0.4)], replace(QUICK, epochs=40))
    truth = side(store, np.arange(40, 60)).targets
    assert (trained.predicted == truth).mean() > 0.9
    assert trained.train_accuracy[-1] > 0.95
    assert trained.train_loss[-1] < 0.5 * trained.train_loss[0]


def test_best_epoch_on_test_rows_is_kept(store: Store) -> None:
    recipe = replace(QUICK, epochs=6, bn_eval="batch", reported=BEST_ON_TEST)
    outcome = run(store, TWO, recipe)
    unwatched = run(store, TWO, replace(recipe, reported=LAST))
    truth = side(store, np.arange(40, 60)).targets
    for trained, last in zip(outcome, unwatched, strict=True):
        curve = trained.test_accuracy
        best = int(curve.argmax())  # the first of equals
        assert trained.epoch == best + 1
        assert (trained.predicted == truth).mean() == pytest.approx(curve[best])
        assert (trained.last_predicted == truth).mean() == pytest.approx(curve[-1])
        np.testing.assert_array_equal(last.predicted, trained.last_predicted)
        assert np.isnan(last.test_accuracy).all()
        assert last.epoch == 6
        # The kept heads are those of that epoch: a cosine of 6 epochs seen up to there.
        same = torch.equal(trained.tensors["weight"], last.tensors["weight"])
        assert same == (trained.epoch == 6)


# -- resume ----------------------------------------------------------------------------------------


class StopError(Exception):
    pass


class StopsAt:
    """A progress that ends the run in the middle of an epoch."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.notes: list[str] = []
        self.started: list[tuple[int, int]] = []

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.started.append((total, done))

    def advance(self, n: int) -> None:
        self.left -= n
        if self.left == 0:
            raise StopError

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("watched", [False, True])
def test_resumed_run_gives_same_bits(store: Store, tmp_path: Path, watched: bool) -> None:
    recipe = replace(QUICK, epochs=5, reported=BEST_ON_TEST if watched else LAST)
    whole = run(store, recipe=recipe)
    path = tmp_path / "run.state"
    with pytest.raises(StopError):  # the fifth of three steps an epoch: in the second epoch
        stops = StopsAt(5)
        values = {"checkpoint": Checkpoint(path, "k"), "progress": stops}
        run(store, recipe=recipe, **values)
    goes_on = StopsAt(1000)
    values = {"checkpoint": Checkpoint(path, "k"), "progress": goes_on}
    resumed = run(store, recipe=recipe, **values)
    assert [trained.resumed for trained in resumed] == [1, 1]
    assert goes_on.started == [(15, 3)]
    assert goes_on.notes == ["resuming after epoch 1 of 5"]
    for item, other in zip(resumed, whole, strict=True):
        assert_equal_heads(item, other)


# -- bad input -------------------------------------------------------------------------------------


def test_divergence_names_the_rate_and_the_epoch(store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        run(store, [head(0, 0.04), head(0, 1e30)])
    assert "learning rate 1e+30 the loss is not finite in epoch 1 of 3." in str(caught.value)


def test_diverged_head_leaves_others_unchanged(store: Store) -> None:
    candidates = [head(0, 1e30), head(0, 0.04)]
    outcome = run(store, candidates, choosing=True)
    alone = run(store, [candidates[1]])
    assert [trained.diverged for trained in outcome] == [1, None]
    np.testing.assert_array_equal(outcome[1].predicted, alone[0].predicted)
    with pytest.raises(UsageError, match="with learning rate 1e\\+30 "):
        run(store, candidates[:1], choosing=True)


@pytest.mark.parametrize(
    ("row", "representation"), [(7, "patch"), (7, "cls"), (45, "patch"), (59, "cls")]
)
@pytest.mark.parametrize("memory", [0, 1e9])
def test_damaged_tokens_are_named_by_their_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch, row: int, representation: str, memory: float
) -> None:
    """A training row makes all heads' losses NaN; a test row shows when it is predicted."""
    read = Store.read_into

    def damaged(
        self: Store, name: str, rows: np.ndarray, out: np.ndarray, positions: np.ndarray
    ) -> None:
        read(self, name, rows, out, positions)
        if name == representation:
            out[positions[rows == row]] = np.nan

    monkeypatch.setattr(Store, "read_into", damaged)
    with pytest.raises(VerificationError, match=rf"1 rows hold NaN or infinity: rows {row}\."):
        run(store, memory=memory)
