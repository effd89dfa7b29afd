"""The shortcuts to logits against the full model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from lora_core import fine_tuning_methods
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders import FAMILIES, TRANSFORMERS_FAMILIES, encoder_parts
from lora_core.fast import first_token, frozen_encoder
from lora_core.fast.frozen_encoder import (
    CachedBlockwiseForward,
    FrozenBlockCacheForward,
    build_fastest_forward,
)
from lora_core.fast.unfused_attention import pad_multiple
from lora_core.forward import BlockwiseForward, Forward
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import Runtime
from lora_core.specs.data import Split
from lora_core.specs.method import FullFineTuningSpec, LastLayersBaselineSpec, LoraSpec
from lora_core.specs.train import TrainSpec
from tests import tiny_base
from tests.recording_observer import RecordingObserver

MACHINE = Runtime(device="cpu", precision="fp32", threads=1)


PROGRESS = ProgressReporter(RecordingObserver(), RecordingObserver())


def part() -> TokenizedSplit:
    draw = np.random.default_rng(0)
    ids = [draw.integers(5, 60, size=n, dtype=np.int32) for n in draw.integers(3, 40, size=30)]
    lengths = np.array([len(row) for row in ids])
    return TokenizedSplit(Split.TRAIN, ids, lengths, np.zeros(30, dtype=np.int64), pad_id=0)


@pytest.mark.parametrize(
    ("method", "frozen"),
    [
        (LastLayersBaselineSpec(), 2),
        (LastLayersBaselineSpec(blocks=1), 1),
        (LoraSpec(layers=(1,)), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("family", tiny_base.each_family())
def test_frozen_encoder_logits_match_the_full_model(
    family: str, method: LastLayersBaselineSpec | LoraSpec, frozen: int
) -> None:
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family](labels=3)
    fine_tuning_methods.build_method(method).prepare(model, FAMILIES[family])
    assert encoder_parts.count_leading_frozen_blocks(model, FAMILIES[family]) == frozen
    first_token.patch_last_block(model, FAMILIES[family])
    parts = {Split.TRAIN: part()}
    short = CachedBlockwiseForward(
        model, MACHINE, FAMILIES[family], parts, budget=100, progress=PROGRESS, environment={}
    )
    full = Forward(model, MACHINE)
    for indices in ([0], [29, 3, 7], list(range(30))):
        torch.testing.assert_close(
            short(part(), indices), full(part(), indices), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("family", tiny_base.each_family())
def test_partially_frozen_encoder_logits_match_the_full_model(family: str) -> None:
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family](labels=3)
    full, every = Forward(model, MACHINE), BlockwiseForward(model, MACHINE, FAMILIES[family])
    for indices in ([0], [29, 3, 7], list(range(30))):
        torch.testing.assert_close(
            every(part(), indices), full(part(), indices), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("family", tiny_base.each_family())
def test_head_dropout_matches_transformers(family: str) -> None:
    dropouts = dict.fromkeys(FAMILIES[family].head_dropouts, 0.5)
    model = tiny_base.FAMILIES[family](labels=3, **dropouts).train()
    found = []
    for way in (Forward(model, MACHINE), BlockwiseForward(model, MACHINE, FAMILIES[family])):
        torch.manual_seed(0)
        found.append(way(part(), [29, 3, 7]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


BATCHES = ([0], [29, 3, 7], list(range(30)))
STATES_ONLY = [name for name, each in TRANSFORMERS_FAMILIES.items() if each.passes_states_only]
SHARING = ("albert",)  # has one block, which runs many times


def families_and_methods() -> list[Any]:
    """Return pairs as parameters. Fast are a few families, and the others with one method."""
    few = [each for each in tiny_base.mostly_slow(STATES_ONLY) if isinstance(each, str)]
    return [
        *((name, LastLayersBaselineSpec()) for name in STATES_ONLY),
        *(
            pytest.param(name, method, marks=() if name in few else pytest.mark.slow)
            for method in (LastLayersBaselineSpec(blocks=1), LoraSpec(layers=(1,)))
            for name in STATES_ONLY
            if name not in SHARING
        ),
    ]


@pytest.mark.parametrize(("family", "method"), families_and_methods(), ids=str)
def test_logits_from_cached_blocks_match_the_full_model(
    family: str, method: LastLayersBaselineSpec | LoraSpec
) -> None:
    torch.manual_seed(0)
    description = TRANSFORMERS_FAMILIES[family]
    model = tiny_base.general(family, labels=3)
    fine_tuning_methods.build_method(method).prepare(model, description)
    parts = {Split.TRAIN: part()}
    forward = FrozenBlockCacheForward(
        model.train(), MACHINE, description, parts, budget=100, progress=PROGRESS, environment={}
    )
    full = Forward(model, MACHINE)
    expected = [full(part(), indices) for indices in BATCHES]
    for block in encoder_parts.blocks(model, description)[: len(forward._below)]:
        for parameter in block.parameters():  # nothing of it is computed again
            parameter.data.fill_(torch.nan)
    for indices, logits in zip(BATCHES, expected, strict=True):
        torch.testing.assert_close(forward(part(), indices), logits, rtol=1e-5, atol=1e-5)
    assert all("forward" not in vars(block) for block in forward._below)


def test_a_cached_batch_is_padded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    description = TRANSFORMERS_FAMILIES["longformer"]  # pads again, to its window
    model = tiny_base.general("longformer")
    fine_tuning_methods.build_method(LastLayersBaselineSpec()).prepare(model, description)
    parts = {Split.TRAIN: part()}
    forward = FrozenBlockCacheForward(
        model, MACHINE, description, parts, budget=100, progress=PROGRESS, environment={}
    )
    batches: list[int] = []

    def pad(states: list[torch.Tensor], batch_first: bool) -> torch.Tensor:
        batches.append(len(states))
        return pad_sequence(states, batch_first)

    monkeypatch.setattr(frozen_encoder, "pad_sequence", pad)
    for indices in BATCHES:
        forward(part(), indices)
    assert batches == [len(indices) for indices in BATCHES]


def test_padded_batch_stays_within_the_positions() -> None:
    way = Forward(tiny_base.roberta(), MACHINE, pad_multiple=16)
    assert [way._padded_length(n) for n in (17, 49, 64)] == [32, 64, 64]
    way = Forward(tiny_base.roberta(max_position_embeddings=63), MACHINE, pad_multiple=16)
    assert way._padded_length(50) == 61


@pytest.mark.parametrize(
    ("longest", "positions", "precision", "expected"),
    [(17, 64, "bf16", 32), (32, 64, "bf16", 32), (39, 40, "bf16", 40), (17, 64, "fp32", 17)],
)
def test_bf16_batch_lengths_are_bucketed_within_the_positions(
    longest: int, positions: int, precision: str, expected: int
) -> None:
    model = tiny_base.bert(max_position_embeddings=positions)
    family = FAMILIES["bert"]
    model.requires_grad_(False)
    for trained in (model.bert.encoder.layer[1], model.classifier):
        trained.requires_grad_(True)
    ids = [np.full(n, 7, dtype=np.int32) for n in (longest, 5)]
    texts = TokenizedSplit(
        Split.TRAIN, ids, np.array([longest, 5]), np.zeros(2, dtype=np.int64), pad_id=0
    )
    machine = replace(MACHINE, precision=precision)
    ways = (
        BlockwiseForward(model, machine, family, pad_multiple=pad_multiple("cpu", precision)),
        CachedBlockwiseForward(
            model,
            machine,
            family,
            {Split.TRAIN: texts},
            budget=100,
            progress=PROGRESS,
            environment={},
        ),
    )
    seen: list[int] = []
    model.bert.encoder.layer[1].register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[1]))
    exact = Forward(model, MACHINE)(texts, [0, 1])
    seen.clear()
    for way in ways:
        torch.testing.assert_close(way(texts, [0, 1]).float(), exact, rtol=0.05, atol=0.05)
    assert seen == [expected, expected]


@pytest.mark.parametrize(
    ("method", "dropout", "most", "expected"),
    [
        (LastLayersBaselineSpec(), 0.0, 2**30, CachedBlockwiseForward),
        (LastLayersBaselineSpec(), 0.1, 2**30, BlockwiseForward),
        (LastLayersBaselineSpec(), 0.0, 100, BlockwiseForward),
        (LastLayersBaselineSpec(blocks=1), 0.0, 2**30, CachedBlockwiseForward),
        (LastLayersBaselineSpec(blocks=2), 0.0, 2**30, BlockwiseForward),
        (LoraSpec(layers=(1,)), 0.0, 2**30, CachedBlockwiseForward),
        (LoraSpec(), 0.0, 2**30, BlockwiseForward),
        (FullFineTuningSpec(), 0.0, 2**30, BlockwiseForward),
    ],
)
def test_frozen_encoder_is_skipped_only_if_nothing_in_it_changes(
    method: LastLayersBaselineSpec | LoraSpec | FullFineTuningSpec,
    dropout: float,
    most: int,
    expected: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frozen_encoder, "MAX_RUN_BYTES", most)
    model, family = tiny_base.distilbert(), FAMILIES["distilbert"]
    fine_tuning_methods.build_method(method).prepare(model, family)
    parts = {Split.TRAIN: part()}
    chosen = build_fastest_forward(
        model,
        MACHINE,
        family,
        parts,
        encoder_dropout=dropout,
        budget=100,
        progress=PROGRESS,
        environment={},
    )
    assert type(chosen) is expected


def test_baseline_run_is_equal_with_and_without_cached_features(
    spec: Callable[..., TrainSpec],
    train: Callable[..., tuple[RecordingObserver, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fp32 = {"precision": "fp32"}  # where summation order hardly matters
    optim = {"epochs": 1, "head_dropout": 0.3}
    run = spec(method={"type": "baseline"}, optim=optim, runtime=fp32)
    short, _ = train(run)
    monkeypatch.setattr(frozen_encoder, "MAX_RUN_BYTES", 0)
    full, _ = train(run)
    losses = [[event.loss for event in observer.all("step")] for observer in (short, full)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("family", "method", "dropout", "expected"),
    [
        ("deberta-v2", LastLayersBaselineSpec(), 0.0, FrozenBlockCacheForward),
        ("deberta-v2", LastLayersBaselineSpec(), 0.1, Forward),
        ("deberta-v2", LoraSpec(), 0.0, Forward),
        ("lilt", LastLayersBaselineSpec(), 0.0, Forward),  # its blocks pass on more than states
    ],
)
def test_general_encoders_are_cached_where_that_is_exact(
    family: str, method: LastLayersBaselineSpec | LoraSpec, dropout: float, expected: type[Forward]
) -> None:
    model = tiny_base.general(family)
    fine_tuning_methods.build_method(method).prepare(model, TRANSFORMERS_FAMILIES[family])
    chosen = build_fastest_forward(
        model,
        MACHINE,
        TRANSFORMERS_FAMILIES[family],
        {Split.TRAIN: part()},
        encoder_dropout=dropout,
        budget=100,
        progress=PROGRESS,
        environment={},
    )
    assert type(chosen) is expected
