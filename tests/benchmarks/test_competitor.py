"""Both sides train the same parameters from the same start."""

from pathlib import Path

import pytest
import torch

from benchmarks.train.competitor import build_model, initial_head
from benchmarks.train.ours import ready
from benchmarks.train.plan import METHODS, SEED
from lora_core import fine_tuning_methods
from lora_core.encoders.load import load_classifier, resolve_base
from lora_core.specs.data import DataSpec
from lora_core.specs.method import FullFineTuningSpec
from lora_core.specs.train import RuntimeSpec, TrainSpec
from tests.slow import slow_but
from tests.tiny_base import FAMILIES, make_base, make_reviews

# Not those whose query and value are one layer, or whose head has more than linear layers.
COMPARED = [name for name in FAMILIES if name != "modernbert"]


# Required by PEFT.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("family", slow_but(COMPARED, "distilbert"))
@pytest.mark.parametrize("name", METHODS)
def test_both_sides_train_the_same_number_of_parameters(
    name: str, family: str, tmp_path: Path
) -> None:
    base = resolve_base(str(make_base(tmp_path, family)))
    ours, _ = load_classifier(base, ["negative", "positive"])
    method = fine_tuning_methods.build_method(METHODS[name])
    method.prepare(ours, base.family)
    theirs = build_model(base, METHODS[name], tuned=True, head=initial_head(base))
    trained = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert trained == method.count_parameters(ours).trainable


def test_only_the_tuned_competitor_has_no_dropout(tmp_path: Path) -> None:
    base = resolve_base(str(make_base(tmp_path, dropout=0.1, attention_dropout=0.2)))
    head = initial_head(base)
    default = build_model(base, METHODS["full"], tuned=False, head=head).config
    tuned = build_model(base, METHODS["full"], tuned=True, head=head).config
    assert (default.dropout, default.attention_dropout) == (0.1, 0.2)
    assert (tuned.dropout, tuned.attention_dropout) == (0.0, 0.0)


@pytest.mark.parametrize("family", slow_but(FAMILIES, "distilbert", "modernbert"))
def test_both_sides_start_from_the_same_head(family: str, tmp_path: Path) -> None:
    directory = str(make_base(tmp_path / "base", family))
    data = DataSpec(source=str(make_reviews(tmp_path / "reviews.csv")))
    spec = TrainSpec(
        method=FullFineTuningSpec(),
        base=directory,
        data=data,
        runtime=RuntimeSpec(seed=SEED, threads=1),
    )
    ours, base = ready(spec).model, resolve_base(directory)
    theirs = build_model(base, METHODS["full"], tuned=True, head=initial_head(base))
    for name in base.family.head:
        pairs = zip(
            ours.get_submodule(name).parameters(),
            theirs.get_submodule(name).parameters(),
            strict=True,
        )
        assert all(torch.equal(mine, other) for mine, other in pairs)
