"""What is measured, how much of it, and the limits."""

from dataclasses import dataclass

CELLS = ("sqlite", "postgresql")
MODEL = "model"  # the cell with the size of a model, which `model_bytes` measures
MOST_POST_RATIO = 3.0  # of POST /v1/jobs with all jobs to an empty database
MOST_WRITE_MS = 100.0  # that one transaction may hold what other writers wait for
MOST_READ_MS = 60.0  # of a page, a list, the metrics, and a GET beside idle event streams; medians
MOST_CORE_SHARE = 0.15  # of the API while 200 event streams are idle


@dataclass(frozen=True)
class Size:
    """How much of it."""

    jobs: int  # rows, of which `queued` wait
    queued: int
    points: int  # of curves, spread over the jobs
    models: int  # that garbage collection removes
    trials: int  # of the sweep that is started
    requests: int  # POST /v1/jobs in each database, and claims
    lists: int  # requests for each list and page
    streams: int  # of events, all of queued jobs


FULL = Size(
    jobs=100_000,
    queued=1000,
    points=1_000_000,
    models=5000,
    trials=5000,
    requests=100,
    lists=25,
    streams=200,
)
QUICK = Size(
    jobs=2000,
    queued=100,
    points=10_000,
    models=200,
    trials=100,
    requests=20,
    lists=3,
    streams=20,
)
