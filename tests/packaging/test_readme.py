"""The README says what the programs do: each command, option, exit code and key in it exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(
    {
        line.partition(" > ")[0]
        for block in re.findall(r"^```\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if line.startswith("toka-")
    }
)


def table(heading: str) -> list[tuple[str, str]]:
    """Rows (first two cells) of the table whose header begins so."""
    rows = README.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [(cells[0].strip(), cells[1].strip()) for row in rows if (cells := row.strip("| ").split(" | "))]


def help_of(program: str, *verb: str) -> str:
    module = {"toka-runtime": "toka_runtime.cli.main", "toka-console": "toka_console.cli"}[program]
    call = f"import sys; from {module} import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", call, *verb, "--help"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_there_are_commands_in_it() -> None:
    assert len(COMMANDS) > 5
    assert README.index("make run") < README.index("make test") < README.index("## A tour")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_verb_and_options(command: str) -> None:
    program, *words = command.split()
    verb = words[:1] if program == "toka-runtime" else []
    text = help_of(program, *verb)
    for option in (word for word in words if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{option} is not in the help of {program}"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_names_files_that_are_there(command: str) -> None:
    for word in command.split():
        if word.startswith("configs/"):
            assert (ROOT / word).exists()


def test_exit_codes_are_those_of_the_program() -> None:
    from toka_runtime.cli.exit_codes import ExitCode

    assert {int(code) for code, _ in table("exit code")} == {int(code) for code in ExitCode}


def test_keys_are_those_of_the_console() -> None:
    from toka_console.actions import ACTIONS
    from toka_console.keymap import canonical

    keys = {key for action in ACTIONS for key in (*action.keys, *(key for _, key in action.also))}
    forms = {form for action in ACTIONS for form in (action.form, *action.aliases)}
    arrows = {"↑": "up", "↓": "down"}
    told = [key for row, _ in table("keys") for key in re.findall(r"`([^`]+)`", row)]
    assert len(told) > 15
    for key in told:
        if len(key) > 1 and key.startswith(":"):
            assert key[1:].split()[0] in forms
        else:
            assert arrows.get(key, canonical(key)) in keys


@pytest.mark.parametrize(
    "file", ["README.md", "CONTRIBUTING.md", "runtime/README.md", "tui/README.md", "tests/README.md"]
)
def test_links_lead_somewhere(file: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / file).read_text()):
        assert ((ROOT / file).parent / link).exists(), link
