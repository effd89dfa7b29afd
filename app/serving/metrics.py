"""What is measured of answering, under the names of text-embeddings-inference and under our own.

Their names know no models, so dashboards made for them work; ours have a label for the version.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# 15 µs and on, each 1.5 times the one before, in seconds.
DURATIONS = tuple(15e-6 * 1.5**i for i in range(35))
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServingMeters:
    """Counters and histograms of one application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def tally(name: str, text: str, *labels: str) -> Gauge:
            """Only ever rises; the client would end the name of a counter in `_total`."""
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self.requests = tally("te_request_count", "Calls.", "method")
        self.successes = tally("te_request_success", "Calls that were answered.", "method")
        self.failures = tally("te_request_failure", "Calls that were not.", "err")
        self.texts = tally("te_predict_count", "Texts of the calls.")
        self.answers = tally("te_predict_success", "Texts that were answered.")
        self.dropped = self.failures.labels("dropped")
        parts = {
            "duration": "",
            "tokenization_duration": ": making tokens",
            "queue_duration": ": waiting",
            "inference_duration": ": computing",
        }
        self.call_seconds, *self.call_parts = (
            histogram(f"te_request_{part}", f"Seconds of a call{of}.", DURATIONS)
            for part, of in parts.items()
        )
        self.text_seconds, *self.text_parts = (
            histogram(f"te_predict_{part}", f"Seconds of a text{of}.", DURATIONS)
            for part, of in parts.items()
        )
        self.lengths = histogram("te_request_input_length", "Tokens of a text.", LENGTHS)
        self.batch_texts = histogram("te_batch_next_size", "Texts computed together.", SIZES)
        self.batch_tokens = histogram("te_batch_next_tokens", "Tokens of them.", LENGTHS)
        self.waiting = Gauge("te_queue_size", "Texts between door and answer.", registry=registry)
        self.by_version = counter(
            "loraworks_answered_texts", "Texts that were answered.", "version", "engine"
        )
        self.shadows = counter(
            "loraworks_shadow_texts", "Texts for candidates.", "version", "shadow", "outcome"
        )
        self.loaded = Gauge("loraworks_loaded_models", "Versions in memory.", registry=registry)
        self.loaded_bytes = Gauge(
            "loraworks_loaded_bytes", "Memory of their weights.", registry=registry
        )
