"""Uploads the checkpoints of one attempt to the store, and fetches the one to resume from."""

import errno
import os
import shutil
from pathlib import Path

import structlog

from app.errors import AppError
from app.queue import checkpoints
from app.queue.events import EventContent
from app.queue.fencing import Lease, StoredCheckpoint
from app.resources import Resources
from app.storage.store import CHECKPOINTS_PREFIX
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.events import CheckpointSaved
from worker.recorder import CheckpointRow, Recorder
from worker.workdir import AttemptDir

log = structlog.get_logger(__name__)


class CheckpointSync:
    """Stores and fetches checkpoints of one attempt.

    A failed upload does not stop the training: the previous checkpoint remains valid.
    """

    def __init__(
        self, resources: Resources, lease: Lease, recorder: Recorder, attempt_dir: AttemptDir
    ) -> None:
        self._resources = resources
        self._lease = lease
        self._recorder = recorder
        self._attempt_dir = attempt_dir

    def store(self, event: CheckpointSaved) -> None:
        """Upload a checkpoint. Its row is written with the next events."""
        local_dir: Path | None = None
        key = f"{CHECKPOINTS_PREFIX}/{self._lease.job_id}/a{self._lease.attempt}/step-{event.step}"
        try:
            local_dir = self._attempt_dir.move_out_of_workspace(
                "checkpoints", Path(event.directory).name
            )
            with self._recorder.renewing_lease():
                ref = self._resources.store.move_directory_into_store(local_dir, key)
        except (AppError, LoraCoreError, OSError) as error:
            log.warning("cannot store a checkpoint", step=event.step, error=str(error))
            # `copytree` lists the errors of files; the store passes on only full disks.
            full = os.strerror(errno.ENOSPC) if isinstance(error, shutil.Error) else None
            reason = full or (isinstance(error, OSError) and error.strerror) or str(error)
            message = f"Cannot store the checkpoint of step {event.step:,}: {reason}"
            self._recorder.add_row(
                EventContent("checkpoint_lost", "warning", message, {"step": event.step})
            )
        else:
            self._recorder.add_row(CheckpointRow(event.step, ref))
        finally:
            if local_dir is not None:
                shutil.rmtree(local_dir.parent, ignore_errors=True)

    def fetch(
        self, checkpoint: StoredCheckpoint | None
    ) -> tuple[StoredCheckpoint | None, Path | None]:
        """Return the newest intact checkpoint, starting at `checkpoint`, and its local path.

        Raises `LeaseLost`.
        """
        while checkpoint is not None:
            try:
                with self._recorder.renewing_lease():
                    return checkpoint, self._resources.store.verified_directory(checkpoint.ref)
            except ArtifactCorrupt as error:
                checkpoint = self.reject_and_rewind(checkpoint, error.detail["problem"])
        return None, None

    def reject_and_rewind(
        self, checkpoint: StoredCheckpoint, problem: str
    ) -> StoredCheckpoint | None:
        """Mark a checkpoint as unusable and return the previous one. Raises `LeaseLost`."""
        log.warning("unusable checkpoint", step=checkpoint.step, problem=problem)
        with self._resources.database.write() as session:
            return checkpoints.reject_checkpoint_and_rewind(
                session, self._lease, checkpoint, problem
            )
