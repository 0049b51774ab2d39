"""The options of `toka-console`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from toka_runtime import __version__


class WrongUsage(Exception):
    """The command line cannot be understood. The text is what a person is shown."""


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting: the terminal has to be given back first."""

    def error(self, message: str) -> NoReturn:
        raise WrongUsage(f"{self.format_usage()}{self.prog}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="toka-console",
        description="A terminal operations console for AI agents. It runs the agents of the given specs and shows them "
        "live; without PATH, the nine agents that ship with it.",
        epilog="Keys: ? lists them. Leaving asks before it stops what runs.",
    )
    made.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="agent specs: files or folders")
    made.add_argument("--workspace", type=Path, metavar="DIR", help="folder the agents work on (default: a sample)")
    made.add_argument(
        "--provider", default="", metavar="NAME",
        help="anthropic, rehearsal (no model) or replay:FILE; default: anthropic when a credential is found, "
        "else rehearsal",
    )  # fmt: skip
    made.add_argument("--state-dir", type=Path, metavar="DIR", help="where the event log and reports are kept")
    made.add_argument(
        "--enable", action="append", default=[], metavar="NAME", help="switch on a conditional task group"
    )
    made.add_argument("--max-agents", type=int, metavar="N", help="how many agents run at once")
    made.add_argument("--in-place", action="store_true", help="agents work on the workspace itself, not on a worktree")
    made.add_argument(
        "--allow-unconfined",
        action="store_true",
        help="let agents run without a sandbox whose spec says `sandbox: false`",
    )
    made.add_argument("--record", default="", metavar="FILE", help="record the model sessions into FILE")
    made.add_argument("--base-url", default="", metavar="URL", help="another server that speaks the Messages API")
    made.add_argument("--model", default="", metavar="NAME", help="model of agents whose spec names none")
    made.add_argument("--no-start", action="store_true", help="load the fleet, start nothing")
    made.add_argument("--config", type=Path, metavar="FILE", help="settings instead of ~/.config/toka/console.yaml")
    made.add_argument("--version", action="version", version=f"toka-console {__version__}")
    return made


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Raises `WrongUsage`; `--help` and `--version` print and end the program."""
    made = parser()
    options = made.parse_args(argv)
    provider = str(options.provider)
    if provider not in ("", "anthropic", "rehearsal") and not provider.startswith("replay:"):
        made.error(f"--provider must be anthropic, rehearsal or replay:FILE, not {provider!r}")
    if options.max_agents is not None and options.max_agents < 1:
        made.error("--max-agents must be at least 1")
    return options
