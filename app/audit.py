"""Who did what to keys, models and the notes of jobs: one log line of the event `audit` for each,
whatever the level.

A line about a request names its `request_id` and the `key_id` of the caller.
"""

import structlog

LOGGER = "app.audit"
log = structlog.get_logger(LOGGER)


def note(action: str, **about: object) -> None:
    """Called once it is done: after the commit."""
    log.info("audit", action=action, **about)
