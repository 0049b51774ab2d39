"""Who is on the other end of a socket, as the kernel tells it."""

from __future__ import annotations

import pwd
import socket
import struct
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    pid: int
    uid: int

    @property
    def user(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    def actor(self, claimed: str) -> str:
        """What records say of a command's sender: what it calls itself, and what is known of it."""
        return f"{claimed[:100]} [{self.user}, pid {self.pid}]"


def peer_of(connection: socket.socket) -> Peer:
    """SO_PEERCRED: the process that connected, at that time (unix(7))."""
    pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid=pid, uid=uid)
