"""`loraworks webhooks …`."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, Limit, with_client
from app.cli.output import format_time, print_fields, print_json, print_line, print_table
from app.outbox.enums import DeliveryState, EventType

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.webhooks.schemas import WebhookView

app = typer.Typer(help="Manage webhooks, which send events to your URLs, and their deliveries.")

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Webhook id.")]
DeliveryId = Annotated[str, typer.Argument(metavar="DELIVERY", help="Delivery id.")]
ReceiverUrl = Annotated[str, typer.Argument(metavar="URL", help="URL of the receiver, with https.")]
Events = Annotated[
    list[EventType] | None,
    typer.Option("--event", help="Event to send (repeatable). Default: all events."),
]
Description = Annotated[str | None, typer.Option("--description", help="What it is for.")]
StateFilter = Annotated[
    DeliveryState | None, typer.Option("--state", help="Only deliveries in this state.")
]


@app.command("add")
@with_client
def add_webhook(
    client: "Client",
    receiver: ReceiverUrl,
    events: Events = None,
    description: Description = None,
    as_json: AsJson = False,
) -> None:
    """Create a webhook. Its signing secret is shown once."""
    webhook = client.create_webhook({"url": receiver, "events": events, "description": description})
    if as_json:
        print_json(webhook)
        return
    print_line(f"Created webhook {webhook.id}.")
    _print_secret(webhook)


@app.command("list")
@with_client
def list_webhooks(client: "Client", limit: Limit = 20, as_json: AsJson = False) -> None:
    """List webhooks, the newest first."""
    webhooks = client.list_webhooks(limit)
    if as_json:
        print_json(webhooks)
        return
    print_table(
        ["webhook", "url", "events", "state", "description"],
        [
            (each.id, each.url, _describe_events(each), _describe_state(each), each.description)
            for each in webhooks
        ],
        empty="No webhooks. Create one with `loraworks webhooks add URL`.",
    )


@app.command("show")
@with_client
def show_webhook(client: "Client", webhook: WebhookId, as_json: AsJson = False) -> None:
    """Show a webhook."""
    found = client.get_webhook(webhook)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("webhook", found.id),
            ("url", found.url),
            ("description", found.description),
            ("events", _describe_events(found)),
            ("state", _describe_state(found)),
            ("disabled because", found.disabled_reason),
            ("created", format_time(found.created_at)),
            ("old secret until", format_time(found.previous_secret_expires_at)),
        ]
    )


@app.command("rm")
@with_client
def delete_webhook(client: "Client", webhook: WebhookId) -> None:
    """Delete a webhook with its deliveries."""
    client.delete_webhook(webhook)
    print_line(f"Deleted webhook {webhook}.")


@app.command("rotate")
@with_client
def rotate_secret(client: "Client", webhook: WebhookId, as_json: AsJson = False) -> None:
    """Generate a new signing secret, which is shown once. For a day, the old one signs as well."""
    rotated = client.rotate_webhook_secret(webhook)
    print_json(rotated) if as_json else _print_secret(rotated)


@app.command("test")
@with_client
def send_test_event(client: "Client", webhook: WebhookId, as_json: AsJson = False) -> None:
    """Send the event `webhook.test`."""
    delivery = client.send_test_event(webhook)
    if as_json:
        print_json(delivery)
        return
    print_line(f"A worker will send it as delivery {delivery.id}.")
    print_line(f"See the result with `loraworks webhooks deliveries {webhook}`.")


@app.command("deliveries")
@with_client
def list_deliveries(
    client: "Client",
    webhook: WebhookId,
    state: StateFilter = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest deliveries to a webhook."""
    deliveries = client.list_deliveries(webhook, limit, state=state)
    if as_json:
        print_json(deliveries)
        return
    print_table(
        ["delivery", "event", "state", ">attempts", "created", "next attempt", "last response"],
        [
            (
                each.id,
                each.type,
                each.state,
                each.attempts,
                format_time(each.created_at),
                format_time(each.next_attempt_at),
                each.last_error or (each.last_status and f"status {each.last_status}"),
            )
            for each in deliveries
        ],
        empty="No deliveries.",
    )


@app.command("replay")
@with_client
def replay_delivery(
    client: "Client", webhook: WebhookId, delivery: DeliveryId, as_json: AsJson = False
) -> None:
    """Send a delivery again, with the same event id."""
    replayed = client.replay_delivery(webhook, delivery)
    if as_json:
        print_json(replayed)
    else:
        print_line(f"A worker will send delivery {replayed.id} again.")


def _print_secret(webhook: "WebhookView") -> None:
    """Print the secret, which a repeated request for the same webhook no longer returns."""
    if webhook.secret is None:
        print_line(f"Its secret was already shown. `loraworks webhooks rotate {webhook.id}`.")
        return
    print_line(webhook.secret, style="bold")
    print_line(
        "Save the secret now: it is shown only once. The receiver verifies signatures by it."
    )


def _describe_events(webhook: "WebhookView") -> str:
    return "all" if webhook.events is None else ", ".join(webhook.events)


def _describe_state(webhook: "WebhookView") -> str:
    return "enabled" if webhook.enabled else "disabled"
