"""The URL of a service on this machine. The command line imports it without pydantic."""

_LOOPBACK_OF_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - variable, not bound


def local_service_url(host: str, port: int | str) -> str:
    """Return the URL at which this machine reaches a service that listens on an address."""
    host = _LOOPBACK_OF_WILDCARD.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
