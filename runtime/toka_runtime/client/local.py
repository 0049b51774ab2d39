"""The client that carries its runtime with it: an embedded supervisor in this process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from toka_runtime import paths
from toka_runtime.client.base import Batch, Link, LinkState
from toka_runtime.clock import Clock, SystemClock
from toka_runtime.errors import CredentialMissing, RecordingBroken, UsageError
from toka_runtime.llm.base import GatewaySettings
from toka_runtime.llm.credentials import credential_found
from toka_runtime.llm.prices import read_prices
from toka_runtime.protocol.commands import CommandRequest, CommandResult
from toka_runtime.protocol.ids import HostId
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.usage import Budget
from toka_runtime.specs.loader import LoadReport, load_paths
from toka_runtime.supervisor.dispatch import Dispatcher
from toka_runtime.supervisor.options import LoopLimits, RuntimeOptions
from toka_runtime.supervisor.sample import create_sample_workspace
from toka_runtime.supervisor.supervisor import Supervisor

REHEARSAL_NOTE = "REHEARSAL: no model is used; every text is scripted and tagged [rehearsal: no model]"
NO_CREDENTIAL = "no model credential was found (ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN)"


@dataclass(frozen=True)
class LocalOptions:
    """What a person asks for; `open_local` fills in the rest."""

    paths: tuple[Path, ...] = ()
    """Spec files and folders; none: the fleet that ships."""
    workspace: Path | None = None
    """None: a sample workspace is made."""
    state_dir: Path | None = None
    provider: str = ""
    """anthropic, rehearsal, replay:FILE; "": anthropic when a credential is found, else a rehearsal, said loudly."""
    enable: frozenset[str] = frozenset()
    max_agents: int | None = None
    in_place: bool = False
    allow_unconfined: bool = False
    catalogues: tuple[Path, ...] = ()
    """Operator's capability files; none: the one in the configuration folder, when there is one."""
    ask: bool = False
    """Every agent may ask for approval, also where its spec does not say so."""
    approval_wait_s: float = 300.0
    """0: nobody is there to be asked."""
    budget: dict[str, Any] | None = None
    """Of the fleet: keyword arguments of `Budget`; None: as it was set before."""
    day_budget: dict[str, Any] | None = None
    resume: bool = True
    """Go on with the runs that a killed runtime left in this state folder."""
    go_on_unknown: bool = False
    """Also after calls of which nobody knows whether they were done."""
    prices: Path | None = None
    record: str = ""
    base_url: str = ""
    model: str = ""
    loop: LoopLimits = field(default_factory=LoopLimits)
    rehearsal_delay_s: float = 0.02


def gateway_settings(options: LocalOptions) -> tuple[GatewaySettings, str]:
    """Settings and the note to show. Raises UsageError for an unknown provider, CredentialMissing for anthropic without
    a credential: a rehearsal is chosen only when nobody asked for a model, never instead of one."""
    provider, _, file = options.provider.partition(":")
    note = ""
    if not provider:
        found = credential_found(os.environ)
        provider = "anthropic" if found else "rehearsal"
        note = "" if found else f"{REHEARSAL_NOTE} — {NO_CREDENTIAL}"
    if provider == "anthropic":
        if not credential_found(os.environ):
            raise CredentialMissing(NO_CREDENTIAL, hint="set one of them, or use --provider rehearsal")
        kind = "anthropic"
    elif provider == "rehearsal":
        kind, note = "rehearsal", note or REHEARSAL_NOTE
    elif provider == "replay":
        if not file:
            raise UsageError("provider replay needs a file", hint="--provider replay:FILE")
        if not Path(file).is_file():
            raise UsageError(f"recording {file} does not exist", hint="make one with --record FILE")
        kind, note = "replay", f"REPLAY: answers come from the recording {file}, no model is used"
    else:
        raise UsageError(f"unknown provider {options.provider!r}", hint="anthropic, rehearsal or replay:FILE")
    if options.record:
        _check_record(Path(options.record))
    settings = GatewaySettings(
        provider=kind,
        base_url=options.base_url or os.environ.get("ANTHROPIC_BASE_URL", ""),
        default_model=options.model or os.environ.get("TOKA_MODEL", ""),
        replay_file=file,
        record_file=options.record,
        rehearsal_delay_s=options.rehearsal_delay_s,
        prices=read_prices(options.prices) if options.prices else (),
    )
    return settings, note


def _check_record(file: Path) -> None:
    """Before anything starts: a recording is made with the first model call, and no run should fail then for what could
    be known now. Raises RecordingBroken."""
    if file.exists():
        raise RecordingBroken(f"recording {file} exists already", hint="choose another file name")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise RecordingBroken(
            f"recording {file} cannot be written", hint=f"{file.parent} is no folder, or you may not write there"
        )


def default_state_dir(workspace: Path) -> Path:
    """One state folder a workspace, so that two fleets on two projects don't meet."""
    digest = hashlib.sha256(str(workspace).encode()).hexdigest()[:8]
    return paths.state_dir() / "fleets" / f"{workspace.name or 'root'}-{digest}"


def load_specs(options: LocalOptions) -> LoadReport:
    return load_paths(options.paths or (paths.shipped_configs() / "agents",))


async def open_local(options: LocalOptions, report: LoadReport | None = None) -> LocalClient:
    """Start an embedded runtime with its specs loaded; no agent is started. Raises TokaError when it can't."""
    settings, note = gateway_settings(options)
    workspace = options.workspace
    if workspace is None:
        workspace = paths.state_dir() / "sample-workspace"
        create_sample_workspace(workspace)
    workspace = workspace.absolute()
    supervisor = await Supervisor.open(
        RuntimeOptions(
            workspace=workspace,
            state_dir=(options.state_dir or default_state_dir(workspace)).absolute(),
            gateway=settings,
            provider_note=note,
            max_agents=options.max_agents,
            enable=options.enable,
            workspace_mode="in-place" if options.in_place else "auto",
            allow_unconfined=options.allow_unconfined,
            catalogues=options.catalogues,
            ask=options.ask,
            approval_wait_s=options.approval_wait_s,
            fleet_budget=None if options.budget is None else Budget(**options.budget),
            day_budget=None if options.day_budget is None else Budget(**options.day_budget),
            loop=options.loop,
            resume=options.resume,
            go_on_unknown=options.go_on_unknown,
        )
    )
    try:
        await supervisor.load(report or load_specs(options))
    except BaseException:
        await supervisor.aclose("could not load the specs")
        raise
    return LocalClient(supervisor)


class LocalClient:
    """`RuntimeClient` over a supervisor in this process."""

    def __init__(self, supervisor: Supervisor, clock: Clock | None = None) -> None:
        self.supervisor = supervisor
        self.host: HostId = supervisor.options.host
        self._dispatcher = Dispatcher(supervisor)
        self._clock = clock or SystemClock()
        self._since: datetime = self._clock.now()
        self._closed = False

    @property
    def link(self) -> Link:
        state = LinkState.CLOSED if self._closed else LinkState.UP
        return Link(host=self.host, state=state, since=self._since, detail="in this process", embedded=True)

    async def snapshot(self) -> FleetState:
        return self.supervisor.bus.snapshot()

    async def events(self, after_seq: int) -> AsyncGenerator[Batch]:
        async with self.supervisor.bus.subscribe(after_seq) as subscription:
            async for batch in subscription:
                yield batch

    async def send(self, request: CommandRequest) -> CommandResult:
        return await self._dispatcher.handle(request)

    async def aclose(self, reason: str = "the console was closed") -> None:
        if not self._closed:
            self._closed = True
            self._since = self._clock.now()
        await self.supervisor.aclose(reason)
