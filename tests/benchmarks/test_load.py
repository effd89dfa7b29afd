"""The load generator of `benchmarks.serve`, against a local server."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest

from benchmarks.serve.arrivals import Visitors, arrivals
from benchmarks.serve.load import closed, opened
from benchmarks.serve.target import Target

LABELS = [{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}]


class Handler(BaseHTTPRequestHandler):
    """Behaves as the text requests."""

    protocol_version = "HTTP/1.1"
    release: Event

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        if text == "vanish":
            self.close_connection = True
            return
        if text == "wait":
            self.release.wait()
        status, body = 429 if text == "refuse" else 200, json.dumps(LABELS).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Model-Version", "reviews:3")
        self.send_header("Retry-After", "0")
        if text == "close":
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        with suppress(OSError):  # the client has disconnected
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def target() -> Iterator[Target]:
    Handler.release = Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Target(server.server_port)
    finally:
        Handler.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def task(**more: Any) -> dict[str, Any]:
    """An open loop of about a hundred requests in half a second."""
    visitors = {"keys": 1, "greedy": 0.0, "hang_ups": 0.0, "hang_up_seconds": 0.0}
    plain = {"phases": [(200.0, 0.5)], "visitors": visitors, "seed": 0, "with_labels": False}
    return plain | {"patience": 30.0} | more


def seen(target: Target, *texts: str, **more: Any) -> Counter[str]:
    """Counts of the statuses of requests with these texts in turn."""
    found = opened(target, [json.dumps(each).encode() for each in texts], task(**more))
    return Counter(str(sample[2]) for sample in found["samples"])


def test_arrivals_have_the_rate_of_their_phase() -> None:
    drawn = [each.at for each in arrivals([(1000, 3), (100, 10)], Visitors(), seed=0)]
    assert drawn == sorted(drawn)
    first = [at for at in drawn if at < 3]
    assert len(first) == pytest.approx(3000, abs=4 * 3000**0.5)
    assert len(drawn) - len(first) == pytest.approx(1000, abs=4 * 1000**0.5)
    assert 3 < drawn[len(first)] < drawn[-1] < 13


@pytest.mark.slow
def test_every_request_has_an_outcome(target: Target) -> None:
    expected = len(list(arrivals([(200.0, 0.5)], Visitors(), seed=0)))
    found = seen(target, "fine", "refuse", "vanish", "close")
    assert found.keys() == {"200", "429", "lost"}
    assert found.total() == expected
    assert found["200"] == pytest.approx(2 * found["429"], abs=2)


@pytest.mark.slow
def test_clients_disconnect_after_their_timeout(target: Target) -> None:
    assert seen(target, "wait", patience=0.1).keys() == {"late"}
    hasty = {"keys": 1, "greedy": 0.0, "hang_ups": 1.0, "hang_up_seconds": 0.1}
    assert seen(target, "wait", visitors=hasty).keys() == {"left"}


def test_requests_do_not_wait_for_each_other(target: Target) -> None:
    found = seen(target, "wait", "fine", patience=2.0)
    assert found["200"] == pytest.approx(found["late"], abs=1)


@pytest.mark.slow
def test_every_request_to_a_missing_server_is_lost(target: Target) -> None:
    with pytest.raises(OSError, match="refused"):
        Target(1).ask("a text")
    assert seen(Target(1), "fine").keys() == {"lost"}


def test_closed_loop_sends_after_each_response(target: Target) -> None:
    wanted = {"connections": 4, "warm": 0.1, "seconds": 0.4, "seed": 0}
    found = closed(target, [b'"fine"', b'"refuse"', b'"close"'], wanted)
    assert found["statuses"].keys() == {"200", "429"}
    assert len(found["answers_ms"]) == found["statuses"]["200"] > 4
    assert found["client_share_of_core"] > 0
