"""Old reports on suspect labels are deleted; other datasets keep theirs."""

from sqlalchemy import select, update

from app.database.base import now
from app.label_review.tables import StoredSuspects
from app.retention import repository
from app.retention.service import collect_garbage
from tests.app.retention.conftest import DAY, World
from tests.app.retention.test_garbage_collection import upload


def test_old_reports_are_deleted(world: World) -> None:
    old, new = (upload(world, deleted=False) for _ in range(2))
    with world.database.write() as session:
        for dataset, target in ((old, "a"), (old, "b"), (new, "")):
            session.add(StoredSuspects(dataset_id=dataset.id, target=target, report={}))
        session.flush()
        session.execute(
            update(StoredSuspects)
            .where(StoredSuspects.dataset_id == old.id)
            .values(created_at=now() - repository.SUSPECTS_SECONDS - DAY)
        )
    collect_garbage(world.resources, dry_run=True)
    with world.database.read() as session:
        assert len(session.scalars(select(StoredSuspects)).all()) == 3
    collect_garbage(world.resources)
    with world.database.read() as session:
        assert [each.dataset_id for each in session.scalars(select(StoredSuspects))] == [new.id]
