"""What active jobs read is counted before it is deleted."""

from app.database.base import now
from app.database.engines import Database
from app.queue.active_jobs import count_active_jobs
from app.queue.enums import JobState
from app.queue.tables import Job
from tests.job_rows import add_job, claim_next, update_job


def test_queued_and_running_jobs_are_counted(database: Database) -> None:
    ended, *_ = [add_job(database, base="sentiment:1") for _ in range(4)]
    add_job(database, base="other:1")
    update_job(database, ended, state=JobState.SUCCEEDED, finished_at=now())
    claim_next(database)
    with database.read() as session:
        assert count_active_jobs(session, Job.base == "sentiment:1") == 3
