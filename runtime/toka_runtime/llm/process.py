"""`python -m toka_runtime.llm.process FD`: the gateway process, the one holder of the model credential.

It hardens itself before anything secret arrives: the credential comes over the socket FD, so that it is never in the
environment that /proc shows, and from then on lives in a process that nobody can trace or dump.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import sys

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39


def harden() -> tuple[str, ...]:
    """No trace, no core dump, no new privileges, no life after the runtime. Returns what holds, as the kernel says."""
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    holds: list[str] = []
    if libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 0:
        holds.append("not dumpable")
    if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0):
        holds.append("no core dumps")
    if libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1:
        holds.append("no new privileges")
    return tuple(holds)


async def serve(sock: socket.socket, protections: tuple[str, ...]) -> None:
    # Imported late: hardening comes first.
    from toka_runtime.llm.service import GatewayService

    service = GatewayService(protections)
    await asyncio.get_running_loop().create_unix_connection(lambda: service.channel, sock=sock)
    await service.run()


def main() -> int:
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.stderr.write("usage: python -m toka_runtime.llm.process FD\n")
        return 2
    protections = harden()
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        os.set_inheritable(sock.fileno(), False)
        asyncio.run(serve(sock, protections))
    return 0


if __name__ == "__main__":
    sys.exit(main())
