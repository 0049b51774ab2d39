"""`toka-console`: reads the command line, shows a first picture at once, then starts the app. Light until then."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toka_runtime import __version__

if TYPE_CHECKING:
    from toka_console.app import Failure
    from toka_runtime.client.base import RuntimeClient

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
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
    made.add_argument("--record", default="", metavar="FILE", help="record the model sessions into FILE")
    made.add_argument("--base-url", default="", metavar="URL", help="another server that speaks the Messages API")
    made.add_argument("--model", default="", metavar="NAME", help="model of agents whose spec names none")
    made.add_argument("--no-start", action="store_true", help="load the fleet, start nothing")
    made.add_argument("--config", type=Path, metavar="FILE", help="settings instead of ~/.config/toka/console.yaml")
    made.add_argument("--version", action="version", version=f"toka-console {__version__}")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    provider = options.provider
    if provider not in ("", "anthropic", "rehearsal") and not provider.startswith("replay:"):
        parser().error(f"--provider must be anthropic, rehearsal or replay:FILE, not {provider!r}")
    if options.max_agents is not None and options.max_agents < 1:
        parser().error("--max-agents must be at least 1")
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        sys.stderr.write("toka-console: needs a terminal; toka-runtime run does the same work without one\n")
        return EXIT_USAGE
    from toka_console import skeleton

    with skeleton.Terminal() as terminal:
        code, failure = _run(options)
        terminal.give_back()
    if failure is not None:
        _report(failure)
    return code


def _run(options: argparse.Namespace) -> tuple[int, Failure | None]:
    # Textual reads these when it is imported. A frame may follow an event after 4 ms; a lone Esc is known after 25.
    defaults = {"TEXTUAL_FPS": "250", "ESCDELAY": "25", "TEXTUAL_ANIMATIONS": "none"}
    added = [name for name, value in defaults.items() if os.environ.setdefault(name, value) is value]
    from toka_console import launch

    for name in added:
        # Not for the children: agents get an environment of their own.
        os.environ.pop(name, None)

    async def open_client() -> RuntimeClient:
        import asyncio
        import importlib

        # Imported in a thread: it takes a while, and the screen is up already.
        local = await asyncio.to_thread(importlib.import_module, "toka_runtime.client.local")
        return await local.open_local(
            local.LocalOptions(
                paths=tuple(options.paths),
                workspace=options.workspace,
                state_dir=options.state_dir,
                provider=options.provider,
                enable=frozenset(options.enable),
                max_agents=options.max_agents,
                in_place=options.in_place,
                record=options.record,
                base_url=options.base_url,
                model=options.model,
            )
        )

    return launch.run(open_client, settings_file=options.config, start_fleet=not options.no_start)


def _report(failure: Failure) -> None:
    from toka_console.clean import clean_text, one_line

    sys.stderr.write(clean_text(failure.trace))
    sys.stderr.write(f"toka-console: {one_line(failure.message)} [{failure.code}]\n")
    if failure.hint:
        sys.stderr.write(f"  {one_line(failure.hint)}\n")


if __name__ == "__main__":
    sys.exit(main())
