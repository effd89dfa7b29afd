"""Every error is printed on one line and sets the exit code."""

import json
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import lora_core
from app.cli.client import Client
from app.cli.errors import EXIT_CODES
from app.cli.json_client import validate_response_body
from lora_core.data.data_report import DataReport
from tests.app.cli.conftest import Run


@contextmanager
def answering(
    status: int, body: bytes, kind: str = "text/html", *, seconds: float = 0
) -> Iterator[str]:
    """Run a server that sends one response to every request, after `seconds`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(seconds)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("seconds", "shown"), [(1.5, True), (0, False)])
def test_terminal_shows_a_spinner_for_slow_responses(seconds: float, shown: bool) -> None:
    controller, terminal = pty.openpty()
    body = b'[[{"label": "good", "score": 1.0}]]'
    with answering(200, body, "application/json", seconds=seconds) as url:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli.main", "--url", url, "predict", "a film"],
            stdout=subprocess.PIPE, stderr=terminal, timeout=40, check=True,
            env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
    os.write(terminal, b"|")  # so that there is something to read
    seen = os.read(controller, 100_000)
    os.close(terminal)
    os.close(controller)
    assert (b"waiting for the response" in seen) is shown
    assert b"good" in done.stdout


def test_missing_service_exits_with_4_and_a_hint(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = run("jobs", "list", LORAWORKS_URL=f"http://127.0.0.1:{port}")
    assert result.exit_code == 4
    assert "loraworks up" in result.stderr
    assert result.stderr.count("\n") == 1


def test_server_error_exits_with_4(run: Run) -> None:
    body = b'{"detail": "The database is away.", "code": "database_unavailable"}'
    with answering(503, body, "application/problem+json") as url:
        result = run("jobs", "list", LORAWORKS_URL=url)
    assert result.exit_code == 4
    assert result.stderr == "error: The database is away. (database_unavailable)\n"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (200, 4, "is not JSON"),
        (404, 3, "(http_404)"),
        (502, 4, "(http_502)"),
        (302, 4, "(http_302)"),
    ],
)
def test_foreign_server_is_recognized(run: Run, status: int, code: int, message: str) -> None:
    with answering(status, b"<html>") as url:
        result = run("jobs", "list", LORAWORKS_URL=url)
    assert result.exit_code == code
    assert message in result.stderr


MODEL = {"name": "a", "created_at": "2026-03-01T12:00:00.125Z", "aliases": {}, "versions": []}


def test_fields_of_a_newer_service_are_ignored(run: Run) -> None:
    body = json.dumps({**MODEL, "stars": 5}).encode()
    with answering(200, body, "application/json") as url:
        result = run("models", "show", "a", "--json", LORAWORKS_URL=url)
    assert json.loads(result.stdout) == MODEL


def test_nested_fields_of_a_newer_service_are_ignored() -> None:
    body = {"rows": 1, "compared": 1, "balance": None, "tokens": None, "new": 1}
    finding = {"code": "x", "level": "info", "count": 1, "message": "m", "advice": "a", "new": 1}
    report = validate_response_body(DataReport, {**body, "findings": [finding]})
    assert report.findings[0].code == "x"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({key: value for key, value in MODEL.items() if key != "aliases"}, "aliases is required"),
        ({**MODEL, "created_at": "soon"}, "created_at"),
        ({**MODEL, "versions": [{}]}, "versions.0.number is required"),
        ([], "must be an object, not a list"),
    ],
)
def test_other_body_is_an_error_with_a_code(run: Run, body: object, problem: str) -> None:
    with answering(200, json.dumps(body).encode(), "application/json") as url:
        result = run("models", "show", "a", LORAWORKS_URL=url)
    assert result.exit_code == 4
    assert problem in result.stderr
    assert "(unexpected_response)" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["ftp://host", "localhost:8000", "http://[", "http://ho st:x"])
def test_invalid_url_is_a_usage_error(run: Run, url: str) -> None:
    result = run("jobs", "list", "--url", url)
    assert result.exit_code == 2
    assert "(bad_url)" in result.stderr


def test_key_with_a_line_break_is_a_usage_error(run: Run) -> None:
    result = run("jobs", "list", "--key", "lw_a\nb")
    assert result.exit_code == 2
    assert "(bad_key)" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", os.fsdecode(b"caf\xe9")),
        ("jobs", "show", os.fsdecode(b"caf\xe9")),
        ("datasets", "suspects", "x", "--target", os.fsdecode(b"caf\xe9")),
    ],
)
def test_an_argument_of_another_encoding_is_a_usage_error(
    arguments: tuple[str, ...], run: Run
) -> None:
    with answering(200, b"[]", "application/json") as url:
        result = run(*arguments, LORAWORKS_URL=url)
    assert (result.exit_code, "(not_utf8)" in result.stderr) == (2, True), result.output
    assert result.stderr.count("\n") == 1


def test_output_that_the_terminal_cannot_show_is_a_usage_error() -> None:
    body = '[[{"label": "schön", "score": 1.0}]]'.encode()
    with answering(200, body, "application/json") as url:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli.main", "--url", url, "predict", "a film"],
            capture_output=True, timeout=40, check=False, text=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
    assert (done.returncode, "(not_utf8)" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("feedback", "add", "--model", "m", "--text", "x", "--value", "nan"),
        ("labeling", "create", "p", "texts", "--random-share", "inf"),
        ("retraining", "set", "m", "--every-days", "nan"),
        ("datasets", "correct", "numbers:1", "--file", "CHANGES"),
    ],
)
def test_a_number_that_is_not_finite_is_a_usage_error(
    arguments: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    changes = tmp_path / "changes.jsonl"
    changes.write_text('{"row": 3, "value": NaN}\n')
    with answering(200, b"{}", "application/json") as url:
        named = (str(changes) if each == "CHANGES" else each for each in arguments)
        result = run(*named, LORAWORKS_URL=url)
    assert (result.exit_code, "(not_finite)" in result.stderr) == (2, True), result.output


def test_control_characters_of_a_response_are_removed(run: Run) -> None:
    body = b'{"detail": "\\u001b[31mred\\u0007", "code": "x"}'
    with answering(400, body, "application/problem+json") as url:
        result = run("jobs", "list", LORAWORKS_URL=url)
    assert "\x1b" not in result.stderr
    assert "\x07" not in result.stderr


def test_internal_error_has_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Client, limit: int) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Client, "list_models", broken)
    result = run("models", "list")
    assert result.exit_code == 70
    assert result.stderr == "error: ZeroDivisionError: by zero (unexpected)\n"


def test_ctrl_c_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Client, limit: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "list_models", interrupted)
    assert run("models", "list").exit_code == 130


def test_default_url_is_where_up_listens_with_the_same_environment() -> None:
    code = "from app.cli.options import DEFAULT_URL; print(DEFAULT_URL)"
    environment = {**os.environ, "LORAWORKS_HOST": "::", "LORAWORKS_PORT": "8123"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "http://[::1]:8123\n"


def test_version_and_help_are_printed(run: Run) -> None:
    assert run("--version").stdout == f"loraworks {lora_core.__version__}\n"
    output = " ".join(run("--help").stdout.split())
    for code in EXIT_CODES:
        assert f" {code} " in output


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from app.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'sqlalchemy', 'uvicorn', 'fastapi', 'datasets'}\n"
        "sys.exit(str(heavy & set(sys.modules) or '') or None)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 5  # 0.3 s alone on a machine; a loaded one is slower
