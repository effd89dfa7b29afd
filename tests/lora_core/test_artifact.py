"""Tolerance of the golden predictions."""

import numpy as np
import pytest

from lora_core.artifact import check_merged_logits
from lora_core.errors.training import MergeMismatch
from lora_core.saved_predictions import logit_difference_and_limit


@pytest.mark.parametrize(("largest", "limit"), [(0.5, 1e-4), (1.0, 1e-4), (3.0, 3e-4)])
def test_tolerance_scales_with_the_largest_logit_above_a_floor(
    largest: float, limit: float
) -> None:
    kept = np.array([[0.1, -largest], [0.2, 0.0]], dtype=np.float32)
    found = kept + np.array([[0.0, 0.0], [2e-4, 0.0]], dtype=np.float32)
    assert logit_difference_and_limit(found, kept) == pytest.approx((2e-4, limit), rel=1e-3)
    assert logit_difference_and_limit(found, kept, 1e-2)[1] == pytest.approx(100 * limit)
    if limit < 2e-4:
        with pytest.raises(MergeMismatch, match=r"differ by 2\.00e-04, more than 1\.00e-04"):
            check_merged_logits(kept, found)
    else:
        assert check_merged_logits(kept, found) == pytest.approx(2e-4, rel=1e-3)


def test_nonfinite_logits_never_match() -> None:
    kept = np.zeros((1, 2), dtype=np.float32)
    with pytest.raises(MergeMismatch):
        check_merged_logits(kept, np.full((1, 2), np.nan, dtype=np.float32))
