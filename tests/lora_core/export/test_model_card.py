"""Model cards: what the hub reads from them, and that their instructions work."""

import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from transformers import pipeline

from lora_core import manifest
from lora_core.confidence_intervals import wilson_interval
from lora_core.export.hugging_face import export_adapter, export_merged
from lora_core.model_card import ExportFormat, model_card
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import TrainSpec
from tests.hub_stand_in import HubStandIn
from tests.linear_artifact import make_linear_artifact
from tests.lora_artifact import make_lora_artifact
from tests.tiny_artifact import make_artifact

METRICS = {
    "labels": ["bad", "good"],
    "trainable_parameters": 480_386,
    "total_parameters": 24_819_458,
    "examples": {"train": 800, "validation": 100, "test": 200},
    "validation": {"accuracy": 0.8, "macro_f1": 0.79, "loss": 0.4},
    "test": {"accuracy": 0.85, "macro_f1": 0.84, "loss": 0.4},
    "verdict": {"headline": "85.0% of 200 test texts are right.", "sentences": ["Within noise."]},
}
ENCODER_FILES = {"merged/config.json": {"bytes": 1, "sha256": ""}}


def make_manifest(**changes: Any) -> dict[str, Any]:
    """Return the manifest of a LoRA run on the sample base."""
    spec = TrainSpec.model_validate(
        {"method": {"type": "lora", "r": 4, "alpha": 8, "targets": ["query"]}}
    )
    return {
        "created_by": {"loraworks": "0.1.0", "torch": "2.13.0"},
        "spec": spec.model_dump(mode="json"),
        "labels": ["bad", "good"],
        "max_length": 512,
        "calibration": {"temperature": 1.4},
        "metrics": METRICS,
        "files": ENCODER_FILES,
        **changes,
    }


def metadata(card: str) -> dict[str, Any]:
    """Return the metadata as huggingface_hub reads it; it raises on a malformed `model-index`."""
    read = ModelCard(card, ignore_metadata_errors=False)
    assert read.text.strip()
    values: dict[str, Any] = read.data.to_dict()  # type: ignore[no-untyped-call]
    return values


def run_code(card: str, folder: Path) -> str:
    """Run the Python of a card beside the export, without the hub; return the output."""
    [code] = re.findall(r"```python\n(.+?)```", card, flags=re.DOTALL)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=100,
        check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_code_here(card: str, folder: Path) -> str:
    """Do the same in this process, which has loaded the libraries and may not leave the machine."""
    [code] = re.findall(r"```python\n(.+?)```", card, flags=re.DOTALL)
    (folder / "card.py").write_text(code, encoding="utf-8")
    output = io.StringIO()
    with chdir(folder), redirect_stdout(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path("card.py")
    return output.getvalue()


@pytest.mark.parametrize(
    ("card_format", "relation"),
    [
        (ExportFormat.TRANSFORMERS, "finetune"),
        (ExportFormat.PEFT, "adapter"),
        (ExportFormat.LORAWORKS, "finetune"),
    ],
)
def test_metadata_describes_the_model(card_format: ExportFormat, relation: str) -> None:
    card = model_card(make_manifest(), card_format, name="sentiment-1")
    facts = metadata(card)
    [model] = facts.pop("model-index")
    assert facts == {
        "library_name": card_format,
        "pipeline_tag": "text-classification",
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "base_model_relation": relation,
        "datasets": ["cornell-movie-review-data/rotten_tomatoes"],
        "metrics": ["accuracy", "f1"],
        "tags": ["loraworks", "text-classification"],
    }
    assert model["name"] == "sentiment-1"
    [result] = model["results"]
    assert result["dataset"]["split"] == "test"
    accuracy, f1 = result["metrics"]
    low, high = wilson_interval(0.85, 200)
    assert (accuracy["type"], accuracy["value"], accuracy["args"]["texts"]) == (
        *("accuracy", 0.85, 200),
    )
    assert accuracy["args"]["low"] == pytest.approx(low, abs=1e-4)
    assert accuracy["args"]["high"] == pytest.approx(high, abs=1e-4)
    assert (f1["type"], f1["value"], f1["args"]["average"]) == ("f1", 0.84, "macro")


def test_text_describes_training_results_and_calibration() -> None:
    card = model_card(make_manifest(), ExportFormat.TRANSFORMERS, name="sentiment-1")
    assert "| test | 200 | 85.0% | 79.4% to 89.3% | 0.840 |" in card
    assert "| rank, alpha | 4, 8 |" in card
    assert "| adapted layers | query; blocks: all |" in card
    assert "| data | rotten-tomatoes (texts: train 800, validation 100, test 200) |" in card
    assert "| made with | loraworks 0.1.0, torch 2.13.0 |" in card
    assert "85.0% of 200 test texts are right. Within noise." in card
    assert '["bad", "good"]' in card
    assert "the temperature 1.4 fits best. The weights of the last layer are divided by it" in card
    archive = model_card(make_manifest(), ExportFormat.LORAWORKS, name="sentiment-1")
    assert "loraworks divides the logits by it" in archive
    assert "`misclassified/` contain texts" in archive


def test_card_says_that_validation_was_cross_validation_on_training_texts() -> None:
    facts = make_manifest(metrics=METRICS | {"cross_validated": True})
    card = model_card(facts, ExportFormat.LORAWORKS, name="m")
    assert "| cross-validation | 100 | 80.0% |" in card
    assert "(texts: train 800, test 200) |" in card
    assert "But `misclassified/` contains those that cross-validation misclassified" in card
    assert "The training texts. But" not in card


def test_card_of_several_labels_has_thresholds() -> None:
    spec = make_manifest()["spec"] | {"task": {"type": "multi_label", "class_weights": "none"}}
    report = {"macro_f1": 0.7123, "micro_f1": 0.8, "accuracy": 0.5, "loss": 0.2}
    changes = {
        "spec": spec,
        "calibration": {"scale": [1.0, 1.0], "offset": [0.0, 0.0], "thresholds": [0.25, 0.5]},
        "metrics": METRICS | {"test": report, "validation": report},
    }
    card = model_card(make_manifest(**changes), ExportFormat.TRANSFORMERS, name="m")
    assert "A multi-label text classifier with 2 labels" in card
    assert "| split | texts | macro F1 | micro F1 |" in card
    assert "| test | 200 | 0.712 | 0.800 |" in card
    assert '{"bad": 0.25, "good": 0.5}' in card
    assert 'classify("A text to classify.", top_k=None, truncation=True)' in card
    assert "text-embeddings-router" not in card
    facts = metadata(card)
    assert facts["metrics"] == ["f1"]
    macro, micro = facts["model-index"][0]["results"][0]["metrics"]
    assert (macro["value"], macro["args"]["average"]) == (0.7123, "macro")
    assert (micro["value"], micro["args"]["average"]) == (0.8, "micro")


def test_card_of_a_regression_has_its_error() -> None:
    spec = make_manifest()["spec"] | {"task": {"type": "regression"}}
    report = {"rmse": 12.5, "mae": 9.0, "r2": 0.4, "spearman": 0.6, "loss": 0.5}
    changes = {
        "spec": spec,
        "labels": ["value"],
        "calibration": {"scale": [10.0], "offset": [50.0], "half_width": 20.25},
        "metrics": METRICS | {"test": report, "validation": report},
    }
    card = model_card(make_manifest(**changes), ExportFormat.PEFT, name="m")
    assert "A model that predicts a number from a text" in card
    assert "| test | 200 | 12.5 | 9 |" in card
    assert "within 20.25 of the prediction" in card
    assert "num_labels=1," in card
    assert "print(float(logits))" in card
    assert "## Labels" not in card
    assert metadata(card)["metrics"] == ["rmse", "mae"]


def test_card_rounds_errors_to_digits_that_matter() -> None:
    report = {"rmse": 0.0000152449, "mae": 1234567.891}
    changes = {
        "spec": make_manifest()["spec"] | {"task": {"type": "regression"}},
        "metrics": METRICS | {"test": report},
    }
    card = model_card(make_manifest(**changes), ExportFormat.LORAWORKS, name="m")
    assert "| test | 200 | 1.524e-05 | 1.235e+06 |" in card
    rmse, mae = metadata(card)["model-index"][0]["results"][0]["metrics"]
    assert (rmse["value"], mae["value"]) == (1.524e-5, 1_235_000)


def test_configuration_of_a_hub_dataset_is_not_part_of_its_id() -> None:
    spec = make_manifest()["spec"] | {"data": {"source": "hub:glue:sst2"}}
    facts = metadata(model_card(make_manifest(spec=spec), ExportFormat.LORAWORKS, name="m"))
    assert facts["datasets"] == ["glue"]
    dataset = facts["model-index"][0]["results"][0]["dataset"]
    assert (dataset["type"], dataset["config"]) == ("glue", "sst2")
    assert dataset["name"] == "hub:glue:sst2"


def test_card_of_single_labels_has_tuned_thresholds() -> None:
    calibration = {"temperature": 1.4, "thresholds": [0.25, 0.5]}
    card = model_card(
        make_manifest(calibration=calibration), ExportFormat.TRANSFORMERS, name="sentiment-1"
    )
    assert "The pipeline of transformers knows no thresholds" in card
    assert "the temperature 1.4 fits best" in card
    assert "the highest probability / threshold" in card
    assert '{"bad": 0.25, "good": 0.5}' in card


def test_card_claims_no_calibration_that_was_not_fitted() -> None:
    metrics = METRICS | {"calibration": {"fitted": False}}
    calibration = {"temperature": 1.0, "thresholds": [0.5, 0.5]}
    card = model_card(
        make_manifest(calibration=calibration, metrics=metrics), ExportFormat.LORAWORKS, name="m"
    )
    assert "Validation has too few texts to fit a temperature" in card
    assert "fits best" not in card
    assert "best macro F1" not in card

    metrics = METRICS | {"calibration": {"fitted": True}}
    card = model_card(
        make_manifest(calibration=calibration, metrics=metrics), ExportFormat.LORAWORKS, name="m"
    )
    assert "No temperature is fitted, since no validation text is misclassified" in card
    assert "fits best" not in card

    metrics = METRICS | {"calibration": {"fitted": False}}
    spec = make_manifest()["spec"] | {"task": {"type": "multi_label"}}
    calibration = {"scale": [1.0, 1.0], "offset": [0.0, 0.0], "thresholds": [0.5, 0.5]}
    changes = {"spec": spec, "calibration": calibration, "metrics": metrics}
    card = model_card(make_manifest(**changes), ExportFormat.TRANSFORMERS, name="m")
    assert "are fitted" not in card
    assert '{"bad": 0.5, "good": 0.5}' in card

    changes["calibration"] = {"scale": [2, 1], "offset": [0.5, 0], "thresholds": [0.5, 0.5]}
    changes["metrics"] = METRICS | {"calibration": {"fitted": True}}
    card = model_card(make_manifest(**changes), ExportFormat.TRANSFORMERS, name="m")
    assert "are fitted" in card
    assert "But too few validation texts have, or lack, these labels to fit anything: good." in card


@pytest.mark.parametrize(
    ("base", "hub_base", "shown"),
    [
        ("/srv/secret/bases/tiny", None, "a model in a folder"),
        ("tickets:3", None, "the model version tickets:3"),
        ("org/base_model", "org/base_model", r"org/base\_model"),
    ],
)
def test_paths_of_the_host_stay_private(base: str, hub_base: str | None, shown: str) -> None:
    spec = make_manifest()["spec"] | {"base": base}
    sources = {"train": "/srv/secret/train.csv", "validation": "secret/held-out.csv"}
    spec["data"] = {"source": {**sources, "test": "hub:org/reviews"}}
    card = model_card(make_manifest(spec=spec), ExportFormat.TRANSFORMERS, name="m")
    assert "secret" not in card
    assert metadata(card).get("base_model") == hub_base
    assert metadata(card)["datasets"] == ["org/reviews"]
    assert f"| base model | {shown} |" in card
    upload = make_manifest(spec=spec | {"data": {"source": "tickets:2"}})
    facts = metadata(model_card(upload, ExportFormat.TRANSFORMERS, name="m"))
    assert "datasets" not in facts
    assert facts["model-index"][0]["results"][0]["dataset"]["name"] == "tickets:2"


HOSTILE = "---\nx: y\n```\n# <img src=x onerror=alert(1)> | [a](b) `c`"


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"base": None, "method": {"type": "merged"}}},
        {"spec": 3, "labels": None, "metrics": [], "created_by": [], "calibration": "x"},
        {"metrics": {"test": {"accuracy": 2, "macro_f1": -1}, "examples": {"test": 10**400}}},
        {"metrics": {"test": {"accuracy": 0.5}, "examples": {"test": 0}, "verdict": {}}},
        {"metrics": {"test": {"accuracy": float("nan"), "macro_f1": True}, "verdict": 1}},
        {"max_length": 1e300, "calibration": {"temperature": float("inf")}},
        {
            "labels": [HOSTILE, "b"],
            "created_by": {HOSTILE: HOSTILE},
            "spec": {"base": HOSTILE, "method": {"type": HOSTILE}},
            "metrics": {"verdict": {"headline": HOSTILE, "sentences": [HOSTILE, 3]}},
        },
        {"metrics": {"examples": {HOSTILE: 3, "train": "<img src=x>", "test": {"a": HOSTILE}}}},
        {"labels": ["\ud800", "b"], "created_by": {"\ud800": "1"}},
        {"spec": {"task": {"type": []}}, "calibration": {"thresholds": ["x", None]}},
        {
            "labels": [HOSTILE, "b"],
            "spec": {"task": {"type": "multi_label"}},
            "calibration": {"thresholds": [0.5, 1e300]},
            "metrics": {"test": {"macro_f1": 7, "micro_f1": HOSTILE}},
        },
        {"spec": {"task": {"type": "regression"}}, "calibration": {"half_width": HOSTILE}},
    ],
)
def test_card_of_any_manifest_is_valid(changes: dict[str, Any]) -> None:
    """An import chooses what its manifest says."""
    for card_format in ExportFormat:
        card = model_card(make_manifest(**changes), card_format, name="m")
        assert card.encode().decode() == card
        assert metadata(card)["pipeline_tag"] == "text-classification"
        page = MarkdownIt("commonmark").enable("table").render(ModelCard(card).text)
        assert "<img" not in page
        assert page.count("<h1>") == 1
        assert page.count('<a href="') == 0


def test_merged_export_has_a_card_whose_code_runs(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    out = tmp_path / "my model"
    export_merged(artifact, out)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert metadata(card)["library_name"] == "transformers"
    out.rename(tmp_path / "my-model")  # a name in code has no spaces
    assert "'label': '" in run_code_here(card, tmp_path)


@pytest.mark.slow  # runs the code of a card, as the test of a merged export does
@pytest.mark.parametrize("bundled", [True, False])
def test_peft_export_has_a_card_whose_code_runs(tmp_path: Path, bundled: bool) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), labels=("a", "b", "c"))
    out = tmp_path / "adapter"
    export_adapter(artifact, out)
    if not bundled:  # as with a hub base, which has a head for two labels
        shutil.rmtree(out / "base")
        config = out / "adapter_config.json"
        config.write_text(config.read_text().replace(str(out / "base"), str(tmp_path / "base")))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert metadata(card)["library_name"] == "peft"
    assert run_code_here(card, tmp_path).strip() in ("a", "b", "c")


def test_linear_card_describes_scikit_learn(tmp_path: Path) -> None:
    artifact = make_linear_artifact(tmp_path / "words")
    card = model_card(manifest.read(artifact), ExportFormat.LORAWORKS, name="words")
    assert "base_model" not in metadata(card)
    assert "TF-IDF and logistic regression" in card
    run_code_here(card + "print(decision.shape)\n", tmp_path)


def test_exported_files_have_ordinary_modes(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    export_merged(artifact, tmp_path / "merged")
    export_adapter(artifact, tmp_path / "adapter")
    for out in (tmp_path / "merged", tmp_path / "adapter"):
        modes = {path.name: path.stat().st_mode & 0o777 for path in (out, *out.rglob("*"))}
        directories = {out.name, "base"}
        assert modes == {name: 0o755 if name in directories else 0o644 for name in modes}


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    before = os.umask(0o027)
    try:
        export_merged(artifact, tmp_path / "merged")
    finally:
        os.umask(before)
    assert (tmp_path / "merged").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "merged" / "model.safetensors").stat().st_mode & 0o777 == 0o640


def test_export_can_be_uploaded_and_loaded(tmp_path: Path) -> None:
    """`hf upload`, as docs/how-to/exchange.md shows it."""
    export_merged(make_lora_artifact(tmp_path, LoraSpec(r=2)), tmp_path / "tickets-1-transformers")
    (tmp_path / "hub" / "models").mkdir(parents=True)
    with HubStandIn(tmp_path / "hub") as hub:
        hf = str(Path(sys.executable).with_name("hf"))
        environment = {**os.environ, **hub.environment(tmp_path / "cache"), "HF_TOKEN": "hf_x"}
        done = subprocess.run(
            [hf, "upload", "org/tickets", "tickets-1-transformers", "--private"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    uploaded = tmp_path / "hub" / "models" / "org" / "tickets"
    sent = {path.name: path.read_bytes() for path in uploaded.iterdir()}
    exported = (tmp_path / "tickets-1-transformers").iterdir()
    assert sent == {path.name: path.read_bytes() for path in exported}
    assert pipeline("text-classification", model=str(uploaded))("a good film")
    assert json.loads(sent["config.json"])["id2label"] == {"0": "bad", "1": "good"}


@pytest.mark.slow  # runs the code of a card, as the test of a merged export does
def test_card_of_a_pair_model_has_code_that_runs(tmp_path: Path) -> None:
    export_merged(make_artifact(tmp_path / "made", pairs=True), tmp_path / "pairs")
    card = (tmp_path / "pairs" / "README.md").read_text(encoding="utf-8")
    assert "A classifier of text pairs" in card
    assert "'label': '" in run_code(card, tmp_path)
    linear = make_linear_artifact(tmp_path / "words")
    facts = manifest.read(linear)
    facts["spec"]["data"]["text_pair_column"] = "second"
    assert "first.multiply(second).sqrt()" in model_card(
        facts, ExportFormat.LORAWORKS, name="words"
    )


@pytest.mark.slow  # runs the code of a card, as the test of a merged export does
def test_card_says_how_windows_are_computed(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "made", windows=True, max_length=16)
    export_merged(artifact, tmp_path / "windows")
    card = (tmp_path / "windows" / "README.md").read_text(encoding="utf-8")
    assert "read the first window only" in card
    assert "stride=3," in card
    for part in card.split("## Long texts"):
        run_code(part, tmp_path)
    adapter = make_lora_artifact(
        tmp_path, LoraSpec(r=2), max_length=16, data=DataSpec(long_texts="windows")
    )
    export_adapter(adapter, tmp_path / "adapter")
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"```python\n(.+?)```", card, flags=re.DOTALL))
    output = run_code(f"```python\n{blocks}print(logits.shape)\n```", tmp_path)
    assert output.splitlines()[-1] == "torch.Size([2])"


@pytest.mark.parametrize(("skill", "shown"), [(0.75, "0.750"), (-0.1, "-0.100")])
def test_card_of_several_targets_has_their_mean_skill(skill: float, shown: str) -> None:
    task = {"type": "several_targets", "targets": {"stars": {"type": "regression"}, "topic": {}}}
    report = {"skill": skill, "loss": 0.5, "targets": {}}
    changes = {
        "spec": make_manifest()["spec"] | {"task": task},
        "labels": ["stars/value", "topic/billing", "topic/refund"],
        "metrics": METRICS | {"test": report, "validation": report},
    }
    card = model_card(make_manifest(**changes), ExportFormat.LORAWORKS, name="m")
    assert "A model that predicts several targets of a text" in card
    assert f"| test | 200 | {shown} | 0.500 |" in card
    assert '"topic/refund"' in card
    assert not metadata(card).get("metrics")


def test_card_of_an_archive_says_which_texts_are_unfamiliar() -> None:
    found = {"examples": 1000, "held_out": 853, "similarity": -0.1, "expected_share": 0.0094}
    facts = make_manifest(nearest_examples=found)
    card = model_card(facts, ExportFormat.LORAWORKS, name="m")
    assert "The vectors of 1,000 training texts" in card
    assert "853 held-out texts: of texts like these, 0.9% are" in card
    assert "## Unfamiliar" not in model_card(facts, ExportFormat.PEFT, name="m")
    for unusable in ({}, {"examples": "<b>"}, {**found, "held_out": None}, "text"):
        facts = make_manifest(nearest_examples=unusable)
        assert "## Unfamiliar" not in model_card(facts, ExportFormat.LORAWORKS, name="m")
