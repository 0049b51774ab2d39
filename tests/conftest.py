"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def toka_specs() -> Path:
    """The nine published specs, kept beside the checkout (never copied into it)."""
    folder = Path(os.environ.get("TOKA_SPECS", ROOT.parent / "shared/data/toka-specs"))
    if not folder.is_dir():
        pytest.skip(f"the published specs are not at {folder}; set TOKA_SPECS")
    return folder
