"""Names that change their meaning between the check and the use, as fast as the machine can."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.cell import CANARY, Cell

_libc = ctypes.CDLL(None, use_errno=True)
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


class Swapper:
    """Exchanges two names again and again in a thread of the test, the attacker's ally outside of the sandbox."""

    def __init__(self, one: Path, other: Path) -> None:
        self.swaps = 0
        self._names = (str(one).encode(), str(other).encode())
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.is_set():
            one, other = self._names
            assert _libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE) == 0
            self.swaps += 1
            # Each state lasts a little, so that both are met.
            self._end.wait(0.0005)

    @contextmanager
    def running(self) -> Generator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join()


CALLS = [
    ("read_file", {"path": "PLACE"}),
    ("search_text", {"path": "PLACE", "pattern": "."}),
    ("list_files", {"path": "sub", "glob": "**"}),
    ("write_file", {"path": "PLACE", "content": "planted"}),
    ("edit_file", {"path": "PLACE", "old_string": "e", "new_string": "planted"}),
    ("run_command", {"command": "cat PLACE"}),
    ("run_command", {"command": "cp hello.txt PLACE"}),
]


@pytest.mark.parametrize("what", ["the file", "its folder", "a folder above"])
@pytest.mark.parametrize(("tool", "arguments"), CALLS, ids=lambda value: str(value)[:60])
async def test_a_swap_wins_nothing(
    agent: Cell, neighbour: Cell, what: str, tool: str, arguments: dict[str, object]
) -> None:
    folder, outside = agent.folder, agent.outside
    inner = folder / "sub" / "in"
    inner.mkdir(parents=True)
    for path in (folder / "sub", inner):
        path.chmod(0o777)
    (inner / "secret.txt").write_text("mine\n")
    (inner / "secret.txt").chmod(0o666)
    (outside / "in").mkdir()
    (outside / "in" / "secret.txt").write_text(f"{CANARY}\n")
    (outside / "in" / "secret.txt").chmod(0o666)
    target, lure = {
        "the file": (inner / "secret.txt", outside / "in" / "secret.txt"),
        "its folder": (inner, outside / "in"),
        "a folder above": (folder / "sub", outside),
    }[what]
    trap = target.with_name("trap")
    trap.symlink_to(lure)
    swapper = Swapper(target, trap)
    named = {key: str(value).replace("PLACE", "sub/in/secret.txt") for key, value in arguments.items()}
    with swapper.running():
        async with asyncio.timeout(60):
            while swapper.swaps < 60:
                reply = await agent.ask(tool, **named)
                assert CANARY not in reply.content
                assert "b-scratch" not in reply.content
    assert (outside / "in" / "secret.txt").read_text() == f"{CANARY}\n"
    assert sorted(path.name for path in (outside / "in").iterdir()) == ["secret.txt"]
    assert await agent.answers()


async def test_a_loop_left_by_an_earlier_call_does_not_live_to_race(agent: Cell) -> None:
    await agent.sh("(while :; do ln -sfn / flip; ln -sfn . flip; done) & sleep 0.2")
    before = (agent.folder / "flip").lstat()
    assert await agent.answers()
    assert (agent.folder / "flip").lstat() == before
