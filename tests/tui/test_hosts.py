"""Several hosts in one console: attached in the background, told apart, asked for what only a person knows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.console import Console, console
from toka_console import host_names, options
from toka_console.format.host_page import skew
from toka_console.identity import AgentKey
from toka_console.panes.logs import LogsPane
from toka_console.settings import HostSettings
from toka_runtime.client import ssh
from toka_runtime.client.base import Link, LinkState
from toka_runtime.client.questions import OfferedKey, Questions
from toka_runtime.errors import LinkDown, LinkRefused
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName

ART = "+--[ED25519]--+\n|   .o+E      |\n+-------------+"
KEY = OfferedKey("web1", "ssh-ed25519", "SHA256:abcDEF", "web1 ssh-ed25519 AAAA", ART)
Attach = Callable[[str, Questions], Awaitable[FakeRuntimeClient]]


class FarClient(FakeRuntimeClient):
    """A fake over a link that goes down and comes back, of a host whose clock may be wrong."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.embedded = False
        self.on_link: Callable[[], None] | None = None
        self.told = LinkState.UP
        self.skew_s = 0.0

    @property
    def link(self) -> Link:
        told = LinkState.CLOSED if self.closed else self.told
        return super().link.model_copy(
            update={
                "state": told, "skew_s": self.skew_s, "skew_error_s": 0.002, "round_trip_s": 0.0004,
                "version": "0.3.0", "protocol": 1,
            }
        )  # fmt: skip

    def becomes(self, state: LinkState) -> None:
        self.told = state
        assert self.on_link is not None
        self.on_link()


@asynccontextmanager
async def many(
    monkeypatch: pytest.MonkeyPatch, attach: Attach, *words: str, size: tuple[int, int] = (160, 40)
) -> AsyncGenerator[Console]:
    """A console with a runtime of its own (`local`) and the hosts of `words`, attached by `attach`."""

    async def attach_ssh(name: str, *, questions: Questions, start: bool) -> FakeRuntimeClient:
        return await attach(name, questions)

    monkeypatch.setattr(ssh, "attach_ssh", attach_ssh)
    async with console(size=size, hosts=words) as made:
        yield made


async def far(skew_s: float = 0.0) -> FarClient:
    clock = FakeClock()
    client = FarClient(clock)
    client.skew_s = skew_s
    await fleet.work(client, clock)
    return client


def hosts_of(made: Console) -> set[str]:
    return {str(host) for host in made.app.session.known.hosts}


async def test_hosts_with_the_same_name_and_the_same_agents_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clients: dict[str, FarClient] = {}

    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        clients[name] = await far()
        return clients[name]

    async with many(monkeypatch, attach, "a", "b") as made:
        await made.until(lambda: len(hosts_of(made)) == 3, "all hosts")
        assert hosts_of(made) == {"local", "local:2", "local:3"}
        link = made.app.links.find("a")
        assert link is not None
        assert link.host is not None
        await made.until(lambda: len(clients["a"].state.agents) * 3 == len(made.app.session.known.agents), "the agents")
        assert "HOST" in made.text()
        table = made.app.navigator.fleet.table
        row = next(
            row for row in table.order
            if row.host == link.host and row.agent is not None
            and made.app.session.known.agents[row.agent].view.state.value.lower() == "running"
        )  # fmt: skip
        table.select(row)
        await made.until(lambda: made.app.session.focus == row.agent, "the focus")
        await made.press("p")
        await made.until(lambda: clients["a"].commands, "the command")
        (command,) = clients["a"].commands
        assert isinstance(command, cmd.PauseAgent)
        # It names the host as the host names itself.
        assert (command.target.host, command.target.agent) == ("local", row.name)
        assert clients["b"].commands == made.client.commands == []


async def test_freezing_everything_tells_each_host_of_its_own_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    clients: dict[str, FarClient] = {}

    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        clients[name] = await far()
        return clients[name]

    async with many(monkeypatch, attach, "a") as made:
        await made.until(lambda: len(hosts_of(made)) == 2, "both hosts")
        await made.until(lambda: len(clients["a"].state.agents) * 2 == len(made.app.session.known.agents), "the agents")
        await made.press("!")
        assert "local, local:2" in made.text()
        await made.press("enter")
        await made.until(lambda: clients["a"].commands and made.client.commands, "the commands")
        for client in (clients["a"], made.client):
            (sent,) = client.commands
            assert isinstance(sent, cmd.PauseFleet)
            assert set(sent.agents) <= set(client.state.agents)


async def test_the_log_of_an_agent_is_exported_from_its_own_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = await far()

    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        return client

    async with many(monkeypatch, attach, "a") as made:
        await made.until(lambda: len(hosts_of(made)) == 2, "both hosts")
        name = fleet.NAMES[0][0]
        client.emit(ev.OutputAppended(stream=ev.Stream.STDOUT, text="only there\n"), name)
        link = made.app.links.find("a")
        assert link is not None
        assert link.host is not None
        await made.press("4")
        logs = made.app.current.query_one(LogsPane)
        logs.scope = AgentKey(link.host, AgentName(name))
        made.app.session.focus = None
        made.app.perform("logs.export", str(tmp_path / "log.txt"))
        await made.until((tmp_path / "log.txt").exists, "the file")
        assert "only there" in (tmp_path / "log.txt").read_text()


async def test_a_host_that_refuses_is_a_row_with_the_reason_and_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        tries.append(name)
        if name == "bad":
            raise LinkRefused("THE KEY OF bad HAS CHANGED", hint="ssh-keygen -R bad")
        if name == "mute" and tries.count("mute") == 1:
            raise LinkDown("cannot attach to mute: no route", hint="is it on?")
        if name == "odd":
            raise RuntimeError("surprise\x1b[31m")
        return await far()

    async with many(monkeypatch, attach, "bad", "mute", "good", "odd") as made:
        await made.until(lambda: len(hosts_of(made)) == 2, "the good one")
        await made.press(*":hosts", "enter")
        await made.until(lambda: "THE KEY OF bad" in made.text(), "the reason")
        assert "waiting" in made.text()
        await made.clock.advance(1)
        await made.until(lambda: len(hosts_of(made)) == 3, "the one that answers later")
        assert tries.count("bad") == 1
        assert tries.count("mute") == 2
        assert "\x1b" not in made.text()
        made.app.perform("host.reconnect", "bad")
        await made.until(lambda: tries.count("bad") == 2, "the second try")


async def test_an_unknown_key_is_asked_for_without_taking_the_keys_and_no_is_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[bool] = []

    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        answers.append(await questions.trust(KEY))
        if not answers[-1]:
            raise LinkRefused("web1 is not known")
        return await far()

    async with many(monkeypatch, attach, "web1") as made:
        await made.until(lambda: made.app.session.asked, "the question")
        await made.until(lambda: "web1 asks :answer" in made.text(), "the badge")
        assert made.app.screen is made.app.current
        await made.press(*":answer", "enter")
        assert "SHA256:abcDEF" in made.text()
        assert "|   .o+E      |" in made.text()
        await made.press("enter")
        await made.until(lambda: answers == [False], "no")
        made.app.perform("host.reconnect", "web1")
        await made.until(lambda: made.app.session.asked, "the second question")
        await made.press(*":answer", "enter")
        await made.press("right", "enter")
        await made.until(lambda: answers == [False, True] and len(hosts_of(made)) == 2, "trust")


async def test_a_secret_is_never_seen_and_left_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[str | None] = []

    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        got.append(await questions.secret("passphrase of ~/.ssh/id\x1b[2J"))
        got.append(await questions.secret("code"))
        raise LinkRefused("enough")

    async with many(monkeypatch, attach, "web1", size=(60, 15)) as made:
        await made.until(lambda: made.app.session.asked, "the question")
        await made.press(*":answer", "enter")
        assert "passphrase of" in made.text()
        await made.press(*"hunter2")
        assert "hunter2" not in made.text()
        assert "•••••••" in made.text()
        await made.press("enter")
        await made.until(lambda: got == ["hunter2"] and made.app.session.asked, "the next question")
        await made.press(*":answer", "enter")
        await made.press(*"123", "escape")
        await made.until(lambda: got == ["hunter2", None], "none given")
        await made.until(lambda: not made.app.session.asked, "no question")
        assert "hunter2" not in repr(vars(made.app.session))


async def test_a_lost_link_dims_at_once_and_says_why_nothing_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await far()

    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        return client

    async with many(monkeypatch, attach, "web1") as made:
        await made.until(lambda: len(hosts_of(made)) == 2 and client.listening, "the host")
        link = made.app.links.find("web1")
        assert link is not None
        assert link.host is not None
        key = next(key for key in made.app.session.known.agents if key.host == link.host)
        made.app.navigator.fleet.show(key)
        await made.until(lambda: made.app.session.focus == key, "the focus")
        client.becomes(LinkState.DOWN)
        await made.until(lambda: "last seen" in made.text(), "the dimmed rows")
        await made.press("p")
        assert client.commands == []
        assert f"host {link.host} is not reachable" in made.text()
        client.becomes(LinkState.UP)
        await made.until(lambda: "last seen" not in made.text(), "the return")
        assert made.app.session.diagnostics.reconnects[link.host] == 1


async def test_times_of_a_host_with_a_wrong_clock_are_corrected_and_nothing_sent_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ahead = timedelta(hours=1, seconds=3)
    client = await far(skew_s=ahead.total_seconds())
    told = client.state

    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        return client

    async with many(monkeypatch, attach, "web1") as made:
        await made.until(lambda: len(hosts_of(made)) == 2 and client.listening, "the host")
        link = made.app.links.find("web1")
        assert link is not None
        assert link.host is not None
        assert link.bridge is not None
        shown = made.app.session.known.hosts[link.host].fleet
        name = next(iter(told.agents))
        assert shown.agents[name].since == told.agents[name].since - ahead
        assert shown.at is not None
        assert told.at is not None
        assert shown.at == told.at - ahead
        page, _ = await link.bridge.read_page(cmd.ReadEvents(limit=1))
        assert page[0].at == client.log[0].at - ahead
        assert page[0].host == link.host
        await made.until(lambda: "its times are shown corrected" in made.text(), "the notice")
        await made.press(*":hosts", "enter", "down")
        assert "+1 h 0 m 3 s ± 2 ms" in made.text()


async def test_a_host_that_is_left_takes_its_rows_along_and_its_agents_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[FarClient] = []

    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        clients.append(await far())
        return clients[-1]

    async with many(monkeypatch, attach) as made:
        await made.press(*":attach web1", "enter")
        await made.until(lambda: len(hosts_of(made)) == 2, "the host")
        await made.press(*":detach web1", "enter")
        await made.until(lambda: hosts_of(made) == {"local"} and clients[0].closed, "leaving")
        assert all(key.host == "local" for key in made.app.session.known.agents)
        assert clients[0].commands == []
        await made.press(*":attach web1", "enter")
        await made.until(lambda: len(hosts_of(made)) == 2, "the host again")
        made.app.perform("host.detach", "local")
        assert "would end its agents" in made.text()
        made.app.perform("host.attach", "-oProxyCommand=id")
        assert "is no host" in made.text()


@pytest.mark.parametrize("size", [(200, 50), (80, 24), (60, 15)])
async def test_the_hosts_screen_at_every_size(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    async def attach(name: str, questions: Questions) -> FakeRuntimeClient:
        if name == "bad":
            raise LinkRefused("bad has no toka-runtime-bridge", hint="install it there: pip install toka-console")
        return await far()

    async with many(monkeypatch, attach, "web1", "bad", size=size) as made:
        await made.until(lambda: len(hosts_of(made)) == 2, "the host")
        await made.press(*":hosts", "enter", "down")
        await made.until(lambda: "0.4 ms" in made.text() or size[0] < 80, "the figures")
        assert "local:2" in made.text()
        assert "refused" in made.text()
        await made.press("down")
        assert "bad has no toka-runtime-bridge" in made.text()
        await made.press("up", "enter")
        assert made.app.current.ID == "fleet"
        assert {row.host for row in made.app.navigator.fleet.table.order} == {"local:2"}


def test_words_are_sorted_into_paths_and_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specs").mkdir()
    (tmp_path / "me@box").mkdir()
    file = tmp_path / "hosts.txt"
    file.write_text("# the fleet\nc\n\nd@e  # one more\n")
    words = ["specs", "web1", "ssh://specs", "me@web2", "a/b", "x.yaml"]
    parsed = options.parse([*words, "--hosts", str(file), "--host", "f,g"])
    assert [str(path) for path in parsed.paths] == ["specs", "a/b", "x.yaml"]
    assert parsed.hosts == ["web1", "specs", "me@web2", "f", "g", "c", "d@e"]
    for words, wrong in (
        (["me@box"], "could be a host"),
        (["--host=-oProxyCommand=id"], "is no host"),
        (["--hosts", "nowhere"], "cannot be read"),
        (["--start"], "which?"),
    ):
        with pytest.raises(options.WrongUsage, match=wrong.replace("?", r"\?")):
            options.parse(words)


def test_a_group_stands_for_its_hosts_and_an_address_for_its_name() -> None:
    known = {
        "a": HostSettings(address="root@10.0.0.1", group="web"),
        "b": HostSettings(group="web"),
        "c": HostSettings(),
    }
    assert host_names.wanted(["web", "a", "other"], known) == [("a", "root@10.0.0.1"), ("b", "b"), ("other", "other")]


@pytest.mark.parametrize(("seconds", "text"), [(3603, "+1 h 0 m 3 s"), (-75, "−1 m 15 s"), (-0.012, "−12 ms")])
def test_skew_in_words(seconds: float, text: str) -> None:
    assert skew(seconds) == text
