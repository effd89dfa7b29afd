"""What a chat completion costs beside `/predict`: `python -m benchmarks.openai_overhead`.

A linear model, whose own time is short, so that it hides nothing, served by `loraworks api`. Each
sentence of a film review goes to both routes, over a connection each, one request at a time; which
route is first alternates, so that both find caches equally warm. A chat completion returns the
probabilities of all labels, as `/predict` does. Prints the medians, and as its last line one JSON
object.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks import linear
from benchmarks.options import parser
from benchmarks.results_file import choose
from benchmarks.serve.server_process import free_port, running
from benchmarks.serve.target import Target
from lora_core.data.load import load_splits

PAIRS, QUICK_PAIRS = 5000, 500
WARM_PAIRS = 50  # not counted
HEADERS = {"Content-Type": "application/json"}
ROUTES = {"predict": "/predict", "chat": "/openai/v1/chat/completions"}


def bodies(text: str) -> dict[str, bytes]:
    """The same question for both routes."""
    chat = {
        "model": linear.NAME,
        "messages": [{"role": "user", "content": text}],
        "logprobs": True,
        "top_logprobs": 20,
    }
    predict = {"model": linear.NAME, "inputs": text}
    return {"predict": json.dumps(predict).encode(), "chat": json.dumps(chat).encode()}


def texts(count: int) -> list[str]:
    """Different sentences."""
    splits = load_splits(linear.SPEC.data)
    found = [example.text for example in (*splits.train, *splits.test)]
    assert len(found) >= count
    return found[:count]


@contextmanager
def running_service(folder: Path) -> Iterator[int]:
    """The port of a service with one model in production."""
    linear.install(folder)
    target = Target(free_port())
    words = [sys.executable, "-m", "app.cli.main", "api", "--port", str(target.port)]
    words += ["--data-dir", str(folder / "data")]
    with running(words, {"LORAWORKS_AUTH": "off"}, folder) as server:
        server.wait_until_it_answers(target, "a good film")
        yield target.port


def measure(pairs: int) -> dict[str, Any]:
    """Milliseconds of both routes for each text."""
    sentences = texts(WARM_PAIRS + pairs)
    took: dict[str, list[float]] = {route: [] for route in ROUTES}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-openai-"))
        port = stack.enter_context(running_service(Path(folder)))
        connections = {
            route: stack.enter_context(closing(HTTPConnection("127.0.0.1", port)))
            for route in ROUTES
        }
        for number, text in enumerate(sentences):
            sent = bodies(text)
            for route in ROUTES if number % 2 else reversed(ROUTES):
                took[route].append(ask(connections[route], ROUTES[route], sent[route]))
    return metrics(*(each[WARM_PAIRS:] for each in took.values()))


def ask(connection: HTTPConnection, path: str, body: bytes) -> float:
    """Milliseconds until the whole response is there."""
    start = time.perf_counter()
    connection.request("POST", path, body, HEADERS)
    response = connection.getresponse()
    answer = response.read()
    took = (time.perf_counter() - start) * 1000
    assert response.status == 200, answer
    return took


def metrics(predict: Sequence[float], chat: Sequence[float]) -> dict[str, Any]:
    """The overhead is that of a pair: the same text, one after the other."""
    overhead = [b - a for a, b in zip(predict, chat, strict=True)]
    low, middle, high = statistics.quantiles(overhead, n=4)
    return {
        "predict_ms_p50": round(statistics.median(predict), 3),
        "chat_ms_p50": round(statistics.median(chat), 3),
        "overhead_ms_p25": round(low, 3),
        "overhead_ms_p50": round(middle, 3),
        "overhead_ms_p75": round(high, 3),
        "pairs": len(overhead),
    }


def summary(found: Mapping[str, Any]) -> dict[str, float]:
    return {"overhead_ms_p50": found["overhead_ms_p50"]}


def main() -> None:
    arguments = parser(__doc__, None, quick=f"{QUICK_PAIRS} pairs of requests").parse_args()
    results = choose(
        arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="openai-overhead"
    )
    results.ensure("chat", lambda: measure(QUICK_PAIRS if arguments.quick else PAIRS))
    print(json.dumps(summary(results.metrics("chat"))))


if __name__ == "__main__":
    main()
