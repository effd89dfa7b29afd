"""Documents that start from a fresh clone, each with its own service."""

from pathlib import Path

import pytest

from tests.docs.following import FRESH, begin

# The small form of both is the tutorial.
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("document", "full"),
    [
        pytest.param("README.md", False, id="README.md-small"),
        *(pytest.param(each, True, id=f"{each}-full") for each in FRESH),
    ],
)
def test_document_runs_in_a_fresh_clone(document: str, full: bool, tmp_path: Path) -> None:
    begin(document, tmp_path, full=full)
