"""The name in a ClientHello, from real clients and from hands."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.broker.proxy_tls import MAX_HELLO_BYTES, NotTls, server_name


def real_hello(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def sized(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def entry(name: bytes, kind: int = 0) -> bytes:
    return bytes([kind]) + sized(2, name)


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + sized(2, data)


def body(*extensions: bytes) -> bytes:
    return (
        b"\3\3"
        + b"r" * 32
        + sized(1, b"s" * 32)
        + sized(2, b"\x13\1")
        + sized(1, b"\0")
        + sized(2, b"".join(extensions))
    )


def hello(content: bytes, kind: int = 1) -> bytes:
    return bytes([kind]) + sized(3, content)


def records(message: bytes, size: int = 16384) -> bytes:
    return b"".join(b"\x16\3\1" + sized(2, message[at : at + size]) for at in range(0, len(message), size))


NAMED = extension(0, sized(2, entry(b"a.example")))


def test_real_clients() -> None:
    assert server_name(real_hello("Some.Example.com")) == "some.example.com"
    assert server_name(real_hello("127.0.0.1")) == ""


def test_every_cut_asks_for_more() -> None:
    whole = real_hello("some.example.com")
    assert [server_name(whole[:at]) for at in range(len(whole))] == [None] * len(whole)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 50])
def test_records_may_cut_the_message_anywhere(size: int) -> None:
    assert server_name(records(hello(body(NAMED)), size)) == "a.example"
    assert server_name(records(hello(body(NAMED)), size)[:-1]) is None


def test_no_name() -> None:
    assert server_name(records(hello(body()))) == ""
    assert server_name(records(hello(body(extension(43, b"\2\3\4"))))) == ""
    assert server_name(records(hello(body()[:-2]))) == ""


def test_the_outer_name_counts() -> None:
    assert server_name(records(hello(body(extension(0xFE0D, b"inner"), NAMED)))) == "a.example"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x80\x2e\1\3\1",  # the hello of SSL 2
        b"\x15\3\1\0\2\2\0",
        b"\x16\2\0\0\1",
        b"\x16\3\1\0\0",
        b"\x16\3\1\xff\xff",
        records(hello(body(NAMED), kind=2)),
        records(b"\1\xff\xff\xff" + b"x" * 100),
        records(hello(body(NAMED) + b"more")),
        records(hello(body(NAMED)[:-1])),
        records(hello(b"\3\3short")),
        records(hello(body(NAMED, NAMED))),
        records(hello(body(extension(0, sized(2, entry(b"a.example") + entry(b"b.example")))))),
        records(hello(body(extension(0, sized(2, entry(b"a.example", 1)))))),
        records(hello(body(extension(0, sized(2, entry(b"")))))),
        records(hello(body(extension(0, sized(2, entry(b"a\0.example")))))),
        records(hello(body(extension(0, sized(2, entry("é.example".encode())))))),
        records(hello(body(extension(0, sized(2, entry(b"a.example")) + b"x")))),
        records(hello(body(extension(0, b"")))),
    ],
)
def test_what_is_no_hello_in_order(data: bytes) -> None:
    with pytest.raises(NotTls):
        server_name(data)


def test_it_ends_somewhere() -> None:
    with pytest.raises(NotTls):
        server_name(records(b"\1\0\x40\0" + b"x" * MAX_HELLO_BYTES, 1)[: MAX_HELLO_BYTES + 5])


@given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 255))
def test_nothing_breaks_it(noise: bytes, at: int, byte: int) -> None:
    whole = bytearray(records(hello(body(NAMED))))
    whole[at % len(whole)] = byte
    for data in (noise, b"\x16\3\1" + noise, bytes(whole), records(hello(noise) if noise else b"x")):
        try:
            found = server_name(data)
        except NotTls:
            continue
        assert found is None or found == found.lower()
