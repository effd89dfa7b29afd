"""The tutorial and the guides that build on it run: with few texts, or in full."""

from collections.abc import Iterator

import pytest

from tests.docs.following import GUIDES, Followed, followed

pytestmark = pytest.mark.e2e
AT_LENGTH = (pytest.mark.slow, pytest.mark.timeout(3600))
# Each takes over a second of a core, mostly to start processes; other tests cover what they show.
LONG = {
    "docs/explanation/exact-resume.md",
    "docs/how-to/base-model.md",
    "docs/how-to/drift.md",
    "docs/how-to/exchange.md",
    "docs/how-to/feedback.md",
    "docs/how-to/install.md",
    "docs/how-to/label-studio.md",
    "docs/how-to/label.md",
    "docs/how-to/labels.md",
    "docs/how-to/move-in-from-mistral.md",
    "docs/how-to/move-in-from-openai.md",
    "docs/how-to/operations.md",
    "docs/how-to/own-data.md",
    "docs/how-to/rank-and-alpha.md",
    "docs/how-to/retrain.md",
    "docs/how-to/suspect-labels.md",
    "docs/how-to/sweeps.md",
    "docs/how-to/tasks.md",
    "docs/how-to/text-pairs.md",
    "docs/how-to/upgrade.md",
    "docs/how-to/use-it-from-python.md",
    "docs/reference/data.md",
    "docs/reference/openai.md",
    "docs/reference/training.md",
    "docs/tutorial-labeling.md",
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, marks=pytest.mark.timeout(900), id="small"),
        pytest.param(True, marks=AT_LENGTH, id="full"),
    ],
)
def tutorial(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Followed]:
    with followed(tmp_path_factory.mktemp("docs"), full=request.param) as after:
        yield after


def test_tutorial_runs_to_its_end(tutorial: Followed) -> None:
    assert tutorial.error is None, tutorial.error


@pytest.mark.parametrize(
    "document", [pytest.param(d, marks=pytest.mark.slow if d in LONG else ()) for d in GUIDES]
)
def test_document_runs_after_the_tutorial(document: str, tutorial: Followed) -> None:
    tutorial.go_on(document)
