"""One HTTP connection to the service; every failure becomes an error with an exit code."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx2

from app.cli.errors import BrokenOff, Misuse, Refused, Unreachable
from app.cli.responses import Json

PAGE = 100
TIMEOUT = httpx2.Timeout(120, connect=5)  # an upload is checked before it is answered

Pieces = AbstractContextManager[Iterator[bytes]]


class Connection:
    """Speaks JSON to one service. Raises `Refused`, `Unreachable` or `Misuse`."""

    def __init__(self, url: str, key: str | None = None) -> None:
        if key is not None and not (key.isascii() and key.isprintable()):
            raise Misuse("the API key holds characters that no key has", "bad_key")
        try:
            host = urlsplit(url).hostname
            self.http = httpx2.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {key}"} if key else None,
                timeout=TIMEOUT,
                # No proxy stands between this machine and itself.
                trust_env=host not in ("127.0.0.1", "::1", "localhost"),
            )
        except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
            raise Misuse(f"{url!r} is not an address of a service: {error}", "bad_url") from error
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

    def pages(self, path: str, limit: int, **filters: str | None) -> Iterator[Any]:
        """Up to `limit` items of a list, page by page."""
        after = None
        while limit > 0:
            params = given({**filters, "limit": str(min(limit, PAGE)), "after": after})
            answer = self.json("GET", path, params=params)
            yield from answer["data"]
            limit -= len(answer["data"])
            if answer["next"] is None:
                return
            after = str(answer["next"])

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        return decoded(self.request(method, path, **arguments))

    def create(self, path: str, **arguments: Any) -> Any:
        """POST what makes something, once more if the connection is lost on the way.

        Both times under one key, so that nothing is made twice.
        """
        headers = {"Idempotency-Key": str(uuid4())}
        try:
            return self.json("POST", path, headers=headers, **arguments)
        except BrokenOff:
            return self.json("POST", path, headers=headers, **arguments)

    def request(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        with reaching(self.url):
            response = self.http.request(method, path, **arguments)
        check(response)
        return response

    @contextmanager
    def pieces(self, path: str, **params: str) -> Iterator[Iterator[bytes]]:
        """The bytes of an answer, as they come."""
        with reaching(self.url), self.http.stream("GET", path, params=params) as response:
            check(response)
            yield response.iter_bytes()


def path_of(collection: str, name: str) -> str:
    """Where one thing is; a name is never a path."""
    return f"/v1/{collection}/{quote(name, safe='')}"


def given(fields: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


@contextmanager
def reaching(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError) as error:
        raise Misuse(f"{url!r} is not an address of a service: {error}", "bad_url") from error
    except httpx2.ConnectError as error:
        raise Unreachable(
            f"no service at {url}; start one with `loraworks up`", "unreachable"
        ) from error
    except httpx2.HTTPError as error:
        lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
        reason = str(error) or type(error).__name__
        kind = BrokenOff if lost else Unreachable
        raise kind(f"the service at {url} broke off: {reason}", "unreachable") from error


def decoded(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise Unreachable(
            f"{response.url} answered something that is no JSON: is it a loraworks service?",
            "not_json",
        ) from error


def check(response: httpx2.Response) -> None:
    """Raise for any answer but a success, with what the service said about it."""
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
        wait = response.headers.get("Retry-After", "")
        raise Refused(
            detail,
            code,
            response.status_code,
            fields if isinstance(fields, list) else [],
            float(wait) if wait.isdecimal() else None,
        )
    raise Unreachable(detail, code)
