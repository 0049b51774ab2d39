"""Rounds of `kill -9` against a runtime at work, its workers, its fork server and its gateway; and the reckoning
afterwards: what the folders, the process table and the log say about what was done, once, twice or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmock.scenarios import Reply

from e2e.fleet import RUNTIME, environment, make_repository
from fakes.conversing_model import Body, call, conversing_model, finish, first_words
from fakes.processes import alive, processes_naming
from fakes.scene import spec
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.client.attached import AttachedClient, attach_unix
from toka_runtime.client.base import Resync
from toka_runtime.clock import SystemClock
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.commands import CommandRequest, ResumeAgent
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import AgentName, ProcessRef, RunRef, new_command_id
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.states import TERMINAL, AgentState, StopReason, TaskState
from toka_runtime.store.events import EventStore
from toka_runtime.supervisor.leftovers import reference

AGENTS, TASKS, STEPS = 3, 3, 4
VICTIMS = ("runtime", "runtime", "runtime", "worker", "fork server", "gateway")


def ledger_mind(body: Body) -> Reply:
    """Appends each step of its task to a ledger, two in a turn. Where it is told that an outcome is not known it looks
    first, as a careful model would. Stateless: everything is in the conversation."""
    mark = re.search(r"mark (\w+)", first_words(body))
    assert mark is not None
    steps = ["todo"] * STEPS
    asked: dict[str, tuple[int, str]] = {}
    for message in body["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "tool_use" and (found := re.search(rf"{mark[1]}-(\d+)", str(block["input"]))):
                asked[block["id"]] = (int(found[1]), str(block["input"]))
            elif block["type"] == "tool_result" and block["tool_use_id"] in asked:
                step = asked[block["tool_use_id"]][0]
                steps[step] = _after(str(block["content"]))
    time.sleep(random.uniform(0, 0.03))  # the model's own time
    for step, stands in enumerate(steps):
        line = f"{mark[1]}-{step}"
        if stands == "look":
            return _run(f"if grep -qx {line} ledger.txt; then echo found:; else echo absent:; fi")
        if stands == "todo":
            both = [at for at in (step, step + 1) if at < STEPS and steps[at] == "todo"]
            return call(*(("run_command", {"command": _append(f"{mark[1]}-{at}")}) for at in both))
    return finish()


def _after(result: str) -> str:
    if "done:" in result or "found:" in result:
        return "done"
    return "todo" if "absent:" in result or result.startswith("Not run") else "look"


def _append(line: str) -> str:
    return f"sleep 0.1; echo {line} >> ledger.txt; sleep 0.1; echo done:"


def _run(command: str) -> Reply:
    return call(("run_command", {"command": command}))


@dataclass
class Figures:
    rounds: dict[str, int] = field(default_factory=dict[str, int])
    """By victim."""
    fleets: int = 0
    restarts_s: list[float] = field(default_factory=list[float])
    """From the start of the process to every agent being where it works again."""
    resumed: int = 0
    """Runs that went on."""
    unknown: int = 0
    """Calls whose outcome was unknown."""
    asked: int = 0
    """How often an operator was asked about them."""
    steps: int = 0
    """Side effects, each found exactly once."""


class Fleet:
    """One state folder, from its first start until every agent has ended."""

    def __init__(self, home: Path, base_url: str, figures: Figures) -> None:
        home.mkdir(parents=True)
        self.home, self.figures = home, figures
        self.state_dir = home / "state"
        workspace, specs = make_repository(home / "project"), home / "specs"
        specs.mkdir()
        for number in range(AGENTS):
            tasks = ", ".join(f"{{description: mark a{number}t{task}}}" for task in range(TASKS))
            (specs / f"{number}.yaml").write_text(spec(f"agent{number}", tasks=f"[{tasks}]"))
        self._command = [
            *(*RUNTIME, "serve", str(specs), "--workspace", str(workspace), "--state-dir", str(self.state_dir)),
            *("--provider", "anthropic", "--base-url", base_url, "--model", "claude-sonnet-4-5", "--json"),
        ]
        self.state = FleetState()
        self.told: list[ProcessRef] = []
        self._services: dict[str, ProcessRef] = {}
        self._server: subprocess.Popen[str] | None = None
        self._client: AttachedClient | None = None
        self._following: asyncio.Task[None] | None = None
        self._grew = asyncio.Event()

    @property
    def up(self) -> bool:
        return self._server is not None

    @property
    def over(self) -> bool:
        agents = self.state.agents.values()
        return len(agents) == AGENTS and all(view.state in TERMINAL for view in agents)

    async def start(self) -> None:
        first = not self.state_dir.exists()
        old = [process for process in self.told if reference(process.pid) == process]
        began = time.monotonic()
        self._server = subprocess.Popen(  # returns at once
            [*self._command, *(["--start"] if first else [])],
            stdout=subprocess.PIPE,
            stderr=(self.home / "stderr.log").open("a"),
            text=True,
            env=environment(self.home, ANTHROPIC_API_KEY="dummy-credential"),
        )
        assert self._server.stdout is not None
        line = await asyncio.to_thread(self._server.stdout.readline)
        assert line, (self.home / "stderr.log").read_text()[-3000:]
        left = [process for process in old if reference(process.pid) == process and alive({process.pid})]
        assert not left, f"of the runtime before: {left}"
        self._client = await attach_unix(Path(json.loads(line)["socket"]))
        self.state = await self._client.snapshot()
        self._following = spawn(self._follow(self._client), name="follow")
        await self.until(lambda: all(view.state is not AgentState.PENDING for view in self.state.agents.values()))
        await self.until(lambda: all(view.state is not AgentState.STARTING for view in self.state.agents.values()))
        if not first:
            self.figures.restarts_s.append(time.monotonic() - began)

    async def until(self, condition: Any, timeout_s: float = 60) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._grew.clear()
                    await self._grew.wait()
        except TimeoutError:
            stands = {name: (view.state, view.reason, view.detail) for name, view in self.state.agents.items()}
            raise AssertionError(f"{self.home}: {stands}") from None

    async def kill(self, victim: str, choose: random.Random) -> bool:
        """False: there is no such process at the moment."""
        pid = self._pid(victim, choose)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        self.figures.rounds[victim] = self.figures.rounds.get(victim, 0) + 1
        if victim == "runtime":
            await self._gone()
        return True

    def _pid(self, victim: str, choose: random.Random) -> int | None:
        if victim == "runtime":
            return self._server.pid if self._server else None
        if victim == "worker":
            working = [view for view in self.state.agents.values() if view.state is AgentState.RUNNING]
            pids = [view.worker_pid for view in working if view.worker_pid and view.process]
            pid = choose.choice(pids) if pids else None
            return pid if pid and alive({pid}) else None
        service = self._services.get(victim)
        return service.pid if service and reference(service.pid) == service and alive({service.pid}) else None

    async def stop(self) -> None:
        """In order, when all is over."""
        assert self._server is not None
        self._server.terminate()
        await self._gone()

    async def abandon(self) -> None:
        if self._server is not None:
            self._server.kill()
            await self._gone()

    async def _gone(self) -> None:
        server, client, following = self._server, self._client, self._following
        assert server is not None
        await asyncio.to_thread(server.wait, 60)
        assert server.stdout is not None
        server.stdout.close()
        if client is not None:
            await client.aclose()
        if following is not None:
            with suppress(Exception):
                await cancel_and_wait(following)
        self._server = self._client = self._following = None

    async def _follow(self, client: AttachedClient) -> None:
        """Take in the stream, and be the operator who answers what was put before them."""
        async with aclosing(client.events(self.state.seq)) as batches:
            async for batch in batches:
                if isinstance(batch, Resync):
                    self.state = batch.state
                else:
                    self.state = fold(self.state, batch)
                    for envelope in batch:
                        self._note(envelope)
                        await self._answer(client, envelope)
                self._grew.set()

    def _note(self, envelope: ev.Envelope) -> None:
        match envelope.event:
            case ev.ProcessStarted(process=process):
                self.told.append(process)
            case ev.ServiceStarted(service=service, process=process):
                self.told.append(process)
                self._services[service] = process
            case _:
                pass

    async def _answer(self, client: AttachedClient, envelope: ev.Envelope) -> None:
        match envelope.event:
            case ev.AgentStateChanged(after=AgentState.PAUSED, reason=StopReason.UNKNOWN_OUTCOME):
                self.figures.asked += 1
                target = RunRef(host=envelope.host, agent=AgentName(str(envelope.agent)), run=envelope.run)
                await client.send(
                    CommandRequest(id=new_command_id("t"), actor="test", command=ResumeAgent(target=target))
                )
            case _:
                pass

    # -- the reckoning --------------------------------------------------------------------------------------------

    async def reckon(self) -> None:
        assert processes_naming(str(self.home)) == []
        for number in range(AGENTS):
            view = self.state.agents[AgentName(f"agent{number}")]
            assert view.state is AgentState.COMPLETED, (view.state, view.reason, view.detail)
            wanted = [f"a{number}t{task}-{step}" for task in range(TASKS) for step in range(STEPS)]
            lines = (Path(view.workspace_path) / "ledger.txt").read_text().split()
            assert sorted(lines) == sorted(wanted), f"agent{number}: {sorted(lines)}"
            self.figures.steps += len(lines)
        await self._reckon_log()

    async def _reckon_log(self) -> None:
        store = await EventStore.open(self.state_dir, host=self.state.host, clock=SystemClock())
        try:
            log: list[ev.Envelope] = []
            while page := await store.read(after_seq=log[-1].seq if log else 0, limit=5000):
                log += page
            state = await store.latest_state()
        finally:
            await store.aclose()
        assert [envelope.seq for envelope in log] == list(range(1, len(log) + 1))
        anew = fold(FleetState(host=state.host), log)
        assert _lasting(anew) == _lasting(state)
        done = [
            (e.agent, e.event.task)
            for e in log
            if isinstance(e.event, ev.TaskStateChanged) and e.event.after is TaskState.DONE
        ]
        assert len(done) == len(set(done)) == AGENTS * TASKS
        self._reckon_runs(log)
        begun = [(e.run, e.event.call) for e in log if isinstance(e.event, ev.ToolCallStarted)]
        ended = [(e.run, e.event.call) for e in log if isinstance(e.event, ev.ToolCallEnded)]
        assert len(begun) == len(set(begun))
        assert sorted(begun) == sorted(ended), "every call has exactly one end"
        self.figures.unknown += sum(isinstance(e.event, ev.ToolCallEnded) and e.event.outcome == "unknown" for e in log)
        started = [e.event.process for e in log if isinstance(e.event, ev.ProcessStarted)]
        gone = [e.event.process for e in log if isinstance(e.event, ev.ProcessEnded) and not e.event.survivors]
        assert sorted(map(str, started)) == sorted(map(str, gone)), "every process tree has exactly one end"

    def _reckon_runs(self, log: list[ev.Envelope]) -> None:
        """Each run ended, or was gone on with by exactly one other."""
        open_runs: dict[str, str] = {}
        for envelope in log:
            match envelope.event:
                case ev.AgentStateChanged(after=AgentState.STARTING):
                    assert str(envelope.agent) not in open_runs, "one run of an agent at a time"
                    open_runs[str(envelope.agent)] = str(envelope.run)
                case ev.AgentStateChanged(after=after, resumes=resumes) if (
                    after in TERMINAL or after is AgentState.PENDING
                ):
                    assert open_runs.pop(str(envelope.agent)) == envelope.run
                    assert after in TERMINAL or resumes is not None
                    self.figures.resumed += resumes is not None
                case _:
                    pass
        assert not open_runs


def _lasting(state: FleetState) -> dict[str, Any]:
    """Without samples, which are not in the log."""
    dumped = state.model_dump(exclude={"host_usage"})
    return dumped | {"agents": {name: view | {"usage": None} for name, view in dumped["agents"].items()}}


async def kill_rounds(folder: Path, rounds: int, seed: int) -> Figures:
    """So many kills, in as many fleets as it takes; each fleet is left to end and reckoned with.

    Who is killed in which round is drawn before; a victim that isn't there at its moment is tried again later.
    """
    choose, figures = random.Random(seed), Figures()
    plan = [VICTIMS[number % len(VICTIMS)] for number in range(rounds)]
    choose.shuffle(plan)
    with conversing_model(ledger_mind) as model:
        while plan:
            fleet = Fleet(folder / f"fleet{figures.fleets}", model.base_url, figures)
            figures.fleets += 1
            try:
                while not fleet.over or not fleet.up:
                    if not fleet.up:
                        await fleet.start()
                    if not plan:
                        await fleet.until(lambda fleet=fleet: fleet.over, 120)
                        break
                    with suppress(AssertionError):
                        await fleet.until(lambda fleet=fleet: fleet.over, choose.uniform(0.05, 3.0))
                    if await fleet.kill(plan[-1], choose):
                        plan.pop()
                await fleet.stop()
                await fleet.reckon()
            finally:
                await fleet.abandon()
    return figures
