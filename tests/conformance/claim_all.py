"""A process that claims jobs until none is left or it has had its share.

It says `ready`, waits for the end of its standard input, and prints `job attempt seconds` for each.

python claim_all.py DATABASE_URL WORKER SHARE
"""

import sys
import time
from contextlib import suppress

from app.database.engines import Database, open_database
from app.database.errors import OUTAGE
from app.queue import leases
from app.queue.fencing import Claimed, Owner
from app.queue.states import Lane
from app.settings import Settings


def claim(database: Database, owner: Owner, lane: Lane = Lane.CPU) -> Claimed | None:
    """As a worker does it, which asks a locked database again."""
    while True:
        with suppress(*OUTAGE), database.write() as session:
            claimed = leases.claim(session, owner=owner, lane=lane, device="cpu", lease_seconds=60)
            session.commit()
            return claimed


def main(database_url: str, worker: str, share: str) -> None:
    database = open_database(Settings(database_url=database_url))
    owner = Owner(id=worker, host="here", boot_id="boot", pid=1, pid_start=1)
    claim(database, owner, Lane.GPU)  # finds nothing, as most do: a worker asks all the time
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    for _ in range(int(share)):
        start = time.perf_counter()
        claimed = claim(database, owner)
        if claimed is None:
            return
        seconds = time.perf_counter() - start
        sys.stdout.write(f"{claimed.lease.job_id} {claimed.lease.attempt} {seconds}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
