"""A client that openapi-typescript generates type-checks and works: `make test-typescript`."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.app.cli.conftest import serving
from tests.app.serving.conftest import Publish, publish

__all__ = ["publish"]

HERE = Path(__file__).parent


@pytest.fixture
def project(tmp_path: Path, app: FastAPI) -> Path:
    """A Node project with the program, our description and the installed packages."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("package.json", "program.ts"):
        shutil.copy(HERE / name, folder)
    (folder / "openapi.json").write_text(json.dumps(app.openapi()))
    run(folder, "npm", "install", "--no-package-lock", "--no-audit", "--no-fund")
    return folder


def run(folder: Path, *words: str) -> str:
    """Run a program; returns its output, which must contain no warning."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "warn" not in output.lower(), output
    return done.stdout


def test_generated_client_compiles_and_works(project: Path, app: FastAPI, publish: Publish) -> None:
    publish("sentiment", top_label="good")
    generator = ("npx", "openapi-typescript", "openapi.json", "--output", "loraworks.ts")
    run(project, *generator, "--default-non-nullable", "false")
    checks = ("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess")
    run(project, "npx", "tsc", *checks, "--target", "es2022", "--module", "nodenext", "program.ts")
    with serving(app) as url:
        state, at, answer = json.loads(run(project, "node", "program.js", url))
    assert (state, at) == ("queued", "method.r")
    assert [labels[0]["label"] for labels in answer] == ["good"]
    with TestClient(app) as client:
        (job,) = client.get("/v1/jobs?tag=from-node").json()["data"]
    assert (job["spec"]["method"]["r"], job["spec"]["method"]["targets"]) == (4, ["query"])
