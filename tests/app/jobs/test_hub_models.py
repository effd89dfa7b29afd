"""Hub models, with a small server that imitates the hub."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub.constants
import pytest
from starlette.testclient import TestClient

COMMIT = "c0ffee" + "0" * 34
OLDER = "0dd" + "0" * 37
BERT = {"model_type": "bert", "vocab_size": 100, "num_hidden_layers": 2}


@dataclass
class Hub:
    """What the server returns; tests change it."""

    files: list[str] = field(
        default_factory=lambda: ["config.json", "model.safetensors", "tokenizer.json"]
    )
    config: dict[str, Any] = field(default_factory=lambda: dict(BERT))
    status: int = 200
    gated: bool = False  # whether its files need a token
    requested: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/api/models/"):  # other requests of the client
                hub.requested.append(self.path)
                named = self.path.rpartition("/revision/")
                commit = named[2] if named[1] else COMMIT
                files = [{"rfilename": name} for name in hub.files]
                body = json.dumps({"id": "x", "sha": commit, "siblings": files}).encode()
            else:
                body = json.dumps(hub.config).encode()
            if hub.gated and "/resolve/" in self.path:
                has_token = self.headers["Authorization"] is not None
                self.send_response(403 if has_token else 401)
                self.send_header("X-Error-Code", "GatedRepo")
            else:
                self.send_response(hub.status)
            if hub.status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def post(client: TestClient, **fields: Any) -> Any:
    body = {"method": {"type": "lora"}, "base": "bert-base-uncased", **fields}
    return client.post("/v1/jobs", json=body)


def test_a_hub_model_is_pinned_to_the_current_commit(client: TestClient, hub: Hub) -> None:
    job = post(client).json()
    assert job["base"] == "bert-base-uncased"
    assert job["spec"]["base_revision"] == COMMIT
    assert job["parameters"]["total"] < 20_000_000
    assert hub.requested[0] == "/api/models/bert-base-uncased"


def test_a_given_revision_is_kept(client: TestClient, hub: Hub) -> None:
    assert post(client, base_revision=OLDER).json()["spec"]["base_revision"] == OLDER
    assert hub.requested[0] == f"/api/models/bert-base-uncased/revision/{OLDER}"


def test_a_model_that_is_not_allowed_is_never_requested(client: TestClient, hub: Hub) -> None:
    for name in ("someone/else", "bert-base-uncased/..", "bert-base-uncased/x/y"):
        assert post(client, base=name).status_code == 422
    assert hub.requested == []


@pytest.mark.parametrize(
    ("files", "config", "code"),
    [
        (["config.json", "pytorch_model.bin"], BERT, "unsafe_weights"),
        (["config.json", "pytorch_model.bin", "2_Dense/model.safetensors"], BERT, "unsafe_weights"),
        (["config.json", "README.md"], BERT, "base_not_found"),
        (["config.json", "model.safetensors", "vocab.txt"], BERT, "no_fast_tokenizer"),
        (
            ["config.json", "model.safetensors", "tokenizer.json"],
            {"model_type": "hf_new", "auto_map": {}},
            "untrusted_code",
        ),
        (
            ["config.json", "model.safetensors", "tokenizer.json"],
            {"model_type": "t6"},
            "unsupported_encoder",
        ),
    ],
)
def test_the_hub_model_is_checked_before_the_job_is_accepted(
    client: TestClient, hub: Hub, files: list[str], config: dict[str, Any], code: str
) -> None:
    hub.files, hub.config = files, config
    answer = post(client)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize(
    ("status", "expected"), [(404, "no such model"), (401, "401"), (403, "403")]
)
def test_an_error_of_the_hub_is_passed_on(
    client: TestClient, hub: Hub, status: int, expected: str
) -> None:
    hub.status = status
    answer = post(client)
    assert (answer.status_code, answer.json()["code"]) == (422, "base_not_found")
    assert expected in answer.json()["detail"]


@pytest.mark.parametrize(
    ("token", "expected"), [("", "no token is set"), ("hf_hunter2", "has no access")]
)
def test_a_gated_model_is_refused(
    client: TestClient, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, expected: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.gated = True
    answer = post(client)
    assert (answer.status_code, answer.json()["code"]) == (422, "gated_base")
    assert expected in answer.json()["detail"]
    assert f"{hub.url}/bert-base-uncased" in answer.json()["detail"]
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("status", [503, 429, 408])
def test_the_cache_is_used_when_the_hub_is_unreachable(
    client: TestClient, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    hub.status = status
    answer = post(client)
    assert answer.json()["code"] == "base_not_found"
    assert "not in the local cache" in answer.json()["detail"]

    folder = tmp_path / "cache" / "models--bert-base-uncased"
    for commit in (OLDER, COMMIT):
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "config.json").write_text(json.dumps(BERT))
        (folder / "snapshots" / commit / "model.safetensors").write_bytes(b"")
        (folder / "snapshots" / commit / "tokenizer.json").write_bytes(b"")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(OLDER)

    assert post(client).json()["spec"]["base_revision"] == OLDER
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert post(client).json()["spec"]["base_revision"] == OLDER
    assert post(client, base_revision=COMMIT).json()["spec"]["base_revision"] == COMMIT
    (folder / "snapshots" / OLDER / "model.safetensors").rename(
        folder / "snapshots" / OLDER / "pytorch_model.bin"
    )
    assert post(client).json()["code"] == "unsafe_weights"
    only_onnx = folder / "snapshots" / COMMIT / "onnx"
    only_onnx.mkdir()
    (only_onnx.parent / "tokenizer.json").rename(only_onnx / "tokenizer.json")
    assert post(client, base_revision=COMMIT).json()["code"] == "no_fast_tokenizer"
