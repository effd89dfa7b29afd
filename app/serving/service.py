"""Online prediction, from a parsed request to its result: admit, tokenize, compute and decode."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from app.errors import AppError, TooManyRequests
from app.registry.service import ResolvedModel
from app.resources import Resources
from app.serving.admission import AdmissionController, KeyRateLimiter, Reservation
from app.serving.batcher import Batcher, TextLogits
from app.serving.client_formats import PredictRequest
from app.serving.errors import AbstentionNotApplicable, ScoreFunctionNotApplicable
from app.serving.loaded_model import EngineSelectingEncoderLoader, LoadedModel, TokenizedRequest
from app.serving.metrics import ServingMetrics
from app.serving.model_pool import ModelPool
from app.serving.nearest_examples import (
    ExampleIndexCache,
    TrainingTextReader,
    flag_unfamiliar_texts,
)
from app.serving.shadow import ShadowEvaluator
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import (
    InputTooLong,
    TargetRequired,
)
from lora_core.process_settings import available_cores
from lora_core.specs.chat import PromptFormat
from lora_core.specs.text_input import TextInput, count_characters

if TYPE_CHECKING:
    from lora_core.inference.decoding import DecodedOutput
    from lora_core.nearest_examples import ExampleIndex
    from lora_core.specs.task import TaskType

T = TypeVar("T")

MAX_TEXTS_IN_FLIGHT = 512
MAX_SHARE_PER_KEY = 0.5  # of the capacity, for one API key
TOKENIZER_THREADS = 2
_SHADOW_PAUSE_THRESHOLD = 8  # shadows pause above this
_SPECIAL_TOKENS = 2  # per text
ASSUMED_MAX_LENGTH = 512  # tokens that models read of a text, while the model is not known


@dataclass(frozen=True, slots=True)
class PredictResult:
    """The predictions for each text, the best first, with the version and the cost of them."""

    rows: "list[list[DecodedOutput]]"
    # All outputs of each text, also where the model abstained: probabilities, if any are kept.
    all_outputs: "list[list[DecodedOutput]]"
    texts: Sequence[TextInput]  # as the model read them
    task: "TaskType"
    targets: "Mapping[str, TaskType]"  # of several, if all of them are predicted
    nested: bool  # whether the response is a nested list
    version: str
    engine: str
    prompt_format: PromptFormat  # of the training file, in which prompts are answered
    label_columns: Mapping[str | None, str]  # of the training file, by target
    truncated: int  # truncated texts
    abstained: int  # texts without an answer: no label was probable enough, or unfamiliar
    unfamiliar: int  # of these, texts unlike all training texts
    tokens: int
    characters: int
    tokenization_seconds: float
    queue_seconds: float  # mean over the texts
    inference_seconds: float  # mean over the texts
    total_seconds: float


@dataclass(frozen=True, slots=True)
class _ComputedRequest:
    """A request as its model reads it, with the logits of each text."""

    request: PredictRequest
    resolved: ResolvedModel
    model: LoadedModel
    tokenized: TokenizedRequest
    logits: Sequence[TextLogits]
    index: "ExampleIndex | None"  # if unfamiliar texts get no answer


class InferenceService:
    """The state that the predict routes share while the application runs."""

    def __init__(self, resources: Resources, metrics: ServingMetrics, *, with_scores: bool) -> None:
        """`with_scores`: `all_outputs` of results has probabilities, whatever was asked for."""
        settings = resources.settings
        self.metrics = metrics
        self._with_scores = with_scores
        self.batcher = Batcher(metrics, workers=available_cores())
        self.admission = AdmissionController(
            max_texts=MAX_TEXTS_IN_FLIGHT,
            max_wait_seconds=settings.max_wait_seconds,
            key_share=MAX_SHARE_PER_KEY if settings.auth == "on" else 1.0,
            tokens_per_second=lambda: self.batcher.tokens_per_second,
        )
        self.rate_limiter = KeyRateLimiter(settings.max_texts_per_second_per_key)
        self._tokenizer_executor = ThreadPoolExecutor(
            TOKENIZER_THREADS, thread_name_prefix="tokenize"
        )
        self.pool = ModelPool(
            resources=resources,
            load_encoder=EngineSelectingEncoderLoader(
                settings.engine, settings.data_dir / "engines"
            ),
            batcher=self.batcher,
            executor=self._tokenizer_executor,
            metrics=metrics,
        )
        self.example_indexes = ExampleIndexCache(resources)
        self.training_texts = TrainingTextReader(resources)
        self.shadow_evaluator = ShadowEvaluator(
            resources.database, self.pool, metrics, is_idle=self._is_idle
        )
        metrics.texts_in_flight.set_function(lambda: self.admission.texts)

    def close(self) -> None:
        """Stop the threads and release the models."""
        self.shadow_evaluator.close()
        self.batcher.close()
        self._tokenizer_executor.shutdown(wait=False)
        self.pool.close()

    def check_capacity(self, key_id: UUID, body_bytes: int | None, *, timeout: float) -> None:
        """Raise `ServerOverloaded` or `ApiKeyShareExceeded` if a request cannot be admitted.

        The request counts as a single text here, the least it can be; `predict` checks again.
        `body_bytes` is None if unknown; `timeout` is the client's, in seconds.
        """
        tokens = min(body_bytes or ASSUMED_MAX_LENGTH, ASSUMED_MAX_LENGTH)
        try:
            self.admission.check(key_id, texts=1, tokens=tokens, timeout=timeout)
        except TooManyRequests as error:
            self.metrics.requests.labels("single").inc()
            self.metrics.texts.inc()
            self.metrics.failures.labels(_tei_error_label(error)).inc()
            raise

    async def predict(
        self,
        request: PredictRequest,
        ref: str | None,
        *,
        key_id: UUID,
        deadline: float,
        texts_of_prompts: Callable[[PromptFormat], list[str]] | None = None,
    ) -> PredictResult:
        """Predict with the model of a reference; None: the only model in production.

        `deadline` is on the monotonic clock. `texts_of_prompts` returns the texts if those of the
        request are whole prompts: none may be longer than its prompt. Cancelling releases the
        capacity and takes the texts out of the queue. Raises the errors of `app.serving.errors`,
        what `ModelPool.get`, `texts_of_prompts` and the `tokenize` of a loaded model raise,
        `TargetRequired`, `UnknownTarget` and `SingleTargetModel`.
        """
        start = time.perf_counter()
        with (
            self._count_request(request),
            self._admit([request], key_id, deadline) as reservation,
        ):
            computed = await self._compute(
                request,
                ref,
                reservation,
                key_id=key_id,
                deadline=deadline,
                texts_of_prompts=texts_of_prompts,
            )
            result = await self._build_and_record_result(computed, start)
        self._mirror(computed)
        return result

    async def predict_instances(
        self,
        instances: Sequence[tuple[PredictRequest, str | None]],
        *,
        key_id: UUID,
        deadline: float,
    ) -> list[PredictResult]:
        """Predict instances of one request, each with a model. Raises what `predict` raises.

        They are admitted together: one by one they would take the capacity from each other. If one
        fails, the others are of no use.
        """
        start = time.perf_counter()
        requests = [request for request, _ in instances]
        with ExitStack() as counted:
            for request in requests:
                counted.enter_context(self._count_request(request))
            with self._admit(requests, key_id, deadline) as reservation:
                tasks = [
                    asyncio.create_task(
                        self._compute(request, ref, reservation, key_id=key_id, deadline=deadline)
                    )
                    for request, ref in instances
                ]
                try:
                    computed = await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()
                results = [await self._build_and_record_result(each, start) for each in computed]
        for each in computed:
            self._mirror(each)
        return results

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread of predictions: all others may be waiting for the database."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizer_executor, work)

    @contextmanager
    def _admit(
        self, requests: Sequence[PredictRequest], key_id: UUID, deadline: float
    ) -> Iterator[Reservation]:
        """Reserve capacity for the duration of the block."""
        count = sum(len(request.texts) for request in requests)
        with self.admission.reserve(
            key_id,
            texts=count,
            tokens=sum(map(_estimate_tokens, requests)),
            timeout=deadline - time.monotonic(),
        ) as reservation:
            self.rate_limiter.acquire(key_id, count)  # only once the request is admitted
            yield reservation

    async def _compute(
        self,
        request: PredictRequest,
        ref: str | None,
        reservation: Reservation,
        *,
        key_id: UUID,
        deadline: float,
        texts_of_prompts: Callable[[PromptFormat], list[str]] | None = None,
    ) -> _ComputedRequest:
        estimate = _estimate_tokens(request)
        resolved, model = await self.pool.get(ref, deadline=deadline)
        _check_options(request, resolved, model)
        index = None
        if request.abstain_unfamiliar:
            index = await self.example_indexes.get_with_threshold(resolved, deadline=deadline)
        if texts_of_prompts is not None:
            request = replace(request, texts=texts_of_prompts(_prompt_format(model)))
        request = request.combine_texts_for_pair_model(pairs=model.predictor.pairs)
        tokenized = await model.tokenize(
            request.texts, truncate=request.truncate, side=request.truncation_side
        )
        tokens = reservation.tokens - estimate + tokenized.cost
        self.admission.set_tokens(reservation, key_id, tokens, timeout=deadline - time.monotonic())
        computed = await model.compute(tokenized, deadline=deadline, with_states=index is not None)
        return _ComputedRequest(request, resolved, model, tokenized, computed, index)

    async def _build_and_record_result(
        self, computed: _ComputedRequest, start: float
    ) -> PredictResult:
        unfamiliar = [False] * len(computed.logits)
        if computed.index is not None:
            unfamiliar = await self.run_in_thread(
                partial(flag_unfamiliar_texts, computed.index, computed.logits)
            )
        result = await computed.model.run_decoding(
            partial(_build_result, computed, unfamiliar, start, with_scores=self._with_scores),
            computed.logits,
        )
        self._record_result(result, computed.tokenized)
        return result

    def _mirror(self, computed: _ComputedRequest) -> None:
        self.shadow_evaluator.mirror(
            computed.request, computed.resolved, computed.model, computed.logits
        )

    def _is_idle(self) -> bool:
        return self.admission.texts <= _SHADOW_PAUSE_THRESHOLD

    @contextmanager
    def _count_request(self, request: PredictRequest) -> Iterator[None]:
        method = "batch" if request.nested else "single"
        self.metrics.requests.labels(method).inc()
        self.metrics.texts.inc(len(request.texts))
        try:
            yield
        except Exception as error:
            self.metrics.failures.labels(_tei_error_label(error)).inc()
            raise
        self.metrics.successes.labels(method).inc()

    def _record_result(self, result: PredictResult, tokenized: TokenizedRequest) -> None:
        metrics = self.metrics
        stages = (result.tokenization_seconds, result.queue_seconds, result.inference_seconds)
        metrics.request_seconds.observe(result.total_seconds)
        for histogram, seconds in zip(metrics.request_stage_seconds, stages, strict=True):
            histogram.observe(seconds)
        for item in tokenized.items:
            metrics.text_tokens.observe(item.length)
            metrics.text_seconds.observe(result.total_seconds)
            for histogram, seconds in zip(metrics.text_stage_seconds, stages, strict=True):
                histogram.observe(seconds)
        metrics.predicted_texts.inc(len(tokenized.items))
        metrics.version_texts.labels(result.version, result.engine).inc(len(tokenized.items))


def _check_options(request: PredictRequest, resolved: ResolvedModel, model: LoadedModel) -> None:
    """Raise an error for an option that the task of the model does not have."""
    if request.target is None and request.third_party_format and model.targets:
        raise TargetRequired(model=resolved.ref, targets=", ".join(model.targets))
    task = model.task_of(request.target)
    if request.abstain_below is not None and task != "single_label":
        raise AbstentionNotApplicable(ref=resolved.ref, task=task, at="abstain_below")
    numbers = "regression" in (task, *model.targets.values()) and request.target is None
    if request.function not in (None, "none") and (task == "regression" or numbers):
        raise ScoreFunctionNotApplicable(
            ref=resolved.ref, function=request.function, at="parameters.function_to_apply"
        )
    required = request.required_task
    if required is not None and task != required.task:
        raise required.error(ref=resolved.ref, task=task, at=required.at)


def _estimate_tokens(request: PredictRequest) -> int:
    """Estimate the tokens of the texts, as the model is not known yet.

    Byte-level models, windows and models of long texts may need more.
    """
    return sum(
        min(count_characters(text) + _SPECIAL_TOKENS, ASSUMED_MAX_LENGTH) for text in request.texts
    )


def _build_result(
    computed: _ComputedRequest, unfamiliar: Sequence[bool], start: float, *, with_scores: bool
) -> PredictResult:
    """Build the result, without an answer for texts that are `unfamiliar`.

    `with_scores`: `all_outputs` has probabilities, even if the rows do not.
    """
    request, model, tokenized = computed.request, computed.model, computed.tokenized
    logits = computed.logits
    rows = probabilities = model.decode(logits, request.function, request.target)
    threshold = request.abstain_below
    if request.function is not None and (with_scores or threshold is not None):
        probabilities = model.decode(logits, None, request.target)
    if threshold is not None:
        rows = [
            row if best[0].score >= threshold else []
            for row, best in zip(rows, probabilities, strict=True)
        ]
    rows = [[] if unlike else row for row, unlike in zip(rows, unfamiliar, strict=True)]
    return PredictResult(
        rows=[_top_k_per_target(row, request.top_k) for row in rows],
        all_outputs=probabilities,
        texts=request.texts,
        task=model.task_of(request.target),
        targets={} if request.target is not None else model.targets,
        nested=request.nested,
        version=computed.resolved.ref,
        engine=model.predictor.engine.name,
        prompt_format=_prompt_format(model),
        label_columns=model.predictor.label_columns,
        truncated=tokenized.truncated_count,
        abstained=sum(not row for row in rows),
        unfamiliar=sum(unfamiliar),
        tokens=tokenized.tokens,
        characters=sum(map(count_characters, request.texts)),
        tokenization_seconds=tokenized.seconds,
        queue_seconds=fmean(text.queue_seconds for text in logits),
        inference_seconds=fmean(text.inference_seconds for text in logits),
        total_seconds=time.perf_counter() - start,
    )


def _top_k_per_target(row: "Sequence[DecodedOutput]", top_k: int | None) -> "list[DecodedOutput]":
    """Return the first outputs of each target."""
    return [
        output
        for _, of_target in groupby(row, key=attrgetter("target"))
        for output in islice(of_target, top_k)
    ]


def _prompt_format(model: LoadedModel) -> PromptFormat:
    """Return the format of the training file; without one, prompts are texts, answers labels."""
    return model.predictor.prompt_format or PromptFormat()


def _tei_error_label(error: Exception) -> str:
    """Return the `err` label that text-embeddings-inference uses for this error."""
    match error:
        case TooManyRequests():
            return "overloaded"
        case InputTooLong():
            return "tokenization"
        case LoraCoreError() | AppError(status=400 | 404 | 409 | 422):
            return "validation"
        case _:
            return "inference"
