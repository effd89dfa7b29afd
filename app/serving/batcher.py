"""One queue before one device: texts of many callers are computed together. Knows no torch.

A batch is formed when the device is free, of what waits then: nothing is delayed to fill it. Its
texts share a network, since that is what computes them; their adapters may differ.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from app.serving.errors import BatchFailed, DeadlinePassed
from app.serving.meters import ServingMeters
from lora_core.process import is_no_memory

BATCH_TOKENS = 2048
_WEIGHT = 0.2  # of the newest batch in the running mean

log = structlog.get_logger()


class Engine(Protocol):
    """What is needed of `lora_core.inference.engine.Engine`; not safe for two threads."""

    def logits(self, texts: Sequence[Sequence[int]], adapters: Sequence[Any]) -> list[Any]: ...


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
    """The queue, and the one thread that computes."""

    def __init__(self, meters: ServingMeters, *, batch_tokens: int = BATCH_TOKENS) -> None:
        self.tokens_per_second: float | None = None  # running mean; None: nothing computed yet
        self._meters = meters
        self._batch_tokens = batch_tokens
        self._queue: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name="predict", daemon=True).start()

    async def compute(self, tickets: Sequence[Ticket]) -> list[Computed]:
        """Raises `DeadlinePassed`, `BatchFailed`. Who leaves meanwhile gives up the turn."""
        with self._changed:
            self._queue.extend(tickets)
            self._changed.notify()
        try:
            return await asyncio.gather(*(ticket.done for ticket in tickets))
        finally:
            for ticket in tickets:
                ticket.done.cancel()

    def close(self) -> None:
        """End the thread after its batch. Nobody may wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                began = time.monotonic()
                rows = self._logits(batch)
                seconds = time.monotonic() - began
                self._measure(batch, seconds)
                self._tell([(ticket, _outcome(ticket, row, began, seconds))
                            for ticket, row in zip(batch, rows, strict=True)])  # fmt: skip

    def _next(self) -> list[Ticket] | None:
        """Wait for texts. The oldest one's network is next, with all that fit; None: closed."""
        late: list[Ticket] = []
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            batch: list[Ticket] = []
            others: deque[Ticket] = deque()
            tokens, now = 0, time.monotonic()
            for ticket in self._queue:
                if ticket.done.cancelled():
                    self._meters.dropped.inc()
                elif ticket.deadline <= now:
                    late.append(ticket)
                elif not batch or (
                    ticket.engine is batch[0].engine
                    and tokens + len(ticket.ids) <= self._batch_tokens
                ):
                    batch.append(ticket)
                    tokens += len(ticket.ids)
                else:
                    others.append(ticket)
            self._queue = others
        if late:
            self._tell([(ticket, DeadlinePassed()) for ticket in late])
        return batch

    def _logits(self, batch: Sequence[Ticket]) -> list[Any]:
        """What the engine gives, or one error for each text. Without memory, half at a time."""
        try:
            return batch[0].engine.logits([t.ids for t in batch], [t.adapter for t in batch])
        except Exception as error:
            if is_no_memory(error) and len(batch) > 1:
                half = len(batch) // 2
                return [*self._logits(batch[:half]), *self._logits(batch[half:])]
            log.exception("batch_failed", texts=len(batch))
            return [BatchFailed(kind=type(error).__name__)] * len(batch)

    def _measure(self, batch: Sequence[Ticket], seconds: float) -> None:
        tokens = sum(len(ticket.ids) for ticket in batch)
        speed = tokens / max(seconds, 1e-9)
        known = self.tokens_per_second
        self.tokens_per_second = speed if known is None else known + _WEIGHT * (speed - known)
        self._meters.batch_texts.observe(len(batch))
        self._meters.batch_tokens.observe(tokens)

    def _tell(self, outcomes: "Outcomes") -> None:
        """Answer on the event loop, once for the whole batch."""
        try:
            self._loop.call_soon_threadsafe(_settle, outcomes)
        except RuntimeError:  # the loop is closed: nobody waits any more
            log.info("answers_too_late", texts=len(outcomes))


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
