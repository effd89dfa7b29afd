"""Tests of the packed encoder: each text is computed as by its own merged model."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lora_core import manifest
from lora_core.adapters import merge_adapters
from lora_core.artifact import (
    save_adapter,
    save_base_adapter_and_head,
    save_head,
    save_merged_model,
)
from lora_core.data.batching import padded_length
from lora_core.encoders import FAMILIES
from lora_core.encoders.load import encoder_weights_sha256
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.fine_tuning_methods import LoraMethod
from lora_core.inference import packed_encoder
from lora_core.inference.adapter import Adapter
from lora_core.inference.engines import EngineCache
from lora_core.inference.packed_encoder import BatchLayout, UnfusedAttention
from lora_core.inference.predictor import Predictor
from lora_core.specs.method import HeadMode, LayerRole, LoraSpec, LoraVariant
from tests.plain_checkpoint import plain_checkpoint
from tests.slow import slow_but
from tests.tiny_base import FAMILIES as TINY
from tests.tiny_base import tokenizer, whole_layers

TEXTS = ["good", "a very dull film and it was awful", "the plot is fine", "bad " * 30, "story end"]

Make = Callable[..., Path]


@pytest.fixture(params=["base", "merged"])
def form(request: pytest.FixtureRequest) -> str:
    """Artifacts have a base, or a merged checkpoint as in format 1."""
    return str(request.param)


@pytest.fixture
def make(tmp_path: Path, form: str) -> Make:
    """Saves a LoRA run with random adapters, on the same base for each family."""

    def make(family: str, spec: LoraSpec, *, labels: int, seed: int) -> Path:
        torch.manual_seed(0)
        base = TINY[family]()
        model = TINY[family](labels=labels)  # XLM-RoBERTa's draws its head before its encoder
        model.base_model.load_state_dict(base.base_model.state_dict())
        sha256 = encoder_weights_sha256(model, FAMILIES[family])
        torch.manual_seed(seed)
        spec = spec.model_copy(update={"targets": whole_layers(family, *spec.targets)})
        method = LoraMethod(spec)
        method.prepare(model, FAMILIES[family])
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        directory = tmp_path / f"{family}-{seed}"
        directory.mkdir()
        if form == "base":
            save_base_adapter_and_head(directory, model, FAMILIES[family], tokenizer(family), spec)
        else:
            save_adapter(directory, spec, method.state_dict(model), family)
            merge_adapters(model)
            save_merged_model(directory, model, tokenizer(family), 64)
            save_head(directory, model, FAMILIES[family])
        facts = {"encoder": family, "max_length": 64, "base_sha256": sha256, "spec": {}}
        manifest.create_and_save(directory, facts)
        return directory

    return make


@cache
def load_merged_model(directory: Path) -> PreTrainedModel:
    checkpoint = plain_checkpoint(directory)
    return AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()


def merged_logits(directory: Path, text: str) -> torch.Tensor:
    """Return the logits that plain transformers computes."""
    model = load_merged_model(directory)
    ids = tokenizer(model.config.model_type).encode(text).ids
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return logits


SPECS = [
    LoraSpec(r=4, targets=(LayerRole.QUERY, LayerRole.VALUE)),
    LoraSpec(r=2, targets=(LayerRole.MLP,), variant=LoraVariant.RSLORA, layers=(1,)),
    LoraSpec(r=8, alpha=1.0, variant=LoraVariant.UNSCALED, head=HeadMode.LORA),
    LoraSpec(r=3, targets=(LayerRole.KEY, LayerRole.PROJECTION), head=HeadMode.FROZEN),
    LoraSpec(r=4, variant=LoraVariant.LORA_FA),
    LoraSpec(r=4, variant=LoraVariant.DORA),
]


@pytest.mark.parametrize("family", slow_but(FAMILIES, "modernbert"))
@pytest.mark.parametrize("form", slow_but(["base", "merged"], "base"), indirect=True)
def test_texts_of_one_batch_may_have_different_adapters(make: Make, family: str) -> None:
    engine_cache = EngineCache()
    directories = [make(family, spec, labels=2 + i, seed=i) for i, spec in enumerate(SPECS)]
    loaded = [Predictor.load(each, engine_cache=engine_cache) for each in directories]
    shared, own = loaded[:-1], loaded[-1]
    assert len({id(each.engine) for each in shared}) == 1
    assert own.engine is not shared[0].engine  # DoRA
    for one in loaded:
        of = [i for i, each in enumerate(loaded) if each.engine is one.engine]
        order = [of[i % len(of)] for i in range(len(TEXTS) * len(of))]
        texts = [TEXTS[i % len(TEXTS)] for i in range(len(order))]
        items = [one.encode([text])[0] for text in texts]
        rows = one.engine.logits(items, [loaded[i].adapter for i in order])
        for i, text, row in zip(order, texts, rows, strict=True):
            assert row.shape == (2 + i,)
            torch.testing.assert_close(
                row, merged_logits(directories[i], text), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("family", list(FAMILIES))
def test_text_may_contain_the_padding_token(make: Make, family: str) -> None:
    """RoBERTa gives such a token the position of padding."""
    directory = make(family, SPECS[0], labels=2, seed=0)
    predictor = Predictor.load(directory)
    texts = ["a <pad> dull <pad> film", "a [PAD] dull film"]
    rows = predictor.forward(predictor.encode(texts))
    for text, row in zip(texts, rows, strict=True):
        torch.testing.assert_close(row, merged_logits(directory, text), rtol=1e-4, atol=1e-5)


def test_adapter_memory(make: Make) -> None:
    engine_cache = EngineCache()
    first, second = (
        Predictor.load(make("distilbert", SPECS[0], labels=2, seed=i), engine_cache=engine_cache)
        for i in range(2)
    )
    assert first.engine is second.engine
    assert first.tokenizer is second.tokenizer
    assert first.adapter.nbytes == 4 * (2 * (2 * 4 * 32 + 3 * 32 * 8) + 32 * 32 + 32 + 2 * 32 + 2)


@pytest.mark.parametrize("form", ["merged"], indirect=True)
@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ({"n_heads": 2}, False),
        ({"activation": "relu"}, False),
        ({"dropout": 0.3, "seq_classif_dropout": 0.3}, True),  # used only in training
    ],
)
def test_different_encoder_config_is_not_shared(
    make: Make, change: dict[str, Any], shares: bool
) -> None:
    directories = [make("distilbert", SPECS[0], labels=2, seed=i) for i in range(2)]
    config = directories[1] / "merged" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    facts = manifest.read(directories[1])
    del facts["files"]
    (directories[1] / manifest.MANIFEST_FILE).unlink()
    manifest.create_and_save(directories[1], facts)
    engine_cache = EngineCache()
    first, second = (Predictor.load(each, engine_cache=engine_cache) for each in directories)
    assert (first.engine is second.engine) == shares
    [row] = second.forward(second.encode(TEXTS[:1]))
    torch.testing.assert_close(row, merged_logits(directories[1], TEXTS[0]), rtol=1e-4, atol=1e-5)


def test_base_is_released_with_its_last_version(make: Make) -> None:
    engine_cache = EngineCache()
    predictor: Any = Predictor.load(
        make("bert", SPECS[0], labels=2, seed=0), engine_cache=engine_cache
    )
    assert len(engine_cache._engines) == len(engine_cache._tokenizers) == 1
    del predictor
    assert len(engine_cache._engines) == len(engine_cache._tokenizers) == 0


@pytest.mark.parametrize(
    "name",
    ["adapter.safetensors", "head.safetensors", "FORM/model.safetensors", "FORM/tokenizer.json"],
)
def test_files_that_are_read_are_verified(make: Make, form: str, name: str) -> None:
    directory = make("distilbert", SPECS[0], labels=2, seed=0)
    name = name.replace("FORM", form)
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactCorrupt, match=name):
        Predictor.load(directory)


def test_bf16_is_close_to_fp32(make: Make) -> None:
    directory = make("distilbert", SPECS[0], labels=3, seed=1)
    exact, fast = (Predictor.load(directory, engine=name) for name in ("torch-fp32", "torch-bf16"))
    items = exact.encode(TEXTS)
    torch.testing.assert_close(fast.forward(items), exact.forward(items), rtol=0, atol=3e-2)
    assert fast.engine.nbytes < exact.engine.nbytes


def test_batching_changes_bf16_logits_only_by_rounding(make: Make) -> None:
    predictor = Predictor.load(make("bert", SPECS[0], labels=3, seed=1), engine="torch-bf16")
    items = predictor.encode(TEXTS)
    together = predictor.engine.logits(items, [predictor.adapter] * len(items))
    for text, row in zip(items, together, strict=True):
        [alone] = predictor.engine.logits([text], [predictor.adapter])
        torch.testing.assert_close(alone, row, rtol=0, atol=5e-3)


def test_long_text_uses_fused_attention(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.load(make("bert", SPECS[0], labels=3, seed=1), engine="torch-bf16")
    items = predictor.encode(TEXTS)
    adapters = [predictor.adapter] * len(items)
    expected = predictor.engine.logits(items, adapters)
    seen, attend = [], UnfusedAttention.__call__

    def recording(self: UnfusedAttention, *arguments: Any) -> torch.Tensor:
        seen.append(arguments[-1])
        return attend(self, *arguments)

    monkeypatch.setattr(UnfusedAttention, "__call__", recording)
    monkeypatch.setattr(packed_encoder, "MAX_UNFUSED_LENGTH", 6)
    for row, again in zip(expected, predictor.engine.logits(items, adapters), strict=True):
        torch.testing.assert_close(again, row, rtol=0, atol=5e-3)
    lengths = {item.length for item in items}
    assert {length for length in lengths if length <= 6} == set(seen) < lengths


@pytest.mark.parametrize("lengths", [[12, 4, 3], [16, 1, 33], [1, 1, 1], [40, 15, 17]])
def test_rows_that_a_text_reads_are_those_of_its_adapter(lengths: list[int]) -> None:
    """Otherwise a value of another version that is not finite would reach it, as 0 * inf."""
    one, other = (Adapter({}, ((torch.empty(0),) * 2,) * 2) for _ in range(2))
    layout = BatchLayout(lengths, [one, one, other], step=16)
    by_text = [
        adapter for texts, adapter in layout.adapter_slices("texts") for _ in layout.lengths[texts]
    ]
    ungroup = {id(adapter): rows for rows, adapter in layout.adapter_slices("tokens")}
    for start, length, adapter in zip(layout.starts, layout.lengths, by_text, strict=True):
        rows = ungroup[id(adapter)]
        assert rows.start <= start
        assert start + padded_length(length, 16) <= rows.stop <= layout.rows


@pytest.mark.parametrize("length", [1, 15, 16, 37])
def test_rows_after_a_text_do_not_change_attention(length: int) -> None:
    torch.manual_seed(0)
    attend = UnfusedAttention()
    for rows in (48, length):  # a buffer that is larger than needed the second time
        q, k, v = torch.randn(3, 4, rows, 8)
        expected = F.scaled_dot_product_attention(q[:, :length], k[:, :length], v[:, :length])
        torch.testing.assert_close(attend(q, k, v, length), expected, rtol=1e-5, atol=1e-6)
