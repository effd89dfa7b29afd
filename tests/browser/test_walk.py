"""From a pile of texts to a live accuracy at the page, on a two-layer encoder.

`python -m benchmarks.loop.walk` is the same walk with real reviews and the sample base.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.loop import walk
from tests.browser.browser_errors import BrowserErrors
from tests.browser.conftest import OpenPage
from tests.browser.service import Service

WORDS = {"negative": "a bad, useless medicine", "positive": "a good, helpful medicine"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    opened = Service(tmp_path / "installation", keep_traffic="texts")
    yield opened
    opened.close()


def reviews(first: int, last: int) -> dict[str, str]:
    labels = list(WORDS)
    return {
        f"Day {i}: {WORDS[label]}, {i * i} pills": label
        for i in range(first, last)
        for label in [labels[i % 2]]
    }


@pytest.mark.timeout(600)
@pytest.mark.slow  # the steps are tested one by one in this folder
def test_newcomer_walks_from_texts_to_a_live_accuracy(
    service: Service, open_page: OpenPage, browser_errors: BrowserErrors, tmp_path: Path
) -> None:
    browser_errors.expect(422)  # the file has no labels
    service.installation.worker()
    found = walk.walk(
        service,
        open_page(service.url),
        tmp_path,
        reviews(0, 150),
        reviews(150, 190),
        labels=120,
        reviewed=40,
        base=str(service.installation.base),
        method="linear",
    )
    assert found["steps"]["label"]["keys"] == 120
    assert "Accuracy so far" in found["so_far"]
    assert found["live"].startswith("drug-reviews:1 100.0% 91.2% to 100.0%")
    assert "40" in found["live"]
