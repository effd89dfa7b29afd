"""Every way a command can fail, with the exit code that a script sees.

CliError
├── RunFailed      1  the job, the prediction or the sweep failed
├── Misuse         2  wrong usage, file or setting
├── Refused        3  the service said no (4xx)
└── Unreachable    4  the service did not answer, or not as it should (5xx)
    └── BrokenOff  4  the connection was lost before the answer came
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

UNEXPECTED = 70  # a fault of the program itself (EX_SOFTWARE)
INTERRUPTED = 130  # Ctrl-C

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "the job, the prediction or the sweep failed, or was ended before; data has errors",
    2: "wrong usage, file or setting; the port or the data folder is taken",
    3: "the service refused (4xx)",
    4: "the service cannot be reached or is in trouble (5xx)",
    UNEXPECTED: "a fault of the program itself",
    INTERRUPTED: "stopped with Ctrl-C",
}


class CliError(Exception):
    """A cause that is told in one line: `error: <detail> (<code>)`."""

    exit_code: ClassVar[int]

    def __init__(self, detail: str, code: str) -> None:
        self.detail = detail
        self.code = code
        super().__init__(detail)

    def lines(self) -> list[str]:
        return [f"error: {self.detail} ({self.code})"]


class RunFailed(CliError):
    """The job, the prediction or the sweep failed."""

    exit_code = 1


class Misuse(CliError):
    """Wrong usage, file or setting."""

    exit_code = 2


class Refused(CliError):
    """The service said no. `fields` are the faults of a body; `detail` tells the first.

    `retry_after`: seconds after which it may say yes, if it told.
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
            # The first is in the detail already.
            *(f"  {field.get('at')}: {field.get('message')}" for field in self.fields[1:]),
        ]


class Unreachable(CliError):
    """The service did not answer, or not as it should."""

    exit_code = 4


class BrokenOff(Unreachable):
    """The connection was lost before the answer came; what was asked may have happened."""
