"""An agent's own view of the machine, on a real process; as root and as an ordinary user with the same code."""

from __future__ import annotations

import encodings.idna  # noqa: F401  # looked up at the first connect, where the view does not hold this Python
import json
import os
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes.child import in_child
from toka_runtime.sandbox.namespaces import Bind, PrimitiveMissing, View, build_root, drop_privileges, isolate

AGENT = 61184
SYSTEM = [Bind(path, path) for path in ("/usr", "/etc/ld.so.cache", "/etc/alternatives") if Path(path).exists()]
TOP = [Path(f"/{name}") for name in ("bin", "lib", "lib64", "sbin")]
LINKS = [(str(path), os.readlink(path)) for path in TOP if path.is_symlink()]


def user_namespaces() -> bool:
    return subprocess.run(["unshare", "--user", "true"], check=False, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(os.getuid() != 0 and not user_namespaces(), reason="no user namespaces here")


@pytest.fixture(params=["root", "user"])
def as_user(request: pytest.FixtureRequest, tmp_path: Path) -> int | None:
    """None: as whoever runs the tests; else become this uid first."""
    if request.param == "root":
        if os.getuid() != 0:
            pytest.skip("needs root")
        return None
    return 65534 if os.getuid() == 0 else None


def confined(root: Path, act: Callable[[], Any], as_user: int | None) -> Any:
    """What `act` returns (JSON) as a child of process 1 of a view that holds the system and `root`, writable."""
    if os.getuid() == 0:
        owner = as_user or AGENT
        os.chown(root, owner, owner)
        for parent in [root, *root.parents][:4]:
            parent.chmod(parent.stat().st_mode | 0o555)

    def child() -> str:
        if as_user is not None and os.getuid() == 0:
            os.setgroups([])
            os.setresgid(as_user, as_user, as_user)
            os.setresuid(as_user, as_user, as_user)
        privileged = os.getuid() == 0
        isolate(user=not privileged)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                build_root(View([*SYSTEM, Bind(str(root), str(root), writable=True)], LINKS, [("/etc/hello", "hi\n")]))
                drop_privileges(AGENT if privileged else None, AGENT if privileged else None)
                os.chdir(root)
                os.write(writing, json.dumps(act()).encode())
                code = 0
            except BaseException:  # noqa: BLE001  # told to the parent
                os.write(writing, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        assert os.waitpid(pid, 0)[1] == 0, text
        return text

    return json.loads(in_child(child))


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"


def test_only_what_was_given_exists(tmp_path: Path, as_user: int | None) -> None:
    (tmp_path / "mine").write_text("mine")

    def act() -> dict[str, Any]:
        return {
            "top": sorted(os.listdir("/")),
            "etc": sorted(os.listdir("/etc")),
            "hello": Path("/etc/hello").read_text(),
            "mine": (tmp_path / "mine").read_text(),
            "home": os.path.exists(Path.home()),
            "shadow": os.path.exists("/etc/shadow"),
            "run": os.path.exists("/run"),
        }

    seen = confined(tmp_path, act, as_user)
    assert set(seen["top"]) <= {"bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "tmp", "usr", tmp_path.parts[1]}
    assert set(seen["etc"]) <= {"alternatives", "hello", "ld.so.cache"}
    assert (seen["hello"], seen["mine"]) == ("hi\n", "mine")
    assert not seen["shadow"]
    assert not seen["run"]


def test_writes_stay_in_the_folder_and_in_private_scratch(tmp_path: Path, as_user: int | None) -> None:
    def act() -> dict[str, str]:
        paths = (str(tmp_path / "new"), "/tmp/new", "/dev/shm/new", "/usr/new", "/etc/hello", "/new", "/dev/new")
        return {path: outcome(partial(Path(path).write_text, "x")) for path in paths}

    done = confined(tmp_path, act, as_user)
    assert [path for path, how in done.items() if how == "done"] == [str(tmp_path / "new"), "/tmp/new", "/dev/shm/new"]
    assert (tmp_path / "new").read_text() == "x"
    assert not Path("/tmp/new").exists()
    assert not Path("/dev/shm/new").exists()


def test_it_sees_no_process_but_its_own_and_no_network(tmp_path: Path, as_user: int | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def act() -> dict[str, Any]:
            return {
                "pid": os.getpid(),
                "pids": [name for name in os.listdir("/proc") if name.isdigit()],
                "interfaces": [name for _, name in socket.if_nameindex()],
                "connect": outcome(lambda: socket.create_connection(("127.0.0.1", port), timeout=5)),
                "own loopback": outcome(lambda: socket.create_server(("127.0.0.1", 0)).close()),
                "kill": outcome(lambda: os.kill(os.getppid() or 2, signal.SIGTERM)),
                "host": socket.gethostname(),
            }

        seen = confined(tmp_path, act, as_user)
    assert seen["pid"] == 1
    assert seen["pids"] == ["1"]
    assert seen["interfaces"] == ["lo"]
    assert seen["connect"] == "ConnectionRefusedError"
    assert seen["own loopback"] == "done"
    assert seen["host"] == "agent"


def test_it_has_no_capability_and_cannot_get_one(tmp_path: Path, as_user: int | None) -> None:
    def act() -> dict[str, Any]:
        status = Path("/proc/self/status").read_text().splitlines() if os.access("/proc/self/status", os.R_OK) else []
        return {
            "caps": {line.split(":")[0]: int(line.split()[1], 16) for line in status if line.startswith("Cap")},
            "uid": [os.getuid(), os.geteuid()],
            "groups": os.getgroups(),
            "setuid": outcome(lambda: os.setresuid(0, 0, 0)),
            "hostname": outcome(lambda: socket.sethostname("x")),
            "environ": outcome(lambda: Path("/proc/1/environ").read_bytes()),
            "mem": outcome(lambda: open("/proc/1/mem", "rb")),
        }

    seen = confined(tmp_path, act, as_user)
    assert seen["caps"]
    assert set(seen["caps"].values()) == {0}
    assert 0 not in seen["uid"]
    assert seen["setuid"] != "done"
    assert seen["hostname"] == "PermissionError"
    assert (seen["environ"], seen["mem"]) == ("PermissionError", "PermissionError")


def test_a_missing_primitive_is_named() -> None:
    def child() -> str:
        try:
            build_root(View([Bind("/not/there", "/not/there")]))
        except PrimitiveMissing as error:
            return error.primitive
        return "nothing"

    # Without namespaces of its own an ordinary user may not even mount; as root the source is what is missing.
    def isolated() -> str:
        isolate(user=os.getuid() != 0)
        pid = os.fork()
        if pid == 0:
            text = child()
            os._exit(0 if "/not/there" in text else 1)
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    assert in_child(isolated) == "0"
