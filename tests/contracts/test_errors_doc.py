"""docs/reference/errors.md lists every code; `UPDATE_DOCS=1 pytest tests/contracts` writes it."""

import os
from collections.abc import Iterator
from pathlib import Path

import app.main
import app.retention.files  # noqa: F401
import worker.service  # noqa: F401
from app.errors import AppError
from lora_core.errors import LoraCoreError
from worker import failures

WORKER = [failures.CRASHED, failures.STALLED, failures.LOST_WORKER, failures.WORKER_ERROR]
Kind = type[AppError] | type[LoraCoreError]

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
FROM_THE_BODY = """
Invalid requests are rejected before that: `malformed_json`, `malformed_body`
(400), `not_found` (404), `method_not_allowed` (405), `body_too_slow` (408), `body_too_large`
(413), `unsupported_media_type` (415), `validation_failed` (422, with one entry in `errors` for each
field). An unexpected error is `internal_error` (500).
"""
INTRODUCTION = """# Error codes

Every error response and every failed job has a `code`. Codes are stable; messages may
change. Under `/v1` an error is `application/problem+json`; under `/predict` and
`/models` it is `{"error": message, "error_type": …, "code": …}`, and under `/openai`
`{"error": {"message": …, "type": …, "param": …, "code": …}}`, where 422 is 400 and 424 is 500.
Under `/mistral` these fields are in the body itself, and 424 is 500. This page is generated from
the error classes by `UPDATE_DOCS=1 pytest tests/contracts`.
"""


def causes(kind: Kind) -> Iterator[Kind]:
    """Every subclass with its own code."""
    for child in kind.__subclasses__():
        if "code" in vars(child) and child.__module__.startswith(("app.", "worker.", "lora_core.")):
            yield child
        yield from causes(child)


def rows(kind: Kind) -> list[str]:
    found = set()
    for cause in causes(kind):
        status = getattr(cause, "status", "")
        found.add(f"| `{cause.code}` | {status} | {cause.title} |\n")
    return sorted(found)


def meaning(message: str) -> str:
    """The message without its details."""
    return message.split(" (")[0].replace("{description}", "too long").rstrip(".") + "."


def document() -> str:
    return (
        INTRODUCTION
        + "\n## The service\n\n| code | status | meaning |\n|---|---|---|\n"
        + "".join(rows(AppError))
        + FROM_THE_BODY
        + "\n## Training runs, bases and data\n\nIn a response their status is 422; in a failed "
        "job they are its `error.code`.\n\n| code | | meaning |\n|---|---|---|\n"
        + "".join(row.replace("|  |", "| |") for row in rows(LoraCoreError))
        + "".join(f"| `{cause.code}` | | {meaning(cause.message)} |\n" for cause in WORKER)
    )


def test_document_matches_the_classes() -> None:
    if os.environ.get("UPDATE_DOCS") == "1":
        DOCUMENT.write_text(document(), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_every_error_has_a_code_message_and_title() -> None:
    for kind in (AppError, LoraCoreError):
        for cause in causes(kind):
            assert {"code", "title", "message"} <= vars(cause).keys(), cause
