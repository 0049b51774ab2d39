"""The console with two real runtimes behind a real OpenSSH server: a cut link dims, and comes back."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console
from fakes.relay import relay
from fakes.served import served
from fakes.sshd import NAME, openssh
from toka_console.app import ConsoleApp
from toka_runtime.client import ssh

RUNTIME = Path(__file__).parents[2] / "runtime"


async def test_two_hosts_of_one_name_one_of_them_cut_off_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach_ssh = ssh.attach_ssh
    async with (
        served(tmp_path / "one") as one,
        served(tmp_path / "two") as two,
        relay(tmp_path / "relay.sock", one.path) as between,
        openssh(tmp_path / "ssh") as server,
    ):
        server.config.write_text(server.config.read_text().replace(f"Host {NAME}\n", "Host one two\n"))
        paths = {"one": between.path, "two": two.path}

        async def attach(name: str, **more: object) -> object:
            command = f"PYTHONPATH={RUNTIME} {sys.executable} -m toka_runtime.server.bridge --socket {paths[name]}"
            return await partial(attach_ssh, config=server.config, command=command)(name, **more)  # type: ignore[arg-type] # passed through

        monkeypatch.setattr(ssh, "attach_ssh", attach)
        app = ConsoleApp(None, hosts=("one", "two", "nowhere.invalid"), start_fleet=False)
        async with app.run_test(size=(160, 40)) as pilot:
            made = Console(app, pilot, FakeRuntimeClient(), FakeClock())
            await made.until(
                lambda: app.session.state is not None and len(app.session.state.agents) == 2, "both agents"
            )
            first, second = app.links.find("one"), app.links.find("two")
            assert first is not None
            assert second is not None
            assert first.host != second.host
            assert {key.name for key in app.session.known.agents} == {"alpha"}
            between.closed_to_new = True
            between.cut()
            await made.until(lambda: first.host and not app.session.known.is_up(first.host), "the cut link")
            await made.until(lambda: "last seen" in made.text(), "the dimmed row")
            assert second.host is not None
            assert app.session.known.is_up(second.host)
            between.closed_to_new = False
            await made.until(lambda: first.host and app.session.known.is_up(first.host), "the link again")
            assert app.session.diagnostics.reconnects[first.host or second.host] == 1
            await app.finish()
