"""What a machine with a GPU reports: the summary, and serving as far as a CPU can run it."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import child_process, gpu
from benchmarks.results_file import ResultsFile
from benchmarks.serve import checkpoint, engine
from lora_core.export.hugging_face import export_merged
from tests.tiny_artifact import make_artifact


def example_metrics(cell: str) -> dict[str, Any]:
    """Made-up metrics of a cell."""
    kind, _, name = cell.partition("-")
    if kind == "serve":
        return {"texts_per_s": {"ours": 900.0, "pipeline": 300.0}[name], "peak_mb": 700.0}
    if kind == "together":
        return {"reviews_per_s": 300.0, "processes": 2}
    return {"reviews_per_s": 200.0 if "ours" in cell else 100.0, "peak_mb": 4000.0}


def test_summary_has_training_serving_and_the_card(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "gpu.jsonl")
    for cell in (*gpu.ONE, *gpu.ALL):
        results.add(cell, example_metrics(cell), seconds=1.0)
    report = gpu.summary(results, (*gpu.ONE, *gpu.ALL), "H100")
    assert (report["card"], report["left_out"]) == ("H100", [])
    assert (report["serving"]["vs_pipeline"], report["serving"]["peak_mb"]) == (3.0, 700.0)
    assert (report["full"]["vs_tuned"], report["full"]["vs_one_process"]) == (2.0, 1.5)


def test_summary_names_what_there_was_no_time_for(tmp_path: Path) -> None:
    results, begun = ResultsFile(tmp_path / "gpu.jsonl"), []

    def measure(cell: str, seconds: float) -> dict[str, Any]:
        begun.append(cell)
        assert 0 < seconds <= 1
        if cell == "rate-lora_all-tuned":
            time.sleep(1)
            raise subprocess.TimeoutExpired(cell, seconds)
        return example_metrics(cell)

    gpu.measure_until(time.monotonic() + 1, results, gpu.ONE, measure)
    assert begun == ["rate-lora_qv-tuned", "rate-lora_qv-ours", "rate-lora_all-tuned"]
    report = gpu.summary(results, gpu.ONE, "H100")
    assert report["lora_qv"]["vs_tuned"] == 2.0
    assert report["left_out"] == list(gpu.ONE[2:])
    assert not {"serving", "lora_all", "full"} & report.keys()


def test_a_process_that_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        child_process.last_line_of("sleep", "-c", "import time; time.sleep(600)", seconds=0.1)
    assert time.monotonic() - began < 300


@pytest.mark.parametrize("cell", gpu.SERVING)
def test_both_sides_classify_texts(
    cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    texts = ["a good film", "a dull plot and an awful end"] * (10 * engine.AT_ONCE)
    export_merged(artifact, tmp_path / "merged")
    monkeypatch.setattr(checkpoint, "artifact", lambda: artifact)
    monkeypatch.setattr(checkpoint, "merged", lambda: tmp_path / "merged")
    monkeypatch.setattr(checkpoint, "read_texts", lambda count: texts[:count])
    found = gpu.serve(cell, seconds=0.01, device="cpu", engine_name="torch-fp32")
    assert found["texts_per_s"] > 0
