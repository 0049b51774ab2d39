"""The operator's settings: `console.yaml`. A bad file never replaces good settings; each problem has its line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, cast

from toka_console.colon import near
from toka_console.keymap import Keymap, KeyProblem, build
from toka_console.themes import ACCENTS, DEFAULT, THEMES, is_colour

Lines = dict[tuple[str, ...], int]
Raw = dict[Any, Any]
UNREADABLE = "cannot be read"


class SettingProblem(NamedTuple):
    line: int
    """From 1; 0: the file as a whole."""
    message: str

    def text(self, file: Path) -> str:
        return f"{file}:{self.line}: {self.message}" if self.line else f"{file}: {self.message}"


@dataclass(frozen=True)
class HostSettings:
    address: str = ""
    """How it is reached, as after `--host`; "": by its name."""
    accent: str = ""
    """One of `themes.ACCENTS`, or `#rrggbb`; "": one that its name decides."""
    group: str = ""


@dataclass(frozen=True)
class Settings:
    theme: str = DEFAULT
    refresh_hz: int = 25
    """How often new events are drawn, 1–60."""
    bell: bool = False
    """Ring the terminal's bell when an agent asks for approval."""
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Action id → keys that replace its default ones; empty: no key."""
    hosts: dict[str, HostSettings] = field(default_factory=dict[str, HostSettings])


class Loaded(NamedTuple):
    settings: Settings
    keymap: Keymap
    problems: list[SettingProblem]


def load(path: Path) -> Loaded:
    """Settings and keys from a YAML file. With problems, they are the defaults with everything good applied.

    A missing file is no problem. Imports the YAML library only when there is a file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _nothing()
    except (OSError, UnicodeDecodeError) as error:
        return _nothing(SettingProblem(0, f"{UNREADABLE}: {error}"))
    import yaml

    try:
        raw: Any = yaml.safe_load(text)
        lines = _lines(cast(Any, yaml).compose(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        return _nothing(SettingProblem(mark.line + 1 if mark else 0, str(error.problem)))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return _nothing(SettingProblem(0, str(error)))
    if raw is None:
        return _nothing()
    if not isinstance(raw, dict):
        return _nothing(SettingProblem(1, "must be a map of settings"))
    reader = _Reader(lines)
    settings = reader.settings(cast(Raw, raw))
    keymap, wrong = build(settings.keys)
    problems = [*reader.problems, *(_located(problem, lines) for problem in wrong)]
    return Loaded(settings, keymap, sorted(problems, key=lambda problem: problem.line))


def _nothing(*problems: SettingProblem) -> Loaded:
    return Loaded(Settings(), build()[0], list(problems))


def _located(problem: KeyProblem, lines: Lines) -> SettingProblem:
    """A problem of keys at its line; a second action's line, or that its key is a default, is in the message."""
    first, *others = problem.actions
    message = problem.message
    for other in others:
        line = lines.get(("keys", other))
        message += f" (line {line})" if line else f" ({other} has it by default)"
    return SettingProblem(lines.get(("keys", first), 0), message)


_HOST_FIELDS = tuple(each.name for each in fields(HostSettings))
_SIMPLE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "theme": (lambda value: value in list(THEMES), f"must be one of {', '.join(THEMES)}"),
    "refresh_hz": (lambda value: type(value) is int and 1 <= value <= 60, "must be a whole number from 1 to 60"),
    "bell": (lambda value: isinstance(value, bool), "must be true or false"),
}
"""Setting → (whether a value is good, what it must be)."""
_KNOWN = (*_SIMPLE, "keys", "hosts")


class _Reader:
    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.problems: list[SettingProblem] = []

    def wrong(self, message: str, *path: Any) -> None:
        """Note a problem at the line of the key at `path`."""
        self.problems.append(SettingProblem(self._lines.get(tuple(str(part) for part in path), 0), message))

    def settings(self, raw: Raw) -> Settings:
        found: dict[str, Any] = {}
        for name, value in raw.items():
            if name in _SIMPLE:
                good, must = _SIMPLE[name]
                if good(value):
                    found[name] = value
                else:
                    self.wrong(f"{name} {must}, not {value!r}", name)
            elif name not in _KNOWN:
                self.wrong(f"no setting {name!r}{near(str(name), _KNOWN)}; there are {', '.join(_KNOWN)}", name)
            elif value is not None and not isinstance(value, dict):
                self.wrong(f"{name} must be a map{' from action to key or list of keys' * (name == 'keys')}", name)
            else:
                found[name] = (self._keys if name == "keys" else self._hosts)(cast(Raw, value or {}))
        return Settings(**found)

    def _keys(self, raw: Raw) -> dict[str, tuple[str, ...]]:
        keys: dict[str, tuple[str, ...]] = {}
        for action, value in raw.items():
            listed = cast("list[Any]", value) if isinstance(value, list) else [] if value is None else [value]
            # YAML reads `on` and `off` as booleans.
            if all(isinstance(key, str | int) and not isinstance(key, bool) for key in listed):
                keys[str(action)] = tuple(str(key) for key in listed)
            else:
                self.wrong(
                    f"the keys of {action} must be text, in quotes where YAML reads something else", "keys", action
                )
        return keys

    def _hosts(self, raw: Raw) -> dict[str, HostSettings]:
        return {str(name): self._host(str(name), value) for name, value in raw.items()}

    def _host(self, name: str, value: Any) -> HostSettings:
        found: dict[str, str] = {}
        if value is not None and not isinstance(value, dict):
            self.wrong(f"host {name} must be a map with {', '.join(_HOST_FIELDS)}", "hosts", name)
            return HostSettings()
        for part, text in cast(Raw, value or {}).items():
            if part not in _HOST_FIELDS:
                known = f"there are {', '.join(_HOST_FIELDS)}"
                self.wrong(
                    f"host {name} has no field {part!r}{near(str(part), _HOST_FIELDS)}; {known}", "hosts", name, part
                )
            elif not isinstance(text, str):
                self.wrong(f"{part} of host {name} must be text, not {text!r}", "hosts", name, part)
            elif part == "accent" and not is_colour(text):
                known = f"'#rrggbb', in quotes, or one of {', '.join(ACCENTS)}"
                self.wrong(f"accent of host {name} must be {known}, not {text!r}", "hosts", name, part)
            else:
                found[part] = text
        return HostSettings(**found)


def _lines(node: Any, path: tuple[str, ...] = ()) -> Lines:
    """Path of each key, three levels deep → its line. `node` is what PyYAML composes."""
    found: Lines = {}
    entries = cast("list[tuple[Any, Any]]", node.value) if getattr(node, "id", "") == "mapping" else []
    for key, value in entries:
        here = (*path, str(key.value))
        found[here] = int(key.start_mark.line) + 1
        if len(here) < 3:
            found |= _lines(value, here)
    return found
