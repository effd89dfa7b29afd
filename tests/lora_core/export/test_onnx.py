"""Exports to ONNX: plain ONNX Runtime computes the logits of transformers, or they are refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from lora_core import manifest
from lora_core.artifact import read_labels
from lora_core.encoders.encoder_parts import family_of, get_linear_submodule
from lora_core.errors.artifact import TargetRequired
from lora_core.errors.export import (
    Int8Mismatch,
    Int8RegressionUnsupported,
    NoEncoder,
    NotTranslatableToOnnx,
    OnnxMismatch,
    OnnxPackagesMissing,
    OutputExists,
    TooFewCertificationTexts,
)
from lora_core.export import onnx as onnx_export
from lora_core.export.hugging_face import export_merged
from lora_core.export.onnx import export_onnx, read_int8_certification_texts
from lora_core.export.onnx_certificate import OnnxCertificate, read_onnx_certificate
from lora_core.export.onnx_graph import export_onnx_graph
from lora_core.inference.predictor import Predictor
from lora_core.specs.method import LoraSpec
from lora_core.specs.task import SingleLabelSpec
from lora_core.tasks.base import Calibration
from tests.linear_artifact import make_linear_artifact
from tests.lora_artifact import make_lora_artifact
from tests.lora_core.export.test_model_card import run_code
from tests.tiny_artifact import (
    PAIRS,
    TARGETS,
    TEXTS,
    make_artifact,
    make_multi_label_artifact,
    make_regression_artifact,
    make_several_targets_artifact,
)
from tests.tiny_base import EVERY_FAMILY, make_base, make_reviews, modernbert

ROOT = Path(__file__).parents[3]
# The one whose attention differs most; the others are translated in the same way.
QUICK = {"modernbert"}
FAMILIES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EVERY_FAMILY
]
BATCHES: list[list[Any]] = [  # the graph is traced with 2 texts of 8 tokens
    ["a good film"],
    ["dull", "not a very good story and it was boring " * 9, "the plot of it", "x", "a film"],
    ["the hero of the story " * 3] * 3,
]


def onnx_logits(folder: Path, texts: Sequence[Any]) -> NDArray[np.float32]:
    """Compute logits with plain ONNX Runtime and the tokenizer of the export."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="np")
    session = InferenceSession(folder / "model.onnx")
    feed = {each.name: batch[each.name] for each in session.get_inputs()}
    [logits] = session.run(["logits"], feed)
    return np.asarray(logits)


def transformers_logits(folder: Path, texts: Sequence[Any]) -> NDArray[np.float32]:
    """Compute logits with transformers, each text alone: nothing is padded."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        rows = [
            model(**tokenizer([each], truncation=True, return_tensors="pt")).logits
            for each in texts
        ]
    return torch.cat(rows).numpy()


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Path, OnnxCertificate]]:
    """Return a function that exports a model of a family once: it takes seconds."""

    @cache
    def export(family: str) -> tuple[Path, OnnxCertificate]:
        folder = tmp_path_factory.mktemp(family)
        artifact = make_lora_artifact(folder, LoraSpec(r=3), family=family, max_length=60)
        certificate = export_onnx(artifact, folder / "onnx")
        export_merged(artifact, folder / "merged")
        return folder, certificate

    return export


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_runtime_computes_the_logits_of_transformers(
    family: str, exported: Callable[[str], tuple[Path, OnnxCertificate]]
) -> None:
    folder, certificate = exported(family)
    assert certificate.largest_difference < 1e-5
    assert certificate.equal_labels == 1
    assert certificate.longest_text == 60
    for texts in BATCHES:
        expected = transformers_logits(folder / "merged", texts)
        np.testing.assert_allclose(onnx_logits(folder / "onnx", texts), expected, rtol=0, atol=1e-5)


@pytest.mark.slow  # translates a model, which takes 5 s
def test_exported_files(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), calibration=Calibration(temperature=2.0))
    out = tmp_path / "onnx"
    certificate = export_onnx(artifact, out)
    export_merged(artifact, tmp_path / "merged")
    assert {path.name for path in out.iterdir()} == {
        "model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md",
        "loraworks.json", "certificate.json",
    }  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json", "loraworks.json"):
        assert (out / name).read_bytes() == (tmp_path / "merged" / name).read_bytes()
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert config["architectures"] == ["DistilBertForSequenceClassification"]
    assert read_onnx_certificate(out) == certificate
    assert certificate.precision == "fp32"
    assert certificate.texts == len(TEXTS) + 1  # and one as long as the model reads
    assert certificate.tolerance == 1e-3
    assert certificate.versions.keys() >= {"loraworks", "torch", "onnx", "onnxruntime"}
    with pytest.raises(OutputExists):
        export_onnx(artifact, out)


@pytest.mark.slow  # translates a model, which takes 5 s
def test_segments_of_pairs_are_an_input(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), family="bert", pairs=True)
    export_onnx(artifact, tmp_path / "onnx")
    export_merged(artifact, tmp_path / "merged")
    expected = transformers_logits(tmp_path / "merged", PAIRS)
    np.testing.assert_allclose(onnx_logits(tmp_path / "onnx", PAIRS), expected, rtol=0, atol=1e-5)
    session = InferenceSession(tmp_path / "onnx" / "model.onnx")
    inputs = {each.name: each.shape for each in session.get_inputs()}
    assert list(inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(shape == ["batch", "sequence"] for shape in inputs.values())
    assert run_first_code(tmp_path / "onnx").strip() in ("bad", "good")


def run_first_code(folder: Path) -> str:
    """Run the code for ONNX Runtime in a model card beside the export; return the output."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    return run_code(card.partition("With Optimum")[0], folder.parent)


@pytest.mark.slow  # translates a model, which takes 5 s
def test_calibration_is_part_of_the_graph(tmp_path: Path) -> None:
    artifact = make_multi_label_artifact(tmp_path / "made")
    certificate = export_onnx(artifact, tmp_path / "onnx")
    assert certificate.equal_labels == 1
    scores = 1 / (1 + np.exp(-onnx_logits(tmp_path / "onnx", TEXTS)))
    predictor = Predictor.load(artifact)
    for row, expected in zip(scores, predictor.predict(TEXTS), strict=True):
        by_label = dict(zip(predictor.labels, row, strict=True))
        assert by_label == pytest.approx(dict(expected), abs=1e-5)
    assert "'acting'" in run_first_code(tmp_path / "onnx")


@pytest.mark.slow  # translates a model, which takes 5 s
def test_numbers_have_their_unit(tmp_path: Path) -> None:
    artifact = make_regression_artifact(tmp_path / "made")
    certificate = export_onnx(artifact, tmp_path / "onnx")
    assert certificate.equal_labels is None
    assert certificate.tolerance == 2e-3  # for a standard deviation of 2
    predicted = [outputs[0][1] for outputs in Predictor.load(artifact).predict(TEXTS)]
    np.testing.assert_allclose(onnx_logits(tmp_path / "onnx", TEXTS)[:, 0], predicted, atol=1e-5)
    float(run_first_code(tmp_path / "onnx"))


@pytest.mark.slow  # translates a model, which takes 5 s
@pytest.mark.parametrize(
    "target",
    ["stars", *(pytest.param(name, marks=pytest.mark.slow) for name in ("flags", "topic"))],
)
def test_one_of_several_targets(target: str, tmp_path: Path) -> None:
    metrics = {"validation": {"skill": 0.5, "targets": {name: {} for name in TARGETS}}}
    artifact = make_several_targets_artifact(tmp_path / "made", metrics=metrics)
    facts = manifest.read(artifact)
    facts.pop("files")
    (artifact / "manifest.json").unlink()
    manifest.create_and_save(artifact, {**facts, "labels": read_labels(artifact)})
    with pytest.raises(TargetRequired):
        export_onnx(artifact, tmp_path / "onnx")
    export_onnx(artifact, tmp_path / "onnx", target=target)
    export_merged(artifact, tmp_path / "merged", target=target)
    expected = transformers_logits(tmp_path / "merged", TEXTS)
    np.testing.assert_allclose(onnx_logits(tmp_path / "onnx", TEXTS), expected, rtol=0, atol=1e-5)


@pytest.mark.slow  # translates a model, which takes 5 s
def test_windows_are_certified_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(tmp_path / "made", windows=True, max_length=16)
    text = "the film was dull and the plot of it boring " * 5
    monkeypatch.setattr(onnx_export, "load_golden_predictions", lambda _: ([text], None))
    certificate = export_onnx(artifact, tmp_path / "windows")
    assert certificate.longest_text == 16  # no sequence in the graph was longer
    card = (tmp_path / "windows" / "README.md").read_text(encoding="utf-8")
    assert "A run with a truncated text reads the first window only" in card
    code = card.partition("## Long texts")[2].replace("A long text to classify.", text)
    logits = run_code(
        code.replace("mean(axis=0)", "mean(axis=0).tolist()\nprint(logits)"), tmp_path
    )
    predictor = Predictor.load(artifact)
    expected = predictor.forward(predictor.encode([text]))[0]
    np.testing.assert_allclose(json.loads(logits), expected, atol=1e-5)


# -- Refusals -------------------------------------------------------------------------------------


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change one weight on the way into the graph."""

    def write(path: Path, model: PreTrainedModel, *, segments: bool) -> None:
        last = get_linear_submodule(model, family_of(model).head[-1])
        with torch.no_grad():
            last.weight[0, 0] += 0.1
        export_onnx_graph(path, model, segments=segments)

    monkeypatch.setattr(onnx_export, "export_onnx_graph", write)


@pytest.mark.slow  # translates a model, which takes 5 s
@pytest.mark.usefixtures("damaged")
def test_graph_with_other_logits_is_refused(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "made")
    with pytest.raises(OnnxMismatch, match=r"at most 1\.00e-03"):
        export_onnx(artifact, tmp_path / "out" / "onnx")
    assert list((tmp_path / "out").iterdir()) == []


def test_graph_without_the_temperature_is_refused(
    exported: Callable[[str], tuple[Path, OnnxCertificate]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The graph is that of the same model with a temperature of 1."""
    folder, _ = exported("modernbert")

    def write(path: Path, model: PreTrainedModel, *, segments: bool) -> None:
        shutil.copy(folder / "onnx" / "model.onnx", path)

    monkeypatch.setattr(onnx_export, "export_onnx_graph", write)
    calibration = Calibration(temperature=1.1)
    artifact = make_lora_artifact(
        tmp_path, LoraSpec(r=3), family="modernbert", max_length=60, calibration=calibration
    )
    with pytest.raises(OnnxMismatch, match=r"at most 1\.00e-03"):
        export_onnx(artifact, tmp_path / "out" / "onnx")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow  # translates a model, which takes 5 s
def test_attention_that_hides_every_token_is_not_nan(tmp_path: Path) -> None:
    """Padding far from a text sees nothing within the window of a block."""
    base = make_base(tmp_path / "base", "modernbert", local_attention=4)
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), family="modernbert", base=base)
    export_onnx(artifact, tmp_path / "onnx")
    assert np.isfinite(onnx_logits(tmp_path / "onnx", ["a", "the film " * 30])).all()


@pytest.mark.slow  # translates a model, which takes 5 s
def test_encoder_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    model = modernbert()
    model.head.act = Counting()
    with pytest.raises(NotTranslatableToOnnx, match="'modernbert' model to ONNX: "):
        export_onnx_graph(tmp_path / "model.onnx", model, segments=False)


def test_linear_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoEncoder, match="ONNX"):
        export_onnx(make_linear_artifact(tmp_path / "made"), tmp_path / "onnx")


def test_missing_package_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(OnnxPackagesMissing, match=r"needs onnxscript.*pip install onnx "):
        export_onnx(make_artifact(tmp_path / "made"), tmp_path / "onnx")


# -- int8 -----------------------------------------------------------------------------------------


def reviews(tmp_path: Path, rows: int = 500) -> list[Any]:
    make_reviews(tmp_path / "texts.csv", rows)
    return read_int8_certification_texts(
        make_artifact(tmp_path / "reader"), str(tmp_path / "texts.csv")
    )


@pytest.mark.slow  # the small form refuses too few texts
def test_int8_is_certified_on_500_texts(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "made")
    export_onnx(artifact, tmp_path / "fp32")
    texts = reviews(tmp_path)
    certificate = export_onnx(artifact, tmp_path / "int8", int8_texts=texts)
    assert certificate.model_copy(update={"versions": {}}) == OnnxCertificate(
        precision="int8", texts=500, longest_text=certificate.longest_text,
        largest_difference=certificate.largest_difference, tolerance=None,
        equal_labels=certificate.equal_labels, versions={},
    )  # fmt: skip
    assert 0 < certificate.largest_difference < 1
    sizes = [(tmp_path / each / "model.onnx").stat().st_size for each in ("int8", "fp32")]
    assert sizes[0] < sizes[1]
    fp32, int8 = (onnx_logits(tmp_path / each, texts) for each in ("fp32", "int8"))
    assert np.abs(fp32 - int8).max() == pytest.approx(certificate.largest_difference, rel=0.2)
    assert (fp32.argmax(1) == int8.argmax(1)).mean() == certificate.equal_labels


@pytest.mark.slow  # translates a model, which takes 5 s
def test_int8_with_other_labels_is_refused(tmp_path: Path) -> None:
    """Half of the texts are above the threshold, and many are near it."""
    texts = reviews(tmp_path)
    predictor = Predictor.load(make_artifact(tmp_path / "first"))
    bad, good = predictor.forward(predictor.encode(texts)).T
    threshold = float((good - bad).median().sigmoid())
    artifact = make_artifact(
        tmp_path / "made",
        task=SingleLabelSpec(tune_thresholds=True),
        calibration=Calibration(temperature=1.0, thresholds=(1 - threshold, threshold)),
    )
    with pytest.raises(Int8Mismatch, match="Nothing was exported"):
        export_onnx(artifact, tmp_path / "onnx", int8_texts=texts)
    assert not (tmp_path / "onnx").exists()


def test_int8_needs_enough_texts_and_labels(tmp_path: Path) -> None:
    texts = reviews(tmp_path, 499)
    with pytest.raises(TooFewCertificationTexts, match="at least 500 texts, and there are 499"):
        export_onnx(make_artifact(tmp_path / "made"), tmp_path / "onnx", int8_texts=texts)
    numbers = make_regression_artifact(tmp_path / "numbers")
    with pytest.raises(Int8RegressionUnsupported):
        export_onnx(numbers, tmp_path / "onnx", int8_texts=texts)


# -- Optimum --------------------------------------------------------------------------------------

OPTIMUM = ROOT / ".venv-optimum" / "bin" / "python"  # `make .venv-optimum/.made`
LOAD = """
import json, sys
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline
model = ORTModelForSequenceClassification.from_pretrained(sys.argv[1])
classify = pipeline("text-classification", model=model,
                    tokenizer=AutoTokenizer.from_pretrained(sys.argv[1]), top_k=None)
print(json.dumps(classify(json.loads(sys.argv[2]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", ["distilbert", "bert", "roberta", "modernbert", "deberta-v2"])
def test_optimum_loads_it(family: str, tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=3), family=family)
    export_onnx(artifact, tmp_path / "onnx")
    done = subprocess.run(
        [OPTIMUM, "-c", LOAD, tmp_path / "onnx", json.dumps(TEXTS)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    predicted = Predictor.load(artifact).predict(TEXTS)
    answers = json.loads(done.stdout.splitlines()[-1])
    for row, expected in zip(answers, predicted, strict=True):
        scores = {each["label"]: each["score"] for each in row}
        assert scores == pytest.approx(dict(expected), abs=1e-5)
