"""Tests of the vectors of texts, computed at once and resumed."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

from lora_core import child_protocol, manifest
from lora_core.embed_file import CHUNK_ROWS, embed_file
from lora_core.errors.data import MissingText
from lora_core.errors.training import (
    CheckpointCorrupt,
    CheckpointMismatch,
    NonFiniteVectors,
    StopRequested,
)
from lora_core.events import Failed
from lora_core.specs.embed import VECTORS, VECTORS_FILE, EmbedSpec
from lora_core.specs.pooling import POOLING_FILE
from lora_core.specs.predict import PredictDataSpec, PredictRuntimeSpec
from lora_core.training.checkpoint_schedule import CheckpointSettings
from tests.lora_core.batch_prediction.conftest import make_texts
from tests.lora_core.training.processes import Attempts
from tests.lora_core.training.test_probe import break_states
from tests.recording_observer import RecordingObserver
from tests.tiny_base import make_base

ROWS = 2 * CHUNK_ROWS + 100


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    return make_texts(tmp_path / "texts.csv", ROWS)


@pytest.fixture
def spec(base: Path, tmp_path: Path, texts: list[str]) -> EmbedSpec:
    source = PredictDataSpec(source=str(tmp_path / "texts.csv"), text_column="body")
    return EmbedSpec(base=str(base), data=source, runtime=PredictRuntimeSpec(threads=1))


class StoppingListener(RecordingObserver):
    """Requests a stop once `stop_at` rows are saved."""

    def requested(self) -> bool:
        saved = [event.step for event in self.all("checkpoint")]
        return self.stop_at is not None and bool(saved) and saved[-1] >= self.stop_at


def embed(spec: EmbedSpec, out: Path, **options: object) -> np.ndarray:
    listener = StoppingListener()
    embed_file(spec, out_dir=out, observer=listener, stop=listener, **options)  # type: ignore[arg-type]
    return load_file(out / VECTORS_FILE)[VECTORS]


def first_tokens(base: Path, texts: list[str]) -> np.ndarray:
    """The state of the first token of each text, one text at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModel.from_pretrained(base).eval()
    states = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            states.append(model(**inputs).last_hidden_state[0])
    return np.stack([each[0].numpy() for each in states])


def test_vectors_are_the_states_of_transformers(
    spec: EmbedSpec, base: Path, texts: list[str], tmp_path: Path
) -> None:
    vectors = embed(spec, tmp_path / "out")
    assert vectors.shape == (ROWS, 32)
    checked = [0, 1, CHUNK_ROWS - 1, CHUNK_ROWS, ROWS - 1]
    expected = first_tokens(base, [texts[i] for i in checked])
    np.testing.assert_allclose(vectors[checked], expected, atol=1e-5)
    facts = manifest.verify(tmp_path / "out")
    assert facts["metrics"] == {"rows": ROWS, "cut": facts["metrics"]["cut"], "width": 32}
    assert facts["metrics"]["cut"] > 0


def test_pooling_is_that_of_the_base(texts: list[str], tmp_path: Path, spec: EmbedSpec) -> None:
    base = make_base(tmp_path / "mean")
    (base / POOLING_FILE).parent.mkdir()
    (base / POOLING_FILE).write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    vectors = embed(spec.model_copy(update={"base": str(base)}), tmp_path / "out")
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModel.from_pretrained(base).eval()
    inputs = tokenizer(texts[0], truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        mean = model(**inputs).last_hidden_state[0].mean(dim=0)
    normalized = (mean - mean.mean()) / mean.std(unbiased=False)
    np.testing.assert_allclose(
        vectors[0], normalized.numpy(), atol=0.03
    )  # 0.001 is the first token


def test_stopped_run_resumes_with_the_same_bytes(spec: EmbedSpec, tmp_path: Path) -> None:
    embed(spec, tmp_path / "uninterrupted")
    listener = StoppingListener(CHUNK_ROWS)
    settings = CheckpointSettings(tmp_path / "checkpoints", 0.0)
    with pytest.raises(StopRequested):
        embed_file(
            spec, out_dir=tmp_path / "begun", observer=listener, stop=listener,
            checkpoint_settings=settings,
        )  # fmt: skip
    embed(spec, tmp_path / "resumed", resume=tmp_path / "checkpoints" / f"step-{CHUNK_ROWS}")
    resumed, whole = tmp_path / "resumed", tmp_path / "uninterrupted"
    assert (resumed / VECTORS_FILE).read_bytes() == (whole / VECTORS_FILE).read_bytes()
    assert manifest.read(resumed)["metrics"] == manifest.read(whole)["metrics"]


@pytest.mark.slow
def test_killed_process_resumes_with_the_same_bytes(spec: EmbedSpec, tmp_path: Path) -> None:
    embed(spec, tmp_path / "uninterrupted")
    described = tmp_path / "spec.json"
    described.write_text(spec.model_dump_json())
    attempts = Attempts(described, command="embed-file")
    for fault in ("embedded@1:kill", "embedded@2:kill", "vectors_published@1:kill", ""):
        status, _ = attempts.attempt(fault)
        assert status == (-signal.SIGKILL if fault else 0), fault
    expected = (tmp_path / "uninterrupted" / VECTORS_FILE).read_bytes()
    assert (attempts.out / VECTORS_FILE).read_bytes() == expected


def test_process_reports_an_error_with_its_code(spec: EmbedSpec, tmp_path: Path) -> None:
    Path(spec.data.source).write_text("id,body\n1,good\n2, \n")
    described = tmp_path / "spec.json"
    described.write_text(spec.model_dump_json())
    status, [*_, failed] = Attempts(described, command="embed-file").attempt()
    assert status == child_protocol.EXIT_FAILED
    assert isinstance(failed, Failed)
    assert failed.code == MissingText.code


def test_vectors_that_are_not_finite_are_refused(spec: EmbedSpec, tmp_path: Path) -> None:
    broken = break_states(make_base(tmp_path / "broken"))
    with pytest.raises(NonFiniteVectors, match=f"for {CHUNK_ROWS} of rows 1 to {CHUNK_ROWS}"):
        embed(spec.model_copy(update={"base": str(broken)}), tmp_path / "out")


@pytest.fixture
def saved(spec: EmbedSpec, tmp_path: Path) -> Path:
    """A checkpoint after one chunk."""
    listener = StoppingListener(CHUNK_ROWS)
    settings = CheckpointSettings(tmp_path / "checkpoints", 0.0)
    with pytest.raises(StopRequested):
        embed_file(
            spec, out_dir=tmp_path / "begun", observer=listener, stop=listener,
            checkpoint_settings=settings,
        )  # fmt: skip
    return tmp_path / "checkpoints" / f"step-{CHUNK_ROWS}"


def test_unusable_checkpoints_are_rejected(spec: EmbedSpec, saved: Path, tmp_path: Path) -> None:
    data = spec.data.model_copy(update={"text_column": "id"})
    with pytest.raises(CheckpointMismatch, match="other texts"):
        embed(spec.model_copy(update={"data": data}), tmp_path / "column", resume=saved)
    other = make_base(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointMismatch, match="the encoder is another one"):
        embed(spec.model_copy(update={"base": str(other)}), tmp_path / "base", resume=saved)
    Path(spec.data.source).write_text("body\ngood\n")
    with pytest.raises(CheckpointMismatch, match=f"the file has 1 rows, not the {CHUNK_ROWS}"):
        embed(spec, tmp_path / "fewer", resume=saved)
    wider = make_base(tmp_path / "wider", dim=64)
    with pytest.raises(CheckpointMismatch, match="another width"):
        embed(spec.model_copy(update={"base": str(wider)}), tmp_path / "wide", resume=saved)
    (saved / VECTORS_FILE).write_bytes(b"?")
    with pytest.raises(CheckpointCorrupt, match="has changed"):
        embed(spec, tmp_path / "damaged", resume=saved)
