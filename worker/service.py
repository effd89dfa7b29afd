"""A worker: poller, reconciler, senders and garbage collector in threads, until it drains."""

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Event as Flag
from typing import TypeVar
from uuid import UUID

import structlog
from pydantic import ValidationError

from app import logging
from app.database import migrations
from app.database.errors import OUTAGE_ERRORS
from app.errors import AppError
from app.mlflow.connection import parse_mlflow_settings
from app.queue.tables import Job
from app.resources import Resources, open_resources
from app.retention import service as retention
from app.retraining.scheduler import start_and_advance_runs
from app.sandbox.missing_confinement import log_missing_confinement
from app.settings import Settings
from app.storage.data_dir import make_process_private
from worker import (
    cache_upkeep,
    child_confinement,
    drift,
    mlflow,
    process_identity,
    webhooks,
    workdir,
)
from worker.background import repeat_until_drained
from worker.devices import CPU, Device, SlotPool, select_devices
from worker.failures import is_disk_error
from worker.fork_server_supervisor import ForkServerSupervisor
from worker.host_health import HostHealthChecker
from worker.job_runner import JobRunner
from worker.outages import brief_error_message
from worker.poller import Poller
from worker.reconciler import Reconciler
from worker.spawn import spawn_child

FINAL_WRITE_SECONDS = 30.0  # for the last transactions, after the stop grace of the trainings
DEREGISTER_SECONDS = 5.0  # to remove the worker's own row
FIRST_COLLECTION_SECONDS = 60.0  # until the first garbage collection, after the worker has started
COLLECTION_INTERVAL_SECONDS = 3600.0  # between two of them
EX_CONFIG = 78  # exit status from sysexits.h

_Opened = TypeVar("_Opened")

log = structlog.get_logger(__name__)


class WorkerService:
    """Runs the worker's threads, whether Celery or `python -m worker` started the process."""

    def __init__(self, resources: Resources, devices: Sequence[Device]) -> None:
        settings = resources.settings
        self._resources = resources
        self._identity = process_identity.current_worker()
        self._draining = threading.Event()
        self._drain_requests = SimpleQueue[None]()
        self._slots = SlotPool(
            devices, cpu_slots=settings.concurrency, lock_dir=workdir.device_lock_dir(settings)
        )
        host_health = HostHealthChecker(resources)
        device_names = self._slots.device_name_per_slot()
        self._reconciler = Reconciler(
            resources,
            self._identity,
            draining=self._draining,
            devices=device_names,
            host_health=host_health,
        )
        self._reconciler_thread = _daemon_thread(self._reconciler.run, "reconciler")
        self._garbage_collector = GarbageCollector(resources, draining=self._draining)
        self._fork_server = ForkServerSupervisor()
        deliverer = webhooks.WebhookDeliverer(resources, draining=self._draining)
        check_drift = partial(drift.run_due_drift_checks, resources, draining=self._draining)
        self._background = [self._garbage_collector.run_until_drained, self._drain_on_request]
        self._repeated: list[tuple[str, Callable[[], object], float]] = [  # name, task, seconds
            ("webhooks", deliverer.start_due, webhooks.POLL_SECONDS),
            ("drift", check_drift, drift.POLL_SECONDS),
            ("cache", partial(cache_upkeep.tidy_cache, resources), cache_upkeep.POLL_SECONDS),
            ("retraining", partial(start_and_advance_runs, resources), settings.reconcile_seconds),
        ]
        if (connection := parse_mlflow_settings(settings)) is not None:
            sender = mlflow.MlflowSender(resources, connection, draining=self._draining)
            self._repeated.append(("mlflow", sender.send_due, mlflow.POLL_SECONDS))
        spawn = spawn_child
        if settings.fork_server and CPU in devices:
            spawn = self._fork_server.spawn
            self._background.append(self._fork_server.run_until_closed)
        runner = JobRunner(resources, draining=self._draining, host_health=host_health, spawn=spawn)
        self._poller = Poller(
            resources,
            self._identity,
            runner,
            self._slots,
            draining=self._draining,
            host_health=host_health,
        )

    def start(self) -> None:
        """Start the threads, after killing what a dead worker left running."""
        log_missing_confinement()
        child_confinement.log_exposed_data(self._resources.settings.data_dir)
        self._reconciler.run_once()
        self._reconciler_thread.start()
        for target in (self._poller.run, *self._background):
            _daemon_thread(target, target.__qualname__).start()
        for name, task, seconds in self._repeated:
            repeated = partial(
                repeat_until_drained, task, name=name, seconds=seconds, draining=self._draining
            )
            _daemon_thread(repeated, name).start()
        log.info(
            "worker ready", worker=self._identity.id, devices=self._slots.device_name_per_slot()
        )

    def run_job(self, job_id: UUID) -> Job | None:
        """Wait for a free slot, then run a job to the end of its attempt if it can be claimed.

        Return the row of the job afterwards, whether it ran or not; `None`: there is no such job.
        Raises `OUTAGE_ERRORS`.
        """
        self._poller.wait_for_slot_and_run_job(job_id)
        with self._resources.database.read() as session:
            return session.get(Job, job_id)

    def request_drain(self) -> None:
        """Stop the trainings and requeue their jobs.

        Safe in a signal handler, even when it interrupts this same method.
        """
        self._drain_requests.put(None)  # `SimpleQueue.put` is reentrant

    def requeue_jobs_and_wait(self) -> bool:
        """Drain and wait. Return whether every job was requeued in time."""
        self.request_drain()
        grace = self._resources.settings.stop_grace_seconds
        idle = self._draining.wait(FINAL_WRITE_SECONDS) and self._slots.wait_idle(
            grace + FINAL_WRITE_SECONDS
        )
        self._reconciler.stop()
        self._reconciler_thread.join(DEREGISTER_SECONDS)
        log.info("worker stopped", idle=idle)
        return idle

    def close(self) -> None:
        """End the fork server, and close the database and the other resources."""
        self._fork_server.close()
        self._resources.close()

    def _drain_on_request(self) -> None:
        self._drain_requests.get()
        log.info("draining")
        self._draining.set()
        self._poller.wake()


class GarbageCollector:
    """Runs garbage collection every hour, in a thread of its own: in a large bucket it takes long.

    It is safe to interrupt by ending the process.
    """

    def __init__(self, resources: Resources, *, draining: Flag) -> None:
        self._resources = resources
        self._draining = draining

    def run_until_drained(self) -> None:
        """Run until the worker drains."""
        pause = FIRST_COLLECTION_SECONDS
        while not self._draining.wait(pause):
            self._collect()
            pause = COLLECTION_INTERVAL_SECONDS

    def _collect(self) -> None:
        try:
            retention.collect_garbage(self._resources)
        except OUTAGE_ERRORS as error:
            log.warning("the database is unreachable", error=brief_error_message(error))
        except Exception as error:
            expected = isinstance(error, AppError) or is_disk_error(error)
            log.error("garbage collection failed", error=str(error), exc_info=not expected)


def start_or_exit(start: Callable[[Settings], _Opened]) -> _Opened:
    """Return `start(settings)`. On an error, log it and exit with `EX_CONFIG`."""
    logging.configure()
    make_process_private()
    try:
        settings = Settings()
        logging.configure(settings.log_level)
        return start(settings)
    except (AppError, ValidationError) as error:
        code = getattr(error, "code", "invalid_setting")
        log.error("cannot start the worker", code=code, error=str(error))
        sys.exit(EX_CONFIG)


def open_service(settings: Settings, *, devices: Sequence[Device] = ()) -> WorkerService:
    """Return a worker that is ready to start, on `devices` or those of the settings.

    Raises `AppError` if data directory, database, schema, store, broker, or devices are unusable,
    or if the settings of MLflow are invalid.
    """
    resources = open_resources(settings)
    try:
        workdir.check_writable(settings)  # otherwise it would claim jobs and fail to run them
        migrations.check_schema_revision(resources.database)
        return WorkerService(resources, devices or select_devices(settings.devices))
    except BaseException:
        resources.close()
        raise


def _daemon_thread(target: Callable[[], None], name: str) -> threading.Thread:
    return threading.Thread(target=target, name=name, daemon=True)
