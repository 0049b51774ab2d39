"""`toka-console keys`: the keymap as text or JSON, and the check of a settings file. Needs no terminal and no fleet."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from toka_console import settings
from toka_console.actions import ACTIONS, Action
from toka_console.keymap import Keymap, shown
from toka_console.options import Parser
from toka_runtime.paths import config_dir

EXIT_OK, EXIT_PROBLEMS, EXIT_USAGE = 0, 1, 2


def main(argv: Sequence[str]) -> int:
    """Raises `WrongUsage`. 0: printed, or nothing is wrong; 1: the file has problems; 2: it cannot be read."""
    options = _parser().parse_args(argv)
    file: Path = options.check or options.config or config_dir() / "console.yaml"
    if (options.check or options.config) and not file.is_file():
        sys.stderr.write(f"toka-console keys: {file} is no file that can be read\n")
        return EXIT_USAGE
    loaded = settings.load(file)
    for problem in loaded.problems:
        sys.stderr.write(problem.text(file) + "\n")
    if not options.check:
        sys.stdout.write(_json(loaded.keymap) if options.json else _table(loaded.keymap))
    elif options.json:
        found = [{"file": str(file), "line": each.line, "message": each.message} for each in loaded.problems]
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    elif not loaded.problems:
        sys.stdout.write(f"{file}: nothing is wrong\n")
    if any(problem.message.startswith(settings.UNREADABLE) for problem in loaded.problems):
        return EXIT_USAGE
    return EXIT_PROBLEMS if loaded.problems else EXIT_OK


def _parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="toka-console keys",
        description="Print every action with its keys: those of the console, with your own over them.",
        epilog="Exit code: 0 nothing is wrong; 1 the settings have problems (the default keys are printed); "
        "2 wrong usage, or a file that cannot be read.",
    )
    made.add_argument("--check", type=Path, metavar="FILE", help="print nothing but what is wrong with FILE")
    made.add_argument("--config", type=Path, metavar="FILE", help="settings instead of ~/.config/toka/console.yaml")
    made.add_argument("--json", action="store_true", help="as JSON")
    return made


def _screens(action: Action) -> list[str]:
    return sorted(action.screens) if action.screens is not None else ["everywhere"]


def _table(keymap: Keymap) -> str:
    rows = [("ACTION", "KEYS", "COMMAND", "SCREENS", "", "HELP")]
    for action in ACTIONS:
        form = f":{action.form}" + (f" {action.takes.upper()}" if action.takes else "")
        asks = "dangerous" if action.dangerous else ""
        rows.append((action.id, keymap.keys_of(action.id), form, ",".join(_screens(action)), asks, action.help))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = ("  ".join([*(cell.ljust(size) for cell, size in zip(row, widths, strict=False)), row[-1]]) for row in rows)
    return "\n".join(lines) + "\n"


def _json(keymap: Keymap) -> str:
    listed = [
        {
            "id": action.id,
            "title": action.title,
            "help": action.help,
            "group": action.group,
            "keys": [{"key": key, "shown": shown(key), "screen": only} for only, key in keymap.by_action[action.id]],
            "forms": [action.form, *action.aliases],
            "takes": action.takes,
            "screens": None if action.screens is None else sorted(action.screens),
            "dangerous": action.dangerous,
            "changes_state": action.changes_state,
        }
        for action in ACTIONS
    ]
    return json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
