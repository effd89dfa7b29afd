"""A pulse that nobody watches."""

from lora_core.events import Event
from lora_core.training.pulse import Pulse


class Silence:
    """Hears every event and does nothing."""

    def on_event(self, event: Event) -> None:
        pass


class NoEnd:
    """Never asks for a stop."""

    def requested(self) -> bool:
        return False


def quiet_pulse() -> Pulse:
    """For work that goes on to its end."""
    return Pulse(Silence(), NoEnd())
