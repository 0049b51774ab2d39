"""What a front end is, by the key or the socket that it comes with."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    VIEWER = "viewer"
    """Look."""
    OPERATOR = "operator"
    """Also pause, resume, answer what waits for approval, and withdraw capabilities."""
    ADMIN = "admin"
    """Also start, stop, kill, revoke, and set budgets."""
