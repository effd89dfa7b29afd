"""What the page of a model offers under "Use it elsewhere" works when it is copied."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from app.resources import Resources
from lora_core.specs.method import LoraSpec
from tests.app.cli.conftest import Run
from tests.app.cli.versions import add_version
from tests.app.web.html_elements import elements
from tests.linear_artifact import make_linear_artifact
from tests.lora_artifact import make_lora_artifact
from tests.tiny_artifact import (
    TARGETS,
    make_artifact,
    make_multi_label_artifact,
    make_several_targets_artifact,
)

pytestmark = pytest.mark.e2e


def snippets(url: str, model: str) -> dict[str, str]:
    """Return what can be copied on the page of a model, such as `onnx-2`: the second of ONNX."""
    page = httpx2.get(f"{url}/models/{model}", headers={"Accept": "text/html"}).raise_for_status()
    return {each["id"].removeprefix("use-"): each.text for each in elements(page.text, "pre")}


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_clients_get_the_label(resources: Resources, url: str, tmp_path: Path) -> None:
    add_version(resources, make_artifact(tmp_path / "made"), tmp_path / "copy")
    found = snippets(url, "sentiment")
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-c", found["curl-1"]], capture_output=True, check=True
    )
    assert b'"label":"good"' in done.stdout.replace(b" ", b"")
    assert run_python(found["openai-1"], tmp_path).strip() == "good"
    assert "label='good'" in run_python(found["hugging-face-1"], tmp_path)
    assert "'good': " in run_python(found["mistral-1"], tmp_path)


def test_multi_label_model_is_moderated(resources: Resources, url: str, tmp_path: Path) -> None:
    metrics = {"validation": {"micro_f1": 0.8, "macro_f1": 0.7}}
    topics = make_multi_label_artifact(tmp_path / "made", metrics=metrics)
    add_version(resources, topics, tmp_path / "copy", name="topics")
    found = snippets(url, "topics")
    assert "'acting': " in run_python(found["openai-1"], tmp_path)
    assert "top_k=None" in found["transformers-2"]


@pytest.mark.slow
def test_exports_load(
    cli: Run, resources: Resources, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_lora_artifact(tmp_path / "made", LoraSpec(r=2))
    add_version(resources, artifact, tmp_path / "copy")
    found = snippets(url, "sentiment")
    monkeypatch.chdir(tmp_path)
    for program in ("transformers", "peft", "onnx"):
        _, *arguments = shlex.split(found[f"{program}-1"])
        done = cli(*arguments)
        assert done.exit_code == 0, done.output
        run_python(found[f"{program}-2"], tmp_path)


def test_only_what_works_is_offered(resources: Resources, url: str, tmp_path: Path) -> None:
    add_version(resources, make_linear_artifact(tmp_path / "words"), tmp_path / "1", name="words")
    assert snippets(url, "words").keys() == {
        "command-line-1", "curl-1", "openai-1", "mistral-1", "hugging-face-1", "loraworks-1",
    }  # fmt: skip
    metrics = {"validation": {"skill": 0.5, "targets": {name: {} for name in TARGETS}}}
    several = make_several_targets_artifact(tmp_path / "several", metrics=metrics)
    add_version(resources, several, tmp_path / "2", name="several")
    found = snippets(url, "several")
    assert not found.keys() & {"openai-1", "hugging-face-1"}
    assert "--target flags" in found["onnx-1"]
