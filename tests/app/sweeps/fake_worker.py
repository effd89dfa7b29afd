"""A worker that computes the metrics of a job from its settings, without training."""

import base64
import math
import zlib
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from app.queue import checkpoints, leases
from app.queue.enums import DeviceClass
from app.queue.fencing import ClaimedJob
from app.queue.tables import SplitCorrectnessRow
from app.queue.transitions import Cancelled, PermanentFailure, Succeeded
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import METRICS_KIND
from app.sweeps import scheduler
from lora_core.tasks.metric_info import task_type_of_spec
from tests.app.jobs.fake_worker import FakeWorker

TEXT_COUNT = 200
AccuracyOf = Callable[[dict[str, Any]], float]  # job description -> accuracy


def accuracy_by_alpha(spec: dict[str, Any]) -> float:
    """The accuracy is best at alpha 16, and slightly better with a larger rank."""
    alpha, r = float(spec["method"]["alpha"]), int(spec["method"]["r"])
    return 0.9 - abs(math.log2(alpha) - 4) / 10 + r / 1000


class FakeSweepWorker(FakeWorker):
    """Claims one job after the other, like a worker with one slot."""

    def __init__(self, resources: Resources, accuracy_of: AccuracyOf = accuracy_by_alpha) -> None:
        super().__init__(resources.database)
        self.resources, self.accuracy_of = resources, accuracy_of
        self.device_class = DeviceClass.CPU
        self.jobs_run: list[ClaimedJob] = []
        self.should_fail: Callable[[dict[str, Any]], bool] = lambda _: False

    def claim_next(self) -> ClaimedJob | None:
        """Claim the next job."""
        with self.database.write() as session:
            claimed = leases.claim_job(
                session,
                owner=self.owner,
                device_class=self.device_class,
                device="cpu",
                lease_seconds=60,
            )
        return claimed

    def run_jobs(self, limit: int = 10_000) -> int:
        """Run up to `limit` jobs; return how many there were."""
        for done in range(limit):
            claimed = self.claim_next()
            if claimed is None:
                return done
            self.run_job(claimed)
        return limit

    def run_job(self, claimed: ClaimedJob) -> None:
        """End the job as a run would, then do what a worker does after it."""
        self.jobs_run.append(claimed)
        if self.should_fail(claimed.spec):
            self.finish(claimed.lease, PermanentFailure("non_finite", "The loss is NaN."))
        else:
            self._succeed(claimed)
        scheduler.advance_sweeps_after_job(self.resources, claimed.lease.job_id)

    def fail_as_lost(self) -> None:
        """Fail the job as the reconciler does when its worker was lost too often."""
        claimed = self.claim_next()
        assert claimed is not None
        self.finish(
            claimed.lease, PermanentFailure("lost_worker", "The worker that ran it is gone.")
        )
        scheduler.advance_sweeps_after_job(self.resources, claimed.lease.job_id)

    def cancel_job(self, claimed: ClaimedJob) -> None:
        """End the job as cancelled, with a checkpoint."""
        self.jobs_run.append(claimed)
        self._save(claimed, step=5)
        self.finish(claimed.lease, Cancelled())
        scheduler.advance_sweeps_after_job(self.resources, claimed.lease.job_id)

    def _succeed(self, claimed: ClaimedJob) -> None:
        self._save(claimed, step=round(100 * budget_of(claimed.spec)))
        accuracy = self.accuracy_of(claimed.spec)
        is_regression = task_type_of_spec(claimed.spec) == "regression"
        metrics = (
            {"rmse": 1 - accuracy, "mae": 0.9 - accuracy, "r2": accuracy, "spearman": accuracy}
            if is_regression
            else dict.fromkeys(("accuracy", "macro_f1", "balanced_accuracy"), accuracy)
        )
        is_several = task_type_of_spec(claimed.spec) == "several_targets"
        if is_several:  # two with an accuracy, whose constant is right for half of the texts
            metrics = {"skill": 2 * round(accuracy * TEXT_COUNT) / TEXT_COUNT - 1}
        splits = ["validation"] if claimed.spec["trial"] else ["validation", "test"]
        if claimed.spec["result"]["train_metrics"] and not claimed.spec["trial"]:
            splits.append("train")
        summary = {split: {**metrics, "loss": 1 - accuracy} for split in splits}
        with self.database.write() as session:
            artifact = artifacts.add_artifact(
                session, job_id=claimed.lease.job_id, kind=METRICS_KIND, ref=_artifact_ref(uuid4())
            )
            for split in splits:
                if is_regression:
                    _add_errors(session, claimed.lease.job_id, split, 1 - accuracy)
                else:
                    _add_correctness(
                        session, claimed.lease.job_id, split, accuracy, of_targets=is_several
                    )
            leases.finish_attempt(session, claimed.lease, Succeeded(artifact.id, summary))

    def _save(self, claimed: ClaimedJob, *, step: int) -> None:
        with self._renewed(claimed.lease, step=step, reserve=1) as (session, seq):
            checkpoints.record_and_rotate_checkpoints(
                session, claimed.lease, step=step, ref=_artifact_ref(uuid4()), seq=seq
            )


def budget_of(spec: dict[str, Any]) -> float:
    return 1.0 if spec["trial"] is None else float(spec["trial"]["budget"])


def _add_correctness(
    session: Any, job_id: UUID, split: str, accuracy: float, *, of_targets: bool = False
) -> None:
    """A better trial classifies every text correctly that a worse one does, and more."""
    correct = np.arange(TEXT_COUNT) < round(accuracy * TEXT_COUNT)
    order = np.random.default_rng(zlib.crc32(split.encode())).permutation(TEXT_COUNT)
    bits = np.packbits(correct[order]).tobytes()
    target = {
        "texts_sha256": split.ljust(64, "0"),
        "count": TEXT_COUNT,
        "correct": base64.b64encode(bits).decode(),
        "constant_error": 0.5,
    }
    session.add(
        SplitCorrectnessRow(
            job_id=job_id,
            split=split,
            texts_sha256=split.ljust(64, "0"),
            count=TEXT_COUNT,
            correct=None if of_targets else bits,
            targets={"mood": target, "topic": target} if of_targets else None,
        )
    )


def _add_errors(session: Any, job_id: UUID, split: str, rmse: float) -> None:
    """The errors of all trials are those of the same texts, larger for a worse trial."""
    errors = np.random.default_rng(zlib.crc32(split.encode())).normal(size=TEXT_COUNT)
    scaled = errors * rmse / np.sqrt((errors**2).mean())
    session.add(
        SplitCorrectnessRow(
            job_id=job_id,
            split=split,
            texts_sha256=split.ljust(64, "0"),
            count=TEXT_COUNT,
            errors=scaled.astype("<f4").tobytes(),
        )
    )


def _artifact_ref(name: UUID) -> ArtifactRef:
    return ArtifactRef(f"jobs/{name}/a1", "0" * 64, 1)
