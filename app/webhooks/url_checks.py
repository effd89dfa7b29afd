"""Where webhooks may be sent: to public addresses, and to private ones that a setting names.

Without these checks, anybody who may create webhooks could make the workers send requests to
services that only their network can reach. The address that was checked is the one that is
connected to, so that the host name cannot resolve to another one in between.
"""

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import httpx2

from app.webhooks.errors import (
    InsecureWebhookUrl,
    InvalidWebhookUrl,
    PrivateWebhookAddress,
    WebhookHostNotFound,
)

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Sequence[Address]]
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # the last 32 bits are an IPv4 address
_HOST_PATTERN = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f:.]+")


@dataclass(frozen=True)
class AllowedHosts:
    """The setting `webhook_allowed_hosts`: host names, addresses, and networks such as 10.0.0.0/8.

    They may be private, and plain http is possible if the URL itself names one of them.
    """

    entries: Sequence[str]

    def includes(self, host: str) -> bool:
        """Return whether the list has this host: by its name, or by the address it consists of."""
        address = _literal_address(host)
        return host in self.entries if address is None else self.includes_address(address)

    def includes_address(self, address: Address) -> bool:
        """Return whether the address, or a network with it, is in the list."""
        return any(address in network for network in self._networks)

    @cached_property
    def _networks(self) -> list[IPv4Network | IPv6Network]:
        return [ip_network(entry) for entry in self.entries if _is_network(entry)]


@dataclass(frozen=True)
class UnresolvedUrl:
    """A URL that was checked, apart from the addresses of its host name."""

    url: httpx2.URL
    host: str
    port: int

    def with_address(self, address: Address) -> httpx2.URL:
        """Return the URL with the address in place of the host name."""
        return self.url.copy_with(host=str(address))


def check_webhook_url(text: str, allowed: AllowedHosts) -> UnresolvedUrl:
    """Check everything about a URL that needs no name resolution.

    Raises `InvalidWebhookUrl`, `InsecureWebhookUrl`, `PrivateWebhookAddress`.
    """
    try:
        url = httpx2.URL(text)
        host = url.raw_host.decode("ascii").lower().rstrip(".")
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise InvalidWebhookUrl(problem="cannot be parsed") from error
    if url.scheme not in ("http", "https"):
        raise InvalidWebhookUrl(problem="must start with https://")
    if url.userinfo:
        raise InvalidWebhookUrl(problem="must not have a user name or password")
    if url.fragment:
        raise InvalidWebhookUrl(problem="must not have a fragment (#)")
    if not _HOST_PATTERN.fullmatch(host):
        raise InvalidWebhookUrl(problem="has no valid host name")
    port = {"http": 80, "https": 443}[url.scheme] if url.port is None else url.port
    if not 0 < port < 65536:
        raise InvalidWebhookUrl(problem="has no valid port")
    if url.scheme == "http" and not allowed.includes(host):
        raise InsecureWebhookUrl(host=host)
    if (address := _literal_address(host)) is not None:
        _check(address, host, allowed)
    return UnresolvedUrl(url, host, port)


def resolve_and_require_allowed_addresses(
    target: UnresolvedUrl, allowed: AllowedHosts, resolve: Resolver
) -> Sequence[Address]:
    """Resolve the host once, and return its addresses, all of which are allowed.

    Raises `WebhookHostNotFound`, `PrivateWebhookAddress`.
    """
    addresses = resolve(target.host, target.port)
    for address in addresses:
        _check(_without_mapping(address), target.host, allowed)
    return addresses  # NAT64 ones as they are: the host may have no other way to IPv4


def resolve_host(host: str, port: int) -> Sequence[Address]:
    """Resolve a host name or an address in any spelling. Raises `WebhookHostNotFound`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a valid name"
        raise WebhookHostNotFound(host=host, reason=reason) from error
    return [ip_address(entry[4][0]) for entry in found]


def _check(address: Address, host: str, allowed: AllowedHosts) -> None:
    if _is_public(address) or host in allowed.entries or allowed.includes_address(address):
        return
    raise PrivateWebhookAddress(host=host, address=address)


def _is_public(address: Address) -> bool:
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, IPv4Address):
        return True
    if address.sixtofour is not None:
        return _is_public(address.sixtofour)
    return address in _GLOBAL_UNICAST


def _without_mapping(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _literal_address(host: str) -> Address | None:
    """Return the address that the host consists of, in any spelling: 127.1 and 2130706433, too."""
    try:
        (entry, *_) = socket.getaddrinfo(
            host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return None
    return _without_mapping(ip_address(entry[4][0]))


def _is_network(entry: str) -> bool:
    try:
        ip_network(entry)
    except ValueError:
        return False
    return True
