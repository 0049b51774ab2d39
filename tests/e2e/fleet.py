"""Running `toka-runtime` as a person would, and reading what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNTIME = (sys.executable, "-m", "toka_runtime.cli.main")
IDENTITY = {
    "GIT_AUTHOR_NAME": "Operator",
    "GIT_AUTHOR_EMAIL": "operator@example.org",
    "GIT_COMMITTER_NAME": "Operator",
    "GIT_COMMITTER_EMAIL": "operator@example.org",
}


def environment(home: Path, **more: str) -> dict[str, str]:
    """A bare environment with its own home: no credential, no settings of the person who runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **more}


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environment(repository.parent, **IDENTITY),
    )
    return done.stdout


def make_repository(path: Path) -> Path:
    """A small git repository with one commit and one uncommitted change that nobody may touch."""
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    (path / "README.md").write_text("# Sample\n\nSee [guide](docs/guide.md).\n")
    (path / "docs").mkdir()
    (path / "docs/guide.md").write_text("# Guide\n")
    (path / "src").mkdir()
    (path / "src/app.py").write_text("def main() -> int:\n    return 0\n")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "first")
    (path / "README.md").write_text("# Sample\n\nuncommitted words of the operator\n")
    return path


@dataclass(frozen=True)
class Ran:
    code: int
    envelopes: list[dict[str, Any]]
    stderr: str

    def of(self, kind: str, agent: str | None = None) -> list[dict[str, Any]]:
        return [
            envelope
            for envelope in self.envelopes
            if envelope["event"]["kind"] == kind and (agent is None or envelope["agent"] == agent)
        ]

    def final_states(self) -> dict[str, str]:
        return {e["agent"]: e["event"]["after"] for e in self.of("agent.state_changed")}

    def pids(self) -> set[int]:
        return {
            pid
            for e in self.of("agent.process_started")
            for pid in (e["event"]["process"]["pid"], e["event"]["worker_pid"])
        }

    def first(self, kind: str, agent: str, **fields: Any) -> dict[str, Any]:
        return next(
            e for e in self.of(kind, agent) if all(e["event"].get(name) == value for name, value in fields.items())
        )


def parse(code: int, stdout: str, stderr: str) -> Ran:
    return Ran(code, [json.loads(line) for line in stdout.splitlines()], stderr)


def run_disturbed(
    *arguments: str | Path, home: Path, disturb: Callable[[subprocess.Popen[str]], object], timeout: float = 60
) -> Ran:
    """A rehearsal with `--json` that is disturbed as soon as its first tool call has started."""
    process = subprocess.Popen(
        [*RUNTIME, "run", *map(str, arguments), "--provider", "rehearsal", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if json.loads(line)["event"]["kind"] == "tool.call_started":
            break
    disturb(process)
    rest, stderr = process.communicate(timeout=timeout)
    return parse(process.returncode, "".join(lines) + rest, stderr)


def run_json(*arguments: str | Path, home: Path, timeout: float = 100, **variables: str) -> Ran:
    done = subprocess.run(
        [*RUNTIME, "run", *map(str, arguments), "--rehearsal-delay", "0", "--json"],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(home, **variables),
        check=False,
    )
    return parse(done.returncode, done.stdout, done.stderr)
