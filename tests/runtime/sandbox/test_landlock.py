"""Path rights of a real process under Landlock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.child import in_child
from toka_runtime.sandbox import kernel, landlock
from toka_runtime.sandbox.landlock import EXECUTE, READ, WRITE, PathAccess

pytestmark = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("open", "readonly", "hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "open/link").symlink_to(tmp_path / "hidden/file")
    return tmp_path


def tried(folders: Path) -> dict[str, str]:
    """What a process with rights to `open` and to read `readonly` could do."""

    def attempt(act: object) -> str:
        try:
            act()  # type: ignore[operator]
        except OSError as error:
            return os.strerror(error.errno or 0)
        return "done"

    def child() -> str:
        kernel.no_new_privileges()
        landlock.restrict(
            [
                PathAccess(str(folders / "open"), READ | WRITE),
                PathAccess(str(folders / "readonly"), READ),
                PathAccess(str(folders / "not-there"), READ),
                PathAccess("/usr", READ | EXECUTE),
            ]
        )
        acts = {
            "read open": lambda: (folders / "open/file").read_text(),
            "write open": lambda: (folders / "open/new").write_text("x"),
            "truncate open": lambda: os.truncate(folders / "open/file", 0),
            "read through link": lambda: (folders / "open/link").read_text(),
            "read readonly": lambda: (folders / "readonly/file").read_text(),
            "write readonly": lambda: (folders / "readonly/file").write_text("x"),
            "make in readonly": lambda: (folders / "readonly/new").touch(),
            "read hidden": lambda: (folders / "hidden/file").read_text(),
            "list hidden": lambda: os.listdir(folders / "hidden"),
            "remove hidden": lambda: (folders / "hidden/file").unlink(),
            "read passwd": lambda: Path("/etc/passwd").read_text(),
            "socket file": lambda: os.mknod(folders / "open/sock", 0o140600),
        }
        return "\n".join(f"{name}={attempt(act)}" for name, act in acts.items())

    return dict(line.split("=") for line in in_child(child).splitlines())


def test_only_what_was_given(folders: Path) -> None:
    result = tried(folders)
    may = {name for name, outcome in result.items() if outcome == "done"}
    assert may == {"read open", "write open", "truncate open", "read readonly"}
    assert {outcome for name, outcome in result.items() if name not in may} == {"Permission denied"}
    assert (folders / "hidden/file").read_text() == "hidden"


def test_no_tcp_even_on_loopback(folders: Path) -> None:
    if landlock.abi() < 4:
        pytest.skip("this kernel's Landlock does not know TCP")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def child() -> str:
            kernel.no_new_privileges()
            landlock.restrict([])
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5)
            except PermissionError:
                return "refused"
            return "connected"

        assert in_child(child) == "refused"
