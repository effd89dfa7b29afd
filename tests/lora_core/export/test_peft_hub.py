"""Tests of exporting an adapter on a hub model, which is referenced and not copied."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_core import manifest
from lora_core.specs.method import LoraSpec
from tests.hub_stand_in import HubStandIn
from tests.lora_artifact import make_lora_artifact
from tests.tiny_base import make_base


@pytest.mark.slow  # starts a process with a stand-in for the hub
def test_export_names_the_commit_of_the_base(tmp_path: Path) -> None:
    base = make_base(tmp_path / "hub" / "models" / "org" / "tiny")
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), base=base)
    facts = manifest.read(artifact)
    facts["spec"]["base"] = "org/tiny"
    facts.pop("files")
    (artifact / "manifest.json").unlink()
    manifest.create_and_save(artifact, facts)
    with HubStandIn(tmp_path / "hub") as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "cache")}
        for command in (
            ["export", "artifact", "--format", "peft", "--out", "peft"],
            ["import-peft", "peft", "--out", "back"],
        ):
            subprocess.run(
                [sys.executable, "-m", "lora_core", *command],
                cwd=tmp_path, check=True, timeout=100,
                env={**environment, "PYTHONPATH": str(Path.cwd())},
            )  # fmt: skip
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/tiny"
    assert len(config["revision"]) == 40
    assert not (tmp_path / "peft" / "base").exists()
    back = manifest.verify(tmp_path / "back")
    assert back["spec"]["base"] == "org/tiny"
    assert back["spec"]["base_revision"] == config["revision"]
    assert back["labels"] == ["bad", "good"]
