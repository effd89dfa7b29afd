"""Online prediction, from a parsed request to its result: admit, tokenize, compute and decode."""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from uuid import UUID

from app.errors import AppError, TooManyRequests
from app.registry.service import ResolvedModel
from app.resources import Resources
from app.serving.admission import AdmissionController, KeyRateLimiter
from app.serving.batcher import Batcher, InferenceOutput
from app.serving.errors import InvalidTimeout, ModelLoading
from app.serving.linear import (
    AnyPredictor,
    LinearPredictorProtocol,
    LoadedLinearModel,
    LoadedModel,
)
from app.serving.loaded_model import LabelScores, LoadedEncoder, TokenizedBatch
from app.serving.loader import ModelLoader
from app.serving.metrics import ServingMetrics
from app.serving.model_pool import ModelPool
from app.serving.request_formats import PredictRequest
from app.serving.shadow import ShadowEvaluator
from lora_core.errors.artifact import InputTooLong
from lora_core.process import available_cores

MAX_TEXTS_IN_FLIGHT = 512
KEY_SHARE = 0.5  # of the capacity, for one API key
TOKENIZER_THREADS = 2
SHADOW_MAX_TEXTS_IN_FLIGHT = 8  # shadows run only while there are no more
MAX_TIMEOUT_SECONDS = 30.0
SPECIAL_TOKENS = 2  # per text
USUAL_MAX_LENGTH = 512  # tokens that models read of a text, while the model is not known


def parse_timeout(header: str | None) -> float:
    """Return the timeout in seconds from the header of a request. Raises `InvalidTimeout`."""
    if header is None:
        return MAX_TIMEOUT_SECONDS
    try:
        seconds = float(header)
    except ValueError:
        raise InvalidTimeout() from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidTimeout()
    return min(seconds, MAX_TIMEOUT_SECONDS)


@dataclass(frozen=True, slots=True)
class PredictResult:
    """The labels of each text, highest first, with the version and the cost of the prediction."""

    scores: list[LabelScores]
    version: str
    engine: str
    truncated: int  # truncated texts
    abstained: int  # texts without labels, because no label was probable enough
    tokens: int
    characters: int
    tokenization_seconds: float
    queue_seconds: float  # mean over the texts
    inference_seconds: float  # mean over the texts
    total_seconds: float


class InferenceService:
    """The state that the predict routes share while the application runs."""

    def __init__(self, resources: Resources, metrics: ServingMetrics) -> None:
        settings = resources.settings
        self.metrics = metrics
        self.batcher = Batcher(metrics, workers=available_cores())
        self.admission = AdmissionController(
            max_texts=MAX_TEXTS_IN_FLIGHT,
            max_wait_seconds=settings.max_wait_seconds,
            key_share=KEY_SHARE if settings.auth == "on" else 1.0,
            tokens_per_second=lambda: self.batcher.tokens_per_second,
        )
        self.rate_limiter = KeyRateLimiter(settings.key_texts_per_second)
        self._tokenizer_executor = ThreadPoolExecutor(
            TOKENIZER_THREADS, thread_name_prefix="tokenize"
        )
        self.pool = ModelPool(
            resources=resources,
            load_predictor=ModelLoader(settings.engine, settings.data_dir / "engines"),
            wrap=self._wrap_predictor,
            metrics=metrics,
        )
        self.shadows = ShadowEvaluator(
            resources.database, self.pool, metrics, is_idle=self._is_idle
        )
        metrics.texts_in_flight.set_function(lambda: self.admission.texts)

    def close(self) -> None:
        """Stop the threads and release the models."""
        self.shadows.close()
        self.batcher.close()
        self._tokenizer_executor.shutdown(wait=False)
        self.pool.close()

    def check_capacity(self, key_id: UUID, body_bytes: int | None, *, timeout: float) -> None:
        """Raise `ServerOverloaded` or `KeyOverloaded` if a request cannot be admitted.

        The request counts as a single text here, the least it can be; `predict` checks again.
        `body_bytes` is None if unknown; `timeout` is the client's, in seconds.
        """
        tokens = min(body_bytes or USUAL_MAX_LENGTH, USUAL_MAX_LENGTH)
        try:
            self.admission.check(key_id, texts=1, tokens=tokens, timeout=timeout)
        except TooManyRequests as error:
            self.metrics.requests.labels("single").inc()
            self.metrics.texts.inc()
            self.metrics.failures.labels(_failure_kind(error)).inc()
            raise

    async def predict(
        self, request: PredictRequest, ref: str | None, *, key_id: UUID, deadline: float
    ) -> PredictResult:
        """Predict with the model of a reference; None: the only model in production.

        `deadline` is on the monotonic clock. Cancelling releases the capacity and takes the texts
        out of the queue. Raises the errors of `app.serving.errors`, what `ModelPool.get` raises,
        and `InputTooLong`.
        """
        start, texts = time.perf_counter(), request.texts
        with self._count_request(request):
            max_tokens = sum(min(len(text) + SPECIAL_TOKENS, USUAL_MAX_LENGTH) for text in texts)
            with self.admission.reserve(
                key_id, texts=len(texts), tokens=max_tokens, timeout=deadline - time.monotonic()
            ) as reservation:
                self.rate_limiter.acquire(key_id, len(texts))  # only once the request is admitted
                resolved, model = await self.get_model(ref, deadline)
                batch = await model.tokenize(
                    texts, truncate=request.truncate, side=request.truncation_side
                )
                self.admission.set_tokens(reservation, key_id, batch.cost)
                outputs = await model.compute(batch, deadline=deadline)
            result = _build_result(request, resolved, model, batch, outputs, start)
            self._record_result(result, batch)
        self.shadows.mirror(request, resolved, lambda: model.decode(outputs, None))
        return result

    async def get_model(
        self, ref: str | None, deadline: float
    ) -> tuple[ResolvedModel, LoadedModel]:
        """Return the model of a reference. After the deadline its load continues.

        Raises what `ModelPool.get` raises, and `ModelLoading` at the deadline.
        """
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self.pool.get(ref)
        except TimeoutError:
            raise ModelLoading() from None

    def _wrap_predictor(self, ref: str, predictor: AnyPredictor) -> LoadedModel:
        if isinstance(predictor, LinearPredictorProtocol):
            return LoadedLinearModel(ref, predictor, self._tokenizer_executor)
        return LoadedEncoder(ref, predictor, self.batcher, self._tokenizer_executor)

    def _is_idle(self) -> bool:
        return self.admission.texts <= SHADOW_MAX_TEXTS_IN_FLIGHT

    @contextmanager
    def _count_request(self, request: PredictRequest) -> Iterator[None]:
        method = "batch" if request.nested else "single"
        self.metrics.requests.labels(method).inc()
        self.metrics.texts.inc(len(request.texts))
        try:
            yield
        except (AppError, InputTooLong) as error:
            self.metrics.failures.labels(_failure_kind(error)).inc()
            raise
        self.metrics.successes.labels(method).inc()

    def _record_result(self, result: PredictResult, batch: TokenizedBatch) -> None:
        metrics = self.metrics
        stages = (result.tokenization_seconds, result.queue_seconds, result.inference_seconds)
        metrics.request_seconds.observe(result.total_seconds)
        for histogram, seconds in zip(metrics.request_stage_seconds, stages, strict=True):
            histogram.observe(seconds)
        for item in batch.items:
            metrics.text_tokens.observe(item.length)
            metrics.text_seconds.observe(result.total_seconds)
            for histogram, seconds in zip(metrics.text_stage_seconds, stages, strict=True):
                histogram.observe(seconds)
        metrics.predicted_texts.inc(len(batch.items))
        metrics.version_texts.labels(result.version, result.engine).inc(len(batch.items))


def _build_result(
    request: PredictRequest,
    resolved: ResolvedModel,
    model: LoadedModel,
    batch: TokenizedBatch,
    outputs: Sequence[InferenceOutput],
    start: float,
) -> PredictResult:
    scores = model.decode(outputs, request.function)
    abstained = 0
    if (threshold := request.abstain_below) is not None:
        scores = [row if row[0][1] >= threshold else [] for row in scores]
        abstained = sum(not row for row in scores)
    return PredictResult(
        scores=[row[: request.top_k] for row in scores],
        version=resolved.ref,
        engine=model.predictor.engine.name,
        truncated=batch.truncated,
        abstained=abstained,
        tokens=batch.tokens,
        characters=sum(map(len, request.texts)),
        tokenization_seconds=batch.seconds,
        queue_seconds=fmean(output.queue_seconds for output in outputs),
        inference_seconds=fmean(output.inference_seconds for output in outputs),
        total_seconds=time.perf_counter() - start,
    )


def _failure_kind(error: Exception) -> str:
    """Return the `err` label that text-embeddings-inference uses for this error."""
    match error:
        case TooManyRequests():
            return "overloaded"
        case InputTooLong():
            return "tokenization"
        case AppError(status=404 | 409 | 422):
            return "validation"
        case _:
            return "inference"
