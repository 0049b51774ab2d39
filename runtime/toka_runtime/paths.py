"""Where things live: XDG folders and the configuration that ships in the wheel."""

from __future__ import annotations

import os
from pathlib import Path

APP = "toka"


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    # XDG: a relative path in the variable is invalid and is ignored.
    return (Path(value) if value.startswith("/") else Path.home() / fallback) / APP


def config_dir() -> Path:
    return _xdg("XDG_CONFIG_HOME", ".config")


def state_dir() -> Path:
    """Default state folder: event log, journals, reports, worktrees."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def cache_dir() -> Path:
    return _xdg("XDG_CACHE_HOME", ".cache")


def shipped_configs() -> Path:
    """The `configs/` folder: inside the wheel when installed, at the top of the checkout otherwise."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent.parent / "configs"
