"""How long a claim takes while 16 processes fight for 2,000 jobs: `python -m benchmarks.claim`.

Prints a line for each database, and as its last line one JSON object: database → milliseconds of
the median, of 99 in 100, and the slowest.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.database.engines import open_database
from app.database.migrations import upgrade
from app.settings import Settings
from tests.conformance.race import race
from tests.job_rows import add_job
from tests.servers import PostgresServer


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """Name → URL of an empty one."""
    server = PostgresServer()
    try:
        server.start()
        with tempfile.TemporaryDirectory() as folder:
            file = f"sqlite:///{Path(folder)}"
            yield {
                "sqlite": f"{file}/wal.sqlite3",
                "sqlite-truncate": f"{file}/truncate.sqlite3?journal_mode=truncate",
                "postgresql": server.empty_database(),
            }
    finally:
        server.remove()


def measure(url: str, *, jobs: int, processes: int) -> dict[str, float]:
    """Milliseconds of a claim."""
    settings = Settings(database_url=url)
    upgrade(settings)
    database = open_database(settings)
    for _ in range(jobs):
        add_job(database)
    database.close()
    claims = race(url, jobs=jobs, processes=processes)
    assert len({claim.job_id for claim in claims}) == len(claims) == jobs
    took = sorted(claim.seconds * 1000 for claim in claims)
    return {
        "p50": round(statistics.median(took), 2),
        "p99": round(took[jobs * 99 // 100], 2),
        "max": round(took[-1], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=16)
    arguments = parser.parse_args()
    found = {}
    with databases() as urls:
        for name, url in urls.items():
            found[name] = measure(url, jobs=arguments.jobs, processes=arguments.processes)
            print(f"{name:16} {found[name]}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
