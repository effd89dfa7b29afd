import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertModel, DistilBertConfig, DistilBertModel

from lora_core import manifest
from lora_core.errors.base_model import SampleFileChecksumMismatch, SamplePackageMissing
from lora_core.samples import minilm
from lora_core.samples.packages import get_verified_file_path
from tests.fake_distribution import install
from tests.missing_samples import hide_samples
from tests.slow import slow_but

TEXTS = [
    "A quiet, well acted film.",
    "no",
    "Crème brûlée, 東京 and ½ of it: never again! " * 3,
]
BATCHES = [[TEXTS[0]], TEXTS, ["the whole length " * 300]]


@pytest.mark.parametrize("attention", slow_but(["eager", "sdpa"], "sdpa"))
def test_hidden_states_match_bert_bit_for_bit(attention: str) -> None:
    original = BertModel.from_pretrained(
        get_verified_file_path(minilm.WEIGHTS).parent,
        attn_implementation=attention,
        dtype=torch.float32,
    ).eval()
    ours = DistilBertModel.from_pretrained(
        minilm.build_cached_checkpoint(), attn_implementation=attention, dtype=torch.float32
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(minilm.build_cached_checkpoint())
    for batch in BATCHES:
        inputs = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
        arguments = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        with torch.inference_mode():
            theirs = original(**arguments, output_hidden_states=True).hidden_states
            made = ours(**arguments, output_hidden_states=True).hidden_states
        assert len(made) == len(theirs) == minilm.LAYERS + 1
        for layer, (a, b) in enumerate(zip(made, theirs, strict=True)):
            assert torch.equal(a, b), f"layer {layer} of a batch of {len(batch)}"


def test_config_matches_the_checkpoint() -> None:
    read = DistilBertConfig.from_pretrained(minilm.build_cached_checkpoint())
    assert {name: getattr(read, name) for name in ("dim", "n_heads", "hidden_dim")} == {
        "dim": 384,
        "n_heads": 12,
        "hidden_dim": 1536,
    }
    for name, value in minilm.build_distilbert_config_dict().items():
        if name not in ("dtype", "architectures"):
            assert getattr(read, name) == value


def test_tokenizer_does_not_truncate_or_pad() -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm.build_cached_checkpoint())
    short, long = tokenizer(["no", "long " * 200])["input_ids"]
    assert (len(short), len(long)) == (3, 202)
    assert tokenizer.model_max_length == 512


def test_concurrent_builds(tmp_path: Path) -> None:
    code = "from lora_core.samples import minilm; print(minilm.build_cached_checkpoint())"
    environment = os.environ | {"LORAWORKS_CACHE": str(tmp_path)}
    makers = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    answers = [maker.communicate(timeout=60)[0].decode().strip() for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0]
    assert len(set(answers)) == 1
    assert manifest.verify(Path(answers[0]))["revision"] == minilm.REVISION
    assert [path.name for path in (tmp_path / "bases").iterdir()] == [Path(answers[0]).name]


def test_damaged_cached_checkpoint_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    made = minilm.build_cached_checkpoint()
    with (made / "model.safetensors").open("r+b") as weights:
        weights.seek(1_000_000)
        weights.write(b"damage")
    assert minilm.build_cached_checkpoint() == made
    manifest.verify(made)


def test_tampered_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {file.path: b"{}" for file in (minilm.WEIGHTS, minilm.CONFIG, minilm.TOKENIZER)}
    install(tmp_path / "site", minilm.PACKAGE.name, minilm.PACKAGE.version, files)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SampleFileChecksumMismatch, match=r"config\.json of \S+ \S+ has sha256"):
        minilm.build_cached_checkpoint()
    assert list((tmp_path / "cache" / "bases").iterdir()) == []


def test_missing_package_error_shows_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(tmp_path)])
        with pytest.raises(SamplePackageMissing, match="`loraworks samples fetch`"):
            minilm.build_cached_checkpoint()


def test_built_checkpoint_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    made = minilm.build_cached_checkpoint()
    hide_samples(monkeypatch, tmp_path)
    minilm.check_available()
    assert minilm.is_available()
    assert minilm.build_cached_checkpoint() == made
    shutil.rmtree(made)
    assert not minilm.is_available()
    with pytest.raises(SamplePackageMissing):
        minilm.check_available()


def test_samples_do_not_import_torch_or_pandas() -> None:
    code = (
        "import sys, lora_core.samples.minilm, lora_core.samples.reviews, lora_core.data.split;"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert answer.stdout.strip() == b"[]"
