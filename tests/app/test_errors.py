"""Every error has a unique code, a title and a message."""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator
from string import Formatter

import pytest

import app
from app.errors import AppError, NotFound
from lora_core.errors import LoraCoreError

MET_TWICE = {"artifact_corrupt"}  # for downloads and for loading a model, with different statuses
Cause = type[AppError] | type[LoraCoreError]


def causes(kind: Cause) -> Iterator[Cause]:
    for sub in kind.__subclasses__():
        yield from causes(sub)
        if "code" in vars(sub):
            yield sub


def import_all_error_modules() -> list[Cause]:
    for found in pkgutil.walk_packages(app.__path__, "app."):
        if found.name.endswith(".errors"):
            importlib.import_module(found.name)
    return [each for each in causes(AppError) if each.__module__.startswith("app.")] + list(
        causes(LoraCoreError)
    )


@pytest.mark.parametrize("root", [AppError, LoraCoreError])
def test_error_codes_are_unique(root: Cause) -> None:
    found = [cause for cause in import_all_error_modules() if issubclass(cause, root)]
    times = Counter(cause.code for cause in found)
    assert {code for code, count in times.items() if count > 1} <= MET_TWICE


def test_codes_are_snake_case_and_titles_and_messages_are_sentences() -> None:
    for cause in import_all_error_modules():
        assert cause.code.replace("_", "").isalnum(), cause
        assert cause.code.islower(), cause
        assert cause.message.rstrip("`)").endswith("."), cause
        assert "title" in vars(cause), cause
        assert cause.title.endswith("."), cause
        assert "{" not in cause.title, cause  # the same for every occurrence
        assert cause.title != cause.message, cause


def test_status_matches_the_base_class() -> None:
    for cause in import_all_error_modules():
        if issubclass(cause, AppError):
            assert 400 <= cause.status < 600, cause


def test_detail_fills_the_message_and_stays_available() -> None:
    class ShelfNotFound(NotFound):
        code = "shelf_not_found"
        title = "Shelf not found."
        message = "There is no shelf {number}."

    error = ShelfNotFound(number=3)
    assert str(error) == "There is no shelf 3."
    assert error.detail == {"number": 3}
    assert error.title == "Shelf not found."
    assert error.status == 404
    assert [gap for _, gap, _, _ in Formatter().parse(error.message) if gap] == ["number"]
