"""One verb on several hosts at once, over a real OpenSSH server: `--host a,b,c`."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

import pytest

from fakes.events import denial
from fakes.served import Served, ask, served
from fakes.sshd import NAME, OpenSsh, openssh
from toka_runtime.cli.main import main
from toka_runtime.client import ssh
from toka_runtime.protocol.commands import StartFleet
from toka_runtime.protocol.events import OperationDenied
from toka_runtime.protocol.ids import AgentName

RUNTIME = Path(__file__).parents[3] / "runtime"


@pytest.fixture
async def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`one` and `two` lead to a runtime, `dead` to a port where nobody listens."""
    async with served(tmp_path) as made, openssh(tmp_path / "ssh") as server:
        known = server.config.read_text()
        server.config.write_text(
            known.replace(f"Host {NAME}\n", "Host one two\n")
            + f"Host dead\n  HostName 127.0.0.1\n  Port 1\n  UserKnownHostsFile {server.known_hosts}\n"
        )
        command = f"PYTHONPATH={RUNTIME} {sys.executable} -m toka_runtime.server.bridge --socket {made.path}"
        monkeypatch.setattr(ssh, "attach_ssh", partial(ssh.attach_ssh, config=server.config, command=command))
        yield made, server


Hosts = tuple[Served, OpenSsh]


async def toka(*words: str) -> int:
    return await asyncio.to_thread(main, list(words))


async def test_each_line_says_which_host_it_is_from(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert await toka("ps", "--host", "one,two") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert sorted(line.split()[0] for line in lines) == ["one:", "one:", "two:", "two:"]
    assert sum("alpha" in line for line in lines) == 2
    assert "2 hosts done" in err


async def test_json_lines_stay_json_lines(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert await toka("ps", "--host", "one", "--host", "two", "--json") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(each["via"] for each in told) == ["one", "two"]
    assert {each["agent"] for each in told} == {"alpha"}


async def test_one_host_that_fails_is_counted_and_does_not_stop_the_others(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    made, _ = hosts
    await made.client.send(ask(StartFleet()))
    assert await toka("freeze-all", "--host", "one,dead", "--json") == 65
    out, err = capsys.readouterr()
    told = {each["via"]: each for each in map(json.loads, out.splitlines())}
    assert told["dead"]["code"] == "link.down"
    assert "1 host done, 1 failed: dead (exit 3)" in err


async def test_what_is_asked_for_wrongly_is_said_by_every_host(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await toka("pause", "nobody", "--host", "one,two") == 66
    err = capsys.readouterr().err
    assert "one: error [usage]: no agent nobody here" in err
    assert "two: error [usage]: no agent nobody here" in err


@pytest.mark.parametrize("host", ["", "a,,b", "-oProxyCommand=id,a"])
async def test_a_list_with_no_host_in_it_is_refused(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await toka("ps", f"--host={host}") == 2
    assert "names or addresses" in capsys.readouterr().err


async def test_what_was_refused_elsewhere_is_told(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = hosts
    for name, target in (("alpha", "/etc/shadow"), ("other", "/etc/passwd")):
        await made.stage.supervisor.store.append(OperationDenied(denial=denial(target)), agent=AgentName(name))
    assert await toka("denials", "--host", "one,two", "--json", "--agent", "alpha") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted((each["via"], each["target"]) for each in told) == [("one", "/etc/shadow"), ("two", "/etc/shadow")]
