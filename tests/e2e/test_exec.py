"""`toka-runtime exec` as a shell has it: real processes, real walls, a real terminal."""

from __future__ import annotations

import errno
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fakes.cell import can_confine, system_python
from toka_runtime.sandbox.zygote_start import COMMAND

pytestmark = pytest.mark.skipif(not can_confine(), reason="no user namespaces or no Landlock here")

EXEC = [sys.executable, "-m", "toka_runtime.cli.main", "exec"]
ORDINARY = 12345
FILES = ["--capability", "filesystem-read", "--capability", "filesystem-write"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An ordinary user's, also where the suite runs as root."""
    top = Path(tempfile.mkdtemp(prefix="toka-exec-test-", dir="/var/tmp"))
    inner = top / "work"
    inner.mkdir()
    (top / "secret").write_text("canary")
    if os.getuid() == 0:
        os.chown(inner, ORDINARY, ORDINARY)
    yield inner
    shutil.rmtree(top)


def run(folder: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*EXEC, "--workspace", str(folder), *words], input=stdin, capture_output=True, timeout=60, check=False
    )


def lines(data: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in data.splitlines() if line.startswith(b"{")]


def test_a_real_spec_reads_and_writes_in_its_folder_and_nowhere_else(folder: Path, toka_specs: Path) -> None:
    spec = ["--spec", str(toka_specs / "document-organization.yaml")]
    done = run(folder, *spec, "--", "sh", "-c", "echo hello > new && cat new")
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    assert (folder / "new").read_text() == "hello\n"
    for target in ("/etc/shadow", str(Path.home()), str(folder.parent / "secret")):
        assert run(folder, *spec, "--", "ls", target).returncode == 2, target
    assert run(folder, *spec, "--", "sh", "-c", f"echo x > {folder.parent}/out").returncode != 0
    assert not (folder.parent / "out").exists()


ATTEMPTS = r"""
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *words):
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, words)) < 0:
        raise OSError(ctypes.get_errno(), "")
def to_socket(address):
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(address)
def link():
    os.symlink(HOST + "/secret", "link")
    open("link").read()
def others():
    names = [name for name in os.listdir("/proc") if name.isdigit() and name not in ("1", str(os.getpid()))]
    for name in names:
        open(f"/proc/{name}/environ").read()
    if not names:
        raise OSError("alone")
ATTEMPTS = {
    "read a file beside its folder": lambda: open(HOST + "/secret").read(),
    "list the folder above": lambda: os.listdir(HOST + "/"),
    "write beside its folder": lambda: open(HOST + "/new", "w"),
    "climb with dots": lambda: open("../secret").read(),
    "follow a link of its own": link,
    "make a hard link to outside": lambda: os.link(HOST + "/secret", "hard"),
    "read passwords": lambda: open("/etc/shadow").read(),
    "read the operator's home": lambda: os.listdir(HOME),
    "write where programs are": lambda: open("/usr/bin/new", "w"),
    "write settings": lambda: open("/etc/new", "w"),
    "reach the host through process 1": lambda: os.listdir("/proc/1/root/"),
    "look into the other processes": others,
    "read the operator's environment": lambda: os.environ["CANARY"],
    "signal the runtime": lambda: os.kill(RUNTIME, 0),
    "become root": lambda: os.setuid(0),
    "connect to a server of the host": lambda: socket.create_connection(("127.0.0.1", PORT), 5),
    "connect to a socket of the host": lambda: to_socket(HOST + "/socket"),
    "connect to an abstract socket": lambda: to_socket("\0" + ABSTRACT),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "make a user namespace": lambda: syscall(272, 0x10000000),
    "make a mount": lambda: syscall(165, 0, 0, 0, 0, 0),
    "make a device": lambda: os.mknod("device", 0o20600, os.makedev(1, 1)),
}
reached = []
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
    except (OSError, KeyError):
        continue
    reached.append(name)
open("still", "w").write("works")
print(json.dumps([len(ATTEMPTS), reached, open("still").read()]))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls")
def test_what_must_not_work_with_a_real_spec_does_not(
    folder: Path, toka_specs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "x")
    abstract = f"toka-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as unnamed,
    ):
        named.bind(str(folder.parent / "socket"))
        named.listen()
        unnamed.bind(f"\0{abstract}")
        unnamed.listen()
        known = {
            "HOST": str(folder.parent),
            "HOME": str(Path.home()),
            "PORT": server.getsockname()[1],
            "RUNTIME": os.getpid(),
            "ABSTRACT": abstract,
        }
        program = "".join(f"{name} = {value!r}\n" for name, value in known.items()) + ATTEMPTS
        spec = ["--spec", str(toka_specs / "document-organization.yaml")]
        done = run(folder, *spec, "--", system_python(), "-I", "-c", program)
    assert done.returncode == 0, done.stderr
    count, reached, written = json.loads(done.stdout)
    assert (count, reached, written) == (22, [], "works")
    assert {path.name for path in folder.parent.iterdir()} == {"work", "secret", "socket"}


FETCH = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
"""


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")


def test_hosts_are_reached_through_its_own_proxy_and_others_are_denied(folder: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.server_port
            rights = ["--capability", f"network-access:127.0.0.1:{port}", "--denials", "-"]
            fetch = ["--", system_python(), "-I", "-c", FETCH]
            allowed = run(folder, *rights, *fetch, f"http://127.0.0.1:{port}/")
            refused = run(folder, *rights, *fetch, f"http://127.0.0.1:{port + 1}/")
        finally:
            server.shutdown()
            thread.join()
    assert (allowed.returncode, allowed.stdout, lines(allowed.stderr)) == (0, b"hello\n", []), allowed.stderr
    assert refused.returncode == 1
    told = [(line["layer"], line["target"], line["capability"]) for line in lines(refused.stderr)]
    assert told == [("proxy", f"127.0.0.1:{port + 1}", "network-access")]


WITHOUT = """
import sys
from toka_runtime.sandbox import zygote_start
zygote_start.begin_zygote.__kwdefaults__["command"] = sys.argv.pop(1)
from toka_runtime.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
FAILING = """
class Failing:
    def __getattr__(self, name):
        def fail(*arguments):
            ctypes.set_errno(errno.{number})
            return -1
        return fail if name == "{call}" else getattr(real, name)
real = {module}._libc
{module}._libc = Failing()
"""


@pytest.mark.parametrize(
    ("sabotage", "named", "number"),
    [
        ("landlock.abi = lambda: 0", b"landlock_create_ruleset", errno.ENOSYS),
        (FAILING.format(module="seccomp", call="prctl", number="EINVAL"), b"seccomp filter", errno.EINVAL),
        (FAILING.format(module="namespaces", call="unshare", number="ENOSPC"), b"unshare", errno.ENOSPC),
    ],
    ids=["Landlock", "seccomp", "namespaces"],
)
def test_without_a_primitive_the_command_does_not_start(folder: Path, sabotage: str, named: bytes, number: int) -> None:
    path, _, start = COMMAND.partition("; from ")
    modules = "import ctypes, errno\nfrom toka_runtime.sandbox import bwrap, landlock, namespaces, seccomp\n"
    broken = f"{path.replace('; ', chr(10))}\n{modules}bwrap.find = lambda: None\n{sabotage}\nfrom {start}"
    words = [
        sys.executable,
        "-c",
        WITHOUT,
        broken,
        "exec",
        "--workspace",
        str(folder),
        *FILES,
        "--",
        "touch",
        "started",
    ]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert done.returncode == 125, done.stderr
    assert named in done.stderr
    assert os.strerror(number).encode() in done.stderr
    assert b"toka-runtime doctor" in done.stderr
    assert list(folder.iterdir()) == []


def test_what_was_used_is_of_the_whole_tree(folder: Path) -> None:
    hold = f"{system_python()} -c \"x = b'a' * (60 << 20); print('x', flush=True); import sys; sys.stdin.read()\""
    script = f"""
        mkfifo ready stop
        for _ in 1 2; do {hold} < stop > ready & done
        exec 4<>stop 3<ready; read -r _ <&3; read -r _ <&3
        exec 4>&-; wait
    """
    done = run(folder, "--json", *FILES, "--", "bash", "-c", script)
    assert done.returncode == 0, done.stderr
    summary = lines(done.stderr)[-1]
    largest, whole = summary["largest_process_bytes"], summary["peak_memory_bytes"]
    assert isinstance(largest, int)
    assert 60 << 20 <= largest < 115 << 20
    # None: no control group counts it here.
    assert whole is None or (isinstance(whole, int) and whole >= 120 << 20)


def test_without_a_right_to_write_the_folder_stays_as_it_is(folder: Path) -> None:
    done = run(folder, "--capability", "filesystem-read", "--", "touch", "new")
    assert done.returncode == 1
    assert list(folder.iterdir()) == []


def test_the_host_network_is_not_there(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        attempt = f"exec 3<>/dev/tcp/127.0.0.1/{server.getsockname()[1]}"
        assert run(folder, "--", "bash", "-c", attempt).returncode == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -KILL $$"], 128 + 9),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_code_is_the_commands(folder: Path, command: list[str], code: int) -> None:
    assert run(folder, "--", *command).returncode == code


def test_binary_data_passes_through_unchanged(folder: Path) -> None:
    data = os.urandom(1 << 20)
    assert run(folder, "--", "cat", stdin=data).stdout == data


def test_strict_decides_the_command_line_like_an_agents(folder: Path) -> None:
    done = run(folder, "--strict", "--denials", "-", "--", "git", "status")
    assert done.returncode == 126
    denial = lines(done.stderr)[0]
    assert (denial["layer"], denial["capability"], denial["argv"]) == ("policy", "git-read", ["git", "status"])
    assert b"--capability git-read" in done.stderr
    assert run(folder, "--strict", "--capability", "git-read", "--", "git", "status").returncode != 126


def test_what_the_kernel_refuses_is_a_line_in_the_file(folder: Path) -> None:
    log = folder.parent / "denials"
    done = run(folder, "--denials", str(log), "--json", "--", "cat", "/etc/shadow")
    denials = lines(log.read_bytes())
    assert [(line["target"], line["layer"]) for line in denials] == [("/etc/shadow", "sandbox")]
    summary = lines(done.stderr)[-1]
    assert (summary["exit"], summary["signal"], summary["denials"]) == (1, None, 1)
    assert summary["protections"]


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(folder: Path) -> None:
    done = run(folder, "--timeout", "0.5", "--json", "--", "sh", "-c", "setsid sleep 4711.5 & sleep 4711.5")
    assert done.returncode == 124
    assert lines(done.stderr)[-1]["limit"] == "timeout"
    assert not processes_with("4711.5")


def test_a_limit_of_the_spec_ends_it_with_a_code_of_its_own(folder: Path) -> None:
    spec = folder.parent / "small.yaml"
    spec.write_text(
        "metadata: {name: small, title: Small}\n"
        "security: {resource_limits: {max_memory: 200MB}}\n"
        "tasks: {default: [work]}\n"
    )
    hog = "x = b'a' * (120 << 20); import time; time.sleep(30)"
    done = run(folder, "--spec", str(spec), "--json", "--", "sh", "-c", f'{system_python()} -c "{hog}" & ' * 4 + "wait")
    assert done.returncode == 123, done.stderr
    assert lines(done.stderr)[-1]["limit"] == "memory"


def processes_with(word: str) -> list[str]:
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if argv[:2] == [b"sleep", word.encode()]:
            found.append(str(path))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command(folder: Path, number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    words = [*EXEC, "--workspace", str(folder), "--", "bash", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"got\n"
        assert process.wait(30) == 9


def test_of_the_environment_only_what_is_named_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSED", "one")
    monkeypatch.setenv("KEPT", "two")
    seen = run(folder, "--env", "PASSED", "--env", "MADE=three", "--", "env").stdout.splitlines()
    assert {b"PASSED=one", b"MADE=three"} <= set(seen)
    assert not [line for line in seen if line.startswith(b"KEPT=")]


def test_mistakes_are_told_before_anything_starts(folder: Path) -> None:
    assert run(folder, "--capability", "nonsense", "--", "touch", "new").returncode == 125
    assert run(Path("/"), "--", "true").returncode == 125
    assert run(folder / "missing", "--", "true").returncode == 125
    assert run(folder).returncode == 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root's folder is refused")
def test_root_never_runs_it_in_roots_folder(folder: Path) -> None:
    os.chown(folder, 0, 0)
    done = run(folder, "--", "true")
    assert done.returncode == 125
    assert b"belongs to root" in done.stderr


class Screen:
    """A terminal of 30 × 90 with the command in it."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
            os.execv(sys.executable, [*EXEC, "--workspace", str(folder), "--", *command])
        self.text = b""

    def until(self, wanted: bytes) -> None:
        end = time.monotonic() + 30
        while wanted not in self.text:
            ready = select.select([self.master], [], [], max(end - time.monotonic(), 0))[0]
            assert ready, self.text
            self.text += os.read(self.master, 4096)

    def code(self) -> int:
        try:
            while data := os.read(self.master, 4096):
                self.text += data
        except OSError:
            pass
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_the_commands_terminal_has_the_callers_size_also_when_that_changes(folder: Path) -> None:
    screen = Screen(folder, "bash", "-c", "trap 'stty size; exit 4' WINCH; stty size; while :; do sleep 0.05; done")
    screen.until(b"30 90")
    ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    screen.until(b"40 100")
    assert screen.code() == 4


def test_ctrl_c_reaches_the_command_not_its_runner(folder: Path) -> None:
    screen = Screen(folder, "bash", "-c", "trap 'echo caught; exit 5' INT; echo rea''dy; while :; do sleep 0.05; done")
    screen.until(b"ready")
    os.write(screen.master, b"\x03")
    screen.until(b"caught")
    assert screen.code() == 5


def test_a_shell_on_the_terminal_has_job_control(folder: Path) -> None:
    screen = Screen(folder, "bash", "--norc", "-i")
    screen.until(b"$ ")
    os.write(screen.master, b"test -t 0 && echo is''terminal; exit 6\n")
    screen.until(b"isterminal")
    assert screen.code() == 6
    assert b"no job control" not in screen.text
