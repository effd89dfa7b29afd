"""The figures of the tables as Prometheus metrics, counted when they are asked for."""

from collections.abc import Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from app.database.engines import Database
from app.metrics.measures import MEASURES, UP, UP_HELP
from app.metrics.repository import Look, Rows

Counted = Mapping[str, Rows]
DOWN: Counted = {}


def count(database: Database, *, lease_seconds: float) -> Counted:
    """Every measure, in one short transaction."""
    with database.read() as session:
        look = Look(session, lease_seconds=lease_seconds)
        return {measure.name: measure.read(look) for measure in MEASURES}


class TablesCollector:
    """A collector for one scrape, of what was counted for it. `DOWN`: the database is away."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(UP, UP_HELP, value=1 if self._counted else 0)
        for measure in MEASURES:
            family = GaugeMetricFamily(measure.name, measure.help, labels=measure.labels)
            for *labels, number in self._counted.get(measure.name, ()):
                family.add_metric(labels, float(number))
            if family.samples:
                yield family
