"""A process that claims jobs until none is left or it has reached its limit.

It prints `ready`, waits for the end of its standard input, and prints `job attempt seconds` for
each claim.

python claim_all.py DATABASE_URL WORKER MAX_CLAIMS
"""

import sys
import time
from contextlib import suppress

from app.database.engines import Database, open_database
from app.database.errors import OUTAGE_ERRORS
from app.queue import leases
from app.queue.enums import DeviceClass
from app.queue.fencing import ClaimedJob, WorkerIdentity
from app.settings import Settings


def claim(
    database: Database, owner: WorkerIdentity, device_class: DeviceClass = DeviceClass.CPU
) -> ClaimedJob | None:
    """Claim as a worker does, retrying while the database is locked."""
    while True:
        with suppress(*OUTAGE_ERRORS), database.write() as session:
            claimed = leases.claim_job(
                session, owner=owner, device_class=device_class, device="cpu", lease_seconds=60
            )
            return claimed


def main(database_url: str, worker: str, max_claims: str) -> None:
    database = open_database(Settings(database_url=database_url))
    owner = WorkerIdentity(id=worker, host="here", boot_id="boot", pid=1, pid_start=1)
    claim(database, owner, DeviceClass.GPU)  # finds nothing, like most claims
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    for _ in range(int(max_claims)):
        start = time.perf_counter()
        claimed = claim(database, owner)
        if claimed is None:
            return
        seconds = time.perf_counter() - start
        sys.stdout.write(f"{claimed.lease.job_id} {claimed.lease.attempt} {seconds}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
