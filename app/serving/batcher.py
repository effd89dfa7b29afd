"""One queue before the cores: texts of many callers are computed together. Knows no torch.

There is a worker for each core, and each computes a batch of its own on that core: cores that share
one product wait for each other (docs/decisions/0019). A text that is alone gets all cores from the
first worker, the only one that keeps a team of threads for it. A batch is formed when a worker is
free, of what waits then: nothing is delayed to fill it. Its texts share a network, since that is
what computes them; their adapters may differ.
"""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from app.serving.errors import BatchFailed, DeadlinePassed
from app.serving.metrics import ServingMeters
from lora_core.process import is_no_memory

# A worker gives its core one product after the other, and needs the interpreter in between. The
# default of 5 ms is longer than most products take.
SWITCH_SECONDS = 0.0001
_WEIGHT = 0.2  # of the newest batch in the running mean

log = structlog.get_logger()


class Engine(Protocol):
    """What is needed of `lora_core.inference.network.Network`."""

    @property
    def batch_tokens(self) -> int: ...

    def logits(
        self, texts: Sequence[Sequence[int]], adapters: Sequence[Any], *, threads: int | None = None
    ) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Computed:
    """Logits of one text. Times in seconds."""

    logits: Any
    queued: float
    computing: float  # of its batch


@dataclass(eq=False, slots=True)
class Ticket:
    """One text that waits. Whoever cancels `done` has left, and is skipped."""

    engine: Engine
    adapter: Any
    ids: Sequence[int]
    deadline: float  # on the monotonic clock
    done: "asyncio.Future[Computed]"
    asked: float = field(default_factory=time.monotonic)


class Batcher:
    """The queue, and the threads that compute."""

    def __init__(self, meters: ServingMeters, *, workers: int) -> None:
        self.tokens_per_second: float | None = None  # of all workers; None: nothing computed yet
        self._meters = meters
        self._workers = workers
        self._idle = set(range(workers))
        self._queue: deque[Ticket] = deque()
        self._lock = threading.Lock()
        self._wake = [threading.Condition(self._lock) for _ in range(workers)]
        self._closed = False
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(SWITCH_SECONDS)
        for number in range(workers):
            name = f"predict {number}"
            threading.Thread(target=self._work, args=(number,), name=name, daemon=True).start()

    async def compute(self, tickets: Sequence[Ticket]) -> list[Computed]:
        """Raises `DeadlinePassed`, `BatchFailed`. Who leaves meanwhile gives up the turn."""
        with self._lock:
            self._queue.extend(tickets)
            self._wake_next()
        try:
            return await asyncio.gather(*(ticket.done for ticket in tickets))
        finally:
            for ticket in tickets:
                ticket.done.cancel()

    def close(self) -> None:
        """End the threads after their batches. Nobody may wait any more."""
        with self._lock:
            self._closed = True
            for wake in self._wake:
                wake.notify()

    def _wake_next(self) -> None:
        """Wake the first idle worker. It wakes the next one, if it leaves something."""
        if self._queue and self._idle:
            self._wake[min(self._idle)].notify()

    def _work(self, number: int) -> None:
        while (batch := self._next(number)) is not None:
            if batch.tickets:
                began = time.monotonic()
                rows = self._logits(batch.tickets, batch.threads)
                seconds = time.monotonic() - began
                with self._lock:
                    self._idle.add(number)
                self._measure(batch, seconds)
                self._tell([(ticket, _outcome(ticket, row, began, seconds))
                            for ticket, row in zip(batch.tickets, rows, strict=True)])  # fmt: skip

    def _next(self, number: int) -> "_Batch | None":
        """Wait for texts; None: closed."""
        with self._lock:
            while not self._closed and (not self._queue or number != min(self._idle)):
                self._wake_next()
                self._wake[number].wait()
            if self._closed:
                return None
            batch, late = self._formed(number, time.monotonic())
            if batch.tickets:
                self._idle.remove(number)
            self._wake_next()
        if late:
            self._tell([(ticket, DeadlinePassed()) for ticket in late])
        return batch

    def _formed(self, number: int, now: float) -> "tuple[_Batch, list[Ticket]]":
        """The oldest text with others for its network, as many as leave some for idle workers."""
        live: list[Ticket] = []
        late: list[Ticket] = []
        for ticket in self._queue:
            if ticket.done.cancelled():
                self._meters.dropped.inc()
            else:
                (late if ticket.deadline <= now else live).append(ticket)
        fair = sum(len(ticket.ids) for ticket in live) / len(self._idle)
        batch = _Batch()
        # Those of its own adapter first: each adapter in a batch costs products of its own.
        for ticket in sorted(live, key=lambda each: each.adapter is not live[0].adapter):
            if batch.takes(ticket, fair):
                batch.add(ticket)
        taken = set(batch.tickets)
        self._queue = deque(ticket for ticket in live if ticket not in taken)
        alone = number == 0 and not self._queue and len(self._idle) == self._workers
        batch.threads = self._workers if alone else 1  # all cores, while nobody else needs one
        batch.workers = self._workers - len(self._idle) + 1
        return batch, late

    def _logits(self, tickets: Sequence[Ticket], threads: int) -> list[Any]:
        """What the engine gives, or one error for each text. Without memory, half at a time."""
        ids, adapters = [t.ids for t in tickets], [t.adapter for t in tickets]
        try:
            return tickets[0].engine.logits(ids, adapters, threads=threads)
        except Exception as error:
            if is_no_memory(error) and len(tickets) > 1:
                half = len(tickets) // 2
                first = self._logits(tickets[:half], threads)
                return [*first, *self._logits(tickets[half:], threads)]
            log.exception("batch_failed", texts=len(tickets))
            return [BatchFailed(kind=type(error).__name__)] * len(tickets)

    def _measure(self, batch: "_Batch", seconds: float) -> None:
        speed = batch.tokens / max(seconds, 1e-9) * (batch.workers if batch.threads == 1 else 1)
        known = self.tokens_per_second
        self.tokens_per_second = speed if known is None else known + _WEIGHT * (speed - known)
        self._meters.batch_texts.observe(len(batch.tickets))
        self._meters.batch_tokens.observe(batch.tokens)

    def _tell(self, outcomes: "Outcomes") -> None:
        """Answer on the event loop, once for the whole batch."""
        try:
            self._loop.call_soon_threadsafe(_settle, outcomes)
        except RuntimeError:  # the loop is closed: nobody waits any more
            log.info("answers_too_late", texts=len(outcomes))


@dataclass(slots=True)
class _Batch:
    """What one worker computes."""

    tickets: list[Ticket] = field(default_factory=list)
    tokens: int = 0
    threads: int = 1
    workers: int = 1  # that compute then

    def takes(self, ticket: Ticket, fair: float) -> bool:
        """Whether it belongs here and there is room: a first text always fits."""
        if not self.tickets:
            return True
        tokens = self.tokens + len(ticket.ids)
        engine = self.tickets[0].engine
        return ticket.engine is engine and tokens <= min(engine.batch_tokens, fair)

    def add(self, ticket: Ticket) -> None:
        self.tickets.append(ticket)
        self.tokens += len(ticket.ids)


Outcomes = Sequence[tuple[Ticket, Computed | Exception]]


def _outcome(ticket: Ticket, row: Any, began: float, seconds: float) -> Computed | Exception:
    if isinstance(row, Exception):
        return row
    return Computed(row, queued=began - ticket.asked, computing=seconds)


def _settle(outcomes: Outcomes) -> None:
    for ticket, outcome in outcomes:
        if ticket.done.done():
            continue  # its caller has left
        if isinstance(outcome, Exception):
            ticket.done.set_exception(outcome)
        else:
            ticket.done.set_result(outcome)
