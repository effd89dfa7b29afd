"""Whether the broker takes hints. Nothing depends on it: without, jobs start a little later."""

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
    """By a write, which a full broker refuses and one that was a primary before a failover. Raises
    `BrokerUnavailable`.
    """
    address = url.replace("redis+socket://", "unix://", 1)  # as Celery spells it
    limits = {"socket_connect_timeout": SECONDS, "socket_timeout": SECONDS}
    try:
        with redis.Redis.from_url(address, retry=Retry(NoBackoff(), 0), **limits) as client:
            client.set("loraworks.ready", "", px=1)
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerUnavailable() from error
