"""The load of `benchmarks.serve`: who comes when, and what a real server's answers become."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Event, Thread
from typing import Any

import pytest

from benchmarks.serve.arrivals import Visitors, arrivals
from benchmarks.serve.load import closed, opened
from benchmarks.serve.target import Target, scores

LABELS = [{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}]


class Handler(BaseHTTPRequestHandler):
    """Does what the text says."""

    protocol_version = "HTTP/1.1"
    release: Event

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        if said == "vanish":
            self.close_connection = True
            return
        if said == "wait":
            self.release.wait()
        status, body = 429 if said == "refuse" else 200, json.dumps(LABELS).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Model-Version", "reviews:3")
        self.send_header("Retry-After", "0")
        if said == "close":
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        with suppress(OSError):  # who asked has left
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
    """An open loop of about a hundred questions in half a second."""
    visitors = {"keys": 1, "greedy": 0.0, "hang_ups": 0.0, "hang_up_seconds": 0.0}
    plain = {"phases": [(200.0, 0.5)], "visitors": visitors, "seed": 0, "told": False}
    return plain | {"patience": 30.0} | more


def seen(target: Target, *texts: str, **more: Any) -> Counter[str]:
    """How often each status came when these texts were asked in turn."""
    found = opened(target, [json.dumps(each).encode() for each in texts], task(**more))
    return Counter(str(sample[2]) for sample in found["samples"])


def test_arrivals_keep_the_rate_of_their_phase() -> None:
    drawn = [each.at for each in arrivals([(1000, 3), (100, 10)], Visitors(), seed=0)]
    assert drawn == sorted(drawn)
    first = [at for at in drawn if at < 3]
    assert len(first) == pytest.approx(3000, abs=4 * 3000**0.5)
    assert len(drawn) - len(first) == pytest.approx(1000, abs=4 * 1000**0.5)
    assert 3 < drawn[len(first)] < drawn[-1] < 13


def test_gaps_are_those_of_a_poisson_process() -> None:
    drawn = [each.at for each in arrivals([(1.0, 10_000)], Visitors(), seed=0)]
    gaps = [after - before for before, after in pairwise(drawn)]
    for age, longer in ((0.5, 0.6065), (1.0, 0.3679), (2.0, 0.1353)):  # exp(-age)
        assert sum(gap > age for gap in gaps) / len(gaps) == pytest.approx(longer, abs=0.02)


def test_the_same_seed_gives_the_same_visitors_and_another_others() -> None:
    crowd = Visitors(keys=10, greedy=0.5, hang_ups=0.1)
    one, again, other = (list(arrivals([(100, 5)], crowd, seed)) for seed in (0, 0, 1))
    assert one == again
    assert one != other


def test_visitors_are_greedy_and_hang_up_as_often_as_they_should() -> None:
    crowd = Visitors(keys=10, greedy=0.5, hang_ups=0.1, hang_up_seconds=2.0)
    drawn = list(arrivals([(1000, 20)], crowd, seed=0))
    asked = Counter(each.key for each in drawn)
    assert asked[0] / len(drawn) == pytest.approx(0.55, abs=0.02)
    assert all(asked[key] / len(drawn) == pytest.approx(0.05, abs=0.01) for key in range(1, 10))
    left = [each.hangs_up for each in drawn if each.hangs_up is not None]
    assert len(left) / len(drawn) == pytest.approx(0.1, abs=0.01)
    assert 0 <= min(left) < max(left) <= 2.0


def test_every_question_has_an_outcome(target: Target) -> None:
    expected = len(list(arrivals([(200.0, 0.5)], Visitors(), seed=0)))
    found = seen(target, "fine", "refuse", "vanish", "close")
    assert found.keys() == {"200", "429", "lost"}
    assert found.total() == expected
    assert found["200"] == pytest.approx(2 * found["429"], abs=2)


def test_who_waits_longer_than_their_patience_leaves(target: Target) -> None:
    assert seen(target, "wait", patience=0.1).keys() == {"late"}
    hasty = {"keys": 1, "greedy": 0.0, "hang_ups": 1.0, "hang_up_seconds": 0.1}
    assert seen(target, "wait", visitors=hasty).keys() == {"left"}


def test_nobody_waits_for_the_answer_to_another(target: Target) -> None:
    found = seen(target, "wait", "fine", patience=2.0)
    assert found["200"] == pytest.approx(found["late"], abs=1)


def test_a_server_that_is_not_there_loses_every_question(target: Target) -> None:
    with pytest.raises(OSError, match="refused"):
        Target(1).ask("a text")
    assert seen(Target(1), "fine").keys() == {"lost"}


def test_version_and_labels_are_told(target: Target) -> None:
    found = opened(target, [b'"fine"', b'"refuse"'], task(told=True))
    for _, _, status, key, version, labels in found["samples"]:
        expected = ("reviews:3", ["bad", "good"]) if status == 200 else (None, None)
        assert (key, version, labels) == (0, *expected)


def test_a_closed_loop_asks_again(target: Target) -> None:
    wanted = {"connections": 4, "warm": 0.1, "seconds": 0.4, "seed": 0}
    found = closed(target, [b'"fine"', b'"refuse"', b'"close"'], wanted)
    assert found["statuses"].keys() == {"200", "429"}
    assert len(found["answers_ms"]) == found["statuses"]["200"] > 4
    assert found["client_share_of_core"] > 0


def test_an_address_is_drawn_for_each_question() -> None:
    target = Target(80, ("/models/a/predict", "/models/b/predict"), keys=("one", "two"))
    request = target.request(b'"a text"', target.paths[1], 1).decode()
    head, _, body = request.partition("\r\n\r\n")
    assert head.startswith("POST /models/b/predict HTTP/1.1\r\n")
    assert "Authorization: Bearer two" in head
    assert json.loads(body) == {"inputs": "a text"}
    assert f"Content-Length: {len(body)}" in head


@pytest.mark.parametrize("answer", [LABELS, [LABELS], {"data": [LABELS], "usage": {}}])
def test_scores_are_found_in_every_dialect(answer: Any) -> None:
    assert scores(answer) == {"good": 0.9, "bad": 0.1}
