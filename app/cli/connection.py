"""One HTTP connection to the service; every failure becomes an error with an exit code."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx2

from app.cli.errors import ConnectionLost, RequestRejected, ServiceUnreachable, UsageError
from app.cli.responses import Json

PAGE_SIZE = 100
TIMEOUT = httpx2.Timeout(120, connect=5)  # an upload is validated before the response

ByteStream = AbstractContextManager[Iterator[bytes]]


class Connection:
    """A JSON client of a service. Raises `RequestRejected`, `ServiceUnreachable`, `UsageError`."""

    def __init__(self, url: str, key: str | None = None) -> None:
        if key is not None and not (key.isascii() and key.isprintable()):
            raise UsageError("the API key contains invalid characters", "bad_key")
        try:
            host = urlsplit(url).hostname
            self.http = httpx2.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {key}"} if key else None,
                timeout=TIMEOUT,
                # Use no proxy for connections to this machine.
                trust_env=host not in ("127.0.0.1", "::1", "localhost"),
            )
        except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
            raise UsageError(f"{url!r} is not a service URL: {error}", "bad_url") from error
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()

    def iterate_pages(self, path: str, limit: int, **filters: str | None) -> Iterator[Any]:
        """Yield up to `limit` items of a list, fetching page by page."""
        after = None
        while limit > 0:
            params = drop_none({**filters, "limit": str(min(limit, PAGE_SIZE)), "after": after})
            page = self.request_json("GET", path, params=params)
            yield from page["data"]
            limit -= len(page["data"])
            if page["next"] is None:
                return
            after = str(page["next"])

    def request_json(self, method: str, path: str, **arguments: Any) -> Any:
        return decode_json(self.request(method, path, **arguments))

    def post_idempotent(self, path: str, **arguments: Any) -> Any:
        """Create something with POST, and retry once if the connection is lost.

        Both requests have the same idempotency key, so nothing is created twice.
        """
        headers = {"Idempotency-Key": str(uuid4())}
        try:
            return self.request_json("POST", path, headers=headers, **arguments)
        except ConnectionLost:
            return self.request_json("POST", path, headers=headers, **arguments)

    def request(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        with connection_errors(self.url):
            response = self.http.request(method, path, **arguments)
        raise_for_status(response)
        return response

    @contextmanager
    def stream_bytes(self, path: str, **params: str) -> Iterator[Iterator[bytes]]:
        """Yield the chunks of a response body as they arrive."""
        with connection_errors(self.url), self.http.stream("GET", path, params=params) as response:
            raise_for_status(response)
            yield response.iter_bytes()


def resource_path(collection: str, name: str) -> str:
    """Return the URL path of one resource. The name is escaped, so it cannot be a path."""
    return f"/v1/{collection}/{quote(name, safe='')}"


def drop_none(fields: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


@contextmanager
def connection_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError) as error:
        raise UsageError(f"{url!r} is not a service URL: {error}", "bad_url") from error
    except httpx2.ConnectError as error:
        raise ServiceUnreachable(
            f"cannot connect to {url}; start the service with `loraworks up`", "unreachable"
        ) from error
    except httpx2.HTTPError as error:
        connection_lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
        reason = str(error) or type(error).__name__
        error_class = ConnectionLost if connection_lost else ServiceUnreachable
        raise error_class(f"lost the connection to {url}: {reason}", "unreachable") from error


def decode_json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise ServiceUnreachable(
            f"the response of {response.url} is not JSON: is it a loraworks service?",
            "not_json",
        ) from error


def raise_for_status(response: httpx2.Response) -> None:
    """Raise `RequestRejected` (4xx) or `ServiceUnreachable` with the service's error message."""
    if response.is_success:
        return
    response.read()
    try:
        body = response.json()
        problem: Json = body if isinstance(body, dict) else {}
    except ValueError:
        problem = {}
    reason = f"{response.status_code} {response.reason_phrase} from {response.url}"
    detail = str(problem.get("detail") or problem.get("error") or reason)
    code = str(problem.get("code") or f"http_{response.status_code}")
    if response.is_client_error:
        fields = problem.get("errors")
        retry_after = response.headers.get("Retry-After", "")
        raise RequestRejected(
            detail,
            code,
            response.status_code,
            fields if isinstance(fields, list) else [],
            float(retry_after) if retry_after.isdecimal() else None,
        )
    raise ServiceUnreachable(detail, code)


OUTAGE_TIMEOUT = 60.0  # seconds without a response until polling gives up

T = TypeVar("T")


def poll(fetch: Callable[[], T], *, interval: float) -> Iterator[T]:
    """Yield the result of `fetch` now and every `interval` seconds.

    An outage of less than a minute is waited out. Raises `ServiceUnreachable` after that.
    """
    last_success = monotonic()
    while True:
        try:
            value = fetch()
        except ServiceUnreachable:
            if monotonic() - last_success > OUTAGE_TIMEOUT:
                raise
        else:
            last_success = monotonic()
            yield value
        sleep(interval)
