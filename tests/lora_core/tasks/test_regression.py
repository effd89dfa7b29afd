"""Metrics and intervals of regression against scikit-learn, SciPy and known truth."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.training import NonFiniteLogits
from lora_core.tasks.build import restore_task_and_calibration
from lora_core.tasks.regression import Regression

GENERATOR = np.random.default_rng(0)
TRUE = (GENERATOR.integers(1, 11, size=200) * 10.0).astype(np.float32)
TASK = Regression.of_training_targets(TRUE.tolist())
LOGITS = ((TRUE - TASK.mean) / TASK.std + GENERATOR.normal(0, 0.3, 200))[:, None].astype(np.float32)


def test_metrics_match_scikit_learn_and_scipy() -> None:
    report = TASK.report(LOGITS, TRUE)
    predicted = TASK.mean + TASK.std * LOGITS[:, 0].astype(float)
    assert report["rmse"] == pytest.approx(root_mean_squared_error(TRUE, predicted))
    assert report["mae"] == pytest.approx(mean_absolute_error(TRUE, predicted))
    assert report["r2"] == pytest.approx(r2_score(TRUE, predicted))
    assert report["spearman"] == pytest.approx(spearmanr(TRUE, predicted).statistic)
    assert report["loss"] == pytest.approx((report["rmse"] / TASK.std) ** 2)
    assert TASK.compute_logged_metrics(LOGITS, TRUE) == {
        name: report[name] for name in TASK.curve_metrics
    }


def test_interval_covers_nine_of_ten_new_texts() -> None:
    generator = np.random.default_rng(1)
    truth = generator.normal(size=6000).astype(np.float32)
    logits = (truth + generator.normal(0, 0.5, 6000))[:, None].astype(np.float32)
    task = Regression(0.0, 1.0)
    calibration = task.calibrate(logits[:1000], truth[:1000])
    compared = task.evaluate_calibration(logits[1000:], truth[1000:], calibration)
    assert calibration.half_width == pytest.approx(0.5 * 1.645, rel=0.1)  # of a normal error
    assert compared["coverage"] == pytest.approx(0.9, abs=0.02)


def test_interval_needs_nine_texts() -> None:
    assert TASK.calibrate(LOGITS[:9], TRUE[:9]).half_width is not None
    too_few = TASK.calibrate(LOGITS[:8], TRUE[:8])
    assert (too_few.half_width, too_few.fitted) == (None, False)
    assert (too_few.scale, too_few.offset) == ((TASK.std,), (TASK.mean,))


def test_constant_predictions_and_numbers_have_no_correlation() -> None:
    zeros = np.zeros((5, 1), dtype=np.float32)
    report = Regression(3.0, 1.0).report(zeros, np.full(5, 3.0, dtype=np.float32))
    assert (report["rmse"], report["r2"], report["spearman"]) == (0, 0, 0)


def test_equal_numbers_have_the_deviation_1() -> None:
    """Their mean is rounded, so that their deviation is 1e-17, not 0."""
    assert np.std([0.1] * 3) > 0
    task = Regression.of_training_targets([0.1] * 3)
    assert task.mean == pytest.approx(0.1)
    assert task.std == 1.0


def test_nonfinite_logits_give_a_nonfinite_loss_and_no_interval() -> None:
    logits = np.full((3, 1), np.nan, dtype=np.float32)
    assert np.isnan(TASK.compute_logged_metrics(logits, TRUE[:3])["loss"])
    with pytest.raises(NonFiniteLogits):
        TASK.calibrate(logits, TRUE[:3])


@pytest.mark.parametrize("scale", [0.0, -2.0])
def test_scale_of_a_stored_model_is_positive(scale: float) -> None:
    stored: dict[str, dict[str, Any]] = {
        "spec": {"task": {"type": "regression"}},
        "calibration": {"scale": [scale], "offset": [0.0]},
    }
    with pytest.raises(ArtifactCorrupt, match="does not fit"):
        restore_task_and_calibration(stored, ("value",))
    stored["calibration"]["scale"] = [2.0]
    assert restore_task_and_calibration(stored, ("value",))[1].scale == (2.0,)
