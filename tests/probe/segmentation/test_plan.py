"""Sizes of a plan against numbers computed by hand, and its recommendation."""

from __future__ import annotations

from dataclasses import replace

from pa.probe.segmentation.plan import SegmentationPlan, Strategy, Workload, plan_segmentation

ADE = Workload(
    train_images=20_210,
    test_images=2_000,
    test_windows=5_000,
    crop=512,
    tokens=1024,
    width=768,
    layers=4,
    vector_bytes=768 * 2,
    classes=(209,),
    iterations=160_000,
    batch=16,
)


def by_name(plan: SegmentationPlan) -> dict[str, Strategy]:
    return {strategy.name: strategy for strategy in plan.strategies}


def test_plan_sizes_of_the_released_recipe() -> None:
    assert ADE.window_bytes == 1024 * 3072 * 2
    strategies = by_name(plan_segmentation(ADE, "assumed", 10, 10**15))
    assert strategies["cached, 1 plain crop"].bytes == (20_210 + 5_000) * 6_291_456
    assert strategies["cached, 10 random crops"].windows == 202_100 + 5_000
    assert strategies["online"].bytes == 0
    assert strategies["online"].windows == 160_000 * 16 + 5_000


def test_plan_memory_grows_with_heads() -> None:
    values, logits = 4 * 768, 209
    heads = replace(ADE, classes=(209, 209)).memory - ADE.memory
    assert heads == 4 * (4 * values * logits + 2 * 16 * 1024 * logits)


def test_plan_adds_as_many_crops_as_fit() -> None:
    free = (3 * ADE.train_images + ADE.test_windows) * ADE.window_bytes
    strategies = by_name(plan_segmentation(ADE, "assumed", 10, free))
    assert strategies["cached, 3 random crops"].bytes == free


def test_plan_without_times_recommends_the_fewest_windows() -> None:
    plan = plan_segmentation(ADE, "assumed", 10, 10**15)
    assert plan.recommended.name == "cached, 10 random crops"
    assert plan.recommended.seconds is None
    assert plan_segmentation(ADE, "assumed", 10, 10**9).recommended.name == "online"


def test_plan_with_times_recommends_the_fastest() -> None:
    short = replace(ADE, iterations=100)  # 1,600 windows online, 202,100 to store
    plan = plan_segmentation(
        short, "assumed", 10, 10**15, windows_per_second=100.0, train_seconds=60.0
    )
    assert plan.recommended.name == "online"
    assert plan.recommended.seconds == 66.0 + 60.0
    assert plan.to_json()["recommended"] == "online"
