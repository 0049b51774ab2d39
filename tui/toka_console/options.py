"""The options of `toka-console`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from toka_console import host_names
from toka_runtime import __version__
from toka_runtime.client.arguments import add_local_arguments, wrong_argument


class WrongUsage(Exception):
    """The command line cannot be understood. The text is what a person is shown."""


class Parser(argparse.ArgumentParser):
    """Raises instead of exiting: the terminal has to be given back first."""

    def error(self, message: str) -> NoReturn:
        raise WrongUsage(f"{self.format_usage()}{self.prog}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="toka-console",
        description="A terminal operations console for AI agents. It runs the agents of the given specs and shows them "
        "live; without PATH, the nine agents that ship with it. With HOST it attaches to the runtimes that serve "
        "there, alone or beside those of PATH. A word is a PATH where there is one of that name, else a HOST: "
        "ssh://HOST and ./PATH leave no doubt.",
        epilog="Keys: ? lists them; `toka-console keys` prints them, `keys --check FILE` finds mistakes in your own. "
        "Leaving asks before it stops what runs.",
    )
    add_local_arguments(made, hosts=True)
    made.add_argument(
        "--attach",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="SOCKET",
        help="attach to a runtime that serves (toka-runtime serve) instead of running one; leaving detaches. "
        "Without SOCKET: the only one there is",
    )
    made.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="HOST,…",
        help="attach to the runtimes of these hosts over SSH, as `toka-console HOST…` does; also names and groups of "
        "console.yaml (repeatable)",
    )
    made.add_argument("--hosts", type=Path, metavar="FILE", help="attach to the hosts that FILE names, one a line")
    made.add_argument(
        "--start", action="store_true", help="where none serves, serve the last runtime of that host again"
    )
    made.add_argument("--no-start", action="store_true", help="load the fleet, start nothing")
    made.add_argument("--config", type=Path, metavar="FILE", help="settings instead of ~/.config/toka/console.yaml")
    made.add_argument("--version", action="version", version=f"toka-console {__version__}")
    return made


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Raises `WrongUsage`; `--help` and `--version` print and end the program. `paths` are specs, `hosts` all hosts."""
    made = parser()
    options = made.parse_args(argv)
    try:
        options.paths, hosts = host_names.sort_out(options.paths)
        for listed in options.host:
            hosts += host_names.listed(listed)
        if options.hosts is not None:
            hosts += host_names.read_hosts(options.hosts)
    except ValueError as error:
        made.error(str(error))
    options.hosts = hosts
    if options.start and not hosts:
        made.error("--start is for hosts: which?")
    if options.attach is not None and options.paths:
        made.error("--attach shows the agents of a runtime that serves: it takes no PATH")
    if wrong := wrong_argument(options):
        made.error(wrong)
    return options
