"""Parsing of model references."""

import pytest

from app.registry.errors import InvalidModelRef
from app.registry.refs import ModelRef, parse_ref


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("sentiment", ModelRef("sentiment", alias="production")),
        ("sentiment@staging", ModelRef("sentiment", alias="staging")),
        ("sentiment:3", ModelRef("sentiment", number=3)),
        ("a-1:120", ModelRef("a-1", number=120)),
    ],
)
def test_valid_references(text: str, ref: ModelRef) -> None:
    assert parse_ref(text) == ref
    assert parse_ref(str(ref)) == ref


@pytest.mark.parametrize(
    "text",
    ["", "Sentiment", "a b", "a:0", "a:01", "a:-1", "a:3.0", "a:٣", "a@", "a@b:1", "a:1@b", "a:1:2",
     "-a", "a-", "../a", "a/b", "a\n", "a" * 65, "$(id)", "a:1000000000", "a@@b"],
)  # fmt: skip
def test_invalid_references(text: str) -> None:
    with pytest.raises(InvalidModelRef) as raised:
        parse_ref(text)
    assert raised.value.code == "invalid_model_ref"
