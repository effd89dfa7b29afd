"""Brings the checkpoints of one attempt into the store, and the last good one back out."""

import shutil
from pathlib import Path

import structlog

from app.errors import AppError
from app.queue import checkpoints
from app.queue.fencing import Lease, StoredCheckpoint
from app.queue.transitions import Told
from app.resources import Resources
from app.storage.store import CHECKPOINTS
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.events import CheckpointSaved
from worker.failures import Fenced
from worker.recorder import Recorder

log = structlog.get_logger(__name__)


class Keeper:
    """A checkpoint that cannot be stored costs the training nothing: the last one still counts."""

    def __init__(
        self, resources: Resources, lease: Lease, recorder: Recorder, directory: Path
    ) -> None:
        self._resources = resources
        self._lease = lease
        self._recorder = recorder
        self._directory = directory  # where the training process leaves them

    def keep(self, event: CheckpointSaved) -> None:
        """Store it. Its row is written with the next beat."""
        made = self._directory / Path(event.directory).name
        key = f"{CHECKPOINTS}/{self._lease.job_id}/a{self._lease.attempt}/step-{event.step}"
        try:
            with self._recorder.beating():
                ref = self._resources.store.put(made, key)
        except (AppError, LoraCoreError, OSError) as error:
            log.warning("a checkpoint could not be stored", step=event.step, error=str(error))
            reason = error.strerror if isinstance(error, OSError) else str(error)
            message = f"The checkpoint of step {event.step:,} could not be stored: {reason}"
            self._recorder.note(Told("checkpoint_lost", "warning", message, {"step": event.step}))
        else:
            self._recorder.note_stored(event.step, ref)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def fetch(
        self, checkpoint: StoredCheckpoint | None
    ) -> tuple[StoredCheckpoint | None, Path | None]:
        """The newest whole one from `checkpoint` on, and where it lies. Raises `Fenced`."""
        while checkpoint is not None:
            try:
                with self._recorder.beating():
                    return checkpoint, self._resources.store.verified(checkpoint.ref)
            except ArtifactCorrupt as error:
                checkpoint = self.reject(checkpoint, error.detail["problem"])
        return None, None

    def reject(self, checkpoint: StoredCheckpoint, problem: str) -> StoredCheckpoint | None:
        """The one before. Raises `Fenced`."""
        log.warning("a checkpoint cannot be used", step=checkpoint.step, problem=problem)
        with self._resources.database.write() as session:
            rewound = checkpoints.reject(session, self._lease, checkpoint, problem)
            session.commit()
        if rewound is None:
            raise Fenced()
        return rewound.checkpoint
