"""The words of a command line that starts an embedded runtime: one list for `toka-runtime run` and `toka-console`.

Imports nothing of the runtime: the console parses before its first frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_local_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `local_arguments` reads."""
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="spec files or folders (default: the shipped fleet)"
    )
    parser.add_argument("--workspace", type=Path, metavar="DIR", help="folder the agents work on (default: a sample)")
    parser.add_argument(
        "--provider",
        default="",
        metavar="NAME",
        help="anthropic, rehearsal (no model) or replay:FILE; default: anthropic when a credential is found, "
        "else rehearsal",
    )
    parser.add_argument("--base-url", default="", metavar="URL", help="another server that speaks the Messages API")
    parser.add_argument("--model", default="", metavar="NAME", help="model of agents whose spec names none")
    parser.add_argument("--record", default="", metavar="FILE", help="record the model's answers for replay:FILE")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="event log, journals, worktrees, reports")
    parser.add_argument("--max-agents", type=int, metavar="N", help="how many agents run at once")
    parser.add_argument("--enable", action="append", default=[], metavar="NAME", help="switch on conditional tasks")
    parser.add_argument("--in-place", action="store_true", help="work on the folder itself, without worktrees")
    parser.add_argument(
        "--allow-unconfined",
        action="store_true",
        help="let agents run without a sandbox whose spec says `sandbox: false`",
    )
    parser.add_argument(
        "--ask",
        action="store_true",
        help="let every agent ask for what lies beyond its rights, not only `approvals: ask`",
    )
    parser.add_argument(
        "--approve-timeout",
        type=_wait,
        default=300.0,
        metavar="S",
        help="how long a request for approval waits for an operator (default: 300; `run` has nobody to ask: 0)",
    )
    add_catalogue_argument(parser)


def _wait(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError("from 0 to 86400 seconds")
    return value


def add_catalogue_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--catalogue",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="capabilities of your own, beside those that ship (repeatable; default: ~/.config/toka/capabilities.toml "
        "when it exists); never read from where agents may write",
    )


def local_arguments(parsed: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `LocalOptions`."""
    return {
        "paths": tuple(parsed.paths),
        "workspace": parsed.workspace,
        "provider": parsed.provider,
        "base_url": parsed.base_url,
        "model": parsed.model,
        "record": parsed.record,
        "state_dir": parsed.state_dir,
        "max_agents": parsed.max_agents,
        "enable": frozenset(parsed.enable),
        "in_place": parsed.in_place,
        "allow_unconfined": parsed.allow_unconfined,
        "catalogues": tuple(parsed.catalogue),
        "ask": parsed.ask,
        "approval_wait_s": parsed.approve_timeout,
    }


def wrong_argument(parsed: argparse.Namespace) -> str:
    """What is wrong with the words, for `parser.error`; "" when nothing is."""
    provider = str(parsed.provider)
    if provider not in ("", "anthropic", "rehearsal") and not provider.startswith("replay:"):
        return f"--provider must be anthropic, rehearsal or replay:FILE, not {provider!r}"
    if parsed.max_agents is not None and parsed.max_agents < 1:
        return "--max-agents must be at least 1"
    return ""
