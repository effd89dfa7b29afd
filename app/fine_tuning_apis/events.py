"""Events of jobs that were created through a fine-tuning API."""

from app.queue.events import EventContent


def build_warning_event(kind: str, message: str) -> EventContent:
    """Return a warning for the events of a job."""
    return EventContent(kind, "warning", message, {})
