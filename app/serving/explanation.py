"""Which words drove an answer: the model is asked the text again and again, with words left out.

A linear model is not asked again: what each word adds can be computed.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from app.serving.attribution import Kept, orders, shapley, steps
from app.serving.errors import LabelUnknown
from app.serving.linear import LinearDeployment
from app.serving.loaded_model import Encoded, Reading, Word, Worded
from app.serving.service import USUAL, Serving

MOST_WORDS = 32  # that are left out one by one; of more, neighbours go together
MOST_EXACT_WORDS = 1000  # of a linear model, in an answer
CHUNK_TOKENS = 2048  # that wait at a time: so long others wait for an explanation, and no longer
_SHOWN = 20  # labels in a message


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` of a text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Scores are probabilities of `label`; those of the words add up to `score` - `empty_score`."""

    version: str
    engine: str
    label: str
    score: float
    empty_score: float  # of the text without any of its words
    words: Sequence[tuple[Word, float]]
    grouped: bool  # neighbouring words count as one
    truncated: bool  # words that were cut off are not among them
    texts: int  # that were asked


async def explain(
    serving: Serving, text: str, label: str | None, ref: str, *, caller: UUID, deadline: float
) -> Explanation:
    """How much each word pushed towards `label`; None: the one that the text gets.

    The texts of an explanation are admitted and computed like those of `Serving.ask`, some at a
    time, between the questions of others. Raises what that raises, and `LabelUnknown`.
    """
    serving.admission.check(caller, texts=1, tokens=1, timeout=deadline - time.monotonic())
    resolved, deployment = await serving.loaded(ref, deadline)
    if label is not None and label not in (labels := deployment.predictor.labels):
        shown = [*labels[:_SHOWN], *(["…"] if len(labels) > _SHOWN else [])]
        raise LabelUnknown(ref=resolved.ref, labels=", ".join(shown), at="label")
    if isinstance(deployment, LinearDeployment):
        serving.quota.take(caller, 1)
        with serving.admission.place(caller, texts=1, tokens=min(len(text), USUAL)):
            return await _of_linear(deployment, resolved.ref, text, label, deadline=deadline)
    whole = await deployment.words(text)
    worded = whole.grouped(MOST_WORDS)
    count = len(worded.words)
    tried = orders(count, len(worded.ids))
    asked = steps(count, tried)
    serving.quota.take(caller, len(asked))
    answers: list[dict[str, float]] = []
    for chunk in _chunks(worded, asked):
        with serving.admission.place(caller, texts=len(chunk.items), tokens=chunk.tokens):
            rows = await deployment.compute(chunk, deadline=deadline)
        answers += [dict(scores) for scores in deployment.decode(rows, None)]
    label = label or next(iter(answers[0]))  # of all words the highest
    scores = {kept: answer[label] for kept, answer in zip(asked, answers, strict=True)}
    values = await run_in_threadpool(shapley, scores, tried) if count else []
    return Explanation(
        version=resolved.ref,
        engine=deployment.predictor.engine.name,
        label=label,
        score=scores[asked[0]],
        empty_score=scores[(False,) * count],
        words=list(zip(worded.words, values, strict=True)),
        grouped=count < len(whole.words),
        truncated=whole.truncated,
        texts=len(asked),
    )


async def _of_linear(
    deployment: LinearDeployment, ref: str, text: str, label: str | None, *, deadline: float
) -> Explanation:
    reading = await deployment.tokenise([text], truncate=True, side="right")
    rows = await deployment.compute(reading, deadline=deadline)
    [answer] = deployment.decode(rows, None)
    label = label or answer[0][0]
    words, empty_score = await deployment.contributions(text, label)
    return Explanation(
        version=ref,
        engine=deployment.predictor.engine.name,
        label=label,
        score=dict(answer)[label],
        empty_score=empty_score,
        words=_grouped(words),
        grouped=len(words) > MOST_EXACT_WORDS,
        truncated=False,
        texts=1,
    )


def _grouped(words: Sequence[tuple[Word, float]]) -> Sequence[tuple[Word, float]]:
    """At most `MOST_EXACT_WORDS`: if there are more, neighbours count as one."""
    count = len(words)
    if count <= MOST_EXACT_WORDS:
        return words
    ends = [count * i // MOST_EXACT_WORDS for i in range(MOST_EXACT_WORDS + 1)]
    groups = (words[first:last] for first, last in pairwise(ends))
    return [
        (Span(group[0][0].start, group[-1][0].end), sum(score for _, score in group))
        for group in groups
    ]


def _chunks(worded: Worded, asked: Sequence[Kept]) -> Iterator[Reading]:
    """The texts in parts of so many tokens."""
    items: list[Encoded] = []
    tokens = 0
    for kept in asked:
        item = worded.only(kept)
        if items and tokens + len(item.ids) > CHUNK_TOKENS:
            yield Reading(items, 0.0)
            items, tokens = [], 0
        items.append(item)
        tokens += len(item.ids)
    yield Reading(items, 0.0)
