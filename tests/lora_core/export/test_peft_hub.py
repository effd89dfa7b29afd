"""An adapter on a base that the hub has: it is named, and not sent along."""

import json
import os
import subprocess
import sys
from pathlib import Path

from lora_core import manifest
from lora_core.specs.method import LoraSpec
from tests.hub_stand_in import HubStandIn
from tests.lora_artifact import make_lora_artifact
from tests.tiny_base import make_base


def test_the_base_is_named_by_its_commit_and_found_again(tmp_path: Path) -> None:
    base = make_base(tmp_path / "hub" / "models" / "org" / "tiny")
    made = make_lora_artifact(tmp_path, LoraSpec(r=2), base=base)
    facts = manifest.read(made)
    facts["spec"]["base"] = "org/tiny"
    facts.pop("files")
    (made / "manifest.json").unlink()
    manifest.write(made, facts)
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
