"""Counts and keeps predictions without delaying them.

The event loop appends to a queue in memory and returns. A thread counts, hashes and writes, once a
second. When the database is down or too slow, the queue fills up, and then predictions are dropped
and counted as dropped; no request ever waits.
"""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.database.engines import Database
from app.database.errors import OUTAGE_ERRORS
from app.privacy import repository as privacy
from app.privacy.text_hashes import TextHasher
from app.settings import Settings
from app.traffic import repository
from app.traffic.prediction_encoding import (
    OutputTaskTypes,
    confidence_by_target,
    encode_predicted_label,
    highest_scores,
    predicted_labels,
)
from app.traffic.repository import PredictionCountKey
from app.traffic.tables import MAX_LABEL_LENGTH, KeptPrediction, PredictionOutcome
from lora_core.specs.text_input import TextInput, count_characters, texts_of_input

if TYPE_CHECKING:
    from lora_core.inference.decoding import DecodedOutput

WRITE_SECONDS = 1.0  # between two writes of kept predictions
COUNT_SECONDS = 10.0  # between two writes of counts
CLOSE_SECONDS = 5.0  # to write what is left
MAX_QUEUED_TEXTS = 20_000
MAX_QUEUED_CHARACTERS = 50_000_000
MAX_QUEUED_OUTPUTS = 2_000_000  # of about 130 bytes each
MAX_COUNT_KEYS = 50_000  # while the database is down
BATCH_SIZE = 500  # rows of one transaction

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """The predictions of one request, or of one instance of it."""

    prediction_id: UUID
    position: int  # of its first text in the request
    texts_in_request: int
    version: str  # such as `sentiment:3`
    predicted: OutputTaskTypes
    target: str | None  # the only one of several that was asked for
    texts: Sequence[TextInput]  # empty if none is kept
    rows: "Sequence[Sequence[DecodedOutput]]"  # all of each text, the most probable first
    abstained: Sequence[bool]


class TrafficRecorder:
    """Records predictions. Call `record` on one event loop only; `flush` and `close` in threads.

    `on_kept` and `on_dropped` get numbers of texts. Those dropped are not counted, or not kept.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        on_kept: Callable[[int], Any],
        on_dropped: Callable[[int], Any],
    ) -> None:
        self._database = database
        self._keeps_texts = settings.keep_traffic == "texts"
        self._share = 0.0 if settings.keep_traffic == "off" else settings.keep_traffic_share
        # Without traffic to keep, no pepper is needed and none is created.
        self._hasher = TextHasher.from_settings(settings) if self._share else None
        self._on_kept = on_kept
        self._on_dropped = on_dropped
        self._random = random.Random()  # noqa: S311 - it draws a sample, and hides nothing
        self._queue: deque[tuple[AnsweredRequest, list[int]]] = deque()  # with the texts to keep
        # Written by one thread each, so that the event loop needs no lock: texts, characters and
        # outputs.
        self._added = self._taken = (0, 0, 0)
        self._pass_lock = threading.Lock()  # of all below, which one thread uses at a time
        self._rows: deque[KeptPrediction] = deque()
        self._counts: Counter[PredictionCountKey] = Counter()
        self._counted_at = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    @property
    def keeps_scores(self) -> bool:
        """Whether any predictions are kept, so that their probabilities are needed."""
        return self._share > 0

    def record(self, answered: AnsweredRequest) -> None:
        """Count the predictions, and keep the configured share of them. Never waits."""
        texts = len(answered.rows)
        kept = [i for i in range(texts) if self._share and self._random.random() < self._share]
        characters = sum(map(count_characters, answered.texts))
        added = _add(self._added, texts, characters, sum(map(len, answered.rows)))
        taken = self._taken
        if (
            added[0] - taken[0] > MAX_QUEUED_TEXTS
            or added[1] - taken[1] > MAX_QUEUED_CHARACTERS
            or (self._added != taken and added[2] - taken[2] > MAX_QUEUED_OUTPUTS)  # one fits
        ):
            self._on_dropped(texts)
            return
        self._added = added
        self._queue.append((answered, kept))

    def flush(self) -> None:
        """Write everything recorded so far, unless the database is unavailable."""
        self._pass(with_counts=True)

    def close(self) -> None:
        """Write what is left and stop."""
        self._stopped.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(WRITE_SECONDS):
            self._pass(with_counts=time.monotonic() - self._counted_at >= COUNT_SECONDS)
        self._pass(with_counts=True)

    def _pass(self, *, with_counts: bool) -> None:
        with self._pass_lock:
            try:
                self._drain()
                while self._rows:
                    self._write_batch()
                if with_counts and self._counts:
                    self._write_counts()
            except OUTAGE_ERRORS as error:  # the next pass retries
                log.warning("traffic_not_written", reason=str(error).partition("\n")[0])
            except Exception:
                log.exception("traffic_failed")

    def _drain(self) -> None:
        """Move predictions from the queue to the rows and counts that are written next.

        The rows and their texts count as queued until they are written.
        """
        while self._queue:
            answered, kept = self._queue.popleft()
            rows: list[KeptPrediction] = []
            try:
                self._count(answered)
                rows = [self._row(answered, i) for i in kept]
                self._rows.extend(rows)
            finally:
                texts = len(answered.rows) - len(rows)
                characters = sum(map(count_characters, answered.texts)) - _count_characters(rows)
                self._taken = _add(self._taken, texts, characters, sum(map(len, answered.rows)))

    def _count(self, answered: AnsweredRequest) -> None:
        if len(self._counts) > MAX_COUNT_KEYS:
            self._on_dropped(len(answered.rows))
            return
        version, asked = answered.version, answered.target or ""
        texts = PredictionCountKey(version, PredictionOutcome.TEXT, asked)
        self._counts[texts] += len(answered.rows)
        for row, abstained in zip(answered.rows, answered.abstained, strict=True):
            if abstained:
                self._counts[PredictionCountKey(version, PredictionOutcome.ABSTAINED, asked)] += 1
                continue
            for label in predicted_labels(answered.predicted, row):
                name = label if answered.target is None else f"{answered.target}/{label}"
                self._counts[
                    PredictionCountKey(version, PredictionOutcome.LABEL, name[:MAX_LABEL_LENGTH])
                ] += 1

    def _row(self, answered: AnsweredRequest, index: int) -> KeptPrediction:
        assert self._hasher is not None  # noqa: S101 - nothing is kept without it
        text, row = answered.texts[index], answered.rows[index]
        hashes = self._hasher.hash_input(text)
        sides = texts_of_input(text) if self._keeps_texts else ()
        name, _, number = answered.version.rpartition(":")
        return KeptPrediction(
            prediction_id=answered.prediction_id,
            position=answered.position + index,
            texts=answered.texts_in_request,
            model=name,
            number=int(number),
            task=answered.predicted.task,
            target=answered.target,
            text_hash=hashes.whole,
            first_hash=hashes.first,
            second_hash=hashes.second,
            text=sides[0] if sides else None,
            text_pair=sides[1] if len(sides) > 1 else None,
            answer=encode_predicted_label(answered.predicted, row),
            scores=highest_scores(answered.predicted, row),
            confidence=confidence_by_target(answered.predicted, row),
            abstained=answered.abstained[index],
        )

    def _write_batch(self) -> None:
        """Write the first rows, except for texts that were forgotten."""
        batch = [self._rows[i] for i in range(min(BATCH_SIZE, len(self._rows)))]
        try:
            written = self._insert(batch)
        except OUTAGE_ERRORS:
            raise
        except SQLAlchemyError:  # the same rows would fail again
            log.exception("traffic_dropped", texts=len(batch))
            self._on_dropped(len(batch))
        else:
            self._on_kept(written)
        for _ in batch:
            self._rows.popleft()
        self._taken = _add(self._taken, len(batch), _count_characters(batch), 0)

    def _insert(self, batch: Sequence[KeptPrediction]) -> int:
        with self._database.write() as session:
            privacy.lock_text_storage(session)
            hashes = {each: (each.text_hash, each.first_hash, each.second_hash) for each in batch}
            unwanted = privacy.find_forgotten_hashes(
                session, (each for row in hashes.values() for each in row if each is not None)
            )
            rows = [row for row, of_row in hashes.items() if unwanted.isdisjoint(of_row)]
            repository.add_predictions(session, rows)
        return len(rows)

    def _write_counts(self) -> None:
        with self._database.write() as session:
            repository.add_counts(session, self._counts)
        self._counts.clear()
        self._counted_at = time.monotonic()


def _add(
    sizes: tuple[int, int, int], texts: int, characters: int, outputs: int
) -> tuple[int, int, int]:
    return sizes[0] + texts, sizes[1] + characters, sizes[2] + outputs


def _count_characters(rows: Sequence[KeptPrediction]) -> int:
    """Return the characters of the texts that the rows keep."""
    return sum(len(row.text or "") + len(row.text_pair or "") for row in rows)
