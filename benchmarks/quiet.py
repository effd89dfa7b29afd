"""A pulse that nobody watches."""

from lora_core.events import Silence
from lora_core.progress_reporter import Pulse


class NoEnd:
    """Never asks for a stop."""

    def requested(self) -> bool:
        return False


def quiet_pulse() -> Pulse:
    """For work that goes on to its end."""
    return Pulse(Silence(), NoEnd())
