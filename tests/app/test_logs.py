"""Log lines are safe to store."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest
import structlog

from app import logging as app_logging

NASTY = "a\r\nb\x1b[31mred\x07\x7f\x9b\u2028end"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    app_logging.configure("INFO", stream=stream)
    yield stream
    app_logging.configure("INFO")


@pytest.fixture
def terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.CaptureFixture[str]]:
    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "isatty", lambda: True)
        app_logging.configure("INFO")
    yield capsys
    app_logging.configure("INFO")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_event_is_one_json_line(stream: io.StringIO) -> None:
    log = structlog.get_logger("app.test")
    log.info(NASTY, path=NASTY, nested={"list": [NASTY], NASTY: 1})
    logging.getLogger("worker").warning("from %s", NASTY)
    raw = stream.getvalue()
    assert raw.count("\n") == 2
    assert raw.isascii()
    assert not set(raw) & {"\r", "\x1b", "\x07", "\x7f"}
    first, second = lines(stream)
    assert first["event"] == first["path"] == r"a\r\nb\x1b[31mred\x07\x7f\x9b\u2028end"
    assert first["level"] == "info"
    assert second["event"].startswith(r"from a\r\nb")


def test_lone_surrogate_is_escaped() -> None:
    assert app_logging.sanitize_event(None, "info", {"event": "a\ud800b"}) == {"event": r"a\ud800b"}


def test_long_texts_are_truncated(stream: io.StringIO) -> None:
    structlog.get_logger("app.test").info("x" * 10_000)
    (line,) = lines(stream)
    assert line["event"].endswith("… (10000 characters)")
    assert len(line["event"]) < app_logging.MAX_TEXT_LENGTH + 50


def test_secrets_are_masked(stream: io.StringIO) -> None:
    key = f"lw_{'0' * 32}_{'s' * 43}"
    structlog.get_logger("app.test").info(
        "connect", url="postgresql://user:passw0rd@db/lora", key=key, token="hf_AbCdEfGhIjKl",
        path=f"/{key.upper()}", other="amqp://user:p@ssw0rd@db/", secret="whsec_tUvWxYz+/0123=",
    )  # fmt: skip
    raw = stream.getvalue()
    assert "passw0rd" not in raw
    assert "ssss" not in raw.lower()
    assert "ssw0rd" not in raw
    assert "AbCdEf" not in raw
    assert "tUvWx" not in raw
    assert lines(stream)[0]["url"] == "postgresql://user:***@db/lora"


def test_traceback_is_part_of_the_line(stream: io.StringIO) -> None:
    try:
        raise ValueError(NASTY)
    except ValueError:
        structlog.get_logger("app.test").exception("broken")
    (line,) = lines(stream)
    assert "ValueError" in line["exception"]


def test_traceback_on_a_terminal_shows_no_secret(terminal: pytest.CaptureFixture[str]) -> None:
    def fail(text: str, key: str) -> None:
        raise ValueError(f"no such key: {key}\x1b[31m")

    text, secret = token_hex(), token_hex()
    try:
        fail(text, f"lw_{'0' * 32}_{secret}")
    except ValueError:
        structlog.get_logger("app.test").exception("broken")
    shown = terminal.readouterr().err
    assert "in fail\n" in shown
    assert f"ValueError: no such key: lw_{'0' * 32}_***\\x1b[31m" in shown
    assert text not in shown
    assert secret not in shown


def test_request_id_is_in_every_line(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("app.test").info("one")
        logging.getLogger("app.other").info("two")
    assert [line["request_id"] for line in lines(stream)] == ["r1", "r1"]


def test_libraries_log_warnings(stream: io.StringIO) -> None:
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    assert [line["event"] for line in lines(stream)] == ["trouble"]


def test_configuring_twice_does_not_duplicate_lines(stream: io.StringIO) -> None:
    again = io.StringIO()
    app_logging.configure("WARNING", stream=again)
    structlog.get_logger("app.test").info("too low")
    structlog.get_logger("app.test").warning("heard")
    assert stream.getvalue() == ""
    assert [line["event"] for line in lines(again)] == ["heard"]


@pytest.mark.parametrize(
    "name", ["uvicorn", "uvicorn.access", "celery", "celery.redirected", "kombu", "amqp"]
)
def test_library_handlers_are_replaced(stream: io.StringIO, name: str) -> None:
    own = io.StringIO()
    library = logging.getLogger(name.partition(".")[0])
    for logger in (library, logging.getLogger(name)):
        logger.addHandler(logging.StreamHandler(own))
        logger.propagate = False
        logger.setLevel("DEBUG")
    app_logging.configure("INFO", stream=stream)
    logging.getLogger(name).debug("chatter")
    logging.getLogger(name).error("trouble")
    assert [(line["event"], line["logger"]) for line in lines(stream)] == [("trouble", name)]
    assert own.getvalue() == ""
