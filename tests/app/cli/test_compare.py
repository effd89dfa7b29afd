"""`loraworks jobs compare` against a running service."""

import base64
from uuid import UUID, uuid4

import numpy as np

from app.database.engines import Database
from app.jobs.results import comparison
from tests.app.cli.conftest import Run, answer


def answered(database: Database, job_id: str, right: list[bool]) -> None:
    bits = base64.b64encode(np.packbits(right).tobytes()).decode()
    correctness = {"texts_sha256": "a" * 64, "count": len(right), "correct": bits}
    with database.write() as session:
        comparison.store_correctness(session, UUID(job_id), {"test": correctness})


def test_jobs_are_compared(cli: Run, database: Database) -> None:
    first, second = (
        str(answer(cli("train", "--json", "--r", r, "--name", f"rank {r}"))["id"])
        for r in ("4", "16")
    )
    answered(database, first, [True] * 60 + [False] * 40)
    answered(database, second, [True] * 80 + [False] * 20)
    shown = " ".join(cli("jobs", "compare", first, second).stdout.split())
    assert "rank 4 queued 60.0% 50.2 to 69.1 - - -" in shown
    assert "rank 16 queued 80.0% 71.1 to 86.7 +20.0 +11.7 to +27.5 1.9e-06" in shown
    assert "method.r 4 16" in shown
    assert "validation" not in shown  # without stored predictions
    found = answer(cli("jobs", "compare", second, first, "--json"))
    assert [each["job"]["id"] for each in found["jobs"]] == [second, first]
    assert found["jobs"][1]["test"]["against_first"]["only_first"] == 20


def test_unknown_jobs_are_rejected(cli: Run) -> None:
    result = cli("jobs", "compare", str(uuid4()))
    assert result.exit_code == 3
    assert "(job_not_found)" in result.stderr
