"""From a question to its answer: admitted, tokenised, computed with others, decoded."""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from uuid import UUID

from app.errors import AppError, Overloaded
from app.registry.service import Resolved
from app.resources import Resources
from app.serving.admission import Admission, Quota
from app.serving.batcher import Batcher, Computed
from app.serving.errors import InvalidTimeout, ModelLoading
from app.serving.linear import AnyDeployment, AnyPredictor, LinearDeployment, LinearPredictor
from app.serving.loaded_model import Deployment, Reading, Scores
from app.serving.loader import Loader
from app.serving.metrics import ServingMeters
from app.serving.model_pool import Pool
from app.serving.request_formats import Question
from app.serving.shadow import Shadows
from lora_core.errors.artifact import TextTooLong
from lora_core.process import cores

MOST_TEXTS = 512  # between door and answer
SHARE = 0.5  # of all room, for one key
TOKENISING_THREADS = 2
FEW_TEXTS = 8  # between door and answer, so that there is time for a shadow
LONGEST_SECONDS = 30.0  # until an answer comes, or never does
_SPECIAL, USUAL = 2, 512  # tokens that every text has besides its own; that models read


def request_timeout(sent: str | None) -> float:
    """Seconds that a caller waits, from its header. Raises `InvalidTimeout`."""
    if sent is None:
        return LONGEST_SECONDS
    try:
        seconds = float(sent)
    except ValueError:
        raise InvalidTimeout() from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidTimeout()
    return min(seconds, LONGEST_SECONDS)


@dataclass(frozen=True, slots=True)
class Answer:
    """Labels of each text, highest first, who gave them, and what it took. Times in seconds."""

    scores: list[Scores]
    version: str
    engine: str
    truncated: int  # texts that were cut
    abstained: int  # texts without labels, because none was probable enough
    tokens: int
    characters: int
    tokenising: float
    queued: float  # mean of the texts
    computing: float  # mean of the texts
    total: float


class Serving:
    """What the routes share while the application runs."""

    def __init__(self, resources: Resources, meters: ServingMeters) -> None:
        settings = resources.settings
        self.meters = meters
        self.batcher = Batcher(meters, workers=cores())
        self.admission = Admission(
            most_texts=MOST_TEXTS,
            most_seconds=settings.max_wait_seconds,
            share=SHARE if settings.auth == "on" else 1.0,
            tokens_per_second=lambda: self.batcher.tokens_per_second,
        )
        self.quota = Quota(settings.key_texts_per_second)
        self._readers = ThreadPoolExecutor(TOKENISING_THREADS, thread_name_prefix="tokenise")
        self.pool = Pool(
            resources=resources,
            load=Loader(settings.engine, settings.data_dir / "engines"),
            deploy=self._deploy,
            meters=meters,
        )
        self.shadows = Shadows(resources.database, self.pool, meters, idle=self._is_idle)
        meters.waiting.set_function(lambda: self.admission.texts)

    def close(self) -> None:
        """Let go of everything."""
        self.shadows.close()
        self.batcher.close()
        self._readers.shutdown(wait=False)
        self.pool.close()

    def refuse_if_full(self, caller: UUID, size: int | None, *, timeout: float) -> None:
        """Raises `Busy` and `KeyBusy` if a call of `size` bytes will find no room; None: unknown.

        It is taken for a single text here, which needs the least; `ask` knows more. `timeout` is
        that of the caller, in seconds.
        """
        tokens = min(size or USUAL, USUAL)
        try:
            self.admission.check(caller, texts=1, tokens=tokens, timeout=timeout)
        except Overloaded as error:
            self.meters.requests.labels("single").inc()
            self.meters.texts.inc()
            self.meters.failures.labels(_kind(error)).inc()
            raise

    async def ask(
        self, question: Question, ref: str | None, *, caller: UUID, deadline: float
    ) -> Answer:
        """The answer by what `ref` means; None: the only model in production.

        `deadline` is on the monotonic clock. Raises what is in `errors`, what `Pool.deployment`
        raises, `ModelLoading`, and `TextTooLong`. Who leaves gives up the place and the turn.
        """
        began, texts = time.perf_counter(), question.texts
        with self._counted(question):
            most = sum(min(len(text) + _SPECIAL, USUAL) for text in texts)
            left = deadline - time.monotonic()
            with self.admission.place(caller, texts=len(texts), tokens=most, timeout=left) as place:
                self.quota.take(caller, len(texts))  # only of what finds room
                resolved, deployment = await self.loaded(ref, deadline)
                reading = await deployment.tokenise(
                    texts, truncate=question.truncate, side=question.side
                )
                self.admission.correct(place, caller, reading.cost)
                rows = await deployment.compute(reading, deadline=deadline)
            answer = _answer(question, resolved, deployment, reading, rows, began)
            self._measure(answer, reading)
        self.shadows.watch(question, resolved, lambda: deployment.decode(rows, None))
        return answer

    async def loaded(self, ref: str | None, deadline: float) -> tuple[Resolved, AnyDeployment]:
        """What `ref` means, in memory. Loading goes on for those who ask later.

        Raises what `Pool.deployment` raises, and `ModelLoading`.
        """
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self.pool.deployment(ref)
        except TimeoutError:
            raise ModelLoading() from None

    def _deploy(self, ref: str, predictor: AnyPredictor) -> AnyDeployment:
        if isinstance(predictor, LinearPredictor):
            return LinearDeployment(ref, predictor, self._readers)
        return Deployment(ref, predictor, self.batcher, self._readers)

    def _is_idle(self) -> bool:
        return self.admission.texts <= FEW_TEXTS

    @contextmanager
    def _counted(self, question: Question) -> Iterator[None]:
        method = "batch" if question.nested else "single"
        self.meters.requests.labels(method).inc()
        self.meters.texts.inc(len(question.texts))
        try:
            yield
        except (AppError, TextTooLong) as error:
            self.meters.failures.labels(_kind(error)).inc()
            raise
        self.meters.successes.labels(method).inc()

    def _measure(self, answer: Answer, reading: Reading) -> None:
        meters = self.meters
        parts = (answer.tokenising, answer.queued, answer.computing)
        meters.call_seconds.observe(answer.total)
        for histogram, seconds in zip(meters.call_parts, parts, strict=True):
            histogram.observe(seconds)
        for item in reading.items:
            meters.lengths.observe(item.length)
            meters.text_seconds.observe(answer.total)
            for histogram, seconds in zip(meters.text_parts, parts, strict=True):
                histogram.observe(seconds)
        meters.answers.inc(len(reading.items))
        meters.by_version.labels(answer.version, answer.engine).inc(len(reading.items))


def _answer(
    question: Question,
    resolved: Resolved,
    deployment: AnyDeployment,
    reading: Reading,
    rows: Sequence[Computed],
    began: float,
) -> Answer:
    scores = deployment.decode(rows, question.function)
    abstained = 0
    if (least := question.abstain_below) is not None:
        sure = [row if row[0][1] >= least else [] for row in scores]
        abstained, scores = sum(not row for row in sure), sure
    return Answer(
        scores=[row[: question.top_k] for row in scores],
        version=resolved.ref,
        engine=deployment.predictor.engine.name,
        truncated=reading.truncated,
        abstained=abstained,
        tokens=reading.tokens,
        characters=sum(map(len, question.texts)),
        tokenising=reading.seconds,
        queued=fmean(row.queued for row in rows),
        computing=fmean(row.computing for row in rows),
        total=time.perf_counter() - began,
    )


def _kind(error: Exception) -> str:
    """As text-embeddings-inference calls it."""
    match error:
        case Overloaded():
            return "overloaded"
        case TextTooLong():
            return "tokenization"
        case AppError(status=404 | 409 | 422):
            return "validation"
        case _:
            return "inference"
