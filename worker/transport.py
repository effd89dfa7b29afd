"""Redis as it is needed for hints: nothing is put back.

A hint that was taken and not answered is gone, and the next one comes from the jobs table. So kombu
need not look for such messages, for which it would want the right to run scripts in the broker.

A broker that refuses a command, as one that is full or takes no writes, is as good as away: Celery
would end the process otherwise.
"""

from typing import Any

from kombu.transport import redis
from redis import ResponseError


class _Window(redis.QoS):  # type: ignore[misc]
    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Nothing to look for."""


class _Channel(redis.Channel):  # type: ignore[misc]
    QoS = _Window


class Transport(redis.Transport):  # type: ignore[misc]
    """For `broker_transport`."""

    Channel = _Channel
    connection_errors = (*redis.Transport.connection_errors, ResponseError)
