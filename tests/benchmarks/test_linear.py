"""The benchmark of linear models measures a running service."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import linear
from lora_core.specs.data import DataSpec


@pytest.mark.e2e
@pytest.mark.slow
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


def test_result_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts_per_s = iter([5.0, 6.0])
    monkeypatch.setattr(
        linear, "install_and_measure", lambda seconds: {"texts_per_s": next(texts_per_s) / seconds}
    )

    def run(*words: str) -> float:
        monkeypatch.setattr(sys, "argv", ["linear", "--quick", "--results", str(tmp_path), *words])
        linear.main()
        printed: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert printed["processor"]
        return float(printed["texts_per_s"])

    assert [run(), run(), run("--fresh")] == [2.5, 2.5, 3.0]
