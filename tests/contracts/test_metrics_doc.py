"""docs/reference/metrics.md lists every metric.

`UPDATE_DOCS=1 pytest tests/contracts` writes it.
"""

import os
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from app.metrics.database import DATABASE_METRICS, UP_HELP, UP_METRIC
from app.metrics.routes import MetricsRegistry
from app.serving.metrics import ServingMetrics

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
INTRODUCTION = """# Metrics

`GET /metrics` returns the text format of Prometheus. With keys on it requires the scope
`metrics:read`. This page is generated from the code by `UPDATE_DOCS=1 pytest tests/contracts`.

These metrics come from the database and are the same in every API process, so scrape one of them
or take the `max` over all. All are gauges, even those that look like counters, because deleting a
job also deletes its attempts. What is queued or running is current; other counts are queried once a
minute at most. Use differences over time, such as
`delta(loraworks_lease_losses[1h])`. The utilization of the devices is
`loraworks_running_attempts / loraworks_worker_concurrency`.

| Metric | Labels | Meaning |
|---|---|---|
"""
OWN = """
These are counted per API process, along with the standard `process_…` and `python_…` metrics of the
Prometheus client. Names that start with `te_` are those of text-embeddings-inference, so that its
dashboards work. Durations are in seconds.

| Metric | Labels | Meaning |
|---|---|---|
"""


def row(name: str, labels: tuple[str, ...], meaning: str) -> str:
    return f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {meaning} |\n"


def document() -> str:
    registry = MetricsRegistry().registry
    ServingMetrics(registry)
    tables = [
        row(UP_METRIC, (), UP_HELP),
        *(row(each.name, each.labels, each.help) for each in DATABASE_METRICS),
    ]
    own = [
        described(metric)
        for metric in registry._collector_to_names
        if isinstance(metric, MetricWrapperBase)
    ]
    return INTRODUCTION + "".join(tables) + OWN + "".join(own)


def described(metric: Any) -> str:
    """The row of a metric; the client appends `_total` to names of counters."""
    name = metric._name + ("_total" if metric._type == "counter" else "")
    return row(name, metric._labelnames, metric._documentation)


def test_document_matches_the_code() -> None:
    if os.environ.get("UPDATE_DOCS") == "1":
        DOCUMENT.write_text(document(), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_names_follow_prometheus_conventions() -> None:
    for measure in DATABASE_METRICS:
        assert measure.name.startswith("loraworks_")
        assert not measure.name.endswith(("_total", "_count", "_sum", "_bucket")), measure.name
        assert measure.help.endswith(".")
    assert len({measure.name for measure in DATABASE_METRICS}) == len(DATABASE_METRICS)
