"""The benchmark of linear models measures a running service."""

from pathlib import Path

import pytest

from benchmarks import linear
from lora_core.specs.data import DataSpec

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_linear_throughput_counts_predicted_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataSpec(train_size=200, validation_size=50, test_size=200)
    monkeypatch.setattr(linear, "SPEC", linear.SPEC.model_copy(update={"data": data}))
    monkeypatch.setattr(linear, "WARM_SECONDS", 0.2)
    summary = linear.install(tmp_path)
    assert summary["examples"]["train"] == 200
    bodies = linear.bodies()
    assert [len(body) for body in bodies] == [linear.TEXTS] * 6
    found = linear.measure(tmp_path, bodies, seconds=1.0)
    assert found["statuses"].keys() == {"200"}
    assert found["texts_per_s"] == linear.TEXTS * found["statuses"]["200"]
    assert 0 < found["server_cores"] < 16
