"""Explanations: how much each word of a text contributes to a prediction, and similar examples.

An encoder computes the text many times, with different words left out. For a linear model the
contributions are computed exactly.
"""

import itertools
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

from pydantic import BeforeValidator, Field

from app.http.fields import RequestModel, reject_unstorable_text
from app.serving.batcher import TextLogits
from app.serving.client_formats import TEXT_PAIR_SCHEMA, validate_text_input
from app.serving.errors import UnknownModelLabel
from app.serving.loaded_model import (
    LoadedEncoderModel,
    LoadedLinearModel,
    LoadedModel,
    TokenizedRequest,
)
from app.serving.nearest_examples import find_familiarity_and_neighbors
from app.serving.schemas import ExplanationView, WordContribution
from app.serving.service import ASSUMED_MAX_LENGTH, InferenceService
from lora_core.errors.artifact import TargetRequired
from lora_core.process_settings import disable_gc_then_freeze_imports
from lora_core.specs.encoded_labels import unqualified_outputs_of_target
from lora_core.specs.text_input import TextInput, count_characters, texts_of_input

if TYPE_CHECKING:
    from lora_core.inference.tokenization import TokenizedText, TokenizedWords


MAX_WORDS = 32  # left out one by one; of more, neighbors are merged
MAX_LINEAR_WORDS = 1000  # in an explanation of a linear model
CHUNK_TOKENS = 2048  # in the queue at a time, so that other requests wait for no more than these
_MAX_LABELS_SHOWN = 20  # in an error message

T = TypeVar("T")
_Permutation = Sequence[int]
Coalition = tuple[bool, ...]  # which words are in the text


def _validate_text(value: Any) -> Any:
    if isinstance(value, str):
        reject_unstorable_text(value)
    return value


class ExplainBody(RequestModel):
    """A text whose prediction is to be explained."""

    inputs: Annotated[
        Any,
        BeforeValidator(validate_text_input),
        Field(
            description="One text, or one pair of texts.",
            json_schema_extra={"anyOf": [{"type": "string"}, TEXT_PAIR_SCHEMA]},
        ),
    ]
    label: Annotated[str, BeforeValidator(_validate_text)] | None = Field(
        None,
        description="Explain the probability of this label. Default: the predicted label. "
        "A regression has the label `value`: its number.",
    )


@dataclass(frozen=True, slots=True)
class Explanation:
    """An explanation, and what the headers of its response report."""

    view: ExplanationView
    version: str
    engine: str
    truncated: bool  # the words lack those that the model did not read


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """What is explained, and for whom."""

    text: TextInput
    label: str | None  # None: the predicted one
    target: str | None  # which of several targets, which has the label
    key_id: UUID
    deadline: float  # on the monotonic clock
    shows_texts: bool  # whether the caller may read training texts


async def explain(service: InferenceService, request: ExplainRequest, ref: str) -> Explanation:
    """Explain the probability of a label by the words of the text, and by training examples.

    The texts of an explanation are admitted and computed like those of `InferenceService.predict`,
    a chunk at a time, between those of other requests. Raises what `predict` raises, and
    `UnknownModelLabel`.
    """
    timeout, target = request.deadline - time.monotonic(), request.target
    service.admission.check(request.key_id, texts=1, tokens=1, timeout=timeout)
    resolved, model = await service.pool.get(ref, deadline=request.deadline)
    if target is None and model.targets:
        raise TargetRequired(model=resolved.ref, targets=", ".join(model.targets))
    task = model.task_of(target)
    labels = model.predictor.labels
    if target is not None:
        labels = unqualified_outputs_of_target(target, labels)
    if request.label is not None and request.label not in labels:
        ellipsis = ["…"] if len(labels) > _MAX_LABELS_SHOWN else []
        shown = [*labels[:_MAX_LABELS_SHOWN], *ellipsis]
        raise UnknownModelLabel(ref=resolved.ref, labels=", ".join(shown), at="label")
    index = await service.example_indexes.load_or_none(resolved, deadline=request.deadline)
    with_state = index is not None
    if isinstance(model, LoadedLinearModel):
        explanation, output = await _explain_linear(service, request, model, with_state=with_state)
    else:
        explanation, output = await _explain_encoder(service, request, model, with_state=with_state)
    if index is not None:
        texts = service.training_texts if request.shows_texts else None
        familiarity, nearest = await find_familiarity_and_neighbors(
            index, texts, resolved, output, task=task, target=target
        )
        view = explanation.view.model_copy(update={"familiarity": familiarity, "nearest": nearest})
        explanation = replace(explanation, view=view)
    return explanation


async def _explain_encoder(
    service: InferenceService,
    request: ExplainRequest,
    model: LoadedEncoderModel,
    *,
    with_state: bool,
) -> tuple[Explanation, TextLogits]:
    """Return the explanation by words, and the logits of the whole text."""
    text = request.text
    all_words = await model.tokenize_into_words(text)
    words = all_words.grouped(MAX_WORDS)
    count = len(words.words)
    permutations = sample_permutations(count, len(words.ids))
    masks = collect_needed_coalitions(count, permutations)
    whole: list[TextLogits] = []  # those of the whole text, which is computed first
    predictions: list[dict[str, float]] = []
    for chunk in _split_into_chunks(words, masks):
        # An explanation that was admitted is not rejected halfway because of its timeout.
        timeout = math.inf if whole else request.deadline - time.monotonic()
        with service.admission.reserve(
            request.key_id, texts=len(chunk.items), tokens=chunk.tokens, timeout=timeout
        ):
            if not whole:  # only once the request is admitted
                service.rate_limiter.acquire(request.key_id, len(masks))
            computed = await model.compute(
                chunk, deadline=request.deadline, with_states=with_state and not whole
            )
        whole = whole or computed[:1]
        decode = partial(_decode_scores, model, computed, request.target)
        predictions += await model.run_decoding(decode, computed)
    label = request.label or next(iter(predictions[0]))  # predicted with all words
    scores = {mask: each[label] for mask, each in zip(masks, predictions, strict=True)}
    values = (
        await service.run_in_thread(partial(shapley_values, scores, permutations)) if count else []
    )
    view = ExplanationView(
        label=label,
        score=scores[masks[0]],
        empty_score=scores[(False,) * count],
        words=[
            _word_score(text, word.side, word.start, word.end, value)
            for word, value in zip(words.words, values, strict=True)
        ],
        grouped=count < len(all_words.words),
        texts=len(masks),
    )
    engine = model.predictor.engine.name
    return Explanation(view, model.ref, engine, all_words.truncated), whole[0]


async def _explain_linear(
    service: InferenceService,
    request: ExplainRequest,
    model: LoadedLinearModel,
    *,
    with_state: bool,
) -> tuple[Explanation, TextLogits]:
    """Return the explanation by words, and the logits of the whole text."""
    text, target = request.text, request.target
    tokens = min(count_characters(text), ASSUMED_MAX_LENGTH)
    timeout = request.deadline - time.monotonic()
    with service.admission.reserve(request.key_id, texts=1, tokens=tokens, timeout=timeout):
        service.rate_limiter.acquire(request.key_id, 1)  # only once the request is admitted
        tokenized = await model.tokenize([text], truncate=True, side="right")
        computed = await model.compute(tokenized, deadline=request.deadline, with_states=with_state)
        [scores] = _decode_scores(model, computed, target)
        label = request.label or next(iter(scores))  # the predicted label
        words, empty_score = await model.contributions(text, label, target)
    views = [
        _word_score(
            text,
            side,
            group[0][0].start,
            group[-1][0].end,
            sum(value for _, value in group),
        )
        for side, of_side in groupby(words, key=lambda word: word[0].side)
        for group in _group_neighbors(list(of_side), MAX_LINEAR_WORDS)
    ]
    view = ExplanationView(
        label=label,
        score=scores[label],
        empty_score=empty_score,
        words=views,
        grouped=len(views) < len(words),
        texts=1,
    )
    explanation = Explanation(view, model.ref, model.predictor.engine.name, truncated=False)
    return explanation, computed[0]


def _decode_scores(
    model: LoadedModel, computed: Sequence[TextLogits], target: str | None
) -> list[dict[str, float]]:
    """Return the scores of each text by label, in the order of `decode`."""
    rows = model.decode(computed, None, target)
    return [{output.label: output.score for output in row} for row in rows]


def _word_score(text: TextInput, side: int, start: int, end: int, score: float) -> WordContribution:
    return WordContribution(
        text=texts_of_input(text)[side][start:end],
        field="text_pair" if side else "text",
        start=start,
        end=end,
        score=score,
    )


def _group_neighbors(items: Sequence[T], max_groups: int) -> Iterator[Sequence[T]]:
    """Split into groups of neighbors: one item each, or `max_groups` groups if there are more."""
    count, groups = len(items), min(len(items), max_groups)
    bounds = (count * i // groups for i in range(groups + 1)) if groups else ()
    return (items[first:last] for first, last in pairwise(bounds))


def _split_into_chunks(
    words: "TokenizedWords", masks: Sequence[Coalition]
) -> Iterator[TokenizedRequest]:
    """Yield the masked texts in chunks of at most `CHUNK_TOKENS` tokens."""
    items: list[TokenizedText] = []
    tokens = 0
    for mask in masks:
        item = words.keep_words(mask)
        if items and tokens + item.length > CHUNK_TOKENS:
            yield TokenizedRequest(items, 0.0)
            items, tokens = [], 0
        items.append(item)
        tokens += item.length
    yield TokenizedRequest(items, 0.0)


# -- Shapley values: what each word adds to a score. Computed by captum ---------------------------


# The words join the text one after the other, in the order of a permutation, and each is credited
# with the change of the score when it joins. Its Shapley value is the mean over permutations. Hence
# the values of all words add up to the score of the whole text minus that of the empty text
# (docs/decisions/0025).

MAX_EXHAUSTIVE_WORDS = 5  # up to here all permutations are used: 120 of them, 32 texts
MAX_PERMUTATION_PAIRS = 8  # for more words
_MAX_TOTAL_TOKENS = 8192  # in the texts of all permutations; one pair is used in any case


def sample_permutations(words: int, tokens: int) -> list[_Permutation]:
    """Return the permutations for a text of `words` words and `tokens` tokens; deterministic.

    Each permutation comes with its reverse (antithetic sampling), which halves the error or better:
    a word that is early in one is late in the other.
    """
    if words <= MAX_EXHAUSTIVE_WORDS:
        return list(itertools.permutations(range(words)))
    rng = random.Random(0)  # noqa: S311
    # Of a pair: after each word but the last, a text and its complement.
    tokens_per_pair = (words - 1) * tokens
    pairs = max(1, min(MAX_PERMUTATION_PAIRS, _MAX_TOTAL_TOKENS // tokens_per_pair))
    sampled = [rng.sample(range(words), words) for _ in range(pairs)]
    return [each for permutation in sampled for each in (permutation, permutation[::-1])]


def collect_needed_coalitions(words: int, permutations: Sequence[_Permutation]) -> list[Coalition]:
    """Return the distinct coalitions whose scores are needed: all words first, then no words."""
    ordered = {(True,) * words: None, (False,) * words: None}  # a dict keeps the order
    for permutation in permutations:
        present = [False] * words
        for word in permutation:
            present[word] = True
            ordered[tuple(present)] = None
    return list(ordered)


def shapley_values(
    scores: Mapping[Coalition, float], permutations: Sequence[_Permutation]
) -> list[float]:
    """Return the Shapley value of each word. Imports captum at the first call.

    `scores` has the score of each of the `collect_needed_coalitions`.
    """
    torch, sampling_class = _import_captum()

    def forward(masks: Any) -> Any:
        """Masks (texts, words) of zeros and ones -> scores (texts,)."""
        return torch.tensor([scores[tuple(row)] for row in masks.bool().tolist()])

    words = len(permutations[0])
    sampling = sampling_class(forward)
    sampling.permutation_generator = lambda *_: permutations
    values = sampling.attribute(torch.ones(1, words), perturbations_per_eval=words)
    return list(values[0].tolist())


@cache
def _import_captum() -> tuple[Any, Any]:
    with disable_gc_then_freeze_imports():
        import torch
        from captum.attr import ShapleyValueSampling
    return torch, ShapleyValueSampling
