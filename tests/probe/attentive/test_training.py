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
from pa.probe.attentive.heads import Heads
from pa.probe.attentive.recipes import PAPER, AttentiveRecipe
from pa.probe.attentive.tokens import Tokens
from pa.probe.attentive.train import Candidate, Trained, train_heads
from pa.probe.checkpoints import Checkpoint
from pa.probe.selection import Side
from tests.support.arrays import MakeStore
from tests.support.plain_attentive import PlainHead
from tests.support.tokens import WIDTH, token_maps

CPU = torch.device("cpu")
ORDER = BlockShuffle(seed=1, block_rows=8, buffer_rows=32)
QUICK = replace(PAPER, epochs=3, batch=16, order=ORDER, eval_batch=10)
TWO = [Candidate(0, 0.04), Candidate(1, 0.4)]


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
) -> Trained:
    train = Tokens(side(store, np.arange(40)), CPU, memory=memory)
    test = Tokens(side(store, np.arange(40, 60)), CPU, memory=memory)
    return train_heads(train, test, 3, candidates, recipe, device=CPU, **args)


def test_training_is_that_of_plain_torch(store: Store) -> None:
    """Three epochs with torch.optim.SGD on the plain head, batch after batch in the stated order."""
    recipe = replace(QUICK, weight_decay=0.01)
    outcome = run(store, recipe=recipe)
    rows = side(store, np.arange(60))
    tokens = np.concatenate([store.read("cls")[:, None], store.read("patch")], axis=1)
    x, y = torch.from_numpy(tokens).float(), torch.from_numpy(rows.targets)
    for index, candidate in enumerate(TWO):
        plain = PlainHead.like(Heads.new([candidate.seed], WIDTH, 3, recipe, CPU), 0)
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
            assert outcome.loss[epoch, index].item() == pytest.approx(total / 40, rel=1e-4)
        for name, folder in plain.places().items():
            ours = outcome.heads.tensors()[name][index]
            torch.testing.assert_close(ours, folder, rtol=1e-4, atol=1e-5, msg=name)
        with torch.no_grad():
            logits = plain.eval()(x[40:])
        assert torch.equal(outcome.predicted[index], logits.argmax(1))
        loss = F.cross_entropy(logits, y[40:]).item()
        assert outcome.test_loss[index].item() == pytest.approx(loss, rel=1e-4)


def test_heads_equal_heads_trained_alone(store: Store) -> None:
    candidates = [Candidate(seed, lr) for seed in (0, 1, 5) for lr in (0.01, 0.04, 0.4)]
    together = run(store, candidates)
    for index, candidate in enumerate(candidates):
        alone = run(store, [candidate])
        for name, tensor in alone.heads.tensors().items():
            torch.testing.assert_close(
                together.heads.tensors()[name][index], tensor[0], rtol=1e-5, atol=1e-5, msg=name
            )
        assert torch.equal(together.predicted[index], alone.predicted[0])


def test_streamed_or_in_memory_equal_to_the_bit(store: Store) -> None:
    kept, streamed = run(store, memory=1e9), run(store, memory=0)
    for name, tensor in kept.heads.tensors().items():
        assert torch.equal(tensor, streamed.heads.tensors()[name]), name
    assert torch.equal(kept.loss, streamed.loss)


def test_equal_seeds_give_equal_bits_without_global_seeding(store: Store) -> None:
    before = torch.random.get_rng_state()
    first, again, other = run(store), run(store), run(store, [Candidate(2, 0.04)])
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in first.heads.tensors().items():
        assert torch.equal(tensor, again.heads.tensors()[name]), name
    assert not torch.equal(first.heads.parameters["weight"][0], other.heads.parameters["weight"][0])


def test_head_learns_information_of_tokens(store: Store) -> None:
    """The class is in one patch token of a random place: neither class token nor mean of any use
    to a plain average of places, but to attention."""
    outcome = run(store, [Candidate(0, 0.4)], replace(QUICK, epochs=40))
    truth = torch.from_numpy(side(store, np.arange(40, 60)).targets)
    assert (outcome.predicted[0] == truth).float().mean() > 0.9
    assert outcome.accuracy[-1, 0] > 0.95
    assert outcome.loss[-1, 0] < 0.5 * outcome.loss[0, 0]


def test_best_epoch_on_test_rows_is_kept(store: Store) -> None:
    recipe = replace(QUICK, epochs=6, bn_eval="batch")
    outcome = run(store, TWO, recipe, best_on_test=True)
    truth = torch.from_numpy(side(store, np.arange(40, 60)).targets)
    for index in range(2):
        curve = outcome.test_accuracy[:, index]
        best = int(curve.argmax())  # the first of equals
        assert int(outcome.epoch[index]) == best + 1
        share = (outcome.predicted[index] == truth).float().mean()
        assert share.item() == pytest.approx(curve[best].item())
        last = (outcome.last_predicted[index] == truth).float().mean()
        assert last.item() == pytest.approx(curve[-1].item())
    unwatched = run(store, TWO, recipe)
    assert torch.equal(unwatched.predicted, outcome.last_predicted)
    assert unwatched.test_accuracy.isnan().all()
    assert unwatched.epoch.tolist() == [6, 6]
    # The kept heads are those of that epoch: a cosine of 6 epochs seen up to there.
    kept = outcome.heads.tensors()["weight"]
    same = (kept == unwatched.heads.tensors()["weight"]).flatten(1).all(1)
    assert same.tolist() == [epoch == 6 for epoch in outcome.epoch.tolist()]


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
    recipe = replace(QUICK, epochs=5)
    whole = run(store, recipe=recipe, best_on_test=watched)
    path = tmp_path / "run.state"
    with pytest.raises(StopError):  # the fifth of three steps an epoch: in the second epoch
        stops = StopsAt(5)
        values = {"checkpoint": Checkpoint(path, "k"), "progress": stops}
        run(store, recipe=recipe, best_on_test=watched, **values)
    goes_on = StopsAt(1000)
    values = {"checkpoint": Checkpoint(path, "k"), "progress": goes_on}
    resumed = run(store, recipe=recipe, best_on_test=watched, **values)
    assert resumed.resumed == 1
    assert goes_on.started == [(15, 3)]
    assert goes_on.notes == ["resuming after epoch 1 of 5"]
    for name, tensor in whole.heads.tensors().items():
        assert torch.equal(tensor, resumed.heads.tensors()[name]), name
    for name in ("loss", "accuracy", "predicted", "last_predicted", "test_loss", "epoch"):
        assert torch.equal(getattr(whole, name), getattr(resumed, name)), name
    assert torch.equal(whole.test_accuracy.nan_to_num(-1), resumed.test_accuracy.nan_to_num(-1))


# -- bad input -------------------------------------------------------------------------------------


def test_divergence_names_the_rate_and_the_epoch(store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        run(store, [Candidate(0, 0.04), Candidate(0, 1e30)])
    assert "learning rate 1e+30 the loss is not finite in epoch 1 of 3." in str(caught.value)


def test_diverged_head_leaves_others_unchanged(store: Store) -> None:
    candidates = [Candidate(0, 1e30), Candidate(0, 0.04)]
    outcome = run(store, candidates, tolerant=True)
    alone = run(store, [candidates[1]])
    assert outcome.diverged.tolist() == [1, 0]
    assert torch.equal(outcome.predicted[1], alone.predicted[0])
    with pytest.raises(UsageError, match="with learning rate 1e\\+30 "):
        run(store, candidates[:1], tolerant=True)


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
