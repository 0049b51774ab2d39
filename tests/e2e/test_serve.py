"""`toka-runtime serve` and the verbs against it, as a person at a shell uses them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.fleet import RUNTIME, environment
from fakes.processes import alive
from fakes.scene import spec


class Shell:
    """A home with one runtime that serves."""

    def __init__(self, home: Path, server: subprocess.Popen[str], place: dict[str, Any]) -> None:
        self.home = home
        self.server = server
        self.place = place

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [*RUNTIME, *words], env=environment(self.home), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def json(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*words, "--json", code=code).splitlines()]

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["agent"]: row for row in self.json("ps")}

    def follow_until(self, text: str, *words: str) -> list[str]:
        """Read what a following verb prints until a line holds the text, then interrupt it."""
        command = [*RUNTIME, *words, "--follow"]
        with subprocess.Popen(command, env=environment(self.home), stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout is not None
            lines: list[str] = []
            for line in reader.stdout:
                lines.append(line)
                if text in line:
                    break
            reader.send_signal(signal.SIGINT)
            reader.stdout.read()
            assert reader.wait(30) == 130
        return lines


@contextmanager
def serving(tmp_path: Path, *names: str) -> Generator[Shell]:
    home, specs, workspace = tmp_path / "home", tmp_path / "specs", tmp_path / "work"
    for folder in (home, specs, workspace):
        folder.mkdir()
    (workspace / "hello.txt").write_text("hello\n")
    for name in names:
        (specs / f"{name}.yaml").write_text(spec(name, tasks="[{description: one}, {description: two}]"))
    command = [*RUNTIME, "serve", str(specs), "--workspace", str(workspace), "--provider", "rehearsal", "--json"]
    with subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield Shell(home, server, json.loads(server.stdout.readline() or "{}"))
            assert server.poll() is None, "it serves until it is told to end"
        finally:
            server.terminate()
            server.wait(30)
    assert server.returncode == 0


def test_the_verbs_do_what_they_say_and_prove_it(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha", "beta") as shell:
        assert shell.place["agents"] == 2
        assert {row["state"] for row in shell.rows().values()} == {"pending"}
        shell("start", "alpha", "beta")
        shell.follow_until("output.appended", "events", "--json", "alpha")
        shell.follow_until("beta model│", "logs", "beta")
        frozen = shell.json("freeze-all")
        assert {answer["agent"]: answer["ok"] for answer in frozen} == {"alpha": True, "beta": True}
        assert all(answer["data"]["proof"]["confirmed"] for answer in frozen)
        rows = shell.rows()
        assert {row["state"] for row in rows.values()} == {"paused"}
        assert "alpha: resumed" in shell("resume", "alpha")
        killed = {answer["agent"]: answer["ok"] for answer in shell.json("kill", "--all", "--reason", "the drill")}
        # The one that goes on may have come to its end before.
        assert killed in ({"alpha": True, "beta": True}, {"beta": True})
        assert not alive({row["pid"] for row in rows.values()})
        states = {name: row["state"] for name, row in shell.rows().items()}
        assert states == {"alpha": "killed" if "alpha" in killed else "completed", "beta": "killed"}
        handled = [event["event"] for event in shell.json("events", "--kind", "command.handled")]
        assert {event["name"] for event in handled[-len(killed) :]} == {"agent.kill"}
        assert {event["reason"] for event in handled[-len(killed) :]} == {"the drill"}
        assert all("(cli) [" in event["actor"] for event in handled)
        assert "AGENT" in shell("top", "-n", "1")


def test_what_cannot_be_done_is_said_and_half_of_it_is_not_done(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as shell:
        assert "no agent nobody here" in shell("kill", "alpha", "nobody", code=2)
        assert "pause whom?" in shell("pause", code=2)
        assert "was not started" in shell("kill", "alpha", code=1)
        assert shell.json("pause", "alpha", code=1)[0]["code"] == "command.refused"
        assert shell.rows()["alpha"]["state"] == "pending"
        assert "no agent to resume" in shell("resume", "--all")
        assert "cannot attach" in shell("ps", "--socket", str(tmp_path / "nothing.sock"), code=3)


def test_a_second_runtime_on_the_folder_is_refused_and_the_first_serves_on(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as shell:
        again = ("serve", str(tmp_path / "specs"), "--workspace", str(tmp_path / "work"), "--provider", "rehearsal")
        assert "in use" in shell(*again, code=3)
        assert set(shell.rows()) == {"alpha"}


def test_ended_from_outside_it_stops_its_agents_and_leaves_no_socket(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as shell:
        shell("start", "--all")
        shell.follow_until("running", "events", "alpha")
        pid = shell.rows()["alpha"]["pid"]
        socket = Path(shell.place["socket"])
    assert not alive({pid})
    assert not socket.exists()
    again = [*RUNTIME, "ps"]
    done = subprocess.run(again, env=environment(shell.home), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "no runtime is serving" in done.stderr


def test_killed_hard_it_leaves_a_socket_that_the_next_one_takes_over(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as shell:
        command = [*RUNTIME, "serve", str(tmp_path / "specs"), "--provider", "rehearsal", "--json"]
        command += ["--state-dir", str(tmp_path / "other")]
        places: list[str] = []
        for _ in range(2):
            with subprocess.Popen(
                command, env=environment(shell.home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as second:
                assert second.stdout is not None
                places.append(str(json.loads(second.stdout.readline())["socket"]))
                assert shell.json("ps", "--socket", places[-1])[0]["agent"] == "alpha"
                os.kill(second.pid, signal.SIGKILL)
        assert places[0] == places[1]
        assert Path(places[0]).exists()
