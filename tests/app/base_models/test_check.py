"""`POST /v1/bases/check`: a base is tried in a child process, under the name that was given."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.base_models import service
from app.base_models.errors import BaseModelNotCached
from app.jobs.pretrained_bases import ResolvedBase
from app.main import create_app
from app.registry import service as registry
from app.resources import Resources
from app.sandbox import runner
from app.settings import Settings
from app.storage.staged_artifact import StagedArtifact
from lora_core import manifest
from lora_core.specs.method import LoraSpec
from tests.lora_artifact import make_lora_artifact
from tests.tiny_base import make_base

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create the folder that the operator allows."""
    made = tmp_path / "bases"
    made.mkdir()
    return made


@pytest.fixture
def settings(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"base_dirs": (folder,)})


def check(client: TestClient, base: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    answer = client.post("/v1/bases/check", json={"base": base, **fields})
    return answer.status_code, answer.json()


@pytest.mark.usefixtures("in_child")
def test_a_directory_is_tried_outside_of_the_service(
    client: TestClient, folder: Path, settings: Settings
) -> None:
    directory = make_base(folder / "tiny", "ernie")
    status, found = check(client, "./tiny")
    assert status == 200, found
    assert (found["base"], found["commit"]) == (str(directory), None)
    assert (found["model_type"], found["road"], found["blocks"]) == ("ernie", "general", 2)
    assert found["adapted"][0]["layers"] == ["attention.self.query"]
    assert max(found["logits_difference"], found["merge_difference"]) < 1e-5
    assert not any((settings.uploads_dir / "incoming").glob("*"))


def test_a_version_of_the_registry_is_put_together_and_tried(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    directory = make_lora_artifact(tmp_path / "run", LoraSpec(r=2))
    facts = manifest.read(directory)
    new = StagedArtifact(resources.store, directory, "jobs/x/a1")

    def register() -> None:
        with resources.database.write() as session:
            row = new.add_row(session, job_id=None, kind="model")
            registry.add_version(session, name="mails", artifact=row, manifest=facts)

    new.retry_after_storing_base(register)
    status, found = check(client, "mails:1")
    assert status == 200, found
    assert (found["base"], found["model_type"]) == ("mails:1", "distilbert")


@pytest.mark.slow  # the other names are small bases
def test_the_sample_is_tried_by_its_name(client: TestClient) -> None:
    status, found = check(client, "minilm-l6")
    assert status == 200, found
    assert (found["base"], found["road"], found["blocks"]) == ("minilm-l6", "fast", 6)


def test_the_error_of_the_child_has_the_name_of_the_base(client: TestClient, folder: Path) -> None:
    directory = make_base(folder / "tiny")
    (directory / "model.safetensors").write_bytes(b"damaged")
    status, problem = check(client, str(directory))
    assert (status, problem["code"]) == (422, "unreadable_base")
    assert repr(str(directory)) in problem["detail"]


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"model_type": "t6"}, "unsupported_encoder"),
        ({"model_type": "fnet"}, "unsuitable_encoder"),
        ({"model_type": "t6", "auto_map": {"AutoModel": "x.X"}}, "untrusted_code"),
        ({"model_type": "bert", "hidden_size": 33}, "unreadable_base"),
    ],
)
def test_most_bases_are_refused_without_a_process(
    client: TestClient,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    code: str,
) -> None:
    monkeypatch.delattr(runner, "run_lora_core_sandboxed")
    directory = make_base(folder / "tiny")
    (directory / "config.json").write_text(json.dumps(config))
    status, problem = check(client, str(directory))
    assert (status, problem["code"]) == (422, code)


@pytest.mark.parametrize(
    ("base", "code"),
    [
        ("/etc", "base_directory_not_allowed"),
        ("./nothing", "base_not_found"),
        ("x/y/z", "invalid_base"),
    ],
)
def test_a_base_of_no_job_is_none_of_a_check(client: TestClient, base: str, code: str) -> None:
    status, problem = check(client, base)
    assert (status, problem["code"]) == (422, code)


def test_a_check_downloads_nothing(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    base = ResolvedBase("org/model", {}, content_id=COMMIT, revision=COMMIT)
    with pytest.raises(BaseModelNotCached, match="bases check org/model"):
        service._find_files(base, tmp_path, database=resources.database, store=resources.store)


FILES = ("config.json", "tokenizer.json", "model.safetensors")
UNUSED = ("README.md", "2_Dense/model.safetensors")


@pytest.mark.parametrize("absent", [None, *FILES])
def test_an_incomplete_copy_of_a_hub_model_is_none(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str | None
) -> None:
    """The hub lists a file that is never downloaded, too."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    snapshot = make_base(cache / "models--org--model" / "snapshots" / COMMIT)
    listing = {name: {"size": 1, "blob_id": COMMIT} for name in (*FILES, *UNUSED)}
    trees = cache / "models--org--model" / "trees"
    trees.mkdir()
    (trees / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": listing}))
    base = ResolvedBase("org/model", {}, content_id=COMMIT, revision=COMMIT)
    find = partial(
        service._find_files, base, tmp_path, database=resources.database, store=resources.store
    )
    if absent is None:
        assert find() == snapshot
        return
    (snapshot / absent).unlink()
    with pytest.raises(BaseModelNotCached):
        find()


@pytest.mark.parametrize(
    ("absent", "code"),
    [("config.json", "base_not_on_host"), ("model.safetensors", "unreadable_base")],
)
def test_a_copy_without_a_listing_of_the_hub(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str, code: str
) -> None:
    """As other programs leave it. The answer does not name the directory."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = make_base(tmp_path / "cache" / "models--org--model" / "snapshots" / COMMIT)
    config = json.loads((snapshot / "config.json").read_text())
    (snapshot / "model.safetensors").rename(snapshot / "model-1.safetensors")
    (snapshot / absent).unlink(missing_ok=True)
    base = ResolvedBase("org/model", config, content_id=COMMIT, revision=COMMIT)
    monkeypatch.setattr(service, "resolve_base", lambda *_, **__: base)
    status, problem = check(client, "org/model")
    assert (status, problem["code"]) == (409 if code == "base_not_on_host" else 422, code)
    assert str(tmp_path) not in json.dumps(problem)


@pytest.mark.usefixtures("in_child")
@pytest.mark.parametrize("limit", [{"import_seconds": 0.05}, {"import_memory_mb": 400}], ids=str)
def test_limits(settings: Settings, folder: Path, limit: dict[str, Any]) -> None:
    directory = make_base(folder / "tiny")
    with TestClient(create_app(settings.model_copy(update=limit))) as client:
        status, problem = check(client, str(directory))
    assert (status, problem["code"]) == (413, "base_check_too_large")
    [name] = limit
    assert f"LORAWORKS_{name.upper()}" in problem["detail"]


@pytest.mark.usefixtures("in_child")
def test_a_crash_is_an_error(client: TestClient, folder: Path) -> None:
    """The report does not fit into its limit, so the child is killed while it writes it."""
    directory = make_base(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "_MAX_OUTPUT_BYTES", 10)
        status, problem = check(client, str(directory))
    assert (status, problem["code"]) == (422, "base_check_crashed")


def test_a_check_needs_the_right_to_create_jobs(anonymous_client: TestClient, new_key: Any) -> None:
    key: CreatedKey = new_key("jobs:read")
    headers = {"Authorization": f"Bearer {key.text}"}
    answer = anonymous_client.post("/v1/bases/check", json={"base": "minilm-l6"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
