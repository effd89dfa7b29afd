"""Both sides train as much."""

from pathlib import Path

import pytest

from benchmarks.plan import METHODS
from benchmarks.rival import build_model
from lora_core import methods
from lora_core.encoders.checkpoint import load_classifier, locate
from tests.tiny_base import FAMILIES, make_base


# PEFT asks for it.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_both_sides_train_the_same_number_of_parameters(
    name: str, family: str, tmp_path: Path
) -> None:
    base = locate(str(make_base(tmp_path, family)))
    ours, _ = load_classifier(base, ["negative", "positive"])
    method = methods.build(METHODS[name])
    method.prepare(ours, base.family)
    theirs = build_model(base, METHODS[name], tuned=True)
    trained = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert trained == method.census(ours).trainable


def test_only_the_tuned_rival_has_no_dropout(tmp_path: Path) -> None:
    base = locate(str(make_base(tmp_path, dropout=0.1, attention_dropout=0.2)))
    default = build_model(base, METHODS["full"], tuned=False).config
    tuned = build_model(base, METHODS["full"], tuned=True).config
    assert (default.dropout, default.attention_dropout) == (0.1, 0.2)
    assert (tuned.dropout, tuned.attention_dropout) == (0.0, 0.0)
