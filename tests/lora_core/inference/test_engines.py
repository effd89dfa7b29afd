"""Tests of the engines that this machine supports, and of their benchmark."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lora_core import manifest
from lora_core.errors.artifact import EngineMismatch, EngineUnavailable
from lora_core.inference import engines, reference_logits
from lora_core.inference.engine_benchmark import benchmark_engines
from lora_core.inference.predictor import Predictor
from tests.tiny_artifact import make_artifact

AVAILABLE_ENGINES = [name for name, engine in engines.ENGINES.items() if engine.is_available()]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(
        tmp_path_factory.mktemp("model") / "artifact", labels=("bad", "good", "so")
    )


def test_compiled_engines_are_tested_if_there_is_a_compiler() -> None:
    assert {"torch-fp32", "torch-bf16"} <= set(AVAILABLE_ENGINES)
    assert ("compiled-fp32" in AVAILABLE_ENGINES) == (shutil.which("g++") is not None)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler uses it
@pytest.mark.parametrize("name", AVAILABLE_ENGINES)
def test_engine_reproduces_the_reference_logits(artifact: Path, name: str) -> None:
    predictor = Predictor.load(artifact, engine=name)
    assert predictor.engine.name == name
    assert predictor.engine.nbytes > 0
    assert (
        reference_logits.check_reference_logits(predictor, artifact)
        <= reference_logits.TOLERANCES[name.rpartition("-")[2]]
    )


def test_engine_mismatch_is_detected(artifact: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(artifact, other)
    rows = json.loads((other / "golden.json").read_text())
    rows[1]["logits"][0] += 2e-4
    (other / "golden.json").write_text(json.dumps(rows))
    predictor = Predictor.load(artifact)
    with pytest.raises(EngineMismatch, match=r"torch-fp32 differ .* by 2\.0\de-04"):
        reference_logits.check_reference_logits(predictor, other)
    rows[1]["logits"] = [float("nan")] * 3
    (other / "golden.json").write_text(json.dumps(rows))
    with pytest.raises(EngineMismatch):
        reference_logits.check_reference_logits(predictor, other)


def test_unavailable_engine_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineUnavailable, match=r"compiled-fp32 requires a C\+\+ compiler"):
        engines.get_engine("compiled-fp32")
    assert set(engines.auto_candidates()) <= {"torch-fp32", "torch-bf16", "cuda-bf16"}
    if not torch.cuda.is_available():
        with pytest.raises(EngineUnavailable, match="a GPU"):
            engines.get_engine("cuda-bf16")


def test_engines_are_benchmarked_once(artifact: Path, tmp_path: Path) -> None:
    loads: list[str] = []

    def load(name: str) -> Predictor:
        loads.append(name)
        return Predictor.load(artifact, engine=name)

    names = ["torch-fp32", "torch-bf16"]
    speeds = benchmark_engines(tmp_path, artifact, names, load, shared=True)
    assert loads == names
    assert set(speeds) == set(names)
    assert list(speeds.values()) == sorted(speeds.values(), reverse=True)
    assert min(speeds.values()) > 0
    assert benchmark_engines(tmp_path, artifact, names, load, shared=True) == speeds
    assert loads == names
    [file] = tmp_path.iterdir()
    file.write_text("broken")
    benchmark_engines(tmp_path, artifact, names, load, shared=True)
    assert loads == names * 2
    assert manifest.read(artifact)
