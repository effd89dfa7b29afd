"""Request metrics have low cardinality."""

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.settings import Settings
from tests.waiting import wait_until


def counted(client: TestClient, name: str) -> dict[tuple[str, ...], float]:
    text = client.get("/metrics").text
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_requests_are_counted_by_route_and_status_class(client: TestClient) -> None:
    for number in range(3):
        client.get(f"/v1/jobs/{number}")
    client.post("/v1/jobs", json={"method": {}})
    client.get("/v1/jobs?limit=5")
    assert counted(client, "loraworks_http_requests_total") == {
        ("GET", "/v1/jobs/{job_id}", "4xx"): 3,
        ("POST", "/v1/jobs", "4xx"): 1,
        ("GET", "/v1/jobs", "2xx"): 1,
    }
    durations = counted(client, "loraworks_http_request_duration_seconds_count")
    assert durations["GET", "/v1/jobs/{job_id}"] == 3
    assert durations["GET", "/metrics"] == 1  # the previous request


def test_unknown_paths_and_methods_add_no_series(client: TestClient) -> None:
    for name in ("a", "b", "c"):
        client.request(f"METHOD{name}", f"/nowhere/{name}")
        client.get("/v1/jobs", headers={"Host": f"{name}.example"})
    assert counted(client, "loraworks_http_requests_total") == {
        ("other", "none", "4xx"): 3,
        ("GET", "none", "4xx"): 3,
    }


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_other_metrics_remain_without_the_database(client: TestClient, settings: Settings) -> None:
    client.app.state.resources.database.close()  # type: ignore[attr-defined]
    settings.default_sqlite_path.write_bytes(b"no database any more" * 100)
    response = client.get("/metrics")
    assert response.status_code == 200
    assert "\nloraworks_database_up 0.0\n" in response.text
    assert "process_resident_memory_bytes" in response.text
    assert "loraworks_jobs" not in response.text


def test_a_blocked_event_loop_is_measured(client: TestClient) -> None:
    before = counted(client, "loraworks_event_loop_lag_seconds_bucket")
    client.portal.call(time.sleep, 1.5)  # type: ignore[union-attr]

    def late() -> float:
        after = counted(client, "loraworks_event_loop_lag_seconds_bucket")
        return (after["+Inf",] - after["1.0",]) - (before["+Inf",] - before["1.0",])

    wait_until(lambda: late() == 1)
