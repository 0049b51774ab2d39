"""One recorded log for all tests: as a state folder, and as an exported file."""

import asyncio
from pathlib import Path

import pytest

from fakes.recorded_log import record_log
from toka_runtime.cli import main


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder; not to be changed."""
    folder = tmp_path_factory.mktemp("recorded") / "state"
    asyncio.run(record_log(folder))
    return folder


@pytest.fixture(scope="session")
def exported(recorded: Path) -> bytes:
    path = recorded.parent / "export.jsonl"
    assert main.main(["audit", "export", str(recorded), "-o", str(path)]) == 0
    return path.read_bytes()
