"""The base of every protocol type: frozen, and built on first use (pydantic's schema building costs start-up time)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Frozen; unknown fields are ignored, so that a newer peer can add some (REMOTE.md)."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)
