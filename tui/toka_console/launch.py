"""Runs the app on its loop: signals, the end of the client whatever happens, the exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toka_console.app import ConsoleApp
from toka_console.driver import ConsoleDriver
from toka_console.failure import Failure
from toka_console.themes import depth_of
from toka_runtime.paths import config_dir, state_dir

if TYPE_CHECKING:
    from toka_runtime.client.base import RuntimeClient

SWITCH_S = 0.0005
"""A short switch interval: threads that import or hash don't hold up a key press."""


def run(
    open_client: Callable[[], Awaitable[RuntimeClient]] | None,
    *,
    hosts: Sequence[str] = (),
    start_hosts: bool = False,
    settings_file: Path | None = None,
    start_fleet: bool = True,
) -> tuple[int, Failure | None]:
    """Show the console until it is left. (exit code, why it had to leave)."""
    sys.setswitchinterval(SWITCH_S)
    app = ConsoleApp(
        open_client,
        hosts=hosts,
        start_hosts=start_hosts,
        settings_file=settings_file or config_dir() / "console.yaml",
        views_file=state_dir() / "console-views.json",
        typed_file=state_dir() / "console-history.json",
        incident_folder=state_dir() / "incidents",
        start_fleet=start_fleet,
        driver_class=ConsoleDriver,
        depth=depth_of(os.environ),
    )
    asyncio.run(_run(app))
    return app.return_code or 0, app.failure


async def _run(app: ConsoleApp) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        # Ended from outside: no question, but in order.
        loop.add_signal_handler(number, app.stop)
    try:
        await app.run_async()
    finally:
        await app.finish()
