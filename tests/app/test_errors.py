"""Every cause has a code of its own and says what happened."""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator
from string import Formatter

import pytest

import app
from app.errors import AppError, NotFound
from lora_core.errors import LoraCoreError

MET_TWICE = {"artifact_corrupt"}  # by a download and by loading a model, answered differently
Cause = type[AppError] | type[LoraCoreError]


def causes(kind: Cause) -> Iterator[Cause]:
    for sub in kind.__subclasses__():
        yield from causes(sub)
        if "code" in vars(sub):
            yield sub


def load_every_cause() -> list[Cause]:
    for found in pkgutil.walk_packages(app.__path__, "app."):
        if found.name.endswith(".errors"):
            importlib.import_module(found.name)
    return [each for each in causes(AppError) if each.__module__.startswith("app.")] + list(
        causes(LoraCoreError)
    )


@pytest.mark.parametrize("root", [AppError, LoraCoreError])
def test_a_code_names_one_cause(root: Cause) -> None:
    found = [cause for cause in load_every_cause() if issubclass(cause, root)]
    times = Counter(cause.code for cause in found)
    assert {code for code, count in times.items() if count > 1} <= MET_TWICE


def test_codes_are_plain_words_and_messages_end_like_sentences() -> None:
    for cause in load_every_cause():
        assert cause.code.replace("_", "").isalnum(), cause
        assert cause.code.islower(), cause
        assert cause.message.rstrip("`)").endswith("."), cause
        assert cause.__doc__, cause


def test_the_status_belongs_to_the_kind() -> None:
    for cause in load_every_cause():
        if issubclass(cause, AppError):
            assert 400 <= cause.status < 600, cause


def test_detail_fills_the_message_and_stays_readable() -> None:
    class ShelfNotFound(NotFound):
        """There is no such shelf."""

        code = "shelf_not_found"
        message = "There is no shelf {number}."

    error = ShelfNotFound(number=3)
    assert str(error) == "There is no shelf 3."
    assert error.detail == {"number": 3}
    assert error.title == "There is no such shelf."
    assert error.status == 404
    assert [gap for _, gap, _, _ in Formatter().parse(error.message) if gap] == ["number"]
