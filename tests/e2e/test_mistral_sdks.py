"""The same script by three versions of Mistral's SDK, each in an environment of its own.

`make .venv-mistral-VERSION/.made` makes the environment of a version.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.up import loraworks_up
from tests.mistral_files import examples
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
VERSIONS = {"1.12.4": True, "2.5.1": True, "3.7.0": False}  # whether it has fine-tuning jobs


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with loraworks_up(tmp_path_factory.mktemp("service") / "data") as url:
        yield url


def train(service: str) -> str:
    """Train a model over HTTP; return its name."""
    url = f"{service}/mistral/v1"
    content = {"file": ("http.jsonl", examples(40))}
    file = httpx2.post(f"{url}/files", files=content).raise_for_status().json()
    body = {
        "model": "minilm-l6",
        "training_files": [{"file_id": file["id"]}],
        "hyperparameters": {"epochs": 1},
    }
    job = httpx2.post(f"{url}/fine_tuning/jobs", json=body).raise_for_status().json()

    def state() -> Any:
        return httpx2.get(f"{url}/fine_tuning/jobs/{job['id']}").raise_for_status().json()

    wait_until(lambda: state()["status"] == "SUCCESS", seconds=200, what="the end of the job")
    return str(state()["fine_tuned_model"])


@pytest.mark.parametrize(("version", "has_jobs"), VERSIONS.items())
def test_script(version: str, has_jobs: bool, service: str, tmp_path: Path) -> None:
    python = ROOT / f".venv-mistral-{version}/bin/python"
    assert python.is_file(), f"run `make .venv-mistral-{version}/.made` first"
    model = "none" if has_jobs else train(service)
    file = tmp_path / "mails.jsonl"
    file.write_bytes(examples(40))
    script = Path(__file__).with_name("mistral_script.py")
    done = subprocess.run(
        [python, script, f"{service}/mistral", file, model],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["version"], found["jobs"]) == (version, has_jobs)
    assert (found["listed"], found["same"], found["lines"]) == (True, True, 40)
    if has_jobs:
        assert (found["created"], found["counted"], found["ended"]) == ("VALIDATED", 1, "SUCCESS")
        assert found["targets"] == [["Topic", "single_class"], ["flags", "multi_class"]]
        assert (found["cancelled"], found["events"] > 3) == ("SUCCESS", True)
    assert (found["type"], found["retrieved"], found["named"]) == ("fine-tuned", True, "Mails")
    assert (found["archived"], found["unarchived"], found["deleted"]) == (True, False, True)
    assert set(found["scores"]["Topic"]) == {"billing", "shipping"}
    assert sum(found["scores"]["Topic"].values()) == pytest.approx(1, abs=1e-5)
    assert set(found["scores"]["flags"]) == {"urgent"}
    assert found["chat_scores"] == found["scores"]
    assert found["error"][0] == "SDKError"
    assert "model_not_found" in found["error"][1]
