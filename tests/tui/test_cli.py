"""The command: light until the first picture, clear when it cannot go on, clean when it leaves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.terminal import Terminal
from toka_console import options, skeleton
from toka_runtime import __version__

CONSOLE = [sys.executable, "-m", "toka_console.cli"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CONSOLE, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"toka-console {__version__}\n")


def test_without_a_terminal_it_says_what_to_use() -> None:
    done = run()
    assert done.returncode == 2
    assert "needs a terminal; toka-runtime run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--provider", "pink"], "--provider must be anthropic, rehearsal or replay:FILE, not 'pink'"),
        (["--max-agents", "0"], "--max-agents must be at least 1"),
        (["--max-agents", "many"], "invalid int value"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_wrong_usage_on_a_terminal_leaves_it_as_it_was() -> None:
    with Terminal([*CONSOLE, "--provider", "pink"]) as terminal:
        assert terminal.wait() == 2
        said = terminal.output[terminal.output.rindex(b"\x1b[?1049l") :]
        assert b"--provider must be anthropic" in said
        assert terminal.restored


def imported(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_nothing_heavy_before_the_first_picture() -> None:
    modules = imported("from toka_console import cli")
    assert not modules & {
        "textual",
        "pydantic",
        "rich",
        "asyncio",
        "ruamel",
        "anthropic",
        "argparse",
        "typing",
        "pathlib",
    }


def test_nothing_of_the_protocol_before_the_first_frame() -> None:
    modules = imported("from toka_console import launch")
    assert "textual.app" in modules
    assert not modules & {"pydantic", "ruamel", "ruamel.yaml", "anthropic", "asyncssh", "psutil", "sqlite3"}


@pytest.mark.parametrize("size", [(200, 50), (80, 24), (20, 5), (5, 2), (1, 1)])
def test_the_first_picture_fits(size: tuple[int, int]) -> None:
    width, height = size
    for colour in (True, False):
        rows = re.split(r"\x1b\[\d+;1H", skeleton.picture(width, height, colour))[1:]
        shown = [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in rows]
        assert [len(row) for row in shown] == ([width] * height if width >= 20 and height >= 5 else [])


def test_options_reach_the_runtime_and_an_error_ends_with_the_terminal_restored(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with Terminal(
        [*CONSOLE, "--provider", "rehearsal", "--workspace", str(missing), "--state-dir", str(tmp_path)]
    ) as it:
        assert it.wait() == 1
        said = it.output[it.output.rindex(b"\x1b[?1049l") :]
        assert b"nowhere" in said
        assert b"toka-console: " in said
        assert it.restored


def test_a_missing_recording_is_said(tmp_path: Path) -> None:
    with Terminal([*CONSOLE, "--provider", "replay:none.json", "--state-dir", str(tmp_path)]) as terminal:
        assert terminal.wait() == 1
        assert b"recording none.json does not exist" in terminal.output
        assert terminal.restored


def test_the_help_names_every_option() -> None:
    text = options.parser().format_help()
    for option in ("--workspace", "--provider", "--state-dir", "--enable", "--no-start", "PATH"):
        assert option in text
