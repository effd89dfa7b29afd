"""Versions are exported to another service or program, and imported."""

import json
import re
import shutil
import sys
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from app.cli import models
from app.cli.client import Client
from app.cli.errors import RunFailed, ServiceUnreachableOrFailed
from app.cli.files import save_verified_archive
from app.cli.held_out_texts import write_held_out_texts
from app.main import create_app
from app.registry.schemas import VersionView
from app.resources import Resources
from app.settings import Settings
from lora_core import manifest
from lora_core.data.load import load_splits
from lora_core.export.onnx import read_int8_certification_texts
from lora_core.inference.predictor import Predictor
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import AutoSpec, CandidateSpec, LinearSpec, LoraSpec, LoraVariant
from lora_core.specs.task import SingleLabelSpec
from lora_core.specs.train import TrainSpec
from lora_core.tasks.base import Calibration
from lora_core.training.auto import train_auto
from tests.app.cli.conftest import Run, answer, serving
from tests.app.cli.versions import add_version
from tests.hostile_archives import packed
from tests.lora_artifact import make_lora_artifact
from tests.recording_observer import RecordingObserver
from tests.tiny_artifact import TEXTS, make_artifact
from tests.tiny_base import make_reviews

pytestmark = pytest.mark.e2e

FAILED = {"event": "failed", "code": "not_so", "message": "Not so.", "detail": {}}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_lora_artifact(tmp_path, LoraSpec(variant=LoraVariant.DORA, r=3))


@pytest.fixture
def version(resources: Resources, artifact: Path, tmp_path: Path) -> str:
    """`sentiment:1`, in production."""
    return add_version(resources, artifact, tmp_path / "copy")


@pytest.fixture
def other(run: Run, migrated: Path, tmp_path: Path) -> Iterator[Run]:
    """A command connected to another, empty installation."""
    settings = Settings(data_dir=tmp_path / "other", log_level="ERROR", engine="torch-fp32")
    settings.data_dir.mkdir()
    shutil.copyfile(migrated, settings.default_sqlite_path)
    with serving(create_app(settings)) as url:
        yield lambda *arguments, **more: run(*arguments, LORAWORKS_URL=url, **more)


@pytest.mark.slow  # the small form is in tests/lora_core/test_main.py
def test_exported_version_predicts_the_same_elsewhere(
    cli: Run, other: Run, version: str, artifact: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.tar"
    response = answer(cli("models", "export", version, "--out", str(file), "--json"))
    assert response == {
        "ref": "sentiment:1",
        "format": "loraworks",
        "path": str(file),
        "thresholds": None,
    }
    moved = answer(other("models", "import", str(file), "--name", "moved", "--json"))
    assert (moved["ref"], moved["job_id"], moved["method"]) == ("moved:1", None, "lora")
    assert moved["metrics"] == manifest.read(artifact)["metrics"]
    assert other("models", "promote", "moved:1").exit_code == 0
    here = answer(cli("predict", *TEXTS, "--json"))
    there = answer(other("predict", *TEXTS, "--json"))
    assert there["model"] == "moved:1"
    for one, other_one in zip(here["predictions"], there["predictions"], strict=True):
        for a, b in zip(one["labels"], other_one["labels"], strict=True):
            assert a == {"label": b["label"], "score": pytest.approx(b["score"], abs=1e-6)}
    again = other("models", "import", str(artifact), "--name", "moved")  # the folder, now
    assert "Imported moved:2." in again.stdout, again.output


@pytest.mark.parametrize(
    "ref",
    [
        "sentiment",
        pytest.param("sentiment@production", marks=pytest.mark.slow),
        pytest.param("sentiment:1", marks=pytest.mark.slow),
    ],
)
def test_version_references(
    ref: str, cli: Run, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "Exported sentiment:1 to sentiment-1.tar." in cli("models", "export", ref).stdout
    with tarfile.open("sentiment-1.tar") as tar:
        assert any(name.endswith("base/model.safetensors") for name in tar.getnames())
        tar.extractall("unpacked", filter="data")
    [folder] = Path("unpacked").iterdir()
    assert "python -m lora_core predict" in (folder / "README.md").read_text()
    imported = cli("models", "import", str(folder), "--name", "unpacked", "--json")
    assert answer(imported)["ref"] == "unpacked:1"
    again = cli("models", "export", ref)
    assert (again.exit_code, "(output_exists)" in again.stderr) == (2, True)


def test_invalid_version_references(cli: Run, version: str) -> None:
    for ref in ("sentiment:2", "sentiment@candidate"):
        missing = cli("models", "export", ref)
        assert (missing.exit_code, "its versions are sentiment:1" in missing.stderr) == (2, True)
    assert cli("models", "export", "other").exit_code == 3


@pytest.fixture
def on_a_version(resources: Resources, tmp_path: Path) -> Path:
    """The artifact of `second:1`, whose base is `first:1`: only the service has it."""
    origin = make_artifact(tmp_path / "origin", seed=0)
    add_version(resources, origin, tmp_path / "first", name="first")
    spec = LoraSpec(variant=LoraVariant.DORA, r=3)
    trained = make_lora_artifact(tmp_path / "second", spec, base=origin / "merged")
    facts = manifest.read(trained)
    facts["spec"]["base"] = "first:1"
    facts.pop("files")
    (trained / "manifest.json").unlink()
    manifest.create_and_save(trained, facts)
    add_version(resources, trained, tmp_path / "copied", name="second")
    return trained


@pytest.mark.slow  # the small forms are in tests/lora_core/export
def test_peft_and_transformers_exports_match_and_reimport(
    cli: Run, other: Run, on_a_version: Path, tmp_path: Path
) -> None:
    """One test for all, because each export loads torch in a process."""
    predictor = Predictor.load(on_a_version)
    expected = predictor.forward(predictor.encode(TEXTS))
    for form in ("peft", "transformers"):
        out = str(tmp_path / form)
        done = cli("models", "export", "second", "--format", form, "--out", out)
        assert done.exit_code == 0, done.output
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "peft" / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about what PEFT calls
        wrapped = PeftModel.from_pretrained(base, tmp_path / "peft")
    for model in (
        wrapped,
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "transformers"),
    ):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "transformers")
        batch = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = model.eval()(**batch).logits
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)

    labels = {"bad": "no", "good": "yes"}
    named = ("--labels", ",".join(labels.values()))
    adapter = str(tmp_path / "peft")
    moved = answer(other("models", "import", adapter, "--name", "moved", *named, "--json"))
    assert (moved["method"], moved["metrics"]["labels"]) == ("lora", [*labels.values()])
    there = answer(other("predict", *TEXTS, "--model", "moved:1", "--json"))
    here = answer(cli("predict", *TEXTS, "--model", "second:1", "--json"))
    for ours, theirs in zip(here["predictions"], there["predictions"], strict=True):
        for a, b in zip(ours["labels"], theirs["labels"], strict=True):
            assert labels[a["label"]] == b["label"]
            assert a["score"] == pytest.approx(b["score"], abs=1e-5)


def test_errors_of_an_export_name_the_version(
    cli: Run, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the name of the folder that it is downloaded to."""
    run = Mock(side_effect=RunFailed("not so", "not_so"))
    monkeypatch.setattr(models, "run_lora_core", run)
    refused = cli("models", "export", version, "--format", "peft")
    assert (refused.exit_code, "(not_so)" in refused.stderr) == (1, True)
    assert Path(run.call_args.args[1]).name == "sentiment-1"


def test_texts_of_a_certificate_may_be_on_any_sheet(
    cli: Run, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Mock(side_effect=RunFailed("not so", "not_so"))
    monkeypatch.setattr(models, "run_lora_core", run)
    texts = f"{tmp_path / 'texts.xlsx'}#Sheet2"
    export = ("models", "export", version, "--format", "onnx", "--int8", "--texts", texts)
    refused = cli(*export)
    assert (refused.exit_code, "(no_file)" in refused.stderr) == (2, True)
    (tmp_path / "texts.xlsx").touch()
    refused = cli(*export)
    assert (refused.exit_code, "(not_so)" in refused.stderr) == (1, True), refused.output
    assert run.call_args.args[-2:] == ("--texts", texts)


def test_export_names_the_thresholds_that_other_programs_lack(
    cli: Run, resources: Resources, tmp_path: Path
) -> None:
    tuned = make_artifact(
        tmp_path / "made",
        task=SingleLabelSpec(tune_thresholds=True),
        calibration=Calibration(temperature=1.0, thresholds=(0.3, 0.7)),
    )
    add_version(resources, tuned, tmp_path / "copied", name="tuned")
    done = cli(
        "models", "export", "tuned", "--format", "transformers", "--out", str(tmp_path / "out")
    )
    assert done.exit_code == 0, done.output
    assert "transformers knows no thresholds of labels" in " ".join(done.stderr.split())
    assert "bad 0.3, good 0.7" in " ".join(done.stderr.split())
    usage = json.loads((tmp_path / "out" / "loraworks.json").read_text())
    assert usage == {
        "task": {"type": "single_label", "class_weights": "none", "tune_thresholds": True},
        "text_pairs": False,
        "thresholds": {"bad": 0.3, "good": 0.7},
    }
    classify = pipeline("text-classification", model=str(tmp_path / "out"))
    assert {each["label"] for each in classify(list(TEXTS))} <= {"bad", "good"}


@pytest.mark.slow
def test_onnx_export_prints_its_certificate(cli: Run, resources: Resources, tmp_path: Path) -> None:
    add_version(resources, make_artifact(tmp_path / "made"), tmp_path / "copied", name="mail")
    export = ("models", "export", "mail", "--format", "onnx", "--out")
    done = cli(*export, str(tmp_path / "onnx"))
    assert done.exit_code == 0, done.output
    assert re.search(
        r"ONNX Runtime [\d.]+, fp32: on 4 texts outputs differ by at most \S+ "
        r"\(accepted: 0\.001\), and 100\.0% have the same labels\.",
        done.stdout,
    )
    printed = answer(cli(*export, str(tmp_path / "again"), "--json"))
    stored = json.loads((tmp_path / "again" / "certificate.json").read_text())
    assert printed["certificate"] == stored
    refused = cli(*export, str(tmp_path / "int8"), "--int8")
    assert (refused.exit_code, "(int8_texts_required)" in refused.stderr) == (1, True)
    assert not (tmp_path / "int8").exists()


def held_out_texts(url: str, artifact: Path, work: Path) -> list[Any]:
    work.mkdir()
    with Client(url) as client:
        path = write_held_out_texts(client, artifact, work)
    return list(read_int8_certification_texts(artifact, str(path)))


def set_source(artifact: Path, source: str | dict[str, str]) -> None:
    facts = manifest.read(artifact)
    facts["spec"]["data"]["source"] = source
    facts.pop("files")
    (artifact / "manifest.json").unlink()
    manifest.create_and_save(artifact, facts)


def test_held_out_texts_are_those_of_validation_and_test(
    cli: Run, url: str, tmp_path: Path
) -> None:
    file = make_reviews(tmp_path / "reviews.csv", 300)
    ref = answer(cli("datasets", "upload", str(file), "--json"))["ref"]
    artifact = make_artifact(tmp_path / "made")
    set_source(artifact, {"train": ref, "test": ref})
    local = {Split.TRAIN: str(file), Split.TEST: str(file)}
    splits = load_splits(DataSpec.model_validate({"source": local}))
    assert held_out_texts(url, artifact, tmp_path / "work") == list(
        dict.fromkeys(each.text for each in (*splits.validation, *splits.test))
    )


def test_texts_that_auto_trained_on_are_not_held_out(cli: Run, url: str, tmp_path: Path) -> None:
    """It trains the selected method on a validation split that was drawn, too."""
    file, artifact = make_reviews(tmp_path / "reviews.csv", 300), tmp_path / "made"
    ref = answer(cli("datasets", "upload", str(file), "--json"))["ref"]
    method = AutoSpec(candidates=(CandidateSpec(method=LinearSpec(), folds=1),))
    spec = TrainSpec(data=DataSpec(source=str(file)), method=method)
    observer = RecordingObserver()
    train_auto(spec, out_dir=artifact, observer=observer, stop=observer)
    set_source(artifact, ref)
    splits = load_splits(DataSpec(source=str(file)))
    assert splits.validation
    assert held_out_texts(url, artifact, tmp_path / "work") == list(
        dict.fromkeys(each.text for each in splits.test)
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--int8",),
        ("--texts", __file__),
        ("--format", "onnx", "--texts", __file__),
        ("--base", "x"),
        ("--format", "onnx", "--base", "x"),
    ],
)
def test_options_of_a_format_are_refused_for_others(
    options: tuple[str, ...], cli: Run, version: str
) -> None:
    refused = cli("models", "export", "sentiment", *options)
    assert (refused.exit_code, "(wrong_options)" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    "options",
    [("--labels", "bad,good"), ("--pairs",), ("--task", "regression"), ("--base", "x")],
)
def test_options_of_adapters_are_refused_for_other_imports(
    options: tuple[str, ...], cli: Run, tmp_path: Path
) -> None:
    file, folder = tmp_path / "m.tar", tmp_path / "model"
    file.touch()
    folder.mkdir()
    (folder / manifest.MANIFEST_FILE).touch()
    for source in (file, folder):
        refused = cli("models", "import", str(source), "--name", "moved", *options)
        assert (refused.exit_code, "(wrong_options)" in refused.stderr) == (2, True)


def test_unsupported_adapter_setting_is_rejected(other: Run, tmp_path: Path) -> None:
    config = {"task_type": "SEQ_CLS", "peft_type": "LORA", "r": 3, "bias": "all"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").touch()
    refused = other("models", "import", str(tmp_path), "--name", "moved")
    assert (refused.exit_code, "(adapter_setting_unsupported)" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (f"print({json.dumps(FAILED)!r}); raise SystemExit(65)", "Not so. (not_so)"),
        ("raise SystemExit('out of luck')", "status 1: out of luck (crashed)"),
    ],
    ids=["a cause", "a crash"],
)
def test_library_failure_is_reported(
    program: str, message: str, other: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "app.cli.local_subprocess.LORA_CORE_COMMAND", (sys.executable, "-c", program)
    )
    (tmp_path / "adapter_config.json").touch()
    refused = other("models", "import", str(tmp_path), "--name", "moved")
    assert (refused.exit_code, refused.stderr.endswith(f"{message}\n")) == (1, True), refused.stderr


def test_folder_without_model_is_rejected(other: Run, tmp_path: Path) -> None:
    none = other("models", "import", str(tmp_path), "--name", "moved")
    assert (none.exit_code, "(no_model)" in none.stderr) == (2, True)


def test_damaged_file_is_rejected(other: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(b"x" * 2048)
    refused = other("models", "import", str(file), "--name", "moved")
    assert (refused.exit_code, "(archive_broken)" in refused.stderr) == (3, True)
    missing = other("models", "import", str(tmp_path / "none"), "--name", "moved")
    assert missing.exit_code == 2


def test_incomplete_download_leaves_no_file(tmp_path: Path) -> None:
    made = make_artifact(tmp_path / "made")
    whole = packed(made)
    out = tmp_path / "out"
    for content in (whole[: len(whole) // 2], whole.replace(b"logits", b"LOGITS"), b""):
        with pytest.raises(ServiceUnreachableOrFailed, match="incomplete"):
            save_verified_archive(iter([content]), out / "m.tar")
        assert list(out.iterdir()) == []
    save_verified_archive(iter([whole]), out / "m.tar")
    assert (out / "m.tar").read_bytes() == whole


def test_the_base_in_an_artifact_is_not_looked_up(on_a_version: Path, url: str) -> None:
    """The version that a model was trained on may be deleted, or another one elsewhere."""
    work = on_a_version.parent / "work"
    shutil.copytree(on_a_version, work / "artifact")
    needed: dict[str, Any] = {"base": "deleted:1"}
    version = VersionView.model_construct(**needed)
    with Client(url) as client:
        assert models._base_options(client, version, None, work / "artifact") == []
