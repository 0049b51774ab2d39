"""The words of a command line that starts an embedded runtime: one list for `toka-runtime run` and `toka-console`.

Imports nothing of the runtime: the console parses before its first frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_local_arguments(parser: argparse.ArgumentParser, *, hosts: bool = False) -> None:
    """Everything that `local_arguments` reads. `hosts`: the words may be hosts, too, and are left as they are."""
    parser.add_argument(
        "paths",
        nargs="*",
        type=str if hosts else Path,
        metavar="PATH|HOST" if hosts else "PATH",
        help="spec files or folders (default: the shipped fleet)" + ("; or hosts, as for ssh" if hosts else ""),
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
    parser.add_argument(
        "--budget", type=caps, metavar="CAP", help="of the fleet, whatever runs: tokens, dollars or both: 2000000,$5"
    )
    parser.add_argument("--day-budget", type=caps, metavar="CAP", help="of each day (UTC)")
    parser.add_argument(
        "--prices", type=Path, metavar="FILE", help="TOML with prices of your own models, dollars a million tokens"
    )
    parser.add_argument(
        "--no-resume",
        action="store_true",
        help="close the runs that a killed runtime left in the state folder; default: they go on where they were",
    )
    parser.add_argument(
        "--go-on",
        action="store_true",
        help="let resumed agents go on, too, when nobody knows whether their last write, command or request was done; "
        "default: they wait until an operator resumes or kills them",
    )
    add_catalogue_argument(parser)


def caps(text: str) -> dict[str, Any]:
    """`2000000`, `2M`, `$5`, `500k,$2.50`, `none`: keyword arguments of `Budget`."""
    found: dict[str, Any] = {}
    for part in text.replace("_", "").split(",") if text != "none" else ():
        word = part.strip().casefold()
        name = "max_cost_usd" if word.startswith("$") or word.endswith("usd") else "max_tokens"
        figure = word.removeprefix("$").removesuffix("usd").removesuffix("tokens").strip()
        factor = {"k": 1_000, "m": 1_000_000}.get(figure[-1:], 1)
        try:
            value = float(figure[:-1] if factor > 1 else figure) * factor
        except ValueError:
            value = -1.0
        if not 0 < value < 1e15 or name in found:
            raise argparse.ArgumentTypeError("tokens, dollars or both, such as 2000000, $5 or 500k,$2.50; or none")
        found[name] = value if name == "max_cost_usd" else int(value)
    return found


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
        "budget": parsed.budget,
        "day_budget": parsed.day_budget,
        "prices": parsed.prices,
        "resume": not parsed.no_resume,
        "go_on_unknown": parsed.go_on,
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
