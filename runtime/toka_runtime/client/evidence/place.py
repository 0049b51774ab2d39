"""Where bundles go when nobody says where."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from toka_runtime import paths
from toka_runtime.client.evidence.archive import safe_name


def file_name(agents: Sequence[str], at: datetime) -> str:
    """`evidence-AGENT-20260102T030405Z.tar.gz`; of several agents: the first and how many more."""
    more = f"+{len(agents) - 1}" if len(agents) > 1 else ""
    return f"evidence-{safe_name(agents[0])}{more}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}.tar.gz"


def evidence_folder() -> Path:
    """Of the operator."""
    return paths.state_dir() / "evidence"
