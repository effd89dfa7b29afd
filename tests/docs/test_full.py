"""The tutorial and the guides that go on from it work as they stand."""

from collections.abc import Iterator

import pytest

from tests.docs.following import GUIDES, Followed, followed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.slow]


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    with followed(tmp_path_factory.mktemp("docs"), full=True) as after:
        yield after


def test_the_tutorial_comes_to_its_end(tutorial: Followed) -> None:
    assert tutorial.error is None, tutorial.error


@pytest.mark.parametrize("document", GUIDES)
def test_a_document_works_after_the_tutorial(document: str, tutorial: Followed) -> None:
    tutorial.go_on(document)
