"""Operations on feedback: add, delete, and review random samples of kept predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import inf
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.auth.middleware import check_scope
from app.database.base import read_clock
from app.database.engines import Database, call_after_commit
from app.errors import AppError
from app.feedback import repository
from app.feedback.errors import (
    FeedbackTextMismatch,
    FeedbackTextPairRequired,
    FeedbackTextPairUnexpected,
    PredictionNotKept,
    PredictionOfOtherModel,
    PredictionPositionRequired,
    TextForgotten,
    TrafficNotKept,
)
from app.feedback.labels import (
    extract_target_answer,
    resolve_feedback_target,
    validate_and_serialize_label,
)
from app.feedback.repository import FeedbackKey, VersionTarget
from app.feedback.schemas import FeedbackItem, FeedbackItemOutcome, ReviewSample
from app.feedback.tables import Feedback
from app.feedback.views import review_text_view
from app.http.dependencies import Caller
from app.privacy import repository as privacy
from app.privacy.text_hashes import TextHasher
from app.registry import service as registry
from app.registry.model_io_schemas import ModelIOSchema, read_io_schema
from app.registry.service import ResolvedModel
from app.storage.store import Store
from app.traffic import repository as traffic
from app.traffic.repository import (
    KeptPredictionKey,
    format_prediction_id,
    parse_request_id_and_position,
)
from app.traffic.tables import KeptPrediction
from lora_core.specs.text_input import text_or_pair

MAX_SAMPLED = 10_000  # drawn predictions of a version that a review looks through
_REPLACED = ("label", "number", "task", "text", "text_pair", "answer", "confidence")


@dataclass
class FeedbackItemSubmission:
    """An item of feedback on its way to its row, and what became of it: an error ends it."""

    item: FeedbackItem
    prediction: KeptPrediction | None = None
    resolved: ResolvedModel | None = None
    row: Feedback | None = None
    status: FeedbackItemOutcome = FeedbackItemOutcome.FAILED
    error: AppError | None = None

    def run_step_unless_failed(self, step: Callable[["FeedbackItemSubmission"], None]) -> None:
        """Take the next step, unless an earlier one failed."""
        if self.error is None:
            try:
                step(self)
            except AppError as error:
                self.error = error


def add_feedback(
    database: Database,
    store: Store,
    *,
    items: Sequence[FeedbackItem],
    caller: Caller,
    hasher: TextHasher,
    flush_traffic: Callable[[], None],
) -> list[FeedbackItemSubmission]:
    """Add feedback. Each item is accepted or rejected on its own; the newest of an author counts.

    `flush_traffic` writes predictions that were made a moment ago. The files of models are read
    between two short transactions.
    """
    submissions = [FeedbackItemSubmission(item) for item in items]
    if not _find_predictions(database, submissions):
        flush_traffic()
        _find_predictions(database, submissions)
    with database.read() as session:
        resolve = cache(partial(registry.resolve_model, session))
        for each in submissions:
            each.run_step_unless_failed(partial(_resolve_model, session, resolve))
    for each in submissions:
        each.run_step_unless_failed(partial(_build_row, store=store, caller=caller, hasher=hasher))
    with database.write() as session:
        privacy.lock_text_storage(session)
        _save(session, submissions)
    return submissions


def delete_feedback(session: Session, *, feedback_id: UUID, caller: Caller) -> None:
    """Delete feedback. That of other API keys needs the scope `datasets:write`.

    Raises `FeedbackNotFound`, `ScopeMissing`.
    """
    privacy.lock_text_storage(session)  # somebody may be changing it
    row = repository.get_feedback(session, feedback_id)
    if row.key_id != caller.id:
        check_scope(caller, "datasets:write")
    repository.delete_feedback(session, row)
    call_after_commit(
        session,
        partial(
            logging.write_audit_line,
            "feedback_deleted",
            feedback_id=str(feedback_id),
            model=row.model,
        ),
    )


def _find_predictions(database: Database, submissions: Sequence[FeedbackItemSubmission]) -> bool:
    """Find the kept predictions that the items name. Return whether all were found."""
    wanted = {
        id(each): parse_request_id_and_position(each.item.prediction_id)
        for each in submissions
        if each.item.prediction_id is not None
    }
    with database.read() as session:
        kept = traffic.find_predictions_by_request(session, (id_ for id_, _ in wanted.values()))
    for each in submissions:
        if id(each) in wanted:
            id_, position = wanted[id(each)]
            rows = kept.get(id_, [])
            if position is None and rows and rows[0].texts > 1:
                each.error = PredictionPositionRequired(
                    prediction_id=id_.hex, texts=rows[0].texts, at="prediction_id"
                )
            each.prediction = next((row for row in rows if row.position == (position or 0)), None)
    return all(id_ in kept for id_, _ in wanted.values())


def _resolve_model(
    session: Session, resolve: Callable[[str], ResolvedModel], submission: FeedbackItemSubmission
) -> None:
    """Resolve the version that predicted, or that the item names.

    Raises `PredictionNotKept`, `PredictionOfOtherModel`, and what `registry.resolve_model` raises.
    """
    item, prediction = submission.item, submission.prediction
    if prediction is None:
        if item.text is None or item.model is None:
            raise PredictionNotKept(prediction_id=item.prediction_id, at="prediction_id")
        submission.resolved = resolve(item.model)
        return
    version = f"{prediction.model}:{prediction.number}"
    if (
        item.model is not None
        and registry.parse_ref_or_job_model(session, item.model).name != prediction.model
    ):
        raise PredictionOfOtherModel(
            prediction_id=item.prediction_id, version=version, model=item.model, at="model"
        )
    submission.resolved = resolve(version)


def _build_row(
    submission: FeedbackItemSubmission, *, store: Store, caller: Caller, hasher: TextHasher
) -> None:
    """Build the row. Raises the errors of `app.feedback.errors`, and those of a store."""
    item, prediction, resolved = submission.item, submission.prediction, submission.resolved
    assert resolved is not None  # noqa: S101 - otherwise there is an error
    outputs, version = read_io_schema(store, resolved), resolved.ref
    predicted_target = prediction.target if prediction else None
    target, of_target = resolve_feedback_target(
        item, outputs, version=version, predicted=predicted_target
    )
    row = Feedback(
        model=resolved.name,
        number=resolved.number,
        target=target,
        author=caller.name if item.by is None else f"{caller.name}/{item.by}",
        key_id=caller.id,
        task=of_target.task,
        label=validate_and_serialize_label(item, of_target, version=version),
    )
    if item.text is not None:
        if outputs.pairs and item.text_pair is None:
            raise FeedbackTextPairRequired(version=version, at="text_pair")
        if item.text_pair is not None and not outputs.pairs:
            raise FeedbackTextPairUnexpected(version=version, at="text_pair")
        hashes = hasher.hash_input(text_or_pair(item.text, item.text_pair))
        if prediction is not None and hashes.whole != prediction.text_hash:
            raise FeedbackTextMismatch(prediction_id=item.prediction_id, at="text")
        row.text_hash, row.first_hash, row.second_hash = hashes
        row.text, row.text_pair = item.text, item.text_pair
        row.subject = f"text-{row.text_hash}"
    if prediction is not None:
        _copy_prediction(row, prediction, several=outputs.has_several_targets)
    submission.row = row


def _copy_prediction(row: Feedback, prediction: KeptPrediction, *, several: bool) -> None:
    """Copy what is known of a prediction, which will expire."""
    key = KeptPredictionKey(prediction.prediction_id, prediction.position)
    row.prediction_id, row.position = key
    row.subject = format_prediction_id(key)
    row.predicted_at = prediction.created_at
    row.text_hash = prediction.text_hash
    row.first_hash, row.second_hash = prediction.first_hash, prediction.second_hash
    if prediction.text is not None:
        row.text, row.text_pair = prediction.text, prediction.text_pair
    if prediction.abstained or prediction.target not in (None, row.target):
        return  # this target got no answer
    has_all = several and prediction.target is None
    row.answer = extract_target_answer(prediction.answer, row.target, several=has_all)
    row.confidence = prediction.confidence.get(row.target if has_all else "")


def _save(session: Session, submissions: Sequence[FeedbackItemSubmission]) -> None:
    """Insert or update the rows. The caller holds the lock of texts."""
    open_ = [(each, each.row) for each in submissions if each.error is None and each.row]
    unwanted = privacy.find_forgotten_hashes(
        session, (hash_ for _, row in open_ for hash_ in _hashes(row))
    )
    predicted = traffic.find_predictions_by_request(
        session, (row.prediction_id for _, row in open_ if row.prediction_id)
    )
    drawn = {
        _text_key(each): each.sampled_at
        for rows in predicted.values()
        for each in rows
        if each.sampled_at is not None
    }
    reviewed: dict[VersionTarget, float] = {}  # when the last text with feedback was drawn
    existing = repository.find_feedback_by_keys(session, (_key(row) for _, row in open_))
    at = read_clock(session)
    for submission, row in open_:
        if not unwanted.isdisjoint(_hashes(row)):
            submission.error = TextForgotten()
            continue
        found = existing.get(_key(row))
        if found is None:
            row.created_at = row.updated_at = at
            if row.prediction_id is not None and row.position is not None:
                drawn_at = drawn.get(KeptPredictionKey(row.prediction_id, row.position))
                row.sampled = drawn_at is not None
                if drawn_at is not None:
                    part = VersionTarget(row.model, row.number, row.target)
                    reviewed[part] = max(drawn_at, reviewed.get(part, 0.0))
            existing[_key(row)] = row
            session.add(row)
            submission.status = FeedbackItemOutcome.CREATED
            continue
        found.key_id = row.key_id  # which may be a new key of the author, and may delete it
        submission.row, submission.status = found, FeedbackItemOutcome.UNCHANGED
        if any(getattr(found, name) != getattr(row, name) for name in _REPLACED):
            for name in _REPLACED:
                setattr(found, name, getattr(row, name))
            found.updated_at, submission.status = at, FeedbackItemOutcome.UPDATED
    session.flush()
    for part, drawn_at in reviewed.items():
        _count_earlier(session, part, drawn_until=drawn_at)


def _count_earlier(session: Session, part: VersionTarget, *, drawn_until: float) -> None:
    """Let feedback that was there before its text was drawn count as part of the sample, up to the
    last text that was labeled since its draw, or all of it if no drawn text lacks feedback.

    To let it count at once would count the errors that people reported before the other texts.
    """
    if not repository.has_unlabeled_samples(session, part):
        drawn_until = inf
    repository.mark_feedback_sampled(session, part, drawn_until=drawn_until)


def _key(row: Feedback) -> FeedbackKey:
    return FeedbackKey(row.model, row.target, row.author, row.subject)


def _hashes(row: Feedback) -> list[str]:
    return [each for each in (row.text_hash, row.first_hash, row.second_hash) if each is not None]


# -- Reviews: random samples of kept predictions ---------------------------------------------------


def create_review_sample(
    database: Database,
    store: Store,
    *,
    ref: str,
    count: int,
    flush_traffic: Callable[[], None],
) -> ReviewSample:
    """Return up to `count` texts to label: those of earlier samples that have no feedback yet, and
    as many new ones as are missing.

    New ones are drawn uniformly from all kept predictions that were not drawn before, also from
    those with feedback: to leave these out would leave out the errors that people report. So the
    answer may have fewer texts.

    Raises `TrafficNotKept`, and what `registry.resolve_model` and `read_io_schema` raise.
    """
    flush_traffic()
    with database.read() as session:
        resolved = registry.resolve_model(session, ref)
    outputs = read_io_schema(store, resolved)
    name, number = resolved.name, resolved.number
    with database.read() as session:
        before = traffic.list_review_sample(session, model=name, number=number, limit=MAX_SAMPLED)
        missing = max(0, count - len(_missing_targets(session, before, outputs)))
        keys = traffic.draw_review_sample(session, model=name, number=number, count=missing)
    with database.write() as session:
        privacy.lock_text_storage(session)
        before = traffic.list_review_sample(session, model=name, number=number, limit=MAX_SAMPLED)
        waiting = _missing_targets(session, before, outputs)
        # The first of a random order are a random sample, whatever others drew meanwhile.
        drawn = traffic.mark_review_sample(session, keys, count=max(0, count - len(waiting)))
        if not (before or drawn):
            raise TrafficNotKept(version=resolved.ref)
        for target in outputs.targets:
            part = VersionTarget(resolved.name, resolved.number, target)
            _count_earlier(session, part, drawn_until=0.0)
        new = _missing_targets(session, drawn, outputs)
    return _review(resolved, outputs, [*waiting, *new][:count], drawn=len(drawn), new=len(new))


def get_review_sample(database: Database, store: Store, *, ref: str) -> ReviewSample:
    """Return the texts of earlier samples that have no feedback yet. Draws none.

    Raises what `registry.resolve_model` and `read_io_schema` raise.
    """
    with database.read() as session:
        resolved = registry.resolve_model(session, ref)
    outputs = read_io_schema(store, resolved)
    with database.read() as session:
        sampled = traffic.list_review_sample(
            session, model=resolved.name, number=resolved.number, limit=MAX_SAMPLED
        )
        waiting = _missing_targets(session, sampled, outputs)
    return _review(resolved, outputs, waiting, drawn=0, new=0)


_Waiting = tuple[KeptPrediction, list[str]]  # and its targets without feedback


def _missing_targets(
    session: Session, predictions: Sequence[KeptPrediction], outputs: ModelIOSchema
) -> list[_Waiting]:
    """Return those of the predictions that lack feedback on any of their targets."""
    labeled = repository.labeled_targets_by_prediction(
        session, [_text_key(each) for each in predictions]
    )
    waiting = []
    for each in predictions:
        targets = list(outputs.targets) if each.target is None else [each.target]
        done = labeled.get(_text_key(each), set())
        if missing := [name for name in targets if name not in done]:
            waiting.append((each, missing))
    return waiting


def _review(
    resolved: ResolvedModel,
    outputs: ModelIOSchema,
    waiting: Sequence[_Waiting],
    *,
    drawn: int,
    new: int,
) -> ReviewSample:
    return ReviewSample(
        version=resolved.ref,
        drawn=drawn,
        already_labeled=drawn - new,
        data=[review_text_view(each, missing, outputs) for each, missing in waiting],
    )


def _text_key(prediction: KeptPrediction) -> KeptPredictionKey:
    return KeptPredictionKey(prediction.prediction_id, prediction.position)
