"""Where a name may lead: to the public internet, and inside only where that very address was granted."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from toka_runtime.broker.proxy_http import Target

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""(name, port) → addresses, the preferred one first. Raises OSError or UnicodeError."""
_MAX_TRIED = 4

# Kept here and not asked of `ipaddress`, whose idea of "global" differs between versions of Python.
_REFUSED_V4 = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("169.254.169.254/32", "a metadata service"),
        ("168.63.129.16/32", "a metadata service"),
        ("100.100.100.200/32", "a metadata service"),
        ("192.0.0.192/32", "a metadata service"),
        ("0.0.0.0/8", "an unspecified address"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a carrier's private address"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "a reserved address"),
        ("192.88.99.0/24", "a reserved address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "a reserved address"),
        ("198.51.100.0/24", "a reserved address"),
        ("203.0.113.0/24", "a reserved address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
    )
)
_REFUSED_V6 = tuple(
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("fd00:ec2::254/128", "a metadata service"),
        ("fd20:ce::254/128", "a metadata service"),
        ("::/128", "an unspecified address"),
        ("::1/128", "a loopback address"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a private address"),
        ("ff00::/8", "a multicast address"),
        ("2001::/23", "a reserved address"),
        ("2001:db8::/32", "a reserved address"),
        ("3fff::/20", "a reserved address"),
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class Unreachable(Exception):
    """The name leads nowhere."""


class AddressRefused(Exception):
    """The name leads where no agent may go."""


@dataclass(frozen=True)
class Place:
    """One pinned address."""

    family: socket.AddressFamily
    address: str
    port: int


def refusal(address: str) -> str:
    """What makes the address one that a public name must not lead to; "" when nothing does."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "no plain address"  # with a zone, for one
    if isinstance(found, ipaddress.IPv4Address):
        return next((what for network, what in _REFUSED_V4 if found in network), "")
    for network, what in _REFUSED_V6:
        if found in network:
            return what
    inner = found.ipv4_mapped or found.sixtofour
    if inner is None and (found in _NAT64 or found in _COMPATIBLE):
        inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if inner is not None:
        if what := refusal(str(inner)):
            return f"{what} ({inner}) in the form of an IPv6 address"
        return "" if found in _GLOBAL_V6 or found in _NAT64 else "an IPv4 address in the form of an IPv6 address"
    return "" if found in _GLOBAL_V6 else "a reserved address"


async def find(target: Target, lookup: Lookup) -> list[Place]:
    """The addresses to try, in order; nothing is looked up again after this. The target has been allowed by policy,
    which knows addresses and `localhost` only where they are listed literally. Raises Unreachable, and AddressRefused
    when any of the addresses is one that the name must not lead to."""
    if target.address is not None:
        return [_place(str(target.address), target.port)]
    try:
        addresses = list(dict.fromkeys(await lookup(target.host, target.port)))
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{target.host}: the name cannot be resolved ({error})") from None
    if not addresses:
        raise Unreachable(f"{target.host}: the name has no address")
    for address in addresses:
        what = refusal(address)
        if target.host == "localhost":
            what = "" if what == "a loopback address" else "no loopback address"
        if what:
            raise AddressRefused(f"the name leads to {address}, {what}")
    return [_place(address, target.port) for address in addresses[:_MAX_TRIED]]


def _place(address: str, port: int) -> Place:
    return Place(socket.AF_INET6 if ":" in address else socket.AF_INET, address, port)


async def system_lookup(name: str, port: int) -> Sequence[str]:
    """What the system's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]
