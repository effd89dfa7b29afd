"""Prometheus metrics of online prediction.

Those named `te_…` have the names of text-embeddings-inference. They do not distinguish models, so
dashboards made for it work; those named `loraworks_…` have a label for the version.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Seconds: from 15 µs on, each bucket 1.5 times the one before.
DURATION_BUCKETS = tuple(15e-6 * 1.5**i for i in range(35))
TOKEN_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServingMetrics:
    """Counters, gauges and histograms of one application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def monotonic_gauge(name: str, text: str, *labels: str) -> Gauge:
            """A counter: prometheus_client would append `_total` to the name of a `Counter`."""
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self.requests = monotonic_gauge("te_request_count", "Requests.", "method")
        self.successes = monotonic_gauge("te_request_success", "Successful requests.", "method")
        self.failures = monotonic_gauge("te_request_failure", "Failed requests.", "err")
        self.texts = monotonic_gauge("te_predict_count", "Texts of the requests.")
        self.predicted_texts = monotonic_gauge("te_predict_success", "Texts with a prediction.")
        self.dropped = self.failures.labels("dropped")
        stages = {
            "duration": "",
            "tokenization_duration": ": tokenization",
            "queue_duration": ": in the queue",
            "inference_duration": ": inference",
        }
        self.request_seconds, *self.request_stage_seconds = (
            histogram(f"te_request_{name}", f"Seconds per request{stage}.", DURATION_BUCKETS)
            for name, stage in stages.items()
        )
        self.text_seconds, *self.text_stage_seconds = (
            histogram(f"te_predict_{name}", f"Seconds per text{stage}.", DURATION_BUCKETS)
            for name, stage in stages.items()
        )
        self.text_tokens = histogram("te_request_input_length", "Tokens per text.", TOKEN_BUCKETS)
        self.batch_texts = histogram("te_batch_next_size", "Texts per batch.", BATCH_SIZE_BUCKETS)
        self.batch_tokens = histogram("te_batch_next_tokens", "Tokens per batch.", TOKEN_BUCKETS)
        self.texts_in_flight = Gauge("te_queue_size", "Texts in flight.", registry=registry)
        self.version_texts = counter(
            "loraworks_predicted_texts", "Texts with a prediction.", "version", "engine"
        )
        self.shadow_texts = counter(
            "loraworks_shadow_texts", "Texts sent to shadows.", "version", "shadow", "outcome"
        )
        self.traffic_kept = counter("loraworks_traffic_kept", "Texts whose prediction was kept.")
        self.traffic_dropped = counter(
            "loraworks_traffic_dropped",
            "Texts whose prediction was not counted or not kept: writing fell behind or failed.",
        )
        self.loaded_models = Gauge(
            "loraworks_loaded_models", "Versions in memory.", registry=registry
        )
        self.loaded_bytes = Gauge(
            "loraworks_loaded_bytes", "Memory of the loaded weights.", registry=registry
        )
