"""A progress reporter without an observer or a stop signal."""

from lora_core.events import NullObserver
from lora_core.progress_reporter import ProgressReporter


class NeverStop:
    """Never requests a stop."""

    def requested(self) -> bool:
        return False


def silent_progress() -> ProgressReporter:
    """For work that runs to its end."""
    return ProgressReporter(NullObserver(), NeverStop())
