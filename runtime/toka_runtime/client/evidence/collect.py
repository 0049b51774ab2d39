"""What goes into a bundle, read through queries alone, page by page into files: it works on any `RuntimeClient`."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

import toka_runtime
from toka_runtime.client.base import RuntimeClient
from toka_runtime.client.evidence.archive import Archive, new_archive, safe_name
from toka_runtime.client.evidence.report import About, AgentPart, HostPart, report
from toka_runtime.client.evidence.story import act_text, concerns, shown, stamp
from toka_runtime.errors import CommandRefused, LinkDown, UsageError
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.codec import envelope_from
from toka_runtime.protocol.ids import AgentName, new_command_id
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.snapshot import FleetState

EVENTS_PAGE = 500
DIFF_BYTES = 8 * 1024 * 1024
_HOST_KINDS = ("command.handled", "budget.set", "runtime.started", "runtime.stopped", "runtime.noticed", "host.probed")


@dataclass(frozen=True, slots=True)
class Subject:
    """Agents of one host."""

    client: RuntimeClient
    agents: tuple[AgentName, ...]


@dataclass(frozen=True, slots=True)
class Written:
    path: Path
    files: int
    bytes: int
    digest: str
    """SHA-256 of the file, in hex."""
    missing: tuple[str, ...]
    """What could not be had, each with the reason: it is told in the report, too."""


async def write_bundle(path: Path, subjects: Sequence[Subject], about: About) -> Written:
    """Write all that is known of the agents to a new file. It is there whole or, whatever this raises, not at all:
    UsageError for an agent that is not there, CommandRefused or LinkDown when the log cannot be read to its end,
    FileExistsError and OSError."""
    if not any(subject.agents for subject in subjects):
        raise UsageError("evidence of whom?", hint="name at least one agent")
    with new_archive(path, about.at) as archive:
        folders = _Folders()
        hosts = [await _Host(archive, subject, about.actor, folders).collect() for subject in subjects]
        archive.add_bytes("versions.json", _json_of(_versions(hosts)))
        if about.incident is not None:
            archive.add_bytes("incident.json", _model_json(about.incident))
        archive.add_bytes("REPORT.md", report(about, hosts).encode())
        names = [f"{part.view.host}/{part.view.name}" for host in hosts for part in host.agents]
        digest = await asyncio.to_thread(
            archive.seal, {"made_at": about.at.isoformat(), "made_by": about.actor, "agents": names}
        )
    size = (await asyncio.to_thread(path.stat)).st_size
    missing = tuple(
        f"{part.view.name}: {what}: {why}"
        for host in hosts
        for part in host.agents
        for what, why in part.missing.items()
    )
    return Written(path, len(archive.entries), size, digest, missing)


class _Folders:
    """Names of folders in the archive: safe, and no two alike."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, *parts: str) -> str:
        wanted = name = "/".join(safe_name(part) for part in parts)
        number = 1
        while name.lower() in self._taken:
            number += 1
            name = f"{wanted}-{number}"
        self._taken.add(name.lower())
        return name


class _Host:
    """Collects the agents of one host, all as of the same moment."""

    def __init__(self, archive: Archive, subject: Subject, actor: str, folders: _Folders) -> None:
        self._archive = archive
        self._client = subject.client
        self._names = tuple(dict.fromkeys(subject.agents))
        self._actor = actor
        self._folders = folders

    async def collect(self) -> HostPart:
        state = await self._client.snapshot()
        if missing := [name for name in self._names if name not in state.agents]:
            raise UsageError(f"no agent {', '.join(missing)} here", hint=f"there are: {', '.join(state.agents)}")
        folder = self._folders.take("hosts", self._client.host)
        version = state.runtime.version if state.runtime else self._client.link.version
        part = HostPart(self._client.host, folder, version, state.seq, [])
        for name in self._names:
            own = AgentPart(state.agents[name], self._folders.take("agents", self._client.host, name))
            await self._agent(own, state.seq)
            part.agents.append(own)
        await self._operators(part)
        self._archive.add_bytes(f"{folder}/host.json", _json_of(_host_facts(state)))
        self._archive.add_bytes(f"{folder}/proof.json", _json_of({"proof": part.proof, "head": state.seq}))
        return part

    # -- one agent ------------------------------------------------------------------------------------------------

    async def _agent(self, part: AgentPart, head: int) -> None:
        view, put = part.view, self._archive.add_bytes
        put(f"{part.folder}/spec.yaml", _spec_text(view.spec).encode())
        put(f"{part.folder}/policy.json", _model_json(view.rights))
        put(f"{part.folder}/state.json", _model_json(view))
        protections = {
            "in_force": view.in_force.model_dump(mode="json") if view.in_force else None,
            "lines": view.protections,
            "limits": [each.model_dump(mode="json") for each in view.limits],
        }
        put(f"{part.folder}/protections.json", _json_of(protections))
        process = {
            "process": view.process.model_dump(mode="json") if view.process else None,
            "worker_pid": view.worker_pid,
            "survivors": view.survivors,
            "usage": view.usage.model_dump(mode="json"),
        }
        put(f"{part.folder}/process.json", _json_of(process))
        await self._events(part, head)
        await self._transcript(part)
        await self._diff(part)

    async def _events(self, part: AgentPart, head: int) -> None:
        """The audit slice, and from it the output as text."""
        log, output = self._archive.part(), self._archive.part()
        text = _OutputText(output)
        with log, output:
            read = cmd.ReadEvents(before_seq=head + 1, agent=part.view.name, limit=EVENTS_PAGE)
            async with aclosing(self._log(read)) as pages:
                async for raw, envelopes in pages:
                    part.story.add(envelopes)
                    await asyncio.to_thread(_write_lines, log, raw)
                    await asyncio.to_thread(text.add, envelopes)
            await asyncio.to_thread(self._archive.add, f"{part.folder}/events.jsonl", log)
            await asyncio.to_thread(self._archive.add, f"{part.folder}/output.log", output)

    async def _transcript(self, part: AgentPart) -> None:
        for kind, file in (("turns", "transcript"), ("calls", "tool-calls"), ("results", "results")):
            try:
                await self._journal(part, kind, f"{part.folder}/{file}.jsonl")
            except CommandRefused as error:
                part.missing[file] = error.message

    async def _journal(self, part: AgentPart, kind: Any, path: str) -> None:
        with self._archive.part() as lines:
            for run in part.story.runs:
                after: int | None = 0
                while after is not None:
                    read = cmd.ReadTranscript(run=run, part=kind, after=after)
                    data = await self._ask(read, "records", "next", "redactions")
                    await asyncio.to_thread(_write_lines, lines, data["records"])
                    part.redactions += int(data["redactions"])
                    after = data["next"]
            await asyncio.to_thread(self._archive.add, path, lines)

    async def _diff(self, part: AgentPart) -> None:
        read = cmd.ReadDiff(agent=part.view.name, max_bytes=DIFF_BYTES)
        try:
            data = await self._ask(read, "diff", "truncated")
        except CommandRefused as error:
            part.missing["git diff"] = error.message
            return
        if data["truncated"]:
            part.missing["the rest of the git diff"] = f"it is longer than {DIFF_BYTES:,} bytes"
        diff = str(data["diff"]).encode(errors="replace")
        await asyncio.to_thread(self._archive.add_bytes, f"{part.folder}/diff.patch", diff)

    # -- the host -------------------------------------------------------------------------------------------------

    async def _operators(self, part: HostPart) -> None:
        """What operators did that is about these agents, or about all; and when the runtime came and went."""
        with self._archive.part() as lines:
            read = cmd.ReadEvents(before_seq=part.head + 1, kinds=_HOST_KINDS, limit=EVENTS_PAGE)
            async with aclosing(self._log(read)) as pages:
                async for raw, envelopes in pages:
                    chosen = [index for index, each in enumerate(envelopes) if concerns(each.event, self._names)]
                    await asyncio.to_thread(_write_lines, lines, [raw[index] for index in chosen])
                    for index in chosen:
                        if text := act_text(envelopes[index].event):
                            part.acts.add(envelopes[index].at, text)
            await asyncio.to_thread(self._archive.add, f"{part.folder}/operators.jsonl", lines)

    # -- asking ---------------------------------------------------------------------------------------------------

    async def _log(self, read: cmd.ReadEvents) -> AsyncGenerator[tuple[list[Any], list[ev.Envelope]]]:
        """Pages of the log, each as it came and as envelopes."""
        more = True
        while more:
            data = await self._ask(read, "events", "more")
            raw = [_plain(item) for item in data["events"]]
            if not raw:
                return
            envelopes = [envelope_from(item) for item in raw]
            yield raw, envelopes
            read = read.model_copy(update={"after_seq": envelopes[-1].seq})
            more = bool(data["more"])

    async def _ask(self, command: cmd.Command, *keys: str) -> dict[str, Any]:
        """The answer's data, which have these keys. Raises CommandRefused when the runtime says no or does not know
        the query, LinkDown when it does not say anything."""
        request = cmd.CommandRequest(id=new_command_id("evidence"), actor=self._actor, command=command)
        result = await self._client.send(request)
        if result.code.startswith("link."):
            raise LinkDown(f"{self._client.host} does not answer: {result.message}", hint="nothing was written")
        if not result.ok:
            raise CommandRefused(result.message or result.code)
        if not result.data.keys() >= set(keys):
            raise CommandRefused(f"this runtime does not answer {command.op}")
        return result.data


class _OutputText:
    """What an agent and its tools wrote, as lines of text; each says when it began and on which stream."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._open = ""
        """The stream whose line has no end yet."""

    def add(self, envelopes: Iterable[ev.Envelope]) -> None:
        for envelope in envelopes:
            if isinstance(event := envelope.event, ev.OutputAppended):
                self._add(f"{stamp(envelope.at)} {event.stream:<8} ", event)

    def _add(self, head: str, event: ev.OutputAppended) -> None:
        pieces: list[str] = []
        if event.dropped_bytes:
            pieces.append(f"{self._end()}{head}[{event.dropped_bytes:,} bytes were left out here]\n")
        for line in event.text.splitlines(keepends=True):
            if self._open != event.stream.value:
                pieces.append(self._end() + head)
            whole = line.endswith("\n")
            pieces.append(shown(line.removesuffix("\n"), "\t") + ("\n" if whole else ""))
            self._open = "" if whole else event.stream.value
        self._file.write("".join(pieces).encode(errors="backslashreplace"))

    def _end(self) -> str:
        end, self._open = ("\n" if self._open else ""), ""
        return end


def _plain(item: Any) -> Any:
    """JSON values: a client in this process may hand over the envelope itself."""
    return item.model_dump(mode="json") if isinstance(item, ev.Envelope) else item


def _write_lines(file: BinaryIO, values: Iterable[Any]) -> None:
    """One JSON object a line, in ASCII: harmless to any terminal."""
    for value in values:
        file.write(json.dumps(value).encode() + b"\n")


def _json_of(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _model_json(value: Model) -> bytes:
    return _json_of(value.model_dump(mode="json"))


def _spec_text(spec: Model) -> str:
    """The spec as the runtime has understood it."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False)


def _host_facts(state: FleetState) -> dict[str, Any]:
    return state.model_dump(mode="json", include={"host", "seq", "at", "runtime", "host_usage", "protections", "books"})


def _versions(hosts: Sequence[HostPart]) -> dict[str, Any]:
    return {
        "collector": {
            "toka": toka_runtime.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "runtimes": {host.host: host.version for host in hosts},
    }
