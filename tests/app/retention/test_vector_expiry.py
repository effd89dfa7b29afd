"""Tests of how long the vectors of labeling projects are kept."""

from collections.abc import Callable
from uuid import UUID

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import new_id, now
from app.datasets.tables import Dataset
from app.labeling.tables import LabelingProject
from app.queue.enums import JobKind
from app.queue.tables import Job
from app.resources import Resources
from app.retention.files import DataKind
from app.retention.service import collect_garbage
from app.storage import repository as artifacts
from app.storage.tables import VECTORS_KIND
from tests.app.retention.conftest import World
from tests.job_rows import update_job
from tests.slow import on_both_databases

Keeping = Callable[..., Resources]


def vectors(world: World, *, days: float) -> UUID:
    """Create a job that computed vectors this many days ago."""
    job_id = world.job(days=days)
    ref = world.files(f"vectors/{job_id}/a1", days=days)
    with world.database.write() as session:
        artifact = artifacts.add_artifact(session, job_id=job_id, kind=VECTORS_KIND, ref=ref)
    update_job(world.database, job_id, artifact_id=artifact.id, kind=JobKind.EMBEDDING)
    return job_id


def project(world: World, job_id: UUID, *, deleted: bool = False) -> None:
    """Create a labeling project that uses the vectors of a job."""
    dataset = Dataset(
        id=new_id(), created_by=LOCAL_KEY_ID, name=f"texts-{job_id.hex[-8:]}", version=1,
        filename="texts.csv", suffix=".csv", sha256="0" * 64, bytes=1, text_column="text",
        label_column=None, rows=1, profile={"rows": 1, "labels": {}, "split_column": None},
    )  # fmt: skip
    with world.database.write() as session:
        session.add(dataset)
        session.flush()
        if deleted:
            dataset.deleted_at = now()
        session.add(
            LabelingProject(
                created_by=LOCAL_KEY_ID, name=f"project-{job_id.hex[-8:]}", dataset_id=dataset.id,
                task="single_label", ordered=False, labels=[], base="minilm-l6", job_id=job_id,
                random_share=0.2, overlap=0.0, seed=0,
            )
        )  # fmt: skip


@on_both_databases
def test_vectors_are_kept_as_long_as_a_project_uses_them(world: World, keeping: Keeping) -> None:
    used, unused, of_deleted_texts, recent = (
        vectors(world, days=days) for days in (9.0, 9.0, 9.0, 2.0)
    )
    project(world, used)
    project(world, of_deleted_texts, deleted=True)
    result = collect_garbage(keeping(keep_prediction_days=3))
    assert {(removal.kind, removal.key) for removal in result.removals} == {
        (DataKind.VECTORS, f"vectors/{job_id}/a1") for job_id in (unused, of_deleted_texts)
    }
    assert world.left() == {f"vectors/{job_id}/a1" for job_id in (used, recent)}
    assert world.row(unused).artifact_id is None
    assert world.row(used).artifact_id is not None


def test_the_job_of_a_project_is_kept(world: World, keeping: Keeping) -> None:
    used, unused = vectors(world, days=9), vectors(world, days=9)
    project(world, used)
    result = collect_garbage(keeping(keep_job_days=3, keep_prediction_days=None))
    assert {(removal.kind, removal.key) for removal in result.removals} == {
        (DataKind.JOB, str(unused)),
        (DataKind.VECTORS, f"vectors/{unused}/a1"),
    }
    with world.database.read() as session:
        assert session.get(Job, used) is not None
        assert session.get(Job, unused) is None


def test_orphaned_vectors_are_collected_like_models(world: World) -> None:
    world.files(f"vectors/{new_id()}/a1")
    [removal] = collect_garbage(world.resources).removals
    assert removal.kind is DataKind.VECTORS
    assert world.left() == set()
