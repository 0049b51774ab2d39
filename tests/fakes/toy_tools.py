"""What runs in the children of a fork server under test: tools and workers that do one odd thing each. Standard library
only; imported by the fork server from this folder, as a top-level module."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Emit = Callable[[str, bytes], None]


def execute(request: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """`worker.tools.execute` of the tests: the tool's name is a function here."""
    content = globals()["tool_" + request["tool"]](request["arguments"], emit)
    return {"ok": True, "content": content}


def tool_echo(arguments: dict[str, Any], emit: Emit) -> str:
    emit("stdout", b"out \xff\x00\n")
    emit("stderr", b"err")
    return str(arguments["text"])


def tool_facts(arguments: dict[str, Any], emit: Emit) -> str:
    return json.dumps(facts())


def facts() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "cwd": str(Path.cwd()),
        "environment": dict(os.environ),
        "descriptors": {
            name: os.readlink(f"/proc/self/fd/{name}").partition(":")[0]
            for name in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{name}")
        },
        "status": Path("/proc/self/status").read_text(),
        "modules": sorted(sys.modules),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "handlers": {name: str(signal.getsignal(getattr(signal, name))) for name in ("SIGTERM", "SIGCHLD", "SIGINT")},
    }


def tool_raise(arguments: dict[str, Any], emit: Emit) -> str:
    raise RuntimeError("a defect in the tool")


def tool_exit(arguments: dict[str, Any], emit: Emit) -> str:
    emit("stdout", b"last words")
    os._exit(arguments["code"])


def tool_garbage(arguments: dict[str, Any], emit: Emit) -> str:
    os.write(3, bytes.fromhex(arguments["hex"]))
    signal.pause()
    return ""


def tool_flood(arguments: dict[str, Any], emit: Emit) -> str:
    for _ in range(arguments["chunks"]):
        emit("stdout", b"x" * 100_000)
    return "done"


def tool_hang(arguments: dict[str, Any], emit: Emit) -> str:
    emit("stdout", b"hanging")
    signal.pause()
    return ""


def tool_leave(arguments: dict[str, Any], emit: Emit) -> str:
    """Return with something still running, detached as a daemon detaches."""
    return str(daemon())


def tool_tree(arguments: dict[str, Any], emit: Emit) -> str:
    """Children, a grandchild, a daemon that ignores SIGTERM; tells the pids and hangs."""
    pids = [subprocess.Popen(["sleep", "1000"]).pid for _ in range(arguments.get("children", 2))]
    pids.append(subprocess.Popen(["sh", "-c", "sleep 1000; true"], start_new_session=True).pid)
    pids.append(daemon())
    emit("stdout", json.dumps([*pids, os.getpid()]).encode())
    signal.pause()
    return ""


def tool_fifty(arguments: dict[str, Any], emit: Emit) -> str:
    """Fifty descendants: in sessions of their own, deaf to SIGTERM, stopped, busy, and some that fork for ever."""
    pids = []
    for number in range(50):
        if (pid := os.fork()) == 0:
            if number % 2:
                os.setsid()
            if number % 3 == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if number % 10 == 4:
                _fork_on()
            if number % 10 == 5:
                os.kill(os.getpid(), signal.SIGSTOP)
            while True:
                signal.pause()
        pids.append(pid)
    emit("stdout", json.dumps([*pids, os.getpid()]).encode())
    signal.pause()
    return ""


def _fork_on() -> None:
    while True:
        if (pid := os.fork()) == 0:
            os.setsid()
            time.sleep(0.005)
            os._exit(0)
        os.waitpid(pid, 0)


def tool_spin(arguments: dict[str, Any], emit: Emit) -> str:
    emit("stdout", json.dumps([os.getpid()]).encode())
    while True:
        pass


def tool_forker(arguments: dict[str, Any], emit: Emit) -> str:
    """Fork for ever: each generation has a session of its own, forks the next one and ends."""
    if os.fork() == 0:
        for number in range(1_000_000):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork():
                os._exit(0)
            if number % 3 == 0:
                os.setsid()
            time.sleep(0.0005)
        os._exit(0)
    emit("stdout", b"forking")
    signal.pause()
    return ""


def tool_polite(arguments: dict[str, Any], emit: Emit) -> str:
    """A command that tidies up when it is asked to end."""
    script = "trap 'echo tidy > tidied; exit 0' TERM; echo up; while :; do sleep 0.01; done"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    emit("stdout", b"up")
    process.wait()
    return ""


def tool_signal_shim(arguments: dict[str, Any], emit: Emit) -> str:
    """What an agent may try: its shim is the parent of the tool."""
    pid = daemon() if arguments.get("daemon") else 0
    emit("stdout", json.dumps([pid, os.getpid()]).encode())
    os.kill(os.getppid(), arguments["signal"])
    signal.pause()
    return ""


def tool_kill_itself(arguments: dict[str, Any], emit: Emit) -> str:
    emit("stdout", json.dumps([daemon()]).encode())
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def tool_threads(arguments: dict[str, Any], emit: Emit) -> str:
    """A child started by another thread than the first."""
    started: list[int] = []
    ready = threading.Event()

    def start() -> None:
        started.append(subprocess.Popen(["sleep", "1000"]).pid)
        ready.set()
        threading.Event().wait()

    threading.Thread(target=start, daemon=True).start()
    ready.wait()
    emit("stdout", json.dumps([*started, os.getpid()]).encode())
    signal.pause()
    return ""


def daemon() -> int:
    """The pid of a process with a session of its own and no parent, that ignores SIGTERM."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, str(os.getpid()).encode())
            while True:
                signal.pause()
        os._exit(0 if pid else 1)
    pid = int(os.read(reading, 20))
    os.wait()
    return pid


def worker_facts(descriptor: int) -> int:
    """A worker that sends its facts, says something on its error output, and waits for the end."""
    from toka_runtime.worker.frames import FrameSocket

    with socket.socket(fileno=descriptor) as sock:
        frames = FrameSocket(sock)
        frames.write({"t": "facts", **facts()})
        print("a word on stderr", file=sys.stderr, flush=True)
        frames.read()
    return 5


def worker_flood(descriptor: int) -> int:
    from toka_runtime.worker.frames import FrameSocket

    with socket.socket(fileno=descriptor) as sock:
        frames = FrameSocket(sock)
        while True:
            frames.write({"t": "flood", "text": "x" * 100_000})


def worker_raises(descriptor: int) -> int:
    raise RuntimeError("a defect in the worker")


def worker_shouts(descriptor: int) -> int:
    while True:
        os.write(2, b"x" * 65536)
