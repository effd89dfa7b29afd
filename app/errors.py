"""Base classes of the service's errors, one per HTTP status, and errors that belong to no domain.

    AppError
    ├── Unauthorized          401  missing or invalid credentials
    ├── Forbidden             403  the API key lacks a permission
    ├── NotFound              404  the resource does not exist
    ├── Conflict              409  the resource's state does not allow the request
    ├── ContentTooLarge       413  a size limit was exceeded
    ├── UnprocessableContent  422  the request is well-formed but cannot be processed
    ├── TooManyRequests       429  a concurrency limit or quota was reached
    ├── ServiceUnavailable    503  a dependency is down
    └── InsufficientStorage   507  the disk is full

Each domain defines its own errors in its `errors.py`. A class has a stable `code`, a `title` (a
sentence that is the same every time), and a `message` template; `detail` keeps the values that
filled the template. The classes carry an HTTP status code, but only `app.http.error_responses`
builds responses.
"""

from typing import Any, ClassVar


class AppError(Exception):
    """An error that the caller can understand and act on.

    `at` in `detail`, if given, is the path of the invalid field in the body, such as `data.source`.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    message: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, **detail: Any) -> None:
        self.detail = detail
        super().__init__(self.message.format(**detail))


class Unauthorized(AppError):
    """Missing or invalid credentials."""

    status = 401


class Forbidden(AppError):
    """Permission denied."""

    status = 403


class NotFound(AppError):
    """Not found."""

    status = 404


class Conflict(AppError):
    """The current state does not allow this request."""

    status = 409


class ContentTooLarge(AppError):
    """The request exceeds a size limit."""

    status = 413


class UnprocessableContent(AppError):
    """The request cannot be processed."""

    status = 422


class TooManyRequests(AppError):
    """Too many requests."""

    status = 429


class ServiceUnavailable(AppError):
    """A service that this one depends on is unavailable."""

    status = 503


class InsufficientStorage(AppError):
    status = 507
    code = "disk_full"
    title = "The disk is full."
    message = "There is no space left on the server's disk. Free some space and try again."


# -- errors that belong to no domain ------------------------------------------------------------


class FreeDiskBelowReserve(InsufficientStorage):
    code = "insufficient_disk_space"
    title = "Free disk space is below the reserve."
    message = (
        "Only {free_mb:,} MB of disk space are free on {host}; {reserve_mb:,} MB are kept in "
        "reserve (LORAWORKS_MIN_FREE_BYTES). Free some space there."
    )


class DataDirectoryUnusable(ServiceUnavailable):
    code = "data_folder_unusable"
    title = "The data directory is not writable."
    message = (
        "The data directory cannot be used ({reason}). The operator should check "
        "LORAWORKS_DATA_DIR, its permissions, and its disk."
    )


class HostNotAllowed(AppError):
    status = 400
    code = "host_refused"
    title = "Host not allowed."
    message = (
        "The Host header does not name this service. Add each name and address by which the "
        "service is reached to LORAWORKS_ALLOWED_HOSTS."
    )


class ContentLengthWithTransferEncoding(AppError):
    status = 400
    code = "ambiguous_content_length"
    title = "Content-Length and Transfer-Encoding were both sent."
    message = (
        "Send either Content-Length or Transfer-Encoding, not both: they may disagree on where "
        "the body ends."
    )


class OriginNotAllowed(Forbidden):
    code = "origin_refused"
    title = "Origin not allowed."
    message = (
        "Requests from web pages of other origins are rejected. To allow this origin, add it to "
        "LORAWORKS_ALLOWED_ORIGINS. If this is the service's own page, behind a proxy, let the "
        "proxy pass on the Host header."
    )


class CrossSiteRequestBlocked(Forbidden):
    code = "cross_site_refused"
    title = "Cross-site request blocked."
    message = (
        "Pages of other sites may link to this service, but may not load anything from it or send "
        "anything to it. To allow this site, add its origin to LORAWORKS_ALLOWED_ORIGINS and use "
        "CORS."
    )


class ClientDisconnected(AppError):
    status = 499  # nginx's code for a request that the client closed
    code = "client_disconnected"
    title = "The client disconnected before the response."
    message = "The client closed the connection before the response was ready."


class KeyConcurrencyLimitReached(TooManyRequests):
    code = "too_many_requests_for_key"
    title = "This API key has too many requests in progress."
    message = (
        "This API key already has {limit} requests of this kind in progress. Wait for their "
        "responses, or try again in {retry_after} s."
    )


class ConcurrencyLimitReached(TooManyRequests):
    code = "queue_full"
    title = "Too many requests in progress."
    message = "{limit} requests of this kind are already in progress. Try again in {retry_after} s."


class InvalidCursor(UnprocessableContent):
    code = "invalid_cursor"
    title = "Invalid page cursor."
    message = "`after` must be the unchanged `next` value of an earlier page."


class ConcurrentUpdate(Conflict):
    code = "concurrent_update"
    title = "Another request changed the same resource."
    message = "Another request changed the same resource at the same time. Send this one again."


class ShuttingDown(ServiceUnavailable):
    code = "stopping"
    title = "The service is shutting down."
    message = "The service is shutting down and accepts no new work. Try again shortly."


class ReadinessCheckTimedOut(ServiceUnavailable):
    code = "readiness_timeout"
    title = "A readiness check timed out."
    message = "There was no response within {seconds:g} s."
