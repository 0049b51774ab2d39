"""The `:` line: what is typed is done exactly as typed or not at all. Completion, nearest match. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toka_console.actions import BY_FORM, Action


@dataclass(frozen=True)
class Parsed:
    action: Action
    argument: str


class ColonError(ValueError):
    """Nothing is executed; the message names what is near."""


def parse(line: str, agents: Sequence[str]) -> Parsed:
    """The action and its argument. Raises `ColonError` for an unknown word, agent, or an argument too many."""
    word, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    action = BY_FORM.get(word)
    if action is None:
        raise ColonError(f"no command :{word}{near(word, BY_FORM)}; nothing was done")
    if rest and not action.takes:
        raise ColonError(f":{word} takes no argument; nothing was done")
    if rest and action.takes == "agent" and rest not in agents:
        raise ColonError(f"no agent {rest}{near(rest, agents)}; nothing was done")
    return Parsed(action, rest)


def complete(line: str, agents: Sequence[str]) -> tuple[str, list[str]]:
    """(the line as far as it is certain, candidates for its last word)."""
    word, space, rest = line.lstrip().partition(" ")
    if not space:
        found = sorted(form for form in BY_FORM if form.startswith(word))
        return _extend(word, found, BY_FORM), found
    action = BY_FORM.get(word)
    if action is None or action.takes != "agent":
        return line, []
    found = sorted(agent for agent in agents if agent.startswith(rest.lstrip()))
    return f"{word} {_extend(rest.lstrip(), found, {})}", found


def _extend(word: str, found: list[str], forms: dict[str, Action]) -> str:
    if not found:
        return word
    first, last = min(found), max(found)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    common = first[:same]
    single = len(found) == 1 and found[0] in forms and forms[found[0]].takes
    return common + (" " if single else "")


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or "" when nothing is near."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""
