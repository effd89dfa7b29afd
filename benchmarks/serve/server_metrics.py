"""What a server under load says in its `/metrics`: how late its event loop is, and where requests
spend their time."""

from collections import Counter
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serve.target import Target

LAG = "loraworks_event_loop_lag_seconds"
STAGES = ("", "tokenization_", "queue_", "inference_")  # of `te_request_duration`

Counts = Counter[float]  # upper bound of a bucket (s) → measurements up to it
Sums = Counter[str]  # of all samples without labels, by name


def _text(target: Target) -> str:
    request = Request(f"http://{target.host}:{target.port}/metrics", headers=target.headers())
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - http
        text: str = answer.read().decode()
    return text


def read_lags(target: Target) -> Counts:
    """The measurements of how late the event loop is, since the server started."""
    families = text_string_to_metric_families(_text(target))
    (family,) = (each for each in families if each.name == LAG)
    return Counter(
        {float(s.labels["le"]): int(s.value) for s in family.samples if s.name.endswith("_bucket")}
    )


def percentile_ms(before: Counts, after: Counts, share: float) -> float:
    """The least bound of a bucket, in milliseconds, that `share` of the measurements between two
    readings do not exceed.
    """
    counts = {bound: count - before[bound] for bound, count in sorted(after.items())}
    return next(1000 * bound for bound in counts if counts[bound] >= share * max(counts.values()))


def read_sums(target: Target) -> Sums:
    """The counters since the server started."""
    families = text_string_to_metric_families(_text(target))
    samples = (sample for family in families for sample in family.samples)
    return Counter({sample.name: sample.value for sample in samples if not sample.labels})


def mean_stages_ms(before: Sums, after: Sums) -> dict[str, float]:
    """The mean milliseconds of requests between two readings, whole (`duration`) and by stage."""
    found = {}
    for stage in STAGES:
        name = f"te_request_{stage}duration"
        seconds, requests = (
            after[f"{name}_{end}"] - before[f"{name}_{end}"] for end in ("sum", "count")
        )
        found[f"{stage}duration"] = 1000 * seconds / requests
    return found
