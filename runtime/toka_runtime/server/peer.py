"""Who is on the other end of a socket, as the kernel tells it."""

from __future__ import annotations

import pwd
import socket
import struct
from dataclasses import dataclass, replace

from toka_runtime.protocol.roles import Role

_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    pid: int
    uid: int
    role: Role = Role.ADMIN
    """A bridge may say less of it than the socket's owner has; nothing says more."""
    origin: str = ""
    """Where an SSH connection comes from: address and port."""

    def over_ssh(self, role: Role, connection: str) -> Peer:
        """`connection`: SSH_CONNECTION as the server of SSH has set it."""
        return replace(self, role=role, origin=" port ".join(connection.split()[:2]))

    @property
    def user(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    def actor(self, claimed: str) -> str:
        """What records say of a command's sender: what it calls itself, and what is known of it."""
        via = f", ssh from {self.origin}" if self.origin else ""
        role = "" if self.role is Role.ADMIN else f", {self.role}"
        return f"{claimed[:100]} [{self.user}, pid {self.pid}{via}{role}]"


def peer_of(connection: socket.socket) -> Peer:
    """SO_PEERCRED: the process that connected, at that time (unix(7))."""
    pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid=pid, uid=uid)
