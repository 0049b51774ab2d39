"""fetch_url against a real server on loopback."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from toka_runtime.worker.toolbox import fetch
from toka_runtime.worker.toolbox.failure import ToolFailure
from toka_runtime.worker.tools import execute


class Pages(BaseHTTPRequestHandler):
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, self.headers.get("Host", "")))
        body, kind, status, more = b"", "text/plain", 200, {}
        match self.path.partition("?")[0]:
            case "/text":
                body, kind = "größe".encode("latin-1"), "text/plain; charset=iso-8859-1"
            case "/json":
                body, kind = b'{"a": 1}', "application/json"
            case "/binary":
                body, kind = b"\x89PNG\0\0", "image/png"
            case "/zipped":
                body, more = gzip.compress(b"hello"), {"Content-Encoding": "gzip"}
            case "/here":
                status, more = 302, {"Location": "/json"}
            case "/loop":
                status, more = 302, {"Location": "/loop"}
            case "/elsewhere":
                status, more = 302, {"Location": "http://metadata.example/latest"}
            case "/big":
                body = b"x" * (6 << 20)
            case "/drip":
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                while not server.over.wait(0.02):
                    try:
                        self.wfile.write(b".")
                    except OSError:
                        return
                return
            case _:
                status, body = 404, b"not here"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as httpd:
        handle: Any = httpd
        handle.seen, handle.over = [], threading.Event()
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield handle
        handle.over.set()
        httpd.shutdown()
        thread.join()


def get(server: Any, path: str, tmp_path: Path, timeout_s: float = 20.0) -> dict[str, Any]:
    url = f"http://127.0.0.1:{server.server_address[1]}{path}"
    request = {"tool": "fetch_url", "arguments": {"url": url}, "root": str(tmp_path), "timeout_s": timeout_s}
    return execute(request, lambda stream, data: None)


def test_text_in_its_charset(server: Any, tmp_path: Path) -> None:
    outcome = get(server, "/text", tmp_path)
    assert outcome["ok"]
    assert outcome["content"].startswith("HTTP 200 OK\n")
    assert outcome["content"].endswith("größe")


def test_json_and_status(server: Any, tmp_path: Path) -> None:
    assert get(server, "/json", tmp_path)["content"].endswith('{"a": 1}')
    missing = get(server, "/nothing", tmp_path)
    assert (missing["ok"], missing["code"]) == (False, "tool.http_status")
    assert "not here" in missing["content"]


@pytest.mark.parametrize("path", ["/binary", "/zipped"])
def test_binary_is_named_not_shown(server: Any, tmp_path: Path, path: str) -> None:
    assert "binary content" in get(server, path, tmp_path)["content"]


def test_redirects_stay_with_host_and_port(server: Any, tmp_path: Path) -> None:
    assert get(server, "/here", tmp_path)["content"].endswith('{"a": 1}')
    told = get(server, "/elsewhere", tmp_path)
    assert "redirects to http://metadata.example/latest" in told["content"]
    assert "more than 5 redirects" in get(server, "/loop", tmp_path)["content"]


def test_what_is_sent_is_one_request_line(server: Any, tmp_path: Path) -> None:
    get(server, "/a b?x=ü#frag", tmp_path)
    assert server.seen == [("/a%20b?x=%C3%BC", f"127.0.0.1:{server.server_address[1]}")]


def test_size_is_bounded(server: Any, tmp_path: Path) -> None:
    outcome = get(server, "/big", tmp_path)
    assert outcome["result_bytes"] < (5 << 20) + 1000
    assert "cut after" in outcome["content"]


def test_a_dripping_server_is_left(server: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    assert get(server, "/drip", tmp_path, timeout_s=0.5)["code"] == "tool.timeout"
    assert time.monotonic() - began < 5


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        request = {
            "tool": "fetch_url",
            "arguments": {"url": f"http://127.0.0.1:{free.getsockname()[1]}/"},
            "root": str(tmp_path),
        }
        assert execute(request, lambda stream, data: None)["code"] == "tool.network"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1"]
)
def test_a_name_must_not_lead_inside(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)
    with pytest.raises(ToolFailure) as failure:
        fetch._connect(fetch._Place("http", "innocent.example", 80))
    assert failure.value.refused_target == f"innocent.example ({address})"
