"""Whether the broker answers. Nothing depends on it: without one, jobs start a little later."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import Unavailable

SECONDS = 1.0


class BrokerUnavailable(Unavailable):
    """The broker does not answer."""

    code = "broker_unavailable"
    message = "The broker does not answer. Jobs are taken all the same, only a little later."


def check(url: str) -> None:
    """Raises `BrokerUnavailable`."""
    address = url.replace("redis+socket://", "unix://", 1)  # as Celery spells it
    limits = {"socket_connect_timeout": SECONDS, "socket_timeout": SECONDS}
    try:
        with redis.Redis.from_url(address, retry=Retry(NoBackoff(), 0), **limits) as client:
            client.ping()
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerUnavailable() from error
