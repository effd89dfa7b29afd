"""`loraworks models drift` against a running service."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.database.engines import Database
from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import Run, answer
from tests.app.drift.conftest import BILLS, FILMS, Publish, Train, keep, publish, texts, train

__all__ = ["Publish", "publish", "train"]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application, which keeps texts."""
    changes = {"log_level": "ERROR", "keep_traffic": "texts"}
    return create_app(settings.model_copy(update=changes))


def test_state_check_and_texts(
    cli: Run, client: TestClient, train: Train, database: Database
) -> None:
    train(client)
    first = cli("models", "drift", "sentiment")
    assert first.exit_code == 0, first.output
    assert "sentiment:1: Not checked yet: 0 of the 50 texts" in " ".join(first.stdout.split())
    keep(database, texts(FILMS, 30, seed=1) + texts(BILLS, 30, seed=2))
    checked = cli("models", "drift", "sentiment", "--check", "--texts")
    assert checked.exit_code == 0, checked.output
    shown = " ".join(checked.stdout.split())
    assert "Drift: 60 texts until 20" in shown
    assert any(word in shown for word in BILLS)
    assert "good" in shown
    assert answer(cli("models", "drift", "sentiment:1", "--json"))["state"] == "drift"
    detail = answer(cli("models", "drift", "sentiment", "--texts", "--json"))
    assert len(detail["check"]["most_different"]) == 10


def test_a_refused_check(cli: Run, client: TestClient, train: Train) -> None:
    train(client)
    refused = cli("models", "drift", "sentiment", "--check")
    assert refused.exit_code != 0
    assert "needs 50 different texts" in " ".join(refused.output.split())
