"""Each fast family computes the logits of transformers, within 1e-5 in float32."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders import FAMILIES
from lora_core.fast.speed_up import speed_up_training
from lora_core.inference.engines import build_encoder
from lora_core.inference.tokenization import TokenizedText
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import Runtime
from lora_core.specs.data import Split
from tests import tiny_base
from tests.recording_observer import RecordingObserver

LENGTHS = (3, 17, 64, 127, 128)
OBSERVER = RecordingObserver()


def texts(model: PreTrainedModel) -> list[list[int]]:
    """Random token ids, and the padding id once: a text may spell it out."""
    generator = np.random.default_rng(0)
    ids = [generator.integers(4, model.config.vocab_size, length).tolist() for length in LENGTHS]
    ids[2][5] = model.config.pad_token_id
    return ids


def transformers_logits(model: PreTrainedModel) -> Tensor:
    """Those of one text at a time, without padding."""
    with torch.no_grad():
        return torch.cat([model(torch.tensor([ids])).logits for ids in texts(model)])


@pytest.fixture(params=tiny_base.FAMILIES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    positions: dict[str, Any] = {"max_position_embeddings": 130}
    return tiny_base.FAMILIES[request.param](labels=3, **positions)


def test_training_has_the_logits_of_transformers(model: PreTrainedModel) -> None:
    fast = copy.deepcopy(model)
    lengths = np.array(LENGTHS)
    ids = [np.array(each, dtype=np.int32) for each in texts(model)]
    pad_id = model.config.pad_token_id or 0
    data = TokenizedSplit(Split.TRAIN, ids, lengths, np.zeros_like(lengths), pad_id)
    forward = speed_up_training(
        fast,
        FAMILIES[model.config.model_type],
        Runtime(device="cpu", precision="fp32", threads=1),
        {Split.TRAIN: data},
        encoder_dropout=0.0,
        micro_batch_tokens=4096,
        progress=ProgressReporter(OBSERVER, OBSERVER),
        environment={},
    )
    with torch.no_grad():
        found = forward(data, range(len(LENGTHS)))
    torch.testing.assert_close(found, transformers_logits(model), rtol=0, atol=1e-5)


def test_serving_has_the_logits_of_transformers(model: PreTrainedModel) -> None:
    expected = transformers_logits(model)
    engine = build_encoder(model, torch.float32)
    adapter = engine.extract_adapter(model)
    items = [TokenizedText(ids, truncated=False) for ids in texts(model)]
    found = torch.stack(engine.logits(items, [adapter] * len(items)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
