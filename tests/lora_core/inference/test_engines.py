"""Every engine of this machine answers like plain transformers; the fastest that does is chosen."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lora_core import manifest
from lora_core.errors.artifact import EngineDisagrees, EngineMissing
from lora_core.inference import engines, golden
from lora_core.inference.predictor import Predictor
from lora_core.inference.speeds import tokens_per_second
from tests.tiny_artifact import make_artifact

HERE = [name for name, kind in engines.ENGINES.items() if kind.is_here()]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(
        tmp_path_factory.mktemp("model") / "artifact", labels=("bad", "good", "so")
    )


def test_compiled_ones_are_tested_where_there_is_a_compiler() -> None:
    assert {"torch-fp32", "torch-bf16"} <= set(HERE)
    assert ("compiled-fp32" in HERE) == (shutil.which("g++") is not None)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler uses it
@pytest.mark.parametrize("name", HERE)
def test_an_engine_agrees_with_the_stored_logits(artifact: Path, name: str) -> None:
    predictor = Predictor.load(artifact, engine=name)
    assert predictor.engine.name == name
    assert predictor.engine.nbytes > 0
    assert golden.check(predictor, artifact) <= golden.TOLERANCE[name.rpartition("-")[2]]


def test_one_that_does_not_is_refused(artifact: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(artifact, other)
    rows = json.loads((other / "golden.json").read_text())
    rows[1]["logits"][0] += 2e-4
    (other / "golden.json").write_text(json.dumps(rows))
    predictor = Predictor.load(artifact)
    with pytest.raises(EngineDisagrees, match=r"torch-fp32 differs .* by 2\.0\de-04"):
        golden.check(predictor, other)
    rows[1]["logits"] = [float("nan")] * 3
    (other / "golden.json").write_text(json.dumps(rows))
    with pytest.raises(EngineDisagrees):
        golden.check(predictor, other)


def test_what_is_not_here_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineMissing, match=r"compiled-fp32 needs a compiler of C\+\+"):
        engines.kind("compiled-fp32")
    assert set(engines.candidates()) <= {"torch-fp32", "torch-bf16", "cuda-bf16"}
    if not torch.cuda.is_available():
        with pytest.raises(EngineMissing, match="a GPU"):
            engines.kind("cuda-bf16")


def test_speeds_are_measured_once(artifact: Path, tmp_path: Path) -> None:
    loads: list[str] = []

    def load(name: str) -> Predictor:
        loads.append(name)
        return Predictor.load(artifact, engine=name)

    names = ["torch-fp32", "torch-bf16"]
    found = tokens_per_second(tmp_path, artifact, names, load, shared=True)
    assert loads == names
    assert set(found) == set(names)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert min(found.values()) > 0
    assert tokens_per_second(tmp_path, artifact, names, load, shared=True) == found
    assert loads == names
    [file] = tmp_path.iterdir()
    file.write_text("broken")
    tokens_per_second(tmp_path, artifact, names, load, shared=True)
    assert loads == names * 2
    assert manifest.read(artifact)
