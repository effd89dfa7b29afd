"""Tests of the engines that this machine supports, and of their benchmark."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from app.serving.loaded_model import EngineSelectingEncoderLoader
from lora_core import manifest, saved_predictions
from lora_core.errors.artifact import EngineOutputMismatch, EngineUnavailable
from lora_core.inference import engine_benchmark, engines
from lora_core.inference.engine_benchmark import benchmark_engines
from lora_core.inference.predictor import Predictor
from lora_core.specs.method import LoraSpec, LoraVariant
from tests.lora_artifact import make_lora_artifact
from tests.tiny_artifact import make_artifact
from tests.tiny_base import make_base

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
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if "compiled" in name else name
        for name in AVAILABLE_ENGINES
    ],
)
def test_engine_reproduces_the_golden_predictions(
    artifact: Path, tmp_path: Path, name: str
) -> None:
    if name == "native-bf16":  # its heads are multiples of 32
        artifact = make_artifact(tmp_path / "artifact", heads=1)
    predictor = Predictor.load(artifact, engine=name)
    assert predictor.engine.name == name
    assert predictor.engine.nbytes > 0
    assert (
        saved_predictions.check_golden_predictions(predictor, artifact)
        <= saved_predictions.ENGINE_TOLERANCES[name.rpartition("-")[2]]
    )


@pytest.mark.parametrize(
    "name", [name for name in AVAILABLE_ENGINES if "native" in name] or ["torch-bf16"]
)
@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_native_adapters_reproduce_the_golden_predictions(
    tmp_path: Path, name: str, variant: str
) -> None:
    base = make_base(tmp_path / "base", n_heads=1)
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2, variant=LoraVariant(variant)), base=base)
    predictor = Predictor.load(artifact, engine=name)
    assert predictor.engine.name == name
    saved_predictions.check_golden_predictions(predictor, artifact)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in AVAILABLE_ENGINES if "compiled" in name])
def test_compiled_modernbert_reproduces_the_golden_predictions(tmp_path: Path, name: str) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), family="modernbert")
    predictor = Predictor.load(artifact, engine=name)
    assert predictor.engine.name == name
    assert (
        saved_predictions.check_golden_predictions(predictor, artifact)
        <= saved_predictions.ENGINE_TOLERANCES[name.rpartition("-")[2]]
    )


def test_engine_output_mismatch_is_detected(artifact: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(artifact, other)
    rows = json.loads((other / "golden.json").read_text())
    rows[1]["logits"][0] += 4e-4  # of 3.0
    (other / "golden.json").write_text(json.dumps(rows))
    predictor = Predictor.load(artifact)
    with pytest.raises(EngineOutputMismatch, match=r"torch-fp32 differ .* by 4\.0\de-04"):
        saved_predictions.check_golden_predictions(predictor, other)
    rows[1]["logits"] = [float("nan")] * 3
    (other / "golden.json").write_text(json.dumps(rows))
    with pytest.raises(EngineOutputMismatch):
        saved_predictions.check_golden_predictions(predictor, other)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("torch-fp32", 1e-4), ("onednn-fp32", 1e-4), ("torch-bf16", 1e-2)]
)
def test_engine_may_differ_in_proportion_to_the_largest_logit(
    artifact: Path, tmp_path: Path, name: str, tolerance: float
) -> None:
    """A head of forty times the size makes the differences of any engine forty times as large."""
    other = tmp_path / "other"
    shutil.copytree(artifact, other)
    predictor = Predictor.load(artifact, engine=name)
    for tensor in predictor.adapter.head[-1]:
        assert tensor is not None
        tensor *= 40
    rows = json.loads((other / "golden.json").read_text())
    logits = predictor.forward(predictor.encode([row["text"] for row in rows])).tolist()
    largest = max(abs(logit) for row in logits for logit in row)
    assert largest > 2
    for share in (0.9, 1.1):
        rows = [row | {"logits": found} for row, found in zip(rows, logits, strict=True)]
        best = max(range(3), key=logits[0].__getitem__)
        rows[0]["logits"] = [
            logit + share * tolerance * largest * (i == best) for i, logit in enumerate(logits[0])
        ]
        (other / "golden.json").write_text(json.dumps(rows))
        if share < 1:
            found = saved_predictions.check_golden_predictions(predictor, other)
            assert found == pytest.approx(share * tolerance * largest, rel=0.01)
        else:
            with pytest.raises(EngineOutputMismatch):
                saved_predictions.check_golden_predictions(predictor, other)


def test_an_engine_that_does_not_compute_such_an_encoder_is_no_candidate_again(
    artifact: Path, tmp_path: Path
) -> None:
    loads: list[str] = []

    def load(name: str) -> Predictor:
        loads.append(name)
        if name == "native-bf16":
            raise EngineUnavailable(engine=name, needs="larger heads")
        return Predictor.load(artifact, engine=name)

    names = ["torch-fp32", "native-bf16"]
    for _ in range(2):
        assert list(benchmark_engines(tmp_path, artifact, names, load, shared=True)) == [
            "torch-fp32"
        ]
    assert loads == names


def test_unavailable_engine_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineUnavailable, match=r"compiled-fp32 requires a C\+\+ compiler"):
        engines.get_available_engine_spec("compiled-fp32")
    assert not any("compiled" in name for name in engines.list_auto_engine_candidates())
    if not torch.cuda.is_available():
        with pytest.raises(EngineUnavailable, match="a GPU"):
            engines.get_available_engine_spec("cuda-bf16")


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


def test_benchmark_needs_no_writable_cache(artifact: Path, tmp_path: Path) -> None:
    cache_dir = tmp_path / "file"
    cache_dir.touch()
    speeds = benchmark_engines(
        cache_dir, artifact, ["torch-fp32"], lambda _: Predictor.load(artifact), shared=True
    )
    assert list(speeds) == ["torch-fp32"]


def test_failed_engine_is_left_out_and_its_absence_not_cached(
    artifact: Path, tmp_path: Path
) -> None:
    broken = {"torch-fp32"}

    def load(name: str) -> Predictor:
        if name in broken:
            raise RuntimeError(name)
        return Predictor.load(artifact, engine=name)

    names = ["torch-fp32", "torch-bf16"]
    assert list(benchmark_engines(tmp_path, artifact, names, load, shared=True)) == ["torch-bf16"]
    broken.add("torch-bf16")
    with pytest.raises(RuntimeError, match="torch-bf16"):
        benchmark_engines(tmp_path, artifact, names, load, shared=True)
    broken.clear()
    assert set(benchmark_engines(tmp_path, artifact, names, load, shared=True)) == set(names)


def test_auto_skips_an_engine_that_does_not_load(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Predictor.load

    def failing(directory: Path, *, engine: str, **more: Any) -> Predictor:
        if engine == "torch-bf16":
            raise RuntimeError
        return load(directory, engine=engine, **more)

    monkeypatch.setattr(Predictor, "load", failing)
    speeds = {"torch-bf16": 2.0, "torch-fp32": 1.0}
    monkeypatch.setattr(engine_benchmark, "benchmark_engines", lambda *_, **__: speeds)
    predictor = EngineSelectingEncoderLoader("auto", tmp_path)(artifact, imported=False)
    assert (predictor.engine.name, predictor.engine_speeds) == ("torch-fp32", speeds)


def test_rejected_engine_leaves_memory(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[weakref.ref[Any]] = []

    def check(predictor: Predictor, _: Path) -> None:
        built.append(weakref.ref(predictor.engine))
        if len(built) == 1:
            raise EngineOutputMismatch(engine="torch-bf16", difference=1.0, tolerance=1e-2)

    monkeypatch.setattr(saved_predictions, "check_golden_predictions", check)
    speeds = {"torch-bf16": 2.0, "torch-fp32": 1.0}
    monkeypatch.setattr(engine_benchmark, "benchmark_engines", lambda *_, **__: speeds)
    predictor = EngineSelectingEncoderLoader("auto", tmp_path)(artifact, imported=False)
    assert [engine() for engine in built] == [None, predictor.engine]
