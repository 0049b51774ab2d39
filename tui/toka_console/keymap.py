"""From keys to actions, per screen: the defaults of the registry with the operator's own keys over them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from textual.keys import Keys

from toka_console.actions import ACTIONS, BY_ID, SCREENS, Action

_NAMES = {
    "esc": "escape", "return": "enter", "pgup": "pageup", "pgdn": "pagedown", "del": "delete", "ins": "insert",
    "@": "space", "at": "space",
}  # fmt: skip
"""Other names of keys; terminals send ctrl-space as ctrl-@."""
_SHOWN = {
    "escape": "esc", "pageup": "PgUp", "pagedown": "PgDn", "up": "↑", "down": "↓", "left": "←", "right": "→",
    "backslash": "\\",
}  # fmt: skip
_MODIFIERS = ("ctrl", "alt", "shift")
_KNOWN = {name for key in Keys for name in [re.split(r"[+-]", key.value)[-1]] if name.isidentifier()}
"""Names of keys without their modifiers."""

Bound = tuple[str | None, str]
"""(the one screen on which it works, or None; key)."""


def canonical(key: str) -> str:
    """The name under which a key is looked up: `ctrl-d` and `Ctrl+D` are `ctrl+d`; a single character is itself."""
    if key == " ":
        return "space"
    key = key.strip()
    if len(key) <= 1:
        return key
    *modifiers, name = re.split(r"(?<=.)[+-](?=.)", key.lower())
    name = _NAMES.get(name, name) if modifiers or len(name) > 1 else name
    return "+".join([*sorted(modifiers, key=lambda each: (each not in _MODIFIERS, each)), name])


def is_key(key: str) -> bool:
    """Whether a canonical name is that of a key that can be pressed."""
    if len(key) == 1:
        return key.isprintable()
    *modifiers, name = key.split("+")
    return all(each in _MODIFIERS for each in modifiers) and (name in _KNOWN or (len(name) == 1 and bool(modifiers)))


def shown(key: str) -> str:
    """A key as the footer and the help write it."""
    *modifiers, name = key.split("+") if len(key) > 1 else [key]
    marks = {"ctrl": "^", "shift": "S-", "alt": "M-"}
    name = _SHOWN.get(name, name.upper() if re.fullmatch(r"f\d+", name) else name)
    return "".join(marks.get(each, each) for each in modifiers) + name


class KeyProblem(NamedTuple):
    message: str
    actions: tuple[str, ...]
    """Whom it is about, first those whose keys were changed."""


@dataclass(frozen=True)
class Keymap:
    table: Mapping[tuple[str, str], str]
    """(screen, key) → action id."""
    by_action: Mapping[str, tuple[Bound, ...]]
    """Action id → its keys."""

    def action(self, screen: str, key: str) -> Action | None:
        found = self.table.get((screen, key))
        return BY_ID[found] if found is not None else None

    def key_of(self, action: str, screen: str) -> str:
        """The first key of an action on a screen, as people read it; "" when it has none."""
        keys = self.by_action.get(action, ())
        usable = [key for only, key in keys if only == screen] + [key for only, key in keys if only is None]
        return next((shown(key) for key in usable if self.table.get((screen, key)) == action), "")

    def keys_of(self, action: str) -> str:
        return " ".join(dict.fromkeys(shown(key) for _, key in self.by_action.get(action, ())))

    @cached_property
    def tabs(self) -> tuple[tuple[str, str, str], ...]:
        """(key, title, action) of each screen that has a tab and a key, in the order of the default digits."""
        found: list[tuple[str, str, str]] = []
        for action in sorted((action for action in ACTIONS if action.tab), key=lambda action: _digit(action.keys)):
            keys = [key for _, key in self.by_action[action.id]]
            if keys:
                found.append((shown(_digit(keys) or keys[0]), action.tab, action.id))
        return tuple(found)


def _digit(keys: tuple[str, ...] | list[str]) -> str:
    return next((key for key in keys if key.isdigit()), "")


def build(custom: Mapping[str, tuple[str, ...]] | None = None) -> tuple[Keymap, list[KeyProblem]]:
    """The keymap, and what is wrong with `custom` (action id → keys). With problems, the defaults stay whole."""
    custom = custom or {}
    keys = {action.id: _keys(action, custom.get(action.id)) for action in ACTIONS}
    table: dict[tuple[str, str], str] = {}
    clashes: dict[tuple[str, str, str], list[str]] = {}
    # Those that win come first, and keep the key.
    for action in sorted(ACTIONS, key=lambda action: not action.wins):
        for screen, key in _places(action, keys[action.id]):
            other = table.setdefault((screen, key), action.id)
            if other != action.id and not (BY_ID[other].wins and not action.wins):
                clashes.setdefault((key, other, action.id), []).append(screen)
    problems = [*_misnamed(custom)]
    for (key, *both), screens in clashes.items():
        where = "every screen" if len(screens) == len(SCREENS) else f"screen {', '.join(screens)}"
        first, second = _changed_first(both, custom)
        problems.append(KeyProblem(f"key {shown(key)} on {where}: both {first} and {second}", (first, second)))
    problems += _unlawful(table, custom)
    if problems and custom:
        return build()[0], problems
    return Keymap(table, keys), problems


def _keys(action: Action, custom: tuple[str, ...] | None) -> tuple[Bound, ...]:
    if custom is not None:
        return tuple((None, canonical(key)) for key in custom if key)
    return tuple((None, canonical(key)) for key in action.keys) + tuple((at, canonical(key)) for at, key in action.also)


def _places(action: Action, keys: tuple[Bound, ...]) -> Iterator[tuple[str, str]]:
    """(screen, key) of each place where it works."""
    for only, key in keys:
        for screen in SCREENS:
            if action.on(screen) and only in (None, screen):
                yield screen, key


def _changed_first(actions: Sequence[str], custom: Mapping[str, object]) -> tuple[str, ...]:
    """Those whose keys were changed first, in the order in which they were."""
    order = list(custom)
    return tuple(sorted(actions, key=lambda action: order.index(action) if action in custom else len(order)))


def _misnamed(custom: Mapping[str, tuple[str, ...]]) -> Iterator[KeyProblem]:
    from toka_console.colon import near

    for action, keys in custom.items():
        if action not in BY_ID:
            yield KeyProblem(f"no action {action}{near(action, BY_ID)}", (action,))
            continue
        for key in filter(None, keys):
            if not is_key(canonical(key)):
                yield KeyProblem(f"no key {key!r}{near(canonical(key), _KNOWN)}", (action,))
            elif BY_ID[action].dangerous and not (len(key) == 1 and key.isupper()):
                yield KeyProblem(f"{action} asks for care: its key is a capital letter, not {key!r}", (action,))


def _unlawful(table: Mapping[tuple[str, str], str], custom: Mapping[str, object]) -> Iterator[KeyProblem]:
    """A key that changes state somewhere means nothing else anywhere: who errs by a screen must not act by it."""
    meant: dict[str, dict[str, str]] = {}
    for (screen, key), action in table.items():
        meant.setdefault(key, {}).setdefault(action, screen)
    for key, actions in meant.items():
        acting = next((action for action in actions if BY_ID[action].changes_state), None)
        for other in actions if acting is not None else ():
            if acting is not None and other != acting:
                message = (
                    f"key {shown(key)} changes state on screen {actions[acting]} ({acting}): it can mean nothing else, "
                    f"and is {other} on screen {actions[other]}"
                )
                yield KeyProblem(message, _changed_first((acting, other), custom))
