"""What a wall goes onto: opened without following a link, alike with and without `openat2`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from toka_runtime.sandbox.folder_walls import existing
from toka_runtime.worker.toolbox import beneath


@pytest.fixture(params=[True, False], ids=["openat2", "walk"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    if request.param and not beneath.has_openat2():
        pytest.skip("this kernel has no openat2, or a filter refuses it")
    monkeypatch.setattr(beneath, "has_openat2", lambda: request.param)
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_place_is_opened_as_it_is(root: int, tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    with existing(root, "hooks") as found:
        assert found is not None
        assert os.fstat(found).st_ino == (tmp_path / "hooks").stat().st_ino


def test_what_is_gone_needs_no_wall(root: int) -> None:
    with existing(root, "hooks") as found:
        assert found is None


@pytest.mark.parametrize("place", ["hooks", "hooks/inner"])
def test_a_link_put_in_its_place_is_refused(root: int, tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere" / "inner").mkdir(parents=True)
    (tmp_path / "hooks").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links") as refused, existing(root, place):
        pass
    assert refused.value.errno == errno.ELOOP
