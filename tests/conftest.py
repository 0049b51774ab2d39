"""Fixtures that every test may use."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

# Shared machines stall: a slow example is no failure. In CI the same examples are tried each time.
settings.register_profile("here", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "here"))

_FROM_OUTSIDE = (
    "ANTHROPIC_",  # a credential must not turn a test into a paid call
    "GIT_",
    "XDG_",
    "TOKA_CONSOLE_",
    "TOKA_RUNTIME_",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLORTERM",
    "COLUMNS",
    "LINES",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
)


def pytest_configure(config: pytest.Config) -> None:
    """Tests see a new user's machine: an empty home, no git identity, no credential, no proxy, a plain terminal."""
    for name in [name for name in os.environ if name.startswith(_FROM_OUTSIDE)]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="toka-tests-home-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    os.environ.update(
        HOME=home, GIT_CONFIG_NOSYSTEM="1", TERM="xterm-256color", LANG="C.UTF-8", TEXTUAL_ANIMATIONS="none"
    )
    # The snapshot plugin has imported Textual by now, which read its environment then.
    if "textual.constants" in sys.modules:
        sys.modules["textual.constants"].__dict__["TEXTUAL_ANIMATIONS"] = "none"


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
