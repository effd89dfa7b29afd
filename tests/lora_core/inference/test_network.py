"""One network, many adapters: each text is answered as by its own merged model."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lora_core import manifest
from lora_core.adapters import merge_adapters
from lora_core.artifact import save_adapter, save_head, save_merged
from lora_core.encoders import FAMILIES
from lora_core.encoders.load import fingerprint
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.inference import network
from lora_core.inference.attention import Unfused
from lora_core.inference.networks import Networks
from lora_core.inference.predictor import Predictor
from lora_core.methods.lora import Lora
from lora_core.specs.method import Head, LoraSpec, Role, Variant
from tests.tiny_base import FAMILIES as TINY
from tests.tiny_base import tokenizer

TEXTS = ["good", "a very dull film and it was awful", "the plot is fine", "bad " * 30, "story end"]

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Saves a LoRA run with random adapters on a base that is the same for one family."""

    def make(family: str, spec: LoraSpec, *, labels: int, seed: int) -> Path:
        torch.manual_seed(0)
        model = TINY[family](labels=labels)
        sha256 = fingerprint(model, FAMILIES[family])
        torch.manual_seed(seed)
        method = Lora(spec)
        method.prepare(model, FAMILIES[family])
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        directory = tmp_path / f"{family}-{seed}"
        directory.mkdir()
        save_adapter(directory, spec, method.state(model), family)
        merge_adapters(model)
        save_merged(directory, model, tokenizer(family), 64)
        save_head(directory, model, FAMILIES[family])
        facts = {"encoder": family, "max_length": 64, "base_sha256": sha256}
        manifest.write(directory, facts)
        return directory

    return make


@cache
def plain(directory: Path) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_pretrained(directory / "merged").eval()


def merged(directory: Path, text: str) -> torch.Tensor:
    """What plain transformers makes of it."""
    model = plain(directory)
    ids = tokenizer(model.config.model_type).encode(text).ids
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return logits


SPECS = [
    LoraSpec(r=4, targets=(Role.QUERY, Role.VALUE)),
    LoraSpec(r=2, targets=(Role.MLP,), variant=Variant.RSLORA, layers=(1,)),
    LoraSpec(r=8, alpha=1.0, variant=Variant.UNSCALED, head=Head.LORA),
    LoraSpec(r=3, targets=(Role.KEY, Role.PROJECTION), head=Head.FROZEN),
    LoraSpec(r=4, variant=Variant.LORA_FA),
    LoraSpec(r=4, variant=Variant.DORA),
]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_rows_of_one_batch_may_have_different_adapters(make: Make, family: str) -> None:
    networks = Networks()
    directories = [make(family, spec, labels=2 + i, seed=i) for i, spec in enumerate(SPECS)]
    loaded = [Predictor.load(each, networks=networks) for each in directories]
    shared, own = loaded[:-1], loaded[-1]
    assert len({id(each.engine) for each in shared}) == 1
    assert own.engine is not shared[0].engine  # DoRA
    for one in loaded:
        of = [i for i, each in enumerate(loaded) if each.engine is one.engine]
        order = [of[i % len(of)] for i in range(len(TEXTS) * len(of))]
        texts = [TEXTS[i % len(TEXTS)] for i in range(len(order))]
        ids = [one.encode([text])[0].ids for text in texts]
        rows = one.engine.logits(ids, [loaded[i].adapter for i in order])
        for i, text, row in zip(order, texts, rows, strict=True):
            assert row.shape == (2 + i,)
            torch.testing.assert_close(row, merged(directories[i], text), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_text_may_spell_out_the_padding_token(make: Make, family: str) -> None:
    """Where positions begin after that of padding, such a token has none of its own."""
    directory = make(family, SPECS[0], labels=2, seed=0)
    predictor = Predictor.load(directory)
    texts = ["a <pad> dull <pad> film", "a [PAD] dull film"]
    rows = predictor.forward(predictor.encode(texts))
    for text, row in zip(texts, rows, strict=True):
        torch.testing.assert_close(row, merged(directory, text), rtol=1e-4, atol=1e-5)


def test_an_adapter_adds_little_to_the_memory_of_its_base(make: Make) -> None:
    networks = Networks()
    first, second = (
        Predictor.load(make("distilbert", SPECS[0], labels=2, seed=i), networks=networks)
        for i in range(2)
    )
    assert first.engine is second.engine
    assert first.reader is second.reader
    assert first.adapter.nbytes == 4 * (2 * (2 * 4 * 32 + 3 * 32 * 8) + 32 * 32 + 32 + 2 * 32 + 2)


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ({"n_heads": 2}, False),
        ({"activation": "relu"}, False),
        ({"dropout": 0.3, "seq_classif_dropout": 0.3}, True),  # of training alone
    ],
)
def test_weights_under_another_config_are_another_network(
    make: Make, change: dict[str, Any], shares: bool
) -> None:
    directories = [make("distilbert", SPECS[0], labels=2, seed=i) for i in range(2)]
    config = directories[1] / "merged" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    facts = manifest.read(directories[1])
    del facts["files"]
    (directories[1] / manifest.MANIFEST).unlink()
    manifest.write(directories[1], facts)
    networks = Networks()
    first, second = (Predictor.load(each, networks=networks) for each in directories)
    assert (first.engine is second.engine) == shares
    [row] = second.forward(second.encode(TEXTS[:1]))
    torch.testing.assert_close(row, merged(directories[1], TEXTS[0]), rtol=1e-4, atol=1e-5)


def test_a_base_goes_with_its_last_version(make: Make) -> None:
    networks = Networks()
    predictor: Any = Predictor.load(make("bert", SPECS[0], labels=2, seed=0), networks=networks)
    assert len(networks._engines) == len(networks._readers) == 1
    del predictor
    assert len(networks._engines) == len(networks._readers) == 0


@pytest.mark.parametrize(
    "name", ["adapter.safetensors", "head.safetensors", "merged/model.safetensors"]
)
def test_what_is_read_is_checked(make: Make, name: str) -> None:
    directory = make("distilbert", SPECS[0], labels=2, seed=0)
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactCorrupt, match=name):
        Predictor.load(directory)


def test_bf16_stays_close(make: Make) -> None:
    directory = make("distilbert", SPECS[0], labels=3, seed=1)
    exact, fast = (Predictor.load(directory, engine=name) for name in ("torch-fp32", "torch-bf16"))
    items = exact.encode(TEXTS)
    torch.testing.assert_close(fast.forward(items), exact.forward(items), rtol=0, atol=3e-2)
    assert fast.engine.nbytes < exact.engine.nbytes


def test_company_changes_an_answer_in_bf16_by_rounding_only(make: Make) -> None:
    predictor = Predictor.load(make("bert", SPECS[0], labels=3, seed=1), engine="torch-bf16")
    ids = [item.ids for item in predictor.encode(TEXTS)]
    together = predictor.engine.logits(ids, [predictor.adapter] * len(ids))
    for text, row in zip(ids, together, strict=True):
        [alone] = predictor.engine.logits([text], [predictor.adapter])
        torch.testing.assert_close(alone, row, rtol=0, atol=5e-3)


def test_a_long_text_goes_the_fused_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.load(make("bert", SPECS[0], labels=3, seed=1), engine="torch-bf16")
    ids = [item.ids for item in predictor.encode(TEXTS)]
    adapters = [predictor.adapter] * len(ids)
    expected = predictor.engine.logits(ids, adapters)
    seen, attend = [], Unfused.__call__

    def watched(self: Unfused, *arguments: Any) -> torch.Tensor:
        seen.append(arguments[-1])
        return attend(self, *arguments)

    monkeypatch.setattr(Unfused, "__call__", watched)
    monkeypatch.setattr(network, "LONGEST", 6)
    for row, again in zip(expected, predictor.engine.logits(ids, adapters), strict=True):
        torch.testing.assert_close(again, row, rtol=0, atol=5e-3)
    assert {len(text) for text in ids if len(text) <= 6} == set(seen) < {len(text) for text in ids}
