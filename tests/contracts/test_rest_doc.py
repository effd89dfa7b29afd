"""docs/reference/rest.md and openapi.json match the routes.

`UPDATE_DOCS=1 pytest tests/contracts` writes them.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from app.main import create_app
from app.settings import Settings
from tests.contracts.rest_page import page

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MARK = "<!-- made by `UPDATE_DOCS=1 pytest tests/contracts`; do not edit below -->"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


def kept(name: str, expected: str) -> str:
    """The stored document, updated if UPDATE_DOCS is set."""
    document = REFERENCE / name
    if os.environ.get("UPDATE_DOCS") == "1":
        document.write_text(expected, encoding="utf-8")
    return document.read_text(encoding="utf-8")


def test_schema_matches_the_service(described: dict[str, Any]) -> None:
    expected = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    stored = json.loads((REFERENCE / "openapi.json").read_text(encoding="utf-8"))
    if stored != json.loads(expected):  # the order of keys differs from process to process
        assert kept("openapi.json", expected) == expected


def test_page_matches_the_schema(described: dict[str, Any]) -> None:
    head = (REFERENCE / "rest.md").read_text(encoding="utf-8").partition(MARK)[0]
    expected = f"{head}{MARK}\n\n{page(described)}"
    assert kept("rest.md", expected) == expected


def test_every_route_has_a_description(described: dict[str, Any]) -> None:
    for path, ways in described["paths"].items():
        for method, way in ways.items():
            assert way.get("description"), (method, path)
