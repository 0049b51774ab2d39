"""What the proxy reads from requests and answers: one form, or nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.broker.proxy_http import ChunkedBody, FixedBody, Malformed, parse_answer, parse_request, parse_target
from toka_runtime.policy.matching import split_host


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("example.com:443", "example.com:443"),
        ("EXAMPLE.Com:443", "example.com:443"),
        ("example.com.:443", "example.com:443"),
        ("xn--bcher-kva.example:443", "xn--bcher-kva.example:443"),
        ("_srv.example.com:1", "_srv.example.com:1"),
        ("127.0.0.1:65535", "127.0.0.1:65535"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
        ("[2001:DB8::A]:80", "[2001:db8::a]:80"),
        ("[::ffff:127.0.0.1]:80", "[::ffff:7f00:1]:80"),
    ],
)
def test_targets_have_one_form(written: str, meant: str) -> None:
    assert str(parse_target(written)) == meant


ODD = [
    "example.com", "example.com:", "example.com:0", "example.com:65536", "example.com:+443", "example.com:0443",
    "example.com:443 ", "example.com:４４３", "example.com:443:443", ":443", "", ".:443", "..:443", "example.com..:443",
    "example..com:443", "-example.com:443", "example-.com:443", "*.example.com:443",
    "user@example.com:443", "user:secret@example.com:443", "example.com@evil.test:443", "http://example.com:443",
    "example.com/:443", "example.com?x:443", "example.com#x:443", "example.com\\evil.test:443", "example%2ecom:443",
    "example.com%00.evil.test:443", "example.com\0:443", "example.com\x7f:443",
    "exam\tple.com:443", "example.com\r\n:443",
    "еxample.com:443", "example。com:443", "ｅxample.com:443", "exa\u200bmple.com:443",
    "exam\u00adple.com:443", "ß.example:443",
    "2130706433:80", "0x7f000001:80", "0x7f.0.0.1:80", "0177.0.0.1:80", "127.1:80", "127.0.1:80", "127.0.0.1.:80",
    "127.0.0.256:80", "127.0.0.01:80", "1.2.3.4.5:80", "example.0x:80", "example.123:80", "0:80", "0x:80",
    "::1:80", "[::1]", "[::1:80", "::1]:80", "[::1%lo]:80", "[fe80::1%25eth0]:80",
    "[127.0.0.1]:80", "[example.com]:443",
    "[::1].example.com:80", "[::1]x:80", "[]:80", "[::1]:", "[[::1]]:80", "[v1.x]:80",
    "[::1 ]:80", "[1:2:3:4:5:6:7:8:9]:80",
    "a" * 64 + ".example:443", ".".join(["a" * 60] * 5) + ":443",
]  # fmt: skip


@pytest.mark.parametrize("written", ODD)
def test_odd_targets_are_refused(written: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_target(written)
    assert refused.value.asked.isprintable()
    assert refused.value.asked.rstrip("…").isascii()


def request(line: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


HOST = b"Host: example.com"
GET = b"GET http://example.com/ HTTP/1.1"
POST = b"POST http://example.com/ HTTP/1.1"


@pytest.mark.parametrize(
    "head",
    [
        request(b"GET / HTTP/1.1", HOST),
        request(b"GET example.com/ HTTP/1.1", HOST),
        request(b"GET https://example.com/ HTTP/1.1", HOST),
        request(b"GET ftp://example.com/ HTTP/1.1", HOST),
        request(b"GET file:///etc/passwd HTTP/1.1", HOST),
        request(b"GET http:///x HTTP/1.1", HOST),
        request(b"GET http:example.com HTTP/1.1", HOST),
        request(b"GET http://a@example.com/ HTTP/1.1", HOST),
        request(b"GET http://example.com\\@evil.test/ HTTP/1.1", HOST),
        request(b"GET http://example.com#@evil.test/ HTTP/1.1", HOST),
        request(b"GET http://example.com/#x HTTP/1.1", HOST),
        request(b"GET http://example.com:/ HTTP/1.1", HOST),
        request(b"GET  http://example.com/ HTTP/1.1", HOST),
        request(b"GET http://example.com/ x HTTP/1.1", HOST),
        request(b"GET http://example.com/\xc3\xbc HTTP/1.1", HOST),
        request(b"GET http://example.com/ HTTP/2.0", HOST),
        request(b"GET http://example.com/ HTTP/1.2", HOST),
        request(b"GET http://example.com/ http/1.1", HOST),
        request(b"GET http://example.com/", HOST),
        request(b"\r\n" + GET, HOST),
        request(GET),
        request(GET, HOST, HOST),
        request(GET, b"Host: a@example.com"),
        request(GET, b"Host : example.com"),
        request(GET, b" Host: example.com"),
        request(GET, HOST, b" folded"),
        request(GET, HOST, b"\tfolded"),
        request(GET, HOST, b"X: a\0b"),
        request(GET, HOST, b"X: a\nHost: evil.test"),
        request(GET, HOST, b"X: a\rHost: evil.test"),
        request(GET, HOST, b"no colon"),
        request(GET, HOST, b": empty"),
        request(b"CONNECT example.com:443 HTTP/1.1", b"Content-Length: 5"),
        request(b"CONNECT example.com:443 HTTP/1.1", b"Transfer-Encoding: chunked"),
        request(b"CONNECT http://example.com:443 HTTP/1.1"),
        request(b"CONNECT example.com:443/ HTTP/1.1"),
        request(b"CONNECT /run/docker.sock HTTP/1.1"),
        request(b"connect example.com:443 HTTP/1.1"),
        request(b"TRACE http://example.com/ HTTP/1.1", HOST),
        request(b"PRI * HTTP/2.0"),
        request(POST, HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        request(POST, HOST, b"Content-Length: 1", b"Content-Length: 1"),
        request(POST, HOST, b"Content-Length: 1, 1"),
        request(POST, HOST, b"Content-Length: +1"),
        request(POST, HOST, b"Content-Length: -1"),
        request(POST, HOST, b"Content-Length: 0x1"),
        request(POST, HOST, b"Transfer-Encoding: gzip, chunked"),
        request(POST, HOST, b"Transfer-Encoding: identity"),
        request(POST, HOST, b"Transfer-Encoding: \x0bchunked"),
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_odd_requests_are_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        parse_request(head)


def test_a_request_is_written_anew() -> None:
    found = parse_request(
        request(
            b"GET HTTP://Example.COM:8080?q=1 HTTP/1.0",
            b"hOST: example.com:8080",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: Basic eA==",
            b"Connection: keep-alive, X-Hop",
            b"X-Hop: 1",
            b"Upgrade: h2c",
            b"TE: trailers",
            b"Accept: */*",
        )
    )
    assert str(found.target) == "example.com:8080"
    assert found.head == (b"GET /?q=1 HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n")


def test_what_frames_a_body_is_not_stripped_by_a_connection_header() -> None:
    found = parse_request(request(POST, HOST, b"Connection: Content-Length", b"Content-Length: 3"))
    assert b"Content-Length: 3" in found.head
    assert isinstance(found.body, FixedBody)


def test_chunks_end_where_they_say() -> None:
    data = b"5\r\nhello\r\n0\r\n\r\nGET http://evil.test/ HTTP/1.1\r\n"
    whole = ChunkedBody()
    assert whole.feed(data) == 15
    assert whole.done
    single = ChunkedBody()
    assert sum(single.feed(data[at : at + 1]) for at in range(len(data))) == 15


@pytest.mark.parametrize(
    "data", [b"5;ext=1\r\nhello\r\n", b"5\r\nhelloX\r\n", b"0\r\nTrailer: x\r\n\r\n", b"-1\r\n", b"0x5\r\n", b"\r\n",
             b"5\nhello\n0\n\n0000000000000", b"f" * 16 + b"\r\n", b" 5\r\nhello\r\n"]
)  # fmt: skip
def test_odd_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        ChunkedBody().feed(data)


def test_a_server_cannot_speak_as_the_proxy() -> None:
    answer = parse_answer(
        b"HTTP/1.1 403 No\r\nx-toka-refused : r\r\nKeep-Alive: 5\r\nConnection: keep-alive\r\nA: b\r\n\r\n", "GET"
    )
    assert answer.head == b"HTTP/1.1 403 No\r\nA: b\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 101 Switching\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"\r\n\r\n",
             b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"]
)  # fmt: skip
def test_odd_answers_are_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        parse_answer(head, "GET")


_HOSTISH = st.text(st.sampled_from("aZ.-_:[]@%/\\0x19#? \t\r\n\0éе*"), max_size=24)


@given(st.one_of(_HOSTISH, st.text(max_size=30), st.builds("{}:{}".format, _HOSTISH, st.integers(-1, 70000))))
def test_whatever_is_taken_is_what_policy_reads(written: str) -> None:
    try:
        target = parse_target(written)
    except Malformed:
        return
    assert split_host(str(target)) == (target.host, target.port)
    assert parse_target(str(target)) == target


_BYTES = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [b"GET ", b"CONNECT ", b"http://", b"example.com", b":80", b"/", b" HTTP/1.1", b"\r\n", b"\n",
    b"\r", b"\0", b"@",
             b"Host: ", b"evil.test", b"Content-Length: 3", b"Transfer-Encoding: chunked", b" ", b"\t", b"#", b"%0d%0a"]
        ),
        max_size=14,
    ).map(b"".join),
)  # fmt: skip


@given(_BYTES)
def test_what_is_forwarded_is_one_request_to_the_target(data: bytes) -> None:
    head = b"GET http://example.com" + data + b" HTTP/1.1\r\nHost: example.com\r\n" + data + b"\r\n\r\n"
    for tried in (head, data + b"\r\n\r\n"):
        try:
            found = parse_request(tried)
        except Malformed:
            continue
        assert split_host(str(found.target)) is not None
        if found.tunnel:
            assert not found.head
            continue
        lines = found.head.split(b"\r\n")
        assert re.fullmatch(rb"[A-Z]+ /[!-~]* HTTP/1\.1", lines[0])
        assert [line for line in lines if line.lower().startswith(b"host:")] == [lines[1]]
        assert str(parse_target(lines[1][6:].decode(), 80)) == str(found.target)
        assert found.head.count(b"\r\n\r\n") == 1
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", found.head)
