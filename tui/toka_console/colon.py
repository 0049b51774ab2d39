"""The `:` line: what is typed is done exactly as typed or not at all. Completion, nearest match. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from toka_console.actions import BY_FORM, Action
from toka_console.completion import CLOSED, Completed, longest

Words = Callable[[str], Sequence[str]]
"""What may follow, by the kind that an action takes (`completion.arguments`)."""


@dataclass(frozen=True)
class Parsed:
    action: Action
    argument: str


class ColonError(ValueError):
    """Nothing is executed; the message names what is near."""


def parse(line: str, words: Words) -> Parsed:
    """The action and its argument. Raises `ColonError` for an unknown word, agent, host or theme, or an argument too
    many."""
    word, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    action = BY_FORM.get(word)
    if action is None:
        raise ColonError(f"no command :{word}{near(word, BY_FORM)}; nothing was done")
    if rest and not action.takes:
        raise ColonError(f":{word} takes no argument; nothing was done")
    if rest and action.takes in CLOSED and rest not in (known := words(action.takes)):
        raise ColonError(f"no {action.takes} {rest}{near(rest, known)}; nothing was done")
    return Parsed(action, rest)


def complete(line: str, words: Words) -> Completed:
    word, space, rest = line.lstrip().partition(" ")
    if not space:
        found = sorted(form for form in BY_FORM if form.startswith(word))
        # The next thing to type is the argument.
        single = len(found) == 1 and BY_FORM[found[0]].takes
        return (longest(found) or word) + (" " if single else ""), found
    action = BY_FORM.get(word)
    if action is None:
        return line, []
    found = sorted(each for each in words(action.takes) if each.startswith(rest.lstrip()))
    return f"{word} {longest(found) or rest.lstrip()}", found


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or "" when nothing is near."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""
