"""Annotators at the same time, on both databases: no text is given twice, no label is lost."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import func, select

from app.auth.middleware import LOCAL_CALLER
from app.database.engines import Database
from app.idempotency.service import IdempotentRequest
from app.jobs.pretrained_bases import ResolvedBase
from app.labeling import annotations, repository, service
from app.labeling.errors import AnnotationNotFound
from app.labeling.pools import LabelingPools
from app.labeling.schemas import AnnotationUpdate, LabelingCreate
from app.labeling.tables import (
    LabelingAnnotation,
    LabelingChosenText,
    LabelingLease,
    LabelingProject,
)
from app.queue.tables import Job
from app.resources import Resources
from tests.conformance.conftest import on_sqlite_first
from tests.labeling_rows import forget, label_of, make_pool, text_of

TEXTS = 60
CALL = IdempotentRequest(LOCAL_CALLER.id, "POST /v1/labeling", None, None, 60)
BASE = ResolvedBase("minilm-l6", {}, content_id="0" * 40)


@pytest.fixture
def pools(resources: Resources) -> Iterator[LabelingPools]:
    opened = LabelingPools(resources)
    yield opened
    opened.close()


def create(resources: Resources, directory: Path, *, texts: int = TEXTS, **fields: object) -> None:
    make_pool(resources, directory, texts=texts)
    body = LabelingCreate.model_validate(
        {"name": "mood", "dataset": "reviews", "labels": ["bad", "good"], **fields}
    )
    with resources.database.write() as session:
        service.create_project(
            session, body=body, base=BASE, settings=resources.settings,
            notifier=resources.notifier, call=CALL,
        )  # fmt: skip


def take(database: Database, pools: LabelingPools, annotator: str, count: int = 1) -> list[int]:
    leased = annotations.lease_texts(database, pools, name="mood", annotator=annotator, count=count)
    return [each.row for each in leased.texts]


def label(database: Database, row: int, annotator: str, value: str | None = None) -> None:
    with database.write() as session:
        annotations.upsert_annotation(
            session, name="mood", project_id=repository.get_project(session, "mood").id,
            row=row, body=AnnotationUpdate(label=value or label_of(row)),
            annotator=annotator, caller=LOCAL_CALLER, hashes=None,
        )  # fmt: skip


def expire_leases(database: Database) -> None:
    with database.write() as session:
        for lease in session.scalars(select(LabelingLease)):
            lease.expires_at = 1.0


def annotation_counts(database: Database) -> Counter[int]:
    """How often each text is labeled."""
    with database.read() as session:
        return Counter(session.scalars(select(LabelingAnnotation.row)))


@pytest.mark.parametrize(
    ("overlap", "texts"),
    [
        pytest.param(0.0, TEXTS, marks=pytest.mark.slow),
        pytest.param(1.0, TEXTS, marks=pytest.mark.slow),
        (1.0, TEXTS // 3),
    ],
)
def test_annotators_at_once_label_every_text_as_often_as_wanted(
    resources: Resources, tmp_path: Path, overlap: float, texts: int
) -> None:
    """Each annotator has pools of its own, like the processes of a service."""
    create(resources, tmp_path, texts=texts, overlap=overlap)
    database, annotators = resources.database, 4
    start = Barrier(annotators)

    def work(name: str) -> list[int]:
        own, done = LabelingPools(resources), []
        start.wait(30)
        while rows := take(database, own, name, 3):
            for row in rows:
                label(database, row, name)
                done.append(row)
        own.close()
        return done

    with ThreadPoolExecutor(annotators) as executor:
        by_annotator = list(executor.map(work, [f"annotator {n}" for n in range(annotators)]))
    wanted = 2 if overlap else 1
    assert annotation_counts(database) == dict.fromkeys(range(1, texts + 1), wanted)
    for done in by_annotator:
        assert len(set(done)) == len(done)  # nobody labels a text twice
    with database.read() as session:
        project = session.scalars(select(LabelingProject)).one()
        positions = session.scalars(select(LabelingChosenText.position)).all()
        assert (project.chosen, project.changes) == (texts, wanted * texts)
        assert sorted(positions) == list(range(texts))
        assert session.scalar(select(func.count()).select_from(LabelingLease)) == 0
        assert session.scalar(select(func.sum(LabelingChosenText.missing))) == 0


def test_a_text_that_is_held_is_given_to_nobody_else(
    resources: Resources, pools: LabelingPools, tmp_path: Path
) -> None:
    create(resources, tmp_path)
    held = {name: take(resources.database, pools, name, 20) for name in ("ann", "bob", "cid")}
    assert Counter(row for rows in held.values() for row in rows) == dict.fromkeys(
        range(1, TEXTS + 1), 1
    )
    assert take(resources.database, pools, "dan") == []
    expire_leases(resources.database)
    assert take(resources.database, pools, "dan", 20) == held["ann"]
    assert take(resources.database, pools, "ann", 20) == held["bob"]  # its own are gone


def test_labels_for_one_text_at_once_are_one_label(
    resources: Resources, pools: LabelingPools, tmp_path: Path
) -> None:
    create(resources, tmp_path)
    [row] = take(resources.database, pools, "ann")
    start = Barrier(6)

    def send(n: int) -> None:
        start.wait(30)
        label(resources.database, row, "ann", ("bad", "good")[n % 2])

    with ThreadPoolExecutor(6) as executor:
        list(executor.map(send, range(6)))
    assert annotation_counts(resources.database) == {row: 1}
    with resources.database.read() as session:
        assert session.scalars(select(LabelingChosenText.missing)).one() == 0


def test_undo_and_label_at_once_leave_the_counts_right(
    resources: Resources, pools: LabelingPools, tmp_path: Path
) -> None:
    create(resources, tmp_path)
    [row] = take(resources.database, pools, "ann")
    start = Barrier(4)

    def send(n: int) -> None:
        start.wait(30)
        if n % 2:
            label(resources.database, row, "ann")
            return
        try:
            with resources.database.write() as session:
                annotations.delete_annotation_and_lease_text(
                    session, name="mood", row=row, annotator="ann"
                )
        except AnnotationNotFound:
            pass

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(send, range(4)))
    with resources.database.read() as session:
        missing = session.scalars(select(LabelingChosenText.missing)).one()
    assert missing == 1 - annotation_counts(resources.database)[row]


def test_projects_created_at_once_share_their_vectors(resources: Resources, tmp_path: Path) -> None:
    make_pool(resources, tmp_path, texts=TEXTS)
    start = Barrier(4)

    def create_one(n: int) -> None:
        body = LabelingCreate(name=f"project-{n}", dataset="reviews")
        start.wait(30)
        with resources.database.write() as session:
            service.create_project(
                session, body=body, base=BASE, settings=resources.settings,
                notifier=resources.notifier, call=CALL,
            )  # fmt: skip

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(create_one, range(4)))
    with resources.database.read() as session:
        [job] = session.scalars(select(Job))
        assert set(session.scalars(select(LabelingProject.job_id))) == {job.id}


def test_values_of_every_task_are_stored_as_sent(
    resources: Resources, pools: LabelingPools, tmp_path: Path
) -> None:
    """JSON null and SQL NULL are not mixed up: skipped texts are not labeled."""
    create(resources, tmp_path, task={"type": "multi_label"})
    rows = take(resources.database, pools, "ann", 3)
    bodies = [{"labels": ["good", "bad"]}, {"labels": []}, {"skipped": True}]
    for row, body in zip(rows, bodies, strict=True):
        with resources.database.write() as session:
            annotations.upsert_annotation(
                session, name="mood", project_id=repository.get_project(session, "mood").id,
                row=row, body=AnnotationUpdate.model_validate(body),
                annotator="ann", caller=LOCAL_CALLER, hashes=None,
            )  # fmt: skip
    with resources.database.read() as session:
        project = repository.get_project(session, "mood")
        labels = repository.read_labels(session, project.id)
        assert {row: [each.value for each in found] for row, found in labels.items()} == {
            rows[0]: [["bad", "good"]], rows[1]: [[]],
        }  # fmt: skip
        assert repository.count_labeled_and_skipped(session, [project])[project.id] == (2, 1)
        assert repository.count_by_annotator(session, project.id) == [("ann", 2, 1)]


@on_sqlite_first
def test_a_forgotten_text_is_deleted_in_every_project(
    resources: Resources, pools: LabelingPools, tmp_path: Path
) -> None:
    create(resources, tmp_path)
    rows = take(resources.database, pools, "ann", 2)
    for row in rows:
        label(resources.database, row, "ann")
        label(resources.database, row, "bob")
    assert forget(resources, text_of(rows[0])) == 2
    assert forget(resources, text_of(rows[0])) == 0
    assert forget(resources, ("never seen", text_of(rows[1]))) == 0
    assert annotation_counts(resources.database) == {rows[1]: 2}
