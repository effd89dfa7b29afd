"""How late a server's event loop is under load, from the histogram in its `/metrics`."""

from collections import Counter
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serve.target import Target

NAME = "loraworks_event_loop_lag_seconds"

Counts = Counter[float]  # upper bound of a bucket (s) → measurements up to it


def read_counts(target: Target) -> Counts:
    """The measurements since the server started."""
    request = Request(f"http://{target.host}:{target.port}/metrics", headers=target.headers())
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - http
        text = answer.read().decode()
    (family,) = (each for each in text_string_to_metric_families(text) if each.name == NAME)
    return Counter(
        {float(s.labels["le"]): int(s.value) for s in family.samples if s.name.endswith("_bucket")}
    )


def percentile_ms(before: Counts, after: Counts, share: float) -> float:
    """The least bound of a bucket, in milliseconds, that `share` of the measurements between two
    readings do not exceed.
    """
    counts = {bound: count - before[bound] for bound, count in sorted(after.items())}
    return next(1000 * bound for bound in counts if counts[bound] >= share * max(counts.values()))
