"""The operator's settings: `console.yaml`. A bad file never replaces good settings; each problem has its line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from toka_console.themes import DEFAULT, THEMES

Lines = dict[tuple[str, ...], int]


class SettingProblem(NamedTuple):
    line: int
    """From 1; 0: the file as a whole."""
    message: str

    def text(self, file: Path) -> str:
        return f"{file}:{self.line}: {self.message}" if self.line else f"{file}: {self.message}"


@dataclass(frozen=True)
class Settings:
    theme: str = DEFAULT
    refresh_hz: int = 25
    """How often new events are drawn, 1–60."""
    bell: bool = False
    """Ring the terminal's bell when an agent asks for approval."""
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Action id → keys that replace its default ones; empty: no key."""


def load(path: Path) -> tuple[Settings, list[SettingProblem]]:
    """Settings from a YAML file. With problems, the settings are the defaults with everything good applied.

    A missing file is no problem. Imports the YAML library only when there is a file.
    """
    settings = Settings()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return settings, []
    except (OSError, UnicodeDecodeError) as error:
        return settings, [SettingProblem(0, f"cannot be read: {error}")]
    import yaml

    try:
        raw: Any = yaml.safe_load(text)
        lines = _lines(cast(Any, yaml).compose(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        return settings, [SettingProblem(mark.line + 1 if mark else 0, str(error.problem))]
    except yaml.YAMLError as error:
        return settings, [SettingProblem(0, str(error))]
    if raw is None:
        return settings, []
    if not isinstance(raw, dict):
        return settings, [SettingProblem(1, "must be a map of settings")]
    return _read(cast(dict[Any, Any], raw), lines)


def _read(raw: dict[Any, Any], lines: Lines) -> tuple[Settings, list[SettingProblem]]:
    settings, problems = Settings(), list[SettingProblem]()
    for name, value in raw.items():
        line = lines.get((str(name),), 0)
        if name == "theme" and value in THEMES:
            settings = replace(settings, theme=str(value))
        elif name == "theme":
            problems.append(SettingProblem(line, f"no theme {value!r}; there are {', '.join(THEMES)}"))
        elif name == "refresh_hz" and isinstance(value, int) and 1 <= value <= 60:
            settings = replace(settings, refresh_hz=value)
        elif name == "refresh_hz":
            problems.append(SettingProblem(line, f"refresh_hz must be a whole number from 1 to 60, not {value!r}"))
        elif name == "bell" and isinstance(value, bool):
            settings = replace(settings, bell=value)
        elif name == "bell":
            problems.append(SettingProblem(line, f"bell must be true or false, not {value!r}"))
        elif name == "keys" and (value is None or isinstance(value, dict)):
            keys = _keys(cast(dict[Any, Any], value or {}), lines, problems)
            settings = replace(settings, keys=keys)
        elif name == "keys":
            problems.append(SettingProblem(line, "keys must be a map from action to key or list of keys"))
        else:
            problems.append(SettingProblem(line, f"no setting {name!r}; there are theme, refresh_hz, bell, keys"))
    return settings, problems


def _keys(raw: dict[Any, Any], lines: Lines, problems: list[SettingProblem]) -> dict[str, tuple[str, ...]]:
    keys: dict[str, tuple[str, ...]] = {}
    for action, value in raw.items():
        listed = cast(list[Any], value) if isinstance(value, list) else [] if value is None else [value]
        if all(isinstance(key, str | int) for key in listed):
            keys[str(action)] = tuple(str(key) for key in listed)
        else:
            problems.append(SettingProblem(lines.get(("keys", str(action)), 0), f"the keys of {action} must be text"))
    return keys


def _lines(node: Any, path: tuple[str, ...] = ()) -> Lines:
    """Path of each key, two levels deep → its line. `node` is what PyYAML composes."""
    found: Lines = {}
    entries = cast(list[tuple[Any, Any]], node.value) if getattr(node, "id", "") == "mapping" else []
    for key, value in entries:
        here = (*path, str(key.value))
        found[here] = int(key.start_mark.line) + 1
        if not path:
            found |= _lines(value, here)
    return found
