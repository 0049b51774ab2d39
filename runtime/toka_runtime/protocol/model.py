"""The base of every protocol type: frozen, and built on first use (pydantic's schema building costs start-up time)."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

M = TypeVar("M", bound="Model")


class Model(BaseModel):
    """Frozen; unknown fields are ignored, so that a newer peer can add some (REMOTE.md)."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


def with_fields(model: M, fields: dict[str, Any]) -> M:
    """A copy of `model` whose fields are `fields`: all of them, not validated, and not to be changed afterwards. The
    fold makes thousands of views a second: `model_copy(update=…)` takes four times as long."""
    copy = object.__new__(type(model))
    # As pydantic's own `model_construct` fills a new object; a frozen model never changes the set that is shared here.
    set_slot = object.__setattr__
    set_slot(copy, "__dict__", fields)
    set_slot(copy, "__pydantic_fields_set__", model.__pydantic_fields_set__)
    set_slot(copy, "__pydantic_extra__", None)
    set_slot(copy, "__pydantic_private__", None)
    return copy
