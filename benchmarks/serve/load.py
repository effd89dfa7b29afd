"""Load generator in its own process: `python -m benchmarks.serve.load < task.json`.

Prints its results as one line of JSON. Requests are encoded before the clock starts, and one
that is sent late counts from when it was due.
"""

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.serve.arrivals import Arrival, Visitors, arrivals
from benchmarks.serve.connection import Answer, Connection
from benchmarks.serve.target import Target, scores

STALE_SECONDS = 3.0  # a server may close a connection that was idle for longer
LEFT, LATE, LOST = "left", "late", "lost"  # in place of a status if there was no response


class Connections:
    """Connections to one server."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._idle: list[Connection] = []

    def rested(self) -> Connection | None:
        """One that is open and free."""
        while self._idle:
            connection = self._idle.pop()
            if connection.open and time.monotonic() - connection.used_at < STALE_SECONDS:
                return connection
            connection.leave()
        return None

    async def new(self) -> Connection:
        """Raises `OSError`."""
        return await Connection.to(self.target.host, self.target.port)

    def back(self, connection: Connection) -> None:
        """It is free again."""
        if connection.open:
            self._idle.append(connection)

    async def close(self) -> None:
        """Hang up everywhere."""
        for connection in self._idle:
            connection.leave()
        await asyncio.sleep(0)  # sockets close in the next round


class Closed:
    """Closed loop: each connection sends the next request after a response."""

    def __init__(self, target: Target, requests: Iterator[bytes]) -> None:
        self._clients = Connections(target)
        self._requests = requests
        self.samples: list[tuple[float, float, int | str]] = []  # begun, milliseconds, status

    async def run(self, connections: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._one(end) for _ in range(connections)))
        await self._clients.close()

    async def _one(self, end: float) -> None:
        while (began := time.monotonic()) < end:
            connection = self._clients.rested() or await self._clients.new()
            answer = await connection.ask(next(self._requests))
            self._clients.back(connection)
            status = answer.status if answer else LOST
            self.samples.append((began, (time.monotonic() - began) * 1000, status))
            if answer and answer.status in (429, 503):
                await asyncio.sleep(float(answer.header("retry-after") or 1))


class Open:
    """Open loop: requests are sent at their arrival times, independent of other responses."""

    def __init__(self, target: Target, patience: float, *, with_labels: bool) -> None:
        self._clients = Connections(target)
        self._patience = patience
        self._with_labels = with_labels
        self._connecting: set[asyncio.Task[None]] = set()
        self.began = 0.0
        self.samples: list[list[Any]] = []  # at, milliseconds, status, key, and version and labels

    async def run(self, plan: Sequence[tuple[Arrival, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self.began = loop.time() + 0.05
        self._left, self._plan = len(plan), iter(plan)
        self._next()
        await self._done.wait()
        await self._clients.close()

    def _next(self) -> None:
        """Schedule the next arrival."""
        if (following := next(self._plan, None)) is not None:
            at = self.began + following[0].at
            asyncio.get_running_loop().call_at(at, self._come, *following)

    def _come(self, arrival: Arrival, request: bytes) -> None:
        self._next()
        connection = self._clients.rested()
        if connection is not None:
            self._ask(connection, arrival, request)
            return
        task = asyncio.get_running_loop().create_task(self._connect(arrival, request))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, arrival: Arrival, request: bytes) -> None:
        try:
            connection = await self._clients.new()
        except OSError:
            self._note(arrival, None)
        else:
            self._ask(connection, arrival, request)

    def _ask(self, connection: Connection, arrival: Arrival, request: bytes) -> None:
        until = self.began + arrival.at + self._stays(arrival)
        leaving = asyncio.get_running_loop().call_at(until, connection.leave)

        def on_response(answer: Answer | None) -> None:
            leaving.cancel()
            self._clients.back(connection)
            self._note(arrival, answer)

        connection.send(request, on_response)

    def _note(self, arrival: Arrival, answer: Answer | None) -> None:
        took = time.monotonic() - self.began - arrival.at
        status = answer.status if answer else self._why(arrival, took)
        sample = [round(arrival.at, 4), round(took * 1000, 2), status, arrival.key]
        self.samples.append(sample + (_version_and_labels(answer) if self._with_labels else []))
        self._left -= 1
        if not self._left:
            self._done.set()

    def _stays(self, arrival: Arrival) -> float:
        return self._patience if arrival.hangs_up is None else arrival.hangs_up

    def _why(self, arrival: Arrival, took: float) -> str:
        if took < self._stays(arrival) - 0.01:
            return LOST
        return LATE if arrival.hangs_up is None else LEFT


def _version_and_labels(answer: Answer | None) -> list[Any]:
    """The version and labels of a response."""
    if answer is None or answer.status != 200:
        return [None, None]
    return [answer.header("x-model-version"), sorted(scores(json.loads(answer.body)))]


def closed(target: Target, texts: Sequence[bytes], task: dict[str, Any]) -> dict[str, Any]:
    """Run the closed loop; counts responses inside the window."""
    paths = Random(task["seed"]).choices(target.paths, k=len(texts))  # noqa: S311
    requests = cycle(map(target.request, texts, paths))
    clients = Closed(target, requests)
    began, cpu = time.monotonic(), time.process_time()
    asyncio.run(clients.run(task["connections"], task["warm"] + task["seconds"]))
    spent = (time.process_time() - cpu) / (time.monotonic() - began)
    opens = began + task["warm"]
    ends = [(at + ms / 1000 - opens, ms, status) for at, ms, status in clients.samples]
    inside = [(ms, status) for end, ms, status in ends if 0 <= end < task["seconds"]]
    return {
        "answers_ms": [round(ms, 2) for ms, status in inside if status == 200],
        "statuses": Counter(str(status) for _, status in inside),
        "seconds": task["seconds"],
        "client_share_of_core": spent,
    }


def opened(target: Target, texts: Sequence[bytes], task: dict[str, Any]) -> dict[str, Any]:
    """Run the open loop; returns the outcome of every request."""
    drawn = arrivals(task["phases"], Visitors(**task["visitors"]), task["seed"])
    paths, texts_again = target.paths, cycle(texts)
    plan = [
        (each, target.request(next(texts_again), paths[int(each.draw * len(paths))], each.key))
        for each in drawn
    ]
    clients = Open(target, task["patience"], with_labels=task["with_labels"])
    began, cpu = time.monotonic(), time.process_time()
    asyncio.run(clients.run(plan))
    spent = (time.process_time() - cpu) / (time.monotonic() - began)
    return {"samples": clients.samples, "began": clients.began, "client_share_of_core": spent}


def main() -> None:
    task = json.load(sys.stdin)
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in task["target"].items()
    }
    target = Target(**fields)
    texts = Path(task["texts"]).read_bytes().splitlines()
    gc.disable()  # there are no cycles here, and a pause would count as the server's
    kind = closed if task["kind"] == "closed" else opened
    print(json.dumps(kind(target, texts, task)))


if __name__ == "__main__":
    main()
