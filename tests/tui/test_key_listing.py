"""`toka-console keys`: what it prints, what it finds, how it ends. No terminal is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from toka_console.actions import ACTIONS, BY_ID

BAD = "theme: toka-light\nkeys:\n  agent.kil: x\n  view.theme: z\n  view.redraw: [z]\n  history.back: a\n"


def keys(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toka_console.cli", "keys", *arguments], capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=60, env={"HOME": str(home), "PATH": ""},
    )  # fmt: skip


def test_every_action_is_listed_with_its_keys(tmp_path: Path) -> None:
    done = keys(home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert set(rows) == set(BY_ID)
    assert rows["agent.kill"].split()[1:3] == ["K", ":kill"]
    assert "dangerous" in rows["agent.kill"]
    assert "approvals" in rows["approval.once"]


def test_as_json_with_the_operators_own_keys(tmp_path: Path) -> None:
    own = tmp_path / ".config/toka/console.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("keys:\n  view.theme: [ctrl-t, z]\n")
    done = keys("--json", home=tmp_path)
    assert done.returncode == 0
    listed = {each["id"]: each for each in json.loads(done.stdout)}
    assert list(listed) == [action.id for action in ACTIONS]
    assert [key["key"] for key in listed["view.theme"]["keys"]] == ["ctrl+t", "z"]
    assert listed["agent.kill"]["dangerous"] is True
    assert {"key": "q", "shown": "q", "screen": "fleet"} in listed["app.quit"]["keys"]


def test_every_problem_of_a_file_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(BAD)
    done = keys("--check", str(file), home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.removeprefix(f"{file}:") for line in done.stderr.splitlines()] == [
        "3: no action agent.kil; did you mean agent.kill?",
        "4: key z on every screen: both view.theme and view.redraw (line 5)",
        "6: key a on screen approvals: both history.back and approval.once (approval.once has it by default)",
    ]
    as_json = keys("--check", str(file), "--json", home=tmp_path)
    assert as_json.returncode == 1
    assert [each["line"] for each in json.loads(as_json.stdout)] == [3, 4, 6]


def test_a_good_file_is_said_to_be_good(tmp_path: Path, repo_root: Path) -> None:
    done = keys("--check", str(repo_root / "configs/console.yaml"), home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is wrong" in done.stdout


def test_what_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    assert keys("--check", str(tmp_path / "none.yaml"), home=tmp_path).returncode == 2
    assert "is no file" in keys("--config", str(tmp_path), home=tmp_path).stderr
    garbage = tmp_path / "garbage.yaml"
    garbage.write_bytes(b"\xff\xfe")
    assert keys("--check", str(garbage), home=tmp_path).returncode == 2
    assert keys("--chek", "x", home=tmp_path).returncode == 2
