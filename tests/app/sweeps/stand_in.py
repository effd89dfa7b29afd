"""A worker that ends jobs with figures out of their settings, and trains nothing."""

import math
import zlib
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from app.queue import checkpoints, leases
from app.queue.fencing import Claimed
from app.queue.states import Lane
from app.queue.tables import Grade
from app.queue.transitions import Cancelled, Failed, Succeeded
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import FIGURES
from app.sweeps import add_trials
from tests.app.jobs.fake_worker import FakeWorker

TEXTS = 200
Skill = Callable[[dict[str, Any]], float]  # from the description of a job to its accuracy


def by_alpha(spec: dict[str, Any]) -> float:
    """Best at alpha 16; a larger rank is a little better."""
    alpha, r = float(spec["method"]["alpha"]), int(spec["method"]["r"])
    return 0.9 - abs(math.log2(alpha) - 4) / 10 + r / 1000


class StandIn(FakeWorker):
    """Claims one job after the other, as a worker with one slot does."""

    def __init__(self, resources: Resources, skill: Skill = by_alpha) -> None:
        super().__init__(resources.database)
        self.resources, self.skill = resources, skill
        self.ran: list[Claimed] = []
        self.fails: Callable[[dict[str, Any]], bool] = lambda _: False

    def take(self) -> Claimed | None:
        """The next job that is due."""
        with self.database.write() as session:
            claimed = leases.claim(
                session, owner=self.owner, lane=Lane.CPU, device="cpu", lease_seconds=60
            )
            session.commit()
        return claimed

    def work(self, most: int = 10_000) -> int:
        """End jobs until none is due, or so many; how many there were."""
        for done in range(most):
            claimed = self.take()
            if claimed is None:
                return done
            self.end(claimed)
        return most

    def end(self, claimed: Claimed) -> None:
        """As a run of it would end, and what a worker does then."""
        self.ran.append(claimed)
        if self.fails(claimed.spec):
            self.finish(claimed.lease, Failed("non_finite", "The loss is NaN."))
        else:
            self._succeed(claimed)
        add_trials.after(self.resources, claimed.lease.job_id)

    def give_up(self) -> None:
        """As a reconciler does with a job whose workers were lost too often."""
        claimed = self.take()
        assert claimed is not None
        self.finish(claimed.lease, Failed("lost_worker", "The worker that ran it is gone."))
        add_trials.after(self.resources, claimed.lease.job_id)

    def stop(self, claimed: Claimed) -> None:
        """It was asked to stop, and has a checkpoint."""
        self.ran.append(claimed)
        self._save(claimed, step=5)
        self.finish(claimed.lease, Cancelled())
        add_trials.after(self.resources, claimed.lease.job_id)

    def _succeed(self, claimed: Claimed) -> None:
        self._save(claimed, step=round(100 * share(claimed.spec)))
        accuracy = self.skill(claimed.spec)
        figures = dict.fromkeys(("accuracy", "macro_f1", "balanced_accuracy"), accuracy)
        parts = ["validation"] if claimed.spec["trial"] else ["validation", "test"]
        if claimed.spec["result"]["train_figures"] and not claimed.spec["trial"]:
            parts.append("train")
        summary = {part: {**figures, "loss": 1 - accuracy} for part in parts}
        with self.database.write() as session:
            artifact = artifacts.add(
                session, job_id=claimed.lease.job_id, kind=FIGURES, ref=_ref(uuid4())
            )
            for part in parts:
                _grade(session, claimed.lease.job_id, part, accuracy)
            assert leases.finish(session, claimed.lease, Succeeded(artifact.id, summary))
            session.commit()

    def _save(self, claimed: Claimed, *, step: int) -> None:
        with self._writing(claimed.lease, step=step, reserve=1) as (session, seq):
            checkpoints.add(session, claimed.lease, step=step, ref=_ref(uuid4()), seq=seq)


def share(spec: dict[str, Any]) -> float:
    return 1.0 if spec["trial"] is None else float(spec["trial"]["share"])


def _grade(session: Any, job_id: UUID, part: str, accuracy: float) -> None:
    """The better answer all that the worse do, and more."""
    right = np.arange(TEXTS) < round(accuracy * TEXTS)
    order = np.random.default_rng(zlib.crc32(part.encode())).permutation(TEXTS)
    session.add(
        Grade(
            job_id=job_id,
            split=part,
            texts_sha256=part.ljust(64, "0"),
            count=TEXTS,
            correct=np.packbits(right[order]).tobytes(),
        )
    )


def _ref(name: UUID) -> ArtifactRef:
    return ArtifactRef(f"jobs/{name}/a1", "0" * 64, 1)
