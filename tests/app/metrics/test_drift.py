"""Metrics of drift."""

import time

from app.database.engines import Database
from app.registry import service as registry
from app.traffic.tables import PredictionCount, PredictionOutcome
from tests.app.metrics.test_tables import Scrape, _fresh, database_kind, scrape
from tests.app.serving.conftest import Publish, publish
from tests.drift_rows import add_drift_check
from tests.slow import on_both_databases

__all__ = ["_fresh", "database_kind", "publish", "scrape"]


@on_both_databases
def test_the_newest_check_of_each_version_in_production(
    scrape: Scrape, database: Database, publish: Publish
) -> None:
    names = [
        f"loraworks_drift_{name}" for name in ("auc", "p_value", "alarm", "check_timestamp_seconds")
    ]
    before = scrape()
    assert [before.get(name) for name in names] == [None] * 4
    assert before["loraworks_drift_checks"] == {("alarm",): 0, ("no_alarm",): 0}
    publish()
    publish(promote=False)
    publish("topics", promote=False)
    add_drift_check(database, alarm=True)
    add_drift_check(database, alarm=False, window_start=1e9)
    add_drift_check(database, alarm=True, number=2)
    add_drift_check(database, alarm=True, model="topics")
    after = scrape()
    assert [after[name] for name in names] == [
        {("sentiment", "sentiment:1"): 0.51},
        {("sentiment", "sentiment:1"): 0.4},
        {("sentiment", "sentiment:1"): 0},
        {("sentiment", "sentiment:1"): 2e9},
    ]
    assert after["loraworks_drift_checks"] == {("alarm",): 3, ("no_alarm",): 1}
    with database.write() as session:
        registry.move_alias(session, name="sentiment", alias="production", number=2)
    assert scrape()["loraworks_drift_alarm"] == {("sentiment", "sentiment:2"): 1}


def test_share_of_texts_without_a_label(
    scrape: Scrape, database: Database, publish: Publish
) -> None:
    publish()
    publish("topics")
    hour = int(time.time()) // 3600 * 3600
    rows = [
        ("sentiment", 1, 0, PredictionOutcome.TEXT, 6),
        ("sentiment", 1, 1, PredictionOutcome.TEXT, 4),
        ("sentiment", 1, 1, PredictionOutcome.ABSTAINED, 3),
        ("sentiment", 1, 8, PredictionOutcome.TEXT, 100),
        ("sentiment", 2, 1, PredictionOutcome.TEXT, 5),
    ]
    with database.write() as session:
        for model, number, days, outcome, count in rows:
            start = hour - days * 86_400
            key = {"model": model, "number": number, "start": start, "outcome": outcome}
            session.add(PredictionCount(**key, label="", count=count))
    assert scrape()["loraworks_abstention_share"] == {("sentiment", "sentiment:1"): 0.3}
