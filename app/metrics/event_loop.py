"""How late the event loop is: the delay of every request beside its own work."""

import asyncio

from prometheus_client import CollectorRegistry, Histogram

INTERVAL_SECONDS = 0.1  # between two measurements
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)  # seconds


def create_event_loop_lag_histogram(registry: CollectorRegistry) -> Histogram:
    """Register the histogram of lags."""
    return Histogram(
        "loraworks_event_loop_lag_seconds",
        "How much later than asked the event loop woke a timer, ten times a second.",
        buckets=LAG_BUCKETS,
        registry=registry,
    )


async def record_event_loop_lag(lag: Histogram) -> None:
    """Measure until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        lag.observe(max(loop.time() - due, 0.0))
