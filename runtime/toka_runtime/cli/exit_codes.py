"""What the process says when it ends. Part of the interface: scripts and CI read these."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from toka_runtime.errors import (
    LinkError,
    ModelError,
    PolicyError,
    ProcessError,
    StoreError,
    TokaError,
    UsageError,
    WorkspaceError,
)


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    ENVIRONMENT = 3
    UNKNOWN = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141


FANOUT_FAILED, FANOUT_MOST = 64, 124
"""Several hosts: 64 + how many of them failed, at most 124."""

MEANING: dict[Any, str] = {
    ExitCode.OK: "all good: every file, or every agent completed (verified or claimed)",
    ExitCode.FAILED: "some file is not good, or some agent failed, was killed or skipped",
    ExitCode.USAGE: "wrong words on the command line, a spec or a catalogue that is not good; nothing was started",
    ExitCode.ENVIRONMENT: "workspace, state folder, credential, git, disk …: the message says which",
    ExitCode.UNKNOWN: "what became of a command is unknown, or not proven: the message says which",
    ExitCode.INTERRUPTED: "interrupted; what ran was stopped in order",
    ExitCode.BROKEN_PIPE: "the reader of the output went away",
    "64+n": "with several hosts: it failed on n of them (at most 124); which, and why, is on stderr",
}


class ExecCode(IntEnum):
    """Of `exec`, where the command's own code is not what there is to say."""

    LIMIT = 123
    TIMEOUT = 124
    NOT_STARTED = 125
    REFUSED = 126
    NOT_FOUND = 127


EXEC_MEANING = {
    "0–255": "the command's own; 128+n: it was ended by signal n",
    "2": "wrong options",
    ExecCode.LIMIT: "ended for a limit of its spec: memory, disk or processes",
    ExecCode.TIMEOUT: "its time was over (--timeout, or the spec's)",
    ExecCode.NOT_STARTED: "not started, or its end is not proven: spec, capability, folder, or a wall that is missing",
    ExecCode.REFUSED: "refused by policy (--strict), or the program is not executable",
    ExecCode.NOT_FOUND: "there is no such program in the sandbox",
}

_BY_ERROR: tuple[tuple[type[TokaError], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (WorkspaceError, ExitCode.ENVIRONMENT),
    (StoreError, ExitCode.ENVIRONMENT),
    (ProcessError, ExitCode.ENVIRONMENT),
    (ModelError, ExitCode.ENVIRONMENT),
    (PolicyError, ExitCode.USAGE),
    (LinkError, ExitCode.ENVIRONMENT),
)


def exit_code_of(error: TokaError) -> ExitCode:
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILED)


def exit_code_help() -> str:
    """The table for `--help`."""
    return exit_codes_text(MEANING)


def exit_codes_text(meanings: Mapping[Any, str]) -> str:
    return "exit codes:\n" + "".join(f"  {code:>5}  {meaning}\n" for code, meaning in meanings.items())
