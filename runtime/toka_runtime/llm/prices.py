"""The operator's own prices: a TOML file, for models that the price table does not know."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from toka_runtime.errors import UsageError
from toka_runtime.protocol.usage import ModelPrice

EXAMPLE = '[models."llama-3-70b"] with input = 0.6, output = 0.8 (dollars a million tokens)'


def read_prices(file: Path) -> tuple[ModelPrice, ...]:
    """Raises UsageError, which names the file and the place."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"prices {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"prices {file}: {error}", hint=EXAMPLE) from error
    models = document.pop("models", None)
    if document or not isinstance(models, dict):
        raise UsageError(f"prices {file}: only a table `models` belongs there", hint=EXAMPLE)
    found: list[ModelPrice] = []
    for name, fields in cast(dict[str, Any], models).items():
        try:
            found.append(ModelPrice.model_validate({"model": name} | fields))
        except (ValidationError, TypeError) as error:
            raise UsageError(f"prices {file}: models.{name}: {_first(error)}", hint=EXAMPLE) from error
    return tuple(found)


def _first(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return "is no table"
    first = error.errors()[0]
    return f"{first['loc'][0]}: {first['msg']}"
