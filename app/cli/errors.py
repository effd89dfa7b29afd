"""The errors of commands, with their exit codes.

CliError
├── RunFailed            1  the job, prediction run or sweep failed
├── UsageError           2  invalid usage, file or setting
├── RequestRejected      3  the service rejected the request (4xx)
├── ServiceUnreachableOrFailed 4  the service did not respond, or failed (5xx)
│   └── ConnectionLost   4  the connection was lost before the response arrived
└── UnexpectedResponse   4  the response has another form: another version of the service
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

EXIT_INTERNAL_ERROR = 70  # a bug in the program (EX_SOFTWARE in sysexits.h)
EXIT_INTERRUPTED = 130  # Ctrl-C

EXIT_CODES: dict[int, str] = {
    0: "success",
    1: "the job, prediction run or sweep failed or was stopped; the data has errors",
    2: "invalid usage, file or setting; the port or the data directory is in use",
    3: "the service rejected the request (4xx)",
    4: "the service is unreachable, failed (5xx), or sent an unexpected response",
    EXIT_INTERNAL_ERROR: "internal error",
    EXIT_INTERRUPTED: "interrupted with Ctrl-C",
}


class CliError(Exception):
    """An error that is printed on one line: `error: <detail> (<code>)`."""

    exit_code: ClassVar[int]

    def __init__(self, detail: str, code: str) -> None:
        self.detail = detail
        self.code = code
        super().__init__(detail)

    def lines(self) -> list[str]:
        return [f"error: {self.detail} ({self.code})"]


class RunFailed(CliError):
    """The job, prediction run or sweep failed."""

    exit_code = 1


class UsageError(CliError):
    """Invalid usage, file or setting."""

    exit_code = 2


class RequestRejected(CliError):
    """The service rejected the request (4xx).

    Attributes:
        fields: the invalid fields of the body; `detail` describes the first.
        retry_after: seconds until a retry may succeed, if the service sent them.
    """

    exit_code = 3

    def __init__(
        self,
        detail: str,
        code: str,
        status: int,
        fields: Sequence[Mapping[str, Any]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail, code)
        self.status = status
        self.fields = fields
        self.retry_after = retry_after

    def lines(self) -> list[str]:
        return [
            *super().lines(),
            # `detail` contains the first one already.
            *(f"  {field.get('at')}: {field.get('message')}" for field in self.fields[1:]),
        ]


class ServiceUnreachableOrFailed(CliError):
    """The service did not respond, or responded with a server error (5xx)."""

    exit_code = 4


class ConnectionLost(ServiceUnreachableOrFailed):
    """The connection was lost before the response arrived; the request may have taken effect."""


class UnexpectedResponse(CliError):
    """The response does not have the expected form: another version of the service."""

    exit_code = 4
