"""The way out of the house: an aiohttp session that connects to public addresses only.

The address is looked at when the socket is made, after whatever resolved the name: so neither a literal address nor a
name that resolves differently the second time (DNS rebinding) gets past.
"""

import errno
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import aiohttp

from usercore.logs import logger

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""As `getaddrinfo` has it."""

NAT64 = IPv6Network("64:ff9b::/96")
"""IPv6 addresses that carry an IPv4 address to a translator (RFC 6052)."""

log = logger(__name__)


class ForbiddenAddress(OSError):
    """The name stands for an address that no vendor has."""

    def __init__(self) -> None:
        # aiohttp takes an OSError with a number for a connection that could not be made.
        super().__init__(errno.EACCES, "forbidden address")


def open_session(*, production: bool) -> aiohttp.ClientSession:
    """For everything that is fetched from outside: no cookies, no proxies; close it at the end. Needs a running loop.

    Outside production loopback is allowed besides: the sandboxes live there.
    """

    def make_socket(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), loopback=not production):
            log.warning("address_refused")
            raise ForbiddenAddress
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        # Each vendor has a limit of its own, so that none waits for another.
        limit=0,
        socket_factory=make_socket,
        # The vendor's answers change places at most this late.
        ttl_dns_cache=30,
    )
    return aiohttp.ClientSession(
        connector=connector,
        # What a vendor remembers of one person must not go along with the next.
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        headers={"User-Agent": "usercore"},
    )


def is_allowed(text: str, *, loopback: bool) -> bool:
    """Whether an address is a public one; with `loopback`, or this machine's own."""
    try:
        address = _carried(ip_address(text))
    except ValueError:
        return False
    if address.is_loopback:
        return loopback
    return address.is_global and not address.is_multicast


def _carried(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv6 one, if there is one: the packets go there."""
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
    return address
