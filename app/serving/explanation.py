"""Which words drove an answer: the model is asked the text again and again, with words left out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from app.serving.attribution import Kept, orders, shapley, steps
from app.serving.deployment import Encoded, Reading, Word, Worded
from app.serving.errors import LabelUnknown
from app.serving.service import Serving

MOST_WORDS = 32  # that are left out one by one; of more, neighbours go together
CHUNK_TOKENS = 2048  # that wait at a time: so long others wait for an explanation, and no longer
_SHOWN = 20  # labels in a message


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
