"""An incident as the operator's front ends keep it: a JSON file of its own, without which nothing else changes."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from toka_runtime import paths
from toka_runtime.errors import UsageError
from toka_runtime.protocol.ids import AgentName, HostId
from toka_runtime.protocol.model import Model
from toka_runtime.whole_file import replace_file

MAX_BYTES = 8 * 1024 * 1024
ACTS_MOST = 2_000
"""Acts that are kept with an incident; all of them are in the log."""


class Step(StrEnum):
    """What is to be done, in this order. Nobody ticks it: it is done when it has happened."""

    FIND = "find"
    CONTAIN = "contain"
    SEE = "see"
    CUT = "cut"
    DECIDE = "decide"
    PRESERVE = "preserve"


class Pinned(Model):
    """An agent that the incident is about."""

    host: HostId
    agent: AgentName


class Note(Model):
    at: datetime
    text: str


class Act(Model):
    """What an operator did, from the log."""

    at: datetime
    host: HostId
    seq: int
    text: str


class Kept(Model):
    """An evidence bundle that was written."""

    at: datetime
    file: str
    sha256: str


class Incident(Model):
    id: str
    title: str
    opened_at: datetime
    opened_by: str
    closed_at: datetime | None = None
    agents: tuple[Pinned, ...] = ()
    notes: tuple[Note, ...] = ()
    acts: tuple[Act, ...] = ()
    steps: dict[Step, datetime] = Field(default_factory=dict[Step, datetime])
    """When each was done first."""
    evidence: tuple[Kept, ...] = ()
    read: dict[HostId, int] = Field(default_factory=dict[HostId, int])
    """Up to which record each host's log has been looked at."""

    def done(self, step: Step, at: datetime) -> Incident:
        """With the step ticked; when it was before, nothing changes."""
        return self if step in self.steps else self.model_copy(update={"steps": {**self.steps, step: at}})


def new_incident_id(at: datetime) -> str:
    return f"i{at:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def incident_folder() -> Path:
    """Of the operator."""
    return paths.state_dir() / "incidents"


def save_incident(folder: Path, incident: Incident) -> None:
    """Raises OSError."""
    replace_file(folder / f"{incident.id}.json", incident.model_dump_json(indent=1).encode() + b"\n")


def read_incident(path: Path) -> Incident:
    """Raises UsageError for a file that cannot be read or is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"incident {path} cannot be read: {error.strerror or error}") from error
    try:
        incident = Incident.model_validate_json(data)
    except (ValidationError, ValueError) as error:
        raise UsageError(f"{path} is no incident") from error
    if len(data) > MAX_BYTES or not re.fullmatch(r"i[0-9a-f-]{1,40}", incident.id):
        raise UsageError(f"{path} is no incident")
    return incident


def read_incidents(folder: Path) -> tuple[list[Incident], list[str]]:
    """All incidents of a folder, the newest first, and what is wrong with files that are none."""
    found: list[Incident] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            found.append(read_incident(path))
        except UsageError as error:
            problems.append(error.message)
    found.sort(key=lambda incident: incident.opened_at, reverse=True)
    return found, problems
