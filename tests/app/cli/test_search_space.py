"""`--over FIELD=VALUES`."""

from typing import Any

import pytest

from app.cli.errors import UsageError
from app.cli.sweep_start import parse_search_space, resolve_field

ALL = ["query", "key", "value", "projection", "mlp"]


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("r=1,2,4", "method.r", [1, 2, 4]),
        ("lora-r=8", "method.r", [8]),
        ("--alpha=1,16.5", "method.alpha", [1, 16.5]),
        ("lr=1e-4,1e-3", "optim.learning_rate", [1e-4, 1e-3]),
        ("variant=lora,dora", "method.variant", ["lora", "dora"]),
        ("head = frozen, lora", "method.head", ["frozen", "lora"]),
        ("max_length=64,128", "data.max_length", [64, 128]),
        ("seed=0,1,2", "runtime.seed", [0, 1, 2]),
        ("method.r=2", "method.r", [2]),
        ("optim.weight_decay=0,0.1", "optim.weight_decay", [0, 0.1]),
        ("runtime.gradient_checkpointing=true,false", "runtime.gradient_checkpointing",
         [True, False]),
        ("stop.patience=1,null", "stop.patience", [1, None]),
        ("base=../one,../two", "base", ["../one", "../two"]),
        ("targets=query+value,query+value+mlp,all", "method.targets",
         [["query", "value"], ["query", "value", "mlp"], ALL]),
        ("target=query", "method.targets", [["query"]]),
        ('targets=[["query"], ["key", "mlp"]]', "method.targets", [["query"], ["key", "mlp"]]),
        ("layers=0,0+1,null", "method.layers", [[0], [0, 1], None]),
        ("r=[1, 2]", "method.r", [1, 2]),
        ("lr=1e-4..1e-2", "optim.learning_rate", {"low": 1e-4, "high": 1e-2}),
        ("lr=log:1e-4..1e-2", "optim.learning_rate", {"low": 1e-4, "high": 1e-2, "log": True}),
        ("lr=log:1e-4..1e-2x5", "optim.learning_rate",
         {"low": 1e-4, "high": 1e-2, "log": True, "count": 5}),
        ("dropout=0..0.3x4", "method.dropout", {"low": 0, "high": 0.3, "count": 4}),
        ("dropout=.0...5", "method.dropout", {"low": 0.0, "high": 0.5}),
    ],
)  # fmt: skip
def test_values_lists_and_ranges_are_parsed(text: str, field: str, values: Any) -> None:
    assert parse_search_space([text]) == {field: values}


def test_integer_bounds_stay_integers() -> None:
    """A range of integers yields integers, so 8 must not become 8.0."""
    ends = parse_search_space(["r=1..64"])["method.r"]
    assert [type(ends["low"]), type(ends["high"])] == [int, int]
    assert isinstance(parse_search_space(["alpha=1.0..64"])["method.alpha"]["low"], float)


def test_fields_keep_their_order() -> None:
    assert list(parse_search_space(["r=1", "lr=1", "alpha=1"])) == [
        "method.r",
        "optim.learning_rate",
        "method.alpha",
    ]


def test_unknown_field_is_unchanged() -> None:
    assert resolve_field("depth") == "depth"
    assert resolve_field("method.depth") == "method.depth"


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["r"], "expected FIELD=VALUES"),
        (["r="], "expected FIELD=VALUES"),
        (["=1"], "expected FIELD=VALUES"),
        (["r= "], "expected FIELD=VALUES"),
        (["r=1,,2"], "a value is empty"),
        (["r=1,"], "a value is empty"),
        (["r=1,2", "lora-r=4"], "method.r is given twice"),
        (["lr=1e-4.."], "a range is LOW..HIGH"),
        (["lr=1e-4..high"], "a range is LOW..HIGH"),
        (["lr=log:1,2"], "a range is LOW..HIGH"),
        (["lr=1..2x"], "a range is LOW..HIGH"),
        (["lr=1..2,4"], "a range is LOW..HIGH"),
    ],
)
def test_invalid_assignment_is_reported_with_the_reason(texts: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        parse_search_space(texts)
    assert str(caught.value).startswith(f"--over {texts[-1]} is invalid: ")
