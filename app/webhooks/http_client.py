"""Sends one request to a receiver, with limits on time and on the size of the response."""

import asyncio
import ssl
from collections.abc import Mapping
from functools import cache

import httpx2

import lora_core
from app.webhooks.errors import NoWebhookResponse
from app.webhooks.url_checks import (
    AllowedHosts,
    Resolver,
    UnresolvedUrl,
    check_webhook_url,
    resolve_and_require_allowed_addresses,
)

SEND_SECONDS = 10.0  # to connect, send the request and read the response
MAX_RESPONSE_BYTES = 65_536  # the rest of a response is not read


def post_to_receiver(
    url: str, body: bytes, headers: Mapping[str, str], *, allowed: AllowedHosts, resolve: Resolver
) -> int:
    """Send the request and return the status of the response. Redirects are not followed.

    Raises `NoWebhookResponse`, and what `check_webhook_url` and
    `resolve_and_require_allowed_addresses` raise.
    """
    target = check_webhook_url(url, allowed)
    addresses = resolve_and_require_allowed_addresses(target, allowed, resolve)
    try:
        return asyncio.run(
            _post(target, [target.with_address(each) for each in addresses], body, headers)
        )
    except httpx2.ConnectTimeout as error:
        raise NoWebhookResponse(reason="there was no connection in time") from error
    except TimeoutError as error:
        raise NoWebhookResponse(reason=f"timed out after {SEND_SECONDS:g} s") from error
    except httpx2.RemoteProtocolError as error:  # its text quotes what the receiver sent
        raise NoWebhookResponse(reason="it sent no valid HTTP response") from error
    except (httpx2.HTTPError, OSError) as error:
        raise NoWebhookResponse(reason=str(error) or "the connection broke") from error


async def _post(
    target: UnresolvedUrl, urls: list[httpx2.URL], body: bytes, headers: Mapping[str, str]
) -> int:
    """Send it to the first address that accepts a connection."""
    headers = {
        **headers,
        "Host": target.url.netloc.decode("ascii"),
        "Content-Type": "application/json",
        "User-Agent": f"loraworks/{lora_core.__version__}",
    }
    # An address that does not react leaves time for the others, and the client itself gives up a
    # TLS handshake that hangs: it closes the connection, which it does not when it is cancelled.
    limits = httpx2.Timeout(SEND_SECONDS, connect=SEND_SECONDS / (len(urls) + 1))
    # A client's own limits are for each read; the outer one is for all of them together.
    async with (
        asyncio.timeout(SEND_SECONDS),
        httpx2.AsyncClient(verify=_ssl_context(), trust_env=False, timeout=limits) as client,
    ):
        for url in urls[:-1]:
            try:
                return await _status(client, url, target.host, body, headers)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await _status(client, urls[-1], target.host, body, headers)


async def _status(
    client: httpx2.AsyncClient,
    url: httpx2.URL,
    host: str,
    body: bytes,
    headers: Mapping[str, str],
) -> int:
    # The certificate must be that of the host, although the URL has its address.
    extensions = {"sni_hostname": host}
    async with client.stream(
        "POST", url, content=body, headers=headers, extensions=extensions
    ) as response:
        size = 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > MAX_RESPONSE_BYTES:
                break
        return response.status_code


@cache
def _ssl_context() -> ssl.SSLContext:
    """Create it once: reading the certificates takes longer than a delivery."""
    return httpx2.create_ssl_context()
