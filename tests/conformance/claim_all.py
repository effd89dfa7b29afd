"""A process that claims jobs until none is left, and prints one `job attempt` a line.

It says `ready`, then waits for the end of its standard input.

python claim_all.py DATA_DIR WORKER
"""

import sys
from pathlib import Path

from app.db.engines import open_database
from app.jobs import ownership
from app.jobs.leases import Owner
from app.jobs.states import Lane
from app.settings import Settings


def main(data_dir: str, worker: str) -> None:
    database = open_database(Settings(data_dir=Path(data_dir)))
    owner = Owner(id=worker, host="here", boot_id="boot", pid=1, pid_start=1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    while True:
        with database.write() as session:
            claimed = ownership.claim(session, owner=owner, lanes=set(Lane), lease_seconds=60)
            session.commit()
        if claimed is None:
            return
        sys.stdout.write(f"{claimed.lease.job_id} {claimed.lease.attempt}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
