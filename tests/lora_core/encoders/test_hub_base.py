"""Base models from the hub, against a local fake."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_core import manifest
from tests.hub_stand_in import BROKEN, GATED, TOKEN, HubStandIn
from tests.tiny_base import make_base, make_reviews

LOCATE = """
import sys
from lora_core.encoders.load import resolve_base
from lora_core.errors import LoraCoreError
for base in sys.argv[1:]:
    try:
        print(resolve_base(base))
    except LoraCoreError as error:
        print(f"{error.code}: {error}")
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubStandIn]:
    root = tmp_path_factory.mktemp("hub")
    good = make_base(root / "models" / "distilbert-base-uncased")
    (good / "pytorch_model.bin").write_bytes(b"a pickle that nobody may fetch")
    (good / "checkpoint-500").mkdir()
    (good / "checkpoint-500" / "model.safetensors").write_bytes(b"weights that nobody reads")
    pickled = root / "models" / "org" / "pickled"
    pickled.mkdir(parents=True)
    shutil.copy(good / "config.json", pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"a pickle")
    shutil.copytree(good, root / "models" / GATED)
    slow = shutil.copytree(good, root / "models" / "org" / "slow")
    (slow / "tokenizer.json").rename(slow / "vocab.txt")
    with HubStandIn(root) as served:
        yield served


def train(
    hub: HubStandIn, base: str, folder: Path, *command: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Train a model with `python -m lora_core`, or another command for the interpreter."""
    spec = {
        "method": {"type": "baseline"},
        "base": base,
        "data": {"source": str(make_reviews(folder / "reviews.csv"))},
        "optim": {"epochs": 1},
        "result": {"cross_validation": False},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = command or ("-m", "lora_core")
    hub_environment = {**hub.environment(folder / "cache"), **environment}
    return subprocess.run(
        [sys.executable, *command, "train", str(folder / "spec.json"), "--out", "out"],
        capture_output=True, text=True, cwd=folder, timeout=100,
        env={**os.environ, **hub_environment, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip


def test_no_pickle_is_downloaded_from_the_hub(hub: HubStandIn, tmp_path: Path) -> None:
    done = train(hub, "distilbert-base-uncased", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert manifest.verify(tmp_path / "out")["spec"]["base"] == "distilbert-base-uncased"
    downloaded = [
        request for request in hub.requests if "distilbert-base-uncased/resolve" in request
    ]
    assert any(request.endswith("model.safetensors") for request in downloaded)
    assert not any(request.endswith(".bin") for request in downloaded)
    assert not any("checkpoint-500" in request for request in downloaded)


WITHOUT_TOKEN = """
import ctypes, os
from lora_core import __main__, hf_hub
status = __main__.main()
assert hf_hub.find_hub_token()
assert "HF_TOKEN" not in os.environ
PR_GET_DUMPABLE = 3
assert ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0
raise SystemExit(status)
"""


@pytest.mark.slow  # each test starts processes; the small form is the first one
def test_token_reaches_only_the_download(hub: HubStandIn, tmp_path: Path) -> None:
    done = train(hub, GATED, tmp_path, "-c", WITHOUT_TOKEN, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "out" / "manifest.json" in written
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


@pytest.mark.slow  # the small form is in tests/app/jobs/test_hub_models.py
@pytest.mark.parametrize(
    ("token", "problem"),
    [
        pytest.param("", "no token is set", marks=pytest.mark.slow),
        ("hf_other", "has no access"),
    ],
)
def test_gated_base_is_refused(hub: HubStandIn, tmp_path: Path, token: str, problem: str) -> None:
    done = train(hub, GATED, tmp_path, HF_TOKEN=token)
    failed = json.loads(done.stdout.splitlines()[-1])
    assert failed["code"] == "gated_base"
    assert problem in failed["message"]
    assert f"{hub.url}/{GATED}" in failed["message"]
    assert "hf_other" not in done.stdout + done.stderr


@pytest.mark.slow  # each test starts processes; the small form is the first one
def test_base_without_a_fast_tokenizer_is_refused(hub: HubStandIn, tmp_path: Path) -> None:
    failed = json.loads(train(hub, "org/slow", tmp_path).stdout.splitlines()[-1])
    assert failed["code"] == "no_fast_tokenizer"
    assert "'org/slow' has no tokenizer.json (only vocab.txt)" in failed["message"]
    assert "AutoTokenizer.from_pretrained('org/slow')" in failed["message"]


def locate(hub: HubStandIn, folder: Path, *bases: str) -> list[str]:
    """Failures of resolving bases."""
    done = subprocess.run(
        [sys.executable, "-c", LOCATE, *bases],
        capture_output=True, text=True, timeout=100,
        env={**os.environ, **hub.environment(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow  # each test starts processes; the small form is the first one
def test_hub_failures_are_reported(hub: HubStandIn, tmp_path: Path) -> None:
    nothing, pickled, broken = locate(hub, tmp_path, "org/nothing", "org/pickled", BROKEN)
    assert nothing.startswith("base_not_found: No base model 'org/nothing'")
    assert pickled.startswith("base_not_found: No base model 'org/pickled'")
    assert broken.startswith(f"hub_unavailable: The base '{BROKEN}' is not in the local cache")
    assert "it returned status 503" in broken


@pytest.mark.slow
def test_unreachable_hub_is_a_transient_error(tmp_path: Path) -> None:
    with HubStandIn(tmp_path) as hub:
        pass
    (gone,) = locate(hub, tmp_path, "org/base")
    assert gone.startswith("hub_unavailable")
    assert "it cannot be reached" in gone
