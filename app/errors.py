"""Errors of the service: one class per cause, sorted by kind.

    AppError
    ├── Unauthorized  401  no key, or one that does not count
    ├── Forbidden     403  a key without the right
    ├── NotFound      404  no such thing
    ├── Conflict      409  the thing is in a state that does not allow it
    ├── TooLarge      413  over a size limit
    ├── Invalid       422  understood, but not possible
    ├── Overloaded    429  too many calls at once
    ├── Unavailable   503  something the service needs is down
    └── StorageFull   507  no room on the disk

Each domain derives its causes in its own `errors.py`. A class holds a stable `code` and a message
with named gaps; `detail` keeps what filled them. The kinds carry a number that is also an HTTP
status, but only `app.http.error_responses` knows about answers.
"""

import inspect
from typing import Any, ClassVar


class AppError(Exception):
    """A cause that the caller can understand and act on.

    `at` in `detail`, if given, is the place in the body that is wrong, such as `data.source`.
    """

    code: ClassVar[str]
    message: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, **detail: Any) -> None:
        self.detail = detail
        super().__init__(self.message.format(**detail))

    @property
    def title(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(type(self)) or self.code).splitlines()[0]


class Unauthorized(AppError):
    """No key, or one that does not count."""

    status = 401


class Forbidden(AppError):
    """A key without the right."""

    status = 403


class NotFound(AppError):
    """No such thing."""

    status = 404


class Conflict(AppError):
    """The thing is in a state that does not allow it."""

    status = 409


class TooLarge(AppError):
    """Over a size limit."""

    status = 413


class Invalid(AppError):
    """Understood, but not possible."""

    status = 422


class Overloaded(AppError):
    """Too many calls at once."""

    status = 429


class Unavailable(AppError):
    """Something the service needs is down."""

    status = 503


class StorageFull(AppError):
    """No room on the disk."""

    status = 507
    code = "storage_full"
    message = "There is no room left on the disk of the service. Free some space and try again."


# -- causes that belong to no domain ------------------------------------------------------------


class NoRoom(StorageFull):
    """Less of the disk is free than is kept in reserve."""

    code = "disk_full"
    message = (
        "On {host} only {free_mb:,} MB of the disk are free; {reserve_mb:,} MB are kept in reserve "
        "(LORAWORKS_MIN_FREE_BYTES). Free some space there."
    )


class DataFolderUnusable(Unavailable):
    """The data folder cannot be written."""

    code = "data_folder_unusable"
    message = (
        "The data folder cannot be used ({reason}). "
        "Its operator should check LORAWORKS_DATA_DIR, the rights on it, and its disk."
    )


class HostRefused(AppError):
    """The request names another host."""

    status = 400
    code = "host_refused"
    message = (
        "The Host header names no host of this service. "
        "If it is one, add it to LORAWORKS_ALLOWED_HOSTS."
    )


class BodyLengthUnclear(AppError):
    """The request says twice how long its body is."""

    status = 400
    code = "body_length_unclear"
    message = (
        "A request has Content-Length or Transfer-Encoding, not both: the two may disagree on "
        "where it ends."
    )


class OriginRefused(Forbidden):
    """A web page of another origin may not call."""

    code = "origin_refused"
    message = (
        "Calls from web pages of another origin are refused. "
        "If this one may call, add it to LORAWORKS_ALLOWED_ORIGINS."
    )


class CrossSiteRefused(Forbidden):
    """A web page elsewhere made the browser call."""

    code = "cross_site_refused"
    message = (
        "Pages of other sites may link to this service, but not load or send anything here. "
        "If this one may call, add its origin to LORAWORKS_ALLOWED_ORIGINS and call with CORS."
    )


class ClientLeft(AppError):
    """The caller hung up before there was an answer."""

    status = 499  # as proxies write it into their logs
    code = "client_left"
    message = "The client closed the connection before there was an answer."


class KeyQueueFull(Overloaded):
    """One key has as many calls waiting as one key may have."""

    code = "key_queue_full"
    message = (
        "This key has {limit} calls of this kind under way. Wait for their answers, or try again "
        "in {retry_after} s."
    )


class QueueFull(Overloaded):
    """As many calls are waiting as may wait."""

    code = "queue_full"
    message = "{limit} calls of this kind are under way already. Try again in {retry_after} s."


class InvalidCursor(Invalid):
    """Not the `next` of a page."""

    code = "invalid_cursor"
    message = "`after` must be the `next` of an earlier page, unchanged."


class ChangedMeanwhile(Conflict):
    """Two calls changed the same thing."""

    code = "changed_meanwhile"
    message = "Another call changed the same thing at the same moment. Send this one again."


class Stopping(Unavailable):
    """The service is being stopped."""

    code = "stopping"
    message = "The service is being stopped and takes no new work. Try again shortly."


class Silent(Unavailable):
    """Something does not answer."""

    code = "silent"
    message = "There was no answer within {seconds:g} s."
