"""Sends to MLflow what it lacks: runs in the order of their jobs, then versions and aliases.

What is sent is read from the rows of jobs and models at that moment, so that a server that was away
gets the present state, however much happened in between. Nothing here can delay or fail a job: no
transaction is open during a request, and the progress is stored after each one. A process that dies
in between sends the last request again, which changes nothing in MLflow; what it creates is found
by its tag.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from app.database.base import now, read_clock
from app.database.engines import Database
from app.mlflow import repository, run_data
from app.mlflow.client import DOES_NOT_EXIST, METRICS_PER_BATCH, MlflowClient, RunStatus
from app.mlflow.connection import MlflowConnection
from app.mlflow.errors import MlflowError, MlflowRejected
from app.mlflow.repository import MlflowLeaseLost
from app.mlflow.run_data import to_milliseconds
from app.outbox.enums import MlflowSyncState
from app.outbox.tables import MlflowModel, MlflowRun
from app.queue.tables import Job
from app.registry import repository as registry
from app.registry.schemas import VersionView
from app.registry.tables import RegisteredModel
from app.registry.views import version_view
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep

PROGRESS_SECONDS = 5.0  # between two looks at the curves of a running job
PAGE_SIZE = 50  # runs per query
FIRST_REJECTION_SECONDS = 60.0  # until what was rejected is sent again; doubles each time
MAX_REJECTION_SECONDS = 10_800.0
MAX_REJECTIONS = 10  # then a run, or the changes of a model, are given up
_MAX_DOUBLINGS = 20

log = structlog.get_logger(__name__)


def send_due(
    database: Database,
    connection: MlflowConnection,
    *,
    public_url: str,
    should_stop: Callable[[], bool],
) -> bool:
    """Send all that is due. Return False if nothing is, or if another worker sends.

    `public_url` is that of this service, for links. An error of MLflow is recorded, not raised.
    Raises `OUTAGE_ERRORS`: what was not recorded is then sent again.
    """
    with database.read() as session:
        if not repository.has_due_work(session):
            return False
    with database.write() as session:
        claimed = repository.claim_server(session, connection)
    if claimed is None:
        return False
    with suppress(MlflowLeaseLost):
        error: MlflowError | None = None
        try:
            with MlflowClient(connection) as client:
                experiment_id = client.get_or_create_experiment(connection.experiment)
                _Sender(
                    database, client, claimed.attempt, experiment_id, public_url, should_stop
                ).send_all()
        except MlflowError as caught:
            error = caught
        with database.write() as session:
            repository.release_server_and_record_outcome(session, claimed.attempt, error)
        if error is not None and not claimed.failures:
            log.warning("mlflow failed", code=error.code, error=str(error))
        elif error is None and claimed.failures:
            log.info("mlflow works again")
    return True


@dataclass(frozen=True)
class _Sender:
    """One claim of the server.

    Writes raise `MlflowLeaseLost` once another worker has claimed it.
    """

    database: Database
    client: MlflowClient
    attempt: int
    experiment_id: str
    public_url: str
    should_stop: Callable[[], bool]

    def send_all(self) -> None:
        """Send what is due. An error of the server ends it; a rejection concerns one run or model.

        Raises `MlflowError`.
        """
        with self.database.write() as session:
            repository.renew_lease_and_update_server(
                session, self.attempt, experiment_id=self.experiment_id
            )
        after = None
        while True:
            with self.database.read() as session:
                runs = repository.list_due_runs(session, after=after, limit=PAGE_SIZE)
            for run in runs:
                if self.should_stop():
                    return
                self._send_run(run)
            if len(runs) < PAGE_SIZE:
                break
            after = runs[-1].id
        with self.database.read() as session:
            models = repository.list_due_model_ids(session)
        for model_id in models:
            if self.should_stop():
                return
            self._send_model(model_id)

    # Runs

    def _send_run(self, run: MlflowRun) -> None:
        with self.database.read() as session:
            sweep = session.get(Sweep, run.id)
        try:
            if sweep is None:
                self._send_job(run)
            else:
                self._send_sweep(run, sweep)
        except MlflowRejected as error:
            log.warning("mlflow rejected a run", job_id=str(run.id), error=str(error))
            rejection = _rejection(run, error)
            if error.error_code == DOES_NOT_EXIST:  # MLflow lost the run: it is created again
                rejection |= repository.UNSENT_RUN
            if error.is_permanent and run.failures + 1 >= MAX_REJECTIONS:
                rejection["state"] = MlflowSyncState.FAILED
            self._save(run, **rejection)
            if not error.is_permanent:
                raise

    def _send_job(self, run: MlflowRun) -> None:
        """Send the parameters, the curves so far, and the end of a job if it has ended."""
        while True:
            with self.database.read() as session:
                job = session.get(Job, run.id)
                points = repository.list_metric_points(
                    session, run.id, after=run.seq, limit=METRICS_PER_BATCH
                )
            if job is None:
                self._end_deleted(run)
                return
            run_id = run.run_id or self._start_job(run, job)
            # Before the first point, the settings may not be resolved.
            if not run.has_params and (points or job.finished_at is not None):
                self.client.log_params(run_id, run_data.job_params(job.spec))
                self._save(run, has_params=True)
            # A resumed job reports points again. Those of an exact resume have the same values.
            new = [
                each for each in points if each.step > run.steps.get(run_data.metric_key(each), -1)
            ]
            self.client.log_metrics(run_id, [run_data.build_metric(each) for each in new])
            complete = len(points) < METRICS_PER_BATCH
            self._save(
                run,
                seq=job.stream_seq if complete else points[-1].seq,
                steps=run.steps | {run_data.metric_key(each): each.step for each in new},
            )
            if complete:
                break
        if job.finished_at is not None:
            self.client.log_metrics(run_id, run_data.final_metrics(job))
            self.client.set_tags(run_id, run_data.final_job_tags(job))
            self._set_status(run, run_id, run_data.JOB_STATUSES[job.state], job.finished_at)
            self._save(run, state=MlflowSyncState.SENT)
        else:
            later = now() + PROGRESS_SECONDS
            self._save(run, next_attempt_at=later, failures=0, last_error=None)

    def _start_job(self, run: MlflowRun, job: Job) -> str:
        parent_run_id = self._parent_run_id(job.sweep_id) if job.sweep_id else None
        with self.database.read() as session:
            digests = repository.list_dataset_digests(session, job)
        tags = run_data.job_tags(
            job,
            url=f"{self.public_url}/jobs/{job.id}",
            dataset_digests=digests,
            parent_run_id=parent_run_id,
        )
        return self._start_run(run, job.name or str(job.id), job.started_at or job.created_at, tags)

    def _start_run(
        self, run: MlflowRun, name: str, started_at: float, tags: Mapping[str, str]
    ) -> str:
        """Return the run in MLflow: a new one, unless a process died after it had created it."""
        run_id = self._find_run(run)
        if run_id is None:
            run_id = self.client.create_run(
                self.experiment_id,
                name=name[: run_data.MAX_NAME_LENGTH],
                start_time=to_milliseconds(started_at),
                tags=tags,
            )
        self._save(run, run_id=run_id, status="RUNNING")
        return run_id

    def _find_run(self, run: MlflowRun) -> str | None:
        return self.client.find_run_id_by_tag(self.experiment_id, run_data.RUN_TAG, str(run.id))

    def _parent_run_id(self, sweep_id: UUID) -> str | None:
        """Return the run of a sweep, which begins with that of its first job. None: deleted."""
        with self.database.read() as session:
            parent, sweep = (
                repository.find_sent_run(session, sweep_id),
                session.get(Sweep, sweep_id),
            )
        if parent is not None and parent.run_id is not None:
            return parent.run_id
        if sweep is None:
            return None
        tags = run_data.sweep_tags(sweep, url=f"{self.public_url}/sweeps/{sweep.id}")
        parent = parent or MlflowRun(id=sweep_id)
        return self._start_run(parent, sweep.name or f"sweep {sweep.id}", sweep.created_at, tags)

    def _send_sweep(self, run: MlflowRun, sweep: Sweep) -> None:
        """Let the status of the run follow that of the sweep, which may go on after its end."""
        run_id = run.run_id or self._parent_run_id(sweep.id)
        if run_id is not None:
            status = run_data.SWEEP_STATUSES[SweepState(sweep.state)]
            self._set_status(run, run_id, status, sweep.finished_at)

    def _end_deleted(self, run: MlflowRun) -> None:
        """End the run of a job or sweep that was deleted before MLflow had its end."""
        run_id = run.run_id or self._find_run(run)
        if run_id is not None and run.status in (None, "RUNNING"):
            with self.database.read() as session:
                deleted_at = read_clock(session)
            self.client.set_tags(run_id, {run_data.DELETED_TAG: "true"})
            self._set_status(run, run_id, "KILLED", deleted_at)
        self._save(run, state=MlflowSyncState.SENT)

    def _set_status(
        self, run: MlflowRun, run_id: str, status: RunStatus, ended_at: float | None
    ) -> None:
        end_time = None if ended_at is None else to_milliseconds(ended_at)
        self.client.update_run(run_id, status=status, end_time=end_time)
        self._save(run, status=status, failures=0, last_error=None)

    # Models

    def _send_model(self, model_id: UUID) -> None:
        with self.database.read() as session:
            sent = repository.find_sent_model(session, model_id)
            changes = repository.list_unsent_change_ids(session, model_id)
        if sent is None:
            sent = MlflowModel(model_id=model_id)
            self._save(sent, versions={}, aliases={}, failures=0)
        try:
            self._send_versions_and_aliases(sent, changes)
        except MlflowRejected as error:
            log.warning("mlflow rejected a model", model_id=str(model_id), error=str(error))
            rejection = _rejection(sent, error)
            if error.error_code == DOES_NOT_EXIST:  # MLflow lost the model or a version of it
                rejection |= {"versions": {}, "aliases": {}}
            gives_up = error.is_permanent and sent.failures + 1 >= MAX_REJECTIONS
            if gives_up:  # until the next change, which is tried at once
                rejection |= {"failures": 0, "next_attempt_at": now()}
            self._save(sent, **rejection)
            if gives_up:
                with self.database.write() as session:
                    repository.delete_outbox_changes(session, changes)
            if not error.is_permanent:
                raise

    def _send_versions_and_aliases(self, sent: MlflowModel, changes: Sequence[UUID]) -> None:
        """Create versions that MLflow lacks, move aliases, and tag versions that were deleted.

        Then delete the rows of these changes. Later ones stay.
        """
        with self.database.read() as session:
            name = session.get_one(RegisteredModel, sent.model_id).name
            versions = {
                str(each.number): (each.id, version_view(name, each))
                for each in reversed(registry.list_versions(session, sent.model_id))
            }
            targets = registry.get_version_numbers_by_alias(session, sent.model_id)
        new = [number for number in versions if number not in sent.versions]
        if new:
            self.client.ensure_model(name)
        for number in new:
            mlflow_version = self._create_version(name, *versions[number])
            self._save(sent, versions=sent.versions | {number: mlflow_version})
        aliases = {
            alias: sent.versions[str(number)]
            for alias, number in targets.items()
            if run_data.accepts_alias(alias)
        }
        for alias in sent.aliases.keys() - aliases.keys():
            self._renew()
            self.client.delete_alias(name, alias)
        for alias, mlflow_version in aliases.items():
            if sent.aliases.get(alias) != mlflow_version:
                self._renew()
                self.client.set_alias(name, alias, mlflow_version)
        for number in sent.versions.keys() - versions.keys():
            self._renew()
            deleted = sent.versions[number]
            self.client.set_version_tag(name, deleted, run_data.DELETED_TAG, "true")
        kept = {number: each for number, each in sent.versions.items() if number in versions}
        self._save(sent, versions=kept, aliases=aliases, failures=0, last_error=None)
        with self.database.write() as session:
            repository.delete_outbox_changes(session, changes)

    def _create_version(self, name: str, version_id: UUID, version: VersionView) -> str:
        """Return the version in MLflow, as `_start_run` does the run."""
        found = self.client.find_version(name, run_data.VERSION_TAG, str(version_id))
        if found is not None:
            return found
        run: MlflowRun | None = None
        if version.job_id is not None:
            with self.database.read() as session:
                run = repository.find_sent_run(session, version.job_id)
        url = f"{self.public_url}/models/{name}#version-{version.number}"
        return self.client.create_version(
            name,
            source=run_data.version_source(version),
            run_id=run.run_id if run else None,
            description=run_data.version_description(version, url=url),
            tags=run_data.version_tags(version, version_id=version_id, url=url),
        )

    def _save(self, row: MlflowRun | MlflowModel, **values: Any) -> None:
        """Store what was sent, in a row that was read before or is new.

        Raises `MlflowLeaseLost`.
        """
        with self.database.write() as session:
            repository.renew_lease_after_success(session, self.attempt)
            session.add(row)
            for name, value in values.items():
                setattr(row, name, value)

    def _renew(self) -> None:
        """Renew the lease before one of many requests without a `_save`.

        Raises `MlflowLeaseLost`.
        """
        with self.database.write() as session:
            repository.renew_lease_after_success(session, self.attempt)


def _rejection(row: MlflowRun | MlflowModel, error: MlflowRejected) -> dict[str, Any]:
    """Return the columns of a row after a rejection: what was rejected is sent again later."""
    doublings = min(row.failures, _MAX_DOUBLINGS)
    delay = min(FIRST_REJECTION_SECONDS * 2**doublings, MAX_REJECTION_SECONDS)
    return {
        "failures": row.failures + 1,
        "next_attempt_at": now() + delay,
        "last_error": str(error),
    }
