"""`loraworks webhooks` against a running service."""

from uuid import UUID

import pytest
from fastapi import FastAPI

from app.main import create_app
from app.resources import Resources
from app.settings import Settings
from app.webhooks.delivery import deliver_next
from tests.app.cli.conftest import Run, answer
from tests.webhook_receiver import ALLOWED, receiving

URL = "https://example.com/events"


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application, which allows receivers on this machine."""
    changes = {"log_level": "ERROR", "webhook_allowed_hosts": ALLOWED}
    return create_app(settings.model_copy(update=changes))


def add(cli: Run, *options: str) -> str:
    return str(answer(cli("webhooks", "add", URL, *options, "--json"))["id"])


def test_add_prints_the_secret_once(cli: Run) -> None:
    added = cli("webhooks", "add", URL, "--event", "job.failed", "--event", "sweep.finished")
    assert added.exit_code == 0, added.output
    assert "Created webhook " in added.stdout
    assert "\nwhsec_" in added.stdout
    (webhook,) = answer(cli("webhooks", "list", "--json"))
    assert (webhook["url"], webhook["secret"]) == (URL, None)
    assert webhook["events"] == ["job.failed", "sweep.finished"]
    for command in (("list",), ("show", webhook["id"])):
        shown = cli("webhooks", *command)
        assert shown.exit_code == 0, shown.output
        assert "job.failed, sweep.finished" in " ".join(shown.stdout.split())
        assert "whsec_" not in shown.stdout


def test_list_without_webhooks(cli: Run) -> None:
    assert "loraworks webhooks add URL" in cli("webhooks", "list").stdout
    assert answer(cli("webhooks", "list", "--json")) == []


def test_options_of_add(cli: Run) -> None:
    webhook_id = add(cli, "--description", "to chat")
    shown = answer(cli("webhooks", "show", webhook_id, "--json"))
    assert (shown["description"], shown["events"]) == ("to chat", None)
    assert "all" in cli("webhooks", "show", webhook_id).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("add", "http://example.com"), 3, "insecure_webhook_url"),
        (("add", "https://10.0.0.1"), 3, "private_webhook_address"),
        (("add", "nonsense"), 3, "invalid_webhook_url"),
        (("add", URL, "--event", "job.started"), 2, "job.started"),
        (("show", "nothing"), 3, "webhook_not_found"),
        (("rm", "nothing"), 3, "webhook_not_found"),
        (("rotate", "nothing"), 3, "webhook_not_found"),
        (("test", "nothing"), 3, "webhook_not_found"),
        (("deliveries", "nothing"), 3, "webhook_not_found"),
        (("replay", "nothing", "nothing"), 3, "webhook_not_found"),
    ],
)
def test_errors(cli: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    result = cli("webhooks", *arguments)
    assert (result.exit_code, message in result.output) == (code, True), result.output


def test_rotate_and_delete(cli: Run) -> None:
    webhook_id = add(cli)
    assert cli("webhooks", "rotate", webhook_id).stdout.startswith("whsec_")
    rotated = answer(cli("webhooks", "rotate", webhook_id, "--json"))
    assert rotated["secret"].startswith("whsec_")
    assert cli("webhooks", "rm", webhook_id).exit_code == 0
    assert answer(cli("webhooks", "list", "--json")) == []


def test_deliveries(cli: Run, resources: Resources, settings: Settings) -> None:
    with receiving() as receiver:
        webhook_id = answer(cli("webhooks", "add", receiver.url, "--json"))["id"]
        assert "No deliveries." in cli("webhooks", "deliveries", webhook_id).stdout
        assert "loraworks webhooks deliveries" in cli("webhooks", "test", webhook_id).stdout
        receiver.statuses = [503]
        allowing = settings.model_copy(update={"webhook_allowed_hosts": ALLOWED})
        assert deliver_next(resources.database, allowing, UUID(webhook_id))
        listed = cli("webhooks", "deliveries", webhook_id, "--state", "pending").stdout
        assert "status 503" in " ".join(listed.split())
        (delivery,) = answer(cli("webhooks", "deliveries", webhook_id, "--json"))
        assert "again" in cli("webhooks", "replay", webhook_id, delivery["id"]).stdout
        assert deliver_next(resources.database, allowing, UUID(webhook_id))
        (delivery,) = answer(cli("webhooks", "deliveries", webhook_id, "--json"))
        assert (delivery["state"], delivery["attempts"]) == ("delivered", 2)
        again = answer(cli("webhooks", "replay", webhook_id, delivery["id"], "--json"))
        assert (again["state"], again["event_id"]) == ("pending", delivery["event_id"])
        test = answer(cli("webhooks", "test", webhook_id, "--json"))
        assert test["type"] == "webhook.test"
