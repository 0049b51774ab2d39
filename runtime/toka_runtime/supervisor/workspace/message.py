"""Commit messages, made of text that an agent wrote."""

from __future__ import annotations

from toka_runtime.protocol.ids import RunId
from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.supervisor.text import cut, one_line

_SUBJECT = 72
_BODY = 4_000


def commit_message(spec: AgentSpec, task: int, detail: str, run: RunId | None) -> str:
    """`task` counts from 0. The subject says the task's number and what was done; trailers name agent, task, run."""
    head = f"Task {task + 1}: "
    body = cut(detail, _BODY).strip()
    subject = head + one_line(body or "work of this task", _SUBJECT - len(head))
    # Said whole in the subject already: not twice.
    rest = "" if subject == head + body else body
    trailers = f"Agent: {one_line(spec.name, 200)}\nTask: {task + 1}\nRun: {run or '-'}"
    return "\n\n".join(part for part in (subject, rest, trailers) if part) + "\n"
