"""Tests of the predictor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE

from lora_core import manifest
from lora_core.errors.artifact import EmptyInput, InputTooLong, InputWithoutTokens
from lora_core.inference.predictor import Predictor
from lora_core.inference.tokenization import ModelTokenizer
from tests.tiny_artifact import make_artifact
from tests.tiny_base import distilbert, tokenizer

TEXTS = ["good", "a very dull film and it was awful", "the plot is fine", "bad " * 100]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return distilbert(labels=3)


@pytest.fixture
def predictor(model: Any) -> Predictor:
    return Predictor.from_model(model, tokenizer(), max_length=64)


def test_batch_matches_single_texts(predictor: Predictor) -> None:
    together = predictor.forward(predictor.encode(TEXTS))
    alone = torch.cat([predictor.forward(predictor.encode([text])) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_logits_match_the_model(model: Any, predictor: Predictor) -> None:
    ids = torch.tensor([tokenizer().encode(TEXTS[2]).ids])
    with torch.no_grad():
        expected = model(ids).logits
    torch.testing.assert_close(predictor.forward(predictor.encode([TEXTS[2]])), expected)


def test_long_text_is_truncated_between_its_special_tokens(predictor: Predictor) -> None:
    [encoded] = predictor.encode([TEXTS[3]])
    assert encoded.truncated
    assert encoded.length == 64
    assert (encoded.ids[0], encoded.ids[-1]) == (2, 3)
    assert not predictor.encode([TEXTS[0]])[0].truncated


def test_long_text_is_rejected_without_truncation(predictor: Predictor) -> None:
    with pytest.raises(InputTooLong, match="Input 1 has 102 tokens; the limit is 64"):
        predictor.encode(["good", TEXTS[3]], truncate=False)


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text_is_rejected(predictor: Predictor, text: str) -> None:
    with pytest.raises(EmptyInput, match="Input 1"):
        predictor.encode(["good", text])


def test_text_of_which_the_tokenizer_leaves_nothing_is_rejected() -> None:
    plain = Tokenizer(BPE({"g": 0}, []))
    with pytest.raises(InputWithoutTokens, match="Input 1"):
        ModelTokenizer(plain, 64).encode(["good", "dull"])


def test_all_labels_are_sorted(predictor: Predictor) -> None:
    for prediction in predictor.predict(TEXTS):
        scores = [score for _, score in prediction]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)
        assert {label for label, _ in prediction} == {"LABEL_0", "LABEL_1", "LABEL_2"}


def test_temperature_of_the_artifact_is_used_if_present(
    tmp_path: Path,
) -> None:
    directory = make_artifact(tmp_path / "artifact")
    before = Predictor.load(directory)
    manifest.save(directory, {**manifest.read(directory), "calibration": {"temperature": 4.0}})
    after = Predictor.load(directory)
    logits = before.forward(before.encode(TEXTS))
    assert torch.equal(logits, after.forward(after.encode(TEXTS)))
    for row, plain, soft in zip(logits, before.predict(TEXTS), after.predict(TEXTS), strict=True):
        assert [label for label, _ in soft] == [label for label, _ in plain]
        assert plain[0][1] == pytest.approx(torch.softmax(row, dim=0).max().item())
        assert soft[0][1] == pytest.approx(torch.softmax(row / 4, dim=0).max().item())
