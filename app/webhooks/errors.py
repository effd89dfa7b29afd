"""Errors of webhooks."""

from app.errors import Conflict, NotFound, ServiceUnavailable, TooManyRequests, UnprocessableContent


class WebhookNotFound(NotFound):
    code = "webhook_not_found"
    title = "Webhook not found."
    message = "There is no webhook {webhook_id}."


class DeliveryNotFound(NotFound):
    code = "delivery_not_found"
    title = "Webhook delivery not found."
    message = "Webhook {webhook_id} has no delivery {delivery_id}."


class WebhookDisabled(Conflict):
    code = "webhook_disabled"
    title = "The webhook is disabled."
    message = "Webhook {webhook_id} is disabled, so nothing is sent to it. Enable it first."


class TooManyWebhooks(TooManyRequests):
    code = "too_many_webhooks"
    title = "There are too many webhooks."
    message = "There are already {limit} webhooks, which is the limit. Delete one first."


class InvalidWebhookUrl(UnprocessableContent):
    code = "invalid_webhook_url"
    title = "Invalid webhook URL."
    message = "The URL of a webhook {problem}. Use a URL such as https://example.com/events."


class InsecureWebhookUrl(UnprocessableContent):
    code = "insecure_webhook_url"
    title = "The webhook URL is not https."
    message = (
        "The URL of a webhook must start with https://. For plain http, the operator must list "
        "{host} in LORAWORKS_WEBHOOK_ALLOWED_HOSTS."
    )


class PrivateWebhookAddress(UnprocessableContent):
    code = "private_webhook_address"
    title = "The webhook's address is not public."
    message = (
        "The host {host} has the address {address}, which is not public. To allow it, the operator "
        "must list the host or a network in LORAWORKS_WEBHOOK_ALLOWED_HOSTS."
    )


class WebhookHostNotFound(ServiceUnavailable):
    code = "webhook_host_not_found"
    title = "The webhook's host was not found."
    message = "The host {host} has no address ({reason})."


class NoWebhookResponse(ServiceUnavailable):
    code = "no_webhook_response"
    title = "The webhook's receiver did not respond."
    message = "The receiver did not respond: {reason}."
