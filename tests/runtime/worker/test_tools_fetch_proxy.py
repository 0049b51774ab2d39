"""fetch_url through the egress proxy: the only way out where the environment names one."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from fakes.egress import Egress, certificate, egress, server
from toka_runtime.worker.tools import execute


async def fetch(out: Egress, url: str, tmp_path: Path, **environment: str) -> dict[str, Any]:
    proxy = f"http://127.0.0.1:{out.port}"
    request = {
        "tool": "fetch_url",
        "arguments": {"url": url},
        "root": str(tmp_path),
        "timeout_s": 20.0,
        "environment": environment or {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": ""},
    }
    return await asyncio.to_thread(execute, request, lambda stream, data: None)


async def test_http(tmp_path: Path) -> None:
    async with server() as site, egress(f"localhost:{site.port}") as out:
        outcome = await fetch(out, f"http://localhost:{site.port}/a?b", tmp_path)
        assert outcome["content"].endswith("hello")
        assert site.seen.startswith(b"GET /a?b HTTP/1.1\r\n")
        assert out.allowed() == [f"localhost:{site.port}"]


async def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusted = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    async with server(tls=context) as site, egress(f"localhost:{site.port}", f"127.0.0.1:{site.port}") as out:
        for host in ("localhost", "127.0.0.1"):
            outcome = await fetch(out, f"https://{host}:{site.port}/", tmp_path)
            assert outcome["content"].endswith("hello")
        assert f"Host: localhost:{site.port}".encode() in site.seen


async def test_a_certificate_that_is_not_valid(tmp_path: Path) -> None:
    context, _ = certificate(tmp_path, "localhost")
    async with server(tls=context) as site, egress(f"localhost:{site.port}") as out:
        outcome = await fetch(out, f"https://localhost:{site.port}/", tmp_path)
        assert outcome["code"] == "tool.network"
        assert "certificate is not valid" in outcome["content"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_refusal_is_told_with_the_proxys_text(tmp_path: Path, scheme: str) -> None:
    async with egress() as out:
        outcome = await fetch(out, f"{scheme}://evil.test:8443/", tmp_path)
        assert (outcome["code"], outcome["refused_target"]) == ("tool.refused_by_proxy", "evil.test:8443")
        assert "[missing capability: network-access; rule: deny:not-granted]" in outcome["content"]
        assert out.denial() == ("proxy", "deny:not-granted", "evil.test:8443")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_address_inside_is_judged_by_the_proxy(tmp_path: Path, scheme: str) -> None:
    async with egress("a.example:81") as out:
        out.names["a.example"] = ["169.254.169.254"]
        outcome = await fetch(out, f"{scheme}://a.example:81/", tmp_path)
        assert "a metadata service" in outcome["content"]
        assert outcome["refused_target"] == "a.example:81"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_failure_is_no_refusal(tmp_path: Path, scheme: str) -> None:
    async with egress("nowhere.example:81") as out:
        outcome = await fetch(out, f"{scheme}://nowhere.example:81/", tmp_path)
        assert (outcome["code"], outcome.get("refused_target", "")) == ("tool.network", "")
        assert "cannot be resolved" in outcome["content"]


async def test_a_server_cannot_pose_as_the_proxy(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 403 No\r\nX-Toka-Refused: r\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nmine"
    async with server(answer=answer) as site, egress(f"localhost:{site.port}") as out:
        assert (await fetch(out, f"http://localhost:{site.port}/", tmp_path))["code"] == "tool.http_status"


async def test_redirects_ask_the_proxy_again(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: /more\r\nContent-Length: 0\r\n\r\n"
    async with server(answer=answer) as site, egress(f"localhost:{site.port}") as out:
        outcome = await fetch(out, f"http://localhost:{site.port}/", tmp_path)
        assert "more than 5 redirects" in outcome["content"]
        assert len(out.allowed()) == 6


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1", "http://:x", "https://127.0.0.1:1"])
async def test_there_is_no_way_around_a_proxy_that_cannot_be_used(tmp_path: Path, proxy: str) -> None:
    async with server() as site, egress(f"localhost:{site.port}") as out:
        outcome = await fetch(out, f"http://127.0.0.1:{site.port}/", tmp_path, http_proxy=proxy)
        assert outcome["code"] == "tool.network"
        assert site.connections == 0


async def test_a_proxy_that_is_gone(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{free.getsockname()[1]}"
        async with server() as site, egress() as out:
            outcome = await fetch(out, f"http://127.0.0.1:{site.port}/", tmp_path, https_proxy=proxy)
            assert outcome["code"] == "tool.network"
            assert site.connections == 0
