"""Which model is asked when nobody names one."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_MODEL = "claude-sonnet-5-5"
"""The newest Sonnet that the SDK knows and does not list as deprecated: good enough to work alone, at a price that nine
agents can run at. `TOKA_MODEL` and the settings override it."""


def default_model(chosen: str, environ: Mapping[str, str]) -> str:
    """`chosen` in the settings, else TOKA_MODEL, else the constant."""
    return chosen or environ.get("TOKA_MODEL", "") or DEFAULT_MODEL
