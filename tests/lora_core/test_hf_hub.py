"""Names of repositories, and the access token."""

import os

import pytest

from lora_core import hf_hub
from lora_core.hf_hub import is_allowed_repository, parse_hub_dataset


@pytest.mark.parametrize(
    ("name", "allowed", "expected"),
    [
        ("org/model", ("org/model",), True),
        ("org/model", ("org", "other"), False),
        ("org/model", (), False),
        ("org/model", ("*",), True),
        ("model", ("other", "*"), True),
        ("*", ("*",), False),
        ("org/model/file", ("*",), False),
        ("../model", ("*", "../model"), False),
    ],
)
def test_names_are_allowed_by_a_list_or_all(
    name: str, allowed: tuple[str, ...], expected: bool
) -> None:
    assert is_allowed_repository(name, allowed) is expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hub:imdb", ("imdb", None)),
        ("hub:nyu-mll/glue:mrpc", ("nyu-mll/glue", "mrpc")),
        ("hub:org/wiki:20220301.en", ("org/wiki", "20220301.en")),
        ("hub:nyu-mll/glue:", None),
        ("hub:nyu-mll/glue:a:b", None),
        ("hub:nyu-mll/glue:../x", None),
        ("hub:nyu-mll/glue/mrpc", None),
        ("hub:", None),
    ],
)
def test_a_configuration_follows_the_name(source: str, expected: object) -> None:
    assert parse_hub_dataset(source) == expected


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_the_token_leaves_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(hf_hub, "_taken_token", None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv(name, "hf_hunter2\n")
    assert hf_hub.find_hub_token() == "hf_hunter2"
    for found in (True, False):
        assert hf_hub.hide_token_from_environment() is found
        assert name not in os.environ
        assert hf_hub.find_hub_token() == "hf_hunter2"
