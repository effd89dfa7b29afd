"""Dynamic batching of texts from concurrent requests. Needs no torch.

One queue feeds the CPU cores. Each core has a worker thread, which computes batches of its own,
because cores that share one matrix multiplication wait for each other (docs/decisions/0019). A text
that is alone gets all cores from the first worker, the only one that keeps an OpenMP thread pool
for it. A batch is formed when a worker is idle, from what is queued then: nothing is delayed to
fill a batch. The texts of a batch share an engine, which computes them; their adapters may differ.
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

from app.serving.errors import DeadlineExceeded, InferenceFailed
from app.serving.metrics import ServingMetrics
from app.serving.thread_priorities import lower_compute_priority
from lora_core.process_settings import is_oom_error

# A worker starts one matrix multiplication after the other, and needs the interpreter lock in
# between. The default of 5 ms is longer than most of them take.
_SWITCH_INTERVAL_SECONDS = 0.0001
_NEWEST_BATCH_WEIGHT = 0.2  # in the moving average of the throughput

log = structlog.get_logger()


class BatchItem(Protocol):
    """The part of `lora_core.inference.tokenization.TokenizedText` that the batcher uses."""

    @property
    def length(self) -> int: ...


class BatchEngine(Protocol):
    """The part of `lora_core.inference.engines.InferenceEncoder` that the batcher uses."""

    @property
    def max_batch_tokens(self) -> int: ...

    def logits(
        self, texts: Sequence[Any], adapters: Sequence[Any], *, threads: int | None = None
    ) -> list[Any]: ...

    def logits_and_states(
        self, texts: Sequence[Any], adapters: Sequence[Any], *, threads: int | None = None
    ) -> list[tuple[Any, Any]]: ...


@dataclass(frozen=True, slots=True)
class TextLogits:
    """The logits of one text, or of a window of it."""

    logits: Any
    queue_seconds: float
    inference_seconds: float  # of its batch
    state: Any = None  # what the head reads of the text (width,), if the caller asked for it


@dataclass(eq=False, slots=True)
class _QueuedText:
    """One text in the queue. It is skipped if `future` is cancelled."""

    engine: BatchEngine
    adapter: Any
    item: BatchItem
    deadline: float  # on the monotonic clock
    with_state: bool
    future: "asyncio.Future[TextLogits]"
    enqueued_at: float = field(default_factory=time.monotonic)


class Batcher:
    """The queue and its worker threads."""

    def __init__(self, metrics: ServingMetrics, *, workers: int) -> None:
        self.tokens_per_second: float | None = None  # of all workers; None before the first batch
        self._metrics = metrics
        self._workers = workers
        self._idle = set(range(workers))
        self._queue: deque[_QueuedText] = deque()
        self._lock = threading.Lock()
        self._wakeups = [threading.Condition(self._lock) for _ in range(workers)]
        self._closed = False
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
        for worker in range(workers):
            name = f"predict {worker}"
            threading.Thread(
                target=self._run_worker, args=(worker,), name=name, daemon=True
            ).start()

    async def compute(
        self,
        engine: BatchEngine,
        adapter: Any,
        texts: Sequence[BatchItem],
        *,
        deadline: float,
        with_states: bool = False,
    ) -> list[TextLogits]:
        """Return the logits of texts, in the order given; `with_states` with the states of them.

        `deadline` is on the monotonic clock. A cancelled caller's texts leave the queue. Raises
        `DeadlineExceeded`, `InferenceFailed`.
        """
        queued = [
            _QueuedText(engine, adapter, item, deadline, with_states, self._loop.create_future())
            for item in texts
        ]
        with self._lock:
            self._queue.extend(queued)
            self._wake_next()
        try:
            return await asyncio.gather(*(text.future for text in queued))
        finally:
            for text in queued:
                text.future.cancel()

    def close(self) -> None:
        """Stop the threads after their current batches. No caller may be waiting."""
        with self._lock:
            self._closed = True
            for wakeup in self._wakeups:
                wakeup.notify()

    def _wake_next(self) -> None:
        """Wake the first idle worker, which wakes the next one if it leaves texts in the queue."""
        if self._queue and self._idle:
            self._wakeups[min(self._idle)].notify()

    def _run_worker(self, worker: int) -> None:
        lower_compute_priority()
        while (batch := self._next_batch(worker)) is not None:
            if batch.texts:
                start = time.monotonic()
                rows = self._compute_rows(batch.texts, batch.threads)
                seconds = time.monotonic() - start
                with self._lock:
                    self._idle.add(worker)
                    self._update_throughput(batch, rows, seconds)
                self._metrics.batch_texts.observe(len(batch.texts))
                self._metrics.batch_tokens.observe(batch.tokens)
                self._deliver([(text, _outcome(text, row, start, seconds))
                               for text, row in zip(batch.texts, rows, strict=True)])  # fmt: skip

    def _next_batch(self, worker: int) -> "_Batch | None":
        """Wait for texts and form a batch; None: the batcher is closed."""
        with self._lock:
            while not self._closed and (not self._queue or worker != min(self._idle)):
                self._wake_next()
                self._wakeups[worker].wait()
            if self._closed:
                return None
            batch, expired = self._form_batch(worker, time.monotonic())
            if batch.texts:
                self._idle.remove(worker)
            self._wake_next()
        if expired:
            self._deliver([(text, DeadlineExceeded()) for text in expired])
        return batch

    def _form_batch(self, worker: int, now: float) -> "tuple[_Batch, list[_QueuedText]]":
        """Take the oldest text and others for its engine, but leave a share for idle workers.

        Returns the batch and the expired texts.
        """
        live: list[_QueuedText] = []
        expired: list[_QueuedText] = []
        for text in self._queue:
            if text.future.cancelled():
                self._metrics.dropped.inc()
            else:
                (expired if text.deadline <= now else live).append(text)
        fair_share = sum(text.item.length for text in live) / len(self._idle)
        batch = _Batch()
        # Texts of the same adapter first: every adapter in a batch adds matrix multiplications.
        for text in sorted(live, key=lambda text: text.adapter is not live[0].adapter):
            if batch.fits(text, fair_share):
                batch.add(text)
        taken = set(batch.texts)
        self._queue = deque(text for text in live if text not in taken)
        alone = worker == 0 and not self._queue and len(self._idle) == self._workers
        batch.threads = self._workers if alone else 1  # all cores while no other worker needs one
        batch.active_workers = self._workers - len(self._idle) + 1
        return batch, expired

    def _compute_rows(self, texts: Sequence[_QueuedText], threads: int) -> "list[_Row]":
        """Return logits and state, or one error, for each text; raise nothing.

        An exception would end the thread of the worker, for which texts may be waiting. On
        out-of-memory, split the batch in half and retry.
        """
        engine = texts[0].engine
        items, adapters = [text.item for text in texts], [text.adapter for text in texts]
        try:
            if any(text.with_state for text in texts):
                rows = engine.logits_and_states(items, adapters, threads=threads)
            else:
                rows = [(row, None) for row in engine.logits(items, adapters, threads=threads)]
            return [row for _, row in zip(texts, rows, strict=True)]
        except Exception as error:
            if not is_oom_error(error) or len(texts) == 1:
                log.exception("batch_failed", texts=len(texts))
                return [InferenceFailed(kind=type(error).__name__) for _ in texts]
        # Outside of the handler, whose traceback keeps the tensors of the whole batch in memory.
        half = len(texts) // 2
        first = self._compute_rows(texts[:half], threads)
        return [*first, *self._compute_rows(texts[half:], threads)]

    def _update_throughput(self, batch: "_Batch", rows: "Sequence[_Row]", seconds: float) -> None:
        tokens = sum(
            text.item.length
            for text, row in zip(batch.texts, rows, strict=True)
            if not isinstance(row, Exception)
        )
        if not tokens:  # failed, maybe at once
            return
        parallel = batch.active_workers if batch.threads == 1 else 1
        throughput = tokens / max(seconds, 1e-9) * parallel
        mean = self.tokens_per_second
        if mean is not None:
            throughput = mean + _NEWEST_BATCH_WEIGHT * (throughput - mean)
        self.tokens_per_second = throughput

    def _deliver(self, outcomes: "Sequence[_TextOutcome]") -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve_futures, deque(outcomes))
        except RuntimeError:  # the loop is closed: no caller is waiting
            log.info("results_discarded", texts=len(outcomes))

    def _resolve_futures(self, outcomes: "deque[_TextOutcome]") -> None:
        """Resolve one future in each iteration of the event loop, which writes the response in the
        next one, so that nothing else waits for the responses of a whole batch."""
        text, outcome = outcomes.popleft()
        if not text.future.done():  # otherwise the caller has left
            if isinstance(outcome, Exception):
                text.future.set_exception(outcome)
            else:
                text.future.set_result(outcome)
        if outcomes:
            self._loop.call_soon(self._resolve_futures, outcomes)


@dataclass(slots=True)
class _Batch:
    """The texts that one worker computes together."""

    texts: list[_QueuedText] = field(default_factory=list)
    tokens: int = 0
    threads: int = 1
    active_workers: int = 1  # including this one

    def fits(self, text: _QueuedText, fair_share: float) -> bool:
        """Return whether the text has the batch's engine and fits in; a first text always fits."""
        if not self.texts:
            return True
        tokens = self.tokens + text.item.length
        engine = self.texts[0].engine
        return text.engine is engine and tokens <= min(engine.max_batch_tokens, fair_share)

    def add(self, text: _QueuedText) -> None:
        self.texts.append(text)
        self.tokens += text.item.length


_TextOutcome = tuple[_QueuedText, TextLogits | Exception]
_Row = tuple[Any, Any] | Exception  # logits and state of a text


def _outcome(text: _QueuedText, row: _Row, start: float, seconds: float) -> TextLogits | Exception:
    if isinstance(row, Exception):
        return row
    logits, state = row
    return TextLogits(
        logits,
        queue_seconds=start - text.enqueued_at,
        inference_seconds=seconds,
        state=state if text.with_state else None,
    )
