"""The plan's arithmetic against numbers worked out by hand, and its advice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pa.errors import UsageError
from pa.probe.segmentation.costs import CPU, GPU, Machine, Rate, Workload
from pa.probe.segmentation.plan import make_plan

ADE = Workload(
    train_images=20_210,
    test_images=2_000,
    test_windows=5_000,
    crop=512,
    patch=16,
    width=768,
    depth=12,
    layers=4,
    vector_bytes=768 * 2,
    classes=(209,),
    iterations=160_000,
    batch=16,
)
UNIT = Machine("one", *(Rate(1.0, "1/s") for _ in range(5)))


def test_sizes_of_the_released_recipe() -> None:
    assert ADE.tokens == 1024
    assert ADE.window_bytes == 1024 * 3072 * 2
    plan = make_plan(ADE, [CPU], 10, 1e15, "assumed", "cpu")
    by_name = {way.name: way for way in plan.ways}
    assert by_name["cached, 1 plain crop"].n_bytes == (20_210 + 5_000) * 6_291_456
    assert by_name["cached, 10 random crops"].n_bytes == (202_100 + 5_000) * 6_291_456
    assert by_name["online"].n_bytes == 0


def test_flops_are_those_that_torch_counts() -> None:
    """A block of a ViT and a head, counted by torch on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    small = replace(
        ADE, crop=64, width=32, vector_bytes=64, depth=2, layers=1, classes=(7,), batch=3
    )
    tokens = small.tokens + 1

    def block(x: torch.Tensor) -> None:
        width = small.width
        q = x @ torch.empty(width, width, device="meta")
        k = x @ torch.empty(width, width, device="meta")
        v = x @ torch.empty(width, width, device="meta")
        out = (q @ k.T) @ v @ torch.empty(width, width, device="meta")
        hidden = out @ torch.empty(width, 4 * width, device="meta")
        hidden @ torch.empty(4 * width, width, device="meta")

    with FlopCounterMode(display=False) as counter:
        block(torch.empty(tokens, small.width, device="meta"))
    embedding = 2 * small.tokens * 3 * 16**2 * small.width
    assert small.encode_flops == 2 * counter.get_total_flops() + embedding

    with FlopCounterMode(display=False) as counter:
        features = torch.empty(3 * small.tokens, 32, device="meta")
        logits = features @ torch.empty(32, 7, device="meta")
        features.T @ logits
    assert small.head_flops == counter.get_total_flops()


def test_times_by_hand() -> None:
    work = replace(ADE, iterations=3, train_images=5, test_windows=2)
    plain, crops, online = make_plan(work, [UNIT], 4, 1e15, "x", "one").ways
    step = work.head_flops + work.logits
    assert plain.encode_hours == pytest.approx(7 * work.encode_flops / 3600)
    assert crops.encode_hours == pytest.approx(22 * work.encode_flops / 3600)
    assert plain.train_hours == pytest.approx(3 * step / 3600)
    assert online.encode_hours == pytest.approx(2 * work.encode_flops / 3600)
    assert online.train_hours == pytest.approx(3 * (step + 16 * work.encode_flops) / 3600)


def test_plan_with_slow_disk_is_limited_by_reading() -> None:
    slow = replace(GPU, read=Rate(1e8, "bytes/s"))
    plan = make_plan(ADE, [slow], 10, 1e15, "x", "gpu")
    plain = plan.ways[0]
    assert plain.limited_by == "reading"
    assert plain.train_hours == pytest.approx(160_000 * 16 * 6_291_456 / 1e8 / 3600)
    assert (plan.advice.way, plan.advice.decided_by) == ("online", "reading speed")
    assert "a batch of 0.101 GB takes 1.01 s to read at 0.1 GB/s" in plan.advice.text


def test_slow_encoder_is_timed_once() -> None:
    plan = make_plan(ADE, [CPU, GPU], 10, 1e13, "x", "cpu")
    assert (plan.advice.way, plan.advice.decided_by) == (
        "cached, 10 random crops",
        "windows to encode",
    )
    # 10 · 20,210 + 5,000 against 160,000 · 16 + 5,000
    assert "207,100 cached, 10 random crops, 2,565,000 online (127 epochs)" in plan.advice.text


def test_short_training_needs_no_store() -> None:
    """Fewer windows are seen than crops would be made: encoding decides for online."""
    short = replace(ADE, iterations=1000)
    plan = make_plan(short, [CPU], 10, 1e13, "x", "cpu")
    assert (plan.advice.way, plan.advice.decided_by) == ("online", "windows to encode")
    assert "21,000 online, 207,100 cached, 10 random crops" in plan.advice.text


def test_plan_counts_crops_that_fit_the_disk() -> None:
    """3 · 20,210 + 5,000 windows of 6.29 MB are 413 GB."""
    plan = make_plan(ADE, [CPU], 10, 5e11, "x", "cpu")
    assert [way.name for way in plan.ways][1] == "cached, 3 random crops"
    assert plan.advice.way == "cached, 3 random crops"


def test_plan_without_disk_space_for_crops() -> None:
    plan = make_plan(ADE, [CPU], 10, 2e11, "x", "cpu")
    assert (plan.advice.way, plan.advice.decided_by) == ("online", "space on disk")
    assert "cached, 10 random crops needs 1.3e+03 GB, 200 GB are free" in plan.advice.text
    assert "without the recipe's random crops" in plan.advice.text


def test_plain_images_where_no_crops_were_asked_for() -> None:
    plan = make_plan(ADE, [CPU], 1, 1e13, "x", "cpu")
    assert plan.advice.way == "cached, 1 plain crop"
    assert "it leaves out the recipe's random crops" in plan.advice.text


def test_rates_say_where_they_come_from() -> None:
    found = make_plan(ADE, [CPU], 10, 1e13, "x", "cpu").to_json()
    assert {rate["source"] for rate in found["rates"]["cpu"].values()} == {"assumed"}
    with pytest.raises(UsageError, match="positive"):
        Rate(0.0, "bytes/s")
