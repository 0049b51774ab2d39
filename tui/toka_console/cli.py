"""`toka-console`: shows a first picture at once, reads the command line, starts the app. Imports nothing before."""

from __future__ import annotations

import gc
import os
import sys

from toka_console import plain, skeleton

TYPE_CHECKING = False  # importing `typing` takes a third of the time to the first picture
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from toka_console.failure import Failure
    from toka_runtime.client.base import RuntimeClient

EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["keys"]:
        return _keys(argv[1:])
    asked = any(word in ("-h", "--help", "--version") for word in argv)
    # A closed descriptor has no stream at all.
    streams = (sys.stdin, sys.stdout)
    if asked or not all(stream is not None and stream.isatty() for stream in streams):  # pyright: ignore[reportUnnecessaryComparison] # None
        return _without_terminal(argv)
    plain.fit(sys.stdout)
    with skeleton.Terminal() as terminal:
        from toka_console import options

        try:
            parsed = options.parse(argv)
        except options.WrongUsage as error:
            terminal.leave()
            sys.stderr.write(str(error))
            return EXIT_USAGE
        code, failure = _run(parsed)
        terminal.give_back()
    if failure is not None:
        _report(failure)
    return code


def _keys(argv: Sequence[str]) -> int:
    from toka_console import key_listing, options

    try:
        return key_listing.main(argv)
    except options.WrongUsage as error:
        sys.stderr.write(str(error))
        return EXIT_USAGE
    except BrokenPipeError:
        # Whoever read it wants no more; the interpreter must not fail at its last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _without_terminal(argv: Sequence[str]) -> int:
    from toka_console import options

    try:
        options.parse(argv)
    except options.WrongUsage as error:
        sys.stderr.write(str(error))
    else:
        sys.stderr.write("toka-console: needs a terminal; toka-runtime run does the same work without one\n")
    return EXIT_USAGE


def _run(options: argparse.Namespace) -> tuple[int, Failure | None]:
    # Textual reads these when it is imported. A frame may follow an event after 4 ms; a lone Esc is known after 25.
    defaults = {"TEXTUAL_FPS": "250", "ESCDELAY": "25", "TEXTUAL_ANIMATIONS": "none"}
    added = [name for name, value in defaults.items() if os.environ.setdefault(name, value) is value]
    # Nothing is garbage yet; the app switches it on when it has started.
    gc.disable()
    from toka_console import launch

    for name in added:
        # Not for the children: agents get an environment of their own.
        os.environ.pop(name, None)

    async def open_client() -> RuntimeClient:
        import asyncio
        import importlib

        # Imported in a thread: it takes a while, and the screen is up already.
        if options.attach is not None:
            attached = await asyncio.to_thread(importlib.import_module, "toka_runtime.client.attached")
            return await attached.attach_unix(None if options.attach.name == "" else options.attach)

        from toka_runtime.client.arguments import local_arguments

        local = await asyncio.to_thread(importlib.import_module, "toka_runtime.client.local")
        return await local.open_local(local.LocalOptions(**local_arguments(options)))

    only_hosts = bool(options.hosts) and options.attach is None and not options.paths
    return launch.run(
        None if only_hosts else open_client,
        hosts=options.hosts,
        start_hosts=options.start,
        settings_file=options.config,
        start_fleet=not (options.no_start or only_hosts) and options.attach is None,
    )


def _report(failure: Failure) -> None:
    from toka_console.clean import clean_text, one_line

    sys.stderr.write(clean_text(failure.trace))
    sys.stderr.write(f"toka-console: {one_line(failure.message)} [{failure.code}]\n")
    if failure.hint:
        sys.stderr.write(f"  {one_line(failure.hint)}\n")


if __name__ == "__main__":
    sys.exit(main())
