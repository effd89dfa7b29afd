"""docs/reference/metrics.md holds every metric.

`UPDATE_DOCS=1 pytest tests/contracts` writes it.
"""

import os
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from app.metrics.database import DATABASE_METRICS, UP, UP_HELP
from app.metrics.middleware import RequestMetrics
from app.serving.metrics import ServingMetrics

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
INTRODUCTION = """# Metrics

`GET /metrics` answers in the text format of Prometheus, with a key of the scope `metrics:read`
(keys off: without one). This page is made from the code by `UPDATE_DOCS=1 pytest tests/contracts`.

What is counted in the tables is the same whichever API process is asked, so let one of them be
scraped, or take the `max` over all. These are gauges, also where they only seem to grow: deleting a
job takes its attempts along, so look at differences over time, such as
`delta(loraworks_lease_losses[1h])`. Devices are in use at
`loraworks_running_attempts / loraworks_slots`.

| Metric | Labels | Meaning |
|---|---|---|
"""
OWN = """
Each API process counts for itself, and besides these tells `process_…` and `python_…` of the usual
Prometheus client. Names that begin with `te_` are those of text-embeddings-inference, so that its
dashboards work. Durations are in seconds.

| Metric | Labels | Meaning |
|---|---|---|
"""


def row(name: str, labels: tuple[str, ...], meaning: str) -> str:
    return f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {meaning} |\n"


def document() -> str:
    registry = CollectorRegistry()
    RequestMetrics(registry)
    ServingMetrics(registry)
    tables = [
        row(UP, (), UP_HELP),
        *(row(each.name, each.labels, each.help) for each in DATABASE_METRICS),
    ]
    own = [described(metric) for metric in registry._collector_to_names]
    return INTRODUCTION + "".join(tables) + OWN + "".join(own)


def described(metric: Any) -> str:
    """Its row; the client ends the name of a counter in `_total`."""
    name = metric._name + ("_total" if metric._type == "counter" else "")
    return row(name, metric._labelnames, metric._documentation)


def test_the_document_is_what_the_code_says() -> None:
    if os.environ.get("UPDATE_DOCS") == "1":
        DOCUMENT.write_text(document(), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_names_follow_the_conventions_of_prometheus() -> None:
    for measure in DATABASE_METRICS:
        assert measure.name.startswith("loraworks_")
        assert not measure.name.endswith(("_total", "_count", "_sum", "_bucket")), measure.name
        assert measure.help.endswith(".")
    assert len({measure.name for measure in DATABASE_METRICS}) == len(DATABASE_METRICS)
