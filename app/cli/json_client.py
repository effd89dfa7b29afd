"""A JSON client of the service; every failure becomes an error with an exit code."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.cli.errors import (
    ConnectionLost,
    RequestRejected,
    ServiceUnreachableOrFailed,
    UnexpectedResponse,
    UsageError,
)
from app.cli.spec_options import check_finite
from lora_core.specs.validation_problems import field_problems

PAGE_SIZE = 100
TIMEOUT = httpx2.Timeout(120, connect=5)  # an upload is validated before the response

ByteStream = AbstractContextManager[Iterator[bytes]]
Body = TypeVar("Body")


class _Page(BaseModel, Generic[Body]):
    data: list[Body]
    next: str | int | None


class JsonClient:
    """A JSON client of a service.

    Raises `RequestRejected`, `ServiceUnreachableOrFailed`, `UsageError`.
    """

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

    def request_parsed(
        self, body_type: type[Body], method: str, path: str, **arguments: Any
    ) -> Body:
        """Send a request and return its response. Raises `UnexpectedResponse`."""
        return validate_response_body(body_type, self.request_json(method, path, **arguments))

    def create(self, body_type: type[Body], path: str, **arguments: Any) -> Body:
        """Create something with POST, and retry once if the connection is lost.

        Both requests have the same idempotency key, so nothing is created twice.
        """
        headers = {"Idempotency-Key": str(uuid4())}
        try:
            return self.request_parsed(body_type, "POST", path, headers=headers, **arguments)
        except ConnectionLost:
            return self.request_parsed(body_type, "POST", path, headers=headers, **arguments)

    def list_items(
        self, item_type: type[Body], path: str, limit: int, **filters: str | None
    ) -> list[Body]:
        """Return up to `limit` items of a list, fetched page by page."""
        page_type: type[_Page[Body]] = _Page[item_type]  # type: ignore[valid-type]
        items: list[Body] = []
        after = None
        while len(items) < limit:
            size = min(limit - len(items), PAGE_SIZE)
            params = drop_none({**filters, "limit": str(size), "after": after})
            page = self.request_parsed(page_type, "GET", path, params=params)
            items += page.data
            if page.next is None:
                break
            after = str(page.next)
        return items

    def request_json(self, method: str, path: str, **arguments: Any) -> Any:
        return decode_json(self.request(method, path, **arguments))

    def request(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        check_finite(arguments.get("json"))
        with convert_http_errors(self.url):
            response = self.http.request(method, path, **arguments)
        raise_for_status(response)
        return response

    @contextmanager
    def stream_bytes(self, path: str, **params: str) -> Iterator[Iterator[bytes]]:
        """Yield the chunks of a response body as they arrive."""
        with (
            convert_http_errors(self.url),
            self.http.stream("GET", path, params=params) as response,
        ):
            raise_for_status(response)
            yield response.iter_bytes()


def resource_url_path(collection: str, name: str | UUID) -> str:
    """Return the URL path of one resource. The name is escaped, so it cannot be a path."""
    return f"/v1/{collection}/{quote(str(name), safe='')}"


def drop_none(fields: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


@contextmanager
def convert_http_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError) as error:
        raise UsageError(f"{url!r} is not a service URL: {error}", "bad_url") from error
    except httpx2.ConnectError as error:
        raise ServiceUnreachableOrFailed(
            f"cannot connect to {url}; start the service with `loraworks up`", "unreachable"
        ) from error
    except httpx2.HTTPError as error:
        connection_lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
        reason = str(error) or type(error).__name__
        error_class = ConnectionLost if connection_lost else ServiceUnreachableOrFailed
        raise error_class(f"lost the connection to {url}: {reason}", "unreachable") from error


def decode_json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise ServiceUnreachableOrFailed(
            f"the response of {response.url} is not JSON: is it a loraworks service?",
            "not_json",
        ) from error


def validate_response_body(body_type: type[Body], body: Any) -> Body:
    """Validate a response. Fields that only a newer service knows are ignored.

    Raises `UnexpectedResponse`.
    """
    try:
        return TypeAdapter(body_type).validate_python(body, extra="ignore")
    except ValidationError as error:
        first = field_problems(error.errors(include_url=False), None)[0]
        problem = f"{first.at} {first.message}".strip()
        raise UnexpectedResponse(
            f"cannot read the response: {problem}; install the version of "
            "loraworks that the service runs",
            "unexpected_response",
        ) from error


def raise_for_status(response: httpx2.Response) -> None:
    """Raise `RequestRejected` (4xx) or `ServiceUnreachableOrFailed` with the service's message."""
    if response.is_success:
        return
    response.read()
    try:
        body = response.json()
        problem: dict[str, Any] = body if isinstance(body, dict) else {}
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
    raise ServiceUnreachableOrFailed(detail, code)
