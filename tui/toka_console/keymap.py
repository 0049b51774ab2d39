"""From keys to actions, per screen: the defaults of the registry with the operator's own keys over them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toka_console.actions import ACTIONS, BY_ID, SCREENS, Action

_NAMES = {
    "esc": "escape", "return": "enter", "pgup": "pageup", "pgdn": "pagedown", "del": "delete", "ins": "insert",
}  # fmt: skip
_SHOWN = {
    "escape": "esc", "pageup": "PgUp", "pagedown": "PgDn", "up": "↑", "down": "↓", "shift+tab": "S-tab", "f12": "F12",
}  # fmt: skip


def canonical(key: str) -> str:
    """The name under which a key is looked up: `ctrl-d` and `Ctrl+D` are `ctrl+d`; a single character is itself."""
    key = key.strip() if len(key) > 1 else key
    if len(key) == 1:
        return key
    *modifiers, name = key.lower().replace("-", "+").split("+")
    return "+".join([*modifiers, _NAMES.get(name, name)])


def shown(key: str) -> str:
    """A key as the footer and the help write it."""
    return _SHOWN.get(key, key.replace("ctrl+", "^") if key.startswith("ctrl+") else key)


@dataclass(frozen=True)
class Keymap:
    table: Mapping[tuple[str, str], str]
    """(screen, key) → action id."""
    by_action: Mapping[str, tuple[tuple[str | None, str], ...]]
    """Action id → its keys, each with the one screen it works on, or None."""

    def action(self, screen: str, key: str) -> Action | None:
        found = self.table.get((screen, key))
        return BY_ID[found] if found is not None else None

    def key_of(self, action: str, screen: str) -> str:
        """The first key of an action on a screen, as people read it; "" when it has none."""
        keys = self.by_action.get(action, ())
        usable = [key for only, key in keys if only == screen] + [key for only, key in keys if only is None]
        return shown(usable[0]) if usable else ""

    def keys_of(self, action: str) -> str:
        keys: list[str] = []
        for _, key in self.by_action.get(action, ()):
            if shown(key) not in keys:
                keys.append(shown(key))
        return " ".join(keys)


def build(custom: Mapping[str, tuple[str, ...]] | None = None) -> tuple[Keymap, list[str]]:
    """The keymap, and what is wrong with `custom` (action id → keys). With problems, the defaults stay whole."""
    custom = custom or {}
    problems = [_unknown(action) for action in custom if action not in BY_ID]
    keys: dict[str, tuple[tuple[str | None, str], ...]] = {}
    for action in ACTIONS:
        if action.id in custom:
            keys[action.id] = tuple((None, canonical(key)) for key in custom[action.id] if key)
        else:
            plain = tuple((None, key) for key in action.keys)
            keys[action.id] = plain + tuple((screen, key) for screen, key in action.also)
    table: dict[tuple[str, str], str] = {}
    for action in ACTIONS:
        for only, key in keys[action.id]:
            for screen in SCREENS:
                if not (action.on(screen) and only in (None, screen)):
                    continue
                other = table.setdefault((screen, key), action.id)
                if other != action.id:
                    problems.append(f"key {shown(key)} on screen {screen}: both {other} and {action.id}")
    if problems and custom:
        return build()[0], list(dict.fromkeys(problems))
    return Keymap(table, keys), problems


def _unknown(action: str) -> str:
    import difflib

    near = difflib.get_close_matches(action, list(BY_ID), n=1, cutoff=0.5)
    return f"no action {action}" + (f"; did you mean {near[0]}?" if near else "")
