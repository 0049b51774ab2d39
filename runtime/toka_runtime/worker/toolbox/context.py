"""What a tool is given to work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Emit = Callable[[str, bytes], None]


@dataclass(frozen=True)
class ToolContext:
    root: str
    """Absolute path of the agent's folder."""
    root_fd: int
    """The same, opened with O_PATH."""
    arguments: dict[str, Any]
    """Checked by the runtime; paths relative to `root`, links resolved."""
    environment: dict[str, str]
    timeout_s: float
    """The tool ends itself after so long; whoever started it kills it a little later."""
    cap_bytes: int
    """How large a result may be."""
    emit: Emit
    """Live output: `emit("stdout" | "stderr", data)`."""


@dataclass
class ToolResult:
    content: str
    ok: bool = True
    code: str = ""
    exit_code: int | None = None
    result_bytes: int | None = None
    """None: that of `content`."""
    digest: str = ""
    """"" : that of `content`."""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
