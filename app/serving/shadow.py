"""A candidate is asked what production was asked, and nobody hears its answer but the count."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from starlette.concurrency import run_in_threadpool

from app.database.engines import Database
from app.registry import service as registry
from app.registry.service import Resolved
from app.serving.linear import AnyDeployment
from app.serving.loaded_model import Scores
from app.serving.metrics import ServingMeters
from app.serving.model_pool import Pool
from app.serving.request_formats import Question

ALIAS = "shadow"
FRESH_SECONDS = 1.0  # until candidates are looked up again
MOST_TEXTS = 64  # on their way to candidates
PATIENCE_SECONDS = 30.0  # with one that is slow

Outcome = Literal["agreed", "differed", "skipped", "failed"]

log = structlog.get_logger()


@dataclass(slots=True)
class Tally:
    """How often a candidate agreed with the version that answered."""

    version: str
    shadow: str
    since: float  # Unix time
    agreed: int = 0  # texts with the same first label
    differed: int = 0
    difference: float = 0.0  # sum over texts: of the first label's probability
    skipped: int = 0  # texts that came while there was more urgent work
    failed: int = 0


class Shadows:
    """Candidates are the versions under the alias `shadow`. Used on the event loop only.

    They are never waited for, and asked only while production has time to spare.
    """

    def __init__(
        self, database: Database, pool: Pool, meters: ServingMeters, *, idle: Callable[[], bool]
    ) -> None:
        self._database = database
        self._pool = pool
        self._meters = meters
        self._idle = idle
        self._candidates: dict[str, Resolved] = {}  # by model
        self._read_at = -FRESH_SECONDS
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._texts = 0  # on their way
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(
        self, question: Question, answered: Resolved, scores: Callable[[], Sequence[Scores]]
    ) -> None:
        """Production has answered; let the candidate of the same model do so too, if there is one.

        `scores` gives the probabilities of the answer.
        """
        if time.monotonic() - self._read_at >= FRESH_SECONDS:
            self._read_at = time.monotonic()
            self._spawn(self._read())
        candidate = self._candidates.get(answered.name)
        if candidate is None or candidate.ref == answered.ref:
            return
        tally = self._tally(answered.ref, candidate.ref)
        texts = len(question.texts)
        if not self._idle() or self._texts + texts > MOST_TEXTS:
            self._count(tally, "skipped", texts)
            return
        self._spawn(self._ask(question, candidate, scores(), tally))

    def tallies(self, name: str) -> list[Tally]:
        """Of one model, the newest pair first."""
        found = [each for each in self._tallies.values() if each.version.startswith(f"{name}:")]
        return sorted(found, key=lambda tally: tally.since, reverse=True)

    def close(self) -> None:
        """Ask nobody any more."""
        for task in self._tasks:
            task.cancel()

    async def _read(self) -> None:
        try:
            self._candidates = await run_in_threadpool(self._look_up)
        except Exception as error:  # those known go on
            log.warning("candidates_unknown", reason=repr(error))

    def _look_up(self) -> dict[str, Resolved]:
        with self._database.read() as session:
            found = registry.resolve_all(session, ALIAS)
        return {resolved.name: resolved for resolved in found}

    async def _ask(
        self, question: Question, candidate: Resolved, scores: Sequence[Scores], tally: Tally
    ) -> None:
        texts = len(question.texts)
        self._texts += texts
        try:
            deployment = await self._pool.ready(candidate)
            others = await _answered(deployment, question)
        except Exception as error:  # nobody waits for it
            log.warning("shadow_failed", shadow=candidate.ref, reason=repr(error))
            self._count(tally, "failed", texts)
        else:
            for mine, other in zip(scores, others, strict=True):
                (label, score), again = mine[0], dict(other)
                tally.difference += abs(score - again.get(label, 0.0))
                self._count(tally, "agreed" if other[0][0] == label else "differed", 1)
        finally:
            self._texts -= texts

    def _tally(self, version: str, shadow: str) -> Tally:
        pair = (version, shadow)
        if pair not in self._tallies:
            self._tallies[pair] = Tally(version, shadow, since=time.time())
        return self._tallies[pair]

    def _count(self, tally: Tally, outcome: Outcome, texts: int) -> None:
        setattr(tally, outcome, getattr(tally, outcome) + texts)
        self._meters.shadows.labels(tally.version, tally.shadow, outcome).inc(texts)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # or it could be collected while it runs
        task.add_done_callback(self._tasks.discard)


async def _answered(deployment: AnyDeployment, question: Question) -> list[Scores]:
    reading = await deployment.tokenise(question.texts, truncate=True, side=question.side)
    deadline = time.monotonic() + PATIENCE_SECONDS
    return deployment.decode(await deployment.compute(reading, deadline=deadline), None)
