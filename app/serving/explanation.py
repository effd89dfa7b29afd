"""Explanations: how much each word of a text contributes to a prediction.

An encoder computes the text many times, with different words left out. For a linear model the
contributions are computed exactly.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from app.serving.attribution import Coalition, coalitions, sample_permutations, shapley_values
from app.serving.errors import UnknownLabel
from app.serving.linear import LoadedLinearModel
from app.serving.loaded_model import (
    SpanProtocol,
    TokenizedBatch,
    TokenizedTextProtocol,
    TokenizedWordsProtocol,
)
from app.serving.service import USUAL_MAX_LENGTH, InferenceService

MAX_WORDS = 32  # left out one by one; of more, neighbors are merged
MAX_LINEAR_WORDS = 1000  # in an explanation of a linear model
CHUNK_TOKENS = 2048  # in the queue at a time, so that other requests wait for no more than these
_MAX_LABELS_SHOWN = 20  # in an error message


@dataclass(frozen=True, slots=True)
class WordGroup:
    """Neighboring words, from character `start` to `end` of a text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Contributions of words to the probability of `label`.

    The scores of the words add up to `score` minus `empty_score`.
    """

    version: str
    engine: str
    label: str
    score: float
    empty_score: float  # of the text without any of its words
    words: Sequence[tuple[SpanProtocol, float]]
    grouped: bool  # neighboring words count as one
    truncated: bool  # `words` lacks those that the model did not read
    texts: int  # computed by the model


async def explain(
    service: InferenceService,
    text: str,
    label: str | None,
    ref: str,
    *,
    key_id: UUID,
    deadline: float,
) -> Explanation:
    """Explain the probability of `label`; None: the most probable label.

    The texts of an explanation are admitted and computed like those of `InferenceService.predict`,
    a chunk at a time, between those of other requests. Raises what `predict` raises, and
    `UnknownLabel`.
    """
    timeout = deadline - time.monotonic()
    service.admission.check(key_id, texts=1, tokens=1, timeout=timeout)
    resolved, model = await service.get_model(ref, deadline)
    if label is not None and label not in (labels := model.predictor.labels):
        ellipsis = ["…"] if len(labels) > _MAX_LABELS_SHOWN else []
        shown = [*labels[:_MAX_LABELS_SHOWN], *ellipsis]
        raise UnknownLabel(ref=resolved.ref, labels=", ".join(shown), at="label")
    if isinstance(model, LoadedLinearModel):
        service.rate_limiter.acquire(key_id, 1)
        tokens = min(len(text), USUAL_MAX_LENGTH)
        with service.admission.reserve(key_id, texts=1, tokens=tokens):
            return await _explain_linear(model, resolved.ref, text, label, deadline=deadline)
    all_words = await model.tokenize_words(text)
    words = all_words.grouped(MAX_WORDS)
    count = len(words.words)
    permutations = sample_permutations(count, len(words.ids))
    masks = coalitions(count, permutations)
    service.rate_limiter.acquire(key_id, len(masks))
    predictions: list[dict[str, float]] = []
    for chunk in _chunks(words, masks):
        with service.admission.reserve(key_id, texts=len(chunk.items), tokens=chunk.tokens):
            outputs = await model.compute(chunk, deadline=deadline)
        predictions += [dict(scores) for scores in model.decode(outputs, None)]
    label = label or next(iter(predictions[0]))  # the most probable label with all words
    scores = {mask: each[label] for mask, each in zip(masks, predictions, strict=True)}
    values = await run_in_threadpool(shapley_values, scores, permutations) if count else []
    return Explanation(
        version=resolved.ref,
        engine=model.predictor.engine.name,
        label=label,
        score=scores[masks[0]],
        empty_score=scores[(False,) * count],
        words=list(zip(words.words, values, strict=True)),
        grouped=count < len(all_words.words),
        truncated=all_words.truncated,
        texts=len(masks),
    )


async def _explain_linear(
    model: LoadedLinearModel, ref: str, text: str, label: str | None, *, deadline: float
) -> Explanation:
    batch = await model.tokenize([text], truncate=True, side="right")
    outputs = await model.compute(batch, deadline=deadline)
    [scores] = model.decode(outputs, None)
    label = label or scores[0][0]
    words, empty_score = await model.contributions(text, label)
    return Explanation(
        version=ref,
        engine=model.predictor.engine.name,
        label=label,
        score=dict(scores)[label],
        empty_score=empty_score,
        words=_group_words(words),
        grouped=len(words) > MAX_LINEAR_WORDS,
        truncated=False,
        texts=1,
    )


def _group_words(
    words: Sequence[tuple[SpanProtocol, float]],
) -> Sequence[tuple[SpanProtocol, float]]:
    """Return at most `MAX_LINEAR_WORDS` words: if there are more, neighbors are merged."""
    count = len(words)
    if count <= MAX_LINEAR_WORDS:
        return words
    bounds = [count * i // MAX_LINEAR_WORDS for i in range(MAX_LINEAR_WORDS + 1)]
    groups = (words[first:last] for first, last in pairwise(bounds))
    return [
        (WordGroup(group[0][0].start, group[-1][0].end), sum(score for _, score in group))
        for group in groups
    ]


def _chunks(words: TokenizedWordsProtocol, masks: Sequence[Coalition]) -> Iterator[TokenizedBatch]:
    """Yield the masked texts in chunks of at most `CHUNK_TOKENS` tokens."""
    items: list[TokenizedTextProtocol] = []
    tokens = 0
    for mask in masks:
        item = words.masked(mask)
        if items and tokens + len(item.ids) > CHUNK_TOKENS:
            yield TokenizedBatch(items, 0.0)
            items, tokens = [], 0
        items.append(item)
        tokens += len(item.ids)
    yield TokenizedBatch(items, 0.0)
