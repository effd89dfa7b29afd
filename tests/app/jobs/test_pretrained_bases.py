"""Which bases a job may start from, and the errors for others."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.database.engines import Database
from app.jobs import pretrained_bases
from app.queue.transitions import PermanentFailure
from app.registry import repository as registry_rows
from app.registry import service as registry
from app.resources import Resources
from app.settings import Settings
from app.storage import repository as artifacts
from lora_core import manifest
from lora_core.errors.base_model import BaseNotFound
from tests.app.jobs.fake_worker import FakeWorker
from tests.job_rows import MANIFEST, add_job
from tests.waiting import wait_for_a_waiter

TINY = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
        "intermediate_size": 16, "vocab_size": 50, "max_position_embeddings": 64}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create the folder that the operator allows."""
    made = tmp_path / "bases"
    made.mkdir()
    return made


@pytest.fixture
def settings(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"base_dirs": (folder,)})


def make(directory: Path, config: Any = TINY, weights: str = "model.safetensors") -> Path:
    directory.mkdir(parents=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (directory / "config.json").write_text(text)
    (directory / weights).write_bytes(b"")
    (directory / "tokenizer.json").write_text("{}")
    return directory


def refused(client: TestClient, base: str, **fields: Any) -> tuple[str, str]:
    answer = client.post("/v1/jobs", json={"method": {"type": "lora"}, "base": base, **fields})
    assert answer.status_code == 422, answer.text
    return answer.json()["code"], answer.json()["detail"]


@pytest.fixture
def accepted(client: TestClient) -> Callable[..., dict[str, Any]]:
    def send(base: str, **fields: Any) -> dict[str, Any]:
        body = {"method": {"type": "lora"}, "base": base, **fields}
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    return send


def test_a_directory_is_accepted_by_absolute_and_relative_path(
    accepted: Callable[..., dict[str, Any]], folder: Path
) -> None:
    directory = make(folder / "team" / "tiny")
    for name in (str(directory), "./team/tiny", "./team/../team/tiny"):
        job = accepted(name)
        assert job["base"] == job["spec"]["base"] == str(directory)
        assert job["parameters"]["total"] == 2_530


def test_a_directory_outside_the_folder_is_rejected(
    client: TestClient, folder: Path, tmp_path: Path
) -> None:
    make(tmp_path / "secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder / "loop")
    for name in (str(tmp_path / "secret"), "./../secret", "../secret", "./link", "/etc", "/"):
        assert refused(client, name)[0] == "base_directory_not_allowed", name
    assert refused(client, "./nothing-here")[0] == "base_not_found"
    assert refused(client, "./loop")[0] in ("base_not_found", "base_directory_not_allowed")
    assert refused(client, "./" + "x" * 300)[0] == "base_not_found"


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("sentencepiece.bpe.model", "only sentencepiece.bpe.model"),
        ("tokenizer.py", "nor another tokenizer"),
    ],
)
def test_a_base_without_a_fast_tokenizer_is_rejected(
    client: TestClient, folder: Path, file: str, found: str
) -> None:
    directory = make(folder / "slow")
    (directory / "tokenizer.json").rename(directory / file)
    code, detail = refused(client, "./slow")
    assert code == "no_fast_tokenizer"
    assert f"has no tokenizer.json ({found})" in detail


@pytest.mark.parametrize(
    ("config", "weights", "code", "expected"),
    [
        (TINY, "pytorch_model.bin", "unsafe_weights", "pytorch_model.bin"),
        (TINY, "model.ckpt", "unsafe_weights", "safetensors"),
        (TINY, "README.md", "base_not_found", "no safetensors file"),
        ({"model_type": "x", "auto_map": {}}, "model.safetensors", "untrusted_code", "auto_map"),
        ({"model_type": "t6"}, "model.safetensors", "unsupported_encoder", "bert, roberta"),
        ({"model_type": "gpt2"}, "model.safetensors", "unsuitable_encoder", "Conv1D"),
        (
            {"model_type": "nomic_bert", "n_embd": 64},
            "model.safetensors",
            "config_key_ignored",
            "n_embd",
        ),
        ({**TINY, "hidden_size": -1}, "model.safetensors", "unreadable_base", "hidden_size"),
        ("{", "model.safetensors", "unreadable_base", "not JSON"),
        ("[" * 100_000, "model.safetensors", "unreadable_base", "not JSON"),
        ("[]", "model.safetensors", "unreadable_base", "not an object"),
        ({**TINY, "x": "y" * 1_000_000}, "model.safetensors", "unreadable_base", "too large"),
    ],
)  # fmt: skip
def test_unsafe_or_unsupported_bases_are_rejected(
    client: TestClient, folder: Path, config: Any, weights: str, code: str, expected: str
) -> None:
    make(folder / "odd", config, weights)
    found = refused(client, "./odd")
    assert found[0] == code
    assert expected in found[1]


def test_a_directory_without_config_is_refused(client: TestClient, folder: Path) -> None:
    (make(folder / "odd") / "config.json").unlink()
    assert "config.json" in refused(client, "./odd")[1]


def test_the_spec_is_checked_against_the_base(client: TestClient, folder: Path) -> None:
    make(folder / "tiny")
    assert refused(client, "./tiny", method={"type": "lora", "r": 9})[0] == "rank_too_large"
    assert refused(client, "./tiny", data={"max_length": 65})[0] == "length_too_large"


def test_only_hub_models_have_a_revision(client: TestClient, folder: Path) -> None:
    make(folder / "tiny")
    for base in ("minilm-l6", "./tiny"):
        code, detail = refused(client, base, base_revision="a" * 40)
        assert code == "revision_mismatch"
        assert "only hub models" in detail


@pytest.mark.parametrize(
    "name",
    ["file:///etc/passwd", "https://host/model", "C:\\", "C:\\models\\x", "org/name/../..", "a/b/c",
     "..", ".hidden", "~/models", "-rf", "org/..", "name:0", "name@", "name:3:4", "naïve",
     "a b"],
)  # fmt: skip
def test_invalid_names_are_rejected(client: TestClient, name: str) -> None:
    code, detail = refused(client, name)
    assert code in ("invalid_base", "base_not_found")
    assert "minilm-l6" in detail or "no such model" in detail


class TestWithoutFolders:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"base_dirs": ()})

    @pytest.mark.parametrize("name", ["../../etc", "/abs", "./here"])
    def test_a_directory_is_refused_and_the_setting_named(
        self, client: TestClient, name: str
    ) -> None:
        code, detail = refused(client, name)
        assert code == "base_directories_disabled"
        assert "LORAWORKS_BASE_DIRS" in detail


@pytest.fixture
def version(resources: Resources, tmp_path: Path) -> Callable[..., str]:
    """Return a function that registers another version of a model."""

    def register(name: str, *, production: bool = False) -> str:
        directory = tmp_path / "made"
        make(directory / "merged")
        manifest.create_and_save(directory, {})
        with resources.database.write() as session:
            ref = resources.store.move_directory_into_store(
                directory, f"made/{name}-{len(list_keys(resources))}"
            )
            artifact = artifacts.add_artifact(session, job_id=None, kind="model", ref=ref)
            made = registry.add_version(session, name=name, artifact=artifact, manifest=MANIFEST)
            if production:
                registry_rows.move_alias(
                    session, model_id=made.model_id, alias="production", version_id=made.id
                )
        return f"{name}:{made.number}"

    return register


def list_keys(resources: Resources) -> list[Path]:
    return list((resources.settings.artifacts_dir / "made").glob("*"))


def test_a_registered_version_is_a_base_and_is_pinned(
    accepted: Callable[..., dict[str, Any]], version: Callable[..., str]
) -> None:
    version("mails")
    version("mails", production=True)
    meant = {"mails": "mails:2", "mails@production": "mails:2", "mails:1": "mails:1"}
    for name, pinned in meant.items():
        job = accepted(name)
        assert job["base"] == job["spec"]["base"] == pinned
        assert job["parameters"]["total"] == 2_530


def test_a_model_without_production_version_is_rejected_with_advice(
    client: TestClient, version: Callable[..., str]
) -> None:
    version("mails")
    code, detail = refused(client, "mails")
    assert code == "base_not_found"
    assert "'mails:1'" in detail
    assert refused(client, "mails:2")[0] == "base_not_found"
    assert refused(client, "mails@staging")[0] == "base_not_found"


def test_a_version_deleted_during_the_request_is_noticed(
    resources: Resources, database: Database, version: Callable[..., str]
) -> None:
    version("mails")
    base = pretrained_bases.resolve_base(
        "mails:1", None, database=database, store=resources.store, settings=resources.settings
    )
    with database.write() as session:
        pretrained_bases.check_base_not_deleted(session, base)
        registry.delete_version(session, name="mails", number=1, store=resources.store)
    with database.read() as session, pytest.raises(BaseNotFound):
        pretrained_bases.check_base_not_deleted(session, base)


@pytest.mark.parametrize("path", ["/v1/models/mails/versions/1", "/v1/models/mails"])
def test_a_version_is_not_deleted_while_a_job_reads_it(
    client: TestClient,
    version: Callable[..., str],
    accepted: Callable[..., dict[str, Any]],
    worker: FakeWorker,
    path: str,
) -> None:
    version("mails"), version("mails"), version("others")
    running, queued, other = accepted("mails:1"), accepted("mails:1"), accepted("mails:2")
    client.post(f"/v1/jobs/{other['id']}/cancel")
    worker.claim()
    for job_id, count in ((queued["id"], 2), (running["id"], 1)):
        refused = client.delete(path)
        assert (refused.status_code, refused.json()["code"]) == (409, "version_read_by_jobs")
        assert f"mails:1 is read by {count} queued or running" in refused.json()["detail"]
        client.post(f"/v1/jobs/{job_id}/cancel")
    assert client.delete("/v1/models/mails/versions/2").status_code == 204  # was cancelled
    assert client.delete("/v1/models/others").status_code == 204


@pytest.mark.parametrize("database_kind", ["postgresql"])
class TestAtTheSameMoment:
    """On PostgreSQL, where creating a job and deleting its base may overlap."""

    def test_a_delete_waits_for_a_job_that_is_being_stored(
        self, client: TestClient, version: Callable[..., str], database: Database
    ) -> None:
        version("mails")
        with database.write() as session, ThreadPoolExecutor(1) as threads:
            pretrained_bases.lock_base_against_deletion(session, "mails:1")
            delete = threads.submit(client.delete, "/v1/models/mails/versions/1")
            wait_for_a_waiter(database)
            add_job(database, base="mails:1")
            session.commit()
            assert delete.result().json()["code"] == "version_read_by_jobs"

    def test_a_job_waits_for_the_delete_of_its_base_and_is_rejected(
        self, client: TestClient, version: Callable[..., str], resources: Resources
    ) -> None:
        version("mails")
        with resources.database.write() as session, ThreadPoolExecutor(1) as threads:
            registry.delete_version(session, name="mails", number=1, store=resources.store)
            submit = threads.submit(refused, client, "mails:1")
            wait_for_a_waiter(resources.database)
            session.commit()
            assert submit.result()[0] == "base_not_found"


def test_a_model_named_like_the_sample_does_not_prevent_a_retry(
    client: TestClient, version: Callable[..., str], worker: FakeWorker
) -> None:
    """A stored base without a number is the sample or a hub model, never a registered one."""
    job_id = client.post("/v1/jobs", json={"method": {"type": "lora"}}).json()["id"]
    version("minilm-l6")
    lease = worker.claim().lease
    worker.log(lease, step=1, points={"loss": 1.0})
    worker.save(lease, step=1)
    worker.finish(lease, PermanentFailure("non_finite", "The loss is NaN."))
    response = client.post(f"/v1/jobs/{job_id}/retry")
    assert response.status_code == 202, response.text
