"""Run the jobs of the queue in the process of a test, with the real training and prediction."""

import itertools
from pathlib import Path

from app.queue import leases
from app.queue.enums import DeviceClass, JobKind
from app.queue.fencing import ClaimedJob
from app.queue.transitions import PermanentFailure
from app.resources import Resources
from app.sweeps import scheduler
from lora_core.batch_prediction import predict_file
from lora_core.errors import LoraCoreError
from lora_core.specs.predict import PredictSpec
from lora_core.specs.train import TrainSpec
from lora_core.training.linear import train_linear
from tests.job_rows import ALICE
from tests.recording_observer import RecordingObserver
from worker import finalize
from worker.inputs import resolve_inputs


def run_jobs(
    resources: Resources, directory: Path, *, limit: int = 100, failing: str | None = None
) -> int:
    """Run the queued jobs, all linear, and return how many there were.

    `failing`: with this error code, they fail instead.
    """
    for done in range(limit):
        with resources.database.write() as session:
            claimed = leases.claim_job(
                session,
                owner=ALICE,
                device_class=DeviceClass.CPU,
                device="cpu",
                lease_seconds=600,
            )
        if claimed is None:
            return done
        if failing is None:
            _run(resources, claimed, directory)
        else:
            failure = PermanentFailure(failing, "It is a test.")
            finalize.finish_attempt_without_artifact(resources, claimed.lease, failure)
        scheduler.advance_sweeps_after_job(resources, claimed.lease.job_id)
    return limit


def _run(resources: Resources, claimed: ClaimedJob, directory: Path) -> None:
    out, model = (_new_path(directory) for _ in range(2))
    inputs = resolve_inputs(
        resources.database,
        claimed,
        settings=resources.settings,
        store=resources.store,
        model_dir=model,
    )
    observer = RecordingObserver()
    try:
        if claimed.kind == JobKind.TRAINING:
            spec = TrainSpec.model_validate(inputs.spec)
            train_linear(spec, out_dir=out, observer=observer, stop=observer)
        else:
            predict = PredictSpec.model_validate(inputs.spec)
            predict_file(predict, out_dir=out, observer=observer, stop=observer)
    except LoraCoreError as error:
        failure = PermanentFailure(error.code, inputs.replace_local_paths(str(error)))
        finalize.finish_attempt_without_artifact(resources, claimed.lease, failure)
        return
    finalize.publish_artifact_and_finish_attempt(resources, claimed, out, inputs)


_numbers = itertools.count()


def _new_path(directory: Path) -> Path:
    return directory / f"job-{next(_numbers)}"
