"""`toka-runtime-bridge`: standard input and output to the socket of the runtime on this host, for a console that comes
over SSH. Standard library only: importing more would be most of the time that attaching takes.

    command="toka-runtime-bridge --role viewer",restrict ssh-ed25519 AAAA…     (in authorized_keys)

The role and where the connection comes from are told to the runtime before anything that the console says.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
from pathlib import Path

from toka_runtime.client.endpoint import SOCKET_NAME, answers, connected, find_runtimes, the_runtime
from toka_runtime.errors import TokaError

ROLES = ("viewer", "operator", "admin")
CHUNK = 64 * 1024
EXIT_NO_RUNTIME = 3


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="toka-runtime-bridge", description=__doc__, allow_abbrev=False)
    parser.add_argument("--role", choices=ROLES, default="admin", help="what the other side may do (admin)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--socket", type=Path, metavar="PATH", help="its socket (default: the only one there is)")
    place.add_argument("--state-dir", type=Path, metavar="DIR", help="the runtime with this state folder")
    parser.add_argument("--start", action="store_true", help="have it served again, as it was last, when nobody serves")
    args = parser.parse_args(argv)
    # After whatever a login shell has printed.
    _write_all(1, b"\n")
    try:
        link = connected(_path(args))
    except (TokaError, OSError) as error:
        why = error.message if isinstance(error, TokaError) else f"nobody serves at {error.filename or 'the socket'}"
        turned_away = {
            "toka": "hello",
            "error": "link.no_runtime",
            "message": f"no runtime to attach to: {why}",
            "hint": "start one on that host: toka-runtime serve",
        }
        _write_all(1, json.dumps(turned_away).encode() + b"\n")
        return EXIT_NO_RUNTIME
    with link:
        link.setblocking(True)
        about = {"t": "bridge", "role": args.role, "from": os.environ.get("SSH_CONNECTION", "")}
        link.sendall(json.dumps(about).encode() + b"\n")
        threading.Thread(target=_upwards, args=(link,), daemon=True).start()
        _downwards(link)
    return 0


def _path(args: argparse.Namespace) -> Path:
    """Raises TokaError, OSError."""
    place = args.socket or (args.state_dir / SOCKET_NAME if args.state_dir else None)
    if args.start and args.role == "admin" and not (answers(place) if place else find_runtimes()):
        # Imported where it is needed: it takes longer than all the rest.
        from toka_runtime.server.served_before import serve_again

        return serve_again(place.parent if place else None)
    return place or the_runtime()


def _upwards(link: socket.socket) -> None:
    """What the console says, to the runtime; its end is the end."""
    try:
        while data := os.read(0, CHUNK):
            link.sendall(data)
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        os._exit(0)


def _downwards(link: socket.socket) -> None:
    try:
        while data := link.recv(CHUNK):
            _write_all(1, data)
    except OSError:
        # The console is gone, or the runtime: either way it is over.
        return


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    sys.exit(main())
