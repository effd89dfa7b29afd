"""Webhook deliveries that ended long ago are deleted."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from app.database.base import min_uuid7_at
from app.outbox.tables import WebhookDelivery
from app.resources import Resources
from app.retention.service import collect_garbage
from tests.app.retention.conftest import DAY, World
from tests.slow import on_both_databases
from tests.webhook_rows import create_webhook, deliveries, send_test_event


def add_delivery(world: World, *, created: float, ended: float | None) -> WebhookDelivery:
    """Create a delivery of this age in days, which ended `ended` days ago or is pending."""
    at = time.time()
    webhook = create_webhook(world.resources, "https://example.com/")
    id_ = send_test_event(world.database, webhook.id).id
    changes: dict[str, Any] = {
        "id": UUID(int=min_uuid7_at(at - created * DAY).int | uuid4().int & 0xFFFF_FFFF)
    }
    if ended is not None:
        changes |= {"state": "delivered", "finished_at": at - ended * DAY, "next_attempt_at": None}
    with world.database.write() as session:
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id == id_).values(changes))
    (row,) = (each for each in deliveries(world.database) if each.id == changes["id"])
    return row


@on_both_databases
def test_old_deliveries_expire(world: World) -> None:
    old = add_delivery(world, created=40, ended=31)
    kept = {
        add_delivery(world, created=created, ended=ended).id
        for created, ended in ((40, 29), (1, 1), (40, None))
    }
    planned = collect_garbage(world.resources, dry_run=True)
    done = collect_garbage(world.resources)
    for result in (planned, done):
        assert [(each.kind, each.key) for each in result.removals] == [
            ("webhook delivery", str(old.id))
        ]
        assert result.freed_bytes() == 0
    assert {each.id for each in deliveries(world.database)} == kept


@pytest.mark.parametrize(("days", "left"), [(None, 1), (41, 1), (0, 0)])
def test_the_setting_counts(
    days: float | None, left: int, world: World, keeping: Callable[..., Resources]
) -> None:
    add_delivery(world, created=40, ended=40)
    collect_garbage(keeping(keep_delivery_days=days))
    assert len(deliveries(world.database)) == left
