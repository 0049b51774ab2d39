"""What a rehearsal does: a few real tool calls within the agent's rights, in its first task one outside them, and
`finish`. Which calls are within is asked of the same policy that will decide about them.

The step is found by counting the tool results in the conversation, so that nothing needs to be remembered; the turn
number bounds it when the conversation was compacted meanwhile.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toka_runtime.llm.base import ModelRequest
from toka_runtime.llm.json_value import as_list, as_object
from toka_runtime.llm.rehearsal_input import fill_schema
from toka_runtime.policy.engine import decide
from toka_runtime.protocol.capability import Allowed, Operation, OperationKind, Rights

TAG = "[rehearsal: no model]"
"""Begins every text."""

MAX_FINISHES = 3
_SPARE_TURNS = 3
_OUTSIDE_URL = "https://example.com/"
_OUTSIDE_HOST = "example.com:443"
_OUTSIDE_FILE = "/etc/shadow"
_HARMLESS = (
    ("git", "status", "--short"),
    ("git", "log", "-1", "--oneline"),
    ("git", "diff", "--stat"),
    ("git", "branch", "--list"),
    ("ls",),
    ("pwd",),
    ("date",),
    ("uname",),
    ("true",),
    ("echo", "rehearsal"),
    ("python3", "--version"),
    ("make", "--version"),
    ("node", "--version"),
    ("npm", "--version"),
    ("docker", "--version"),
)
"""Quick, and without an effect. Build tools are not asked even for their version: some fetch themselves first."""
_COMMENT = {
    ".py": "# ",
    ".sh": "# ",
    ".toml": "# ",
    ".yaml": "# ",
    ".yml": "# ",
    ".rs": "// ",
    ".js": "// ",
    ".ts": "// ",
}
_TEXT = (".md", ".rst", ".txt", ".toml", ".yaml")
_GLOB_CHARS = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Call:
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One turn."""

    number: int
    text: str
    calls: tuple[Call, ...] = ()


def next_step(request: ModelRequest) -> Step:
    """The turn that follows from this request. The same request gives the same step."""
    script = _Script(request)
    plan = list(script.turns())
    place = script.results
    for say, calls in plan:
        if place <= 0 and request.context.turn <= len(plan) + _SPARE_TURNS:
            return Step(script.results, f"{TAG} {say}", tuple(calls))
        place -= len(calls)
    return script.end()


class _Script:
    def __init__(self, request: ModelRequest) -> None:
        self._context = request.context
        self._rights = request.context.rights
        self._schemas = {str(tool.get("name")): tool.get("input_schema") for tool in request.tools}
        self._calls, self._outcomes = _history(request)
        self.results = len(self._outcomes)
        self._label = f"task {self._context.task + 1}"

    def turns(self) -> Iterator[tuple[str, list[Call]]]:
        """(what is said, calls) for each turn before `finish`."""
        folder = _folder(self._rights)
        looking = [self._call("list_files", path=folder)] if folder is not None and self._offers("list_files") else []
        if folder is not None and self._context.task % 2 and self._offers("search_text"):
            looking.append(self._call("search_text", path=folder, pattern=self._word()))
        if looking:
            yield f"{self._label} of {self._context.task_total}: {self._context.task_description}", looking
        if self._offers("read_file") and (path := self._existing_file()):
            yield f"Reading {path}.", [self._call("read_file", path=path, limit=40)]
        if self._offers("write_file") and (path := self._note_path()):
            yield f"Writing a note to {path}.", [self._call("write_file", path=path, content=self._note(path))]
        if self._offers("run_command") and (argv := _harmless_command(self._rights)):
            yield f"Running {' '.join(argv)}.", [self._call("run_command", command=argv)]
        if self._context.task == 0 and self._context.attempt == 1:
            yield "Trying something outside my rights, to see it refused.", [self._outside()]

    def end(self) -> Step:
        """`finish`, and when that is refused or not offered, a plain last word."""
        tried = sum(name == "finish" for name in self._calls.values())
        failed = sum(error for _, error in self._outcomes.values())
        summary = (
            f"{TAG} Nothing of {self._label} was worked on: {self.results - failed} tool calls were made to show them, "
            f"{failed} were refused or failed."
        )
        if not self._offers("finish") or tried >= MAX_FINISHES:
            return Step(self.results, summary)
        evidence = [
            f"{TAG} {name}" for call, name in self._calls.items() if not self._outcomes.get(call, ("", True))[1]
        ]
        finish = self._call("finish", status="done", summary=summary, evidence=evidence or [f"{TAG} none"])
        return Step(self.results, f"{TAG} {self._label} ends here.", (finish,))

    def _offers(self, tool: str) -> bool:
        return tool in self._schemas

    def _call(self, tool: str, **wanted: Any) -> Call:
        return Call(tool, fill_schema(self._schemas.get(tool), wanted))

    def _word(self) -> str:
        words = re.findall(r"[A-Za-z]{5,}", self._context.task_description)
        return max(words, key=len) if words else "TODO"

    def _existing_file(self) -> str:
        """One that `list_files` has found: a text file that may be read, documentation first."""
        names: list[str] = []
        for call, (text, error) in self._outcomes.items():
            if self._calls.get(call) == "list_files" and not error:
                names.extend(line.strip() for line in text.splitlines())
        files = [name for name in names if name and not name.endswith(("/", "@", "=")) and not name.startswith("(")]
        liked = sorted(files, key=lambda name: ("readme" not in name.lower(), not name.endswith(_TEXT), name))
        return next((name for name in liked if _may(self._rights, OperationKind.READ, name)), "")

    def _note_path(self) -> str:
        """A path of its own that no file of the workspace has, in the first place that may be written."""
        stem = f"{self._context.agent}-task-{self._context.task + 1}"
        candidates = [f"docs/rehearsal/{stem}.md"]
        candidates += [path for rule in self._rights.write if (path := _path_in(rule.glob, f"rehearsal-{stem}"))]
        return next((path for path in candidates if _may(self._rights, OperationKind.WRITE, path)), "")

    def _note(self, path: str) -> str:
        mark = next((mark for suffix, mark in _COMMENT.items() if path.endswith(suffix)), "")
        lines = (
            f"{TAG} Note of agent {self._context.agent}",
            f"Task {self._context.task + 1} of {self._context.task_total}: {self._context.task_description}",
            "No model worked on this task; this file only shows that writing works.",
        )
        return "".join(f"{mark}{line}\n" for line in lines)

    def _outside(self) -> Call:
        """A call that policy refuses with the name of a capability, not the same for every agent."""
        rights = self._rights
        choices: list[Call] = []
        if not self._offers("fetch_url") or not _may(rights, OperationKind.CONNECT, _OUTSIDE_HOST):
            choices.append(self._call("fetch_url", url=_OUTSIDE_URL))
        path = f"rehearsal-outside-{self._context.agent}.md"
        if not self._offers("write_file") or not _may(rights, OperationKind.WRITE, path):
            choices.append(self._call("write_file", path=path, content=f"{TAG} This must not be written.\n"))
        if not self._offers("run_command"):
            argv = ["git", "status", "--short"]
            choices.append(self._call("run_command", command=argv))
        if choices:
            return choices[zlib.crc32(self._context.agent.encode()) % len(choices)]
        return self._call("read_file", path=_OUTSIDE_FILE)


def _history(request: ModelRequest) -> tuple[dict[str, str], dict[str, tuple[str, bool]]]:
    """(call id → tool, call id → (text of its result, was it an error)), in order."""
    calls: dict[str, str] = {}
    outcomes: dict[str, tuple[str, bool]] = {}
    for message in request.messages:
        for block in map(as_object, as_list(message.get("content"))):
            if block.get("type") == "tool_use":
                calls[str(block.get("id"))] = str(block.get("name"))
            elif block.get("type") == "tool_result":
                outcomes[str(block.get("tool_use_id"))] = (_text(block.get("content")), bool(block.get("is_error")))
    return calls, outcomes


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in map(as_object, as_list(content)))


def _may(rights: Rights, kind: OperationKind, target: str, argv: tuple[str, ...] = ()) -> bool:
    return isinstance(decide(Operation(kind=kind, target=target, argv=argv), rights), Allowed)


def _folder(rights: Rights) -> str | None:
    """The widest folder that may be listed with all that lies in it."""
    fixed = sorted({_fixed_part(rule.glob) for rule in rights.read if not rule.glob.startswith("/")})
    for folder in ("", *fixed):
        if _may(rights, OperationKind.LIST, f"{folder or '.'}/") and _may(
            rights, OperationKind.READ, f"{folder or '.'}/"
        ):
            return folder or "."
    return None


def _fixed_part(glob: str) -> str:
    parts = glob.split("/")
    end = next((at for at, part in enumerate(parts) if _GLOB_CHARS.search(part)), len(parts))
    return "/".join(parts[:end])


def _path_in(glob: str, stem: str) -> str:
    """A new file that the glob covers; "" for one without a wildcard, which names a file that may exist."""
    if glob.startswith("/") or not _GLOB_CHARS.search(glob):
        return ""
    *folders, last = glob.split("/")
    kept = [part.replace("*", "rehearsal") for part in folders if part != "**"]
    if last == "**":
        return "/".join([*kept, f"{stem}.md"])
    return "/".join([*kept, last.replace("*", stem, 1).replace("*", "")])


def _harmless_command(rights: Rights) -> list[str]:
    for argv in _HARMLESS:
        if _may(rights, OperationKind.EXECUTE, " ".join(argv), argv) and shutil.which(argv[0]):
            return list(argv)
    return []
