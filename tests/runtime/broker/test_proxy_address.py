"""Where a name may lead, with a resolver that says anything."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from toka_runtime.broker.proxy_address import AddressRefused, Lookup, Unreachable, find, refusal
from toka_runtime.broker.proxy_http import parse_target

INSIDE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::2",
    "::7f00:1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2002:c0a8:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd12::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "4000::1",
    "text",
]
OUTSIDE = (
    "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 2606:4700::1111 64:ff9b::808:808 2002:808:808::1"
)


@pytest.mark.parametrize("address", INSIDE)
async def test_inside_is_refused(address: str) -> None:
    assert refusal(address)
    for answer in ([address], ["1.1.1.1", address], [address, "1.1.1.1"]):
        with pytest.raises(AddressRefused):
            await find(parse_target("name.example:443"), _says(*answer))


@pytest.mark.parametrize("address", OUTSIDE.split())
async def test_outside_is_not(address: str) -> None:
    assert refusal(address) == ""
    (place,) = await find(parse_target("name.example:443"), _says(address))
    assert (place.address, place.port) == (address, 443)


@pytest.mark.parametrize("written", ["127.0.0.1:80", "[::1]:80", "169.254.169.254:80", "[::ffff:127.0.0.1]:80"])
async def test_an_address_that_was_granted_is_itself(written: str) -> None:
    (place,) = await find(parse_target(written), _says("6.6.6.6"))
    assert place.address == written.rpartition(":")[0].strip("[]").replace("127.0.0.1", _mapped(written))


def _mapped(written: str) -> str:
    return "7f00:1" if "ffff" in written else "127.0.0.1"


async def test_localhost_is_loopback_and_nothing_else() -> None:
    found = await find(parse_target("localhost:80"), _says("::1", "127.0.0.1", "::1"))
    assert [place.address for place in found] == ["::1", "127.0.0.1"]
    for address in ("10.0.0.1", "1.1.1.1"):
        with pytest.raises(AddressRefused):
            await find(parse_target("localhost:80"), _says("127.0.0.1", address))
    for name in ("a.localhost:80", "localhost.example:80"):
        with pytest.raises(AddressRefused):
            await find(parse_target(name), _says("127.0.0.1"))


async def test_names_that_lead_nowhere() -> None:
    async def fails(name: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    for lookup in (fails, _says()):
        with pytest.raises(Unreachable):
            await find(parse_target("name.example:443"), lookup)


def _says(*addresses: str) -> Lookup:
    async def lookup(name: str, port: int) -> Sequence[str]:
        return addresses

    return lookup
