"""A pulse that nobody watches."""

from lora_core.events import NullObserver
from lora_core.progress_reporter import ProgressReporter


class NoEnd:
    """Never asks for a stop."""

    def requested(self) -> bool:
        return False


def quiet_progress() -> ProgressReporter:
    """For work that goes on to its end."""
    return ProgressReporter(NullObserver(), NoEnd())
