

def test_a_batch_that_no_machine_holds_is_refused() -> None:
    with pytest.raises(UsageError, match="16,384 windows or less"):
        SegmentationRecipe(batch=10**9)
